//! How long a process lives: until a signal, until its parent is gone, or until a task ends.

use super::Failure;
use crate::shutdown::Shutdown;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// Time for all tasks to end after the shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(40);

/// The long-running tasks of one process. The end of any of them ends the process.
#[derive(Debug)]
pub(super) struct Lifetime {
    /// Asked for by a signal, by the parent's end, or by a task's end.
    pub(super) shutdown: Shutdown,
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    watchers: JoinSet<()>,
}

impl Lifetime {
    /// Begins to listen for SIGINT and SIGTERM; with `with_parent` also for the end of standard
    /// input, which the parent holds open as long as it lives.
    pub(super) fn begin(with_parent: bool) -> Result<Self, Failure> {
        let shutdown = Shutdown::new();
        let mut watchers = JoinSet::new();
        watchers.spawn(shutdown.on_signals().map_err(Failure::bug)?);
        if with_parent {
            watchers.spawn(until_parent_ends(shutdown.clone()));
        }
        Ok(Self {
            shutdown,
            tasks: JoinSet::new(),
            watchers,
        })
    }

    /// Starts a task.
    pub(super) fn spawn<E: Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks
            .spawn(async move { (name, task.await.map_err(|error| error.to_string())) });
    }

    /// Waits for the first end of a task or for a shutdown, then lets the others end.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut failure = None;
        let ended = tokio::select! {
            // A task that ended because it was asked to is no failure.
            biased;
            () = self.shutdown.signalled() => None,
            ended = self.tasks.join_next() => ended,
        };
        if let Some(ended) = ended {
            failure = Some(match ended {
                Ok((name, Err(error))) => Failure::unavailable(format_args!("{name}: {error}")),
                Ok((name, Ok(()))) => {
                    Failure::bug(format_args!("{name} ended without being asked to"))
                }
                Err(panic) => Failure::bug(format_args!("a task broke: {panic}")),
            });
        }
        self.shutdown.trigger();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            tracing::warn!("not every task ended in time");
        }
        self.watchers.abort_all();
        failure.map_or(Ok(()), Err)
    }
}

async fn until_parent_ends(shutdown: Shutdown) {
    let mut sink = [0; 64];
    let mut input = tokio::io::stdin();
    loop {
        let read = tokio::select! {
            () = shutdown.signalled() => return,
            read = input.read(&mut sink) => read,
        };
        if !matches!(read, Ok(1..)) {
            tracing::info!("the parent is gone, stopping");
            shutdown.trigger();
            return;
        }
    }
}
