//! The origin's rule: share of pairwise wins, then a softmax.

use super::{Contender, Place, Ranking, place};
use crate::incentive::era::WinRateRule;
use crate::incentive::score::count;

/// Places by win rate, then score. A contender beats another when its score is the larger one after
/// the newer model's was multiplied by the rule's factor; commitments of one block are not
/// weighted; equal values are no win for either. A lone contender takes everything.
pub(super) fn rank(by_seniority: &[&Contender], rule: &WinRateRule) -> Ranking {
    let mut places: Vec<Place> = by_seniority.iter().map(|c| place(c)).collect();
    let comparisons = count(places.len().saturating_sub(1).max(1));
    let rates: Vec<f64> = places
        .iter()
        .map(|a| {
            let wins = places.iter().filter(|b| beats(a, b, rule.newer_factor));
            count(wins.count()) / comparisons
        })
        .collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    // Shifted by the best rate, which cancels out, so that no exponent overflows.
    let powers: Vec<f64> = rates
        .iter()
        .map(|rate| ((rate - best) / rule.temperature).exp())
        .collect();
    let total: f64 = powers.iter().sum();
    for ((place, rate), power) in places.iter_mut().zip(rates).zip(powers) {
        place.win_rate = Some(rate);
        place.share = power / total;
    }
    // Stable, so seniority decides ties.
    places.sort_by(|a, b| {
        let by_rate = b.share.total_cmp(&a.share);
        by_rate.then(b.score.value.total_cmp(&a.score.value))
    });
    Ranking {
        places,
        champion: None,
    }
}

fn beats(a: &Place, b: &Place, newer_factor: f64) -> bool {
    let weighted = |mine: &Place, other: &Place| {
        if mine.commit_block > other.commit_block {
            mine.score.value * newer_factor
        } else {
            mine.score.value
        }
    };
    weighted(a, b) > weighted(b, a)
}
