//! What the answers hold, out of what the store gives.

use serde::Serialize;
use serde_json::{Value, json};

use crate::store::{
    Counts, QueueEntry, Reader, Scored, StoreError, Submission, SubmissionHistory, WeightEntry,
};

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
pub(super) fn history(history: &SubmissionHistory) -> Value {
    json!({
        "submission": submission(&history.submission),
        "events": value(&history.events),
        "job": value(&history.job),
        "scores": value(&history.scores),
        "faults": value(&history.faults),
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

/// Scores of one era, best first; of equal ones the earlier commitment first.
#[derive(Debug)]
pub(super) struct Leaderboard {
    pub(super) era: Option<String>,
    pub(super) leaders: Vec<Scored>,
}

impl Leaderboard {
    /// The board of `era`, or of the latest era that has scores.
    pub(super) async fn read(reader: &Reader, era: Option<String>) -> Result<Self, StoreError> {
        if let Some(era) = era {
            let scored = reader.scored(&era).await?;
            return Ok(Self::of(Some(era), scored));
        }
        let mut eras = reader.eras().await?;
        eras.sort_by_key(|era| std::cmp::Reverse(era.from_block));
        let latest = eras.first().map(|era| era.era_id.clone());
        for era in eras {
            let scored = reader.scored(&era.era_id).await?;
            if !scored.is_empty() {
                return Ok(Self::of(Some(era.era_id), scored));
            }
        }
        Ok(Self::of(latest, Vec::new()))
    }

    fn of(era: Option<String>, mut leaders: Vec<Scored>) -> Self {
        // The store gives them in order of commitment, and this sort keeps it among equals.
        leaders.sort_by(|a, b| b.score.value.total_cmp(&a.score.value));
        leaders.truncate(LEADERS_MAX);
        Self { era, leaders }
    }

    /// As JSON, each with its rank from 1.
    pub(super) fn to_json(&self) -> Value {
        let leaders = self.leaders.iter().zip(1u32..).map(|(scored, rank)| {
            json!({
                "rank": rank,
                "submission": submission(&scored.submission),
                "score": value(&scored.score),
            })
        });
        json!({ "era": self.era, "leaderboard": leaders.collect::<Vec<_>>() })
    }
}
