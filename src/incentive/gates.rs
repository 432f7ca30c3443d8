//! What a model's replies must pass before a judge reads them, whatever their quality.

use super::era::Gates;
use super::rejection::{Rejection, RejectionCode};
use super::score::count;
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
    /// A repeated 8-gram of words covers more than half of the reply.
    pub degenerate: usize,
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
            "repeated themselves over more than half of their length",
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

/// Whether runs of [`GRAM_WORDS`] words that occur more than once cover more than half of the words.
fn is_degenerate(text: &str) -> bool {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: [&str; 3] = [
        "The lantern hums and the old captain looks up from his maps with a tired smile.",
        "No. Not tonight.",
        "She laughs, and laughs again, and then she tells you where the key was hidden.",
    ];

    fn reply(text: &str) -> ReplyText<'_> {
        ReplyText { text, cut: false }
    }

    fn code_of(replies: &[ReplyText<'_>]) -> Option<RejectionCode> {
        check(&count_bad(replies), &Gates::default())
            .err()
            .map(|r| r.code)
    }

    #[test]
    fn honest_replies_pass() {
        assert_eq!(code_of(&GOOD.map(reply)), None);
        assert_eq!(code_of(&[reply("Only one.")]), None);
    }

    #[test]
    fn each_gate_has_its_limit() {
        let texts: Vec<String> = (0..100)
            .map(|i| format!("Reply number {i} of many."))
            .collect();
        let base: Vec<_> = texts.iter().map(|t| reply(t)).collect();
        let loops = "and so on and so on and so on and so on and so on and so on";
        let with = |bad: usize, change: &dyn Fn(&mut ReplyText<'_>)| {
            let mut replies = base.clone();
            replies.iter_mut().take(bad).for_each(change);
            code_of(&replies)
        };
        let empty = |r: &mut ReplyText<'_>| r.text = " \n\t";
        let cut = |r: &mut ReplyText<'_>| r.cut = true;
        let same = |r: &mut ReplyText<'_>| r.text = "As an assistant I agree.";
        assert_eq!(with(2, &empty), None);
        assert_eq!(with(3, &empty), Some(RejectionCode::EmptyReplies));
        assert_eq!(with(20, &cut), None);
        assert_eq!(with(21, &cut), Some(RejectionCode::NeverStops));
        assert_eq!(with(5, &same), None);
        assert_eq!(with(6, &same), Some(RejectionCode::DegenerateReplies));
        let looping: Vec<String> = (0..100).map(|i| format!("{i} {loops}")).collect();
        let mut replies = base.clone();
        (0..5).for_each(|i| replies[i] = reply(&looping[i]));
        assert_eq!(code_of(&replies), None);
        replies[5] = reply(&looping[5]);
        assert_eq!(code_of(&replies), Some(RejectionCode::DegenerateReplies));
    }

    #[test]
    fn a_run_that_repeats_over_half_the_text_is_degenerate() {
        let gram = "one two three four five six seven eight";
        let tail = "a b c d e f g h i j k l m n o";
        assert!(is_degenerate(&format!("{gram} {gram} {tail}")));
        // 16 of 32 words are covered: not more than half.
        assert!(!is_degenerate(&format!("{gram} {gram} {tail} p")));
        assert!(!is_degenerate(gram));
        assert!(is_degenerate(&"ha ".repeat(40)));
        assert!(!is_degenerate(""));
        GOOD.iter().for_each(|t| assert!(!is_degenerate(t)));
    }

    proptest! {
        #[test]
        fn any_text_is_counted(texts in prop::collection::vec("[\\PC ]{0,80}", 0..20)) {
            let replies: Vec<_> = texts.iter().map(|t| reply(t)).collect();
            let counts = count_bad(&replies);
            prop_assert!(counts.identical <= counts.replies);
            let _ = check(&counts, &Gates::default());
        }
    }
}
