//! The runtime as its metadata describes it: every pallet, storage entry, call, event and error is
//! resolved by name, so that the chain runs on whatever metadata it is started with.

use super::error::DevChainError;
use super::metadata_versions::{self, MetadataAnswers};
use codec::Encode;
use frame_decode::storage::StorageHasher;
use scale_decode::DecodeAsType;
use scale_encode::EncodeAsType;
use scale_info::PortableRegistry;
use scale_value::Value;
use sp_crypto_hashing::{blake2_128, blake2_256, twox_64, twox_128, twox_256};
use std::collections::HashMap;
use std::time::Duration;
use subxt::Metadata;

/// The figures of `RuntimeVersion` that signing and the RPC layer need.
#[derive(Debug, Clone, DecodeAsType)]
pub(super) struct RuntimeVersion {
    pub(super) spec_name: String,
    pub(super) impl_name: String,
    pub(super) authoring_version: u32,
    pub(super) spec_version: u32,
    pub(super) impl_version: u32,
    pub(super) apis: Vec<([u8; 8], u32)>,
    pub(super) transaction_version: u32,
}

/// One part of a storage key, by its plain SCALE bytes; newtypes around it encode alike.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    U16(u16),
    U32(u32),
    U64(u64),
    Account([u8; 32]),
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::U16(n) => n.encode(),
            Self::U32(n) => n.encode(),
            Self::U64(n) => n.encode(),
            Self::Account(a) => a.to_vec(),
        }
    }
}

/// One storage entry as the metadata describes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) prefix: [u8; 32],
    pub(super) hashers: Vec<StorageHasher>,
    pub(super) value_type: u32,
    pub(super) default: Option<Vec<u8>>,
}

/// Metadata with its lookups.
#[derive(Debug)]
pub(super) struct Runtime {
    metadata: Metadata,
    entries: HashMap<String, HashMap<String, Entry>>,
    pub(super) version: RuntimeVersion,
    /// `Core_version`'s answer: the SCALE bytes of `RuntimeVersion`.
    pub(super) version_bytes: Vec<u8>,
    pub(super) answers: MetadataAnswers,
}

impl Runtime {
    /// Reads raw metadata (V15 or V16, with its magic number). `slot` replaces the constants that
    /// tell the block time.
    pub(super) fn new(bytes: &[u8], slot: Option<Duration>) -> Result<Self, DevChainError> {
        let answers = metadata_versions::read(bytes, slot)?;
        let metadata = Metadata::decode_from(answers.latest())
            .map_err(|e| DevChainError::Metadata(e.to_string()))?;
        let (version, version_bytes) = runtime_version(&metadata)?;
        let entries = index_entries(&metadata);
        Ok(Self {
            metadata,
            entries,
            version,
            version_bytes,
            answers,
        })
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(super) fn types(&self) -> &PortableRegistry {
        self.metadata.types()
    }

    /// The entry, if this runtime has it.
    pub(super) fn entry(&self, pallet: &str, entry: &str) -> Option<&Entry> {
        self.entries.get(pallet)?.get(entry)
    }

    pub(super) fn constant<T: DecodeAsType>(&self, pallet: &str, name: &str) -> Option<T> {
        let pallet = self.metadata.pallet_by_name(pallet)?;
        let constant = pallet.constant_by_name(name)?;
        T::decode_as_type(&mut constant.value(), constant.ty(), self.types()).ok()
    }

    /// SCALE bytes of `value` as the type `ty`.
    pub(super) fn encode<T: EncodeAsType>(
        &self,
        what: &str,
        ty: u32,
        value: &T,
    ) -> Result<Vec<u8>, DevChainError> {
        value
            .encode_as_type(ty, self.types())
            .map_err(|e| DevChainError::encode(what, e))
    }

    pub(super) fn decode<T: DecodeAsType>(
        &self,
        what: &str,
        ty: u32,
        bytes: &[u8],
    ) -> Result<T, DevChainError> {
        T::decode_as_type(&mut &*bytes, ty, self.types())
            .map_err(|e| DevChainError::decode(what, e))
    }

    /// Length of the value of type `ty` at the front of `bytes`.
    pub(super) fn measure(&self, ty: u32, bytes: &[u8]) -> Result<usize, String> {
        let mut rest = bytes;
        scale_decode::visitor::decode_with_visitor(
            &mut rest,
            ty,
            self.types(),
            scale_decode::visitor::IgnoreVisitor::<PortableRegistry>::new(),
        )
        .map_err(|e| e.to_string())?;
        Ok(bytes.len() - rest.len())
    }

    /// An event of the outer enum, or `None` when this runtime does not know it.
    pub(super) fn event(
        &self,
        pallet: &str,
        event: &str,
        fields: Vec<(&str, Value)>,
    ) -> Result<Option<Vec<u8>>, DevChainError> {
        let Some(info) = self.metadata.pallet_by_name(pallet) else {
            return Ok(None);
        };
        let Some(variant) = info
            .event_variants()
            .and_then(|all| all.iter().find(|v| v.name == event))
        else {
            return Ok(None);
        };
        let named = variant.fields.first().is_some_and(|f| f.name.is_some());
        let value = if named {
            Value::named_variant(event, fields)
        } else {
            Value::unnamed_variant(event, fields.into_iter().map(|(_, v)| v))
        };
        let outer = Value::unnamed_variant(pallet, [value]);
        let ty = self.metadata.outer_enums().event_enum_ty();
        self.encode(&format!("event {pallet}.{event}"), ty, &outer)
            .map(Some)
    }

    /// `DispatchError::Module`'s content: pallet index and error bytes.
    pub(super) fn module_error(&self, pallet: &str, error: &str) -> Option<(u8, [u8; 4])> {
        let info = self.metadata.pallet_by_name(pallet)?;
        let variant = info.error_variants()?.iter().find(|v| v.name == error)?;
        Some((info.error_index(), [variant.index, 0, 0, 0]))
    }

    /// Output type of a runtime API method.
    pub(super) fn api_output(&self, api: &str, method: &str) -> Option<u32> {
        let info = self.metadata.runtime_api_trait_by_name(api)?;
        Some(info.method_by_name(method)?.output_ty())
    }
}

impl Entry {
    /// The full storage key; fewer `keys` than the map has give a prefix.
    pub(super) fn key(&self, keys: &[Key]) -> Vec<u8> {
        let mut out = self.prefix.to_vec();
        for (hasher, key) in self.hashers.iter().zip(keys) {
            hash_into(*hasher, &key.bytes(), &mut out);
        }
        out
    }
}

fn hash_into(hasher: StorageHasher, key: &[u8], out: &mut Vec<u8>) {
    match hasher {
        StorageHasher::Identity => {}
        StorageHasher::Blake2_128 | StorageHasher::Blake2_128Concat => {
            out.extend(blake2_128(key));
        }
        StorageHasher::Blake2_256 => out.extend(blake2_256(key)),
        StorageHasher::Twox128 => out.extend(twox_128(key)),
        StorageHasher::Twox256 => out.extend(twox_256(key)),
        StorageHasher::Twox64Concat => out.extend(twox_64(key)),
    }
    if hasher.ends_with_key() {
        out.extend(key);
    }
}

fn index_entries(metadata: &Metadata) -> HashMap<String, HashMap<String, Entry>> {
    let mut all = HashMap::new();
    for pallet in metadata.pallets() {
        let Some(storage) = pallet.storage() else {
            continue;
        };
        let entries = storage.entries().iter().map(|e| {
            let mut prefix = [0; 32];
            prefix[..16].copy_from_slice(&twox_128(storage.prefix().as_bytes()));
            prefix[16..].copy_from_slice(&twox_128(e.name().as_bytes()));
            let entry = Entry {
                name: format!("{}.{}", pallet.name(), e.name()),
                prefix,
                hashers: e.keys().map(|k| k.hasher).collect(),
                value_type: e.value_ty(),
                default: e.default_value().map(<[u8]>::to_vec),
            };
            (e.name().to_owned(), entry)
        });
        all.insert(pallet.name().to_owned(), entries.collect());
    }
    all
}

fn runtime_version(metadata: &Metadata) -> Result<(RuntimeVersion, Vec<u8>), DevChainError> {
    let missing = || DevChainError::Metadata("no constant System.Version".to_owned());
    let system = metadata.pallet_by_name("System").ok_or_else(missing)?;
    let constant = system.constant_by_name("Version").ok_or_else(missing)?;
    let bytes = constant.value().to_vec();
    let version = RuntimeVersion::decode_as_type(&mut &*bytes, constant.ty(), metadata.types())
        .map_err(|e| DevChainError::decode("System.Version", e))?;
    Ok((version, bytes))
}
