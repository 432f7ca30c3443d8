//! What the reveal round of a weights commit is computed from.

use super::connect::ChainClient;
use super::error::ChainError;
use super::view::Entry;
use crate::bittensor::reveal::EpochState;
use crate::bittensor::{BlockNumber, BlockRef, Netuid, Tempo};

const TEMPO: Entry = Entry("SubtensorModule", "Tempo");
const SINCE_STEP: Entry = Entry("SubtensorModule", "BlocksSinceLastStep");
const LAST_EPOCH_BLOCK: Entry = Entry("SubtensorModule", "LastEpochBlock");
const PENDING_EPOCH_AT: Entry = Entry("SubtensorModule", "PendingEpochAt");
const EPOCH_INDEX: Entry = Entry("SubtensorModule", "SubnetEpochIndex");

impl ChainClient {
    /// The subnet's epoch counter at one block. Two requests.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn epoch_state(
        &self,
        at: BlockRef,
        netuid: Netuid,
    ) -> Result<EpochState, ChainError> {
        self.read("reading the epoch counter", async {
            let view = self.view(at).await?;
            let counts = [LAST_EPOCH_BLOCK, PENDING_EPOCH_AT, EPOCH_INDEX];
            let counted = counts.iter().all(|entry| view.has(*entry));
            let mut entries = vec![TEMPO];
            if counted {
                entries.extend([SINCE_STEP, LAST_EPOCH_BLOCK, PENDING_EPOCH_AT, EPOCH_INDEX]);
            }
            let keys: Result<Vec<_>, _> = entries
                .iter()
                .map(|entry| view.key(*entry, (netuid.0,)))
                .collect();
            let values = view.values(&keys?).await?;
            let value = |i: usize| values.get(i).and_then(Option::as_deref);
            let tempo: u16 = view.decode_present(TEMPO, value(0))?;
            if !counted {
                let state = EpochState::by_block_number(netuid, Tempo(tempo), at.number);
                return Ok(state);
            }
            Ok(EpochState {
                block: at.number,
                since_step: view.decode_present(SINCE_STEP, value(1))?,
                last_epoch: BlockNumber(view.decode_present(LAST_EPOCH_BLOCK, value(2))?),
                pending: BlockNumber(view.decode_present(PENDING_EPOCH_AT, value(3))?),
                index: view.decode_present(EPOCH_INDEX, value(4))?,
                tempo: tempo.into(),
            })
        })
        .await
    }
}
