//! Seeded runs of the weights path under chaos: the real watcher, weight setter, client and store against
//! a dev chain behind two spoiled proxies, over real sockets, with reorganisations and kills.
//!
//! In every run: the validator's row on chain is never anything but the one right vector, and every
//! epoch with a healthy third in its weights window has its weights before it fires.
//!
//! `ASSAY_SIMULATION=500 cargo test --test it simulation -- --nocapture` runs 500 whole runs of 30
//! epochs; `ASSAY_SIMULATION_SEED=7` one of them, with `RUST_LOG=assay=debug` to see what its node does. Without the variables a few short runs.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

mod world;

use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tracing::Instrument as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use world::{Report, run};

/// Runs at a time: they mostly wait.
const PARALLEL: usize = 96;
/// Past this moment no new run begins, so that the whole stays within its share of CI.
const TIME: Duration = Duration::from_secs(3600);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[expect(
    clippy::explicit_write,
    reason = "the harness keeps what a macro prints"
)]
fn say(line: &str) {
    // Not by a macro, whose output the test harness keeps to itself.
    writeln!(std::io::stderr(), "{line}").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "keeps real time: run it alone, cargo test --test it simulation -- --ignored --nocapture"]
#[expect(clippy::disallowed_methods, reason = "each run is a task of its own")]
async fn no_chaos_sets_a_wrong_vector() {
    let one = number("ASSAY_SIMULATION_SEED");
    let (seeds, epochs) = match (one, number("ASSAY_SIMULATION")) {
        (Some(seed), _) => (seed..seed + 1, 30),
        (None, Some(runs)) => {
            let first = number("ASSAY_SIMULATION_FROM").unwrap_or(0);
            (first..first + runs, 30)
        }
        (None, None) => (0..4, 4),
    };
    let begun = Instant::now();
    // What the nodes say, each line with its run's seed, where RUST_LOG asks for it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder()
                .with_default_directive(LevelFilter::OFF.into())
                .from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .try_init();
    let runs = futures::stream::iter(seeds)
        .take_while(|_| std::future::ready(begun.elapsed() < TIME))
        .map(|seed| async move {
            let run = run(seed, epochs).instrument(tracing::info_span!("run", seed));
            (seed, tokio::spawn(run).await.unwrap())
        })
        .buffer_unordered(PARALLEL);
    let results: Vec<(u64, Result<Report, String>)> = runs.collect().await;
    let mut sum = Report::default();
    let mut failures = Vec::new();
    for (seed, result) in &results {
        match result {
            Ok(report) => sum.add(report),
            Err(why) => failures.push(format!("seed {seed}: {why}")),
        }
    }
    let troubles: BTreeMap<String, u32> = sum
        .troubles
        .iter()
        .map(|(trouble, n)| (format!("{trouble:?}"), *n))
        .collect();
    say(&format!(
        "simulation: {} runs of {epochs} epochs in {:.0} s: {} blocks, {} rows read, {} epochs with weights of which \
         {} promised, {} promises dropped because this host starved the run, {} reorganisations, {} kills, \
         {} failures; {troubles:?}",
        results.len(),
        begun.elapsed().as_secs_f64(),
        sum.blocks,
        sum.rows,
        sum.weighted,
        sum.promised,
        sum.starved,
        sum.reorgs,
        sum.kills,
        failures.len(),
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
