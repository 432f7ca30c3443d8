//! `tokenizer.json`: bounded by our own reading first, then loaded by the library.

use super::{json, reject, template};
use crate::incentive::eligibility::TOKENIZER_BYTES_MAX;
use crate::incentive::{Rejection, RejectionCode, Template};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

mod ordinary;

/// Most added tokens.
const ADDED_TOKENS_MAX: usize = 2048;
/// Longest added token in characters.
const ADDED_CHARS_MAX: usize = 64;
/// Longest regular expression in bytes.
const REGEX_BYTES_MAX: usize = 1024;

/// Most parts of all kinds together.
const PARTS_MAX: usize = 64;
/// Most parts that may put more in place of what they find.
const GROWING_MAX: usize = 4;
/// Longest list within a part.
const LIST_MAX: usize = 256;

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
pub struct TokenizerFacts {
    /// Id of the token that ends a turn in the chat template, where the tokenizer has it.
    pub template_end_id: Option<u32>,
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
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
struct UnigramFile {
    model: Unigram,
}

#[derive(Deserialize)]
struct Unigram {
    vocab: Vec<(IgnoredAny, IgnoredAny)>,
}

/// Checks a `tokenizer.json` against the model's vocabulary, and how it treats ordinary text.
///
/// # Errors
/// A [`Rejection`] that names the first violation.
pub fn check(
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
    let mut seen = Parts::default();
    for part in parts.into_iter().flatten() {
        seen.check(part)?;
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
    let added = raw.added_tokens.iter().map(|t| t.id).collect();
    guarded(|| ordinary::check(&tokenizer, &added))??;
    Ok(TokenizerFacts {
        template_end_id: tokenizer.token_to_id(template::end_token(template)),
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

/// Special tokens are text that the miner chooses: few, short, printable, and no prose.
fn check_added(tokens: &[AddedToken]) -> Result<(), Rejection> {
    if tokens.len() > ADDED_TOKENS_MAX {
        let detail = format!(
            "{} added tokens; {ADDED_TOKENS_MAX} are accepted.",
            tokens.len()
        );
        return Err(bad(detail));
    }
    let shown = |token: &AddedToken| token.content.chars().take(32).collect::<String>();
    if let Some(token) = tokens.iter().find(|t| !is_short(&t.content)) {
        let start = shown(token);
        let detail =
            format!("Added token {start:?} is not 1 to {ADDED_CHARS_MAX} printable characters.");
        return Err(bad(detail));
    }
    match tokens.iter().find(|t| is_prose(&t.content)) {
        Some(token) => {
            let start = shown(token);
            Err(bad(format!(
                "Added token {start:?} is ordinary text, not a control token."
            )))
        }
        None => Ok(()),
    }
}

fn is_short(text: &str) -> bool {
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    !text.is_empty() && text.chars().count() <= ADDED_CHARS_MAX && text.chars().all(printable)
}

/// Words with white space between them, whatever stands around them, or a bare word.
fn is_prose(text: &str) -> bool {
    let text = text.trim();
    text.contains(char::is_whitespace)
        || (text.chars().count() > 1 && text.chars().all(char::is_alphabetic))
}

/// What the parts of a tokenizer hold together; small in every tokenizer in use, and what could
/// multiply a text grows with each.
#[derive(Default)]
struct Parts {
    all: usize,
    /// Parts that may put more text or tokens in place of what they find.
    growing: usize,
}

impl Parts {
    /// Every `type` below is of an accepted kind, every regular expression short, and nothing makes
    /// a long text of a short one.
    fn check(&mut self, part: &Value) -> Result<(), Rejection> {
        match part {
            Value::Object(keys) => {
                if let Some(kind) = keys.get("type").and_then(Value::as_str) {
                    self.check_kind(kind, keys)?;
                }
                if let Some(regex) = keys.get("Regex").and_then(Value::as_str)
                    && regex.len() > REGEX_BYTES_MAX
                {
                    let detail = format!("A regular expression has {} bytes.", regex.len());
                    return Err(bad(detail));
                }
                keys.values().try_for_each(|value| self.check(value))
            }
            Value::Array(items) if items.len() > LIST_MAX => Err(bad(format!(
                "A part holds a list of {} entries; {LIST_MAX} are accepted.",
                items.len()
            ))),
            Value::Array(items) => items.iter().try_for_each(|item| self.check(item)),
            _ => Ok(()),
        }
    }

    fn check_kind(&mut self, kind: &str, keys: &Map<String, Value>) -> Result<(), Rejection> {
        if !PARTS.contains(&kind) {
            let shown: String = kind.chars().take(32).collect();
            return Err(bad(format!("The part {shown:?} is not accepted.")));
        }
        self.all += 1;
        let text = |key: &str| keys.get(key).and_then(Value::as_str).unwrap_or_default();
        let chars = |text: &str| text.chars().count();
        match kind {
            "Replace" => {
                let found = keys.get("pattern").and_then(|p| p.get("String"));
                let found = found.and_then(Value::as_str).map_or(1, chars);
                if chars(text("content")) > found.max(1) {
                    return Err(bad("A part replaces text by longer text."));
                }
                self.growing += usize::from(keys.get("pattern").is_some_and(is_regex));
            }
            "Prepend" if chars(text("prepend")) > ADDED_CHARS_MAX => {
                return Err(bad("A part puts a long text in front."));
            }
            "TemplateProcessing" => self.growing += 1,
            _ => {}
        }
        if self.all > PARTS_MAX || self.growing > GROWING_MAX {
            return Err(bad("It consists of too many parts."));
        }
        Ok(())
    }
}

fn is_regex(pattern: &Value) -> bool {
    pattern.get("Regex").is_some()
}

/// Ids run from 0 without gap and stay below the model's vocabulary.
fn check_ids(text: &[u8], raw: &Raw, vocab_size: u64) -> Result<(), Rejection> {
    let mut ids: BTreeSet<u32> = raw.added_tokens.iter().map(|t| t.id).collect();
    match raw.model.r#type.as_str() {
        "BPE" => {
            let Bpe {
                vocab,
                continuing_subword_prefix,
                end_of_word_suffix,
            } = read::<BpeFile>(text)?.model;
            let marks = [continuing_subword_prefix, end_of_word_suffix];
            if marks
                .iter()
                .flatten()
                .any(|mark| mark.len() > ADDED_CHARS_MAX)
            {
                return Err(bad("Its marks of word parts are too long."));
            }
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

fn load(text: &[u8]) -> Result<tokenizers::Tokenizer, Rejection> {
    guarded(|| tokenizers::Tokenizer::from_bytes(text))?
        .map_err(|error| bad(format!("It does not load: {error}.")))
}

/// Calls the library. A panic in there is the file's doing and ends in a verdict.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Rejection> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .map_err(|_| bad("It makes the tokenizer library panic."))
}

#[cfg(test)]
mod tests;
