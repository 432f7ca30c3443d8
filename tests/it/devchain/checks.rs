//! Each rule of the pallets, provoked by an unmodified subxt, on every metadata at hand.

use super::client::{DevKey, commitment, connect, manual};
use assay::devchain::{DevChain, Genesis, GenesisNeuron, GenesisSubnet, Options};
use std::path::PathBuf;
use std::time::Instant;
use subxt::dynamic::{self, Value};
use subxt::rpcs::client::{RpcClient, rpc_params};
use subxt::tx::DynamicPayload;
use subxt::{OnlineClient, SubstrateConfig};

/// Spec 365, and 425 where the recordings are.
pub(crate) fn runtimes() -> Vec<Options> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden");
    let folder = std::env::var_os("ASSAY_GOLDEN").map_or(default, PathBuf::from);
    let newer = ["metadata-425-v15.scale", "metadata-425-v16.scale"].map(|file| folder.join(file));
    let mut all = vec![manual()];
    for file in newer {
        if file.exists() {
            all.push(Options {
                metadata: Some(file),
                ..manual()
            });
        } else {
            println!("SKIPPED: no {}", file.display());
        }
    }
    all
}

fn neuron(hotkey: &str, stake: u64, validator_permit: bool) -> GenesisNeuron {
    GenesisNeuron {
        hotkey: hotkey.to_owned(),
        stake,
        validator_permit,
        ..GenesisNeuron::default()
    }
}

/// Subnet 11 as in `Genesis::dev`, subnet 12 with every limit drawn tight.
pub(crate) fn genesis() -> Genesis {
    let mut genesis = Genesis::dev();
    genesis.subnets[0].weights_rate_limit = 0;
    genesis.subnets[0].tempo = 360;
    let rich = 2_000_000_000_000;
    let mut neurons = vec![
        neuron("//OwnerHot", 0, false),
        neuron("//Validator", rich, true),
        neuron("//Latecomer", rich, false),
    ];
    neurons.extend((1..=3).map(|n| neuron(&format!("//Miner{n}"), 0, false)));
    genesis.subnets.push(GenesisSubnet {
        netuid: 12,
        tempo: 360,
        weights_rate_limit: 0,
        weights_version: 7,
        min_allowed_weights: 3,
        max_weights_limit: 30_000,
        neurons,
        ..GenesisSubnet::default()
    });
    genesis
}

struct Trial {
    chain: DevChain,
    api: OnlineClient<SubstrateConfig>,
}

impl Trial {
    async fn start(genesis: Genesis, options: Options) -> Self {
        let chain = DevChain::start(genesis, options).await.unwrap();
        chain.seal().unwrap();
        let api = connect(&chain).await;
        Self { chain, api }
    }

    /// `ok`, `pool: <data>`, or the dispatch error's `Pallet.Name`.
    async fn end(&self, signer: &str, call: DynamicPayload<Vec<Value>>) -> String {
        let key = DevKey::new(signer);
        let mut client = self.api.tx().await.unwrap();
        let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
            .mortal(32)
            .build();
        let extrinsic = client.create_signed(&call, &key, params).await;
        let progress = match extrinsic.unwrap().submit_and_watch().await {
            Ok(progress) => progress,
            Err(refused) => {
                let text = format!("{refused:?}");
                let data = text.split("RawValue(").nth(1).unwrap_or(&text);
                return format!("pool: {}", data.split(')').next().unwrap_or(data));
            }
        };
        self.chain.seal().unwrap();
        match progress.wait_for_finalized_success().await {
            Ok(_) => "ok".to_owned(),
            Err(failed) => name_of(&failed),
        }
    }

    async fn read(&self, pallet: &str, entry: &str, keys: Vec<Value>) -> String {
        let at = self.api.at_current_block().await.unwrap();
        let address = dynamic::storage::<Vec<Value>, Value>(pallet, entry);
        let found = at.storage().try_fetch(address, keys).await.unwrap();
        found.map_or("nothing".to_owned(), |v| v.decode().unwrap().to_string())
    }
}

fn name_of(failed: &subxt::error::TransactionFinalizedSuccessError) -> String {
    use subxt::error::{DispatchError, TransactionEventsError, TransactionFinalizedSuccessError};
    match failed {
        TransactionFinalizedSuccessError::SuccessError(
            TransactionEventsError::ExtrinsicFailed(DispatchError::Module(error)),
        ) => {
            let details = error.details().unwrap();
            format!("{}.{}", details.pallet.name(), details.variant.name)
        }
        other => format!("{other:?}"),
    }
}

fn weights(netuid: u16, row: &[(u16, u16)], version: u64) -> DynamicPayload<Vec<Value>> {
    let list = |n: Vec<u16>| Value::unnamed_composite(n.into_iter().map(|n| Value::u128(n.into())));
    let arguments = vec![
        Value::u128(netuid.into()),
        Value::u128(0),
        list(row.iter().map(|(uid, _)| *uid).collect()),
        list(row.iter().map(|(_, value)| *value).collect()),
        Value::u128(version.into()),
    ];
    dynamic::tx("SubtensorModule", "set_mechanism_weights", arguments)
}

/// A round that the beacon has not reached.
const FAR: u64 = 1 << 40;

fn timelocked(round: u64, version: u16) -> DynamicPayload<Vec<Value>> {
    let arguments = vec![
        Value::u128(11),
        Value::u128(0),
        Value::from_bytes([0xab; 40]),
        Value::u128(round.into()),
        Value::u128(version.into()),
    ];
    let call = "commit_timelocked_mechanism_weights";
    dynamic::tx("SubtensorModule", call, arguments)
}

fn root(inner: DynamicPayload<Vec<Value>>) -> DynamicPayload<Vec<Value>> {
    let arguments = inner.call_data().clone();
    let call = Value::unnamed_variant(inner.call_name(), arguments);
    let call = Value::unnamed_variant(inner.pallet_name(), [call]);
    dynamic::tx("Sudo", "sudo", vec![call])
}

fn admin(call: &str, arguments: Vec<Value>) -> DynamicPayload<Vec<Value>> {
    dynamic::tx("AdminUtils", call, arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_refused_for_the_pallets_reasons() {
    let even = [(3, 9), (4, 9), (5, 9)];
    let cases: [(&str, &str, DynamicPayload<Vec<Value>>); 10] = [
        (
            "//Validator",
            "SubtensorModule.IncorrectWeightVersionKey",
            weights(12, &even, 6),
        ),
        (
            "//Validator",
            "SubtensorModule.WeightVecLengthIsLow",
            weights(12, &even[..2], 7),
        ),
        (
            "//Validator",
            "SubtensorModule.MaxWeightExceeded",
            weights(12, &[(3, 900), (4, 9), (5, 9)], 7),
        ),
        (
            "//Validator",
            "SubtensorModule.UidsLengthExceedUidsInSubNet",
            weights(12, &[(0, 1); 7], 7),
        ),
        (
            "//Latecomer",
            "SubtensorModule.NeuronNoValidatorPermit",
            weights(12, &even, 7),
        ),
        ("//Latecomer", "ok", weights(12, &[(2, 1)], 7)),
        ("//OwnerHot", "ok", weights(12, &even, 7)),
        (
            "//Miner1",
            "pool: \"Custom error: 1\"",
            weights(12, &even, 7),
        ),
        (
            "//Validator",
            "pool: \"Custom error: 1\"",
            weights(0, &even, 7),
        ),
        ("//Validator", "ok", weights(12, &even, 7)),
    ];
    for options in runtimes() {
        let trial = Trial::start(genesis(), options).await;
        for (signer, want, call) in &cases {
            let call = dynamic::tx(
                call.pallet_name(),
                call.call_name(),
                call.call_data().clone(),
            );
            assert_eq!(trial.end(signer, call).await, *want, "{signer}");
        }
        let row = trial
            .read(
                "SubtensorModule",
                "Weights",
                vec![Value::u128(12), Value::u128(1)],
            )
            .await;
        assert_eq!(row, "((3, 65535), (4, 65535), (5, 65535))");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_under_commit_reveal_are_counted_and_limited() {
    for options in runtimes() {
        let trial = Trial::start(genesis(), options).await;
        let on = admin(
            "sudo_set_commit_reveal_weights_enabled",
            vec![Value::u128(11), Value::bool(true)],
        );
        assert_eq!(trial.end("//Alice", root(on)).await, "ok");
        for _ in 0..10 {
            assert_eq!(trial.end("//Validator", timelocked(FAR, 4)).await, "ok");
        }
        let end = trial.end("//Validator", timelocked(FAR, 4)).await;
        assert_eq!(end, "SubtensorModule.TooManyUnrevealedCommits");
        let limit = admin(
            "sudo_set_weights_set_rate_limit",
            vec![Value::u128(11), Value::u128(100)],
        );
        assert_eq!(trial.end("//Alice", root(limit)).await, "ok");
        let end = trial.end("//Validator", timelocked(FAR, 4)).await;
        assert_eq!(end, "SubtensorModule.CommittingWeightsTooFast");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_charged_per_epoch() {
    for options in runtimes() {
        let mut genesis = genesis();
        // Both runtimes' first epoch ends between blocks 40 and 61.
        genesis.subnets[0].tempo = 60;
        let trial = Trial::start(genesis, options).await;
        for n in 0..31 {
            let end = trial
                .end("//Miner1", commitment(&format!("text {n}")))
                .await;
            assert_eq!(end, "ok", "3100 units hold 31 small commitments");
        }
        let end = trial.end("//Miner1", commitment("one more")).await;
        assert_eq!(end, "Commitments.SpaceLimitExceeded");
        while trial.chain.head().number.0 < 61 {
            trial.chain.seal().unwrap();
        }
        assert_eq!(trial.end("//Miner1", commitment("anew")).await, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_unknown_calls_are_refused() {
    for options in runtimes() {
        let trial = Trial::start(genesis(), options).await;
        let tempo = || admin("sudo_set_tempo", vec![Value::u128(11), Value::u128(99)]);
        let end = trial.end("//Bob", root(tempo())).await;
        assert_eq!(end, "pool: \"Invalid signing address\"");
        assert!(trial.end("//Bob", tempo()).await.contains("BadOrigin"));
        assert_eq!(trial.end("//Alice", root(tempo())).await, "ok");
        let read = trial.read("SubtensorModule", "Tempo", vec![Value::u128(11)]);
        assert_eq!(read.await, "99");
        let register = |hotkey: &str| {
            let hotkey = Value::from_bytes(DevKey::new(hotkey).public());
            dynamic::tx(
                "SubtensorModule",
                "burned_register",
                vec![Value::u128(11), hotkey],
            )
        };
        assert_eq!(trial.end("//Bob", register("//Newcomer")).await, "ok");
        let end = trial.end("//Bob", register("//Newcomer")).await;
        assert_eq!(end, "SubtensorModule.HotKeyAlreadyRegisteredInSubNet");
        assert_eq!(trial.end("//Newcomer", commitment("here")).await, "ok");
        let alice =
            Value::unnamed_variant("Id", [Value::from_bytes(DevKey::new("//Alice").public())]);
        let transfer = dynamic::tx(
            "Balances",
            "transfer_keep_alive",
            vec![alice, Value::u128(1)],
        );
        assert_eq!(trial.end("//Bob", transfer).await, "System.CallFiltered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_fire_by_tempo_and_pay_by_weight() {
    for options in runtimes() {
        let mut genesis = genesis();
        genesis.subnets[0].tempo = 10;
        let trial = Trial::start(genesis, options).await;
        assert_eq!(
            trial
                .end("//Validator", weights(11, &[(2, 3), (4, 1)], 0))
                .await,
            "ok"
        );
        let step = "LastMechansimStepBlock";
        let before = trial
            .read("SubtensorModule", step, vec![Value::u128(11)])
            .await;
        let mut fired = Vec::new();
        for _ in 0..33 {
            let block = trial.chain.seal().unwrap().number.0;
            let now = trial
                .read("SubtensorModule", step, vec![Value::u128(11)])
                .await;
            if now == block.to_string() {
                fired.push(block);
            }
        }
        assert_eq!(fired.len(), 3, "{fired:?} after {before}");
        let gaps: Vec<u64> = fired.windows(2).map(|w| w[1] - w[0]).collect();
        // 425 counts from the last epoch; 365's formula has a period of tempo + 1.
        assert!(gaps == [10, 10] || gaps == [11, 11], "{gaps:?}");
        let incentive = trial
            .read("SubtensorModule", "Incentive", vec![Value::u128(11)])
            .await;
        assert_eq!(incentive, "(0, 0, 49151, 0, 16383, 0, 0, 0, 0, 0)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_is_answered_in_one_call() {
    let mut genesis = Genesis::dev();
    let neurons = &mut genesis.subnets[0].neurons;
    neurons.extend((9..=254).map(|n| neuron(&format!("//Miner{n}"), 0, false)));
    assert_eq!(neurons.len(), 256);
    let trial = Trial::start(genesis, manual()).await;
    for n in 1..=254 {
        let key = DevKey::new(&format!("//Miner{n}"));
        let mut client = trial.api.tx().await.unwrap();
        let params = subxt::config::DefaultExtrinsicParamsBuilder::new().build();
        let text = format!("{n:0128}");
        let signed = client.create_signed(&commitment(&text), &key, params).await;
        signed.unwrap().submit().await.unwrap();
    }
    trial.chain.seal().unwrap();
    let at = trial.api.at_current_block().await.unwrap();
    let indices = [0u16, 8, 52, 53, 56, 57, 59, 60, 62, 66, 67, 68, 69, 73];
    let indices = Value::unnamed_composite(indices.map(|n| Value::u128(n.into())));
    let call = dynamic::runtime_api_call::<Vec<Value>, Value>(
        "SubnetInfoRuntimeApi",
        "get_selective_metagraph",
        vec![Value::u128(11), indices],
    );
    let answer = at.runtime_apis().call(call).await.unwrap();
    let rpc = RpcClient::from_insecure_url(trial.chain.url())
        .await
        .unwrap();
    // The netuid, the compact length of 14 indices, the indices.
    let arguments = "0x0b00380000080034003500380039003b003c003e0042004300440045004900";
    let params = rpc_params!["SubnetInfoRuntimeApi_get_selective_metagraph", arguments];
    let begun = Instant::now();
    let raw: String = rpc.request("state_call", params).await.unwrap();
    let bytes = raw.len() / 2;
    println!("256 neurons: {bytes} bytes in {:?}", begun.elapsed());
    let text = answer.to_string();
    assert_eq!(text.matches("tempo: Some (20)").count(), 1);
    let events = trial.read("System", "EventCount", vec![]).await;
    // The inherent's one and three for each commitment.
    assert_eq!(events, (1 + 3 * 254).to_string());
}
