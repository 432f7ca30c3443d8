//! Runs a scorer in a sealed container. Holds the one function that starts a container.

mod engine;
mod settings;

pub use engine::{Engine, ImagePin};
pub use settings::Resources;

use super::ScoringError;
use super::job::PreparedJob;
use super::runner::{Finished, Kill, Scorer, supervise};
use crate::fault::Fault;
use crate::shutdown::Shutdown;
use bollard::models::{ContainerInspectResponse, ContainerState};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::{Duration, Instant};

/// Time for a killed container to be gone.
const KILLED: Duration = Duration::from_secs(30);

/// Scores in containers of one pinned image.
#[derive(Debug, Clone)]
pub struct DockerScorer {
    /// The engine.
    pub engine: Engine,
    /// The image; resolved and compared before every start.
    pub image: ImagePin,
    /// What one container may use.
    pub resources: Resources,
    /// Marks this node's containers, so that no other node's are ever removed; 1 to 64 characters of
    /// `a-z A-Z 0-9 _ -`.
    pub node: String,
}

impl Scorer for DockerScorer {
    fn run<'a>(
        &'a self,
        job: &'a PreparedJob,
        stop: &'a Shutdown,
    ) -> BoxFuture<'a, Result<Finished, Fault>> {
        async move { Ok(self.run_container(job, stop).await?) }.boxed()
    }
}

impl DockerScorer {
    async fn run_container(
        &self,
        job: &PreparedJob,
        stop: &Shutdown,
    ) -> Result<Finished, ScoringError> {
        let image_id = self.engine.resolve(&self.image).await?;
        let job_id = &job.job.job_id;
        let leftovers = self.engine.remove_leftovers(&self.node, job_id).await?;
        if leftovers > 0 {
            tracing::warn!(job_id, leftovers, "a former attempt was still there");
        }
        let body = settings::container(job, &image_id, &self.resources, &self.node);
        let name = format!("assay-{}-{job_id}-{}", self.node, job.job.attempt);
        let id = self.engine.create(&name, body).await?;
        let finished = self.start(&id, &image_id, job, stop).await;
        if let Err(error) = self.engine.remove(&id).await {
            // The result stands; the label lets the next start of the node remove the container.
            tracing::warn!(container = id, %error, "a container could not be removed");
        }
        finished
    }

    /// The one function that starts a container.
    async fn start(
        &self,
        id: &str,
        image_id: &str,
        job: &PreparedJob,
        stop: &Shutdown,
    ) -> Result<Finished, ScoringError> {
        let created = self.engine.inspect(id).await?;
        check_created(&created, image_id, job)?;
        let begun = Instant::now();
        self.engine.start(id, &self.resources.gpus).await?;
        let killed = supervise(job, stop, self.engine.ended(id)).await.err();
        if let Some(kill) = killed {
            self.end(id, kill).await?;
        }
        let state = self.engine.inspect(id).await?.state.unwrap_or_default();
        Ok(Finished {
            exit: exit_code(&state),
            oom_killed: state.oom_killed == Some(true),
            killed,
            log_tail: self.engine.log_tail(id).await,
            image_id: Some(image_id.to_owned()),
            wall: begun.elapsed(),
        })
    }

    /// SIGTERM, the grace time, SIGKILL; returns when the container no longer runs.
    async fn end(&self, id: &str, kill: Kill) -> Result<(), ScoringError> {
        tracing::info!(container = id, ?kill, "ending a scorer");
        for (signal, patience) in [("SIGTERM", self.resources.grace), ("SIGKILL", KILLED)] {
            self.engine.signal(id, signal).await?;
            let ended = self.engine.ended(id);
            if tokio::time::timeout(patience, ended).await.is_ok() {
                return Ok(());
            }
        }
        Err(ScoringError::Engine {
            doing: "end a container",
            message: "it still runs after SIGKILL".to_owned(),
        })
    }
}

/// The engine made what was asked for: same image, same three folders.
fn check_created(
    created: &ContainerInspectResponse,
    image_id: &str,
    job: &PreparedJob,
) -> Result<(), ScoringError> {
    if created.image.as_deref() != Some(image_id) {
        let got = created.image.as_deref().unwrap_or("none");
        let text = format!("the container was made from image {got} instead of {image_id}");
        return Err(ScoringError::Image(text));
    }
    let host = created.host_config.clone().unwrap_or_default();
    let seen = host.mounts.unwrap_or_default();
    let same = settings::mounts(job).iter().all(|asked| {
        seen.iter().any(|mount| {
            mount.target == asked.target
                && mount.source == asked.source
                && mount.read_only.unwrap_or(false) == asked.read_only.unwrap_or(false)
        })
    });
    if same && seen.len() == 3 && host.binds.unwrap_or_default().is_empty() {
        return Ok(());
    }
    Err(ScoringError::Refused {
        doing: "mount the job's folders",
        message: "the container has other mounts than those asked for".to_owned(),
    })
}

fn exit_code(state: &ContainerState) -> Option<i64> {
    state.exit_code.filter(|_| state.running != Some(true))
}
