//! `tokenizer.json`: bounded by our own reading first, then loaded by the library.

use super::{json, reject, template};
use crate::incentive::eligibility::TOKENIZER_BYTES_MAX;
use crate::incentive::{Rejection, RejectionCode, Template};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Most added tokens.
const ADDED_TOKENS_MAX: usize = 2048;
/// Longest added token in characters.
const ADDED_CHARS_MAX: usize = 64;
/// Longest regular expression in bytes.
const REGEX_BYTES_MAX: usize = 1024;

/// Kinds of normalisers, pre-tokenisers, post-processors and decoders that are accepted.
const PARTS: [&str; 26] = [
    "BPEDecoder",
    "ByteFallback",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "Fuse",
    "Lowercase",
    "Metaspace",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Prepend",
    "Punctuation",
    "Replace",
    "Sequence",
    "Split",
    "Strip",
    "StripAccents",
    "TemplateProcessing",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
    "RobertaProcessing",
    "BertPreTokenizer",
];

/// What a job needs to know about the tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenizerFacts {
    /// Id of the token that ends a turn in the chat template, where the tokenizer has it.
    pub(super) template_end_id: Option<u32>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct BpeFile {
    model: Bpe,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct UnigramFile {
    model: Unigram,
}

#[derive(Deserialize)]
struct Unigram {
    vocab: Vec<(IgnoredAny, IgnoredAny)>,
}

/// Checks a tokenizer against the model's vocabulary.
pub(super) fn check(
    text: &[u8],
    vocab_size: u64,
    template: Template,
) -> Result<TokenizerFacts, Rejection> {
    json::bounded(text, TOKENIZER_BYTES_MAX).map_err(|what| bad(format!("The file {what}.")))?;
    let raw: Raw = read(text)?;
    check_added(&raw.added_tokens)?;
    let parts = [
        &raw.normalizer,
        &raw.pre_tokenizer,
        &raw.post_processor,
        &raw.decoder,
    ];
    for part in parts.into_iter().flatten() {
        check_part(part)?;
    }
    check_ids(text, &raw, vocab_size)?;
    let tokenizer = load(text)?;
    let moved = raw
        .added_tokens
        .iter()
        .find(|t| tokenizer.token_to_id(&t.content) != Some(t.id));
    if let Some(token) = moved {
        let detail = format!(
            "Added token {:?} does not load with its id {}.",
            token.content, token.id
        );
        return Err(bad(detail));
    }
    let end = template::end_token(template);
    Ok(TokenizerFacts {
        template_end_id: end.and_then(|token| tokenizer.token_to_id(token)),
    })
}

fn bad(detail: impl std::fmt::Display) -> Rejection {
    reject(
        RejectionCode::TokenizerInvalid,
        format!("tokenizer.json: {detail}"),
    )
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Rejection> {
    serde_json::from_slice(text).map_err(|e| bad(format!("Not of the known form: {e}.")))
}

/// Special tokens are text that the miner chooses: few, short, and printable.
fn check_added(tokens: &[AddedToken]) -> Result<(), Rejection> {
    if tokens.len() > ADDED_TOKENS_MAX {
        let detail = format!(
            "{} added tokens; {ADDED_TOKENS_MAX} are accepted.",
            tokens.len()
        );
        return Err(bad(detail));
    }
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let odd = tokens.iter().find(|t| {
        t.content.is_empty()
            || t.content.chars().count() > ADDED_CHARS_MAX
            || !t.content.chars().all(printable)
    });
    match odd {
        Some(token) => {
            let start: String = token.content.chars().take(32).collect();
            let detail = format!(
                "Added token {start:?} is not 1 to {ADDED_CHARS_MAX} printable characters."
            );
            Err(bad(detail))
        }
        None => Ok(()),
    }
}

/// Every `type` below is of an accepted kind, every regular expression short.
fn check_part(part: &Value) -> Result<(), Rejection> {
    match part {
        Value::Object(keys) => {
            if let Some(kind) = keys.get("type").and_then(Value::as_str)
                && !PARTS.contains(&kind)
            {
                let shown: String = kind.chars().take(32).collect();
                return Err(bad(format!("The part {shown:?} is not accepted.")));
            }
            if let Some(regex) = keys.get("Regex").and_then(Value::as_str)
                && regex.len() > REGEX_BYTES_MAX
            {
                let detail = format!("A regular expression has {} bytes.", regex.len());
                return Err(bad(detail));
            }
            keys.values().try_for_each(check_part)
        }
        Value::Array(items) => items.iter().try_for_each(check_part),
        _ => Ok(()),
    }
}

/// Ids run from 0 without gap and stay below the model's vocabulary.
fn check_ids(text: &[u8], raw: &Raw, vocab_size: u64) -> Result<(), Rejection> {
    let mut ids: BTreeSet<u32> = raw.added_tokens.iter().map(|t| t.id).collect();
    match raw.model.r#type.as_str() {
        "BPE" => {
            let vocab = read::<BpeFile>(text)?.model.vocab;
            let before = vocab.len();
            let own: BTreeSet<u32> = vocab.into_values().collect();
            if own.len() != before {
                return Err(bad("Two tokens share an id."));
            }
            ids.extend(own);
        }
        "Unigram" => {
            let pieces = read::<UnigramFile>(text)?.model.vocab;
            ids.extend((0u32..).take(pieces.len()));
        }
        other => {
            let shown: String = other.chars().take(32).collect();
            return Err(bad(format!(
                "The model {shown:?} is neither BPE nor Unigram."
            )));
        }
    }
    let last = ids.last().copied().unwrap_or_default();
    if usize::try_from(last).ok() != ids.len().checked_sub(1) {
        return Err(bad(format!(
            "{} ids do not run from 0 to {last} without gap.",
            ids.len()
        )));
    }
    if u64::from(last) >= vocab_size {
        return Err(bad(format!(
            "Id {last} is outside the model's vocabulary of {vocab_size}."
        )));
    }
    Ok(())
}

/// Loads with the library. A panic in there is the file's doing and ends in a verdict.
fn load(text: &[u8]) -> Result<tokenizers::Tokenizer, Rejection> {
    let loaded = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(text));
    match loaded {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(bad(format!("It does not load: {error}."))),
        Err(_) => Err(bad("It makes the tokenizer library panic.")),
    }
}

#[cfg(test)]
mod tests;
