//! Keeps the packs on disk up to date, ahead of the rounds that need them.

use crate::dataset::client::DatasetClient;
use crate::shutdown::Shutdown;
use std::convert::Infallible;
use std::time::Duration;

/// The loop that fetches packs as they are sealed.
#[derive(Debug)]
pub struct PackSync {
    /// Where they come from and where they are kept.
    pub dataset: DatasetClient,
    /// Pause between two looks.
    pub interval: Duration,
}

impl PackSync {
    /// Runs until shutdown. Nothing depends on a single look: a failed one is logged, and rounds
    /// are drawn from what is on disk.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                () = self.look() => {}
            }
            // Spread, so that all validators of a subnet do not come at the same moment.
            let pause = self.interval.mul_f64(0.75 + 0.5 * rand::random::<f64>());
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self) {
        match self.dataset.sync().await {
            Ok(report) => {
                for (digest, reason) in &report.failed {
                    tracing::warn!(%digest, %reason, "a pack cannot be had");
                }
                if report.fetched > 0 {
                    tracing::info!(
                        fetched = report.fetched,
                        listed = report.listed,
                        "packs fetched"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "packs could not be looked for"),
        }
    }
}
