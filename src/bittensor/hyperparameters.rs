//! A subnet's parameters, named as on chain.

use super::Tempo;
use serde::Serialize;

/// The parameters that a validator needs, read at one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hyperparameters {
    /// `Tempo`: blocks between epochs.
    pub tempo: Tempo,
    /// `MinAllowedWeights`: fewest entries in a weights call.
    pub min_allowed_weights: u16,
    /// `MaxWeightsLimit`: largest share of one entry, u16::MAX = no limit.
    pub max_weights_limit: u16,
    /// `WeightsVersionKey`: a floor set by the subnet owner; 0 accepts every version.
    pub weights_version: u64,
    /// `WeightsSetRateLimit`: blocks between two weights calls of one hotkey.
    pub weights_rate_limit: u64,
    /// Blocks after `last_update` during which a validator counts as active.
    pub activity_cutoff: u64,
    /// `ImmunityPeriod`: blocks after registration without pruning.
    pub immunity_period: u64,
    /// `MaxAllowedValidators`.
    pub max_validators: u16,
    /// `CommitRevealWeightsEnabled`: plain weights calls are refused.
    pub commit_reveal_weights_enabled: bool,
    /// `RevealPeriodEpochs`.
    pub commit_reveal_period: u64,
    /// `StakeThreshold` in the chain's 10⁻⁹ unit.
    pub stake_threshold: u64,
}
