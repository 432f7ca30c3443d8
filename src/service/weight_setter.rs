//! Scores to weights on chain: decided in the window, logged before, read back after.

mod decision;
mod sending;

use super::Latest;
use crate::bittensor::epoch::{WeightsWindow, weights_window};
use crate::bittensor::{BlockNumber, MechanismId, SubnetSnapshot, Uid};
use crate::chain::{ChainClient, HotkeyPair};
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
        let WeightState::Finalised { block } = entry.state else {
            let Some(next) = self.fate(entry, snapshot).await? else {
                return Ok(false);
            };
            let given_up = matches!(next, WeightState::Failed { .. });
            self.advance(entry, next).await?;
            return Ok(given_up);
        };
        if snapshot.at.number < block.number {
            return Ok(false);
        }
        let next = match snapshot.metagraph.by_hotkey(&self.pair.hotkey()) {
            None => failed("HotKeyNotRegisteredInSubNet", None),
            Some(neuron) => match self.row(snapshot, neuron.uid).await {
                Err(fault) => return self.note(fault).await.map(|()| false),
                Ok(row) if is_row(entry, &row) => WeightState::ReadBack { block: snapshot.at },
                Ok(_) => failed("ReadBackMismatch", Some(snapshot.at.number)),
            },
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
            Opened::Known(entry) => match self.again(entry, snapshot.at.number).await? {
                Some(entry) => entry,
                None => return Ok(()),
            },
        };
        self.send(&entry, snapshot).await
    }

    /// A decision of this window that failed is tried again, a bounded number of times; the same
    /// vector, so that whichever try lands, the log is right.
    async fn again(
        &self,
        entry: WeightEntry,
        now: BlockNumber,
    ) -> Result<Option<WeightEntry>, StoreError> {
        let tries = entry
            .history
            .iter()
            .filter(|(_, state)| *state == WeightState::Intended)
            .count();
        let due = matches!(entry.state, WeightState::Failed { retry_from: Some(from), .. } if from <= now);
        if !due || tries >= TRIES_MAX {
            return Ok(None);
        }
        self.store
            .advance_weights(entry.id, WeightState::Intended, now_ms())
            .await
            .map(Some)
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

/// Whether the row on chain is the vector that was decided.
fn is_row(entry: &WeightEntry, row: &[(Uid, u16)]) -> bool {
    WeightVector::new(entry.weights.clone()).is_ok_and(|vector| vector.matches(row))
}

fn failed(error: &str, retry_from: Option<BlockNumber>) -> WeightState {
    WeightState::Failed {
        error: error.to_owned(),
        retry_from,
    }
}

/// Names a window in the log: by the epoch that it is for.
fn window_name(window: &WeightsWindow) -> String {
    format!("epoch-{}", window.epoch)
}
