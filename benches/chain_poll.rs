//! One poll of a full subnet: 256 neurons, 256 commitments, on the dev chain, beside the same reads
//! through Python's async-substrate-interface and through bittensor's own client in the same run (see
//! `benches/python/README.md`).
//!
//! `cargo bench --bench chain_poll`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may stop"
)]

use assay::bittensor::Netuid;
use assay::chain::{Call, ChainClient, ChainSettings, Endpoint, HotkeyPair};
use assay::devchain::{DevChain, Genesis, GenesisNeuron, Options, Sealing};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::MissedTickBehavior;

const NETUID: Netuid = Netuid(11);
const NEURONS: usize = 256;
const POLLS: u32 = 20;
/// The peers: package, and its script beside this file.
const PEERS: [(&str, &str); 2] = [
    ("async-substrate-interface", "chain_poll.py"),
    ("bittensor", "chain_poll_bittensor.py"),
];
const PYTHON_LIMIT: Duration = Duration::from_secs(300);

/// What one way of polling costs.
struct Cost {
    requests: f64,
    bytes: f64,
    median_ms: f64,
    first_ms: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, peers) = runtime.block_on(run());
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    println!("machine   {}; {build} build", machine());
    println!("command   cargo bench --bench chain_poll");
    println!(
        "poll      finalised head, {NEURONS} neurons, {NEURONS} commitments, parameters, clock"
    );
    print("assay", &ours);
    for (package, theirs) in peers {
        let Some(theirs) = theirs else {
            println!("{package} SKIPPED: no interpreter with it (benches/python/README.md)");
            continue;
        };
        print(package, &theirs);
        println!(
            "ratio     {package}/assay: requests {:.2}, bytes {:.2}, median {:.2}, connect and first {:.2}",
            theirs.requests / ours.requests,
            theirs.bytes / ours.bytes,
            theirs.median_ms / ours.median_ms,
            theirs.first_ms / ours.first_ms,
        );
    }
}

fn print(name: &str, cost: &Cost) {
    println!(
        "{name:<9} {:.1} requests, {:.0} bytes received, median {:.2} ms; connect and first {:.0} ms",
        cost.requests, cost.bytes, cost.median_ms, cost.first_ms
    );
}

async fn run() -> (Cost, Vec<(&'static str, Option<Cost>)>) {
    let chain = full_chain().await;
    let settings = ChainSettings {
        endpoints: vec![Endpoint::own(chain.url())],
        genesis: Some(chain.genesis_hash()),
        request_timeout: Duration::from_secs(60),
        block_time: Duration::from_millis(250),
    };
    commit_all(&chain, &settings).await;
    let ours = poll_here(&chain, &settings).await;
    let mut peers = Vec::new();
    for (package, script) in PEERS {
        peers.push((package, poll_in_python(script, &chain.url()).await));
    }
    (ours, peers)
}

/// A key by its seed: deriving it costs no key stretching.
fn neuron(uid: usize) -> HotkeyPair {
    HotkeyPair::from_uri(&format!("0x{uid:064x}")).unwrap()
}

async fn full_chain() -> DevChain {
    let mut genesis = Genesis::dev();
    genesis.subnets[0].neurons = (0..NEURONS)
        .map(|uid| GenesisNeuron {
            hotkey: neuron(uid).hotkey().to_string(),
            coldkey: None,
            stake: 1_000_000_000 * u64::try_from(uid).unwrap(),
            validator_permit: uid < 64,
            registered_at: 0,
        })
        .collect();
    let options = Options {
        sealing: Sealing::Manual,
        ..Options::default()
    };
    DevChain::start(genesis, options).await.unwrap()
}

/// Every neuron commits 128 bytes, by a signed extrinsic.
async fn commit_all(chain: &DevChain, settings: &ChainSettings) {
    chain.seal().unwrap();
    let client = ChainClient::connect(settings).await.unwrap();
    let mut committing = tokio::task::JoinSet::new();
    for uid in 0..NEURONS {
        let client = client.clone();
        committing.spawn(async move {
            let pair = neuron(uid);
            let text = format!("2:org/{uid:0>112}:chatml:d1");
            client
                .submit(
                    &pair,
                    Call::SetCommitment {
                        netuid: NETUID,
                        text,
                    },
                )
                .await
                .unwrap();
        });
    }
    let mut blocks = tokio::time::interval(Duration::from_millis(250));
    blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !committing.is_empty() {
        tokio::select! {
            done = committing.join_next() => done.unwrap().unwrap(),
            _ = blocks.tick() => { chain.seal().unwrap(); }
        }
    }
}

async fn poll_here(chain: &DevChain, settings: &ChainSettings) -> Cost {
    let begun = Instant::now();
    let client = ChainClient::connect(settings).await.unwrap();
    poll(&client).await;
    let first_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let before = client.usage();
    let mut times = Vec::new();
    for _ in 0..POLLS {
        // Each poll sees a new block, as in real life.
        chain.seal().unwrap();
        let begun = Instant::now();
        poll(&client).await;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let after = client.usage();
    let per_poll = |a: u64, b: u64| f64::from(u32::try_from(a - b).unwrap()) / f64::from(POLLS);
    let requests = per_poll(after.requests, before.requests);
    assert!(requests <= 5.0, "{requests} requests for one poll");
    Cost {
        requests,
        bytes: per_poll(after.received_bytes, before.received_bytes),
        median_ms: times[times.len() / 2],
        first_ms,
    }
}

async fn poll(client: &ChainClient) {
    let head = client.finalised_head().await.unwrap();
    let subnet = client.snapshot(NETUID, head).await.unwrap();
    assert_eq!(subnet.metagraph.neurons().len(), NEURONS);
    assert_eq!(subnet.commitments.len(), NEURONS);
}

async fn poll_in_python(script: &str, endpoint: &str) -> Option<Cost> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("ASSAY_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    let polls = POLLS.to_string();
    let polling = Command::new(python)
        .arg(root.join("benches/python").join(script))
        .args([endpoint, &NETUID.to_string(), &polls])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PYTHON_LIMIT, polling)
        .await
        .expect("python in time")
        .ok()?;
    if !output.status.success() {
        println!(
            "{script} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return None;
    }
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read["neurons"].as_u64(), u64::try_from(NEURONS).ok());
    assert_eq!(read["commitments"].as_u64(), u64::try_from(NEURONS).ok());
    let number = |key: &str| read[key].as_f64().unwrap();
    Some(Cost {
        requests: number("requests"),
        bytes: number("bytes"),
        median_ms: number("median_ms"),
        first_ms: number("connect_and_first_ms"),
    })
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", model.unwrap_or("unknown CPU"))
}
