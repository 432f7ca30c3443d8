//! `$NACL` key files: argon2i13 and XSalsa20-Poly1305, with libsodium's "sensitive" limits.

use argon2::{Algorithm, Argon2, Params, Version};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead, KeyInit};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// What such a file begins with.
pub(super) const HEAD: &[u8] = b"$NACL";
/// The one salt that all of Bittensor's wallets use.
const SALT: [u8; 16] = [
    0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1,
];
/// `crypto_pwhash_argon2i_MEMLIMIT_SENSITIVE`, 512 MiB, in KiB.
const MEMORY_KIB: u32 = 512 * 1024;
/// `crypto_pwhash_argon2i_OPSLIMIT_SENSITIVE`.
const PASSES: u32 = 8;
/// Bytes of the nonce, which comes first.
const NONCE_BYTES: usize = 24;

/// What was sealed: `bytes` are those after the head. `None` when the password is not the right
/// one or the bytes are damaged.
pub(super) fn open(bytes: &[u8], password: &SecretString) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(key.len())).ok()?;
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into(password.expose_secret().as_bytes(), &SALT, key.as_mut())
        .ok()?;
    let secretbox = XSalsa20Poly1305::new_from_slice(key.as_ref()).ok()?;
    let opened = secretbox.decrypt(&(*nonce).into(), sealed).ok()?;
    Some(Zeroizing::new(opened))
}
