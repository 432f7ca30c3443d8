//! The whole subnet at one block: one runtime call and one storage query.

use super::commitments;
use super::connect::ChainClient;
use super::error::ChainError;
use super::view::{Entry, View};
use crate::bittensor::{
    BlockNumber, BlockRef, Coldkey, Commitment, Hotkey, Hyperparameters, MechanismId, Metagraph,
    Netuid, Neuron, SubnetSnapshot, Tempo, Uid, storage_index,
};
use scale_decode::DecodeAsType;

const TIMESTAMP: Entry = Entry("Timestamp", "Now");
const STAKE_THRESHOLD: Entry = Entry("SubtensorModule", "StakeThreshold");
const LAST_EPOCH_BLOCK: Entry = Entry("SubtensorModule", "LastEpochBlock");
const PENDING_EPOCH_AT: Entry = Entry("SubtensorModule", "PendingEpochAt");
const WEIGHTS: Entry = Entry("SubtensorModule", "Weights");
const MECHANISM_COUNT: Entry = Entry("SubtensorModule", "MechanismCountCurrent");
const LAST_UPDATE: Entry = Entry("SubtensorModule", "LastUpdate");
const SELECTIVE_METAGRAPH: (&str, &str) = ("SubnetInfoRuntimeApi", "get_selective_metagraph");

/// Fields asked of `get_selective_metagraph`, by the runtime's numbers: identity 0, 5–10,
/// parameters 24–31, 36, 46, 47, neurons 52, 53, 56, 57, 59–62, 66–69, commitments 73.
const FIELDS: [u16; 31] = [
    0, 5, 6, 7, 8, 9, 10, 24, 25, 26, 27, 28, 29, 30, 31, 36, 46, 47, 52, 53, 56, 57, 59, 60, 61,
    62, 66, 67, 68, 69, 73,
];

/// The part of `SelectiveMetagraph` that is read, by the runtime's field names. What the runtime
/// adds is passed over; what it lacks is an error.
#[derive(DecodeAsType)]
struct Selective {
    netuid: u16,
    owner_hotkey: Option<[u8; 32]>,
    owner_coldkey: Option<[u8; 32]>,
    block: Option<u64>,
    tempo: Option<u16>,
    min_allowed_weights: Option<u16>,
    max_weights_limit: Option<u16>,
    weights_version: Option<u64>,
    weights_rate_limit: Option<u64>,
    activity_cutoff: Option<u64>,
    max_validators: Option<u16>,
    num_uids: Option<u16>,
    immunity_period: Option<u64>,
    commit_reveal_weights_enabled: Option<bool>,
    commit_reveal_period: Option<u64>,
    hotkeys: Option<Vec<[u8; 32]>>,
    coldkeys: Option<Vec<[u8; 32]>>,
    active: Option<Vec<bool>>,
    validator_permit: Option<Vec<bool>>,
    last_update: Option<Vec<u64>>,
    emission: Option<Vec<u64>>,
    incentives: Option<Vec<u16>>,
    block_at_registration: Option<Vec<u64>>,
    total_stake: Option<Vec<u64>>,
    commitments: Option<Vec<([u8; 32], Vec<u8>)>>,
}

/// What the storage query adds.
struct Stored {
    timestamp_ms: u64,
    stake_threshold: u64,
    /// `LastEpochBlock` and `PendingEpochAt`, on runtimes that have them.
    epoch: Option<(u64, u64)>,
    mechanism_count: u8,
    /// `LastUpdate` of a mechanism other than 0, whose own the metagraph holds.
    last_update: Option<Vec<u64>>,
}

impl ChainClient {
    /// Reads the whole subnet at one block hash: metagraph, parameters, commitments, clock.
    /// Three requests; the metadata comes on top once per runtime version.
    ///
    /// # Errors
    /// [`ChainError::NoSuchSubnet`], or any other [`ChainError`]. A field that is missing, partial or
    /// of unknown shape fails the whole read.
    pub async fn snapshot(
        &self,
        netuid: Netuid,
        at: BlockRef,
    ) -> Result<SubnetSnapshot, ChainError> {
        self.mechanism_snapshot(netuid, MechanismId(0), at).await
    }

    /// The same for one mechanism: with its own `LastUpdate`. Whether the mechanism exists is for the
    /// caller to see.
    ///
    /// # Errors
    /// As [`ChainClient::snapshot`].
    pub async fn mechanism_snapshot(
        &self,
        netuid: Netuid,
        mechanism: MechanismId,
        at: BlockRef,
    ) -> Result<SubnetSnapshot, ChainError> {
        self.read("reading the subnet", async {
            let view = self.view(at).await?;
            let args = (netuid.0, FIELDS.to_vec());
            let (selective, stored) = tokio::try_join!(
                view.call::<Option<Selective>>(SELECTIVE_METAGRAPH, args),
                stored(&view, netuid, mechanism),
            )?;
            let selective = selective.ok_or(ChainError::NoSuchSubnet {
                netuid,
                block: at.hash,
            })?;
            assemble(&view, (netuid, mechanism), selective, stored)
        })
        .await
    }

    /// The row of weights that `uid` has set, as the chain keeps it (max-upscaled); empty when it
    /// has set none. Two requests.
    ///
    /// # Errors
    /// Any [`ChainError`]; never an empty row for a failed read.
    pub async fn weights_row(
        &self,
        at: BlockRef,
        netuid: Netuid,
        mechanism: MechanismId,
        uid: Uid,
    ) -> Result<Vec<(Uid, u16)>, ChainError> {
        self.read("reading weights", async {
            let view = self.view(at).await?;
            let key = view.key(WEIGHTS, (storage_index(netuid, mechanism), uid.0))?;
            let stored = view.value(&key).await?;
            let row: Vec<(u16, u16)> = view.decode_present(WEIGHTS, stored.as_deref())?;
            Ok(row.into_iter().map(|(uid, w)| (Uid(uid), w)).collect())
        })
        .await
    }
}

async fn stored(view: &View, netuid: Netuid, mechanism: MechanismId) -> Result<Stored, ChainError> {
    let mut wanted = vec![
        (TIMESTAMP, view.key(TIMESTAMP, ())?),
        (STAKE_THRESHOLD, view.key(STAKE_THRESHOLD, ())?),
    ];
    for entry in [LAST_EPOCH_BLOCK, PENDING_EPOCH_AT, MECHANISM_COUNT] {
        if view.has(entry) {
            wanted.push((entry, view.key(entry, (netuid.0,))?));
        }
    }
    if mechanism != MechanismId(0) {
        let index = storage_index(netuid, mechanism);
        wanted.push((LAST_UPDATE, view.key(LAST_UPDATE, (index,))?));
    }
    let (entries, keys): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let values = view.values(&keys).await?;
    let place = |entry| entries.iter().position(|known| *known == entry);
    let value = |entry| values.get(place(entry)?)?.as_deref();
    let asked = |entry| place(entry).is_some();
    let timestamp = value(TIMESTAMP).ok_or_else(|| no_time(view.block))?;
    let epoch = if asked(LAST_EPOCH_BLOCK) && asked(PENDING_EPOCH_AT) {
        let last = view.decode_present(LAST_EPOCH_BLOCK, value(LAST_EPOCH_BLOCK))?;
        let pending = view.decode_present(PENDING_EPOCH_AT, value(PENDING_EPOCH_AT))?;
        Some((last, pending))
    } else {
        None
    };
    let mechanism_count = if asked(MECHANISM_COUNT) {
        view.decode_present(MECHANISM_COUNT, value(MECHANISM_COUNT))?
    } else {
        1
    };
    let last_update = if asked(LAST_UPDATE) {
        Some(view.decode_present(LAST_UPDATE, value(LAST_UPDATE))?)
    } else {
        None
    };
    Ok(Stored {
        timestamp_ms: view.decode_present(TIMESTAMP, Some(timestamp))?,
        stake_threshold: view.decode_present(STAKE_THRESHOLD, value(STAKE_THRESHOLD))?,
        epoch,
        mechanism_count,
        last_update,
    })
}

/// The genesis block alone carries no time, and it passes by itself.
fn no_time(block: BlockRef) -> ChainError {
    let reason = format!("block {} carries no time", block.number);
    if block.number.0 == 0 {
        return ChainError::transient(TIMESTAMP.to_string(), reason);
    }
    ChainError::unreadable(TIMESTAMP.to_string(), reason)
}

fn assemble(
    view: &View,
    (netuid, mechanism): (Netuid, MechanismId),
    mut read: Selective,
    stored: Stored,
) -> Result<SubnetSnapshot, ChainError> {
    let at = view.block;
    if read.netuid != netuid.0 || need("block", read.block)? != at.number.0 {
        let reason = format!(
            "it is of subnet {} at block {:?}, asked for {netuid} at {}",
            read.netuid, read.block, at.number
        );
        return Err(ChainError::unreadable("the metagraph", reason));
    }
    let hyperparameters = hyperparameters(&read, &stored)?;
    if let Some(mut own) = stored.last_update {
        // A mechanism may have no entry for a neuron, which the chain reads as 0.
        let neurons = usize::from(need("num_uids", read.num_uids)?);
        own.resize(own.len().max(neurons), 0);
        read.last_update = Some(own);
    }
    let next_epoch_block = next_epoch(at.number, netuid, hyperparameters.tempo, stored.epoch);
    let entries = need("commitments", read.commitments.as_deref())?;
    let commitments: Result<Vec<Commitment>, ChainError> = entries
        .iter()
        .map(|(account, bytes)| commitments::decode(view, Hotkey(*account), bytes))
        .collect();
    Ok(SubnetSnapshot {
        at,
        timestamp_ms: stored.timestamp_ms,
        spec_version: view.at.spec_version(),
        owner_hotkey: Hotkey(need("owner_hotkey", read.owner_hotkey)?),
        owner_coldkey: Coldkey(need("owner_coldkey", read.owner_coldkey)?),
        commitments: commitments?,
        metagraph: metagraph(netuid, read)?,
        mechanism,
        mechanism_count: stored.mechanism_count.max(1),
        hyperparameters,
        next_epoch_block,
    })
}

fn hyperparameters(read: &Selective, stored: &Stored) -> Result<Hyperparameters, ChainError> {
    Ok(Hyperparameters {
        tempo: Tempo(need("tempo", read.tempo)?),
        min_allowed_weights: need("min_allowed_weights", read.min_allowed_weights)?,
        max_weights_limit: need("max_weights_limit", read.max_weights_limit)?,
        weights_version: need("weights_version", read.weights_version)?,
        weights_rate_limit: need("weights_rate_limit", read.weights_rate_limit)?,
        activity_cutoff: need("activity_cutoff", read.activity_cutoff)?,
        immunity_period: need("immunity_period", read.immunity_period)?,
        max_validators: need("max_validators", read.max_validators)?,
        commit_reveal_weights_enabled: need(
            "commit_reveal_weights_enabled",
            read.commit_reveal_weights_enabled,
        )?,
        commit_reveal_period: need("commit_reveal_period", read.commit_reveal_period)?,
        stake_threshold: stored.stake_threshold,
    })
}

fn metagraph(netuid: Netuid, read: Selective) -> Result<Metagraph, ChainError> {
    let n = need("num_uids", read.num_uids)?;
    let hotkeys = column("hotkeys", read.hotkeys, n)?;
    let coldkeys = column("coldkeys", read.coldkeys, n)?;
    let active = column("active", read.active, n)?;
    let permits = column("validator_permit", read.validator_permit, n)?;
    let last_update = column("last_update", read.last_update, n)?;
    let registered = column("block_at_registration", read.block_at_registration, n)?;
    let total_stake = column("total_stake", read.total_stake, n)?;
    let incentives = column("incentives", read.incentives, n)?;
    let emission = column("emission", read.emission, n)?;
    let neurons = (0..n)
        .map(|uid| {
            let i = usize::from(uid);
            Neuron {
                uid: Uid(uid),
                hotkey: Hotkey(hotkeys[i]),
                coldkey: Coldkey(coldkeys[i]),
                active: active[i],
                validator_permit: permits[i],
                last_update: BlockNumber(last_update[i]),
                registered_at: BlockNumber(registered[i]),
                total_stake: total_stake[i],
                incentive: incentives[i],
                emission: emission[i],
            }
        })
        .collect();
    Metagraph::new(netuid, neurons).map_err(|e| ChainError::unreadable("the metagraph", e))
}

fn need<T>(field: &str, value: Option<T>) -> Result<T, ChainError> {
    value.ok_or_else(|| ChainError::unreadable("the metagraph", format!("no field {field}")))
}

/// A per-neuron field with exactly one value for each of the `n` neurons.
fn column<T>(field: &str, values: Option<Vec<T>>, n: u16) -> Result<Vec<T>, ChainError> {
    let values = need(field, values)?;
    if values.len() == usize::from(n) {
        return Ok(values);
    }
    let reason = format!("{field} has {} values for {n} neurons", values.len());
    Err(ChainError::unreadable("the metagraph", reason))
}

/// First block after `now` at which the subnet's epoch may fire.
///
/// With stored epochs (`LastEpochBlock`, `PendingEpochAt`, 2026 on): one tempo after the last, or
/// the pending block if that is sooner. Before that the runtime fires where
/// `(block + netuid + 1) mod (tempo + 1)` is 0.
fn next_epoch(
    now: BlockNumber,
    netuid: Netuid,
    tempo: Tempo,
    epoch: Option<(u64, u64)>,
) -> Option<BlockNumber> {
    let tempo = u64::from(tempo.0);
    if tempo == 0 {
        return None;
    }
    Some(match epoch {
        Some((last, pending)) => {
            let due = BlockNumber(last).plus(tempo);
            if pending > 0 {
                due.min(BlockNumber(pending))
            } else {
                due
            }
        }
        None => {
            let phase = now.plus(u64::from(netuid.0)).plus(1).0 % (tempo + 1);
            now.plus(tempo + 1 - phase)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(now: u64, tempo: u16, epoch: Option<(u64, u64)>) -> Option<u64> {
        next_epoch(BlockNumber(now), Netuid(11), Tempo(tempo), epoch).map(|b| b.0)
    }

    #[test]
    fn the_next_epoch_follows_the_runtimes_rule() {
        assert_eq!(next(88, 20, Some((72, 0))), Some(92));
        assert_eq!(next(88, 20, Some((72, 90))), Some(90));
        assert_eq!(next(88, 20, Some((72, 99))), Some(92));
        assert_eq!(next(88, 0, Some((72, 99))), None);
        for now in 0..200 {
            let due = next(now, 20, None).unwrap();
            assert!(due > now && due <= now + 21);
            assert_eq!((due + 11 + 1) % 21, 0);
        }
    }

    #[test]
    fn a_short_or_missing_column_is_an_error() {
        assert!(column("trust", Some(vec![1, 2]), 2).is_ok());
        for bad in [Some(vec![]), Some(vec![1]), Some(vec![1, 2, 3]), None] {
            let error = column::<u16>("trust", bad, 2).unwrap_err();
            assert!(matches!(error, ChainError::Unreadable { .. }));
        }
    }
}
