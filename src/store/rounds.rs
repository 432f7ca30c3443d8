//! Rounds: drawn once, the same after a restart.

use super::columns::{block, block_hash, int, json, to_json, uint};
use super::error::StoreError;
use super::{Reader, Store};
use crate::bittensor::{BlockRef, RoundNumber};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// Bytes of JSON for the item ids of one round.
const ITEMS_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of JSON for the digests of a round's packs.
const PACKS_LIMIT: usize = 256 * 1024;

/// The items that all models of a round answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Era whose rules hold.
    pub era_id: String,
    /// Number within the era.
    pub number: RoundNumber,
    /// Finalised block that the seed was drawn from.
    pub start: BlockRef,
    /// Time of that block, unix milliseconds.
    pub start_ms: u64,
    /// Seed of the draw.
    #[serde(serialize_with = "as_hex")]
    pub seed: [u8; 32],
    /// Digest that stands for all packs that the items come from.
    pub pack_digest: String,
    /// Those packs.
    pub packs: Vec<String>,
    /// Digest over the item ids in their order.
    pub items_digest: String,
    /// Item ids in their order.
    pub items: Vec<String>,
}

fn as_hex<S: serde::Serializer>(seed: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(seed))
}

fn from_row(row: &Row<'_>) -> Result<Round, rusqlite::Error> {
    Ok(Round {
        era_id: row.get("era_id")?,
        number: RoundNumber(uint(row, "number")?),
        start: BlockRef {
            number: block(row, "start_block")?,
            hash: block_hash(row, "start_hash")?,
        },
        start_ms: uint(row, "start_ms")?,
        seed: row.get("seed")?,
        pack_digest: row.get("pack_digest")?,
        packs: json(row, "packs")?,
        items_digest: row.get("items_digest")?,
        items: json(row, "items")?,
    })
}

pub(super) fn find(
    conn: &Connection,
    era_id: &str,
    number: RoundNumber,
) -> Result<Option<Round>, StoreError> {
    let mut query =
        conn.prepare_cached("SELECT * FROM rounds WHERE era_id = ?1 AND number = ?2")?;
    Ok(query
        .query_row(params![era_id, int(number.0)?], from_row)
        .optional()?)
}

fn put(conn: &Connection, round: &Round, now_ms: u64) -> Result<Round, StoreError> {
    conn.prepare_cached(
        "INSERT INTO rounds (era_id, number, start_block, start_hash, seed, pack_digest, \
         items_digest, items, created_ms, start_ms, packs) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (era_id, number) DO NOTHING",
    )?
    .execute(params![
        round.era_id,
        int(round.number.0)?,
        int(round.start.number.0)?,
        round.start.hash.0,
        round.seed,
        round.pack_digest,
        round.items_digest,
        to_json(&round.items, ITEMS_LIMIT)?,
        int(now_ms)?,
        int(round.start_ms)?,
        to_json(&round.packs, PACKS_LIMIT)?,
    ])?;
    find(conn, &round.era_id, round.number)?
        .ok_or_else(|| StoreError::NotFound(format!("round {}", round.number)))
}

impl Store {
    /// Keeps a round unless it is kept already, and returns the kept one, which is the one to use.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when its era is unknown to the store.
    pub async fn put_round(&self, round: Round, now_ms: u64) -> Result<Round, StoreError> {
        self.writer
            .call(move |conn| put(conn, &round, now_ms))
            .await
    }
}

impl Reader {
    /// A round as it was drawn; `None` when it was not drawn yet.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn round(
        &self,
        era_id: &str,
        number: RoundNumber,
    ) -> Result<Option<Round>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| find(conn, &era_id, number)).await
    }
}
