//! What can go wrong in the dev chain itself (never what a caller's extrinsic did wrong).

use std::path::PathBuf;

/// Why the dev chain could not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DevChainError {
    /// The metadata file is unreadable, of an unsupported version, or lacks what the chain needs.
    #[error("metadata: {0}")]
    Metadata(String),
    /// The genesis contradicts itself or names a malformed key.
    #[error("genesis: {0}")]
    Genesis(String),
    /// A value does not fit the type that the metadata gives it.
    #[error("cannot encode {what} by the live metadata: {reason}")]
    Encode {
        /// The storage entry, event or answer.
        what: String,
        /// The codec's words.
        reason: String,
    },
    /// Stored bytes do not decode by the type that the metadata gives them.
    #[error("cannot decode {what} by the live metadata: {reason}")]
    Decode {
        /// The storage entry or argument.
        what: String,
        /// The codec's words.
        reason: String,
    },
    /// The journal belongs to another genesis or runtime; use another folder.
    #[error("{path} was written by a chain with another genesis or runtime; choose another --dir")]
    ForeignJournal {
        /// The journal file.
        path: PathBuf,
    },
    /// The journal or the listening socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, on what.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl DevChainError {
    pub(super) fn encode(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Encode {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn decode(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Decode {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}
