//! How a tokenizer treats ordinary text. Tricks with the vocabulary show here: text as a control
//! token, whole sentences as one token, text that does not come back, patterns that take ages.

use super::bad;
use crate::incentive::Rejection;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokenizers::Tokenizer;

/// Sentences of many kinds, one a line, written for this purpose; about a thousand words.
const SAMPLE: &str = include_str!("sample.txt");
/// Longest time for the whole sample. An honest tokenizer takes a few milliseconds.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Accepted tokens for each byte of the sample.
const TOKENS_PER_BYTE: (f64, f64) = (0.15, 0.6);
/// From this vocabulary on the upper bound holds; smaller ones fall back to bytes.
const LARGE_VOCABULARY: usize = 16_384;

/// Encodes the sample and decodes it again.
pub(super) fn check(tokenizer: &Tokenizer, added: &HashSet<u32>) -> Result<(), Rejection> {
    let begun = Instant::now();
    let (mut tokens, mut bytes) = (0u32, 0u32);
    for line in SAMPLE.lines() {
        tokens += check_line(tokenizer, added, line)?;
        bytes += u32::try_from(line.len()).unwrap_or(u32::MAX);
        if begun.elapsed() > TIME_MAX {
            return Err(bad(format!(
                "It takes more than {} s for a page of text.",
                TIME_MAX.as_secs()
            )));
        }
    }
    let rate = f64::from(tokens) / f64::from(bytes);
    let (low, mut high) = TOKENS_PER_BYTE;
    if tokenizer.get_vocab_size(true) < LARGE_VOCABULARY {
        high = 1.05;
    }
    if (low..=high).contains(&rate) {
        return Ok(());
    }
    Err(bad(format!(
        "It makes {rate:.3} tokens of a byte of ordinary text; {low} to {high} are accepted."
    )))
}

/// Number of tokens of one line.
fn check_line(tokenizer: &Tokenizer, added: &HashSet<u32>, line: &str) -> Result<u32, Rejection> {
    let failed = |e: tokenizers::Error| bad(format!("It fails on ordinary text: {e}."));
    let encoding = tokenizer.encode_fast(line, false).map_err(failed)?;
    let ids = encoding.get_ids();
    if let Some(id) = ids.iter().find(|id| added.contains(id)) {
        return Err(bad(format!(
            "Added token {id} takes part in ordinary text; added tokens are for control only."
        )));
    }
    let back = tokenizer.decode(ids, false).map_err(failed)?;
    // Some families put a space in front.
    if back.trim_start() != line {
        let start: String = back.chars().take(60).collect();
        return Err(bad(format!(
            "Ordinary text comes back changed, as {start:?}."
        )));
    }
    Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
}
