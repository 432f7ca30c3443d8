//! kill -9 of the validator, the APIs and the demo itself at seeded moments: the run carries on and
//! ends in the same state.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use crate::flow::LADDER;
use crate::harness::demo;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

const SEED: u64 = 0x00a5_5a71;
/// Kills of one of our services; after each the supervisor starts it again.
const CHILD_KILLS: usize = 8;
/// Kills of the demo with all that it runs; after each the same folder is started again.
const DEMO_KILLS: usize = 2;
const LIMIT: Duration = Duration::from_secs(60);

fn pid(dir: &Path, service: &str) -> Option<i32> {
    let text = std::fs::read_to_string(dir.join("run").join(format!("{service}.pid"))).ok()?;
    text.trim().parse().ok()
}

fn kill(pid: i32) {
    // A process that is gone already was killed by its own end: nothing to do.
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Kills one service and waits until another process has taken its place.
fn kill_service(dir: &Path, service: &str) {
    let old = demo::wait_for("process id", LIMIT, || pid(dir, service));
    kill(old);
    demo::wait_for("restarted process", LIMIT, || {
        pid(dir, service).filter(|new| *new != old)
    });
}

fn start(dir: &Path) -> Child {
    let child = demo::command(dir, "process").spawn().unwrap();
    demo::wait_for("validator", LIMIT, || pid(dir, "validator"));
    child
}

#[tokio::test]
async fn ten_kills_change_nothing() {
    demo::build_scorer();
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut running = start(dir.path());
    let mut kills = 0;
    for kill_number in 0..CHILD_KILLS + DEMO_KILLS {
        // The moments are what is drawn: there is no event to await.
        std::thread::park_timeout(Duration::from_millis(rng.random_range(50..900)));
        if running.try_wait().unwrap().is_some() {
            break;
        }
        if kill_number % 5 == 4 {
            kill(i32::try_from(running.id()).unwrap());
            running.wait().unwrap();
            std::fs::remove_file(dir.path().join("run/validator.pid")).unwrap();
            running = start(dir.path());
        } else {
            let services = ["validator", "validator", "dataset-api", "score-api"];
            kill_service(dir.path(), services.choose(&mut rng).unwrap());
        }
        kills += 1;
    }
    assert_eq!(
        kills,
        CHILD_KILLS + DEMO_KILLS,
        "seed {SEED:#x}: the run ended too early"
    );
    let output = running.wait_with_output().unwrap();
    let summary = demo::summary(&output);
    assert_eq!(summary["read_back"], true, "seed {SEED:#x}: {summary}");
    assert_eq!(summary["parked"], 0, "seed {SEED:#x}: {summary}");
    let (order, rejected) = demo::end_state(dir.path()).await;
    assert_eq!(order, LADDER, "seed {SEED:#x}");
    let codes: Vec<_> = rejected.iter().map(|(_, code)| code.as_str()).collect();
    assert_eq!(
        codes,
        ["DUPLICATE", "NEVER_STOPS", "NON_FINITE"],
        "seed {SEED:#x}"
    );
}
