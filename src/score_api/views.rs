//! What the answers hold, out of what the store gives.

use serde::Serialize;
use serde_json::{Value, json};

use crate::store::{
    Alike, Counts, QueueEntry, Reader, Scored, Standing, StoreError, Submission, SubmissionHistory,
    WeightEntry,
};
use std::collections::HashMap;

/// Longest leaderboard.
const LEADERS_MAX: usize = 500;

fn value(data: &impl Serialize) -> Value {
    // The store's types are plain data; the page of a client is not worth a panic.
    serde_json::to_value(data).unwrap_or(Value::Null)
}

/// A submission, with what its miner can do when it was rejected.
pub(super) fn submission(submission: &Submission) -> Value {
    let mut view = value(submission);
    if let Some(rejection) = &submission.rejection {
        view["rejection"]["advice"] = rejection.code.advice().into();
    }
    view
}

/// The whole path of one submission.
pub(super) fn history(history: &SubmissionHistory, alike: &[Alike]) -> Value {
    json!({
        "submission": submission(&history.submission),
        "events": value(&history.events),
        "job": value(&history.job),
        "scores": value(&history.scores),
        "faults": value(&history.faults),
        "likenesses": value(&alike),
    })
}

/// One page of submissions; `next` is the `before` of the page after it.
pub(super) fn submissions(page: &[Submission], limit: u32) -> Value {
    let full = u32::try_from(page.len()).is_ok_and(|n| n >= limit);
    json!({
        "submissions": page.iter().map(submission).collect::<Vec<_>>(),
        "next": page.last().filter(|_| full).map(|last| last.id),
    })
}

/// One page of weights decisions; `next` is the `before` of the page after it.
pub(super) fn weights(page: &[WeightEntry], limit: u32) -> Value {
    let full = u32::try_from(page.len()).is_ok_and(|n| n >= limit);
    json!({
        "weights": value(&page),
        "next": page.last().filter(|_| full).map(|last| last.id),
    })
}

/// One page of the queue.
pub(super) fn queue(page: &[QueueEntry]) -> Value {
    json!({ "queue": value(&page) })
}

/// Numbers of submissions.
pub(super) fn status(counts: &Counts) -> Value {
    json!({
        "service": "score-api",
        "version": env!("CARGO_PKG_VERSION"),
        "submissions": value(counts),
    })
}

/// Scores of one era. Those that the node's newest ranking places come first, in its order; the
/// others (expired, or of a hotkey that is gone) follow, best first, of equal ones the earlier
/// commitment first.
#[derive(Debug)]
pub(super) struct Leaderboard {
    pub(super) era: Option<String>,
    pub(super) leaders: Vec<Scored>,
    /// The ranking's view of each place by submission number, with `place` from 0.
    pub(super) places: HashMap<i64, Value>,
    /// Block that the ranking was made at.
    pub(super) ranked_at: Option<u64>,
}

impl Leaderboard {
    /// The board of `era`, or of the latest era that has scores.
    pub(super) async fn read(reader: &Reader, era: Option<String>) -> Result<Self, StoreError> {
        if let Some(era) = era {
            return Self::of(reader, era).await;
        }
        let mut eras = reader.eras().await?;
        eras.sort_by_key(|era| std::cmp::Reverse(era.from_block));
        let latest = eras.first().map(|era| era.era_id.clone());
        for era in eras {
            let board = Self::of(reader, era.era_id).await?;
            if !board.leaders.is_empty() {
                return Ok(board);
            }
        }
        Ok(Self {
            era: latest,
            leaders: Vec::new(),
            places: HashMap::new(),
            ranked_at: None,
        })
    }

    async fn of(reader: &Reader, era: String) -> Result<Self, StoreError> {
        let mut leaders = reader.scored(&era).await?;
        let standing = reader.standing(&era).await?;
        let places = standing.as_ref().map_or_else(HashMap::new, places);
        let place = |s: &Scored| {
            let place = places.get(&s.submission.id.0);
            place.map_or(u64::MAX, |p| p["place"].as_u64().unwrap_or(u64::MAX))
        };
        // The store gives them in order of commitment, and this sort keeps it among equals.
        leaders.sort_by(|a, b| {
            let by_place = place(a).cmp(&place(b));
            by_place.then(b.score.value.total_cmp(&a.score.value))
        });
        leaders.truncate(LEADERS_MAX);
        Ok(Self {
            era: Some(era),
            leaders,
            places,
            ranked_at: standing.map(|standing| standing.block.0),
        })
    }

    /// As JSON, each with its rank from 1.
    pub(super) fn to_json(&self) -> Value {
        let leaders = self.leaders.iter().zip(1u32..).map(|(scored, rank)| {
            json!({
                "rank": rank,
                "submission": submission(&scored.submission),
                "score": value(&scored.score),
                "standing": self.places.get(&scored.submission.id.0),
            })
        });
        json!({
            "era": self.era,
            "ranked_at_block": self.ranked_at,
            "leaderboard": leaders.collect::<Vec<_>>(),
        })
    }
}

/// The places of a kept ranking by submission.
fn places(standing: &Standing) -> HashMap<i64, Value> {
    let all = standing.ranking["places"].as_array();
    let numbered = all.into_iter().flatten().zip(0u32..);
    numbered
        .filter_map(|(place, number)| {
            let mut place = place.clone();
            let id = place["submission"].as_i64()?;
            place["place"] = number.into();
            Some((id, place))
        })
        .collect()
}
