//! The recording of spec 425 on the older runtime, spec 365: what the client reads of the recorded
//! state, and how the recorded calls end there, signed anew.
//!
//! What cannot hold there: the recorded signatures (they cover the spec version) and the bytes of
//! runtime answers, events and error numbers (the shapes and the numbering differ); names do hold. The
//! epoch comes from the block number, so its block and the space that is counted by it differ, and the
//! activity cutoff is a parameter of its own.

use super::client::{DevKey, connect, manual};
use super::golden::{Recording, entry, rewind, unhex};
use assay::bittensor::{BlockHash, Netuid, SubnetSnapshot, Tempo};
use assay::chain::{ChainClient, ChainSettings, Endpoint};
use assay::devchain::DevChain;
use scale_value::scale::decode_as_type;
use scale_value::{Composite, ValueDef};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use subxt::rpcs::client::{RpcClient, rpc_params};
use subxt::tx::DynamicPayload;

const NETUID: Netuid = Netuid(11);

async fn read(chain: &DevChain) -> SubnetSnapshot {
    let settings = ChainSettings {
        endpoints: vec![Endpoint::own(chain.url())],
        genesis: Some(BlockHash([0x45; 32])),
        request_timeout: Duration::from_secs(30),
        block_time: Duration::from_secs(12),
    };
    let client = ChainClient::connect(&settings).await.unwrap();
    let head = client.finalised_head().await.unwrap();
    client.check_runtime(head).await.unwrap();
    client.snapshot(NETUID, head).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reads_the_recorded_state_alike_on_both_runtimes() {
    let Some(recording) = Recording::load() else {
        return;
    };
    let (newer, _) = recording.start(88, recording.storage()).await;
    let (older, _) = recording.start_on(manual(), 88, recording.storage()).await;
    let (newer, mut older) = (read(&newer).await, read(&older).await);
    assert_eq!((newer.spec_version, older.spec_version), (425, 365));
    assert!(newer.commitments.len() >= 6 && newer.metagraph.neurons().len() == 10);
    assert_eq!(newer.hyperparameters.tempo, Tempo(20));
    // 425: one tempo after the epoch of block 72. 365: where (block + 12) is a multiple of 21.
    let next = |s: &SubnetSnapshot| s.next_epoch_block.unwrap().0;
    assert_eq!((next(&newer), next(&older)), (92, 93));
    older.spec_version = newer.spec_version;
    older.next_epoch_block = newer.next_epoch_block;
    older.hyperparameters.activity_cutoff = newer.hyperparameters.activity_cutoff;
    assert_eq!(older, newer);
}

/// The recorded call by names.
fn by_names(recording: &Recording, call: &Value) -> DynamicPayload<Composite<()>> {
    let bytes = std::fs::read(recording.options.metadata.as_ref().unwrap()).unwrap();
    let metadata = subxt::Metadata::decode_from(&bytes).unwrap();
    let ty = metadata.outer_enums().call_enum_ty();
    let call = decode_as_type(&mut unhex(call).as_slice(), ty, metadata.types()).unwrap();
    let ValueDef::Variant(pallet) = call.remove_context().value else {
        panic!("a call is an enum");
    };
    let name = pallet.name;
    let ValueDef::Variant(call) = pallet.values.into_values().next().unwrap().value else {
        panic!("a pallet's call is an enum");
    };
    subxt::dynamic::tx(name, call.name, call.values)
}

/// Dev URIs by address, of everybody who signs in the recording.
fn signers() -> HashMap<String, String> {
    let mut uris: Vec<String> = (1..=8).map(|n| format!("//Miner{n}")).collect();
    uris.extend(
        [
            "//Alice",
            "//Bob",
            "//Validator",
            "//OwnerHot",
            "//Nobody",
            "//Stranger",
        ]
        .map(str::to_owned),
    );
    let address = |uri: &String| {
        let hotkey = assay::bittensor::Hotkey(DevKey::new(uri).public());
        (hotkey.to_string(), uri.clone())
    };
    uris.iter().map(address).collect()
}

/// How a case ended: the pool's words, the pallet's error by name, or nothing.
fn recorded_end(case: &Value) -> String {
    if let Some(data) = case["rpc_error"]["data"].as_str() {
        return format!("pool: {data}");
    }
    let events = case["events"].as_array().unwrap();
    let last = events.last().unwrap().as_str().unwrap();
    match last.strip_prefix("system.ExtrinsicFailed: ") {
        Some(rest) => rest.split(' ').next().unwrap().to_owned(),
        None => "ok".to_owned(),
    }
}

/// Sends the case's call with its signer and nonce; the end in the recording's words.
async fn end(chain: &DevChain, recording: &Recording, case: &Value, uri: &str) -> String {
    let api = connect(chain).await;
    let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
        .mortal(32)
        .nonce(case["nonce"].as_u64().unwrap())
        .build();
    let call = by_names(recording, &case["call"]);
    let mut tx = api.tx().await.unwrap();
    let signed = tx.create_signed(&call, &DevKey::new(uri), params).await;
    let signed = signed.unwrap();
    let rpc = RpcClient::from_insecure_url(chain.url()).await.unwrap();
    let bytes = format!("0x{}", hex::encode(signed.encoded()));
    let sent = rpc.request::<Value>("author_submitExtrinsic", rpc_params![bytes]);
    if let Err(error) = sent.await {
        let subxt::rpcs::Error::User(error) = error else {
            panic!("{error}");
        };
        let data: String = serde_json::from_str(error.data.unwrap().get()).unwrap();
        return format!("pool: {data}");
    }
    chain.seal().unwrap();
    let events = api
        .at_current_block()
        .await
        .unwrap()
        .events()
        .fetch()
        .await
        .unwrap();
    for event in events.iter() {
        let event = event.unwrap();
        if event.phase() != subxt::events::Phase::ApplyExtrinsic(1) {
            continue;
        }
        match event.event_name() {
            "ExtrinsicSuccess" => return "ok".to_owned(),
            "ExtrinsicFailed" => return failure(event.field_bytes()),
            _ => {}
        }
    }
    panic!("no outcome");
}

/// `pallet.Error` of a `DispatchError`, as the recording writes it.
fn failure(bytes: &[u8]) -> String {
    let older = include_bytes!("../../../metadata/finney-365.scale");
    let metadata = subxt::Metadata::decode_from(older).unwrap();
    let [3, pallet, error, ..] = bytes else {
        panic!("no module error: {bytes:?}");
    };
    let pallet = metadata.pallet_by_error_index(*pallet).unwrap();
    let error = pallet.error_variant_by_index(*error).unwrap();
    let mut name = pallet.name().to_owned();
    name[..1].make_ascii_lowercase();
    format!("{name}.{}", error.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_calls_end_by_the_same_names_on_the_older_runtime() {
    let Some(recording) = Recording::load() else {
        return;
    };
    let (chain, rpc) = recording.start_on(manual(), 54, rewind(&recording)).await;
    let signers = signers();
    let mut held = 0;
    for case in recording.json["cases"].as_array().unwrap() {
        let label = case["label"].as_str().unwrap();
        let Some(signer) = case["signer"].as_str() else {
            // The bytes with the spoiled signature: any runtime refuses them.
            let params = rpc_params![case["extrinsic"].as_str().unwrap()];
            let sent = rpc.request::<Value>("author_submitExtrinsic", params);
            assert!(
                sent.await
                    .unwrap_err()
                    .to_string()
                    .contains("Invalid Transaction")
            );
            held += 1;
            continue;
        };
        let number = case["block"]["number"].as_u64();
        while number.is_some_and(|n| chain.head().number.0 + 1 < n) {
            chain.seal().unwrap();
        }
        let uri = signers
            .get(signer)
            .unwrap_or_else(|| panic!("{label}: who is {signer}?"));
        let found = end(&chain, &recording, case, uri).await;
        assert_eq!(found, recorded_end(case), "{label}");
        held += 1;
    }
    assert_eq!((held, chain.head().number.0), (26, 89));
    for (key, value) in recording.storage() {
        let same = [
            entry("Commitments", "CommitmentOf"),
            entry("Commitments", "LastCommitment"),
            entry("SubtensorModule", "Weights"),
            entry("SubtensorModule", "CommitRevealWeightsEnabled"),
        ];
        if same.iter().any(|prefix| key.starts_with(prefix)) {
            let key = format!("0x{}", hex::encode(key));
            let got: Value = rpc
                .request("state_getStorage", rpc_params![key.clone()])
                .await
                .unwrap();
            assert_eq!(got, format!("0x{}", hex::encode(&value)), "{key}");
        }
    }
}
