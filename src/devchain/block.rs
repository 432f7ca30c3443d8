//! Blocks: header, hash, body, and their JSON forms.

use codec::{Compact, Encode};
use serde_json::{Value, json};
use sp_crypto_hashing::blake2_256;

/// A 32-byte hash.
pub(super) type Hash = [u8; 32];

/// A Substrate header with one digest item, the Aura slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) parent: Hash,
    pub(super) number: u32,
    /// A running digest of all state changes, not the root of a trie: no proofs are served.
    pub(super) state_root: Hash,
    pub(super) extrinsics_root: Hash,
    pub(super) slot: u64,
}

impl Header {
    /// `DigestItem::PreRuntime(*b"aura", slot)`.
    fn digest(&self) -> Vec<u8> {
        (6u8, *b"aura", self.slot.encode()).encode()
    }

    /// SCALE bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.parent.to_vec();
        Compact(self.number).encode_to(&mut out);
        out.extend(self.state_root);
        out.extend(self.extrinsics_root);
        Compact(1u32).encode_to(&mut out);
        out.extend(self.digest());
        out
    }

    /// BLAKE2b-256 of the SCALE bytes.
    pub(super) fn hash(&self) -> Hash {
        blake2_256(&self.encode())
    }

    /// The JSON form of `chain_getHeader`.
    pub(super) fn json(&self) -> Value {
        json!({
            "parentHash": hex0x(&self.parent),
            "number": format!("{:#x}", self.number),
            "stateRoot": hex0x(&self.state_root),
            "extrinsicsRoot": hex0x(&self.extrinsics_root),
            "digest": { "logs": [hex0x(&self.digest())] },
        })
    }
}

/// A sealed block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) hash: Hash,
    pub(super) header: Header,
    /// Each with its length prefix, as they travel.
    pub(super) extrinsics: Vec<Vec<u8>>,
}

impl Block {
    /// The JSON form of `chain_getBlock`.
    pub(super) fn json(&self) -> Value {
        let extrinsics: Vec<String> = self.extrinsics.iter().map(|e| hex0x(e)).collect();
        json!({
            "block": { "header": self.header.json(), "extrinsics": extrinsics },
            "justifications": null,
        })
    }
}

/// BLAKE2b-256 over the SCALE list; stands where a real node puts a trie root.
pub(super) fn extrinsics_root(extrinsics: &[Vec<u8>]) -> Hash {
    blake2_256(&extrinsics.encode())
}

/// `0x` and lower-case hex.
pub(super) fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_a_real_header() {
        let bytes = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
        let header = Header {
            parent: bytes("ae73df4e0745baf772b409a88bca7b69caa0986329b32fe7370b62d35d34214f"),
            number: 0x58,
            state_root: [0; 32],
            extrinsics_root: bytes(
                "0f32f16d5e5a461ef0a8e50cbc3cd7f8bc0c188249d0dd3beb456731bf183294",
            ),
            slot: 0x08ea_dfc3,
        };
        assert_eq!(
            header.json()["digest"]["logs"][0],
            "0x066175726120c3dfea0800000000"
        );
        assert_eq!(
            hex::encode(header.hash()),
            "298544c21299649d6964bd339960c581162d59d5155c9626a80193b12bf7ba54"
        );
    }
}
