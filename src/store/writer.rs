//! The one thread that writes.
//!
//! Calls wait in a bounded queue. The thread takes all that wait (up to [`BATCH`]), runs each in a
//! savepoint of its own inside one `BEGIN IMMEDIATE` transaction, commits, and only then answers:
//! the calls stay atomic one by one, and share one sync of the disk.

use super::error::StoreError;
use rusqlite::Connection;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls that share one commit at most.
const BATCH: usize = 64;

/// Calls that may wait; more wait at the door, within their deadline.
const WAITING: usize = 1024;

/// Given the connection (or why there is no transaction), does its part and returns what answers
/// the caller once the commit is known.
type Call = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

#[derive(Debug, Clone)]
pub(super) struct Writer {
    calls: mpsc::Sender<Call>,
    deadline: Duration,
}

impl Writer {
    pub(super) fn start(conn: Connection, deadline: Duration) -> Result<Self, StoreError> {
        let (calls, queue) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work(&conn, queue))
            .map_err(|e| StoreError::Invalid(format!("no thread for the writer: {e}")))?;
        Ok(Self { calls, deadline })
    }

    /// Runs `body` in a transaction and returns its value once that is committed; an error rolls
    /// back what it did. A call whose caller gave up is not begun.
    pub(super) async fn call<T, F>(&self, body: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answered) = oneshot::channel();
        let exchange = async {
            let sent = self.calls.send(package(body, reply)).await;
            sent.map_err(|_| StoreError::WriterGone)?;
            answered.await.map_err(|_| StoreError::WriterGone)?
        };
        tokio::time::timeout(self.deadline, exchange)
            .await
            .unwrap_or(Err(StoreError::Timeout))
    }

    /// Resolves when the thread has ended although calls may still come.
    pub(super) async fn ended(&self) {
        self.calls.closed().await;
    }
}

fn package<T, F>(body: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Call
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    Box::new(move |conn| {
        let result = match conn {
            Ok(_) if reply.is_closed() => return Box::new(|_| ()),
            Ok(conn) => in_savepoint(conn, body),
            Err(error) => Err(error),
        };
        Box::new(move |committed| {
            // The caller may have given up meanwhile; then nobody wants the answer.
            let _ = reply.send(result.and_then(|value| committed.map(|()| value)));
        })
    })
}

fn in_savepoint<T, F>(conn: &Connection, body: F) -> Result<T, StoreError>
where
    F: FnOnce(&Connection) -> Result<T, StoreError>,
{
    run(conn, "SAVEPOINT one_call")?;
    let result = body(conn);
    // Some failures (disk full, I/O) end the whole transaction, and the savepoint with it.
    if result.is_err() && !conn.is_autocommit() {
        run(conn, "ROLLBACK TO one_call")?;
    }
    if !conn.is_autocommit() {
        run(conn, "RELEASE one_call")?;
    }
    result
}

fn run(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn work(conn: &Connection, mut queue: mpsc::Receiver<Call>) {
    let mut calls = Vec::with_capacity(BATCH);
    while let Some(first) = queue.blocking_recv() {
        calls.push(first);
        while calls.len() < BATCH
            && let Ok(call) = queue.try_recv()
        {
            calls.push(call);
        }
        batch(conn, &mut calls);
        if !conn.is_autocommit() {
            // Neither committed nor rolled back: only opening the file anew helps. The callers
            // learn that the writer is gone.
            tracing::error!("the store's transaction can be neither committed nor rolled back");
            return;
        }
    }
}

fn batch(conn: &Connection, calls: &mut Vec<Call>) {
    let begun = run(conn, "BEGIN IMMEDIATE");
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls.drain(..) {
        let lost = begun.is_ok() && conn.is_autocommit();
        answers.push(call(match &begun {
            Ok(()) if lost => Err(StoreError::Busy),
            Ok(()) => Ok(conn),
            Err(error) => Err(error.clone()),
        }));
    }
    let committed = begun.and_then(|()| commit(conn));
    for answer in answers {
        answer(committed.clone());
    }
}

fn commit(conn: &Connection) -> Result<(), StoreError> {
    if conn.is_autocommit() {
        // A neighbour's failure ended the transaction: nothing of this batch was kept.
        return Err(StoreError::Busy);
    }
    run(conn, "COMMIT").inspect_err(|_| {
        if !conn.is_autocommit() {
            // If this fails too, the thread ends.
            let _ = run(conn, "ROLLBACK");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    fn writer() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let conn = super::super::schema::open_writer(&dir.path().join("s.db")).unwrap();
        let writer = Writer::start(conn, Duration::from_secs(5)).unwrap();
        (dir, writer)
    }

    async fn put(writer: &Writer, key: &str, fail: bool) -> Result<(), StoreError> {
        let key = key.to_owned();
        writer
            .call(move |conn| {
                conn.execute("INSERT INTO meta (key, value) VALUES (?1, '')", [&key])?;
                if fail {
                    Err(StoreError::Invalid(key))
                } else {
                    Ok(())
                }
            })
            .await
    }

    async fn count(writer: &Writer) -> i64 {
        writer
            .call(|conn| Ok(conn.query_row("SELECT COUNT(*) FROM meta", [], |r| r.get(0))?))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn one_failing_call_of_a_batch_takes_no_other_with_it() {
        let (_dir, writer) = writer();
        let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
        let calls = keys.iter().enumerate();
        let results = join_all(calls.map(|(i, key)| put(&writer, key, i % 7 == 0))).await;
        let failed = results.iter().filter(|r| r.is_err()).count();
        assert_eq!(failed, 15);
        assert_eq!(count(&writer).await, 85);
    }

    #[tokio::test]
    async fn a_lost_transaction_is_nobodys_success() {
        let (_dir, writer) = writer();
        // ROLLBACK inside a call does what a full disk does: it ends the shared transaction.
        let wreck = writer.call(|conn| {
            conn.execute_batch("ROLLBACK")?;
            Err::<(), _>(StoreError::DiskFull)
        });
        // The block keeps the thread busy until all three wait, so that they share one batch.
        let (release, gate) = std::sync::mpsc::channel();
        let block = writer.call(move |_| {
            gate.recv().unwrap();
            Ok(())
        });
        let (_, before, wrecked, after, ()) = tokio::join!(
            block,
            put(&writer, "before", false),
            wreck,
            put(&writer, "after", false),
            async { release.send(()).unwrap() },
        );
        assert!(before.is_err() && after.is_err());
        assert!(matches!(wrecked, Err(StoreError::DiskFull)));
        assert_eq!(count(&writer).await, 0);
        put(&writer, "later", false).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_recovers() {
        let (_dir, writer) = writer();
        let pages = |limit: i64| {
            writer.call(move |conn| {
                Ok(conn.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?)
            })
        };
        pages(1).await.unwrap();
        let large = || {
            writer.call(|conn| {
                let sql = "INSERT INTO meta (key, value) VALUES ('large', ?1)";
                Ok(conn.execute(sql, ["x".repeat(1 << 20)])?)
            })
        };
        let (refused, neighbour) = tokio::join!(large(), put(&writer, "small", false));
        assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
        assert_eq!(count(&writer).await, i64::from(neighbour.is_ok()));
        pages(1_000_000).await.unwrap();
        large().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_the_writer_and_says_so() {
        let (_dir, writer) = writer();
        let hit = writer
            .call(|_| -> Result<(), _> { panic!("on purpose") })
            .await;
        assert!(matches!(hit, Err(StoreError::WriterGone)));
        writer.ended().await;
        assert!(matches!(
            put(&writer, "k", false).await,
            Err(StoreError::WriterGone)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_is_not_begun() {
        let (_dir, writer) = writer();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let block = writer.call(move |_| {
            let _ = gate.recv();
            Ok(())
        });
        let (blocked, late) = tokio::join!(block, put(&writer, "late", false));
        assert!(matches!(blocked, Err(StoreError::Timeout)));
        assert!(matches!(late, Err(StoreError::Timeout)));
        drop(release);
        tokio::time::resume();
        assert_eq!(count(&writer).await, 0);
    }
}
