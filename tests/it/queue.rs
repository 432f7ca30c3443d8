//! Integration tests: queue. Real files, many leasers, other processes, kills.
#![cfg(test)]

mod model;
mod processes;

use assay::bittensor::{BlockNumber, Hotkey};
use assay::fault::{Fault, Party};
use assay::incentive::{Rejection, RejectionCode};
use assay::store::{
    Admission, Advance, Ask, Finished, Lease, ModelFacts, NewSubmission, Outcome, Reader, Recorded,
    Resume, RetryPolicy, Stage, Status, Store, StoreError, SubmissionFilter, SubmissionId,
    WorkerId,
};
use futures::future::try_join_all;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

const TTL: Duration = Duration::from_secs(60);
const MINUTE: u64 = 60_000;

struct Fixture {
    store: Store,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn open(path: &Path) -> Store {
    Store::open(path, RetryPolicy::default()).unwrap()
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    Fixture {
        store: open(&path),
        path,
        _dir: dir,
    }
}

fn submission(key: u64, block: u64) -> NewSubmission {
    let mut hotkey = [0; 32];
    hotkey[..8].copy_from_slice(&key.to_be_bytes());
    NewSubmission {
        hotkey: Hotkey(hotkey),
        commit_block: BlockNumber(block),
        registered_at: None,
        raw: Vec::new(),
        model: Some(ModelFacts {
            repo: "name/model".to_owned(),
            revision: None,
            template: "chatml".to_owned(),
            competition: "c1".to_owned(),
            weights_key: None,
        }),
        admission: Admission::Queued,
    }
}

async fn fill(store: &Store, count: u64) {
    let all: Vec<u64> = (0..count).collect();
    for chunk in all.chunks(500) {
        let records = chunk.iter().map(|i| store.record(submission(*i, i / 3), 0));
        try_join_all(records).await.unwrap();
    }
}

async fn record(store: &Store, key: u64, block: u64) -> SubmissionId {
    let recorded = store.record(submission(key, block), 0).await.unwrap();
    let (Recorded::New(id) | Recorded::Known(id)) = recorded;
    id
}

async fn lease(store: &Store, worker: &str, now_ms: u64) -> Option<Lease> {
    let ask = Ask {
        stage: Stage::Fetch,
        worker: WorkerId(worker.to_owned()),
        committed_before: None,
        model_bytes_max: None,
        now_ms,
        ttl: TTL,
    };
    store.lease(ask).await.unwrap()
}

fn advance() -> Outcome {
    Outcome::Advance(Advance::default())
}

fn stalled() -> Outcome {
    Outcome::Failed(Fault::retryable(
        Party::Hub,
        "HUB_STALLED",
        "no byte for 60 s",
    ))
}

async fn finish(store: &Store, lease: &Lease, outcome: Outcome, now_ms: u64) -> Finished {
    store.finish_stage(lease, outcome, now_ms).await.unwrap()
}

/// Leases and finishes until nothing is left; returns what it had.
async fn drain(store: Store, worker: String) -> Vec<SubmissionId> {
    let mut had = Vec::new();
    while let Some(lease) = lease(&store, &worker, 1).await {
        had.push(lease.submission.id);
        finish(&store, &lease, advance(), 2).await;
    }
    had
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_leasers_take_ten_thousand_jobs_once_each() {
    const JOBS: u64 = 10_000;
    let f = fixture();
    fill(&f.store, JOBS).await;
    // Four stores of their own contend for the file as four processes would.
    let stores: Vec<Store> = (0..4).map(|_| open(&f.path)).collect();
    let mut leasers = JoinSet::new();
    for i in 0..64 {
        leasers.spawn(drain(stores[i % 4].clone(), format!("w{i}")));
    }
    let mut seen = HashSet::new();
    while let Some(had) = leasers.join_next().await {
        for id in had.unwrap() {
            assert!(seen.insert(id), "{id} was handed out twice");
        }
    }
    assert_eq!(u64::try_from(seen.len()).unwrap(), JOBS, "none lost");
    let counts = f.store.reader().counts().await.unwrap();
    assert_eq!(
        counts.by_status.into_iter().collect::<Vec<_>>(),
        [(Status::Ready, JOBS)]
    );
}

#[tokio::test]
async fn an_overtaken_holder_records_nothing() {
    let f = fixture();
    let id = record(&f.store, 1, 5).await;
    let old = lease(&f.store, "old", 0).await.unwrap();
    assert!(
        lease(&f.store, "new", 59_999).await.is_none(),
        "the lease still holds"
    );
    let new = lease(&f.store, "new", 60_000).await.unwrap();
    assert_eq!((new.job, new.attempt), (old.job, 2));

    let verdict = Outcome::Rejected(Rejection::new(RejectionCode::Format, "half a file"));
    let finished = f.store.finish_stage(&old, verdict, 60_001).await;
    assert!(matches!(finished, Err(StoreError::LeaseLost(job)) if job == old.job));
    let beat = f.store.heartbeat(&old, 60_001, TTL).await;
    assert!(matches!(beat, Err(StoreError::LeaseLost(_))));
    let released = f.store.release(old, 0, 60_001).await;
    assert!(matches!(released, Err(StoreError::LeaseLost(_))));
    assert_eq!(
        f.store.reader().submission(id).await.unwrap().status,
        Status::Fetching
    );

    assert_eq!(
        finish(&f.store, &new, advance(), 60_002).await.status,
        Status::Ready
    );
    let twice = f.store.finish_stage(&new, advance(), 60_003).await;
    assert!(
        matches!(twice, Err(StoreError::LeaseLost(_))),
        "a result counts once"
    );
}

#[tokio::test]
async fn heartbeats_keep_a_lease() {
    let f = fixture();
    record(&f.store, 1, 5).await;
    let held = lease(&f.store, "holder", 0).await.unwrap();
    f.store.heartbeat(&held, 50_000, TTL).await.unwrap();
    assert!(lease(&f.store, "other", 109_999).await.is_none());
    // Late, but nobody took it: the token decides, not the clock.
    f.store.heartbeat(&held, 200_000, TTL).await.unwrap();
    assert!(lease(&f.store, "other", 259_999).await.is_none());
    assert_eq!(
        f.store.reader().next_ready_ms(held.stage).await.unwrap(),
        Some(260_000)
    );
    finish(&f.store, &held, advance(), 300_000).await;
}

#[tokio::test]
async fn faults_wait_their_back_off_behind_all_fresh_work_and_end_parked() {
    let f = fixture();
    let id = record(&f.store, 1, 5).await;
    let mut now = 0;
    for (attempt, wait) in [(1, 1), (2, 5), (3, 30), (4, 30)] {
        let held = lease(&f.store, "w", now).await.unwrap();
        assert_eq!((held.submission.id, held.attempt), (id, attempt));
        let finished = finish(&f.store, &held, stalled(), now).await;
        let again = now + wait * MINUTE;
        assert_eq!(finished.retry_at_ms, Some(again));
        assert!(lease(&f.store, "w", again - 1).await.is_none(), "waits");
        // Fresh work of a later block goes first although the retry is due.
        let fresh = record(&f.store, 1, 100 + u64::from(attempt)).await;
        let first = lease(&f.store, "w", again).await.unwrap();
        assert_eq!(first.submission.id, fresh);
        finish(&f.store, &first, advance(), again).await;
        now = again;
    }
    let last = lease(&f.store, "w", now).await.unwrap();
    let finished = finish(&f.store, &last, stalled(), now).await;
    assert_eq!(
        (finished.status, finished.retry_at_ms),
        (Status::Parked, None)
    );
    assert!(
        lease(&f.store, "w", now + 999 * MINUTE).await.is_none(),
        "no retry without end"
    );
    assert_eq!(f.store.reader().history(id).await.unwrap().faults.len(), 5);

    assert!(f.store.requeue(id, Resume::AtStage, now).await.unwrap());
    assert!(
        !f.store.requeue(id, Resume::AtStage, now).await.unwrap(),
        "queued anyway"
    );
    let again = lease(&f.store, "w", now).await.unwrap();
    assert_eq!((again.submission.id, again.attempt), (id, 1));
}

#[tokio::test]
async fn what_will_not_pass_by_itself_is_parked_at_once() {
    let f = fixture();
    record(&f.store, 1, 5).await;
    let held = lease(&f.store, "w", 0).await.unwrap();
    let fault = Fault::permanent(Party::Engine, "IMAGE_MISSING", "pull the image");
    let finished = finish(&f.store, &held, Outcome::Failed(fault), 1).await;
    assert_eq!(finished.status, Status::Parked);
}

#[tokio::test]
async fn work_that_kills_its_workers_is_parked() {
    let f = fixture();
    let id = record(&f.store, 1, 5).await;
    let mut last = None;
    for attempt in 0..5 {
        last = lease(&f.store, "w", attempt * MINUTE).await;
        assert!(last.is_some());
    }
    assert!(lease(&f.store, "w", 5 * MINUTE).await.is_none());
    let history = f.store.reader().history(id).await.unwrap();
    assert_eq!(history.submission.status, Status::Parked);
    assert_eq!(history.faults[0].fault.code, "LEASE_EXPIRED");
    let late = f
        .store
        .finish_stage(&last.unwrap(), advance(), 5 * MINUTE)
        .await;
    assert!(matches!(late, Err(StoreError::LeaseLost(_))));
}

#[tokio::test]
async fn a_shutdown_counts_no_attempt_and_a_new_life_takes_its_leases_back() {
    let f = fixture();
    let id = record(&f.store, 1, 5).await;
    for _ in 0..9 {
        let held = lease(&f.store, "w", 0).await.unwrap();
        assert_eq!(held.attempt, 1);
        f.store.release(held, 0, 0).await.unwrap();
        assert_eq!(
            f.store.reader().submission(id).await.unwrap().status,
            Status::Queued
        );
    }
    let dead = lease(&f.store, "w", 0).await.unwrap();
    let other = WorkerId("other".to_owned());
    assert_eq!(f.store.abandon_leases(&other, 1).await.unwrap(), 0);
    assert_eq!(f.store.abandon_leases(&dead.worker, 1).await.unwrap(), 1);
    assert_eq!(lease(&f.store, "w", 1).await.unwrap().attempt, 2);
    let ghost = f.store.finish_stage(&dead, advance(), 1).await;
    assert!(matches!(ghost, Err(StoreError::LeaseLost(_))));
}

#[tokio::test]
async fn a_round_takes_only_what_was_committed_before_it() {
    let f = fixture();
    record(&f.store, 1, 5).await;
    let ask = |before| Ask {
        stage: Stage::Fetch,
        worker: WorkerId("w".to_owned()),
        committed_before: Some(BlockNumber(before)),
        model_bytes_max: None,
        now_ms: 0,
        ttl: TTL,
    };
    assert!(f.store.lease(ask(5)).await.unwrap().is_none());
    assert!(f.store.lease(ask(6)).await.unwrap().is_some());
}

#[tokio::test]
async fn idle_workers_hear_of_new_work() {
    let f = fixture();
    let mut changes = f.store.queue_changes();
    record(&f.store, 1, 5).await;
    let heard = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
    heard.expect("announced").unwrap();
}

/// Each call of a reader sees one state: a job has a holder exactly when its submission is in work,
/// and the counts always add up, while the writer is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_whole_transactions() {
    const JOBS: u64 = 300;
    let f = fixture();
    fill(&f.store, JOBS).await;
    let reader = Reader::open(&f.path).unwrap();
    let all = reader
        .submissions(SubmissionFilter::default(), 500)
        .await
        .unwrap();
    let mut leasers = JoinSet::new();
    for i in 0..8 {
        leasers.spawn(drain(f.store.clone(), format!("w{i}")));
    }
    let mut reads = 0_usize;
    while leasers.try_join_next().is_none() || !leasers.is_empty() {
        let seen = reader.history(all[reads % all.len()].id).await.unwrap();
        let working = seen.job.unwrap().worker.is_some();
        assert_eq!(working, seen.submission.status == Status::Fetching);
        let counts = reader.counts().await.unwrap();
        assert_eq!(counts.by_status.values().sum::<u64>(), JOBS);
        reads += 1;
    }
    assert!(reads > 3, "only {reads} reads beside the writer");
}
