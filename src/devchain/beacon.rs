//! The chain's own randomness beacon: signs rounds as drand does, and opens what was encrypted for
//! them. Written against the recorded bytes of the field's package, apart from the client's code.

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::{EngineBLS, drand::TinyBLS381};
use timelock::ibe::fullident::Identity;
use timelock::tlock::{TLECiphertext, tld};

type Scalar = <TinyBLS381 as EngineBLS>::Scalar;
type PublicKey = <TinyBLS381 as EngineBLS>::PublicKeyGroup;
type Signature = <TinyBLS381 as EngineBLS>::SignatureGroup;

/// Unix seconds of round 1; the real beacon's, so that round numbers look alike.
pub(super) const GENESIS_S: u64 = 1_692_803_367;

/// A beacon whose secret everybody may know: for tests only.
#[derive(Debug, Clone)]
pub(super) struct Beacon {
    secret: Scalar,
    period_ms: u64,
}

impl Beacon {
    /// The beacon of a seed; a round every `period`, at least a millisecond.
    pub(super) fn of_seed(seed: &str, period: Duration) -> Self {
        let mut bytes: [u8; 32] = Sha256::digest(seed).into();
        // Below the group's order, whatever the digest.
        bytes[31] &= 0x3f;
        let secret = Scalar::deserialize_compressed(&bytes[..]);
        Self {
            // 254 bits are always below the order of 255 bits.
            secret: secret.unwrap_or_default(),
            period_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1),
        }
    }

    /// Compressed public key in G2, 96 bytes.
    pub(super) fn public_key(&self) -> Vec<u8> {
        let generator = <PublicKey as ark_ec::PrimeGroup>::generator();
        bytes_of(&(generator * self.secret))
    }

    /// Time between rounds in milliseconds.
    pub(super) fn period_ms(&self) -> u64 {
        self.period_ms
    }

    /// The newest round published at `now_ms`; 0 before the first.
    pub(super) fn round_at(&self, now_ms: u64) -> u64 {
        match now_ms.checked_sub(GENESIS_S * 1000) {
            Some(since) => since / self.period_ms + 1,
            None => 0,
        }
    }

    /// The signature that a round publishes, 48 bytes.
    pub(super) fn signature(&self, round: u64) -> Vec<u8> {
        let secret = identity(round).extract::<TinyBLS381>(self.secret);
        bytes_of(&secret.0)
    }
}

fn identity(round: u64) -> Identity {
    Identity::new(b"", &Sha256::digest(round.to_be_bytes()))
}

fn bytes_of(value: &impl CanonicalSerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    value.serialize_compressed(&mut bytes).unwrap_or_default();
    bytes
}

/// Opens a ciphertext with a round's signature; `None` when either is malformed or they do not fit.
pub(super) fn open(sealed: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let word = 32u64.to_le_bytes();
    let (u, rest) = sealed.split_at_checked(96)?;
    let (v, rest) = rest.strip_prefix(&word)?.split_at_checked(32)?;
    let rest = rest.strip_prefix(&word)?;
    // The library's own form has no length words before V and W.
    let joined = [u, v, rest].concat();
    let sealed = TLECiphertext::<TinyBLS381>::deserialize_compressed(&joined[..]).ok()?;
    let signature = Signature::deserialize_compressed(signature).ok()?;
    tld::<TinyBLS381, AESGCMBlockCipherProvider>(sealed, signature).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob of Python's bittensor-drand and drand's published signature of its round.
    #[test]
    fn a_blob_of_the_fields_package_opens_with_the_published_signature() {
        let text = include_str!("../../tests/it/data/reveal_rounds.json");
        let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
        let bytes = |key: &str| hex::decode(recorded["known"][key].as_str().unwrap()).unwrap();
        // The package wraps it: compact length, ciphertext, round as u64.
        let blob = bytes("blob");
        let sealed = &blob[2..blob.len() - 8];
        assert_eq!(open(sealed, &bytes("signature")), Some(bytes("plaintext")));
        let mut other = sealed.to_vec();
        other[200] ^= 1;
        assert_eq!(open(&other, &bytes("signature")), None);
        let beacon = Beacon::of_seed("assay", Duration::from_secs(3));
        assert_eq!(open(sealed, &beacon.signature(1000)), None);
        assert_eq!(open(&sealed[..100], &bytes("signature")), None);
    }

    #[test]
    fn rounds_follow_the_clock() {
        let beacon = Beacon::of_seed("assay", Duration::from_secs(3));
        assert_eq!(beacon.round_at(0), 0);
        assert_eq!(beacon.round_at(GENESIS_S * 1000), 1);
        assert_eq!(beacon.round_at(GENESIS_S * 1000 + 2999), 1);
        assert_eq!(beacon.round_at(GENESIS_S * 1000 + 3000), 2);
        assert_eq!(
            (beacon.signature(5).len(), beacon.public_key().len()),
            (48, 96)
        );
    }
}
