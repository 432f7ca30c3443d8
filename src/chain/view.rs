//! Reading at one pinned block, by name from that block's metadata.

use super::connect::Rpc;
use super::error::ChainError;
use crate::bittensor::BlockRef;
use frame_decode::runtime_apis::{
    IntoEncodableValues, decode_runtime_api_response, encode_runtime_api_inputs,
};
use frame_decode::storage::{decode_storage_value, encode_storage_key};
use scale_decode::DecodeAsType;
use subxt::config::SubstrateConfig;
use subxt::metadata::Metadata;
use subxt::utils::H256;

/// Subxt's handle on one block.
pub(super) type At = subxt::client::OnlineClientAtBlock<SubstrateConfig>;

/// A storage entry by pallet and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) &'static str, pub(super) &'static str);

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// One block with its metadata.
pub(super) struct View {
    rpc: Rpc,
    pub(super) at: At,
    pub(super) block: BlockRef,
}

impl View {
    pub(super) fn new(rpc: Rpc, at: At, block: BlockRef) -> Self {
        Self { rpc, at, block }
    }

    pub(super) fn metadata(&self) -> &Metadata {
        self.at.metadata_ref()
    }

    /// Whether this runtime has the storage entry.
    pub(super) fn has(&self, entry: Entry) -> bool {
        self.metadata()
            .pallet_by_name(entry.0)
            .and_then(|p| p.storage()?.entry_by_name(entry.1))
            .is_some()
    }

    /// Calls a runtime API. One request.
    pub(super) async fn call<R: DecodeAsType>(
        &self,
        (api, method): (&str, &str),
        args: impl IntoEncodableValues,
    ) -> Result<R, ChainError> {
        let metadata = self.metadata();
        let args = encode_runtime_api_inputs(api, method, args, metadata, metadata.types())
            .map_err(|e| ChainError::unreadable(format!("{api}.{method}"), e))?;
        self.call_encoded((api, method), &args).await
    }

    /// Calls a runtime API with arguments that are encoded already, such as a signed extrinsic. One
    /// request.
    pub(super) async fn call_encoded<R: DecodeAsType>(
        &self,
        (api, method): (&str, &str),
        args: &[u8],
    ) -> Result<R, ChainError> {
        let what = format!("{api}.{method}");
        let metadata = self.metadata();
        let types = metadata.types();
        let name = format!("{api}_{method}");
        let hash = H256(self.block.hash.0);
        let answer = self
            .rpc
            .state_call(&name, Some(args), Some(hash))
            .await
            .map_err(|e| ChainError::from_rpc(&what, Some(self.block.hash), e))?;
        let rest = &mut &*answer;
        let visitor = R::into_visitor();
        let value = decode_runtime_api_response(api, method, rest, metadata, types, visitor)
            .map_err(|e| ChainError::unreadable(&what, e))?;
        all_used(&what, rest)?;
        Ok(value)
    }

    /// The full storage key of one value.
    pub(super) fn key(
        &self,
        entry: Entry,
        keys: impl IntoEncodableValues,
    ) -> Result<Vec<u8>, ChainError> {
        let metadata = self.metadata();
        encode_storage_key(entry.0, entry.1, keys, metadata, metadata.types())
            .map_err(|e| ChainError::unreadable(format!("the key of {entry}"), e))
    }

    /// The raw values under `keys`, in their order; `None` where nothing is stored. One request.
    pub(super) async fn values(
        &self,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, ChainError> {
        let what = "storage values";
        let hash = H256(self.block.hash.0);
        let sets = self
            .rpc
            .state_query_storage_at(keys.iter().map(Vec::as_slice), Some(hash))
            .await
            .map_err(|e| ChainError::from_rpc(what, Some(self.block.hash), e))?;
        let [set] = sets.as_slice() else {
            let reason = format!("want one set of values, got {}", sets.len());
            return Err(ChainError::unreadable(what, reason));
        };
        if set.block != hash {
            return Err(ChainError::unreadable(what, "they belong to another block"));
        }
        keys.iter()
            .map(|key| {
                let found = set.changes.iter().find(|(k, _)| k.0 == *key);
                let (_, value) =
                    found.ok_or_else(|| ChainError::unreadable(what, "the node left a key out"))?;
                Ok(value.as_ref().map(|v| v.0.clone()))
            })
            .collect()
    }

    /// One stored value; `None` where nothing is stored. One request.
    pub(super) async fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        self.rpc
            .state_get_storage(key, Some(H256(self.block.hash.0)))
            .await
            .map_err(|e| ChainError::from_rpc("a storage value", Some(self.block.hash), e))
    }

    /// Decodes a stored value. Where nothing is stored this gives the value that the runtime itself
    /// would read there, which its metadata names, or `None` for an entry without one.
    pub(super) fn decode<R: DecodeAsType>(
        &self,
        entry: Entry,
        stored: Option<&[u8]>,
    ) -> Result<Option<R>, ChainError> {
        let metadata = self.metadata();
        let declared = metadata
            .pallet_by_name(entry.0)
            .and_then(|p| p.storage()?.entry_by_name(entry.1))
            .ok_or_else(|| ChainError::unreadable(entry.to_string(), "this runtime lacks it"))?;
        let Some(bytes) = stored.or_else(|| declared.default_value()) else {
            return Ok(None);
        };
        let rest = &mut &*bytes;
        let (visitor, types) = (R::into_visitor(), metadata.types());
        let value = decode_storage_value(entry.0, entry.1, rest, metadata, types, visitor)
            .map_err(|e| ChainError::unreadable(entry.to_string(), e))?;
        all_used(&entry.to_string(), rest)?;
        Ok(Some(value))
    }

    /// Like [`Self::decode`], for an entry that always has a value.
    pub(super) fn decode_present<R: DecodeAsType>(
        &self,
        entry: Entry,
        stored: Option<&[u8]>,
    ) -> Result<R, ChainError> {
        self.decode(entry, stored)?
            .ok_or_else(|| ChainError::unreadable(entry.to_string(), "nothing is stored there"))
    }
}

pub(super) fn all_used(what: &str, rest: &[u8]) -> Result<(), ChainError> {
    if rest.is_empty() {
        return Ok(());
    }
    let reason = format!("{} bytes are left over after decoding", rest.len());
    Err(ChainError::unreadable(what, reason))
}
