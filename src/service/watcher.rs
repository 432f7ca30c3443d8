//! Follows finalised blocks and publishes one whole snapshot for each.

use crate::bittensor::{Netuid, SubnetSnapshot};
use crate::chain::{ChainClient, ChainError};
use crate::clock::now_ms;
use crate::shutdown::Shutdown;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The newest snapshot; `None` before the first.
pub type Latest = watch::Receiver<Option<Arc<SubnetSnapshot>>>;

/// Pause after a failed read, so that a broken endpoint is not hammered.
const PAUSE: Duration = Duration::from_secs(1);

/// The loop that reads the chain.
#[derive(Debug)]
pub struct Watcher {
    /// The chain.
    pub chain: ChainClient,
    /// The subnet.
    pub netuid: Netuid,
    /// Where faults are kept.
    pub store: Store,
    /// Where snapshots go.
    pub latest: watch::Sender<Option<Arc<SubnetSnapshot>>>,
}

impl Watcher {
    /// Runs until shutdown. A failed read publishes nothing: readers keep the last whole snapshot
    /// and see its age.
    ///
    /// # Errors
    /// A [`ChainError`] that waiting cannot mend, such as another network behind the endpoint.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), ChainError> {
        let mut blocks = self.chain.follow();
        loop {
            let read = async {
                let head = blocks.next().await?;
                self.chain.snapshot(self.netuid, head.block).await
            };
            let result = tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                result = read => result,
            };
            match result {
                Ok(snapshot) => {
                    tracing::debug!(block = %snapshot.at.number, commitments = snapshot.commitments.len(), "snapshot");
                    self.latest.send_replace(Some(Arc::new(snapshot)));
                }
                Err(error) if !error.to_fault().retryable => return Err(error),
                Err(error) => {
                    self.note(&error).await;
                    tokio::select! {
                        () = shutdown.signalled() => return Ok(()),
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }

    async fn note(&self, error: &ChainError) {
        tracing::warn!(%error, "the chain could not be read; keeping the last snapshot");
        if let Err(error) = self
            .store
            .record_fault(None, error.to_fault(), now_ms())
            .await
        {
            tracing::error!(%error, "a fault could not be recorded");
        }
    }
}
