//! The whole path: from eight commitments on the dev chain to weights read back from it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use crate::harness::{demo, probe};
use serde_json::{Value, json};

/// What every run has to come to: the ladder in its true order, and each bad model's own code.
async fn check(summary: &Value, dir: &std::path::Path, runner: &str) {
    assert_eq!(summary["commitments"], 8, "{summary}");
    assert_eq!(summary["scored"], 5, "{summary}");
    assert_eq!(summary["parked"], 0, "{summary}");
    assert_eq!(
        summary["rejected"],
        json!({"DUPLICATE": 1, "NEVER_STOPS": 1, "NON_FINITE": 1}),
        "{summary}"
    );
    assert_eq!(summary["read_back"], true, "{summary}");
    assert_eq!(summary["runner"], runner, "{summary}");
    // Burn to the owner at uid 0; champion, second and third at the uids of their miners.
    let uids: Vec<_> = summary["weights"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w[0].clone())
        .collect();
    assert_eq!(uids, [0, 2, 3, 4], "{summary}");
    let (order, rejected) = demo::end_state(dir).await;
    assert_eq!(order, LADDER);
    assert_eq!(
        rejected,
        [
            ("copy-miner/copy", "DUPLICATE"),
            ("endless-miner/endless", "NEVER_STOPS"),
            ("nan-miner/nan", "NON_FINITE"),
        ]
        .map(|(repo, code)| (repo.to_owned(), code.to_owned()))
    );
}

/// The sample models that can be scored, best first.
pub(crate) const LADDER: [&str; 5] = [
    "base-miner/base",
    "noise-low-miner/noise-low",
    "pruned-miner/pruned",
    "noise-mid-miner/noise-mid",
    "noise-high-miner/noise-high",
];

async fn run(runner: &str) {
    demo::build_scorer();
    let dir = tempfile::tempdir().unwrap();
    let output = demo::command(dir.path(), runner).output().unwrap();
    check(&demo::summary(&output), dir.path(), runner).await;
}

#[tokio::test]
async fn commitments_become_weights_through_plain_processes() {
    run("process").await;
}

#[tokio::test]
async fn commitments_become_weights_through_containers() {
    if probe::engine("flow").await.is_some() {
        run("docker").await;
    }
}
