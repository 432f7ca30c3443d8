//! The field's vocabulary: keys, numbers, metagraph, commitments. No I/O, no clock, no settings.

mod commitment;
pub mod epoch;
mod hotkey;
mod hyperparameters;
mod ids;
mod metagraph;
mod network;
pub mod reveal;

pub use commitment::{Commitment, CommitmentField, CommitmentTextError};
pub use hotkey::{AddressError, Coldkey, Hotkey, SS58_PREFIX};
pub use hyperparameters::Hyperparameters;
pub use ids::{
    BlockHash, BlockNumber, BlockRef, MechanismId, Netuid, RoundNumber, Tempo, Uid, storage_index,
};
pub use metagraph::{Metagraph, MetagraphError, Neuron, SubnetSnapshot};
pub use network::network_name;
