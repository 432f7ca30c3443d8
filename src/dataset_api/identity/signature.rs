//! Signed requests: btauth/1 and Epistula v2.
//!
//! | scheme | headers | what is signed |
//! |---|---|---|
//! | btauth/1 (bittensor v11 `http_auth.py`) | `X-Bittensor-Version: 1`, `-Hotkey`, `-Receiver`, `-Nonce` (unix ns), `-Crypto`, `-Signature` | eight lines: scheme, crypto, method, target, body digest, nonce, sender, receiver |
//! | Epistula v2 | `Epistula-Version: 2`, `-Timestamp` (ms), `-Uuid`, `-Signed-By`, `-Signed-For`, `-Request-Signature` | `{body digest}.{uuid}.{timestamp}.{signed for}` |
//!
//! Nothing is verified before [`Claim::check`] passed: receiver and time cost no curve arithmetic.

use std::collections::{HashMap, VecDeque};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use sp_core::{Pair as _, ed25519, sr25519};

use crate::bittensor::Hotkey;

const BTAUTH_PAST_MS: u64 = 10_000;
const BTAUTH_AHEAD_MS: u64 = 2_000;
const EPISTULA_MS: u64 = 8_000;
/// How long a nonce is remembered: the longest window in both directions, and a second.
const NONCE_MS: u64 = 13_000;

/// Why a signature is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// A header is missing or malformed.
    #[error("a header of the signature is missing or malformed")]
    Malformed,
    /// It is meant for somebody else, or for nobody in particular.
    #[error("it does not name this server as receiver")]
    Receiver,
    /// Too old, too far ahead, or from before this server started.
    #[error("its time is out of the window; check your clock and sign again")]
    Time,
    /// It was used before.
    #[error("it was used before; sign again")]
    Replayed,
    /// The curve says no.
    #[error("it is not the sender's")]
    Wrong,
    /// More senders are remembered than the bound.
    #[error("too many signatures are remembered; try again in a few seconds")]
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    Sr25519,
    Ed25519,
}

impl Curve {
    fn name(self) -> &'static str {
        match self {
            Self::Sr25519 => "sr25519",
            Self::Ed25519 => "ed25519",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Btauth,
    Epistula,
}

/// A signature as claimed, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    scheme: Scheme,
    curve: Curve,
    sender: Hotkey,
    receiver: Option<Hotkey>,
    at_ms: u64,
    /// The text that makes it unique per sender: nonce or uuid.
    nonce: String,
    /// The time as it was sent.
    time: String,
    signature: [u8; 64],
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= 256).then_some(value)
}

fn signature(text: &str) -> Option<[u8; 64]> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = [0; 64];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

impl Claim {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`Unsigned::Malformed`].
    pub fn read(headers: &HeaderMap) -> Result<Self, Unsigned> {
        let claim = if headers.contains_key("x-bittensor-signature") {
            Self::btauth(headers)
        } else {
            Self::epistula(headers)
        };
        claim.ok_or(Unsigned::Malformed)
    }

    fn btauth(headers: &HeaderMap) -> Option<Self> {
        let get = |name| field(headers, name);
        if get("x-bittensor-version")? != "1" {
            return None;
        }
        let curve = match get("x-bittensor-crypto") {
            None | Some("sr25519") => Curve::Sr25519,
            Some("ed25519") => Curve::Ed25519,
            Some(_) => return None,
        };
        let receiver = match get("x-bittensor-receiver") {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        let nonce = get("x-bittensor-nonce")?;
        let at_ns: u64 = digits(nonce)?;
        Some(Self {
            scheme: Scheme::Btauth,
            curve,
            sender: get("x-bittensor-hotkey")?.parse().ok()?,
            receiver,
            at_ms: at_ns / 1_000_000,
            nonce: nonce.to_owned(),
            time: nonce.to_owned(),
            signature: signature(get("x-bittensor-signature")?)?,
        })
    }

    fn epistula(headers: &HeaderMap) -> Option<Self> {
        let get = |name| field(headers, name);
        if get("epistula-version")? != "2" {
            return None;
        }
        let receiver = match get("epistula-signed-for") {
            Some(text) if !text.is_empty() => Some(text.parse().ok()?),
            _ => None,
        };
        let (time, uuid) = (get("epistula-timestamp")?, get("epistula-uuid")?);
        let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if uuid.is_empty() || uuid.len() > 64 || !uuid.bytes().all(sound) {
            return None;
        }
        Some(Self {
            scheme: Scheme::Epistula,
            curve: Curve::Sr25519,
            sender: get("epistula-signed-by")?.parse().ok()?,
            receiver,
            at_ms: digits(time)?,
            nonce: uuid.to_owned(),
            time: time.to_owned(),
            signature: signature(get("epistula-request-signature")?)?,
        })
    }

    /// Who is said to have signed.
    #[must_use]
    pub fn sender(&self) -> Hotkey {
        self.sender
    }

    /// The cheap half: receiver and time. `since_ms` is when this server started: what was signed
    /// before may have been used before, and the nonces of then are gone.
    ///
    /// # Errors
    /// [`Unsigned::Receiver`], [`Unsigned::Time`].
    pub fn check(&self, receiver: &Hotkey, now_ms: u64, since_ms: u64) -> Result<(), Unsigned> {
        if self.receiver != Some(*receiver) {
            return Err(Unsigned::Receiver);
        }
        let (past, ahead) = match self.scheme {
            Scheme::Btauth => (BTAUTH_PAST_MS, BTAUTH_AHEAD_MS),
            Scheme::Epistula => (EPISTULA_MS, BTAUTH_AHEAD_MS),
        };
        let early = now_ms.saturating_sub(past).max(since_ms);
        if self.at_ms < early || self.at_ms > now_ms.saturating_add(ahead) {
            return Err(Unsigned::Time);
        }
        Ok(())
    }

    fn message(&self, method: &str, target: &str, body: &[u8]) -> String {
        let body = hex::encode(Sha256::digest(body));
        match self.scheme {
            Scheme::Btauth => {
                let receiver = self
                    .receiver
                    .map_or_else(|| "-".to_owned(), |r| r.to_string());
                let (curve, time, sender) = (self.curve.name(), &self.time, self.sender);
                format!(
                    "btauth/1\n{curve}\n{method}\n{target}\n{body}\n{time}\n{sender}\n{receiver}"
                )
            }
            Scheme::Epistula => {
                let receiver = self.receiver.map(|r| r.to_string()).unwrap_or_default();
                format!("{body}.{}.{}.{receiver}", self.nonce, self.time)
            }
        }
    }

    /// The dear half: the curve. About 40 µs.
    ///
    /// # Errors
    /// [`Unsigned::Wrong`].
    pub fn verify(&self, method: &str, target: &str, body: &[u8]) -> Result<(), Unsigned> {
        let message = self.message(method, target, body);
        verify_with(self.curve, &self.sender, message.as_bytes(), self.signature)
    }
}

fn digits(text: &str) -> Option<u64> {
    (text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn verify_with(
    curve: Curve,
    key: &Hotkey,
    message: &[u8],
    signature: [u8; 64],
) -> Result<(), Unsigned> {
    let holds = match curve {
        Curve::Sr25519 => sr25519::Pair::verify(
            &sr25519::Signature::from_raw(signature),
            message,
            &sr25519::Public::from_raw(key.0),
        ),
        Curve::Ed25519 => ed25519::Pair::verify(
            &ed25519::Signature::from_raw(signature),
            message,
            &ed25519::Public::from_raw(key.0),
        ),
    };
    if holds { Ok(()) } else { Err(Unsigned::Wrong) }
}

/// Verifies a text that a wallet signed, sr25519, bare or wrapped in `<Bytes>` as browser wallets do.
///
/// # Errors
/// [`Unsigned::Malformed`], [`Unsigned::Wrong`].
pub fn verify_text(key: &[u8; 32], text: &str, signed: &str) -> Result<(), Unsigned> {
    let bytes = signature(signed).ok_or(Unsigned::Malformed)?;
    let key = Hotkey(*key);
    let wrapped = format!("<Bytes>{text}</Bytes>");
    verify_with(Curve::Sr25519, &key, text.as_bytes(), bytes)
        .or_else(|_| verify_with(Curve::Sr25519, &key, wrapped.as_bytes(), bytes))
}

/// Nonces used within the window, per sender. Bounded.
#[derive(Debug)]
pub struct Nonces {
    used: HashMap<(Hotkey, String), u64>,
    order: VecDeque<(u64, (Hotkey, String))>,
    most: usize,
}

impl Nonces {
    /// Remembers at most `most` at a time, each about 300 bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            used: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Uses up the nonce of a verified claim.
    ///
    /// # Errors
    /// [`Unsigned::Replayed`], [`Unsigned::Full`].
    pub fn spend(&mut self, claim: &Claim, now_ms: u64) -> Result<(), Unsigned> {
        while let Some((until, key)) = self.order.front() {
            if *until > now_ms {
                break;
            }
            self.used.remove(key);
            self.order.pop_front();
        }
        let key = (claim.sender, claim.nonce.clone());
        if self.used.contains_key(&key) {
            return Err(Unsigned::Replayed);
        }
        if self.used.len() >= self.most {
            return Err(Unsigned::Full);
        }
        let until = now_ms + NONCE_MS;
        self.order.push_back((until, key.clone()));
        self.used.insert(key, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
