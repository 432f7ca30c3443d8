//! `/out`: signs of life, replies as they are finished, and the result that ends the job.

use crate::failure::{Failure, OrFailure};
use assay_protocol::{
    Finish, JobResult, LINE_BYTES_MAX, Progress, REPLIES_BYTES_MAX, ReferenceLikelihood, Reply,
    ResultCode, Stage,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time between two progress lines while work goes on.
const BEAT: Duration = Duration::from_secs(5);

/// The output folder of a running job.
#[derive(Debug)]
pub(crate) struct Output {
    dir: PathBuf,
    started: Instant,
    progress: Lines,
    told: Option<(Stage, Instant)>,
    replies: Lines,
    /// Made by the first line.
    likelihood: Option<Lines>,
}

/// A line file with the digest of what was written.
#[derive(Debug)]
struct Lines {
    name: &'static str,
    file: File,
    digest: Sha256,
}

impl Lines {
    /// Creates the file, which must not exist yet.
    fn create(dir: &Path, name: &'static str) -> Result<Self, Failure> {
        let what = format!("creating {name} in {}", dir.display());
        Ok(Self {
            name,
            file: File::create_new(dir.join(name)).or_failure(ResultCode::Io, what)?,
            digest: Sha256::new(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.digest.update(bytes);
        let what = format!("writing {}", self.name);
        self.file.write_all(bytes).or_failure(ResultCode::Io, what)
    }

    /// Makes the file durable and returns its digest.
    fn finish(&self) -> Result<String, Failure> {
        let what = format!("syncing {}", self.name);
        self.file.sync_all().or_failure(ResultCode::Io, what)?;
        Ok(hex::encode(self.digest.clone().finalize()))
    }
}

impl Output {
    /// Opens the two line files, which must not exist yet.
    pub(crate) fn create(dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            dir: dir.to_owned(),
            started: Instant::now(),
            progress: Lines::create(dir, "progress.jsonl")?,
            told: None,
            replies: Lines::create(dir, "replies.jsonl")?,
            likelihood: None,
        })
    }

    /// The stage of the last progress line.
    pub(crate) fn stage(&self) -> Stage {
        self.told.map_or(Stage::Verify, |(stage, _)| stage)
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Called often while work goes on; writes a line when the stage is new or the last line old.
    pub(crate) fn beat(&mut self, stage: Stage, done: usize, total: usize) -> Result<(), Failure> {
        match self.told {
            Some((last, at)) if last == stage && at.elapsed() < BEAT => Ok(()),
            _ => self.tell(stage, done, total),
        }
    }

    /// Writes a progress line.
    pub(crate) fn tell(&mut self, stage: Stage, done: usize, total: usize) -> Result<(), Failure> {
        let line = line(&Progress {
            t: self.seconds(),
            stage,
            done: u64::try_from(done).unwrap_or(u64::MAX),
            total: u64::try_from(total).unwrap_or(u64::MAX),
        })?;
        self.told = Some((stage, Instant::now()));
        self.progress.write(&line)
    }

    /// Appends a reply. A text that would make the line longer than the node reads (or its share
    /// of the whole file, for `count` replies) loses its end and counts as cut.
    pub(crate) fn reply(&mut self, mut reply: Reply, count: usize) -> Result<Reply, Failure> {
        let share = REPLIES_BYTES_MAX / u64::try_from(count.max(1)).unwrap_or(u64::MAX);
        let max = usize::try_from(share)
            .unwrap_or(usize::MAX)
            .min(LINE_BYTES_MAX);
        let mut bytes = line(&reply)?;
        while bytes.len() > max && !reply.text.is_empty() {
            let keep = reply.text.len() * 3 / 4;
            reply.text.truncate(reply.text.floor_char_boundary(keep));
            reply.finish = Finish::Length;
            bytes = line(&reply)?;
        }
        self.replies.write(&bytes)?;
        Ok(reply)
    }

    /// Appends a line of `likelihood.jsonl`.
    pub(crate) fn likelihood(&mut self, one: &ReferenceLikelihood) -> Result<(), Failure> {
        let bytes = line(one)?;
        match &mut self.likelihood {
            Some(lines) => lines.write(&bytes),
            none => none
                .insert(Lines::create(&self.dir, "likelihood.jsonl")?)
                .write(&bytes),
        }
    }

    /// Makes the likelihood lines durable and returns the file's digest; `None` without any.
    pub(crate) fn likelihood_digest(&self) -> Result<Option<String>, Failure> {
        self.likelihood.as_ref().map(Lines::finish).transpose()
    }

    /// Makes the replies durable and returns the file's digest.
    pub(crate) fn replies_digest(&self) -> Result<String, Failure> {
        self.replies.finish()
    }

    /// Ends the job: the result is there completely or not at all.
    pub(crate) fn finish(self, result: &JobResult) -> Result<(), Failure> {
        let bytes = line(result)?;
        let partial = self.dir.join("result.json.tmp");
        let write = || {
            let mut file = File::create_new(&partial)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&partial, self.dir.join("result.json"))?;
            File::open(&self.dir)?.sync_all()
        };
        write().or_failure(ResultCode::Io, "writing result.json")
    }
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(value).or_failure(ResultCode::Io, "encoding a line")?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_grows_when_encoded_is_cut_to_the_line_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::create(dir.path()).unwrap();
        let reply = Reply {
            id: "a".to_owned(),
            text: "\u{1}é".repeat(10_000),
            finish: Finish::Stop,
            prompt_tokens: 1,
            tokens: 1,
            ids_sha256: String::new(),
        };
        let written = output.reply(reply, 1).unwrap();
        assert_eq!(written.finish, Finish::Length);
        let file = std::fs::read(dir.path().join("replies.jsonl")).unwrap();
        assert!(file.len() <= LINE_BYTES_MAX && file.len() > LINE_BYTES_MAX / 2);
        let read: Reply = serde_json::from_slice(&file).unwrap();
        assert_eq!(read, written);
        assert_eq!(
            output.replies_digest().unwrap(),
            hex::encode(Sha256::digest(&file))
        );
    }

    #[test]
    fn a_used_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Output::create(dir.path()).unwrap());
        assert_eq!(Output::create(dir.path()).unwrap_err().code, ResultCode::Io);
    }
}
