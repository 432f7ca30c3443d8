//! Setting weights: the guards of the pool, and the pallet's checks in the pallet's order.

use super::dispatch::{Failure, Origin, Outcome, argument};
use super::epoch;
use super::error::DevChainError;
use super::extrinsic::{Call, Invalid};
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR, Writer, account, number};
use super::subnet::storage_index;
use scale_value::Value;
use sp_crypto_hashing::blake2_256;

/// Commits of one hotkey that may wait in one epoch.
const MAX_PENDING_COMMITS: usize = 10;

const fn error(name: &'static str) -> Failure {
    Failure::Module(SUBTENSOR, name)
}

/// Calls that set or commit weights and that this chain carries out.
pub(super) fn is_weights_call(name: &str) -> bool {
    is_plain(name) || is_timelocked(name)
}

fn is_plain(name: &str) -> bool {
    matches!(name, "set_weights" | "set_mechanism_weights")
}

fn is_timelocked(name: &str) -> bool {
    matches!(
        name,
        "commit_timelocked_weights" | "commit_timelocked_mechanism_weights"
    )
}

fn target(reader: &Reader<'_>, call: &Call) -> Result<(u16, u8), DevChainError> {
    let read = |name: &str| {
        let (ty, bytes) = call
            .raw(name)
            .ok_or_else(|| DevChainError::decode(call.path(), format!("no argument {name}")))?;
        reader.runtime.decode::<u16>(name, ty, bytes)
    };
    let mechanism = match call.raw("mecid") {
        Some((ty, bytes)) => reader.runtime.decode::<u8>("mecid", ty, bytes)?,
        None => 0,
    };
    Ok((read("netuid")?, mechanism))
}

fn has_stake(reader: &Reader<'_>, netuid: u16, who: &[u8; 32]) -> Result<bool, DevChainError> {
    let owner = reader.owner_uid(netuid)?;
    if owner.is_some() && reader.uid(netuid, who)? == owner {
        return Ok(true);
    }
    let threshold: u64 = reader.or_default(SUBTENSOR, "StakeThreshold", &[])?;
    Ok(reader.total_stake(netuid, who)? >= threshold)
}

/// `true` when `uid` may update its row at `block`. An unknown mechanism has no row.
fn rate_limit_passes(
    reader: &Reader<'_>,
    (netuid, mechanism): (u16, u8),
    uid: u16,
    block: u64,
) -> Result<bool, DevChainError> {
    if !reader.mechanism_exists(netuid, mechanism)? {
        return Ok(false);
    }
    let updates: Vec<u64> = reader.subnet("LastUpdate", storage_index(netuid, mechanism))?;
    let last = updates.get(usize::from(uid)).copied().unwrap_or_default();
    let limit: u64 = reader.subnet("WeightsSetRateLimit", netuid)?;
    Ok(last == 0 || block.saturating_sub(last) >= limit)
}

/// The pool's checks of a weights call that block `block` would include.
pub(super) fn guard(
    reader: &Reader<'_>,
    who: &[u8; 32],
    call: &Call,
    block: u64,
) -> Result<Result<(), Invalid>, DevChainError> {
    const STAKE_TOO_LOW: Invalid = Invalid::Custom(1);
    const RATE_LIMIT: Invalid = Invalid::Custom(6);
    const REVEAL_ROUND: Invalid = Invalid::Custom(15);
    if call.pallet != SUBTENSOR || !is_weights_call(&call.name) {
        return Ok(Ok(()));
    }
    let (netuid, mechanism) = target(reader, call)?;
    if !has_stake(reader, netuid, who)? {
        return Ok(Err(STAKE_TOO_LOW));
    }
    if is_timelocked(&call.name) {
        let round: u64 = match call.raw("reveal_round") {
            Some((ty, bytes)) => reader.runtime.decode("reveal_round", ty, bytes)?,
            None => u64::MAX,
        };
        let stored: u64 = reader.or_default("Drand", "LastStoredRound", &[])?;
        return Ok(if round < stored {
            Err(REVEAL_ROUND)
        } else {
            Ok(())
        });
    }
    if reader.subnet::<bool>("CommitRevealWeightsEnabled", netuid)? {
        // Enters the block and fails there.
        return Ok(Ok(()));
    }
    let Some(uid) = reader.uid(netuid, who)? else {
        return Ok(Ok(()));
    };
    let passes = rate_limit_passes(reader, (netuid, mechanism), uid, block)?;
    Ok(if passes { Ok(()) } else { Err(RATE_LIMIT) })
}

/// Carries out a weights call.
pub(super) fn dispatch(
    writer: &mut Writer<'_>,
    origin: Origin,
    call: &Call,
    block: u64,
) -> Outcome {
    let who = origin.signer()?;
    let target = target(&writer.read(), call)?;
    if is_plain(&call.name) {
        set(writer, &who, target, call, block)
    } else {
        commit(writer, &who, target, call, block)
    }
}

/// A row as submitted.
pub(super) struct Row {
    pub(super) uids: Vec<u16>,
    pub(super) values: Vec<u16>,
    pub(super) version: u64,
}

impl Row {
    fn is_self_weight(&self, uid: u16) -> bool {
        self.uids == [uid]
    }
}

fn set(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    (netuid, mechanism): (u16, u8),
    call: &Call,
    block: u64,
) -> Outcome {
    let row = Row {
        uids: argument(writer, call, "dests")?,
        values: argument(writer, call, "weights")?,
        version: argument(writer, call, "version_key")?,
    };
    let reader = writer.read();
    if reader.subnet::<bool>("CommitRevealWeightsEnabled", netuid)? {
        return Err(error("CommitRevealEnabled"));
    }
    let uid = check_caller(&reader, who, (netuid, mechanism), &row)?;
    if !rate_limit_passes(&reader, (netuid, mechanism), uid, block)? {
        return Err(error("SettingWeightsTooFast"));
    }
    check_row(&reader, netuid, uid, &row)?;
    let index = storage_index(netuid, mechanism);
    store_row(writer, index, uid, &row)?;
    touch(writer, index, uid, block)?;
    let event = vec![("0", number(index)), ("1", number(uid))];
    writer.emit(SUBTENSOR, "WeightsSet", event)?;
    Ok(())
}

/// Applies a revealed row: the same checks without the rate limit, and `LastUpdate` stays.
pub(super) fn reveal_row(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    (netuid, mechanism): (u16, u8),
    row: &Row,
) -> Outcome {
    let reader = writer.read();
    let uid = check_caller(&reader, who, (netuid, mechanism), row)?;
    check_row(&reader, netuid, uid, row)?;
    let index = storage_index(netuid, mechanism);
    store_row(writer, index, uid, row)?;
    let event = vec![("0", number(index)), ("1", number(uid))];
    writer.emit(SUBTENSOR, "WeightsSet", event)?;
    Ok(())
}

/// Rows 2 to 8 of the pallet's checks: who calls, on what.
fn check_caller(
    reader: &Reader<'_>,
    who: &[u8; 32],
    (netuid, mechanism): (u16, u8),
    row: &Row,
) -> Result<u16, Failure> {
    if netuid == 0 {
        return Err(error("CanNotSetRootNetworkWeights"));
    }
    if row.uids.len() != row.values.len() {
        return Err(error("WeightVecNotEqualSize"));
    }
    check_mechanism(reader, netuid, mechanism)?;
    let n: u16 = reader.subnet("SubnetworkN", netuid)?;
    if row.uids.len() > usize::from(n) {
        return Err(error("UidsLengthExceedUidsInSubNet"));
    }
    let uid = reader
        .uid(netuid, who)?
        .ok_or(error("HotKeyNotRegisteredInSubNet"))?;
    if !has_stake(reader, netuid, who)? {
        return Err(error("NotEnoughStakeToSetWeights"));
    }
    let version: u64 = reader.subnet("WeightsVersionKey", netuid)?;
    if version != 0 && row.version < version {
        return Err(error("IncorrectWeightVersionKey"));
    }
    Ok(uid)
}

fn check_mechanism(reader: &Reader<'_>, netuid: u16, mechanism: u8) -> Outcome {
    if !reader.subnet_exists(netuid)? {
        return Err(error("SubnetNotExists"));
    }
    if !reader.mechanism_exists(netuid, mechanism)? {
        return Err(error("MechanismDoesNotExist"));
    }
    Ok(())
}

/// Rows 10 to 14: the permit and the vector itself.
fn check_row(reader: &Reader<'_>, netuid: u16, uid: u16, row: &Row) -> Outcome {
    let permits: Vec<bool> = reader.subnet("ValidatorPermit", netuid)?;
    let permitted = permits.get(usize::from(uid)).copied().unwrap_or_default();
    let owner = reader.owner_uid(netuid)? == Some(uid);
    if !(permitted || owner || row.is_self_weight(uid)) {
        return Err(error("NeuronNoValidatorPermit"));
    }
    let distinct: std::collections::HashSet<u16> = row.uids.iter().copied().collect();
    if distinct.len() != row.uids.len() {
        return Err(error("DuplicateUids"));
    }
    let n: u16 = reader.subnet("SubnetworkN", netuid)?;
    if row.uids.iter().any(|uid| *uid >= n) {
        return Err(error("UidVecContainInvalidOne"));
    }
    if row.is_self_weight(uid) {
        return Ok(());
    }
    let least: u16 = reader.subnet("MinAllowedWeights", netuid)?;
    if row.uids.len() < usize::from(least.min(n)) {
        return Err(error("WeightVecLengthIsLow"));
    }
    let limit: u16 = reader.subnet("MaxWeightsLimit", netuid)?;
    if limit < u16::MAX && exceeds(&max_upscale(&row.values), limit) {
        return Err(error("MaxWeightExceeded"));
    }
    Ok(())
}

/// Whether the largest share of the row is above `limit` / 65535.
fn exceeds(values: &[u16], limit: u16) -> bool {
    let sum: u64 = values.iter().copied().map(u64::from).sum();
    let largest = values.iter().copied().map(u64::from).max().unwrap_or(0);
    sum > 0 && largest * u64::from(u16::MAX) > u64::from(limit) * sum
}

/// The pallet's normalisation: the largest value becomes 65535, the others keep their proportion,
/// rounded down.
fn max_upscale(values: &[u16]) -> Vec<u16> {
    let largest = u32::from(values.iter().copied().max().unwrap_or(0));
    if largest == 0 {
        return values.to_vec();
    }
    let scaled = values
        .iter()
        .map(|v| u32::from(*v) * u32::from(u16::MAX) / largest);
    scaled
        .map(|v| u16::try_from(v).unwrap_or(u16::MAX))
        .collect()
}

fn store_row(
    writer: &mut Writer<'_>,
    index: u16,
    uid: u16,
    row: &Row,
) -> Result<(), DevChainError> {
    let values = max_upscale(&row.values);
    let pairs: Vec<(u16, u16)> = row.uids.iter().copied().zip(values).collect();
    let keys = [Key::U16(index), Key::U16(uid)];
    writer.put(SUBTENSOR, "Weights", &keys, &pairs)
}

/// Sets `LastUpdate[uid]`.
fn touch(writer: &mut Writer<'_>, index: u16, uid: u16, block: u64) -> Result<(), DevChainError> {
    let mut updates: Vec<u64> = writer.read().subnet("LastUpdate", index)?;
    let slot = usize::from(uid);
    if updates.len() <= slot {
        updates.resize(slot + 1, 0);
    }
    updates[slot] = block;
    writer.put_subnet("LastUpdate", index, &updates)
}

/// Committer, commit block, ciphertext, reveal round.
pub(super) type Commit = ([u8; 32], u64, Vec<u8>, u64);

fn commit(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    (netuid, mechanism): (u16, u8),
    call: &Call,
    block: u64,
) -> Outcome {
    let blob: Vec<u8> = argument(writer, call, "commit")?;
    let round: u64 = argument(writer, call, "reveal_round")?;
    let version: u16 = argument(writer, call, "commit_reveal_version")?;
    let reader = writer.read();
    check_mechanism(&reader, netuid, mechanism)?;
    if !reader.subnet::<bool>("CommitRevealWeightsEnabled", netuid)? {
        return Err(error("CommitRevealDisabled"));
    }
    if version != reader.or_default::<u16>(SUBTENSOR, "CommitRevealWeightsVersion", &[])? {
        return Err(error("IncorrectCommitRevealVersion"));
    }
    let uid = reader
        .uid(netuid, who)?
        .ok_or(error("HotKeyNotRegisteredInSubNet"))?;
    if !rate_limit_passes(&reader, (netuid, mechanism), uid, block)? {
        return Err(error("CommittingWeightsTooFast"));
    }
    if round < reader.or_default::<u64>("Drand", "LastStoredRound", &[])? {
        return Err(error("InvalidRevealRound"));
    }
    let index = storage_index(netuid, mechanism);
    let epoch = epoch::commit_epoch(&reader, netuid, block)?;
    let keys = [Key::U16(index), Key::U64(epoch)];
    let mut queue: Vec<Commit> = reader.or_default(SUBTENSOR, "TimelockedWeightCommits", &keys)?;
    if queue.iter().filter(|c| c.0 == *who).count() >= MAX_PENDING_COMMITS {
        return Err(error("TooManyUnrevealedCommits"));
    }
    let hash = blake2_256(&blob);
    queue.push((*who, block, blob, round));
    writer.put(SUBTENSOR, "TimelockedWeightCommits", &keys, &queue)?;
    touch(writer, index, uid, block)?;
    let event = vec![
        ("0", account(who)),
        ("1", number(index)),
        ("2", Value::from_bytes(hash)),
        ("3", number(round)),
    ];
    writer.emit(SUBTENSOR, "TimelockedWeightsCommitted", event)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_upscaled_and_measured_as_the_pallet_does() {
        assert_eq!(max_upscale(&[1, 2, 0]), [32767, 65535, 0]);
        assert_eq!(max_upscale(&[0, 0]), [0, 0]);
        assert!(exceeds(&[65535, 65535], 32767));
        assert!(!exceeds(&[65535, 65535], 32768));
    }
}
