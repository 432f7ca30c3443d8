//! The present round and its items: drawn once, kept, and the same after a restart.

use super::Latest;
use crate::bittensor::{BlockNumber, BlockRef, Netuid, RoundNumber};
use crate::chain::ChainClient;
use crate::clock::now_ms;
use crate::dataset::client::DatasetClient;
use crate::dataset::rounds::draw_from;
use crate::dataset::sampling::{Wanted, fresh_from};
use crate::dataset::{Item, ItemId, ObjectDigest, Pack};
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

impl Drawn {
    /// Whether each item is fresh: made at most 48 hours before the round began. In the order of
    /// the items; the others are anchors, which measure what a model may have seen in training.
    #[must_use]
    pub fn fresh(&self) -> Vec<bool> {
        let from = fresh_from(self.round.start_ms);
        self.items.iter().map(|item| item.created >= from).collect()
    }
}

/// Where a round begins: what its seed and its buckets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundStart {
    /// Number within the era.
    pub number: RoundNumber,
    /// The round's first block.
    pub block: BlockRef,
    /// Its time, unix milliseconds.
    pub time_ms: u64,
}

/// Reads hash and time of a round's first block, which is finalised when the round is present.
///
/// # Errors
/// A [`Fault`] of the chain.
pub async fn round_start(
    chain: &ChainClient,
    number: RoundNumber,
    start: BlockNumber,
) -> Result<RoundStart, Fault> {
    let hash = chain.block_hash(start).await.map_err(|e| e.to_fault())?;
    let gone = || {
        Fault::retryable(
            Party::Chain,
            "BLOCK_UNKNOWN",
            format!("the endpoint does not know block {start}"),
        )
    };
    let block = BlockRef {
        number: start,
        hash: hash.ok_or_else(gone)?,
    };
    let time_ms = chain.block_time_ms(block).await.map_err(|e| e.to_fault())?;
    Ok(RoundStart {
        number,
        block,
        time_ms,
    })
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
        let start = round_start(&self.chain, number, start).await?;
        let packs = self.dataset.round_packs(start.time_ms).await;
        let packs = packs.map_err(|e| e.to_fault())?;
        let seed = round_seed(self.netuid, era.id(), number, start.block.hash);
        let digests: Vec<ObjectDigest> = packs.iter().map(Pack::digest).collect();
        let wanted = wanted(era);
        let drawing = move || draw_from(&packs, seed, start.time_ms, wanted);
        let drawn = tokio::task::spawn_blocking(drawing).await;
        let drawn = drawn.map_err(|e| Fault::retryable(Party::Node, "DRAW_FAILED", e))?;
        if drawn.fresh.len() < wanted.fresh {
            let (fresh, wanted) = (drawn.fresh.len(), wanted.fresh);
            tracing::warn!(round = %number, fresh, wanted, "few conversations of the last 48 hours; older ones stand in");
        }
        let items: Vec<String> = drawn.mixed(seed).iter().map(ToString::to_string).collect();
        if items.len() < wanted.fresh + wanted.older {
            let detail = format!(
                "the {} packs at hand hold {} conversations, the era asks for {}",
                digests.len(),
                items.len(),
                wanted.fresh + wanted.older
            );
            return Err(Fault::retryable(Party::Dataset, "PACK_TOO_SMALL", detail));
        }
        let round = Round {
            era_id: era.id().to_string(),
            number,
            start: start.block,
            start_ms: start.time_ms,
            seed,
            pack_digest: packs_digest(&digests),
            packs: digests.iter().map(ToString::to_string).collect(),
            items_digest: format!("sha256:{}", hex::encode(Sha256::digest(items.join("\n")))),
            items,
        };
        tracing::info!(round = %number, items = round.items.len(), packs = round.packs.len(), digest = %round.pack_digest, "round drawn");
        self.store
            .put_round(round, now_ms())
            .await
            .map_err(store_fault)
    }

    async fn with_items(&self, round: Round) -> Result<Drawn, Fault> {
        let broken = |what: String| Fault::permanent(Party::Node, "ROUND_BROKEN", what);
        let packs: Result<Vec<ObjectDigest>, _> = round.packs.iter().map(|d| d.parse()).collect();
        let ids: Result<Vec<ItemId>, _> = round.items.iter().map(|id| id.parse()).collect();
        let (packs, ids) = (packs.map_err(broken)?, ids.map_err(broken)?);
        let items = self.dataset.items(&packs, &ids).await;
        let items = items.map_err(|e| e.to_fault())?;
        Ok(Drawn { round, items })
    }
}

/// How many items of each kind an era asks for.
fn wanted(era: &Era) -> Wanted {
    let items = usize::try_from(era.scoring.items).unwrap_or(usize::MAX);
    let fresh = usize::try_from(era.scoring.fresh_items()).unwrap_or(usize::MAX);
    Wanted {
        fresh,
        older: items - fresh,
    }
}

/// One digest for all packs of a round: the pack's own when it is one, else SHA-256 over the
/// digests' text, ascending, each with a newline.
fn packs_digest(digests: &[ObjectDigest]) -> String {
    if let [only] = digests {
        return only.to_string();
    }
    let text: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
    ObjectDigest::of(text.as_bytes()).to_string()
}

/// Trouble with the store, as a fault of the node.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(super) fn store_fault(error: StoreError) -> Fault {
    error.fault()
}
