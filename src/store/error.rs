//! What can go wrong with the store, one variant per decision of the caller.

use super::ids::{JobId, SubmissionId};
use crate::bittensor::BlockNumber;
use crate::fault::{Fault, Party};
use rusqlite::ErrorCode;
use std::path::PathBuf;
use std::sync::Arc;

/// Trouble with the store. Cheap to clone, because one failed commit answers many callers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another worker holds the job now, or it was finished: drop the work, record nothing.
    #[error("the lease on job {0} is lost: another holder has it or it is finished; drop the work")]
    LeaseLost(JobId),
    /// The deadline passed. The call may still have been carried out: ask again, every call can
    /// be repeated.
    #[error("the store did not answer within its deadline; repeat the call")]
    Timeout,
    /// Another process kept the write lock too long; try again.
    #[error("another process holds the store's write lock; try again")]
    Busy,
    /// No space; nothing was recorded.
    #[error("the disk that holds the store is full: free space, then try again")]
    DiskFull,
    /// The writer thread has ended: end the process.
    #[error("the store's writer has ended; restart the node")]
    WriterGone,
    /// There is no database at this path (yet).
    #[error("{0} holds no store yet: start `assay run` first or mend the path")]
    Missing(PathBuf),
    /// The database was written by a newer version of this program.
    #[error("{path} has schema version {found}, this program knows {known}: use the newer program")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version known here.
        known: u32,
    },
    /// A read-only opener met an older schema, which only the node may migrate.
    #[error(
        "{path} has schema version {found}, want {known}: start `assay run`, which migrates it"
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version wanted.
        known: u32,
    },
    /// An era that already has scores differs from the configured ones: the configuration must be
    /// restored and a new era appended.
    #[error(
        "the era from block {from_block} ({era_id}) has scores, but the configuration no longer \
         holds it unchanged: restore it and append a new [[era]] instead"
    )]
    EraEdited {
        /// First block of the stored era.
        from_block: BlockNumber,
        /// Its digest, as scored.
        era_id: String,
    },
    /// The scored bytes are not those that were fetched; nothing was recorded.
    #[error(
        "submission {submission} was fetched with tensor digest {fetched} but scored with {scored}: \
         the result is refused; check mounts and image"
    )]
    OtherTensors {
        /// Whose score.
        submission: SubmissionId,
        /// Digest recorded after the download.
        fetched: String,
        /// Digest that came with the score.
        scored: String,
    },
    /// No such row.
    #[error("there is no {0}")]
    NotFound(String),
    /// The caller broke a rule of the store; nothing was recorded. A bug of ours.
    #[error("the store refuses this: {0}")]
    Invalid(String),
    /// The database holds what this program cannot have written.
    #[error("the store is damaged: {0}; restore a backup")]
    Corrupt(String),
    /// Any other failure of SQLite or the file system.
    #[error("the store failed: {0}")]
    Sqlite(#[source] Arc<rusqlite::Error>),
}

impl StoreError {
    /// The same as an entry for the fault ledger.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let (code, retryable) = match self {
            Self::LeaseLost(_) => ("STORE_LEASE_LOST", true),
            Self::Timeout => ("STORE_TIMEOUT", true),
            Self::Busy => ("STORE_BUSY", true),
            Self::DiskFull => ("STORE_DISK_FULL", true),
            Self::WriterGone => ("STORE_WRITER_GONE", false),
            Self::Missing(_) => ("STORE_MISSING", true),
            Self::Newer { .. } | Self::Older { .. } => ("STORE_VERSION", false),
            Self::EraEdited { .. } => ("STORE_ERA_EDITED", false),
            Self::OtherTensors { .. } => ("STORE_OTHER_TENSORS", false),
            Self::NotFound(_) => ("STORE_NOT_FOUND", false),
            Self::Invalid(_) => ("STORE_INVALID", false),
            Self::Corrupt(_) => ("STORE_CORRUPT", false),
            Self::Sqlite(_) => ("STORE_FAILED", false),
        };
        let make = if retryable {
            Fault::retryable
        } else {
            Fault::permanent
        };
        make(Party::Node, code, self.to_string())
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => return Self::Busy,
            Some(ErrorCode::DiskFull) => return Self::DiskFull,
            Some(ErrorCode::OperationInterrupted) => return Self::Timeout,
            Some(ErrorCode::ConstraintViolation) => return Self::Invalid(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                return Self::Corrupt(error.to_string());
            }
            _ => {}
        }
        match error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..) => Self::Corrupt(error.to_string()),
            other => Self::Sqlite(Arc::new(other)),
        }
    }
}
