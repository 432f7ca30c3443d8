//! What a model's replies must pass before a judge reads them, whatever their quality.

use super::era::Gates;
use super::rejection::{Rejection, RejectionCode};
use super::statistics::{count, wilson_95};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Words of a run that may repeat.
const GRAM_WORDS: usize = 8;

/// One reply, as the gates see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyText<'a> {
    /// The model's text; hostile.
    pub text: &'a str,
    /// The token cap cut it.
    pub cut: bool,
}

/// Counts of bad replies; they may overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCounts {
    /// All replies.
    pub replies: usize,
    /// Without text.
    pub empty: usize,
    /// Cut by the token cap.
    pub cut: usize,
    /// Size of the largest group of the same non-empty text; 0 when no two are the same.
    pub identical: usize,
    /// A repeated 8-gram of words covers more than half of the reply, or more than a fifth of its
    /// characters are no text.
    pub degenerate: usize,
    /// Refusals in an assistant's voice.
    #[serde(default)]
    pub refusals: usize,
}

/// What a judge's verdicts say about a model's replies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgedCounts {
    /// Judged items.
    pub items: usize,
    /// Items on which the judge says that the miner's reply speaks to it.
    pub addressing_judge: usize,
    /// Sum of the coherency criterion over the items, each 0 to 1.
    pub coherent: f64,
}

/// Counts what the gates look at.
#[must_use]
pub fn count_bad(replies: &[ReplyText<'_>]) -> GateCounts {
    let mut groups: HashMap<&str, usize> = HashMap::new();
    let mut counts = GateCounts {
        replies: replies.len(),
        ..GateCounts::default()
    };
    for reply in replies {
        let text = reply.text.trim();
        counts.cut += usize::from(reply.cut);
        counts.degenerate += usize::from(is_degenerate(text));
        counts.refusals += usize::from(refuses(text));
        if text.is_empty() {
            counts.empty += 1;
        } else {
            *groups.entry(text).or_default() += 1;
        }
    }
    // One reply repeats nothing, however few items there are.
    counts.identical = groups.into_values().filter(|n| *n > 1).max().unwrap_or(0);
    counts
}

/// Whether the counts pass. The token cap is looked at first: a model that never stops also repeats
/// itself, and its miner is told the cause.
///
/// # Errors
/// The [`Rejection`] of the first gate that fails.
pub fn check(counts: &GateCounts, gates: &Gates) -> Result<(), Rejection> {
    let table = [
        (
            counts.cut,
            gates.cut_max,
            RejectionCode::NeverStops,
            "were cut at the token cap",
        ),
        (
            counts.empty,
            gates.empty_max,
            RejectionCode::EmptyReplies,
            "were empty",
        ),
        (
            counts.identical,
            gates.identical_max,
            RejectionCode::DegenerateReplies,
            "were one and the same text",
        ),
        (
            counts.degenerate,
            gates.degenerate_max,
            RejectionCode::DegenerateReplies,
            "repeated themselves over more than half of their length or were no text",
        ),
        (
            counts.refusals,
            gates.refusals_max,
            RejectionCode::Refusals,
            "refused in an assistant's voice",
        ),
    ];
    for (bad, limit, code, what) in table {
        if count(bad) > limit * count(counts.replies) {
            let of = counts.replies;
            let percent = limit * 100.0;
            let detail = format!("{bad} of {of} replies {what}; {percent:.1} % are accepted.");
            return Err(Rejection::new(code, detail));
        }
    }
    Ok(())
}

/// Whether what the judge said passes.
///
/// # Errors
/// The [`Rejection`] of the first gate that fails.
pub fn check_judged(counts: &JudgedCounts, gates: &Gates) -> Result<(), Rejection> {
    let (items, bad) = (counts.items, counts.addressing_judge);
    if count(bad) > gates.addressing_judge_max * count(items) {
        let percent = gates.addressing_judge_max * 100.0;
        let detail =
            format!("{bad} of {items} replies speak to the judge; {percent:.1} % are accepted.");
        return Err(Rejection::new(RejectionCode::JudgeHacking, detail));
    }
    let (low, high) = wilson_95(counts.coherent, items);
    // Judged by the end of the interval that the gate names, but only where it can be known.
    if items > 0 && low < gates.coherency_min {
        let detail = format!(
            "coherency lies within {low:.3} and {high:.3} over {items} items; at least {:.3} is needed.",
            gates.coherency_min
        );
        return Err(Rejection::new(RejectionCode::Incoherent, detail));
    }
    Ok(())
}

/// Beginnings of a reply in which an assistant declines; a character's "I can't" is none of them.
const REFUSALS: [&str; 10] = [
    "as an ai",
    "as a language model",
    "i can't assist with",
    "i cannot assist with",
    "i can't help with that request",
    "i'm unable to assist",
    "i cannot fulfill",
    "i can't fulfill",
    "i can't engage in",
    "against my guidelines",
];
/// Characters of a reply in which a refusal is looked for.
const REFUSAL_CHARS: usize = 200;

fn refuses(text: &str) -> bool {
    let lower = |c: char| {
        if c == '’' {
            '\''
        } else {
            c.to_ascii_lowercase()
        }
    };
    let start: String = text.chars().take(REFUSAL_CHARS).map(lower).collect();
    REFUSALS.iter().any(|phrase| start.contains(phrase))
}

fn is_degenerate(text: &str) -> bool {
    repeats(text) || is_no_text(text)
}

/// Whether more than a fifth of the characters are neither letters nor what stands between words.
fn is_no_text(text: &str) -> bool {
    let is_mark = |c: char| c.is_whitespace() || c.is_ascii_punctuation() || "’‘“”„…–—".contains(c);
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    let other = text
        .chars()
        .filter(|c| !c.is_alphabetic() && !is_mark(*c))
        .count();
    !text.is_empty() && (letters == 0 || other * 5 > letters + other)
}

/// Whether runs of [`GRAM_WORDS`] words that occur more than once cover more than half of the words.
fn repeats(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut seen: HashMap<&[&str], usize> = HashMap::new();
    for gram in words.windows(GRAM_WORDS) {
        *seen.entry(gram).or_default() += 1;
    }
    let mut covered = 0;
    let mut covered_to = 0;
    for (start, gram) in words.windows(GRAM_WORDS).enumerate() {
        if seen[gram] > 1 {
            let end = start + GRAM_WORDS;
            covered += end - start.max(covered_to);
            covered_to = end;
        }
    }
    covered * 2 > words.len()
}

#[cfg(test)]
mod tests;
