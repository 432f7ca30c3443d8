//! The queue: who works on what, under a lease that can be lost.
//!
//! Order within a stage: what was not yet tried first, by commit block, ties by hotkey bytes; then
//! what was tried, in the same order. A lease carries a fencing token that grows with every lease and
//! every end of one, so that a holder who was overtaken can record nothing. The token decides, not
//! the clock: an expired lease that nobody took over is still good.

use super::columns::{int, json, uint, word};
use super::error::StoreError;
use super::ids::{JobId, Stage, SubmissionId, WorkerId};
use super::submissions::{self, Change, Submission};
use super::{Reader, Store, finish};
use crate::bittensor::BlockNumber;
use crate::fault::{Fault, Party};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::time::Duration;

/// How often and when a job is tried again after a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Waits after the first, second, … failed attempt; the last one repeats.
    pub backoff: Vec<Duration>,
    /// Attempts per stage; then the submission is parked.
    pub max_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: [1, 5, 30]
                .map(|minutes| Duration::from_secs(minutes * 60))
                .to_vec(),
            max_attempts: 5,
        }
    }
}

impl RetryPolicy {
    /// Wait after the `attempt`th failed attempt, counted from 1; `None` when that was the last.
    #[must_use]
    pub fn wait_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.max_attempts {
            return None;
        }
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.backoff.last().copied().unwrap_or_default();
        Some(self.backoff.get(index).copied().unwrap_or(last))
    }
}

/// What a worker asks the queue for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The stage it works on.
    pub stage: Stage,
    /// Its name.
    pub worker: WorkerId,
    /// Only what was committed before this block, such as the beginning of the round; `None` for
    /// anything.
    pub committed_before: Option<BlockNumber>,
    /// Only models with so many bytes at most, as the fetch stage counted them; `None` for any.
    pub model_bytes_max: Option<u64>,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How long the lease lasts without a heartbeat.
    pub ttl: Duration,
}

/// The right to work on one submission's stage; only [`Store::lease`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The run.
    pub job: JobId,
    /// What is to be done.
    pub stage: Stage,
    /// Attempt at this stage, counted from 1.
    pub attempt: u32,
    /// What the former stage handed on; null for the first.
    pub payload: Value,
    /// The submission as of the lease.
    pub submission: Submission,
    /// Who holds it.
    pub worker: WorkerId,
    pub(super) token: i64,
}

/// A placeholder's value that admits every block, or every size.
const ANY: i64 = i64::MAX;

pub(super) fn after(now_ms: u64, wait: Duration) -> Result<i64, StoreError> {
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    int(now_ms.saturating_add(wait))
}

/// The one statement that hands out work. The outer conditions repeat the inner ones for engines
/// whose writers run side by side.
pub(super) const CLAIM: &str = "UPDATE jobs \
    SET state = 'leased', worker = ?2, token = token + 1, attempts = attempts + 1, \
        available_ms = ?3, updated_ms = ?4 \
    WHERE id = (SELECT id FROM jobs \
                WHERE stage = ?1 AND state IN ('ready', 'leased') AND available_ms <= ?4 \
                  AND commit_block < ?5 AND model_bytes <= ?6 \
                ORDER BY retry, commit_block, hotkey, id LIMIT 1) \
      AND state IN ('ready', 'leased') AND available_ms <= ?4 \
    RETURNING id, submission_id, stage, attempts, payload, token";

struct Claimed {
    job: JobId,
    submission: SubmissionId,
    stage: Stage,
    attempt: u32,
    payload: Value,
    token: i64,
}

impl Claimed {
    fn from_row(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            job: JobId(row.get("id")?),
            submission: SubmissionId(row.get("submission_id")?),
            stage: word(row, "stage")?,
            attempt: row.get("attempts")?,
            payload: json(row, "payload")?,
            token: row.get("token")?,
        })
    }
}

fn lease(conn: &Connection, ask: &Ask, retry: &RetryPolicy) -> Result<Option<Lease>, StoreError> {
    park_exhausted(conn, ask, retry)?;
    let before = ask.committed_before.map_or(Ok(ANY), |b| int(b.0))?;
    let bytes = ask.model_bytes_max.map_or(Ok(ANY), int)?;
    let claimed = conn
        .prepare_cached(CLAIM)?
        .query_row(
            params![
                ask.stage.as_str(),
                ask.worker.0,
                after(ask.now_ms, ask.ttl)?,
                int(ask.now_ms)?,
                before,
                bytes
            ],
            Claimed::from_row,
        )
        .optional()?;
    let Some(claimed) = claimed else {
        return Ok(None);
    };
    let note = format!("attempt {} by {}", claimed.attempt, ask.worker);
    let change = Change {
        status: claimed.stage.working(),
        rejection: None,
        note: &note,
        now_ms: ask.now_ms,
    };
    submissions::change(conn, claimed.submission, &change)?;
    Ok(Some(Lease {
        job: claimed.job,
        stage: claimed.stage,
        attempt: claimed.attempt,
        payload: claimed.payload,
        submission: submissions::find(conn, claimed.submission)?,
        worker: ask.worker.clone(),
        token: claimed.token,
    }))
}

/// Parks what expired in its last attempt: work that kills its workers must not go round for ever.
fn park_exhausted(conn: &Connection, ask: &Ask, retry: &RetryPolicy) -> Result<(), StoreError> {
    let expired: Vec<(i64, i64, String)> = conn
        .prepare_cached(
            "UPDATE jobs SET state = 'parked', worker = NULL, token = token + 1, updated_ms = ?2 \
             WHERE stage = ?1 AND state = 'leased' AND available_ms <= ?2 AND attempts >= ?3 \
             RETURNING submission_id, attempts, stage",
        )?
        .query_map(
            params![ask.stage.as_str(), int(ask.now_ms)?, retry.max_attempts],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?
        .collect::<Result<_, _>>()?;
    for (submission, attempts, stage) in expired {
        let message = format!(
            "{attempts} workers began stage {stage} and vanished; look at their logs, then requeue"
        );
        let fault = Fault::permanent(Party::Node, "LEASE_EXPIRED", message);
        finish::park(conn, SubmissionId(submission), &fault, ask.now_ms)?;
    }
    Ok(())
}

/// Ends or prolongs a lease by one conditional statement; anything but one row means it is lost.
pub(super) fn guarded(changed: usize, lease: &Lease) -> Result<(), StoreError> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost(lease.job))
    }
}

fn heartbeat(conn: &Connection, lease: &Lease, until_ms: i64) -> Result<(), StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE jobs SET available_ms = ?3 \
             WHERE id = ?1 AND token = ?2 AND state = 'leased'",
        )?
        .execute(params![lease.job.0, lease.token, until_ms])?;
    guarded(changed, lease)
}

fn release(
    conn: &Connection,
    lease: &Lease,
    not_before_ms: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE jobs SET state = 'ready', worker = NULL, token = token + 1, \
             attempts = attempts - 1, available_ms = ?3, updated_ms = ?4 \
             WHERE id = ?1 AND token = ?2 AND state = 'leased'",
        )?
        .execute(params![
            lease.job.0,
            lease.token,
            int(not_before_ms)?,
            int(now_ms)?
        ])?;
    guarded(changed, lease)?;
    let change = Change {
        status: lease.stage.waiting(),
        rejection: None,
        note: "handed back",
        now_ms,
    };
    submissions::change(conn, lease.submission.id, &change)
}

impl Store {
    /// Hands out the next job of a stage, or the first whose lease has expired, or nothing.
    ///
    /// # Errors
    /// Trouble with the store; then nothing was handed out, or (after a timeout) a lease that nobody
    /// uses expires.
    pub async fn lease(&self, ask: Ask) -> Result<Option<Lease>, StoreError> {
        let retry = self.retry.clone();
        let leased = self
            .writer
            .call(move |conn| lease(conn, &ask, &retry))
            .await?;
        if leased.is_some() {
            // Who waits for room behind the next stage has some now.
            self.announce_work();
        }
        Ok(leased)
    }

    /// Prolongs a lease to `now_ms + ttl`. Beat at a third of the ttl.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: stop the work.
    pub async fn heartbeat(
        &self,
        lease: &Lease,
        now_ms: u64,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (lease, until) = (lease.clone(), after(now_ms, ttl)?);
        self.writer
            .call(move |conn| heartbeat(conn, &lease, until))
            .await
    }

    /// Hands a job back unfinished without counting the attempt: at shutdown, or until
    /// `not_before_ms` when it cannot be done yet.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: another has it already.
    pub async fn release(
        &self,
        lease: Lease,
        not_before_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.writer
            .call(move |conn| release(conn, &lease, not_before_ms, now_ms))
            .await?;
        self.announce_work();
        Ok(())
    }

    /// At a worker's start: its former life's leases expire now instead of later. Their attempts stay
    /// counted, since the work itself may have ended that life. Returns how many there were.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn abandon_leases(&self, worker: &WorkerId, now_ms: u64) -> Result<u64, StoreError> {
        let (worker, now) = (worker.clone(), int(now_ms)?);
        let abandon = move |conn: &Connection| {
            let sql = "UPDATE jobs SET available_ms = ?2, token = token + 1 \
                       WHERE state = 'leased' AND worker = ?1";
            Ok(conn.prepare_cached(sql)?.execute(params![worker.0, now])?)
        };
        let count = self.writer.call(abandon).await?;
        self.announce_work();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

impl Reader {
    /// Earliest time at which a job of `stage` can be leased: now or in the past when one is ready,
    /// later when all wait for their back-off or another's lease; `None` when there is none.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn next_ready_ms(&self, stage: Stage) -> Result<Option<u64>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT available_ms FROM jobs WHERE stage = ?1 \
                           AND state IN ('ready', 'leased') ORDER BY available_ms LIMIT 1";
            let mut query = conn.prepare_cached(sql)?;
            Ok(query
                .query_row([stage.as_str()], |row| uint(row, "available_ms"))
                .optional()?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let policy = RetryPolicy::default();
        let minutes = |attempt| policy.wait_after(attempt).map(|d| d.as_secs() / 60);
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(minutes),
            [Some(1), Some(5), Some(30), Some(30), None, None]
        );
    }

    #[test]
    fn the_claim_walks_its_index_and_sorts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let conn = super::super::schema::open_writer(&dir.path().join("s.db")).unwrap();
        let mut query = conn
            .prepare(&format!("EXPLAIN QUERY PLAN {CLAIM}"))
            .unwrap();
        let plan: Vec<String> = query
            .query_map(params!["fetch", "w", 0, 0, 0, 0], |row| row.get("detail"))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("jobs_order (stage=?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
