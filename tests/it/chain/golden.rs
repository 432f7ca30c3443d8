//! A JSON-RPC server that answers from the recording of a real runtime, and from nothing else.

use jsonrpsee::server::{Server, ServerHandle};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{RpcModule, SubscriptionMessage};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Subnet of the recording.
pub(super) const NETUID: u16 = 11;

/// What the server answers from. Tests may spoil it before serving.
#[derive(Clone)]
pub(super) struct Golden {
    /// The whole recording.
    pub(super) recorded: Value,
    /// Metadata versions that the runtime offers, with their bytes.
    pub(super) metadata: Vec<(u32, Vec<u8>)>,
    /// What `system_accountNextIndex` answers.
    pub(super) next_nonce: u64,
}

/// A running server; it stops when dropped.
pub(super) struct GoldenServer {
    pub(super) endpoint: String,
    _handle: ServerHandle,
}

impl Golden {
    /// Loads the recording, or says aloud that it is not there.
    pub(super) fn load(metadata_versions: &[u32]) -> Option<Self> {
        let folder = std::env::var_os("ASSAY_GOLDEN").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
            PathBuf::from,
        );
        let Ok(text) = std::fs::read(folder.join("runtime-425.json")) else {
            eprintln!(
                "SKIPPED: no recording of a real runtime in {}",
                folder.display()
            );
            return None;
        };
        let metadata = metadata_versions.iter().map(|version| {
            let file = folder.join(format!("metadata-425-v{version}.scale"));
            (*version, std::fs::read(file).unwrap())
        });
        Some(Self {
            recorded: serde_json::from_slice(&text).unwrap(),
            metadata: metadata.collect(),
            next_nonce: 6,
        })
    }

    pub(super) fn snapshot(&self) -> &Value {
        &self.recorded["snapshot"]
    }

    /// The one recorded answer of a runtime call whose name starts so, for spoiling.
    pub(super) fn answer_mut(&mut self, call: &str) -> &mut Value {
        let calls = self.recorded["snapshot"]["calls"].as_object_mut().unwrap();
        let (_, answer) = calls
            .iter_mut()
            .find(|(name, _)| name.starts_with(call))
            .unwrap();
        &mut answer["result"]
    }

    pub(super) async fn serve(self) -> GoldenServer {
        let server = Server::builder().build("127.0.0.1:0").await.unwrap();
        let endpoint = format!("ws://{}", server.local_addr().unwrap());
        let handle = server.start(module(Arc::new(self)));
        GoldenServer {
            endpoint,
            _handle: handle,
        }
    }

    fn known_block(&self, at: &Value) -> Result<(), ErrorObjectOwned> {
        let known = at.is_null() || *at == self.snapshot()["hash"];
        if known {
            return Ok(());
        }
        let error = &self.snapshot()["misc"]["errors"]["unknown_block"]["error"];
        let code = i32::try_from(error["code"].as_i64().unwrap()).unwrap();
        let message = error["message"].as_str().unwrap().to_owned();
        Err(ErrorObjectOwned::owned(code, message, None::<()>))
    }

    fn state_call(&self, args: &[Value]) -> Result<Value, ErrorObjectOwned> {
        self.known_block(&args[2])?;
        let (name, input) = (args[0].as_str().unwrap(), args[1].as_str().unwrap());
        if name == "Metadata_metadata_versions" {
            let versions: Vec<u32> = self.metadata.iter().map(|(v, _)| *v).collect();
            return Ok(hex_of(&codec::Encode::encode(&versions)));
        }
        if name == "Metadata_metadata_at_version" {
            let wanted: u32 = codec::Decode::decode(&mut &unhex(input)[..]).unwrap();
            let found = self.metadata.iter().find(|(v, _)| *v == wanted);
            return Ok(hex_of(&codec::Encode::encode(
                &found.map(|(_, bytes)| bytes),
            )));
        }
        let calls = &self.snapshot()["calls"];
        match calls.get(format!("{name} {input}")) {
            Some(answer) => Ok(answer["result"].clone()),
            None => Err(ErrorObjectOwned::owned(
                4003,
                format!("not recorded: {name} {input}"),
                None::<()>,
            )),
        }
    }

    /// The recorded case whose call the extrinsic carries.
    fn case(&self, extrinsic: &str) -> &Value {
        let cases = self.recorded["cases"].as_array().unwrap();
        let carried = |case: &&Value| {
            case["call"]
                .as_str()
                .is_some_and(|call| extrinsic.ends_with(&call[2..]))
        };
        cases
            .iter()
            .find(carried)
            .expect("a call of the recording, byte for byte")
    }

    fn stored(&self, key: &Value) -> Value {
        let storage = &self.snapshot()["storage"];
        storage
            .get(key.as_str().unwrap())
            .cloned()
            .unwrap_or(Value::Null)
    }
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.trim_start_matches("0x")).unwrap()
}

fn hex_of(bytes: &[u8]) -> Value {
    json!(format!("0x{}", hex::encode(bytes)))
}

/// Positional parameters, with nulls for those left out.
fn positional(params: &Params<'_>) -> Vec<Value> {
    let mut args: Vec<Value> = params.parse().unwrap_or_default();
    args.resize(args.len().max(3), Value::Null);
    args
}

fn module(golden: Arc<Golden>) -> RpcModule<Arc<Golden>> {
    let mut module = RpcModule::new(golden);
    add_reads(&mut module);
    add_subscriptions(&mut module);
    module
}

fn add_reads(module: &mut RpcModule<Arc<Golden>>) {
    let mut answer =
        |name: &'static str, f: fn(&Golden, &[Value]) -> Result<Value, ErrorObjectOwned>| {
            module
                .register_method(name, move |params, golden, _| {
                    f(golden, &positional(&params))
                })
                .unwrap();
        };
    answer("chain_getBlockHash", |golden, args| {
        let s = golden.snapshot();
        let head = u64::from_str_radix(&s["header"]["number"].as_str().unwrap()[2..], 16).unwrap();
        Ok(match args[0].as_u64() {
            Some(0) => s["genesis"].clone(),
            Some(n) if n != head => Value::Null,
            _ => s["hash"].clone(),
        })
    });
    answer("chain_getFinalizedHead", |golden, _| {
        Ok(golden.snapshot()["hash"].clone())
    });
    answer("chain_getHeader", |golden, args| {
        golden.known_block(&args[0])?;
        Ok(golden.snapshot()["header"].clone())
    });
    answer("state_call", |golden, args| golden.state_call(args));
    answer("system_accountNextIndex", |golden, _| {
        Ok(json!(golden.next_nonce))
    });
    answer("state_getStorage", |golden, args| {
        golden.known_block(&args[1])?;
        Ok(golden.stored(&args[0]))
    });
    answer("state_queryStorageAt", |golden, args| {
        golden.known_block(&args[1])?;
        let keys = args[0].as_array().unwrap();
        let changes: Vec<Value> = keys.iter().map(|k| json!([k, golden.stored(k)])).collect();
        Ok(json!([{"block": golden.snapshot()["hash"], "changes": changes}]))
    });
}

fn add_subscriptions(module: &mut RpcModule<Arc<Golden>>) {
    module
        .register_subscription(
            "chain_subscribeFinalizedHeads",
            "chain_finalizedHead",
            "chain_unsubscribeFinalizedHeads",
            |_, pending, golden, _| async move {
                let sink = pending.accept().await?;
                let header = serde_json::value::to_raw_value(&golden.snapshot()["header"])?;
                sink.send(SubscriptionMessage::from(header)).await?;
                sink.closed().await;
                Ok(())
            },
        )
        .unwrap();
    module
        .register_subscription(
            "author_submitAndWatchExtrinsic",
            "author_extrinsicUpdate",
            "author_unwatchExtrinsic",
            |params, pending, golden, _| async move {
                let extrinsic = positional(&params)[0].as_str().unwrap().to_owned();
                let error = &golden.case(&extrinsic)["rpc_error"];
                if error.is_null() {
                    // The pool takes it, and gives it up again.
                    let sink = pending.accept().await?;
                    for status in ["ready", "dropped"] {
                        let status = serde_json::value::to_raw_value(status)?;
                        sink.send(SubscriptionMessage::from(status)).await?;
                    }
                    return Ok(());
                }
                let code = i32::try_from(error["code"].as_i64().unwrap()).unwrap();
                let message = error["message"].as_str().unwrap().to_owned();
                let refusal = ErrorObjectOwned::owned(code, message, error.get("data"));
                pending.reject(refusal).await;
                Ok(())
            },
        )
        .unwrap();
}
