//! `assay run`: the validator.

mod parts;
mod workers;

use super::Failure;
use super::lifetime::Lifetime;
use crate::cli::ConfigFile;
use crate::config::{self, Validator};
use crate::service::Confirmations;
use crate::service::intake::Intake;
use crate::service::janitor::Janitor;
use crate::service::leaders::Leaders;
use crate::service::metrics::{self, Metrics, Usage};
use crate::service::packs::PackSync;
use crate::service::room::Room;
use crate::service::stage::Work;
use crate::service::weight_setter::WeightSetter;
use crate::service::worker::Worker;
use crate::service::{Latest, Rounds, Watcher, fetcher::Fetcher, judging::Judging, stage};
use crate::store::{Store, WorkerId};
use crate::web;
use parts::Parts;
pub(super) use parts::{chain_settings, dataset_settings, load_pair};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
pub(super) use workers::{Lane, file_digest, lanes, limits};

/// Downloads at a time; files within one come in parallel, too.
const FETCHERS: usize = 2;
/// Models judged at a time; they share the judge's bound on calls in flight.
const JUDGES: usize = 2;
/// The hub has to say three times within a good hour that a repository is not there.
const CONFIRMATIONS: Confirmations = Confirmations {
    count: 3,
    apart: Duration::from_secs(30 * 60),
};

/// Runs the validator until it is told to stop.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when a needed service is missing.
pub async fn run(options: &ConfigFile) -> Result<(), Failure> {
    let config = config::load_validator(&options.config).map_err(Failure::usage)?;
    let mut life = Lifetime::begin(options.with_parent)?;
    let parts = Parts::connect(&config).await?;
    tracing::info!(hotkey = %parts.pair.hotkey(), netuid = %config.chain.netuid, endpoint = parts.chain.endpoint(), "validator starts");
    let listener = TcpListener::bind(config.metrics.listen)
        .await
        .map_err(|e| {
            let address = config.metrics.listen;
            Failure::unavailable(format_args!(
                "cannot listen on {address} for [metrics]: {e}"
            ))
        })?;
    start(&mut life, &config, parts, listener);
    life.run().await
}

fn start(life: &mut Lifetime, config: &Validator, mut parts: Parts, listener: TcpListener) {
    let (sender, latest) = watch::channel(None);
    let rounds = Arc::new(Rounds {
        store: parts.store.clone(),
        chain: parts.chain.clone(),
        dataset: parts.dataset.clone(),
        netuid: config.chain.netuid,
        eras: config.eras.clone(),
        latest: latest.clone(),
        last: Mutex::new(None),
    });
    let mut stages = Stages {
        life,
        store: parts.store.clone(),
        usages: Vec::new(),
    };
    start_workers(&mut stages, &mut parts, &rounds);
    start_stages(&mut stages, config, &parts, &rounds);
    let metrics = Metrics {
        workers: stages.usages,
        store: parts.store.clone(),
        latest: latest.clone(),
    };
    serve_metrics(life, metrics, listener);
    let packs = PackSync {
        dataset: parts.dataset.clone(),
        interval: config.dataset.sync_interval,
    };
    life.spawn("pack sync", packs.run(life.shutdown.clone()));
    let watcher = Watcher {
        chain: parts.chain.clone(),
        netuid: config.chain.netuid,
        mechanism: config.chain.mechanism,
        store: parts.store.clone(),
        latest: sender,
    };
    life.spawn("watcher", watcher.run(life.shutdown.clone()));
    let intake = Intake::new(
        parts.store.clone(),
        parts.hub.clone(),
        config.eras.clone(),
        CONFIRMATIONS,
        latest.clone(),
    );
    life.spawn("intake", intake.run(life.shutdown.clone()));
    let leaders = Leaders {
        store: parts.store.clone(),
        rounds,
    };
    life.spawn("leaders", leaders.run(life.shutdown.clone()));
    start_weights(life, config, &parts, latest);
    let janitor = Janitor {
        store: parts.store.clone(),
        artifacts: parts.artifacts.clone(),
        keep_free: config.store.keep_free.0,
    };
    life.spawn("janitor", janitor.run(life.shutdown.clone()));
    let (store, stop) = (parts.store, life.shutdown.clone());
    life.spawn("store", async move {
        tokio::select! {
            () = stop.signalled() => Ok(()),
            error = store.writer_ended() => Err(error),
        }
    });
}

/// Sets weights, unless the configuration says that they are only computed and shown.
fn start_weights(life: &mut Lifetime, config: &Validator, parts: &Parts, latest: Latest) {
    if !config.weights.submit {
        return;
    }
    let setter = WeightSetter {
        store: parts.store.clone(),
        chain: parts.chain.clone(),
        pair: parts.pair.clone(),
        version_key: config.weights.version_key,
        beacon: config.chain.beacon(),
        block_ms: u64::try_from(config.chain.block_time.as_millis()).unwrap_or(u64::MAX),
        eras: config.eras.clone(),
        last_good_blocks: blocks(config.weights.last_good_for, config.chain.block_time),
        latest,
    };
    life.spawn("weight setter", setter.run(life.shutdown.clone()));
}

fn serve_metrics(life: &mut Lifetime, metrics: Metrics, listener: TcpListener) {
    let stop = life.shutdown.clone();
    life.spawn("metrics", async move {
        let limits = web::Limits::default();
        web::serve(listener, metrics::router(metrics), &limits, &stop).await
    });
}

/// Whole blocks in a stretch of time.
fn blocks(time: Duration, block_time: Duration) -> u64 {
    let count = time.as_millis().checked_div(block_time.as_millis());
    count.map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(u64::MAX))
}

fn start_workers(stages: &mut Stages<'_>, parts: &mut Parts, rounds: &Arc<Rounds>) {
    let has_peers = parts.lanes.len() > 1;
    for lane in std::mem::take(&mut parts.lanes) {
        let holder = format!("score-{}", lane.name);
        let work = Worker {
            store: parts.store.clone(),
            rounds: Arc::clone(rounds),
            scorers: lane.scorers,
            artifacts: parts.artifacts.clone(),
            limits: parts.limits.clone(),
            name: lane.name,
            has_peers,
            model_bytes_max: lane.model_bytes_max,
            gate: lane.gate,
            engine: lane.engine,
            control: parts.control.clone(),
            standing: std::sync::Mutex::default(),
        };
        stages.spawn(holder, work);
    }
}

fn start_stages(stages: &mut Stages<'_>, config: &Validator, parts: &Parts, rounds: &Arc<Rounds>) {
    let room = Room::new(
        parts.store.clone(),
        parts.artifacts.clone(),
        config.store.keep_free.0,
        usize::from(config.hub.ahead),
    );
    for n in 0..FETCHERS {
        let fetcher = Fetcher {
            store: parts.store.clone(),
            room: room.clone(),
            confirmations: CONFIRMATIONS,
            hub: parts.hub.clone(),
            eras: config.eras.clone(),
            latest: rounds.latest.clone(),
            artifacts: parts.artifacts.clone(),
        };
        stages.spawn(format!("fetch-{n}"), fetcher);
    }
    for n in 0..JUDGES {
        let judging = Judging {
            store: parts.store.clone(),
            rounds: Arc::clone(rounds),
            judges: parts.judges.clone(),
            artifacts: parts.artifacts.clone(),
        };
        stages.spawn(format!("judge-{n}"), judging);
    }
}

/// The workers of all stages, as they are started.
struct Stages<'a> {
    life: &'a mut Lifetime,
    store: Store,
    usages: Vec<(WorkerId, Usage)>,
}

impl Stages<'_> {
    /// Starts one and notes where its time is counted.
    fn spawn(&mut self, worker: String, work: impl Work + 'static) {
        let (worker, usage) = (WorkerId(worker), Usage::default());
        self.usages.push((worker.clone(), usage.clone()));
        let stop = self.life.shutdown.clone();
        let (store, name) = (self.store.clone(), work.stage().as_str());
        self.life
            .spawn(name, stage::run(store, worker, work, usage, stop));
    }
}
