//! Where the node keeps large things. Every path is made here.

use crate::bittensor::RoundNumber;
use crate::store::SubmissionId;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The node's folder for models, jobs and replies.
#[derive(Debug, Clone)]
pub struct Artifacts {
    root: PathBuf,
}

impl Artifacts {
    /// Makes the folders under `root`, which may exist.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let artifacts = Self {
            root: fs::canonicalize(root)?,
        };
        for folder in [
            artifacts.downloads(),
            artifacts.blobs(),
            artifacts.mounts(),
            artifacts.jobs(),
            artifacts.replies(),
        ] {
            fs::create_dir_all(folder)?;
        }
        Ok(artifacts)
    }

    /// Unfinished downloads.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Large files by their SHA-256, linked from downloads and mounts.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Bytes free on the disk, to those who are not root.
    ///
    /// # Errors
    /// When the disk cannot be asked.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// What scorers see of models: verified weights and a rewritten configuration.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    /// The mount of one submission's model.
    #[must_use]
    pub fn mount(&self, submission: SubmissionId) -> PathBuf {
        self.mounts().join(submission.to_string())
    }

    /// Folders of running jobs.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// Replies by content.
    #[must_use]
    pub fn replies(&self) -> PathBuf {
        self.root.join("replies")
    }

    /// One replies file by the hex SHA-256 of its content; `None` unless that is 64 hex digits.
    #[must_use]
    pub fn replies_file(&self, sha256: &str) -> Option<PathBuf> {
        let plain = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| self.replies().join(format!("{sha256}.jsonl")))
    }

    /// Keeps a replies file under its digest: written whole, synced, then renamed. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or the digest is malformed.
    pub fn keep_replies(&self, sha256: &str, from: &Path) -> io::Result<()> {
        let malformed = || io::Error::other("a replies digest is not 64 hex digits");
        let to = self.replies_file(sha256).ok_or_else(malformed)?;
        let part = to.with_extension("part");
        fs::copy(from, &part)?;
        fs::File::open(&part)?.sync_all()?;
        fs::rename(&part, &to)
    }
}

/// Id of a scoring job: unique for submission, round and stage attempt, and stable over a restart.
#[must_use]
pub fn job_id(submission: SubmissionId, round: RoundNumber) -> String {
    format!("s{submission}-r{round}")
}
