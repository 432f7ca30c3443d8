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

/// A queued submission of hotkey `key` in block `key`, recorded, for other modules' tests.
pub(crate) async fn queued(store: &Store, key: u8) -> SubmissionId {
    let model = ModelFacts {
        repo: format!("miner/{key}"),
        revision: Some("a".repeat(40)),
        template: "chatml".to_owned(),
        competition: "d1".to_owned(),
        weights_key: None,
    };
    let new = NewSubmission {
        registered_at: Some(BlockNumber(0)),
        raw: vec![key],
        model: Some(model),
        ..submission(key, key.into(), Admission::Queued)
    };
    match store.record(new, 1).await.unwrap() {
        Recorded::New(id) | Recorded::Known(id) => id,
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
        model_bytes_max: None,
        now_ms,
        ttl: Duration::from_secs(60),
    };
    store.lease(ask).await.unwrap()
}

#[tokio::test]
async fn a_verdict_is_its_batchs_until_proven_and_then_stays() {
    let f = fixture();
    let put = async |batch: &str, v: u64| {
        let row = vec![("k1".to_owned(), json!({ "v": v }))];
        f.store.put_verdicts(batch, row, vec![], 1).await.unwrap();
    };
    let seen = async |batch: &str| {
        let keys = vec!["k0".to_owned(), "k1".to_owned()];
        let found = f.store.reader().verdicts(batch, keys).await.unwrap();
        found
            .into_values()
            .map(|v| v["v"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    put("a", 1).await;
    put("a", 2).await;
    assert_eq!((seen("a").await, seen("b").await), (vec![1], vec![]));
    // Another batch had to judge it itself; its verdict takes the place of the unproven one.
    put("b", 3).await;
    assert_eq!((seen("a").await, seen("b").await), (vec![], vec![3]));
    assert_eq!(f.store.forget_verdicts("a").await.unwrap(), 0);
    assert_eq!(f.store.prove_verdicts("b").await.unwrap(), 1);
    put("a", 4).await;
    assert_eq!((seen("a").await, seen("c").await), (vec![3], vec![3]));
    assert_eq!(f.store.forget_verdicts("b").await.unwrap(), 0);
    put("d", 5).await;
    let row = vec![("k2".to_owned(), json!(1))];
    f.store.put_verdicts("d", row, vec![], 1).await.unwrap();
    assert_eq!(f.store.forget_verdicts("d").await.unwrap(), 1);
    let huge = vec![("k3".to_owned(), Value::String("x".repeat(20_000)))];
    assert!(f.store.put_verdicts("e", huge, vec![], 3).await.is_err());
}

#[tokio::test]
async fn what_judging_costs_adds_up_by_day_and_provider() {
    let f = fixture();
    let spend = |day, provider: &str| JudgeSpend {
        day,
        provider: provider.to_owned(),
        calls: 2,
        input_tokens: 300,
        output_tokens: 20,
        micro_usd: 5,
    };
    for rows in [
        vec![spend(7, "a"), spend(7, "b")],
        vec![spend(7, "a"), spend(8, "a")],
    ] {
        f.store.put_verdicts("x", vec![], rows, 1).await.unwrap();
    }
    let reader = f.store.reader();
    assert_eq!(reader.judge_spent(7).await.unwrap(), 15);
    assert_eq!(reader.judge_spent(9).await.unwrap(), 0);
    let rows = reader.judge_spend(7).await.unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|r| (r.day, r.provider.as_str(), r.calls))
        .collect();
    assert_eq!(seen, [(8, "a", 2), (7, "a", 4), (7, "b", 2)]);
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
