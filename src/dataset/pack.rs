//! Sealed packs: immutable, named by content, checked whenever they are opened.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::lines::{Line, next_line};
use super::{CONVERSATIONS_MAX, Conversation, DatasetError, Day, Item, ItemId, LINE_BYTES_MAX};

/// Value of [`Manifest::schema`].
pub(super) const MANIFEST_SCHEMA: &str = "assay-pack/1";
/// Largest pack, uncompressed bytes.
pub const PLAIN_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Window of the compression, 2²⁷ bytes: the memory that reading a pack takes.
pub(super) const WINDOW_LOG: u32 = 27;
const MANIFEST_BYTES_MAX: u64 = 16 * 1024;
const PACKS_MAX: usize = 10_000;

/// SHA-256 of a pack's plain bytes. Text form `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackDigest(pub [u8; 32]);

impl PackDigest {
    /// The 64 hex digits, as file names and paths carry them.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for PackDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for PackDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackDigest({self})")
    }
}

impl FromStr for PackDigest {
    type Err = String;

    /// Reads 64 lower-case hex digits, with or without `sha256:`.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        let lower = !digits.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(digits, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err("a pack digest is sha256: and 64 lower-case hex digits".to_owned()),
        }
    }
}

impl Serialize for PackDigest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackDigest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What is said about a pack beside it, and in listings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `assay-pack/1`.
    pub schema: String,
    /// Digest of the plain bytes.
    pub digest: PackDigest,
    /// Length of the plain bytes.
    pub plain_bytes: u64,
    /// Length of the zstd file.
    pub zstd_bytes: u64,
    /// Number of conversations.
    pub count: u64,
    /// When it was sealed, unix milliseconds.
    pub sealed_ms: u64,
    /// Earliest day in it.
    pub from: Day,
    /// Latest day in it.
    pub to: Day,
}

/// Where the pack `digest` lies in `folder`.
#[must_use]
pub fn pack_path(folder: &Path, digest: PackDigest) -> PathBuf {
    folder.join(format!("{}.jsonl.zst", digest.hex()))
}

pub(super) fn manifest_path(folder: &Path, digest: PackDigest) -> PathBuf {
    folder.join(format!("{}.json", digest.hex()))
}

pub(super) fn read_manifest(folder: &Path, digest: PackDigest) -> Result<Manifest, DatasetError> {
    let path = manifest_path(folder, digest);
    let failed = |reason: &str| DatasetError::corrupt(path.display().to_string(), reason);
    let file = File::open(&path).map_err(DatasetError::io(&path))?;
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(DatasetError::io(&path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| failed("no pack manifest"))?;
    if manifest.schema != MANIFEST_SCHEMA || manifest.digest != digest {
        return Err(failed("it speaks of another pack or format"));
    }
    Ok(manifest)
}

/// Manifests of the packs in `folder`, newest first. A manifest that cannot be read, or whose pack
/// is missing, is logged and left out; a missing folder holds none.
///
/// # Errors
/// When the folder cannot be listed or holds more than 10,000 packs.
pub fn list_packs(folder: &Path) -> Result<Vec<Manifest>, DatasetError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(DatasetError::io(folder)(e)),
    };
    let mut manifests = Vec::new();
    for entry in entries {
        let name = entry.map_err(DatasetError::io(folder))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".json"));
        let Some(digest) = stem.and_then(|stem| stem.parse().ok()) else {
            continue;
        };
        match read_manifest(folder, digest) {
            Ok(manifest) if pack_path(folder, digest).is_file() => manifests.push(manifest),
            Ok(_) => tracing::warn!(%digest, "a manifest has no pack beside it; left out"),
            Err(error) => tracing::warn!(%error, "a manifest cannot be read; left out"),
        }
        if manifests.len() > PACKS_MAX {
            return Err(DatasetError::TooLarge {
                what: folder.display().to_string(),
                reason: format!("at most {PACKS_MAX} packs; move old ones away"),
            });
        }
    }
    manifests.sort_by_key(|m| (std::cmp::Reverse(m.sealed_ms), m.digest));
    Ok(manifests)
}

/// A pack whose bytes were found to be what its name says.
#[derive(Debug, Clone)]
pub struct Pack {
    path: PathBuf,
    digest: PackDigest,
    ids: Vec<ItemId>,
}

impl Pack {
    /// Opens `<hex digest>.jsonl.zst`: decompresses it, checks the digest of the plain bytes, and
    /// checks every conversation. Memory is bounded by the ids.
    ///
    /// # Errors
    /// [`DatasetError::Corrupt`] when name and content disagree.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(".jsonl.zst"));
        let digest = stem.and_then(|stem| stem.parse().ok()).ok_or_else(|| {
            let what = path.display().to_string();
            DatasetError::corrupt(what, "its name is not <64 hex digits>.jsonl.zst")
        })?;
        Self::open_as(path, digest)
    }

    /// As [`Self::open`], for a file that does not carry its name yet.
    pub(super) fn open_as(path: &Path, digest: PackDigest) -> Result<Self, DatasetError> {
        let mut ids = Vec::new();
        let mut seen = HashSet::new();
        scan(path, digest, |conversation| {
            ids.push(conversation.id());
            seen.insert(conversation.id()) && ids.len() <= CONVERSATIONS_MAX
        })?;
        Ok(Self {
            path: path.to_owned(),
            digest,
            ids,
        })
    }

    /// Digest of the plain bytes.
    #[must_use]
    pub fn digest(&self) -> PackDigest {
        self.digest
    }

    /// Ids of all its conversations, in the pack's order.
    #[must_use]
    pub fn ids(&self) -> &[ItemId] {
        &self.ids
    }

    /// The items with these ids, in the order asked for. The file is read and its digest checked
    /// again, so that a file changed since [`Self::open`] is noticed.
    ///
    /// # Errors
    /// [`DatasetError::Corrupt`] when the file changed or an id is not in the pack.
    pub fn items(&self, ids: &[ItemId]) -> Result<Vec<Item>, DatasetError> {
        let wanted: HashSet<_> = ids.iter().copied().collect();
        let mut found = std::collections::HashMap::with_capacity(wanted.len());
        scan(&self.path, self.digest, |conversation| {
            if wanted.contains(&conversation.id()) {
                found.insert(conversation.id(), conversation.into_item());
            }
            true
        })?;
        let missing = |id| DatasetError::corrupt(self.digest.to_string(), format!("holds no {id}"));
        ids.iter()
            .map(|id| found.get(id).cloned().ok_or_else(|| missing(id)))
            .collect()
    }
}

/// Hashes what passes through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Hands every conversation to `each` and checks the digest at the end. `each` says false for a
/// conversation that must not be there.
fn scan(
    path: &Path,
    digest: PackDigest,
    mut each: impl FnMut(Conversation) -> bool,
) -> Result<(), DatasetError> {
    let corrupt = |reason: String| DatasetError::corrupt(format!("pack {digest}"), reason);
    let file = File::open(path).map_err(DatasetError::io(path))?;
    let mut decoder = zstd::Decoder::new(file).map_err(DatasetError::io(path))?;
    decoder
        .window_log_max(WINDOW_LOG)
        .map_err(DatasetError::io(path))?;
    let hashing = Hashing {
        inner: decoder.take(PLAIN_BYTES_MAX),
        hash: Sha256::new(),
    };
    let mut reader = BufReader::with_capacity(64 * 1024, hashing);
    let mut buffer = Vec::new();
    loop {
        let line = match next_line(&mut reader, &mut buffer, LINE_BYTES_MAX) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return Err(corrupt(format!("cannot be decompressed: {error}"))),
        };
        if line != Line::Whole {
            return Err(corrupt("a line is torn or longer than 256 KiB".into()));
        }
        let conversation = Conversation::from_json(&buffer, None)
            .map_err(|reason| corrupt(format!("a conversation {reason}")))?;
        if !each(conversation) {
            return Err(corrupt("a conversation is there twice, or too many".into()));
        }
    }
    let found: [u8; 32] = reader.into_inner().hash.finalize().into();
    if found != digest.0 {
        let found = PackDigest(found);
        return Err(corrupt(format!("its plain bytes have digest {found}")));
    }
    Ok(())
}
