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
    let text = "it has other mounts than the job's three folders";
    Err(ScoringError::Container(text.to_owned()))
}

fn exit_code(state: &ContainerState) -> Option<i64> {
    state.exit_code.filter(|_| state.running != Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::job::{self, ModelFacts, ScoreJob};
    use assay_protocol::{Canary, EngineArgs, Generation, Limits, ModelFile, Sample};
    use bollard::models::{HostConfig, Mount};
    use sha2::{Digest, Sha256};

    const IMAGE: &str = "sha256:00";

    fn job(dir: &std::path::Path) -> PreparedJob {
        let model = dir.join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), b"{}").unwrap();
        let second = Limits {
            load_s: 1,
            generate_s: 1,
            likelihood_s: 1,
            total_s: 1,
            stall_s: 1,
        };
        let job = ScoreJob {
            job_id: "job".to_owned(),
            attempt: 1,
            nonce: [0; 32],
            model: ModelFacts {
                dir: model,
                architecture: "LlamaForCausalLM".to_owned(),
                files: vec![ModelFile {
                    path: "config.json".to_owned(),
                    size: 2,
                    sha256: hex::encode(Sha256::digest(b"{}")),
                }],
                tensor_digest: "sha256:00".to_owned(),
                param_count: 1,
            },
            items: vec![Sample {
                id: "a".to_owned(),
                prompt: "b".to_owned(),
            }],
            references: Vec::new(),
            pack: "sha256:11".to_owned(),
            generation: Generation {
                max_tokens: 1,
                max_prompt_tokens: 1,
                stop_token_ids: vec![],
                seed: 1,
            },
            engine_args: EngineArgs {
                max_model_len: 2,
                max_num_seqs: 1,
                gpu_memory_utilization: 0.5,
                dtype: "float32".to_owned(),
            },
            limits: second,
            canary: Canary {
                tensors: 0,
                values: 0,
            },
            memory_raised: false,
        };
        job::prepare(&job, &dir.join("jobs")).unwrap()
    }

    fn created(mounts: Vec<Mount>) -> ContainerInspectResponse {
        ContainerInspectResponse {
            image: Some(IMAGE.to_owned()),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    /// As when somebody lays other code over the scorer's, or another folder over the model's.
    #[test]
    fn a_container_with_anything_else_in_it_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path());
        let asked = settings::mounts(&job);
        check_created(&created(asked.clone()), IMAGE, &job).unwrap();
        let over_the_code = Mount {
            source: Some("/srv/patched".to_owned()),
            target: Some("/scorer".to_owned()),
            ..asked[0].clone()
        };
        let mut another_model = asked.clone();
        another_model[0].source = Some("/srv/models/other".to_owned());
        let mut writable = asked.clone();
        writable[0].read_only = Some(false);
        let more = asked.iter().cloned().chain([over_the_code]).collect();
        for mounts in [more, another_model, writable, asked[..2].to_vec()] {
            let error = check_created(&created(mounts), IMAGE, &job).unwrap_err();
            assert_eq!(Fault::from(error).code, "CONTAINER_DIFFERS");
        }
        let mut bound = created(asked.clone());
        if let Some(host) = &mut bound.host_config {
            host.binds = Some(vec!["/srv/patched:/scorer".to_owned()]);
        }
        let error = check_created(&bound, IMAGE, &job).unwrap_err();
        assert_eq!(Fault::from(error).code, "CONTAINER_DIFFERS");
        let error = check_created(&created(asked), "sha256:11", &job).unwrap_err();
        assert_eq!(Fault::from(error).code, "IMAGE_NOT_PINNED");
    }
}
