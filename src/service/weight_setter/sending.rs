//! From a logged intent to a finalised block, each step stored before the next one is taken.

use super::WeightSetter;
use crate::bittensor::epoch::rate_limit_wait;
use crate::bittensor::reveal::reveal_round;
use crate::bittensor::{BlockNumber, SubnetSnapshot};
use crate::chain::{
    Call, ChainError, Inclusion, Pending, Remedy, SignedCall, Step, SubmitError, timelock,
};
use crate::clock::now_ms;
use crate::store::{Reveal, SignedState, StoreError, WeightEntry, WeightState};

/// Blocks before a new try where the pool asked for a pause, or counts blocks ahead of finality.
const PAUSE_BLOCKS: u64 = 3;

impl WeightSetter {
    /// Signs, sends and follows one intent. The signature is stored before it is sent, so that a
    /// restart settles its fate before anything is signed again.
    pub(super) async fn send(
        &self,
        entry: &WeightEntry,
        snapshot: &SubnetSnapshot,
    ) -> Result<(), StoreError> {
        tracing::info!(
            window = entry.window,
            entries = entry.weights.len(),
            "setting weights"
        );
        let (call, reveal) = match self.call(entry, snapshot).await {
            Ok(call) => call,
            Err(error) => return self.failed(entry, &error, snapshot).await,
        };
        let signed = match self.chain.sign(&self.pair, &call).await {
            Ok(signed) => signed,
            Err(error) => return self.failed(entry, &error, snapshot).await,
        };
        let state = WeightState::Signed(signed_state(&signed, reveal));
        self.advance(entry, state).await?;
        let mut in_flight = match self.chain.send(signed).await {
            Ok(in_flight) => in_flight,
            Err(error) => return self.failed(entry, &error, snapshot).await,
        };
        if in_flight.is_pooled() {
            self.advance(entry, WeightState::Pooled).await?;
        }
        loop {
            match in_flight.next().await {
                Ok(Step::InBlock { block, failed }) => {
                    self.advance(entry, WeightState::InBlock { block, failed })
                        .await?;
                }
                Ok(Step::Finalised(Inclusion { block, .. })) => {
                    return self.advance(entry, WeightState::Finalised { block }).await;
                }
                Err(error) => return self.failed(entry, &error, snapshot).await,
            }
        }
    }

    /// The call that this subnet wants: plain weights, or a commit that opens in the reveal epoch.
    async fn call(
        &self,
        entry: &WeightEntry,
        snapshot: &SubnetSnapshot,
    ) -> Result<(Call, Option<Reveal>), SubmitError> {
        let (netuid, mechanism) = (entry.netuid, entry.mechanism);
        if !snapshot.hyperparameters.commit_reveal_weights_enabled {
            let call = Call::SetMechanismWeights {
                netuid,
                mechanism,
                weights: entry.weights.clone(),
                version_key: self.version_key,
            };
            return Ok((call, None));
        }
        let state = self.chain.epoch_state(snapshot.at, netuid).await;
        let state = state.map_err(SubmitError::Chain)?;
        let period = snapshot.hyperparameters.commit_reveal_period;
        let clock = (snapshot.timestamp_ms, self.block_ms);
        let round = reveal_round(&state, period, clock, &self.beacon);
        let (Some(round), Some(from)) = (round, state.reveal_block(period)) else {
            let why = "the subnet has no epochs, so a commit would never be revealed";
            return Err(SubmitError::BadCall(why.to_owned()));
        };
        let plain = timelock::payload(&self.pair.hotkey(), &entry.weights, self.version_key);
        let commit = timelock::encrypt(&self.beacon, round, &plain, rand::random())
            .map_err(|error| SubmitError::BadCall(error.to_string()))?;
        let call = Call::CommitTimelockedWeights {
            netuid,
            mechanism,
            commit,
            reveal_round: round,
        };
        Ok((call, Some(Reveal { round, from })))
    }

    /// Finds out from nonce and events what became of a signed intent; the entry's next state, or
    /// nothing while nobody can know.
    pub(super) async fn fate(
        &self,
        entry: &WeightEntry,
        snapshot: &SubnetSnapshot,
    ) -> Result<Option<WeightState>, StoreError> {
        let Some(pending) = self.pending(entry) else {
            // Stopped between the intent and the signature: nothing was sent.
            let error = "NotSigned".to_owned();
            let retry_from = Some(snapshot.at.number);
            return Ok(Some(WeightState::Failed { error, retry_from }));
        };
        match self.chain.settle(&pending).await {
            Ok(Inclusion { block, .. }) => Ok(Some(WeightState::Finalised { block })),
            Err(SubmitError::FateUnknown(_)) => Ok(self.again_on_its_way(entry, &pending).await),
            // Its era is over, so it cannot come any more; whether it came, the row must tell.
            Err(SubmitError::Chain(ChainError::BlockGone { .. }))
                if snapshot.at.number >= pending.dies =>
            {
                Ok(Some(WeightState::Finalised { block: snapshot.at }))
            }
            Err(SubmitError::Chain(error)) => {
                self.note(error.to_fault()).await?;
                Ok(None)
            }
            Err(error) => {
                self.note(error.to_fault()).await?;
                Ok(Some(failure(&error, snapshot, self)))
            }
        }
    }

    /// A call that may have been lost on the way is sent again, the same bytes. Pooled is said only of
    /// an entry that was not further yet.
    async fn again_on_its_way(
        &self,
        entry: &WeightEntry,
        pending: &Pending,
    ) -> Option<WeightState> {
        let bytes = hex::decode(&entry.signed()?.bytes).ok()?;
        if bytes.is_empty() {
            return None;
        }
        match self.chain.send_again(pending, &bytes).await {
            Ok(true) => entry
                .state
                .may_become(&WeightState::Pooled)
                .then_some(WeightState::Pooled),
            Ok(false) => None,
            Err(error) => {
                tracing::debug!(%error, "the signed call was not taken again; its fate stays open");
                None
            }
        }
    }

    fn pending(&self, entry: &WeightEntry) -> Option<Pending> {
        let signed = entry.signed()?;
        Some(Pending {
            hotkey: self.pair.hotkey(),
            nonce: signed.nonce,
            extrinsic: signed.extrinsic.parse().ok()?,
            born: signed.born,
            dies: signed.dies,
        })
    }

    /// Records why a step did not lead on. A fate that is not known changes nothing: it is settled at
    /// the next block.
    async fn failed(
        &self,
        entry: &WeightEntry,
        error: &SubmitError,
        snapshot: &SubnetSnapshot,
    ) -> Result<(), StoreError> {
        self.note(error.to_fault()).await?;
        match error {
            SubmitError::FateUnknown(_) => Ok(()),
            error => self.advance(entry, failure(error, snapshot, self)).await,
        }
    }

    pub(super) async fn advance(
        &self,
        entry: &WeightEntry,
        next: WeightState,
    ) -> Result<(), StoreError> {
        tracing::info!(window = entry.window, to = next.name(), "weights");
        self.store
            .advance_weights(entry.id, next, now_ms())
            .await
            .map(|_| ())
    }
}

fn signed_state(signed: &SignedCall, reveal: Option<Reveal>) -> SignedState {
    let pending = signed.pending();
    SignedState {
        bytes: hex::encode(signed.encoded()),
        extrinsic: pending.extrinsic.to_string(),
        nonce: pending.nonce,
        born: pending.born,
        dies: pending.dies,
        reveal,
    }
}

/// The failed state, with the first block at which another try makes sense.
fn failure(error: &SubmitError, snapshot: &SubnetSnapshot, setter: &WeightSetter) -> WeightState {
    let now = snapshot.at.number;
    let retry_from = match error.remedy() {
        Remedy::SignAnew | Remedy::RecomputeRound | Remedy::AwaitFirst => Some(now),
        Remedy::Pause => Some(now.plus(PAUSE_BLOCKS)),
        Remedy::AwaitRateLimit => Some(after_rate_limit(snapshot, setter)),
        Remedy::Stop => None,
    };
    match error {
        // A snapshot from before that block would only repeat it.
        SubmitError::Dispatch { error, block, .. } => WeightState::Failed {
            error: error.clone(),
            retry_from: retry_from.map(|from| from.max(block.number.plus(1))),
        },
        SubmitError::NeverIncluded(_) => WeightState::Failed {
            error: "NeverIncluded".to_owned(),
            retry_from,
        },
        other => WeightState::Failed {
            error: other.to_string(),
            retry_from,
        },
    }
}

/// When the rate limit is over by this snapshot; the pool judges by the best block and its own
/// `last_update`, so at least a pause from now.
fn after_rate_limit(snapshot: &SubnetSnapshot, setter: &WeightSetter) -> BlockNumber {
    let now = snapshot.at.number;
    let limit = snapshot.hyperparameters.weights_rate_limit;
    let neuron = snapshot.metagraph.by_hotkey(&setter.pair.hotkey());
    let wait = neuron.map_or(0, |n| rate_limit_wait(n.last_update, limit, now));
    now.plus(wait.max(PAUSE_BLOCKS))
}
