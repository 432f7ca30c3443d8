//! Lists for the score API: bounded pages, never a whole table.

use super::Reader;
use super::columns::{block, hotkey, uint, word};
use super::error::StoreError;
use super::ids::{Stage, Status, SubmissionId};
use super::submissions::Submission;
use crate::bittensor::{BlockNumber, Hotkey};
use crate::incentive::RejectionCode;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest page of any list.
pub const MAX_PAGE: u32 = 500;

/// Which submissions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubmissionFilter {
    /// Only with this status.
    pub status: Option<Status>,
    /// Only of this signer.
    pub hotkey: Option<Hotkey>,
    /// Only older than this one: the last of the page before.
    pub before: Option<SubmissionId>,
}

/// What a queued job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// A worker has it.
    Working,
    /// Next when its turn comes.
    Waiting,
}

/// A line of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueEntry {
    /// Whose.
    pub submission: SubmissionId,
    /// Signer.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// `namespace/name`; hostile.
    pub repo: Option<String>,
    /// What is done next, or now.
    pub stage: Stage,
    /// Waiting or in work.
    pub state: QueueState,
    /// Place among those that wait for the same stage, from 1; `None` in work.
    pub position: Option<u64>,
    /// Attempts at this stage so far.
    pub attempts: u32,
    /// Not before this time, unix milliseconds: the end of a back-off or of the lease.
    pub available_ms: u64,
}

/// How many submissions there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// By status; what there is none of is absent.
    pub by_status: BTreeMap<Status, u64>,
    /// Of the rejected ones, by code.
    pub by_rejection: BTreeMap<RejectionCode, u64>,
}

fn submissions(
    conn: &Connection,
    filter: &SubmissionFilter,
    limit: u32,
) -> Result<Vec<Submission>, StoreError> {
    let mut values = vec![
        Value::from(filter.before.map_or(i64::MAX, |id| id.0)),
        Value::from(limit.min(MAX_PAGE)),
    ];
    let mut sql = String::from("SELECT * FROM submissions WHERE id < ?1");
    if let Some(status) = filter.status {
        values.push(status.as_str().to_owned().into());
        sql.push_str(&format!(" AND status = ?{}", values.len()));
    }
    if let Some(hotkey) = filter.hotkey {
        values.push(hotkey.0.to_vec().into());
        sql.push_str(&format!(" AND hotkey = ?{}", values.len()));
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?2");
    let mut query = conn.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), Submission::from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn queue_entry(row: &Row<'_>) -> Result<QueueEntry, rusqlite::Error> {
    let working = row.get::<_, String>("state")? == "leased";
    Ok(QueueEntry {
        submission: SubmissionId(row.get("submission_id")?),
        hotkey: hotkey(row, "hotkey")?,
        commit_block: block(row, "commit_block")?,
        repo: row.get("repo")?,
        stage: word(row, "stage")?,
        state: if working {
            QueueState::Working
        } else {
            QueueState::Waiting
        },
        position: if working {
            None
        } else {
            Some(uint(row, "position")?)
        },
        attempts: row.get("attempts")?,
        available_ms: uint(row, "available_ms")?,
    })
}

fn queue(conn: &Connection, offset: u64, limit: u32) -> Result<Vec<QueueEntry>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT q.*, s.repo FROM (SELECT submission_id, hotkey, commit_block, stage, state, \
         attempts, available_ms, ROW_NUMBER() OVER (PARTITION BY stage, state \
         ORDER BY retry, commit_block, hotkey, id) AS position, \
         CASE stage WHEN 'judge' THEN 0 WHEN 'score' THEN 1 ELSE 2 END AS nearness \
         FROM jobs WHERE state IN ('ready', 'leased')) q \
         JOIN submissions s ON s.id = q.submission_id \
         ORDER BY q.state, q.nearness, q.position LIMIT ?1 OFFSET ?2",
    )?;
    let offset = super::columns::int(offset)?;
    let rows = query.query_map(params![limit.min(MAX_PAGE), offset], queue_entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn tally<K>(conn: &Connection, sql: &str) -> Result<BTreeMap<K, u64>, StoreError>
where
    K: Ord + std::str::FromStr,
    K::Err: std::fmt::Display,
{
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map([], |row| Ok((word(row, "word")?, uint(row, "n")?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn counts(conn: &Connection) -> Result<Counts, StoreError> {
    Ok(Counts {
        by_status: tally(
            conn,
            "SELECT status AS word, COUNT(*) AS n FROM submissions GROUP BY status",
        )?,
        by_rejection: tally(
            conn,
            "SELECT rejection_code AS word, COUNT(*) AS n FROM submissions \
             WHERE status = 'rejected' GROUP BY rejection_code",
        )?,
    })
}

impl Reader {
    /// Submissions, newest first, at most `limit` (and [`MAX_PAGE`]).
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn submissions(
        &self,
        filter: SubmissionFilter,
        limit: u32,
    ) -> Result<Vec<Submission>, StoreError> {
        self.read(move |conn| submissions(conn, &filter, limit))
            .await
    }

    /// The queue: what is in work, then what waits, nearest to a score first, in the order in which
    /// it will be taken. At most `limit` (and [`MAX_PAGE`]) lines after the first `offset`.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn queue(&self, offset: u64, limit: u32) -> Result<Vec<QueueEntry>, StoreError> {
        self.read(move |conn| queue(conn, offset, limit)).await
    }

    /// Submissions by status and by rejection code.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        self.read(counts).await
    }
}
