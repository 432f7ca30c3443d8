//! Hotkey files as Bittensor's wallets write them.

mod bare;
mod json;
mod nacl;

use crate::bittensor::Hotkey;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use sp_core::{Pair as _, sr25519};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Longest key file that is read; real ones are under 1 KiB.
const MAX_FILE_BYTES: u64 = 16 * 1024;

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
    /// The key is encrypted in a form that is not read here.
    #[error("hotkey file {path} is encrypted ({format}); decrypt it in place with `{command}`")]
    Encrypted {
        /// File asked for.
        path: String,
        /// Name of the encryption.
        format: &'static str,
        /// What turns it into a form that is read.
        command: String,
    },
    /// The key is encrypted, and no password was named.
    #[error(
        "hotkey file {path} is encrypted ($NACL) and no password is named; name one by password_env \
         or password_file under [wallet], or decrypt it in place with `{command}`"
    )]
    NeedsPassword {
        /// File asked for.
        path: String,
        /// What turns it into a plain file.
        command: String,
    },
    /// The password does not open the file, or the file is damaged: the two look the same.
    #[error("hotkey file {path}: the password does not open it, or the file is damaged")]
    WrongPassword {
        /// File asked for.
        path: String,
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

impl HotkeyPair {
    /// Reads a hotkey file: plain JSON, a bare secret, or either under `$NACL` encryption, which
    /// `password` opens (512 MiB and a few seconds of work; call it off the runtime's hot paths).
    /// The derived public key is always compared with the stored one: the file's own, or for a bare
    /// secret the one in `<file>pub.txt` beside it. The second value warns when the file's mode lets
    /// others at it.
    ///
    /// # Errors
    /// [`WalletError`]; forms that are not read are named together with the command that converts
    /// them.
    pub fn load(
        path: &Path,
        password: Option<&SecretString>,
    ) -> Result<(Self, Option<LooseMode>), WalletError> {
        let shown = path.display().to_string();
        refuse_coldkey(path, &shown)?;
        let (text, mode) = read(path).map_err(|source| WalletError::Io {
            path: shown.clone(),
            source,
        })?;
        let pair = open(&text, path, password)?;
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

/// The key in a file's content, whatever its form.
fn open(
    content: &[u8],
    path: &Path,
    password: Option<&SecretString>,
) -> Result<HotkeyPair, WalletError> {
    let shown = path.display().to_string();
    let content = content.trim_ascii_start();
    for (head, format) in [
        (b"$ANSIBLE_VAULT".as_slice(), "Ansible vault"),
        (b"gAAAAA", "Fernet"),
    ] {
        if content.starts_with(head) {
            let command = decrypt_command(&shown);
            return Err(WalletError::Encrypted {
                path: shown,
                format,
                command,
            });
        }
    }
    let Some(sealed) = content.strip_prefix(nacl::HEAD) else {
        return plain(content, path);
    };
    let Some(password) = password else {
        let command = decrypt_command(&shown);
        return Err(WalletError::NeedsPassword {
            path: shown,
            command,
        });
    };
    let content = nacl::open(sealed, password).ok_or(WalletError::WrongPassword { path: shown })?;
    plain(&content, path)
}

fn plain(content: &[u8], path: &Path) -> Result<HotkeyPair, WalletError> {
    let content = content.trim_ascii();
    let pair = if content.starts_with(b"{") {
        json::pair(content)
    } else {
        bare::pair(content, || stored_beside(path))
    };
    pair.map(HotkeyPair)
        .map_err(|reason| WalletError::Unusable {
            path: path.display().to_string(),
            reason,
        })
}

/// The public key in `<file>pub.txt`, which newer wallets write beside each hotkey.
fn stored_beside(path: &Path) -> Result<Hotkey, String> {
    let mut name = path.as_os_str().to_owned();
    name.push("pub.txt");
    let beside = Path::new(&name);
    let (content, _) = read(beside).map_err(|_| {
        format!(
            "it is a bare secret that names no public key; write the hotkey's SS58 address into {}, so \
             that the two can be compared",
            beside.display()
        )
    })?;
    json::public_key(&content).map_err(|reason| format!("{}: {reason}", beside.display()))
}

/// Decrypts a key file in place with Bittensor's own package, which asks for the password.
fn decrypt_command(path: &str) -> String {
    format!("python3 -c \"from bittensor_wallet import Keyfile; Keyfile('{path}').decrypt()\"")
}

/// The secret that belongs to the stored public key, of those that a file's text can mean.
fn belonging(
    pairs: impl IntoIterator<Item = sr25519::Pair>,
    stored: Hotkey,
) -> Result<sr25519::Pair, String> {
    pairs
        .into_iter()
        .find(|pair| pair.public().0 == stored.0)
        .ok_or_else(|| "its secret belongs to another public key than the stored one".to_owned())
}
