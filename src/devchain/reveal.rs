//! Pulses of the beacon, and the reveal of timelocked weights at the start of each block
//! (`reveal_crv3_commits`): silent on every failure, as on chain.

use super::beacon::{self, Beacon};
use super::dispatch::Failure;
use super::epoch;
use super::error::DevChainError;
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR, Writer, account, number};
use super::subnet::storage_index;
use super::weights::{Commit, Row, reveal_row};
use codec::Decode;
use scale_value::Value;

/// Stores what the beacon has published by `now_ms`: the newest round's number, and the pulses that
/// waiting commits need. The real chain stores every pulse it sees, and misses some.
pub(super) fn store_pulses(
    writer: &mut Writer<'_>,
    beacon: &Beacon,
    netuids: &[u16],
    now_ms: u64,
) -> Result<(), DevChainError> {
    let newest = beacon.round_at(now_ms);
    for (index, epoch) in waiting(&writer.read(), netuids)? {
        for (_, _, _, round) in queue(&writer.read(), index, epoch)? {
            if round <= newest && pulse(&writer.read(), round)?.is_none() {
                let pulse = Value::named_composite([
                    ("round", number(round)),
                    ("randomness", Value::from_bytes([0; 32])),
                    ("signature", Value::from_bytes(beacon.signature(round))),
                ]);
                writer.put("Drand", "Pulses", &[Key::U64(round)], &pulse)?;
            }
        }
    }
    writer.put("Drand", "LastStoredRound", &[], &newest)
}

/// Reveals what is due, and forgets commits whose epoch has passed without a pulse.
pub(super) fn on_block(
    writer: &mut Writer<'_>,
    netuids: &[u16],
    block: u64,
) -> Result<(), DevChainError> {
    for (index, committed) in waiting(&writer.read(), netuids)? {
        let netuid = index % 4096;
        let reader = writer.read();
        let period: u64 = reader.subnet("RevealPeriodEpochs", netuid)?;
        let now = epoch::reveal_epoch(&reader, netuid, block)?;
        let keys = [Key::U16(index), Key::U64(committed)];
        if committed + period < now {
            writer.remove(SUBTENSOR, "TimelockedWeightCommits", &keys);
        } else if committed + period == now {
            let queue = queue(&reader, index, committed)?;
            let left = reveal_all(writer, index, queue)?;
            if left.is_empty() {
                writer.remove(SUBTENSOR, "TimelockedWeightCommits", &keys);
            } else {
                writer.put(SUBTENSOR, "TimelockedWeightCommits", &keys, &left)?;
            }
        }
    }
    Ok(())
}

/// Tries every commit whose pulse is stored; the others wait.
fn reveal_all(
    writer: &mut Writer<'_>,
    index: u16,
    queue: Vec<Commit>,
) -> Result<Vec<Commit>, DevChainError> {
    let mut left = Vec::new();
    for commit in queue {
        let Some(signature) = pulse(&writer.read(), commit.3)? else {
            left.push(commit);
            continue;
        };
        match reveal(writer, index, &commit, &signature) {
            Ok(()) => {}
            Err(Failure::Bug(error)) => return Err(error),
            Err(why) => tracing::debug!(?why, index, "a commit did not reveal"),
        }
    }
    Ok(left)
}

fn reveal(
    writer: &mut Writer<'_>,
    index: u16,
    (who, _, sealed, _): &Commit,
    signature: &[u8],
) -> Result<(), Failure> {
    let row = beacon::open(sealed, signature).and_then(|plain| payload(&plain, who));
    let row = row.ok_or(Failure::Module(SUBTENSOR, "InvalidRevealedCommit"))?;
    let mechanism = u8::try_from(index / 4096).unwrap_or(u8::MAX);
    reveal_row(writer, who, (index % 4096, mechanism), &row)?;
    let event = vec![("0", number(index)), ("1", account(who))];
    writer.emit(SUBTENSOR, "TimelockedWeightsRevealed", event)?;
    Ok(())
}

/// `WeightsTlockPayload` of the committer; trailing bytes are tolerated as SCALE does.
fn payload(plain: &[u8], who: &[u8; 32]) -> Option<Row> {
    type Payload = (Vec<u8>, Vec<u16>, Vec<u16>, u64);
    let (hotkey, uids, values, version) = Payload::decode(&mut &*plain).ok()?;
    (hotkey == who).then_some(Row {
        uids,
        values,
        version,
    })
}

fn pulse(reader: &Reader<'_>, round: u64) -> Result<Option<Vec<u8>>, DevChainError> {
    #[derive(scale_decode::DecodeAsType)]
    struct Pulse {
        signature: Vec<u8>,
    }
    if reader.raw("Drand", "Pulses", &[Key::U64(round)]).is_none() {
        return Ok(None);
    }
    let pulse: Option<Pulse> = reader.get("Drand", "Pulses", &[Key::U64(round)])?;
    Ok(pulse.map(|p| p.signature))
}

fn queue(reader: &Reader<'_>, index: u16, epoch: u64) -> Result<Vec<Commit>, DevChainError> {
    let keys = [Key::U16(index), Key::U64(epoch)];
    reader.or_default(SUBTENSOR, "TimelockedWeightCommits", &keys)
}

/// Storage index and commit epoch of every queue that is not empty.
fn waiting(reader: &Reader<'_>, netuids: &[u16]) -> Result<Vec<(u16, u64)>, DevChainError> {
    let block = reader.number()?;
    let mut found = Vec::new();
    for &netuid in netuids {
        let mechanisms: u8 = reader.subnet("MechanismCountCurrent", netuid)?;
        let newest = epoch::index(reader, netuid, block)? + 1;
        let period: u64 = reader.subnet("RevealPeriodEpochs", netuid)?;
        let oldest = newest.saturating_sub(period + 3);
        for mechanism in 0..mechanisms.max(1) {
            let index = storage_index(netuid, mechanism);
            for epoch in oldest..=newest {
                let keys = [Key::U16(index), Key::U64(epoch)];
                if reader
                    .raw(SUBTENSOR, "TimelockedWeightCommits", &keys)
                    .is_some()
                {
                    found.push((index, epoch));
                }
            }
        }
    }
    Ok(found)
}
