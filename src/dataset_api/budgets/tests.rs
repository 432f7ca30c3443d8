use super::*;
use proptest::prelude::*;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

fn account(n: u8) -> Account {
    Account::Hotkey(Hotkey([n; 32]))
}

/// What happens to the server between two requests.
#[derive(Debug, Clone)]
enum Step {
    /// Real time passes.
    Wait(u64),
    /// A client asks, perhaps for two accounts at once.
    Ask(u8, bool),
    /// `kill -9` and a start, `cut` bytes of the journal's tail torn off when inside a record.
    Restart { torn: bool },
    /// The machine reboots; the boot takes so long, of which the server knows nothing.
    Reboot(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40 * SECOND).prop_map(Step::Wait),
        8 => (0..3u8, any::<bool>()).prop_map(|(n, both)| Step::Ask(n, both)),
        1 => any::<bool>().prop_map(|torn| Step::Restart { torn }),
        1 => (0..100 * SECOND).prop_map(Step::Reboot),
    ]
}

/// Grants of one account must fit burst + rate × time in every window, by real time.
fn check_windows(grants: &[u64], quota: &Quota) -> Result<(), TestCaseError> {
    let interval = u64::try_from(quota.window().as_nanos()).unwrap() / u64::from(quota.burst());
    for (i, from) in grants.iter().enumerate() {
        for (j, to) in grants.iter().enumerate().skip(i) {
            let most = u64::from(quota.burst()) + (to - from) / interval;
            let taken = u64::try_from(j - i + 1).unwrap();
            prop_assert!(taken <= most, "{taken} in {} ns, at most {most}", to - from);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The wall clock has no part in it: budgets never read it, so its steps cannot matter.
    #[test]
    fn no_interleaving_restart_or_reboot_exceeds_burst_and_rate(
        steps in prop::collection::vec(step(), 1..200),
        burst in 1u32..5,
        count in 1u32..5,
    ) {
        let quota = Quota::new(burst, count, Duration::from_secs(60));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budgets.log");
        let (mut real, mut boot, mut booted_at) = (5 * SECOND, 1, 0);
        let moment = |real: u64, boot, booted_at: u64| Moment { boot, since_boot_ns: real - booted_at };
        let mut budgets = Budgets::open(&path, 100, moment(real, boot, booted_at)).unwrap();
        let mut grants: [Vec<u64>; 4] = Default::default();
        for step in steps {
            match step {
                Step::Wait(ns) => real += ns,
                Step::Ask(n, both) => {
                    let mut charges = vec![(account(n), quota)];
                    if both {
                        charges.push((account(3), quota));
                    }
                    if budgets.take(&charges, real - booted_at).is_ok() {
                        grants[usize::from(n)].push(real);
                        if both {
                            grants[3].push(real);
                        }
                    }
                }
                Step::Restart { torn } => {
                    drop(budgets);
                    if torn {
                        // A record that was being written when the process was killed.
                        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                        file.write_all(&[BUCKET; RECORD - 7]).unwrap();
                    }
                    budgets = Budgets::open(&path, 100, moment(real, boot, booted_at)).unwrap();
                }
                Step::Reboot(took) => {
                    drop(budgets);
                    real += took;
                    (boot, booted_at) = (boot + 1, real);
                    real += SECOND;
                    budgets = Budgets::open(&path, 100, moment(real, boot, booted_at)).unwrap();
                }
            }
        }
        for grants in &grants {
            check_windows(grants, &quota)?;
        }
    }
}

#[test]
fn an_idle_time_across_a_restart_counts_within_a_boot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budgets.log");
    let quota = Quota::new(1, 1, Duration::from_secs(10));
    let at = |s: u64| Moment {
        boot: 1,
        since_boot_ns: s * SECOND,
    };
    let mut first = Budgets::open(&path, 10, at(100)).unwrap();
    first.take(&[(account(1), quota)], 100 * SECOND).unwrap();
    drop(first);
    let mut again = Budgets::open(&path, 10, at(104)).unwrap();
    let denied = again.take(&[(account(1), quota)], 104 * SECOND);
    let wait_ns = 6 * SECOND;
    assert_eq!(denied, Err(Denied::Empty { index: 0, wait_ns }));
    drop(again);
    let mut late = Budgets::open(&path, 10, at(110)).unwrap();
    late.take(&[(account(1), quota)], 110 * SECOND).unwrap();
}

#[test]
fn accounts_are_bounded_and_full_ones_forgotten() {
    let quota = Quota::new(1, 1, Duration::from_secs(10));
    let mut budgets = Budgets::volatile(
        2,
        Moment {
            boot: 1,
            since_boot_ns: 0,
        },
    );
    for n in 0..2 {
        budgets.take(&[(account(n), quota)], 0).unwrap();
    }
    assert_eq!(budgets.take(&[(account(9), quota)], 0), Err(Denied::Full));
    budgets.take(&[(account(9), quota)], 10 * SECOND).unwrap();
    assert_eq!(budgets.count(), 1);
}

#[test]
fn all_charges_are_taken_or_none() {
    let (wide, narrow) = (
        Quota::new(5, 5, Duration::from_secs(60)),
        Quota::new(1, 1, Duration::from_secs(60)),
    );
    let mut budgets = Budgets::volatile(
        10,
        Moment {
            boot: 1,
            since_boot_ns: 0,
        },
    );
    let charges = [(account(1), wide), (account(2), narrow)];
    budgets.take(&charges, 0).unwrap();
    for _ in 0..10 {
        assert!(matches!(
            budgets.take(&charges, 0),
            Err(Denied::Empty { index: 1, .. })
        ));
    }
    assert_eq!(budgets.left(&charges[0], 0).0, 4);
    assert_eq!(budgets.left(&charges[1], 0), (0, 60 * SECOND));
}
