//! A provider's limits on requests and tokens per minute, kept by us so that it need not refuse.
//!
//! GCRA by the `governor` crate, over tokio's clock: waiting is cancellable, and a paused clock in
//! tests is followed.

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

/// A minute's allowance may be used up within this part of it at most.
const BURST_PART: u32 = 6;

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Moment>>;

#[derive(Debug, Clone)]
struct TokioClock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Instant);

impl Clock for TokioClock {
    type Instant = Moment;
    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl std::ops::Add<Nanos> for Moment {
    type Output = Self;
    fn add(self, other: Nanos) -> Self {
        Self(self.0 + Duration::from(other))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

/// Both limits; absent ones let everything through.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Option<Limiter>,
    tokens: Option<(Limiter, NonZeroU32)>,
}

impl Limits {
    pub(super) fn new(
        requests_per_minute: Option<NonZeroU32>,
        tokens_per_minute: Option<NonZeroU32>,
    ) -> Self {
        Self {
            requests: requests_per_minute.map(|per_minute| limiter(per_minute).0),
            tokens: tokens_per_minute.map(limiter),
        }
    }

    /// Waits until a call of about `tokens` tokens is within both limits, and counts it.
    pub(super) async fn wait(&self, tokens: u32) {
        if let Some(limiter) = &self.requests {
            take(limiter, NonZeroU32::MIN).await;
        }
        if let Some((limiter, burst)) = &self.tokens {
            // A call larger than the burst counts as the burst: it could never go otherwise.
            let tokens = NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN);
            take(limiter, tokens.min(*burst)).await;
        }
    }
}

fn limiter(per_minute: NonZeroU32) -> (Limiter, NonZeroU32) {
    let burst = NonZeroU32::new(per_minute.get() / BURST_PART).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_minute(per_minute).allow_burst(burst);
    (RateLimiter::direct_with_clock(quota, TokioClock), burst)
}

async fn take(limiter: &Limiter, n: NonZeroU32) {
    loop {
        match limiter.check_n(n) {
            // Never more than the burst is asked for.
            Ok(Ok(())) | Err(_) => return,
            Ok(Err(refused)) => {
                let pause = refused.wait_time_from(TokioClock.now());
                tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds(limits: &Limits, calls: u32, tokens: u32) -> u64 {
        let begun = Instant::now();
        for _ in 0..calls {
            limits.wait(tokens).await;
        }
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_sees_its_allowance_and_one_burst() {
        let per_minute = NonZeroU32::new(60);
        // 10 at once, then one each second.
        let limits = Limits::new(per_minute, None);
        assert_eq!(seconds(&limits, 10, 1).await, 0);
        assert!((50..=51).contains(&seconds(&limits, 50, 1).await));
        // 6,000 tokens a minute: 1,000 at once, then 100 each second.
        let limits = Limits::new(None, NonZeroU32::new(6000));
        assert_eq!(seconds(&limits, 2, 500).await, 0);
        assert!((49..=51).contains(&seconds(&limits, 10, 500).await));
        // Larger than the burst: goes, at the price of the burst.
        assert!((9..=11).contains(&seconds(&limits, 1, 9_000_000).await));
        assert_eq!(seconds(&Limits::new(None, None), 1000, 1000).await, 0);
    }
}
