//! Download and verification of a large model over loopback, beside `huggingface_hub`, which checks
//! neither digests nor values. The hub is the demo's, in this process, for both.
//!
//! `cargo bench --bench download [-- MIB]`, 2048 MiB of weights if nothing is said. `huggingface_hub`
//! runs from `target/venv`, where `.ci/run` installs it, with its accelerated transfer switched on.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use anyhow::{Result, ensure};
use assay::admission::verify;
use assay::demo::model_hub::{ModelHub, publish};
use assay::hub::{Download, HubClient, HubSettings, model_dir};
use assay::incentive::Template;
use model::{era, processor, write_model};
use std::path::Path;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[path = "support/model.rs"]
mod model;

const REPO: &str = "bench/model";
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");
const SCRIPT: &str = "import sys\nfrom huggingface_hub import snapshot_download\n\
    snapshot_download(sys.argv[2], revision=sys.argv[3], endpoint=sys.argv[1], \
    cache_dir=sys.argv[4], token=False, max_workers=4)";

#[tokio::main]
async fn main() -> Result<()> {
    let mib = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (source, root) = (dir.path().join("source"), dir.path().join("root"));
    std::fs::create_dir(&source)?;
    let (files, bytes) = write_model(&source, mib.unwrap_or(2048))?;
    let revision = publish(&root, REPO, &source)?;
    std::fs::remove_dir_all(&source)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let mut hub = JoinSet::new();
    hub.spawn(ModelHub::new(root).serve(listener, stop.clone().cancelled_owned()));
    let gigabytes = f64::from(u32::try_from(bytes >> 10)?) * 1024.0 / 1e9;
    println!(
        "machine: {} cores, {}; command: cargo bench --bench download; {gigabytes:.2} GB",
        std::thread::available_parallelism()?,
        processor()
    );

    let client = HubClient::new(HubSettings::new(endpoint.parse()?))?;
    // The hub hashes what it serves the first time that it is asked.
    let facts = client.facts(REPO, Some(&revision)).await?;
    let out = dir.path().join("ours");
    let dest = model_dir(&out, REPO, &revision)?;
    let job = Download {
        repo: REPO,
        revision: &revision,
        files: &facts.files,
        dest: &dest,
        blobs: &out.join("blobs"),
    };
    let begun = Instant::now();
    client.download(job, &|_| ()).await?;
    let fetched = begun.elapsed().as_secs_f64();
    let rules = era()?;
    let folder = dest.clone();
    tokio::task::spawn_blocking(move || verify(&folder, &files, &rules, Template::ChatMl))
        .await??;
    let verified = begun.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&out)?;

    let theirs = python(&endpoint, &revision, &dir.path().join("theirs")).await;
    let show = |name: &str, seconds: f64| {
        let ratio = theirs
            .as_ref()
            .map_or("-".to_owned(), |t| format!("{:.2}", t / seconds));
        println!(
            "{name:<46} {seconds:>6.1} s {:>6.2} GB/s  {ratio} x huggingface_hub",
            gigabytes / seconds
        );
    };
    show("ours: download, digests checked", fetched);
    show("ours: download and verification", verified);
    match &theirs {
        Ok(seconds) => show("huggingface_hub, nothing checked", *seconds),
        Err(error) => println!("huggingface_hub does not run here: {error:#}"),
    }
    stop.cancel();
    while let Some(ended) = hub.join_next().await {
        ended??;
    }
    Ok(())
}

/// Seconds that `huggingface_hub` takes, its start not counted.
async fn python(endpoint: &str, revision: &str, cache: &Path) -> Result<f64> {
    let run = |script: &'static str| async move {
        let begun = Instant::now();
        let status = tokio::process::Command::new(PYTHON)
            .args(["-c", script, endpoint, REPO, revision])
            .arg(cache)
            .env("HF_XET_HIGH_PERFORMANCE", "1")
            .env("HF_HUB_ENABLE_HF_TRANSFER", "1")
            .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            .env("HF_HUB_DISABLE_TELEMETRY", "1")
            .env("NO_PROXY", "127.0.0.1")
            .status()
            .await?;
        ensure!(status.success(), "{status}");
        Ok(begun.elapsed().as_secs_f64())
    };
    let start = run("import huggingface_hub, huggingface_hub.file_download").await?;
    Ok(run(SCRIPT).await? - start)
}
