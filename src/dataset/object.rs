//! Immutable objects on disk: files named by the SHA-256 of the plain bytes, in three ready forms.
//!
//! | file | what |
//! |---|---|
//! | `<hex>` | the plain bytes |
//! | `<hex>.gz`, `<hex>.zst` | the same, compressed once |
//! | `<hex>.index` | a pack's index |
//! | `<hex>.manifest.json` | the signed manifest; written last, removed first |
//! | `packs.json` | all packs' manifests, for hosts that only hand out files |
//!
//! An object is there when its manifest is. A server needs nothing but [`lookup`] and
//! [`Object::path`]: lengths, digests, media type and count are in the manifest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::manifest::{FileFacts, Form, Kind, Manifest};
use super::seal::write_whole;
use super::signed::Signed;
use super::{DatasetError, ObjectDigest};

/// A manifest whose signature holds.
pub type SignedManifest = Signed<Manifest>;

/// Name of the listing for static hosts.
pub const LISTING_FILE: &str = "packs.json";
const MANIFEST_SUFFIX: &str = ".manifest.json";
const MANIFEST_BYTES_MAX: u64 = 32 * 1024;
const OBJECTS_MAX: usize = 10_000;

/// An object whose manifest was found and whose signature holds. Its files are there with the
/// lengths that the manifest names; their bytes are checked by whoever uses them.
#[derive(Debug, Clone)]
pub struct Object {
    folder: PathBuf,
    manifest: SignedManifest,
}

/// Where a form of the object `digest` lies in `folder`.
#[must_use]
pub fn form_path(folder: &Path, digest: ObjectDigest, form: Form) -> PathBuf {
    folder.join(format!("{}{}", digest.hex(), form.suffix()))
}

pub(super) fn index_path(folder: &Path, digest: ObjectDigest) -> PathBuf {
    folder.join(format!("{}.index", digest.hex()))
}

pub(super) fn manifest_path(folder: &Path, digest: ObjectDigest) -> PathBuf {
    folder.join(format!("{}{MANIFEST_SUFFIX}", digest.hex()))
}

impl Object {
    /// Its signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        &self.manifest
    }

    /// The file of a form, or an error when it is missing or its length is not the manifest's.
    ///
    /// # Errors
    /// [`DatasetError::Corrupt`], [`DatasetError::Io`].
    pub fn path(&self, form: Form) -> Result<(PathBuf, FileFacts), DatasetError> {
        let path = form_path(&self.folder, self.manifest.digest, form);
        let facts = self.manifest.forms.get(form);
        let found = fs::metadata(&path).map_err(DatasetError::io(&path))?.len();
        if found != facts.bytes {
            let reason = format!("it has {found} bytes, its manifest says {}", facts.bytes);
            return Err(DatasetError::corrupt(path.display().to_string(), reason));
        }
        Ok((path, facts))
    }
}

/// The object `digest` of `folder`; `None` when there is none.
///
/// # Errors
/// [`DatasetError::Corrupt`] when its manifest is not valid; [`DatasetError::Io`].
pub fn lookup(folder: &Path, digest: ObjectDigest) -> Result<Option<Object>, DatasetError> {
    match read_manifest(folder, digest) {
        Ok(manifest) => Ok(Some(Object {
            folder: folder.to_owned(),
            manifest,
        })),
        Err(DatasetError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn read_manifest(
    folder: &Path,
    digest: ObjectDigest,
) -> Result<SignedManifest, DatasetError> {
    let path = manifest_path(folder, digest);
    let corrupt = |reason: String| DatasetError::corrupt(format!("manifest of {digest}"), reason);
    let size = fs::metadata(&path).map_err(DatasetError::io(&path))?.len();
    if size > MANIFEST_BYTES_MAX {
        return Err(corrupt("it is larger than 32 KiB".to_owned()));
    }
    let bytes = fs::read(&path).map_err(DatasetError::io(&path))?;
    let manifest = SignedManifest::from_json(&bytes).map_err(|e| corrupt(e.to_string()))?;
    match manifest.problem() {
        _ if manifest.digest != digest => Err(corrupt("it speaks of another object".to_owned())),
        Some(problem) => Err(corrupt(problem.to_owned())),
        None => Ok(manifest),
    }
}

/// Whether these forms of an object, and its index if it has one, are there with their lengths.
pub(super) fn is_whole(folder: &Path, manifest: &SignedManifest, forms: &[Form]) -> bool {
    let has = |path: PathBuf, facts: FileFacts| {
        fs::metadata(path).is_ok_and(|found| found.len() == facts.bytes)
    };
    let digest = manifest.digest;
    let form = |form: &Form| has(form_path(folder, digest, *form), manifest.forms.get(*form));
    let index = manifest
        .index
        .map(|facts| has(index_path(folder, digest), facts));
    index.unwrap_or(true) && forms.iter().all(form)
}

/// Signed manifests of the objects of one kind in `folder`, newest sealed first. One that cannot
/// be read is logged and left out; a missing folder holds none. Reads every manifest: keep the
/// answer for a while where many ask.
///
/// # Errors
/// When the folder cannot be listed or holds more than 10,000 objects.
pub fn list(folder: &Path, kind: Kind) -> Result<Vec<SignedManifest>, DatasetError> {
    let mut manifests = Vec::new();
    for digest in digests(folder)? {
        match read_manifest(folder, digest) {
            Ok(manifest) if manifest.kind == kind => manifests.push(manifest),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a manifest cannot be used; left out"),
        }
    }
    manifests.sort_by_key(|m| (std::cmp::Reverse(m.sealed_ms), m.digest));
    Ok(manifests)
}

/// The packs of `folder`, newest sealed first; see [`list`].
///
/// # Errors
/// As [`list`].
pub fn list_packs(folder: &Path) -> Result<Vec<SignedManifest>, DatasetError> {
    list(folder, Kind::Pack)
}

fn digests(folder: &Path) -> Result<Vec<ObjectDigest>, DatasetError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(DatasetError::io(folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(DatasetError::io(folder))?.file_name();
        let stem = name.to_str().and_then(|n| n.strip_suffix(MANIFEST_SUFFIX));
        found.extend(stem.and_then(|stem| stem.parse::<ObjectDigest>().ok()));
        if found.len() > OBJECTS_MAX {
            return Err(DatasetError::TooLarge {
                what: folder.display().to_string(),
                reason: format!("at most {OBJECTS_MAX} objects; move old ones away"),
            });
        }
    }
    Ok(found)
}

/// A listing of packs, as `GET /v1/packs` and [`LISTING_FILE`] carry it.
#[derive(Debug, Serialize)]
pub struct Listing<'a> {
    /// Signed manifests, newest sealed first.
    pub packs: &'a [SignedManifest],
}

/// Writes [`LISTING_FILE`] anew, whole or not at all.
///
/// # Errors
/// As [`list`], or when the disk refuses.
pub fn write_listing(folder: &Path) -> Result<(), DatasetError> {
    let packs = list_packs(folder)?;
    let text = serde_json::to_string(&Listing { packs: &packs })
        .map_err(|e| DatasetError::corrupt(LISTING_FILE, e.to_string()))?;
    write_whole(&folder.join(LISTING_FILE), text.as_bytes())
}

/// Removes an object. The manifest goes first: what has none is offered to nobody.
pub(super) fn remove(folder: &Path, digest: ObjectDigest) -> Result<(), DatasetError> {
    let forms = Form::ALL.map(|form| form_path(folder, digest, form));
    let named = [manifest_path(folder, digest), index_path(folder, digest)];
    for path in named.into_iter().chain(forms) {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(DatasetError::io(&path)(e));
            }
            _ => {}
        }
    }
    Ok(())
}
