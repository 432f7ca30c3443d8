//! Score API and validator on the same machine, on a dev chain.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assay::devchain::{DevChain, Genesis, Options, Sealing};
use sha2::{Digest, Sha256};

use super::Outcome;
use super::load::{Times, fetch};

const BLOCK_TIME: Duration = Duration::from_millis(500);
const HOTKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wallet/phrase");

/// They end with the benchmark.
pub(crate) struct Neighbours {
    children: Vec<Child>,
    pub(crate) score_api: SocketAddr,
    /// When the validator had read a block.
    seen: Arc<Mutex<Vec<Instant>>>,
    _folder: tempfile::TempDir,
    _chain: (DevChain, tokio::runtime::Runtime),
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn assay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    command
}

impl Neighbours {
    /// A chain with a block each half second, the validator on it, which fetches its packs from
    /// `dataset`, and the score API over the validator's store.
    pub(crate) fn start(dataset: SocketAddr) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut genesis = Genesis::dev();
        genesis.block_time = BLOCK_TIME;
        let options = Options {
            sealing: Sealing::Interval,
            ..Options::default()
        };
        let chain = runtime.block_on(DevChain::start(genesis, options))?;
        let config = folder.path().join("validator.toml");
        std::fs::write(&config, validator(folder.path(), &chain, dataset)?)?;
        let path = config.to_str().ok_or("no text")?;
        let log = "warn,assay::service::watcher=debug";
        let mut validator = assay(&["--log", log, "run", "--config", path])
            .stderr(Stdio::piped())
            .spawn()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(validator.stderr.take().ok_or("no log")?).lines();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("snapshot") {
                    noted.lock().map(|mut all| all.push(Instant::now())).ok();
                }
            }
        });
        let at = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.path().join("score-api.toml");
        let store = folder.path().join("node.db");
        std::fs::write(
            &config,
            format!("[score_api]\nlisten = \"{at}\"\nstore = {store:?}\n"),
        )?;
        let path = config.to_str().ok_or("no text")?;
        let scores = assay(&["--log", "warn", "score-api", "--config", path]).spawn()?;
        let neighbours = Self {
            children: vec![validator, scores],
            score_api: at,
            seen,
            _folder: folder,
            _chain: (chain, runtime),
        };
        neighbours.ready()?;
        Ok(neighbours)
    }

    fn ready(&self) -> Outcome<()> {
        let begun = Instant::now();
        while fetch(self.score_api, "/v1/leaderboard", "identity").is_err() || self.count() < 2 {
            if begun.elapsed() > Duration::from_secs(30) {
                return Err("validator or score API do not come up".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.seen.lock().map_or(0, |all| all.len())
    }

    /// Forgets the blocks so far.
    pub(crate) fn forget(&self) {
        self.seen.lock().map(|mut all| all.clear()).ok();
    }

    /// Times between the blocks since [`Self::forget`].
    pub(crate) fn blocks(&self) -> Times {
        let all = self.seen.lock().map_or(Vec::new(), |all| all.clone());
        let mut served: Vec<Duration> = all.windows(2).map(|w| w[1] - w[0]).collect();
        served.sort();
        Times {
            asked: served.len(),
            served,
            ..Times::default()
        }
    }
}

/// A validator that has nothing to score: its rounds, packs, chain and store are real.
fn validator(folder: &Path, chain: &DevChain, dataset: SocketAddr) -> Outcome<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_assay"));
    let image = hex::encode(Sha256::digest(std::fs::read(program)?));
    let (url, genesis) = (chain.url(), chain.genesis_hash());
    Ok(format!(
        r#"[chain]
endpoints = ["{url}"]
genesis = "{genesis}"
netuid = 11
block_time = "500ms"

[wallet]
hotkey_file = "{HOTKEY}"

[store]
path = {store:?}
artifacts = {artifacts:?}
keep_free = "64MiB"

[hub]
endpoint = "http://127.0.0.1:9"

[dataset]
endpoints = ["http://{dataset}"]
cache = {cache:?}
sync_interval = "2s"

[judge]
concurrency = 8

[[judge.provider]]
name = "none"
model = "none"
base_url = "http://127.0.0.1:9/v1"

[scorer]
runner = "process"
allow_process = true
program = {program:?}
memory = "1GiB"
cpus = 1
load_timeout = "1m"
generate_timeout = "4m"
total_timeout = "5m"
stall_timeout = "1m"

[[worker]]
name = "cpu0"

[weights]
submit = false

[metrics]
listen = "127.0.0.1:0"

[[era]]
from_block = 0

[era.scoring]
image = "sha256:{image}"
judge = "none"
prompt_version = 1
round_blocks = 20
items = 64
max_tokens = 96
max_prompt_tokens = 256

[era.admission]
earliest_commit_block = 0
competitions = ["d1"]
templates = ["chatml"]
architectures = ["LlamaForCausalLM"]
min_model_bytes = "64KiB"
max_model_bytes = "64MiB"

[era.incentive]
burn_share = 0.1

[era.incentive.ranking]
rule = "champion"
"#,
        store = folder.join("node.db"),
        artifacts = folder.join("artifacts"),
        cache = folder.join("cache"),
    ))
}
