//! Following finalised blocks across reconnections.

use super::connect::ChainClient;
use super::error::ChainError;
use crate::bittensor::{BlockHash, BlockNumber, BlockRef};
use codec::Encode;
use futures::FutureExt as _;
use std::time::{Duration, Instant};
use subxt::config::substrate::SubstrateHeader;
use subxt::rpcs::client::RpcSubscription;
use subxt::utils::H256;

/// Block times without a new finalised block after which the connection counts as dead.
const SILENT_BLOCKS: u32 = 4;
/// Silence is never judged sooner than this, however short the block time.
const SHORTEST_SILENCE: Duration = Duration::from_millis(500);

/// One finalised block, as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finalised {
    /// The block.
    pub block: BlockRef,
    /// How many finalised blocks between the previous one and this one were not delivered.
    pub missed: u64,
}

/// Finalised blocks in rising order, made by [`ChainClient::follow`].
#[derive(Debug)]
pub struct FinalisedBlocks {
    client: ChainClient,
    heads: Option<RpcSubscription<SubstrateHeader<H256>>>,
    last: Option<BlockNumber>,
}

impl ChainClient {
    /// Follows finalised blocks from now on. Nothing is asked of the node before the first
    /// [`FinalisedBlocks::next`].
    #[must_use]
    pub fn follow(&self) -> FinalisedBlocks {
        FinalisedBlocks {
            client: self.clone(),
            heads: None,
            last: None,
        }
    }
}

impl FinalisedBlocks {
    /// Waits for the next finalised block; of several that wait already, the newest. Numbers only
    /// rise; `missed` tells of gaps, which a lost connection, several blocks finalised at once or a
    /// slow caller leave. Safe to drop and call again.
    ///
    /// # Errors
    /// [`ChainError::Transient`] when no block comes for four block times (at least 0.5 s): the
    /// connection is given up, and the next call subscribes over another. Any other [`ChainError`] when
    /// there is nothing to subscribe over. The caller may go on in each case.
    pub async fn next(&mut self) -> Result<Finalised, ChainError> {
        let silence = (self.client.inner.settings.block_time * SILENT_BLOCKS).max(SHORTEST_SILENCE);
        let begun = Instant::now();
        match tokio::time::timeout(silence, self.next_unbounded()).await {
            Ok(result) => result,
            Err(_) => {
                self.heads = None;
                let reason = format!("no finalised block for {silence:?}");
                self.client.inner.wire.give_up(&reason, begun).await;
                Err(ChainError::transient("following the chain", reason))
            }
        }
    }

    async fn next_unbounded(&mut self) -> Result<Finalised, ChainError> {
        loop {
            let Some(heads) = self.heads.as_mut() else {
                self.subscribe().await?;
                continue;
            };
            match heads.next().await {
                Some(Ok(mut header)) => {
                    while let Some(Some(Ok(newer))) = heads.next().now_or_never() {
                        header = newer;
                    }
                    if let Some(block) = self.advance(&header) {
                        return Ok(block);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "subscription to finalised blocks lost");
                    self.heads = None;
                }
                None => self.heads = None,
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), ChainError> {
        let what = "subscribing to finalised blocks";
        let rpc = &self.client.inner.rpc;
        let heads = self
            .client
            .read(what, async {
                let answer = rpc.chain_subscribe_finalized_heads().await;
                answer.map_err(|e| ChainError::from_rpc(what, None, e))
            })
            .await?;
        self.heads = Some(heads);
        Ok(())
    }

    fn advance(&mut self, header: &SubstrateHeader<H256>) -> Option<Finalised> {
        let number = BlockNumber(header.number);
        if self.last.is_some_and(|last| number <= last) {
            return None;
        }
        let missed = self.last.map_or(0, |last| number.since(last) - 1);
        self.last = Some(number);
        self.client.inner.wire.saw(number);
        let hash = BlockHash(sp_crypto_hashing::blake2_256(&header.encode()));
        Some(Finalised {
            block: BlockRef { number, hash },
            missed,
        })
    }
}
