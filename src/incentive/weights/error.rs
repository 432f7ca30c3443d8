//! Why a weight vector is not made or not sent.

use crate::bittensor::{BlockNumber, Hotkey, MechanismId, Uid};

/// Nothing may be sent. The variants that the chain would answer with carry its error's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// The vector has no entry with weight.
    #[error("the weight vector is empty")]
    Empty,
    /// Every value is 0.
    #[error("every weight is 0")]
    AllZero,
    /// A share is negative, NaN or infinite.
    #[error("the share of uid {0} is no number of 0 or more")]
    NotAShare(Uid),
    /// The burn share has no target: the owner's hotkey holds no uid at this block.
    #[error("the subnet owner's hotkey {0} holds no uid, so the burn share has no target")]
    OwnerNotRegistered(Hotkey),
    /// Subnet 0 takes no weights.
    #[error("subnet 0 takes no weights")]
    RootNetwork,
    /// The subnet has no such mechanism.
    #[error("the subnet has no mechanism {0}; correct chain.mechanism")]
    MechanismDoesNotExist(MechanismId),
    /// More entries than neurons.
    #[error("{entries} weights for {neurons} neurons")]
    UidsLengthExceedUidsInSubNet {
        /// Entries of the vector.
        entries: usize,
        /// Neurons on the subnet.
        neurons: usize,
    },
    /// Our hotkey holds no uid.
    #[error("hotkey {0} is not registered on the subnet; register it")]
    HotKeyNotRegisteredInSubNet(Hotkey),
    /// Too little stake to set weights.
    #[error(
        "stake {stake} is below the threshold {threshold}, in the chain's 10^-9 unit; add stake"
    )]
    NotEnoughStakeToSetWeights {
        /// Our total stake.
        stake: u64,
        /// `StakeThreshold`.
        threshold: u64,
    },
    /// The subnet owner demands a newer version.
    #[error("version key {ours} is below the subnet's {required}; update the node")]
    IncorrectWeightVersionKey {
        /// What we would send.
        ours: u64,
        /// The subnet's floor.
        required: u64,
    },
    /// The rate limit since the last update has not passed.
    #[error("{wait} blocks too early; the chain accepts weights from block {from} on")]
    SettingWeightsTooFast {
        /// Blocks to wait.
        wait: u64,
        /// First block that is accepted.
        from: BlockNumber,
    },
    /// Our neuron may not set weights on others.
    #[error("uid {0} has no validator permit")]
    NeuronNoValidatorPermit(Uid),
    /// A uid occurs twice.
    #[error("uid {0} occurs twice")]
    DuplicateUids(Uid),
    /// A uid without neuron.
    #[error("uid {0} does not exist on the subnet")]
    UidVecContainInvalidOne(Uid),
    /// Fewer entries than `MinAllowedWeights`.
    #[error("{entries} weights, the subnet demands {required}")]
    WeightVecLengthIsLow {
        /// Entries of the vector.
        entries: usize,
        /// The smaller of `MinAllowedWeights` and the number of neurons.
        required: usize,
    },
    /// One entry's part exceeds `MaxWeightsLimit`.
    #[error("{entries} weights cannot each stay within {limit} of 65535")]
    MaxWeightExceeded {
        /// Entries with weight.
        entries: usize,
        /// `MaxWeightsLimit`.
        limit: u16,
    },
}

impl WeightError {
    /// The name of the pallet's error that the chain would answer with, if it would.
    #[must_use]
    pub fn pallet_error(&self) -> Option<&'static str> {
        Some(match self {
            Self::Empty | Self::AllZero | Self::NotAShare(_) | Self::OwnerNotRegistered(_) => {
                return None;
            }
            Self::RootNetwork => "CanNotSetRootNetworkWeights",
            Self::MechanismDoesNotExist(_) => "MechanismDoesNotExist",
            Self::UidsLengthExceedUidsInSubNet { .. } => "UidsLengthExceedUidsInSubNet",
            Self::HotKeyNotRegisteredInSubNet(_) => "HotKeyNotRegisteredInSubNet",
            Self::NotEnoughStakeToSetWeights { .. } => "NotEnoughStakeToSetWeights",
            Self::IncorrectWeightVersionKey { .. } => "IncorrectWeightVersionKey",
            Self::SettingWeightsTooFast { .. } => "SettingWeightsTooFast",
            Self::NeuronNoValidatorPermit(_) => "NeuronNoValidatorPermit",
            Self::DuplicateUids(_) => "DuplicateUids",
            Self::UidVecContainInvalidOne(_) => "UidVecContainInvalidOne",
            Self::WeightVecLengthIsLow { .. } => "WeightVecLengthIsLow",
            Self::MaxWeightExceeded { .. } => "MaxWeightExceeded",
        })
    }
}
