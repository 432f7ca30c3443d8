//! The real binary with one pack and one round, as a child process.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::io::{BufRead, BufReader, Cursor};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use assay::bittensor::{BlockHash, BlockNumber, BlockRef, Netuid, RoundNumber};
use assay::chain::HotkeyPair;
use assay::dataset::rounds::{self, ListSpec};
use assay::dataset::sampling::Wanted;
use assay::dataset::source::Source;
use assay::dataset::{Corpus, ImportOptions, Signer, seal};

use super::Outcome;

/// A Dataset API in a folder of its own.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) public: SocketAddr,
    pub(crate) protected: SocketAddr,
    admin: SocketAddr,
    /// When the process that runs now was started.
    pub(crate) started: Instant,
}

const RECEIVER: &str = "//DatasetServer";

fn hotkey(uri: &str) -> String {
    let pair = HotkeyPair::from_uri(uri);
    pair.map_or_else(|e| e.to_string(), |pair| pair.hotkey().to_string())
}

/// Alice is a validator of subnet 11.
fn write_metagraph(state: &Path) -> Outcome<()> {
    std::fs::create_dir_all(state)?;
    let neuron = serde_json::json!({ "hotkey": hotkey("//Alice"), "coldkey": hotkey("//Alice//cold"),
        "validator_permit": true, "total_stake": 1_000_000_000_000u64 });
    let snapshot =
        serde_json::json!({ "netuid": 11, "block": 1, "read_ms": 1, "neurons": [neuron] });
    Ok(std::fs::write(
        state.join("metagraph-11.json"),
        snapshot.to_string(),
    )?)
}

/// Conversations of about 4.7 KB, half of them of the last two days of the corpus.
fn build(folder: &Path, half: usize) -> Outcome<()> {
    let corpus = folder.join("corpus");
    let mut opened = Corpus::open(&corpus)?;
    let mut text = String::new();
    for n in 0..2 * half {
        let day = if n < half { "2026-11-24" } else { "2026-10-01" };
        // Words from a small generator, so that compression finds about as much as in prose.
        let mut state = n as u64 * 2_654_435_761 + 1;
        let mut words = |count: usize| {
            let mut said = String::new();
            for _ in 0..count {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                said += &format!("w{} ", (state >> 33) % 5000);
            }
            said
        };
        let messages: Vec<String> = (0..8)
            .map(|m| {
                let role = if m % 2 == 0 { "user" } else { "assistant" };
                format!(r#"{{"role":"{role}","content":"{}"}}"#, words(95))
            })
            .collect();
        text += &format!(
            r#"{{"created":"{day}","system_prompt":"{}","messages":[{}]}}"#,
            words(40),
            messages.join(",")
        );
        text.push('\n');
    }
    let mut source = Source::lines(Path::new("lines"), Cursor::new(text));
    let options = ImportOptions::new(folder.join("rejects"));
    opened.import(&mut source, &options, &mut |_, _| {})?;
    let pair = HotkeyPair::from_uri("//Operator")?;
    let signer = Signer::new(pair.hotkey(), move |message| pair.sign(message));
    let packs = folder.join("packs");
    seal(&opened, &packs, (None, None), (&signer, 1_000), &mut |_| {})?;
    let spec = ListSpec {
        netuid: Netuid(11),
        era_id: "ab".repeat(32),
        number: RoundNumber(7),
        start: BlockRef {
            number: BlockNumber(700),
            hash: BlockHash([7; 32]),
        },
        start_ms: 1_795_564_800_000,
        seed: [3; 32],
        wanted: Wanted {
            fresh: half,
            older: half,
        },
    };
    rounds::build(&packs, &spec, &signer, 2_000)?;
    Ok(())
}

fn config(folder: &Path) -> PathBuf {
    folder.join("api.toml")
}

fn free() -> Outcome<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn start(folder: &Path) -> Outcome<Child> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["--log", "warn", "dataset-api", "--config"])
        .arg(config(folder))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let last = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .find(|l| l.starts_with("operator's"));
    if last.is_none() {
        child.wait()?;
        return Err("the server ended early".into());
    }
    Ok(child)
}

impl Server {
    /// Builds a list of `half` fresh and `half` older conversations, and serves it.
    pub(crate) fn start(half: usize) -> Outcome<Self> {
        Self::start_with(half, "")
    }

    /// The same with further lines of configuration.
    pub(crate) fn start_with(half: usize, more: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        build(folder.path(), half)?;
        let (public, protected, admin) = (free()?, free()?, free()?);
        let text = format!(
            "[dataset_api]\nlisten = \"{public}\"\npacks = \"packs\"\nstate = \"state\"\nadmin = \"{admin}\"\nhotkey = \"{}\"\n\
             [dataset_api.protected]\nlisten = \"{protected}\"\ntrusted = [\"127.0.0.9/32\", \"127.0.0.1/32\"]\n\
             [dataset_api.budgets]\nscorer = {{ burst = 1000000, per_hour = 1000000 }}\n\
             [[dataset_api.group]]\nname = \"sn11\"\nnetuid = 11\n[[dataset_api.group]]\nname = \"sn58\"\nnetuid = 58\n{more}",
            hotkey(RECEIVER)
        );
        std::fs::write(config(folder.path()), text)?;
        write_metagraph(&folder.path().join("state"))?;
        let child = start(folder.path())?;
        Ok(Self {
            child,
            folder,
            public,
            protected,
            admin,
            started: Instant::now(),
        })
    }

    /// `kill -9` and a new start on the same ports.
    pub(crate) fn kill_and_start(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.started = Instant::now();
        self.child = start(self.folder.path())?;
        Ok(())
    }

    /// Says where it is, for looking at it by hand, and serves until standard input ends.
    #[expect(clippy::print_stdout, reason = "it says where the server is")]
    pub(crate) fn hold(&self) -> Outcome<()> {
        let config = config(self.folder.path());
        println!("public http://{}", self.public);
        println!("protected http://{}", self.protected);
        println!("operator's http://{}", self.admin);
        println!("receiver {}", hotkey(RECEIVER));
        println!("configuration {}", config.display());
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        Ok(())
    }

    /// Size of the list's plain JSON.
    pub(crate) fn sample_mb(&self) -> Outcome<f64> {
        let bytes = std::fs::metadata(self.sample_file()?)?.len();
        Ok(f64::from(u32::try_from(bytes)?) / 1e6)
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// File of the list's plain JSON.
    pub(crate) fn sample_file(&self) -> Outcome<PathBuf> {
        let packs = self.folder.path().join("packs");
        let round = rounds::list(&packs)?.pop().ok_or("no round")?;
        Ok(packs.join(round.json.hex()))
    }

    /// The head of a request that is signed in a validator's name, with a signature of zeros.
    pub(crate) fn forged_head(&self) -> String {
        let (sender, receiver) = (hotkey("//Alice"), hotkey(RECEIVER));
        let nonce = (assay::clock::now_ms() + 1_000) * 1_000_000;
        let signature = "00".repeat(64);
        format!(
            "x-bittensor-version: 1\r\nx-bittensor-hotkey: {sender}\r\nx-bittensor-receiver: {receiver}\r\n\
             x-bittensor-nonce: {nonce}\r\nx-bittensor-signature: {signature}\r\n"
        )
    }

    fn metric(&self, wanted: impl Fn(&str) -> bool) -> Outcome<u32> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let url = format!("http://{}/metrics", self.admin);
        let text = runtime.block_on(async { reqwest::get(url).await?.text().await })?;
        let lines = text.lines().filter(|line| wanted(line));
        let numbers = lines.filter_map(|l| l.rsplit(' ').next());
        Ok(numbers.filter_map(|n| n.parse::<u32>().ok()).sum())
    }

    /// A token that the operator gives out.
    pub(crate) fn token(&self, class: &str, group: &str) -> Outcome<String> {
        let out = Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(["dataset", "--actor", "bench", "--config"])
            .arg(config(self.folder.path()))
            .args([
                "token", "--class", class, "--group", group, "--note", "bench",
            ])
            .output()?;
        let given: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        Ok(given["token"].as_str().ok_or("no token")?.to_owned())
    }

    /// Requests with this outcome.
    pub(crate) fn outcomes(&self, code: &str) -> Outcome<u32> {
        let outcome = format!("outcome=\"{code}\"");
        self.metric(|l| l.starts_with("assay_dataset_requests_total") && l.contains(&outcome))
    }

    /// Connections that were dropped, refused or found the lane full.
    pub(crate) fn counted(&self) -> Outcome<u32> {
        let of = "assay_dataset_connections_total";
        self.metric(|l| l.starts_with(of) && !l.contains("\"served\""))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
