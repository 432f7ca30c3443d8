//! Follows finalised blocks and publishes one whole snapshot for each.

use crate::bittensor::{MechanismId, Netuid, SubnetSnapshot};
use crate::chain::{ChainClient, ChainError};
use crate::clock::now_ms;
use crate::retry::{Pauses, Retry, RetryPolicy, Retryable};
use crate::shutdown::Shutdown;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The newest snapshot; `None` before the first.
pub type Latest = watch::Receiver<Option<Arc<SubnetSnapshot>>>;

/// The loop that reads the chain.
#[derive(Debug)]
pub struct Watcher {
    /// The chain.
    pub chain: ChainClient,
    /// The subnet.
    pub netuid: Netuid,
    /// The mechanism that weights are set for.
    pub mechanism: MechanismId,
    /// Where faults are kept.
    pub store: Store,
    /// Where snapshots go.
    pub latest: watch::Sender<Option<Arc<SubnetSnapshot>>>,
}

impl Watcher {
    /// Runs until shutdown. A failed read publishes nothing: readers keep the last whole snapshot
    /// and see its age. After a failure it pauses, longer each time, or for as long as it was asked.
    ///
    /// # Errors
    /// A [`ChainError`] of the first read that only a person can mend, such as another network behind
    /// the endpoint or a netuid that does not exist. Once a snapshot was read nothing ends the loop.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), ChainError> {
        let mut blocks = self.chain.follow();
        let mut pauses = Pauses::new(&pauses(self.chain.block_time()));
        loop {
            let read = async {
                let head = blocks.next().await?;
                self.chain
                    .mechanism_snapshot(self.netuid, self.mechanism, head.block)
                    .await
            };
            let result = tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                result = read => result,
            };
            let error = match result {
                Ok(snapshot) => {
                    tracing::debug!(block = %snapshot.at.number, commitments = snapshot.commitments.len(), "snapshot");
                    self.latest.send_replace(Some(Arc::new(snapshot)));
                    pauses.restart();
                    continue;
                }
                Err(error) => error,
            };
            if !error.to_fault().retryable && self.latest.borrow().is_none() {
                return Err(error);
            }
            // A block that is gone is no trouble: the next one is newer.
            if !matches!(error, ChainError::BlockGone { .. }) {
                self.note(&error).await;
            }
            let pause = match error.retry() {
                Retry::After(least) => least.max(pauses.lengthen()),
                Retry::Now | Retry::Never => pauses.lengthen(),
            };
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
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

/// From a twelfth of a block time, so that a short disturbance costs no block, to a whole one.
fn pauses(block_time: Duration) -> RetryPolicy {
    RetryPolicy {
        first_pause: block_time / 12,
        longest_pause: block_time,
        ..RetryPolicy::default()
    }
}
