//! Submission against a real runtime's recorded answers: the same call bytes, the same refusals.

use super::golden::{Golden, NETUID};
use super::snapshot::settings;
use assay::bittensor::{MechanismId, Netuid, Uid};
use assay::chain::{Call, ChainClient, HotkeyPair, Refusal, SubmitError};
use sp_crypto_hashing::twox_128;
use std::time::Duration;

fn weights(netuid: u16, mechanism: u8, row: &[(u16, u16)]) -> Call {
    Call::SetMechanismWeights {
        netuid: Netuid(netuid),
        mechanism: MechanismId(mechanism),
        weights: row.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(),
        version_key: 0,
    }
}

fn commitment(text: impl Into<String>) -> Call {
    Call::SetCommitment {
        netuid: Netuid(NETUID),
        text: text.into(),
    }
}

/// The recording ends with commit-reveal switched on; this takes that one value back.
fn without_commit_reveal(mut golden: Golden) -> Golden {
    let mut key = twox_128(b"SubtensorModule").to_vec();
    key.extend(twox_128(b"CommitRevealWeightsEnabled"));
    key.extend(NETUID.to_le_bytes());
    let storage = golden.recorded["snapshot"]["storage"]
        .as_object_mut()
        .unwrap();
    // The runtime's default is "on", so a value has to stay there.
    let before = storage.insert(format!("0x{}", hex::encode(key)), "0x00".into());
    assert!(before.is_none_or(|on| on == "0x01"));
    golden
}

async fn submit(golden: Golden, uri: &str, call: Call) -> SubmitError {
    let server = golden.serve().await;
    let mut settings = settings(&server);
    settings.block_time = Duration::from_millis(250);
    let client = ChainClient::connect(&settings).await.unwrap();
    let pair = HotkeyPair::from_uri(uri).unwrap();
    client.submit(&pair, call).await.unwrap_err()
}

#[tokio::test]
async fn plain_weights_are_never_sent_where_commit_reveal_is_demanded() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let call = weights(NETUID, 0, &[(2, 65535), (3, 1)]);
    let error = submit(golden, "//Validator", call).await;
    assert!(
        matches!(error, SubmitError::CommitRevealDemanded(Netuid(NETUID))),
        "{error}"
    );
}

#[tokio::test]
async fn the_pools_refusals_come_with_subtensors_own_number() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let golden = without_commit_reveal(golden);
    let row = [(2, 65535), (3, 1)];
    let cases = [
        ("//Miner7", weights(NETUID, 7, &row), 6),
        ("//Miner7", weights(NETUID, 0, &row), 1),
    ];
    for (uri, call, number) in cases {
        let error = submit(golden.clone(), uri, call).await;
        let SubmitError::Pool {
            code: 1010,
            refusal,
            message,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*refusal, Refusal::Custom(number), "{message}");
        assert_eq!(error.to_fault().retryable, number == 6);
    }
    let error = submit(golden, "//Miner1", commitment("stale")).await;
    let SubmitError::Pool {
        code: 1010,
        refusal: Refusal::Stale,
        message,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(message.contains("outdated"), "{message}");
}

/// The server knows a call only by its bytes as the real runtime took them, and gives it up. The
/// recorded nonce is above ours and no later block holds the call: it is known to have failed.
#[tokio::test]
async fn calls_are_encoded_as_recorded_and_a_lost_watch_is_settled() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let golden = without_commit_reveal(golden);
    let miner = HotkeyPair::from_uri("//Validator").unwrap();
    let recorded = &golden.recorded["snapshot"]["calls"];
    let nonce_of = format!(
        "AccountNonceApi_account_nonce 0x{}",
        hex::encode(miner.hotkey().0)
    );
    assert_eq!(recorded[nonce_of]["result"], "0x07000000");
    let revision = "ab".repeat(20);
    let calls = [
        weights(NETUID, 0, &[(2, 65535), (3, 32768), (4, 16384)]),
        commitment("x".repeat(200)),
        commitment(format!("2:org/model-b:{revision}:chatml:d1")),
        commitment("hello"),
    ];
    for call in calls {
        let error = submit(golden.clone(), "//Validator", call).await;
        let SubmitError::NeverIncluded(pending) = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (pending.nonce, pending.born.0, pending.dies.0),
            (6, 88, 152)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_a_call_is_not_sent() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    for call in [
        commitment("x".repeat(513)),
        weights(NETUID, 0, &[]),
        weights(NETUID, 0, &[(1, 0), (2, 0)]),
    ] {
        let error = submit(golden.clone(), "//Validator", call).await;
        assert!(matches!(error, SubmitError::BadCall(_)), "{error}");
    }
}
