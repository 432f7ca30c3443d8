//! What became of a call: each refusal of the pool with its handling, and the weight setter's log
//! across lost answers and restarts.

use super::wire::{NETUID, commitment, genesis, pair, pooled, settings, soon, start, weights};
use assay::bittensor::reveal::Beacon;
use assay::bittensor::{MechanismId, Uid};
use assay::chain::{ChainClient, HotkeyPair, Refusal, Remedy, Step, SubmitError};
use assay::devchain::{DevChain, RpcFault, Sealing};
use assay::service::weight_setter::WeightSetter;
use assay::shutdown::Shutdown;
use assay::store::{RetryPolicy, Store, WeightEntry, WeightState};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use subxt::rpcs::client::{RpcClient, rpc_params};
use tokio::sync::watch;

fn seal(chain: &DevChain, blocks: u32) {
    for _ in 0..blocks {
        chain.seal().unwrap();
    }
}

/// Makes the client believe that this is its next nonce.
fn next_nonce(chain: &DevChain, nonce: u64) {
    let answer = RpcFault::Answer(json!(nonce));
    chain
        .faults()
        .inject("system_accountNextIndex", answer, Some(1));
}

/// Sends bytes past the client, as a lost answer or another process would have.
async fn send_raw(chain: &DevChain, bytes: &[u8]) {
    let rpc = RpcClient::from_insecure_url(chain.url()).await.unwrap();
    let params = rpc_params![format!("0x{}", hex::encode(bytes))];
    let _: Value = rpc.request("author_submitExtrinsic", params).await.unwrap();
}

fn refusal(result: Result<impl std::fmt::Debug, SubmitError>) -> Refusal {
    match result.unwrap_err() {
        SubmitError::Pool { refusal, .. } => refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_stale_nonce_is_signed_anew() {
    let (chain, client) = start(genesis(), Sealing::Interval).await;
    let miner = pair("//Miner1");
    soon(client.submit(&miner, commitment("one")))
        .await
        .unwrap();
    next_nonce(&chain, 0);
    let refused = refusal(soon(client.submit(&miner, commitment("two"))).await);
    assert_eq!(
        (refused, refused.remedy()),
        (Refusal::Stale, Remedy::SignAnew)
    );
    soon(client.submit(&miner, commitment("two")))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_imported_already_is_followed_to_its_end() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let miner = pair("//Miner1");
    let signed = client.sign(&miner, &commitment("once")).await.unwrap();
    let pending = signed.pending().clone();
    send_raw(&chain, signed.encoded()).await;
    // 1013: the pool has these very bytes, so there is no watch, but no failure either.
    let mut in_flight = client.send(signed).await.unwrap();
    assert!(!in_flight.is_pooled());
    let unknown = in_flight.next().await.unwrap_err();
    assert!(matches!(unknown, SubmitError::FateUnknown(_)), "{unknown}");
    let open = client.settle(&pending).await.unwrap_err();
    assert!(matches!(open, SubmitError::FateUnknown(_)), "{open}");
    seal(&chain, 3);
    let done = client.settle(&pending).await.unwrap();
    assert_eq!(done.extrinsic, pending.extrinsic);
    assert!(done.block.number > pending.born);
}

#[tokio::test]
async fn a_call_behind_another_of_its_nonce_waits_for_that_one() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let miner = pair("//Miner1");
    let first = client.sign(&miner, &commitment("first")).await.unwrap();
    send_raw(&chain, first.encoded()).await;
    drop(first);
    // As when the node that counts the nonce has not seen the pool of the other.
    next_nonce(&chain, 0);
    let second = client.sign(&miner, &commitment("second")).await.unwrap();
    let pending = second.pending().clone();
    assert_eq!(pending.nonce, 0);
    let held = client.send(second).await.unwrap_err();
    assert!(matches!(held, SubmitError::FateUnknown(_)), "{held}");
    let open = client.settle(&pending).await.unwrap_err();
    assert!(matches!(open, SubmitError::FateUnknown(_)), "{open}");
    seal(&chain, 4);
    let over = client.settle(&pending).await.unwrap_err();
    assert!(matches!(over, SubmitError::NeverIncluded(_)), "{over}");
    let head = client.finalised_head().await.unwrap();
    let kept = client.commitment(head, NETUID, &miner.hotkey()).await;
    assert_eq!(kept.unwrap().unwrap().text().unwrap(), "first");
}

#[tokio::test]
async fn banned_bytes_are_signed_anew() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let miner = pair("//Miner1");
    // A nonce ahead of its time: the pool keeps it until its era is over, then bans the bytes.
    next_nonce(&chain, 7);
    let early = client.sign(&miner, &commitment("early")).await.unwrap();
    send_raw(&chain, early.encoded()).await;
    let pending = early.pending().clone();
    seal(&chain, 70);
    assert_eq!(chain.pending(), 0);
    let refused = refusal(client.send(early).await);
    assert_eq!(
        (refused, refused.remedy()),
        (Refusal::Banned, Remedy::Pause)
    );
    let over = client.settle(&pending).await.unwrap_err();
    assert!(matches!(over, SubmitError::NeverIncluded(_)), "{over}");
    let again = client.sign(&miner, &commitment("early")).await.unwrap();
    assert_ne!(again.pending().extrinsic, pending.extrinsic);
    assert!(client.send(again).await.unwrap().is_pooled());
}

/// In a block, then in none, then in a later one: told as it goes, and final once.
#[tokio::test]
async fn a_reorganisation_takes_a_call_back_and_brings_it_again() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let signed = client
        .sign(&pair("//Miner1"), &commitment("kept"))
        .await
        .unwrap();
    let mut in_flight = client.send(signed).await.unwrap();
    let first = chain.seal().unwrap();
    let step = soon(in_flight.next()).await.unwrap();
    assert!(matches!(step, Step::InBlock { block, .. } if block == first));
    chain.reorganise(2).unwrap();
    assert_eq!((chain.pending(), chain.head().number), (1, first.number));
    assert_ne!(chain.head().hash, first.hash);
    let second = chain.seal().unwrap();
    let step = soon(in_flight.next()).await.unwrap();
    assert!(
        matches!(step, Step::InBlock { block, .. } if block == second),
        "{step:?}"
    );
    seal(&chain, 2);
    let done = soon(in_flight.next()).await.unwrap();
    assert!(matches!(done, Step::Finalised(done) if done.block == second));
    assert!(chain.reorganise(3).is_err(), "a final block stays");
}

/// The first sending never reached the node: the same bytes go again, and only they.
#[tokio::test]
async fn a_call_lost_on_the_way_is_sent_again_as_it_was() {
    let (chain, mut client) = start(genesis(), Sealing::Manual).await;
    into_the_window(&chain, &client).await;
    let mut setter = Setter::start(&client);
    chain
        .faults()
        .inject("author_submitAndWatchExtrinsic", RpcFault::Stall, Some(1));
    setter.publish(&client).await;
    let signed = setter.until(|s| matches!(s, WeightState::Signed(_))).await;
    client = ChainClient::connect(&settings(&chain)).await.unwrap();
    setter.kill_and_start(&client).await;
    assert_eq!(chain.pending(), 0);
    setter.publish(&client).await;
    let pooled = setter.until(|s| *s == WeightState::Pooled).await;
    assert_eq!((pooled.id, chain.pending()), (signed.id, 1));
    let included = chain.seal().unwrap();
    seal(&chain, 2);
    setter.publish(&client).await;
    let done = setter
        .until(|s| matches!(s, WeightState::Finalised { .. }))
        .await;
    assert_eq!(done.state, WeightState::Finalised { block: included });
}

#[tokio::test]
async fn each_step_is_told_with_the_blocks_own_verdict() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let validator = pair("//Validator");
    for (row, want) in [
        (&[(2, 9), (3, 1)][..], None),
        (&[(2, 9), (2, 1)][..], Some("DuplicateUids")),
    ] {
        let signed = client.sign(&validator, &weights(row)).await.unwrap();
        let mut in_flight = client.send(signed).await.unwrap();
        assert!(in_flight.is_pooled());
        let included = chain.seal().unwrap();
        let Step::InBlock { block, failed } = soon(in_flight.next()).await.unwrap() else {
            panic!("final before its block was");
        };
        assert_eq!((block, failed.as_deref()), (included, want));
        seal(&chain, 2);
        match (soon(in_flight.next()).await, want) {
            (Ok(Step::Finalised(done)), None) => assert_eq!(done.block, included),
            (Err(SubmitError::Dispatch { error, .. }), Some(want)) => assert_eq!(error, want),
            other => panic!("{other:?}"),
        }
    }
}

/// A weight setter on a store that may be closed and opened again.
pub(super) struct Setter {
    dir: tempfile::TempDir,
    pub(super) store: Store,
    latest: watch::Sender<Option<Arc<assay::bittensor::SubnetSnapshot>>>,
    stop: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

fn eras() -> Vec<assay::incentive::Era> {
    let text = include_str!("../../../configs/demo.toml");
    let config: toml::Table = text.parse().unwrap();
    let eras = config["era"].as_array().unwrap();
    vec![eras[0].clone().try_into().unwrap()]
}

#[expect(clippy::disallowed_methods, reason = "the setter runs beside the test")]
pub(super) fn run(
    client: &ChainClient,
    store: &Store,
    beacon: Beacon,
    last_good_blocks: u64,
) -> (
    watch::Sender<Option<Arc<assay::bittensor::SubnetSnapshot>>>,
    Shutdown,
    tokio::task::JoinHandle<()>,
) {
    let (latest, receiver) = watch::channel(None);
    let setter = WeightSetter {
        store: store.clone(),
        chain: client.clone(),
        pair: pair("//Validator"),
        version_key: 0,
        beacon,
        block_ms: 100,
        eras: eras(),
        last_good_blocks,
        latest: receiver,
    };
    let stop = Shutdown::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { setter.run(stop).await.unwrap() }
    });
    (latest, stop, running)
}

impl Setter {
    pub(super) fn start(client: &ChainClient) -> Self {
        Self::start_with(client, u64::MAX)
    }

    /// One whose last good weights stand in for scores for so many blocks.
    pub(super) fn start_with(client: &ChainClient, last_good_blocks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node.db"), RetryPolicy::default()).unwrap();
        let beacon = Beacon::quicknet();
        let (latest, stop, running) = run(client, &store, beacon, last_good_blocks);
        Self {
            dir,
            store,
            latest,
            stop,
            running,
        }
    }

    /// Kills the loop where it stands and starts another on the same store.
    async fn kill_and_start(&mut self, client: &ChainClient) {
        self.running.abort();
        let _ = (&mut self.running).await;
        self.store = Store::open(&self.dir.path().join("node.db"), RetryPolicy::default()).unwrap();
        let beacon = Beacon::quicknet();
        (self.latest, self.stop, self.running) = run(client, &self.store, beacon, u64::MAX);
    }

    /// Publishes the finalised head's snapshot.
    pub(super) async fn publish(&self, client: &ChainClient) {
        self.publish_of(client, MechanismId(0)).await;
    }

    /// The same of one mechanism.
    pub(super) async fn publish_of(&self, client: &ChainClient, mechanism: MechanismId) {
        let head = client.finalised_head().await.unwrap();
        let snapshot = client.mechanism_snapshot(NETUID, mechanism, head).await;
        self.latest.send_replace(Some(Arc::new(snapshot.unwrap())));
    }

    /// Waits until the ledger has a fault with this code.
    pub(super) async fn said(&self, code: &str) {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        soon(async {
            loop {
                ticks.tick().await;
                let faults = self.store.reader().recent_faults(100).await.unwrap();
                if faults.iter().any(|entry| entry.fault.code == code) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until the newest entry is in a state that `wanted` accepts.
    pub(super) async fn until(&self, wanted: impl Fn(&WeightState) -> bool) -> WeightEntry {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut newest = None;
        let waiting = async {
            loop {
                ticks.tick().await;
                let log = self.store.reader().weight_log(None, 1).await.unwrap();
                newest = log.into_iter().next();
                match &newest {
                    Some(entry) if wanted(&entry.state) => return entry.clone(),
                    _ => {}
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        let faults = self.store.reader().recent_faults(10).await.unwrap();
        ended.unwrap_or_else(|_| panic!("still {newest:#?}; {faults:#?}"))
    }
}

/// Seals blocks until the next one lies in the weights window (blocks 8 to 16 of 20).
pub(super) async fn into_the_window(chain: &DevChain, client: &ChainClient) {
    loop {
        let head = client.finalised_head().await.unwrap();
        let snapshot = client.snapshot(NETUID, head).await.unwrap();
        let left = snapshot.next_epoch_block.unwrap().since(head.number);
        if (5..=11).contains(&left) {
            return;
        }
        chain.seal().unwrap();
    }
}

fn names(entry: &WeightEntry) -> Vec<&'static str> {
    entry
        .history
        .iter()
        .map(|(_, state)| state.name())
        .collect()
}

/// Calls of the validator that the chain holds, by its nonce.
async fn nonce(client: &ChainClient, pair: &HotkeyPair) -> u64 {
    client
        .sign(pair, &commitment("x"))
        .await
        .unwrap()
        .pending()
        .nonce
}

#[tokio::test]
async fn every_state_from_intent_to_read_back_is_stored() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    into_the_window(&chain, &client).await;
    let setter = Setter::start(&client);
    setter.publish(&client).await;
    setter.until(|s| *s == WeightState::Pooled).await;
    chain.seal().unwrap();
    setter
        .until(|s| matches!(s, WeightState::InBlock { failed: None, .. }))
        .await;
    seal(&chain, 2);
    setter
        .until(|s| matches!(s, WeightState::Finalised { .. }))
        .await;
    setter.publish(&client).await;
    let done = setter
        .until(|s| matches!(s, WeightState::ReadBack { .. }))
        .await;
    let want = [
        "intended",
        "signed",
        "pooled",
        "in_block",
        "finalised",
        "read_back",
    ];
    assert_eq!(names(&done), want);
    let head = client.finalised_head().await.unwrap();
    let row = client.weights_row(head, NETUID, MechanismId(0), Uid(1));
    assert_eq!(row.await.unwrap(), done.weights);
}

/// The node carries the call out, and its answer is lost together with the process.
#[tokio::test]
async fn a_killed_setter_settles_before_it_signs_again() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let validator = pair("//Validator");
    into_the_window(&chain, &client).await;
    let mut setter = Setter::start(&client);
    chain
        .faults()
        .inject("author_submitAndWatchExtrinsic", RpcFault::Lose, Some(1));
    setter.publish(&client).await;
    setter.until(|s| matches!(s, WeightState::Signed(_))).await;
    pooled(&chain).await;
    let client = ChainClient::connect(&settings(&chain)).await.unwrap();
    setter.kill_and_start(&client).await;
    // Nobody knows yet: it must wait, although the window is open. The pool has these very bytes.
    setter.publish(&client).await;
    setter.until(|s| *s == WeightState::Pooled).await;
    setter.publish(&client).await;
    seal(&chain, 4);
    setter.publish(&client).await;
    // The step before may find it final already, and then this one reads it back at once.
    setter
        .until(|s| ["finalised", "read_back"].contains(&s.name()))
        .await;
    setter.publish(&client).await;
    let done = setter
        .until(|s| matches!(s, WeightState::ReadBack { .. }))
        .await;
    assert_eq!(
        names(&done),
        ["intended", "signed", "pooled", "finalised", "read_back"]
    );
    assert_eq!(
        nonce(&client, &validator).await,
        1,
        "signed once, used once"
    );
}

/// A rate limit that the snapshot does not show yet: refused by the pool, tried again when it is
/// over, the same window, the same vector.
#[tokio::test]
async fn a_refused_try_is_followed_by_another_when_it_is_due() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    into_the_window(&chain, &client).await;
    let setter = Setter::start(&client);
    let error = RpcFault::Error {
        code: 1010,
        message: "Invalid Transaction".to_owned(),
        data: Some(json!("Custom error: 6")),
    };
    chain
        .faults()
        .inject("author_submitAndWatchExtrinsic", error, Some(1));
    setter.publish(&client).await;
    let failed = setter
        .until(|s| matches!(s, WeightState::Failed { .. }))
        .await;
    let WeightState::Failed {
        retry_from: Some(from),
        ..
    } = failed.state
    else {
        panic!("{failed:?}");
    };
    assert_eq!(from, client.finalised_head().await.unwrap().number.plus(3));
    for _ in 0..2 {
        chain.seal().unwrap();
        setter.publish(&client).await;
    }
    assert_eq!(chain.pending(), 0, "tried before it was due");
    chain.seal().unwrap();
    setter.publish(&client).await;
    let pooled = setter.until(|s| *s == WeightState::Pooled).await;
    assert_eq!((pooled.id, &pooled.weights), (failed.id, &failed.weights));

    // Too little stake: a person has to act, so the window is left alone.
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    into_the_window(&chain, &client).await;
    let setter = Setter::start(&client);
    let error = RpcFault::Error {
        code: 1010,
        message: "Invalid Transaction".to_owned(),
        data: Some(json!("Custom error: 1")),
    };
    chain
        .faults()
        .inject("author_submitAndWatchExtrinsic", error, Some(1));
    setter.publish(&client).await;
    let failed = setter
        .until(|s| matches!(s, WeightState::Failed { .. }))
        .await;
    assert!(
        matches!(&failed.state, WeightState::Failed { retry_from: None, error } if error.contains("Custom(1)")),
        "{failed:?}"
    );
    let faults = setter.store.reader().recent_faults(10).await.unwrap();
    assert!(
        faults
            .iter()
            .any(|f| f.fault.code == "CHAIN_POOL" && !f.fault.retryable)
    );
}
