//! Root's calls: hyperparameters by `AdminUtils`, anything by `System.set_storage`.

use super::dispatch::{Failure, Origin, Outcome, argument};
use super::error::DevChainError;
use super::extrinsic::Call;
use super::runtime::Key;
use super::storage::{SUBTENSOR, Writer, number};
use scale_value::Value;

/// Call → storage entry and event of the subtensor pallet. The last argument is the value; a
/// netuid before it is the key.
const SETTERS: [(&str, &str, &str); 15] = [
    ("sudo_set_tempo", "Tempo", "TempoSet"),
    (
        "sudo_set_weights_set_rate_limit",
        "WeightsSetRateLimit",
        "WeightsSetRateLimitSet",
    ),
    (
        "sudo_set_commit_reveal_weights_enabled",
        "CommitRevealWeightsEnabled",
        "CommitRevealEnabled",
    ),
    (
        "sudo_set_commit_reveal_weights_interval",
        "RevealPeriodEpochs",
        "CommitRevealPeriodsSet",
    ),
    (
        "sudo_set_commit_reveal_version",
        "CommitRevealWeightsVersion",
        "CommitRevealVersionSet",
    ),
    (
        "sudo_set_min_allowed_weights",
        "MinAllowedWeights",
        "MinAllowedWeightSet",
    ),
    (
        "sudo_set_max_weight_limit",
        "MaxWeightsLimit",
        "MaxWeightLimitSet",
    ),
    (
        "sudo_set_weights_version_key",
        "WeightsVersionKey",
        "WeightsVersionKeySet",
    ),
    (
        "sudo_set_stake_threshold",
        "StakeThreshold",
        "StakeThresholdSet",
    ),
    (
        "sudo_set_immunity_period",
        "ImmunityPeriod",
        "ImmunityPeriodSet",
    ),
    (
        "sudo_set_max_allowed_validators",
        "MaxAllowedValidators",
        "MaxAllowedValidatorsSet",
    ),
    (
        "sudo_set_max_allowed_uids",
        "MaxAllowedUids",
        "MaxAllowedUidsSet",
    ),
    (
        "sudo_set_activity_cutoff",
        "ActivityCutoff",
        "ActivityCutoffSet",
    ),
    (
        "sudo_set_mechanism_count",
        "MechanismCountCurrent",
        "MechanismCountSet",
    ),
    ("sudo_set_tao_weight", "TaoWeight", "TaoWeightSet"),
];

/// A hyperparameter call by root. Owners' rights to some of them are not modelled.
pub(super) fn dispatch(writer: &mut Writer<'_>, origin: Origin, call: &Call) -> Outcome {
    let Some((_, entry, event)) = SETTERS.iter().find(|(name, ..)| *name == call.name) else {
        return Err(Failure::Unsupported(
            "a hyperparameter that the dev chain does not model".to_owned(),
        ));
    };
    if origin != Origin::Root {
        return Err(Failure::BadOrigin);
    }
    let value_name = call
        .names()
        .last()
        .ok_or_else(|| DevChainError::decode(call.path(), "no arguments"))?
        .to_owned();
    let value: Value = argument(writer, call, &value_name)?;
    let mut fields = vec![("1", value.clone())];
    let mut keys = Vec::new();
    if call.raw("netuid").is_some() {
        let netuid: u16 = argument(writer, call, "netuid")?;
        if !writer.read().subnet_exists(netuid)? {
            return Err(Failure::Module("AdminUtils", "SubnetDoesNotExist"));
        }
        keys.push(Key::U16(netuid));
        fields.insert(0, ("0", number(netuid)));
    }
    writer.put(SUBTENSOR, entry, &keys, &value)?;
    if let Err(error) = writer.emit(SUBTENSOR, event, fields) {
        // The event's shape differs between runtimes; the value is what counts.
        tracing::debug!(event, %error, "event left out");
    }
    Ok(())
}

/// Writes raw storage: root's tool for states that no call of this chain reaches.
pub(super) fn set_storage(writer: &mut Writer<'_>, origin: Origin, call: &Call) -> Outcome {
    if origin != Origin::Root {
        return Err(Failure::BadOrigin);
    }
    let items: Vec<(Vec<u8>, Vec<u8>)> = argument(writer, call, "items")?;
    for (key, value) in items {
        writer.state.put(key, Some(value));
    }
    Ok(())
}
