//! The kinds of values that a configuration file may hold, each with its unit.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::{Serialize, Serializer};
use toml::de::DeValue;
use url::Url;

use crate::bittensor::{AddressError, BlockHash, Hotkey};

/// What is said when the file holds a secret instead of naming one.
pub(super) const SECRET_IN_FILE: &str = "secrets do not belong in this file; put the value in an \
     environment variable or a file of its own and name that by a key ending in _env or _file";

const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// A value that can be read from TOML.
pub(super) trait Setting: Sized {
    /// What the file should hold, for the message.
    const EXPECTED: &'static str;
    /// Reads and checks one value; the error continues the sentence "key …".
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

fn wrong<T: Setting>(value: &DeValue<'_>) -> String {
    format!("must be {}, found {}", T::EXPECTED, value.type_str())
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
            return Err("must be 1 to 4096 bytes of text without control characters".into());
        }
        Ok(text.to_owned())
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong::<Self>(value))
    }
}

macro_rules! integer {
    ($($int:ty: $text:literal,)*) => {$(
        impl Setting for $int {
            const EXPECTED: &'static str = $text;
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let digits = value.as_integer().ok_or_else(|| wrong::<Self>(value))?;
                <$int>::from_str_radix(digits.as_str(), digits.radix())
                    .map_err(|_| format!("is {digits}, must be {}", Self::EXPECTED))
            }
        }
    )*};
}

integer! {
    u8: "a whole number from 0 to 255",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number from 0",
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => return Err(wrong::<Self>(value)),
        };
        let number = text.parse::<Self>().ok().filter(|n| n.is_finite());
        number.ok_or_else(|| format!("is {text}, must be a finite number"))
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration with its unit, such as \"30s\" or \"2h\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        humantime::parse_duration(text)
            .map_err(|e| format!("{text:?} is not {}: {e}", Self::EXPECTED))
    }
}

/// A number of bytes; in the file with its unit, such as `"72GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `n` × 2²⁰ bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// `n` × 2³⁰ bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n * 1024 * 1024 * 1024)
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"];
        let (mut number, mut unit) = (self.0, 0);
        while number != 0 && number % 1024 == 0 && unit + 1 < units.len() {
            number /= 1024;
            unit += 1;
        }
        write!(f, "{number}{}", units[unit])
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Setting for Bytes {
    const EXPECTED: &'static str = "a size with its unit, such as \"72GiB\" or \"512MiB\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        let bare = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if !bare => Ok(Self(size.as_u64())),
            _ => Err(format!("{text:?} is not {}", Self::EXPECTED)),
        }
    }
}

impl Setting for Hotkey {
    const EXPECTED: &'static str = "an SS58 address";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        text.parse().map_err(|e: AddressError| e.to_string())
    }
}

impl Setting for Url {
    const EXPECTED: &'static str = "a URL";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = String::read(value)?;
        let url: Self = text
            .parse()
            .map_err(|e| format!("is not a URL: {e}; write it with its scheme and host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "the URL carries a user or password; {SECRET_IN_FILE}"
            ));
        }
        if url.host_str().is_none() {
            return Err("the URL names no host".into());
        }
        Ok(url)
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address with its port, such as \"127.0.0.1:9100\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        text.parse()
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl Setting for BlockHash {
    const EXPECTED: &'static str = "a block hash: 0x and 64 hex digits";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        String::read(value)?.parse()
    }
}

/// A network: an address and how many of its leading bits count, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Address.
    pub address: IpAddr,
    /// Leading bits that count, 0 to 32 or 128.
    pub length: u8,
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}/{}", self.address, self.length))
    }
}

impl Setting for Network {
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        let refuse = || format!("{text:?} is not {}", Self::EXPECTED);
        let (address, length) = text.split_once('/').ok_or_else(refuse)?;
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match length.parse::<u8>() {
            Ok(length) if length <= most => Ok(Self { address, length }),
            _ => Err(refuse()),
        }
    }
}

/// A beacon's public key: a compressed point of G2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeaconKey(pub [u8; 96]);

impl Setting for BeaconKey {
    const EXPECTED: &'static str = "a beacon's public key: 0x and 192 hex digits";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = String::read(value)?;
        let mut key = [0; 96];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut key)
            .map_err(|_| format!("must be {}", Self::EXPECTED))?;
        Ok(Self(key))
    }
}

impl Serialize for BeaconKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("0x{}", hex::encode(self.0)))
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "a list of 1 to 64 values";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let array = value.as_array().ok_or_else(|| wrong::<Self>(value))?;
        if array.is_empty() || array.len() > 64 {
            return Err(format!("must be {}", Self::EXPECTED));
        }
        array.iter().map(|item| T::read(item.get_ref())).collect()
    }
}

/// The name of an environment variable that holds a secret.
pub(super) struct EnvName(pub(super) String);

impl Setting for EnvName {
    const EXPECTED: &'static str = "the name of an environment variable, such as \"HF_TOKEN\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(|| wrong::<Self>(value))?;
        let name = text
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !name || text.is_empty() || text.len() > 64 {
            // The text is not repeated: it may be the secret itself.
            return Err(format!("must be {}; {SECRET_IN_FILE}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `text` as an absolute path: `~/` starts at home, a relative path in `base`.
pub(super) fn resolve_path(text: &str, base: &Path) -> Result<PathBuf, String> {
    if let Some(rest) = text.strip_prefix("~/") {
        let home = std::env::home_dir().ok_or("starts with ~/ but no home folder is known")?;
        return Ok(home.join(rest));
    }
    Ok(base.join(text))
}

/// A duration as the file writes it.
pub(super) fn duration_text<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&humantime::format_duration(*value))
}

/// A URL as the file writes it.
pub(super) fn url_text<S: Serializer>(value: &Url, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(value.as_str())
}

/// URLs as the file writes them.
pub(super) fn url_texts<S: Serializer>(values: &[Url], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(values.iter().map(Url::as_str))
}

/// Why a secret could not be read. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set or empty.
    #[error("environment variable {0} is not set; set it before start")]
    Env(String),
    /// The file cannot be read.
    #[error("secret file {path} cannot be read: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file holds nothing or too much.
    #[error("secret file {} must hold one line of at most 16 KiB", .0.display())]
    Content(PathBuf),
}

/// Reads the secret that a section names by variable or file; `None` when it names none.
pub(super) fn secret(
    env: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, SecretError> {
    if let Some(name) = env {
        let value = std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let value = value.ok_or_else(|| SecretError::Env(name.to_owned()))?;
        return Ok(Some(value.trim().to_owned().into()));
    }
    let Some(path) = file else {
        return Ok(None);
    };
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let open = std::fs::File::open(path).map_err(failed)?;
    std::io::Read::read_to_string(
        &mut std::io::Read::take(open, SECRET_BYTES_MAX + 1),
        &mut text,
    )
    .map_err(failed)?;
    let value = text.trim();
    if value.is_empty() || value.lines().count() != 1 || text.len() > 16 * 1024 {
        return Err(SecretError::Content(path.to_owned()));
    }
    Ok(Some(value.to_owned().into()))
}
