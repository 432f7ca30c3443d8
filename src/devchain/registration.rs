//! Neurons: appending, replacing, and the call that registers by burning.

use super::account;
use super::dispatch::{Failure, Origin, Outcome, argument};
use super::error::DevChainError;
use super::extrinsic::Call;
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR, Writer, account as account_value, number};
use super::subnet::storage_index;

/// Per-neuron vectors and their value for a newcomer. Entries that a runtime lacks are skipped.
const SHARES: [&str; 6] = [
    "Rank",
    "Trust",
    "Consensus",
    "Dividends",
    "ValidatorTrust",
    "PruningScores",
];

/// Writes `hotkey` into slot `uid`, which is the next free one or one to be replaced.
pub(super) fn place(
    writer: &mut Writer<'_>,
    netuid: u16,
    uid: u16,
    (hotkey, coldkey): ([u8; 32], [u8; 32]),
    block: u64,
) -> Result<(), DevChainError> {
    let slot = [Key::U16(netuid), Key::U16(uid)];
    for entry in SHARES {
        let mut values: Vec<u16> = writer.read().subnet(entry, netuid)?;
        set_at(&mut values, uid, 0);
        writer.put_subnet(entry, netuid, &values)?;
    }
    for mechanism in 0..writer.read().mechanisms(netuid)? {
        place_in_mechanism(writer, storage_index(netuid, mechanism), uid, block)?;
    }
    let mut emission: Vec<u64> = writer.read().subnet("Emission", netuid)?;
    set_at(&mut emission, uid, 0);
    writer.put_subnet("Emission", netuid, &emission)?;
    for (entry, value) in [("Active", true), ("ValidatorPermit", false)] {
        let mut values: Vec<bool> = writer.read().subnet(entry, netuid)?;
        set_at(&mut values, uid, value);
        writer.put_subnet(entry, netuid, &values)?;
    }
    writer.put(SUBTENSOR, "Keys", &slot, &hotkey)?;
    writer.put(SUBTENSOR, "BlockAtRegistration", &slot, &block)?;
    let member = [Key::U16(netuid), Key::Account(hotkey)];
    writer.put(SUBTENSOR, "Uids", &member, &uid)?;
    let member = [Key::Account(hotkey), Key::U16(netuid)];
    writer.put(SUBTENSOR, "IsNetworkMember", &member, &true)?;
    let n: u16 = writer.read().subnet("SubnetworkN", netuid)?;
    writer.put_subnet("SubnetworkN", netuid, &n.max(uid + 1))?;
    own(writer, &hotkey, &coldkey)
}

/// What each mechanism keeps for itself.
fn place_in_mechanism(
    writer: &mut Writer<'_>,
    index: u16,
    uid: u16,
    block: u64,
) -> Result<(), DevChainError> {
    let mut incentive: Vec<u16> = writer.read().subnet("Incentive", index)?;
    set_at(&mut incentive, uid, 0);
    writer.put_subnet("Incentive", index, &incentive)?;
    let mut updates: Vec<u64> = writer.read().subnet("LastUpdate", index)?;
    set_at(&mut updates, uid, block);
    writer.put_subnet("LastUpdate", index, &updates)?;
    writer.remove(SUBTENSOR, "Weights", &[Key::U16(index), Key::U16(uid)]);
    writer.remove(SUBTENSOR, "Bonds", &[Key::U16(index), Key::U16(uid)]);
    Ok(())
}

fn set_at<T: Clone + Default>(values: &mut Vec<T>, uid: u16, value: T) {
    let slot = usize::from(uid);
    if values.len() <= slot {
        values.resize(slot + 1, T::default());
    }
    values[slot] = value;
}

fn own(
    writer: &mut Writer<'_>,
    hotkey: &[u8; 32],
    coldkey: &[u8; 32],
) -> Result<(), DevChainError> {
    writer.put(SUBTENSOR, "Owner", &[Key::Account(*hotkey)], coldkey)?;
    for entry in ["OwnedHotkeys", "StakingHotkeys"] {
        let keys = [Key::Account(*coldkey)];
        let mut hotkeys: Vec<[u8; 32]> = writer.read().or_default(SUBTENSOR, entry, &keys)?;
        if !hotkeys.contains(hotkey) {
            hotkeys.push(*hotkey);
            writer.put(SUBTENSOR, entry, &keys, &hotkeys)?;
        }
    }
    Ok(())
}

/// `burned_register`: the coldkey pays the subnet's burn, the hotkey takes a free slot or that of
/// the neuron with the least emission outside its immunity.
pub(super) fn burned_register(
    writer: &mut Writer<'_>,
    origin: Origin,
    call: &Call,
    block: u64,
) -> Outcome {
    let error = |name| Failure::Module(SUBTENSOR, name);
    let coldkey = origin.signer()?;
    let netuid: u16 = argument(writer, call, "netuid")?;
    let hotkey: [u8; 32] = argument(writer, call, "hotkey")?;
    let reader = writer.read();
    if netuid == 0 {
        return Err(error("RegistrationNotPermittedOnRootSubnet"));
    }
    if !reader.subnet_exists(netuid)? {
        return Err(error("SubnetNotExists"));
    }
    if !reader.subnet::<bool>("NetworkRegistrationAllowed", netuid)? {
        return Err(error("SubNetRegistrationDisabled"));
    }
    if reader.uid(netuid, &hotkey)?.is_some() {
        return Err(error("HotKeyAlreadyRegisteredInSubNet"));
    }
    let burn: u64 = reader.subnet("Burn", netuid)?;
    let uid = free_slot(&reader, netuid, block)?.ok_or(error("NoNeuronIdAvailable"))?;
    let n: u16 = reader.subnet("SubnetworkN", netuid)?;
    let replaced = (uid < n).then(|| reader.hotkey(netuid, uid)).transpose()?;
    if !account::withdraw(writer, &coldkey, burn)? {
        return Err(error("NotEnoughBalanceToStake"));
    }
    if let Some(old) = replaced {
        let member = [Key::U16(netuid), Key::Account(old)];
        writer.remove(SUBTENSOR, "Uids", &member);
        let member = [Key::Account(old), Key::U16(netuid)];
        writer.remove(SUBTENSOR, "IsNetworkMember", &member);
    }
    place(writer, netuid, uid, (hotkey, coldkey), block)?;
    let event = vec![
        ("0", number(netuid)),
        ("1", number(uid)),
        ("2", account_value(&hotkey)),
    ];
    writer.emit(SUBTENSOR, "NeuronRegistered", event)?;
    Ok(())
}

fn free_slot(reader: &Reader<'_>, netuid: u16, block: u64) -> Result<Option<u16>, DevChainError> {
    let n: u16 = reader.subnet("SubnetworkN", netuid)?;
    if n < reader.subnet("MaxAllowedUids", netuid)? {
        return Ok(Some(n));
    }
    let immunity = u64::from(reader.subnet::<u16>("ImmunityPeriod", netuid)?);
    let emission: Vec<u64> = reader.subnet("Emission", netuid)?;
    let owner = reader.owner_uid(netuid)?;
    let mut weakest: Option<(u64, u64, u16)> = None;
    for uid in (0..n).filter(|uid| owner != Some(*uid)) {
        let since = reader.registered_at(netuid, uid)?;
        if block.saturating_sub(since) < immunity {
            continue;
        }
        let earned = emission.get(usize::from(uid)).copied().unwrap_or_default();
        let candidate = (earned, since, uid);
        weakest = Some(weakest.map_or(candidate, |w| w.min(candidate)));
    }
    Ok(weakest.map(|(.., uid)| uid))
}
