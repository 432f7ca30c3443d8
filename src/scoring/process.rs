//! Runs a scorer as a plain child process: for the demo and for hosts without a container engine.
//! Not sealed: a hostile model file is then only kept out by the checks before it. Never the way to
//! score strangers' models.

use super::ScoringError;
use super::job::{JobPath, PreparedJob};
use super::logs;
use super::replies::open_plain;
use super::runner::{ENVIRONMENT, Finished, Kill, Scorer, supervise};
use super::watchdog::OUT_BYTES_MAX;
use crate::fault::Fault;
use crate::shutdown::Shutdown;
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Time for a killed process to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// Scores with a binary on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessScorer {
    /// The scorer.
    pub binary: PathBuf,
    /// Most address space in bytes.
    pub memory_bytes: u64,
    /// Time between asking the scorer to end and killing it.
    pub grace: Duration,
}

impl Scorer for ProcessScorer {
    fn run<'a>(
        &'a self,
        job: &'a PreparedJob,
        stop: &'a Shutdown,
    ) -> BoxFuture<'a, Result<Finished, Fault>> {
        async move { Ok(self.run_child(job, stop).await?) }.boxed()
    }
}

impl ProcessScorer {
    async fn run_child(
        &self,
        job: &PreparedJob,
        stop: &Shutdown,
    ) -> Result<Finished, ScoringError> {
        link_model(job)?;
        let begun = Instant::now();
        let mut child = self.start(job)?;
        let group = group_of(&child);
        let (status, killed) = match supervise(job, stop, child.wait()).await {
            Ok(status) => (status.ok(), None),
            Err(kill) => (self.end(&mut child, kill).await?, Some(kill)),
        };
        // What the scorer itself started must not outlive it.
        signal_group(group, Signal::KILL);
        Ok(Finished {
            exit: status.and_then(exit_code),
            oom_killed: false,
            killed,
            log_tail: log_tail(&job.path(JobPath::Log)),
            image_id: None,
            wall: begun.elapsed(),
        })
    }

    fn start(&self, job: &PreparedJob) -> Result<Child, ScoringError> {
        let path = job.path(JobPath::Log);
        let log = File::create(&path).map_err(ScoringError::disk(&path))?;
        let errors = log.try_clone().map_err(ScoringError::disk(&path))?;
        let child = Command::new(&self.binary)
            .args(["run", "--root"])
            .arg(job.path(JobPath::Root))
            .current_dir(job.path(JobPath::Out))
            .env_clear()
            .envs(ENVIRONMENT)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ScoringError::Binary {
                binary: self.binary.clone(),
                source,
            })?;
        limit(group_of(&child), job.memory_bytes(self.memory_bytes));
        Ok(child)
    }

    async fn end(&self, child: &mut Child, kill: Kill) -> Result<Option<ExitStatus>, ScoringError> {
        tracing::info!(?kill, "ending a scorer");
        let group = group_of(child);
        for (signal, patience) in [(Signal::TERM, self.grace), (Signal::KILL, KILLED)] {
            signal_group(group, signal);
            if let Ok(status) = tokio::time::timeout(patience, child.wait()).await {
                return Ok(status.ok());
            }
        }
        Err(ScoringError::Engine {
            doing: "end a scorer process",
            message: "it still runs after SIGKILL".to_owned(),
        })
    }
}

/// Kills the scorers of a node process that died: exactly those that run on a job folder inside
/// `jobs`. Called at the node's start, before any job runs. Returns how many were killed.
///
/// # Errors
/// [`ScoringError::Disk`] when the processes cannot be listed.
pub fn reap_orphans(jobs: &Path) -> Result<usize, ScoringError> {
    let Ok(jobs) = fs::canonicalize(jobs) else {
        return Ok(0);
    };
    let proc = Path::new("/proc");
    let mut killed = 0;
    for entry in fs::read_dir(proc)
        .map_err(ScoringError::disk(proc))?
        .flatten()
    {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if runs_in(&line, &jobs) {
            signal_group(pid.and_then(Pid::from_raw), Signal::KILL);
            killed += 1;
        }
    }
    Ok(killed)
}

fn runs_in(command_line: &[u8], jobs: &Path) -> bool {
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    match words.as_slice() {
        [_, b"run", b"--root", root, ..] => {
            let root = Path::new(std::ffi::OsStr::from_bytes(root));
            root.parent() == Some(jobs)
        }
        _ => false,
    }
}

fn link_model(job: &PreparedJob) -> Result<(), ScoringError> {
    let link = job.path(JobPath::Model);
    std::os::unix::fs::symlink(&job.model_dir, &link).map_err(ScoringError::disk(&link))
}

fn group_of(child: &Child) -> Option<Pid> {
    let id = i32::try_from(child.id()?).ok()?;
    Pid::from_raw(id)
}

/// Best effort: the process runner promises no seal. Without an id nothing is done, since the
/// system call would then limit this very process.
fn limit(process: Option<Pid>, memory_bytes: u64) {
    if process.is_none() {
        return;
    }
    for (resource, most) in [
        (Resource::As, memory_bytes),
        (Resource::Core, 0),
        (Resource::Fsize, OUT_BYTES_MAX),
    ] {
        let bound = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if let Err(error) = rustix::process::prlimit(process, resource, bound) {
            tracing::debug!(?resource, %error, "a limit was not set");
        }
    }
}

/// An empty group is no error: that is what the caller wants.
fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

fn exit_code(status: ExitStatus) -> Option<i64> {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
    code.map(i64::from)
}

fn log_tail(path: &Path) -> String {
    let mut bytes = Vec::new();
    let most = u64::try_from(logs::TEXT_MAX).unwrap_or(u64::MAX);
    let read = open_plain(path).and_then(|mut file| {
        let start = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(start))?;
        file.take(most).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => logs::clean(&bytes),
        Err(error) => format!("(the log could not be read: {error})"),
    }
}
