//! What is checked on a downloaded model before a scorer sees it. Every byte is hostile.
//!
//! The configuration is parsed by an allow-list and written anew; weights are read once, from
//! headers of our own strict parser, for digests and for values that are no numbers; the tokenizer
//! is bounded before a library sees it. A violation is a [`Rejection`]; only a failed read is an
//! error of ours.

mod config;
mod header;
mod index;
mod json;
mod scan;
mod sketch;
mod stop_ids;
pub mod template;
mod tensors;
mod tokenizer;

#[cfg(test)]
mod fixtures;

pub use config::gemma::Gemma;
pub use config::rope::{Rope, RopeScaling};
pub use config::{ModelConfig, ModelDtype};
pub use header::{Dtype, Header, TensorInfo};
pub use sketch::sketch;
pub use tokenizer::{TokenizerFacts, check as check_tokenizer};

use crate::fault::{Fault, Party};
use crate::incentive::eligibility::ModelFiles;
use crate::incentive::{Era, Rejection, RejectionCode, Template};
use assay_protocol::{ModelFile, TensorEntry, tensor_digest};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::Path;

/// A model that passed every check, and what a job needs to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The parsed configuration.
    pub config: ModelConfig,
    /// Every tensor with its digest, ordered by name.
    pub tensors: Vec<TensorEntry>,
    /// Digest of each tensor's values rounded to bf16, names and shapes left out, in the order of the
    /// files: what [`sketch()`] keeps.
    pub values: Vec<[u8; 16]>,
    /// Digest of `tensors`; the same for the same weights, however they are cut into files.
    pub tensor_digest: String,
    /// Number of parameters.
    pub param_count: u64,
    /// Ids that end a reply: the model's own and the template's, ascending.
    pub stop_ids: Vec<u32>,
    /// Files to mount as they were downloaded: the tokenizer and the weights.
    pub unchanged: Vec<String>,
    /// Files that are written anew from what was parsed, by name: these are mounted, never the
    /// miner's.
    pub rewritten: Vec<(&'static str, Vec<u8>)>,
}

impl Verified {
    /// Writes [`Verified::rewritten`] into `dir` and describes what was written.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_rewritten(&self, dir: &Path) -> io::Result<Vec<ModelFile>> {
        let write = |(name, content): &(&'static str, Vec<u8>)| {
            std::fs::write(dir.join(name), content)?;
            Ok(ModelFile {
                path: (*name).to_owned(),
                size: content.len() as u64,
                sha256: hex::encode(Sha256::digest(content)),
            })
        };
        self.rewritten.iter().map(write).collect()
    }
}

/// Why there is no [`Verified`] model.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The model breaks a rule: a verdict, final for this submission.
    #[error("{0}")]
    Rejected(Rejection),
    /// A file that was downloaded and verified cannot be read; the model is not at fault.
    #[error("cannot read {file}: {source}; check the disk and download the model again")]
    Unreadable {
        /// Name of the file.
        file: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl From<Rejection> for AdmissionError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl AdmissionError {
    /// The verdict, or the trouble of ours.
    ///
    /// # Errors
    /// The [`Fault`] of a failed read.
    pub fn into_rejection(self) -> Result<Rejection, Fault> {
        match self {
            Self::Rejected(rejection) => Ok(rejection),
            unreadable @ Self::Unreadable { .. } => Err(Fault::retryable(
                Party::Node,
                "MODEL_UNREADABLE",
                unreadable,
            )),
        }
    }
}

fn reject(code: RejectionCode, detail: impl std::fmt::Display) -> Rejection {
    Rejection::new(code, detail)
}

/// Checks the model in `folder`, which holds `files` as verified by their digests, on all cores.
/// Reads every byte of the weights once; blocking, about as fast as SHA-256 on those cores.
///
/// # Errors
/// [`AdmissionError`]: the first rule that the model breaks, or a failed read.
pub fn verify(
    folder: &Path,
    files: &ModelFiles,
    era: &Era,
    template: Template,
) -> Result<Verified, AdmissionError> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    verify_on(cores, folder, files, era, template)
}

/// As [`verify`], with so many threads at most.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(
    cores: NonZeroUsize,
    folder: &Path,
    files: &ModelFiles,
    era: &Era,
    template: Template,
) -> Result<Verified, AdmissionError> {
    let config = ModelConfig::parse(&read(folder, &files.config.path)?, era)?;
    let tokenizer = tokenizer::check(
        &read(folder, &files.tokenizer.path)?,
        config.vocab_size,
        template,
    )?;
    let generation = match &files.generation_config {
        Some(file) => Some(read(folder, &file.path)?),
        None => None,
    };
    let eos_ids = stop_ids::eos_ids(&config, generation.as_deref())?;
    let mut stop_ids = eos_ids.clone();
    stop_ids.extend(tokenizer.template_end_id);
    stop_ids.sort_unstable();
    stop_ids.dedup();

    let headers = read_headers(folder, files)?;
    tensors::check(&config, &headers)?;
    let mut rewritten = vec![
        ("config.json", config.rewrite(&eos_ids)),
        ("generation_config.json", stop_ids::rewrite(&eos_ids)),
    ];
    if let Some(file) = &files.index {
        index::check(&read(folder, &file.path)?, &headers)?;
        rewritten.push(("model.safetensors.index.json", index::rewrite(&headers)));
    }
    let scanned = scan::scan(folder, &headers, cores)?.into_iter();
    let (mut tensors, values): (Vec<TensorEntry>, Vec<[u8; 16]>) = scanned.unzip();
    let weights = files.weights.iter().map(|f| f.path.clone());
    Ok(Verified {
        tensor_digest: tensor_digest(&mut tensors),
        values,
        param_count: headers.iter().map(|(_, h)| h.param_count()).sum(),
        tensors,
        config,
        stop_ids,
        unchanged: [files.tokenizer.path.clone()]
            .into_iter()
            .chain(weights)
            .collect(),
        rewritten,
    })
}

/// Headers by file name, all of them before any data is read: what is wrong there costs no time.
fn read_headers(
    folder: &Path,
    files: &ModelFiles,
) -> Result<Vec<(String, Header)>, AdmissionError> {
    let mut headers = Vec::with_capacity(files.weights.len());
    for file in &files.weights {
        let mut shard = open(folder, &file.path)?;
        let header = Header::read(&mut shard, file.size).map_err(|e| e.of_file(&file.path))?;
        headers.push((file.path.clone(), header));
    }
    Ok(headers)
}

fn open(folder: &Path, name: &str) -> Result<File, AdmissionError> {
    File::open(folder.join(name)).map_err(|source| unreadable(name, source))
}

/// A small file, whole. Its size was bounded by the listing and verified by the download.
fn read(folder: &Path, name: &str) -> Result<Vec<u8>, AdmissionError> {
    let mut content = Vec::new();
    open(folder, name)?
        .take(crate::incentive::eligibility::TOKENIZER_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|source| unreadable(name, source))?;
    Ok(content)
}

fn unreadable(name: &str, source: io::Error) -> AdmissionError {
    AdmissionError::Unreadable {
        file: name.to_owned(),
        source,
    }
}

/// A stream ended in a rule or in a failed read.
#[derive(Debug)]
pub enum StreamError {
    /// The bytes break a rule.
    Rejected(Rejection),
    /// The bytes cannot be read.
    Io(io::Error),
}

impl From<Rejection> for StreamError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl StreamError {
    fn of_file(self, name: &str) -> AdmissionError {
        match self {
            Self::Rejected(rejection) => {
                let detail = format!("{name}: {}", rejection.detail);
                AdmissionError::Rejected(reject(rejection.code, detail))
            }
            Self::Io(source) => unreadable(name, source),
        }
    }
}

#[cfg(test)]
mod tests;
