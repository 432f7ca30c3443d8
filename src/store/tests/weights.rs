//! The weight log.

use super::*;
use crate::bittensor::{MechanismId, Netuid, Uid};

fn intent(window: &str) -> NewIntent {
    NewIntent {
        window: window.to_owned(),
        netuid: Netuid(11),
        mechanism: MechanismId(0),
        block: BlockNumber(500),
        scored_block: Some(BlockNumber(500)),
        weights: vec![(Uid(0), 1000), (Uid(7), u16::MAX)],
        reason: "champion kept".to_owned(),
    }
}

#[tokio::test]
async fn a_window_has_one_decision() {
    let f = fixture();
    let Opened::New(entry) = f.store.open_intent(intent("e1"), 1).await.unwrap() else {
        panic!()
    };
    let mut other = intent("e1");
    other.weights = vec![(Uid(3), 1)];
    let again = f.store.open_intent(other, 2).await.unwrap();
    assert_eq!(
        again,
        Opened::Known(entry.clone()),
        "the first decision holds"
    );
}

#[tokio::test]
async fn a_restart_resumes_a_decision_from_its_state() {
    let f = fixture();
    let Opened::New(entry) = f.store.open_intent(intent("e1"), 1).await.unwrap() else {
        panic!()
    };
    let signed = WeightState::Signed(SignedState {
        extrinsic: "0x12".to_owned(),
        nonce: 4,
        born: BlockNumber(501),
        dies: BlockNumber(565),
        bytes: String::new(),
        reveal: None,
    });
    f.store
        .advance_weights(entry.id, signed.clone(), 3)
        .await
        .unwrap();
    let reopened = Store::open(&f.path, RetryPolicy::default()).unwrap();
    let open = reopened.reader().unfinished_weights().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].state, signed);

    let block = BlockRef {
        number: BlockNumber(510),
        hash: BlockHash([1; 32]),
    };
    for next in [
        WeightState::Pooled,
        WeightState::InBlock {
            block,
            failed: None,
        },
        WeightState::Finalised { block },
        WeightState::ReadBack { block },
    ] {
        reopened.advance_weights(entry.id, next, 4).await.unwrap();
    }
    assert!(
        reopened
            .reader()
            .unfinished_weights()
            .await
            .unwrap()
            .is_empty()
    );
    let last = reopened
        .reader()
        .last_confirmed(Netuid(11), MechanismId(0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.weights, intent("e1").weights);
    let names: Vec<_> = last.history.iter().map(|(_, s)| s.name()).collect();
    assert_eq!(
        names,
        [
            "intended",
            "signed",
            "pooled",
            "in_block",
            "finalised",
            "read_back"
        ]
    );
    let back = reopened
        .advance_weights(entry.id, WeightState::Intended, 9)
        .await;
    assert!(
        matches!(back, Err(StoreError::Invalid(_))),
        "read back is the end"
    );
}

#[tokio::test]
async fn an_empty_vector_is_never_an_intent() {
    let f = fixture();
    for weights in [vec![], vec![(Uid(1), 0)]] {
        let new = NewIntent {
            weights,
            ..intent("e1")
        };
        assert!(f.store.open_intent(new, 1).await.is_err());
    }
    assert!(
        f.store
            .reader()
            .weight_log(None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}
