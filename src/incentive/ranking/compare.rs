//! The difference between two models, with its uncertainty.

use super::Place;
use super::field::{Runner, Valued};
use crate::bittensor::RoundNumber;
use crate::incentive::era::EvidenceRules;
use crate::incentive::statistics::{Z_95, count, mean_and_error};
use std::collections::BTreeSet;

/// Mean difference of two models.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    /// First minus second.
    pub(super) mean: f64,
    /// Its standard error; infinite when nothing can be concluded.
    pub(super) standard_error: f64,
    /// Item by item, in the order of rounds and ids; empty when they answered other items.
    pub(super) items: Vec<f64>,
    /// Rounds that both were scored in, among the pooled ones.
    pub(super) rounds: usize,
}

/// Item by item over the newest `pool` rounds that both were scored in: the items' difficulty
/// cancels out. Where they share less than half of the smaller one's items there, the means over
/// all items are compared, and their errors add.
pub(super) fn compare(first: &Runner<'_>, second: &Runner<'_>, pool: u32) -> Difference {
    let rounds = common_rounds(first, second, pool);
    let of_both = |runner: &Runner<'_>| {
        let wanted = runner.items.iter().filter(|i| rounds.contains(&i.round));
        wanted.count()
    };
    let items = differences(&first.items, &second.items, &rounds);
    if !items.is_empty() && items.len() * 2 >= of_both(first).min(of_both(second)) {
        let (mean, standard_error) = over_rounds(&items);
        let items: Vec<f64> = items
            .into_iter()
            .map(|(_, difference)| difference)
            .collect();
        return Difference {
            mean,
            standard_error,
            items,
            rounds: rounds.len(),
        };
    }
    let (a, b) = (first.controlled, second.controlled);
    Difference {
        mean: a.value - b.value,
        standard_error: a.standard_error.hypot(b.standard_error),
        items: Vec::new(),
        rounds: 0,
    }
}

/// Mean over rounds, each weighted alike, and its standard error. Weighted by items, a round in which
/// judging stopped early because it went badly would count less than one that went well.
fn over_rounds(items: &[(RoundNumber, f64)]) -> (f64, f64) {
    let (mut mean, mut variance, mut rounds) = (0.0, 0.0, 0usize);
    for round in items.chunk_by(|a, b| a.0 == b.0) {
        let values: Vec<f64> = round.iter().map(|(_, difference)| *difference).collect();
        let (of_round, error) = mean_and_error(&values);
        mean += of_round;
        variance += error * error;
        rounds += 1;
    }
    let n = count(rounds.max(1));
    (mean / n, variance.sqrt() / n)
}

fn common_rounds(first: &Runner<'_>, second: &Runner<'_>, pool: u32) -> BTreeSet<RoundNumber> {
    let of = |runner: &Runner<'_>| -> BTreeSet<RoundNumber> {
        runner.items.iter().map(|item| item.round).collect()
    };
    let pool = usize::try_from(pool).unwrap_or(usize::MAX);
    let both: Vec<RoundNumber> = of(first).intersection(&of(second)).copied().collect();
    both.into_iter().rev().take(pool).collect()
}

/// Walks both lists, which have the same order, once.
fn differences(
    first: &[Valued<'_>],
    second: &[Valued<'_>],
    rounds: &BTreeSet<RoundNumber>,
) -> Vec<(RoundNumber, f64)> {
    let mut found = Vec::new();
    let mut others = second.iter().peekable();
    for item in first {
        let key = (item.round, item.id);
        while others
            .next_if(|other| (other.round, other.id) < key)
            .is_some()
        {}
        let same = others.next_if(|other| (other.round, other.id) == key);
        if let Some(other) = same.filter(|_| rounds.contains(&item.round)) {
            found.push((item.round, item.value - other.value));
        }
    }
    found
}

/// Numbers the groups of places that are statistically tied: a place belongs to the group whose
/// first place is not better than it by more than 1.96 standard errors.
pub(super) fn group(places: &mut [Place], runners: &[Runner<'_>], rules: &EvidenceRules) {
    let runner = |place: &Place| runners.iter().find(|r| r.contender.hotkey == place.hotkey);
    let (mut first, mut number) = (0, 0);
    for i in 0..places.len() {
        let tied = i > 0
            && runner(&places[first])
                .zip(runner(&places[i]))
                .is_some_and(|(best, this)| {
                    let difference = compare(best, this, rules.proof_rounds);
                    // Written so that an infinite error ties.
                    difference.mean <= Z_95 * difference.standard_error
                });
        if !tied {
            (first, number) = (i, number + 1);
        }
        places[i].group = number;
    }
}
