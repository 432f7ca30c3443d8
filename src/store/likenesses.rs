//! What is known of models to find changed copies, and what was found.

use super::columns::int;
use super::error::StoreError;
use super::evidence::since;
use super::ids::SubmissionId;
use super::submissions::{self, Submission};
use super::{Reader, Store};
use crate::bittensor::{BlockNumber, RoundNumber};
use crate::incentive::copies::{Behaviour, Kinship, Likeness, Measure, Sketch};
use codec::{Decode, Encode};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// Most models that one is compared with; those that were recorded last.
const COMPARED_MAX: u32 = 512;

/// A model to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<T> {
    /// Whose.
    pub submission: Submission,
    /// Block in which its hotkey first committed the same tensors.
    pub since: BlockNumber,
    /// What is known of it.
    pub what: T,
}

/// Where a behaviour was seen: only those of one place can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Era of the round.
    pub era_id: String,
    /// Whose items were the probes.
    pub round: RoundNumber,
    /// Image, engine and device.
    pub scorer: String,
}

/// A finding about a submission and an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alike {
    /// The earlier one.
    pub elder: SubmissionId,
    /// What was found.
    #[serde(flatten)]
    pub likeness: Likeness,
}

fn decoded<T: Decode>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    T::decode(&mut &*bytes).map_err(|e| StoreError::Corrupt(format!("{what}: {e}")))
}

fn known<T: Decode>(
    conn: &Connection,
    rows: Vec<(SubmissionId, Vec<u8>)>,
) -> Result<Vec<Known<T>>, StoreError> {
    let one = |(id, bytes): (SubmissionId, Vec<u8>)| {
        let submission = submissions::find(conn, id)?;
        Ok(Known {
            since: since(conn, &submission)?,
            what: decoded(&bytes, "a model's fingerprint")?,
            submission,
        })
    };
    rows.into_iter().map(one).collect()
}

fn name<T: Copy + PartialEq>(names: &[(T, &'static str)], of: T) -> &'static str {
    let found = names.iter().find(|(value, _)| *value == of);
    found.map_or("", |(_, name)| name)
}

/// The value of a name; `None`, which is damage, for an unknown one.
fn named<T: Copy>(names: &[(T, &'static str)], name: &str) -> Option<T> {
    let found = names.iter().find(|(_, known)| *known == name);
    found.map(|(value, _)| *value)
}

fn alike(row: &Row<'_>) -> Result<Alike, rusqlite::Error> {
    let (measure, kinship): (String, String) = (row.get("measure")?, row.get("kinship")?);
    let both = named(&Measure::NAMES, &measure).zip(named(&Kinship::NAMES, &kinship));
    let (measure, kinship) = both.ok_or(rusqlite::Error::InvalidQuery)?;
    Ok(Alike {
        elder: SubmissionId(row.get("elder_id")?),
        likeness: Likeness {
            measure,
            value: row.get("value")?,
            kinship,
        },
    })
}

fn row(row: &Row<'_>) -> Result<(SubmissionId, Vec<u8>), rusqlite::Error> {
    Ok((SubmissionId(row.get(0)?), row.get(1)?))
}

impl Store {
    /// The secret that decides which values of a matrix are looked at: made once, then the same.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn sketch_seed(&self) -> Result<[u8; 32], StoreError> {
        let fresh = hex::encode(rand::random::<[u8; 32]>());
        let text: String = self
            .writer
            .call(move |conn| {
                let sql = "INSERT INTO meta (key, value) VALUES ('sketch_seed', ?1) \
                           ON CONFLICT (key) DO UPDATE SET value = value RETURNING value";
                Ok(conn
                    .prepare_cached(sql)?
                    .query_row([format!("\"{fresh}\"")], |row| row.get(0))?)
            })
            .await?;
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim_matches('"'), &mut seed)
            .map_err(|e| StoreError::Corrupt(format!("value of sketch_seed: {e}")))?;
        Ok(seed)
    }

    /// Keeps a model's sketch.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn put_sketch(
        &self,
        id: SubmissionId,
        shape: String,
        sketch: &Sketch,
    ) -> Result<(), StoreError> {
        let bytes = sketch.encode();
        self.writer
            .call(move |conn| {
                let sql = "INSERT OR REPLACE INTO sketches (submission_id, shape, sketch) \
                           VALUES (?1, ?2, ?3)";
                conn.prepare_cached(sql)?
                    .execute(params![id.0, shape, bytes])?;
                Ok(())
            })
            .await
    }

    /// Keeps how a model behaved in a round.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn put_behaviour(
        &self,
        id: SubmissionId,
        seen: Seen,
        behaviour: &Behaviour,
    ) -> Result<(), StoreError> {
        let bytes = behaviour.encode();
        self.writer
            .call(move |conn| {
                let sql = "INSERT OR REPLACE INTO behaviours \
                           (era_id, round, submission_id, scorer, probes) VALUES (?1, ?2, ?3, ?4, ?5)";
                conn.prepare_cached(sql)?.execute(params![
                    seen.era_id,
                    int(seen.round.0)?,
                    id.0,
                    seen.scorer,
                    bytes
                ])?;
                Ok(())
            })
            .await
    }

    /// Keeps findings, each under its younger submission; of one pair and measure the closest stays.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn put_likenesses(
        &self,
        found: Vec<(SubmissionId, Alike)>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let put = move |conn: &Connection| {
            let mut insert = conn.prepare_cached(
                "INSERT INTO likenesses (submission_id, elder_id, measure, value, kinship, at_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET value = excluded.value, \
                 kinship = excluded.kinship, at_ms = excluded.at_ms \
                 WHERE excluded.value < likenesses.value",
            )?;
            for (id, Alike { elder, likeness }) in &found {
                insert.execute(params![
                    id.0,
                    elder.0,
                    name(&Measure::NAMES, likeness.measure),
                    likeness.value,
                    name(&Kinship::NAMES, likeness.kinship),
                    int(now_ms)?
                ])?;
            }
            Ok(())
        };
        self.writer.call(put).await
    }
}

impl Reader {
    /// A model's sketch with the digest of its shape.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn sketch(&self, of: SubmissionId) -> Result<Option<(String, Sketch)>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT shape, sketch FROM sketches WHERE submission_id = ?1";
            let mut query = conn.prepare_cached(sql)?;
            let row = query.query_row([of.0], |row| Ok((row.get(0)?, row.get(1)?)));
            let row: Option<(String, Vec<u8>)> = row.optional()?;
            let sketch = row.map(|(shape, bytes)| Ok((shape, decoded(&bytes, "a sketch")?)));
            sketch.transpose()
        })
        .await
    }

    /// The sketches of all other models of a shape, at most 512, the newest first.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn sketches(
        &self,
        but: SubmissionId,
        shape: &str,
    ) -> Result<Vec<Known<Sketch>>, StoreError> {
        let shape = shape.to_owned();
        self.read(move |conn| {
            let sql = "SELECT submission_id, sketch FROM sketches WHERE shape = ?1 \
                       AND submission_id <> ?2 ORDER BY submission_id DESC LIMIT ?3";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map(params![shape, but.0, COMPARED_MAX], row)?;
            known(conn, rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How all other models behaved in the same place, at most 512, the newest first.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn behaviours(
        &self,
        but: SubmissionId,
        seen: Seen,
    ) -> Result<Vec<Known<Behaviour>>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT submission_id, probes FROM behaviours WHERE era_id = ?1 \
                       AND round = ?2 AND scorer = ?3 AND submission_id <> ?4 \
                       ORDER BY submission_id DESC LIMIT ?5";
            let mut query = conn.prepare_cached(sql)?;
            let place = params![
                seen.era_id,
                int(seen.round.0)?,
                seen.scorer,
                but.0,
                COMPARED_MAX
            ];
            let rows = query.query_map(place, row)?;
            known(conn, rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Block in which a submission's hotkey first committed the same tensors.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn since(&self, of: &Submission) -> Result<BlockNumber, StoreError> {
        let of = of.clone();
        self.read(move |conn| since(conn, &of)).await
    }

    /// What a submission was found to be like, closest first.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn likenesses(&self, of: SubmissionId) -> Result<Vec<Alike>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT * FROM likenesses WHERE submission_id = ?1 ORDER BY value, elder_id";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map([of.0], alike)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
