//! Plain key files: one JSON object.

use super::{bare, belonging};
use crate::bittensor::Hotkey;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sp_core::sr25519;

/// `cryptoType` of sr25519.
const SR25519: u8 = 1;

/// The keys of a plain key file that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyFile {
    secret_seed: Option<SecretString>,
    secret_phrase: Option<SecretString>,
    private_key: Option<SecretString>,
    public_key: Option<String>,
    account_id: Option<String>,
    ss58_address: Option<String>,
    crypto_type: Option<u8>,
    encoded: Option<serde::de::IgnoredAny>,
    account_type: Option<serde::de::IgnoredAny>,
    signing_scheme: Option<serde::de::IgnoredAny>,
    hashed_descriptor: Option<serde::de::IgnoredAny>,
}

/// The key of a JSON key file, compared with the one that it names.
pub(super) fn pair(content: &[u8]) -> Result<sr25519::Pair, String> {
    let file = parse(content)?;
    file.check_kind()?;
    let stored = file.stored_key()?;
    file.derive(stored)
}

/// The public key of a public key file: JSON, or an SS58 address alone.
pub(super) fn public_key(content: &[u8]) -> Result<Hotkey, String> {
    let content = content.trim_ascii();
    if content.starts_with(b"{") {
        return Ok(parse(content)?.stored_key()?);
    }
    std::str::from_utf8(content)
        .ok()
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| "it holds no SS58 address".to_owned())
}

fn parse(content: &[u8]) -> Result<KeyFile, &'static str> {
    // The parser's own message could repeat a part of the file, and so of the secret.
    serde_json::from_slice(content).map_err(|_| "it is not a valid JSON key file")
}

const EXPORT: &str = "it is an export of a browser wallet; convert it with `python3 -c \"from \
    bittensor_wallet import Keyfile, Keypair; Keyfile('NEW FILE').set_keypair(\
    Keypair.create_from_encrypted_json(open('THIS FILE').read(), input('password: ')), encrypt=False)\"`";

impl KeyFile {
    fn check_kind(&self) -> Result<(), &'static str> {
        if self.encoded.is_some() {
            return Err(EXPORT);
        }
        if self.account_type.is_some()
            || self.signing_scheme.is_some()
            || self.hashed_descriptor.is_some()
        {
            return Err(
                "it holds a hashed or post-quantum account; make an sr25519 hotkey with `btcli wallet new-hotkey`",
            );
        }
        if self.crypto_type.is_some_and(|t| t != SR25519) {
            return Err("it holds no sr25519 key; make one with `btcli wallet new-hotkey`");
        }
        Ok(())
    }

    /// The public key that the file names; all the places that name one must agree.
    fn stored_key(&self) -> Result<Hotkey, &'static str> {
        let mut named = Vec::new();
        for digits in [&self.public_key, &self.account_id].into_iter().flatten() {
            let mut key = [0; 32];
            hex::decode_to_slice(digits.strip_prefix("0x").unwrap_or(digits), &mut key)
                .map_err(|_| "its public key is not 32 bytes of hex")?;
            named.push(Hotkey(key));
        }
        if let Some(address) = &self.ss58_address {
            named.push(address.parse().map_err(|_| "its ss58Address is invalid")?);
        }
        let first = *named
            .first()
            .ok_or("it names no public key to compare with")?;
        if named.iter().any(|key| *key != first) {
            return Err("its public key and its address disagree");
        }
        Ok(first)
    }

    /// The key from the first secret that can be read, compared with what the file names. A field
    /// that is no key material at all is passed over: a release of Bittensor's wallet writes raw
    /// bytes into `secretSeed` and a good `privateKey` beside it.
    fn derive(&self, stored: Hotkey) -> Result<sr25519::Pair, String> {
        let seed = self.secret_seed.as_ref();
        let seed = seed.and_then(|s| bare::from_seed(s.expose_secret()));
        let phrase = self.secret_phrase.as_ref();
        let phrase = || phrase.and_then(|s| bare::from_phrase(s.expose_secret()));
        let pairs = match (seed.or_else(phrase), &self.private_key) {
            (Some(pair), _) => vec![pair],
            (None, Some(key)) => bare::from_private_key(key.expose_secret()),
            (None, None) => Vec::new(),
        };
        if pairs.is_empty() {
            return Err("it holds no readable secret; is it a public key file?".to_owned());
        }
        belonging(pairs, stored)
    }
}
