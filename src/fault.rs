//! Trouble of ours: what went wrong, whose part it was, and whether trying again helps.
//!
//! A fault never becomes a verdict about a miner; that is [`crate::incentive::Rejection`].

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose part of the system failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// This node: disk, configuration, a bug.
    Node,
    /// The model host.
    Hub,
    /// The chain or its endpoint.
    Chain,
    /// The Dataset API.
    Dataset,
    /// The judge's provider.
    Judge,
    /// The scorer image or the container engine.
    Engine,
    /// A GPU or its driver.
    Gpu,
}

impl Party {
    /// The stable lower-case name, as stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Hub => "hub",
            Self::Chain => "chain",
            Self::Dataset => "dataset",
            Self::Judge => "judge",
            Self::Engine => "engine",
            Self::Gpu => "gpu",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failure of the infrastructure, as it is stored, shown and retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{party} fault {code}: {message}")]
pub struct Fault {
    /// Whose part failed.
    pub party: Party,
    /// Stable machine-readable code, `UPPER_SNAKE`, such as `HUB_STALLED`.
    pub code: String,
    /// Whether the same work may succeed later without a person's help.
    pub retryable: bool,
    /// What happened, to what, and what to do next; without secrets.
    pub message: String,
}

impl Fault {
    /// A fault that may pass by itself.
    pub fn retryable(party: Party, code: &str, message: impl fmt::Display) -> Self {
        Self {
            party,
            code: code.to_owned(),
            retryable: true,
            message: message.to_string(),
        }
    }

    /// A fault that needs an operator.
    pub fn permanent(party: Party, code: &str, message: impl fmt::Display) -> Self {
        Self {
            party,
            code: code.to_owned(),
            retryable: false,
            message: message.to_string(),
        }
    }
}
