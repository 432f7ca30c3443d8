//! The demo as a child process, and what it left behind.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use assay::store::{Reader, Status, SubmissionFilter};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The static scorer, built where it is not there yet: the first time takes minutes.
pub(crate) fn build_scorer() {
    assay::demo::scorer_build::locate_or_build(None, |_| {}).unwrap();
}

/// A command that runs the demo once in `dir`.
pub(crate) fn command(dir: &Path, scorer: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command
        .args([
            "demo", "--once", "--json", "--plain", "--scorer", scorer, "--dir",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The one JSON object that a run prints.
pub(crate) fn summary(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Scored repositories, best first, and rejected ones with their codes, by name.
pub(crate) async fn end_state(dir: &Path) -> (Vec<String>, Vec<(String, String)>) {
    let reader = Reader::open(&dir.join("node.db")).unwrap();
    let era = reader.eras().await.unwrap().remove(0);
    let mut scored = reader.scored(&era.era_id).await.unwrap();
    scored.sort_by(|a, b| b.score.value.total_cmp(&a.score.value));
    let order = scored
        .into_iter()
        .map(|s| s.submission.repo.unwrap())
        .collect();
    let filter = SubmissionFilter {
        status: Some(Status::Rejected),
        ..SubmissionFilter::default()
    };
    let mut rejected: Vec<_> = reader
        .submissions(filter, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|s| (s.repo.unwrap(), s.rejection.unwrap().code.to_string()))
        .collect();
    rejected.sort();
    (order, rejected)
}

/// Waits until `seen` gives a value; fails after `limit`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut seen: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(begun.elapsed() < limit, "no {what} within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
