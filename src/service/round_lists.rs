//! Builds every round's item list beside the Dataset API, as soon as the chain gives the seed.

use super::rounds::round_start;
use crate::bittensor::{BlockNumber, Netuid, RoundNumber};
use crate::chain::{ChainClient, ChainError};
use crate::clock::now_ms;
use crate::dataset::rounds::{self, ListSpec, SignedRound};
use crate::dataset::sampling::Wanted;
use crate::dataset::{DatasetError, Signer};
use crate::fault::{Fault, Party};
use crate::incentive::round::{round_at, round_seed};
use crate::incentive::{Era, era_at};
use crate::shutdown::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// The loop. Requests never wait for it: the former round's list is served until the next is whole.
#[derive(Debug)]
pub struct RoundLists {
    /// The chain that seeds rounds.
    pub chain: ChainClient,
    /// The subnet.
    pub netuid: Netuid,
    /// All eras.
    pub eras: Vec<Era>,
    /// Folder of sealed packs, which receives the lists.
    pub packs: PathBuf,
    /// The operator's key.
    pub signer: Arc<Signer>,
    /// Items of a list.
    pub wanted: Wanted,
}

impl RoundLists {
    /// Follows the chain until shutdown and builds the list of each round once its first block is
    /// finalised.
    ///
    /// # Errors
    /// A [`ChainError`] that waiting cannot mend.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), ChainError> {
        let mut blocks = self.chain.follow();
        let mut built: Option<BlockNumber> = None;
        loop {
            let head = tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                head = blocks.next() => head,
            };
            let failed = match head {
                Ok(head) => match self.due(head.block.number, built) {
                    None => continue,
                    Some((era, number, start)) => match self.build(era, number, start).await {
                        Ok(round) => {
                            tracing::info!(round = %number, block = %start, fresh = round.fresh, older = round.older, list = %round.json, "round's list built");
                            built = Some(start);
                            continue;
                        }
                        Err(fault) => fault,
                    },
                },
                Err(error) if !error.to_fault().retryable => return Err(error),
                Err(error) => error.to_fault(),
            };
            tracing::warn!(code = %failed.code, reason = %failed.message, "the round's list cannot be built yet");
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The round that holds `head`, unless its list was built.
    fn due(
        &self,
        head: BlockNumber,
        built: Option<BlockNumber>,
    ) -> Option<(&Era, RoundNumber, BlockNumber)> {
        let era = era_at(&self.eras, head)?;
        let (number, start) = round_at(era, head)?;
        (built != Some(start)).then_some((era, number, start))
    }

    async fn build(
        &self,
        era: &Era,
        number: RoundNumber,
        start: BlockNumber,
    ) -> Result<SignedRound, Fault> {
        let start = round_start(&self.chain, number, start).await?;
        let spec = ListSpec {
            netuid: self.netuid,
            era_id: era.id().to_string(),
            number,
            start: start.block,
            start_ms: start.time_ms,
            seed: round_seed(self.netuid, era.id(), number, start.block.hash),
            wanted: self.wanted,
        };
        let (packs, signer) = (self.packs.clone(), Arc::clone(&self.signer));
        let building = move || rounds::build(&packs, &spec, &signer, now_ms());
        let built = tokio::task::spawn_blocking(building).await;
        built
            .map_err(|e| Fault::retryable(Party::Node, "BUILD_FAILED", e))?
            .map_err(|e: DatasetError| e.to_fault())
    }
}
