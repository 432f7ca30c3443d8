//! What is sent while scoring gives nothing new: the last good weights for a bounded time, then a burn.

use super::allocate::{burn, fitted};
use super::{WeightError, WeightVector};
use crate::bittensor::{BlockNumber, SubnetSnapshot, Uid};

/// A vector that followed scores and was read back from chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastGood<'a> {
    /// The vector as it was decided.
    pub weights: &'a [(Uid, u16)],
    /// Block of the snapshot that its uids are of.
    pub block: BlockNumber,
    /// Block of the snapshot whose scores it follows; not after `block`.
    pub scored_block: BlockNumber,
}

/// What stands in for scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandIn {
    /// The last good weights, to the neurons that still hold their uids.
    LastGood(WeightVector),
    /// The last good weights are too old, or all their targets are gone: everything is burnt.
    Burn(WeightVector),
}

/// The vector for a time without scores. A uid that was registered anew since `last.block` belongs to
/// somebody else now and gets nothing; its share goes to the others. Older than `blocks_max` blocks,
/// counted from the scores, everything goes to the subnet owner.
///
/// # Errors
/// As [`super::allocate`].
pub fn stand_in(
    last: &LastGood<'_>,
    snapshot: &SubnetSnapshot,
    blocks_max: u64,
) -> Result<StandIn, WeightError> {
    if snapshot.at.number.since(last.scored_block) > blocks_max {
        return burn(snapshot).map(StandIn::Burn);
    }
    let same = |uid: Uid| {
        let neuron = snapshot.metagraph.by_uid(uid);
        neuron.is_some_and(|neuron| neuron.registered_at <= last.block)
    };
    let shares: Vec<(Uid, f64)> = last
        .weights
        .iter()
        .filter(|(uid, value)| *value > 0 && same(*uid))
        .map(|(uid, value)| (*uid, f64::from(*value)))
        .collect();
    if shares.is_empty() {
        return burn(snapshot).map(StandIn::Burn);
    }
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    let shares: Vec<_> = shares.iter().map(|(uid, s)| (*uid, s / sum)).collect();
    fitted(&shares, snapshot).map(StandIn::LastGood)
}
