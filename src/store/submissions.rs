//! Submissions as they are kept, and how their status changes.

use super::Reader;
use super::columns::{block, bounded, hotkey, int, uint, word};
use super::error::StoreError;
use super::ids::{Status, SubmissionId};
use crate::bittensor::{BlockNumber, Hotkey};
use crate::incentive::{Rejection, RejectionCode};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// Bytes kept of a note or of any other short text that a miner may have written.
pub(super) const NOTE_LIMIT: usize = 400;

/// A commitment as first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubmission {
    /// Signer.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// Beginning of the hotkey's present registration; `None` when not registered.
    pub registered_at: Option<BlockNumber>,
    /// The commitment's bytes as on chain; hostile. Cut at 4 KiB.
    pub raw: Vec<u8>,
    /// What the text names, when it could be read.
    pub model: Option<ModelFacts>,
    /// What the rules said.
    pub admission: Admission,
}

/// The model that a commitment names, as far as known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// `namespace/name`.
    pub repo: String,
    /// 40 hex digits; `None` until pinned.
    pub revision: Option<String>,
    /// Name of the chat template.
    pub template: String,
    /// Name of the competition.
    pub competition: String,
    /// Digest over the hub's sorted list of weight files; `None` until known.
    pub weights_key: Option<String>,
}

/// What becomes of a submission at intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Facts are still missing, by a fault of ours: ask again later, see [`super::Store::settle`].
    Pending,
    /// Goes to the queue.
    Queued,
    /// Refused.
    Rejected(Rejection),
}

/// Answer of [`super::Store::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Seen for the first time, recorded under this number.
    New(SubmissionId),
    /// Recorded before; nothing was changed.
    Known(SubmissionId),
}

/// A recorded submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submission {
    /// Its number.
    pub id: SubmissionId,
    /// Signer.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// Beginning of the hotkey's registration at intake.
    pub registered_at: Option<BlockNumber>,
    /// The commitment's text, undecodable bytes replaced; hostile.
    pub raw: String,
    /// `namespace/name`.
    pub repo: Option<String>,
    /// The pinned revision, 40 hex digits.
    pub revision: Option<String>,
    /// Name of the chat template.
    pub template: Option<String>,
    /// Name of the competition.
    pub competition: Option<String>,
    /// How far it has come.
    pub status: Status,
    /// The verdict, when `status` is rejected.
    pub rejection: Option<Rejection>,
    /// Digest over the hub's sorted list of weight files.
    pub weights_key: Option<String>,
    /// Digest over the tensors, once downloaded.
    pub tensor_digest: Option<String>,
    /// When it was recorded, unix milliseconds.
    pub discovered_ms: u64,
    /// When its status changed last, unix milliseconds.
    pub updated_ms: u64,
}

impl Submission {
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let code = row.get::<_, Option<String>>("rejection_code")?;
        let rejection = match code {
            None => None,
            Some(_) => Some(Rejection {
                code: word::<RejectionCode>(row, "rejection_code")?,
                detail: row.get("rejection_detail")?,
            }),
        };
        let registered_at: Option<i64> = row.get("registered_at")?;
        Ok(Self {
            id: SubmissionId(row.get("id")?),
            hotkey: hotkey(row, "hotkey")?,
            commit_block: block(row, "commit_block")?,
            registered_at: match registered_at {
                None => None,
                Some(_) => Some(block(row, "registered_at")?),
            },
            raw: String::from_utf8_lossy(&row.get::<_, Vec<u8>>("raw")?).into_owned(),
            repo: row.get("repo")?,
            revision: row.get("revision")?,
            template: row.get("template")?,
            competition: row.get("competition")?,
            status: word(row, "status")?,
            rejection,
            weights_key: row.get("weights_key")?,
            tensor_digest: row.get("tensor_digest")?,
            discovered_ms: uint(row, "discovered_ms")?,
            updated_ms: uint(row, "updated_ms")?,
        })
    }
}

/// A change of status, with what the history shows of it.
pub(super) struct Change<'a> {
    pub(super) status: Status,
    pub(super) rejection: Option<&'a Rejection>,
    pub(super) note: &'a str,
    pub(super) now_ms: u64,
}

/// Sets the status and notes it in the history.
pub(super) fn change(
    conn: &Connection,
    id: SubmissionId,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    let code = change.rejection.map(|r| r.code.as_str());
    let detail = change.rejection.map(|r| bounded(&r.detail, NOTE_LIMIT));
    let changed = conn
        .prepare_cached(
            "UPDATE submissions SET status = ?2, rejection_code = ?3, rejection_detail = ?4, \
             updated_ms = ?5 WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            change.status.as_str(),
            code,
            detail,
            int(change.now_ms)?
        ])?;
    if changed != 1 {
        return Err(StoreError::NotFound(format!("submission {id}")));
    }
    note(conn, id, change)
}

pub(super) fn note(
    conn: &Connection,
    id: SubmissionId,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    let text = match change.rejection {
        Some(rejection) => bounded(&rejection.to_string(), NOTE_LIMIT),
        None => bounded(change.note, NOTE_LIMIT),
    };
    conn.prepare_cached(
        "INSERT INTO submission_events (submission_id, at_ms, status, note) \
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        id.0,
        int(change.now_ms)?,
        change.status.as_str(),
        text
    ])?;
    Ok(())
}

pub(super) fn find(conn: &Connection, id: SubmissionId) -> Result<Submission, StoreError> {
    conn.prepare_cached("SELECT * FROM submissions WHERE id = ?1")?
        .query_row([id.0], Submission::from_row)
        .optional()?
        .ok_or_else(|| StoreError::NotFound(format!("submission {id}")))
}

impl Reader {
    /// One submission.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number.
    pub async fn submission(&self, id: SubmissionId) -> Result<Submission, StoreError> {
        self.read(move |conn| find(conn, id)).await
    }
}
