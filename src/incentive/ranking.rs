//! From scores to places and shares.

use super::era::RankingRule;
use super::score::{ItemScores, Score};
use crate::bittensor::{BlockNumber, Hotkey, Metagraph};
use serde::Serialize;

mod champion;
mod compare;
mod win_rate;

/// A scored submission that takes part in a ranking. All contenders were scored in one era.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Who committed it; one contender for each hotkey.
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub commit_block: BlockNumber,
    /// Values of its items.
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
    /// Mean and uncertainty of its items.
    pub score: Score,
    /// Share of the miners' weight, 0 to 1.
    pub share: f64,
    /// Under the champion rule: what it takes to win the title; `None` for the champion.
    pub challenge: Option<Challenge>,
    /// Under the win-rate rule: wins divided by comparisons.
    pub win_rate: Option<f64>,
}

/// A challenger beside the champion. The title passes when `lead` exceeds `needed`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Challenge {
    /// Challenger's minus champion's mean; over the common items when they are paired.
    pub lead: f64,
    /// Standard error of the lead; infinite (JSON null) when nothing can be concluded.
    pub standard_error: f64,
    /// Whether both answered enough of the same items to compare item by item.
    pub paired: bool,
    /// Lead that the champion's age grants it.
    pub margin: f64,
    /// `margin` plus the critical value times `standard_error`.
    pub needed: f64,
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
/// seniority is commit block, then hotkey bytes, and decides every tie.
#[must_use]
pub fn rank(contenders: &[Contender], rule: &RankingRule, at: BlockNumber) -> Ranking {
    let mut by_seniority: Vec<&Contender> = contenders.iter().collect();
    by_seniority.sort_by_key(|c| (c.commit_block, c.hotkey));
    match rule {
        RankingRule::Champion(rule) => champion::rank(&by_seniority, rule, at),
        RankingRule::WinRate(rule) => win_rate::rank(&by_seniority, rule),
    }
}

/// A place without share.
fn place(contender: &Contender) -> Place {
    Place {
        hotkey: contender.hotkey,
        commit_block: contender.commit_block,
        score: contender.items.score(),
        share: 0.0,
        challenge: None,
        win_rate: None,
    }
}

#[cfg(test)]
mod tests;
