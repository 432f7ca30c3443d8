//! The one door through which a stage's result is recorded.

use super::columns::{int, to_json};
use super::error::StoreError;
use super::ids::{ScoreId, Stage, Status, SubmissionId};
use super::queue::{self, Lease, RetryPolicy};
use super::scores::{self, NewScore};
use super::submissions::{self, Change};
use super::{Store, faults, intake};
use crate::fault::Fault;
use crate::incentive::Rejection;
use rusqlite::{Connection, params};
use serde_json::Value;

/// Bytes of JSON that one stage may hand to the next.
const PAYLOAD_LIMIT: usize = 64 * 1024;

/// How a stage ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done; the next stage may begin.
    Advance(Advance),
    /// A verdict about the miner.
    Rejected(Rejection),
    /// The last result: a score, bound to its inputs.
    Scored(Box<NewScore>),
    /// Trouble of ours: tried again later when it may pass, else parked.
    Failed(Fault),
}

/// What a stage found out for good, and what it hands on. `None` leaves what is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advance {
    /// The revision that was pinned, 40 hex digits.
    pub revision: Option<String>,
    /// Digest over the hub's sorted list of weight files.
    pub weights_key: Option<String>,
    /// Digest over the tensors.
    pub tensor_digest: Option<String>,
    /// Bytes of the model on disk; which workers may take it depends on this.
    pub model_bytes: Option<u64>,
    /// Given to the next stage's lease as it is; at most 64 KiB of JSON.
    pub payload: Value,
}

/// What became of the submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its status now.
    pub status: Status,
    /// The recorded score.
    pub score: Option<ScoreId>,
    /// When it is tried again, after a passing fault.
    pub retry_at_ms: Option<u64>,
}

/// Where the run's row goes.
struct Next {
    stage: Stage,
    state: &'static str,
    attempts: u32,
    available_ms: i64,
    payload: Option<String>,
    model_bytes: Option<i64>,
}

/// Ends the lease; the first statement of every outcome, so that a lost lease writes nothing.
fn end_lease(conn: &Connection, lease: &Lease, next: &Next, now_ms: u64) -> Result<(), StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE jobs SET stage = ?3, state = ?4, attempts = ?5, available_ms = ?6, \
             payload = COALESCE(?7, payload), model_bytes = COALESCE(?9, model_bytes), \
             worker = NULL, token = token + 1, updated_ms = ?8 \
             WHERE id = ?1 AND token = ?2 AND state = 'leased'",
        )?
        .execute(params![
            lease.job.0,
            lease.token,
            next.stage.as_str(),
            next.state,
            next.attempts,
            next.available_ms,
            next.payload,
            int(now_ms)?,
            next.model_bytes,
        ])?;
    queue::guarded(changed, lease)
}

fn done(lease: &Lease, now_ms: u64) -> Result<Next, StoreError> {
    Ok(Next {
        stage: lease.stage,
        state: "done",
        attempts: lease.attempt,
        available_ms: int(now_ms)?,
        payload: None,
        model_bytes: None,
    })
}

fn finished(status: Status) -> Finished {
    Finished {
        status,
        score: None,
        retry_at_ms: None,
    }
}

fn advance(
    conn: &Connection,
    lease: &Lease,
    advance: &Advance,
    now_ms: u64,
) -> Result<Finished, StoreError> {
    let Some(stage) = lease.stage.next() else {
        return Err(StoreError::Invalid(format!(
            "nothing follows stage {}",
            lease.stage
        )));
    };
    let next = Next {
        stage,
        state: "ready",
        attempts: 0,
        available_ms: int(now_ms)?,
        payload: Some(to_json(&advance.payload, PAYLOAD_LIMIT)?),
        model_bytes: advance.model_bytes.map(int).transpose()?,
    };
    end_lease(conn, lease, &next, now_ms)?;
    let id = lease.submission.id;
    conn.prepare_cached(
        "UPDATE submissions SET revision = COALESCE(?2, revision), \
         weights_key = COALESCE(?3, weights_key), tensor_digest = COALESCE(?4, tensor_digest) \
         WHERE id = ?1",
    )?
    .execute(params![
        id.0,
        advance.revision,
        advance.weights_key,
        advance.tensor_digest
    ])?;
    let status = stage.waiting();
    let change = Change {
        status,
        rejection: None,
        note: "",
        now_ms,
    };
    submissions::change(conn, id, &change)?;
    Ok(finished(status))
}

fn rejected(
    conn: &Connection,
    lease: &Lease,
    rejection: &Rejection,
    now_ms: u64,
) -> Result<Finished, StoreError> {
    end_lease(conn, lease, &done(lease, now_ms)?, now_ms)?;
    intake::reject(conn, lease.submission.id, rejection, now_ms)?;
    Ok(finished(Status::Rejected))
}

fn scored(
    conn: &Connection,
    lease: &Lease,
    score: &NewScore,
    now_ms: u64,
) -> Result<Finished, StoreError> {
    if lease.stage == Stage::Fetch {
        return Err(StoreError::Invalid(
            "a fetched model has no score yet".to_owned(),
        ));
    }
    end_lease(conn, lease, &done(lease, now_ms)?, now_ms)?;
    let id = scores::insert(conn, lease.submission.id, score, now_ms)?;
    let note = format!(
        "{:.4} ± {:.4} in round {}",
        score.value, score.standard_error, score.round
    );
    let change = Change {
        status: Status::Scored,
        rejection: None,
        note: &note,
        now_ms,
    };
    submissions::change(conn, lease.submission.id, &change)?;
    Ok(Finished {
        score: Some(id),
        ..finished(Status::Scored)
    })
}

fn failed(
    conn: &Connection,
    lease: &Lease,
    fault: &Fault,
    policy: &RetryPolicy,
    now_ms: u64,
) -> Result<Finished, StoreError> {
    let wait = policy.wait_after(lease.attempt).filter(|_| fault.retryable);
    let again = queue::after(now_ms, wait.unwrap_or_default())?;
    let next = Next {
        stage: lease.stage,
        state: if wait.is_some() { "ready" } else { "parked" },
        attempts: lease.attempt,
        available_ms: again,
        payload: None,
        model_bytes: None,
    };
    end_lease(conn, lease, &next, now_ms)?;
    let id = lease.submission.id;
    if wait.is_none() {
        park(conn, id, fault, now_ms)?;
        return Ok(finished(Status::Parked));
    }
    faults::insert(conn, Some(id), fault, now_ms)?;
    let status = lease.stage.waiting();
    let note = fault.to_string();
    submissions::change(
        conn,
        id,
        &Change {
            status,
            rejection: None,
            note: &note,
            now_ms,
        },
    )?;
    Ok(Finished {
        retry_at_ms: u64::try_from(again).ok(),
        ..finished(status)
    })
}

/// Marks a submission as given up for now, with the fault that did it.
pub(super) fn park(
    conn: &Connection,
    id: SubmissionId,
    fault: &Fault,
    now_ms: u64,
) -> Result<(), StoreError> {
    faults::insert(conn, Some(id), fault, now_ms)?;
    let note = fault.to_string();
    let change = Change {
        status: Status::Parked,
        rejection: None,
        note: &note,
        now_ms,
    };
    submissions::change(conn, id, &change)
}

impl Store {
    /// Records how a stage ended, with all its effects in one transaction, and ends the lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another holds or has finished the job: nothing is recorded.
    /// [`StoreError::OtherTensors`] when a score's digest differs from the download's;
    /// [`StoreError::Invalid`] for an outcome that the stage cannot have, a score of another draw than
    /// the store's round, a value out of range. The lease stays then, so that the fault can be recorded under it.
    pub async fn finish_stage(
        &self,
        lease: &Lease,
        outcome: Outcome,
        now_ms: u64,
    ) -> Result<Finished, StoreError> {
        let (lease, policy) = (lease.clone(), self.retry.clone());
        let finish = move |conn: &Connection| match &outcome {
            Outcome::Advance(next) => advance(conn, &lease, next, now_ms),
            Outcome::Rejected(rejection) => rejected(conn, &lease, rejection, now_ms),
            Outcome::Scored(score) => scored(conn, &lease, score, now_ms),
            Outcome::Failed(fault) => failed(conn, &lease, fault, &policy, now_ms),
        };
        let finished = self.writer.call(finish).await?;
        self.announce_work();
        Ok(finished)
    }
}
