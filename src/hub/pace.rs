//! Bandwidth: one bound for all transfers of a client together.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lets bytes pass no faster than a rate. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    bytes_per_s: Option<NonZeroU64>,
    /// When what was let through so far is through.
    free_at: Arc<Mutex<Instant>>,
}

impl Pace {
    /// Without a rate everything passes at once.
    pub(super) fn new(bytes_per_s: Option<NonZeroU64>) -> Self {
        Self {
            bytes_per_s,
            free_at: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits until `bytes` that just came would be through at the rate.
    pub(super) async fn pass(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_s else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = (*free_at).max(Instant::now()) + takes;
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_together_keep_to_the_rate() {
        let pace = Pace::new(NonZeroU64::new(100_000));
        let (begun, other) = (Instant::now(), pace.clone());
        tokio::join!(pace.pass(15_000), other.pass(5_000));
        assert!(begun.elapsed() >= Duration::from_millis(200));
        // Time that nobody used is not saved up.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let later = Instant::now();
        pace.pass(5_000).await;
        assert!(later.elapsed() >= Duration::from_millis(50));
        Pace::new(None).pass(u64::MAX).await;
    }
}
