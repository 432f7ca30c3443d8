//! Two hundred rounds of a population under one procedure.

use super::judge::{Asked, Model, hash};
use super::node::{self, Judge, Judged, ROUND_BLOCKS};
use super::population::{Kind, Miner, newcomers, own};
use assay::bittensor::{BlockNumber, Hotkey, RoundNumber};
use assay::incentive::copies::{self, Kinship, Likeness};
use assay::incentive::duplicates::{self, Claim};
use assay::incentive::origin::{compute_wins, judge_win_rate, softmax};
use assay::incentive::ranking::{Contender, Ranking, rank};
use assay::incentive::{Era, Preference};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Hotkeys of a subnet.
const SLOTS: usize = 256;
/// Score of the first champion.
const FIRST: f64 = 0.40;

/// What a season came to.
#[derive(Debug, Default)]
pub(crate) struct Season {
    /// Sum of shares by kind.
    pub(crate) emission: BTreeMap<Kind, f64>,
    /// Judge calls made.
    pub(crate) calls: u64,
    /// Judge calls of the same field with 512 items × 2 orders for each model scored.
    pub(crate) fixed_calls: u64,
    /// Copies that came to be scored beside the champion, and how many of them took its title.
    pub(crate) tries: u64,
    pub(crate) false_titles: u64,
    /// Honest models that were taken for copies.
    pub(crate) accused: u64,
    /// Quality of the last champion.
    pub(crate) quality: f64,
}

impl Season {
    /// Share of all emission that went to kinds of `which`.
    pub(crate) fn share(&self, which: impl Fn(Kind) -> bool) -> f64 {
        let total: f64 = self.emission.values().sum();
        let of = self.emission.iter().filter(|(kind, _)| which(**kind));
        of.fold(0.0, |sum, (_, share)| sum + share) / total
    }

    /// Calls made as a part of those that 512 items × 2 orders for each model would have taken; 0
    /// where they were not counted.
    pub(crate) fn cost(&self) -> f64 {
        if self.fixed_calls == 0 {
            return 0.0;
        }
        self.calls as f64 / self.fixed_calls as f64
    }
}

struct Entry {
    kind: Kind,
    model: Arc<Model>,
    contender: Contender,
}

/// The node's state in a season.
struct Node<'a> {
    era: &'a Era,
    world: u64,
    field: HashMap<Hotkey, Entry>,
    claims: Vec<(u64, Claim)>,
    /// Whose behaviour is known in the present round.
    probed: Vec<Hotkey>,
    ranking: Ranking,
    titled: HashSet<Hotkey>,
    season: Season,
}

/// Plays `rounds` rounds with this crate's rules.
pub(crate) fn play(era: &Era, seed: u64, rounds: u64) -> Season {
    let mut node = Node {
        era,
        world: hash(&[seed, 1]),
        field: HashMap::new(),
        claims: Vec::new(),
        probed: Vec::new(),
        ranking: Ranking::default(),
        titled: HashSet::new(),
        season: Season::default(),
    };
    let first = Arc::new(own(hash(&[seed, 2]), FIRST));
    node.admit(Kind::Improver, &first, 0);
    node.round(1, &[node::hotkey(first.id)]);
    for round in 2..=rounds {
        let champion = node.best_model();
        let candidates = newcomers(seed, round, &champion);
        let admitted: Vec<Hotkey> = candidates
            .iter()
            .filter_map(|miner| node.commit(miner, round))
            .collect();
        node.round(round, &admitted);
    }
    node.season.quality = node.best_model().quality;
    node.season
}

impl Node<'_> {
    /// The model at the top: the champion, or the best place under a rule without a title.
    fn best_model(&self) -> Arc<Model> {
        let hotkey = self
            .ranking
            .champion
            .or(self.ranking.places.first().map(|p| p.hotkey));
        Arc::clone(&self.field[&hotkey.expect("somebody leads")].model)
    }

    fn admit(&mut self, kind: Kind, model: &Arc<Model>, block: u64) {
        let contender = node::newcomer(model, block);
        let claim = Claim {
            block: BlockNumber(block),
            hotkey: contender.hotkey,
        };
        self.claims.push((weights(model), claim));
        let model = Arc::clone(model);
        self.field.insert(
            contender.hotkey,
            Entry {
                kind,
                model,
                contender,
            },
        );
    }

    /// Commits before the round begins; what the node fetches is the pinned revision, whatever the
    /// repository's head holds by then. A copy of known weights goes no further.
    fn commit(&mut self, miner: &Miner, round: u64) -> Option<Hotkey> {
        let block = round * ROUND_BLOCKS - 1_000;
        let model = &miner.pinned;
        self.season.fixed_calls += fixed(1);
        let hotkey = node::hotkey(model.id);
        let claim = Claim {
            block: BlockNumber(block),
            hotkey,
        };
        let same = self
            .claims
            .iter()
            .filter(|(known, _)| *known == weights(model));
        let others: Vec<Claim> = same.map(|(_, claim)| *claim).collect();
        if duplicates::check(&claim, &others).is_err() {
            if miner.kind.copies() {
                self.season.tries += 1;
            }
            return None;
        }
        self.admit(miner.kind, model, block);
        Some(hotkey)
    }

    fn round(&mut self, round: u64, candidates: &[Hotkey]) {
        let leaders = self.ranking.to_rescore(&self.era.incentive.evidence);
        self.season.fixed_calls += fixed(leaders.len());
        let mut judge = Judge::new(self.world, round);
        let champion = self.ranking.champion;
        self.probed = champion.into_iter().collect();
        if let Some(entry) = champion.and_then(|h| self.field.get_mut(&h)) {
            entry.contender.held = Some(RoundNumber(round));
        }
        let champion = champion.map(|hotkey| {
            let model = &self.field[&hotkey].model;
            (hotkey, judge.whole(model))
        });
        let challengers = leaders
            .iter()
            .filter(|h| Some(**h) != champion.as_ref().map(|c| c.0));
        let all: Vec<Hotkey> = challengers.chain(candidates).copied().collect();
        for hotkey in all {
            self.score(&mut judge, hotkey, round, champion.as_ref());
        }
        if let Some((hotkey, judged)) = &champion {
            self.record(*hotkey, round, judged);
        }
        self.season.calls += judge.calls;
        self.rank(round);
    }

    fn score(
        &mut self,
        judge: &mut Judge,
        hotkey: Hotkey,
        round: u64,
        champion: Option<&(Hotkey, Judged)>,
    ) {
        let model = Arc::clone(&self.field[&hotkey].model);
        if self.is_copy(hotkey) {
            self.field.remove(&hotkey);
            return;
        }
        if !node::passes_before(&model, self.era) {
            self.field.remove(&hotkey);
            return;
        }
        // Who is older than the champion may have lost the title to luck: it is judged to the end.
        let since = |hotkey: &Hotkey| self.field[hotkey].contender.since;
        let judged = match champion.filter(|(holder, _)| since(holder) < since(&hotkey)) {
            Some((_, judged)) => judge.beside(&model, judged, self.era),
            None => judge.whole(&model),
        };
        if !node::passes(&model, &judged, self.era) {
            self.field.remove(&hotkey);
            return;
        }
        let entry = &self.field[&hotkey];
        let new = entry.contender.evidence.is_empty();
        self.season.tries += u64::from(new && entry.kind.copies());
        self.record(hotkey, round, &judged);
    }

    /// Whether a model behaves like one that was committed earlier; notes to whom it is near.
    fn is_copy(&mut self, hotkey: Hotkey) -> bool {
        let entry = &self.field[&hotkey];
        let claim = |entry: &Entry| Claim {
            block: entry.contender.since,
            hotkey: entry.contender.hotkey,
        };
        let mine = claim(entry);
        let found: Vec<(Claim, Likeness)> = self
            .probed
            .iter()
            .filter_map(|other| self.field.get(other))
            .filter(|other| claim(other) < mine)
            .filter_map(|other| {
                let likeness = entry
                    .model
                    .behaviour()
                    .beside(other.model.behaviour(), &self.era.copies)?;
                Some((claim(other), likeness))
            })
            .collect();
        let new = entry.contender.evidence.is_empty();
        let copies = entry.kind.copies();
        if copies::check(&mine, &found).is_err() {
            self.season.tries += u64::from(new && copies);
            self.season.accused += u64::from(!copies);
            return true;
        }
        let near = found
            .iter()
            .filter(|(_, l)| l.kinship == Kinship::Near)
            .map(|(other, _)| other.hotkey);
        let near: Vec<Hotkey> = near.collect();
        if let Some(entry) = self.field.get_mut(&hotkey) {
            entry.contender.near.extend(near);
        }
        self.probed.push(hotkey);
        false
    }

    fn record(&mut self, hotkey: Hotkey, round: u64, judged: &Judged) {
        if let Some(entry) = self.field.get_mut(&hotkey) {
            entry.contender.evidence.push(node::evidence(round, judged));
        }
    }

    fn rank(&mut self, round: u64) {
        let oldest = round.saturating_sub(u64::from(self.era.incentive.evidence.live_rounds));
        self.field.retain(|_, entry| {
            entry.contender.evidence.retain(|e| e.round.0 > oldest);
            !entry.contender.evidence.is_empty()
        });
        let (rest, field): (Vec<_>, Vec<Contender>) = self
            .field
            .drain()
            .map(|(hotkey, e)| ((hotkey, e.kind, e.model), e.contender))
            .unzip();
        self.ranking = rank(&field, self.era, BlockNumber((round + 1) * ROUND_BLOCKS));
        let back = rest.into_iter().zip(field);
        self.field = back
            .map(|((hotkey, kind, model), contender)| {
                let entry = Entry {
                    kind,
                    model,
                    contender,
                };
                (hotkey, entry)
            })
            .collect();
        for place in self.ranking.places.iter().filter(|p| p.share > 0.0) {
            let kind = self.field[&place.hotkey].kind;
            *self.season.emission.entry(kind).or_default() += place.share;
        }
        let titled = self
            .ranking
            .champion
            .or(self.ranking.places.first().map(|p| p.hotkey));
        if let Some(hotkey) = titled
            && self.titled.insert(hotkey)
        {
            self.season.false_titles += u64::from(self.field[&hotkey].kind.copies());
        }
    }
}

fn fixed(models: usize) -> u64 {
    (models * node::ITEMS * 2) as u64
}

/// What `weights_key` would say: equal for the same files.
fn weights(model: &Model) -> u64 {
    match &model.source {
        Some((source, change)) if !change.bytes => weights(source),
        _ => model.id,
    }
}

/// The origin's own procedure: each model is judged once, on a sample of its own, in one order, ties
/// count nothing; the repository's head is evaluated; a copy with a space added to its index is no
/// duplicate; scores last; weights are the softmax over pairwise wins.
pub(crate) fn play_origin(seed: u64, rounds: u64) -> Season {
    let world = hash(&[seed, 1]);
    let first = Arc::new(own(hash(&[seed, 2]), FIRST));
    let mut field = vec![(
        Kind::Improver,
        Arc::clone(&first),
        judge_once(&first, world, 1),
        0,
    )];
    let mut season = Season::default();
    let mut led = HashSet::from([first.id]);
    let mut best = first;
    for round in 2..=rounds {
        for miner in newcomers(seed, round, &best) {
            let score = judge_once(&miner.head, world, round);
            season.tries += u64::from(miner.kind.copies());
            // A sleeper's commitment is older than what it copies.
            let early = if miner.kind == Kind::Sleeper { 20 } else { 0 };
            let block = (round * ROUND_BLOCKS).saturating_sub(1_000 + early * ROUND_BLOCKS);
            field.push((miner.kind, miner.head, score, block));
        }
        let surplus = field.len().saturating_sub(SLOTS);
        field.drain(..surplus);
        let models: Vec<(f64, u64)> = field.iter().map(|(_, _, s, b)| (*s, *b)).collect();
        let shares = softmax(&compute_wins(&models, 0.97), 0.075);
        for ((kind, ..), share) in field.iter().zip(&shares) {
            *season.emission.entry(*kind).or_default() += share;
        }
        let top = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]));
        let (kind, model, ..) = &field[top.expect("somebody leads")];
        if led.insert(model.id) {
            season.false_titles += u64::from(kind.copies());
        }
        best = Arc::clone(model);
    }
    season.quality = best.quality;
    season
}

/// The origin's score of one model: `J` over its own sample.
pub(crate) fn judge_once(model: &Model, world: u64, round: u64) -> f64 {
    let sample = hash(&[world, model.id, round]);
    let won = |item: u64| {
        let at = Asked {
            world: sample,
            round,
            item,
        };
        let verdict = model.judged(at).0.reference_first;
        let all = [verdict.realism, verdict.entertainment, verdict.coherency];
        all.into_iter().filter(|v| *v == Preference::Win).count()
    };
    let items = node::ITEMS;
    let generated = (0..items as u64).map(won).sum();
    judge_win_rate(generated, items, items).expect("every call succeeds")
}
