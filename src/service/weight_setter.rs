//! Scores to weights on chain: decided in the window, logged before, read back after.

mod decision;

use super::Latest;
use crate::bittensor::epoch::{WeightsWindow, weights_window};
use crate::bittensor::{BlockNumber, MechanismId, SubnetSnapshot, Uid};
use crate::chain::{Call, ChainClient, HotkeyPair, SubmitError};
use crate::clock::now_ms;
use crate::fault::{Fault, Party};
use crate::incentive::Era;
use crate::incentive::weights::{self, WeightVector};
use crate::shutdown::Shutdown;
use crate::store::{NewIntent, Opened, Store, StoreError, WeightEntry, WeightState};
use decision::Decision;
use std::collections::HashMap;

/// Tries of one window's vector: the first and two more.
const TRIES_MAX: usize = 3;
/// Blocks after which a signed call can no longer be included: its era of 64, and some for finality.
const CALL_LIFE_BLOCKS: u64 = 70;

/// The loop that sets weights.
#[derive(Debug)]
pub struct WeightSetter {
    /// Scores in, log out.
    pub store: Store,
    /// The chain.
    pub chain: ChainClient,
    /// The validator's hotkey.
    pub pair: HotkeyPair,
    /// The mechanism.
    pub mechanism: MechanismId,
    /// Sent with every call; not below the subnet's floor.
    pub version_key: u64,
    /// All eras.
    pub eras: Vec<Era>,
    /// The chain's newest state.
    pub latest: Latest,
}

/// What stands in the way, said once for each window.
type Said = HashMap<&'static str, BlockNumber>;

impl WeightSetter {
    /// Runs until shutdown, one step for each snapshot. Nothing is decided from memory: a restart
    /// between any two steps goes on from the log.
    ///
    /// # Errors
    /// [`StoreError`]: without its store the node must end.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), StoreError> {
        let mut latest = self.latest.clone();
        let mut said = Said::new();
        loop {
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
            }
            let snapshot = latest.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                self.step(&snapshot, &mut said).await?;
            }
        }
    }

    async fn step(&self, snapshot: &SubnetSnapshot, said: &mut Said) -> Result<(), StoreError> {
        let mut open = false;
        for entry in self.store.reader().unfinished_weights().await? {
            open |= !self.settle(&entry, snapshot).await?;
        }
        let window = snapshot
            .next_epoch_block
            .and_then(|epoch| weights_window(snapshot.hyperparameters.tempo, epoch));
        match window {
            Some(window) if !open && window.contains(snapshot.at.number) => {
                self.set(&window, snapshot, said).await
            }
            _ => Ok(()),
        }
    }

    /// Finds out what became of a logged decision; `true` when it is settled.
    async fn settle(
        &self,
        entry: &WeightEntry,
        snapshot: &SubnetSnapshot,
    ) -> Result<bool, StoreError> {
        let included = match &entry.state {
            WeightState::InBlock { block } | WeightState::Finalised { block } => Some(block.number),
            _ => None,
        };
        if included.is_some_and(|block| snapshot.at.number < block) {
            return Ok(false);
        }
        let Some(neuron) = snapshot.metagraph.by_hotkey(&self.pair.hotkey()) else {
            return Ok(false);
        };
        let row = match self.row(snapshot, neuron.uid).await {
            Ok(row) => row,
            Err(fault) => return self.note(fault).await.map(|()| false),
        };
        let fresh = included.is_some() || neuron.last_update > entry.block;
        let landed =
            WeightVector::new(entry.weights.clone()).is_ok_and(|vector| vector.matches(&row));
        let expired = snapshot.at.number.since(entry.block) > CALL_LIFE_BLOCKS;
        let next = match (fresh && landed, included) {
            (true, _) => WeightState::Confirmed { block: snapshot.at },
            (false, Some(_)) => WeightState::Failed {
                error: "ReadBackMismatch".to_owned(),
            },
            (false, None) if expired => WeightState::Failed {
                error: "NeverIncluded".to_owned(),
            },
            (false, None) => return Ok(false),
        };
        self.advance(entry, next).await.map(|()| true)
    }

    async fn row(&self, snapshot: &SubnetSnapshot, uid: Uid) -> Result<Vec<(Uid, u16)>, Fault> {
        let netuid = snapshot.metagraph.netuid();
        let row = self
            .chain
            .weights_row(snapshot.at, netuid, self.mechanism, uid)
            .await;
        row.map_err(|error| error.to_fault())
    }

    async fn set(
        &self,
        window: &WeightsWindow,
        snapshot: &SubnetSnapshot,
        said: &mut Said,
    ) -> Result<(), StoreError> {
        let name = window_name(window);
        let netuid = snapshot.metagraph.netuid();
        let done = self
            .store
            .reader()
            .last_confirmed(netuid, self.mechanism)
            .await?;
        if done.is_some_and(|entry| entry.window == name) {
            return Ok(());
        }
        let (vector, reason) = match decision::decide(&self.store, &self.eras, snapshot).await? {
            Decision::Set { vector, reason } => (vector, reason),
            Decision::Hold(why) => return self.say(said, "WEIGHTS_HELD", window, &why).await,
        };
        let hotkey = self.pair.hotkey();
        let check =
            weights::preflight(&vector, snapshot, &hotkey, self.version_key, self.mechanism);
        if let Err(error) = check {
            return self
                .say(said, "WEIGHTS_NOT_SENT", window, &error.to_string())
                .await;
        }
        let intent = NewIntent {
            window: name,
            netuid,
            mechanism: self.mechanism,
            block: snapshot.at.number,
            weights: vector.entries().to_vec(),
            reason,
        };
        let entry = match self.store.open_intent(intent, now_ms()).await? {
            Opened::New(entry) => entry,
            Opened::Known(entry) => match self.again(entry).await? {
                Some(entry) => entry,
                None => return Ok(()),
            },
        };
        self.send(&entry).await
    }

    /// A decision of this window that failed is tried again, a bounded number of times; the same
    /// vector, so that whichever try lands, the log is right.
    async fn again(&self, entry: WeightEntry) -> Result<Option<WeightEntry>, StoreError> {
        let tries = entry
            .history
            .iter()
            .filter(|(_, state)| *state == WeightState::Intended)
            .count();
        let failed = matches!(entry.state, WeightState::Failed { .. });
        if !failed || tries >= TRIES_MAX {
            return Ok(None);
        }
        self.store
            .advance_weights(entry.id, WeightState::Intended, now_ms())
            .await
            .map(Some)
    }

    async fn send(&self, entry: &WeightEntry) -> Result<(), StoreError> {
        tracing::info!(
            window = entry.window,
            entries = entry.weights.len(),
            "setting weights"
        );
        let call = Call::SetMechanismWeights {
            netuid: entry.netuid,
            mechanism: entry.mechanism,
            weights: entry.weights.clone(),
            version_key: self.version_key,
        };
        let error = match self.chain.submit(&self.pair, call).await {
            Ok(inclusion) => {
                return self
                    .advance(
                        entry,
                        WeightState::Finalised {
                            block: inclusion.block,
                        },
                    )
                    .await;
            }
            Err(error) => error,
        };
        self.note(error.to_fault()).await?;
        let next = match &error {
            SubmitError::FateUnknown(pending) => WeightState::Signed {
                extrinsic: pending.extrinsic.to_string(),
                nonce: pending.nonce,
            },
            SubmitError::Dispatch { error, .. } => WeightState::Failed {
                error: error.clone(),
            },
            other => WeightState::Failed {
                error: other.to_string(),
            },
        };
        self.advance(entry, next).await
    }

    async fn advance(&self, entry: &WeightEntry, next: WeightState) -> Result<(), StoreError> {
        tracing::info!(
            window = entry.window,
            from = entry.state.name(),
            to = next.name(),
            "weights"
        );
        self.store
            .advance_weights(entry.id, next, now_ms())
            .await
            .map(|_| ())
    }

    /// Says what stands in the way, once for each window.
    async fn say(
        &self,
        said: &mut Said,
        code: &'static str,
        window: &WeightsWindow,
        why: &str,
    ) -> Result<(), StoreError> {
        if said.insert(code, window.epoch) == Some(window.epoch) {
            return Ok(());
        }
        self.note(Fault::retryable(Party::Node, code, why)).await
    }

    async fn note(&self, fault: Fault) -> Result<(), StoreError> {
        tracing::warn!(%fault, "weights");
        self.store.record_fault(None, fault, now_ms()).await
    }
}

/// Names a window in the log: by the epoch that it is for.
fn window_name(window: &WeightsWindow) -> String {
    format!("epoch-{}", window.epoch)
}
