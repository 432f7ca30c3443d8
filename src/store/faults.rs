//! The ledger of our own failures: public per submission, bounded.

use super::columns::{bounded, int, uint, word};
use super::error::StoreError;
use super::ids::SubmissionId;
use super::{Reader, Store, pages};
use crate::fault::{Fault, Party};
use rusqlite::{Connection, Row, params};
use serde::Serialize;

/// Entries kept per submission.
const KEPT_PER_SUBMISSION: u32 = 50;

/// Entries kept in all.
const KEPT: u32 = 20_000;

/// Bytes of a message that are kept.
const MESSAGE_LIMIT: usize = 2000;

/// A recorded fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedFault {
    /// Whose work it hit, if it was one submission's.
    pub submission: Option<SubmissionId>,
    /// What happened.
    pub fault: Fault,
    /// Unix milliseconds.
    pub at_ms: u64,
}

fn party(text: &str) -> Result<Party, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|e| e.to_string())
}

struct PartyName(Party);

impl std::str::FromStr for PartyName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        party(text).map(Self)
    }
}

fn from_row(row: &Row<'_>) -> Result<LoggedFault, rusqlite::Error> {
    Ok(LoggedFault {
        submission: row
            .get::<_, Option<i64>>("submission_id")?
            .map(SubmissionId),
        fault: Fault {
            party: word::<PartyName>(row, "party")?.0,
            code: row.get("code")?,
            retryable: row.get::<_, i64>("retryable")? != 0,
            message: row.get("message")?,
        },
        at_ms: uint(row, "at_ms")?,
    })
}

/// Adds an entry and drops the oldest over the bounds.
pub(super) fn insert(
    conn: &Connection,
    submission: Option<SubmissionId>,
    fault: &Fault,
    now_ms: u64,
) -> Result<(), StoreError> {
    let id = submission.map(|s| s.0);
    conn.prepare_cached(
        "INSERT INTO faults (submission_id, party, code, retryable, message, at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        id,
        fault.party.as_str(),
        bounded(&fault.code, MESSAGE_LIMIT),
        i64::from(fault.retryable),
        bounded(&fault.message, MESSAGE_LIMIT),
        int(now_ms)?,
    ])?;
    conn.prepare_cached("DELETE FROM faults WHERE id <= (SELECT MAX(id) FROM faults) - ?1")?
        .execute([KEPT])?;
    conn.prepare_cached(
        "DELETE FROM faults WHERE submission_id = ?1 AND id NOT IN \
         (SELECT id FROM faults WHERE submission_id = ?1 ORDER BY id DESC LIMIT ?2)",
    )?
    .execute(params![id, KEPT_PER_SUBMISSION])?;
    Ok(())
}

pub(super) fn of(conn: &Connection, id: SubmissionId) -> Result<Vec<LoggedFault>, StoreError> {
    let sql = "SELECT * FROM faults WHERE submission_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map(params![id.0, KEPT_PER_SUBMISSION], from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Store {
    /// Adds a fault to the ledger, of one submission or of the node.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn record_fault(
        &self,
        submission: Option<SubmissionId>,
        fault: Fault,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.writer
            .call(move |conn| insert(conn, submission, &fault, now_ms))
            .await
    }
}

impl Reader {
    /// The newest faults of all, newest first.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn recent_faults(&self, limit: u32) -> Result<Vec<LoggedFault>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT * FROM faults ORDER BY id DESC LIMIT ?1";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map([limit.min(pages::MAX_PAGE)], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
