//! Which vector this snapshot calls for, or why none.

use crate::bittensor::SubnetSnapshot;
use crate::incentive::ranking::Ranking;
use crate::incentive::weights::{WeightVector, allocate};
use crate::incentive::{Era, era_at};
use crate::service::standing;
use crate::store::{Counts, Status, Store, StoreError};

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
    let counts = store.reader().counts().await?;
    let standing =
        standing::read(store.reader(), era, &snapshot.metagraph, snapshot.at.number).await?;
    let ranking = standing.ranking;
    if let Some(why) = wait(&ranking, &counts, era, snapshot) {
        return Ok(Decision::Hold(why));
    }
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
    ranking: &Ranking,
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
    if open > 0 && (ranking.places.is_empty() || snapshot.at.number < young) {
        return Some(format!("{open} submissions of the era are not decided yet"));
    }
    None
}

fn is_decided(status: Status) -> bool {
    matches!(status, Status::Scored | Status::Rejected | Status::Parked)
}

fn reason(ranking: &Ranking, era: &Era) -> String {
    let burn = era.incentive.burn_share;
    match (ranking.champion, ranking.places.len()) {
        (_, 0) => "no contender: everything goes to the subnet owner's uid".to_owned(),
        (Some(champion), n) => format!("champion {champion} of {n} contenders, burn share {burn}"),
        (None, n) => format!("win rates of {n} contenders, burn share {burn}"),
    }
}
