//! The commitments pallet.

use super::dispatch::{Failure, Origin, Outcome, argument};
use super::epoch;
use super::error::DevChainError;
use super::extrinsic::Call;
use super::runtime::Key;
use super::storage::{SUBTENSOR, Writer, account, number};
use codec::Encode;
use scale_decode::DecodeAsType;
use scale_encode::EncodeAsType;
use scale_value::{Composite, Value, ValueDef};

const PALLET: &str = "Commitments";
/// Each call costs at least this much of the space budget.
const MIN_SPACE: u64 = 100;
/// `MaxFields`, where the runtime's constant is not in the metadata.
const MAX_FIELDS: u32 = 3;

#[derive(Debug, Clone, Copy, Default, DecodeAsType, EncodeAsType)]
struct UsageTracker {
    last_epoch: u64,
    used_space: u64,
}

/// `set_commitment`: registered signer, at most three fields, space left in the subnet's epoch.
pub(super) fn set(writer: &mut Writer<'_>, origin: Origin, call: &Call, block: u64) -> Outcome {
    let who = origin.signer()?;
    let netuid: u16 = argument(writer, call, "netuid")?;
    let keys = [Key::U16(netuid), Key::Account(who)];
    let (_, info) = call
        .raw("info")
        .ok_or_else(|| DevChainError::decode("set_commitment", "no argument info"))?;
    if writer.read().raw(SUBTENSOR, "Uids", &keys).is_none() {
        return Err(Failure::Module(PALLET, "AccountNotAllowedCommit"));
    }
    let fields = fields(&argument::<Value>(writer, call, "info")?);
    let max_fields = writer.runtime.constant(PALLET, "MaxFields");
    if fields.len() > usize::try_from(max_fields.unwrap_or(MAX_FIELDS)).unwrap_or(usize::MAX) {
        return Err(Failure::Module(PALLET, "TooManyFieldsInCommitmentInfo"));
    }
    charge_space(writer, netuid, &keys, &fields, block)?;

    let number32 = u32::try_from(block).unwrap_or(u32::MAX);
    let mut registration = (0u64, number32).encode();
    registration.extend_from_slice(info);
    writer.put_raw(PALLET, "CommitmentOf", &keys, registration)?;
    writer.put(PALLET, "LastCommitment", &keys, &number32)?;
    let event = vec![("netuid", number(netuid)), ("who", account(&who))];
    match fields.iter().find_map(|f| f.reveal_round) {
        Some(round) => {
            let event = [event, vec![("reveal_round", number(round))]].concat();
            writer.emit(PALLET, "TimelockCommitment", event)?;
        }
        None => writer.emit(PALLET, "Commitment", event)?,
    }
    Ok(())
}

fn charge_space(
    writer: &mut Writer<'_>,
    netuid: u16,
    keys: &[Key],
    fields: &[Field],
    block: u64,
) -> Outcome {
    let reader = writer.read();
    let epoch = epoch::index(&reader, netuid, block)?;
    let mut usage: UsageTracker = reader.or_default(PALLET, "UsedSpaceOf", keys)?;
    let budget: u32 = reader.or_default(PALLET, "MaxSpace", &[])?;
    if usage.last_epoch != epoch {
        usage = UsageTracker {
            last_epoch: epoch,
            used_space: 0,
        };
    }
    let length: u64 = fields.iter().map(|f| f.length).sum();
    usage.used_space = usage.used_space.saturating_add(length.max(MIN_SPACE));
    if usage.used_space > u64::from(budget) {
        return Err(Failure::Module(PALLET, "SpaceLimitExceeded"));
    }
    writer.put(PALLET, "UsedSpaceOf", keys, &usage)?;
    Ok(())
}

#[derive(Debug)]
struct Field {
    length: u64,
    reveal_round: Option<u64>,
}

/// The fields of a `CommitmentInfo`, by variant name.
fn fields(info: &Value) -> Vec<Field> {
    let list = match &info.value {
        ValueDef::Composite(Composite::Named(named)) => {
            named.iter().find(|(n, _)| n == "fields").map(|(_, v)| v)
        }
        _ => None,
    };
    let Some(list) = list else { return Vec::new() };
    elements(list).iter().map(|v| field(v)).collect()
}

/// The elements of a sequence, through newtypes such as `BoundedVec`.
fn elements(value: &Value) -> Vec<&Value> {
    let ValueDef::Composite(composite) = &value.value else {
        return Vec::new();
    };
    let inner: Vec<&Value> = composite.values().collect();
    match inner.as_slice() {
        [only] if matches!(only.value, ValueDef::Composite(_)) => elements(only),
        _ => inner,
    }
}

fn field(value: &Value) -> Field {
    let ValueDef::Variant(variant) = &value.value else {
        return Field {
            length: 0,
            reveal_round: None,
        };
    };
    let bytes = |v: Option<&Value>| v.map_or(0, |v| elements(v).len());
    let (length, reveal_round) = match variant.name.as_str() {
        "TimelockEncrypted" => {
            let mut values = variant.values.values();
            let length = bytes(values.next());
            let round = values.next().and_then(Value::as_u128);
            (length, round.and_then(|r| u64::try_from(r).ok()))
        }
        _ => (bytes(variant.values.values().next()), None),
    };
    Field {
        length: u64::try_from(length).unwrap_or(u64::MAX),
        reveal_round,
    }
}
