//! The corpus as an operator meets it: formats, a kill in the middle, packs checked and copied.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::demo::wait_for;

const HOTKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wallet/phrase");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parquet");

fn corpus(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.arg("corpus").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let output = corpus(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// Names and contents of a corpus' partitions.
fn partitions(folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let days = paths.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("20") && name.ends_with(".jsonl")
    });
    days.map(|day| {
        (
            day.file_name().unwrap().into(),
            std::fs::read(&day).unwrap(),
        )
    })
    .collect()
}

fn compressed(folder: &Path, name: &str) -> (String, String) {
    let plain = std::fs::read(name).unwrap();
    let zstd = path(folder, "same.zst");
    std::fs::write(&zstd, zstd::encode_all(&plain[..], 3).unwrap()).unwrap();
    let gzip = path(folder, "same.gz");
    let file = std::fs::File::create(&gzip).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::new(6));
    encoder.write_all(&plain).unwrap();
    encoder.finish().unwrap();
    (gzip, zstd)
}

#[test]
fn every_format_gives_the_same_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let plain = format!("{FIXTURES}/same.jsonl");
    let (gzip, zstd) = compressed(folder.path(), &plain);
    let parquet = ["nested", "text", "micros"].map(|name| format!("{FIXTURES}/{name}.parquet"));
    let mut expected = None;
    for (n, file) in [plain, gzip, zstd].into_iter().chain(parquet).enumerate() {
        let into = path(folder.path(), &format!("corpus-{n}"));
        let said = text(&run(&["import", "--corpus", &into, &file]));
        assert!(
            said.starts_with("added 39, duplicates 0, rejected 1;"),
            "{file}: {said}"
        );
        let rejects = std::fs::read_to_string(said.rsplit(": ").next().unwrap().trim()).unwrap();
        assert!(
            rejects.contains(r#""record":8,"reason":"has no reply"#),
            "{rejects}"
        );
        let found = partitions(&into);
        assert_eq!(found.len(), 3, "{file}");
        let all: Vec<u8> = found.values().flatten().copied().collect();
        assert!(
            !String::from_utf8(all).unwrap().contains("<|im_end|>"),
            "{file}"
        );
        assert_eq!(
            &found,
            expected.get_or_insert_with(|| found.clone()),
            "{file}"
        );
    }
    let into = path(folder.path(), "corpus-0");
    let stats = text(&run(&["stats", "--corpus", &into]));
    let all: serde_json::Value = serde_json::from_str(stats.lines().last().unwrap()).unwrap();
    assert_eq!(
        (all["conversations"].as_u64(), all["messages"].as_u64()),
        (Some(39), Some(78))
    );
}

/// Kills the child as soon as its checkpoint speaks of at least so many records.
fn kill_at(mut child: Child, folder: &str, records: u64) {
    let file = Path::new(folder).join(".import.json");
    wait_for("checkpoint", Duration::from_secs(60), || {
        let text = std::fs::read(&file).ok()?;
        let checkpoint: serde_json::Value = serde_json::from_slice(&text).ok()?;
        (checkpoint["records"].as_u64()? >= records).then_some(())
    });
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "it ended before it was killed"
    );
}

#[test]
fn a_killed_import_goes_on_and_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let input = path(folder.path(), "input.jsonl");
    let mut file = std::fs::File::create(&input).unwrap();
    for n in 0..40_000 {
        let day = 1 + n % 28;
        let line = match n % 50 {
            7 => "broken".to_owned(),
            _ => format!(
                r#"{{"date":"2026-10-{day:02}","messages":[{{"role":"user","content":"{}"}},{{"role":"assistant","content":"ho {}"}}]}}"#,
                "hi ".repeat(60),
                n - n % 100 / 90
            ),
        };
        writeln!(file, "{line}").unwrap();
    }
    drop(file);
    let (whole, cut) = (path(folder.path(), "whole"), path(folder.path(), "cut"));
    let arguments = |corpus| ["import", "--checkpoint", "500", "--corpus", corpus, &input];
    let expected = text(&run(&arguments(&whole)));
    for records in [3_000, 11_500] {
        let child = corpus_child(&arguments(&cut));
        kill_at(child, &cut, records);
    }
    let found = text(&run(&arguments(&cut)));
    assert_eq!(found.replace("/cut/", "/whole/"), expected);
    assert_eq!(partitions(&cut), partitions(&whole));
    let rejects = |corpus| std::fs::read(Path::new(corpus).join("rejects-input.jsonl.jsonl"));
    assert_eq!(rejects(&cut).unwrap(), rejects(&whole).unwrap());
    assert!(!Path::new(&cut).join(".import.json").exists());
}

fn corpus_child(arguments: &[&str]) -> Child {
    corpus(arguments).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn packs_are_sealed_by_day_checked_exported_and_damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus_folder, packs) = (path(folder.path(), "corpus"), path(folder.path(), "packs"));
    let input = format!("{FIXTURES}/same.jsonl");
    run(&["import", "--corpus", &corpus_folder, &input]);
    let seal = [
        "seal",
        "--each-day",
        "--corpus",
        &corpus_folder,
        "--packs",
        &packs,
        "--hotkey-file",
        HOTKEY,
    ];
    let sealed = text(&run(&seal));
    assert_eq!(sealed.lines().count(), 3);
    assert_eq!(text(&run(&seal)), sealed, "sealed again, the same packs");
    let first: serde_json::Value = serde_json::from_str(sealed.lines().next().unwrap()).unwrap();
    let digest = first["digest"].as_str().unwrap();
    let exported = text(&run(&["export", "--packs", &packs, digest]));
    assert_eq!(
        exported.lines().count() as u64,
        first["count"].as_u64().unwrap()
    );
    let checked = text(&run(&["verify", "--packs", &packs]));
    assert_eq!(checked.matches("is whole").count(), 3, "{checked}");

    let file = Path::new(&packs).join(format!("{}.gz", &digest["sha256:".len()..]));
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let failed = corpus(&["verify", "--packs", &packs]).output().unwrap();
    assert_eq!(failed.status.code(), Some(69));
    let said = text(&failed);
    assert_eq!(said.matches("is whole").count(), 2, "{said}");
    assert!(said.contains(&format!("{digest} FAILS")), "{said}");
}
