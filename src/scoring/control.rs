//! The control model: a small known-good model with the replies that each engine gives on it. A worker
//! whose scorer does not reproduce them scores nothing.
//!
//! Its folder holds `control.json`, pinned by its digest, and `model/`, whose files `control.json` pins.

use super::job::{ModelFacts, ScoreJob};
use super::outcome::ReplySet;
use crate::fault::{Fault, Party};
use assay_protocol::{Canary, EngineArgs, Generation, Limits, ModelFile, Sample};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest `control.json` that is read.
const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// What `control.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The one entry of `architectures`.
    pub architecture: String,
    /// Every file of `model/`.
    pub files: Vec<ModelFile>,
    /// `sha256:` + hex over the sorted tensors.
    pub tensor_digest: String,
    /// Number of parameters.
    pub param_count: u64,
    /// Token ids that end a reply.
    pub stop_token_ids: Vec<u32>,
    /// Token cap of a reply.
    pub max_tokens: u32,
    /// The prompts, as the engine gets them.
    pub prompts: Vec<String>,
    /// [`digest`] of the right replies, by the engine's name and version as it gives them itself.
    pub replies: BTreeMap<String, String>,
}

/// A control model on this host's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    manifest: Manifest,
    folder: PathBuf,
}

/// Why there is no control model.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The manifest cannot be read.
    #[error("cannot read {path}: {source}; `assay control record` makes it")]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is not the one that the configuration pins.
    #[error("{path} has SHA-256 {found}, but control.sha256 is {wanted}")]
    Other {
        /// The manifest.
        path: PathBuf,
        /// Hex SHA-256 of what is there.
        found: String,
        /// Hex SHA-256 in the configuration.
        wanted: String,
    },
    /// The manifest is malformed.
    #[error("{path} is no control manifest: {reason}")]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Path of the manifest in a control model's folder.
#[must_use]
pub fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("control.json")
}

/// Path of the model in a control model's folder.
#[must_use]
pub fn model_path(folder: &Path) -> PathBuf {
    folder.join("model")
}

/// Hex SHA-256 over the replies in the job's order: id, token ids' digest and end of each. Texts and
/// times are left out: the ids say it all.
#[must_use]
pub fn digest(set: &ReplySet) -> String {
    let mut hasher = Sha256::new();
    for reply in &set.replies {
        let line = format!("{} {} {:?}\n", reply.id, reply.ids_sha256, reply.finish);
        hasher.update(line.as_bytes());
    }
    hex::encode(hasher.finalize())
}

impl Control {
    /// Reads the manifest in `folder`, whose hex SHA-256 must be `sha256`. The model's files are
    /// compared with it at every run, by the scorer's proof.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn open(folder: &Path, sha256: &str) -> Result<Self, ControlError> {
        let path = manifest_path(folder);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(ControlError::Unreadable { path, source }),
        };
        let found = hex::encode(Sha256::digest(&bytes));
        if found != sha256 {
            let wanted = sha256.to_owned();
            return Err(ControlError::Other {
                path,
                found,
                wanted,
            });
        }
        let malformed = |reason: String| ControlError::Malformed {
            path: path.clone(),
            reason,
        };
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(malformed("it is larger than 1 MiB".to_owned()));
        }
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        if manifest.prompts.is_empty() || manifest.replies.is_empty() {
            return Err(malformed("it has no prompts, or no replies".to_owned()));
        }
        Ok(Self::new(manifest, folder))
    }

    /// A control model whose manifest is not on the disk yet.
    #[must_use]
    pub fn new(manifest: Manifest, folder: &Path) -> Self {
        Self {
            manifest,
            folder: folder.to_owned(),
        }
    }

    /// The job that shows what `worker`'s scorer makes of it.
    #[must_use]
    pub fn job(&self, worker: &str, engine_args: EngineArgs, limits: Limits) -> ScoreJob {
        let prompts = self.manifest.prompts.iter().enumerate();
        ScoreJob {
            job_id: format!("control-{worker}"),
            attempt: 1,
            nonce: rand::random(),
            model: ModelFacts {
                dir: model_path(&self.folder),
                architecture: self.manifest.architecture.clone(),
                files: self.manifest.files.clone(),
                tensor_digest: self.manifest.tensor_digest.clone(),
                param_count: self.manifest.param_count,
            },
            items: prompts
                .map(|(n, prompt)| Sample {
                    id: format!("control-{n}"),
                    prompt: prompt.clone(),
                })
                .collect(),
            references: Vec::new(),
            pack: format!("sha256:{}", "0".repeat(64)),
            generation: Generation {
                max_tokens: self.manifest.max_tokens,
                max_prompt_tokens: 4096,
                stop_token_ids: self.manifest.stop_token_ids.clone(),
                seed: 1,
            },
            engine_args,
            limits,
            canary: Canary {
                tensors: 8,
                values: 1024,
            },
            memory_raised: false,
        }
    }

    /// Whether these are the right replies.
    ///
    /// # Errors
    /// A fault of the engine that says what differs and what to do.
    pub fn check(&self, set: &ReplySet) -> Result<(), Fault> {
        let engine = &set.scorer.engine;
        let Some(wanted) = self.manifest.replies.get(engine) else {
            let text = format!(
                "the control manifest has no replies of {engine}; record them with `assay control record` \
                 and pin the new manifest"
            );
            return Err(Fault::retryable(Party::Engine, "CONTROL_UNKNOWN", text));
        };
        let found = digest(set);
        if found == *wanted {
            return Ok(());
        }
        let text = format!(
            "{engine} gives other replies on the control model ({found} instead of {wanted}): this worker \
             scores nothing until it gives the right ones; look for a changed driver, card or image"
        );
        Err(Fault::retryable(Party::Engine, "CONTROL_DIFFERS", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            architecture: "LlamaForCausalLM".to_owned(),
            files: Vec::new(),
            tensor_digest: "sha256:00".to_owned(),
            param_count: 1,
            stop_token_ids: vec![2],
            max_tokens: 8,
            prompts: vec!["one".to_owned()],
            replies: BTreeMap::from([("candle".to_owned(), "00".to_owned())]),
        }
    }

    #[test]
    fn only_the_pinned_manifest_opens() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Control::open(dir.path(), "").unwrap_err();
        assert!(matches!(missing, ControlError::Unreadable { .. }));
        let write = |text: &str| {
            std::fs::write(manifest_path(dir.path()), text).unwrap();
            hex::encode(Sha256::digest(text))
        };
        let text = serde_json::to_string(&manifest()).unwrap();
        let pin = write(&text);
        let control = Control::open(dir.path(), &pin).unwrap();
        assert_eq!(control.manifest, manifest());
        write(&(text + " "));
        let other = Control::open(dir.path(), &pin).unwrap_err();
        assert!(matches!(other, ControlError::Other { .. }), "{other}");
        let pin = write("{}");
        let malformed = Control::open(dir.path(), &pin).unwrap_err();
        assert!(
            matches!(malformed, ControlError::Malformed { .. }),
            "{malformed}"
        );
    }
}
