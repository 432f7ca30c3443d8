//! How many heavy answers a lane carries, found from how late its own thread runs.
//!
//! The gradient rule of Netflix' concurrency-limits: the limit follows the ratio of the unloaded
//! delay to the present one, plus a small allowance, smoothed. What is measured is the lane's own
//! delay, never the client's: a slow reader cannot push the limit down for the others.

use std::time::Duration;

/// The smallest and largest limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Permits kept under any load.
    pub least: u32,
    /// Permits without load.
    pub most: u32,
}

/// The present limit and what it was found from.
#[derive(Debug, Clone)]
pub struct Gradient {
    range: Range,
    limit: f64,
    unloaded_s: f64,
    samples: u32,
}

/// Delays below this are noise of the scheduler and count as none.
const FLOOR_S: f64 = 0.002;
/// Weight of a new value.
const SMOOTHING: f64 = 0.2;
/// Samples after which the unloaded delay is measured anew, so that a changed machine is noticed.
const PROBE_EVERY: u32 = 600;

impl Gradient {
    /// Begins at the largest limit.
    #[must_use]
    pub fn new(range: Range) -> Self {
        Self {
            range,
            limit: f64::from(range.most),
            unloaded_s: FLOOR_S,
            samples: 0,
        }
    }

    /// Takes how late the lane's thread ran and gives the new limit.
    pub fn sample(&mut self, delay: Duration) -> u32 {
        let delay = delay.as_secs_f64().max(FLOOR_S);
        self.samples += 1;
        if self.samples.is_multiple_of(PROBE_EVERY) {
            // Drifts up by a tenth at most, so that lasting overload does not become the measure.
            self.unloaded_s = (self.unloaded_s * 1.1).min(delay);
        }
        self.unloaded_s = self.unloaded_s.min(delay);
        let gradient = (2.0 * self.unloaded_s / delay).clamp(0.5, 1.0);
        let allowance = self.limit.sqrt();
        let wanted = self.limit * gradient + allowance;
        let next = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = next.clamp(f64::from(self.range.least), f64::from(self.range.most));
        self.limit()
    }

    /// The present limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let floor = self.limit.floor();
        (self.range.least..=self.range.most)
            .rev()
            .find(|n| f64::from(*n) <= floor)
            .unwrap_or(self.range.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { least: 2, most: 64 };

    #[test]
    fn it_falls_under_delay_stays_above_the_least_and_recovers() {
        let mut gradient = Gradient::new(RANGE);
        assert_eq!(gradient.sample(Duration::from_millis(1)), 64);
        for _ in 0..200 {
            gradient.sample(Duration::from_millis(200));
        }
        let loaded = gradient.limit();
        assert!((2..=8).contains(&loaded), "{loaded}");
        for _ in 0..200 {
            gradient.sample(Duration::from_millis(1));
        }
        assert_eq!(gradient.limit(), 64);
    }

    #[test]
    fn lasting_overload_does_not_become_the_measure() {
        let mut gradient = Gradient::new(RANGE);
        for _ in 0..5 * PROBE_EVERY {
            gradient.sample(Duration::from_millis(500));
        }
        assert!(gradient.limit() <= 8, "{}", gradient.limit());
    }
}
