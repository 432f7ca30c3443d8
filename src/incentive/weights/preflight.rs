//! The chain's own checks, made before anything is signed.

use super::{WeightError, WeightVector};
use crate::bittensor::epoch::rate_limit_wait;
use crate::bittensor::{Hotkey, Neuron, SubnetSnapshot, Uid};

/// Every check that `set_mechanism_weights` makes, in the pallet's order, against `snapshot`; the
/// reveal of a timelocked commit makes the same ones, and fails silently. That lengths are equal and
/// uids unique holds by construction of [`WeightVector`]; that the call fits the subnet's
/// commit-reveal setting is the sender's choice.
///
/// # Errors
/// The [`WeightError`] of the first check that fails; [`WeightError::pallet_error`] has its name.
pub fn preflight(
    vector: &WeightVector,
    snapshot: &SubnetSnapshot,
    hotkey: &Hotkey,
    version_key: u64,
) -> Result<(), WeightError> {
    if snapshot.metagraph.netuid().0 == 0 {
        return Err(WeightError::RootNetwork);
    }
    if snapshot.mechanism.0 >= snapshot.mechanism_count {
        return Err(WeightError::MechanismDoesNotExist(snapshot.mechanism));
    }
    let (entries, neurons) = (vector.0.len(), snapshot.metagraph.neurons().len());
    if entries > neurons {
        return Err(WeightError::UidsLengthExceedUidsInSubNet { entries, neurons });
    }
    let me = snapshot
        .metagraph
        .by_hotkey(hotkey)
        .ok_or(WeightError::HotKeyNotRegisteredInSubNet(*hotkey))?;
    let self_weight = matches!(vector.0[..], [(uid, _)] if uid == me.uid);
    check_sender(me, snapshot, version_key, self_weight)?;
    check_vector(vector, snapshot, self_weight)
}

fn check_sender(
    me: &Neuron,
    snapshot: &SubnetSnapshot,
    version_key: u64,
    self_weight: bool,
) -> Result<(), WeightError> {
    let parameters = &snapshot.hyperparameters;
    let is_owner = me.hotkey == snapshot.owner_hotkey;
    if !is_owner && me.total_stake < parameters.stake_threshold {
        return Err(WeightError::NotEnoughStakeToSetWeights {
            stake: me.total_stake,
            threshold: parameters.stake_threshold,
        });
    }
    let required = parameters.weights_version;
    if required != 0 && version_key < required {
        return Err(WeightError::IncorrectWeightVersionKey {
            ours: version_key,
            required,
        });
    }
    let at = snapshot.at.number;
    let wait = rate_limit_wait(me.last_update, parameters.weights_rate_limit, at);
    if wait > 0 {
        let from = at.plus(wait);
        return Err(WeightError::SettingWeightsTooFast { wait, from });
    }
    if !me.validator_permit && !self_weight && !is_owner {
        return Err(WeightError::NeuronNoValidatorPermit(me.uid));
    }
    Ok(())
}

fn check_vector(
    vector: &WeightVector,
    snapshot: &SubnetSnapshot,
    self_weight: bool,
) -> Result<(), WeightError> {
    let exists = |uid: Uid| snapshot.metagraph.by_uid(uid).is_some();
    if let Some((uid, _)) = vector.0.iter().find(|(uid, _)| !exists(*uid)) {
        return Err(WeightError::UidVecContainInvalidOne(*uid));
    }
    if self_weight {
        return Ok(());
    }
    let parameters = &snapshot.hyperparameters;
    let neurons = snapshot.metagraph.neurons().len();
    let required = usize::from(parameters.min_allowed_weights).min(neurons);
    let entries = vector.0.len();
    if entries < required {
        return Err(WeightError::WeightVecLengthIsLow { entries, required });
    }
    let limit = parameters.max_weights_limit;
    if limit != u16::MAX && !vector.within_limit(limit) {
        return Err(WeightError::MaxWeightExceeded { entries, limit });
    }
    Ok(())
}
