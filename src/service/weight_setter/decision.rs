//! Which vector this snapshot calls for, or why none.

use crate::bittensor::epoch::WeightsWindow;
use crate::bittensor::{BlockNumber, SubnetSnapshot};
use crate::incentive::ranking::Ranking;
use crate::incentive::weights::{
    LastGood, StandIn, WeightError, WeightVector, allocate, burn, stand_in,
};
use crate::incentive::{Era, era_at};
use crate::service::standing;
use crate::store::{Counts, Scored, Status, Store, StoreError};

/// Scoring that is behind by fewer blocks than this is slow, not down: an hour on a chain of 12 s.
const LATE_BLOCKS: u64 = 300;

/// What to do with the weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Set these.
    Set(Chosen),
    /// Leave what is on chain.
    Hold(String),
}

/// A vector, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) vector: WeightVector,
    /// Why, one sentence.
    pub(super) reason: String,
    /// Block of the snapshot whose scores it follows; none: burnt for want of scores.
    pub(super) scored_block: Option<BlockNumber>,
    /// Whether scoring is down, so that this is not what fresh scores would give.
    pub(super) stands_in: bool,
}

/// What a decision needs beside the snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) store: &'a Store,
    pub(super) eras: &'a [Era],
    /// Blocks for which the last good weights stand in for scores.
    pub(super) last_good_blocks: u64,
    /// The window that is open.
    pub(super) window: &'a WeightsWindow,
}

/// Gathers the era's scores and decides. Where there are none, or none of late, scoring is down: the
/// last good weights stand in.
pub(super) async fn decide(
    terms: Terms<'_>,
    snapshot: &SubnetSnapshot,
) -> Result<Decision, StoreError> {
    let Some(era) = era_at(terms.eras, snapshot.at.number) else {
        return Ok(Decision::Hold("no era has begun".to_owned()));
    };
    let reader = terms.store.reader();
    let counts = reader.counts().await?;
    let standing = standing::read(reader, era, &snapshot.metagraph, snapshot.at.number).await?;
    let ranking = standing.ranking;
    if let Some(why) = wait(&ranking, &counts, era, snapshot) {
        return without_scores(terms, snapshot, why).await;
    }
    let scored = reader.scored(&era.id().to_string()).await?;
    let idle = blocks_without_score(&scored, era, snapshot.at.number);
    if idle > terms.last_good_blocks {
        let reason = format!("scoring is down: no score for {idle} blocks, so everything is burnt");
        return Ok(chosen(burn(snapshot), reason, None, true));
    }
    let stands_in = idle >= era.scoring.round_blocks.max(LATE_BLOCKS);
    let mut reason = reason(&ranking, era);
    if stands_in {
        reason =
            format!("scoring is down: no score for {idle} blocks, the last ones count: {reason}");
    }
    let vector = allocate(&ranking, snapshot, era);
    Ok(chosen(vector, reason, Some(snapshot.at.number), stands_in))
}

fn chosen(
    vector: Result<WeightVector, WeightError>,
    reason: String,
    scored_block: Option<BlockNumber>,
    stands_in: bool,
) -> Decision {
    match vector {
        Ok(vector) => Decision::Set(Chosen {
            vector,
            reason,
            scored_block,
            stands_in,
        }),
        Err(error) => Decision::Hold(error.to_string()),
    }
}

/// The last good weights in the second half of the window; in the first, scores may still come.
async fn without_scores(
    terms: Terms<'_>,
    snapshot: &SubnetSnapshot,
    why: String,
) -> Result<Decision, StoreError> {
    let WeightsWindow { opens, closes, .. } = *terms.window;
    if snapshot.at.number < opens.plus(closes.since(opens).div_ceil(2)) {
        return Ok(Decision::Hold(why));
    }
    let (netuid, mechanism) = (snapshot.metagraph.netuid(), snapshot.mechanism);
    let last = terms.store.reader().last_scored_weights(netuid, mechanism);
    let Some(entry) = last.await? else {
        return Ok(Decision::Hold(why));
    };
    let Some(scored_block) = entry.scored_block else {
        return Ok(Decision::Hold(why));
    };
    let last = LastGood {
        weights: &entry.weights,
        block: entry.block,
        scored_block,
    };
    Ok(match stand_in(&last, snapshot, terms.last_good_blocks) {
        Ok(StandIn::LastGood(vector)) => {
            let reason = format!("no scores ({why}): the weights of block {scored_block} again");
            chosen(Ok(vector), reason, Some(scored_block), true)
        }
        Ok(StandIn::Burn(vector)) => {
            let reason = format!(
                "no scores ({why}), and the weights of block {scored_block} are too old or have no \
                 target left: everything is burnt"
            );
            chosen(Ok(vector), reason, None, true)
        }
        Err(error) => Decision::Hold(error.to_string()),
    })
}

/// Blocks since the end of the newest round that has a score: 0 while rounds are scored as they
/// come, and where there is nothing that could be scored.
fn blocks_without_score(scored: &[Scored], era: &Era, now: BlockNumber) -> u64 {
    let Some(newest) = scored.iter().map(|s| s.score.round.0).max() else {
        return 0;
    };
    let rounds = newest.saturating_add(1);
    let end = era
        .from_block
        .plus(rounds.saturating_mul(era.scoring.round_blocks));
    now.since(end)
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
