//! Evaluation conversations: corpus, sealed packs, sampling by seed, and the Dataset API's client.
//!
//! A corpus is a folder of daily JSONL partitions that grows by import. Sealing a stretch of days
//! makes a pack: an immutable [`object`] named by the SHA-256 of its plain bytes, the same for the
//! same conversations in whatever order they were imported, in three ready forms, with a manifest
//! that the operator's hotkey signed. A round's item list is drawn from packs by its seed
//! ([`sampling`]) and published as objects too ([`rounds`]). Scores are bound to packs, never to
//! the corpus. Everything read here is checked again, also what we wrote: the disk and the API are
//! outside this process.
//!
//! Functions that touch files block; async callers run them on the blocking pool.

pub mod client;
mod conversation;
mod corpus;
mod day;
mod digest;
mod draft;
mod import;
pub mod index;
mod lines;
pub mod manifest;
pub mod object;
mod pack;
pub mod rounds;
pub mod sampling;
mod seal;
pub mod signed;
pub mod source;
mod special;

pub use conversation::{Conversation, Invalid, Item, ItemId, Message, Role};
pub use corpus::{Corpus, Stats};
pub use day::{Day, DayError};
pub use digest::ObjectDigest;
pub use import::{ImportOptions, ImportSummary, Rejected};
pub use manifest::{Form, Kind, Manifest, MediaType};
pub use object::{SignedManifest, list_packs};
pub use pack::{Pack, items, verify};
pub use seal::seal;
pub use signed::{Signer, Unproven};

use std::io;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, Party};

/// Most conversations in one corpus or pack: bounds the ids held in memory (32 bytes each).
pub const CONVERSATIONS_MAX: usize = 8_000_000;
/// Longest line of an import, a partition or a pack, in bytes.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Largest object, uncompressed bytes.
pub const PLAIN_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Why the dataset cannot be used. None of it is a miner's doing.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The disk refused.
    #[error("{}: {source}; check the folder, its rights and its free space", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The content is not what its name, manifest or format says. Never used; fetch it again.
    #[error("{what} is not valid: {reason}; remove it and fetch or seal it again")]
    Corrupt {
        /// Which pack or partition.
        what: String,
        /// The finding.
        reason: String,
    },
    /// More than the bounds of this module.
    #[error("{what} is too large: {reason}")]
    TooLarge {
        /// Which file or answer.
        what: String,
        /// The bound.
        reason: String,
    },
    /// Another process is importing, sealing or building a round.
    #[error("{} is in use by another process; wait for it to end", .0.display())]
    Locked(PathBuf),
    /// There is no conversation to seal.
    #[error("no conversation in the days asked for; import some first")]
    Empty,
    /// No endpoint gave a usable answer and nothing fitting is on disk.
    #[error("no Dataset API answered and no pack on disk fits: {0}")]
    Unavailable(String),
}

impl DatasetError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// As an entry of the fault ledger.
    #[must_use]
    pub fn to_fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::retryable(Party::Node, "DATASET_DISK", self),
            Self::Locked(_) => Fault::retryable(Party::Node, "DATASET_LOCKED", self),
            Self::Corrupt { .. } => Fault::retryable(Party::Dataset, "DATASET_CORRUPT", self),
            Self::TooLarge { .. } => Fault::permanent(Party::Dataset, "DATASET_TOO_LARGE", self),
            Self::Empty => Fault::permanent(Party::Dataset, "DATASET_EMPTY", self),
            Self::Unavailable(_) => Fault::retryable(Party::Dataset, "DATASET_UNAVAILABLE", self),
        }
    }
}
