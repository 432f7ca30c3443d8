//! A second mechanism of a subnet: its own row, its own last update, its own window.

use super::fate::{Setter, into_the_window};
use super::wire::{NETUID, genesis, pair, settings, soon};
use crate::devchain::checks;
use assay::bittensor::{BlockRef, MechanismId, Uid};
use assay::chain::{Call, ChainClient};
use assay::devchain::{DevChain, Options, Sealing};
use assay::incentive::weights::preflight;
use assay::incentive::{WeightError, WeightVector};
use assay::store::WeightState;

const SECOND: MechanismId = MechanismId(1);
const ROW: [(Uid, u16); 2] = [(Uid(2), 65_535), (Uid(4), 100)];

async fn start(options: Options) -> (DevChain, ChainClient) {
    let mut genesis = genesis();
    genesis.subnets[0].mechanisms = 2;
    genesis.subnets[0].weights_rate_limit = 50;
    let chain = DevChain::start(genesis, options).await.unwrap();
    for _ in 0..4 {
        chain.seal().unwrap();
    }
    let client = ChainClient::connect(&settings(&chain)).await.unwrap();
    (chain, client)
}

fn call(mechanism: MechanismId) -> Call {
    Call::SetMechanismWeights {
        netuid: NETUID,
        mechanism,
        weights: ROW.to_vec(),
        version_key: 0,
    }
}

async fn row(client: &ChainClient, at: BlockRef, mechanism: MechanismId) -> Vec<(Uid, u16)> {
    let row = client.weights_row(at, NETUID, mechanism, Uid(1)).await;
    row.unwrap()
}

#[tokio::test]
async fn each_mechanism_has_its_own_row_and_rate_limit() {
    for options in checks::runtimes() {
        let (chain, client) = start(options).await;
        let validator = pair("//Validator");
        let signed = client.sign(&validator, &call(SECOND)).await.unwrap();
        let pending = signed.pending().clone();
        client.send(signed).await.unwrap();
        chain.seal().unwrap();
        let done = client.settle(&pending).await.unwrap();
        assert_eq!(row(&client, done.block, SECOND).await, ROW);
        assert!(row(&client, done.block, MechanismId(0)).await.is_empty());

        let first = client.snapshot(NETUID, done.block).await.unwrap();
        let second = client.mechanism_snapshot(NETUID, SECOND, done.block);
        let second = second.await.unwrap();
        assert_eq!((second.mechanism, second.mechanism_count), (SECOND, 2));
        let updated = |s: &assay::bittensor::SubnetSnapshot| {
            s.metagraph.by_uid(Uid(1)).unwrap().last_update.0
        };
        assert_eq!(
            (updated(&first), updated(&second)),
            (0, done.block.number.0)
        );
        // The rate limit counts for each alone, and a third mechanism there is not.
        let vector = WeightVector::new(ROW.to_vec()).unwrap();
        let check = |s| preflight(&vector, s, &validator.hotkey(), 0);
        assert_eq!(check(&first), Ok(()));
        assert!(matches!(
            check(&second),
            Err(WeightError::SettingWeightsTooFast { wait: 50, .. })
        ));
        let third = client.mechanism_snapshot(NETUID, MechanismId(2), done.block);
        let third = third.await.unwrap();
        assert_eq!(
            check(&third),
            Err(WeightError::MechanismDoesNotExist(MechanismId(2)))
        );

        // The epoch pays each mechanism by its own rows.
        while chain.head().number.0 < 26 {
            chain.seal().unwrap();
        }
        let at = client.finalised_head().await.unwrap();
        let paid = client.snapshot(NETUID, at).await.unwrap();
        assert_eq!(paid.metagraph.by_uid(Uid(2)).unwrap().incentive, 0);
    }
}

#[tokio::test]
async fn the_setter_writes_and_reads_back_the_row_of_its_mechanism() {
    let (chain, client) = start(Options {
        sealing: Sealing::Manual,
        ..Options::default()
    })
    .await;
    into_the_window(&chain, &client).await;
    let setter = Setter::start(&client);
    setter.publish_of(&client, SECOND).await;
    setter.until(|s| *s == WeightState::Pooled).await;
    for _ in 0..3 {
        chain.seal().unwrap();
    }
    setter
        .until(|s| matches!(s, WeightState::Finalised { .. }))
        .await;
    setter.publish_of(&client, SECOND).await;
    let done = setter.until(|s| matches!(s, WeightState::ReadBack { .. }));
    let done = soon(done).await;
    assert_eq!(done.mechanism, SECOND);
    let at = client.finalised_head().await.unwrap();
    assert_eq!(row(&client, at, SECOND).await, done.weights);
    assert!(row(&client, at, MechanismId(0)).await.is_empty());
    assert_eq!(chain.pending(), 0);
}
