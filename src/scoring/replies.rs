//! Strict reader of what a scorer left in `out`. Every byte there is hostile.

use super::job::{JobPath, PreparedJob};
use assay_protocol::{
    ExitClass, Finish, Job, JobResult, LIKELIHOOD_BYTES_MAX, LINE_BYTES_MAX, ModelFile,
    REPLIES_BYTES_MAX, RESULT_BYTES_MAX, RESULT_SCHEMA, ReferenceLikelihood, Reply, ResultCode,
    Status,
};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A result that belongs to its job.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The result; MAC, ids and (for ok and rejected) proof are checked.
    pub result: JobResult,
    /// One reply for each item in the job's order when the status is ok, else none.
    pub replies: Vec<Reply>,
    /// Hex SHA-256 of `replies.jsonl` when the status is ok, computed by the node.
    pub replies_sha256: String,
    /// Log-probabilities in nats of each reference's tokens by item id, when the status is ok.
    pub likelihoods: Vec<(String, Vec<f64>)>,
}

/// Why there is no usable result. None of these is a verdict about the miner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// The scorer ended without writing a result.
    #[error("the scorer left no result")]
    Missing,
    /// A file cannot be read.
    #[error("{file} cannot be read: {message}")]
    Unreadable {
        /// File name.
        file: &'static str,
        /// What the system said.
        message: String,
    },
    /// A file breaks the protocol.
    #[error("{file} breaks the protocol: {what}")]
    Malformed {
        /// File name.
        file: &'static str,
        /// What is wrong; holds none of the file's text.
        what: String,
    },
    /// The result belongs to another job, or was altered.
    #[error("the result does not belong to this job: {0}")]
    Foreign(&'static str),
    /// What the scorer read or loaded is not what the node verified.
    #[error("the scorer did not load what was committed: {0}")]
    Proof(String),
}

const RESULT: &str = "result.json";
const REPLIES: &str = "replies.jsonl";
const LIKELIHOOD: &str = "likelihood.jsonl";

/// Reads and checks everything that the scorer of `job` left behind. Blocks on the disk; bounded by
/// the protocol's size limits.
///
/// # Errors
/// [`NoReport`]: without a valid result there is no verdict, whatever the exit code was.
pub fn read(job: &PreparedJob) -> Result<Report, NoReport> {
    let bytes = read_bounded(&job.path(JobPath::Result), RESULT, RESULT_BYTES_MAX)?;
    let result: JobResult =
        serde_json::from_slice(&bytes).map_err(|error| malformed(RESULT, place(&error)))?;
    check_identity(&result, &job.job)?;
    match (result.status, result.error.as_ref().map(|error| error.code)) {
        (Status::Ok, None) => {
            check_files(&result, &job.job)?;
            check_loaded(&result, &job.job)?;
            let bytes = read_bounded(&job.path(JobPath::Replies), REPLIES, REPLIES_BYTES_MAX)?;
            let replies_sha256 = hex::encode(Sha256::digest(&bytes));
            if result.proof.replies_sha256 != replies_sha256 {
                return Err(NoReport::Proof(
                    "the replies differ from their digest".into(),
                ));
            }
            let replies = in_order(parse_lines(&bytes, REPLIES)?, job)?;
            check_counts(&result, &replies, &job.job)?;
            Ok(Report {
                likelihoods: likelihoods(&result, job)?,
                result,
                replies,
                replies_sha256,
            })
        }
        (status, Some(code)) if status == status_of(code) => Ok(Report {
            result,
            replies: Vec::new(),
            replies_sha256: String::new(),
            likelihoods: Vec::new(),
        }),
        _ => Err(malformed(RESULT, "status and error contradict each other")),
    }
}

/// Whether the scorer saw exactly the files that the node verified: the evidence without which no
/// code of a scorer counts against a miner.
#[must_use]
pub fn saw_the_files(result: &JobResult, job: &Job) -> bool {
    check_files(result, job).is_ok()
}

/// Opens a plain file for reading; refuses links, pipes, devices and folders, and never blocks on
/// opening.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a plain file",
        ))
    }
}

fn read_bounded(path: &Path, name: &'static str, max: u64) -> Result<Vec<u8>, NoReport> {
    let unreadable = |error: io::Error| NoReport::Unreadable {
        file: name,
        message: error.to_string(),
    };
    let file = match open_plain(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && name == RESULT => {
            return Err(NoReport::Missing);
        }
        other => other.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= max) {
        Ok(bytes)
    } else {
        Err(malformed(name, format!("longer than {max} bytes")))
    }
}

fn malformed(file: &'static str, what: impl Into<String>) -> NoReport {
    NoReport::Malformed {
        file,
        what: what.into(),
    }
}

/// serde's own message may quote the file.
fn place(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("{:?} at {line}:{column}", error.classify())
}

fn check_identity(result: &JobResult, job: &Job) -> Result<(), NoReport> {
    if result.schema != RESULT_SCHEMA {
        return Err(NoReport::Foreign("another schema"));
    }
    if result.job_id != job.job_id || result.nonce != job.nonce {
        return Err(NoReport::Foreign("another job or attempt"));
    }
    result
        .check_mac()
        .map_err(|_| NoReport::Foreign("its MAC does not fit"))
}

fn check_files(result: &JobResult, job: &Job) -> Result<(), NoReport> {
    let sorted = |files: &[ModelFile]| {
        let mut files = files.to_vec();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    };
    let (seen, verified) = (sorted(&result.proof.files), sorted(&job.model.files));
    if seen == verified {
        return Ok(());
    }
    let differs = verified.iter().find(|file| !seen.contains(file));
    let what = differs.map_or("it read files that are not listed".to_owned(), |file| {
        format!("{} differs or was not read", file.path)
    });
    Err(NoReport::Proof(what))
}

fn check_loaded(result: &JobResult, job: &Job) -> Result<(), NoReport> {
    let proof = &result.proof;
    let bad = |what: &str| Err(NoReport::Proof(what.to_owned()));
    if !proof.files_unchanged {
        return bad("a file changed while it was loaded");
    }
    if proof.tensor_digest != job.model.tensor_digest {
        return bad("the tensor digest differs");
    }
    if proof.samples_sha256 != job.dataset.samples_sha256 {
        return bad("the samples differ");
    }
    let asked = usize::try_from(job.canary.tensors).unwrap_or(usize::MAX);
    if proof.canary.len() > asked || (proof.canary.is_empty() && asked > 0) {
        return bad("the read-back of loaded values is incomplete");
    }
    if proof
        .canary
        .iter()
        .any(|c| c.sha256_file != c.sha256_loaded)
    {
        return bad("loaded values differ from the file");
    }
    Ok(())
}

/// The likelihood pass's lines: for each reference that the job asks for exactly one, with as many
/// numbers as it has tokens.
fn likelihoods(result: &JobResult, job: &PreparedJob) -> Result<Vec<(String, Vec<f64>)>, NoReport> {
    let Some(asked) = &job.job.likelihood else {
        return Ok(Vec::new());
    };
    let path = job.path(JobPath::Likelihood);
    let bytes = read_bounded(&path, LIKELIHOOD, LIKELIHOOD_BYTES_MAX)?;
    if result.proof.likelihood_sha256 != Some(hex::encode(Sha256::digest(&bytes))) {
        return Err(NoReport::Proof(
            "the likelihoods differ from their digest".into(),
        ));
    }
    let lines: Vec<ReferenceLikelihood> = parse_lines(&bytes, LIKELIHOOD)?;
    let ids: HashSet<&String> = lines.iter().map(|line| &line.id).collect();
    let asked_for = |id: &String| job.probes.contains(id);
    if u32::try_from(ids.len()).ok() != Some(asked.count)
        || ids.len() != lines.len()
        || !ids.iter().all(|id| asked_for(id))
    {
        return Err(malformed(
            LIKELIHOOD,
            "it has other references than the job",
        ));
    }
    let unpack = |line: ReferenceLikelihood| {
        let nats = line
            .log_probabilities()
            .filter(|_| line.tokens <= asked.max_target_tokens);
        let nats =
            nats.ok_or_else(|| malformed(LIKELIHOOD, "the numbers do not fit the tokens"))?;
        Ok((line.id, nats))
    };
    lines.into_iter().map(unpack).collect()
}

fn parse_lines<T: DeserializeOwned>(bytes: &[u8], file: &'static str) -> Result<Vec<T>, NoReport> {
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        return Err(malformed(file, "the last line is cut"));
    }
    let mut replies = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        if line.len() > LINE_BYTES_MAX {
            return Err(malformed(file, format!("line {number} is too long")));
        }
        let reply = serde_json::from_slice(line)
            .map_err(|error| malformed(file, format!("line {number}: {}", place(&error))))?;
        replies.push(reply);
    }
    Ok(replies)
}

/// The replies in the job's order; ids are exactly the job's, each once.
fn in_order(replies: Vec<Reply>, job: &PreparedJob) -> Result<Vec<Reply>, NoReport> {
    let count = replies.len();
    let mut by_id: HashMap<String, Reply> = HashMap::with_capacity(count);
    for reply in replies {
        by_id.insert(reply.id.clone(), reply);
    }
    if by_id.len() != count || count != job.ids.len() {
        let what = format!("{count} replies for {} items, or one twice", job.ids.len());
        return Err(malformed(REPLIES, what));
    }
    let take = |id: &String| {
        by_id
            .remove(id)
            .ok_or_else(|| malformed(REPLIES, format!("no reply to item {id}")))
    };
    job.ids.iter().map(take).collect()
}

fn check_counts(result: &JobResult, replies: &[Reply], job: &Job) -> Result<(), NoReport> {
    let count = |test: fn(&&Reply) -> bool| u32::try_from(replies.iter().filter(test).count()).ok();
    let metrics = &result.metrics;
    let tokens: u64 = replies.iter().map(|reply| u64::from(reply.tokens)).sum();
    let same = count(|_| true) == Some(metrics.replies)
        && count(|reply| reply.finish == Finish::Length) == Some(metrics.hit_length)
        && tokens == metrics.tokens;
    if !same {
        return Err(malformed(RESULT, "the counts do not fit the replies"));
    }
    let over = |reply: &&Reply| {
        reply.tokens > job.generation.max_tokens
            || reply.prompt_tokens > job.generation.max_prompt_tokens
            || reply.ids_sha256.len() != 64
            || !reply.ids_sha256.bytes().all(|b| b.is_ascii_hexdigit())
    };
    match replies.iter().find(over) {
        Some(reply) => Err(malformed(
            REPLIES,
            format!("reply {} is beyond the job's bounds", reply.id),
        )),
        None => Ok(()),
    }
}

/// Only a class that needs no confirmation rejects.
fn status_of(code: ResultCode) -> Status {
    match code.class() {
        ExitClass::Miner => Status::Rejected,
        _ => Status::Infra,
    }
}
