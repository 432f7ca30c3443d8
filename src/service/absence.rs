//! When a model that the hub says is not publicly there counts against its miner: after several
//! answers of that kind, long apart. The ledger of faults is the memory, so a restart neither loses
//! an answer nor counts one twice.

use crate::store::LoggedFault;
use std::time::Duration;

/// The code under which each such answer stands in the ledger.
pub(super) const CODE: &str = "HUB_REPO_UNAVAILABLE";

/// Answers older than this belong to another absence.
const MEMORY: Duration = Duration::from_hours(48);

/// How often and how far apart the hub must say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmations {
    /// Answers of that kind, the present one included.
    pub count: u32,
    /// Least time between two that count.
    pub apart: Duration,
}

impl Confirmations {
    /// How many answers count, the one of now included.
    #[must_use]
    pub fn counted(&self, ledger: &[LoggedFault], now_ms: u64) -> u32 {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let oldest = now_ms.saturating_sub(millis(MEMORY));
        let mut times: Vec<u64> = ledger
            .iter()
            .filter(|entry| entry.fault.code == CODE && (oldest..=now_ms).contains(&entry.at_ms))
            .map(|entry| entry.at_ms)
            .collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let (mut count, mut last) = (1, now_ms);
        for at in times {
            if last - at >= millis(self.apart) {
                count += 1;
                last = at;
            }
        }
        count
    }

    /// Whether the answer of now is the last that was needed.
    #[must_use]
    pub fn met(&self, ledger: &[LoggedFault], now_ms: u64) -> bool {
        self.counted(ledger, now_ms) >= self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Party};

    const MINUTE: u64 = 60_000;
    const NOW: u64 = 10_000 * MINUTE;

    fn ledger(minutes_ago: &[u64], code: &str) -> Vec<LoggedFault> {
        let entry = |ago: &u64| LoggedFault {
            submission: None,
            fault: Fault::retryable(Party::Hub, code, "x"),
            at_ms: NOW - ago * MINUTE,
        };
        minutes_ago.iter().map(entry).collect()
    }

    #[test]
    fn only_answers_far_enough_apart_count() {
        let rule = Confirmations {
            count: 3,
            apart: Duration::from_mins(30),
        };
        for (ago, counted) in [
            (&[][..], 1),
            (&[1, 2, 3, 29], 1),
            (&[30], 2),
            (&[60, 61, 36, 35, 1], 2),
            (&[66, 65, 36, 30], 3),
            // A restart asks at once: that adds nothing.
            (&[1, 0, 31], 2),
            (&[5000, 4000], 1),
        ] {
            assert_eq!(rule.counted(&ledger(ago, CODE), NOW), counted, "{ago:?}");
        }
        assert!(rule.met(&ledger(&[30, 60], CODE), NOW));
        assert!(!rule.met(&ledger(&[30, 60], "HUB_DENIED"), NOW));
    }
}
