//! Numbers of the chain, each with its own type so that they cannot be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A subnet's number (`NetUid` on chain).
    Netuid(u16)
}
number! {
    /// A neuron's slot on a subnet. Slots are reused: key off-chain state by hotkey and
    /// registration block, never by uid.
    Uid(u16)
}
number! {
    /// One of a subnet's incentive mechanisms; 0 is the only one on most subnets.
    MechanismId(u8)
}
number! {
    /// Height of a block.
    BlockNumber(u64)
}
number! {
    /// Blocks between two epochs of a subnet (`Tempo`).
    Tempo(u16)
}
number! {
    /// Number of a round, counted from the first block of its era.
    RoundNumber(u64)
}

impl BlockNumber {
    /// Blocks from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The block `blocks` later.
    #[must_use]
    pub fn plus(self, blocks: u64) -> Self {
        Self(self.0.saturating_add(blocks))
    }
}

/// Storage key of per-mechanism values: `mechanism × 4096 + netuid` (`NetUidStorageIndex`).
#[must_use]
pub fn storage_index(netuid: Netuid, mechanism: MechanismId) -> u16 {
    u16::from(mechanism.0)
        .wrapping_mul(4096)
        .wrapping_add(netuid.0)
}

/// A block's BLAKE2b-256 header hash. Text form: `0x` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

impl std::str::FromStr for BlockHash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| format!("{text:?} is not a block hash: want 0x and 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for BlockHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A block by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// Height.
    pub number: BlockNumber,
    /// Header hash at that height.
    pub hash: BlockHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_index_is_the_chains() {
        assert_eq!(storage_index(Netuid(11), MechanismId(0)), 11);
        assert_eq!(storage_index(Netuid(11), MechanismId(2)), 8203);
    }

    #[test]
    fn block_hash_text_round_trips() {
        let hash = BlockHash([0xab; 32]);
        assert_eq!(hash.to_string().parse::<BlockHash>(), Ok(hash));
        assert!("0x12".parse::<BlockHash>().is_err());
    }
}
