//! When and whether to try again.
//!
//! This is the only user of the `backoff` crate, which gives the jittered, growing pauses. The
//! crate is no longer maintained (RUSTSEC-2025-0012); it does arithmetic on durations here, no
//! I/O, and can be replaced in this file alone.
//!
//! Retry at one layer only: an operation that retries inside must answer [`Retry::Never`].

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use std::future::Future;
use std::time::{Duration, Instant};

/// What a failed attempt says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same attempt would fail again.
    Never,
    /// Another attempt may succeed, after the policy's own pause.
    Now,
    /// Another attempt may succeed, but not before this long (a server's `Retry-After`).
    After(Duration),
}

/// An error that knows whether trying again helps.
pub trait Retryable {
    /// Whether and when the failed operation may be tried again.
    fn retry(&self) -> Retry;
}

/// Bounds of a series of attempts. Every bound is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Most attempts, the first one included; 0 counts as 1.
    pub attempts: u32,
    /// No attempt starts, and no pause is begun that would end, later than this after the first.
    pub total_time: Duration,
    /// Mean pause after the first failure; each next one is twice as long, all jittered by ±50 %.
    pub first_pause: Duration,
    /// Longest mean pause.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// Five attempts within a minute, pauses from 250 ms to 10 s.
    fn default() -> Self {
        Self {
            attempts: 5,
            total_time: Duration::from_secs(60),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// Runs `op` until it succeeds, its error says [`Retry::Never`], or the policy's bounds are used up.
///
/// A running attempt is never cut off here: each carries its own deadline.
///
/// # Errors
/// The error of the last attempt, unchanged.
pub async fn retry<T, E, F, Fut>(policy: &RetryPolicy, mut op: F) -> Result<T, E>
where
    E: Retryable + std::fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    let mut pauses = pauses(policy);
    let mut attempt = 1;
    loop {
        let error = match op().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let left = policy.total_time.saturating_sub(begun.elapsed());
        let pause = match (error.retry(), pauses.next_backoff()) {
            (Retry::Now, Some(pause)) => pause,
            (Retry::After(least), Some(pause)) => least.max(pause),
            (Retry::Never, _) | (_, None) => return Err(error),
        };
        if attempt >= policy.attempts || pause > left {
            return Err(error);
        }
        tracing::debug!(attempt, pause_ms = pause.as_millis(), %error, "attempt failed, trying again");
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

fn pauses(policy: &RetryPolicy) -> impl Backoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(policy.first_pause)
        .with_max_interval(policy.longest_pause)
        .with_multiplier(2.0)
        .with_randomization_factor(0.5)
        .with_max_elapsed_time(Some(policy.total_time))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
    #[error("failed")]
    struct Failure(Retry);

    impl Retryable for Failure {
        fn retry(&self) -> Retry {
            self.0
        }
    }

    fn quick() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            total_time: Duration::from_secs(5),
            first_pause: Duration::from_millis(4),
            longest_pause: Duration::from_millis(16),
        }
    }

    async fn attempts(policy: RetryPolicy, succeed_at: u32, failure: Failure) -> (u32, bool) {
        let count = Cell::new(0);
        let result = retry(&policy, || {
            count.set(count.get() + 1);
            let done = count.get() >= succeed_at;
            async move { if done { Ok(()) } else { Err(failure) } }
        })
        .await;
        (count.get(), result.is_ok())
    }

    #[tokio::test]
    async fn stops_at_success_at_never_and_at_the_bound() {
        assert_eq!(attempts(quick(), 3, Failure(Retry::Now)).await, (3, true));
        assert_eq!(
            attempts(quick(), 3, Failure(Retry::Never)).await,
            (1, false)
        );
        assert_eq!(attempts(quick(), 99, Failure(Retry::Now)).await, (4, false));
        let none = RetryPolicy {
            attempts: 0,
            ..quick()
        };
        assert_eq!(attempts(none, 99, Failure(Retry::Now)).await, (1, false));
    }

    #[tokio::test]
    async fn pauses_at_least_as_long_as_the_error_asks() {
        let begun = Instant::now();
        let failure = Failure(Retry::After(Duration::from_millis(60)));
        assert_eq!(attempts(quick(), 2, failure).await, (2, true));
        assert!(begun.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_pause_beyond_the_total_time_is_not_begun() {
        let begun = Instant::now();
        let failure = Failure(Retry::After(Duration::from_secs(600)));
        assert_eq!(attempts(quick(), 2, failure).await, (1, false));
        let short = RetryPolicy {
            attempts: u32::MAX,
            total_time: Duration::from_millis(50),
            ..quick()
        };
        let (count, ok) = attempts(short, u32::MAX, Failure(Retry::Now)).await;
        assert!(count > 1 && !ok, "{count} attempts");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
