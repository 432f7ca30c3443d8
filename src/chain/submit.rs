//! The one door that signs and submits.
//!
//! A call goes through three hands: [`ChainClient::sign`] gives a [`SignedCall`], whose
//! [`Pending`] the caller stores; [`ChainClient::send`] takes it and gives an [`InFlight`]; its steps
//! end with a finalised block. Whatever is lost on the way, [`ChainClient::settle`] finds out from
//! the stored [`Pending`], and nothing is signed again before it has.

use super::call::{Call, Payload};
use super::connect::ChainClient;
use super::error::ChainError;
use super::fate::Inclusion;
use super::in_flight::InFlight;
use super::refusal::{Refusal, SubmitError};
use super::view::{Entry, View};
use super::wallet::HotkeyPair;
use crate::bittensor::epoch::CALL_LIFETIME_BLOCKS;
use crate::bittensor::{BlockHash, BlockNumber, Hotkey, Netuid};
use std::time::Duration;
use subxt::config::{DefaultExtrinsicParamsBuilder, SubstrateConfig};
use subxt::rpcs;
use subxt::utils::{AccountId32, H256, MultiSignature};
use tokio::sync::OwnedMutexGuard;

const COMMIT_REVEAL: Entry = Entry("SubtensorModule", "CommitRevealWeightsEnabled");

pub(super) const ERA_BLOCKS: u64 = CALL_LIFETIME_BLOCKS;
/// A call whose watch was lost is settled for at least this long, however short the block time.
const SHORTEST_SETTLING: Duration = Duration::from_secs(20);

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

/// A signed call that nobody has seen yet. While it lives no other call of this client takes a
/// nonce. Dropping it is safe: it was never sent.
#[must_use = "a signed call does nothing before it is sent"]
pub struct SignedCall {
    pending: Pending,
    bytes: Vec<u8>,
    _turn: OwnedMutexGuard<()>,
}

impl SignedCall {
    /// What must be stored before it is sent.
    #[must_use]
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The extrinsic as it will travel, length prefix included.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for SignedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedCall")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
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

impl ChainClient {
    /// Signs, sends and follows `call` until its outcome is in a finalised block; a lost watch is
    /// settled from the chain's own state. For callers that keep no record of the steps.
    ///
    /// # Errors
    /// [`SubmitError`] says what is known; only [`SubmitError::FateUnknown`] leaves it open.
    pub async fn submit(&self, pair: &HotkeyPair, call: Call) -> Result<Inclusion, SubmitError> {
        let signed = self.sign(pair, &call).await?;
        self.carry_out(signed).await
    }

    /// [`ChainClient::submit`] for what is signed already.
    ///
    /// # Errors
    /// As [`ChainClient::submit`].
    pub async fn carry_out(&self, signed: SignedCall) -> Result<Inclusion, SubmitError> {
        let outcome = match self.send(signed).await {
            Ok(mut in_flight) => in_flight.finish().await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(SubmitError::FateUnknown(pending)) => self.settle_as_blocks_come(&pending).await,
            known => known,
        }
    }

    /// Signs `call` with the next nonce (calls in the pool included), tip 0 and an era of 64 blocks
    /// from the finalised head on, for the runtime of the best block: that one will check it.
    ///
    /// # Errors
    /// [`SubmitError::BadCall`], [`SubmitError::CommitRevealDemanded`] for plain weights where the
    /// subnet demands commit-reveal, [`SubmitError::Chain`]. Nothing was sent.
    pub async fn sign(&self, pair: &HotkeyPair, call: &Call) -> Result<SignedCall, SubmitError> {
        let payload = call.payload().map_err(SubmitError::BadCall)?;
        let turn = self.inner.signing.clone().lock_owned().await;
        let (pending, bytes) = self
            .read("signing a call", self.sign_now(pair, call, payload))
            .await?
            .ok_or(SubmitError::CommitRevealDemanded(call.netuid()))?;
        Ok(SignedCall {
            pending,
            bytes,
            _turn: turn,
        })
    }

    /// The signed bytes, or nothing when plain weights meet a subnet that demands commit-reveal.
    async fn sign_now(
        &self,
        pair: &HotkeyPair,
        call: &Call,
        payload: Payload,
    ) -> Result<Option<(Pending, Vec<u8>)>, ChainError> {
        let rpc = &self.inner.rpc;
        let head = rpc.chain_get_finalized_head().await;
        let head = head.map_err(|e| ChainError::from_rpc("reading the head", None, e))?;
        let (birth, view) = tokio::try_join!(self.block_at(BlockHash(head.0)), self.best_view())?;
        self.fits(&view)?;
        if let Call::SetMechanismWeights { netuid, .. } = call
            && demands_commit_reveal(&view, *netuid).await?
        {
            return Ok(None);
        }
        let account = AccountId32(pair.hotkey().0);
        let nonce = rpc.system_account_next_index(&account).await;
        let nonce = nonce.map_err(|e| ChainError::from_rpc("reading the nonce", None, e))?;
        let params = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new()
            .mortal_from_unchecked(ERA_BLOCKS, birth.number.0, H256(birth.hash.0))
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
            born: birth.number,
            dies: birth.number.plus(ERA_BLOCKS),
        };
        Ok(Some((pending, bytes)))
    }

    /// The best block, whose runtime checks what is sent now.
    async fn best_view(&self) -> Result<View, ChainError> {
        let what = "reading the best block";
        let hash = self.inner.rpc.chain_get_block_hash(None).await;
        let hash = hash
            .map_err(|e| ChainError::from_rpc(what, None, e))?
            .ok_or_else(|| ChainError::unreadable(what, "the node has none"))?;
        self.view(self.block_at(BlockHash(hash.0)).await?).await
    }

    /// Sends a signed call, once. A lost answer and "already imported" leave it in flight without a
    /// watch: it may be in the pool.
    ///
    /// # Errors
    /// [`SubmitError::Pool`]: nothing of it is in the pool. [`SubmitError::FateUnknown`] when another
    /// call holds its nonce there: settling waits for that one.
    pub async fn send(&self, signed: SignedCall) -> Result<InFlight, SubmitError> {
        let SignedCall { pending, bytes, .. } = &signed;
        tracing::debug!(nonce = pending.nonce, extrinsic = %pending.extrinsic, "sending a call");
        let limit = self.inner.settings.request_timeout;
        let sending = self.inner.rpc.author_submit_and_watch_extrinsic(bytes);
        let statuses = match tokio::time::timeout(limit, sending).await {
            Ok(Ok(statuses)) => Some(statuses),
            Ok(Err(rpcs::Error::User(e))) => match SubmitError::from_pool(&e) {
                SubmitError::Pool {
                    refusal: Refusal::AlreadyImported,
                    ..
                } => None,
                SubmitError::Pool {
                    refusal: Refusal::PriorityTooLow,
                    ..
                } => return Err(SubmitError::FateUnknown(pending.clone())),
                refused => return Err(refused),
            },
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(InFlight::new(self.clone(), pending.clone(), statuses))
    }

    /// Sends the very bytes of a call whose fate is not known once more: if they were lost on the way
    /// they are in the pool now, and if not nothing changes, since a nonce is used once. Whether the
    /// pool holds them now is the answer.
    ///
    /// # Errors
    /// [`SubmitError::Pool`] says that the pool cannot take them at present, which proves nothing about
    /// earlier blocks; [`SubmitError::BadCall`] when `bytes` are not those of `pending`.
    pub async fn send_again(&self, pending: &Pending, bytes: &[u8]) -> Result<bool, SubmitError> {
        if sp_crypto_hashing::blake2_256(bytes) != pending.extrinsic.0 {
            let why = "the stored bytes are not those of the signed call".to_owned();
            return Err(SubmitError::BadCall(why));
        }
        let limit = self.inner.settings.request_timeout;
        let sending = self.inner.rpc.author_submit_extrinsic(bytes);
        match tokio::time::timeout(limit, sending).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(rpcs::Error::User(e))) => match SubmitError::from_pool(&e) {
                SubmitError::Pool {
                    refusal: Refusal::AlreadyImported,
                    ..
                } => Ok(true),
                refused => Err(refused),
            },
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    async fn settle_as_blocks_come(&self, pending: &Pending) -> Result<Inclusion, SubmitError> {
        let limit = self.inner.settings.block_time * (2 * u32::try_from(ERA_BLOCKS).unwrap_or(64));
        let settling = async {
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
        };
        tokio::time::timeout(limit.max(SHORTEST_SETTLING), settling)
            .await
            .unwrap_or_else(|_| Err(SubmitError::FateUnknown(pending.clone())))
    }
}

async fn demands_commit_reveal(view: &View, netuid: Netuid) -> Result<bool, ChainError> {
    let stored = view.value(&view.key(COMMIT_REVEAL, (netuid.0,))?).await?;
    view.decode_present(COMMIT_REVEAL, stored.as_deref())
}
