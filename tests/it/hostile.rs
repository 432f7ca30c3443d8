//! A collection of hostile models, made here, served by a hostile hub, and put through the real fetch
//! stage in a process of its own, so that what it costs can be measured and whom it harms be seen.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

mod collection;
mod hub;
mod model;
mod parrots;

use crate::harness::probe;
use assay::bittensor::{
    BlockHash, BlockNumber, BlockRef, Coldkey, Hotkey, Hyperparameters, MechanismId, Metagraph,
    Netuid, Neuron, SubnetSnapshot, Tempo, Uid,
};
use assay::hub::{HubClient, HubSettings};
use assay::incentive::gates::{self, ReplyText};
use assay::incentive::{Era, Rejection, RejectionCode};
use assay::scoring::job::{ModelFacts, ScoreJob, prepare};
use assay::scoring::outcome::{self, Attempt};
use assay::scoring::process::ProcessScorer;
use assay::scoring::{Scorer, replies};
use assay::service::fetcher::{Fetched, Fetcher};
use assay::service::room::Room;
use assay::service::stage::Work;
use assay::service::{Artifacts, Confirmations};
use assay::shutdown::Shutdown;
use assay::store::{
    Admission, Ask, Lease, ModelFacts as StoredFacts, NewSubmission, Outcome, RetryPolicy, Stage,
    Store, WorkerId,
};
use assay_protocol::{Finish, Sample};
use collection::{End, collection};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most memory that all of it may take together, above what an honest model takes.
const MEMORY_MAX: u64 = 256 << 20;
/// Most time that any one may take; the tests' library is not optimised.
const TIME_MAX: Duration = Duration::from_secs(30);

/// What the child reports of one case.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    name: String,
    /// `ADMITTED`, a rejection's code, or a fault's with an exclamation mark.
    outcome: String,
    millis: u64,
    peak_bytes: u64,
}

/// Where the child works, and what it must leave alone.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["work", "home", "tmp", "cwd", "precious"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let precious = dir.path().join("precious/passwd");
        std::fs::write(&precious, "root:x:0:0").unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The host is as it was: nothing outside the work folder, and in there nothing but the node's
    /// own folders and the mounts of admitted models, which hold what is allowed.
    fn assert_unharmed(&self) {
        let precious = self.at("precious/passwd");
        assert_eq!(std::fs::read(&precious).unwrap(), b"root:x:0:0");
        let mode = std::fs::metadata(&precious).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            names(self.dir.path()),
            ["cwd", "home", "precious", "tmp", "work"]
        );
        for empty in ["home", "tmp", "cwd"] {
            assert_eq!(names(&self.at(empty)), [""; 0], "{empty}");
        }
        assert!(!Path::new("/tmp/owned").exists());
        let artifacts = self.at("work/artifacts");
        assert_eq!(
            names(&artifacts),
            ["blobs", "downloads", "jobs", "mounts", "replies"]
        );
        for mount in names(&artifacts.join("mounts")) {
            let mount = artifacts.join("mounts").join(mount);
            let expected = [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
            ];
            assert_eq!(names(&mount), expected);
            for name in expected {
                assert!(
                    std::fs::symlink_metadata(mount.join(name))
                        .unwrap()
                        .is_file()
                );
            }
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn every_hostile_model_ends_in_its_class_and_harms_nobody() {
    let cases = collection();
    assert!(cases.len() >= 40, "{}", cases.len());
    let repos: BTreeMap<_, _> = cases
        .iter()
        .map(|(name, repo, _)| (*name, repo.clone()))
        .collect();
    assert_eq!(repos.len(), cases.len(), "two cases share a name");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut hub = JoinSet::new();
    hub.spawn(async { axum::serve(listener, hub::routes(repos)).await });

    let world = World::new();
    // The honest one first: it sets the scale.
    let mut order: Vec<_> = cases.iter().map(|(name, ..)| *name).collect();
    order.sort_by_key(|name| *name != "plain");
    let reports = run_child(&world, &url, &order).await;
    hub.shutdown().await;
    let ends: BTreeMap<_, _> = cases.iter().map(|(name, _, end)| (*name, *end)).collect();
    let base = reports[0].peak_bytes;
    let mut wrong = Vec::new();
    for report in &reports {
        let expected = match ends[report.name.as_str()] {
            End::Admitted | End::Replies(_) => "ADMITTED".to_owned(),
            End::Rejected(code) => code.to_string(),
            End::HubFault(code) => format!("{code}!"),
        };
        if report.outcome != expected || Duration::from_millis(report.millis) > TIME_MAX {
            wrong.push(format!("expected {expected}: {report:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(reports.len(), cases.len());
    let last = reports.last().unwrap();
    assert!(
        last.peak_bytes - base < MEMORY_MAX,
        "{base} bytes first, {last:?}"
    );
    let slowest = reports.iter().max_by_key(|r| r.millis).unwrap();
    println!(
        "{} hostile models; peak {} MiB, {} MiB above an honest one; slowest {} with {} ms",
        reports.len(),
        last.peak_bytes >> 20,
        (last.peak_bytes - base) >> 20,
        slowest.name,
        slowest.millis
    );
    world.assert_unharmed();
    for (name, _, end) in &cases {
        if let End::Replies(code) = end {
            assert_eq!(reply_verdict(&world, name).await.code, *code, "{name}");
        }
    }
    world.assert_unharmed();
}

/// Runs the cases in a process with nothing but its own folders; a crash there fails the test.
async fn run_child(world: &World, url: &str, order: &[&str]) -> Vec<Report> {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "hostile::child_fetches",
            "--ignored",
            "--nocapture",
        ])
        .env("ASSAY_HOSTILE_HUB", url)
        .env("ASSAY_HOSTILE_CASES", order.join(" "))
        .env("ASSAY_HOSTILE_WORK", world.at("work"))
        .env("HOME", world.at("home"))
        .env("TMPDIR", world.at("tmp"))
        .current_dir(world.at("cwd"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut reports = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(at) = line.find("{\"name\"") {
            reports.push(serde_json::from_str(&line[at..]).unwrap());
        }
    }
    let status = child.wait().await.unwrap();
    assert!(status.success(), "{status} after {:?}", reports.last());
    reports
}

#[tokio::test]
#[ignore = "the part that another test runs in a process of its own"]
async fn child_fetches() {
    let Ok(url) = std::env::var("ASSAY_HOSTILE_HUB") else {
        return;
    };
    // What a host with a careful umask makes of files that another user has to read.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let work = PathBuf::from(std::env::var_os("ASSAY_HOSTILE_WORK").unwrap());
    let cases = std::env::var("ASSAY_HOSTILE_CASES").unwrap();
    let node = node(&work, &url);
    for (number, name) in (1u8..).zip(cases.split(' ')) {
        let begun = Instant::now();
        let lease = lease(&node.store, name, number).await;
        let outcome = node.work(&lease, &Shutdown::new()).await.unwrap();
        let shown = match &outcome {
            Outcome::Advance(advance) => {
                keep(&work, name, &lease, &advance.payload);
                "ADMITTED".to_owned()
            }
            Outcome::Rejected(rejection) => rejection.code.to_string(),
            Outcome::Failed(fault) => format!("{}!", fault.code),
            Outcome::Scored(_) => "SCORED".to_owned(),
        };
        // A fault goes back into the queue, to be tried later than this test.
        node.store.finish_stage(&lease, outcome, 1).await.unwrap();
        let report = Report {
            name: name.to_owned(),
            outcome: shown,
            millis: begun.elapsed().as_millis().try_into().unwrap(),
            peak_bytes: peak_bytes(),
        };
        println!("{}", serde_json::to_string(&report).unwrap());
    }
}

/// Remembers what the score stage would get.
fn keep(work: &Path, name: &str, lease: &Lease, payload: &serde_json::Value) {
    let kept = json!({"id": lease.submission.id, "fetched": payload});
    std::fs::write(work.join(format!("{name}.json")), kept.to_string()).unwrap();
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn node(work: &Path, url: &str) -> Fetcher {
    let store = Store::open(&work.join("node.db"), RetryPolicy::default()).unwrap();
    let artifacts = Artifacts::open(&work.join("artifacts")).unwrap();
    let settings = HubSettings {
        attempts: 3,
        first_pause: Duration::from_millis(5),
        keep_free: 0,
        ..HubSettings::new(url.parse().unwrap())
    };
    let (_, latest) = watch::channel(Some(Arc::new(snapshot())));
    Fetcher {
        hub: HubClient::new(settings).unwrap(),
        eras: vec![era()],
        latest,
        room: Room::new(store.clone(), artifacts.clone(), 0, 1000),
        artifacts,
        store,
        confirmations: Confirmations {
            count: 3,
            apart: Duration::from_secs(1800),
        },
    }
}

fn era() -> Era {
    serde_json::from_value(json!({
        "from_block": 0,
        "scoring": {"image": format!("sha256:{}", "0".repeat(64)), "judge": "none",
            "prompt_version": 1, "round_blocks": 100, "items": 2, "max_tokens": 400,
            "max_prompt_tokens": 6144},
        "admission": {"earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": ["LlamaForCausalLM"], "min_model_bytes": 1,
            "max_model_bytes": 50_000_000},
        "incentive": {"burn_share": 0.0, "ranking": {"rule": "win-rate"}},
    }))
    .unwrap()
}

fn hotkey(number: u8) -> Hotkey {
    Hotkey([number; 32])
}

/// A subnet on which every case has its own hotkey.
fn snapshot() -> SubnetSnapshot {
    let neuron = |number: u8| Neuron {
        uid: Uid(number.into()),
        hotkey: hotkey(number),
        coldkey: Coldkey([number; 32]),
        active: true,
        validator_permit: false,
        last_update: BlockNumber(0),
        registered_at: BlockNumber(1),
        total_stake: 0,
        incentive: 0,
        emission: 0,
    };
    SubnetSnapshot {
        mechanism: MechanismId(0),
        mechanism_count: 1,
        at: BlockRef {
            number: BlockNumber(10),
            hash: BlockHash([1; 32]),
        },
        timestamp_ms: 0,
        spec_version: 1,
        owner_hotkey: hotkey(0),
        owner_coldkey: Coldkey([0; 32]),
        metagraph: Metagraph::new(Netuid(1), (0..200).map(neuron).collect()).unwrap(),
        hyperparameters: Hyperparameters {
            tempo: Tempo(360),
            min_allowed_weights: 0,
            max_weights_limit: 0,
            weights_version: 0,
            weights_rate_limit: 0,
            activity_cutoff: 0,
            immunity_period: 0,
            max_validators: 0,
            commit_reveal_weights_enabled: false,
            commit_reveal_period: 0,
            stake_threshold: 0,
        },
        next_epoch_block: None,
        commitments: Vec::new(),
    }
}

/// Records the case as queued and leases it.
async fn lease(store: &Store, name: &str, number: u8) -> Lease {
    let new = NewSubmission {
        hotkey: hotkey(number),
        commit_block: BlockNumber(number.into()),
        registered_at: Some(BlockNumber(1)),
        raw: format!("2:hostile/{name}:{}:chatml:d1", hub::REVISION).into_bytes(),
        model: Some(StoredFacts {
            repo: format!("hostile/{name}"),
            revision: Some(hub::REVISION.to_owned()),
            template: "chatml".to_owned(),
            competition: "d1".to_owned(),
            weights_key: None,
        }),
        admission: Admission::Queued,
    };
    store.record(new, 0).await.unwrap();
    let ask = Ask {
        stage: Stage::Fetch,
        worker: WorkerId("hostile".to_owned()),
        committed_before: None,
        model_bytes_max: None,
        now_ms: 1,
        ttl: Duration::from_secs(600),
    };
    let lease = store.lease(ask).await.unwrap().unwrap();
    assert_eq!(
        lease.submission.repo.as_deref(),
        Some(format!("hostile/{name}").as_str())
    );
    lease
}

/// The real CPU scorer's replies, before the real gates.
async fn reply_verdict(world: &World, name: &str) -> Rejection {
    let kept = std::fs::read(world.at("work").join(format!("{name}.json"))).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let fetched: Fetched = serde_json::from_value(kept["fetched"].clone()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut job: ScoreJob = probe::job(scratch.path(), "", probe::patient());
    job.model = ModelFacts {
        dir: world
            .at("work/artifacts/mounts")
            .join(kept["id"].to_string()),
        architecture: fetched.architecture,
        files: fetched.files,
        tensor_digest: fetched.tensor_digest,
        param_count: fetched.param_count,
    };
    job.generation.max_tokens = 60;
    job.generation.max_prompt_tokens = 80;
    job.generation.stop_token_ids = fetched.stop_token_ids;
    job.items = (0..24)
        .map(|n| Sample {
            id: format!("item-{n}"),
            prompt: format!(
                "<|im_start|>user\nTell me number {n}.<|im_end|>\n<|im_start|>assistant\n"
            ),
        })
        .collect();
    let prepared = prepare(&job, &scratch.path().join("jobs")).unwrap();
    let readable = std::fs::metadata(&job.model.dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(readable & 0o777, 0o755, "another user has to read it");
    let scorer = ProcessScorer {
        binary: assay::demo::scorer_build::locate_or_build(None, |_| {}).unwrap(),
        memory_bytes: 1 << 30,
        grace: Duration::from_secs(5),
    };
    let finished = scorer.run(&prepared, &Shutdown::new()).await.unwrap();
    let attempt = Attempt {
        memory_raised: false,
    };
    let report = replies::read(&prepared);
    let set = match outcome::classify(report, &finished, &prepared.job, attempt) {
        outcome::Outcome::Replies(set) => set,
        other => panic!("{name}: {other:?}"),
    };
    let texts: Vec<_> = set
        .replies
        .iter()
        .map(|reply| ReplyText {
            text: &reply.text,
            cut: reply.finish == Finish::Length,
        })
        .collect();
    let counts = gates::count_bad(&texts);
    match gates::check(&counts, &era().scoring.gates) {
        Err(rejection) => rejection,
        Ok(()) => Rejection::new(
            RejectionCode::Duplicate,
            format!("{counts:?} passed: {texts:?}"),
        ),
    }
}
