//! Eras that this store's scores belong to.

use super::columns::{block, int};
use super::error::StoreError;
use super::{Reader, Store};
use crate::bittensor::BlockNumber;
use rusqlite::{Connection, Row, params};
use serde::Serialize;

/// An era as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EraRecord {
    /// SHA-256 of the canonical JSON.
    pub era_id: String,
    /// First block of the era.
    pub from_block: BlockNumber,
    /// Canonical JSON of all its parameters.
    pub canonical: String,
}

fn from_row(row: &Row<'_>) -> Result<EraRecord, rusqlite::Error> {
    Ok(EraRecord {
        era_id: row.get("era_id")?,
        from_block: block(row, "from_block")?,
        canonical: row.get("canonical")?,
    })
}

fn select(conn: &Connection, sql: &str) -> Result<Vec<EraRecord>, StoreError> {
    let mut query = conn.prepare_cached(sql)?;
    Ok(query.query_map([], from_row)?.collect::<Result<_, _>>()?)
}

fn assert(conn: &Connection, configured: &[EraRecord]) -> Result<(), StoreError> {
    let scored = "SELECT * FROM eras e WHERE EXISTS \
                  (SELECT 1 FROM scores WHERE era_id = e.era_id) ORDER BY from_block";
    for era in select(conn, scored)? {
        if !configured.contains(&era) {
            let EraRecord {
                era_id, from_block, ..
            } = era;
            return Err(StoreError::EraEdited { from_block, era_id });
        }
    }
    // Nothing was scored under the others, so they may still change.
    for stale in select(conn, "SELECT * FROM eras")? {
        if !configured.contains(&stale) {
            conn.execute("DELETE FROM eras WHERE era_id = ?1", [&stale.era_id])?;
        }
    }
    for era in configured {
        conn.execute(
            "INSERT INTO eras (era_id, from_block, canonical) VALUES (?1, ?2, ?3) \
             ON CONFLICT (era_id) DO NOTHING",
            params![era.era_id, int(era.from_block.0)?, era.canonical],
        )?;
    }
    Ok(())
}

impl Store {
    /// Compares the configured eras with those that have scores, then keeps them. To be called at
    /// start: scores and rounds of an era that is not kept are refused. The rounds of an era that
    /// was edited before any score fall with it.
    ///
    /// # Errors
    /// [`StoreError::EraEdited`] when an era with scores was changed or removed.
    pub async fn assert_eras(&self, configured: Vec<EraRecord>) -> Result<(), StoreError> {
        self.writer
            .call(move |conn| assert(conn, &configured))
            .await
    }
}

impl Reader {
    /// All kept eras, by their first block.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn eras(&self) -> Result<Vec<EraRecord>, StoreError> {
        self.read(|conn| select(conn, "SELECT * FROM eras ORDER BY from_block"))
            .await
    }
}
