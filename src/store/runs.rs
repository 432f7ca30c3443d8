//! Runs: a submission goes through the stages once for each, and has one open run at most.

use super::Store;
use super::columns::{int, word};
use super::error::StoreError;
use super::ids::{Stage, Status, SubmissionId};
use super::submissions::{self, Change};
use rusqlite::{Connection, OptionalExtension, params};

/// Where an operator's retry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// At the stage where it was parked, with that stage's payload.
    AtStage,
    /// At the first stage.
    FromStart,
}

/// Begins a run for a submission that has no open one; `false` when it has. One that names no model
/// is refused: nobody could work on it.
pub(super) fn open_run(
    conn: &Connection,
    id: SubmissionId,
    now_ms: u64,
) -> Result<bool, StoreError> {
    if submissions::find(conn, id)?.repo.is_none() {
        return Err(StoreError::Invalid(format!(
            "submission {id} names no model to work on"
        )));
    }
    let opened = conn
        .prepare_cached(
            "INSERT INTO jobs (submission_id, run, commit_block, hotkey, stage, state, \
             available_ms, created_ms, updated_ms) \
             SELECT s.id, (SELECT COUNT(*) FROM jobs WHERE submission_id = ?1), s.commit_block, \
             s.hotkey, 'fetch', 'ready', ?2, ?2, ?2 FROM submissions s WHERE s.id = ?1 \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE submission_id = ?1 AND state <> 'done')",
        )?
        .execute(params![id.0, int(now_ms)?])?;
    Ok(opened == 1)
}

/// Ends the open run of a submission, if there is one; a lease on it is lost.
pub(super) fn close_run(
    conn: &Connection,
    id: SubmissionId,
    now_ms: u64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE jobs SET state = 'done', worker = NULL, token = token + 1, updated_ms = ?2 \
         WHERE submission_id = ?1 AND state <> 'done'",
    )?
    .execute(params![id.0, int(now_ms)?])?;
    Ok(())
}

fn requeue(
    conn: &Connection,
    id: SubmissionId,
    resume: Resume,
    now_ms: u64,
) -> Result<bool, StoreError> {
    if submissions::find(conn, id)?.status == Status::Discovered {
        return Ok(false);
    }
    let sql = match resume {
        Resume::AtStage => {
            "UPDATE jobs SET state = 'ready', attempts = 0, available_ms = ?2, \
             token = token + 1, updated_ms = ?2 \
             WHERE submission_id = ?1 AND state = 'parked' RETURNING stage"
        }
        Resume::FromStart => {
            "UPDATE jobs SET state = 'ready', attempts = 0, available_ms = ?2, \
             token = token + 1, updated_ms = ?2, stage = 'fetch', payload = 'null' \
             WHERE submission_id = ?1 AND state = 'parked' RETURNING stage"
        }
    };
    let parked_at: Option<Stage> = conn
        .prepare_cached(sql)?
        .query_row(params![id.0, int(now_ms)?], |row| word(row, "stage"))
        .optional()?;
    let stage = match parked_at {
        Some(stage) => stage,
        None if open_run(conn, id, now_ms)? => Stage::Fetch,
        None => return Ok(false),
    };
    let change = Change {
        status: stage.waiting(),
        rejection: None,
        note: "queued again",
        now_ms,
    };
    submissions::change(conn, id, &change)?;
    Ok(true)
}

fn rescore(conn: &Connection, ids: &[SubmissionId], now_ms: u64) -> Result<u64, StoreError> {
    let mut opened = 0;
    for id in ids {
        let status = submissions::find(conn, *id)?.status;
        if status == Status::Scored && requeue(conn, *id, Resume::FromStart, now_ms)? {
            opened += 1;
        }
    }
    Ok(opened)
}

impl Store {
    /// An operator's retry: a parked run goes on with fresh attempts; a submission without an open
    /// run (scored, rejected) gets a new one from the start. `false` when it is queued
    /// anyway or waits for its admission.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number, [`StoreError::Invalid`] for one whose
    /// commitment named no model.
    pub async fn requeue(
        &self,
        id: SubmissionId,
        resume: Resume,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let done = self
            .writer
            .call(move |conn| requeue(conn, id, resume, now_ms))
            .await?;
        self.announce_work();
        Ok(done)
    }

    /// Opens a new run for each scored submission without an open one: for the leaders of a new
    /// round, and for a new era. The last score stays until the next. Returns how many were opened.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number; then none was opened.
    pub async fn rescore(&self, ids: Vec<SubmissionId>, now_ms: u64) -> Result<u64, StoreError> {
        let opened = self
            .writer
            .call(move |conn| rescore(conn, &ids, now_ms))
            .await?;
        self.announce_work();
        Ok(opened)
    }
}
