//! Scores to weights on chain: decided in the window, logged before, read back after.

mod decision;
mod sending;

use super::Latest;
use crate::bittensor::epoch::{WeightsWindow, weights_window};
use crate::bittensor::reveal::Beacon;
use crate::bittensor::{BlockNumber, SubnetSnapshot, Uid};
use crate::chain::{ChainClient, HotkeyPair};
use crate::clock::now_ms;
use crate::fault::{Fault, Party};
use crate::incentive::Era;
use crate::incentive::weights::{self, WeightVector};
use crate::shutdown::Shutdown;
use crate::store::{NewIntent, Opened, Reveal, Store, StoreError, WeightEntry, WeightState};
use decision::{Decision, Terms};
use std::collections::HashMap;

/// Signatures for one window's vector: the first and two more. Failures before signing cost none; they
/// are bounded by the window's blocks.
const TRIES_MAX: usize = 3;
/// Blocks of the reveal epoch in which a pulse may come late.
const REVEAL_BLOCKS: u64 = 20;

/// The loop that sets weights.
#[derive(Debug)]
pub struct WeightSetter {
    /// Scores in, log out.
    pub store: Store,
    /// The chain.
    pub chain: ChainClient,
    /// The validator's hotkey.
    pub pair: HotkeyPair,
    /// Sent with every call; not below the subnet's floor.
    pub version_key: u64,
    /// The beacon that the chain's reveals go by.
    pub beacon: Beacon,
    /// The chain's block time in milliseconds.
    pub block_ms: u64,
    /// All eras.
    pub eras: Vec<Era>,
    /// Blocks for which the last good weights are sent again while there are no scores; after that
    /// everything is burnt.
    pub last_good_blocks: u64,
    /// The chain's newest state.
    pub latest: Latest,
}

/// What stands in the way, said once for each window.
type Said = HashMap<String, BlockNumber>;

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
        let reveal = entry.signed().and_then(|signed| signed.reveal);
        if reveal.is_some_and(|reveal| snapshot.at.number < reveal.from) {
            // Nothing to read yet, and nothing in the way of the next epoch's commit.
            return Ok(true);
        }
        let next = match snapshot.metagraph.by_hotkey(&self.pair.hotkey()) {
            None => failed("HotKeyNotRegisteredInSubNet", None),
            Some(neuron) => match self.row(snapshot, neuron.uid).await {
                Err(fault) => return self.note(fault).await.map(|()| false),
                Ok(row) if is_row(entry, &row) => WeightState::ReadBack { block: snapshot.at },
                Ok(_) => match reveal {
                    None => failed("ReadBackMismatch", Some(snapshot.at.number)),
                    Some(reveal) if snapshot.at.number <= reveal_ends(reveal, snapshot) => {
                        return Ok(true);
                    }
                    Some(reveal) => {
                        self.note(not_revealed(entry, reveal)).await?;
                        failed("NotRevealed", None)
                    }
                },
            },
        };
        self.advance(entry, next).await.map(|()| true)
    }

    async fn row(&self, snapshot: &SubnetSnapshot, uid: Uid) -> Result<Vec<(Uid, u16)>, Fault> {
        let netuid = snapshot.metagraph.netuid();
        let row = self
            .chain
            .weights_row(snapshot.at, netuid, snapshot.mechanism, uid)
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
        let (netuid, mechanism) = (snapshot.metagraph.netuid(), snapshot.mechanism);
        let done = self.store.reader().last_confirmed(netuid, mechanism);
        let done = done.await?;
        if done.is_some_and(|entry| entry.window == name) {
            return Ok(());
        }
        if let Err(error) = self.chain.check_runtime(snapshot.at).await {
            return self.say_fault(said, error.to_fault(), window).await;
        }
        let terms = Terms {
            store: &self.store,
            eras: &self.eras,
            last_good_blocks: self.last_good_blocks,
            window,
        };
        let chosen = match decision::decide(terms, snapshot).await? {
            Decision::Set(chosen) => chosen,
            Decision::Hold(why) => return self.say(said, "WEIGHTS_HELD", window, &why).await,
        };
        let hotkey = self.pair.hotkey();
        let check = weights::preflight(&chosen.vector, snapshot, &hotkey, self.version_key);
        if let Err(error) = check {
            return self
                .say(said, "WEIGHTS_NOT_SENT", window, &error.to_string())
                .await;
        }
        if chosen.stands_in {
            let code = match chosen.scored_block {
                Some(_) => "WEIGHTS_LAST_GOOD",
                None => "WEIGHTS_BURNT",
            };
            self.say(said, code, window, &chosen.reason).await?;
        }
        let intent = NewIntent {
            window: name,
            netuid,
            mechanism,
            block: snapshot.at.number,
            scored_block: chosen.scored_block,
            weights: chosen.vector.entries().to_vec(),
            reason: chosen.reason,
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
            .filter(|(_, state)| matches!(state, WeightState::Signed(_)))
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
        let fault = Fault::retryable(Party::Node, code, why);
        self.say_fault(said, fault, window).await
    }

    async fn say_fault(
        &self,
        said: &mut Said,
        fault: Fault,
        window: &WeightsWindow,
    ) -> Result<(), StoreError> {
        if said.insert(fault.code.clone(), window.epoch) == Some(window.epoch) {
            return Ok(());
        }
        self.note(fault).await
    }

    async fn note(&self, fault: Fault) -> Result<(), StoreError> {
        tracing::warn!(%fault, "weights");
        self.store.record_fault(None, fault, now_ms()).await
    }
}

/// Last block at which a commit is still waited for. The chain tries again at each block of the
/// reveal epoch, but the next window must not be reached with this one open.
fn reveal_ends(reveal: Reveal, snapshot: &SubnetSnapshot) -> BlockNumber {
    let third = u64::from(snapshot.hyperparameters.tempo.0) / 3;
    reveal.from.plus(third.clamp(1, REVEAL_BLOCKS))
}

/// The chain says nothing when a reveal fails, so this is the only sign.
fn not_revealed(entry: &WeightEntry, reveal: Reveal) -> Fault {
    let Reveal { round, from } = reveal;
    let window = &entry.window;
    let message = format!(
        "weights of {window} were committed for round {round} and are not on chain after block {from}: \
         the pulse was missing or the chain's checks failed; the next window commits anew"
    );
    Fault::retryable(Party::Chain, "CHAIN_NOT_REVEALED", message)
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
