//! The champion rule: a title that passes only to what is better by more than luck and a margin.

use super::compare::{compare, normal_quantile};
use super::{Challenge, Contender, Place, Ranking, place};
use crate::bittensor::BlockNumber;
use crate::incentive::era::ChampionRule;
use crate::incentive::score::count;

/// Places by score. The title is fought for in order of seniority, so that a copy, which is
/// younger, has to beat its original by the margin.
pub(super) fn rank(by_seniority: &[&Contender], rule: &ChampionRule, at: BlockNumber) -> Ranking {
    let Some((first, challengers)) = by_seniority.split_first() else {
        return Ranking::default();
    };
    let z = critical_value(rule, challengers.len());
    let champion = challengers.iter().fold(*first, |holder, challenger| {
        let fight = challenge(challenger, holder, rule, z, at);
        if fight.lead > fight.needed {
            challenger
        } else {
            holder
        }
    });
    let mut places: Vec<Place> = by_seniority
        .iter()
        .map(|contender| Place {
            challenge: (contender.hotkey != champion.hotkey)
                .then(|| challenge(contender, champion, rule, z, at)),
            ..place(contender)
        })
        .collect();
    // Stable, so seniority decides ties.
    places.sort_by(|a, b| b.score.value.total_cmp(&a.score.value));
    give_shares(&mut places, &rule.shares);
    Ranking {
        places,
        champion: Some(champion.hotkey),
    }
}

/// The first share goes to the champion, the others to the best of the rest.
fn give_shares(places: &mut [Place], shares: &[f64]) {
    let total: f64 = shares.iter().take(places.len()).sum();
    let mut shares = shares.iter().map(|share| share / total);
    for is_champion in [true, false] {
        let of_kind = places
            .iter_mut()
            .filter(|p| p.challenge.is_none() == is_champion);
        for place in of_kind {
            place.share = shares.next().unwrap_or(0.0);
        }
    }
}

fn challenge(
    challenger: &Contender,
    champion: &Contender,
    rule: &ChampionRule,
    z: f64,
    at: BlockNumber,
) -> Challenge {
    let difference = compare(&challenger.items, &champion.items);
    let margin = margin(rule, at.since(champion.commit_block));
    Challenge {
        lead: difference.mean,
        standard_error: difference.standard_error,
        paired: difference.paired,
        margin,
        needed: margin + luck(z, difference.standard_error),
    }
}

/// `z × error`; an infinite error stays infinite also where z is 0.
fn luck(z: f64, standard_error: f64) -> f64 {
    if standard_error.is_finite() {
        z * standard_error
    } else {
        f64::INFINITY
    }
}

/// Falls linearly from `margin_start` to `margin_end` over `margin_blocks` of the champion's age.
fn margin(rule: &ChampionRule, age: u64) -> f64 {
    if age >= rule.margin_blocks {
        return rule.margin_end;
    }
    let part = blocks(age) / blocks(rule.margin_blocks);
    rule.margin_start + (rule.margin_end - rule.margin_start) * part
}

/// A number of blocks below 2³², which is 1,600 years of them.
fn blocks(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
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
        assert!((margin(&rule, 0) - 0.02).abs() < 1e-12);
        assert!((margin(&rule, 25_200) - 0.0125).abs() < 1e-12);
        assert!((margin(&rule, 50_400) - 0.005).abs() < 1e-12);
        assert!((margin(&rule, u64::MAX) - 0.005).abs() < 1e-12);
        let none = ChampionRule {
            margin_blocks: 0,
            ..rule
        };
        assert!((margin(&none, 0) - 0.005).abs() < 1e-12);
    }

    #[test]
    fn more_challengers_raise_the_bar_up_to_the_cap() {
        let rule = ChampionRule::default();
        for (challengers, want) in [
            (0, 1.6449),
            (1, 1.6449),
            (2, 1.9600),
            (10, 2.5758),
            (99, 3.0),
        ] {
            let z = critical_value(&rule, challengers);
            assert!((z - want).abs() < 1e-4, "{challengers}: {z}");
        }
    }
}
