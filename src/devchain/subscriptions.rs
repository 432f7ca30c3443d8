//! Subscriptions: heads, runtime version, storage, and the fate of one extrinsic.

use super::block::{Hash, hex0x};
use super::node::Node;
use super::rpc::{Arguments, bad_params, refusal, runtime_version, unhex};
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::server::{PendingSubscriptionSink, RpcModule, SubscriptionSink};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// Registers all subscriptions.
pub(super) fn register(module: &mut RpcModule<Node>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "chain_subscribeNewHeads",
        "chain_newHead",
        "chain_unsubscribeNewHeads",
        |_, pending, node, _| heads(pending, node, false),
    )?;
    module.register_subscription(
        "chain_subscribeAllHeads",
        "chain_allHead",
        "chain_unsubscribeAllHeads",
        |_, pending, node, _| heads(pending, node, false),
    )?;
    module.register_subscription(
        "chain_subscribeFinalizedHeads",
        "chain_finalizedHead",
        "chain_unsubscribeFinalizedHeads",
        |_, pending, node, _| heads(pending, node, true),
    )?;
    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, pending, node, _| async move {
            let Ok(sink) = pending.accept().await else {
                return;
            };
            let version = runtime_version(&node.chain());
            if send(&sink, &version).await {
                sink.closed().await;
            }
        },
    )?;
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, node, _| async move {
            let keys = Arguments::read(&params).and_then(|a| {
                let keys = a.get(0).and_then(Value::as_array).cloned();
                let keys = keys.ok_or_else(|| bad_params("a list of keys"))?;
                let keys = keys.iter().map(|k| unhex(k.as_str().unwrap_or("-")));
                keys.collect::<Result<Vec<_>, _>>()
            });
            match keys {
                Ok(keys) => storage(pending, node, keys).await,
                Err(error) => pending.reject(error).await,
            }
        },
    )?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, node, _| async move {
            let heads = node.heads();
            let submitted = Arguments::read(&params)
                .and_then(|a| a.bytes(0))
                .and_then(|bytes| node.chain().submit(&bytes).map_err(|r| refusal(&r)));
            match submitted {
                Ok(hash) => watch_extrinsic(pending, node, heads, hash).await,
                Err(error) => pending.reject(error).await,
            }
        },
    )?;
    Ok(())
}

/// Sends one item; `false` when the subscriber is gone.
async fn send(sink: &SubscriptionSink, item: &Value) -> bool {
    match serde_json::value::to_raw_value(item) {
        Ok(raw) => sink.send(raw).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "a notification could not be written");
            false
        }
    }
}

/// Waits for the next head; `false` when subscriber or chain are gone.
async fn next_head(sink: &SubscriptionSink, heads: &mut watch::Receiver<u32>) -> bool {
    tokio::select! {
        changed = heads.changed() => changed.is_ok(),
        () = sink.closed() => false,
    }
}

async fn heads(pending: PendingSubscriptionSink, node: Arc<Node>, finalized: bool) {
    let mut heads = node.heads();
    let Ok(sink) = pending.accept().await else {
        return;
    };
    let newest = || {
        let chain = node.chain();
        let block = if finalized {
            chain.finalized()
        } else {
            chain.head()
        };
        block.header.number
    };
    // The first notification is the present head, as from a node.
    let mut next = newest();
    loop {
        let last = newest();
        while next <= last {
            let header = node.chain().block_at(next).map(|b| b.header.json());
            if let Some(header) = header
                && !send(&sink, &header).await
            {
                return;
            }
            next += 1;
        }
        if !next_head(&sink, &mut heads).await {
            return;
        }
    }
}

async fn storage(pending: PendingSubscriptionSink, node: Arc<Node>, keys: Vec<Vec<u8>>) {
    let mut heads = node.heads();
    let Ok(sink) = pending.accept().await else {
        return;
    };
    let mut sent: Vec<Option<Option<Vec<u8>>>> = vec![None; keys.len()];
    loop {
        let (block, changes) = {
            let chain = node.chain();
            let mut changes = Vec::new();
            if let Some(view) = chain.view(chain.head().header.number) {
                for (key, sent) in keys.iter().zip(&mut sent) {
                    let now = view.get(key).map(<[u8]>::to_vec);
                    if sent.as_ref() != Some(&now) {
                        changes.push(json!([hex0x(key), now.as_deref().map(hex0x)]));
                        *sent = Some(now);
                    }
                }
            }
            (hex0x(&chain.head().hash), changes)
        };
        let set = json!({ "block": block, "changes": changes });
        if !changes_empty(&set) && !send(&sink, &set).await {
            return;
        }
        if !next_head(&sink, &mut heads).await {
            return;
        }
    }
}

fn changes_empty(set: &Value) -> bool {
    set["changes"].as_array().is_none_or(Vec::is_empty)
}

/// What the watcher of an extrinsic learns next.
enum Fate {
    Waiting,
    InBlock { block: Hash, finalized: bool },
    Gone,
}

fn fate(node: &Node, extrinsic: &Hash) -> Fate {
    let chain = node.chain();
    let number = chain.included_in(extrinsic);
    match number.and_then(|n| chain.block_at(n)) {
        Some(block) => Fate::InBlock {
            block: block.hash,
            finalized: chain.finalized().header.number >= block.header.number,
        },
        None if chain.pool.contains(extrinsic) => Fate::Waiting,
        None => Fate::Gone,
    }
}

async fn watch_extrinsic(
    pending: PendingSubscriptionSink,
    node: Arc<Node>,
    mut heads: watch::Receiver<u32>,
    extrinsic: Hash,
) {
    let Ok(sink) = pending.accept().await else {
        return;
    };
    if !send(&sink, &json!("ready")).await {
        return;
    }
    let mut told = false;
    loop {
        match fate(&node, &extrinsic) {
            Fate::Waiting => {}
            Fate::InBlock { block, finalized } => {
                let block = hex0x(&block);
                if !told && !send(&sink, &json!({ "inBlock": block })).await {
                    return;
                }
                told = true;
                if finalized {
                    send(&sink, &json!({ "finalized": block })).await;
                    return;
                }
            }
            Fate::Gone => {
                send(&sink, &json!("invalid")).await;
                return;
            }
        }
        if !next_head(&sink, &mut heads).await {
            return;
        }
    }
}
