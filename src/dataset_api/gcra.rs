//! The generic cell rate algorithm on plain numbers: no clock, no state of its own.
//!
//! Source: ITU-T I.371 annex A, the virtual scheduling form. A bucket is one number, the
//! theoretical arrival time (TAT): the moment at which it will be full again.

use std::time::Duration;

/// How much one account may take: `burst` at once, then one more per `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    interval_ns: u64,
}

impl Quota {
    /// At most `burst` (at least 1) at once and `count` (at least 1) per `per` in the long run.
    #[must_use]
    pub fn new(burst: u32, count: u32, per: Duration) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX / 4);
        Self {
            burst: burst.max(1),
            interval_ns: (per / u64::from(count.max(1))).max(1),
        }
    }

    /// How much an idle account may take at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Time from empty to full.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.depth())
    }

    fn depth(&self) -> u64 {
        self.interval_ns.saturating_mul(u64::from(self.burst))
    }

    /// Takes one from the bucket `tat` (0 for a new account) at `now`, both in ns of one clock.
    ///
    /// # Errors
    /// The ns until one can be taken; the bucket stays as it is.
    pub fn take(&self, tat: u64, now: u64) -> Result<u64, u64> {
        let next = tat.max(now).saturating_add(self.interval_ns);
        let latest = now.saturating_add(self.depth());
        if next > latest {
            return Err(next - latest);
        }
        Ok(next)
    }

    /// How many can be taken at `now`.
    #[must_use]
    pub fn left(&self, tat: u64, now: u64) -> u32 {
        let used = tat.saturating_sub(now);
        let free = self.depth().saturating_sub(used) / self.interval_ns;
        u32::try_from(free).unwrap_or(u32::MAX).min(self.burst)
    }
}

/// Whole seconds that cover `ns`, at least 1: what `Retry-After` says.
#[must_use]
pub fn seconds_up(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_one_per_interval_and_the_wait_is_exact() {
        let quota = Quota::new(3, 3, Duration::from_hours(1));
        let (mut tat, now) = (0, 50 * SECOND);
        for left in [3, 2, 1] {
            assert_eq!(quota.left(tat, now), left);
            tat = quota.take(tat, now).unwrap();
        }
        assert_eq!(quota.left(tat, now), 0);
        let wait = quota.take(tat, now).unwrap_err();
        assert_eq!(seconds_up(wait), 1200);
        assert_eq!(quota.take(tat, now + wait - 1), Err(1));
        assert!(quota.take(tat, now + wait).is_ok());
    }

    #[test]
    fn a_quota_that_shrinks_is_never_negative() {
        let (wide, narrow) = (
            Quota::new(100, 50, Duration::from_hours(1)),
            Quota::new(1, 1, Duration::from_hours(1)),
        );
        let mut tat = 0;
        for _ in 0..100 {
            tat = wide.take(tat, 0).unwrap();
        }
        assert_eq!(narrow.left(tat, 0), 0);
        assert!(narrow.take(tat, 0).is_err());
    }
}
