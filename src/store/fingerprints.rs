//! Who committed the same weights, and who was first: the earliest block, ties by hotkey bytes.
//!
//! A fingerprint counts from the transaction that recorded it. Two copies may be fetched at the same
//! time, so the question belongs after the fetch was recorded: whoever holds the lease of the score
//! stage sees every twin recorded before. Claims that were rejected are listed too, with their code:
//! whether they count is a rule, not the store's matter.

use super::Reader;
use super::columns::{block, hotkey, word};
use super::error::StoreError;
use super::ids::{Status, SubmissionId};
use super::pages::MAX_PAGE;
use crate::bittensor::{BlockNumber, Hotkey};
use crate::incentive::RejectionCode;
use rusqlite::{Row, params};
use serde::Serialize;

/// What two equal models share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fingerprint {
    /// Digest over the hub's sorted list of weight files.
    WeightsKey(String),
    /// Digest over the tensors.
    TensorDigest(String),
}

/// One submission's claim to a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Whose.
    pub submission: SubmissionId,
    /// Signer.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// How far it has come.
    pub status: Status,
    /// Why it was rejected, if it was.
    pub rejection: Option<RejectionCode>,
}

fn from_row(row: &Row<'_>) -> Result<Claim, rusqlite::Error> {
    let rejected = row.get::<_, Option<String>>("rejection_code")?.is_some();
    Ok(Claim {
        submission: SubmissionId(row.get("id")?),
        hotkey: hotkey(row, "hotkey")?,
        commit_block: block(row, "commit_block")?,
        status: word(row, "status")?,
        rejection: if rejected {
            Some(word(row, "rejection_code")?)
        } else {
            None
        },
    })
}

impl Reader {
    /// All claims to a fingerprint, earliest first, at most `limit`.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn claims(
        &self,
        fingerprint: Fingerprint,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        self.read(move |conn| {
            let (sql, value) = match &fingerprint {
                Fingerprint::WeightsKey(value) => (
                    "SELECT * FROM submissions WHERE weights_key = ?1 \
                     ORDER BY commit_block, hotkey LIMIT ?2",
                    value,
                ),
                Fingerprint::TensorDigest(value) => (
                    "SELECT * FROM submissions WHERE tensor_digest = ?1 \
                     ORDER BY commit_block, hotkey LIMIT ?2",
                    value,
                ),
            };
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map(params![value, limit.min(MAX_PAGE)], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The first claim to a fingerprint.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn earliest_with(
        &self,
        fingerprint: Fingerprint,
    ) -> Result<Option<Claim>, StoreError> {
        Ok(self.claims(fingerprint, 1).await?.into_iter().next())
    }
}
