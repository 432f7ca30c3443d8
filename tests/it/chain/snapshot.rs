//! The snapshot of a real runtime (spec 425), read whole, and refused when any part is spoiled.

use super::golden::{Golden, GoldenServer, NETUID, unhex};
use assay::bittensor::{
    BlockHash, BlockNumber, BlockRef, Commitment, CommitmentField, Hotkey, MechanismId, Netuid,
    SubnetSnapshot, Uid,
};
use assay::chain::{ChainClient, ChainError, ChainSettings, HotkeyPair};
use serde_json::{Value, json};
use sp_crypto_hashing::twox_128;
use std::time::Duration;

pub(super) fn settings(server: &GoldenServer) -> ChainSettings {
    ChainSettings {
        endpoints: vec![server.endpoint.clone()],
        genesis: Some(BlockHash([0x45; 32])),
        request_timeout: Duration::from_secs(30),
        block_time: Duration::from_secs(12),
    }
}

async fn read(golden: Golden) -> Result<SubnetSnapshot, ChainError> {
    let server = golden.serve().await;
    let client = ChainClient::connect(&settings(&server)).await.unwrap();
    let head = client.finalised_head().await.unwrap();
    client.snapshot(Netuid(NETUID), head).await
}

fn key(uri: &str) -> Hotkey {
    HotkeyPair::from_uri(uri).unwrap().hotkey()
}

fn check_neurons(snapshot: &SubnetSnapshot) {
    let neurons = snapshot.metagraph.neurons();
    assert_eq!(neurons.len(), 10);
    assert_eq!(neurons[0].hotkey, key("//OwnerHot"));
    assert_eq!(neurons[1].hotkey, key("//Validator"));
    for miner in 1..=8u16 {
        let neuron = snapshot.metagraph.by_uid(Uid(miner + 1)).unwrap();
        assert_eq!(neuron.hotkey, key(&format!("//Miner{miner}")));
        assert_eq!(neuron.coldkey.0, key("//Charlie").0);
        assert!(!neuron.validator_permit);
    }
    assert!(neurons[1].validator_permit);
    assert_eq!(neurons[1].coldkey.0, key("//Bob").0);
    assert!(neurons[1].total_stake > neurons[2].total_stake);
    assert!(neurons[1].last_update > neurons[1].registered_at);
    assert_eq!(snapshot.owner_hotkey, key("//OwnerHot"));
    assert_eq!(snapshot.owner_coldkey.0, key("//Alice").0);
}

fn of<'a>(snapshot: &'a SubnetSnapshot, uri: &str) -> &'a Commitment {
    let hotkey = key(uri);
    snapshot
        .commitments
        .iter()
        .find(|c| c.hotkey == hotkey)
        .unwrap()
}

/// The raw bytes of a plain storage value.
fn recorded_value(recorded: &Value, pallet: &str, item: &str) -> Vec<u8> {
    let key = [twox_128(pallet.as_bytes()), twox_128(item.as_bytes())].concat();
    let stored = &recorded["snapshot"]["storage"][format!("0x{}", hex::encode(key))];
    unhex(stored.as_str().unwrap())
}

/// Every commitment of the recording is there, with the block that included it.
fn check_commitments(snapshot: &SubnetSnapshot, recorded: &Value) {
    let mut seen = 0;
    for case in recorded["cases"].as_array().unwrap() {
        let label = case["label"].as_str().unwrap();
        let block = case["block"]["number"].as_u64();
        let (Some(block), true) = (block, label.starts_with("set_commitment")) else {
            continue;
        };
        let signer: Hotkey = case["signer"].as_str().unwrap().parse().unwrap();
        let found = snapshot.commitments.iter().find(|c| c.hotkey == signer);
        if label.contains("unregistered") {
            assert_eq!(found, None);
            continue;
        }
        assert_eq!(found.unwrap().block, BlockNumber(block), "{label}");
        seen += 1;
    }
    assert_eq!(seen, snapshot.commitments.len());
    assert!(seen >= 6);
    let text = of(snapshot, "//Miner1").text().unwrap();
    assert!(
        text.starts_with("org:model-a:chatml:5Fpjv") && text.ends_with(":d1"),
        "{text}"
    );
    assert!(
        of(snapshot, "//Miner2")
            .text()
            .unwrap()
            .starts_with("2:org/model-b:abab")
    );
    assert_eq!(of(snapshot, "//Miner3").text().unwrap(), "x".repeat(200));
    let two = &of(snapshot, "//Miner4").fields;
    let raw = |text: &str| CommitmentField::Raw(text.into());
    assert_eq!(*two, vec![raw("abc"), raw("def")]);
    let bytes = CommitmentField::Raw(vec![0xff, 0x00, 0xfe, 0x01]);
    assert_eq!(of(snapshot, "//Miner5").fields, vec![bytes]);
    assert!(of(snapshot, "//Miner5").text().is_err());
}

#[tokio::test]
async fn a_real_runtimes_snapshot_is_read_right() {
    let Some(golden) = Golden::load(&[14, 15, 16]) else {
        return;
    };
    let recorded = golden.recorded.clone();
    let server = golden.serve().await;
    let client = ChainClient::connect(&settings(&server)).await.unwrap();
    let head = client.finalised_head().await.unwrap();
    let first = client.snapshot(Netuid(NETUID), head).await.unwrap();
    check_neurons(&first);
    check_commitments(&first, &recorded);
    assert_eq!(first.at, head);
    assert_eq!(first.spec_version, 425);
    let h = &first.hyperparameters;
    assert_eq!(
        (h.tempo.0, h.max_weights_limit, h.max_validators),
        (20, u16::MAX, 64)
    );
    assert_eq!(
        (
            h.min_allowed_weights,
            h.weights_version,
            h.weights_rate_limit
        ),
        (1, 0, 0)
    );
    // 13889 thousandths of the tempo, the runtime's default factor.
    assert_eq!(
        (h.activity_cutoff, h.immunity_period),
        (13_889 * 20 / 1000, 5000)
    );
    assert!(h.commit_reveal_weights_enabled);
    assert_eq!(h.commit_reveal_period, 1);
    let threshold = recorded_value(&recorded, "SubtensorModule", "StakeThreshold");
    assert_eq!(h.stake_threshold.to_le_bytes().as_slice(), threshold);
    let now = recorded_value(&recorded, "Timestamp", "Now");
    assert_eq!(first.timestamp_ms.to_le_bytes().as_slice(), now);
    // The runtime's own answer to the same question.
    let asked =
        &recorded["snapshot"]["calls"]["SubnetInfoRuntimeApi_get_next_epoch_start_block 0x0b00"];
    let answer: Option<u64> =
        codec::Decode::decode(&mut &unhex(asked["result"].as_str().unwrap())[..]).unwrap();
    assert_eq!(first.next_epoch_block.map(|b| b.0), answer);

    let before = client.usage();
    let head = client.finalised_head().await.unwrap();
    let again = client.snapshot(Netuid(NETUID), head).await.unwrap();
    let after = client.usage();
    assert_eq!(again, first);
    let requests = after.requests - before.requests;
    eprintln!(
        "one poll, head included: {requests} requests, {} bytes received",
        after.received_bytes - before.received_bytes
    );
    assert!(requests <= 5, "{requests} requests");
}

#[tokio::test]
async fn weights_and_single_commitments_are_read_back() {
    let Some(golden) = Golden::load(&[15]) else {
        return;
    };
    let server = golden.serve().await;
    let client = ChainClient::connect(&settings(&server)).await.unwrap();
    let head = client.finalised_head().await.unwrap();
    let (netuid, zero) = (Netuid(NETUID), MechanismId(0));
    let row = client
        .weights_row(head, netuid, zero, Uid(1))
        .await
        .unwrap();
    assert_eq!(
        row,
        vec![(Uid(2), 0xffff), (Uid(3), 0x8000), (Uid(4), 0x4000)]
    );
    assert_eq!(
        client
            .weights_row(head, netuid, zero, Uid(2))
            .await
            .unwrap(),
        vec![]
    );
    let whole = client.snapshot(netuid, head).await.unwrap();
    for commitment in &whole.commitments {
        let alone = client
            .commitment(head, netuid, &commitment.hotkey)
            .await
            .unwrap();
        assert_eq!(alone.as_ref(), Some(commitment));
    }
    let nobody = client
        .commitment(head, netuid, &key("//Nobody"))
        .await
        .unwrap();
    assert_eq!(nobody, None);
}

#[tokio::test]
async fn an_older_metadata_version_reads_the_same_or_says_that_it_cannot() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let newest = read(golden).await.unwrap();
    let middle = read(Golden::load(&[15]).unwrap()).await.unwrap();
    assert_eq!(newest, middle);
    // Version 14 does not describe runtime calls, so nothing can be read by name.
    let error = read(Golden::load(&[14]).unwrap()).await.unwrap_err();
    assert!(matches!(error, ChainError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn a_spoiled_answer_is_an_error_and_never_a_smaller_subnet() {
    const CALL: &str = "SubnetInfoRuntimeApi_get_selective_metagraph";
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let whole = golden.clone().answer_mut(CALL).as_str().unwrap().to_owned();
    let dropped = |digits: usize| whole[..whole.len() - digits].to_owned();
    // The active flags of ten neurons, without one of them.
    let ten = "0128".to_owned() + &"01".repeat(10);
    let nine = "0124".to_owned() + &"01".repeat(9);
    let short_column = whole.replacen(&ten, &nine, 1);
    assert_ne!(short_column, whole);
    let cases = [
        dropped(2),
        dropped(400),
        whole.clone() + "00",
        "0x".into(),
        short_column,
    ];
    for spoiled in cases {
        let mut golden = golden.clone();
        *golden.answer_mut(CALL) = json!(spoiled);
        let error = read(golden).await.unwrap_err();
        assert!(matches!(error, ChainError::Unreadable { .. }), "{error}");
    }
    let mut golden = golden.clone();
    *golden.answer_mut(CALL) = json!("0x00");
    let error = read(golden).await.unwrap_err();
    assert!(
        matches!(
            error,
            ChainError::NoSuchSubnet {
                netuid: Netuid(NETUID),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn the_wrong_network_and_a_gone_block_are_told_apart() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let server = golden.serve().await;
    let expected = BlockHash([0x2f; 32]);
    let elsewhere = ChainSettings {
        genesis: Some(expected),
        ..settings(&server)
    };
    let error = ChainClient::connect(&elsewhere).await.unwrap_err();
    assert!(matches!(error, ChainError::WrongNetwork { .. }), "{error}");
    let shown = error.to_string();
    assert!(
        shown.contains("0x2f2f") && shown.contains("0x4545"),
        "{shown}"
    );

    let client = ChainClient::connect(&settings(&server)).await.unwrap();
    let gone = BlockRef {
        number: BlockNumber(7),
        hash: BlockHash([0x11; 32]),
    };
    let error = client.snapshot(Netuid(NETUID), gone).await.unwrap_err();
    assert!(matches!(error, ChainError::BlockGone { .. }), "{error}");
    assert_eq!(client.block_hash(BlockNumber(7)).await.unwrap(), None);
}

#[tokio::test]
async fn the_followed_block_is_the_finalised_head() {
    let Some(golden) = Golden::load(&[16]) else {
        return;
    };
    let server = golden.serve().await;
    let client = ChainClient::connect(&settings(&server)).await.unwrap();
    let followed = client.follow().next().await.unwrap();
    assert_eq!(followed.block, client.finalised_head().await.unwrap());
    assert_eq!(followed.missed, 0);
}
