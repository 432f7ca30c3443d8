//! The store through its public door, one record kind after the other.

mod migration;
mod scores;
mod submissions;
mod weights;

use super::*;
use crate::bittensor::{BlockHash, BlockNumber, BlockRef, Hotkey};
use crate::fault::{Fault, Party};
use crate::incentive::{Rejection, RejectionCode};
use serde_json::{Value, json};

struct Fixture {
    store: Store,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let store = Store::open(&path, RetryPolicy::default()).unwrap();
    Fixture {
        store,
        path,
        _dir: dir,
    }
}

fn submission(key: u8, block: u64, admission: Admission) -> NewSubmission {
    NewSubmission {
        hotkey: Hotkey([key; 32]),
        commit_block: BlockNumber(block),
        registered_at: Some(BlockNumber(1)),
        raw: b"2:a/b:rev:chatml:c1".to_vec(),
        model: Some(ModelFacts {
            repo: "a/b".to_owned(),
            revision: None,
            template: "chatml".to_owned(),
            competition: "c1".to_owned(),
            weights_key: Some("wk".to_owned()),
        }),
        admission,
    }
}

async fn recorded(store: &Store, key: u8, block: u64) -> SubmissionId {
    match store
        .record(submission(key, block, Admission::Queued), 10)
        .await
        .unwrap()
    {
        Recorded::New(id) => id,
        Recorded::Known(id) => panic!("{id} was known"),
    }
}

async fn take(store: &Store, stage: Stage, now_ms: u64) -> Option<Lease> {
    let ask = Ask {
        stage,
        worker: WorkerId("w".to_owned()),
        committed_before: None,
        now_ms,
        ttl: Duration::from_secs(60),
    };
    store.lease(ask).await.unwrap()
}

#[tokio::test]
async fn a_verdict_once_given_stays() {
    let f = fixture();
    let put = |value: Value| vec![("k1".to_owned(), value)];
    f.store.put_verdicts(put(json!({"v": 1})), 1).await.unwrap();
    f.store.put_verdicts(put(json!({"v": 2})), 2).await.unwrap();
    let keys = vec!["k0".to_owned(), "k1".to_owned()];
    let found = f.store.reader().verdicts(keys).await.unwrap();
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("k1".to_owned(), json!({"v": 1}))]
    );
    let huge = put(Value::String("x".repeat(20_000)));
    assert!(f.store.put_verdicts(huge, 3).await.is_err());
}

#[tokio::test]
async fn the_fault_ledger_is_bounded_per_submission() {
    let f = fixture();
    let id = recorded(&f.store, 1, 5).await;
    for i in 0..60 {
        let fault = Fault::retryable(Party::Hub, "HUB_STALLED", format!("try {i}"));
        f.store.record_fault(Some(id), fault, i).await.unwrap();
    }
    f.store
        .record_fault(None, Fault::permanent(Party::Gpu, "X", "y"), 99)
        .await
        .unwrap();
    let faults = f.store.reader().history(id).await.unwrap().faults;
    assert_eq!(faults.len(), 50);
    assert_eq!(faults[0].fault.message, "try 59");
    let newest = &f.store.reader().recent_faults(1).await.unwrap()[0];
    assert_eq!(
        (
            newest.submission,
            newest.fault.party,
            newest.fault.retryable
        ),
        (None, Party::Gpu, false)
    );
}

#[tokio::test]
async fn small_values_outlive_a_restart() {
    let f = fixture();
    f.store
        .put_meta("last_block", &BlockNumber(5))
        .await
        .unwrap();
    f.store
        .put_meta("last_block", &BlockNumber(6))
        .await
        .unwrap();
    let reopened = Store::open(&f.path, RetryPolicy::default()).unwrap();
    assert_eq!(
        reopened.reader().meta("last_block").await.unwrap(),
        Some(BlockNumber(6))
    );
    assert_eq!(reopened.reader().meta::<u64>("absent").await.unwrap(), None);
}
