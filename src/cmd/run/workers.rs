//! The scoring workers: which GPUs each owns, and the scorers that it starts.

use super::parts::node_name;
use crate::chain::HotkeyPair;
use crate::cmd::Failure;
use crate::config::{self, Runner, Validator};
use crate::incentive::EraId;
use crate::scoring::Scorer;
use crate::scoring::control::Control;
use crate::scoring::docker::{DockerScorer, Engine, Resources};
use crate::scoring::gpu::Gate;
use crate::scoring::process::{self, ProcessScorer};
use crate::scoring::runner::GRACE;
use crate::service::{Artifacts, worker::EngineSetup};
use assay_protocol::Limits;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One worker, ready to be given work.
#[derive(Debug)]
pub(in crate::cmd) struct Lane {
    pub(in crate::cmd) name: String,
    /// The scorer of each era, bound to the image that the era names.
    pub(in crate::cmd) scorers: HashMap<EraId, Arc<dyn Scorer>>,
    pub(in crate::cmd) gate: Arc<Gate>,
    pub(in crate::cmd) engine: EngineSetup,
    pub(in crate::cmd) model_bytes_max: Option<u64>,
}

/// What starts scorers on this host.
enum Launcher {
    Docker { engine: Engine, node: String },
    Process { program: PathBuf },
}

/// Every worker of the configuration. What a former life of this node left running is removed first.
pub(in crate::cmd) async fn lanes(
    config: &Validator,
    artifacts: &Artifacts,
    pair: &HotkeyPair,
) -> Result<Vec<Lane>, Failure> {
    let launcher = launcher(config, artifacts, pair).await?;
    let lane = |worker: &config::Worker| {
        let gate = Gate::new(&worker.gpus).map_err(Failure::unavailable)?;
        Ok(Lane {
            name: worker.name.clone(),
            scorers: scorers(config, &launcher, worker)?,
            gate: Arc::new(gate),
            engine: EngineSetup {
                dtype: worker.dtype.clone(),
                sequences: worker.sequences,
            },
            model_bytes_max: worker.model_size_max.map(|size| size.0),
        })
    };
    config.workers.iter().map(lane).collect()
}

/// The control model, if the configuration names one; a node without says so.
pub(in crate::cmd) fn control(config: &Validator) -> Result<Option<Control>, Failure> {
    let Some(control) = &config.control else {
        tracing::warn!(
            "no [control] model: workers are not tried out, and a model that crashes the scorer is \
             retried and parked, never rejected; see docs/scoring.md"
        );
        return Ok(None);
    };
    let opened = Control::open(&control.folder, &control.sha256);
    opened.map(Some).map_err(Failure::usage)
}

/// Deadlines of one run.
pub(in crate::cmd) fn limits(scorer: &config::Scorer) -> Limits {
    Limits {
        load_s: scorer.load_timeout.as_secs(),
        generate_s: scorer.generate_timeout.as_secs(),
        likelihood_s: scorer.generate_timeout.as_secs(),
        total_s: scorer.total_timeout.as_secs(),
        stall_s: scorer.stall_timeout.as_secs(),
    }
}

async fn launcher(
    config: &Validator,
    artifacts: &Artifacts,
    pair: &HotkeyPair,
) -> Result<Launcher, Failure> {
    match &config.scorer.runner {
        Runner::Docker => {
            let engine = Engine::connect().await.map_err(Failure::unavailable)?;
            let node = node_name(pair);
            let reaped = engine.reap_orphans(&node).await;
            let reaped = reaped.map_err(Failure::unavailable)?;
            if reaped > 0 {
                tracing::warn!(reaped, "containers of a former life were removed");
            }
            Ok(Launcher::Docker { engine, node })
        }
        Runner::Process { program, .. } => {
            process::reap_orphans(&artifacts.jobs()).map_err(Failure::unavailable)?;
            let found = file_digest(program)?;
            for era in &config.eras {
                if era.scoring.image != found {
                    return Err(Failure::usage(format_args!(
                        "{} has {found}, but the era from block {} scores with {}",
                        program.display(),
                        era.from_block,
                        era.scoring.image
                    )));
                }
            }
            let program = program.clone();
            Ok(Launcher::Process { program })
        }
    }
}

fn scorers(
    config: &Validator,
    launcher: &Launcher,
    worker: &config::Worker,
) -> Result<HashMap<EraId, Arc<dyn Scorer>>, Failure> {
    let mut scorers: HashMap<EraId, Arc<dyn Scorer>> = HashMap::new();
    for era in &config.eras {
        let scorer: Arc<dyn Scorer> = match launcher {
            Launcher::Docker { engine, node } => Arc::new(DockerScorer {
                engine: engine.clone(),
                image: era.scoring.image.parse().map_err(Failure::usage)?,
                resources: resources(&config.scorer, worker),
                node: node.clone(),
            }),
            Launcher::Process { program } => Arc::new(ProcessScorer {
                binary: program.clone(),
                memory_bytes: config.scorer.memory.0,
                grace: GRACE,
            }),
        };
        scorers.insert(era.id(), scorer);
    }
    Ok(scorers)
}

/// SHA-256 of a file in the form of an image id: what pins a scorer that runs as a plain process.
pub(in crate::cmd) fn file_digest(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::unavailable(format_args!(
            "cannot read the scorer {}: {e}",
            path.display()
        ))
    })?;
    Ok(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
}

fn resources(scorer: &config::Scorer, worker: &config::Worker) -> Resources {
    // Checked to be a small positive number when the configuration was read.
    let millis = Duration::from_secs_f64(scorer.cpus).as_millis();
    Resources {
        memory_bytes: scorer.memory.0,
        cpu_millis: u32::try_from(millis).unwrap_or(u32::MAX),
        pids: scorer.pids,
        tmp_bytes: scorer.scratch.0,
        gpus: worker.gpus.clone(),
        ..Resources::default()
    }
}
