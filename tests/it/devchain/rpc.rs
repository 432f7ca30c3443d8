//! The JSON-RPC surface: answers, errors, subscriptions, faults.

use super::client::{DevKey, commitment, connect, manual, weights};
use assay::devchain::{DevChain, Genesis, Options, RpcFault};
use serde_json::{Value, json};
use std::time::Duration;
use subxt::rpcs::Error;
use subxt::rpcs::client::{RpcClient, RpcParams, rpc_params};
use tokio::time::timeout;

async fn start(options: Options) -> (DevChain, RpcClient) {
    let chain = DevChain::start(Genesis::dev(), options).await.unwrap();
    let rpc = RpcClient::from_insecure_url(chain.url()).await.unwrap();
    (chain, rpc)
}

async fn ask(rpc: &RpcClient, method: &str, params: RpcParams) -> Value {
    rpc.request(method, params).await.unwrap()
}

async fn refused(rpc: &RpcClient, method: &str, params: RpcParams) -> (i32, String) {
    match rpc.request::<Value>(method, params).await {
        Err(Error::User(error)) => (error.code, error.message),
        other => panic!("{method}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_a_nodes() {
    let (chain, rpc) = start(Options {
        keep_states: 3,
        ..manual()
    })
    .await;
    let (code, _) = refused(&rpc, "state_noSuchThing", rpc_params![]).await;
    assert_eq!(code, -32601);
    let (code, _) = refused(&rpc, "state_getStorage", rpc_params!["zz"]).await;
    assert_eq!(code, -32602);
    let unknown = format!("0x{}", "11".repeat(32));
    let asked = rpc_params!["0x00", unknown.clone()];
    assert_eq!(
        refused(&rpc, "state_getStorage", asked).await,
        (
            4003,
            format!("Client error: UnknownBlock: Header was not found in the database: {unknown}")
        )
    );
    assert_eq!(
        ask(&rpc, "chain_getHeader", rpc_params![unknown]).await,
        Value::Null
    );
    let old = chain.seal().unwrap().hash.to_string();
    for _ in 0..4 {
        chain.seal().unwrap();
    }
    let (code, message) = refused(&rpc, "state_getStorage", rpc_params!["0x00", old.clone()]).await;
    assert_eq!(code, 4003);
    assert!(message.contains("State already discarded"), "{message}");
    assert_ne!(
        ask(&rpc, "chain_getHeader", rpc_params![old]).await,
        Value::Null
    );
    let (code, message) = refused(&rpc, "author_submitExtrinsic", rpc_params!["0x"]).await;
    assert_eq!(
        (code, message.as_str()),
        (1001, "Extrinsic has invalid format: empty")
    );
    let (code, _) = refused(&rpc, "author_submitExtrinsic", rpc_params!["0x0400"]).await;
    assert_eq!(code, 1002);
    let call = rpc_params!["NoApi_no_method", "0x"];
    let (code, message) = refused(&rpc, "state_call", call).await;
    assert_eq!(code, 4003);
    assert!(message.contains("Exported method NoApi_no_method is not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_keeps_nonces_in_order() {
    let (chain, rpc) = start(manual()).await;
    chain.seal().unwrap();
    let api = connect(&chain).await;
    let miner = DevKey::new("//Miner1");
    let address = subxt::config::substrate::AccountId32(miner.public()).to_string();
    let at = api.at_current_block().await.unwrap();
    let mut signed = Vec::new();
    for nonce in [0, 1, 2] {
        let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
            .nonce(nonce)
            .mortal(32)
            .build();
        let text = format!("text {nonce}");
        let extrinsic = at
            .tx()
            .create_signed(&commitment(&text), &miner, params)
            .await
            .unwrap();
        signed.push(format!("0x{}", hex::encode(extrinsic.encoded())));
    }
    // 2 waits for 1, and both for 0.
    ask(&rpc, "author_submitExtrinsic", rpc_params![&signed[2]]).await;
    ask(&rpc, "author_submitExtrinsic", rpc_params![&signed[0]]).await;
    let next = ask(&rpc, "system_accountNextIndex", rpc_params![&address]).await;
    assert_eq!(next, json!(1));
    let again = refused(&rpc, "author_submitExtrinsic", rpc_params![&signed[0]]).await;
    assert_eq!(again, (1013, "Transaction Already Imported".to_owned()));
    chain.seal().unwrap();
    assert_eq!(chain.pending(), 1);
    ask(&rpc, "author_submitExtrinsic", rpc_params![&signed[1]]).await;
    chain.seal().unwrap();
    assert_eq!(chain.pending(), 0);
    let (code, _) = refused(&rpc, "author_submitExtrinsic", rpc_params![&signed[1]]).await;
    assert_eq!(code, 1010, "a used nonce is stale");
    let next = ask(&rpc, "system_accountNextIndex", rpc_params![&address]).await;
    assert_eq!(next, json!(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_transaction_with_the_same_nonce_has_too_low_priority() {
    let (chain, rpc) = start(manual()).await;
    chain.seal().unwrap();
    let api = connect(&chain).await;
    let validator = DevKey::new("//Validator");
    let at = api.at_current_block().await.unwrap();
    for (row, code) in [([2, 3], None), ([3, 4], Some(1014))] {
        let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
            .nonce(0)
            .mortal(32)
            .build();
        let extrinsic = at
            .tx()
            .create_signed(&weights(&row, &[1, 1]), &validator, params)
            .await
            .unwrap();
        let params = rpc_params![format!("0x{}", hex::encode(extrinsic.encoded()))];
        match code {
            None => drop(ask(&rpc, "author_submitExtrinsic", params).await),
            Some(code) => {
                assert_eq!(
                    refused(&rpc, "author_submitExtrinsic", params).await.0,
                    code
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_storage_are_pushed() {
    let (chain, rpc) = start(Options {
        finality_lag: 1,
        ..manual()
    })
    .await;
    let mut heads = rpc
        .subscribe::<Value>(
            "chain_subscribeFinalizedHeads",
            rpc_params![],
            "chain_unsubscribeFinalizedHeads",
        )
        .await
        .unwrap();
    let number = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac";
    let mut storage = rpc
        .subscribe::<Value>(
            "state_subscribeStorage",
            rpc_params![[number]],
            "state_unsubscribeStorage",
        )
        .await
        .unwrap();
    assert_eq!(
        storage.next().await.unwrap().unwrap()["changes"][0][1],
        Value::Null
    );
    assert_eq!(heads.next().await.unwrap().unwrap()["number"], "0x0");
    for _ in 0..3 {
        chain.seal().unwrap();
    }
    assert_eq!(heads.next().await.unwrap().unwrap()["number"], "0x1");
    assert_eq!(heads.next().await.unwrap().unwrap()["number"], "0x2");
    assert_eq!(chain.finalized().number.0, 2);
    let mut last = Value::Null;
    while last != "0x03000000" {
        last = storage.next().await.unwrap().unwrap()["changes"][0][1].clone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_as_often_as_asked_and_end() {
    let (chain, rpc) = start(manual()).await;
    let faults = chain.faults();
    let error = RpcFault::Error {
        code: -32005,
        message: "slow down".to_owned(),
        data: None,
    };
    faults.inject("system_chain", error, Some(2));
    for _ in 0..2 {
        let got = refused(&rpc, "system_chain", rpc_params![]).await;
        assert_eq!(got, (-32005, "slow down".to_owned()));
    }
    assert_eq!(ask(&rpc, "system_chain", rpc_params![]).await, "Assay Dev");
    // The same over the wire.
    let fault = json!({ "answer": [] });
    ask(
        &rpc,
        "dev_fault",
        rpc_params!["state_getKeysPaged", fault, 1],
    )
    .await;
    let page = rpc_params!["0x", 10];
    assert_eq!(
        ask(&rpc, "state_getKeysPaged", page.clone()).await,
        json!([])
    );
    assert_ne!(ask(&rpc, "state_getKeysPaged", page).await, json!([]));
    faults.inject("*", RpcFault::Stall, None);
    let stalled = rpc.request::<Value>("system_name", rpc_params![]);
    assert!(timeout(Duration::from_millis(200), stalled).await.is_err());
    ask(&rpc, "dev_clearFaults", rpc_params![]).await;
    assert_eq!(
        ask(&rpc, "system_name", rpc_params![]).await,
        "Subtensor Node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_cut_frozen_and_refused() {
    let (chain, rpc) = start(manual()).await;
    let faults = chain.faults();
    faults.freeze_connections();
    let asked = rpc.request::<Value>("system_name", rpc_params![]);
    assert!(
        timeout(Duration::from_millis(200), asked).await.is_err(),
        "half-open"
    );
    let rpc = RpcClient::from_insecure_url(chain.url()).await.unwrap();
    ask(&rpc, "system_name", rpc_params![]).await;
    faults.inject("system_chain", RpcFault::Drop, Some(1));
    let cut = rpc.request::<Value>("system_chain", rpc_params![]);
    let cut = timeout(Duration::from_secs(5), cut).await.unwrap();
    assert!(!matches!(cut, Ok(_) | Err(Error::User(_))), "{cut:?}");
    faults.refuse_connections();
    assert!(RpcClient::from_insecure_url(chain.url()).await.is_err());
    faults.clear();
    RpcClient::from_insecure_url(chain.url()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_chain_frees_its_port() {
    let (chain, _rpc) = start(manual()).await;
    let address = chain.url().trim_start_matches("ws://").to_owned();
    drop(chain);
    let rebound = async {
        while tokio::net::TcpListener::bind(&address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), rebound).await.unwrap();
}
