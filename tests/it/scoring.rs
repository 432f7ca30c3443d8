//! Jobs and the process runner; the reader and the table of ends beside it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

mod ends;
mod may;
mod real;
mod standing;

use crate::harness::probe;
use assay::fault::Party;
use assay::scoring::job::{JobPath, ScoreJob, prepare};
use assay::scoring::process::{ProcessScorer, reap_orphans};
use assay::scoring::{Kill, Scorer};
use assay::shutdown::Shutdown;
use assay_protocol::{Limits, Stage};
use sha2::{Digest, Sha256};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

/// A name and a change.
type Case<T> = (&'static str, fn(&mut T));

fn scorer() -> ProcessScorer {
    ProcessScorer {
        binary: probe::binary().to_owned(),
        memory_bytes: 256 << 20,
        grace: Duration::from_secs(5),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_job_folder_holds_exactly_what_a_scorer_may_see() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::job(dir.path(), "look", probe::patient());
    let weights = job.model.dir.join("config.json");
    std::fs::set_permissions(&weights, std::fs::Permissions::from_mode(0o600)).unwrap();
    let prepared = prepare(&job, &dir.path().join("jobs")).unwrap();
    for (path, expected) in [
        (JobPath::Root, 0o700),
        (JobPath::Job, 0o755),
        (JobPath::Out, 0o777),
        (JobPath::JobJson, 0o644),
        (JobPath::Samples, 0o644),
    ] {
        assert_eq!(mode(&prepared.path(path)), expected, "{path:?}");
    }
    assert_eq!((mode(&weights), mode(&job.model.dir)), (0o644, 0o755));
    let samples = std::fs::read(prepared.path(JobPath::Samples)).unwrap();
    assert_eq!(samples.split(|b| *b == b'\n').count(), 3);
    let written = std::fs::read(prepared.path(JobPath::JobJson)).unwrap();
    let written: assay_protocol::Job = serde_json::from_slice(&written).unwrap();
    assert_eq!(written, prepared.job);
    assert_eq!(
        written.dataset.samples_sha256,
        hex::encode(Sha256::digest(&samples))
    );
    // A second try of the same attempt starts from nothing, and leaves the model alone.
    std::fs::write(prepared.path(JobPath::Result), "old").unwrap();
    symlink(&job.model.dir, prepared.path(JobPath::Model)).unwrap();
    prepare(&job, &dir.path().join("jobs")).unwrap();
    assert!(!prepared.path(JobPath::Result).exists() && weights.exists());
    prepared.remove().unwrap();
    assert!(!prepared.path(JobPath::Root).exists() && weights.exists());
}

#[test]
fn a_contradictory_job_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, Case<ScoreJob>); 9] = [
        (
            "JOB_INVALID",
            ("path in id", |job| job.job_id = "../x".into()),
        ),
        ("JOB_INVALID", ("empty id", |job| job.job_id.clear())),
        ("JOB_INVALID", ("attempt 0", |job| job.attempt = 0)),
        ("JOB_INVALID", ("no items", |job| job.items.clear())),
        (
            "JOB_INVALID",
            ("item twice", |job| job.items[1].id = "a".into()),
        ),
        ("JOB_INVALID", ("no deadline", |job| job.limits.total_s = 0)),
        (
            "MODEL_FOLDER",
            ("wrong size", |job| job.model.files[0].size = 3),
        ),
        (
            "MODEL_FOLDER",
            ("missing file", |job| {
                job.model.files[0].path = "other".into()
            }),
        ),
        (
            "MODEL_FOLDER",
            ("file not listed", |job| {
                std::fs::write(job.model.dir.join("x"), "").unwrap()
            }),
        ),
    ];
    for (code, (name, alter)) in cases {
        let mut job = probe::job(dir.path(), "look", probe::patient());
        alter(&mut job);
        let error = prepare(&job, &dir.path().join("jobs")).unwrap_err();
        let fault = assay::fault::Fault::from(error);
        assert_eq!(
            (fault.code.as_str(), fault.retryable),
            (code, false),
            "{name}"
        );
    }
    let job = probe::job(dir.path(), "look", probe::patient());
    std::fs::remove_file(job.model.dir.join("x")).unwrap();
    std::fs::remove_file(job.model.dir.join("config.json")).unwrap();
    symlink("/etc/hostname", job.model.dir.join("config.json")).unwrap();
    assert!(
        prepare(&job, &dir.path().join("jobs")).is_err(),
        "a link is no file"
    );
}

#[tokio::test]
async fn a_process_gets_no_environment_and_tells_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "look", probe::patient());
    let finished = scorer().run(&job, &Shutdown::new()).await.unwrap();
    assert_eq!((finished.exit, finished.killed), (Some(0), None));
    assert_eq!(finished.log_tail, "probe: look");
    let seen = std::fs::read_to_string(job.path(JobPath::Out).join("look.txt")).unwrap();
    let env: Vec<&str> = seen.lines().filter(|l| l.starts_with("env ")).collect();
    assert_eq!(env.len(), 7, "{env:?}");
    for (what, exit) in [("exit 20", 20), ("abort", 134), ("memory", 134)] {
        let job = probe::prepared(dir.path(), what, probe::patient());
        let finished = scorer().run(&job, &Shutdown::new()).await.unwrap();
        assert_eq!(
            (finished.exit, finished.killed),
            (Some(exit), None),
            "{what}"
        );
    }
    let mut missing = scorer();
    missing.binary = dir.path().join("absent");
    let job = probe::prepared(dir.path(), "look", probe::patient());
    let fault = missing.run(&job, &Shutdown::new()).await.unwrap_err();
    assert_eq!(
        (fault.party, fault.code.as_str()),
        (Party::Node, "SCORER_BINARY")
    );
}

#[tokio::test]
async fn a_process_is_ended_by_its_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    let stall = Limits {
        stall_s: 1,
        ..probe::patient()
    };
    let total = Limits {
        total_s: 1,
        ..probe::patient()
    };
    for (what, limits, kill) in [
        ("stall generate", stall, Kill::Stall(Some(Stage::Generate))),
        ("busy load", total, Kill::Total),
    ] {
        let job = probe::prepared(dir.path(), what, limits);
        let finished = scorer().run(&job, &Shutdown::new()).await.unwrap();
        assert_eq!(
            (finished.exit, finished.killed),
            (Some(143), Some(kill)),
            "{what}"
        );
    }
    let job = probe::prepared(dir.path(), "stubborn", probe::patient());
    let stop = Shutdown::new();
    let quick = ProcessScorer {
        grace: Duration::from_millis(300),
        ..scorer()
    };
    let ready = job.path(JobPath::Out).join("ready");
    let finished = tokio::join!(quick.run(&job, &stop), trigger_at(&ready, &stop)).0;
    let finished = finished.unwrap();
    assert_eq!(
        (finished.exit, finished.killed),
        (Some(137), Some(Kill::Stopped))
    );
}

async fn trigger_at(path: &Path, stop: &Shutdown) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !path.exists() {
        ticks.tick().await;
    }
    stop.trigger();
}

#[tokio::test]
async fn orphaned_processes_are_found_by_their_job_folder() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "stubborn", probe::patient());
    symlink(&job.model_dir, job.path(JobPath::Model)).unwrap();
    // What a node that was killed leaves behind: nobody waits for this one.
    let mut orphan = tokio::process::Command::new(probe::binary())
        .args(["run", "--root"])
        .arg(job.path(JobPath::Root))
        .process_group(0)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    trigger_at(&job.path(JobPath::Out).join("ready"), &Shutdown::new()).await;
    assert_eq!(reap_orphans(&dir.path().join("elsewhere")).unwrap(), 0);
    assert_eq!(reap_orphans(dir.path()).unwrap(), 0);
    assert_eq!(reap_orphans(&dir.path().join("jobs")).unwrap(), 1);
    let status = orphan.wait().await.unwrap();
    assert_eq!(status.code(), None, "{status}");
}
