//! Downloading named files of a pinned commit into a folder.

use super::blobs::{self, Place};
use super::layout::{check_file_name, commit_id, repo_id};
use super::transfer::Transfer;
use super::{HubClient, HubError, RepoFile, TransientKind};
use crate::incentive::{RepoId, Revision};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What to download and where to.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// `namespace/name`.
    pub repo: &'a str,
    /// The pinned commit.
    pub revision: &'a str,
    /// The wanted files, as [`HubClient::facts`] listed them.
    pub files: &'a [RepoFile],
    /// The folder to hold exactly these files; see [`super::model_dir`]. Made if it is not there.
    pub dest: &'a Path,
    /// The folder, on the same file system, where files with a published SHA-256 lie under that.
    /// They are links to it in `dest`, so that models share equal files. Made if it is not there.
    pub blobs: &'a Path,
}

/// A checked request: where every file of a download comes from and goes to.
pub(super) struct Pin<'a> {
    pub(super) repo: RepoId,
    pub(super) revision: Revision,
    pub(super) dest: &'a Path,
    pub(super) blobs: &'a Path,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on disk and hashed, resumed ones included. Falls when a file has to begin anew.
    pub done: u64,
    /// Bytes of all wanted files.
    pub total: u64,
}

/// A finished download: every file complete, its digest as published, and on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The folder, which holds exactly `files`.
    pub dir: PathBuf,
    /// The files, by path.
    pub files: Vec<LocalFile>,
    /// Bytes that came over the network in this call, repeated ones included.
    pub received: u64,
}

/// One downloaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Name within the folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the bytes, lower-case hex; computed by us, for small files too.
    pub sha256: String,
}

impl HubClient {
    /// Downloads files of a pinned commit into a folder, each checked for length and digest, and
    /// reports progress. Whatever was fetched before (by this or a killed process) is hashed again
    /// and resumed. Each file becomes visible under its name only when it is complete and checked.
    ///
    /// # Errors
    /// [`HubError::Transient`] when attempts or time are used up: a later call resumes.
    /// [`HubError::DigestMismatch`] when the hub keeps delivering other bytes than it published.
    /// [`HubError::Invalid`] before anything is asked when a name is not plain.
    pub async fn download(
        &self,
        job: Download<'_>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Downloaded, HubError> {
        let (pin, total) = check(&job)?;
        make_folders(job.dest)?;
        blobs::make_folder(job.blobs)?;
        self.check_space(&pin, job.files)?;
        let meter = Meter {
            done: AtomicU64::new(0),
            received: AtomicU64::new(0),
            total,
            report: progress,
        };
        let all = self.fetch_all(&pin, job.files, &meter);
        let limit = self.settings.download_deadline;
        let mut files = tokio::time::timeout(limit, all).await.map_err(|_| {
            HubError::transient(
                TransientKind::Deadline,
                format!("{} was not downloaded within {limit:?}", job.repo),
            )
        })??;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        close_folder(&job)?;
        Ok(Downloaded {
            dir: job.dest.to_owned(),
            files,
            received: meter.received.into_inner(),
        })
    }

    async fn fetch_all(
        &self,
        pin: &Pin<'_>,
        files: &[RepoFile],
        meter: &Meter<'_>,
    ) -> Result<Vec<LocalFile>, HubError> {
        let transfers = files.iter().map(|file| {
            let transfer = Transfer::new(self, pin, file, meter);
            async move { transfer.run().await }
        });
        stream::iter(transfers.collect::<Vec<_>>())
            .buffer_unordered(self.settings.parallel_files.max(1))
            .try_collect()
            .await
    }

    fn check_space(&self, pin: &Pin<'_>, files: &[RepoFile]) -> Result<(), HubError> {
        let needed = needed(pin, files);
        let disk = rustix::fs::statvfs(pin.dest)
            .map_err(|e| HubError::disk("measure the disk of", pin.dest, e.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let keep_free = self.settings.keep_free;
        if needed > 0 && needed.saturating_add(keep_free) > free {
            return Err(HubError::NoSpace {
                dir: pin.dest.to_owned(),
                needed,
                free,
                keep_free,
            });
        }
        Ok(())
    }
}

/// Counts bytes of all files of one download.
pub(super) struct Meter<'a> {
    done: AtomicU64,
    received: AtomicU64,
    total: u64,
    report: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Meter<'_> {
    /// `bytes` more are on disk and hashed.
    pub(super) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.tell(done);
    }

    /// `bytes` counted before were thrown away.
    pub(super) fn take_back(&self, bytes: u64) {
        let done = self.done.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.tell(done);
    }

    /// `bytes` came over the network.
    pub(super) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tell(&self, done: u64) {
        let total = self.total;
        (self.report)(Progress { done, total });
    }
}

/// Bytes that a download still has to write; what lies there already, whole or in part, is not
/// counted.
#[must_use]
pub fn bytes_to_write(job: &Download<'_>) -> u64 {
    check(job).map_or(u64::MAX, |(pin, _)| needed(&pin, job.files))
}

fn needed(pin: &Pin<'_>, files: &[RepoFile]) -> u64 {
    let missing = |file: &RepoFile| {
        let Place { whole, part } = Place::of(pin, file);
        let there = [whole, part, pin.dest.join(&file.path)];
        let there = there.iter().filter_map(|path| fs::metadata(path).ok());
        file.size
            .saturating_sub(there.map(|meta| meta.len()).max().unwrap_or(0))
    };
    files.iter().map(missing).fold(0, u64::saturating_add)
}

fn check<'a>(job: &Download<'a>) -> Result<(Pin<'a>, u64), HubError> {
    let pin = Pin {
        repo: repo_id(job.repo)?,
        revision: commit_id(job.revision)?,
        dest: job.dest,
        blobs: job.blobs,
    };
    let mut seen = HashSet::new();
    let mut total = 0_u64;
    for file in job.files {
        check_file_name(&file.path)?;
        let sum = total.checked_add(file.size);
        total = sum
            .filter(|_| seen.insert(&file.path))
            .ok_or_else(|| HubError::Invalid {
                message: format!("{} is listed twice, or the sizes overflow", file.path),
            })?;
    }
    Ok((pin, total))
}

fn make_folders(dest: &Path) -> Result<(), HubError> {
    let parts = dest.join(".parts");
    fs::create_dir_all(&parts).map_err(|e| HubError::disk("make the folder", &parts, e))?;
    // The scorer reads as another user, whatever our umask is.
    fs::set_permissions(dest, fs::Permissions::from_mode(0o755))
        .map_err(|e| HubError::disk("open up the folder", dest, e))
}

/// Removes the folder of unfinished files, makes the names durable and proves that nothing else
/// lies beside them: the folder is what the scorer will see.
fn close_folder(job: &Download<'_>) -> Result<(), HubError> {
    let (dest, parts) = (job.dest, job.dest.join(".parts"));
    fs::remove_dir_all(&parts).map_err(|e| HubError::disk("remove", &parts, e))?;
    for folder in [job.blobs, dest] {
        let synced = fs::File::open(folder).and_then(|dir| dir.sync_all());
        synced.map_err(|e| HubError::disk("sync", folder, e))?;
    }
    let wanted: HashSet<&str> = job.files.iter().map(|file| file.path.as_str()).collect();
    for entry in fs::read_dir(dest).map_err(|e| HubError::disk("list", dest, e))? {
        let entry = entry.map_err(|e| HubError::disk("list", dest, e))?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| wanted.contains(name)) {
            let stranger = std::io::Error::other("it is not part of the model; remove it");
            return Err(HubError::disk("accept", &entry.path(), stranger));
        }
    }
    Ok(())
}
