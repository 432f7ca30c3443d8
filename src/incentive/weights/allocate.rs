//! Shares of hotkeys → weights of uids.

use super::{WeightError, WeightVector};
use crate::bittensor::{SubnetSnapshot, Uid};
use crate::incentive::era::Era;
use crate::incentive::ranking::Ranking;
use std::collections::BTreeMap;

/// The weights that `ranking` earns at this snapshot. Hotkeys are looked up here and now: one that
/// is gone, or registered anew after its commitment, is dropped and leaves its share to the others.
/// The era's burn share goes to the subnet owner's uid; everything does when no contender is left.
///
/// # Errors
/// [`WeightError`]: the owner holds no uid although something is to be burnt, or the subnet's
/// largest weight cannot be kept with so few entries.
pub fn allocate(
    ranking: &Ranking,
    snapshot: &SubnetSnapshot,
    era: &Era,
) -> Result<WeightVector, WeightError> {
    fitted(
        &shares_by_uid(ranking, snapshot, era.incentive.burn_share)?,
        snapshot,
    )
}

/// Everything to the subnet owner's uid.
///
/// # Errors
/// As [`allocate`].
pub fn burn(snapshot: &SubnetSnapshot) -> Result<WeightVector, WeightError> {
    fitted(
        &shares_by_uid(&Ranking::default(), snapshot, 1.0)?,
        snapshot,
    )
}

/// The shares as the subnet's limits want them.
pub(super) fn fitted(
    shares: &[(Uid, f64)],
    snapshot: &SubnetSnapshot,
) -> Result<WeightVector, WeightError> {
    let parameters = &snapshot.hyperparameters;
    let mut vector = limited(shares, parameters.max_weights_limit)?;
    let neurons = snapshot.metagraph.neurons().len();
    let shortest = usize::from(parameters.min_allowed_weights).min(neurons);
    vector.pad(shortest, neurons);
    Ok(vector)
}

fn shares_by_uid(
    ranking: &Ranking,
    snapshot: &SubnetSnapshot,
    burn_share: f64,
) -> Result<Vec<(Uid, f64)>, WeightError> {
    let mut shares: BTreeMap<Uid, f64> = BTreeMap::new();
    for place in ranking.places.iter().filter(|p| p.share > 0.0) {
        let neuron = snapshot.metagraph.by_hotkey(&place.hotkey);
        if let Some(neuron) = neuron.filter(|n| n.registered_at <= place.commit_block) {
            *shares.entry(neuron.uid).or_default() += place.share;
        }
    }
    let total: f64 = shares.values().sum();
    let burn = if total > 0.0 { burn_share } else { 1.0 };
    for share in shares.values_mut() {
        *share *= (1.0 - burn) / total;
    }
    if burn > 0.0 {
        let owner = snapshot.owner_hotkey;
        let neuron = snapshot.metagraph.by_hotkey(&owner);
        let uid = neuron.ok_or(WeightError::OwnerNotRegistered(owner))?.uid;
        *shares.entry(uid).or_default() += burn;
    }
    Ok(shares.into_iter().filter(|(_, s)| *s > 0.0).collect())
}

/// The vector in which no entry's part exceeds `limit / 65535`; 65535 means no limit.
fn limited(shares: &[(Uid, f64)], limit: u16) -> Result<WeightVector, WeightError> {
    if limit == u16::MAX {
        return WeightVector::from_shares(shares);
    }
    let cap = f64::from(limit) / f64::from(u16::MAX);
    // Rounding to u16 can lift an entry over the cap that it was clipped to; a cap a little lower
    // makes room for that, and equal parts are the last resort of a cap that leaves none.
    let equal = shares.iter().map(|(uid, _)| (*uid, 1.0)).collect();
    let attempts = [clip(shares, cap), clip(shares, cap * 0.9999), Some(equal)];
    for attempt in attempts.into_iter().flatten() {
        let vector = WeightVector::from_shares(&attempt)?;
        if vector.within_limit(limit) {
            return Ok(vector);
        }
    }
    Err(WeightError::MaxWeightExceeded {
        entries: shares.len(),
        limit,
    })
}

/// Cuts shares at `cap` and gives what is cut to the others in proportion, until none exceeds it;
/// `None` when so few shares cannot.
fn clip(shares: &[(Uid, f64)], cap: f64) -> Option<Vec<(Uid, f64)>> {
    let mut capped = vec![false; shares.len()];
    let mut clipped = shares.to_vec();
    // Each turn caps at least one more share, or ends.
    for _ in 0..=shares.len() {
        let (mut left, mut free) = (1.0, 0.0);
        for ((_, share), is_capped) in shares.iter().zip(&capped) {
            if *is_capped {
                left -= cap;
            } else {
                free += share;
            }
        }
        let mut settled = true;
        for (index, (_, share)) in shares.iter().enumerate() {
            let scaled = if free > 0.0 { share / free * left } else { 0.0 };
            clipped[index].1 = if capped[index] { cap } else { scaled };
            if !capped[index] && scaled > cap {
                capped[index] = true;
                settled = false;
            }
        }
        if settled {
            // All shares capped and something left over: the cap is too low for so few.
            return (free > 0.0 || left <= 1e-12).then_some(clipped);
        }
    }
    None
}
