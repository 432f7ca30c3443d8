//! `/job`: what is to be done, checked before anything else is touched.

use crate::failure::{Failure, OrFailure};
use assay_protocol::{JOB_SCHEMA, Job, Mode, Reference, ResultCode, Sample};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const JOB_BYTES_MAX: u64 = 1 << 20;
const LINES_BYTES_MAX: u64 = 1 << 28;
const CONTAINER_MODEL_DIR: &str = "/model";

/// The three folders of a job.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) model: PathBuf,
    pub(crate) job: PathBuf,
    pub(crate) out: PathBuf,
}

impl Folders {
    pub(crate) fn under(root: &Path) -> Self {
        Self {
            model: root.join("model"),
            job: root.join("job"),
            out: root.join("out"),
        }
    }
}

/// The items of a job, with the digest of the file that they came from.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) samples: Vec<Sample>,
    pub(crate) samples_sha256: String,
    /// In the order of the file; empty without a likelihood pass.
    pub(crate) references: Vec<Reference>,
}

/// Reads and parses `job.json`.
pub(crate) fn read(folder: &Path) -> Result<Job, Failure> {
    let bytes = read_bounded(&folder.join("job.json"), JOB_BYTES_MAX)?;
    serde_json::from_slice(&bytes).or_failure(ResultCode::JobSchema, "job.json")
}

/// The nonce's bytes.
pub(crate) fn nonce(job: &Job) -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(&job.nonce, &mut bytes).or_failure(ResultCode::JobSchema, "nonce")?;
    Ok(bytes)
}

/// Checks everything in `job` that the types do not.
pub(crate) fn check(job: &Job, folders: &Folders) -> Result<(), Failure> {
    nonce(job)?;
    let wants = |mode| job.mode.contains(&mode);
    let likelihood = wants(Mode::Likelihood);
    let model_dir = Path::new(&job.model.dir);
    let limits = &job.limits;
    let problems = [
        (job.schema != JOB_SCHEMA, "schema is not assay-job/1"),
        (
            job.job_id.is_empty() || job.job_id.len() > 128,
            "job_id is empty or too long",
        ),
        (job.attempt == 0, "attempt is 0"),
        (job.mode.is_empty(), "mode is empty"),
        (
            job.mode.len() > usize::from(wants(Mode::Generate)) + usize::from(likelihood),
            "mode repeats",
        ),
        (
            model_dir != Path::new(CONTAINER_MODEL_DIR) && model_dir != folders.model,
            "model.dir is not the model folder",
        ),
        (
            !files_are_plain(job),
            "model.files: a name is not plain or comes twice",
        ),
        (job.dataset.count == 0, "dataset.count is 0"),
        (
            job.likelihood.is_some() != likelihood,
            "likelihood does not fit mode",
        ),
        (
            likelihood && job.dataset.references_sha256.is_none(),
            "references_sha256 is missing",
        ),
        (job.generation.max_tokens == 0, "max_tokens is 0"),
        (
            job.generation.max_prompt_tokens == 0,
            "max_prompt_tokens is 0",
        ),
        (
            job.engine_args.dtype != "float32",
            "this scorer computes in float32 only",
        ),
        (limits.total_s == 0 || limits.stall_s == 0, "limits has a 0"),
    ];
    match problems.iter().find(|(is_bad, _)| *is_bad) {
        None => Ok(()),
        Some((_, problem)) => Err(Failure::new(
            ResultCode::JobSchema,
            format!("job.json: {problem}"),
        )),
    }
}

fn files_are_plain(job: &Job) -> bool {
    let mut seen = HashSet::new();
    job.model.files.iter().all(|file| {
        let plain = file
            .path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        plain && !file.path.starts_with('.') && !file.path.is_empty() && seen.insert(&file.path)
    })
}

/// Reads the line files that the job needs and compares them with their digests.
pub(crate) fn items(job: &Job, folder: &Path) -> Result<Items, Failure> {
    let bytes = read_bounded(&folder.join("samples.jsonl"), LINES_BYTES_MAX)?;
    same_digest("samples.jsonl", &bytes, &job.dataset.samples_sha256)?;
    let samples: Vec<Sample> = lines("samples.jsonl", &bytes)?;
    let ids: HashSet<&str> = samples.iter().map(|s| s.id.as_str()).collect();
    let counted = u32::try_from(samples.len()).ok() == Some(job.dataset.count);
    if !counted || ids.len() != samples.len() || ids.contains("") {
        let message = "samples.jsonl: the number of lines is not dataset.count, or an id is empty or comes twice";
        return Err(Failure::new(ResultCode::JobSamples, message));
    }
    let mut references = Vec::new();
    if let (Some(likelihood), Some(digest)) = (&job.likelihood, &job.dataset.references_sha256) {
        let bytes = read_bounded(&folder.join("references.jsonl"), LINES_BYTES_MAX)?;
        same_digest("references.jsonl", &bytes, digest)?;
        references = lines::<Reference>("references.jsonl", &bytes)?;
        let counted = u32::try_from(references.len()).ok() == Some(likelihood.count);
        if !counted || references.iter().any(|r| !ids.contains(r.id.as_str())) {
            let message = "references.jsonl: the number of lines is not likelihood.count, or an id has no sample";
            return Err(Failure::new(ResultCode::JobSamples, message));
        }
    }
    Ok(Items {
        samples_sha256: hex::encode(Sha256::digest(&bytes)),
        samples,
        references,
    })
}

fn same_digest(name: &str, bytes: &[u8], expected: &str) -> Result<(), Failure> {
    let found = hex::encode(Sha256::digest(bytes));
    if found == expected {
        return Ok(());
    }
    let message = format!("{name} has digest {found}, the job says {expected}");
    Err(Failure::new(ResultCode::JobDigest, message))
}

fn lines<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<Vec<T>, Failure> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    (1..)
        .zip(body.split(|b| *b == b'\n'))
        .map(|(number, line)| {
            let what = format_args!("{name}, line {number}").to_string();
            serde_json::from_slice(line).or_failure(ResultCode::JobSamples, what)
        })
        .collect()
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let what = format!("reading {}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .or_failure(ResultCode::Io, &what)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= max) {
        return Ok(bytes);
    }
    let message = format!("{} is longer than {max} bytes", path.display());
    Err(Failure::new(ResultCode::JobSchema, message))
}
