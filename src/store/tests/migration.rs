//! A store of an older version, kept as it was, opened by this program.

use super::*;
use rusqlite::Connection;

fn version_1() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("store_v1.sql")).unwrap();
    drop(old);
    let refused = Reader::open(&path).unwrap_err();
    assert!(
        matches!(refused, StoreError::Older { found: 1, .. }),
        "{refused}"
    );
    let store = Store::open(&path, RetryPolicy::default()).unwrap();
    Fixture {
        store,
        path,
        _dir: dir,
    }
}

fn schema(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let sql =
        "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_master ORDER BY 1";
    let mut query = conn.prepare(sql).unwrap();
    let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    // Comments and line breaks are no part of a schema.
    let plain = |line: String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.map(|row| plain(row.unwrap())).collect()
}

#[test]
fn an_old_store_becomes_a_new_one() {
    assert_eq!(schema(&version_1().path), schema(&fixture().path));
}

#[tokio::test]
async fn an_old_stores_work_goes_on() {
    let f = version_1();
    let reader = f.store.reader();
    assert_eq!(
        reader.meta("last_block").await.unwrap(),
        Some(BlockNumber(77))
    );
    let queued = take(&f.store, Stage::Fetch, 2000).await.unwrap();
    assert_eq!(queued.submission.repo.as_deref(), Some("a/one"));
    assert!(
        take(&f.store, Stage::Score, 61_004).await.is_none(),
        "still leased"
    );
    let taken_over = take(&f.store, Stage::Score, 61_005).await.unwrap();
    assert_eq!(
        (taken_over.attempt, &taken_over.payload),
        (2, &json!({"out": "d3"}))
    );
    let parked = reader.history(SubmissionId(4)).await.unwrap();
    assert_eq!(parked.faults[0].fault.code, "HUB_STALLED");
    assert!(parked.job.unwrap().parked);
    let unreadable = reader.submission(SubmissionId(2)).await.unwrap();
    assert_eq!(
        unreadable.rejection.unwrap().code,
        RejectionCode::CommitmentUnreadable
    );
}

/// A decision that was signed and one that was read back, as the third version logged them.
#[tokio::test]
async fn old_weight_states_keep_their_meaning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let old = Connection::open(&path).unwrap();
    for migration in [
        include_str!("../migrations/0001_submissions.sql"),
        include_str!("../migrations/0002_scores.sql"),
        include_str!("../migrations/0003_weight_log.sql"),
    ] {
        old.execute_batch(migration).unwrap();
    }
    let at = r#""block":{"number":510,"hash":"0x0101010101010101010101010101010101010101010101010101010101010101"}"#;
    for (id, state) in [
        (
            1,
            r#"{"state":"signed","extrinsic":"0x12","nonce":4}"#.to_owned(),
        ),
        (2, format!(r#"{{"state":"confirmed",{at}}}"#)),
    ] {
        let name = if id == 1 { "signed" } else { "confirmed" };
        old.execute(
            "INSERT INTO weight_log VALUES (?1, ?1, 11, 0, 500, '[[0,1]]', 'r', ?2, ?3, 1, 1)",
            rusqlite::params![id, name, state],
        )
        .unwrap();
        old.execute(
            "INSERT INTO weight_events (entry_id, at_ms, state) VALUES (?1, 1, ?2)",
            rusqlite::params![id, state],
        )
        .unwrap();
    }
    old.pragma_update(None, "user_version", 3).unwrap();
    drop(old);
    let store = Store::open(&path, RetryPolicy::default()).unwrap();
    let open = store.reader().unfinished_weights().await.unwrap();
    assert_eq!(open.len(), 1);
    let signed = open[0].signed().unwrap();
    assert_eq!((signed.born.0, signed.dies.0), (500, 628));
    let (netuid, mechanism) = (
        crate::bittensor::Netuid(11),
        crate::bittensor::MechanismId(0),
    );
    let last = store
        .reader()
        .last_confirmed(netuid, mechanism)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.state.name(), "read_back");
    assert_eq!(last.history[0].1, last.state);
}
