//! Signed statements of the operator: DSSE envelopes (secure-systems-lab/dsse, version 1.0.2) with
//! the operator's hotkey, sr25519 in the `substrate` context.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sp_core::{Pair as _, sr25519};

use crate::bittensor::Hotkey;

/// Longest payload that is decoded, in bytes.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Signs bytes.
type Sign = dyn Fn(&[u8]) -> [u8; 64] + Send + Sync;

/// The operator's key, as far as this module needs it.
pub struct Signer {
    hotkey: Hotkey,
    sign: Box<Sign>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.hotkey)
    }
}

impl Signer {
    /// Signs as `hotkey` with `sign`, an sr25519 signature in the `substrate` context.
    pub fn new(hotkey: Hotkey, sign: impl Fn(&[u8]) -> [u8; 64] + Send + Sync + 'static) -> Self {
        Self {
            hotkey,
            sign: Box::new(sign),
        }
    }
}

/// Why a signed statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Not an envelope of ours.
    #[error("it is no signed statement of the expected type: {0}")]
    Shape(String),
    /// The signature is not the hotkey's.
    #[error("the signature is not that of {0}")]
    Signature(Hotkey),
    /// Signed, but by somebody else.
    #[error("it is signed by {0}, which dataset.operators does not name")]
    Stranger(Hotkey),
    /// What stands beside the signed bytes differs from them.
    #[error("its readable copy differs from what was signed")]
    Copy,
}

/// A DSSE envelope with one signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Media type of the payload.
    #[serde(rename = "payloadType")]
    payload_type: String,
    /// The signed bytes, base64.
    payload: String,
    /// Exactly one.
    signatures: [Signature; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// SS58 address of the hotkey.
    keyid: Hotkey,
    /// Base64 of 64 bytes.
    sig: String,
}

/// DSSE's pre-authentication encoding: what is really signed.
fn authenticated(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// A kind of statement: its media type.
pub trait Statement: Serialize + DeserializeOwned + PartialEq {
    /// Media type of the payload; a signature for one kind is none for another.
    const TYPE: &'static str;
}

/// A statement whose signature holds. In JSON: the statement's fields, for reading, and `signed`,
/// the envelope that proves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    statement: T,
    signer: Hotkey,
    envelope: Envelope,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement.
    #[must_use]
    pub fn new(statement: T, signer: &Signer) -> Self {
        // Statements are plain structs: there is no value in them that JSON lacks.
        let payload = serde_json::to_vec(&statement).unwrap_or_default();
        let sig = (signer.sign)(&authenticated(T::TYPE, &payload));
        let envelope = Envelope {
            payload_type: T::TYPE.to_owned(),
            payload: BASE64.encode(payload),
            signatures: [Signature {
                keyid: signer.hotkey,
                sig: BASE64.encode(sig),
            }],
        };
        Self {
            statement,
            signer: signer.hotkey,
            envelope,
        }
    }

    /// Takes the statement out of its envelope after checking the signature.
    ///
    /// # Errors
    /// [`Unproven`] when it is not a statement of this kind or not signed by the key it names.
    pub fn open(envelope: Envelope) -> Result<Self, Unproven> {
        let shape = |reason: &str| Unproven::Shape(reason.to_owned());
        if envelope.payload_type != T::TYPE {
            return Err(shape("another payload type"));
        }
        if envelope.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(shape("a payload of more than 256 KiB"));
        }
        let payload = BASE64
            .decode(&envelope.payload)
            .map_err(|_| shape("a payload that is not base64"))?;
        let [Signature { keyid: signer, sig }] = &envelope.signatures;
        let signer = *signer;
        let sig: [u8; 64] = BASE64
            .decode(sig)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| shape("a signature that is not 64 bytes of base64"))?;
        let message = authenticated(T::TYPE, &payload);
        let (sig, key) = (
            sr25519::Signature::from_raw(sig),
            sr25519::Public::from_raw(signer.0),
        );
        if !sr25519::Pair::verify(&sig, message, &key) {
            return Err(Unproven::Signature(signer));
        }
        let statement =
            serde_json::from_slice(&payload).map_err(|e| Unproven::Shape(e.to_string()))?;
        Ok(Self {
            statement,
            signer,
            envelope,
        })
    }

    /// As [`Self::open`], from the JSON form, whose readable copy must agree with the signed bytes.
    ///
    /// # Errors
    /// [`Unproven`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, Unproven> {
        #[derive(Deserialize)]
        #[serde(bound = "T: DeserializeOwned")]
        struct Shown<T> {
            #[serde(flatten)]
            copy: T,
            signed: Envelope,
        }
        let shown: Shown<T> =
            serde_json::from_slice(bytes).map_err(|e| Unproven::Shape(e.to_string()))?;
        let signed = Self::open(shown.signed)?;
        if signed.statement != shown.copy {
            return Err(Unproven::Copy);
        }
        Ok(signed)
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Refuses it unless `operators` is empty or names its signer.
    ///
    /// # Errors
    /// [`Unproven::Stranger`].
    pub fn by_one_of(self, operators: &[Hotkey]) -> Result<Self, Unproven> {
        if operators.is_empty() || operators.contains(&self.signer) {
            Ok(self)
        } else {
            Err(Unproven::Stranger(self.signer))
        }
    }

    /// Who signed.
    #[must_use]
    pub fn signer(&self) -> Hotkey {
        self.signer
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.statement
    }
}

impl<T: Serialize> Serialize for Signed<T> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a, T> {
            #[serde(flatten)]
            copy: &'a T,
            signed: &'a Envelope,
        }
        let (copy, signed) = (&self.statement, &self.envelope);
        Shown { copy, signed }.serialize(s)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }
    impl Statement for Note {
        const TYPE: &'static str = "application/vnd.assay.note+json";
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Other {
        text: String,
    }
    impl Statement for Other {
        const TYPE: &'static str = "application/vnd.assay.other+json";
    }

    pub(in crate::dataset) fn signer(uri: &str) -> Signer {
        let pair = sr25519::Pair::from_string(uri, None).unwrap();
        Signer::new(Hotkey(pair.public().0), move |m| pair.sign(m).0)
    }

    fn note() -> Signed<Note> {
        let text = "from the keeper".to_owned();
        Signed::new(Note { text }, &signer("//Keeper"))
    }

    #[test]
    fn what_was_signed_reads_back_and_nothing_else_does() {
        let text = note().to_json();
        let read = Signed::<Note>::from_json(text.as_bytes()).unwrap();
        assert_eq!(read, note_like(&read));
        let copy = text.replacen("keeper", "reaper", 1);
        assert_eq!(
            Signed::<Note>::from_json(copy.as_bytes()),
            Err(Unproven::Copy)
        );
        let mut forged = read.envelope.clone();
        forged.payload = BASE64.encode(br#"{"text":"from the reaper"}"#);
        let who = read.signer();
        assert_eq!(Signed::<Note>::open(forged), Err(Unproven::Signature(who)));
        let mut other = read.envelope.clone();
        other.payload_type = Other::TYPE.to_owned();
        assert_eq!(Signed::<Other>::open(other), Err(Unproven::Signature(who)));
        let refused = Signed::<Other>::open(read.envelope.clone());
        assert!(matches!(refused, Err(Unproven::Shape(_))));
    }

    fn note_like(read: &Signed<Note>) -> Signed<Note> {
        // Signatures are randomised: everything but the signature is compared.
        Signed {
            envelope: read.envelope.clone(),
            ..note()
        }
    }

    #[test]
    fn only_named_operators_are_believed() {
        let (me, other) = (signer("//Keeper").hotkey, signer("//Other").hotkey);
        assert!(note().by_one_of(&[]).is_ok());
        assert!(note().by_one_of(&[other, me]).is_ok());
        assert_eq!(note().by_one_of(&[other]), Err(Unproven::Stranger(me)));
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let found = authenticated("http://example.com/HelloWorld", b"hello world");
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(found, expected);
    }
}
