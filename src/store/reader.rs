//! Reading: connections of their own, beside the writer and in other processes.

use super::error::StoreError;
use super::schema;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Reads that run at the same time.
const CONNECTIONS: usize = 4;

/// A read takes at most this long, its wait for a connection included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Read-only access to a store file; the file may belong to another process. Each call sees one
/// consistent state. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    deadline: Duration,
}

impl Shared {
    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn put_back(&self, conn: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(conn);
    }
}

impl Reader {
    /// Opens the store at `path`. Nothing is created or migrated. Another user's file can be read
    /// while its node runs, or when the folder is writable (SQLite's `-shm` file).
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Older`] and [`StoreError::Newer`] say what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_deadline(path, DEADLINE)
    }

    fn with_deadline(path: &Path, deadline: Duration) -> Result<Self, StoreError> {
        let shared = Shared {
            path: path.to_owned(),
            idle: Mutex::new(vec![schema::open_reader(path)?]),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            deadline,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Runs `body` on one snapshot of the database, off the async threads. A read over its deadline
    /// is interrupted.
    pub(super) async fn read<T, F>(&self, body: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (started, running) = oneshot::channel();
        let work = async {
            let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
            let permit = permit.map_err(|_| StoreError::Timeout)?;
            let shared = Arc::clone(&self.shared);
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let conn = shared.take()?;
                // Nobody listens when the deadline passed already.
                let _ = started.send(conn.get_interrupt_handle());
                let result = on_snapshot(&conn, body);
                if conn.is_autocommit() {
                    shared.put_back(conn);
                }
                result
            });
            task.await
                .unwrap_or_else(|e| Err(StoreError::Invalid(format!("a read failed: {e}"))))
        };
        match tokio::time::timeout(self.shared.deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                let mut running = running;
                if let Ok(handle) = running.try_recv() {
                    handle.interrupt();
                }
                Err(StoreError::Timeout)
            }
        }
    }
}

fn on_snapshot<T, F>(conn: &Connection, body: F) -> Result<T, StoreError>
where
    F: FnOnce(&Connection) -> Result<T, StoreError>,
{
    let snapshot = conn.unchecked_transaction()?;
    let result = body(&snapshot);
    snapshot.finish()?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_over_its_deadline_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let _writer = schema::open_writer(&path).unwrap();
        let reader = Reader::with_deadline(&path, Duration::from_millis(100)).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        let endless = reader.read(move |conn| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT COUNT(*) FROM n";
            let result = conn
                .query_row(sql, [], |r| r.get::<_, i64>(0))
                .map_err(StoreError::from);
            done.send(matches!(result, Err(StoreError::Timeout)))
                .unwrap();
            result
        });
        assert!(matches!(endless.await, Err(StoreError::Timeout)));
        let interrupted = ended.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(interrupted, "the query ended by the interrupt");
    }
}
