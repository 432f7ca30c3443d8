//! What became of a signed call, read from the chain itself.

use super::connect::ChainClient;
use super::error::ChainError;
use super::refusal::SubmitError;
use super::submit::Pending;
use super::view::{Entry, View};
use crate::bittensor::{BlockHash, BlockNumber, BlockRef};
use codec::Decode;
use subxt::error::DispatchError;
use subxt::events::Phase;
use subxt::utils::H256;

const EVENTS: Entry = Entry("System", "Events");

/// A call that a finalised block carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inclusion {
    /// The finalised block.
    pub block: BlockRef,
    /// Position in the block.
    pub index: u32,
    /// Hash of the signed extrinsic.
    pub extrinsic: BlockHash,
}

/// What a block says about a call that it holds.
type Verdict = Result<Inclusion, SubmitError>;

impl ChainClient {
    /// Finds out what became of a call: by the signer's nonce at the finalised head; where it is used,
    /// by the block that used it, found by halving the call's era, and that block's events.
    ///
    /// # Errors
    /// [`SubmitError::Dispatch`] and [`SubmitError::NeverIncluded`] are final;
    /// [`SubmitError::FateUnknown`] means ask again at a later block. [`ChainError::BlockGone`] when the
    /// endpoint no longer keeps the blocks that tell.
    pub async fn settle(&self, pending: &Pending) -> Result<Inclusion, SubmitError> {
        let head = self.finalised_head().await?;
        if !self.used_at(pending, head.hash).await? {
            return Err(if head.number >= pending.dies {
                SubmitError::NeverIncluded(pending.clone())
            } else {
                SubmitError::FateUnknown(pending.clone())
            });
        }
        let last = BlockNumber(head.number.0.min(pending.dies.0));
        let Some(user) = self.first_use(pending, last).await? else {
            return Err(SubmitError::NeverIncluded(pending.clone()));
        };
        match self.included_at(pending, user).await? {
            Some(verdict) => verdict,
            // Another call took the nonce.
            None => Err(SubmitError::NeverIncluded(pending.clone())),
        }
    }

    /// The block after `born` up to `last` that used the nonce, `None` when it was used outside.
    async fn first_use(
        &self,
        pending: &Pending,
        last: BlockNumber,
    ) -> Result<Option<BlockHash>, ChainError> {
        if last <= pending.born {
            return Ok(None);
        }
        let (mut unused, mut used) = (pending.born, last);
        let mut hash = self.hash_of(used).await?;
        if !self.used_at(pending, hash).await? {
            return Ok(None);
        }
        while used.since(unused) > 1 {
            let middle = unused.plus(used.since(unused) / 2);
            let at = self.hash_of(middle).await?;
            if self.used_at(pending, at).await? {
                (used, hash) = (middle, at);
            } else {
                unused = middle;
            }
        }
        Ok(Some(hash))
    }

    /// The hash of a finalised block. An endpoint that does not know it proves nothing.
    async fn hash_of(&self, number: BlockNumber) -> Result<BlockHash, ChainError> {
        let hash = self.block_hash(number).await?;
        hash.ok_or_else(|| ChainError::BlockGone {
            block: number.to_string(),
        })
    }

    async fn used_at(&self, pending: &Pending, at: BlockHash) -> Result<bool, ChainError> {
        let nonce = self
            .read("reading the nonce", self.nonce_at(pending, at))
            .await?;
        Ok(nonce > pending.nonce)
    }

    async fn nonce_at(&self, pending: &Pending, at: BlockHash) -> Result<u64, ChainError> {
        let method = "AccountNonceApi_account_nonce";
        let account = pending.hotkey.as_bytes().as_slice();
        let answer = self
            .inner
            .rpc
            .state_call(method, Some(account), Some(H256(at.0)))
            .await
            .map_err(|e| ChainError::from_rpc(method, Some(at), e))?;
        let nonce = u32::decode(&mut &*answer).map_err(|e| ChainError::unreadable(method, e))?;
        Ok(nonce.into())
    }

    /// The verdict of one block, `None` when it does not hold the call.
    pub(super) async fn included_at(
        &self,
        pending: &Pending,
        hash: BlockHash,
    ) -> Result<Option<Verdict>, ChainError> {
        self.read("reading a block", async {
            let what = "reading a block";
            let answer = self.inner.rpc.chain_get_block(Some(H256(hash.0))).await;
            let block = answer
                .map_err(|e| ChainError::from_rpc(what, Some(hash), e))?
                .ok_or_else(|| ChainError::BlockGone {
                    block: hash.to_string(),
                })?
                .block;
            let position = block
                .extrinsics
                .iter()
                .position(|bytes| sp_crypto_hashing::blake2_256(&bytes.0) == pending.extrinsic.0);
            let Some(position) = position else {
                return Ok(None);
            };
            let index = u32::try_from(position).map_err(|e| ChainError::unreadable(what, e))?;
            let view = self.view(self.block_at(hash).await?).await?;
            self.verdict(&view, pending, index).await.map(Some)
        })
        .await
    }

    /// Reads the block's events: exactly one of them says how the extrinsic ended.
    async fn verdict(
        &self,
        view: &View,
        pending: &Pending,
        index: u32,
    ) -> Result<Verdict, ChainError> {
        let what = format!("the events of block {}", view.block.number);
        let stored = view.value(&view.key(EVENTS, ())?).await?;
        let stored = stored.ok_or_else(|| ChainError::unreadable(&what, "there are none"))?;
        for event in view.at.events().from_bytes(stored).iter() {
            let event = event.map_err(|e| ChainError::unreadable(&what, e))?;
            if event.phase() != Phase::ApplyExtrinsic(index) || event.pallet_name() != "System" {
                continue;
            }
            match event.event_name() {
                "ExtrinsicSuccess" => {
                    return Ok(Ok(Inclusion {
                        block: view.block,
                        index,
                        extrinsic: pending.extrinsic,
                    }));
                }
                "ExtrinsicFailed" => {
                    let error = DispatchError::decode_from(event.field_bytes(), view.at.metadata())
                        .map_err(|e| ChainError::unreadable(&what, e))?;
                    return Ok(Err(dispatch(&error, view.block)));
                }
                _ => {}
            }
        }
        Err(ChainError::unreadable(what, "no outcome of the extrinsic"))
    }
}

fn dispatch(error: &DispatchError, block: BlockRef) -> SubmitError {
    let (pallet, error) = match error {
        DispatchError::Module(module) => match module.details() {
            Ok(details) => (
                details.pallet.name().to_owned(),
                details.variant.name.clone(),
            ),
            Err(_) => ("unknown".to_owned(), hex::encode(module.bytes())),
        },
        other => ("System".to_owned(), format!("{other:?}")),
    };
    SubmitError::Dispatch {
        pallet,
        error,
        block,
    }
}
