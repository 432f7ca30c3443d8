//! Verdicts about a miner's submission, each with a stable code and a sentence that says what to do.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! rejection_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal: $advice:literal,)*) => {
        /// Stable code of a rejection. Codes are never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum RejectionCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl RejectionCode {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as stored and shown.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the miner can do about it, one sentence.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

rejection_codes! {
    /// The commitment is not text.
    CommitmentUnreadable = "COMMITMENT_UNREADABLE":
        "Commit one raw text field with `assay commit`.",
    /// Neither of the two known texts.
    CommitmentMalformed = "COMMITMENT_MALFORMED":
        "Commit `2:namespace/name:<40-hex revision>:template:competition`, at most 128 bytes.",
    /// The origin's text carries a hash that does not fit its own fields.
    CommitmentHash = "COMMITMENT_HASH":
        "Recompute the hash from namespace, name, template and your hotkey, then commit again.",
    /// The text names another hotkey than its signer.
    HotkeyMismatch = "HOTKEY_MISMATCH":
        "Commit with the hotkey that the text names.",
    /// The hotkey is not registered on the subnet.
    NotRegistered = "NOT_REGISTERED":
        "Register the hotkey on the subnet, then commit again.",
    /// The commitment is older than the hotkey's present registration.
    CommittedBeforeRegistration = "COMMITTED_BEFORE_REGISTRATION":
        "Commit again: this commitment is from before your present registration.",
    /// The commitment is older than the era accepts.
    CommittedBeforeEra = "COMMITTED_BEFORE_ERA":
        "Commit again: this era accepts commitments from its first block on.",
    /// Another competition.
    CompetitionUnknown = "COMPETITION_UNKNOWN":
        "Name a competition that the present era offers.",
    /// No template of that name.
    TemplateUnknown = "TEMPLATE_UNKNOWN":
        "Use one of the named chat templates.",
    /// The repository or revision is not publicly there.
    RepoUnavailable = "REPO_UNAVAILABLE":
        "Make the repository public and keep the committed revision available.",
    /// Weights in a format other than safetensors, or none.
    NotSafetensors = "NOT_SAFETENSORS":
        "Publish the weights as safetensors at the top of the repository.",
    /// A needed file is missing.
    FileMissing = "FILE_MISSING":
        "Publish config.json, tokenizer.json and the weights at the committed revision.",
    /// A file name that is not accepted.
    FileName = "FILE_NAME":
        "Use plain file names without folders, as the model libraries write them.",
    /// Larger than the era allows.
    TooLarge = "TOO_LARGE":
        "Publish a model within the size limits of the era.",
    /// Smaller than the era allows.
    TooSmall = "TOO_SMALL":
        "Publish a model within the size limits of the era.",
    /// The same weights as an earlier commitment.
    Duplicate = "DUPLICATE":
        "Train a model of your own: an earlier commitment already holds these weights.",
    /// A file's content differs from its published digest, at the pinned revision.
    DigestMismatch = "DIGEST_MISMATCH":
        "Upload the file again: its content differs from the digest that the hub publishes.",
    /// A malformed weights file.
    Format = "FORMAT":
        "Save the weights again with a current safetensors library.",
    /// NaN or infinite values.
    NonFinite = "NON_FINITE":
        "Remove the NaN or infinite values from the weights.",
    /// `config.json` outside the accepted ranges.
    ConfigInvalid = "CONFIG_INVALID":
        "Use a plain configuration of an accepted architecture.",
    /// The architecture is not accepted.
    ArchitectureUnknown = "ARCHITECTURE_UNKNOWN":
        "Use one of the architectures that the era accepts.",
    /// Tensor names or shapes do not follow from `config.json`.
    TensorSet = "TENSOR_SET":
        "Publish exactly the tensors that the architecture has, in the shapes of config.json.",
    /// The tokenizer cannot be used.
    TokenizerInvalid = "TOKENIZER_INVALID":
        "Publish a tokenizer.json that fits the model's vocabulary.",
    /// Fails to load or run, confirmed beside a control model.
    DoesNotRun = "DOES_NOT_RUN":
        "Load the model with a current inference engine and mend what fails.",
    /// Too many replies that never end.
    NeverStops = "NEVER_STOPS":
        "Train the model to end its replies: too many were cut at the token cap.",
    /// Too many empty replies.
    EmptyReplies = "EMPTY_REPLIES":
        "Train the model to answer: too many replies were empty.",
    /// Replies that repeat themselves or are the same for all items.
    DegenerateReplies = "DEGENERATE_REPLIES":
        "Train the model to answer each conversation: too many replies repeat.",
    /// Too many refusals in an assistant's voice.
    Refusals = "REFUSALS":
        "Train the model to stay in its role: too many replies refuse to answer.",
    /// Replies that speak to the judge, or that win under conversations they do not belong to.
    JudgeHacking = "JUDGE_HACKING":
        "Train the model to answer the user: its replies work on the judge instead.",
    /// Replies that do not fit their conversations.
    Incoherent = "INCOHERENT":
        "Train the model to follow the conversation: its replies rarely fit.",
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for RejectionCode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|code| code.as_str() == text);
        known
            .copied()
            .ok_or_else(|| format!("{text:?} is no rejection code"))
    }
}

/// A verdict: this submission is not accepted, by the miner's own fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Stable code.
    pub code: RejectionCode,
    /// What exactly was found, one sentence; may quote the miner's text, so it is hostile.
    pub detail: String,
}

impl Rejection {
    /// A verdict with its particular finding. Control characters are replaced and the text is cut
    /// at 300 characters.
    pub fn new(code: RejectionCode, detail: impl fmt::Display) -> Self {
        let clean = detail.to_string();
        let detail = clean
            .chars()
            .take(300)
            .map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Self {
            code,
            detail: detail.collect(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.code, self.detail, self.code.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        let mut seen = std::collections::HashSet::new();
        for code in RejectionCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(code.advice().ends_with('.'));
        }
    }

    #[test]
    fn hostile_detail_is_cleaned_and_bounded() {
        let rejection = Rejection::new(
            RejectionCode::Format,
            format!("a\u{1b}[31m{}", "x".repeat(999)),
        );
        assert_eq!(rejection.detail.chars().count(), 300);
        assert!(!rejection.detail.contains('\u{1b}'));
    }
}
