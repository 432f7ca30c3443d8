//! The real binary with one pack and one round, as a child process.

use std::io::{BufRead, BufReader, Cursor};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
        let folder = tempfile::tempdir()?;
        build(folder.path(), half)?;
        let (public, protected, admin) = (free()?, free()?, free()?);
        let text = format!(
            "[dataset_api]\nlisten = \"{public}\"\npacks = \"packs\"\nstate = \"state\"\nadmin = \"{admin}\"\n\
             [dataset_api.protected]\nlisten = \"{protected}\"\ntrusted = [\"127.0.0.9/32\"]\n\
             [dataset_api.budgets]\nscorer = {{ burst = 1000000, per_hour = 1000000 }}\n"
        );
        std::fs::write(config(folder.path()), text)?;
        let child = start(folder.path())?;
        Ok(Self {
            child,
            folder,
            public,
            protected,
            admin,
        })
    }

    /// `kill -9` and a new start on the same ports.
    pub(crate) fn kill_and_start(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = start(self.folder.path())?;
        Ok(())
    }

    /// Size of the list's plain JSON.
    pub(crate) fn sample_mb(&self) -> Outcome<f64> {
        let round = rounds::list(&self.folder.path().join("packs"))?
            .pop()
            .ok_or("no round")?;
        let path = self.folder.path().join("packs").join(round.json.hex());
        Ok(f64::from(u32::try_from(std::fs::metadata(path)?.len())?) / 1e6)
    }

    fn status(&self, field: &str) -> Outcome<u32> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text
            .lines()
            .find(|l| l.starts_with(field))
            .ok_or("no such field")?;
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }

    pub(crate) fn resident_kib(&self) -> Outcome<u32> {
        self.status("VmRSS:")
    }

    pub(crate) fn peak_kib(&self) -> Outcome<u32> {
        self.status("VmHWM:")
    }

    /// Processor time of the server so far, user and system.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let rest = text.rsplit(") ").next().ok_or("no stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Connections that were dropped, refused or found the lane full.
    pub(crate) fn counted(&self) -> Outcome<u32> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let url = format!("http://{}/metrics", self.admin);
        let text = runtime.block_on(async { reqwest::get(url).await?.text().await })?;
        let turned = |line: &&str| {
            line.starts_with("assay_dataset_connections_total") && !line.contains("\"served\"")
        };
        let numbers = text
            .lines()
            .filter(turned)
            .filter_map(|l| l.rsplit(' ').next());
        Ok(numbers.filter_map(|n| n.parse::<u32>().ok()).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor, cores and load.
pub(crate) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |m| {
        m.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{model}, {cores} cores, load {}",
        load.split(' ').next().unwrap_or("?")
    )
}
