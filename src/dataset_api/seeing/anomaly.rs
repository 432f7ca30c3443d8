//! Abnormal traffic of one group: an exponentially weighted mean and variance, and how far off the
//! present rate is from them.
//!
//! Source: Roberts, "Control chart tests based on geometric moving averages", 1959; the variance
//! recursion is West's for exponential weights.

/// Weight of a new interval.
const ALPHA: f64 = 0.1;
/// Standard deviations that make an alert, and those that end it.
const ALERT_Z: f64 = 4.0;
const CALM_Z: f64 = 2.0;
/// Intervals that only teach.
const LEARN: u32 = 6;
/// Requests per interval below which nothing is abnormal.
const LEAST: f64 = 50.0;

/// What one interval changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Same,
    /// Traffic became abnormal.
    Alarmed,
    /// Traffic is normal again.
    Calmed,
}

/// The watch over one group.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    mean: f64,
    variance: f64,
    seen: u32,
    z: f64,
    alarmed: bool,
}

impl Watch {
    /// Takes the requests of one interval.
    pub fn interval(&mut self, requests: u32) -> Turn {
        let rate = f64::from(requests);
        if self.seen == 0 {
            self.mean = rate;
        }
        // A Poisson count varies by its own mean; a quiet history must not make a ripple an alarm.
        let deviation = self.variance.max(self.mean).max(1.0).sqrt();
        self.z = (rate - self.mean) / deviation;
        self.seen = self.seen.saturating_add(1);
        let before = self.alarmed;
        if self.seen > LEARN && self.z > ALERT_Z && rate > LEAST {
            self.alarmed = true;
        } else if self.z < CALM_Z {
            self.alarmed = false;
        }
        // While alarmed the measure learns ten times slower: a storm does not become normal soon.
        let alpha = if self.alarmed { ALPHA / 10.0 } else { ALPHA };
        let off = rate - self.mean;
        self.mean += alpha * off;
        self.variance = (1.0 - alpha) * (self.variance + alpha * off * off);
        match (before, self.alarmed) {
            (false, true) => Turn::Alarmed,
            (true, false) => Turn::Calmed,
            _ => Turn::Same,
        }
    }

    /// Whether traffic is abnormal.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Standard deviations of the last interval from the mean.
    #[must_use]
    pub fn z(&self) -> f64 {
        self.z
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_alarms_once_and_calm_ends_it() {
        let mut watch = Watch::default();
        let noise = [100, 108, 93, 101, 97, 105, 99, 110, 95, 103];
        for requests in noise.into_iter().cycle().take(200) {
            assert_eq!(watch.interval(requests), Turn::Same, "z {}", watch.z());
        }
        // January 2025: doubling every interval.
        let turns: Vec<_> = (1..6).map(|n| watch.interval(100 << n)).collect();
        assert_eq!(
            turns.iter().filter(|t| **t == Turn::Alarmed).count(),
            1,
            "{turns:?}"
        );
        assert!(watch.is_alarmed());
        let calm = (0..3)
            .map(|_| watch.interval(100))
            .any(|t| t == Turn::Calmed);
        assert!(calm && !watch.is_alarmed());
    }

    #[test]
    fn a_quiet_group_that_wakes_is_no_storm() {
        let mut watch = Watch::default();
        for _ in 0..50 {
            watch.interval(0);
        }
        assert_eq!(watch.interval(20), Turn::Same);
        assert_eq!(watch.interval(2_000), Turn::Alarmed);
    }
}
