//! The client against the dev chain, over the wire: a day in order, and every way a line can fail.

use assay::bittensor::{BlockNumber, Commitment, CommitmentField, MechanismId, Netuid, Uid};
use assay::chain::{
    Call, ChainClient, ChainError, ChainSettings, HotkeyPair, Refusal, SubmitError,
};
use assay::devchain::{DevChain, Genesis, Options, RpcFault, Sealing};
use serde_json::json;
use std::future::Future;
use std::time::Duration;

pub(super) const NETUID: Netuid = Netuid(11);
const BLOCK_TIME: Duration = Duration::from_millis(100);

pub(super) fn genesis() -> Genesis {
    let mut genesis = Genesis::dev();
    genesis.block_time = BLOCK_TIME;
    genesis.subnets[0].weights_rate_limit = 0;
    genesis
}

pub(super) async fn start(genesis: Genesis, sealing: Sealing) -> (DevChain, ChainClient) {
    let options = Options {
        sealing,
        ..Options::default()
    };
    let chain = DevChain::start(genesis, options).await.unwrap();
    // The genesis block carries no time; from here on every finalised block does.
    for _ in 0..4 {
        chain.seal().unwrap();
    }
    let client = ChainClient::connect(&settings(&chain)).await.unwrap();
    (chain, client)
}

pub(super) fn settings(chain: &DevChain) -> ChainSettings {
    ChainSettings {
        endpoints: vec![chain.url()],
        genesis: Some(chain.genesis_hash()),
        request_timeout: Duration::from_secs(10),
        block_time: BLOCK_TIME,
    }
}

pub(super) fn pair(uri: &str) -> HotkeyPair {
    HotkeyPair::from_uri(uri).unwrap()
}

pub(super) fn commitment(text: &str) -> Call {
    Call::SetCommitment {
        netuid: NETUID,
        text: text.to_owned(),
    }
}

pub(super) fn weights(row: &[(u16, u16)]) -> Call {
    Call::SetMechanismWeights {
        netuid: NETUID,
        mechanism: MechanismId(0),
        weights: row.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(),
        version_key: 0,
    }
}

/// Everything here ends by itself within a minute, or the test fails.
pub(super) async fn soon<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), doing)
        .await
        .expect("done within a minute")
}

/// Waits for the pool to hold a call, for which the dev chain has no event.
pub(super) async fn pooled(chain: &DevChain) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while chain.pending() == 0 {
        ticks.tick().await;
    }
}

#[tokio::test]
async fn what_was_set_is_read_back() {
    let (_chain, client) = start(genesis(), Sealing::Interval).await;
    let miner = pair("//Miner3");
    for text in ["2:org/model:abc:chatml:d1".to_owned(), "y".repeat(200)] {
        let done = soon(client.submit(&miner, commitment(&text)))
            .await
            .unwrap();
        let expected = Commitment {
            hotkey: miner.hotkey(),
            block: done.block.number,
            fields: vec![CommitmentField::Raw(text.into())],
        };
        let alone = client
            .commitment(done.block, NETUID, &miner.hotkey())
            .await
            .unwrap();
        assert_eq!(alone.as_ref(), Some(&expected));
        let whole = client.snapshot(NETUID, done.block).await.unwrap();
        assert_eq!(whole.commitments, vec![expected]);
        assert_eq!(whole.at, done.block);
        assert_eq!(whole.metagraph.neurons().len(), 10);
        assert!(whole.next_epoch_block.unwrap() > done.block.number);
        assert!(whole.timestamp_ms > 0);
    }
    let row = [(2, 65535), (3, 32768)];
    let done = soon(client.submit(&pair("//Validator"), weights(&row)))
        .await
        .unwrap();
    let kept = client
        .weights_row(done.block, NETUID, MechanismId(0), Uid(1))
        .await
        .unwrap();
    assert_eq!(kept, row.map(|(uid, w)| (Uid(uid), w)));
    let after = client.snapshot(NETUID, done.block).await.unwrap();
    let validator = after
        .metagraph
        .by_hotkey(&pair("//Validator").hotkey())
        .unwrap();
    assert_eq!(validator.last_update, done.block.number);
}

#[tokio::test]
async fn each_failure_comes_with_its_name_from_the_block() {
    let (_chain, client) = start(genesis(), Sealing::Interval).await;
    let cases = [
        (
            "//Stranger",
            commitment("x"),
            "Commitments",
            "AccountNotAllowedCommit",
        ),
        (
            "//Validator",
            weights(&[(2, 9), (2, 1)]),
            "SubtensorModule",
            "DuplicateUids",
        ),
        (
            "//Validator",
            weights(&[(2, 9), (99, 1)]),
            "SubtensorModule",
            "UidVecContainInvalidOne",
        ),
    ];
    for (uri, call, want_pallet, want_error) in cases {
        let failed = soon(client.submit(&pair(uri), call)).await.unwrap_err();
        let SubmitError::Dispatch {
            pallet,
            error,
            block,
        } = &failed
        else {
            panic!("{failed}");
        };
        assert_eq!((pallet.as_str(), error.as_str()), (want_pallet, want_error));
        assert!(block.number > BlockNumber(0));
    }
    let poor = soon(client.submit(&pair("//Miner1"), weights(&[(2, 1)])))
        .await
        .unwrap_err();
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
}

#[tokio::test]
async fn a_rate_limit_and_a_commit_reveal_subnet_are_told() {
    let mut limited = genesis();
    limited.subnets[0].weights_rate_limit = 1000;
    let (_chain, client) = start(limited, Sealing::Interval).await;
    let validator = pair("//Validator");
    soon(client.submit(&validator, weights(&[(2, 1)])))
        .await
        .unwrap();
    let error = soon(client.submit(&validator, weights(&[(2, 1)])))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            SubmitError::Pool {
                refusal: Refusal::Custom(6),
                ..
            }
        ),
        "{error}"
    );

    let mut hidden = genesis();
    hidden.subnets[0].commit_reveal_weights_enabled = true;
    let (chain, client) = start(hidden, Sealing::Interval).await;
    let error = soon(client.submit(&validator, weights(&[(2, 1)])))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SubmitError::CommitRevealDemanded(NETUID)),
        "{error}"
    );
    assert_eq!(chain.pending(), 0);
}

#[tokio::test]
async fn following_survives_a_cut_line_and_counts_what_it_missed() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let mut blocks = client.follow();
    let first = soon(blocks.next()).await.unwrap();
    assert_eq!(first.block, chain.finalized());
    chain.faults().drop_connections();
    for _ in 0..5 {
        chain.seal().unwrap();
    }
    let next = soon(blocks.next()).await.unwrap();
    let delivered = next.block.number.since(first.block.number);
    assert_eq!(next.missed, delivered - 1);
    assert!(next.block.number <= chain.finalized().number);
    let mut last = next.block;
    while last != chain.finalized() {
        last = soon(blocks.next()).await.unwrap().block;
    }
    assert_eq!(
        soon(client.finalised_head()).await.unwrap(),
        chain.finalized()
    );
    soon(client.snapshot(NETUID, chain.finalized()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_silent_line_is_an_error_and_then_heals() {
    let options = Options {
        sealing: Sealing::Interval,
        ..Options::default()
    };
    let chain = DevChain::start(genesis(), options).await.unwrap();
    let mut settings = settings(&chain);
    settings.request_timeout = Duration::from_secs(3);
    let client = ChainClient::connect(&settings).await.unwrap();
    let mut blocks = client.follow();
    let first = soon(blocks.next()).await.unwrap();
    chain.faults().freeze_connections();
    let mut silent = 0;
    let healed = soon(async {
        loop {
            match blocks.next().await {
                Ok(block) if block.missed > 0 => return block,
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, ChainError::Transient { .. }), "{error}");
                    silent += 1;
                }
            }
        }
    })
    .await;
    eprintln!("{silent} times silent, {} blocks missed", healed.missed);
    assert!(healed.block.number > first.block.number);
}

#[tokio::test]
async fn a_lost_watch_is_settled_from_the_chain() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let miner = pair("//Miner1");
    let cut_then_seal = async {
        pooled(&chain).await;
        chain.faults().drop_connections();
        for _ in 0..4 {
            chain.seal().unwrap();
        }
    };
    let (done, ()) =
        soon(async { tokio::join!(client.submit(&miner, commitment("kept")), cut_then_seal) })
            .await;
    let done = done.unwrap();
    let read = client
        .commitment(done.block, NETUID, &miner.hotkey())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.text().unwrap().as_str(), read.block),
        ("kept", done.block.number)
    );

    // The same with a call that fails: its own error, not a lost watch.
    let cut_then_seal = async {
        pooled(&chain).await;
        chain.faults().drop_connections();
        for _ in 0..4 {
            chain.seal().unwrap();
        }
    };
    let (validator, call) = (pair("//Validator"), weights(&[(2, 9), (2, 1)]));
    let (failed, ()) =
        soon(async { tokio::join!(client.submit(&validator, call), cut_then_seal) }).await;
    let failed = failed.unwrap_err();
    assert!(matches!(&failed, SubmitError::Dispatch { error, .. } if error == "DuplicateUids"));
}

#[tokio::test]
async fn a_call_that_never_arrived_is_known_to_be_dead_when_its_era_is_over() {
    let (chain, _) = start(genesis(), Sealing::Manual).await;
    let mut settings = settings(&chain);
    settings.request_timeout = Duration::from_secs(2);
    let client = ChainClient::connect(&settings).await.unwrap();
    chain
        .faults()
        .inject("author_submitAndWatchExtrinsic", RpcFault::Stall, Some(1));
    let miner = pair("//Miner1");
    let seal = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            chain.seal().unwrap();
        }
    };
    let call = client.submit(&miner, commitment("lost"));
    let error = soon(async {
        tokio::select! {
            result = call => result.unwrap_err(),
            () = seal => unreachable!("sealing has no end"),
        }
    })
    .await;
    let SubmitError::NeverIncluded(pending) = &error else {
        panic!("{error}");
    };
    assert!(chain.finalized().number >= pending.dies);
    let head = client.finalised_head().await.unwrap();
    assert_eq!(
        client
            .commitment(head, NETUID, &miner.hotkey())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn an_empty_or_odd_answer_is_never_an_empty_subnet() {
    let (chain, client) = start(genesis(), Sealing::Manual).await;
    let head = client.finalised_head().await.unwrap();
    client.snapshot(NETUID, head).await.unwrap();
    let error = |code, message: &str| RpcFault::Error {
        code,
        message: message.to_owned(),
        data: None,
    };
    let cases = [
        ("state_call", RpcFault::Answer(json!(null))),
        ("state_call", RpcFault::Answer(json!("0x"))),
        ("state_queryStorageAt", RpcFault::Answer(json!([]))),
        (
            "state_queryStorageAt",
            RpcFault::Answer(json!([{"block": head.hash, "changes": []}])),
        ),
        ("state_queryStorageAt", error(-32005, "too many requests")),
        ("state_call", error(4003, "State already discarded")),
    ];
    for (method, fault) in cases {
        chain.faults().inject(method, fault.clone(), None);
        let read = soon(client.snapshot(NETUID, head)).await;
        assert!(read.is_err(), "{method} {fault:?}");
        chain.faults().clear();
    }
    let row = RpcFault::Error {
        code: -32603,
        message: "internal".to_owned(),
        data: None,
    };
    chain.faults().inject("state_getStorage", row, Some(1));
    assert!(
        client
            .weights_row(head, NETUID, MechanismId(0), Uid(1))
            .await
            .is_err()
    );
    client.snapshot(NETUID, head).await.unwrap();
}
