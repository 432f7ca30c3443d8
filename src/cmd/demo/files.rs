//! The demo's folder: what lasts over a restart, and the children's configurations.

use super::miners::{COMPETITION, validator};
use super::scorer::ChosenScorer;
use super::world::World;
use super::{NETUID, VALIDATOR};
use crate::bittensor::BlockNumber;
use crate::cmd::Failure;
use crate::scoring::control::manifest_path;
use sha2::{Digest, Sha256};
use sp_core::Pair;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Ports of the children's servers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) dataset_api: u16,
    pub(super) score_api: u16,
    pub(super) metrics: u16,
}

impl Ports {
    /// Three free ports on loopback. They are freed again for the children, who say so and are
    /// started again should somebody else take one first.
    pub(super) fn free() -> Result<Self, Failure> {
        let hold = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::unavailable);
        let held = [hold()?, hold()?, hold()?];
        let port = |n: usize| {
            held[n]
                .local_addr()
                .map(|a| a.port())
                .map_err(Failure::unavailable)
        };
        Ok(Self {
            dataset_api: port(0)?,
            score_api: port(1)?,
            metrics: port(2)?,
        })
    }
}

/// The demo's folder; a temporary one goes with it.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    /// Opens `dir`, which may exist, or a temporary folder.
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        let (root, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("assay-demo-").tempdir();
                let made = made.map_err(Failure::unavailable)?;
                (made.path().to_owned(), Some(made))
            }
        };
        fs::create_dir_all(root.join("configs")).map_err(Failure::unavailable)?;
        let root = fs::canonicalize(root).map_err(Failure::unavailable)?;
        Ok(Self {
            root,
            _temporary: temporary,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path("node.db")
    }

    pub(super) fn config(&self, service: &str) -> PathBuf {
        self.root.join("configs").join(format!("{service}.toml"))
    }

    /// The scorer that this folder's scores are bound to, if there is one yet.
    pub(super) fn scorer(&self) -> Result<Option<ChosenScorer>, Failure> {
        match fs::read(self.path("scorer.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(Failure::unavailable),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::unavailable(error)),
        }
    }

    pub(super) fn keep_scorer(&self, scorer: &ChosenScorer) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(scorer).map_err(Failure::bug)?;
        write_whole(&self.path("scorer.json"), &text)
    }

    /// The rules that this folder's scores were made under, if there are any yet.
    pub(super) fn rules(&self) -> Result<Option<String>, Failure> {
        match fs::read_to_string(self.path("rules.toml")) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::unavailable(error)),
        }
    }

    /// One era that begins right after the last commitment, so that all models share its round 0.
    pub(super) fn write_rules(
        &self,
        scorer: &ChosenScorer,
        last: BlockNumber,
    ) -> Result<String, Failure> {
        let text = format!(
            r#"
[[era]]
from_block = {from_block}

[era.scoring]
image = "{image}"
judge = "assay-dev-judge"
prompt_version = 1
round_blocks = 7200
items = 96
max_tokens = 96
max_prompt_tokens = 256
# The judge for the demo goes by words, not by length.
length_effect_max = 0.0

# The sample corpus is small, its scenes are alike and some of its models are noisy on purpose, so
# equal or garbled replies are no sign of a fault.
[era.scoring.gates]
identical_max = 0.5
degenerate_max = 0.5
# The demo's judge compares words with the reference: a weak model's replies are never coherent to it.
coherency_min = 0.0

# So that the demo's end does not depend on which model was judged first.
[era.scoring.early_stop]
looks = 1

# Some sample models are one model with more and more of the same noise, and none may pass for another.
[era.copies]
same_behaviour = 0.02
near_behaviour = 0.02

[era.admission]
earliest_commit_block = 0
competitions = ["{COMPETITION}"]
templates = ["chatml"]
architectures = ["LlamaForCausalLM"]
min_model_bytes = "64KiB"
max_model_bytes = "64MiB"

[era.incentive]
burn_share = 0.1

[era.incentive.ranking]
rule = "champion"
shares = [0.7, 0.2, 0.1]
# The sample models are one base model and worse ones, so nobody but the base ever holds the title.
runners_up = "score"
"#,
            from_block = last.0 + 1,
            image = scorer.image(),
        );
        write_whole(&self.path("rules.toml"), text.as_bytes())?;
        Ok(text)
    }

    /// Writes the three children's configurations and the validator's hotkey.
    pub(super) fn write_configs(
        &self,
        world: &World,
        scorer: &ChosenScorer,
        ports: &Ports,
        rules: &str,
    ) -> Result<(), Failure> {
        self.write_hotkey()?;
        let write =
            |service: &str, text: String| write_whole(&self.config(service), text.as_bytes());
        let (packs, store) = (self.path("packs"), self.store());
        let state = self.path("dataset-state");
        write(
            "dataset-api",
            format!(
                "[dataset_api]\nlisten = \"127.0.0.1:0\"\npacks = {packs:?}\nstate = {state:?}\n\n\
                 [dataset_api.protected]\nlisten = \"127.0.0.1:{}\"\ntrusted = [\"127.0.0.1/32\"]\n",
                ports.dataset_api
            ),
        )?;
        write(
            "score-api",
            format!(
                "[score_api]\nlisten = \"127.0.0.1:{}\"\nstore = {store:?}\n",
                ports.score_api
            ),
        )?;
        let control = self.control_toml()?;
        let validator = self.validator_toml(world, scorer, ports) + &control + rules;
        write("validator", validator)
    }

    /// Whether this folder has its control model yet.
    pub(super) fn has_control(&self) -> bool {
        manifest_path(&self.path("control")).exists()
    }

    /// The control model's section, once there is one.
    fn control_toml(&self) -> Result<String, Failure> {
        let folder = self.path("control");
        if !self.has_control() {
            return Ok(String::new());
        }
        let manifest = fs::read(manifest_path(&folder)).map_err(Failure::unavailable)?;
        let sha256 = hex::encode(Sha256::digest(manifest));
        Ok(format!(
            "\n[control]\nfolder = {folder:?}\nsha256 = \"{sha256}\"\n"
        ))
    }

    fn validator_toml(&self, world: &World, scorer: &ChosenScorer, ports: &Ports) -> String {
        let runner = match scorer {
            ChosenScorer::Docker { .. } => "runner = \"docker\"".to_owned(),
            ChosenScorer::Process { program, .. } => {
                format!("runner = \"process\"\nallow_process = true\nprogram = {program:?}")
            }
        };
        format!(
            r#"[chain]
endpoints = ["{url}"]
genesis = "{genesis}"
netuid = {NETUID}
request_timeout = "20s"
block_time = "500ms"

[wallet]
hotkey_file = {hotkey:?}

[store]
path = {store:?}
artifacts = {artifacts:?}
keep_free = "64MiB"

[hub]
endpoint = "{hub}"

[dataset]
endpoints = ["http://127.0.0.1:{dataset_port}"]
operators = ["{operator}"]
cache = {cache:?}

[judge]
concurrency = 8

[[judge.provider]]
name = "dev"
model = "assay-dev-judge"
base_url = "{judge}"

[scorer]
{runner}
memory = "1GiB"
cpus = 1
pids = 64
scratch = "64MiB"
load_timeout = "1m"
generate_timeout = "4m"
total_timeout = "5m"
stall_timeout = "1m"

[[worker]]
name = "cpu0"

[metrics]
listen = "127.0.0.1:{metrics_port}"
"#,
            url = world.chain.url(),
            genesis = world.chain.genesis_hash(),
            hotkey = self.path("validator-hotkey.json"),
            store = self.store(),
            artifacts = self.path("artifacts"),
            hub = world.hub,
            dataset_port = ports.dataset_api,
            operator = world.operator,
            cache = self.path("pack-cache"),
            judge = world.judge,
            metrics_port = ports.metrics,
        )
    }

    /// The validator's dev key in the form of a wallet's hotkey file.
    fn write_hotkey(&self) -> Result<(), Failure> {
        let pair = sp_core::sr25519::Pair::from_string(VALIDATOR, None)
            .map_err(|e| Failure::bug(format_args!("{e:?}")))?;
        let hotkey = validator()?.hotkey();
        let public = format!("0x{}", hex::encode(hotkey.0));
        let text = serde_json::json!({
            "accountId": public,
            "publicKey": public,
            "privateKey": format!("0x{}", hex::encode(pair.to_raw_vec())),
            "ss58Address": hotkey,
        });
        let path = self.path("validator-hotkey.json");
        let part = path.with_extension("part");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .map_err(Failure::unavailable)?;
        std::io::Write::write_all(&mut file, text.to_string().as_bytes())
            .map_err(Failure::unavailable)?;
        fs::rename(part, path).map_err(Failure::unavailable)
    }
}

/// Whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let part = path.with_extension("part");
    fs::write(&part, content).map_err(Failure::unavailable)?;
    fs::rename(&part, path).map_err(Failure::unavailable)
}
