//! Contenders made ready to be compared: what has expired is dropped, length is taken off, and those
//! that know the old items are held to the fresh ones.

use super::{Contender, Evidence, Place};
use crate::bittensor::RoundNumber;
use crate::incentive::era::Era;
use crate::incentive::score::contamination::outliers;
use crate::incentive::score::length::{LengthEffect, Observation};
use crate::incentive::score::{Bucket, ItemScore, Score};
use crate::incentive::statistics::count;
use std::collections::{BTreeMap, BTreeSet};

/// A contender with its values as they are compared.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    pub(super) contender: &'a Contender,
    /// Ordered by round, then item id.
    pub(super) items: Vec<Valued<'a>>,
    /// As judged, over the pooled rounds.
    pub(super) score: Score,
    /// With length taken off, over the pooled rounds.
    pub(super) controlled: Score,
    /// Number of pooled rounds.
    pub(super) rounds: usize,
    pub(super) fresh_only: bool,
}

/// One item of a runner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Valued<'a> {
    pub(super) round: RoundNumber,
    pub(super) id: &'a str,
    /// With length taken off.
    pub(super) value: f64,
}

/// All contenders with live scores, in order of seniority.
pub(super) fn enter<'a>(contenders: &'a [Contender], era: &Era) -> Vec<Runner<'a>> {
    let rules = &era.incentive.evidence;
    let live = live_rounds(contenders, rules.live_rounds);
    let mut alive: Vec<(&Contender, Vec<&Evidence>)> = contenders
        .iter()
        .map(|contender| (contender, live_evidence(contender, &live)))
        .filter(|(_, evidence)| !evidence.is_empty())
        .collect();
    alive.sort_by_key(|(contender, _)| (contender.since, contender.hotkey));
    let effects = length_effects(&alive, era.scoring.length_effect_max);
    let gaps: Vec<Option<f64>> = alive.iter().map(|(_, e)| anchor_gap(e)).collect();
    let pool = usize::try_from(rules.pool_rounds).unwrap_or(usize::MAX);
    alive
        .into_iter()
        .zip(outliers(&gaps))
        .map(|((contender, evidence), fresh_only)| {
            run(contender, &evidence, &effects, (fresh_only, pool))
        })
        .collect()
}

/// The newest `most` rounds in which anybody was scored: an outage of ours ages no score.
fn live_rounds(contenders: &[Contender], most: u32) -> BTreeSet<RoundNumber> {
    let all: BTreeSet<RoundNumber> = contenders
        .iter()
        .flat_map(|c| c.evidence.iter().map(|e| e.round))
        .collect();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    all.into_iter().rev().take(most).collect()
}

/// Ordered by round.
fn live_evidence<'a>(contender: &'a Contender, live: &BTreeSet<RoundNumber>) -> Vec<&'a Evidence> {
    let mut evidence: Vec<_> = contender
        .evidence
        .iter()
        .filter(|e| live.contains(&e.round))
        .collect();
    evidence.sort_by_key(|e| e.round);
    evidence
}

fn observation(item: &ItemScore) -> Observation {
    Observation {
        value: item.value,
        length: item.lengths.map_or(0.0, |lengths| lengths.relative()),
    }
}

/// The length effect of each round, fitted over all models that were scored in it.
fn length_effects(
    alive: &[(&Contender, Vec<&Evidence>)],
    limit: f64,
) -> BTreeMap<RoundNumber, LengthEffect> {
    let mut models: BTreeMap<RoundNumber, Vec<Vec<Observation>>> = BTreeMap::new();
    for evidence in alive.iter().flat_map(|(_, evidence)| evidence) {
        let measured = evidence
            .items
            .details()
            .filter(|(_, i)| i.lengths.is_some());
        let model = measured.map(|(_, item)| observation(item)).collect();
        models.entry(evidence.round).or_default().push(model);
    }
    models
        .into_iter()
        .map(|(round, models)| (round, LengthEffect::fit(&models, limit)))
        .collect()
}

/// Mean of the anchor items minus mean of the fresh ones; `None` without both.
fn anchor_gap(evidence: &[&Evidence]) -> Option<f64> {
    let (mut sums, mut counts) = ([0.0; 2], [0usize; 2]);
    for (_, item) in evidence.iter().flat_map(|e| e.items.details()) {
        let bucket = usize::from(item.bucket == Bucket::Anchor);
        sums[bucket] += item.value;
        counts[bucket] += 1;
    }
    let mean = |b: usize| (counts[b] > 0).then(|| sums[b] / count(counts[b]));
    Some(mean(1)? - mean(0)?)
}

fn run<'a>(
    contender: &'a Contender,
    evidence: &[&'a Evidence],
    effects: &BTreeMap<RoundNumber, LengthEffect>,
    (fresh_only, pool): (bool, usize),
) -> Runner<'a> {
    let mut items = Vec::new();
    let (mut raw, mut pooled) = (Vec::new(), 0);
    let pooled_from = evidence.len().saturating_sub(pool);
    for (i, evidence) in evidence.iter().enumerate() {
        let effect = effects.get(&evidence.round).copied().unwrap_or_default();
        let mean = evidence.items.score().value;
        for (id, item) in evidence.items.details() {
            if fresh_only && item.bucket == Bucket::Anchor {
                continue;
            }
            items.push(Valued {
                round: evidence.round,
                id,
                value: effect.controlled(observation(item), mean),
            });
            if i >= pooled_from {
                raw.push(item.value);
                pooled += 1;
            }
        }
    }
    let newest: Vec<f64> = items[items.len() - pooled..]
        .iter()
        .map(|i| i.value)
        .collect();
    Runner {
        contender,
        score: Score::of(&raw),
        controlled: Score::of(&newest),
        rounds: evidence.len() - pooled_from,
        items,
        fresh_only,
    }
}

impl Runner<'_> {
    /// The newest round that it was scored in.
    pub(super) fn newest_round(&self) -> Option<RoundNumber> {
        self.items.last().map(|item| item.round)
    }

    /// A place without share.
    pub(super) fn place(&self) -> Place {
        Place {
            hotkey: self.contender.hotkey,
            commit_block: self.contender.commit_block,
            score: self.score,
            controlled: self.controlled,
            rounds: self.rounds,
            group: 1,
            fresh_only: self.fresh_only,
            share: 0.0,
            challenge: None,
            win_rate: None,
        }
    }
}
