//! The runtime changes while the client is connected: what changes nothing is not noticed, and what is
//! vital and unknown stops all signing, by name.

use super::fate::{Setter, into_the_window};
use super::golden::Golden;
use super::snapshot;
use super::wire::{NETUID, commitment, genesis, pair, settings, soon, start, weights};
use assay::bittensor::{MechanismId, Uid};
use assay::chain::{ChainClient, ChainError, Refusal, Remedy, SubmitError};
use assay::devchain::{Sealing, Upgrade};
use assay::store::WeightState;
use std::time::Duration;

#[tokio::test]
async fn both_known_runtimes_fit() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    client.check_runtime(chain.finalized()).await.unwrap();
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let server = golden.serve().await;
    let client = ChainClient::connect(&snapshot::settings(&server))
        .await
        .unwrap();
    let head = client.finalised_head().await.unwrap();
    client.check_runtime(head).await.unwrap();
}

#[tokio::test]
async fn an_upgrade_that_changes_no_vital_shape_is_not_noticed() {
    let (chain, client) = start(genesis(), Sealing::Interval).await;
    let (miner, validator) = (pair("//Miner1"), pair("//Validator"));
    soon(client.submit(&miner, commitment("before")))
        .await
        .unwrap();
    let before = client.snapshot(NETUID, chain.finalized()).await.unwrap();
    chain
        .upgrade(&Upgrade::harmless(before.spec_version + 1))
        .unwrap();
    let row = [(2, 65535), (3, 32768)];
    // Signed for the old runtime in the last moment it may be refused, and is signed anew.
    let mut done = soon(client.submit(&validator, weights(&row))).await;
    if let Err(SubmitError::Pool { refusal, .. }) = &done {
        assert_eq!(*refusal, Refusal::BadSignature);
        chain.head_above(chain.head().number).await;
        done = soon(client.submit(&validator, weights(&row))).await;
    }
    let done = done.unwrap();
    let kept = client.weights_row(done.block, NETUID, MechanismId(0), Uid(1));
    assert_eq!(kept.await.unwrap(), row.map(|(uid, w)| (Uid(uid), w)));
    soon(client.submit(&miner, commitment("after")))
        .await
        .unwrap();
    client.check_runtime(done.block).await.unwrap();
    let after = client.snapshot(NETUID, chain.finalized()).await.unwrap();
    assert_eq!(after.spec_version, before.spec_version + 1);
    assert_eq!(
        after.metagraph.neurons().len(),
        before.metagraph.neurons().len()
    );
    assert_eq!(after.commitments[0].text().unwrap(), "after");
    // A block before the upgrade still reads by its own runtime.
    assert_eq!(client.snapshot(NETUID, before.at).await.unwrap(), before);
}

#[tokio::test]
async fn a_call_signed_before_an_upgrade_is_signed_anew() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let miner = pair("//Miner1");
    let signed = client.sign(&miner, &commitment("old")).await.unwrap();
    chain.upgrade(&Upgrade::harmless(366)).unwrap();
    chain.seal().unwrap();
    let SubmitError::Pool { refusal, .. } = client.send(signed).await.unwrap_err() else {
        panic!("the old signature was taken");
    };
    assert_eq!(
        (refusal, refusal.remedy()),
        (Refusal::BadSignature, Remedy::SignAnew)
    );
    let anew = client.sign(&miner, &commitment("new")).await.unwrap();
    assert!(client.send(anew).await.unwrap().is_pooled());
}

#[tokio::test]
async fn an_unknown_vital_shape_makes_the_node_read_only() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let renamed = ("set_mechanism_weights", "set_mechanism_weights_v2");
    let upgrade = Upgrade::renaming(366, "SubtensorModule", renamed.0, renamed.1);
    chain.upgrade(&upgrade).unwrap();
    for _ in 0..3 {
        chain.seal().unwrap();
    }
    let error = client.check_runtime(chain.finalized()).await.unwrap_err();
    let ChainError::UnknownShape {
        spec_version: 366,
        misfits,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        misfits,
        &["call SubtensorModule.set_mechanism_weights is gone"]
    );
    let refused = client
        .submit(&pair("//Miner1"), commitment("x"))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, SubmitError::Chain(ChainError::UnknownShape { .. })),
        "{refused}"
    );
    assert_eq!(chain.pending(), 0);

    into_the_window(&chain, &client).await;
    let client = ChainClient::connect(&settings(&chain)).await.unwrap();
    let setter = Setter::start(&client);
    setter.publish(&client).await;
    let fault = soon(async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let faults = setter.store.reader().recent_faults(10).await.unwrap();
            if let Some(logged) = faults.into_iter().next() {
                return logged.fault;
            }
        }
    })
    .await;
    assert_eq!(
        (fault.code.as_str(), fault.retryable),
        ("CHAIN_UNKNOWN_SHAPE", false)
    );
    assert!(
        fault.message.contains("set_mechanism_weights is gone"),
        "{fault}"
    );
    let log = setter.store.reader().weight_log(None, 10).await.unwrap();
    assert!(
        log.iter().all(|e| e.state == WeightState::Intended),
        "{log:?}"
    );
    assert_eq!(chain.pending(), 0);
    // What can be read is read.
    client.snapshot(NETUID, chain.finalized()).await.unwrap();
}
