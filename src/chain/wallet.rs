//! Hotkey files as Bittensor's wallets write them.

use crate::bittensor::Hotkey;
use schnorrkel::SecretKey;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sp_core::{Pair as _, sr25519};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Longest key file that is read; real ones are under 1 KiB.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// `cryptoType` of sr25519.
const SR25519: u8 = 1;

/// Why a hotkey cannot be used. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The file cannot be read.
    #[error("hotkey file {path}: {source}")]
    Io {
        /// File asked for.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path leads to a coldkey, which this program never opens.
    #[error("{path} is a coldkey; assay never reads coldkeys, name a file under hotkeys/")]
    Coldkey {
        /// File asked for.
        path: String,
    },
    /// The key is encrypted.
    #[error(
        "hotkey file {path} is encrypted ({format}); decrypt it with Bittensor's own tools, for \
         instance by `btcli wallet regen-hotkey --no-use-password`, and keep the file at mode 0600"
    )]
    Encrypted {
        /// File asked for.
        path: String,
        /// Name of the encryption.
        format: &'static str,
    },
    /// The file holds something else than a usable sr25519 hotkey.
    #[error("hotkey file {path}: {reason}")]
    Unusable {
        /// File asked for.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A secret URI that does not parse.
    #[error("not a secret URI such as //Alice: {0}")]
    Uri(String),
}

/// A warning: others than the owner may read or write the key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LooseMode {
    /// Permission bits of the file.
    pub mode: u32,
}

impl std::fmt::Display for LooseMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the hotkey file has mode {:04o}; run chmod 600 on it",
            self.mode
        )
    }
}

/// An sr25519 hotkey with its secret, which is wiped on drop and never printed.
#[derive(Clone)]
pub struct HotkeyPair(sr25519::Pair);

impl std::fmt::Debug for HotkeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HotkeyPair({})", self.hotkey())
    }
}

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

impl HotkeyPair {
    /// Reads a plain hotkey file. The derived public key is compared with the one that the file
    /// names. The second value warns when the file's mode lets others at it.
    ///
    /// # Errors
    /// [`WalletError`]; encrypted forms are recognised and named.
    pub fn load(path: &Path) -> Result<(Self, Option<LooseMode>), WalletError> {
        let shown = path.display().to_string();
        refuse_coldkey(path, &shown)?;
        let (text, mode) = read(path).map_err(|source| WalletError::Io {
            path: shown.clone(),
            source,
        })?;
        let pair = parse(&text, &shown)?;
        let loose = (mode & 0o077 != 0).then_some(LooseMode {
            mode: mode & 0o7777,
        });
        Ok((pair, loose))
    }

    /// A key from a secret URI such as `//Alice`: for development chains and tests.
    ///
    /// # Errors
    /// [`WalletError::Uri`], which does not repeat the URI.
    pub fn from_uri(uri: &str) -> Result<Self, WalletError> {
        sr25519::Pair::from_string(uri, None)
            .map(Self)
            .map_err(|e| WalletError::Uri(format!("{e:?}")))
    }

    /// The public key.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public().0)
    }

    /// Signs in the `substrate` context. Signatures are randomised: never compare their bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).0
    }
}

fn refuse_coldkey(path: &Path, shown: &str) -> Result<(), WalletError> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let cold = [path, real.as_path()].into_iter().any(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("coldkey")
    });
    if cold {
        return Err(WalletError::Coldkey {
            path: shown.to_owned(),
        });
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(std::io::Error::other("not a plain file of at most 16 KiB"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, meta.permissions().mode()))
}

fn parse(bytes: &[u8], path: &str) -> Result<HotkeyPair, WalletError> {
    let encryptions: [(&[u8], &str); 3] = [
        (b"$NACL", "NaCl secretbox"),
        (b"$ANSIBLE_VAULT", "Ansible vault"),
        (b"gAAAAA", "Fernet"),
    ];
    let trimmed = bytes.trim_ascii();
    if let Some((_, format)) = encryptions
        .iter()
        .find(|(head, _)| trimmed.starts_with(head))
    {
        return Err(WalletError::Encrypted {
            path: path.to_owned(),
            format,
        });
    }
    let bad = |reason: &str| WalletError::Unusable {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if !trimmed.starts_with(b"{") {
        return Err(bad(
            "it is not a JSON key file; make it anew with `btcli wallet regen-hotkey`",
        ));
    }
    // The parser's own message could repeat a part of the file, and so of the secret.
    let file: KeyFile =
        serde_json::from_slice(trimmed).map_err(|_| bad("it is not a valid JSON key file"))?;
    file.check_kind().map_err(bad)?;
    let stored = file.stored_key().map_err(bad)?;
    file.derive(stored).map_err(bad)
}

impl KeyFile {
    fn check_kind(&self) -> Result<(), &'static str> {
        if self.encoded.is_some() {
            return Err("it is an export of a browser wallet; import that with btcli first");
        }
        if self.account_type.is_some()
            || self.signing_scheme.is_some()
            || self.hashed_descriptor.is_some()
        {
            return Err("it holds a hashed or post-quantum account; use an sr25519 hotkey");
        }
        if self.crypto_type.is_some_and(|t| t != SR25519) {
            return Err("it holds no sr25519 key; make an sr25519 hotkey");
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
    fn derive(&self, stored: Hotkey) -> Result<HotkeyPair, &'static str> {
        let seed = self.secret_seed.as_ref().and_then(from_seed);
        let phrase = || self.secret_phrase.as_ref().and_then(from_phrase);
        let pairs = match (seed.or_else(phrase), &self.private_key) {
            (Some(pair), _) => vec![pair],
            (None, Some(key)) => from_private_key(key),
            (None, None) => Vec::new(),
        };
        if pairs.is_empty() {
            return Err("it holds no readable secret; is it a public key file?");
        }
        pairs
            .into_iter()
            .map(HotkeyPair)
            .find(|pair| pair.hotkey() == stored)
            .ok_or("its secret belongs to another public key than the file names")
    }
}

fn secret_bytes<const N: usize>(digits: &SecretString) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let text = digits.expose_secret();
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), bytes.as_mut()).ok()?;
    Some(bytes)
}

fn from_seed(seed: &SecretString) -> Option<sr25519::Pair> {
    Some(sr25519::Pair::from_seed(&*secret_bytes::<32>(seed)?))
}

fn from_phrase(phrase: &SecretString) -> Option<sr25519::Pair> {
    let (pair, seed) = sr25519::Pair::from_phrase(phrase.expose_secret(), None).ok()?;
    drop(Zeroizing::new(seed));
    Some(pair)
}

/// A 64-byte key alone is written for keys that were derived by path, in schnorrkel's own form; other
/// tools write the ed25519-expanded form. The public key tells which.
fn from_private_key(key: &SecretString) -> Vec<sr25519::Pair> {
    let Some(bytes) = secret_bytes::<64>(key) else {
        return Vec::new();
    };
    let forms = [
        SecretKey::from_bytes(bytes.as_ref()),
        SecretKey::from_ed25519_bytes(bytes.as_ref()),
    ];
    forms.into_iter().flatten().map(Into::into).collect()
}
