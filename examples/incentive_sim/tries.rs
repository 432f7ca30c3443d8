//! One challenger against one champion, many times: how often luck takes the title, and how soon a
//! real improvement does.

use super::judge::{Model, hash};
use super::node::{self, Judge, ROUND_BLOCKS};
use super::population::own;
use super::season::judge_once;
use assay::bittensor::{BlockNumber, Hotkey, RoundNumber};
use assay::incentive::Era;
use assay::incentive::ranking::{Contender, Ranking, rank};
use assay::incentive::statistics::{mean_and_error, wilson_95};

/// The champion's score.
const CHAMPION: f64 = 0.40;
/// First round of a try; the champion's age is counted from before it.
const FIRST_ROUND: u64 = 20;

/// What kind of challenger, before what field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Points, 0 to 1, that the challenger is better by.
    pub(crate) lift: f64,
    /// Age of the champion at the first round, in rounds.
    pub(crate) age: u64,
    /// Other challengers of the round, each 4 points and more behind.
    pub(crate) rivals: u64,
}

/// A rate with its 95 % interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) of: usize,
}

impl Rate {
    fn of(hits: usize, of: usize) -> Self {
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let (low, high) = wilson_95(count(hits), of);
        Self {
            value: count(hits) / count(of.max(1)),
            low,
            high,
            of,
        }
    }
}

/// Outcomes of many tries.
#[derive(Debug)]
pub(crate) struct Tries {
    /// Of all rankings that a challenger took part in, how many gave it the title.
    pub(crate) by_look: Rate,
    /// Of all challengers, how many held the title within three rounds.
    pub(crate) by_challenger: Rate,
}

/// Lets `n` challengers try, each for as long as the node would score it, three rounds at most.
pub(crate) fn title(era: &Era, seed: u64, setup: Setup, n: u64) -> Tries {
    let (mut looks, mut titles, mut winners) = (0, 0, 0);
    for i in 0..n {
        let outcome = one(era, hash(&[seed, i]), setup);
        looks += outcome.len();
        let won = outcome.iter().filter(|won| **won).count();
        titles += won;
        winners += usize::from(won > 0);
    }
    let all = usize::try_from(n).unwrap_or(usize::MAX);
    Tries {
        by_look: Rate::of(titles, looks),
        by_challenger: Rate::of(winners, all),
    }
}

/// Whether the challenger led after each of the rounds in which it was scored.
fn one(era: &Era, world: u64, setup: Setup) -> Vec<bool> {
    let mut models: Vec<(Model, Contender)> = (0..setup.rivals + 2)
        .map(|i| {
            let behind = 0.04 + 0.02 * f64::from(u32::try_from(i).unwrap_or(0));
            let (quality, rounds_ago) = match i {
                0 => (CHAMPION, setup.age),
                1 => (CHAMPION + setup.lift, 0),
                _ => (CHAMPION - behind.min(0.3), 0),
            };
            let model = own(hash(&[world, i, 3]), quality);
            // The champion is the elder, be it by a few blocks.
            let block = (FIRST_ROUND - rounds_ago) * ROUND_BLOCKS - 1_000 + i;
            let contender = node::newcomer(&model, block);
            (model, contender)
        })
        .collect();
    let challenger = models[1].1.hotkey;
    let first = models[0].1.since.0;
    let (mut ranking, mut led) = (Ranking::default(), Vec::new());
    for round in FIRST_ROUND..FIRST_ROUND + 3 {
        if round > FIRST_ROUND {
            let again = ranking.to_rescore(&era.incentive.evidence);
            if !again.contains(&challenger) {
                break;
            }
        }
        for (_, contender) in &mut models {
            let champion = ranking.champion.is_none() && contender.since.0 == first;
            if champion || ranking.champion == Some(contender.hotkey) {
                contender.held = Some(RoundNumber(round));
            }
        }
        score_all(era, world, round, &mut models, &ranking);
        let field: Vec<Contender> = models.iter().map(|(_, c)| c.clone()).collect();
        ranking = rank(&field, era, BlockNumber((round + 1) * ROUND_BLOCKS));
        led.push(leads(&ranking, challenger));
    }
    led
}

fn leads(ranking: &Ranking, hotkey: Hotkey) -> bool {
    let top = ranking
        .champion
        .or(ranking.places.first().map(|p| p.hotkey));
    top == Some(hotkey)
}

fn score_all(
    era: &Era,
    world: u64,
    round: u64,
    models: &mut [(Model, Contender)],
    ranking: &Ranking,
) {
    let mut judge = Judge::new(world, round);
    let again = ranking.to_rescore(&era.incentive.evidence);
    let champion = judge.whole(&models[0].0);
    for (i, (model, contender)) in models.iter_mut().enumerate() {
        let judged = match i {
            0 => champion.clone(),
            _ if ranking.places.is_empty() || again.contains(&contender.hotkey) => {
                judge.beside(model, &champion, era)
            }
            _ => continue,
        };
        contender.evidence.push(node::evidence(round, &judged));
    }
}

/// The origin: how often an equal model's one score, times 0.97, exceeds the champion's.
pub(crate) fn origin(seed: u64, lift: f64, n: u64) -> Rate {
    let won = (0..n).filter(|i| {
        let world = hash(&[seed, *i]);
        let champion = own(hash(&[world, 1]), CHAMPION);
        let challenger = own(hash(&[world, 2]), CHAMPION + lift);
        0.97 * judge_once(&challenger, world, 2) > judge_once(&champion, world, 1)
    });
    Rate::of(won.count(), usize::try_from(n).unwrap_or(usize::MAX))
}

/// Standard errors of the difference of two equal models over one round: paired and not.
pub(crate) fn standard_errors(seed: u64) -> (f64, f64) {
    let mut judge = Judge::new(seed, 1);
    let values = |judge: &mut Judge, id: u64| -> Vec<f64> {
        let judged = judge.whole(&own(hash(&[seed, id]), CHAMPION));
        judged.iter().map(|(_, item)| item.value).collect()
    };
    let (a, b) = (values(&mut judge, 1), values(&mut judge, 2));
    let paired: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let unpaired = mean_and_error(&a).1.hypot(mean_and_error(&b).1);
    (mean_and_error(&paired).1, unpaired)
}
