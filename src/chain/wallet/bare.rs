//! Secrets as text: a seed, a 64-byte key, a mnemonic. Very old key files hold nothing else.

use super::belonging;
use crate::bittensor::Hotkey;
use schnorrkel::SecretKey;
use secrecy::zeroize::Zeroizing;
use sp_core::{Pair as _, sr25519};

/// The key of a file that holds a secret and nothing else, compared with the stored public key.
pub(super) fn pair(
    content: &[u8],
    stored: impl FnOnce() -> Result<Hotkey, String>,
) -> Result<sr25519::Pair, String> {
    let text = std::str::from_utf8(content).unwrap_or_default();
    let mut pairs: Vec<_> = from_seed(text)
        .or_else(|| from_phrase(text))
        .into_iter()
        .collect();
    pairs.extend(from_private_key(text));
    if pairs.is_empty() {
        return Err(
            "it is no key file that Bittensor's wallets write: neither JSON, nor 64 or 128 hex \
             digits, nor a mnemonic; make it anew with `btcli wallet regen-hotkey`"
                .to_owned(),
        );
    }
    belonging(pairs, stored()?)
}

/// A 32-byte seed in hex.
pub(super) fn from_seed(digits: &str) -> Option<sr25519::Pair> {
    Some(sr25519::Pair::from_seed(&*secret_bytes::<32>(digits)?))
}

/// A mnemonic without password, in Substrate's derivation.
pub(super) fn from_phrase(phrase: &str) -> Option<sr25519::Pair> {
    let (pair, seed) = sr25519::Pair::from_phrase(phrase, None).ok()?;
    drop(Zeroizing::new(seed));
    Some(pair)
}

/// A 64-byte key in hex. Alone it is written for keys that were derived by path, in schnorrkel's
/// own form; other tools write the ed25519-expanded form. The public key tells which.
pub(super) fn from_private_key(digits: &str) -> Vec<sr25519::Pair> {
    let Some(bytes) = secret_bytes::<64>(digits) else {
        return Vec::new();
    };
    let forms = [
        SecretKey::from_bytes(bytes.as_ref()),
        SecretKey::from_ed25519_bytes(bytes.as_ref()),
    ];
    forms.into_iter().flatten().map(Into::into).collect()
}

fn secret_bytes<const N: usize>(digits: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(digits.strip_prefix("0x").unwrap_or(digits), bytes.as_mut()).ok()?;
    Some(bytes)
}
