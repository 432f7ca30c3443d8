//! Frees the disk: what scorers saw of models that are decided.

use super::artifacts::Artifacts;
use crate::shutdown::Shutdown;
use crate::store::{Status, Store, StoreError, SubmissionId};
use std::io;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(60);

/// The loop that cleans up. What is scored again later is fetched again.
#[derive(Debug)]
pub struct Janitor {
    /// Says what is decided.
    pub store: Store,
    /// What is cleaned.
    pub artifacts: Artifacts,
}

impl Janitor {
    /// Runs until shutdown.
    ///
    /// # Errors
    /// [`StoreError`]: without its store the node must end.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.clean().await? {
                tracing::warn!(%error, "the model folders could not be cleaned");
            }
        }
    }

    async fn clean(&self) -> Result<io::Result<()>, StoreError> {
        let mut entries = match tokio::fs::read_dir(self.artifacts.mounts()).await {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let entry = match entries.next_entry().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.is_decided(SubmissionId(id)).await? {
                match tokio::fs::remove_dir_all(entry.path()).await {
                    Ok(()) => {
                        tracing::info!(submission = id, "a decided model was removed from disk")
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
    }

    async fn is_decided(&self, id: SubmissionId) -> Result<bool, StoreError> {
        match self.store.reader().submission(id).await {
            Ok(submission) => Ok(matches!(
                submission.status,
                Status::Scored | Status::Rejected
            )),
            Err(StoreError::NotFound(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
