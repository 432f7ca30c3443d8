//! Timelocked weights from the commit to the row on chain, on a chain that really decrypts.

use super::fate::run;
use super::wire::{NETUID, genesis, pair, settings, soon, weights};
use crate::harness::python;
use assay::bittensor::reveal::{Beacon, reveal_round};
use assay::bittensor::{BlockNumber, BlockRef, Hotkey, MechanismId, Uid};
use assay::chain::{Call, ChainClient, Finalised, Refusal, Remedy, SubmitError, timelock};
use assay::devchain::{DevChain, Genesis, Options};
use assay::store::{RetryPolicy, Store, WeightEntry, WeightState};
use codec::Encode as _;
use std::sync::Arc;
use std::time::Duration;

const VALIDATOR: Uid = Uid(1);
const ROW: [(Uid, u16); 3] = [(Uid(2), 65_535), (Uid(3), 30_000), (Uid(4), 1)];

/// Commit-reveal on, an epoch every 30 blocks of 100 ms, a beacon round every 200 ms.
fn secret_genesis() -> Genesis {
    let mut genesis = genesis();
    genesis.subnets[0].commit_reveal_weights_enabled = true;
    genesis.subnets[0].tempo = 30;
    genesis.beacon_period = Duration::from_millis(200);
    genesis
}

async fn start() -> (DevChain, ChainClient, Beacon) {
    let chain = DevChain::start(secret_genesis(), Options::default())
        .await
        .unwrap();
    // Past the first boundary: the epoch before it began before block 0.
    for _ in 0..20 {
        chain.seal().unwrap();
    }
    let client = ChainClient::connect(&settings(&chain)).await.unwrap();
    let beacon = Beacon {
        public_key: chain.beacon_public_key().unwrap().try_into().unwrap(),
        period_ms: 200,
        ..Beacon::quicknet()
    };
    (chain, client, beacon)
}

/// A commit made at the head, and the first block that can reveal it.
async fn commit(client: &ChainClient, beacon: &Beacon, plain: &[u8]) -> (Call, BlockNumber) {
    let head = client.finalised_head().await.unwrap();
    let snapshot = client.snapshot(NETUID, head).await.unwrap();
    let state = client.epoch_state(head, NETUID).await.unwrap();
    let clock = (snapshot.timestamp_ms, 100);
    let round = reveal_round(&state, 1, clock, beacon).unwrap();
    let call = Call::CommitTimelockedWeights {
        netuid: NETUID,
        mechanism: MechanismId(0),
        commit: timelock::encrypt(beacon, round, plain, rand::random()).unwrap(),
        reveal_round: round,
    };
    (call, state.reveal_block(1).unwrap())
}

async fn row(client: &ChainClient, at: BlockRef) -> Vec<(Uid, u16)> {
    let row = client.weights_row(at, NETUID, MechanismId(0), VALIDATOR);
    row.await.unwrap()
}

/// Follows the chain until `done` says so at a finalised block.
async fn until(client: &ChainClient, mut done: impl AsyncFnMut(BlockRef) -> bool) -> BlockRef {
    let mut blocks = client.follow();
    loop {
        // On a busy machine blocks may be late.
        let Ok(Finalised { block, .. }) = blocks.next().await else {
            continue;
        };
        if done(block).await {
            return block;
        }
    }
}

fn payload(hotkey: &Hotkey) -> Vec<u8> {
    timelock::payload(hotkey, &ROW, 0)
}

#[tokio::test]
async fn a_commit_opens_in_its_reveal_epoch_and_not_before() {
    let validator = pair("//Validator");
    // A starved host may include the call an epoch later, and then it opens later, too.
    let mut tries = 0;
    let (_chain, client, included, from) = loop {
        let (chain, client, beacon) = start().await;
        let (call, from) = commit(&client, &beacon, &payload(&validator.hotkey())).await;
        let included = soon(client.submit(&validator, call)).await.unwrap();
        if included.block.number < from {
            break (chain, client, included, from);
        }
        tries += 1;
        assert!(tries < 5, "never included in time");
    };
    let revealed = soon(until(&client, async |at| {
        !row(&client, at).await.is_empty()
    }))
    .await;
    assert!(revealed.number >= from, "{revealed:?} before {from:?}");
    assert_eq!(row(&client, revealed).await, ROW);
    let snapshot = client.snapshot(NETUID, revealed).await.unwrap();
    let neuron = snapshot.metagraph.by_uid(VALIDATOR).unwrap();
    assert_eq!(
        neuron.last_update, included.block.number,
        "moves at the commit alone"
    );
}

#[tokio::test]
async fn anothers_payload_and_a_missed_pulse_reveal_nothing() {
    let (chain, client, beacon) = start().await;
    let validator = pair("//Validator");
    let (stolen, from) = commit(&client, &beacon, &payload(&pair("//Miner1").hotkey())).await;
    soon(client.submit(&validator, stolen)).await.unwrap();
    soon(until(&client, async |at| at.number > from.plus(8))).await;
    assert!(
        row(&client, client.finalised_head().await.unwrap())
            .await
            .is_empty()
    );

    chain.withhold_pulses(true);
    let (missed, from) = commit(&client, &beacon, &payload(&validator.hotkey())).await;
    soon(client.submit(&validator, missed)).await.unwrap();
    // The epoch after the reveal epoch has begun: whatever comes now comes too late.
    soon(until(&client, async |at| at.number > from.plus(32))).await;
    chain.withhold_pulses(false);
    let late = client.finalised_head().await.unwrap().number;
    soon(until(&client, async |at| at.number > late.plus(4))).await;
    assert!(
        row(&client, client.finalised_head().await.unwrap())
            .await
            .is_empty()
    );
}

/// Runs the weight setter on an empty store, block after block, until a vector was read back.
async fn until_read_back(client: &ChainClient, store: &Store, beacon: &Beacon) -> WeightEntry {
    let (latest, stop, running) = run(client, store, beacon.clone(), u64::MAX);
    let mut confirmed = None;
    soon(until(client, async |at| {
        let snapshot = client.snapshot(NETUID, at).await.unwrap();
        latest.send_replace(Some(Arc::new(snapshot)));
        confirmed = store
            .reader()
            .last_confirmed(NETUID, MechanismId(0))
            .await
            .unwrap();
        confirmed.is_some()
    }))
    .await;
    stop.trigger();
    running.await.unwrap();
    confirmed.unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db"), RetryPolicy::default()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn the_weight_setter_commits_and_believes_only_the_revealed_row() {
    let (_chain, client, beacon) = start().await;
    let (_dir, store) = store();
    let entry = until_read_back(&client, &store, &beacon).await;
    let reveal = entry.signed().unwrap().reveal.unwrap();
    let WeightState::ReadBack { block } = entry.state else {
        panic!("{entry:?}")
    };
    assert!(block.number >= reveal.from);
    assert_eq!(row(&client, block).await, entry.weights);
}

#[tokio::test]
async fn a_missed_reveal_is_said_and_the_next_window_commits_anew() {
    let (chain, client, beacon) = start().await;
    let (_dir, store) = store();
    chain.withhold_pulses(true);
    let (latest, stop, running) = run(&client, &store, beacon.clone(), u64::MAX);
    soon(until(&client, async |at| {
        let snapshot = client.snapshot(NETUID, at).await.unwrap();
        latest.send_replace(Some(Arc::new(snapshot)));
        let faults = store.reader().recent_faults(100).await.unwrap();
        faults
            .iter()
            .any(|entry| entry.fault.code == "CHAIN_NOT_REVEALED")
    }))
    .await;
    stop.trigger();
    running.await.unwrap();
    chain.withhold_pulses(false);
    let entry = until_read_back(&client, &store, &beacon).await;
    assert!(entry.signed().unwrap().reveal.is_some());
}

#[tokio::test]
async fn each_check_of_a_commit_has_its_name() {
    let (_chain, client, beacon) = start().await;
    let validator = pair("//Validator");
    let plain = payload(&validator.hotkey());
    let (call, _) = commit(&client, &beacon, &plain).await;
    let Call::CommitTimelockedWeights {
        commit: bytes,
        reveal_round,
        ..
    } = call.clone()
    else {
        panic!("{call:?}")
    };
    let with = |netuid, mechanism, commit: &[u8], reveal_round| Call::CommitTimelockedWeights {
        netuid,
        mechanism,
        commit: commit.to_vec(),
        reveal_round,
    };
    let refused = async |hotkey: &str, call: Call| {
        soon(client.submit(&pair(hotkey), call)).await.unwrap_err()
    };

    let past = refused("//Validator", with(NETUID, MechanismId(0), &bytes, 5)).await;
    let SubmitError::Pool { refusal, .. } = &past else {
        panic!("{past}")
    };
    assert_eq!(
        (*refusal, refusal.remedy()),
        (Refusal::Custom(15), Remedy::RecomputeRound)
    );
    let poor = refused("//Miner2", call.clone()).await;
    assert!(
        matches!(
            poor,
            SubmitError::Pool {
                refusal: Refusal::Custom(1),
                ..
            }
        ),
        "{poor}"
    );
    let long = refused(
        "//Validator",
        with(NETUID, MechanismId(0), &[7; 5001], reveal_round),
    )
    .await;
    assert!(matches!(long, SubmitError::BadCall(_)), "{long}");
    let unknown = refused(
        "//Validator",
        with(NETUID, MechanismId(9), &bytes, reveal_round),
    )
    .await;
    let SubmitError::Dispatch { error, .. } = &unknown else {
        panic!("{unknown}")
    };
    assert_eq!(error, "MechanismDoesNotExist");
    let plain_call = refused("//Validator", weights(&[(2, 1)])).await;
    assert!(
        matches!(plain_call, SubmitError::CommitRevealDemanded(NETUID)),
        "{plain_call}"
    );
}

/// The signature is drand's published test vector of quicknet.
#[tokio::test]
async fn our_blob_opens_in_the_fields_own_package() {
    let Some(python) = python() else { return };
    let text = include_str!("../data/reveal_rounds.json");
    let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
    let known = &recorded["known"];
    let round = known["round"].as_u64().unwrap();
    let plain = payload(&pair("//Validator").hotkey());
    let sealed = timelock::encrypt(&Beacon::quicknet(), round, &plain, rand::random()).unwrap();
    // The package's envelope: the ciphertext with its length in front, the round behind it.
    let blob = hex::encode((sealed, round).encode());
    let opening = tokio::process::Command::new(python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/python/timelock_open.py"
        ))
        .args([blob.as_str(), known["signature"].as_str().unwrap()])
        .kill_on_drop(true)
        .output();
    let output = soon(opening).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let opened = String::from_utf8_lossy(&output.stdout);
    assert_eq!(opened.trim(), hex::encode(plain));
}
