//! Intake: a commitment is recorded once per (hotkey, commit block), and queued or rejected in the
//! same transaction.

use super::columns::{bounded, int};
use super::error::StoreError;
use super::ids::{Status, SubmissionId};
use super::submissions::{
    self, Admission, Change, ModelFacts, NOTE_LIMIT, NewSubmission, Recorded, find, note,
};
use super::{Store, runs};
use crate::incentive::Rejection;
use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of a commitment that are kept; the chain's own bound is far below.
const RAW_LIMIT: usize = 4096;

fn insert(
    conn: &Connection,
    new: &NewSubmission,
    now_ms: u64,
) -> Result<Option<SubmissionId>, StoreError> {
    let model = new.model.as_ref();
    let registered_at = new.registered_at.map(|b| int(b.0)).transpose()?;
    let raw = &new.raw[..new.raw.len().min(RAW_LIMIT)];
    let text = |value: Option<&String>| value.map(|v| bounded(v, NOTE_LIMIT));
    let id = conn
        .prepare_cached(
            "INSERT INTO submissions (hotkey, commit_block, registered_at, raw, repo, revision, \
             template, competition, weights_key, status, discovered_ms, updated_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11) \
             ON CONFLICT (hotkey, commit_block) DO NOTHING RETURNING id",
        )?
        .query_row(
            params![
                new.hotkey.as_bytes(),
                int(new.commit_block.0)?,
                registered_at,
                raw,
                text(model.map(|m| &m.repo)),
                model.and_then(|m| m.revision.as_ref()),
                text(model.map(|m| &m.template)),
                text(model.map(|m| &m.competition)),
                model.and_then(|m| m.weights_key.as_ref()),
                Status::Discovered.as_str(),
                int(now_ms)?,
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(id.map(SubmissionId))
}

fn record(conn: &Connection, new: &NewSubmission, now_ms: u64) -> Result<Recorded, StoreError> {
    let Some(id) = insert(conn, new, now_ms)? else {
        let known = conn
            .prepare_cached("SELECT id FROM submissions WHERE hotkey = ?1 AND commit_block = ?2")?
            .query_row(
                params![new.hotkey.as_bytes(), int(new.commit_block.0)?],
                |r| r.get(0),
            )?;
        return Ok(Recorded::Known(SubmissionId(known)));
    };
    let change = Change {
        status: Status::Discovered,
        rejection: None,
        note: "",
        now_ms,
    };
    note(conn, id, &change)?;
    admit(conn, id, &new.admission, now_ms)?;
    Ok(Recorded::New(id))
}

fn admit(
    conn: &Connection,
    id: SubmissionId,
    admission: &Admission,
    now_ms: u64,
) -> Result<(), StoreError> {
    match admission {
        Admission::Pending => Ok(()),
        Admission::Queued => {
            runs::open_run(conn, id, now_ms)?;
            let change = Change {
                status: Status::Queued,
                rejection: None,
                note: "",
                now_ms,
            };
            submissions::change(conn, id, &change)
        }
        Admission::Rejected(rejection) => reject(conn, id, rejection, now_ms),
    }
}

pub(super) fn reject(
    conn: &Connection,
    id: SubmissionId,
    rejection: &Rejection,
    now_ms: u64,
) -> Result<(), StoreError> {
    let change = Change {
        status: Status::Rejected,
        rejection: Some(rejection),
        note: "",
        now_ms,
    };
    submissions::change(conn, id, &change)
}

fn settle(
    conn: &Connection,
    id: SubmissionId,
    facts: Option<&ModelFacts>,
    admission: &Admission,
    now_ms: u64,
) -> Result<bool, StoreError> {
    if find(conn, id)?.status != Status::Discovered {
        return Ok(false);
    }
    if let Some(facts) = facts {
        conn.prepare_cached(
            "UPDATE submissions SET repo = ?2, revision = ?3, template = ?4, competition = ?5, \
             weights_key = ?6 WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            bounded(&facts.repo, NOTE_LIMIT),
            facts.revision,
            bounded(&facts.template, NOTE_LIMIT),
            bounded(&facts.competition, NOTE_LIMIT),
            facts.weights_key
        ])?;
    }
    admit(conn, id, admission, now_ms)?;
    Ok(true)
}

impl Store {
    /// Records a commitment: queued, rejected or pending, in one transaction. Seeing the same
    /// (hotkey, commit block) again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is to be queued without a model. Nothing was recorded then.
    pub async fn record(&self, new: NewSubmission, now_ms: u64) -> Result<Recorded, StoreError> {
        let recorded = self
            .writer
            .call(move |conn| record(conn, &new, now_ms))
            .await?;
        self.announce_work();
        Ok(recorded)
    }

    /// Decides a submission that was recorded as pending, with the facts found since. `false` and no
    /// change when it was decided before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number.
    pub async fn settle(
        &self,
        id: SubmissionId,
        facts: Option<ModelFacts>,
        admission: Admission,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let settle = move |conn: &Connection| settle(conn, id, facts.as_ref(), &admission, now_ms);
        let settled = self.writer.call(settle).await?;
        self.announce_work();
        Ok(settled)
    }

    /// Records a verdict outside a lease, such as a duplicate whose earlier twin came to light
    /// later. Closes an open run; its holder's lease is lost.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown number.
    pub async fn reject(
        &self,
        id: SubmissionId,
        rejection: Rejection,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.writer
            .call(move |conn| {
                runs::close_run(conn, id, now_ms)?;
                reject(conn, id, &rejection, now_ms)
            })
            .await
    }
}
