//! Which evidence counts: rounds, pairs, length, old items.

use super::*;
use crate::incentive::score::{Bucket, ItemScore, Lengths};

pub(super) fn with_rounds(key: u8, block: u64, rounds: &[(u64, &[f64])]) -> Contender {
    let evidence = |(round, values): &(u64, &[f64])| Evidence {
        round: RoundNumber(*round),
        ..contender(key, block, values).evidence.remove(0)
    };
    Contender {
        evidence: rounds.iter().map(evidence).collect(),
        ..contender(key, block, &[0.0])
    }
}

/// Values whose items differ much in difficulty, moved by `lift`.
fn hard_and_easy(lift: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|i| if i % 2 == 0 { 0.1 } else { 0.8 } + lift)
        .collect()
}

#[test]
fn the_same_items_are_compared_one_by_one_and_others_by_their_means() {
    let rule = champion_rule(&[1.0]);
    let lead = |round: u64| {
        let field = [
            with_rounds(1, 10, &[(0, &hard_and_easy(0.0, 40))]),
            with_rounds(2, 20, &[(round, &hard_and_easy(0.05, 40))]),
        ];
        rank(&field, &rule, AT)
            .places
            .iter()
            .find_map(|p| p.challenge.clone())
            .unwrap()
    };
    let same = lead(0);
    assert!(
        same.paired,
        "a small lead on the same items is sure: {same:?}"
    );
    assert!((same.lead + 0.05).abs() < 1e-9 || (same.lead - 0.05).abs() < 1e-9);
    assert!(same.standard_error < 1e-9);
    let other = lead(1);
    assert!(!other.paired && other.standard_error > 0.05, "{other:?}");
    assert_eq!(other.interval_95([0; 32]), None);
}

#[test]
fn the_first_items_of_a_round_are_enough_for_a_pair() {
    // Judging stopped after a quarter of the challenger's items.
    let field = [
        with_rounds(1, 10, &[(0, &hard_and_easy(0.1, 64))]),
        with_rounds(2, 20, &[(0, &hard_and_easy(0.0, 16))]),
    ];
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    let challenge = ranking.places[1].challenge.clone().unwrap();
    assert!(challenge.paired && challenge.differences.len() == 16);
    assert!(
        !challenge.open,
        "beaten, so it is not scored again: {challenge:?}"
    );
}

#[test]
fn rounds_are_pooled_until_luck_is_ruled_out() {
    let rule = champion_rule(&[1.0]);
    let noisy = |lift: f64| -> Vec<f64> {
        (0..100)
            .map(|i| 0.4 + lift + f64::from(i % 10) / 60.0)
            .collect()
    };
    let turned: Vec<f64> = noisy(0.05).into_iter().rev().collect();
    let champion: [(u64, Vec<f64>); 7] = std::array::from_fn(|r| (r as u64, noisy(0.0)));
    let rounds = |n: usize| -> Contender {
        let all: Vec<(u64, &[f64])> = (0..n as u64).map(|r| (r, turned.as_slice())).collect();
        with_rounds(2, 20, &all)
    };
    let elder: Vec<(u64, &[f64])> = champion.iter().map(|(r, v)| (*r, v.as_slice())).collect();
    let after = |n: usize| {
        let field = [with_rounds(1, 10, &elder), rounds(n)];
        rank(&field, &rule, AT)
    };
    let [one, two, six, seven] = [1, 2, 6, 7].map(after);
    let error = |ranking: &Ranking| {
        ranking
            .places
            .iter()
            .find_map(|p| p.challenge.as_ref().map(|c| c.standard_error))
            .unwrap()
    };
    assert!((error(&one) / error(&two) - 2f64.sqrt()).abs() < 0.02);
    // At most six rounds are pooled; the score that is shown is of three.
    assert!((error(&six) - error(&seven)).abs() < 1e-12);
    assert_eq!(six.places[0].rounds, 3);
}

#[test]
fn who_is_scored_again() {
    let rules = EvidenceRules::default();
    let noisy = |mean: f64| -> Vec<f64> {
        let noise = |i: usize| if i.is_multiple_of(3) { 0.4 } else { -0.2 };
        (0..64).map(|i| mean + noise(i)).collect()
    };
    let field = [
        contender(1, 0, &flat(0.50, 64)),
        contender(2, 1, &flat(0.30, 64)),
        contender(3, 2, &flat(0.20, 64)),
        contender(4, 3, &flat(0.10, 64)),
        // As good as the champion, too noisy to tell: open.
        contender(5, 4, &noisy(0.49)),
        contender(6, 5, &noisy(0.48)),
        contender(7, 6, &noisy(0.485)),
    ];
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    let mut again: Vec<u8> = ranking.to_rescore(&rules).iter().map(|h| h.0[0]).collect();
    again.sort_unstable();
    assert_eq!(again, [1, 5, 6, 7]);
    // Others only when the era asks for them: each round more is another try.
    let two = EvidenceRules {
        rescored_runners_up: 2,
        ..rules.clone()
    };
    assert_eq!(ranking.to_rescore(&two).len(), 6);
    let by_rate = rank(&field, &win_rate_rule(), AT);
    assert_eq!(by_rate.to_rescore(&rules).len(), 1);
    assert_eq!(by_rate.to_rescore(&two).len(), 3);
    assert!(Ranking::default().to_rescore(&rules).is_empty());
}

#[test]
fn scores_expire_by_rounds_that_were_scored_and_an_outage_ages_none() {
    let rule = champion_rule(&[1.0]);
    let good = flat(0.6, 16);
    let poor = flat(0.3, 16);
    let elder = with_rounds(1, 10, &[(0, &good)]);
    // Nobody was scored between round 1 and round 500.
    let field = [
        elder.clone(),
        with_rounds(2, 20, &[(1, &poor), (500, &poor)]),
    ];
    assert_eq!(rank(&field, &rule, AT).champion, Some(Hotkey([1; 32])));
    let many: Vec<(u64, &[f64])> = (1..=10).map(|r| (r, poor.as_slice())).collect();
    let field = [elder.clone(), with_rounds(2, 20, &many)];
    let ranking = rank(&field, &rule, AT);
    assert_eq!(ranking.champion, Some(Hotkey([2; 32])));
    assert_eq!(ranking.places.len(), 1, "ten later rounds have scores");
    // Rounds before do not age it.
    let field = [elder, with_rounds(2, 20, &many[..9])];
    assert_eq!(rank(&field, &rule, AT).champion, Some(Hotkey([1; 32])));
}

#[test]
fn weights_committed_again_keep_their_seniority() {
    let rule = champion_rule(&[1.0]);
    let copy = contender(2, 20, &flat(0.5, 64));
    let again = Contender {
        since: BlockNumber(10),
        ..contender(1, 500, &flat(0.5, 64))
    };
    let ranking = rank(&[copy.clone(), again], &rule, AT);
    assert_eq!(ranking.champion, Some(Hotkey([1; 32])));
    let late = contender(1, 500, &flat(0.5, 64));
    assert_eq!(
        rank(&[copy, late], &rule, AT).champion,
        Some(Hotkey([2; 32]))
    );
}

#[test]
fn former_holders_are_the_runners_up_and_copies_are_not() {
    let rule = RankingRule::Champion(ChampionRule {
        shares: vec![0.6, 0.3, 0.1],
        ..ChampionRule::default()
    });
    let field = [
        contender(1, 0, &flat(0.30, 64)),
        contender(2, 10, &flat(0.50, 64)),
        contender(3, 20, &flat(0.50, 64)),
        contender(4, 30, &flat(0.49, 64)),
    ];
    let ranking = rank(&field, &rule, AT);
    let share = |key: u8| {
        ranking
            .places
            .iter()
            .find(|p| p.hotkey.0[0] == key)
            .unwrap()
            .share
    };
    assert!((share(2) - 0.6 / 0.9).abs() < 1e-12 && (share(1) - 0.3 / 0.9).abs() < 1e-12);
    assert!(share(3).abs() < 1e-12 && share(4).abs() < 1e-12);
}

#[test]
fn tied_places_share_a_group() {
    let field = [
        contender(1, 0, &flat(0.50, 64)),
        contender(2, 1, &uneven(0.499, 64)),
        contender(3, 2, &flat(0.30, 64)),
        contender(4, 3, &flat(0.10, 64)),
    ];
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    let groups: Vec<u32> = ranking.places.iter().map(|p| p.group).collect();
    assert_eq!(groups, [1, 1, 2, 3]);
}

#[test]
fn who_is_near_the_champion_needs_more_than_the_margin() {
    let rule = champion_rule(&[1.0]);
    let title = |lead: f64, near: Vec<Hotkey>| {
        let young = Contender {
            near,
            ..contender(2, 20, &flat(0.5 + lead, 64))
        };
        let ranking = rank(
            &[contender(1, 10, &flat(0.5, 64)), young],
            &rule,
            BlockNumber(10),
        );
        ranking.champion.unwrap().0[0]
    };
    let champion = Hotkey([1; 32]);
    assert_eq!(title(0.03, Vec::new()), 2);
    assert_eq!(title(0.03, vec![Hotkey([9; 32])]), 2);
    assert_eq!(title(0.03, vec![champion]), 1);
    assert_eq!(title(0.05, vec![champion]), 2);
}

fn detailed(key: u8, items: impl Iterator<Item = ItemScore>) -> Contender {
    let named = items
        .enumerate()
        .map(|(i, item)| (format!("i{i:04}"), item));
    Contender {
        evidence: vec![Evidence {
            round: RoundNumber(0),
            items: ItemScores::new(named).unwrap(),
        }],
        ..contender(key, u64::from(key), &[0.0])
    }
}

#[test]
fn length_is_taken_off_before_places_are_given() {
    // The judge of this round likes length: whoever writes longer on an item is worth more there.
    let reply = |i: u32, long: u32| {
        let reply = if i.is_multiple_of(2) { 600 * long } else { 150 };
        let value = if reply > 300 { 0.62 } else { 0.5 };
        ItemScore {
            value,
            lengths: Some(Lengths {
                reply,
                reference: 300,
            }),
            bucket: Bucket::Fresh,
        }
    };
    let wordy = detailed(2, (0..200).map(|i| reply(i, 1)));
    let plain = detailed(
        1,
        (0..200).map(|i| ItemScore {
            value: 0.56,
            ..reply(i, 1)
        }),
    );
    let ranking = rank(&[plain, wordy], &champion_rule(&[1.0]), AT);
    let of = |key: u8| {
        ranking
            .places
            .iter()
            .find(|p| p.hotkey.0[0] == key)
            .unwrap()
    };
    assert!((of(1).score.value - of(2).score.value).abs() < 1e-9);
    let spread = |place: &Place| place.controlled.standard_error / place.score.standard_error;
    assert!(
        spread(of(2)) < 0.8,
        "what length explains is gone: {}",
        spread(of(2))
    );
}

#[test]
fn one_that_knows_the_old_items_is_held_to_the_fresh_ones() {
    let model = |key: u8, fresh: f64, anchor: f64| {
        let item = move |i: u32| {
            let (mean, bucket) = if i.is_multiple_of(4) {
                (anchor, Bucket::Anchor)
            } else {
                (fresh, Bucket::Fresh)
            };
            ItemScore {
                value: mean + if i % 8 < 4 { 0.03 } else { -0.03 },
                lengths: None,
                bucket,
            }
        };
        detailed(key, (0..128).map(item))
    };
    let mut field: Vec<Contender> = (1..=6)
        .map(|k| model(k, 0.40, 0.40 + f64::from(k) / 500.0))
        .collect();
    field.push(model(7, 0.40, 0.90));
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    let flagged: Vec<_> = ranking.places.iter().filter(|p| p.fresh_only).collect();
    assert_eq!(flagged.len(), 1);
    assert_eq!(flagged[0].hotkey, Hotkey([7; 32]));
    assert!((flagged[0].score.value - 0.40).abs() < 1e-9);
    assert_eq!(ranking.champion, Some(Hotkey([1; 32])));
}
