//! The demo's child processes: one of our services each, restarted when they die.

use crate::shutdown::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long a child may take to drain after its standard input was closed.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause before a dead child is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// Restarts of one child before the demo gives up.
const RESTARTS_MAX: u32 = 50;

/// One service and how to start it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name of its log and PID files, and in messages.
    pub name: &'static str,
    /// Arguments of the `assay` binary.
    pub args: Vec<String>,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The operating system refused.
    #[error("cannot {action} the {name} process: {source}")]
    System {
        /// The child.
        name: &'static str,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It died too often.
    #[error("the {name} process ended {RESTARTS_MAX} times; its log is {}", log.display())]
    GaveUp {
        /// The child.
        name: &'static str,
        /// Where it wrote.
        log: PathBuf,
    },
}

/// Keeps `service` running until `shutdown`, then lets it drain. Its output goes to
/// `<dir>/logs/<name>.log`, its process id to `<dir>/run/<name>.pid`.
///
/// A child ends by itself when its standard input closes, so none outlives a killed demo.
///
/// # Errors
/// [`ChildError`] when it cannot be started or keeps dying.
pub async fn supervise(
    binary: PathBuf,
    dir: PathBuf,
    service: Service,
    shutdown: Shutdown,
) -> Result<(), ChildError> {
    let log = dir.join("logs").join(format!("{}.log", service.name));
    for restarts in 0..RESTARTS_MAX {
        let mut child = start(&binary, &dir, &service, &log)?;
        // Taken out, because waiting for a child closes an input that it still holds.
        let input = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(|source| ChildError::System {
                    name: service.name, action: "wait for", source,
                })?;
                tracing::warn!(service = service.name, %status, restarts, "child ended, starting it again");
            }
            () = shutdown.signalled() => {
                drop(input);
                return drain(child, service.name).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = shutdown.signalled() => return Ok(()),
        }
    }
    Err(ChildError::GaveUp {
        name: service.name,
        log,
    })
}

fn start(binary: &Path, dir: &Path, service: &Service, log: &Path) -> Result<Child, ChildError> {
    let failed = |action| {
        move |source| ChildError::System {
            name: service.name,
            action,
            source,
        }
    };
    for folder in ["logs", "run"] {
        std::fs::create_dir_all(dir.join(folder)).map_err(failed("make folders for"))?;
    }
    let output = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed("open the log of"))?;
    let errors = output.try_clone().map_err(failed("open the log of"))?;
    let child = Command::new(binary)
        .args(&service.args)
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("start"))?;
    let pid = child.id().map(|id| id.to_string()).unwrap_or_default();
    let pid_file = dir.join("run").join(format!("{}.pid", service.name));
    std::fs::write(pid_file, pid).map_err(failed("note the id of"))?;
    Ok(child)
}

async fn drain(mut child: Child, name: &'static str) -> Result<(), ChildError> {
    if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
        tracing::warn!(service = name, "child did not drain in time, killing it");
        child.kill().await.map_err(|source| ChildError::System {
            name,
            action: "kill",
            source,
        })?;
    }
    Ok(())
}
