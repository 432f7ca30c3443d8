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
