//! How the demo's models are run: in a container where Docker answers, else as a plain process.

use super::files::Folder;
use super::progress::Display;
use crate::cli::{Demo, ScorerChoice};
use crate::cmd::Failure;
use crate::cmd::run::file_digest;
use crate::demo::scorer_build::locate_or_build;
use crate::scoring::docker::Engine;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The chosen scorer. Kept in the demo's folder: scores are bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "runner", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum ChosenScorer {
    /// A container from this image id.
    Docker {
        /// `sha256:` + 64 hex digits.
        image: String,
    },
    /// This static binary as a child process.
    Process {
        /// Digest of the binary in the form of an image id.
        image: String,
        /// The binary, copied into the demo's folder.
        program: PathBuf,
    },
}

impl ChosenScorer {
    /// `docker` or `process`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Docker { .. } => "docker",
            Self::Process { .. } => "process",
        }
    }

    /// What the era names as its image.
    pub(super) fn image(&self) -> &str {
        match self {
            Self::Docker { image } | Self::Process { image, .. } => image,
        }
    }
}

/// The scorer of this folder: the one it began with, else a new one as asked for.
pub(super) async fn choose(
    folder: &Folder,
    options: &Demo,
    display: &Display,
) -> Result<ChosenScorer, Failure> {
    if let Some(kept) = folder.scorer()? {
        display.say(&format!("scorer: {} as before", kept.name()));
        return Ok(kept);
    }
    let engine = match options.scorer {
        ScorerChoice::Process => None,
        ScorerChoice::Docker => Some(Engine::connect().await.map_err(Failure::unavailable)?),
        ScorerChoice::Auto => {
            match Engine::connect().await {
                Ok(engine) => Some(engine),
                Err(error) => {
                    display.say(&format!("no container: {error}"));
                    display.say("models run as plain child processes, without a seal; fit for this demo only");
                    None
                }
            }
        }
    };
    let binary = build(display).await?;
    let chosen = match engine {
        Some(engine) => {
            let image = engine
                .build_image_from_binary(&binary)
                .await
                .map_err(Failure::unavailable)?;
            display.say(&format!("scorer: container from image {image}"));
            ChosenScorer::Docker { image }
        }
        None => {
            let program = folder.path("scorer-cpu");
            std::fs::copy(&binary, &program).map_err(Failure::unavailable)?;
            ChosenScorer::Process {
                image: file_digest(&program)?,
                program,
            }
        }
    };
    folder.keep_scorer(&chosen)?;
    Ok(chosen)
}

async fn build(display: &Display) -> Result<PathBuf, Failure> {
    let display = display.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut said = false;
        locate_or_build(None, |line| {
            if !said {
                display.say("building the static scorer, once; this takes a few minutes");
                said = true;
            }
            display.detail(line);
        })
    });
    found
        .await
        .map_err(Failure::bug)?
        .map_err(Failure::unavailable)
}
