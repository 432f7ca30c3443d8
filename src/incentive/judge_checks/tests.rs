use super::Preference::{Loss, Tie, Win};
use super::*;
use proptest::prelude::*;

fn verdict(p: Preference) -> Verdict {
    Verdict {
        realism: p,
        entertainment: p,
        coherency: p,
        addresses_judge: false,
    }
}

fn item(first: Preference, second: Preference) -> ItemVerdict {
    ItemVerdict {
        miner_first: verdict(first),
        reference_first: verdict(second),
    }
}

#[test]
fn a_judge_must_know_broken_from_whole() {
    let rule = JudgeChecks::default();
    let mut controls = Controls::default();
    assert!(controls.check(&rule).is_err(), "no control, no belief");
    for i in 0..16 {
        // A judge that only follows the position is wrong in one order: ½, not right.
        let right = if i < 15 {
            item(Win, Win)
        } else {
            item(Win, Loss)
        };
        controls.count(&right);
    }
    assert_eq!((controls.asked, controls.right), (16, 15));
    assert_eq!(controls.check(&rule), Ok(()));
    controls.count(&item(Loss, Win));
    let failed = controls.check(&rule).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the judge got 15 of 17 hidden controls right; 90 % are needed"
    );
}

#[test]
fn replies_that_win_anywhere_work_on_the_judge() {
    let rule = JudgeChecks::default();
    let wins = |n: usize| {
        let values: Vec<f64> = (0..32).map(|i| if i < n { 1.0 } else { 0.1 }).collect();
        (
            transplant(&values, &rule),
            check_transplant(&values, &rule).err().map(|r| r.code),
        )
    };
    assert_eq!(wins(0), (Transplant::Clean, None));
    assert_eq!(wins(3), (Transplant::Clean, None));
    assert_eq!(wins(4), (Transplant::Suspicious, None));
    assert_eq!(wins(9), (Transplant::Suspicious, None));
    assert_eq!(
        wins(10),
        (Transplant::Hacking, Some(RejectionCode::JudgeHacking))
    );
    assert_eq!(transplant(&[], &rule), Transplant::Clean);
    // Ties win nothing.
    assert_eq!(transplant(&[0.5; 32], &rule), Transplant::Clean);
}

#[test]
fn kappa_is_the_textbooks() {
    // Two judges, 50 verdicts in two classes: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: κ = 0.4.
    let cells = [
        (20, Win, Win),
        (5, Win, Loss),
        (10, Loss, Win),
        (15, Loss, Loss),
    ];
    let pairs: Vec<_> = cells
        .iter()
        .flat_map(|&(n, a, b)| vec![(item(a, a), item(b, b)); n])
        .collect();
    let found = agreement(&pairs, &JudgeChecks::default());
    assert!((found.kappa - 0.4).abs() < 1e-12, "{found:?}");
    assert!((found.difference - 0.1).abs() < 1e-12 && !found.drifted);
}

#[test]
fn another_judge_that_sees_it_otherwise_raises_the_alarm() {
    let rule = JudgeChecks::default();
    let shifted = vec![(item(Tie, Tie), item(Tie, Win)); 64];
    let found = agreement(&shifted, &rule);
    assert!(found.drifted && (found.difference - 0.25).abs() < 1e-12);
    // The same mean, no agreement on any item.
    let mut random = Vec::new();
    for i in 0..64 {
        let (a, b) = if i % 2 == 0 { (Win, Loss) } else { (Loss, Win) };
        random.push((item(a, a), item(b, b)));
    }
    let found = agreement(&random, &rule);
    assert!(found.drifted && found.kappa < 0.0 && found.difference.abs() < 1e-12);
    assert!(!agreement(&[], &rule).drifted);
}

#[test]
fn judged_items_are_counted_for_the_gates() {
    let mut speaking = item(Win, Win);
    speaking.reference_first.addresses_judge = true;
    let counts = count_judged(&[item(Win, Tie), speaking, item(Loss, Loss)]);
    assert_eq!((counts.items, counts.addressing_judge), (3, 1));
    assert!((counts.coherent - 1.75).abs() < 1e-12);
}

fn any_item() -> impl Strategy<Value = ItemVerdict> {
    let one = prop::sample::select(vec![Win, Tie, Loss]);
    (one.clone(), one).prop_map(|(a, b)| item(a, b))
}

proptest! {
    #[test]
    fn agreement_with_oneself_is_whole(items in prop::collection::vec(any_item(), 1..40)) {
        let pairs: Vec<_> = items.iter().map(|i| (*i, *i)).collect();
        let found = agreement(&pairs, &JudgeChecks::default());
        prop_assert!((found.kappa - 1.0).abs() < 1e-12 && !found.drifted);
    }

    #[test]
    fn kappa_does_not_depend_on_who_is_first(
        pairs in prop::collection::vec((any_item(), any_item()), 1..40),
    ) {
        let turned: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        let rule = JudgeChecks::default();
        let (one, two) = (agreement(&pairs, &rule), agreement(&turned, &rule));
        prop_assert!((one.kappa - two.kappa).abs() < 1e-12);
        prop_assert!((one.difference + two.difference).abs() < 1e-12);
        prop_assert!(one.kappa <= 1.0 + 1e-12 && one.kappa >= -1.0 - 1e-12);
    }
}
