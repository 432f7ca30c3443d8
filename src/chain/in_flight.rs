//! A call that was sent: the node's word about it, step by step, each checked in the block itself.

use super::connect::ChainClient;
use super::fate::Inclusion;
use super::refusal::SubmitError;
use super::submit::Pending;
use crate::bittensor::{BlockHash, BlockRef};
use std::time::Duration;
use subxt::rpcs::client::RpcSubscription;
use subxt::rpcs::methods::legacy::TransactionStatus;
use subxt::utils::H256;

/// Block times to wait for inclusion, then for finality, before the chain itself is asked.
const WATCH_BLOCKS: u32 = 12;
/// The watch lasts at least this long, however short the block time.
const SHORTEST_WATCH: Duration = Duration::from_secs(20);

pub(super) type Statuses = RpcSubscription<TransactionStatus<H256>>;

/// What became known of a sent call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is in a block that may still be replaced.
    InBlock {
        /// The block.
        block: BlockRef,
        /// The dispatch error's name there, `None` where it succeeded.
        failed: Option<String>,
    },
    /// It succeeded in a finalised block.
    Finalised(Inclusion),
}

/// A sent call and, unless it was lost, the node's watch on it.
pub struct InFlight {
    client: ChainClient,
    pending: Pending,
    statuses: Option<Statuses>,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight")
            .field("pending", &self.pending)
            .field("watched", &self.statuses.is_some())
            .finish_non_exhaustive()
    }
}

impl InFlight {
    pub(super) fn new(client: ChainClient, pending: Pending, statuses: Option<Statuses>) -> Self {
        Self {
            client,
            pending,
            statuses,
        }
    }

    /// Enough to settle it later.
    #[must_use]
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Whether the node said that its pool took the call.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.statuses.is_some()
    }

    /// Waits for the next step.
    ///
    /// # Errors
    /// [`SubmitError::Dispatch`] when it failed in a finalised block. [`SubmitError::FateUnknown`] when
    /// the watch was lost, ran out of time or saw the pool give the call up: none of these proves that
    /// it is in no block, so it must be settled.
    pub async fn next(&mut self) -> Result<Step, SubmitError> {
        let settings = &self.client.inner.settings;
        let patience = (settings.block_time * WATCH_BLOCKS).max(SHORTEST_WATCH);
        loop {
            let statuses = self
                .statuses
                .as_mut()
                .ok_or_else(|| unknown(&self.pending))?;
            let status = match tokio::time::timeout(patience, statuses.next()).await {
                Ok(Some(Ok(status))) => status,
                Ok(Some(Err(_)) | None) | Err(_) => return Err(self.lost()),
            };
            match status {
                TransactionStatus::InBlock(block) => {
                    if let Some(step) = self.in_block(BlockHash(block.0)).await {
                        return Ok(step);
                    }
                }
                TransactionStatus::Finalized(block) => {
                    let seen = self.client.included_at(&self.pending, BlockHash(block.0));
                    return match seen.await {
                        Ok(Some(verdict)) => verdict.map(Step::Finalised),
                        Ok(None) | Err(_) => Err(self.lost()),
                    };
                }
                TransactionStatus::FinalityTimeout(_)
                | TransactionStatus::Usurped(_)
                | TransactionStatus::Dropped
                | TransactionStatus::Invalid => return Err(self.lost()),
                TransactionStatus::Future
                | TransactionStatus::Ready
                | TransactionStatus::Broadcast(_)
                | TransactionStatus::Retracted(_) => {}
            }
        }
    }

    /// Follows it to the end.
    pub(super) async fn finish(&mut self) -> Result<Inclusion, SubmitError> {
        loop {
            if let Step::Finalised(inclusion) = self.next().await? {
                return Ok(inclusion);
            }
        }
    }

    /// What the block says; nothing when it cannot be read, since finality will tell.
    async fn in_block(&mut self, hash: BlockHash) -> Option<Step> {
        match self.client.included_at(&self.pending, hash).await {
            Ok(Some(Ok(Inclusion { block, .. }))) => Some(Step::InBlock {
                block,
                failed: None,
            }),
            Ok(Some(Err(SubmitError::Dispatch { error, block, .. }))) => Some(Step::InBlock {
                block,
                failed: Some(error),
            }),
            other => {
                tracing::debug!(block = %hash, ?other, "the call's block cannot be read yet");
                None
            }
        }
    }

    fn lost(&mut self) -> SubmitError {
        self.statuses = None;
        unknown(&self.pending)
    }
}

fn unknown(pending: &Pending) -> SubmitError {
    SubmitError::FateUnknown(pending.clone())
}
