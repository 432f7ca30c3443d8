//! From scores to places and shares.

use super::era::{Era, EvidenceRules, RankingRule};
use super::score::{ItemScores, Score};
use super::statistics::bootstrap_95;
use crate::bittensor::{BlockNumber, Hotkey, Metagraph, RoundNumber};
use serde::Serialize;

mod champion;
mod compare;
mod field;
mod win_rate;

/// A scored submission that takes part in a ranking. All contenders were scored in one era.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Who committed it; one contender for each hotkey.
    pub hotkey: Hotkey,
    /// Block of the commitment: decides whether the present registration may be paid for it.
    pub commit_block: BlockNumber,
    /// Block in which this hotkey first committed these weights: decides seniority. Earlier than
    /// `commit_block` when they were committed again, after a new registration say.
    pub since: BlockNumber,
    /// What it showed, one entry for each round in which it was scored.
    pub evidence: Vec<Evidence>,
    /// Elder models that it is [`near`](crate::incentive::copies::Kinship::Near) to: of these it needs
    /// more than the margin to take the title.
    pub near: Vec<Hotkey>,
    /// The latest round that began with it as the champion; `None` when none did.
    pub held: Option<RoundNumber>,
}

/// What a model showed in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The round.
    pub round: RoundNumber,
    /// Values of its items; all of the round's, or the first ones when judging stopped early.
    pub items: ItemScores,
}

/// Contenders in order of quality, with their shares. Empty when there was no contender.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// Best first. Shares are 0 or more and sum to 1, unless there is no place.
    pub places: Vec<Place>,
    /// Holder of the title under the champion rule.
    pub champion: Option<Hotkey>,
}

/// One contender's place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Who committed the model.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// Mean and uncertainty of its items, pooled over its newest rounds.
    pub score: Score,
    /// The same with the effect of length taken off: what places go by under the champion rule.
    pub controlled: Score,
    /// Rounds that are pooled.
    pub rounds: usize,
    /// Places with the same number are statistically tied with the first of them; 1 is the best.
    pub group: u32,
    /// It does so much better on old items than the rest of the field that only its fresh ones count.
    pub fresh_only: bool,
    /// Share of the miners' weight, 0 to 1.
    pub share: f64,
    /// Under the champion rule: what it takes to win the title; `None` for the champion.
    pub challenge: Option<Challenge>,
    /// Under the win-rate rule: wins divided by comparisons.
    pub win_rate: Option<f64>,
}

/// A challenger beside the champion. It wins when the two answered the same items and `lead` exceeds
/// `needed`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Challenge {
    /// Challenger's minus champion's mean; over the common items when they are paired.
    pub lead: f64,
    /// Standard error of the lead; infinite (JSON null) when nothing can be concluded.
    pub standard_error: f64,
    /// Whether they are compared item by item.
    pub paired: bool,
    /// Lead that the champion's age grants it.
    pub margin: f64,
    /// `margin` plus the critical value times `standard_error`.
    pub needed: f64,
    /// The result is not settled, or it held the title lately: it is scored in the next round, too,
    /// and the rounds are pooled.
    pub open: bool,
    /// The challenger is near the champion, which is why the margin is larger.
    pub near: bool,
    /// The differences item by item.
    #[serde(skip)]
    pub differences: Vec<f64>,
}

impl Challenge {
    /// Whether the challenger beats the champion.
    #[must_use]
    pub fn wins(&self) -> bool {
        self.paired && self.lead > self.needed
    }

    /// Paired bootstrap interval (95 %) of the lead with the round's seed; `None` when the two did
    /// not answer the same items.
    #[must_use]
    pub fn interval_95(&self, seed: [u8; 32]) -> Option<(f64, f64)> {
        (self.differences.len() > 1).then(|| bootstrap_95(&self.differences, seed))
    }
}

impl Ranking {
    /// Whom the next round scores again beside its new candidates: the champion, everyone who is paid
    /// or whose result is open, and as many of the best others as the era says. Under the win-rate
    /// rule, where everyone is paid something, the best one and as many others. Best first.
    #[must_use]
    pub fn to_rescore(&self, rules: &EvidenceRules) -> Vec<Hotkey> {
        let mut others = usize::try_from(rules.rescored_runners_up).unwrap_or(usize::MAX);
        if self.champion.is_none() {
            others = others.saturating_add(1);
        }
        let mut wanted = |place: &&Place| {
            let open = place.challenge.as_ref().is_none_or(|c| c.open);
            let leads = self.champion.is_some() && (place.share > 0.0 || open);
            if leads || others == 0 {
                return leads;
            }
            others -= 1;
            true
        };
        let places = self.places.iter().filter(&mut wanted);
        places.map(|place| place.hotkey).collect()
    }
}

/// The contenders that can be paid at a metagraph: registered, and since before their commitment.
/// Only these may be ranked, else a title stays with a hotkey that is gone and nobody earns it.
#[must_use]
pub fn registered(contenders: Vec<Contender>, metagraph: &Metagraph) -> Vec<Contender> {
    let lives = |contender: &Contender| {
        let neuron = metagraph.by_hotkey(&contender.hotkey);
        neuron.is_some_and(|n| n.registered_at <= contender.commit_block)
    };
    contenders.into_iter().filter(lives).collect()
}

/// Ranks contenders by the era's rule at block `at`. The result does not depend on their order:
/// seniority is the first commitment of the weights, then hotkey bytes, and decides every tie.
/// Contenders whose scores have all expired take no place.
#[must_use]
pub fn rank(contenders: &[Contender], era: &Era, at: BlockNumber) -> Ranking {
    let runners = field::enter(contenders, era);
    let mut ranking = match &era.incentive.ranking {
        RankingRule::Champion(rule) => champion::rank(&runners, rule, era, at),
        RankingRule::WinRate(rule) => win_rate::rank(&runners, rule),
    };
    compare::group(&mut ranking.places, &runners, &era.incentive.evidence);
    ranking
}

#[cfg(test)]
mod tests;
