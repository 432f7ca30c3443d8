//! `assay commit` and `assay chain status` as miners and operators meet them, over the wire.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

use crate::chain::wire::{NETUID, commitment, genesis, pair, soon, start};
use assay::bittensor::{BlockNumber, MechanismId};
use assay::chain::ChainClient;
use assay::demo::model_hub::{ModelHub, publish};
use assay::devchain::{DevChain, Sealing, dev_key};
use assay::incentive::RejectionCode;
use serde_json::{Value, json};
use sp_core::Pair as _;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const REPO: &str = "lab/model-1";

/// A chain, a hub with two models, and a miner's folder.
struct World {
    chain: DevChain,
    client: ChainClient,
    folder: tempfile::TempDir,
    config: String,
    revision: String,
    later: String,
    _hub: JoinSet<std::io::Result<()>>,
}

impl World {
    async fn start() -> Self {
        let mut genesis = genesis();
        // No epoch ends while a test counts the space of one.
        genesis.subnets[0].tempo = 2000;
        let (chain, client) = start(genesis, Sealing::Interval).await;
        let folder = tempfile::tempdir().unwrap();
        let repos = folder.path().join("repos");
        let revision = publish(&repos, REPO, &model(folder.path(), 2_000_000)).unwrap();
        let later = publish(&repos, REPO, &model(folder.path(), 2_000_001)).unwrap();
        publish(&repos, "lab/tiny", &model(folder.path(), 9)).unwrap();
        let pickle = folder.path().join("pickle");
        std::fs::create_dir(&pickle).unwrap();
        std::fs::write(pickle.join("pytorch_model.bin"), "x").unwrap();
        publish(&repos, "lab/pickle", &pickle).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(ModelHub::new(repos).serve(listener, std::future::pending()));
        let config = config(&chain, &hub, folder.path());
        Self {
            chain,
            client,
            folder,
            config,
            revision,
            later,
            _hub: serving,
        }
    }

    /// Runs a command with the configuration of `hotkey`.
    async fn run(&self, hotkey: &str, arguments: &[&str]) -> Output {
        let secret = dev_key(hotkey).unwrap();
        let file = json!({
            "privateKey": format!("0x{}", hex::encode(secret.to_raw_vec())),
            "publicKey": format!("0x{}", hex::encode(secret.public().0)),
        });
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        std::fs::write(folder.path().join("hotkey"), file.to_string()).unwrap();
        let path = folder.path().join("miner.toml");
        std::fs::write(&path, &self.config).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_assay"));
        let command = command
            .args(arguments)
            .arg("--config")
            .arg(path)
            .env_remove("ASSAY_LOG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        soon(command.output()).await.unwrap()
    }

    async fn commit(&self, hotkey: &str, arguments: &[&str]) -> Output {
        self.run(hotkey, &[&["commit"], arguments].concat()).await
    }

    async fn kept(&self, hotkey: &str) -> Option<(BlockNumber, String)> {
        let head = self.client.finalised_head().await.unwrap();
        let hotkey = pair(hotkey).hotkey();
        let kept = self.client.commitment(head, NETUID, &hotkey);
        let kept = kept.await.unwrap()?;
        Some((kept.block, kept.text().unwrap()))
    }
}

fn model(folder: &Path, weights: usize) -> std::path::PathBuf {
    let source = folder.join(format!("source-{weights}"));
    std::fs::create_dir(&source).unwrap();
    for (name, bytes) in [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", vec![7; weights]),
    ] {
        std::fs::write(source.join(name), bytes).unwrap();
    }
    source
}

/// The sample for miners with this chain, this hub and the demo's rules.
fn config(chain: &DevChain, hub: &str, folder: &Path) -> String {
    let demo = include_str!("../../configs/demo.toml");
    let from = demo.find("[[era]]").unwrap();
    let to = demo.find("[dataset_api]").unwrap();
    let rules = demo[from..to].replace("max_model_bytes = \"64MiB\"", "max_model_bytes = \"2MiB\"");
    let sample = include_str!("../../configs/miner.toml");
    let chain_and_wallet = &sample[..sample.find("[[era]]").unwrap()];
    let network = chain_and_wallet
        .lines()
        .filter(|line| !line.starts_with("public_endpoints") && !line.starts_with("token_env"))
        .map(|line| match line.split(" = ").next().unwrap() {
            "endpoints" => format!("endpoints = [\"{}\"]", chain.url()),
            "genesis" => format!("genesis = \"{}\"", chain.genesis_hash()),
            "netuid" => "netuid = 11".to_owned(),
            "block_time" => "block_time = \"100ms\"".to_owned(),
            "hotkey_file" => "hotkey_file = \"hotkey\"".to_owned(),
            "endpoint" => format!("endpoint = \"{hub}\""),
            _ => line.to_owned(),
        });
    assert!(folder.is_dir());
    let lines: Vec<String> = network.collect();
    format!("{}\n{rules}", lines.join("\n"))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", err(output)))
}

const MODEL: [&str; 6] = [
    "--repo",
    REPO,
    "--template",
    "chatml",
    "--competition",
    "d1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_committed_once_and_replaced_only_on_demand() {
    let world = World::start().await;
    let first = ["--revision", &world.revision];
    let dry = world
        .commit("//Miner1", &[&MODEL[..], &first, &["--dry-run"]].concat())
        .await;
    assert_eq!(dry.status.code(), Some(0), "{}", err(&dry));
    let shown = out(&dry);
    for line in [
        "cost        fee 0 TAO, deposit 0 TAO",
        "space       takes 100 of 3100 bytes left in this epoch (of 3100, whole again from block ",
        "rules       passes those of the era from block 0",
        "model       public, 3 files to fetch, weights of 1 MiB",
        "on chain    nothing yet",
        "dry run     signed, not sent",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert_eq!(
        (world.chain.pending(), world.kept("//Miner1").await),
        (0, None)
    );

    let sent = world
        .commit("//Miner1", &[&MODEL[..], &first, &["--json"]].concat())
        .await;
    assert_eq!(sent.status.code(), Some(0), "{}", err(&sent));
    let sent = object(&sent);
    assert_eq!(sent["outcome"], "sent");
    let (block, text) = world.kept("//Miner1").await.unwrap();
    assert_eq!(text, format!("2:{REPO}:{}:chatml:d1", world.revision));
    assert_eq!(sent["committed"]["number"], block.0);
    let hash = world.client.block_hash(block).await.unwrap().unwrap();
    assert_eq!(sent["committed"]["hash"], hash.to_string());

    let again = world
        .commit("//Miner1", &[&MODEL[..], &first].concat())
        .await;
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    assert!(
        out(&again).contains("unchanged   nothing was sent"),
        "{}",
        out(&again)
    );
    assert_eq!(world.kept("//Miner1").await.unwrap().0, block);

    // Without a revision it is the head's, which is another one by now.
    let other = world.commit("//Miner1", &MODEL).await;
    assert_eq!(other.status.code(), Some(64));
    assert!(err(&other).contains("add --replace"), "{}", err(&other));
    let shown = out(&other);
    let change = format!("revision: {} -> {}", world.revision, world.later);
    assert!(shown.contains(&change), "{shown}");
    let warning = format!("the block moves from {block} to the new one");
    assert!(shown.contains(&warning), "{shown}");
    assert_eq!(world.kept("//Miner1").await.unwrap().0, block);
    let replaced = world
        .commit("//Miner1", &[&MODEL[..], &["--replace"]].concat())
        .await;
    assert_eq!(replaced.status.code(), Some(0), "{}", err(&replaced));
    let (moved, text) = world.kept("//Miner1").await.unwrap();
    assert!(
        moved > block && text.contains(&world.later),
        "{moved} {text}"
    );
    assert!(out(&replaced).contains(&format!("committed   block {moved}, hash 0x")));
}

/// Hotkey, arguments, and the code that the validator gives.
type Rejected = (&'static str, Vec<String>, RejectionCode);

/// A commitment by its four parts.
fn parts(repo: &str, revision: &str, template: &str, competition: &str) -> Vec<String> {
    let named = [
        ("--repo", repo),
        ("--revision", revision),
        ("--template", template),
        ("--competition", competition),
    ];
    let pairs = named.iter().flat_map(|(name, value)| [*name, *value]);
    pairs.map(str::to_owned).collect()
}

#[rustfmt::skip]
fn rejected(world: &World) -> Vec<Rejected> {
    use RejectionCode as Code;
    let text = |text: &str| vec!["--text".to_owned(), text.to_owned()];
    let head = |repo: &str| {
        let folder = world.folder.path().join("repos").join(repo);
        std::fs::read_to_string(folder.join("main")).unwrap()
    };
    let (later, gone) = (world.later.as_str(), "ab".repeat(20));
    let origin = "lab:model-1:chatml:5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY:1:d1";
    vec![
        ("//Miner1", parts(REPO, "main", "chatml", "d1"), Code::CommitmentMalformed),
        ("//Miner1", parts("lab", later, "chatml", "d1"), Code::CommitmentMalformed),
        ("//Miner1", text("hello"), Code::CommitmentMalformed),
        ("//Miner1", text(""), Code::CommitmentUnreadable),
        ("//Miner1", text(origin), Code::HotkeyMismatch),
        ("//Miner1", parts(REPO, later, "mine", "d1"), Code::TemplateUnknown),
        ("//Miner1", parts(REPO, later, "vicuna", "d1"), Code::TemplateUnknown),
        ("//Miner1", parts(REPO, later, "chatml", "d2"), Code::CompetitionUnknown),
        ("//Stranger", parts(REPO, later, "chatml", "d1"), Code::NotRegistered),
        ("//Miner1", parts(REPO, &gone, "chatml", "d1"), Code::RepoUnavailable),
        ("//Miner1", parts("lab/tiny", &head("lab/tiny"), "chatml", "d1"), Code::TooSmall),
        ("//Miner1", parts("lab/pickle", &head("lab/pickle"), "chatml", "d1"), Code::NotSafetensors),
        ("//Miner1", parts(REPO, &world.revision, "chatml", "d1"), Code::Duplicate),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_validator_would_reject_is_refused_with_its_code_and_sentence() {
    let world = World::start().await;
    let taken = format!("2:{REPO}:{}:chatml:d1", world.revision);
    soon(world.client.submit(&pair("//Miner2"), commitment(&taken)))
        .await
        .unwrap();
    let cases = rejected(&world);
    for (hotkey, arguments, code) in &cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = world
            .commit(hotkey, &[&arguments[..], &["--json"]].concat())
            .await;
        let said = err(&refused);
        assert_eq!(refused.status.code(), Some(64), "{arguments:?}: {said}");
        assert_eq!(
            object(&refused)["code"],
            code.as_str(),
            "{arguments:?}: {said}"
        );
        assert!(said.contains(&format!("reject this: {code}: ")), "{said}");
        assert!(said.trim_end().ends_with(code.advice()), "{said}");
    }
    assert_eq!(world.chain.pending(), 0);
    assert_eq!(world.kept("//Miner1").await, None);
    // The very sentence of the intake, whose rules these are.
    let unoffered = world
        .commit("//Miner1", &["--text", &taken.replace("d1", "d2")])
        .await;
    assert!(err(&unoffered).contains("The era offers no competition d2."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_epoch_a_dead_hub_and_missing_rules_are_said() {
    let world = World::start().await;
    let miner = pair("//Miner1");
    for n in 0..6 {
        let text = format!("{n:0512}");
        soon(world.client.submit(&miner, commitment(&text)))
            .await
            .unwrap();
    }
    let (block, _) = world.kept("//Miner1").await.unwrap();
    let full = world.commit("//Miner1", &MODEL).await;
    assert_eq!(full.status.code(), Some(69), "{}", out(&full));
    assert!(
        err(&full).contains("Commitments.SpaceLimitExceeded: it takes 100 bytes, and 28 of 3100"),
        "{}",
        err(&full)
    );
    assert!(
        out(&full).contains("which no longer counts"),
        "{}",
        out(&full)
    );
    assert_eq!(world.kept("//Miner1").await.unwrap().0, block);

    let mut lonely = world;
    lonely.config = lonely
        .config
        .replace("http://127.0.0.1:", "http://127.0.0.1:1/");
    let dead = lonely.commit("//Miner3", &MODEL).await;
    assert_eq!(dead.status.code(), Some(69), "{}", out(&dead));
    assert!(
        err(&dead).contains("says nothing about it"),
        "{}",
        err(&dead)
    );
    lonely
        .config
        .truncate(lonely.config.find("[[era]]").unwrap());
    let revision = ["--revision", &lonely.revision, "--no-hub", "--dry-run"];
    let unchecked = lonely
        .commit("//Miner3", &[&MODEL[..], &revision].concat())
        .await;
    assert_eq!(unchecked.status.code(), Some(0), "{}", err(&unchecked));
    let shown = out(&unchecked);
    assert!(
        shown.contains("rules       NOT CHECKED beyond form"),
        "{shown}"
    );
    assert!(shown.contains("model       NOT LOOKED UP"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_what_the_snapshot_says() {
    let world = World::start().await;
    let shown = out(&world.run("//Validator", &["chain", "status"]).await);
    for line in [
        "network      a network without a name, genesis 0x",
        "runtime      spec 365, every shape is known",
        "subnet       11, 10 neurons, weights in plain",
        "permit       yes",
        "stake        5000 of 1000 needed",
        "window       block ",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let output = world
        .run("//Validator", &["chain", "status", "--json"])
        .await;
    let status = object(&output);
    let head = status["head"]["number"].as_u64().unwrap();
    let hash = world
        .client
        .block_hash(BlockNumber(head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status["head"]["hash"], hash.to_string());
    let at = assay::bittensor::BlockRef {
        number: BlockNumber(head),
        hash,
    };
    let snapshot = world.client.snapshot(NETUID, at).await.unwrap();
    let me = snapshot
        .metagraph
        .by_hotkey(&pair("//Validator").hotkey())
        .unwrap();
    assert_eq!(status["member"]["stake"], me.total_stake);
    assert_eq!(status["member"]["last_update"], me.last_update.0);
    assert_eq!(
        status["next_epoch_block"],
        snapshot.next_epoch_block.unwrap().0
    );
    assert_eq!(status["genesis"], world.chain.genesis_hash().to_string());
    assert!(status["head_age_ms"].as_u64().unwrap() < 60_000);
    let stranger = pair("//Stranger").hotkey().to_string();
    let asked = ["chain", "status", "--hotkey", &stranger];
    let shown = out(&world.run("//Validator", &asked).await);
    assert!(
        shown.contains(&format!("{stranger}: NOT REGISTERED")),
        "{shown}"
    );
    let row = world
        .client
        .weights_row(at, NETUID, MechanismId(0), me.uid)
        .await;
    assert!(row.unwrap().is_empty());
}
