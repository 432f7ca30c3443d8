//! The origin's rule: share of pairwise wins, then a softmax.

use super::field::Runner;
use super::{Place, Ranking};
use crate::incentive::era::WinRateRule;
use crate::incentive::origin::{compute_wins, softmax};

/// Places by win rate, then score. A contender beats another when its score is the larger one after
/// the newer model's was multiplied by the rule's factor; commitments of one block are not
/// weighted; equal values are no win for either. A lone contender takes everything.
pub(super) fn rank(by_seniority: &[Runner<'_>], rule: &WinRateRule) -> Ranking {
    let mut places: Vec<Place> = by_seniority.iter().map(Runner::place).collect();
    let models: Vec<(f64, u64)> = by_seniority
        .iter()
        .map(|runner| (runner.score.value, runner.contender.since.0))
        .collect();
    let rates = compute_wins(&models, rule.newer_factor);
    let shares = softmax(&rates, rule.temperature);
    for ((place, rate), share) in places.iter_mut().zip(rates).zip(shares) {
        place.win_rate = Some(rate);
        place.share = share;
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
