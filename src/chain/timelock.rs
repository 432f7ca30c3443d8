//! Weights that nobody can read before their time: timelock encryption to a drand round, in the bytes
//! that the chain and the field's other clients use.
//!
//! The scheme is BF-IBE (FullIdent) on BLS12-381 with the round as identity, and AES-256-GCM under a
//! fresh key for the body. The crate `timelock` 0.0.1 has the chain's framing but pins a `w3f-bls`
//! that sp-core cannot share; 0.3.0 computes the same and leaves out the two length words before V
//! and W, which [`encrypt`] puts back.

use crate::bittensor::reveal::Beacon;
use crate::bittensor::{Hotkey, Uid};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use ark_std::rand::rngs::StdRng;
use ark_std::rand::{RngCore, SeedableRng};
use codec::Encode;
use sha2::{Digest, Sha256};
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::{EngineBLS, drand::TinyBLS381};
use timelock::ibe::fullident::Identity;
use timelock::tlock::tle;

/// Compressed size of U at the head of a ciphertext, a point of G2.
const G2_BYTES: usize = 96;
/// Size of V and of W.
const WORD_BYTES: usize = 32;

/// Why nothing was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimelockError {
    /// The beacon's key is no point of the curve's group.
    #[error("the beacon's public key is no point of G2: check the beacon in the configuration")]
    PublicKey,
    /// The library failed.
    #[error("encrypting for round {0} failed")]
    Encrypt(u64),
}

/// `WeightsTlockPayload`: SCALE of (hotkey, uids, values, version key). The chain refuses a payload
/// whose hotkey is not the committer's.
#[must_use]
pub fn payload(hotkey: &Hotkey, weights: &[(Uid, u16)], version_key: u64) -> Vec<u8> {
    let uids: Vec<u16> = weights.iter().map(|(uid, _)| uid.0).collect();
    let values: Vec<u16> = weights.iter().map(|(_, value)| *value).collect();
    (hotkey.0.to_vec(), uids, values, version_key).encode()
}

/// Encrypts `plaintext` so that only the beacon's signature of `round` opens it; 244 bytes longer
/// than the plaintext. `seed` must be fresh randomness: it makes the key and the nonce.
///
/// Layout: U (G2, 96 bytes) ‖ 32 ‖ V ‖ 32 ‖ W ‖ body length ‖ body ‖ 8 ‖ `AES_GCM_`, lengths as
/// little-endian u64.
///
/// # Errors
/// [`TimelockError`].
pub fn encrypt(
    beacon: &Beacon,
    round: u64,
    plaintext: &[u8],
    seed: [u8; 32],
) -> Result<Vec<u8>, TimelockError> {
    type Key = <TinyBLS381 as EngineBLS>::PublicKeyGroup;
    let key = Key::deserialize_compressed(&beacon.public_key[..])
        .map_err(|_| TimelockError::PublicKey)?;
    let mut rng = StdRng::from_seed(seed);
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let sealed =
        tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(key, secret, plaintext, identity, rng)
            .map_err(|_| TimelockError::Encrypt(round))?;
    let mut bytes = Vec::new();
    sealed
        .serialize_compressed(&mut bytes)
        .map_err(|_| TimelockError::Encrypt(round))?;
    let word = 32u64.to_le_bytes();
    bytes.splice(G2_BYTES + WORD_BYTES..G2_BYTES + WORD_BYTES, word);
    bytes.splice(G2_BYTES..G2_BYTES, word);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_the_chains() {
        let bytes = payload(&Hotkey([7; 32]), &[(Uid(1), 2), (Uid(300), 65_535)], 9);
        let mut want = vec![0x80];
        want.extend([7; 32]);
        want.extend([0x08, 1, 0, 0x2c, 1, 0x08, 2, 0, 0xff, 0xff]);
        want.extend(9u64.to_le_bytes());
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_ciphertext_has_the_chains_layout() {
        let sealed = encrypt(&Beacon::quicknet(), 1000, b"hello", [3; 32]).unwrap();
        assert_eq!(sealed.len(), 5 + 244);
        let word = |at: usize| u64::from_le_bytes(sealed[at..at + 8].try_into().unwrap());
        assert_eq!((word(96), word(136)), (32, 32));
        assert_eq!(word(176), 8 + 5 + 16 + 8 + 12);
        assert!(sealed.ends_with(b"\x08\0\0\0\0\0\0\0AES_GCM_"));
        let other = encrypt(&Beacon::quicknet(), 1000, b"hello", [4; 32]).unwrap();
        assert_ne!(sealed, other);
        let bad = Beacon {
            public_key: [9; 96],
            ..Beacon::quicknet()
        };
        assert_eq!(
            encrypt(&bad, 1, b"", [0; 32]),
            Err(TimelockError::PublicKey)
        );
    }
}
