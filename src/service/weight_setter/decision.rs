//! Which vector this snapshot calls for, or why none.

use crate::bittensor::{BlockNumber, Hotkey, SubnetSnapshot};
use crate::incentive::ranking::{Contender, Ranking, rank, registered};
use crate::incentive::score::ItemScores;
use crate::incentive::weights::{WeightVector, allocate};
use crate::incentive::{Era, era_at};
use crate::store::{Counts, Scored, Status, Store, StoreError};
use std::collections::HashMap;

/// What to do with the weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Set these.
    Set {
        /// The vector.
        vector: WeightVector,
        /// Why, one sentence.
        reason: String,
    },
    /// Leave what is on chain.
    Hold(String),
}

/// Gathers the era's scores and decides.
pub(super) async fn decide(
    store: &Store,
    eras: &[Era],
    snapshot: &SubnetSnapshot,
) -> Result<Decision, StoreError> {
    let Some(era) = era_at(eras, snapshot.at.number) else {
        return Ok(Decision::Hold("no era has begun".to_owned()));
    };
    let scored = store.reader().scored(&era.id().to_string()).await?;
    let counts = store.reader().counts().await?;
    if let Some(why) = wait(&scored, &counts, era, snapshot) {
        return Ok(Decision::Hold(why));
    }
    let mut contenders = Vec::new();
    for entry in latest_of_each(scored) {
        let items = store.reader().item_scores(entry.score.id).await?;
        let items = ItemScores::new(items).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let (hotkey, commit_block) = (entry.submission.hotkey, entry.submission.commit_block);
        contenders.push(Contender {
            hotkey,
            commit_block,
            items,
        });
    }
    let contenders = registered(contenders, &snapshot.metagraph);
    let ranking = rank(&contenders, &era.incentive.ranking, snapshot.at.number);
    Ok(match allocate(&ranking, snapshot, era) {
        Ok(vector) => Decision::Set {
            vector,
            reason: reason(&ranking, era),
        },
        Err(error) => Decision::Hold(error.to_string()),
    })
}

/// Why nothing is decided yet. In an era's first two rounds every candidate is waited for, so that a
/// start or a new era does not reward whoever happens to be scored first; later the last scores
/// count as they are.
fn wait(
    scored: &[Scored],
    counts: &Counts,
    era: &Era,
    snapshot: &SubnetSnapshot,
) -> Option<String> {
    let count = |status: &Status| counts.by_status.get(status).copied().unwrap_or(0);
    let open: u64 = Status::ALL
        .iter()
        .filter(|s| !is_decided(**s))
        .map(count)
        .sum();
    let known: u64 = Status::ALL.iter().map(count).sum();
    let young = era
        .from_block
        .plus(era.scoring.round_blocks.saturating_mul(2));
    if known < u64::try_from(snapshot.commitments.len()).unwrap_or(u64::MAX) {
        return Some("commitments on chain are not recorded yet".to_owned());
    }
    if open > 0 && (scored.is_empty() || snapshot.at.number < young) {
        return Some(format!("{open} submissions of the era are not decided yet"));
    }
    None
}

fn is_decided(status: Status) -> bool {
    matches!(status, Status::Scored | Status::Rejected | Status::Parked)
}

/// For each hotkey its latest scored commitment: it keeps earning while a newer one is scored.
fn latest_of_each(scored: Vec<Scored>) -> Vec<Scored> {
    let mut latest: HashMap<Hotkey, Scored> = HashMap::new();
    for entry in scored {
        let block = |s: &Scored| -> BlockNumber { s.submission.commit_block };
        let newer = latest
            .get(&entry.submission.hotkey)
            .is_none_or(|kept| block(kept) < block(&entry));
        if newer {
            latest.insert(entry.submission.hotkey, entry);
        }
    }
    latest.into_values().collect()
}

fn reason(ranking: &Ranking, era: &Era) -> String {
    let burn = era.incentive.burn_share;
    match (ranking.champion, ranking.places.len()) {
        (_, 0) => "no contender: everything goes to the subnet owner's uid".to_owned(),
        (Some(champion), n) => format!("champion {champion} of {n} contenders, burn share {burn}"),
        (None, n) => format!("win rates of {n} contenders, burn share {burn}"),
    }
}
