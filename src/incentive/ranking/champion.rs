//! The champion rule: a title that passes only to what is better by more than luck and a margin.

use super::compare::compare;
use super::field::Runner;
use super::{Challenge, Place, Ranking};
use crate::bittensor::{BlockNumber, Hotkey, RoundNumber};
use crate::incentive::era::{ChampionRule, Era, EvidenceRules, RunnersUp};
use crate::incentive::statistics::{count, normal_quantile};
use std::collections::BTreeSet;

/// What every fight of one ranking shares.
struct Ring<'a> {
    rule: &'a ChampionRule,
    era: &'a Era,
    at: BlockNumber,
    runners: &'a [Runner<'a>],
    /// Whoever was scored in none of the rounds from this one on is through with its tries.
    tried_from: Option<RoundNumber>,
}

/// Who holds the title, and who held it.
struct Title<'a> {
    champion: &'a Runner<'a>,
    /// Those who held it lately, the champion among them; whoever wants it has to beat its elders
    /// among these.
    recent: Vec<&'a Runner<'a>>,
    /// Those whom it passed to in this ranking, in order.
    winners: Vec<&'a Runner<'a>>,
    /// The critical value of the champion's challengers.
    z: f64,
}

/// Places by length-controlled score, and the title. Nothing but the evidence and with whom each
/// round began decides: two nodes with the same scores agree, and a restart changes nothing.
pub(super) fn rank(
    by_seniority: &[Runner<'_>],
    rule: &ChampionRule,
    era: &Era,
    at: BlockNumber,
) -> Ranking {
    let Some(eldest) = by_seniority.first() else {
        return Ranking::default();
    };
    let rounds = scored_rounds(by_seniority);
    let rules = &era.incentive.evidence;
    let ring = Ring {
        rule,
        era,
        at,
        runners: by_seniority,
        tried_from: nth_newest(&rounds, rules.live_rounds.saturating_sub(rules.pool_rounds)),
    };
    let mut recent = recent_holders(by_seniority, &rounds, rules);
    if recent.is_empty() {
        recent.push(eldest);
    }
    let title = ring.title(recent);
    let mut places: Vec<Place> = by_seniority
        .iter()
        .map(|runner| Place {
            challenge: (!same(runner, title.champion)).then(|| {
                let fight = ring.challenge(runner, title.champion, title.z);
                let open = fight.open || title.recent.iter().any(|holder| same(holder, runner));
                Challenge { open, ..fight }
            }),
            ..runner.place()
        })
        .collect();
    // Stable, so seniority decides ties.
    places.sort_by(|a, b| b.controlled.value.total_cmp(&a.controlled.value));
    give_shares(&mut places, rule, &succession(by_seniority, &title));
    Ranking {
        places,
        champion: Some(title.champion.contender.hotkey),
    }
}

fn same(a: &Runner<'_>, b: &Runner<'_>) -> bool {
    a.contender.hotkey == b.contender.hotkey
}

fn scored_rounds(runners: &[Runner<'_>]) -> BTreeSet<RoundNumber> {
    let evidence = runners.iter().flat_map(|runner| &runner.contender.evidence);
    evidence.map(|evidence| evidence.round).collect()
}

/// The `n`-th newest of `rounds`, or the oldest where there are fewer.
fn nth_newest(rounds: &BTreeSet<RoundNumber>, n: u32) -> Option<RoundNumber> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    rounds.iter().rev().take(n.max(1)).next_back().copied()
}

/// Those with whom one of the newest `proof_rounds` scored rounds began, in order of seniority.
fn recent_holders<'a>(
    by_seniority: &'a [Runner<'a>],
    rounds: &BTreeSet<RoundNumber>,
    rules: &EvidenceRules,
) -> Vec<&'a Runner<'a>> {
    let from = nth_newest(rounds, rules.proof_rounds);
    let lately = |runner: &&Runner<'_>| runner.contender.held.is_some_and(|at| Some(at) >= from);
    by_seniority.iter().filter(lately).collect()
}

/// The champion, then whoever held the title before, the latest first.
fn succession(by_seniority: &[Runner<'_>], title: &Title<'_>) -> Vec<Hotkey> {
    let mut held: Vec<&Runner<'_>> = by_seniority
        .iter()
        .filter(|runner| {
            runner.contender.held.is_some()
                || title.recent.iter().any(|holder| same(holder, runner))
        })
        .collect();
    let won = |runner: &Runner<'_>| title.winners.iter().position(|winner| same(winner, runner));
    // Stable; who won just now stands before those with whom a round began.
    held.sort_by_key(|runner| std::cmp::Reverse((won(runner), runner.contender.held)));
    held.retain(|runner| !same(runner, title.champion));
    let all = std::iter::once(title.champion).chain(held);
    all.map(|runner| runner.contender.hotkey).collect()
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

impl<'a> Ring<'a> {
    /// The title as it was when the newest round began, unless that cannot be upheld, and then fought
    /// for in order of seniority. `recent`: who held it lately, by seniority; at least one.
    fn title(&self, recent: Vec<&'a Runner<'a>>) -> Title<'a> {
        let champion = self.keeper(&recent);
        let mut title = Title {
            champion,
            recent,
            winners: Vec::new(),
            z: self.critical_value(champion),
        };
        for challenger in self.runners {
            if !same(challenger, title.champion) && self.takes(challenger, &title) {
                title.recent.retain(|holder| !same(holder, challenger));
                title.recent.push(challenger);
                title.winners.push(challenger);
                title.champion = challenger;
                title.z = self.critical_value(challenger);
            }
        }
        title
    }

    /// A title is kept against every elder who held it lately, else it goes back: what was won by
    /// luck is lost when the rounds after it are pooled. An elder that it shares no items with is no
    /// reason.
    fn keeper(&self, recent: &[&'a Runner<'a>]) -> &'a Runner<'a> {
        let z = critical_value(self.rule, 1);
        let latest = recent.iter().map(|runner| runner.contender.held).max();
        let mut keeper = recent[0];
        for (i, next) in recent.iter().enumerate() {
            let upheld = recent[..i].iter().all(|elder| {
                let fight = self.challenge(next, elder, z);
                !fight.paired || fight.wins()
            });
            if upheld {
                keeper = next;
            }
            if Some(next.contender.held) == latest {
                break;
            }
        }
        keeper
    }

    /// Whether `challenger` beats the champion and every elder who held the title lately, in a round
    /// that the champion was scored in, too.
    fn takes(&self, challenger: &Runner<'_>, title: &Title<'_>) -> bool {
        let elder = |holder: &&&Runner<'_>| {
            let key = |runner: &Runner<'_>| (runner.contender.since, runner.contender.hotkey);
            key(holder) < key(challenger) || same(holder, title.champion)
        };
        challenger.newest_round() >= title.champion.newest_round()
            && (title.recent.iter())
                .filter(elder)
                .all(|holder| self.challenge(challenger, holder, title.z).wins())
    }

    /// The critical value that all challengers of `holder` share. Only those count that may be better
    /// and try in its newest round: what is plainly worse wins by no luck, and must not raise the bar
    /// for the others.
    fn critical_value(&self, holder: &Runner<'_>) -> f64 {
        let pool = self.era.incentive.evidence.proof_rounds;
        let z = self.era.scoring.early_stop.futility_z;
        let hopeful = self.runners.iter().filter(|runner| {
            let tries = !same(runner, holder) && runner.newest_round() >= holder.newest_round();
            let difference = tries.then(|| compare(runner, holder, pool));
            difference.is_some_and(|d| d.mean + luck(z, d.standard_error) >= 0.0)
        });
        critical_value(self.rule, hopeful.count())
    }

    fn challenge(&self, challenger: &Runner<'_>, champion: &Runner<'_>, z: f64) -> Challenge {
        let rules = &self.era.incentive.evidence;
        let difference = compare(challenger, champion, rules.proof_rounds);
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
        let (lead, error) = (difference.mean, difference.standard_error);
        let needed = margin + luck(z, error);
        let hopeful = lead + luck(self.era.scoring.early_stop.futility_z, error) >= margin;
        // Who beats the champion and another one bars from the title, goes on as well.
        let tries_left = count(difference.rounds) < f64::from(rules.pool_rounds) || lead > needed;
        Challenge {
            lead,
            standard_error: error,
            paired: !difference.items.is_empty(),
            margin,
            needed,
            open: hopeful && tries_left && challenger.newest_round() >= self.tried_from,
            near,
            differences: difference.items,
        }
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
