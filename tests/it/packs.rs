//! Rounds with real Dataset API processes: stopped, killed, and gone for a whole round.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay::bittensor::{Netuid, SubnetSnapshot};
use assay::chain::{ChainClient, ChainSettings, Endpoint, HotkeyPair};
use assay::clock::now_ms;
use assay::dataset::client::{ClientSettings, DatasetClient};
use assay::dataset::source::Source;
use assay::dataset::{Corpus, Day, Form, ImportOptions, Signer, object, rounds, seal};
use assay::devchain::{DevChain, Genesis, Options, Sealing};
use assay::incentive::Era;
use assay::service::Rounds;
use assay::store::{EraRecord, RetryPolicy, Store};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Mutex, watch};
use url::Url;

use crate::harness::demo::wait_for;

const NETUID: Netuid = Netuid(11);
const ROUND_BLOCKS: u64 = 10;
/// Deadline of one request of the clients here.
const PATIENCE: Duration = Duration::from_secs(2);
const HOTKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wallet/phrase");

fn operator() -> (assay::bittensor::Hotkey, Signer) {
    let (pair, _) = HotkeyPair::load(Path::new(HOTKEY), None).unwrap();
    let hotkey = pair.hotkey();
    (
        hotkey,
        Signer::new(hotkey, move |message| pair.sign(message)),
    )
}

/// 300 conversations of today and 300 of long ago, sealed an hour ago.
fn seal_pack(folder: &Path) -> PathBuf {
    let today = Day::from_unix_ms(now_ms());
    let line = |n: u32| {
        let day = if n < 300 {
            "2025-01-01".to_owned()
        } else {
            today.to_string()
        };
        format!(
            r#"{{"date":"{day}","messages":[{{"role":"user","content":"Night {n}?"}},{{"role":"assistant","content":"Ship {n}."}}]}}"#
        )
    };
    let lines: Vec<_> = (0..600).map(line).collect();
    let mut corpus = Corpus::open(&folder.join("corpus")).unwrap();
    let mut source = Source::lines(Path::new("lines"), Cursor::new(lines.join("\n")));
    let options = ImportOptions::new(folder.join("rejects"));
    corpus
        .import(&mut source, &options, &mut |_, _| {})
        .unwrap();
    let packs = folder.join("packs");
    let with = (&operator().1, now_ms() - 3_600_000);
    seal(&corpus, &packs, (None, None), with, &mut |_| {}).unwrap();
    packs
}

/// A child process that ends with the test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// A Dataset API on free ports, and the URL of its protected lane.
    fn dataset_api(folder: &Path, name: &str, packs: &Path) -> (Self, Url) {
        let config = folder.join(format!("{name}.toml"));
        let text = format!(
            "[dataset_api]\nlisten = \"127.0.0.1:0\"\npacks = {packs:?}\n\
             [dataset_api.protected]\nlisten = \"127.0.0.1:0\"\ntrusted = [\"127.0.0.1/32\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut api = Self::start(&["dataset-api", "--config", config.to_str().unwrap()]);
        let mut lines = BufReader::new(api.0.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("protected lane on ")?.parse().ok()
        });
        (api, url.expect("it ended early"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn era() -> Era {
    let json = serde_json::json!({
        "from_block": 0,
        "scoring": {
            "image": format!("sha256:{}", "ab".repeat(32)),
            "judge": "judge-1", "prompt_version": 1, "round_blocks": ROUND_BLOCKS,
            "items": 64, "max_tokens": 400, "max_prompt_tokens": 6144,
        },
        "admission": {
            "earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": ["LlamaForCausalLM"], "min_model_bytes": 0, "max_model_bytes": "6 MB",
        },
        "incentive": {"burn_share": 0.1, "ranking": {"rule": "champion"}},
    });
    serde_json::from_value(json).unwrap()
}

/// A node as far as rounds go.
struct Node {
    rounds: Rounds,
    chain: ChainClient,
    snapshots: watch::Sender<Option<Arc<SubnetSnapshot>>>,
}

fn client(endpoints: Vec<Url>, mirrors: Vec<Url>, cache: &Path) -> DatasetClient {
    DatasetClient::new(ClientSettings {
        endpoints,
        mirrors,
        request_timeout: PATIENCE,
        hedge_after: Duration::from_millis(500),
        operators: vec![operator().0],
        ..ClientSettings::new(cache.to_owned())
    })
    .unwrap()
}

impl Node {
    async fn start(folder: &Path, chain: &DevChain, endpoints: Vec<Url>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let store = Store::open(&folder.join("node.db"), RetryPolicy::default()).unwrap();
        let era = era();
        let record = EraRecord {
            era_id: era.id().to_string(),
            from_block: era.from_block,
            canonical: era.canonical_json(),
        };
        store.assert_eras(vec![record]).await.unwrap();
        let settings = ChainSettings {
            endpoints: vec![Endpoint::own(chain.url())],
            genesis: Some(chain.genesis_hash()),
            request_timeout: Duration::from_secs(10),
            block_time: Duration::from_secs(1),
        };
        let client_of_chain = ChainClient::connect(&settings).await.unwrap();
        let (snapshots, latest) = watch::channel(None);
        let rounds = Rounds {
            store,
            chain: client_of_chain.clone(),
            dataset: client(endpoints, Vec::new(), &folder.join("cache")),
            netuid: NETUID,
            eras: vec![era],
            latest,
            last: Mutex::new(None),
        };
        Self {
            rounds,
            chain: client_of_chain,
            snapshots,
        }
    }

    /// Draws the round of the finalised head; gives the items' digest and how long it took.
    async fn draw(&self) -> (String, Duration) {
        let head = self.chain.finalised_head().await.unwrap();
        let snapshot = self.chain.snapshot(NETUID, head).await.unwrap();
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
        let begun = Instant::now();
        let (_, drawn) = self.rounds.current().await.unwrap();
        let took = begun.elapsed();
        let fresh = drawn.fresh().iter().filter(|fresh| **fresh).count();
        assert_eq!((drawn.items.len(), fresh), (64, 48));
        (drawn.round.items_digest.clone(), took)
    }
}

fn next_round(chain: &DevChain) {
    for _ in 0..ROUND_BLOCKS {
        chain.seal().unwrap();
    }
}

async fn dev_chain() -> DevChain {
    let options = Options {
        sealing: Sealing::Manual,
        ..Options::default()
    };
    let chain = DevChain::start(Genesis::dev(), options).await.unwrap();
    next_round(&chain);
    next_round(&chain);
    chain
}

#[tokio::test]
async fn replicas_die_one_by_one_and_no_round_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let packs = seal_pack(folder.path());
    let (first, first_url) = Process::dataset_api(folder.path(), "first", &packs);
    // The second replica gets its packs from the first, as an operator would do it.
    let copy = folder.path().join("copy");
    let copied = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["corpus", "sync", "--from", first_url.as_str(), "--operator"])
        .arg(operator().0.to_string())
        .arg("--packs")
        .arg(&copy)
        .output()
        .unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    let (second, second_url) = Process::dataset_api(folder.path(), "second", &copy);
    assert_eq!(
        object::list_packs(&copy).unwrap(),
        object::list_packs(&packs).unwrap()
    );

    let chain = dev_chain().await;
    let endpoints = vec![first_url.clone(), second_url.clone()];
    let here = Node::start(&folder.path().join("a"), &chain, endpoints).await;
    let there = Node::start(
        &folder.path().join("b"),
        &chain,
        vec![second_url, first_url],
    )
    .await;
    let mut seen = Vec::new();
    let mut times = Vec::new();
    for round in 0..4 {
        match round {
            // Stopped, not dead: it takes connections and never answers.
            1 => first.signal(Signal::STOP),
            2 => first.signal(Signal::KILL),
            3 => second.signal(Signal::KILL),
            _ => {}
        }
        let (digest, took) = here.draw().await;
        let (other, _) = there.draw().await;
        assert_eq!(
            digest, other,
            "two nodes drew different items in round {round}"
        );
        assert!(!seen.contains(&digest), "the same items in two rounds");
        seen.push(digest);
        times.push(took);
        next_round(&chain);
    }
    let added = times[1].saturating_sub(times[0]);
    println!(
        "one replica of two stopped: {added:?} added to {:?}; killed: {:?}; both gone: {:?}",
        times[0], times[2], times[3]
    );
    assert!(added <= PATIENCE, "{added:?} added by a stopped replica");
    assert!(times[2] <= times[0] + PATIENCE);
    assert!(
        times[3] <= 4 * PATIENCE + times[0],
        "{:?} without any replica",
        times[3]
    );
}

#[tokio::test]
async fn two_nodes_with_the_same_chain_and_packs_draw_the_same_items() {
    let folder = tempfile::tempdir().unwrap();
    let packs = seal_pack(folder.path());
    let (_api, url) = Process::dataset_api(folder.path(), "api", &packs);
    let chain = dev_chain().await;
    let start = async |name: &str| {
        let own = folder.path().join(name);
        Node::start(&own, &chain, vec![url.clone()]).await
    };
    let drawn = async |node: &Node| {
        node.draw().await;
        node.rounds.current().await.unwrap().1
    };
    let (here, there) = (start("here").await, start("there").await);
    for _ in 0..3 {
        next_round(&chain);
        let (one, other) = (drawn(&here).await, drawn(&there).await);
        assert_eq!(
            one.round, other.round,
            "seed, packs, item ids and their order"
        );
        assert_eq!(one.items, other.items, "the conversations behind them");
    }
    // One that comes late, and one that starts anew on its store.
    let known = drawn(&here).await;
    drop(there);
    for name in ["late", "there"] {
        let round = &drawn(&start(name).await).await.round;
        assert_eq!(*round, known.round, "{name}");
    }
}

// The dev chain lives in this process and has to go on while the list is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_list_holds_the_items_that_nodes_draw() {
    let folder = tempfile::tempdir().unwrap();
    let packs = seal_pack(folder.path());
    let chain = dev_chain().await;
    let era = toml::to_string(&serde_json::json!({ "era": [era()] })).unwrap();
    let config = folder.path().join("rounds.toml");
    let text = format!(
        "[chain]\nendpoints = [\"{}\"]\ngenesis = \"{}\"\nnetuid = 11\nblock_time = \"1s\"\n{era}",
        chain.url(),
        chain.genesis_hash()
    );
    std::fs::write(&config, text).unwrap();
    let (api, url) = Process::dataset_api(folder.path(), "api", &packs);
    let node = Node::start(&folder.path().join("node"), &chain, vec![url]).await;
    let builder = Process::start(&[
        "corpus",
        "rounds",
        "--config",
        config.to_str().unwrap(),
        "--packs",
        packs.to_str().unwrap(),
        "--hotkey-file",
        HOTKEY,
        "--fresh",
        "100",
        "--older",
        "50",
    ]);
    for number in 1..3 {
        let round = wait_for("round's list", Duration::from_secs(30), || {
            let newest = rounds::list(&packs).unwrap().into_iter().next()?;
            (newest.number == number).then_some(newest)
        });
        assert_eq!((round.fresh, round.older), (100, 50));
        assert_eq!(round.signer(), operator().0);
        let list = object::lookup(&packs, round.json).unwrap().unwrap();
        let (path, _) = list.path(Form::Identity).unwrap();
        let listed = rounds::ids_of_json(&std::fs::read(path).unwrap()).unwrap();
        node.draw().await;
        let (_, drawn) = node.rounds.current().await.unwrap();
        assert_eq!(drawn.round.number.0, number);
        assert!(drawn.items.iter().all(|item| listed.contains(&item.id)));
        next_round(&chain);
    }
    drop((api, builder));
}

/// Python's file server: a static host that knows nothing of us, not even ranges.
fn static_host(folder: &Path) -> Option<(Process, Url)> {
    let program = "import http.server,functools\nh=functools.partial(http.server.SimpleHTTPRequestHandler,directory='.')\ns=http.server.ThreadingHTTPServer(('127.0.0.1',0),h)\nprint(s.server_port,flush=True)\ns.serve_forever()";
    let mut command = Command::new("python3");
    command.args(["-c", program]).current_dir(folder);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Not by a macro, whose output the test harness keeps to itself.
            let said = writeln!(std::io::stderr(), "SKIPPED static host: python3: {error}");
            said.unwrap();
            return None;
        }
    };
    let mut line = String::new();
    let output = child.stdout.as_mut().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let url = format!("http://127.0.0.1:{}/", line.trim());
    Some((Process(child), url.parse().unwrap()))
}

#[tokio::test]
async fn packs_come_from_a_static_host_after_the_api_failed_and_go_on_from_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let packs = seal_pack(folder.path());
    let Some((_host, url)) = static_host(&packs) else {
        return;
    };
    let dead: Url = "http://127.0.0.1:1".parse().unwrap();
    let manifest = object::list_packs(&packs).unwrap().remove(0);
    for part in [None, Some("half"), Some("wrong")] {
        let cache = folder.path().join("cache");
        std::fs::create_dir_all(&cache).unwrap();
        if let Some(part) = part {
            // What a former process left of a download, or what a hostile endpoint sent.
            let name = format!("{}.zst", manifest.digest.hex());
            let whole = std::fs::read(packs.join(&name)).unwrap();
            let mut file = std::fs::File::create(cache.join(format!(".part-{name}"))).unwrap();
            let half = whole.len() / 2;
            let bytes = if part == "half" {
                whole[..half].to_vec()
            } else {
                vec![7; half]
            };
            file.write_all(&bytes).unwrap();
        }
        let node = client(vec![dead.clone()], vec![url.clone()], &cache);
        let report = node.sync().await.unwrap();
        assert_eq!((report.fetched, report.failed), (1, Vec::new()));
        let kept = object::list_packs(&cache).unwrap();
        assert_eq!(kept, std::slice::from_ref(&manifest));
        std::fs::remove_dir_all(&cache).unwrap();
    }
}
