//! Eras: the rules valid from a block on, as data. Whatever can change a score or a weight is in
//! here, so that one id stands for all of it.

use super::architecture::Architecture;
use super::model_ref::CompetitionId;
use super::template::Template;
use crate::bittensor::BlockNumber;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

mod problems;

pub use problems::Problem;

/// The rules of one stretch of blocks. Entries are only ever appended: an era that has scores is
/// never edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Era {
    /// First block of the era and of its round 0.
    pub from_block: BlockNumber,
    /// How models are scored.
    pub scoring: ScoringRules,
    /// Which submissions are accepted.
    pub admission: AdmissionRules,
    /// From where on two models are one.
    #[serde(default)]
    pub copies: CopyRules,
    /// How scores become weights.
    pub incentive: IncentiveRules,
}

/// How models are scored in an era.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoringRules {
    /// The scorer image: `sha256:` + 64 hex digits, or `name@sha256:…`. Never a tag.
    pub image: String,
    /// The judge's exact model.
    pub judge: String,
    /// The exact model, of another maker at best, that reads a sample as well; none for no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_judge: Option<String>,
    /// Version of the judge's prompt.
    pub prompt_version: u32,
    /// Length of a round in blocks.
    pub round_blocks: u64,
    /// Items of a round.
    pub items: u32,
    /// Share of them, 0 to 1, made in the 48 hours before the round; the others are older.
    #[serde(default = "fresh_share")]
    pub fresh_share: f64,
    /// Most new tokens of a reply.
    pub max_tokens: u32,
    /// Longest prompt in tokens.
    pub max_prompt_tokens: u32,
    /// What a model's replies must pass to be ranked.
    #[serde(default)]
    pub gates: Gates,
    /// Whether a judge can be believed.
    #[serde(default)]
    pub judge_checks: JudgeChecks,
    /// When a challenger's remaining items need no judge.
    #[serde(default)]
    pub early_stop: EarlyStop,
    /// Largest effect, in logits, that length control takes off: |β| of the fit.
    #[serde(default = "length_effect_max")]
    pub length_effect_max: f64,
}

fn length_effect_max() -> f64 {
    0.5
}

/// 384 of 512.
fn fresh_share() -> f64 {
    0.75
}

impl ScoringRules {
    /// Items of a round that are to be fresh.
    #[must_use]
    pub fn fresh_items(&self) -> u32 {
        let share = self.fresh_share.clamp(0.0, 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and items"
        )]
        let fresh = (f64::from(self.items) * share).round() as u32;
        fresh.min(self.items)
    }
}

/// Largest accepted shares, 0 to 1, of bad replies among all replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Replies without text.
    pub empty_max: f64,
    /// Replies cut by the token cap.
    pub cut_max: f64,
    /// Replies that are one and the same text.
    pub identical_max: f64,
    /// Replies of which a repeated 8-gram covers more than half, or a fifth is no text.
    pub degenerate_max: f64,
    /// Replies that refuse in an assistant's voice.
    pub refusals_max: f64,
    /// Items on which the judge says that the miner's reply speaks to it.
    pub addressing_judge_max: f64,
    /// Least accepted lower bound (Wilson, 95 %) of the mean of the coherency criterion.
    pub coherency_min: f64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            empty_max: 0.02,
            cut_max: 0.20,
            identical_max: 0.05,
            degenerate_max: 0.05,
            refusals_max: 0.10,
            addressing_judge_max: 0.02,
            coherency_min: 0.25,
        }
    }
}

mod copies;
mod ranking;
mod scoring;

pub use copies::CopyRules;
pub use ranking::{ChampionRule, EvidenceRules, RankingRule, RunnersUp, WinRateRule};
pub use scoring::{EarlyStop, JudgeChecks};

/// Which submissions an era accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionRules {
    /// Earliest block of an accepted commitment.
    pub earliest_commit_block: BlockNumber,
    /// Competitions on offer.
    pub competitions: Vec<CompetitionId>,
    /// Chat templates on offer.
    pub templates: Vec<Template>,
    /// Architectures accepted.
    pub architectures: Vec<Architecture>,
    /// Smallest sum of the weight files; bytes, or text such as "20 GB".
    #[serde(deserialize_with = "bytes_with_unit")]
    pub min_model_bytes: u64,
    /// Largest sum of the weight files; bytes, or text such as "72GiB".
    #[serde(deserialize_with = "bytes_with_unit")]
    pub max_model_bytes: u64,
}

/// How an era turns scores into weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncentiveRules {
    /// Share of all weight that goes to the subnet owner's uid, 0 to 1.
    pub burn_share: f64,
    /// Which scores count.
    #[serde(default)]
    pub evidence: EvidenceRules,
    /// The rule of ranking.
    pub ranking: RankingRule,
}

/// SHA-256 of an era's canonical JSON. Text form: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EraId(pub [u8; 32]);

impl fmt::Display for EraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EraId({self})")
    }
}

impl std::str::FromStr for EraId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| format!("{text:?} is no era id: want 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for EraId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EraId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Era {
    /// The era as JSON with sorted keys and without white space: what [`Era::id`] digests.
    /// Parameters left to their defaults are written out, so a changed default changes the id.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        let mut tree = serde_json::to_value(self).unwrap_or_default();
        tree.sort_all_objects();
        tree.to_string()
    }

    /// Identity of the rules.
    #[must_use]
    pub fn id(&self) -> EraId {
        EraId(Sha256::digest(self.canonical_json()).into())
    }
}

/// The era in force at `block`: the last one that began at or before it.
#[must_use]
pub fn era_at(eras: &[Era], block: BlockNumber) -> Option<&Era> {
    eras.iter()
        .filter(|era| era.from_block <= block)
        .max_by_key(|era| era.from_block)
}

fn bytes_with_unit<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(d)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => text
            .parse::<bytesize::ByteSize>()
            .map(|size| size.0)
            .map_err(|e| serde::de::Error::custom(format!("{text:?} is no size: {e}"))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
