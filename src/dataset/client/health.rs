//! Which endpoint to ask next, and how often to ask again.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// First and longest time that a failing endpoint is put last.
const DOWN_FIRST: Duration = Duration::from_secs(2);
const DOWN_MAX: Duration = Duration::from_mins(2);
/// Retries and hedges that each request earns, in tenths of one, and how many can be saved up.
const EARNED_TENTHS: u32 = 1;
const SAVED_TENTHS_MAX: u32 = 100;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    failures: u32,
    down_until: Option<Instant>,
    /// The endpoint itself asked not to be bothered before.
    closed_until: Option<Instant>,
}

/// Health of a list of endpoints, in the order of preference, and the budget for asking again.
#[derive(Debug)]
pub(super) struct Health {
    states: Mutex<Vec<State>>,
    tenths: Mutex<u32>,
}

impl Health {
    pub(super) fn new(endpoints: usize) -> Self {
        Self {
            states: Mutex::new(vec![State::default(); endpoints]),
            tenths: Mutex::new(SAVED_TENTHS_MAX),
        }
    }

    /// Endpoints in the order to ask them: those in health by preference, then the failing ones,
    /// first the one whose time is up first. One that asked for a pause is left out until it ends.
    pub(super) fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let states = lock(&self.states);
        let mut order: Vec<usize> = (0..states.len())
            .filter(|i| states[*i].closed_until.is_none_or(|until| until <= now))
            .collect();
        order.sort_by_key(|i| (states[*i].down_until.filter(|until| *until > now), *i));
        order
    }

    pub(super) fn succeeded(&self, endpoint: usize) {
        lock(&self.states)[endpoint] = State::default();
    }

    /// `jitter`, 0 to 1, spreads the clients of a failed endpoint over time.
    pub(super) fn failed(&self, endpoint: usize, wait: Option<Duration>, jitter: f64) {
        let now = Instant::now();
        let state = &mut lock(&self.states)[endpoint];
        let down = DOWN_FIRST * 2u32.saturating_pow(state.failures.min(16));
        state.failures += 1;
        state.down_until = Some(now + down.min(DOWN_MAX).mul_f64(0.5 + jitter));
        state.closed_until = wait.map(|wait| now + wait.mul_f64(1.0 + jitter / 10.0));
    }

    /// Notes a first request, which earns a tenth of a retry.
    pub(super) fn earn(&self) {
        let mut tenths = lock(&self.tenths);
        *tenths = (*tenths + EARNED_TENTHS).min(SAVED_TENTHS_MAX);
    }

    /// Takes one retry or hedge out of the budget; false when there is none left.
    pub(super) fn spend(&self) -> bool {
        let mut tenths = lock(&self.tenths);
        let enough = *tenths >= 10;
        if enough {
            *tenths -= 10;
        }
        enough
    }
}

/// Nothing that holds these locks can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failing_endpoints_come_last_and_come_back() {
        let health = Health::new(3);
        assert_eq!(health.order(), [0, 1, 2]);
        health.failed(0, None, 0.5);
        health.failed(1, None, 1.0);
        assert_eq!(health.order(), [2, 0, 1]);
        tokio::time::advance(Duration::from_millis(2500)).await;
        assert_eq!(health.order(), [0, 2, 1]);
        health.failed(0, None, 0.5);
        assert_eq!(health.order(), [2, 1, 0], "the second pause is longer");
        health.succeeded(0);
        health.succeeded(1);
        assert_eq!(health.order(), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_asked_for_a_pause_is_left_alone() {
        let health = Health::new(2);
        health.failed(0, Some(Duration::from_secs(60)), 0.0);
        assert_eq!(health.order(), [1]);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(health.order(), [1]);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(health.order(), [0, 1]);
    }

    #[test]
    fn retries_are_a_tenth_of_the_requests_in_the_long_run() {
        let health = Health::new(1);
        let mut spent = 0;
        for _ in 0..1000 {
            health.earn();
            spent += u32::from(health.spend());
        }
        assert!((100..=110).contains(&spent), "{spent}");
    }
}
