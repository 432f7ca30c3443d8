//! The database file: how it is opened, and its numbered migrations.

use super::error::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::path::Path;
use std::time::{Duration, Instant};

/// Applied in order, each in one transaction; a shipped one never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_submissions.sql"),
    include_str!("migrations/0002_scores.sql"),
    include_str!("migrations/0003_weight_log.sql"),
    include_str!("migrations/0004_weight_states.sql"),
    include_str!("migrations/0005_judge.sql"),
    include_str!("migrations/0006_evidence.sql"),
    include_str!("migrations/0007_copies.sql"),
    include_str!("migrations/0008_round_packs.sql"),
    include_str!("migrations/0009_weight_basis.sql"),
    include_str!("migrations/0010_model_bytes.sql"),
    include_str!("migrations/0011_titles.sql"),
];

/// How long one process waits for another's write transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before the write-ahead log is asked for again; SQLite tells nobody when a lock is free.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Statements kept prepared per connection; more than the store has.
const STATEMENTS: usize = 96;

fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

fn version(conn: &Connection) -> Result<u32, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Opens the file for the writer, creates and migrates it where needed.
///
/// `synchronous = FULL`: in WAL mode NORMAL may lose the last commits at a power cut. A lost weights
/// intent or signature could be signed a second time, and a lost lease would hand its fencing token
/// out again, so every commit is synced; the writer shares one sync among the calls that wait.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    let mode = write_ahead(&conn)?;
    if mode != "wal" {
        return Err(StoreError::Invalid(format!(
            "{} cannot keep a write-ahead log (journal mode {mode}): use a local disk",
            path.display()
        )));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// Switches to a write-ahead log and returns the journal mode that the file has then.
///
/// The switch needs the file alone, and SQLite asks no busy handler while it takes that lock (a wait
/// there could be a deadlock), so openers that meet at a new file take turns here.
fn write_ahead(conn: &Connection) -> Result<String, StoreError> {
    let begun = Instant::now();
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && begun.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            mode => return Ok(mode?),
        }
    }
}

/// Opens the file for reading only; never creates or migrates.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    if !path.is_file() {
        return Err(StoreError::Missing(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let (found, known) = (version(&conn)?, newest());
    let path = || path.to_owned();
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(conn),
        // Created by the writer a moment ago, not yet migrated.
        std::cmp::Ordering::Less if found == 0 => Err(StoreError::Missing(path())),
        std::cmp::Ordering::Less => Err(StoreError::Older {
            path: path(),
            found,
            known,
        }),
        std::cmp::Ordering::Greater => Err(StoreError::Newer {
            path: path(),
            found,
            known,
        }),
    }
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = newest();
    loop {
        // The version is read inside the transaction: another process may be migrating too.
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = version(&tx)?;
        if found > known {
            let path = path.to_owned();
            return Err(StoreError::Newer { path, found, known });
        }
        let Some(sql) = usize::try_from(found)
            .ok()
            .and_then(|at| MIGRATIONS.get(at))
        else {
            return Ok(());
        };
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", found + 1)?;
        tx.commit()?;
        tracing::info!(from = found, to = found + 1, store = %path.display(), "store migrated");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_twice_migrates_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        drop(open_writer(&path).unwrap());
        let conn = open_writer(&path).unwrap();
        assert_eq!(version(&conn).unwrap(), newest());
        let sync: i64 = conn
            .query_row("PRAGMA synchronous", [], |r| r.get(0))
            .unwrap();
        assert_eq!(sync, 2, "FULL");
    }

    #[test]
    fn many_may_open_a_new_store_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    open_writer(&path).unwrap();
                });
            }
        });
        assert_eq!(version(&open_reader(&path).unwrap()).unwrap(), newest());
    }

    #[test]
    fn a_newer_database_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let conn = open_writer(&path).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        drop(conn);
        for error in [
            open_writer(&path).unwrap_err(),
            open_reader(&path).unwrap_err(),
        ] {
            assert!(
                matches!(error, StoreError::Newer { found: 99, .. }),
                "{error}"
            );
            assert!(error.to_string().contains("newer program"));
        }
    }

    #[test]
    fn a_reader_creates_nothing_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        assert!(matches!(open_reader(&path), Err(StoreError::Missing(_))));
        assert!(!path.exists());
        let _writer = open_writer(&path).unwrap();
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM meta", []).is_err());
    }

    #[test]
    fn no_database_is_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        assert!(matches!(open_writer(&path), Err(StoreError::Corrupt(_))));
    }
}
