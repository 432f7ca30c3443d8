//! Epochs: when they fire, and what they update.
//!
//! The consensus is simplified: incentive is the stake-weighted mean of the permitted validators'
//! normalised rows, for each mechanism by its own rows; dividends follow the stake of those whose rows
//! count in mechanism 0, and so does emission, which is shown in `Emission` but not added to stake.
//! Bonds and trust clipping are not modelled.

use super::error::DevChainError;
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR, Writer};
use super::subnet::storage_index;

/// Alpha that an epoch of one block would emit, in rao.
const EMISSION_PER_BLOCK: u128 = 1_000_000_000;
/// A stalled subnet's epoch fires after this many blocks at the latest.
const MAX_BLOCKS_WITHOUT_STEP: u64 = 50_400;

/// Whether the runtime keeps an epoch counter; older ones compute the epoch from the block number.
fn counts_epochs(reader: &Reader<'_>) -> bool {
    reader
        .runtime
        .entry(SUBTENSOR, "SubnetEpochIndex")
        .is_some()
}

/// `SubnetEpochIndex`, or the older formula (block + netuid + 1) / (tempo + 1).
pub(super) fn index(reader: &Reader<'_>, netuid: u16, block: u64) -> Result<u64, DevChainError> {
    if counts_epochs(reader) {
        return reader.subnet("SubnetEpochIndex", netuid);
    }
    let tempo: u16 = reader.subnet("Tempo", netuid)?;
    Ok((block + u64::from(netuid) + 1) / (u64::from(tempo) + 1))
}

/// The epoch a commit of `block` belongs to: one further when the next block fires an epoch,
/// because reveals run before epochs.
pub(super) fn commit_epoch(
    reader: &Reader<'_>,
    netuid: u16,
    block: u64,
) -> Result<u64, DevChainError> {
    let index = index(reader, netuid, block)?;
    let ahead = counts_epochs(reader) && is_due(reader, netuid, block + 1)?;
    Ok(index + u64::from(ahead))
}

/// The epoch that `block` looks ahead to before its own epoch fires: reveals go by it.
pub(super) fn reveal_epoch(
    reader: &Reader<'_>,
    netuid: u16,
    block: u64,
) -> Result<u64, DevChainError> {
    let index = index(reader, netuid, block)?;
    let ahead = counts_epochs(reader) && is_due(reader, netuid, block)?;
    Ok(index + u64::from(ahead))
}

/// Whether `block` fires the subnet's epoch.
pub(super) fn is_due(reader: &Reader<'_>, netuid: u16, block: u64) -> Result<bool, DevChainError> {
    let tempo = u64::from(reader.subnet::<u16>("Tempo", netuid)?);
    if tempo == 0 {
        return Ok(false);
    }
    if !counts_epochs(reader) {
        return Ok((block + u64::from(netuid) + 1).is_multiple_of(tempo + 1));
    }
    let last: u64 = reader.subnet("LastEpochBlock", netuid)?;
    let pending: u64 = reader.subnet("PendingEpochAt", netuid)?;
    let since: u64 = reader.subnet("BlocksSinceLastStep", netuid)?;
    Ok((pending > 0 && block >= pending)
        || since > MAX_BLOCKS_WITHOUT_STEP
        || block.saturating_sub(last) >= tempo)
}

/// First block at which the next epoch may fire; `None` for tempo 0.
pub(super) fn next_block(reader: &Reader<'_>, netuid: u16) -> Result<Option<u64>, DevChainError> {
    let tempo = u64::from(reader.subnet::<u16>("Tempo", netuid)?);
    if tempo == 0 || !reader.subnet_exists(netuid)? {
        return Ok(None);
    }
    let block = reader.number()?;
    if !counts_epochs(reader) {
        let past = (block + u64::from(netuid) + 1) % (tempo + 1);
        return Ok(Some(block + tempo - past));
    }
    let next = reader.subnet::<u64>("LastEpochBlock", netuid)? + tempo;
    let pending: u64 = reader.subnet("PendingEpochAt", netuid)?;
    Ok(Some(if pending > 0 { next.min(pending) } else { next }))
}

/// Runs at the start of each block: counts blocks, fires the epochs that are due.
pub(super) fn on_block(
    writer: &mut Writer<'_>,
    netuids: &[u16],
    block: u64,
) -> Result<(), DevChainError> {
    for &netuid in netuids {
        if netuid == 0 {
            continue;
        }
        let since: u64 = writer.read().subnet("BlocksSinceLastStep", netuid)?;
        if is_due(&writer.read(), netuid, block)? {
            run(writer, netuid, block)?;
        } else {
            writer.put_subnet("BlocksSinceLastStep", netuid, &(since + 1))?;
        }
    }
    Ok(())
}

fn run(writer: &mut Writer<'_>, netuid: u16, block: u64) -> Result<(), DevChainError> {
    writer.put_subnet("BlocksSinceLastStep", netuid, &0u64)?;
    writer.put_subnet("LastMechansimStepBlock", netuid, &block)?;
    writer.put_subnet("LastEpochBlock", netuid, &block)?;
    writer.put_subnet("PendingEpochAt", netuid, &0u64)?;
    let index: u64 = writer.read().subnet("SubnetEpochIndex", netuid)?;
    writer.put_subnet("SubnetEpochIndex", netuid, &(index + 1))?;

    run_other_mechanisms(writer, netuid, block)?;
    let index = storage_index(netuid, 0);
    let neurons = read_neurons(&writer.read(), netuid, index, block)?;
    let rows = surviving_rows(&writer.read(), netuid, index, &neurons)?;
    let incentive = incentive(&neurons, &rows);
    let votes = |uid: usize| rows.iter().any(|row| row.from == uid);
    let voting: Vec<u128> = (0..neurons.len())
        .map(|uid| u128::from(if votes(uid) { neurons[uid].stake } else { 0 }))
        .collect();
    let dividends = shares(&voting);
    let tempo = u128::from(writer.read().subnet::<u16>("Tempo", netuid)?);
    // 41 % each to miners and validators; the owner's cut goes to no neuron here.
    let part = EMISSION_PER_BLOCK * tempo * 41 / 100;
    let emission: Vec<u64> = incentive
        .iter()
        .zip(&dividends)
        .map(|(i, d)| part * (u128::from(*i) + u128::from(*d)) / u128::from(u16::MAX))
        .map(|e| u64::try_from(e).unwrap_or(u64::MAX))
        .collect();
    let active: Vec<bool> = neurons.iter().map(|n| n.active).collect();
    let permits: Vec<bool> = neurons.iter().map(|n| n.permit).collect();
    let trust: Vec<u16> = (0..neurons.len())
        .map(|uid| if votes(uid) { u16::MAX } else { 0 })
        .collect();
    writer.put_subnet("Consensus", netuid, &incentive)?;
    writer.put_subnet("Incentive", index, &incentive)?;
    writer.put_subnet("Dividends", netuid, &dividends)?;
    writer.put_subnet("ValidatorTrust", netuid, &trust)?;
    writer.put_subnet("Emission", netuid, &emission)?;
    writer.put_subnet("Active", netuid, &active)?;
    writer.put_subnet("ValidatorPermit", netuid, &permits)
}

/// The incentive of every mechanism but the first.
fn run_other_mechanisms(
    writer: &mut Writer<'_>,
    netuid: u16,
    block: u64,
) -> Result<(), DevChainError> {
    for mechanism in 1..writer.read().mechanisms(netuid)? {
        let index = storage_index(netuid, mechanism);
        let neurons = read_neurons(&writer.read(), netuid, index, block)?;
        let rows = surviving_rows(&writer.read(), netuid, index, &neurons)?;
        writer.put_subnet("Incentive", index, &incentive(&neurons, &rows))?;
    }
    Ok(())
}

#[derive(Debug)]
struct Neuron {
    stake: u64,
    active: bool,
    permit: bool,
    last_update: u64,
    registered_at: u64,
}

/// The neurons with the permits that this epoch gives: the highest stakes at or above the
/// threshold, and the owner. `index` is the mechanism's.
fn read_neurons(
    reader: &Reader<'_>,
    netuid: u16,
    index: u16,
    block: u64,
) -> Result<Vec<Neuron>, DevChainError> {
    let n: u16 = reader.subnet("SubnetworkN", netuid)?;
    let updates: Vec<u64> = reader.subnet("LastUpdate", index)?;
    let cutoff = reader.activity_cutoff(netuid)?;
    let threshold: u64 = reader.or_default(SUBTENSOR, "StakeThreshold", &[])?;
    let seats = usize::from(reader.subnet::<u16>("MaxAllowedValidators", netuid)?);
    let owner = reader.owner_uid(netuid)?;
    let mut neurons = Vec::with_capacity(usize::from(n));
    for uid in 0..n {
        let hotkey = reader.hotkey(netuid, uid)?;
        let last_update = updates.get(usize::from(uid)).copied().unwrap_or_default();
        neurons.push(Neuron {
            stake: reader.total_stake(netuid, &hotkey)?,
            active: last_update + cutoff >= block,
            permit: owner == Some(uid),
            last_update,
            registered_at: reader.registered_at(netuid, uid)?,
        });
    }
    let mut by_stake: Vec<usize> = (0..neurons.len())
        .filter(|i| neurons[*i].stake >= threshold && neurons[*i].stake > 0)
        .collect();
    by_stake.sort_by_key(|i| std::cmp::Reverse(neurons[*i].stake));
    for i in by_stake.into_iter().take(seats) {
        neurons[i].permit = true;
    }
    Ok(neurons)
}

#[derive(Debug)]
struct Row {
    from: usize,
    weights: Vec<(usize, u128)>,
}

/// The rows of permitted, active validators, without weights on themselves (the owner may) and on
/// neurons registered after the row was set.
fn surviving_rows(
    reader: &Reader<'_>,
    netuid: u16,
    index: u16,
    neurons: &[Neuron],
) -> Result<Vec<Row>, DevChainError> {
    let owner = reader.owner_uid(netuid)?.map(usize::from);
    let mut rows = Vec::new();
    for (from, neuron) in neurons.iter().enumerate() {
        if !(neuron.permit && neuron.active) {
            continue;
        }
        let uid = u16::try_from(from).unwrap_or(u16::MAX);
        let keys = [Key::U16(index), Key::U16(uid)];
        let stored: Vec<(u16, u16)> = reader.or_default(SUBTENSOR, "Weights", &keys)?;
        let weights: Vec<(usize, u128)> = stored
            .into_iter()
            .map(|(to, value)| (usize::from(to), u128::from(value)))
            .filter(|(to, _)| *to != from || owner == Some(from))
            .filter(|(to, _)| {
                neurons
                    .get(*to)
                    .is_some_and(|n| n.registered_at <= neuron.last_update)
            })
            .collect();
        if weights.iter().any(|(_, value)| *value > 0) {
            rows.push(Row { from, weights });
        }
    }
    Ok(rows)
}

/// Stake-weighted mean of the normalised rows, as shares of 65535.
fn incentive(neurons: &[Neuron], rows: &[Row]) -> Vec<u16> {
    let mut sums = vec![0u128; neurons.len()];
    for row in rows {
        let total: u128 = row.weights.iter().map(|(_, w)| w).sum();
        for (to, weight) in &row.weights {
            sums[*to] += u128::from(neurons[row.from].stake) * weight * 65_536 / total.max(1);
        }
    }
    shares(&sums)
}

/// Each amount's share of the sum, u16::MAX = all.
fn shares(amounts: &[u128]) -> Vec<u16> {
    let total: u128 = amounts.iter().sum();
    amounts
        .iter()
        .map(|a| a * u128::from(u16::MAX) / total.max(1))
        .map(|share| u16::try_from(share).unwrap_or(u16::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_at_most_one() {
        assert_eq!(shares(&[4, 2, 1, 0]), [37448, 18724, 9362, 0]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
    }
}
