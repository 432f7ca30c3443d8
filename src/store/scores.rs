//! Scores, each bound to all its inputs. They are written only through a lease.

use super::columns::{int, json, to_json, uint};
use super::error::StoreError;
use super::ids::{ScoreId, SubmissionId};
use super::submissions::{self, Submission};
use super::{Reader, rounds};
use crate::bittensor::RoundNumber;
use crate::incentive::score::{Bucket, ItemScore};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;

const GATES_LIMIT: usize = 64 * 1024;

/// What a score was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreInputs {
    /// Image that generated, as the engine of containers reports it.
    pub image_id: String,
    /// `docker` or `process`.
    pub runner: String,
    /// Inference engine with its version.
    pub engine: String,
    /// Pack that the items came from.
    pub pack_digest: String,
    /// The round's seed, 64 hex digits.
    pub seed: String,
    /// The judge's model and endpoint name.
    pub judge_id: String,
    /// Version of the judge's prompt.
    pub prompt_version: String,
    /// Digest over the tensors as the scorer loaded them.
    pub tensor_digest: String,
    /// Digest over the replies.
    pub replies_digest: String,
}

/// A score to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScore {
    /// Era whose rules made it; known to the store.
    pub era_id: String,
    /// Round whose items were answered; known to the store.
    pub round: RoundNumber,
    /// 0..=1.
    pub value: f64,
    /// Standard error of `value`, at least 0.
    pub standard_error: f64,
    /// What the gates measured, as JSON.
    pub gates: Value,
    /// What it was made from.
    pub inputs: ScoreInputs,
    /// Per item id; values 0..=1; some or all of the round's items, none twice.
    pub items: Vec<(String, ItemScore)>,
}

/// A recorded score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Its number, in order of recording.
    pub id: ScoreId,
    /// Whose.
    pub submission: SubmissionId,
    /// Era whose rules made it.
    pub era_id: String,
    /// Round whose items were answered.
    pub round: RoundNumber,
    /// 0..=1.
    pub value: f64,
    /// Standard error of `value`.
    pub standard_error: f64,
    /// Number of items.
    pub n: u64,
    /// What the gates measured.
    pub gates: Value,
    /// What it was made from.
    pub inputs: ScoreInputs,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// A submission with its latest score of one era.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scored {
    /// Whose.
    pub submission: Submission,
    /// The score of the latest round, of several the last recorded.
    pub score: Score,
}

/// One item that two scores have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairedItem {
    /// Its id.
    pub item: String,
    /// Value in the first score.
    pub first: f64,
    /// Value in the second.
    pub second: f64,
}

impl Score {
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            id: ScoreId(row.get("id")?),
            submission: SubmissionId(row.get("submission_id")?),
            era_id: row.get("era_id")?,
            round: RoundNumber(uint(row, "round")?),
            value: row.get("value")?,
            standard_error: row.get("standard_error")?,
            n: uint(row, "n")?,
            gates: json(row, "gates")?,
            inputs: ScoreInputs {
                image_id: row.get("image_id")?,
                runner: row.get("runner")?,
                engine: row.get("engine")?,
                pack_digest: row.get("pack_digest")?,
                seed: row.get("seed")?,
                judge_id: row.get("judge_id")?,
                prompt_version: row.get("prompt_version")?,
                tensor_digest: row.get("tensor_digest")?,
                replies_digest: row.get("replies_digest")?,
            },
            created_ms: uint(row, "created_ms")?,
        })
    }
}

fn check(new: &NewScore) -> Result<(), StoreError> {
    let unit = |value: f64| (0.0..=1.0).contains(&value);
    let sound = unit(new.value)
        && new.standard_error.is_finite()
        && new.standard_error >= 0.0
        && !new.items.is_empty()
        && new.items.iter().all(|(_, item)| unit(item.value));
    if sound {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "score {} ± {} over {} items: all must lie in 0..=1 and there must be items",
        new.value,
        new.standard_error,
        new.items.len()
    )))
}

fn check_tensors(
    conn: &Connection,
    id: SubmissionId,
    inputs: &ScoreInputs,
) -> Result<(), StoreError> {
    match submissions::find(conn, id)?.tensor_digest {
        Some(fetched) if fetched == inputs.tensor_digest => Ok(()),
        Some(fetched) => Err(StoreError::OtherTensors {
            submission: id,
            fetched,
            scored: inputs.tensor_digest.clone(),
        }),
        None => Err(StoreError::Invalid(format!(
            "submission {id} has a score, but its download recorded no tensor digest"
        ))),
    }
}

/// A score belongs to the draw that the store keeps: its pack, its seed, its items.
fn check_round(conn: &Connection, new: &NewScore) -> Result<(), StoreError> {
    let refused = |what: &str| {
        let NewScore { era_id, round, .. } = new;
        Err(StoreError::Invalid(format!(
            "score of round {round} in era {era_id}: {what}"
        )))
    };
    let Some(round) = rounds::find(conn, &new.era_id, new.round)? else {
        return refused("the store knows no such round");
    };
    if round.pack_digest != new.inputs.pack_digest {
        return refused("the round's items came from another pack");
    }
    if hex::encode(round.seed) != new.inputs.seed {
        return refused("the round was drawn with another seed");
    }
    let drawn: HashSet<&String> = round.items.iter().collect();
    if new.items.iter().any(|(item, _)| !drawn.contains(item)) {
        return refused("it has items that were not drawn");
    }
    Ok(())
}

/// Writes a score and its items. Called by the one that ended the lease in the same transaction.
pub(super) fn insert(
    conn: &Connection,
    submission: SubmissionId,
    new: &NewScore,
    now_ms: u64,
) -> Result<ScoreId, StoreError> {
    check(new)?;
    check_tensors(conn, submission, &new.inputs)?;
    check_round(conn, new)?;
    let inputs = &new.inputs;
    let n = u64::try_from(new.items.len()).unwrap_or(u64::MAX);
    let id: i64 = conn
        .prepare_cached(
            "INSERT INTO scores (submission_id, era_id, round, value, standard_error, n, gates, \
             image_id, runner, engine, pack_digest, seed, judge_id, prompt_version, \
             tensor_digest, replies_digest, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
             ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) RETURNING id",
        )?
        .query_row(
            params![
                submission.0,
                new.era_id,
                int(new.round.0)?,
                new.value,
                new.standard_error,
                int(n)?,
                to_json(&new.gates, GATES_LIMIT)?,
                inputs.image_id,
                inputs.runner,
                inputs.engine,
                inputs.pack_digest,
                inputs.seed,
                inputs.judge_id,
                inputs.prompt_version,
                inputs.tensor_digest,
                inputs.replies_digest,
                int(now_ms)?,
            ],
            |row| row.get(0),
        )?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO item_scores (score_id, item, value, reply_chars, reference_chars, anchor) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (name, item) in &new.items {
        let anchor = item.bucket == Bucket::Anchor;
        let (reply, reference) = item.lengths.map(|l| (l.reply, l.reference)).unzip();
        insert.execute(params![id, name, item.value, reply, reference, anchor])?;
    }
    Ok(ScoreId(id))
}

/// The newest score of a submission in an era; the index `scores_latest` answers it.
const LATEST: &str = "SELECT l.id FROM scores l WHERE l.era_id = ?1 \
     AND l.submission_id = s.submission_id ORDER BY l.round DESC, l.id DESC LIMIT 1";

fn scored(conn: &Connection, era_id: &str) -> Result<Vec<Scored>, StoreError> {
    let sql = format!("SELECT s.* FROM scores s WHERE s.era_id = ?1 AND s.id = ({LATEST})");
    let mut query = conn.prepare_cached(&sql)?;
    let scores: Vec<Score> = query
        .query_map([era_id], Score::from_row)?
        .collect::<Result<_, _>>()?;
    let mut all = Vec::with_capacity(scores.len());
    for score in scores {
        let submission = submissions::find(conn, score.submission)?;
        if submission.rejection.is_none() {
            all.push(Scored { submission, score });
        }
    }
    all.sort_by_key(|s| (s.submission.commit_block, s.submission.hotkey));
    Ok(all)
}

pub(super) fn of(
    conn: &Connection,
    id: SubmissionId,
    limit: u32,
) -> Result<Vec<Score>, StoreError> {
    let sql = "SELECT * FROM scores WHERE submission_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map(params![id.0, limit], Score::from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn paired(
    conn: &Connection,
    first: ScoreId,
    second: ScoreId,
) -> Result<Vec<PairedItem>, StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT a.item, a.value AS first, b.value AS second FROM item_scores a \
         JOIN item_scores b ON b.item = a.item \
         WHERE a.score_id = ?1 AND b.score_id = ?2 ORDER BY a.item",
    )?;
    let rows = query.query_map([first.0, second.0], |row| {
        Ok(PairedItem {
            item: row.get("item")?,
            first: row.get("first")?,
            second: row.get("second")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Reader {
    /// All submissions with a score in an era, each with its latest one, in order of commitment
    /// (ties by hotkey bytes). Rejected submissions are left out; parked ones and those being scored
    /// again keep their last score.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn scored(&self, era_id: &str) -> Result<Vec<Scored>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| scored(conn, &era_id)).await
    }

    /// One score; `None` for an unknown number.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn score(&self, id: ScoreId) -> Result<Option<Score>, StoreError> {
        self.read(move |conn| {
            let mut query = conn.prepare_cached("SELECT * FROM scores WHERE id = ?1")?;
            Ok(query.query_row([id.0], Score::from_row).optional()?)
        })
        .await
    }

    /// The values of one score by item id, ordered by item id.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn item_scores(&self, id: ScoreId) -> Result<Vec<(String, f64)>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT item, value FROM item_scores WHERE score_id = ?1 ORDER BY item";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map([id.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The items that two scores have in common, with both values, ordered by item id.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn paired_items(
        &self,
        first: ScoreId,
        second: ScoreId,
    ) -> Result<Vec<PairedItem>, StoreError> {
        self.read(move |conn| paired(conn, first, second)).await
    }
}
