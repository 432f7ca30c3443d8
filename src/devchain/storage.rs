//! Typed reads and writes of storage by pallet and entry name, and the log of events.

use super::error::DevChainError;
use super::runtime::{Key, Runtime};
use super::state::{State, View};
use codec::Encode;
use scale_decode::DecodeAsType;
use scale_encode::EncodeAsType;
use scale_value::Value;

/// The pallet that most entries live in.
pub(super) const SUBTENSOR: &str = "SubtensorModule";

/// Typed reads of one state. What the runtime lacks reads as absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) view: View<'a>,
}

impl<'a> Reader<'a> {
    /// Raw bytes, without the entry's default.
    pub(super) fn raw(&self, pallet: &str, entry: &str, keys: &[Key]) -> Option<&'a [u8]> {
        let entry = self.runtime.entry(pallet, entry)?;
        self.view.get(&entry.key(keys))
    }

    /// The value, or the entry's default; `None` for an absent optional or unknown entry.
    pub(super) fn get<T: DecodeAsType>(
        &self,
        pallet: &str,
        entry: &str,
        keys: &[Key],
    ) -> Result<Option<T>, DevChainError> {
        let Some(info) = self.runtime.entry(pallet, entry) else {
            return Ok(None);
        };
        let key = info.key(keys);
        let Some(bytes) = self.view.get(&key).or(info.default.as_deref()) else {
            return Ok(None);
        };
        self.runtime
            .decode(&info.name, info.value_type, bytes)
            .map(Some)
    }

    /// The value or default; `T::default()` where the runtime lacks the entry.
    pub(super) fn or_default<T: DecodeAsType + Default>(
        &self,
        pallet: &str,
        entry: &str,
        keys: &[Key],
    ) -> Result<T, DevChainError> {
        Ok(self.get(pallet, entry, keys)?.unwrap_or_default())
    }

    /// A value of the subtensor pallet keyed by netuid (or mechanism index).
    pub(super) fn subnet<T: DecodeAsType + Default>(
        &self,
        entry: &str,
        netuid: u16,
    ) -> Result<T, DevChainError> {
        self.or_default(SUBTENSOR, entry, &[Key::U16(netuid)])
    }

    /// Block number of this state.
    pub(super) fn number(&self) -> Result<u64, DevChainError> {
        let number: u32 = self.or_default("System", "Number", &[])?;
        Ok(u64::from(number))
    }
}

/// Writes of the block under construction.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) state: &'a mut State,
    pub(super) events: &'a mut Events,
}

impl Writer<'_> {
    pub(super) fn read(&self) -> Reader<'_> {
        Reader {
            runtime: self.runtime,
            view: self.state.present(),
        }
    }

    /// Writes `value` by the entry's type. A runtime without the entry is left as it is.
    pub(super) fn put<T: EncodeAsType>(
        &mut self,
        pallet: &str,
        entry: &str,
        keys: &[Key],
        value: &T,
    ) -> Result<(), DevChainError> {
        let Some(info) = self.runtime.entry(pallet, entry) else {
            return Ok(());
        };
        let bytes = self.runtime.encode(&info.name, info.value_type, value)?;
        self.state.put(info.key(keys), Some(bytes));
        Ok(())
    }

    /// Writes raw bytes, refused unless they are exactly one value of the entry's type.
    pub(super) fn put_raw(
        &mut self,
        pallet: &str,
        entry: &str,
        keys: &[Key],
        bytes: Vec<u8>,
    ) -> Result<(), DevChainError> {
        let Some(info) = self.runtime.entry(pallet, entry) else {
            return Ok(());
        };
        match self.runtime.measure(info.value_type, &bytes) {
            Ok(len) if len == bytes.len() => {
                self.state.put(info.key(keys), Some(bytes));
                Ok(())
            }
            Ok(len) => Err(DevChainError::encode(
                &info.name,
                format!("{} bytes given, {len} are one value", bytes.len()),
            )),
            Err(reason) => Err(DevChainError::encode(&info.name, reason)),
        }
    }

    pub(super) fn remove(&mut self, pallet: &str, entry: &str, keys: &[Key]) {
        if let Some(info) = self.runtime.entry(pallet, entry) {
            self.state.put(info.key(keys), None);
        }
    }

    /// Writes a value of the subtensor pallet keyed by netuid (or mechanism index).
    pub(super) fn put_subnet<T: EncodeAsType>(
        &mut self,
        entry: &str,
        netuid: u16,
        value: &T,
    ) -> Result<(), DevChainError> {
        self.put(SUBTENSOR, entry, &[Key::U16(netuid)], value)
    }

    /// Deposits an event; one that this runtime does not know is left out.
    pub(super) fn emit(
        &mut self,
        pallet: &str,
        event: &str,
        fields: Vec<(&str, Value)>,
    ) -> Result<(), DevChainError> {
        if let Some(bytes) = self.runtime.event(pallet, event, fields)? {
            self.events.push(&bytes);
        }
        Ok(())
    }
}

/// Where in the block an event came from (`frame_system::Phase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Extrinsic(u32),
    Initialization,
}

/// The events of the block under construction, as SCALE records.
#[derive(Debug)]
pub(super) struct Events {
    records: Vec<Vec<u8>>,
    phase: Phase,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            records: Vec::new(),
            phase: Phase::Initialization,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    fn push(&mut self, event: &[u8]) {
        let mut record = match self.phase {
            Phase::Extrinsic(index) => (0u8, index).encode(),
            Phase::Initialization => vec![2],
        };
        record.extend_from_slice(event);
        // No topics.
        record.push(0);
        self.records.push(record);
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Forgets the events behind the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.records.truncate(len);
    }

    /// `System.Events`' value.
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let mut out = codec::Compact(count).encode();
        self.records.iter().for_each(|r| out.extend_from_slice(r));
        out
    }
}

/// An account as the event encoder wants it.
pub(super) fn account(key: &[u8; 32]) -> Value {
    Value::from_bytes(key)
}

/// A number as the event encoder wants it.
pub(super) fn number(n: impl Into<u128>) -> Value {
    Value::u128(n.into())
}
