//! A worker and its control model: only a scorer that gives the known replies may score.

use super::real::{job, scorer};
use crate::chain::wire::{NETUID, genesis, start};
use assay::dataset::client::{ClientSettings, DatasetClient};
use assay::devchain::Sealing;
use assay::incentive::{Era, EraId};
use assay::scoring::Scorer;
use assay::scoring::control::{Control, Manifest, digest};
use assay::scoring::gpu::Gate;
use assay::scoring::process::ProcessScorer;
use assay::service::stage::Work as _;
use assay::service::worker::{EngineSetup, Standing, Worker, replies_of};
use assay::service::{Artifacts, Rounds};
use assay::shutdown::Shutdown;
use assay::store::{RetryPolicy, Store};
use assay_protocol::Limits;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

fn era() -> Era {
    let text = include_str!("../../../configs/demo.toml");
    let config: toml::Table = text.parse().unwrap();
    config["era"].as_array().unwrap()[0]
        .clone()
        .try_into()
        .unwrap()
}

fn limits() -> Limits {
    crate::harness::probe::patient()
}

fn process(binary: PathBuf) -> Arc<dyn Scorer> {
    Arc::new(ProcessScorer {
        binary,
        memory_bytes: 1 << 30,
        grace: Duration::from_secs(5),
    })
}

/// The sample model as a control model, still without replies.
fn manifest(dir: &Path) -> Manifest {
    let job = job(dir, |_| {});
    Manifest {
        architecture: job.model.architecture,
        files: job.model.files,
        tensor_digest: job.model.tensor_digest,
        param_count: job.model.param_count,
        stop_token_ids: vec![0, 2],
        max_tokens: 16,
        prompts: job.items.into_iter().map(|item| item.prompt).collect(),
        replies: [("none".to_owned(), String::new())].into(),
    }
}

/// A worker that knows the present round, on a chain of its own.
async fn worker(dir: &Path, scorer: Arc<dyn Scorer>, control: Control) -> Worker {
    let (_chain, client) = start(genesis(), Sealing::Manual).await;
    let head = client.finalised_head().await.unwrap();
    let snapshot = client.snapshot(NETUID, head).await.unwrap();
    let (_, latest) = watch::channel(Some(Arc::new(snapshot)));
    let store = Store::open(&dir.join("node.db"), RetryPolicy::default()).unwrap();
    let dataset = DatasetClient::new(ClientSettings::new(dir.join("packs")));
    let rounds = Rounds {
        store: store.clone(),
        chain: client,
        dataset: dataset.unwrap(),
        netuid: NETUID,
        eras: vec![era()],
        latest,
        last: tokio::sync::Mutex::new(None),
    };
    let scorers: HashMap<EraId, Arc<dyn Scorer>> = HashMap::from([(era().id(), scorer)]);
    Worker {
        store,
        rounds: Arc::new(rounds),
        scorers,
        artifacts: Artifacts::open(&dir.join("artifacts")).unwrap(),
        limits: limits(),
        name: "cpu0".to_owned(),
        has_peers: false,
        model_bytes_max: None,
        gate: Arc::new(Gate::new(&[]).unwrap()),
        engine: EngineSetup {
            dtype: "float32".to_owned(),
            sequences: 1,
        },
        control: Some(control),
        standing: Mutex::new(Standing::default()),
    }
}

async fn codes(worker: &Worker) -> Vec<String> {
    let faults = worker.store.reader().recent_faults(10).await.unwrap();
    faults.into_iter().map(|fault| fault.fault.code).collect()
}

#[tokio::test]
async fn a_worker_scores_once_it_gives_the_known_replies() {
    let dir = tempfile::tempdir().unwrap();
    let scorer = process(scorer());
    let mut manifest = manifest(dir.path());
    let stop = Shutdown::new();
    let unknown = Control::new(manifest.clone(), dir.path());
    let args = job(dir.path(), |_| {}).engine_args;
    let asked = unknown.job("cpu0", args, limits());
    let jobs = dir.path().join("jobs");
    let set = replies_of(scorer.as_ref(), asked, jobs, &stop)
        .await
        .unwrap();
    let engine = set.scorer.engine.clone();

    let first = worker(dir.path(), Arc::clone(&scorer), unknown).await;
    assert!(!first.ready(&stop).await);
    assert_eq!(codes(&first).await, ["CONTROL_UNKNOWN"]);

    manifest.replies.insert(engine.clone(), "0".repeat(64));
    let other = Control::new(manifest.clone(), dir.path());
    let second = worker(dir.path(), Arc::clone(&scorer), other).await;
    assert!(!second.ready(&stop).await);
    assert_eq!(codes(&second).await[0], "CONTROL_DIFFERS");

    manifest.replies.insert(engine, digest(&set));
    let right = Control::new(manifest, dir.path());
    let third = worker(dir.path(), scorer, right).await;
    assert!(third.ready(&stop).await);
    assert_eq!(codes(&third).await.len(), 2, "nothing new in the ledger");
}

#[tokio::test]
async fn a_scorer_that_keeps_failing_takes_its_worker_out_of_service() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::new(manifest(dir.path()), dir.path());
    let worker = worker(dir.path(), process("/bin/false".into()), control).await;
    let stop = Shutdown::new();
    for _ in 0..5 {
        assert!(!worker.ready(&stop).await);
    }
    // The third failure in a row opened the breaker; after it nothing was tried.
    assert_eq!(codes(&worker).await, ["CONTROL_FAILED"; 3]);
}
