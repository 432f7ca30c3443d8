//! Admission of a model on disk, beside SHA-256 and BLAKE3 of the same files in the same run. The
//! files are in the page cache for all of them.
//!
//! `cargo bench --bench verify [-- MIB]`, 1024 MiB of weights if nothing is said. `b3sum` takes part
//! where it is installed (`cargo install b3sum`).

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use anyhow::{Context, Result, ensure};
use assay::admission::verify_on;
use assay::incentive::Template;
use model::{SHARDS, era, processor, write_model};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Instant;

#[path = "support/model.rs"]
mod model;

const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let mib = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (files, bytes) = write_model(dir.path(), mib.unwrap_or(1024))?;
    let cores = std::thread::available_parallelism()?;
    let gigabytes = f64::from(u32::try_from(bytes >> 10)?) * 1024.0 / 1e9;
    println!(
        "machine: {} cores, {}; command: cargo bench --bench verify; {gigabytes:.2} GB in {} files",
        cores,
        processor(),
        SHARDS.len()
    );
    let paths: Vec<_> = SHARDS.iter().map(|name| dir.path().join(name)).collect();
    let best = |run: &dyn Fn() -> Result<()>| -> Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            run()?;
            best = best.min(begun.elapsed().as_secs_f64());
        }
        Ok(gigabytes / best)
    };
    let tool = |name: &'static str, options: &'static [&'static str]| {
        let paths = paths.clone();
        move || run_tool(name, options, &paths)
    };
    let base = best(&|| hash_files(&paths))?;
    let show = |name: &str, rate: f64| {
        println!(
            "{name:<34} {rate:>6.2} GB/s  {:>5.2} x sha256, 1 core",
            rate / base
        );
    };
    show("sha256, 1 core (crate sha2)", base);
    show("sha256sum, 1 core", best(&tool("sha256sum", &[]))?);
    match best(&tool("b3sum", &["--num-threads", "1"])) {
        Ok(rate) => {
            show("b3sum, 1 core", rate);
            show("b3sum, all cores", best(&tool("b3sum", &[]))?);
        }
        Err(error) => println!("b3sum does not run here: {error:#}"),
    }
    let era = era()?;
    let verify = |cores: NonZeroUsize| {
        let (dir, files, era) = (dir.path(), &files, &era);
        move || {
            verify_on(cores, dir, files, era, Template::ChatMl)?;
            Ok(())
        }
    };
    show("verify, 1 core", best(&verify(NonZeroUsize::MIN))?);
    for cores in (2..=cores.get()).filter_map(NonZeroUsize::new) {
        show(&format!("verify, {cores} cores"), best(&verify(cores))?);
    }
    Ok(())
}

fn hash_files(paths: &[std::path::PathBuf]) -> Result<()> {
    let mut chunk = vec![0; 128 * 1024];
    for path in paths {
        let (mut file, mut hash) = (File::open(path)?, Sha256::new());
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => hash.update(&chunk[..read]),
            }
        }
        std::hint::black_box(hash.finalize());
    }
    Ok(())
}

fn run_tool(name: &str, options: &[&str], paths: &[std::path::PathBuf]) -> Result<()> {
    let mut command = Command::new(name);
    command.args(options).args(paths).stdout(Stdio::null());
    ensure!(command.status().context(name.to_owned())?.success());
    Ok(())
}
