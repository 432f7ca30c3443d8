//! All SQL: migrations, submissions, queue, scores, weight log, faults.
//!
//! One SQLite file per node. [`Store`] belongs to the node's process and writes through one thread;
//! [`Reader`] reads, in this process or another, and never waits for the writer. Every method is one
//! transaction with a deadline, takes the time as an argument and can be repeated: what was recorded
//! once is not recorded twice. Statements are portable SQL with numbered placeholders; only the
//! migrations are SQLite's own.

mod columns;
mod eras;
mod error;
mod evidence;
mod faults;
mod fingerprints;
mod finish;
mod history;
mod ids;
mod intake;
mod likenesses;
mod meta;
mod pages;
mod queue;
mod reader;
mod rounds;
mod runs;
mod schema;
mod scores;
mod submissions;
#[cfg(test)]
pub(crate) mod tests;
mod titles;
mod verdicts;
mod weight_log;
mod writer;

pub use eras::EraRecord;
pub use error::StoreError;
pub use evidence::{Shown, Standing};
pub use faults::LoggedFault;
pub use fingerprints::{Claim, Fingerprint};
pub use finish::{Advance, Finished, Outcome};
pub use history::{JobView, StatusEvent, SubmissionHistory};
pub use ids::{JobId, ScoreId, Stage, Status, SubmissionId, WeightEntryId, WorkerId};
pub use likenesses::{Alike, Known, Seen};
pub use pages::{Counts, MAX_PAGE, QueueEntry, QueueState, SubmissionFilter};
pub use queue::{Ask, Lease, RetryPolicy};
pub use reader::Reader;
pub use rounds::Round;
pub use runs::Resume;
pub use scores::{NewScore, PairedItem, Score, ScoreInputs, Scored};
pub use submissions::{Admission, ModelFacts, NewSubmission, Recorded, Submission};
pub use verdicts::JudgeSpend;
pub use weight_log::{NewIntent, Opened, Reveal, SignedState, WeightEntry, WeightState};

use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// A write takes at most this long, its wait in the writer's queue included.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// The node's store: one per process, clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: writer::Writer,
    reader: Reader,
    retry: RetryPolicy,
    queue_changes: watch::Sender<u64>,
}

impl Store {
    /// Opens the store at `path`, creates or migrates it where needed, and starts its writer. Blocks
    /// for a moment. The folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer program wrote it, [`StoreError::Corrupt`] when it is no
    /// database, [`StoreError::Busy`] when another process is migrating it.
    pub fn open(path: &Path, retry: RetryPolicy) -> Result<Self, StoreError> {
        let conn = schema::open_writer(path)?;
        let reader = Reader::open(path)?;
        Ok(Self {
            writer: writer::Writer::start(conn, WRITE_DEADLINE)?,
            reader,
            retry,
            queue_changes: watch::Sender::new(0),
        })
    }

    /// The store's readings.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Changes whenever work was added or became ready through this handle or a clone, so that idle
    /// workers need not poll often. Work that only time makes ready is not announced.
    #[must_use]
    pub fn queue_changes(&self) -> watch::Receiver<u64> {
        self.queue_changes.subscribe()
    }

    fn announce_work(&self) {
        self.queue_changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Resolves when the writer has ended, which only a bug of ours brings about: the process must
    /// end with an error then.
    pub async fn writer_ended(&self) -> StoreError {
        self.writer.ended().await;
        StoreError::WriterGone
    }
}
