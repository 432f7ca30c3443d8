//! Why there is no verdict. All are faults of ours or the provider's, never a loss for a miner.

use crate::fault::{Fault, Party};
use std::time::Duration;

/// Why a call or a batch gave no verdict; a variant for each decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// The settings cannot work.
    #[error("the judge cannot be used: {0}")]
    Settings(String),
    /// The key is missing, wrong or lacks the right.
    #[error("the judge does not accept the API key (status {0}); renew it")]
    Key(u16),
    /// The account is out of credit.
    #[error("the judge's account is out of credit; top it up")]
    Credit,
    /// The endpoint does not accept the request.
    #[error("the judge refuses the request (status {status}): {message}; check model and base URL")]
    Request {
        /// HTTP status.
        status: u16,
        /// The provider's words, cleaned.
        message: String,
    },
    /// Too many requests.
    #[error("the judge asks for fewer calls; lower requests_per_minute or concurrency")]
    Throttled(Option<Duration>),
    /// The endpoint fails or cannot be reached.
    #[error("the judge is not available: {0}")]
    Unavailable(String),
    /// No answer within the deadline.
    #[error("the judge did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The model declined to judge.
    #[error("the judge declined to answer")]
    Declined,
    /// The answer does not have the asked form.
    #[error("the judge's answer cannot be read: {0}")]
    Answer(String),
    /// The day's money is spent.
    #[error(
        "judging would exceed the daily limit of {:.2} USD; it goes on at 00:00 UTC, or raise \
         judge.daily_spend_usd",
        usd(*.cap_micro_usd)
    )]
    SpendCap {
        /// The limit in millionths of a US dollar.
        cap_micro_usd: u64,
    },
    /// The batch was told to stop.
    #[error("judging was interrupted; the verdicts so far are kept")]
    Interrupted,
    /// Nobody takes the fresh verdicts.
    #[error("judging stopped, because its verdicts are no longer stored")]
    NotStored,
    /// A verdict was asked for and is not there; a bug.
    #[error("a verdict was asked for and lost")]
    Lost,
}

fn usd(micro: u64) -> f64 {
    micro as f64 / 1e6
}

impl JudgeError {
    /// Whether the same call may succeed within minutes and without a person's help.
    #[must_use]
    pub fn passes(&self) -> bool {
        !matches!(
            self,
            Self::Settings(_)
                | Self::Key(_)
                | Self::Credit
                | Self::Request { .. }
                | Self::SpendCap { .. }
                | Self::Lost
        )
    }

    /// Whether the answer came but was of no use: trouble with the question rather than with the
    /// provider.
    #[must_use]
    pub fn is_poor_answer(&self) -> bool {
        matches!(self, Self::Declined | Self::Answer(_))
    }

    /// Stable code, `UPPER_SNAKE`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) => "JUDGE_SETTINGS",
            Self::Key(_) => "JUDGE_KEY",
            Self::Credit => "JUDGE_CREDIT",
            Self::Request { .. } => "JUDGE_REQUEST",
            Self::Throttled(_) => "JUDGE_THROTTLED",
            Self::Unavailable(_) => "JUDGE_UNAVAILABLE",
            Self::Timeout(_) => "JUDGE_TIMEOUT",
            Self::Declined => "JUDGE_DECLINED",
            Self::Answer(_) => "JUDGE_ANSWER",
            Self::SpendCap { .. } => "JUDGE_SPEND_CAP",
            Self::Interrupted => "INTERRUPTED",
            Self::NotStored => "VERDICTS_NOT_STORED",
            Self::Lost => "JUDGE_LOST",
        }
    }
}

/// Why a batch has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct JudgeFailure {
    /// The cause.
    pub error: JudgeError,
    /// No provider could be asked: the batch itself was never at fault, so it waits without an
    /// attempt counted. Otherwise one question got no usable answer.
    pub held: bool,
}

impl JudgeFailure {
    pub(super) fn held(error: JudgeError) -> Self {
        Self { error, held: true }
    }

    pub(super) fn question(error: JudgeError) -> Self {
        Self { error, held: false }
    }
}

impl From<JudgeFailure> for Fault {
    fn from(failure: JudgeFailure) -> Self {
        let error = failure.error;
        let party = match error {
            JudgeError::Interrupted | JudgeError::NotStored | JudgeError::Lost => Party::Node,
            _ => Party::Judge,
        };
        if error.passes() {
            Fault::retryable(party, error.code(), &error)
        } else {
            Fault::permanent(party, error.code(), &error)
        }
    }
}
