//! The chain itself: state, blocks and pool behind one lock, and the sealing of blocks.

use super::account;
use super::block::{Block, Hash, Header, extrinsics_root};
use super::dispatch::{self, dispatch_info};
use super::epoch;
use super::error::DevChainError;
use super::extrinsic::{Signed, Site};
use super::genesis::{self, Genesis};
use super::journal::Record;
use super::pool::{Pool, Refusal};
use super::runtime::{Key, Runtime};
use super::state::{Diff, State, View};
use super::storage::{Events, Phase, Reader, Writer};
use codec::{Compact, Encode};
use sp_crypto_hashing::blake2_256;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// `BlockHashCount`: how many block hashes the state keeps, and how many bodies this chain does.
const BLOCK_HASHES: u32 = 2400;

/// A recorded state to start from instead of a genesis, for tests against real recordings.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// All storage, key → value.
    pub storage: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The recorded block.
    pub number: u32,
    /// Its hash.
    pub hash: [u8; 32],
    /// Hash of the recorded chain's block 0.
    pub genesis_hash: [u8; 32],
    /// Hashes that later blocks pretend to have, by number, so that extrinsics signed on the
    /// recorded chain find the birth block they name.
    pub pretended_hashes: BTreeMap<u32, [u8; 32]>,
}

/// Blocks, state and pool.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) runtime: Arc<Runtime>,
    pub(super) name: String,
    pub(super) genesis_hash: Hash,
    pub(super) pool: Pool,
    state: State,
    /// Consecutive; the last is the head.
    blocks: VecDeque<Block>,
    by_hash: HashMap<Hash, u32>,
    included: HashMap<Hash, u32>,
    finality_lag: u32,
    pretended_hashes: BTreeMap<u32, Hash>,
}

impl Chain {
    /// A chain whose first block holds the genesis state.
    pub(super) fn from_genesis(
        runtime: Arc<Runtime>,
        genesis: &Genesis,
        keep_states: usize,
        finality_lag: u32,
    ) -> Result<Self, DevChainError> {
        let mut state = State::new(keep_states);
        let mut events = Events::new();
        let mut writer = Writer {
            runtime: &runtime,
            state: &mut state,
            events: &mut events,
        };
        genesis::build(&mut writer, genesis)?;
        let diff = state.commit();
        state.seal_base();
        let header = Header {
            parent: [0; 32],
            number: 0,
            state_root: state_digest(&[0; 32], &diff),
            extrinsics_root: extrinsics_root(&[]),
            slot: 0,
        };
        let hash = header.hash();
        let mut chain = Self::empty(runtime, &genesis.chain, state, hash, finality_lag);
        chain.push(Block {
            hash,
            header,
            extrinsics: vec![],
        });
        Ok(chain)
    }

    /// A chain that goes on from a recorded block.
    pub(super) fn from_snapshot(
        runtime: Arc<Runtime>,
        snapshot: Snapshot,
        keep_states: usize,
        finality_lag: u32,
    ) -> Self {
        let mut state = State::new(keep_states);
        for (key, value) in snapshot.storage {
            state.put(key, Some(value));
        }
        state.seal_base();
        let genesis_hash = snapshot.genesis_hash;
        let mut chain = Self::empty(runtime, "Bittensor", state, genesis_hash, finality_lag);
        chain.pretended_hashes = snapshot.pretended_hashes;
        chain.push(Block {
            hash: snapshot.hash,
            header: Header {
                parent: [0; 32],
                number: snapshot.number,
                state_root: [0; 32],
                extrinsics_root: extrinsics_root(&[]),
                slot: 0,
            },
            extrinsics: vec![],
        });
        chain
    }

    fn empty(
        runtime: Arc<Runtime>,
        name: &str,
        state: State,
        genesis_hash: Hash,
        finality_lag: u32,
    ) -> Self {
        Self {
            runtime,
            name: name.to_owned(),
            genesis_hash,
            pool: Pool::default(),
            state,
            blocks: VecDeque::new(),
            by_hash: HashMap::new(),
            included: HashMap::new(),
            finality_lag,
            pretended_hashes: BTreeMap::new(),
        }
    }

    fn push(&mut self, block: Block) {
        let number = block.header.number;
        self.by_hash.insert(block.hash, number);
        for extrinsic in &block.extrinsics {
            self.included.insert(blake2_256(extrinsic), number);
        }
        self.blocks.push_back(block);
        if self.blocks.len() > usize::try_from(BLOCK_HASHES).unwrap_or(usize::MAX)
            && let Some(old) = self.blocks.pop_front()
        {
            self.by_hash.remove(&old.hash);
            for extrinsic in &old.extrinsics {
                self.included.remove(&blake2_256(extrinsic));
            }
        }
    }

    /// The newest block.
    pub(super) fn head(&self) -> &Block {
        // The constructors push the first block, and `push` keeps the newest.
        &self.blocks[self.blocks.len() - 1]
    }

    /// The newest finalised block.
    pub(super) fn finalized(&self) -> &Block {
        let lag = usize::try_from(self.finality_lag).unwrap_or(usize::MAX);
        &self.blocks[self.blocks.len().saturating_sub(1).saturating_sub(lag)]
    }

    pub(super) fn block_at(&self, number: u32) -> Option<&Block> {
        let first = self.blocks.front()?.header.number;
        let index = number.checked_sub(first)?;
        self.blocks.get(usize::try_from(index).ok()?)
    }

    pub(super) fn block(&self, hash: &Hash) -> Option<&Block> {
        self.block_at(*self.by_hash.get(hash)?)
    }

    /// Number of the block that included the extrinsic.
    pub(super) fn included_in(&self, extrinsic: &Hash) -> Option<u32> {
        self.included.get(extrinsic).copied()
    }

    /// The state after block `number`, while it is kept.
    pub(super) fn view(&self, number: u32) -> Option<View<'_>> {
        let back = self.head().header.number.checked_sub(number)?;
        self.state.view(usize::try_from(back).ok()?)
    }

    pub(super) fn reader(&self, number: u32) -> Option<Reader<'_>> {
        let view = self.view(number)?;
        let runtime = &self.runtime;
        Some(Reader { runtime, view })
    }

    fn site(&self) -> Site<'_> {
        Site {
            reader: Reader {
                runtime: &self.runtime,
                view: self.state.present(),
            },
            genesis_hash: self.genesis_hash,
            head_number: u64::from(self.head().header.number),
            head_hash: self.head().hash,
        }
    }

    /// Decodes and checks a submission against the head. `Ok` gives the transaction and the block
    /// at which it dies.
    pub(super) fn validate(&self, bytes: &[u8]) -> Result<(Signed, u64), Refusal> {
        let signed = Signed::decode(&self.runtime, bytes).map_err(Refusal::Unreadable)?;
        let site = self.site();
        match dispatch::validate(&signed, &site) {
            Ok(Ok(())) => {
                let death = signed.era.death(site.head_number + 1);
                Ok((signed, death))
            }
            Ok(Err(invalid)) => Err(Refusal::Invalid(invalid)),
            Err(error) => Err(Refusal::Internal(error.to_string())),
        }
    }

    /// Takes an extrinsic into the pool and returns its hash.
    pub(super) fn submit(&mut self, bytes: &[u8]) -> Result<Hash, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::Format("empty".to_owned()));
        }
        self.pool.check_hash(&blake2_256(bytes))?;
        let (signed, death) = self.validate(bytes)?;
        let hash = signed.hash;
        self.pool.insert(signed, death)?;
        Ok(hash)
    }

    /// Seals the next block from the pool. `now_ms` is the wall clock; block times only grow.
    /// After an error the state is that of the head.
    pub(super) fn seal(&mut self, now_ms: u64) -> Result<Record, DevChainError> {
        let sealed = self.build(now_ms);
        if sealed.is_err() {
            self.state.rollback(0);
        }
        sealed
    }

    fn build(&mut self, now_ms: u64) -> Result<Record, DevChainError> {
        let parent = (self.head().hash, self.head().header.state_root);
        let number = self.head().header.number + 1;
        let mut events = Events::new();
        let slot = self.initialize(&mut events, number, parent.0, now_ms)?;
        let mut extrinsics = vec![self.set_timestamp(&mut events, now_ms)?];
        self.apply_pool(&mut events, &mut extrinsics, u64::from(number))?;
        let mut writer = self.writer(&mut events);
        let (count, bytes) = (writer.events.len(), writer.events.encode());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        writer.put_raw("System", "Events", &[], bytes)?;
        writer.put("System", "EventCount", &[], &count)?;
        let diff = self.state.commit();
        let header = Header {
            parent: parent.0,
            number,
            state_root: state_digest(&parent.1, &diff),
            extrinsics_root: extrinsics_root(&extrinsics),
            slot,
        };
        let pretended = self.pretended_hashes.remove(&number);
        let block = Block {
            hash: pretended.unwrap_or_else(|| header.hash()),
            header,
            extrinsics,
        };
        self.push(block.clone());
        self.prune_pool();
        Ok(Record { block, diff })
    }

    /// Repeats a sealed block from the journal.
    pub(super) fn replay(&mut self, record: Record) {
        for (key, value) in record.diff {
            self.state.put(key, value);
        }
        self.state.commit();
        self.push(record.block);
    }

    fn writer<'a>(&'a mut self, events: &'a mut Events) -> Writer<'a> {
        Writer {
            runtime: &self.runtime,
            state: &mut self.state,
            events,
        }
    }

    /// What happens before the first extrinsic: system entries, then epochs.
    fn initialize(
        &mut self,
        events: &mut Events,
        number: u32,
        parent: Hash,
        now_ms: u64,
    ) -> Result<u64, DevChainError> {
        let slot_ms = self.runtime.constant("Aura", "SlotDuration");
        let slot = now_ms / slot_ms.unwrap_or(12_000u64).max(1);
        let mut writer = self.writer(events);
        writer.put("System", "Number", &[], &number)?;
        writer.put("System", "ParentHash", &[], &parent)?;
        writer.put("System", "BlockHash", &[Key::U32(number - 1)], &parent)?;
        if let Some(old) = number.checked_sub(BLOCK_HASHES + 1) {
            writer.remove("System", "BlockHash", &[Key::U32(old)]);
        }
        writer.put("Aura", "CurrentSlot", &[], &slot)?;
        let netuids = netuids(&writer.read());
        epoch::on_block(&mut writer, &netuids, u64::from(number))?;
        Ok(slot)
    }

    /// The timestamp inherent; returns its extrinsic.
    fn set_timestamp(
        &mut self,
        events: &mut Events,
        now_ms: u64,
    ) -> Result<Vec<u8>, DevChainError> {
        let pallet = self.runtime.metadata().pallet_by_name("Timestamp");
        let call = pallet
            .as_ref()
            .and_then(|p| Some((p.call_index(), p.call_variant_by_name("set")?.index)))
            .ok_or_else(|| DevChainError::Metadata("no call Timestamp.set".to_owned()))?;
        let versions = self.runtime.metadata().extrinsic().supported_versions();
        // Runtimes that know v5 send their inherents as v5 bare extrinsics.
        let version: u8 = if versions.contains(&5) { 5 } else { 4 };
        events.enter(Phase::Extrinsic(0));
        let mut writer = self.writer(events);
        let last: u64 = writer.read().or_default("Timestamp", "Now", &[])?;
        let now = now_ms.max(last + 1);
        writer.put("Timestamp", "Now", &[], &now)?;
        let info = dispatch_info("Mandatory", false);
        writer.emit("System", "ExtrinsicSuccess", vec![("dispatch_info", info)])?;
        let body = (version, call.0, call.1, Compact(now)).encode();
        // Encoding the bytes as a list puts their length in front.
        Ok(body.encode())
    }

    fn apply_pool(
        &mut self,
        events: &mut Events,
        extrinsics: &mut Vec<Vec<u8>>,
        number: u64,
    ) -> Result<(), DevChainError> {
        while let Some(signed) = self.next_ready() {
            let site = Site {
                head_number: number - 1,
                ..self.site()
            };
            match dispatch::validate(&signed, &site)? {
                Ok(()) => {
                    let index = u32::try_from(extrinsics.len()).unwrap_or(u32::MAX);
                    events.enter(Phase::Extrinsic(index));
                    dispatch::apply(&mut self.writer(events), &signed, number)?;
                    extrinsics.push(signed.bytes);
                }
                Err(invalid) => {
                    tracing::debug!(call = %signed.call.path(), ?invalid, "dropped from the pool");
                    self.pool.ban(signed.hash);
                }
            }
        }
        Ok(())
    }

    /// The first waiting transaction whose nonce is next for its account.
    fn next_ready(&mut self) -> Option<Signed> {
        let reader = Reader {
            runtime: &self.runtime,
            view: self.state.present(),
        };
        let ready = |signed: &Signed| {
            account::read(&reader, &signed.who).is_ok_and(|a| a.nonce == signed.nonce)
        };
        Some(self.pool.take(ready)?.signed)
    }

    /// Drops what no later block can include.
    fn prune_pool(&mut self) {
        let next = u64::from(self.head().header.number) + 1;
        let reader = Reader {
            runtime: &self.runtime,
            view: self.state.present(),
        };
        self.pool.retain(|waiting| {
            let nonce = account::read(&reader, &waiting.signed.who).map_or(0, |a| a.nonce);
            waiting.death > next && waiting.signed.nonce >= nonce
        });
    }

    /// Whether the runtime can read these bytes as an extrinsic.
    pub(super) fn check_readable(&self, bytes: &[u8]) -> Result<(), String> {
        Signed::decode(&self.runtime, bytes).map(|_| ())
    }
}

/// Chains each block's changes onto its parent's digest.
fn state_digest(parent: &Hash, diff: &Diff) -> Hash {
    blake2_256(&(parent, diff).encode())
}

/// Existing subnets, ascending.
pub(super) fn netuids(reader: &Reader<'_>) -> Vec<u16> {
    let Some(entry) = reader
        .runtime
        .entry(super::storage::SUBTENSOR, "NetworksAdded")
    else {
        return Vec::new();
    };
    let prefix = entry.key(&[]);
    let keys = reader.view.keys(&prefix, None, usize::from(u16::MAX));
    let mut netuids: Vec<u16> = keys
        .iter()
        .filter_map(|key| key.get(prefix.len()..)?.try_into().ok())
        .map(u16::from_le_bytes)
        .collect();
    netuids.sort_unstable();
    netuids
}
