//! subxt's legacy backend against the dev chain.

use assay::devchain::{DevChain, Genesis, Options, Sealing};
use sp_core::{Pair, sr25519};
use std::time::Duration;
use subxt::config::substrate::{AccountId32, MultiSignature};
use subxt::dynamic::{self, Value};
use subxt::{OnlineClient, SubstrateConfig};

/// A dev key that signs for subxt.
pub(crate) struct DevKey(sr25519::Pair);

impl DevKey {
    pub(crate) fn new(uri: &str) -> Self {
        Self(assay::devchain::dev_key(uri).unwrap())
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.public().0
    }
}

impl subxt::tx::Signer<SubstrateConfig> for DevKey {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.public())
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload).0)
    }
}

pub(crate) fn manual() -> Options {
    Options {
        sealing: Sealing::Manual,
        finality_lag: 0,
        ..Options::default()
    }
}

pub(crate) async fn connect(chain: &DevChain) -> OnlineClient<SubstrateConfig> {
    let rpc = subxt::rpcs::RpcClient::from_insecure_url(chain.url())
        .await
        .unwrap();
    let backend = subxt::backend::LegacyBackend::builder().build(rpc);
    OnlineClient::from_backend(std::sync::Arc::new(backend))
        .await
        .unwrap()
}

pub(crate) fn commitment(text: &str) -> subxt::tx::DynamicPayload<Vec<Value>> {
    let raw = Value::unnamed_variant(format!("Raw{}", text.len()), [Value::from_bytes(text)]);
    let info = Value::named_composite([("fields", Value::unnamed_composite([raw]))]);
    dynamic::tx("Commitments", "set_commitment", vec![Value::u128(11), info])
}

pub(crate) fn weights(uids: &[u16], values: &[u16]) -> subxt::tx::DynamicPayload<Vec<Value>> {
    let list = |all: &[u16]| Value::unnamed_composite(all.iter().map(|n| Value::u128((*n).into())));
    let arguments = vec![
        Value::u128(11),
        Value::u128(0),
        list(uids),
        list(values),
        Value::u128(0),
    ];
    dynamic::tx("SubtensorModule", "set_mechanism_weights", arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn subxt_commits_sets_weights_and_reads_them_back() {
    let genesis = Genesis {
        block_time: Duration::from_millis(100),
        ..Genesis::dev()
    };
    let chain = DevChain::start(genesis, Options::default()).await.unwrap();
    let api = connect(&chain).await;
    let miner = DevKey::new("//Miner3");
    let events = api
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&commitment("2:org/model"), &miner)
        .await
        .unwrap()
        .wait_for_finalized_success()
        .await
        .unwrap();
    let names: Vec<String> = events
        .iter()
        .map(|e| e.unwrap())
        .map(|e| format!("{}.{}", e.pallet_name(), e.event_name()))
        .collect();
    assert!(
        names.contains(&"Commitments.Commitment".to_owned()),
        "{names:?}"
    );

    let validator = DevKey::new("//Validator");
    api.tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&weights(&[2, 4], &[100, 50]), &validator)
        .await
        .unwrap()
        .wait_for_finalized_success()
        .await
        .unwrap();
    let at = api.at_current_block().await.unwrap();
    let stored = at
        .storage()
        .fetch(
            dynamic::storage::<(u16, u16), Value>("SubtensorModule", "Weights"),
            (11, 1),
        )
        .await
        .unwrap()
        .decode()
        .unwrap();
    let text = stored.to_string();
    assert!(
        text.contains("(2, 65535)") && text.contains("(4, 32767)"),
        "{text}"
    );
}
