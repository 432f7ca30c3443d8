//! The JSON-RPC methods of a Substrate node that subxt's legacy backend and the Python SDKs call.

use super::account;
use super::block::{Hash, hex0x};
use super::chain::Chain;
use super::faults::RpcFault;
use super::genesis::account_id;
use super::node::Node;
use super::pool::Refusal;
use super::runtime_api;
use super::storage::Reader;
use super::subscriptions;
use jsonrpsee::server::{Methods, RpcModule};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most keys a page may hold, as a node's limit.
const MAX_PAGE: u64 = 1000;

pub(super) type Answer = Result<Value, ErrorObjectOwned>;

/// Builds all methods; the `dev_*` ones only with `control`.
pub(super) fn methods(node: &Arc<Node>, control: bool) -> Methods {
    let mut module = Module(RpcModule::from_arc(node.clone()));
    chain_methods(&mut module);
    state_methods(&mut module);
    system_methods(&mut module);
    if control {
        control_methods(&mut module);
    }
    let mut module = module.0;
    let subscribed = subscriptions::register(&mut module);
    debug_assert!(subscribed.is_ok(), "{subscribed:?}");
    let mut names: Vec<&str> = module.method_names().collect();
    names.push("rpc_methods");
    names.sort_unstable();
    let list = json!({ "methods": names });
    let mut module = Module(module);
    module.method(&["rpc_methods"], move |_, _| Ok(list.clone()));
    module.0.into()
}

/// Registration without a line of error handling per method: the names are literals.
struct Module(RpcModule<Node>);

impl Module {
    fn method(
        &mut self,
        names: &[&'static str],
        answer: impl Fn(&Node, &Arguments) -> Answer + Clone + Send + Sync + 'static,
    ) {
        for name in names {
            let answer = answer.clone();
            let registered = self.0.register_method(name, move |params, node, _| {
                answer(node, &Arguments::read(&params)?)
            });
            debug_assert!(registered.is_ok(), "{name} is registered twice");
        }
    }
}

pub(super) fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message, None::<()>)
}

pub(super) fn bad_params(why: &str) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32602, "Invalid params", Some(why))
}

/// Positional parameters; missing ones and `null` are alike.
pub(super) struct Arguments(Vec<Value>);

impl Arguments {
    pub(super) fn read(params: &Params<'_>) -> Result<Self, ErrorObjectOwned> {
        if params.as_str().is_none_or(|s| s.trim().is_empty()) {
            return Ok(Self(Vec::new()));
        }
        params
            .parse::<Option<Vec<Value>>>()
            .map(|all| Self(all.unwrap_or_default()))
            .map_err(|e| bad_params(&e.to_string()))
    }

    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.0.get(at).filter(|v| !v.is_null())
    }

    fn text(&self, at: usize) -> Result<&str, ErrorObjectOwned> {
        let value = self.get(at).and_then(Value::as_str);
        value.ok_or_else(|| bad_params(&format!("parameter {at} must be text")))
    }

    pub(super) fn bytes(&self, at: usize) -> Result<Vec<u8>, ErrorObjectOwned> {
        unhex(self.text(at)?)
    }

    fn hash(&self, at: usize) -> Result<Option<Hash>, ErrorObjectOwned> {
        if self.get(at).is_none() {
            return Ok(None);
        }
        let bytes = self.bytes(at)?;
        let hash = Hash::try_from(bytes.as_slice());
        hash.map(Some)
            .map_err(|_| bad_params("invalid hash length"))
    }
}

pub(super) fn unhex(text: &str) -> Result<Vec<u8>, ErrorObjectOwned> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| bad_params("invalid hex"))
}

/// The state at `at`, or at the head.
fn state_at(chain: &Chain, at: Option<Hash>) -> Result<Reader<'_>, ErrorObjectOwned> {
    let hash = at.unwrap_or(chain.head().hash);
    let block = chain.block(&hash).ok_or_else(|| {
        let hash = hex0x(&hash);
        error(
            4003,
            format!("Client error: UnknownBlock: Header was not found in the database: {hash}"),
        )
    })?;
    chain.reader(block.header.number).ok_or_else(|| {
        let hash = hex0x(&hash);
        error(
            4003,
            format!("Client error: UnknownBlock: State already discarded for {hash}"),
        )
    })
}

fn chain_methods(module: &mut Module) {
    module.method(&["chain_getBlockHash", "chain_getHead"], |node, a| {
        let chain = node.chain();
        match a.get(0) {
            None => Ok(json!(hex0x(&chain.head().hash))),
            Some(Value::Array(numbers)) => numbers.iter().map(|n| block_hash(&chain, n)).collect(),
            Some(number) => block_hash(&chain, number),
        }
    });
    module.method(&["chain_getHeader"], |node, a| {
        let chain = node.chain();
        let hash = a.hash(0)?.unwrap_or(chain.head().hash);
        Ok(chain.block(&hash).map_or(Value::Null, |b| b.header.json()))
    });
    module.method(&["chain_getBlock"], |node, a| {
        let chain = node.chain();
        let hash = a.hash(0)?.unwrap_or(chain.head().hash);
        Ok(chain.block(&hash).map_or(Value::Null, |b| b.json()))
    });
    module.method(
        &["chain_getFinalizedHead", "chain_getFinalisedHead"],
        |node, _| Ok(json!(hex0x(&node.chain().finalized().hash))),
    );
    module.method(&["author_submitExtrinsic"], |node, a| {
        let hash = node.chain().submit(&a.bytes(0)?).map_err(|r| refusal(&r))?;
        Ok(json!(hex0x(&hash)))
    });
    module.method(&["author_pendingExtrinsics"], |node, _| {
        Ok(node.chain().pool.extrinsics().map(hex0x).collect())
    });
    module.method(&["payment_queryInfo"], |node, a| {
        let bytes = a.bytes(0)?;
        node.chain()
            .check_readable(&bytes)
            .map_err(|why| error(-32603, why))?;
        Ok(json!({
            "weight": { "ref_time": 0, "proof_size": 0 },
            "class": "normal",
            "partialFee": "0",
        }))
    });
}

pub(super) fn refusal(refusal: &Refusal) -> ErrorObjectOwned {
    let (code, message, data) = refusal.rpc();
    ErrorObjectOwned::owned(code, message, data)
}

/// Hash of a block by number, given as number or hex; `null` when there is none.
fn block_hash(chain: &Chain, number: &Value) -> Answer {
    let number = match number {
        Value::Number(n) => n.as_u64(),
        Value::String(text) => {
            u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
        }
        _ => None,
    };
    let number = number.ok_or_else(|| bad_params("a block number"))?;
    if number == 0 {
        return Ok(json!(hex0x(&chain.genesis_hash)));
    }
    let block = u32::try_from(number).ok().and_then(|n| chain.block_at(n));
    Ok(block.map_or(Value::Null, |b| json!(hex0x(&b.hash))))
}

fn state_methods(module: &mut Module) {
    module.method(&["state_getStorage", "state_getStorageAt"], |node, a| {
        let chain = node.chain();
        let reader = state_at(&chain, a.hash(1)?)?;
        let value = reader.view.get(&a.bytes(0)?);
        Ok(value.map_or(Value::Null, |v| json!(hex0x(v))))
    });
    module.method(
        &["state_getKeysPaged", "state_getKeysPagedAt"],
        |node, a| {
            let chain = node.chain();
            let count = a.get(1).and_then(Value::as_u64);
            let count = count.ok_or_else(|| bad_params("a page size"))?;
            if count > MAX_PAGE {
                let message =
                    format!("count exceeds maximum value. value: {count}, max: {MAX_PAGE}");
                return Err(error(4002, message));
            }
            let after = a.get(2).is_some().then(|| a.bytes(2)).transpose()?;
            let reader = state_at(&chain, a.hash(3)?)?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let prefix = match a.get(0) {
                Some(_) => a.bytes(0)?,
                None => Vec::new(),
            };
            let keys = reader.view.keys(&prefix, after.as_deref(), count);
            Ok(keys.iter().map(|k| hex0x(k)).collect())
        },
    );
    module.method(&["state_queryStorageAt"], |node, a| {
        let chain = node.chain();
        let at = a.hash(1)?.unwrap_or(chain.head().hash);
        let reader = state_at(&chain, Some(at))?;
        let keys = a.get(0).and_then(Value::as_array);
        let keys = keys.ok_or_else(|| bad_params("a list of keys"))?;
        let mut changes = Vec::with_capacity(keys.len());
        for key in keys {
            let key = unhex(key.as_str().ok_or_else(|| bad_params("a key"))?)?;
            changes.push(json!([hex0x(&key), reader.view.get(&key).map(hex0x)]));
        }
        Ok(json!([{ "block": hex0x(&at), "changes": changes }]))
    });
    module.method(&["state_call", "state_callAt"], |node, a| {
        let chain = node.chain();
        let (method, arguments) = (a.text(0)?, a.bytes(1)?);
        let reader = state_at(&chain, a.hash(2)?)?;
        runtime_api::call(&chain, &reader, method, &arguments)
            .map(|bytes| json!(hex0x(&bytes)))
            .map_err(|e| error(4003, format!("Client error: {}", e.text())))
    });
    module.method(&["state_getMetadata"], |node, a| {
        let chain = node.chain();
        state_at(&chain, a.hash(0)?)?;
        let bytes = chain.runtime.answers.version(14).unwrap_or_default();
        Ok(json!(hex0x(bytes)))
    });
    module.method(
        &["state_getRuntimeVersion", "chain_getRuntimeVersion"],
        |node, a| {
            let chain = node.chain();
            state_at(&chain, a.hash(0)?)?;
            Ok(runtime_version(&chain))
        },
    );
}

/// The JSON form of `RuntimeVersion`.
pub(super) fn runtime_version(chain: &Chain) -> Value {
    let version = &chain.runtime.version;
    let apis: Vec<Value> = version
        .apis
        .iter()
        .map(|(id, n)| json!([hex0x(id), n]))
        .collect();
    json!({
        "specName": version.spec_name,
        "implName": version.impl_name,
        "authoringVersion": version.authoring_version,
        "specVersion": version.spec_version,
        "implVersion": version.impl_version,
        "apis": apis,
        "transactionVersion": version.transaction_version,
        "systemVersion": 1,
        "stateVersion": 1,
    })
}

fn system_methods(module: &mut Module) {
    module.method(&["system_name"], |_, _| Ok(json!("Subtensor Node")));
    module.method(&["system_version"], |_, _| {
        Ok(json!(concat!(env!("CARGO_PKG_VERSION"), "-assay-devchain")))
    });
    module.method(&["system_chain"], |node, _| Ok(json!(node.chain().name)));
    module.method(&["system_chainType"], |_, _| Ok(json!("Local")));
    module.method(&["system_properties"], |_, _| {
        Ok(json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }))
    });
    module.method(&["system_health"], |_, _| {
        Ok(json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }))
    });
    module.method(
        &["system_accountNextIndex", "account_nextIndex"],
        |node, a| {
            let who = account_id(a.text(0)?).map_err(|e| bad_params(&e.to_string()))?;
            let chain = node.chain();
            let on_chain = account::read(&state_at(&chain, None)?, &who)
                .map_err(|e| error(-32603, e.to_string()))?
                .nonce;
            Ok(json!(chain.pool.next_nonce(&who, on_chain)))
        },
    );
    module.method(&["system_dryRun"], |node, a| {
        let bytes = a.bytes(0)?;
        match node.chain().validate(&bytes) {
            // `Ok(Ok(()))` of `ApplyExtrinsicResult`.
            Ok(_) => Ok(json!("0x0000")),
            Err(Refusal::Invalid(invalid)) => Ok(json!(hex0x(&invalid.encode_validity()))),
            Err(other) => Err(refusal(&other)),
        }
    });
}

/// Methods that a real node does not have: sealing and faults, for tests over the wire.
fn control_methods(module: &mut Module) {
    module.method(&["dev_seal"], |node, a| {
        let count = a.get(0).and_then(Value::as_u64).unwrap_or(1).min(10_000);
        let mut last = node.chain().head().hash;
        for _ in 0..count {
            (_, last) = node.seal().map_err(|e| error(-32603, e.to_string()))?;
        }
        Ok(json!(hex0x(&last)))
    });
    module.method(&["dev_fault"], |node, a| {
        let fault = a.get(1).cloned().unwrap_or(Value::Null);
        let fault: RpcFault =
            serde_json::from_value(fault).map_err(|e| bad_params(&e.to_string()))?;
        let times = a.get(2).and_then(Value::as_u64);
        let times = times.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        node.faults.inject(a.text(0)?, fault, times);
        Ok(Value::Null)
    });
    module.method(&["dev_clearFaults"], |node, _| {
        node.faults.clear();
        Ok(Value::Null)
    });
}
