use super::*;
use crate::bittensor::{
    BlockHash, BlockNumber, BlockRef, Coldkey, Hyperparameters, MechanismId, Metagraph, Netuid,
    Tempo, Uid,
};

fn snapshot(at: u64, last_update: u64) -> SubnetSnapshot {
    let neuron = Neuron {
        uid: Uid(0),
        hotkey: Hotkey([1; 32]),
        coldkey: Coldkey([2; 32]),
        active: true,
        validator_permit: true,
        last_update: BlockNumber(last_update),
        registered_at: BlockNumber(7),
        total_stake: 1_500_000_000,
        incentive: 0,
        emission: 0,
    };
    SubnetSnapshot {
        at: BlockRef {
            number: BlockNumber(at),
            hash: BlockHash([1; 32]),
        },
        timestamp_ms: 1_000_000,
        spec_version: 425,
        owner_hotkey: Hotkey([9; 32]),
        owner_coldkey: Coldkey([9; 32]),
        metagraph: Metagraph::new(Netuid(11), vec![neuron]).unwrap(),
        mechanism: MechanismId(0),
        mechanism_count: 1,
        hyperparameters: Hyperparameters {
            tempo: Tempo(360),
            min_allowed_weights: 1,
            max_weights_limit: u16::MAX,
            weights_version: 0,
            weights_rate_limit: 100,
            activity_cutoff: 5_000,
            immunity_period: 5_000,
            max_validators: 64,
            commit_reveal_weights_enabled: false,
            commit_reveal_period: 1,
            stake_threshold: 2_000_000_000,
        },
        next_epoch_block: Some(BlockNumber(1_360)),
        commitments: vec![],
    }
}

fn shown(at: u64, last_update: u64) -> String {
    status(
        &snapshot(at, last_update),
        Hotkey([1; 32]),
        1_014_000,
        12_000,
    )
    .to_string()
}

#[test]
fn the_window_waits_for_the_rate_limit_and_the_next_epoch() {
    let early = shown(1_100, 1_090);
    for line in [
        "head         block 1100, finalised, 14 s old",
        "epoch        block 100 of 360; the next fires at block 1360, in 260 blocks (about 52 min)",
        "stake        1.5 of 2 needed, BELOW: weights are refused",
        "last update  block 1090, 10 blocks ago; the rate limit of 100 blocks is over at block 1190",
        "window       block 1190 to",
    ] {
        assert!(early.contains(line), "{line} is not in\n{early}");
    }
    assert!(shown(1_200, 1_000).contains("window       open until block"));
    let late = shown(1_350, 1_000);
    assert!(late.contains("for the epoch of block 1720"), "{late}");
    let stranger = status(&snapshot(1_100, 0), Hotkey([3; 32]), 0, 12_000).to_string();
    assert!(stranger.contains("NOT REGISTERED"), "{stranger}");
}
