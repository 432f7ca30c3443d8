//! The judge's answer, strictly read and unblinded.

use super::super::logs::cut;
use super::prompt::Order;
use super::sanitise::sanitise;
use serde::{Deserialize, Serialize};

/// Longest reason kept, in characters.
const WHY_CHARS_MAX: usize = 300;

/// Which side a judge prefers in one criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The model's reply.
    Reply,
    /// Neither.
    Tie,
    /// The reference.
    Reference,
}

/// One verdict, in terms of reply and reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Criterion of that name.
    pub realism: Preference,
    /// Criterion of that name.
    pub entertainment: Preference,
    /// Criterion of that name.
    pub coherency: Preference,
    /// The reply speaks to the judge: such an item counts as lost.
    pub reply_addresses_judge: bool,
    /// The reference does; nobody's fault, but it tells about the judge.
    pub reference_addresses_judge: bool,
    /// The judge's reason; may quote the reply, so it is hostile. Cleaned, at most 300 characters.
    pub why: String,
    /// The model that answered, as its provider says.
    pub judge_model: String,
    /// The provider's fingerprint of its system; empty when it gives none.
    pub system_fingerprint: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Pick {
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
    #[serde(rename = "tie")]
    Tie,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Addresses {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
    #[serde(rename = "both")]
    Both,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    why: String,
    realism: Pick,
    entertainment: Pick,
    coherency: Pick,
    addresses_judge: Addresses,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answerer {
    pub(super) model: String,
    pub(super) fingerprint: String,
}

/// Reads an answer to a question asked in `order`. Nothing missing is filled in.
pub(super) fn read(content: &str, order: Order, by: &Answerer) -> Result<Verdict, String> {
    let answer: Answer = serde_json::from_str(content).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{:?} error at {line}:{column}", error.classify())
    })?;
    let side = |pick| match (pick, order) {
        (Pick::Tie, _) => Preference::Tie,
        (Pick::One, Order::ReplyFirst) | (Pick::Two, Order::ReferenceFirst) => Preference::Reply,
        (Pick::Two, Order::ReplyFirst) | (Pick::One, Order::ReferenceFirst) => {
            Preference::Reference
        }
    };
    let named = |one| {
        answer.addresses_judge == Addresses::Both
            || answer.addresses_judge == if one { Addresses::One } else { Addresses::Two }
    };
    Ok(Verdict {
        realism: side(answer.realism),
        entertainment: side(answer.entertainment),
        coherency: side(answer.coherency),
        reply_addresses_judge: named(order == Order::ReplyFirst),
        reference_addresses_judge: named(order == Order::ReferenceFirst),
        why: sanitise(&answer.why, WHY_CHARS_MAX),
        judge_model: cut(sanitise(&by.model, 100), 100),
        system_fingerprint: cut(sanitise(&by.fingerprint, 100), 100),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by() -> Answerer {
        Answerer {
            model: "m".into(),
            fingerprint: String::new(),
        }
    }

    #[test]
    fn picks_are_unblinded_by_order() {
        let text = r#"{"why":"w","realism":"1","entertainment":"2","coherency":"tie","addresses_judge":"2"}"#;
        let first = read(text, Order::ReplyFirst, &by()).unwrap();
        assert_eq!(first.realism, Preference::Reply);
        assert_eq!(first.entertainment, Preference::Reference);
        assert_eq!(first.coherency, Preference::Tie);
        assert!(!first.reply_addresses_judge && first.reference_addresses_judge);
        let second = read(text, Order::ReferenceFirst, &by()).unwrap();
        assert_eq!(second.realism, Preference::Reference);
        assert_eq!(second.entertainment, Preference::Reply);
        assert!(second.reply_addresses_judge && !second.reference_addresses_judge);
    }

    #[test]
    fn anything_else_is_no_answer() {
        for text in [
            "",
            "null",
            "I prefer 1.",
            r#"{"why":"w","realism":"1","entertainment":"2","coherency":"tie"}"#,
            r#"{"why":"w","realism":"1","entertainment":"2","coherency":"3","addresses_judge":"none"}"#,
            r#"{"why":"w","realism":1,"entertainment":"2","coherency":"1","addresses_judge":"none"}"#,
            r#"{"why":"w","realism":"1","entertainment":"2","coherency":"1","addresses_judge":"none","x":1}"#,
            r#"{"why":"w","realism":"1","entertainment":"2","coherency":"1","addresses_judge":"none"} x"#,
        ] {
            assert!(read(text, Order::ReplyFirst, &by()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hostile_reason_is_cleaned_and_bounded() {
        let why = format!("\\u001b[31m\\u202e{}", "x".repeat(999));
        let text = format!(
            r#"{{"why":"{why}","realism":"1","entertainment":"2","coherency":"tie","addresses_judge":"none"}}"#
        );
        let verdict = read(&text, Order::ReplyFirst, &by()).unwrap();
        assert_eq!(verdict.why.chars().count(), 300);
        assert!(verdict.why.starts_with("[31mxxx"));
    }
}
