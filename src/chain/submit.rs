//! The one door that signs and submits.

use super::call::{Call, Payload};
use super::connect::ChainClient;
use super::error::{ChainError, bounded};
use super::fate::Inclusion;
use super::view::{Entry, View};
use super::wallet::HotkeyPair;
use crate::bittensor::{BlockHash, BlockNumber, BlockRef, Hotkey, Netuid};
use crate::fault::{Fault, Party};
use std::time::Duration;
use subxt::config::{DefaultExtrinsicParamsBuilder, SubstrateConfig};
use subxt::rpcs;
use subxt::rpcs::client::RpcSubscription;
use subxt::rpcs::methods::legacy::TransactionStatus;
use subxt::utils::{AccountId32, H256, MultiSignature};

const COMMIT_REVEAL: Entry = Entry("SubtensorModule", "CommitRevealWeightsEnabled");

/// Blocks for which a signed call stays valid. A power of two.
const ERA_BLOCKS: u64 = 64;
/// Block times to wait for inclusion, then for finality, before the chain itself is asked.
const WATCH_BLOCKS: u32 = 12;
/// The watch lasts at least this long, however short the block time.
const SHORTEST_WATCH: Duration = Duration::from_secs(20);
/// JSON-RPC code of "already imported": the same bytes are in the pool.
const CODE_ALREADY_IMPORTED: i32 = 1013;

/// A signed call whose outcome is not known yet. Enough to find out later: [`ChainClient::settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Signer.
    pub hotkey: Hotkey,
    /// Nonce that the call uses up.
    pub nonce: u64,
    /// Hash of the signed extrinsic.
    pub extrinsic: BlockHash,
    /// Block that the era is anchored at; inclusion is possible after it.
    pub born: BlockNumber,
    /// First block at which inclusion is no longer possible.
    pub dies: BlockNumber,
}

/// Why a call is not known to be done, one variant per decision.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The subnet demands commit-reveal: plain weights were not sent.
    #[error("subnet {0} demands commit-reveal; plain weights were not sent")]
    CommitRevealDemanded(Netuid),
    /// The call itself is malformed; nothing was sent.
    #[error("the call was not sent: {0}")]
    BadCall(String),
    /// The node's pool refused it: nothing entered a block.
    #[error("the pool refused the call with code {code} (custom {custom:?}): {message}")]
    Pool {
        /// JSON-RPC code, 1010 for an invalid transaction.
        code: i32,
        /// Subtensor's own number: 1 too little stake or not registered, 6 rate limit, and so on.
        custom: Option<u8>,
        /// The node's words, bounded.
        message: String,
    },
    /// It entered a finalised block and failed there.
    #[error("the call failed in block {} with {pallet}.{error}", block.number)]
    Dispatch {
        /// Pallet that failed, or `System` for errors outside of pallets.
        pallet: String,
        /// Error's name in the metadata.
        error: String,
        /// The finalised block.
        block: BlockRef,
    },
    /// It never was in a finalised block and can never be: signing anew is safe.
    #[error("nonce {} was not used by this call and its era is over or its nonce is taken", .0.nonce)]
    NeverIncluded(Pending),
    /// Nobody knows yet. Signing anew could do the same thing twice: settle first.
    #[error("the fate of nonce {} is not known; settle it before signing anew", .0.nonce)]
    FateUnknown(Pending),
    /// The chain could not be read; nothing was sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl SubmitError {
    /// The ledger's form of this error.
    #[must_use]
    pub fn to_fault(&self) -> Fault {
        let (code, retryable) = match self {
            Self::Chain(error) => return error.to_fault(),
            Self::CommitRevealDemanded(_) => ("CHAIN_COMMIT_REVEAL", false),
            Self::BadCall(_) => ("CHAIN_BAD_CALL", false),
            Self::Pool { .. } => ("CHAIN_POOL", true),
            Self::Dispatch { .. } => ("CHAIN_DISPATCH", true),
            Self::NeverIncluded(_) => ("CHAIN_NEVER_INCLUDED", true),
            Self::FateUnknown(_) => ("CHAIN_FATE_UNKNOWN", true),
        };
        Fault {
            party: Party::Chain,
            code: code.to_owned(),
            retryable,
            message: self.to_string(),
        }
    }
}

impl subxt::tx::Signer<SubstrateConfig> for HotkeyPair {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.hotkey().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(HotkeyPair::sign(self, payload))
    }
}

type Statuses = RpcSubscription<TransactionStatus<H256>>;

impl ChainClient {
    /// Signs `call` with the next nonce, tip 0 and an era of 64 blocks, sends it, and waits until its
    /// outcome is in a finalised block. A lost watch is settled from the chain's own state.
    ///
    /// # Errors
    /// [`SubmitError`] says what is known; only [`SubmitError::FateUnknown`] leaves it open.
    pub async fn submit(&self, pair: &HotkeyPair, call: Call) -> Result<Inclusion, SubmitError> {
        let payload = call.payload().map_err(SubmitError::BadCall)?;
        let one_at_a_time = self.inner.signing.lock().await;
        let (pending, bytes) = self
            .read("signing a call", self.sign(pair, &call, payload))
            .await?
            .ok_or(SubmitError::CommitRevealDemanded(call.netuid()))?;
        tracing::debug!(nonce = pending.nonce, extrinsic = %pending.extrinsic, "submitting a call");
        let statuses = self.send(&bytes).await;
        drop(one_at_a_time);
        let watched = match statuses {
            Ok(statuses) => self.watch(statuses).await,
            Err(Sent::Refused(error)) => return Err(error),
            Err(Sent::Perhaps) => None,
        };
        self.outcome(pending, watched).await
    }

    /// The signed bytes, or nothing when plain weights meet a subnet that demands commit-reveal.
    async fn sign(
        &self,
        pair: &HotkeyPair,
        call: &Call,
        payload: Payload,
    ) -> Result<Option<(Pending, Vec<u8>)>, ChainError> {
        let head = self.inner.rpc.chain_get_finalized_head().await;
        let head = head.map_err(|e| ChainError::from_rpc("reading the head", None, e))?;
        let view = self.view(self.block_at(BlockHash(head.0)).await?).await?;
        if let Call::SetMechanismWeights { netuid, .. } = call
            && demands_commit_reveal(&view, *netuid).await?
        {
            return Ok(None);
        }
        let account = AccountId32(pair.hotkey().0);
        let nonce = self.inner.rpc.system_account_next_index(&account).await;
        let nonce = nonce.map_err(|e| ChainError::from_rpc("reading the nonce", None, e))?;
        let params = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new()
            .mortal_from_unchecked(ERA_BLOCKS, view.block.number.0, H256(view.block.hash.0))
            .nonce(nonce)
            .tip(0)
            .build();
        let bytes = view
            .at
            .tx()
            .create_signable_offline(&payload, params)
            .and_then(|mut signable| signable.sign(pair))
            .map_err(|e| ChainError::unreadable("the transaction format", e))?
            .into_encoded();
        let pending = Pending {
            hotkey: pair.hotkey(),
            nonce,
            extrinsic: BlockHash(sp_crypto_hashing::blake2_256(&bytes)),
            born: view.block.number,
            dies: view.block.number.plus(ERA_BLOCKS),
        };
        Ok(Some((pending, bytes)))
    }

    async fn send(&self, bytes: &[u8]) -> Result<Statuses, Sent> {
        let limit = self.inner.settings.request_timeout;
        let sending = self.inner.rpc.author_submit_and_watch_extrinsic(bytes);
        match tokio::time::timeout(limit, sending).await {
            Ok(Ok(statuses)) => Ok(statuses),
            Ok(Err(rpcs::Error::User(e))) if e.code == CODE_ALREADY_IMPORTED => Err(Sent::Perhaps),
            Ok(Err(rpcs::Error::User(e))) => Err(Sent::Refused(refusal(&e))),
            Ok(Err(_)) | Err(_) => Err(Sent::Perhaps),
        }
    }

    /// Watches until finality; `None` when the watch was lost, ran out of time or saw the pool give
    /// the call up: none of these proves that it is not in a block.
    async fn watch(&self, mut statuses: Statuses) -> Option<BlockHash> {
        let patience = (self.inner.settings.block_time * WATCH_BLOCKS).max(SHORTEST_WATCH);
        loop {
            let status = tokio::time::timeout(patience, statuses.next())
                .await
                .ok()??;
            match status.ok()? {
                TransactionStatus::Finalized(block) => return Some(BlockHash(block.0)),
                TransactionStatus::FinalityTimeout(_)
                | TransactionStatus::Usurped(_)
                | TransactionStatus::Dropped
                | TransactionStatus::Invalid => return None,
                TransactionStatus::InBlock(block) => {
                    tracing::debug!(block = %BlockHash(block.0), "call is in a block");
                }
                TransactionStatus::Future
                | TransactionStatus::Ready
                | TransactionStatus::Broadcast(_)
                | TransactionStatus::Retracted(_) => {}
            }
        }
    }

    /// Turns a watch, kept or lost, into what is known for sure.
    async fn outcome(
        &self,
        pending: Pending,
        watched: Option<BlockHash>,
    ) -> Result<Inclusion, SubmitError> {
        if let Some(block) = watched
            && let Ok(Some(result)) = self.included_at(&pending, block).await
        {
            return result;
        }
        tracing::debug!(
            nonce = pending.nonce,
            "watch lost, asking the chain for the outcome"
        );
        let limit = self.inner.settings.block_time * (2 * u32::try_from(ERA_BLOCKS).unwrap_or(64));
        let settling = self.settle_as_blocks_come(&pending);
        match tokio::time::timeout(limit.max(SHORTEST_WATCH), settling).await {
            Ok(result) => result,
            Err(_) => Err(SubmitError::FateUnknown(pending)),
        }
    }

    async fn settle_as_blocks_come(&self, pending: &Pending) -> Result<Inclusion, SubmitError> {
        let mut blocks = self.follow();
        loop {
            match self.settle(pending).await {
                Err(SubmitError::FateUnknown(_)) => {}
                Err(SubmitError::Chain(error)) => {
                    tracing::debug!(%error, "the outcome cannot be read yet");
                }
                known => return known,
            }
            if let Err(error) = blocks.next().await {
                tracing::debug!(%error, "waiting for a block to settle a call");
            }
        }
    }
}

/// A send that gave no watch.
enum Sent {
    /// The pool answered no.
    Refused(SubmitError),
    /// It may have arrived.
    Perhaps,
}

async fn demands_commit_reveal(view: &View, netuid: Netuid) -> Result<bool, ChainError> {
    let stored = view.value(&view.key(COMMIT_REVEAL, (netuid.0,))?).await?;
    view.decode_present(COMMIT_REVEAL, stored.as_deref())
}

/// The pool's answer. Subtensor's own number comes as the text `Custom error: n` only.
fn refusal(error: &rpcs::UserError) -> SubmitError {
    let data: Option<String> = error
        .data
        .as_ref()
        .and_then(|d| serde_json::from_str(d.get()).ok());
    let custom = data
        .as_deref()
        .and_then(|d| d.strip_prefix("Custom error: ")?.parse().ok());
    let message = match data {
        Some(data) if !error.message.contains(&data) => format!("{}: {data}", error.message),
        _ => error.message.clone(),
    };
    SubmitError::Pool {
        code: error.code,
        custom,
        message: bounded(&message),
    }
}
