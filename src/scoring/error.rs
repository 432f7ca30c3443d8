//! What can fail on our side while a job is prepared or run.

use crate::fault::{Fault, Party};
use std::path::{Path, PathBuf};

/// Trouble of the node, its container engine or its GPU. One variant for each decision that the
/// caller takes; all become a [`Fault`].
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// The job contradicts itself or the model folder: a bug of the node; never retried blindly.
    #[error("the job cannot be prepared: {0}")]
    Job(String),
    /// The model's folder is not as it was verified.
    #[error(
        "the model's folder is not the one that was verified: {0}; requeue the submission, so that it is fetched again"
    )]
    Model(String),
    /// The engine made another container than the one asked for.
    #[error("the container differs from what was asked for: {0}")]
    Container(String),
    /// The node's own disk.
    #[error("{}: {source}; check the disk and the folder's owner", path.display())]
    Disk {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No engine answers.
    #[error("no container engine answers: {0}; start it, or choose the process runner for a demo")]
    Unavailable(String),
    /// The pinned image is not on this host, or its digest differs.
    #[error("{0}")]
    Image(String),
    /// The engine does not accept the request; the same request would fail again.
    #[error("the container engine refused to {doing}: {message}")]
    Refused {
        /// The step.
        doing: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The engine failed or did not answer in time.
    #[error("the container engine failed to {doing}: {message}")]
    Engine {
        /// The step.
        doing: &'static str,
        /// The engine's words.
        message: String,
    },
    /// A container that asked for GPUs did not start.
    #[error("no container starts with GPUs {gpus}: {message}; check the driver and its toolkit")]
    Gpu {
        /// The GPUs asked for.
        gpus: String,
        /// The engine's words.
        message: String,
    },
    /// The scorer binary does not start.
    #[error("{}: {source}; build the scorer or name its path", binary.display())]
    Binary {
        /// The scorer.
        binary: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ScoringError {
    pub(super) fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Disk {
            path: path.to_owned(),
            source,
        }
    }
}

impl From<ScoringError> for Fault {
    fn from(error: ScoringError) -> Self {
        let (party, code, retryable) = match &error {
            ScoringError::Job(_) => (Party::Node, "JOB_INVALID", false),
            ScoringError::Model(_) => (Party::Node, "MODEL_FOLDER", false),
            ScoringError::Container(_) => (Party::Engine, "CONTAINER_DIFFERS", false),
            ScoringError::Disk { .. } => (Party::Node, "DISK", true),
            ScoringError::Unavailable(_) => (Party::Engine, "ENGINE_UNAVAILABLE", true),
            ScoringError::Image(_) => (Party::Engine, "IMAGE_NOT_PINNED", false),
            ScoringError::Refused { .. } => (Party::Engine, "ENGINE_REFUSED", false),
            ScoringError::Engine { .. } => (Party::Engine, "ENGINE_FAILED", true),
            ScoringError::Gpu { .. } => (Party::Gpu, "GPU_START", true),
            ScoringError::Binary { .. } => (Party::Node, "SCORER_BINARY", false),
        };
        if retryable {
            Fault::retryable(party, code, error)
        } else {
            Fault::permanent(party, code, error)
        }
    }
}
