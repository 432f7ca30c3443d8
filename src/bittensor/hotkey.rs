//! Account keys in their one text form, SS58 with prefix 42.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sp_core::crypto::{AccountId32, Ss58AddressFormat, Ss58Codec};
use std::fmt;
use std::str::FromStr;

/// SS58 prefix that Bittensor prints and accepts.
pub const SS58_PREFIX: u16 = 42;

/// Why a text is no account address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an SS58 address with prefix 42: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

fn parse_ss58(text: &str) -> Result<[u8; 32], AddressError> {
    let fail = |reason: String| AddressError {
        text: text.chars().take(64).collect(),
        reason,
    };
    let (account, format) =
        AccountId32::from_ss58check_with_version(text).map_err(|e| fail(e.to_string()))?;
    if format != Ss58AddressFormat::custom(SS58_PREFIX) {
        return Err(fail("it carries another network's prefix".to_owned()));
    }
    Ok(account.into())
}

macro_rules! account_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes of the public key.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&AccountId32::from(self.0).to_ss58check())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = AddressError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_ss58(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

account_key! {
    /// The key by which a neuron acts on a subnet (sr25519 public key). Ordered by its bytes.
    Hotkey
}
account_key! {
    /// The key that owns hotkeys and their stake. The node never holds its secret.
    Coldkey
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn alice_round_trips() {
        let key: Hotkey = ALICE.parse().unwrap();
        assert_eq!(
            hex::encode(key.0),
            "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
        );
        assert_eq!(key.to_string(), ALICE);
    }

    #[test]
    fn other_prefix_and_broken_checksum_are_refused() {
        // The same key with Polkadot's prefix 0.
        assert!(
            "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"
                .parse::<Hotkey>()
                .is_err()
        );
        assert!(
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQX"
                .parse::<Hotkey>()
                .is_err()
        );
        assert!("".parse::<Hotkey>().is_err());
    }
}
