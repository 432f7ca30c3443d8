//! Takes a worker out of service after several failures of ours in a row, for a growing time. Pure.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// How long it stays open after the third failure, the fourth, and every later one.
const REST: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
];

/// Counts a worker's failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether the worker may take work.
    #[must_use]
    pub fn closed(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|until| now >= until)
    }

    /// Something ended as it should on this worker.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Something failed through no fault of a model. Returns the rest that begins now, if one does.
    pub fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let over = self.failures.checked_sub(FAILURES)?;
        let index = usize::try_from(over)
            .unwrap_or(usize::MAX)
            .min(REST.len() - 1);
        let rest = REST[index];
        self.open_until = Some(now + rest);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_for_a_growing_time() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker.failed(now), None);
        assert!(breaker.closed(now));
        for minutes in [1, 5, 30, 30] {
            let rest = breaker.failed(now).unwrap();
            assert_eq!(rest.as_secs(), minutes * 60);
            assert!(!breaker.closed(now));
            assert!(breaker.closed(now + rest));
        }
        breaker.succeeded();
        assert!(breaker.closed(now));
        assert_eq!(breaker.failed(now), None);
    }
}
