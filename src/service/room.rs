//! How far fetching may run ahead: by models, so that the disk does not fill with what no scorer can
//! take yet, and by bytes, so that two downloads never count on the same free space.

use super::artifacts::Artifacts;
use super::rounds::store_fault;
use crate::fault::{Fault, Party};
use crate::hub;
use crate::store::{Status, Store, SubmissionFilter, SubmissionId};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the wait looks again, if nothing in the queue has changed meanwhile.
const TICK: Duration = Duration::from_secs(5);
/// How long a disk may be full before it becomes a fault.
const DISK_PATIENCE: Duration = Duration::from_secs(600);

/// Room on the disk and ahead of the scorers. Clones share it.
#[derive(Debug, Clone)]
pub struct Room {
    store: Store,
    artifacts: Artifacts,
    keep_free: u64,
    ahead: usize,
    held: Arc<Mutex<HashMap<SubmissionId, u64>>>,
}

/// Bytes of the disk that are kept for one download until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    submission: SubmissionId,
    held: Arc<Mutex<HashMap<SubmissionId, u64>>>,
}

impl Reservation {
    /// So many bytes are still to be written: the rest is on the disk and counts there.
    pub fn left(&self, bytes: u64) {
        lock(&self.held).insert(self.submission, bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.submission);
    }
}

/// Why a download may not begin yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// As many models as allowed are fetched or being fetched.
    Ahead,
    /// So many bytes are missing.
    Disk(u64),
}

impl Room {
    /// Room for downloads that leave `keep_free` bytes of the disk, and let at most `ahead` models
    /// lie ready or be fetched at a time.
    #[must_use]
    pub fn new(store: Store, artifacts: Artifacts, keep_free: u64, ahead: usize) -> Self {
        Self {
            store,
            artifacts,
            keep_free,
            ahead: ahead.max(1),
            held: Arc::default(),
        }
    }

    /// Waits until a download of `bytes` may begin, and keeps that room for it. Files that no model
    /// holds any more make way first.
    ///
    /// # Errors
    /// `DISK_FULL` when the disk stays too full for ten minutes; and trouble with disk or store.
    pub async fn reserve(&self, id: SubmissionId, bytes: u64) -> Result<Reservation, Fault> {
        let mut changes = self.store.queue_changes();
        let mut full_since: Option<Instant> = None;
        loop {
            changes.mark_unchanged();
            let wait = match self.enter(id, bytes).await? {
                Ok(reservation) => return Ok(reservation),
                Err(wait) => wait,
            };
            match wait {
                Wait::Ahead => full_since = None,
                Wait::Disk(missing) => {
                    if self.evict(missing).await? > 0 {
                        continue;
                    }
                    let since = *full_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= DISK_PATIENCE {
                        return Err(self.full(missing));
                    }
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn enter(
        &self,
        id: SubmissionId,
        bytes: u64,
    ) -> Result<Result<Reservation, Wait>, Fault> {
        let filter = SubmissionFilter {
            status: Some(Status::Ready),
            ..SubmissionFilter::default()
        };
        let limit = u32::try_from(self.ahead).unwrap_or(u32::MAX);
        let ready = self.store.reader().submissions(filter, limit).await;
        let ready = ready.map_err(store_fault)?.len();
        let free = self.artifacts.free_bytes().map_err(|e| disk(&e))?;
        let mut held = lock(&self.held);
        held.remove(&id);
        if ready + held.len() >= self.ahead {
            return Ok(Err(Wait::Ahead));
        }
        let others = held.values().fold(0, |sum: u64, b| sum.saturating_add(*b));
        let wanted = others.saturating_add(bytes).saturating_add(self.keep_free);
        if bytes > 0 && wanted > free {
            return Ok(Err(Wait::Disk(wanted - free)));
        }
        held.insert(id, bytes);
        Ok(Ok(Reservation {
            submission: id,
            held: Arc::clone(&self.held),
        }))
    }

    async fn evict(&self, bytes: u64) -> Result<u64, Fault> {
        let blobs = self.artifacts.blobs();
        let evicted = tokio::task::spawn_blocking(move || hub::evict(&blobs, bytes)).await;
        let evicted = evicted.unwrap_or_else(|e| Err(io::Error::other(e)));
        let freed = evicted.map_err(|e| disk(&e))?;
        if freed > 0 {
            tracing::info!(bytes = freed, "files of former models made way");
        }
        Ok(freed)
    }

    fn full(&self, missing: u64) -> Fault {
        let text = format!(
            "{missing} bytes are missing on the disk of {} for the next model; free some or lower \
             store.keep_free",
            self.artifacts.blobs().display()
        );
        Fault::retryable(Party::Node, "DISK_FULL", text)
    }
}

fn disk(error: &io::Error) -> Fault {
    Fault::retryable(Party::Node, "DISK_FAILED", error)
}

fn lock(held: &Mutex<HashMap<SubmissionId, u64>>) -> MutexGuard<'_, HashMap<SubmissionId, u64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RetryPolicy;

    fn room(dir: &std::path::Path, keep_free: u64, ahead: usize) -> Room {
        let store = Store::open(&dir.join("s.db"), RetryPolicy::default()).unwrap();
        let artifacts = Artifacts::open(&dir.join("artifacts")).unwrap();
        Room::new(store, artifacts, keep_free, ahead)
    }

    async fn within(room: &Room, id: i64, bytes: u64) -> Option<Reservation> {
        let wait = room.reserve(SubmissionId(id), bytes);
        let ended = tokio::time::timeout(Duration::from_millis(100), wait).await;
        ended.ok().map(Result::unwrap)
    }

    #[tokio::test]
    async fn two_downloads_never_count_on_the_same_space() {
        let dir = tempfile::tempdir().unwrap();
        let free = room(dir.path(), 0, 9).artifacts.free_bytes().unwrap();
        let room = room(dir.path(), free / 4, 9);
        let first = within(&room, 1, free / 2).await.unwrap();
        assert!(within(&room, 2, free / 2).await.is_none());
        // What is written already counts on the disk, no longer here.
        first.left(0);
        let second = within(&room, 2, free / 2).await;
        assert!(second.is_some());
        assert!(within(&room, 3, free / 2).await.is_none());
        drop(second);
        assert!(within(&room, 3, free / 2).await.is_some());
    }

    #[tokio::test]
    async fn fetching_runs_ahead_by_so_many_models_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path(), 0, 2);
        let first = within(&room, 1, 1).await;
        let second = within(&room, 2, 1).await;
        assert!(first.is_some() && second.is_some());
        assert!(within(&room, 3, 1).await.is_none());
        drop(first);
        assert!(within(&room, 3, 1).await.is_some());
    }

    #[tokio::test]
    async fn files_that_no_model_holds_make_way() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path(), u64::MAX / 2, 2);
        std::fs::write(room.artifacts.blobs().join("old"), [0; 64]).unwrap();
        std::fs::write(room.artifacts.blobs().join("held"), [0; 64]).unwrap();
        let link = room.artifacts.mounts().join("held");
        std::fs::hard_link(room.artifacts.blobs().join("held"), link).unwrap();
        assert!(within(&room, 1, 1).await.is_none());
        assert!(!room.artifacts.blobs().join("old").exists());
        assert!(room.artifacts.blobs().join("held").exists());
    }
}
