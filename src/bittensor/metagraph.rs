//! The neurons of a subnet at one block.

use super::{
    BlockNumber, BlockRef, Coldkey, Commitment, Hotkey, Hyperparameters, MechanismId, Netuid, Uid,
};

/// One registered neuron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neuron {
    /// Slot; equals the index in [`Metagraph::neurons`].
    pub uid: Uid,
    /// Key that acts for the neuron.
    pub hotkey: Hotkey,
    /// Key that owns the hotkey.
    pub coldkey: Coldkey,
    /// `Active[uid]`: weights set within the activity cutoff.
    pub active: bool,
    /// `ValidatorPermit[uid]`: may set weights on others.
    pub validator_permit: bool,
    /// Block of the last weights call (under commit-reveal: of the last commit), or of the
    /// registration; 0: never. The chain keeps one for each mechanism.
    pub last_update: BlockNumber,
    /// `BlockAtRegistration`: the beginning of this hotkey's present life in the slot.
    pub registered_at: BlockNumber,
    /// `total_stake` of the runtime API in the chain's 10⁻⁹ unit: inherited alpha plus inherited
    /// root TAO × TAO weight. This is what is compared with `StakeThreshold`.
    pub total_stake: u64,
    /// Share of the last epoch's incentive, u16::MAX = 1.
    pub incentive: u16,
    /// Emission of the last epoch in 10⁻⁹ alpha.
    pub emission: u64,
}

/// All neurons of one subnet at one block, without gaps: `neurons[i].uid == i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metagraph {
    netuid: Netuid,
    neurons: Vec<Neuron>,
}

/// The runtime's answer holds no well-formed list of neurons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetagraphError {
    /// Position and uid disagree.
    #[error("neuron {index} carries uid {uid}; the list must have no gap")]
    Gap {
        /// Position in the list.
        index: usize,
        /// The uid found there.
        uid: Uid,
    },
    /// One hotkey holds two slots, which the pallet excludes.
    #[error("hotkey {0} holds two uids")]
    DuplicateHotkey(Hotkey),
}

impl Metagraph {
    /// Checks that uids are 0, 1, 2, … and that no hotkey appears twice.
    ///
    /// # Errors
    /// [`MetagraphError`] names the first violation.
    pub fn new(netuid: Netuid, neurons: Vec<Neuron>) -> Result<Self, MetagraphError> {
        let mut seen = std::collections::HashSet::with_capacity(neurons.len());
        for (index, neuron) in neurons.iter().enumerate() {
            if usize::from(neuron.uid.0) != index {
                return Err(MetagraphError::Gap {
                    index,
                    uid: neuron.uid,
                });
            }
            if !seen.insert(neuron.hotkey) {
                return Err(MetagraphError::DuplicateHotkey(neuron.hotkey));
            }
        }
        Ok(Self { netuid, neurons })
    }

    /// The subnet.
    #[must_use]
    pub fn netuid(&self) -> Netuid {
        self.netuid
    }

    /// All neurons, ordered by uid.
    #[must_use]
    pub fn neurons(&self) -> &[Neuron] {
        &self.neurons
    }

    /// The neuron of `hotkey`, if it is registered.
    #[must_use]
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }

    /// The neuron in slot `uid`.
    #[must_use]
    pub fn by_uid(&self, uid: Uid) -> Option<&Neuron> {
        self.neurons.get(usize::from(uid.0))
    }
}

/// Everything that decisions need from the chain, read whole at one finalised block hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSnapshot {
    /// The block that all values belong to.
    pub at: BlockRef,
    /// The chain's own clock at that block (`Timestamp.Now`), unix milliseconds.
    pub timestamp_ms: u64,
    /// Runtime that answered.
    pub spec_version: u32,
    /// `SubnetOwnerHotkey`: where the burn share goes, by its uid at this block.
    pub owner_hotkey: Hotkey,
    /// `SubnetOwner`.
    pub owner_coldkey: Coldkey,
    /// All neurons.
    pub metagraph: Metagraph,
    /// The mechanism that each neuron's `last_update` is of.
    pub mechanism: MechanismId,
    /// `MechanismCountCurrent`: mechanisms 0 to this number less one exist.
    pub mechanism_count: u8,
    /// The subnet's parameters.
    pub hyperparameters: Hyperparameters,
    /// First block at which the next epoch may fire; `None` when the tempo is 0.
    pub next_epoch_block: Option<BlockNumber>,
    /// Latest commitment of every account that has one, also of unregistered accounts.
    pub commitments: Vec<Commitment>,
}
