use super::*;

fn limits() -> PrefixLimits {
    PrefixLimits {
        connections: 2,
        responses: 1,
        requests: Quota::new(3, 1, Duration::from_secs(1)),
        refusals: Quota::new(2, 1, Duration::from_secs(10)),
        signatures: Quota::new(1, 1, Duration::from_secs(1)),
        penalty: Duration::from_secs(5),
        remembered: 2,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn networks_parse_print_and_cover() {
    for text in ["10.0.0.0/8", "192.168.1.7/32", "2001:db8::/32", "0.0.0.0/0"] {
        assert_eq!(prefix(text).to_string(), text);
    }
    assert_eq!(prefix("10.9.8.7/8").to_string(), "10.0.0.0/8");
    assert!(prefix("10.0.0.0/8").covers(&prefix("10.1.2.3")));
    assert!(!prefix("10.0.0.0/8").covers(&prefix("11.1.2.3")));
    assert!(!prefix("10.1.2.3").covers(&prefix("10.0.0.0/8")));
    for text in ["10.0.0.0/33", "x", "10.0.0/8", "::1/129", "1.2.3.4/-1"] {
        assert!(text.parse::<Prefix>().is_err(), "{text}");
    }
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    assert_eq!(Prefix::of(mapped, 24, 64).to_string(), "10.1.2.0/24");
}

#[test]
fn connections_are_capped_and_offenders_dropped_for_the_penalty() {
    let (mut table, home) = (PrefixTable::new(limits()), prefix("10.0.0.1"));
    assert_eq!(table.arrived(home, 0, false), Welcome::Serve);
    assert_eq!(table.arrived(home, 0, false), Welcome::Serve);
    assert_eq!(table.arrived(home, 0, false), Welcome::Drop);
    table.left(home);
    assert_eq!(table.arrived(home, 0, false), Welcome::Serve);
    table.left(home);
    for _ in 0..3 {
        table.refused(home, 0);
    }
    assert_eq!(table.arrived(home, 4_999_999_999, false), Welcome::Drop);
    assert_eq!(table.arrived(home, 5_000_000_000, false), Welcome::Serve);
}

#[test]
fn a_crowded_lane_serves_the_known_alone() {
    let (mut table, home) = (PrefixTable::new(limits()), prefix("10.0.0.1"));
    assert_eq!(table.arrived(home, 0, true), Welcome::Drop);
    assert_eq!(table.count(), 0, "and nothing is remembered of the others");
    assert_eq!(table.arrived(home, 0, false), Welcome::Serve);
    table.proven(home, 0);
    assert_eq!(table.arrived(home, KNOWN_NS - 1, true), Welcome::Serve);
    table.left(home);
    assert_eq!(table.arrived(home, KNOWN_NS, true), Welcome::Drop);
}

#[test]
fn a_full_table_drops_newcomers_and_forgets_the_blank() {
    let mut table = PrefixTable::new(limits());
    assert_eq!(table.arrived(prefix("10.0.0.1"), 0, false), Welcome::Serve);
    assert_eq!(table.arrived(prefix("10.0.0.2"), 0, false), Welcome::Serve);
    let later = SWEEP_PAUSE_NS;
    assert_eq!(
        table.arrived(prefix("10.0.0.3"), later, false),
        Welcome::Drop
    );
    table.left(prefix("10.0.0.1"));
    assert_eq!(
        table.arrived(prefix("10.0.0.3"), 2 * later, false),
        Welcome::Serve
    );
    assert_eq!(table.count(), 2);
}
