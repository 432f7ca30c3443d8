use super::*;
use crate::bittensor::{
    BlockHash, BlockNumber, BlockRef, Coldkey, Hotkey, Hyperparameters, MechanismId, Metagraph,
    Netuid, Neuron, SubnetSnapshot, Tempo,
};
use crate::incentive::era::Era;
use crate::incentive::era::tests::era;
use crate::incentive::ranking::{Place, Ranking};
use crate::incentive::score::ItemScores;
use proptest::prelude::*;

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

fn neuron(uid: u8, at: u64) -> Neuron {
    Neuron {
        uid: Uid(uid.into()),
        hotkey: key(uid),
        coldkey: Coldkey([9; 32]),
        active: true,
        validator_permit: uid == 1,
        last_update: BlockNumber(100),
        registered_at: BlockNumber(at),
        total_stake: 1_000,
        incentive: 0,
        emission: 0,
    }
}

/// Owner at uid 0, our validator at uid 1, miners from uid 2 on; all registered at block 10.
fn snapshot(neurons: u8) -> SubnetSnapshot {
    let neurons = (0..neurons).map(|uid| neuron(uid, 10)).collect();
    SubnetSnapshot {
        at: BlockRef {
            number: BlockNumber(1_000),
            hash: BlockHash([1; 32]),
        },
        timestamp_ms: 0,
        spec_version: 425,
        owner_hotkey: key(0),
        owner_coldkey: Coldkey([9; 32]),
        metagraph: Metagraph::new(Netuid(11), neurons).unwrap(),
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
            stake_threshold: 1_000,
        },
        next_epoch_block: Some(BlockNumber(1_300)),
        commitments: vec![],
    }
}

fn ranking(shares: &[(u8, f64)]) -> Ranking {
    let place = |&(n, share): &(u8, f64)| Place {
        hotkey: key(n),
        commit_block: BlockNumber(50),
        score: ItemScores::new([("a".to_owned(), 0.5)]).unwrap().score(),
        controlled: ItemScores::new([("a".to_owned(), 0.5)]).unwrap().score(),
        rounds: 1,
        group: 1,
        fresh_only: false,
        share,
        challenge: None,
        win_rate: None,
    };
    Ranking {
        places: shares.iter().map(place).collect(),
        champion: None,
    }
}

fn burning(burn_share: f64) -> Era {
    let mut era = era(0, 10);
    era.incentive.burn_share = burn_share;
    era
}

fn entries(ranking: &Ranking, snapshot: &SubnetSnapshot, burn: f64) -> Vec<(u16, u16)> {
    let vector = allocate(ranking, snapshot, &burning(burn)).unwrap();
    vector.entries().iter().map(|(u, v)| (u.0, *v)).collect()
}

#[test]
fn shares_and_burn_become_values_of_the_chains_scale() {
    let field = ranking(&[(3, 0.75), (2, 0.25)]);
    assert_eq!(entries(&field, &snapshot(5), 0.0), [(2, 21845), (3, 65535)]);
    // 0.5 to the owner, 0.375 and 0.125 to the miners.
    let burnt = entries(&field, &snapshot(5), 0.5);
    assert_eq!(burnt, [(0, 65535), (2, 16384), (3, 49151)]);
}

#[test]
fn without_a_contender_everything_is_burnt() {
    assert_eq!(
        entries(&Ranking::default(), &snapshot(5), 0.0),
        [(0, 65535)]
    );
    assert_eq!(
        entries(&ranking(&[(77, 1.0)]), &snapshot(5), 0.1),
        [(0, 65535)]
    );
}

#[test]
fn targets_that_are_gone_or_new_leave_their_share_to_the_others() {
    let field = ranking(&[(77, 0.5), (3, 0.3), (2, 0.2)]);
    let mut at = snapshot(5);
    assert_eq!(
        entries(&field, &at, 0.5),
        [(0, 65535), (2, 26214), (3, 39321)]
    );
    // Uid 3 went to a registration younger than the commitment of block 50.
    let neurons = (0..5)
        .map(|u| neuron(u, if u == 3 { 51 } else { 10 }))
        .collect();
    at.metagraph = Metagraph::new(Netuid(11), neurons).unwrap();
    assert_eq!(entries(&field, &at, 0.5), [(0, 65535), (2, 65535)]);
}

#[test]
fn the_burn_target_is_looked_up_and_never_guessed() {
    let mut at = snapshot(5);
    at.owner_hotkey = key(4);
    assert_eq!(
        entries(&ranking(&[(2, 1.0)]), &at, 0.5),
        [(2, 65535), (4, 65535)]
    );
    at.owner_hotkey = key(99);
    let error = allocate(&ranking(&[(2, 1.0)]), &at, &burning(0.5));
    assert_eq!(error, Err(WeightError::OwnerNotRegistered(key(99))));
    assert_eq!(entries(&ranking(&[(2, 1.0)]), &at, 0.0), [(2, 65535)]);
    let error = allocate(&Ranking::default(), &at, &burning(0.0));
    assert_eq!(error, Err(WeightError::OwnerNotRegistered(key(99))));
}

#[test]
fn an_owner_that_also_mines_gets_both() {
    let field = ranking(&[(0, 0.5), (2, 0.5)]);
    assert_eq!(entries(&field, &snapshot(5), 0.5), [(0, 65535), (2, 21845)]);
}

#[test]
fn short_vectors_are_padded_with_zeros() {
    let mut at = snapshot(5);
    at.hyperparameters.min_allowed_weights = 3;
    let padded = entries(&ranking(&[(1, 1.0)]), &at, 0.0);
    assert_eq!(padded, [(0, 0), (1, 65535), (2, 0)]);
    at.hyperparameters.min_allowed_weights = 600;
    assert_eq!(entries(&ranking(&[(1, 1.0)]), &at, 0.0).len(), 5);
}

#[test]
fn the_largest_weight_is_clipped_and_the_rest_raised_in_proportion() {
    let mut at = snapshot(5);
    at.hyperparameters.max_weights_limit = 32768;
    let field = ranking(&[(2, 0.8), (3, 0.15), (4, 0.05)]);
    let clipped = entries(&field, &at, 0.0);
    let sum: f64 = clipped.iter().map(|(_, v)| f64::from(*v)).sum();
    let part = |i: usize| f64::from(clipped[i].1) / sum;
    assert!(
        (part(0) - 0.5).abs() < 1e-4 && (part(1) - 0.375).abs() < 1e-4,
        "{clipped:?}"
    );
    at.hyperparameters.max_weights_limit = 20_000;
    let error = allocate(&ranking(&[(2, 1.0)]), &at, &burning(0.0));
    let want = WeightError::MaxWeightExceeded {
        entries: 1,
        limit: 20_000,
    };
    assert_eq!(error, Err(want));
}

#[test]
fn a_vector_is_never_empty_zero_double_or_no_number() {
    let uid = Uid(3);
    assert_eq!(WeightVector::new(vec![]), Err(WeightError::Empty));
    assert_eq!(WeightVector::new(vec![(uid, 0)]), Err(WeightError::AllZero));
    let twice = WeightVector::new(vec![(uid, 1), (Uid(1), 5), (uid, 2)]);
    assert_eq!(twice, Err(WeightError::DuplicateUids(uid)));
    for bad in [f64::NAN, f64::INFINITY, -0.1] {
        let error = WeightVector::from_shares(&[(Uid(1), 0.5), (uid, bad)]);
        assert_eq!(error, Err(WeightError::NotAShare(uid)));
    }
    assert_eq!(
        WeightVector::from_shares(&[(uid, 0.0)]),
        Err(WeightError::Empty)
    );
    let raised = WeightVector::new(vec![(uid, 100), (Uid(1), 50)]).unwrap();
    assert_eq!(raised.entries(), [(Uid(1), 32768), (uid, 65535)]);
}

#[test]
fn read_back_compares_proportions() {
    let ours = WeightVector::new(vec![(Uid(0), 0), (Uid(1), 32768), (Uid(3), 65535)]).unwrap();
    let same = |row: &[(u16, u16)]| {
        let row: Vec<_> = row.iter().map(|(u, v)| (Uid(*u), *v)).collect();
        ours.matches(&row)
    };
    assert!(same(&[(1, 32768), (3, 65535)]));
    assert!(same(&[(3, 65535), (1, 32767), (4, 0)]));
    assert!(same(&[(1, 500), (3, 1000)]));
    for other in [
        &[][..],
        &[(3, 0)],
        &[(3, 65535)],
        &[(1, 32768), (2, 65535)],
        &[(1, 32700), (3, 65535)],
        &[(1, 32768), (3, 65535), (4, 9)],
        &[(1, 32768), (3, 65535), (3, 65535)],
    ] {
        assert!(!same(other), "{other:?} passed");
    }
}

#[test]
fn without_scores_the_last_good_weights_stand_in_for_a_bounded_time() {
    let weights = [
        (Uid(0), 10),
        (Uid(2), 30),
        (Uid(3), 60),
        (Uid(9), 5),
        (Uid(4), 0),
    ];
    let last = LastGood {
        weights: &weights,
        block: BlockNumber(900),
        scored_block: BlockNumber(880),
    };
    let mut at = snapshot(5);
    let sent = |at: &SubnetSnapshot, most| match stand_in(&last, at, most).unwrap() {
        StandIn::LastGood(vector) => ("last good", vector.entries().to_vec()),
        StandIn::Burn(vector) => ("burn", vector.entries().to_vec()),
    };
    // Uid 9 is no more; 120 blocks since the scores are not too old.
    let same = vec![(Uid(0), 10_923), (Uid(2), 32_768), (Uid(3), 65_535)];
    assert_eq!(sent(&at, 120), ("last good", same));
    assert_eq!(sent(&at, 119), ("burn", vec![(Uid(0), 65_535)]));
    // Uid 3 was registered anew after the vector was decided: somebody else's.
    let young = |uid: u8| if uid == 3 { 901 } else { 10 };
    at.metagraph =
        Metagraph::new(Netuid(11), (0..5).map(|u| neuron(u, young(u))).collect()).unwrap();
    at.hyperparameters.min_allowed_weights = 3;
    let rest = vec![(Uid(0), 21_845), (Uid(1), 0), (Uid(2), 65_535)];
    assert_eq!(sent(&at, 120), ("last good", rest));
    at.metagraph = Metagraph::new(Netuid(11), (0..5).map(|u| neuron(u, 950)).collect()).unwrap();
    assert_eq!(sent(&at, 120).0, "burn");
    at.owner_hotkey = key(77);
    let nobody = stand_in(&last, &at, 120);
    assert_eq!(nobody, Err(WeightError::OwnerNotRegistered(key(77))));
}

type Change = fn(&mut SubnetSnapshot);

fn with_me(at: &mut SubnetSnapshot, change: impl Fn(&mut Neuron)) {
    let mut neurons = at.metagraph.neurons().to_vec();
    change(&mut neurons[1]);
    at.metagraph = Metagraph::new(at.metagraph.netuid(), neurons).unwrap();
}

#[test]
fn each_check_of_the_pallet_has_its_name() {
    let vector = WeightVector::new(vec![(Uid(2), 1), (Uid(3), 1)]).unwrap();
    let check = |at: &SubnetSnapshot, version| {
        let result = preflight(&vector, at, &key(1), version);
        result.err().map(|e| e.pallet_error().unwrap())
    };
    assert_eq!(check(&snapshot(5), 0), None);
    let table: [(&str, Change); 8] = [
        ("CanNotSetRootNetworkWeights", |at| {
            at.metagraph = Metagraph::new(Netuid(0), at.metagraph.neurons().to_vec()).unwrap();
        }),
        ("HotKeyNotRegisteredInSubNet", |at| {
            with_me(at, |me| me.hotkey = key(88))
        }),
        ("NotEnoughStakeToSetWeights", |at| {
            with_me(at, |me| me.total_stake = 999)
        }),
        ("IncorrectWeightVersionKey", |at| {
            at.hyperparameters.weights_version = 8
        }),
        ("SettingWeightsTooFast", |at| {
            with_me(at, |me| me.last_update = BlockNumber(901));
        }),
        ("NeuronNoValidatorPermit", |at| {
            with_me(at, |me| me.validator_permit = false)
        }),
        ("WeightVecLengthIsLow", |at| {
            at.hyperparameters.min_allowed_weights = 3
        }),
        ("MaxWeightExceeded", |at| {
            at.hyperparameters.max_weights_limit = 32_000
        }),
    ];
    for (name, change) in table {
        let mut at = snapshot(5);
        change(&mut at);
        assert_eq!(check(&at, 7), Some(name));
    }
    assert_eq!(check(&snapshot(3), 0), Some("UidVecContainInvalidOne"));
    assert_eq!(check(&snapshot(1), 0), Some("UidsLengthExceedUidsInSubNet"));
    let mut other = snapshot(5);
    other.mechanism = MechanismId(1);
    assert_eq!(check(&other, 0), Some("MechanismDoesNotExist"));
    other.mechanism_count = 2;
    assert_eq!(check(&other, 0), None);
}

#[test]
fn the_pallets_exemptions_hold() {
    let mut at = snapshot(5);
    at.hyperparameters.min_allowed_weights = 3;
    at.hyperparameters.max_weights_limit = 100;
    with_me(&mut at, |me| me.validator_permit = false);
    let to_self = WeightVector::new(vec![(Uid(1), 1)]).unwrap();
    assert_eq!(preflight(&to_self, &at, &key(1), 0), Ok(()));
    // The owner needs neither stake nor permit.
    let mut at = snapshot(5);
    at.hyperparameters.stake_threshold = u64::MAX;
    at.owner_hotkey = key(1);
    with_me(&mut at, |me| me.validator_permit = false);
    let vector = WeightVector::new(vec![(Uid(2), 1)]).unwrap();
    assert_eq!(preflight(&vector, &at, &key(1), 0), Ok(()));
    // A neuron that never set weights waits for nothing.
    let mut fresh = snapshot(5);
    fresh.at.number = BlockNumber(5);
    with_me(&mut fresh, |me| me.last_update = BlockNumber(0));
    assert_eq!(preflight(&vector, &fresh, &key(1), 0), Ok(()));
}

proptest! {
    #[test]
    fn what_is_allocated_passes_the_chains_checks(
        shares in prop::collection::vec(0.0..1.0f64, 0..20), burn in 0.0..=1.0f64,
        min in 0..40u16, limit in 1..=u16::MAX,
    ) {
        let mut at = snapshot(24);
        at.hyperparameters.min_allowed_weights = min;
        at.hyperparameters.max_weights_limit = limit;
        let field: Vec<_> = shares.iter().zip(2u8..).map(|(s, n)| (n, *s)).collect();
        match allocate(&ranking(&field), &at, &burning(burn)) {
            Ok(vector) => {
                prop_assert_eq!(preflight(&vector, &at, &key(1), 0), Ok(()));
                prop_assert!(vector.matches(vector.entries()));
                prop_assert_eq!(vector.entries().iter().map(|e| e.1).max(), Some(u16::MAX));
            }
            Err(WeightError::MaxWeightExceeded { entries, limit }) => {
                prop_assert!(entries * usize::from(limit) < usize::from(u16::MAX));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_larger_share_never_weighs_less(shares in prop::collection::vec(0.0..1.0f64, 2..20)) {
        let field: Vec<_> = shares.iter().zip(0u16..).map(|(s, n)| (Uid(n), *s)).collect();
        prop_assume!(shares.iter().any(|s| *s > 0.0));
        let vector = WeightVector::from_shares(&field).unwrap();
        let value = |uid| vector.entries().iter().find(|e| e.0 == uid).map_or(0, |e| e.1);
        for a in &field {
            for b in &field {
                prop_assert!(a.1 > b.1 || value(a.0) <= value(b.0));
            }
        }
    }
}
