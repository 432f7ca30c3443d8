//! What a ranking is made from: an era's scores with their items. And the ranking that was made.

use super::columns::{block, hotkey, int, json, to_json};
use super::error::StoreError;
use super::ids::{ScoreId, SubmissionId};
use super::scores::Score;
use super::submissions::{self, Submission};
use super::{Reader, Store, titles};
use crate::bittensor::{BlockNumber, Hotkey, RoundNumber};
use crate::incentive::score::{Bucket, ItemScore, Lengths};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

/// Bytes of JSON of one ranking.
const STANDING_LIMIT: usize = 1024 * 1024;

/// What a submission showed in an era.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Whose.
    pub submission: Submission,
    /// Block in which the hotkey first committed the same tensors.
    pub since: BlockNumber,
    /// Its rounds, oldest first; of several scores of one round the last recorded.
    pub rounds: Vec<(RoundNumber, Vec<(String, ItemScore)>)>,
    /// Elder submissions' hotkeys that it is near to.
    pub near: Vec<Hotkey>,
    /// The latest round that began with its hotkey and tensors as the champion.
    pub held: Option<RoundNumber>,
}

/// A ranking that was kept to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The snapshot's block.
    pub block: BlockNumber,
    /// The ranking, as JSON.
    pub ranking: Value,
}

fn item(row: &Row<'_>) -> Result<(String, ItemScore), rusqlite::Error> {
    let reply: Option<u32> = row.get("reply_chars")?;
    let reference: Option<u32> = row.get("reference_chars")?;
    let lengths = reply.zip(reference);
    let anchor: bool = row.get("anchor")?;
    let score = ItemScore {
        value: row.get("value")?,
        lengths: lengths.map(|(reply, reference)| Lengths { reply, reference }),
        bucket: if anchor {
            Bucket::Anchor
        } else {
            Bucket::Fresh
        },
    };
    Ok((row.get("item")?, score))
}

fn items(conn: &Connection, id: ScoreId) -> Result<Vec<(String, ItemScore)>, StoreError> {
    let sql = "SELECT * FROM item_scores WHERE score_id = ?1 ORDER BY item";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map([id.0], item)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The last score of each submission and round, among the era's newest rounds with scores.
fn newest(conn: &Connection, era_id: &str, rounds: u32) -> Result<Vec<Score>, StoreError> {
    let sql = "SELECT * FROM scores WHERE id IN (SELECT MAX(id) FROM scores WHERE era_id = ?1 \
         AND round IN (SELECT DISTINCT round FROM scores WHERE era_id = ?1 \
         ORDER BY round DESC LIMIT ?2) GROUP BY submission_id, round) \
         ORDER BY submission_id, round";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map(params![era_id, rounds], Score::from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn since(conn: &Connection, of: &Submission) -> Result<BlockNumber, StoreError> {
    let sql = "SELECT MIN(commit_block) AS first FROM submissions \
         WHERE hotkey = ?1 AND tensor_digest = ?2 AND status <> 'rejected'";
    let mut query = conn.prepare_cached(sql)?;
    let first: Option<i64> = query.query_row(params![of.hotkey.0, of.tensor_digest], |row| {
        row.get("first")
    })?;
    let first = first.and_then(|first| u64::try_from(first).ok());
    Ok(first.map_or(of.commit_block, BlockNumber))
}

fn near(conn: &Connection, id: SubmissionId) -> Result<Vec<Hotkey>, StoreError> {
    let sql = "SELECT DISTINCT hotkey FROM likenesses JOIN submissions ON id = elder_id \
         WHERE submission_id = ?1 AND kinship = 'near' ORDER BY hotkey";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map([id.0], |row| hotkey(row, "hotkey"))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn shown(conn: &Connection, era_id: &str, rounds: u32) -> Result<Vec<Shown>, StoreError> {
    let mut all: Vec<Shown> = Vec::new();
    for score in newest(conn, era_id, rounds)? {
        if all
            .last()
            .is_none_or(|last| last.submission.id != score.submission)
        {
            let submission = submissions::find(conn, score.submission)?;
            all.push(Shown {
                since: since(conn, &submission)?,
                near: near(conn, submission.id)?,
                held: titles::held(conn, era_id, &submission)?,
                submission,
                rounds: Vec::new(),
            });
        }
        if let Some(last) = all.last_mut() {
            last.rounds.push((score.round, items(conn, score.id)?));
        }
    }
    all.retain(|shown| shown.submission.rejection.is_none());
    Ok(all)
}

impl Store {
    /// Keeps an era's newest ranking, to be shown; the former one is replaced.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an era that the store does not know or more than 1 MiB.
    pub async fn put_standing(
        &self,
        era_id: String,
        standing: Standing,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let put = move |conn: &Connection| {
            conn.prepare_cached(
                "INSERT INTO standings (era_id, block, ranking, updated_ms) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (era_id) DO UPDATE SET block = excluded.block, \
                 ranking = excluded.ranking, updated_ms = excluded.updated_ms",
            )?
            .execute(params![
                era_id,
                int(standing.block.0)?,
                to_json(&standing.ranking, STANDING_LIMIT)?,
                int(now_ms)?
            ])?;
            Ok(())
        };
        self.writer.call(put).await
    }
}

impl Reader {
    /// What every submission of an era showed in the newest `rounds` rounds that have scores, in
    /// order of recording. Rejected submissions are left out; parked ones and those being scored
    /// again keep what they have.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn shown(&self, era_id: &str, rounds: u32) -> Result<Vec<Shown>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| shown(conn, &era_id, rounds)).await
    }

    /// Number of the newest score; `None` before the first. It moves whenever a ranking may.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn newest_score(&self) -> Result<Option<ScoreId>, StoreError> {
        self.read(|conn| {
            let newest: Option<i64> =
                conn.query_row("SELECT MAX(id) FROM scores", [], |row| row.get(0))?;
            Ok(newest.map(ScoreId))
        })
        .await
    }

    /// The kept ranking of an era; `None` before the first.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn standing(&self, era_id: &str) -> Result<Option<Standing>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| {
            let mut query = conn.prepare_cached("SELECT * FROM standings WHERE era_id = ?1")?;
            let standing = query.query_row([&era_id], |row| {
                Ok(Standing {
                    block: block(row, "block")?,
                    ranking: json(row, "ranking")?,
                })
            });
            Ok(standing.optional()?)
        })
        .await
    }

    /// Ids of an era's submissions that were scored in `round`.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn scored_in(
        &self,
        era_id: &str,
        round: RoundNumber,
    ) -> Result<Vec<SubmissionId>, StoreError> {
        let era_id = era_id.to_owned();
        self.read(move |conn| {
            let sql = "SELECT DISTINCT submission_id FROM scores WHERE era_id = ?1 AND round = ?2";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map(params![era_id, int(round.0)?], |row| {
                Ok(SubmissionId(row.get("submission_id")?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
