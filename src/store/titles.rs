//! With whom each round began.

use super::columns::{int, uint};
use super::error::StoreError;
use super::ids::SubmissionId;
use super::submissions::Submission;
use super::{Reader, Store};
use crate::bittensor::RoundNumber;
use rusqlite::{Connection, OptionalExtension, params};

/// The latest round of an era that began with a model as the champion: committed by the same hotkey,
/// of the same tensors, under whatever submission.
pub(super) fn held(
    conn: &Connection,
    era_id: &str,
    of: &Submission,
) -> Result<Option<RoundNumber>, StoreError> {
    let sql = "SELECT round FROM titles JOIN submissions ON id = submission_id \
         WHERE era_id = ?1 AND hotkey = ?2 AND tensor_digest IS ?3 ORDER BY round DESC LIMIT 1";
    let mut query = conn.prepare_cached(sql)?;
    let held = query.query_row(params![era_id, of.hotkey.0, of.tensor_digest], |row| {
        uint(row, "round")
    });
    Ok(held.optional()?.map(RoundNumber))
}

fn title(
    conn: &Connection,
    era_id: &str,
    round: RoundNumber,
) -> Result<Option<SubmissionId>, StoreError> {
    let sql = "SELECT submission_id FROM titles WHERE era_id = ?1 AND round = ?2";
    let mut query = conn.prepare_cached(sql)?;
    let found = query.query_row(params![era_id, int(round.0)?], |row| {
        Ok(SubmissionId(row.get("submission_id")?))
    });
    Ok(found.optional()?)
}

impl Store {
    /// Keeps with whom a round began, unless that is kept already.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an era or a submission that the store does not know.
    pub async fn put_title(
        &self,
        era_id: String,
        round: RoundNumber,
        of: SubmissionId,
    ) -> Result<(), StoreError> {
        let put = move |conn: &Connection| {
            let sql = "INSERT INTO titles (era_id, round, submission_id) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (era_id, round) DO NOTHING";
            let mut query = conn.prepare_cached(sql)?;
            query.execute(params![era_id, int(round.0)?, of.0])?;
            Ok(())
        };
        self.writer.call(put).await
    }
}

impl Reader {
    /// With whom a round began; `None` when nobody held the title then.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn title(
        &self,
        era_id: &str,
        round: RoundNumber,
    ) -> Result<Option<SubmissionId>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| title(conn, &era_id, round)).await
    }
}
