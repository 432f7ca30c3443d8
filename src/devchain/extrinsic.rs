//! Extrinsics as they travel: decoding, the signed payload, and the checks of the transaction
//! extensions.

use super::block::{Hash, hex0x};
use super::runtime::{Key, Runtime};
use super::storage::Reader;
use codec::{Compact, Decode, Encode};
use frame_decode::extrinsics::{ExtrinsicType, decode_extrinsic};
use sp_core::{ByteArray, Pair, ed25519, sr25519};
use sp_crypto_hashing::blake2_256;
use std::ops::Range;

/// Why a transaction is invalid (`InvalidTransaction` of the runtime).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    Payment,
    Stale,
    BadProof,
    AncientBirthBlock,
    Custom(u8),
    BadSigner,
}

impl Invalid {
    /// The `data` of the node's RPC error 1010.
    pub(super) fn text(self) -> String {
        match self {
            Self::Payment => "Inability to pay some fees (e.g. account balance too low)".to_owned(),
            Self::Stale => "Transaction is outdated".to_owned(),
            Self::BadProof => "Transaction has a bad signature".to_owned(),
            Self::AncientBirthBlock => "Transaction has an ancient birth block".to_owned(),
            Self::Custom(code) => format!("Custom error: {code}"),
            Self::BadSigner => "Invalid signing address".to_owned(),
        }
    }

    /// SCALE of `Err(TransactionValidityError::Invalid(self))`.
    pub(super) fn encode_validity(self) -> Vec<u8> {
        let mut out = vec![1, 0];
        match self {
            Self::Payment => out.push(1),
            Self::Stale => out.push(3),
            Self::BadProof => out.push(4),
            Self::AncientBirthBlock => out.push(5),
            Self::Custom(code) => out.extend([7, code]),
            Self::BadSigner => out.push(10),
        }
        out
    }
}

/// A transaction's life span in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    Immortal,
    Mortal { period: u64, phase: u64 },
}

impl Era {
    fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0] => Some(Self::Immortal),
            [low, high] => {
                let encoded = u64::from(u16::from_le_bytes([low, high]));
                let period = 2u64 << (encoded % 16);
                let phase = (encoded >> 4) * (period >> 12).max(1);
                (period >= 4 && phase < period).then_some(Self::Mortal { period, phase })
            }
            _ => None,
        }
    }

    /// The block whose hash was signed, seen from `current`.
    fn birth(self, current: u64) -> u64 {
        match self {
            Self::Immortal => 0,
            Self::Mortal { period, phase } => {
                (current.max(phase) - phase) / period * period + phase
            }
        }
    }

    /// First block at which the transaction is no longer valid.
    pub(super) fn death(self, current: u64) -> u64 {
        match self {
            Self::Immortal => u64::MAX,
            Self::Mortal { period, .. } => self.birth(current) + period,
        }
    }
}

/// A decoded call with its arguments by name.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) pallet: String,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    arguments: Vec<(String, u32, Range<usize>)>,
}

impl Call {
    /// Reads one call from exactly `bytes`.
    pub(super) fn decode(runtime: &Runtime, bytes: &[u8]) -> Result<Self, String> {
        let [pallet_index, call_index, ..] = *bytes else {
            return Err("a call has at least two bytes".to_owned());
        };
        let pallet = runtime
            .metadata()
            .pallet_by_call_index(pallet_index)
            .ok_or_else(|| format!("no pallet has index {pallet_index}"))?;
        let variant = pallet
            .call_variant_by_index(call_index)
            .ok_or_else(|| format!("pallet {} has no call {call_index}", pallet.name()))?;
        let mut at = 2;
        let mut arguments = Vec::new();
        for field in &variant.fields {
            let rest = bytes.get(at..).unwrap_or_default();
            let len = runtime.measure(field.ty.id, rest)?;
            let name = field.name.clone().unwrap_or_default();
            arguments.push((name, field.ty.id, at..at + len));
            at += len;
        }
        if at != bytes.len() {
            return Err(format!("{} bytes behind the call", bytes.len() - at));
        }
        Ok(Self {
            pallet: pallet.name().to_owned(),
            name: variant.name.clone(),
            bytes: bytes.to_vec(),
            arguments,
        })
    }

    /// Type and bytes of an argument.
    pub(super) fn raw(&self, name: &str) -> Option<(u32, &[u8])> {
        let (_, ty, range) = self.arguments.iter().find(|(n, ..)| n == name)?;
        Some((*ty, &self.bytes[range.clone()]))
    }

    /// Names of the arguments in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(|(name, ..)| name.as_str())
    }

    /// `Pallet.call`, for messages.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.pallet, self.name)
    }
}

/// A signed extrinsic, decoded but not yet checked.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) hash: Hash,
    pub(super) who: [u8; 32],
    pub(super) nonce: u32,
    pub(super) era: Era,
    pub(super) tip: u64,
    pub(super) call: Call,
    /// Signature bytes with their scheme's index in front.
    signature: Vec<u8>,
    /// Call and extension values as sent.
    signed_part: Vec<u8>,
    extensions: Vec<String>,
    metadata_hash_mode: u8,
    /// As it travels, with its length prefix.
    pub(super) bytes: Vec<u8>,
}

impl Signed {
    /// Decodes a signed v4 extrinsic of exactly `bytes`.
    pub(super) fn decode(runtime: &Runtime, bytes: &[u8]) -> Result<Self, String> {
        let mut cursor = bytes;
        let decoded = decode_extrinsic(&mut cursor, runtime.metadata(), runtime.types())
            .map_err(|e| e.to_string())?;
        if !cursor.is_empty() {
            return Err(format!("{} bytes behind the extrinsic", cursor.len()));
        }
        if decoded.ty() != ExtrinsicType::Signed {
            return Err("only signed extrinsics are taken".to_owned());
        }
        let signature = decoded.signature_payload().ok_or("no signature")?;
        let who = match bytes.get(signature.address_range()) {
            // `MultiAddress::Id`.
            Some([0, id @ ..]) => <[u8; 32]>::try_from(id).map_err(|_| "malformed address")?,
            _ => return Err("the address is no plain account id".to_owned()),
        };
        let call = Call::decode(runtime, &bytes[decoded.call_data_range()])?;
        let extensions = decoded
            .transaction_extension_payload()
            .ok_or("no transaction extensions")?;
        let mut signed = Self {
            hash: blake2_256(bytes),
            who,
            nonce: 0,
            era: Era::Immortal,
            tip: 0,
            signed_part: [&call.bytes, &bytes[extensions.range()]].concat(),
            call,
            signature: bytes[signature.signature_range()].to_vec(),
            extensions: Vec::new(),
            metadata_hash_mode: 0,
            bytes: bytes.to_vec(),
        };
        for extension in extensions.iter() {
            signed.read_extension(extension.name(), &bytes[extension.range()])?;
        }
        Ok(signed)
    }

    fn read_extension(&mut self, name: &str, mut value: &[u8]) -> Result<(), String> {
        let fail = |e: codec::Error| format!("{name}: {e}");
        match name {
            "CheckMortality" => self.era = Era::decode(value).ok_or("malformed era")?,
            "CheckNonce" => self.nonce = Compact::<u32>::decode(&mut value).map_err(fail)?.0,
            "ChargeTransactionPayment" => {
                self.tip = Compact::<u64>::decode(&mut value).map_err(fail)?.0;
            }
            "CheckMetadataHash" => self.metadata_hash_mode = *value.first().unwrap_or(&0),
            _ if value.is_empty() => {}
            _ => return Err(format!("transaction extension {name} carries unknown data")),
        }
        self.extensions.push(name.to_owned());
        Ok(())
    }

    /// Checks birth block and signature as the runtime does at block `head + 1`.
    pub(super) fn check_signature(&self, at: &Site<'_>) -> Result<(), Invalid> {
        let birth = self.era.birth(at.head_number + 1);
        let birth_hash = match self.era {
            Era::Immortal => at.genesis_hash,
            Era::Mortal { .. } => at.block_hash(birth).ok_or(Invalid::AncientBirthBlock)?,
        };
        if self.metadata_hash_mode != 0 {
            // The metadata's hash is not among the things this chain knows.
            return Err(Invalid::BadProof);
        }
        let version = &at.reader.runtime.version;
        let mut payload = self.signed_part.clone();
        for name in &self.extensions {
            match name.as_str() {
                "CheckSpecVersion" => version.spec_version.encode_to(&mut payload),
                "CheckTxVersion" => version.transaction_version.encode_to(&mut payload),
                "CheckGenesis" => payload.extend(at.genesis_hash),
                "CheckMortality" => payload.extend(birth_hash),
                "CheckMetadataHash" => payload.push(0),
                _ => {}
            }
        }
        if payload.len() > 256 {
            payload = blake2_256(&payload).to_vec();
        }
        if verify(&self.signature, &payload, &self.who) {
            Ok(())
        } else {
            tracing::debug!(hash = %hex0x(&self.hash), "extrinsic with a bad signature");
            Err(Invalid::BadProof)
        }
    }
}

/// `MultiSignature`: a scheme's index and the signature. Ecdsa accounts are not supported.
fn verify(signature: &[u8], message: &[u8], who: &[u8; 32]) -> bool {
    match signature {
        [0, ed @ ..] => {
            let key = ed25519::Public::from_raw(*who);
            ed25519::Signature::from_slice(ed)
                .is_ok_and(|s| ed25519::Pair::verify(&s, message, &key))
        }
        [1, sr @ ..] => {
            let key = sr25519::Public::from_raw(*who);
            sr25519::Signature::from_slice(sr)
                .is_ok_and(|s| sr25519::Pair::verify(&s, message, &key))
        }
        _ => false,
    }
}

/// The place at which a transaction is checked: the block behind the head.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) genesis_hash: Hash,
    pub(super) head_number: u64,
    pub(super) head_hash: Hash,
}

impl Site<'_> {
    /// `System.BlockHash` as the next block will see it.
    fn block_hash(&self, number: u64) -> Option<Hash> {
        if number == self.head_number {
            return Some(self.head_hash);
        }
        let number = u32::try_from(number).ok()?;
        let raw = self
            .reader
            .raw("System", "BlockHash", &[Key::U32(number)])?;
        Hash::try_from(raw).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras_read_as_the_runtime_reads_them() {
        let era = Era::decode(&[0x34, 0x01]).unwrap();
        assert_eq!(
            era,
            Era::Mortal {
                period: 32,
                phase: 19
            }
        );
        assert_eq!(era.birth(55), 51);
        assert_eq!(era.death(55), 83);
        assert_eq!(era.birth(83), 83);
        assert_eq!(Era::decode(&[0]), Some(Era::Immortal));
        assert_eq!(Era::decode(&[]), None);
        assert_eq!(Era::decode(&[0x30, 0xff]), None, "phase beyond the period");
    }
}
