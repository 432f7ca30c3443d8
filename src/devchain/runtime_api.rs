//! `state_call`: the runtime APIs that clients of a subnet use.

use super::account;
use super::chain::Chain;
use super::epoch;
use super::error::DevChainError;
use super::metadata_versions::opaque;
use super::metagraph::SubnetView;
use super::pool::Refusal;
use super::storage::Reader;
use codec::{Compact, Decode, Encode};

/// Why a call gave no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No such API or method, or one that this chain does not answer.
    NotFound(String),
    /// The arguments do not decode.
    Arguments(String),
    /// A fault of this chain.
    Internal(DevChainError),
}

impl From<DevChainError> for CallError {
    fn from(error: DevChainError) -> Self {
        Self::Internal(error)
    }
}

impl CallError {
    /// The node's words inside error 4003.
    pub(super) fn text(&self) -> String {
        match self {
            Self::NotFound(method) => {
                format!("Execution failed: Other: Exported method {method} is not found")
            }
            Self::Arguments(why) => format!(
                "Execution failed: Execution aborted due to trap: wasm trap: wasm `unreachable` instruction executed: bad input data provided: {why}"
            ),
            Self::Internal(error) => format!("Execution failed: {error}"),
        }
    }
}

fn decode<T: Decode>(mut arguments: &[u8]) -> Result<T, CallError> {
    let fail = |e: &dyn ToString| CallError::Arguments(e.to_string());
    let value = T::decode(&mut arguments).map_err(|e| fail(&e))?;
    if arguments.is_empty() {
        Ok(value)
    } else {
        Err(fail(&"bytes behind the arguments"))
    }
}

/// Answers `method` with the state of `reader`.
pub(super) fn call(
    chain: &Chain,
    reader: &Reader<'_>,
    method: &str,
    arguments: &[u8],
) -> Result<Vec<u8>, CallError> {
    let runtime = reader.runtime;
    match method {
        "Core_version" => Ok(runtime.version_bytes.clone()),
        "Metadata_metadata" => {
            let bytes = runtime.answers.version(14).unwrap_or_default();
            Ok(opaque(Some(bytes))[1..].to_vec())
        }
        "Metadata_metadata_versions" => Ok(runtime.answers.versions().encode()),
        "Metadata_metadata_at_version" => {
            let version: u32 = decode(arguments)?;
            Ok(opaque(runtime.answers.version(version)))
        }
        "AccountNonceApi_account_nonce" => {
            let who: [u8; 32] = decode(arguments)?;
            Ok(account::read(reader, &who)?.nonce.encode())
        }
        "AuraApi_slot_duration" => {
            let slot: u64 = runtime.constant("Aura", "SlotDuration").unwrap_or(12_000);
            Ok(slot.encode())
        }
        "TaggedTransactionQueue_validate_transaction" => validate(chain, arguments),
        "TransactionPaymentApi_query_info" => Ok(query_info()),
        _ => subnet_call(reader, method, arguments),
    }
}

/// `RuntimeDispatchInfo`: weight 0, class normal, fee 0. What a validator sends is free.
fn query_info() -> Vec<u8> {
    (Compact(0u64), Compact(0u64), 0u8, 0u64).encode()
}

/// `TransactionValidity` of `(source, extrinsic, block hash)`, checked against the head.
fn validate(chain: &Chain, arguments: &[u8]) -> Result<Vec<u8>, CallError> {
    let [_source, rest @ ..] = arguments else {
        return Err(CallError::Arguments("no transaction source".to_owned()));
    };
    let mut cursor = rest;
    <Vec<u8>>::decode(&mut cursor).map_err(|e| CallError::Arguments(e.to_string()))?;
    let extrinsic = &rest[..rest.len() - cursor.len()];
    match chain.validate(extrinsic) {
        Ok((signed, death)) => {
            // Priority, requires, provides, longevity, propagate.
            let tag = (signed.who, signed.nonce).encode();
            let requires: Vec<Vec<u8>> = Vec::new();
            let head = u64::from(chain.head().header.number);
            let longevity = death.saturating_sub(head + 1);
            Ok((0u8, 1u64, requires, vec![tag], longevity, true).encode())
        }
        Err(Refusal::Invalid(invalid)) => Ok(invalid.encode_validity()),
        Err(other) => Err(CallError::Arguments(other.rpc().1)),
    }
}

fn subnet_call(reader: &Reader<'_>, method: &str, arguments: &[u8]) -> Result<Vec<u8>, CallError> {
    let not_found = || CallError::NotFound(method.to_owned());
    let (api, name) = method.split_once('_').ok_or_else(not_found)?;
    let output = reader.runtime.api_output(api, name).ok_or_else(not_found)?;
    let view = |netuid| SubnetView::new(*reader, netuid);
    match (api, name) {
        ("SubnetInfoRuntimeApi", "get_selective_metagraph") => {
            let (netuid, indices): (u16, Vec<u16>) = decode(arguments)?;
            Ok(view(netuid)?.selective_metagraph(output, &indices)?)
        }
        ("SubnetInfoRuntimeApi", "get_metagraph") => {
            Ok(view(decode(arguments)?)?.optional_struct(output)?)
        }
        (
            "SubnetInfoRuntimeApi",
            "get_subnet_hyperparams" | "get_subnet_hyperparams_v2" | "get_subnet_hyperparams_v3",
        ) => Ok(view(decode(arguments)?)?.optional_struct(output)?),
        ("SubnetInfoRuntimeApi", "get_next_epoch_start_block") => {
            Ok(epoch::next_block(reader, decode(arguments)?)?.encode())
        }
        ("NeuronInfoRuntimeApi", "get_neurons_lite") => {
            Ok(view(decode(arguments)?)?.neurons_lite(output)?)
        }
        ("NeuronInfoRuntimeApi", "get_neuron_lite") => {
            let (netuid, uid): (u16, u16) = decode(arguments)?;
            Ok(view(netuid)?.neuron_lite(output, uid)?)
        }
        _ => Err(not_found()),
    }
}
