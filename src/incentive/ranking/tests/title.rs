//! Who holds the title from round to round.

use super::evidence::with_rounds;
use super::*;

/// Two kinds of evidence whose difference has an error: `n` items around `mean`, in another order for
/// each `turn`.
fn noisy(mean: f64, turn: usize) -> Vec<f64> {
    let noise = |i: usize| f64::from(u8::try_from((i * 7 + turn * 3) % 11).unwrap()) / 50.0 - 0.1;
    (0..110).map(|i| mean + noise(i)).collect()
}

/// A contender with one value of quality for each round from `from` on.
fn shown(key: u8, from: u64, means: &[f64]) -> Contender {
    let values: Vec<Vec<f64>> = means.iter().map(|mean| noisy(*mean, key.into())).collect();
    let rounds: Vec<(u64, &[f64])> = (from..).zip(values.iter().map(Vec::as_slice)).collect();
    with_rounds(key, u64::from(key) * 10, &rounds)
}

fn held(round: u64, contender: Contender) -> Contender {
    Contender {
        held: Some(RoundNumber(round)),
        ..contender
    }
}

fn champion(field: &[Contender]) -> u8 {
    let ranking = rank(field, &champion_rule(&[1.0]), AT);
    ranking.champion.unwrap().0[0]
}

#[test]
fn a_title_won_by_luck_goes_back_when_the_next_rounds_are_pooled() {
    let elder = |rounds: usize| held(0, shown(1, 0, &vec![0.5; rounds]));
    assert_eq!(champion(&[elder(1), shown(2, 0, &[0.6])]), 2);
    let at = |round, means: &[f64]| {
        let younger = held(round, shown(2, 0, means));
        champion(&[elder(means.len()), younger])
    };
    assert_eq!(at(1, &[0.6]), 2);
    // Fresh items show nothing, so the pooled lead is half, then a third of what it was.
    assert_eq!(at(1, &[0.6, 0.46]), 1);
    assert_eq!(at(2, &[0.6, 0.6, 0.6]), 2, "merit stays");
}

#[test]
fn a_title_upheld_for_six_rounds_stays_though_the_old_evidence_ages() {
    let rule = champion_rule(&[1.0]);
    // Round 12 begins with the younger one; nobody else held the title in the six rounds before.
    let elder = held(6, shown(1, 3, &[0.5; 4]));
    let younger = held(12, shown(2, 3, &[0.52; 10]));
    let field = [elder, younger];
    let ranking = rank(&field, &rule, AT);
    assert_eq!(ranking.champion.unwrap().0[0], 2);
    assert_eq!(ranking.to_rescore(&EvidenceRules::default()).len(), 1);
    // Were the elder's title fresh, two points would not do.
    let fresh = [held(11, field[0].clone()), field[1].clone()];
    let ranking = rank(&fresh, &rule, AT);
    assert_eq!(ranking.champion.unwrap().0[0], 1);
}

#[test]
fn whom_the_title_went_back_from_bars_it_from_its_copies() {
    // 2 is better than 1, not by enough; 3 equals 2 and has more luck.
    let elder = held(2, shown(1, 0, &[0.50; 3]));
    let [good, copy] = [shown(2, 0, &[0.51; 3]), shown(3, 0, &[0.54; 3])];
    assert_eq!(champion(&[elder.clone(), good.clone(), copy.clone()]), 3);
    let barred = [elder.clone(), held(1, good), copy];
    let ranking = rank(&barred, &champion_rule(&[1.0]), AT);
    assert_eq!(ranking.champion.unwrap().0[0], 1);
    // Who would have won is not sent away for it, nor is who held the title.
    assert_eq!(ranking.to_rescore(&EvidenceRules::default()).len(), 3);
    assert_eq!(
        champion(&[
            elder,
            held(1, shown(2, 0, &[0.51; 3])),
            shown(3, 0, &[0.6; 3])
        ]),
        3
    );
}

#[test]
fn a_challenger_that_was_not_scored_with_the_champion_does_not_win() {
    let holder = held(3, shown(1, 0, &[0.5; 4]));
    let challenger = shown(2, 0, &[0.6; 4]);
    assert_eq!(champion(&[holder.clone(), challenger]), 2);
    assert_eq!(champion(&[holder.clone(), shown(2, 0, &[0.6; 3])]), 1);
    assert_eq!(
        champion(&[holder, shown(2, 4, &[0.9])]),
        1,
        "no common items"
    );
}

#[test]
fn a_challengers_tries_end_though_its_rounds_expire() {
    let holder = held(20, shown(1, 0, &[0.5; 21]));
    // Three rounds, of which one is left alive.
    let through = shown(2, 9, &[0.51; 3]);
    let field = [holder, through];
    let ranking = rank(&field, &champion_rule(&[1.0]), AT);
    assert_eq!(ranking.places.len(), 2);
    assert_eq!(ranking.to_rescore(&EvidenceRules::default()).len(), 1);
}

fn histories() -> impl Strategy<Value = Vec<Contender>> {
    let one = (
        0..200u64,
        prop::collection::vec(0.3..0.6f64, 1..5),
        prop::option::of(0..5u64),
    );
    prop::collection::vec(one, 1..8).prop_map(|raw| {
        let contender =
            |((block, means, title), key): (&(u64, Vec<f64>, Option<u64>), u8)| Contender {
                since: BlockNumber(*block),
                held: title.map(RoundNumber),
                ..shown(key, 0, means)
            };
        raw.iter().zip(1u8..).map(contender).collect()
    })
}

proptest! {
    #[test]
    fn the_order_in_which_a_store_gives_its_rows_decides_nothing(
        field in histories(), turn in 0..8usize,
    ) {
        let rule = champion_rule(&[0.7, 0.2, 0.1]);
        let mut turned = field.clone();
        turned.rotate_left(turn.min(field.len()));
        prop_assert_eq!(rank(&turned, &rule, AT), rank(&field, &rule, AT));
    }

    /// Whoever shows exactly what the champion shows, and came later, gets nothing.
    #[test]
    fn a_copy_takes_no_title(field in histories()) {
        let before = rank(&field, &champion_rule(&[1.0]), AT).champion.unwrap();
        let original = field.iter().find(|c| c.hotkey == before).unwrap();
        let copy = Contender {
            hotkey: Hotkey([99; 32]),
            since: BlockNumber(500),
            held: None,
            ..original.clone()
        };
        let with: Vec<Contender> = field.iter().cloned().chain([copy]).collect();
        let after = rank(&with, &champion_rule(&[1.0]), AT).champion.unwrap();
        prop_assert_ne!(after, Hotkey([99; 32]));
    }

    /// Whom the node scores again is the champion, and everyone whom a challenger has to beat.
    #[test]
    fn whoever_bars_the_title_is_scored_again(field in histories()) {
        let ranking = rank(&field, &champion_rule(&[1.0]), AT);
        let again = ranking.to_rescore(&EvidenceRules::default());
        prop_assert!(again.contains(&ranking.champion.unwrap()));
        // Fewer than six rounds were scored, so every title is a recent one.
        for holder in field.iter().filter(|c| c.held.is_some()) {
            prop_assert!(again.contains(&holder.hotkey));
        }
    }
}
