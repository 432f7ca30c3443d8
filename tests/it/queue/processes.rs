//! The queue between processes: two at once, and one that is killed again and again. The children
//! are this test binary, told by the environment to run [`worker_process`].

use super::{advance, fill, finish, fixture, lease, open};
use assay::store::{Status, WorkerId};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const STORE: &str = "ASSAY_TEST_QUEUE_STORE";
const WORKER: &str = "ASSAY_TEST_QUEUE_WORKER";

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// What a child does: waits for a line on stdin, then works until nothing is left, and says what it
/// has finished only after the store has confirmed it.
#[tokio::test]
#[ignore = "the body of child processes"]
async fn worker_process() {
    let (Ok(path), Ok(worker)) = (std::env::var(STORE), std::env::var(WORKER)) else {
        return println!("not called as a child: nothing to do");
    };
    let store = open(&PathBuf::from(path));
    store
        .abandon_leases(&WorkerId(worker.clone()), 1)
        .await
        .unwrap();
    say("\nopen");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .unwrap();
    while let Some(lease) = lease(&store, &worker, 1).await {
        finish(&store, &lease, advance(), 2).await;
        say(&format!("finished {}", lease.submission.id));
    }
    say("empty");
}

struct Worker {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    fn start(path: &Path, name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "queue::processes::worker_process",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(STORE, path)
            .env(WORKER, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let mut worker = Self {
            child,
            lines: BufReader::new(out).lines(),
        };
        worker.until("open");
        worker
    }

    fn go(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    /// Reads up to the line `word`.
    fn until(&mut self, word: &str) {
        let found = self.lines.any(|line| line.unwrap() == word);
        assert!(found, "the child ended before it said {word:?}");
    }

    /// The next finished job; `None` when the queue is empty or the child gone.
    fn finished(&mut self) -> Option<i64> {
        let line = self.lines.next()?.ok()?;
        line.strip_prefix("finished ")?.parse().ok()
    }

    fn rest(&mut self) -> Vec<i64> {
        std::iter::from_fn(|| self.finished()).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn two_processes_share_one_queue() {
    const JOBS: u64 = 400;
    let f = fixture();
    fill(&f.store, JOBS).await;
    let mut workers = [Worker::start(&f.path, "a"), Worker::start(&f.path, "b")];
    for worker in &mut workers {
        worker.go();
    }
    let had: Vec<Vec<i64>> = workers.iter_mut().map(Worker::rest).collect();
    assert!(had.iter().all(|ids| !ids.is_empty()), "both had work");
    let all: BTreeSet<i64> = had.iter().flatten().copied().collect();
    assert_eq!(
        all.len(),
        had.iter().map(Vec::len).sum::<usize>(),
        "none twice"
    );
    assert_eq!(u64::try_from(all.len()).unwrap(), JOBS, "none lost");
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_had_confirmed() {
    const JOBS: u64 = 600;
    let f = fixture();
    fill(&f.store, JOBS).await;
    let mut confirmed = BTreeSet::new();
    for life in 0..10_usize {
        let mut worker = Worker::start(&f.path, "w");
        worker.go();
        for _ in 0..(life * 7) % 31 {
            let id = worker.finished().expect("more work than kills");
            assert!(confirmed.insert(id), "{id} finished twice");
        }
        worker.child.kill().unwrap();
        // What it still wrote down before the kill reached it counts as well.
        for id in worker.rest() {
            assert!(confirmed.insert(id), "{id} finished twice");
        }
        let reopened = open(&f.path);
        for id in &confirmed {
            let found = reopened
                .reader()
                .submission(assay::store::SubmissionId(*id))
                .await
                .unwrap();
            assert_eq!(found.status, Status::Ready, "confirmed, then lost");
        }
    }
    let mut last = Worker::start(&f.path, "w");
    last.go();
    last.rest();
    let counts = f.store.reader().counts().await.unwrap();
    assert_eq!(
        counts.by_status.into_iter().collect::<Vec<_>>(),
        [(Status::Ready, JOBS)]
    );
}
