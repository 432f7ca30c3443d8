//! The present round and its items: drawn once, kept, and the same after a restart.

use super::Latest;
use crate::bittensor::{BlockNumber, BlockRef, Netuid, RoundNumber};
use crate::chain::ChainClient;
use crate::clock::now_ms;
use crate::dataset::client::DatasetClient;
use crate::dataset::rounds::draw_from;
use crate::dataset::sampling::Wanted;
use crate::dataset::{self, DatasetError, Item, ItemId, ObjectDigest, Pack};
use crate::fault::{Fault, Party};
use crate::incentive::round::{round_at, round_seed};
use crate::incentive::{Era, era_at};
use crate::store::{Round, Store, StoreError};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A round with the conversations behind its item ids, in the round's order.
#[derive(Debug)]
pub struct Drawn {
    /// The kept round.
    pub round: Round,
    /// Its items.
    pub items: Vec<Item>,
}

/// Gives the round of the newest snapshot. Shared by all workers.
#[derive(Debug)]
pub struct Rounds {
    /// The store that keeps rounds.
    pub store: Store,
    /// The chain that seeds them.
    pub chain: ChainClient,
    /// Where packs come from.
    pub dataset: DatasetClient,
    /// The subnet.
    pub netuid: Netuid,
    /// All eras.
    pub eras: Vec<Era>,
    /// The chain's newest state.
    pub latest: Latest,
    /// The last one used.
    pub last: Mutex<Option<Arc<Drawn>>>,
}

impl Rounds {
    /// The era, round and first block of the round that the newest snapshot lies in; `None` before
    /// the first snapshot or era.
    #[must_use]
    pub fn present(&self) -> Option<(&Era, RoundNumber, BlockNumber)> {
        let at = self.latest.borrow().as_ref()?.at.number;
        let era = era_at(&self.eras, at)?;
        let (number, start) = round_at(era, at)?;
        Some((era, number, start))
    }

    /// The present round with its items.
    ///
    /// # Errors
    /// A [`Fault`] of chain, dataset or node; nothing was drawn then.
    pub async fn current(&self) -> Result<(Era, Arc<Drawn>), Fault> {
        let early = || Fault::retryable(Party::Chain, "NO_SNAPSHOT", "the chain was not read yet");
        let (era, number, start) = self.present().ok_or_else(early)?;
        let mut last = self.last.lock().await;
        let era_id = era.id().to_string();
        if let Some(drawn) = last.as_ref()
            && drawn.round.era_id == era_id
            && drawn.round.number == number
        {
            return Ok((era.clone(), Arc::clone(drawn)));
        }
        let drawn = Arc::new(self.load(era, number, start).await?);
        *last = Some(Arc::clone(&drawn));
        Ok((era.clone(), drawn))
    }

    /// A round that was drawn before, by era and number: the judge may come to it after the next
    /// one began.
    ///
    /// # Errors
    /// A [`Fault`] of dataset or node.
    pub async fn drawn(&self, era_id: &str, number: RoundNumber) -> Result<Arc<Drawn>, Fault> {
        let cached = self.last.lock().await.clone();
        if let Some(drawn) = cached.filter(|d| d.round.era_id == era_id && d.round.number == number)
        {
            return Ok(drawn);
        }
        let lost = || {
            Fault::permanent(
                Party::Node,
                "ROUND_LOST",
                format!("round {number} of era {era_id} was never drawn here"),
            )
        };
        let kept = self
            .store
            .reader()
            .round(era_id, number)
            .await
            .map_err(store_fault)?;
        self.with_items(kept.ok_or_else(lost)?).await.map(Arc::new)
    }

    async fn load(
        &self,
        era: &Era,
        number: RoundNumber,
        start: BlockNumber,
    ) -> Result<Drawn, Fault> {
        let era_id = era.id().to_string();
        let kept = self
            .store
            .reader()
            .round(&era_id, number)
            .await
            .map_err(store_fault)?;
        let round = match kept {
            Some(round) => round,
            None => self.draw(era, number, start).await?,
        };
        self.with_items(round).await
    }

    async fn draw(
        &self,
        era: &Era,
        number: RoundNumber,
        start: BlockNumber,
    ) -> Result<Round, Fault> {
        let hash = self
            .chain
            .block_hash(start)
            .await
            .map_err(|e| e.to_fault())?;
        let gone = || {
            Fault::retryable(
                Party::Chain,
                "BLOCK_UNKNOWN",
                format!("the endpoint does not know block {start}"),
            )
        };
        let start = BlockRef {
            number: start,
            hash: hash.ok_or_else(gone)?,
        };
        let pack = self.dataset.newest().await.map_err(|e| e.to_fault())?;
        let seed = round_seed(self.netuid, era.id(), number, start.hash);
        let wanted = usize::try_from(era.scoring.items).unwrap_or(usize::MAX);
        let packs = [pack];
        let buckets = Wanted {
            fresh: wanted,
            older: 0,
        };
        let ids = draw_from(&packs, seed, 0, buckets).mixed(seed);
        let [pack] = packs;
        if ids.len() < wanted {
            let detail = format!(
                "pack {} holds {} conversations, the era asks for {wanted}",
                pack.digest(),
                ids.len()
            );
            return Err(Fault::retryable(Party::Dataset, "PACK_TOO_SMALL", detail));
        }
        let items: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let round = Round {
            era_id: era.id().to_string(),
            number,
            start,
            seed,
            pack_digest: pack.digest().to_string(),
            items_digest: format!("sha256:{}", hex::encode(Sha256::digest(items.join("\n")))),
            items,
        };
        tracing::info!(round = %number, items = round.items.len(), pack = %round.pack_digest, "round drawn");
        self.store
            .put_round(round, now_ms())
            .await
            .map_err(store_fault)
    }

    async fn with_items(&self, round: Round) -> Result<Drawn, Fault> {
        let broken = |what: String| Fault::permanent(Party::Node, "ROUND_BROKEN", what);
        let digest: ObjectDigest = round.pack_digest.parse().map_err(broken)?;
        let ids: Result<Vec<ItemId>, _> = round.items.iter().map(|id| id.parse()).collect();
        let ids = ids.map_err(broken)?;
        let pack = self.dataset.fetch(digest).await.map_err(|e| e.to_fault())?;
        let items = items_of(pack, ids).await.map_err(|e| e.to_fault())?;
        Ok(Drawn { round, items })
    }
}

async fn items_of(pack: Pack, ids: Vec<ItemId>) -> Result<Vec<Item>, DatasetError> {
    let read = tokio::task::spawn_blocking(move || dataset::items(&[pack], &ids)).await;
    read.unwrap_or_else(|error| Err(DatasetError::Unavailable(error.to_string())))
}

/// Trouble with the store, as a fault of the node.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(super) fn store_fault(error: StoreError) -> Fault {
    error.fault()
}
