//! Why a job ended without replies.

use assay_protocol::{ErrorDetail, ResultCode};
use std::fmt;

/// Longest message in a result, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// A failed job: a code that tells whose fault it is, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    /// Decides class, status and exit code.
    pub code: ResultCode,
    /// What happened, to what. May quote names that the miner chose.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: ResultCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    /// The failure as a result carries it: bounded, without control characters.
    #[must_use]
    pub fn detail(&self) -> ErrorDetail {
        let printable = self.message.chars().filter(|c| !c.is_control());
        ErrorDetail {
            code: self.code,
            message: printable.take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}

/// Names the code at the place where a foreign error becomes a failure.
pub(crate) trait OrFailure<T> {
    /// `what` says what was being done, to what.
    fn or_failure(self, code: ResultCode, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFailure<T> for Result<T, E> {
    fn or_failure(self, code: ResultCode, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|err| Failure::new(code, format_args!("{what}: {err}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_message_is_cut_and_cleaned() {
        let failure = Failure::new(ResultCode::Format, "a\u{1b}[31m\nb".repeat(200));
        let message = failure.detail().message;
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX);
        assert!(message.starts_with("a[31mba[31mb"));
    }
}
