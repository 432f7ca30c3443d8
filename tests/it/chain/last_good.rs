//! Scoring is down: the last good weights are sent again for a bounded time, to the neurons that still
//! hold their uids; then everything is burnt; and retries end with the epoch.

use super::fate::Setter;
use super::wire::{NETUID, genesis, pair, start};
use assay::bittensor::{BlockHash, BlockNumber, BlockRef, MechanismId, Uid};
use assay::chain::ChainClient;
use assay::devchain::{DevChain, RpcFault, Sealing};
use assay::store::{Admission, NewIntent, NewSubmission, Opened, Store, WeightEntry, WeightState};
use serde_json::json;

const NOW_MS: u64 = 1_000;

/// A submission that nobody decides, and the weights of the last good day at `block`.
async fn stalled(store: &Store, block: u64) {
    let new = NewSubmission {
        hotkey: pair("//Miner1").hotkey(),
        commit_block: BlockNumber(1),
        registered_at: Some(BlockNumber(0)),
        raw: b"2:a/b".to_vec(),
        model: None,
        admission: Admission::Pending,
    };
    store.record(new, NOW_MS).await.unwrap();
    let at = BlockRef {
        number: BlockNumber(block),
        hash: BlockHash([1; 32]),
    };
    let intent = NewIntent {
        window: "epoch-of-a-better-day".to_owned(),
        netuid: NETUID,
        mechanism: MechanismId(0),
        block: at.number,
        scored_block: Some(at.number),
        weights: vec![(Uid(2), 65_535), (Uid(4), 65_535), (Uid(5), 21_845)],
        reason: "champion".to_owned(),
    };
    let Opened::New(entry) = store.open_intent(intent, NOW_MS).await.unwrap() else {
        panic!("it is the first");
    };
    for state in [
        WeightState::Finalised { block: at },
        WeightState::ReadBack { block: at },
    ] {
        store
            .advance_weights(entry.id, state, NOW_MS)
            .await
            .unwrap();
    }
}

/// Publishes the window's first block, waits until the setter has said that it holds the weights,
/// then publishes one of its second half; gives the decision.
async fn through_the_window(
    chain: &DevChain,
    client: &ChainClient,
    setter: &Setter,
) -> WeightEntry {
    until_left(chain, client, 11).await;
    setter.publish(client).await;
    setter.said("WEIGHTS_HELD").await;
    until_left(chain, client, 7).await;
    setter.publish(client).await;
    setter
        .until(|s| !matches!(s, WeightState::ReadBack { .. }))
        .await
}

/// Seals blocks until the epoch is that many blocks ahead of the finalised head.
async fn until_left(chain: &DevChain, client: &ChainClient, blocks: u64) {
    loop {
        let head = client.finalised_head().await.unwrap();
        let snapshot = client.snapshot(NETUID, head).await.unwrap();
        if snapshot.next_epoch_block.unwrap().since(head.number) == blocks {
            return;
        }
        chain.seal().unwrap();
    }
}

#[tokio::test]
async fn the_last_good_weights_go_to_the_neurons_that_are_still_there() {
    let mut genesis = genesis();
    // Uid 4 was taken over after the good day of block 2.
    genesis.subnets[0].neurons[4].registered_at = 3;
    let (chain, client) = start(genesis, Sealing::Manual).await;
    let setter = Setter::start_with(&client, 1000);
    stalled(&setter.store, 2).await;
    let sent = through_the_window(&chain, &client, &setter).await;
    assert_eq!(sent.weights, [(Uid(2), 65_535), (Uid(5), 21_845)]);
    assert_eq!(sent.scored_block, Some(BlockNumber(2)));
    assert!(
        sent.reason
            .contains("1 submissions of the era are not decided yet"),
        "{}",
        sent.reason
    );
    assert!(
        sent.reason.contains("the weights of block 2 again"),
        "{}",
        sent.reason
    );
    setter.said("WEIGHTS_LAST_GOOD").await;
    setter.until(|s| *s == WeightState::Pooled).await;
    for _ in 0..3 {
        chain.seal().unwrap();
    }
    setter
        .until(|s| matches!(s, WeightState::Finalised { .. }))
        .await;
    setter.publish(&client).await;
    let done = setter
        .until(|s| matches!(s, WeightState::ReadBack { .. }))
        .await;
    // What was sent again is good, but no better than the day that it is of.
    let last = setter
        .store
        .reader()
        .last_scored_weights(NETUID, MechanismId(0));
    let last = last.await.unwrap().unwrap();
    assert_eq!(
        (last.id, last.scored_block),
        (done.id, Some(BlockNumber(2)))
    );
}

#[tokio::test]
async fn weights_of_too_old_a_day_are_burnt() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let setter = Setter::start_with(&client, 1);
    stalled(&setter.store, 2).await;
    let sent = through_the_window(&chain, &client, &setter).await;
    assert_eq!(
        (sent.weights.as_slice(), sent.scored_block),
        (&[(Uid(0), 65_535)][..], None)
    );
    setter.said("WEIGHTS_BURNT").await;
    assert!(sent.reason.contains("too old"), "{}", sent.reason);
}

#[tokio::test]
async fn retries_end_with_their_window() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let setter = Setter::start(&client);
    let full = RpcFault::Error {
        code: 1016,
        message: "Immediately Dropped".to_owned(),
        data: Some(json!("no room")),
    };
    let method = "author_submitAndWatchExtrinsic";
    chain.faults().inject(method, full, None);
    // One block before the window closes: the next try would be due when it is over.
    until_left(&chain, &client, 5).await;
    setter.publish(&client).await;
    let failed = setter
        .until(|s| matches!(s, WeightState::Failed { .. }))
        .await;
    let from = client.finalised_head().await.unwrap().number.plus(3);
    assert!(matches!(failed.state, WeightState::Failed { retry_from: Some(b), .. } if b == from));
    for left in [2, 1] {
        until_left(&chain, &client, left).await;
        setter.publish(&client).await;
    }
    chain.faults().clear();
    // The next window decides anew, and the old one stays what it was.
    until_left(&chain, &client, 11).await;
    setter.publish(&client).await;
    let next = setter.until(|s| *s == WeightState::Pooled).await;
    assert_ne!((next.id, &next.window), (failed.id, &failed.window));
    let log = setter.store.reader().weight_log(None, 10).await.unwrap();
    let [_, old] = log.as_slice() else {
        panic!("{log:?}");
    };
    assert_eq!((old.id, &old.state), (failed.id, &failed.state));
    assert_eq!(
        old.history, failed.history,
        "one try, and none after its window"
    );
}
