//! Frees the disk: what scorers saw of models that are decided, downloads that nobody will finish,
//! and files of former models when space gets short.

use super::artifacts::Artifacts;
use crate::hub;
use crate::shutdown::Shutdown;
use crate::store::{Status, Store, StoreError, SubmissionFilter, SubmissionId};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(60);
/// Unfinished files that nobody has written to for so long are dropped.
const STALE: Duration = Duration::from_hours(7 * 24);
/// A download folder younger than this may belong to a submission that was queued just now.
const YOUNG: Duration = Duration::from_hours(1);
/// Submissions read at a time.
const PAGE: u32 = 200;

/// The loop that cleans up. What is scored again later is fetched again.
#[derive(Debug)]
pub struct Janitor {
    /// Says what is decided.
    pub store: Store,
    /// What is cleaned.
    pub artifacts: Artifacts,
    /// Free space that is held up, twice over, at the expense of files that no model holds.
    pub keep_free: u64,
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
            for cleaned in [self.clean().await?, self.clean_downloads().await?] {
                if let Err(error) = cleaned {
                    tracing::warn!(%error, "the model folders could not be cleaned");
                }
            }
        }
    }

    /// Downloads of models that no open submission names, then blobs. A model in work is named by
    /// its submission, and its files by its folders, so neither is touched.
    async fn clean_downloads(&self) -> Result<io::Result<()>, StoreError> {
        let wanted = self.wanted().await?;
        let (artifacts, short) = (self.artifacts.clone(), self.keep_free.saturating_mul(2));
        let work = move || {
            remove_unwanted(&artifacts.downloads(), &wanted, YOUNG)?;
            hub::drop_stale_parts(&artifacts.blobs(), STALE)?;
            let missing = short.saturating_sub(artifacts.free_bytes()?);
            hub::evict(&artifacts.blobs(), missing).map(|_| ())
        };
        let cleaned = tokio::task::spawn_blocking(work).await;
        Ok(cleaned.unwrap_or_else(|e| Err(io::Error::other(e))))
    }

    /// Download folders of all submissions that are not decided.
    async fn wanted(&self) -> Result<HashSet<PathBuf>, StoreError> {
        let mut wanted = HashSet::new();
        for status in [Status::Queued, Status::Fetching, Status::Parked] {
            let mut filter = SubmissionFilter {
                status: Some(status),
                ..SubmissionFilter::default()
            };
            loop {
                let page = self
                    .store
                    .reader()
                    .submissions(filter.clone(), PAGE)
                    .await?;
                filter.before = page.last().map(|last| last.id);
                for submission in &page {
                    let named = submission
                        .repo
                        .as_deref()
                        .zip(submission.revision.as_deref());
                    let root = self.artifacts.downloads();
                    wanted.extend(named.and_then(|(r, v)| hub::model_dir(&root, r, v).ok()));
                }
                if filter.before.is_none() {
                    break;
                }
            }
        }
        Ok(wanted)
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

/// Removes the folders `root/models/<repository>/<revision>` that are not wanted and have not
/// changed for `age`. Blocks.
fn remove_unwanted(root: &Path, wanted: &HashSet<PathBuf>, age: Duration) -> io::Result<()> {
    let models = root.join("models");
    if !models.exists() {
        return Ok(());
    }
    for repo in std::fs::read_dir(models)? {
        let repo = repo?.path();
        let mut left = false;
        for revision in std::fs::read_dir(&repo)? {
            let revision = revision?.path();
            let changed = std::fs::metadata(&revision)?.modified()?;
            let young = changed.elapsed().is_ok_and(|since| since < age);
            if young || wanted.contains(&revision) {
                left = true;
            } else {
                std::fs::remove_dir_all(&revision)?;
                tracing::info!(folder = %revision.display(), "an abandoned download was removed");
            }
        }
        if !left {
            std::fs::remove_dir(&repo)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_downloads_that_nobody_wants_are_removed() {
        let root = tempfile::tempdir().unwrap();
        remove_unwanted(root.path(), &HashSet::new(), Duration::ZERO).unwrap();
        let folder = |repo: &str, digit: &str| {
            let dir = hub::model_dir(root.path(), repo, &digit.repeat(40)).unwrap();
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("x"), "").unwrap();
            dir
        };
        let (kept, old) = (folder("a/b", "1"), folder("a/b", "2"));
        let gone = folder("c/d", "1");
        remove_unwanted(root.path(), &HashSet::new(), YOUNG).unwrap();
        assert!(old.exists());
        remove_unwanted(root.path(), &HashSet::from([kept.clone()]), Duration::ZERO).unwrap();
        assert!(kept.join("x").exists() && !old.exists());
        assert!(!gone.parent().unwrap().exists());
    }
}
