use super::*;
use crate::bittensor::{Coldkey, Netuid, Neuron, Uid};
use crate::incentive::era::{ChampionRule, RunnersUp, WinRateRule};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod evidence;
mod title;

const AT: BlockNumber = BlockNumber(1_000);

fn contender(key: u8, block: u64, values: &[f64]) -> Contender {
    let named = values.iter().enumerate();
    Contender {
        hotkey: Hotkey([key; 32]),
        commit_block: BlockNumber(block),
        since: BlockNumber(block),
        evidence: vec![Evidence {
            round: RoundNumber(0),
            items: ItemScores::new(named.map(|(i, v)| (format!("i{i:04}"), *v))).unwrap(),
        }],
        near: Vec::new(),
        held: None,
    }
}

fn era(rule: &RankingRule) -> Era {
    let mut era = crate::incentive::era::tests::era(0, 100);
    era.incentive.ranking = rule.clone();
    era
}

fn rank(field: &[Contender], rule: &RankingRule, at: BlockNumber) -> Ranking {
    super::rank(field, &era(rule), at)
}

/// `n` items alternating around `mean`.
fn flat(mean: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|i| mean + if i % 2 == 0 { 0.05 } else { -0.05 })
        .collect()
}

/// The items of [`flat`] with a difference of their own on each third item.
fn uneven(mean: f64, n: usize) -> Vec<f64> {
    let mut values = flat(mean, n);
    for (i, value) in values.iter_mut().enumerate() {
        *value += if i % 3 == 0 { 0.1 } else { -0.05 };
    }
    values
}

fn champion_rule(shares: &[f64]) -> RankingRule {
    RankingRule::Champion(ChampionRule {
        shares: shares.to_vec(),
        runners_up: RunnersUp::Score,
        ..ChampionRule::default()
    })
}

fn win_rate_rule() -> RankingRule {
    RankingRule::WinRate(WinRateRule::default())
}

fn order(ranking: &Ranking) -> Vec<u8> {
    ranking.places.iter().map(|p| p.hotkey.0[0]).collect()
}

#[test]
fn nobody_and_one_are_defined() {
    for rule in [champion_rule(&[0.7, 0.3]), win_rate_rule()] {
        assert_eq!(rank(&[], &rule, AT), Ranking::default());
        let alone = rank(&[contender(1, 5, &[0.2])], &rule, AT);
        assert!((alone.places[0].share - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_copy_never_takes_the_title_and_a_better_model_does() {
    let rule = champion_rule(&[1.0]);
    let field = [
        contender(1, 10, &flat(0.40, 64)),
        contender(2, 20, &flat(0.40, 64)),
        contender(3, 30, &flat(0.50, 64)),
    ];
    let ranking = rank(&field, &rule, AT);
    assert_eq!(ranking.champion, Some(Hotkey([3; 32])));
    assert_eq!(order(&ranking), [3, 1, 2]);
    assert!((ranking.places[0].share - 1.0).abs() < 1e-12);
    let two = rank(&field[..2], &rule, AT);
    assert_eq!(two.champion, Some(Hotkey([1; 32])));
    let copy = two.places[1].challenge.clone().unwrap();
    assert!(copy.lead.abs() < 1e-12 && copy.needed > 0.019, "{copy:?}");
}

#[test]
fn a_small_lead_stays_below_the_margin_until_the_champion_is_old() {
    let field = [
        contender(1, 0, &flat(0.40, 64)),
        contender(2, 20, &flat(0.41, 64)),
    ];
    let rule = champion_rule(&[0.8, 0.2]);
    let young = rank(&field, &rule, BlockNumber(100));
    assert_eq!(young.champion, Some(Hotkey([1; 32])));
    // The order shows quality; the title has its own rule.
    assert_eq!(order(&young), [2, 1]);
    assert!((young.places[0].share - 0.2).abs() < 1e-12);
    // The champion's age counts, not the challenger's.
    let young_challenger = [field[0].clone(), contender(2, 59_999, &flat(0.41, 64))];
    let old = rank(&young_challenger, &rule, BlockNumber(60_000));
    assert_eq!(old.champion, Some(Hotkey([2; 32])));
    assert!((old.places[0].share - 0.8).abs() < 1e-12);
}

#[test]
fn a_champion_that_is_gone_holds_no_title() {
    let neuron = |uid: u8, registered_at: u64| Neuron {
        uid: Uid(uid.into()),
        hotkey: Hotkey([uid; 32]),
        coldkey: Coldkey([9; 32]),
        active: true,
        validator_permit: false,
        last_update: BlockNumber(0),
        registered_at: BlockNumber(registered_at),
        total_stake: 0,
        incentive: 0,
        emission: 0,
    };
    let neurons = vec![neuron(0, 0), neuron(1, 15), neuron(2, 20)];
    let metagraph = Metagraph::new(Netuid(11), neurons).unwrap();
    let field = [
        contender(7, 10, &flat(0.9, 64)),
        // Registered anew after its commitment.
        contender(1, 10, &flat(0.8, 64)),
        contender(2, 20, &flat(0.4, 64)),
    ];
    let present = registered(field.to_vec(), &metagraph);
    assert_eq!(present, field[2..]);
    let ranking = rank(&present, &champion_rule(&[1.0]), AT);
    assert_eq!(ranking.champion, Some(Hotkey([2; 32])));
}

#[test]
fn luck_is_no_reason() {
    // Six of eight items are better by much, two worse by as much: too few to conclude.
    let good = [0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9];
    let field = [contender(1, 0, &[0.5; 8]), contender(2, 1, &good)];
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    assert_eq!(ranking.champion, Some(Hotkey([1; 32])));
    let challenge = ranking.places[0].challenge.clone().unwrap();
    assert!(challenge.lead > 0.19 && challenge.lead < challenge.needed);
    let one = [contender(1, 0, &[0.0]), contender(2, 1, &[1.0])];
    let ranking = rank(&one, &champion_rule(&[1.0]), AT);
    assert_eq!(ranking.champion, Some(Hotkey([1; 32])));
}

#[test]
fn missing_places_leave_their_shares_to_the_others() {
    let field = [
        contender(1, 10, &uneven(0.5, 64)),
        contender(2, 20, &flat(0.4, 64)),
    ];
    let ranking = rank(&field, &champion_rule(&[0.6, 0.2, 0.2]), AT);
    let shares: Vec<f64> = ranking.places.iter().map(|p| p.share).collect();
    assert!((shares[0] - 0.75).abs() < 1e-12 && (shares[1] - 0.25).abs() < 1e-12);
}

#[test]
fn win_rates_are_the_origins() {
    // b is newer and better by 2 %, which the factor eats; c is newer and better by 10 %.
    let field = [
        contender(1, 10, &[0.50, 0.50]),
        contender(2, 20, &[0.51, 0.51]),
        contender(3, 30, &[0.55, 0.55]),
    ];
    let ranking = rank(&field, &win_rate_rule(), AT);
    assert_eq!(order(&ranking), [3, 1, 2]);
    let rates: Vec<f64> = ranking.places.iter().map(|p| p.win_rate.unwrap()).collect();
    assert_eq!(rates, [1.0, 0.5, 0.0]);
    // python3: [exp(r / 0.075) / sum(exp(r / 0.075) for r in rates) for r in rates]
    let shares: Vec<f64> = ranking.places.iter().map(|p| p.share).collect();
    assert!((shares[0] - 0.998_727_368_257).abs() < 1e-12, "{shares:?}");
    assert!((shares[1] - 0.001_271_014_207).abs() < 1e-12);
    assert!((shares[2] - 0.000_001_617_536).abs() < 1e-12);
}

#[test]
fn equal_scores_in_one_block_beat_nobody() {
    let field = [contender(2, 10, &[0.5, 0.5]), contender(1, 10, &[0.5, 0.5])];
    let ranking = rank(&field, &win_rate_rule(), AT);
    assert_eq!(order(&ranking), [1, 2]);
    assert!(ranking.places.iter().all(|p| p.share == 0.5));
}

fn fields() -> impl Strategy<Value = Vec<Contender>> {
    let one = (0..200u64, prop::collection::vec(0.0..=1.0f64, 1..12));
    prop::collection::vec(one, 0..10).prop_map(|raw| {
        raw.iter()
            .zip(1u8..)
            .map(|((block, values), key)| contender(key, *block, values))
            .collect()
    })
}

proptest! {
    #[test]
    fn shares_sum_to_one_and_do_not_depend_on_input_order(field in fields(), turn in 0..10usize) {
        for rule in [champion_rule(&[0.5, 0.3, 0.2]), win_rate_rule()] {
            let ranking = rank(&field, &rule, AT);
            prop_assert_eq!(ranking.places.len(), field.len());
            let sum: f64 = ranking.places.iter().map(|p| p.share).sum();
            prop_assert!(field.is_empty() || (sum - 1.0).abs() < 1e-9);
            prop_assert!(ranking.places.iter().all(|p| (0.0..=1.0).contains(&p.share)));
            let mut turned = field.clone();
            turned.rotate_left(turn.min(field.len()));
            prop_assert_eq!(rank(&turned, &rule, AT), ranking);
        }
    }

    #[test]
    fn places_fall_in_quality_under_the_champion_rule(field in fields()) {
        let ranking = rank(&field, &champion_rule(&[0.5, 0.3, 0.2]), AT);
        prop_assert!(ranking.places.windows(2).all(|p| p[0].controlled.value >= p[1].controlled.value));
        let titled = ranking.places.iter().filter(|p| p.challenge.is_none()).count();
        prop_assert_eq!(titled, usize::from(!field.is_empty()));
    }

    #[test]
    fn a_better_score_never_lowers_ones_own_share(field in fields(), lift in 0.0..0.5f64) {
        prop_assume!(!field.is_empty());
        let mut better = field.clone();
        let evidence = &mut better[0].evidence[0];
        let raised = evidence.items.iter().map(|(id, v)| (id.to_owned(), (v + lift).min(1.0)));
        evidence.items = ItemScores::new(raised.collect::<Vec<_>>()).unwrap();
        let share = |field: &[Contender]| {
            let ranking = rank(field, &win_rate_rule(), AT);
            ranking.places.iter().find(|p| p.hotkey == field[0].hotkey).unwrap().share
        };
        prop_assert!(share(&better) >= share(&field) - 1e-12);
    }
}

/// Two models on the same 512 items of random difficulty; `lift` is what the younger is better by.
fn duel(random: &mut ChaCha8Rng, lift: f64) -> [Contender; 2] {
    let mut answers = [Vec::new(), Vec::new()];
    for _ in 0..512 {
        let difficulty = random.random_range(0.2..0.7);
        for (values, lift) in answers.iter_mut().zip([0.0, lift]) {
            let mut win = || f64::from(u8::from(random.random_bool(difficulty + lift)));
            values.push(f64::midpoint(win(), win()));
        }
    }
    [
        contender(1, 100, &answers[0]),
        contender(2, 200, &answers[1]),
    ]
}

#[test]
fn equal_models_rarely_win_and_better_ones_do() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut wins = |lift: f64| {
        let titles = (0..300).filter(|_| {
            let field = duel(&mut random, lift);
            rank(&field, &champion_rule(&[1.0]), AT).champion == Some(Hotkey([2; 32]))
        });
        titles.count()
    };

    // About 0.1 % and 97 % are expected of 300 tries each.
    let (equal, better) = (wins(0.0), wins(0.105));
    assert!(equal <= 5, "{equal} of 300 equal models took the title");
    assert!(
        better >= 270,
        "{better} of 300 better models took the title"
    );
}
