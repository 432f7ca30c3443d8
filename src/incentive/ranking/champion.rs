//! The champion rule: a title that passes only to what is better by more than luck and a margin.

use super::compare::compare;
use super::field::Runner;
use super::{Challenge, Place, Ranking};
use crate::bittensor::{BlockNumber, Hotkey};
use crate::incentive::era::{ChampionRule, Era, RunnersUp};
use crate::incentive::statistics::{count, mean_and_error, normal_quantile};

/// Standard errors within which a result is too close: a duel decides, where one was held.
const CLOSE: f64 = 2.0;

/// What every fight of one ranking shares.
struct Ring<'a> {
    rule: &'a ChampionRule,
    era: &'a Era,
    at: BlockNumber,
    runners: &'a [Runner<'a>],
}

/// Places by length-controlled score. The title is fought for in order of seniority, so that a copy,
/// which is younger, has to beat its original by the margin. Nothing but the present evidence
/// decides: two nodes with the same scores agree, and a restart changes nothing.
pub(super) fn rank(
    by_seniority: &[Runner<'_>],
    rule: &ChampionRule,
    era: &Era,
    at: BlockNumber,
) -> Ranking {
    let Some((first, challengers)) = by_seniority.split_first() else {
        return Ranking::default();
    };
    let ring = Ring {
        rule,
        era,
        at,
        runners: by_seniority,
    };
    let mut holders = vec![first];
    let mut z = ring.critical_value(first);
    for challenger in challengers {
        let holder = holders[holders.len() - 1];
        if ring.challenge(challenger, holder, z).wins() {
            holders.push(challenger);
            z = ring.critical_value(challenger);
        }
    }
    let champion = holders[holders.len() - 1];
    let held = |runner: &Runner<'_>| holders.iter().any(|holder| std::ptr::eq(*holder, runner));
    let mut places: Vec<Place> = by_seniority
        .iter()
        .map(|runner| Place {
            challenge: (!std::ptr::eq(runner, champion)).then(|| {
                let fight = ring.challenge(runner, champion, z);
                // A title won in one round has to last: whom it was taken from is scored again, too,
                // until as many rounds are pooled as ever are.
                let open = fight.open || (fight.unpooled && held(runner));
                Challenge { open, ..fight }
            }),
            ..runner.place()
        })
        .collect();
    // Stable, so seniority decides ties.
    places.sort_by(|a, b| b.controlled.value.total_cmp(&a.controlled.value));
    let former = holders.iter().rev().map(|runner| runner.contender.hotkey);
    give_shares(&mut places, rule, &former.collect::<Vec<_>>());
    Ranking {
        places,
        champion: Some(champion.contender.hotkey),
    }
}

/// The first share goes to the champion, the others to the runners-up. `holders`: everyone who held
/// the title, the champion first.
fn give_shares(places: &mut [Place], rule: &ChampionRule, holders: &[Hotkey]) {
    let mut paid = holders.to_vec();
    if rule.runners_up == RunnersUp::Score {
        paid.truncate(1);
        let rest = places.iter().filter(|p| p.challenge.is_some());
        paid.extend(rest.map(|p| p.hotkey));
    }
    let total: f64 = rule.shares.iter().take(paid.len()).sum();
    for (hotkey, share) in paid.iter().zip(&rule.shares) {
        for place in places.iter_mut().filter(|p| p.hotkey == *hotkey) {
            place.share = share / total;
        }
    }
}

impl Ring<'_> {
    /// The critical value that all challengers of `holder` share. Only those that may be better count:
    /// what is plainly worse wins by no luck, and must not raise the bar for the others.
    fn critical_value(&self, holder: &Runner<'_>) -> f64 {
        let pool = self.era.incentive.evidence.proof_rounds;
        let z = self.era.scoring.early_stop.futility_z;
        let hopeful = self.runners.iter().filter(|runner| {
            let difference = compare(runner, holder, pool);
            !std::ptr::eq(*runner, holder)
                && difference.mean + luck(z, difference.standard_error) >= 0.0
        });
        critical_value(self.rule, hopeful.count())
    }

    fn challenge(&self, challenger: &Runner<'_>, champion: &Runner<'_>, z: f64) -> Challenge {
        let pool = self.era.incentive.evidence.proof_rounds;
        let difference = compare(challenger, champion, pool);
        let near = challenger
            .contender
            .near
            .contains(&champion.contender.hotkey);
        let margin = self.rule.margin(self.at.since(champion.contender.since))
            * if near {
                self.era.copies.near_margin
            } else {
                1.0
            };
        let tries = self.era.incentive.evidence.pool_rounds;
        let error = difference.standard_error;
        let close = difference.mean.abs() < CLOSE * error;
        let stop = &self.era.scoring.early_stop;
        let hopeful = difference.mean + luck(stop.futility_z, error) >= margin;
        Challenge {
            lead: difference.mean,
            standard_error: error,
            paired: !difference.items.is_empty(),
            margin,
            needed: margin + luck(z, error),
            open: hopeful && count(difference.rounds) < f64::from(tries),
            unpooled: count(difference.rounds) < f64::from(pool),
            near,
            duel: close
                .then(|| duel(challenger, champion, margin / 2.0, z))
                .flatten(),
            differences: difference.items,
        }
    }
}

/// The direct comparison over all its rounds: its lead over ½, and the lead that it needs, which is
/// `margin` and luck. `None` when none was held.
fn duel(challenger: &Runner<'_>, champion: &Runner<'_>, margin: f64, z: f64) -> Option<(f64, f64)> {
    let against = champion.contender.hotkey;
    let duels = challenger.contender.duels.iter();
    let values: Vec<f64> = duels
        .filter(|duel| duel.against == against)
        .flat_map(|duel| duel.values.iter().map(|value| value - 0.5))
        .collect();
    if values.is_empty() {
        return None;
    }
    let (lead, error) = mean_and_error(&values);
    Some((lead, margin + luck(z, error)))
}

/// `z × error`; an infinite error stays infinite also where z is 0.
fn luck(z: f64, standard_error: f64) -> f64 {
    if standard_error.is_finite() {
        z * standard_error
    } else {
        f64::INFINITY
    }
}

/// One-sided critical value for one of `challengers` tests that share the false win probability.
fn critical_value(rule: &ChampionRule, challengers: usize) -> f64 {
    let each = rule.false_win_probability / count(challengers.max(1));
    normal_quantile(1.0 - each).min(rule.z_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_decays_with_the_champions_age() {
        let rule = ChampionRule::default();
        assert!((rule.margin(0) - 0.02).abs() < 1e-12);
        assert!((rule.margin(25_200) - 0.0125).abs() < 1e-12);
        assert!((rule.margin(50_400) - 0.005).abs() < 1e-12);
        assert!((rule.margin(u64::MAX) - 0.005).abs() < 1e-12);
        let none = ChampionRule {
            margin_blocks: 0,
            ..rule
        };
        assert!((none.margin(0) - 0.005).abs() < 1e-12);
    }

    #[test]
    fn more_challengers_raise_the_bar_up_to_the_cap() {
        let rule = ChampionRule::default();
        for (challengers, want) in [
            (0, 2.3263),
            (1, 2.3263),
            (2, 2.5758),
            (5, 2.8782),
            (99, 3.0),
        ] {
            let z = critical_value(&rule, challengers);
            assert!((z - want).abs() < 1e-4, "{challengers}: {z}");
        }
    }
}
