//! Parameters of ranking.

use serde::{Deserialize, Serialize};

/// Which rounds' scores count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceRules {
    /// Rounds after which a challenger that has not won is no longer re-scored; also those over which
    /// the score that is shown is taken.
    pub pool_rounds: u32,
    /// Rounds of which two models' common items are pooled, newest first. For as many rounds after a
    /// title passed, whoever held it is re-scored, gets it back when the pooled lead is not upheld,
    /// and has to be beaten by whoever else wants it: luck wins a round, not this many.
    pub proof_rounds: u32,
    /// A score counts while fewer than this many later rounds have scores. Rounds in which this
    /// node scored nothing age no score.
    pub live_rounds: u32,
    /// The best others that are re-scored each round, whether they are paid or not. Each round more is
    /// another try for the title.
    pub rescored_runners_up: u32,
}

impl Default for EvidenceRules {
    fn default() -> Self {
        Self {
            pool_rounds: 3,
            proof_rounds: 6,
            live_rounds: 10,
            rescored_runners_up: 0,
        }
    }
}

/// How contenders are ranked and rewarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum RankingRule {
    /// The earliest model holds the title until another is better by more than luck and a margin.
    Champion(ChampionRule),
    /// The origin's rule: share of pairwise wins through a softmax.
    WinRate(WinRateRule),
}

/// Parameters of [`RankingRule::Champion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChampionRule {
    /// Probability, 0 to 1, that any of a round's equal challengers wins by luck before the margin
    /// is counted; shared among them (Bonferroni).
    pub false_win_probability: f64,
    /// Cap of the critical value that follows from it.
    pub z_max: f64,
    /// Lead that a challenger needs over a champion just committed, in score.
    pub margin_start: f64,
    /// Lead needed over an old champion.
    pub margin_end: f64,
    /// Blocks over which the margin falls from start to end, linearly.
    pub margin_blocks: u64,
    /// Shares of the champion and the runners-up, in order; they sum to 1. Places without a
    /// contender give theirs to the others in proportion.
    pub shares: Vec<f64>,
    /// Who the runners-up are.
    pub runners_up: RunnersUp,
}

/// Who is paid beside the champion, where the shares provide for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunnersUp {
    /// Those who held the title before, the latest first. A copy never gets there: it would have had
    /// to beat what it copies.
    #[default]
    Succession,
    /// The best of the rest by score. A copy of the champion is among them, so this pays copies that
    /// no check finds.
    Score,
}

impl ChampionRule {
    /// Lead that a champion of this age in blocks is granted: falls linearly from `margin_start` to
    /// `margin_end` over `margin_blocks`.
    #[must_use]
    pub fn margin(&self, age_blocks: u64) -> f64 {
        if age_blocks >= self.margin_blocks {
            return self.margin_end;
        }
        let part = blocks(age_blocks) / blocks(self.margin_blocks);
        self.margin_start + (self.margin_end - self.margin_start) * part
    }
}

/// A number of blocks below 2³², which is 1,600 years of them.
fn blocks(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

impl Default for ChampionRule {
    fn default() -> Self {
        Self {
            false_win_probability: 0.01,
            z_max: 3.0,
            margin_start: 0.02,
            margin_end: 0.005,
            margin_blocks: 50_400,
            shares: vec![1.0],
            runners_up: RunnersUp::Succession,
        }
    }
}

/// Parameters of [`RankingRule::WinRate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WinRateRule {
    /// Factor on the newer model's score in each comparison.
    pub newer_factor: f64,
    /// Temperature of the softmax over win rates.
    pub temperature: f64,
}

impl Default for WinRateRule {
    fn default() -> Self {
        Self {
            newer_factor: 0.97,
            temperature: 0.075,
        }
    }
}
