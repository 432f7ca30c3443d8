//! Who asks: class, group, keys.

use serde::{Deserialize, Serialize};

use crate::bittensor::{Coldkey, Hotkey};

use super::prefix::Prefix;

/// What a client is to this subnet. Ordered from the one served first to the one shed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A scoring worker of the operator's.
    Scorer,
    /// A hotkey with a validator permit and enough stake.
    Validator,
    /// Another registered hotkey.
    Miner,
    /// An account known by its coldkey alone.
    Coldkey,
    /// Nobody known.
    Anonymous,
}

impl Class {
    /// All classes in order.
    pub const ALL: [Self; 5] = [
        Self::Scorer,
        Self::Validator,
        Self::Miner,
        Self::Coldkey,
        Self::Anonymous,
    ];

    /// The stable lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scorer => "scorer",
            Self::Validator => "validator",
            Self::Miner => "miner",
            Self::Coldkey => "coldkey",
            Self::Anonymous => "anonymous",
        }
    }

    /// Whether the protected lane is for it.
    #[must_use]
    pub fn is_protected(self) -> bool {
        matches!(self, Self::Scorer | Self::Validator)
    }
}

/// The group of those who belong to no configured one.
pub const NO_GROUP: &str = "none";

/// Who asks, as far as it was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// What it is to the subnet.
    pub class: Class,
    /// Name of its group.
    pub group: &'static str,
    /// Proven hotkey.
    pub hotkey: Option<Hotkey>,
    /// Proven coldkey, or the owner of the proven hotkey.
    pub coldkey: Option<Coldkey>,
    /// Digest of the token that the operator issued, when it came with one.
    pub issued: Option<[u8; 32]>,
    /// Where the request came from.
    pub prefix: Prefix,
}

impl Client {
    /// The short name that logs and top talkers show: a key or a network, never a token.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.hotkey, self.coldkey) {
            (Some(hotkey), _) => hotkey.to_string(),
            (None, Some(coldkey)) => coldkey.to_string(),
            (None, None) => self.prefix.to_string(),
        }
    }
}
