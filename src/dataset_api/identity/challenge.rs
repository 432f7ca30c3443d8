//! Challenges: a text to sign that needs no memory of the server until it comes back signed.

use std::collections::HashSet;
use std::collections::VecDeque;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// How long a challenge can be answered, ms.
const VALID_MS: u64 = 120_000;

/// Makes and takes back challenges. Each can be used once; those used are remembered until they
/// expire, in a bounded store. A restart makes all open ones void.
pub struct Challenges {
    secret: [u8; 32],
    used: HashSet<[u8; 16]>,
    order: VecDeque<(u64, [u8; 16])>,
    most: usize,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges")
            .field("used", &self.used.len())
            .finish_non_exhaustive()
    }
}

/// A text to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The text.
    pub text: String,
    /// When it ends, unix milliseconds.
    pub expires_ms: u64,
}

/// Why a challenge is not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Not made by this server since its start, or for another address.
    #[error("the challenge is not one of this server's for this address; ask for a new one")]
    Foreign,
    /// Too old.
    #[error("the challenge has expired; ask for a new one")]
    Expired,
    /// Used before.
    #[error("the challenge was used before; ask for a new one")]
    Used,
}

impl Challenges {
    /// Begins with a fresh secret; remembers at most `most` used ones.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            secret: rand::random(),
            used: HashSet::new(),
            order: VecDeque::new(),
            most,
        }
    }

    fn mark(&self, address: &str, nonce: &str, expires_ms: u64) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = <Hmac<Sha256> as hmac::Mac>::new_from_slice(&self.secret) else {
            return String::new();
        };
        mac.update(format!("{address}\n{nonce}\n{expires_ms}").as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..16])
    }

    /// A challenge for `address`.
    #[must_use]
    pub fn make(&self, address: &str, now_ms: u64) -> Challenge {
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        let expires_ms = now_ms + VALID_MS;
        let mark = self.mark(address, &nonce, expires_ms);
        Challenge {
            text: format!("assay-dataset-api/1 {address} {nonce} {expires_ms} {mark}"),
            expires_ms,
        }
    }

    /// Whether `text` is an open challenge for `address`. Changes nothing.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn check(&self, text: &str, address: &str, now_ms: u64) -> Result<(), Stale> {
        self.parts(text, address, now_ms).map(|_| ())
    }

    fn parts(&self, text: &str, address: &str, now_ms: u64) -> Result<([u8; 16], u64), Stale> {
        let mut parts = text.split(' ');
        let ours = parts.next() == Some("assay-dataset-api/1") && parts.next() == Some(address);
        let (Some(nonce), Some(expires), Some(mark), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Stale::Foreign);
        };
        let mut id = [0; 16];
        let expires_ms: u64 = expires.parse().map_err(|_| Stale::Foreign)?;
        hex::decode_to_slice(nonce, &mut id).map_err(|_| Stale::Foreign)?;
        // Marks are single-use and random per process: a timing difference tells nothing of use.
        if !ours || mark != self.mark(address, nonce, expires_ms) {
            return Err(Stale::Foreign);
        }
        if expires_ms <= now_ms {
            return Err(Stale::Expired);
        }
        if self.used.contains(&id) {
            return Err(Stale::Used);
        }
        Ok((id, expires_ms))
    }

    /// Uses it up, after its signature was verified.
    ///
    /// # Errors
    /// [`Stale`]; [`Stale::Expired`] also when too many are remembered.
    pub fn spend(&mut self, text: &str, address: &str, now_ms: u64) -> Result<(), Stale> {
        let (id, expires_ms) = self.parts(text, address, now_ms)?;
        while let Some((until, old)) = self.order.front() {
            if *until > now_ms {
                break;
            }
            self.used.remove(old);
            self.order.pop_front();
        }
        if self.used.len() >= self.most {
            return Err(Stale::Expired);
        }
        self.used.insert(id);
        self.order.push_back((expires_ms, id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_once_for_its_address_in_its_time() {
        let mut ours = Challenges::new(8);
        let made = ours.make("5Abc", 1_000);
        assert_eq!(ours.check(&made.text, "5Abc", 1_001), Ok(()));
        assert_eq!(ours.check(&made.text, "5Abd", 1_001), Err(Stale::Foreign));
        assert_eq!(
            ours.check(&made.text, "5Abc", made.expires_ms),
            Err(Stale::Expired)
        );
        let later = made
            .text
            .replace(&made.expires_ms.to_string(), "9999999999999");
        assert_eq!(ours.check(&later, "5Abc", 1_001), Err(Stale::Foreign));
        let other = Challenges::new(8);
        assert_eq!(other.check(&made.text, "5Abc", 1_001), Err(Stale::Foreign));
        ours.spend(&made.text, "5Abc", 1_001).unwrap();
        assert_eq!(ours.spend(&made.text, "5Abc", 1_002), Err(Stale::Used));
    }
}
