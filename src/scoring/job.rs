//! A job's folder: what a scorer reads and where it writes.

use super::ScoringError;
use assay_protocol::{
    Canary, Dataset, EngineArgs, Generation, JOB_SCHEMA, Job, Likelihood, Limits, Mode, Model,
    ModelFile, Reference, Sample,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Most samples of one job.
pub const ITEMS_MAX: usize = 4096;
/// Longest prompt in bytes; far above any context length, so only a bug reaches it.
pub const PROMPT_BYTES_MAX: usize = 1024 * 1024;

/// Size of the top set in a likelihood line, and the most tokens of one reference that are scored:
/// those of the origin's formulas.
const TOP_K: u32 = 10;
/// See [`TOP_K`].
const TARGET_TOKENS_MAX: u32 = 200;

/// The model as the node verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Folder that holds exactly `files`.
    pub dir: PathBuf,
    /// The one entry of `architectures`.
    pub architecture: String,
    /// Every file with size and SHA-256, from the node's own verification.
    pub files: Vec<ModelFile>,
    /// `sha256:` + hex over the sorted tensors.
    pub tensor_digest: String,
    /// Number of parameters.
    pub param_count: u64,
}

/// One attempt to score one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreJob {
    /// 1 to 64 characters of `a-z A-Z 0-9 _ -`.
    pub job_id: String,
    /// From 1.
    pub attempt: u32,
    /// Fresh for each attempt; binds the result to it.
    pub nonce: [u8; 32],
    /// The model.
    pub model: ModelFacts,
    /// Items in the round's order; ids are unique.
    pub items: Vec<Sample>,
    /// Texts of which the model is asked how probable they are, each after the prompt of the item of
    /// the same id; none for no such pass.
    pub references: Vec<Reference>,
    /// Digest of the pack that the items were drawn from, `sha256:` + hex.
    pub pack: String,
    /// Decoding.
    pub generation: Generation,
    /// Engine settings.
    pub engine_args: EngineArgs,
    /// Deadlines.
    pub limits: Limits,
    /// Read-back of loaded weights.
    pub canary: Canary,
    /// Twice the worker's memory, after a run into its limit.
    pub memory_raised: bool,
}

/// Every path of a job's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPath {
    /// The folder itself; only its owner may enter, since `out` is writable for all.
    Root,
    /// Link to the model's folder, for a scorer that runs as a plain process.
    Model,
    /// Input folder, `/job` in a container.
    Job,
    /// The job.
    JobJson,
    /// The prompts.
    Samples,
    /// The texts of the likelihood pass.
    References,
    /// Output folder, `/out` in a container.
    Out,
    /// Liveness.
    Progress,
    /// Replies.
    Replies,
    /// What the likelihood pass found.
    Likelihood,
    /// The result.
    Result,
    /// Output streams of a scorer that runs as a plain process.
    Log,
}

/// A job whose folder is ready. Removed with [`PreparedJob::remove`], not on drop: a crash must
/// leave evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedJob {
    /// What `job.json` says; the node's own copy, never read back.
    pub job: Job,
    /// Ids of the items in order.
    pub ids: Vec<String>,
    /// Ids of the references.
    pub probes: Vec<String>,
    /// The model's folder on the host, absolute.
    pub model_dir: PathBuf,
    /// Twice the worker's memory.
    pub memory_raised: bool,
    root: PathBuf,
}

impl PreparedJob {
    /// The one place where a path of the job is made.
    #[must_use]
    pub fn path(&self, which: JobPath) -> PathBuf {
        let name = match which {
            JobPath::Root => return self.root.clone(),
            JobPath::Model => "model",
            JobPath::Job => "job",
            JobPath::JobJson => "job/job.json",
            JobPath::Samples => "job/samples.jsonl",
            JobPath::References => "job/references.jsonl",
            JobPath::Out => "out",
            JobPath::Progress => "out/progress.jsonl",
            JobPath::Replies => "out/replies.jsonl",
            JobPath::Likelihood => "out/likelihood.jsonl",
            JobPath::Result => "out/result.json",
            JobPath::Log => "scorer.log",
        };
        self.root.join(name)
    }

    /// Memory of this job, given a worker's usual one.
    #[must_use]
    pub fn memory_bytes(&self, usual: u64) -> u64 {
        usual.saturating_mul(if self.memory_raised { 2 } else { 1 })
    }

    /// Deletes the job's folder; the model's folder stays.
    ///
    /// # Errors
    /// [`ScoringError::Disk`].
    pub fn remove(&self) -> Result<(), ScoringError> {
        remove_folder(&self.root)
    }
}

/// Writes `job/job.json`, `job/samples.jsonl`, where there are any `job/references.jsonl`, and a fresh, empty `out/` into
/// `dir/<job id>-<attempt>/`, replacing what an interrupted try of the same attempt left there.
/// Sets the model's files to 0644 and its folder to 0755, because some libraries save weights as
/// 0600, which a scorer of another uid reports as missing. Blocks on the disk.
///
/// # Errors
/// [`ScoringError::Job`] when the job contradicts itself, [`ScoringError::Model`] when the model's folder
/// differs from the listed files, [`ScoringError::Disk`].
pub fn prepare(job: &ScoreJob, dir: &Path) -> Result<PreparedJob, ScoringError> {
    check(job)?;
    let model_dir = fs::canonicalize(&job.model.dir).map_err(ScoringError::disk(&job.model.dir))?;
    check_model(&job.model.files, &model_dir)?;
    fs::create_dir_all(dir).map_err(ScoringError::disk(dir))?;
    let dir = fs::canonicalize(dir).map_err(ScoringError::disk(dir))?;
    let samples = lines_file(&job.items)?;
    let references = lines_file(&job.references)?;
    let prepared = PreparedJob {
        job: protocol_job(job, &samples, &references)?,
        ids: job.items.iter().map(|item| item.id.clone()).collect(),
        probes: job.references.iter().map(|r| r.id.clone()).collect(),
        model_dir,
        memory_raised: job.memory_raised,
        root: dir.join(format!("{}-{}", job.job_id, job.attempt)),
    };
    remove_folder(&prepared.root)?;
    for (which, mode) in [
        (JobPath::Root, 0o700),
        (JobPath::Job, 0o755),
        (JobPath::Out, 0o777),
    ] {
        let path = prepared.path(which);
        fs::create_dir(&path).map_err(ScoringError::disk(&path))?;
        set_mode(&path, mode)?;
    }
    let json = serde_json::to_vec_pretty(&prepared.job)
        .map_err(|error| ScoringError::Job(error.to_string()))?;
    write_file(&prepared.path(JobPath::JobJson), &json)?;
    write_file(&prepared.path(JobPath::Samples), &samples)?;
    if !references.is_empty() {
        write_file(&prepared.path(JobPath::References), &references)?;
    }
    Ok(prepared)
}

fn check(job: &ScoreJob) -> Result<(), ScoringError> {
    let bad = |what: String| Err(ScoringError::Job(what));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if job.job_id.is_empty() || job.job_id.len() > 64 || !job.job_id.chars().all(plain) {
        return bad(format!("{:?} is no job id", job.job_id));
    }
    if job.attempt == 0 || job.limits.total_s == 0 || job.limits.stall_s == 0 {
        return bad("attempt and deadlines start at 1".to_owned());
    }
    if job.items.is_empty() || job.items.len() > ITEMS_MAX {
        return bad(format!("{} items, not 1 to {ITEMS_MAX}", job.items.len()));
    }
    let mut seen = HashSet::new();
    for item in &job.items {
        let fits = !item.id.is_empty() && item.id.len() <= 128 && item.id.is_ascii();
        if !fits || !seen.insert(&item.id) {
            return bad(format!("item id {:?} is malformed or twice", item.id));
        }
        if item.prompt.len() > PROMPT_BYTES_MAX {
            return bad(format!("the prompt of item {} is too long", item.id));
        }
    }
    let mut asked = HashSet::new();
    for reference in &job.references {
        if !seen.contains(&reference.id) || !asked.insert(&reference.id) {
            return bad(format!(
                "reference {:?} has no item or is twice",
                reference.id
            ));
        }
    }
    Ok(())
}

/// The folder holds exactly the listed files, as plain files of the listed sizes.
fn check_model(files: &[ModelFile], dir: &Path) -> Result<(), ScoringError> {
    let mut missing: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    if missing.is_empty() || missing.len() != files.len() {
        return Err(ScoringError::Job("no model files, or one twice".to_owned()));
    }
    for entry in fs::read_dir(dir).map_err(ScoringError::disk(dir))? {
        let path = entry.map_err(ScoringError::disk(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let listed = files.iter().find(|file| file.path == name);
        let found = fs::symlink_metadata(&path).map_err(ScoringError::disk(&path))?;
        let fits = |file: &ModelFile| found.is_file() && file.size == found.len();
        if !listed.is_some_and(fits) {
            return Err(ScoringError::Model(path.display().to_string()));
        }
        set_mode(&path, 0o644)?;
        missing.remove(name.as_ref());
    }
    if let Some(name) = missing.iter().next() {
        let text = format!("{} is missing in {}", name, dir.display());
        return Err(ScoringError::Model(text));
    }
    set_mode(dir, 0o755)
}

fn lines_file<T: Serialize>(items: &[T]) -> Result<Vec<u8>, ScoringError> {
    let mut bytes = Vec::new();
    for item in items {
        serde_json::to_writer(&mut bytes, item)
            .map_err(|error| ScoringError::Job(error.to_string()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn protocol_job(job: &ScoreJob, samples: &[u8], references: &[u8]) -> Result<Job, ScoringError> {
    let small =
        |n: usize| u32::try_from(n).map_err(|_| ScoringError::Job("too many items".to_owned()));
    let count = small(job.items.len())?;
    let likelihood = Likelihood {
        count: small(job.references.len())?,
        top_k: TOP_K,
        max_target_tokens: TARGET_TOKENS_MAX,
    };
    let probed = !job.references.is_empty();
    let mut mode = vec![Mode::Generate];
    mode.extend(probed.then_some(Mode::Likelihood));
    Ok(Job {
        schema: JOB_SCHEMA.to_owned(),
        job_id: job.job_id.clone(),
        nonce: hex::encode(job.nonce),
        attempt: job.attempt,
        mode,
        model: Model {
            dir: "/model".to_owned(),
            architecture: job.model.architecture.clone(),
            files: job.model.files.clone(),
            tensor_digest: job.model.tensor_digest.clone(),
            param_count: job.model.param_count,
        },
        dataset: Dataset {
            snapshot: job.pack.clone(),
            samples_sha256: hex::encode(Sha256::digest(samples)),
            references_sha256: probed.then(|| hex::encode(Sha256::digest(references))),
            count,
        },
        generation: job.generation.clone(),
        likelihood: probed.then_some(likelihood),
        engine_args: job.engine_args.clone(),
        limits: job.limits.clone(),
        canary: job.canary.clone(),
    })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ScoringError> {
    fs::write(path, bytes).map_err(ScoringError::disk(path))?;
    set_mode(path, 0o644)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ScoringError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(ScoringError::disk(path))
}

fn remove_folder(path: &Path) -> Result<(), ScoringError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ScoringError::disk(path)(error))
        }
        _ => Ok(()),
    }
}
