//! Import and sealing of a large corpus, beside the bare work of the libraries underneath.
//!
//! `cargo bench --bench corpus` makes a file of conversations (200,000 unless
//! `ASSAY_BENCH_CONVERSATIONS` says otherwise, about 8 KB each), runs the real `assay corpus import`
//! and `assay corpus seal` as child processes, and prints rates and peak memory. Baselines on the
//! same file in the same run: parse and re-serialise every line with serde_json and write it
//! (import), and SHA-256, gzip and zstd of the same bytes at the same levels, one after another
//! (seal). `ASSAY_BENCH_BASELINE=0` leaves them out: with a million conversations they take as long
//! as the rest. `ASSAY_BENCH_KILL_AFTER_S` kills the import by SIGKILL after so many seconds and
//! runs it again, which must go on where it stopped.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints its results and may panic"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

const MIB: f64 = 1024.0 * 1024.0;
const HOTKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wallet/phrase");

/// Words of a made-up language with the frequencies of a real one, so that compression has about
/// the work that it has with text.
fn vocabulary(random: &mut impl Rng) -> Vec<String> {
    let syllables = [
        "ka", "ro", "mi", "len", "tas", "or", "un", "ve", "shi", "da", "pel", "no",
    ];
    let word = |random: &mut dyn rand::RngCore| {
        let length = random.random_range(1..=4);
        (0..length)
            .map(|_| syllables[random.random_range(0..syllables.len())])
            .collect::<String>()
    };
    (0..20_000).map(|_| word(random)).collect()
}

fn sentence(random: &mut impl Rng, words: &[String], bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        // Zipf: the rank falls off as one over the draw.
        let draw: f64 = random.random_range(0.0..1.0);
        let rank = (words.len() as f64).powf(draw) as usize;
        text.push_str(&words[rank.min(words.len() - 1)]);
        text.push(if random.random_bool(0.08) { '\n' } else { ' ' });
    }
    text
}

/// Writes `count` conversations over 30 days; every hundredth is a duplicate of the one before, and
/// every hundredth after it is not usable.
fn write_conversations(path: &Path, count: u64) -> u64 {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let words = vocabulary(&mut random);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut line = String::new();
    for n in 0..count {
        match n % 100 {
            98 => {}
            99 => line = "{\"messages\": \"none\"}".to_owned(),
            _ => {
                let messages: Vec<_> = (0..10)
                    .map(|i| {
                        let role = if i % 2 == 0 { "user" } else { "assistant" };
                        let content = sentence(&mut random, &words, 720);
                        serde_json::json!({ "role": role, "content": content })
                    })
                    .collect();
                let conversation = serde_json::json!({
                    "system_prompt": sentence(&mut random, &words, 500),
                    "messages": messages,
                    "date": format!("2026-10-{:02}", 1 + n * 30 / count),
                });
                line = conversation.to_string();
            }
        }
        writeln!(out, "{line}").unwrap();
    }
    out.flush().unwrap();
    std::fs::metadata(path).unwrap().len()
}

struct Run {
    ended: bool,
    wall: Duration,
    peak_mib: f64,
}

/// Runs `assay` to its end and watches its peak resident memory.
fn assay(arguments: &[&str]) -> Run {
    let run = assay_for(arguments, Duration::MAX);
    assert!(run.ended, "{arguments:?} failed");
    run
}

/// The same; kills it after `life`.
fn assay_for(arguments: &[&str], life: Duration) -> Run {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_mib = 0.0f64;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|p| p.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        peak_mib = peak_mib.max(kib.unwrap_or(0.0) / 1024.0);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.success();
        }
        if begun.elapsed() > life {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Run {
        ended,
        wall: begun.elapsed(),
        peak_mib,
    }
}

/// The least that an import must do: read, parse, serialise, write.
fn bare_import(input: &Path, output: &Path) -> Duration {
    let begun = Instant::now();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(output).unwrap());
    for line in BufReader::with_capacity(1 << 20, File::open(input).unwrap()).lines() {
        let value: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        serde_json::to_writer(&mut out, &value).unwrap();
        out.write_all(b"\n").unwrap();
    }
    out.into_inner().unwrap().sync_all().unwrap();
    begun.elapsed()
}

/// The least that sealing must do: hash, gzip and zstd the bytes, at the same levels.
fn bare_seal(input: &Path, output: &Path) -> Duration {
    let begun = Instant::now();
    let create = |suffix| File::create(output.with_extension(suffix)).unwrap();
    let mut hash = Sha256::new();
    let mut gzip = flate2::write::GzEncoder::new(create("gz"), flate2::Compression::new(6));
    let mut zstd = zstd::Encoder::new(create("zst"), 6).unwrap();
    let mut reader = File::open(input).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = reader.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        gzip.write_all(&buffer[..n]).unwrap();
        zstd.write_all(&buffer[..n]).unwrap();
    }
    gzip.finish().unwrap().sync_all().unwrap();
    zstd.finish().unwrap().sync_all().unwrap();
    begun.elapsed()
}

fn report(what: &str, count: u64, bytes: u64, run: &Run, bare: Option<Duration>) {
    let seconds = run.wall.as_secs_f64();
    let beside = bare.map_or("baseline left out".to_owned(), |bare| {
        let bare = bare.as_secs_f64();
        format!("bare work {bare:.1} s, ratio {:.2}", seconds / bare)
    });
    println!(
        "{what}: {seconds:.1} s, {:.0} conversations/s, {:.0} MiB/s, peak {:.0} MiB; {beside}",
        count as f64 / seconds,
        bytes as f64 / MIB / seconds,
        run.peak_mib,
    );
}

/// The whole import; with a time to kill it, in two runs that count as one.
fn import(arguments: &[&str]) -> Run {
    let life = std::env::var("ASSAY_BENCH_KILL_AFTER_S");
    let life = life.ok().map(|s| Duration::from_secs(s.parse().unwrap()));
    let first = assay_for(arguments, life.unwrap_or(Duration::MAX));
    if first.ended {
        return first;
    }
    assert!(life.is_some(), "{arguments:?} failed");
    let second = assay(arguments);
    println!(
        "import: killed after {:.1} s; the second run ended it in {:.1} s",
        first.wall.as_secs_f64(),
        second.wall.as_secs_f64()
    );
    Run {
        wall: first.wall + second.wall,
        peak_mib: first.peak_mib.max(second.peak_mib),
        ended: true,
    }
}

fn main() {
    let count = std::env::var("ASSAY_BENCH_CONVERSATIONS");
    let count: u64 = count.map_or(200_000, |n| n.parse().unwrap());
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(base).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, corpus, packs) = (path("input.jsonl"), path("corpus"), path("packs"));
    let bytes = write_conversations(Path::new(&input), count);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores; {count} conversations, {:.2} GiB; cargo bench --bench corpus",
        bytes as f64 / MIB / 1024.0
    );
    let left_out = std::env::var("ASSAY_BENCH_BASELINE").is_ok_and(|b| b == "0");
    let plain = path("bare.jsonl");
    let bare = (!left_out).then(|| bare_import(Path::new(&input), Path::new(&plain)));
    let import = import(&["corpus", "import", "--corpus", &corpus, &input]);
    report("import", count, bytes, &import, bare);
    let bare = bare.map(|_| bare_seal(Path::new(&plain), Path::new(&path("bare"))));
    for name in ["bare.jsonl", "bare.gz", "bare.zst"] {
        let _ = std::fs::remove_file(path(name));
    }
    let seal = [
        "corpus",
        "seal",
        "--corpus",
        &corpus,
        "--packs",
        &packs,
        "--hotkey-file",
        HOTKEY,
    ];
    let seal = assay(&seal);
    report("seal", count, bytes, &seal, bare);
    let ids = count as f64 * 1e-6;
    println!(
        "a million conversations at these rates: import {:.0} s, seal {:.0} s",
        import.wall.as_secs_f64() / ids,
        seal.wall.as_secs_f64() / ids
    );
}
