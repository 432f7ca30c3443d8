//! Repositories on disk: what is published, under which commit, with which digests.

use crate::hub::{Hasher, PublishedDigest};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Deepest folder within a repository that is served.
const MAX_DEPTH: usize = 8;

/// A file of a snapshot.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it lies.
    pub(super) file: PathBuf,
    pub(super) size: u64,
    pub(super) digest: PublishedDigest,
}

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revision: String,
    /// By path within the repository, `/` between folders.
    pub(super) files: BTreeMap<String, Entry>,
}

/// What is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Repo,
    Revision,
}

/// The folder of repositories. Digests are computed once per commit.
#[derive(Debug)]
pub(super) struct Catalogue {
    root: PathBuf,
    known: Mutex<HashMap<PathBuf, Arc<Snapshot>>>,
}

impl Catalogue {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            known: Mutex::default(),
        }
    }

    /// The snapshot of `revision`, or of the head for `main`. Reads all files the first time.
    pub(super) fn find(
        &self,
        namespace: &str,
        name: &str,
        revision: &str,
    ) -> io::Result<Result<Arc<Snapshot>, Missing>> {
        let repo = self.root.join(namespace).join(name);
        if !is_plain(namespace) || !is_plain(name) || !repo.is_dir() {
            return Ok(Err(Missing::Repo));
        }
        let revision = match revision {
            "main" => fs::read_to_string(repo.join("main")).unwrap_or_default(),
            other => other.to_owned(),
        };
        let folder = repo.join(revision.trim());
        if !is_plain(revision.trim()) || !folder.is_dir() {
            return Ok(Err(Missing::Revision));
        }
        if let Some(known) = self.lock().get(&folder) {
            return Ok(Ok(Arc::clone(known)));
        }
        let snapshot = Arc::new(Snapshot {
            revision: revision.trim().to_owned(),
            files: read_files(&folder)?,
        });
        self.lock().insert(folder, Arc::clone(&snapshot));
        Ok(Ok(snapshot))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Snapshot>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes a copy of the files in `source` as the head of a repository under `root`, and returns
/// its revision, which follows from the files' names and contents alone. A hub that serves `root`
/// hands it out at once.
///
/// # Errors
/// When `repo` is no `namespace/name` or the disk fails.
pub fn publish(root: &Path, repo: &str, source: &Path) -> io::Result<String> {
    let parts = repo.split_once('/');
    let Some((namespace, name)) = parts.filter(|(ns, name)| is_plain(ns) && is_plain(name)) else {
        let text = format!("{repo:?} is no repository `namespace/name`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let files = read_files(source)?;
    let mut listing = String::new();
    for (path, entry) in &files {
        listing.push_str(&format!("{} {path}\n", entry.digest));
    }
    let revision = git_oid(listing.as_bytes());
    let repo = root.join(namespace).join(name);
    fs::create_dir_all(&repo)?;
    let folder = repo.join(&revision);
    if !folder.exists() {
        let unfinished = tempfile::Builder::new().prefix(".").tempdir_in(&repo)?;
        for (path, entry) in &files {
            let to = unfinished.path().join(path);
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            fs::copy(&entry.file, to)?;
        }
        fs::rename(unfinished.keep(), &folder)?;
    }
    let mut head = tempfile::NamedTempFile::new_in(&repo)?;
    io::Write::write_all(&mut head, revision.as_bytes())?;
    head.persist(repo.join("main")).map_err(|e| e.error)?;
    Ok(revision)
}

/// The git blob id of a text; stands in for the ids of commits and folders too.
pub(super) fn git_oid(text: &[u8]) -> String {
    let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let mut hasher = Hasher::with_git_blob(size);
    hasher.update(text);
    hasher.finish().git_blob.unwrap_or_default()
}

fn is_plain(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
}

fn read_files(folder: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let mut files = BTreeMap::new();
    read_folder(folder, "", 0, &mut files)?;
    Ok(files)
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < MAX_DEPTH {
            let inner = format!("{prefix}{name}/");
            read_folder(&entry.path(), &inner, depth + 1, files)?;
        } else if kind.is_file() {
            files.insert(format!("{prefix}{name}"), read_entry(entry.path())?);
        }
    }
    Ok(())
}

fn read_entry(file: PathBuf) -> io::Result<Entry> {
    let mut content = fs::File::open(&file)?;
    let size = content.metadata()?.len();
    let large = file.extension().is_some_and(|kind| kind == "safetensors");
    let mut hasher = if large {
        Hasher::sha256()
    } else {
        Hasher::with_git_blob(size)
    };
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let digests = hasher.finish();
    let digest = match digests.git_blob {
        Some(oid) => PublishedDigest::GitBlob(oid),
        None => PublishedDigest::Sha256(digests.sha256),
    };
    Ok(Entry { file, size, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_pins_the_content_and_moves_the_head() {
        let (root, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(source.path().join("sub")).unwrap();
        fs::write(source.path().join("sub/a.txt"), "hello\n").unwrap();
        fs::write(source.path().join("m.safetensors"), "x").unwrap();
        let first = publish(root.path(), "ns/name", source.path()).unwrap();
        assert_eq!(
            publish(root.path(), "ns/name", source.path()).unwrap(),
            first
        );
        fs::write(source.path().join("m.safetensors"), "y").unwrap();
        let second = publish(root.path(), "ns/name", source.path()).unwrap();
        assert_ne!(first, second);

        let catalogue = Catalogue::new(root.path().to_owned());
        let find = |revision: &str| catalogue.find("ns", "name", revision).unwrap();
        assert_eq!(find("main").unwrap().revision, second);
        let old = find(&first).unwrap();
        let digest = old.files["sub/a.txt"].digest.hex();
        assert_eq!(digest, "ce013625030ba8dba906f756967f9e9ca394464a");
        assert!(old.files["m.safetensors"].digest.sha256().is_some());
        assert_eq!(find("other").unwrap_err(), Missing::Revision);
        assert_eq!(find("..").unwrap_err(), Missing::Revision);
        for (namespace, name) in [("..", "ns"), ("ns", ".."), ("ns", "none"), ("", "")] {
            let found = catalogue.find(namespace, name, "main").unwrap();
            assert_eq!(found.unwrap_err(), Missing::Repo);
        }
        assert!(publish(root.path(), "../x", source.path()).is_err());
    }
}
