//! The whole path of one submission, with the reason at each step.

use super::Reader;
use super::columns::{uint, word};
use super::error::StoreError;
use super::faults::{self, LoggedFault};
use super::ids::{Stage, Status, SubmissionId, WorkerId};
use super::scores::{self, Score};
use super::submissions::{self, Submission};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// Steps and scores that are shown of one submission, the newest.
const SHOWN: u32 = 100;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusEvent {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Status from then on.
    pub status: Status,
    /// Why, if there is more to say; may quote the miner, so it is hostile.
    pub note: String,
}

/// The open run of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobView {
    /// Runs before this one.
    pub run: u32,
    /// What is done next, or now.
    pub stage: Stage,
    /// Attempts at this stage so far.
    pub attempts: u32,
    /// Given up until an operator asks again.
    pub parked: bool,
    /// Who works on it.
    pub worker: Option<WorkerId>,
    /// Not before this time, unix milliseconds: the end of a back-off or of the lease.
    pub available_ms: u64,
    /// Jobs that will be taken before it at its stage; `None` unless it waits.
    pub ahead: Option<u64>,
}

/// A submission with all that happened to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmissionHistory {
    /// As it is now.
    pub submission: Submission,
    /// Its steps, first to last; of very many the newest.
    pub events: Vec<StatusEvent>,
    /// Its open run.
    pub job: Option<JobView>,
    /// Its scores, newest first.
    pub scores: Vec<Score>,
    /// Our faults on its way, newest first.
    pub faults: Vec<LoggedFault>,
}

fn event(row: &Row<'_>) -> Result<StatusEvent, rusqlite::Error> {
    Ok(StatusEvent {
        at_ms: uint(row, "at_ms")?,
        status: word(row, "status")?,
        note: row.get("note")?,
    })
}

fn events(conn: &Connection, id: SubmissionId) -> Result<Vec<StatusEvent>, StoreError> {
    let sql = "SELECT * FROM submission_events WHERE submission_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map(params![id.0, SHOWN], event)?;
    let mut events: Vec<_> = rows.collect::<Result<_, _>>()?;
    events.reverse();
    Ok(events)
}

fn job(conn: &Connection, id: SubmissionId) -> Result<Option<JobView>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT j.*, (SELECT COUNT(*) FROM jobs o WHERE o.stage = j.stage AND o.state = 'ready' \
         AND (o.retry, o.commit_block, o.hotkey, o.id) \
         < (j.retry, j.commit_block, j.hotkey, j.id)) AS ahead \
         FROM jobs j WHERE j.submission_id = ?1 AND j.state <> 'done'",
    )?;
    let view = query.query_row([id.0], |row| {
        let state: String = row.get("state")?;
        Ok(JobView {
            run: row.get("run")?,
            stage: word(row, "stage")?,
            attempts: row.get("attempts")?,
            parked: state == "parked",
            worker: row.get::<_, Option<String>>("worker")?.map(WorkerId),
            available_ms: uint(row, "available_ms")?,
            ahead: if state == "ready" {
                Some(uint(row, "ahead")?)
            } else {
                None
            },
        })
    });
    Ok(view.optional()?)
}

impl Reader {
    /// A submission with its whole path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number.
    pub async fn history(&self, id: SubmissionId) -> Result<SubmissionHistory, StoreError> {
        self.read(move |conn| {
            Ok(SubmissionHistory {
                submission: submissions::find(conn, id)?,
                events: events(conn, id)?,
                job: job(conn, id)?,
                scores: scores::of(conn, id, SHOWN)?,
                faults: faults::of(conn, id)?,
            })
        })
        .await
    }
}
