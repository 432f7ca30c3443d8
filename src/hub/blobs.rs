//! Large files by content: fetched once, linked into every model that holds them.
//!
//! The number of a file's links says whether a model holds it: that is true after any kill, and
//! removing an unlinked file takes nothing from anyone.

use super::download::Pin;
use super::{HubError, PublishedDigest, RepoFile};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

const PARTS: &str = ".parts";

/// Where a file's content lies: complete, and until then.
pub(super) struct Place {
    pub(super) whole: PathBuf,
    pub(super) part: PathBuf,
}

impl Place {
    /// A file with a published SHA-256 lies under that, any other in the model's own folder: git's
    /// SHA-1 is no proof that two contents are one.
    pub(super) fn of(pin: &Pin<'_>, file: &RepoFile) -> Self {
        let (folder, name) = match &file.digest {
            PublishedDigest::Sha256(hex) => (pin.blobs, hex),
            PublishedDigest::GitBlob(_) => (pin.dest, &file.path),
        };
        Self {
            whole: folder.join(name),
            part: folder.join(PARTS).join(format!("{name}.part")),
        }
    }

    /// Gives the complete content its name in the model's folder.
    pub(super) fn link(&self, name: &Path) -> Result<(), HubError> {
        if self.whole == name {
            return Ok(());
        }
        let linked = match fs::hard_link(&self.whole, name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(name).and_then(|()| fs::hard_link(&self.whole, name))
            }
            other => other,
        };
        linked.map_err(|e| HubError::disk("link", name, e))
    }
}

/// Which contents are being fetched: of two models that share one, the second waits for the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>>);

impl Flights {
    /// The right to fetch what belongs to `whole`. The caller bounds the wait.
    pub(super) async fn turn(&self, whole: &Path) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turn| turn.strong_count() > 0);
            match all.get(whole).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(whole.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

/// Makes the folders for blobs. Blocks.
pub(super) fn make_folder(blobs: &Path) -> Result<(), HubError> {
    let parts = blobs.join(PARTS);
    fs::create_dir_all(&parts).map_err(|e| HubError::disk("make the folder", &parts, e))
}

/// A file that no model holds.
struct Unlinked {
    path: PathBuf,
    bytes: u64,
    /// Unix seconds at which the last model let go of it.
    since: i64,
}

/// Removes blobs that no model holds, those first that were let go longest ago, until `bytes` are
/// free. Returns how many were freed. Blocks.
///
/// # Errors
/// When the folder cannot be read or a file not removed.
pub fn evict(blobs: &Path, bytes: u64) -> io::Result<u64> {
    let mut unlinked = unlinked(blobs)?;
    unlinked.sort_by_key(|blob| blob.since);
    let mut freed = 0;
    for blob in unlinked {
        if freed >= bytes {
            break;
        }
        fs::remove_file(&blob.path)?;
        freed += blob.bytes;
    }
    Ok(freed)
}

/// Removes unfinished blobs that nobody has written to for so long. Blocks.
///
/// # Errors
/// When the folder cannot be read or a file not removed.
pub fn drop_stale_parts(blobs: &Path, age: Duration) -> io::Result<()> {
    let parts = blobs.join(PARTS);
    if !parts.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(parts)? {
        let entry = entry?;
        let written = entry.metadata()?.modified()?;
        if written.elapsed().is_ok_and(|silent| silent > age) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn unlinked(blobs: &Path) -> io::Result<Vec<Unlinked>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(blobs)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() && meta.nlink() == 1 {
            found.push(Unlinked {
                path: entry.path(),
                bytes: meta.len(),
                since: meta.ctime(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_model_holds_is_evicted() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, mount) = (dir.path().join("blobs"), dir.path().join("mount"));
        make_folder(&blobs).unwrap();
        fs::create_dir(&mount).unwrap();
        for (name, held) in [("a", true), ("b", false), ("c", false)] {
            fs::write(blobs.join(name), [0; 100]).unwrap();
            if held {
                fs::hard_link(blobs.join(name), mount.join(name)).unwrap();
            }
        }
        assert_eq!(evict(&blobs, 0).unwrap(), 0);
        assert_eq!(evict(&blobs, 1).unwrap(), 100);
        assert_eq!(evict(&blobs, u64::MAX).unwrap(), 100);
        assert!(blobs.join("a").exists() && mount.join("a").exists());
        fs::remove_file(mount.join("a")).unwrap();
        assert_eq!(evict(&blobs, u64::MAX).unwrap(), 100);
    }

    #[test]
    fn an_eviction_at_the_worst_moment_takes_nothing_from_a_model() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs");
        make_folder(&blobs).unwrap();
        fs::write(blobs.join("x"), "weights").unwrap();
        let place = Place {
            whole: blobs.join("x"),
            part: blobs.join(".parts/x.part"),
        };
        let name = dir.path().join("model.safetensors");
        place.link(&name).unwrap();
        // What an eviction does that had seen the blob before it was linked.
        fs::remove_file(blobs.join("x")).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"weights");
    }

    #[test]
    fn unfinished_blobs_are_dropped_by_age_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop_stale_parts(dir.path(), Duration::ZERO).unwrap();
        make_folder(dir.path()).unwrap();
        let part = dir.path().join(".parts/x.part");
        fs::write(&part, "x").unwrap();
        drop_stale_parts(dir.path(), Duration::from_secs(3600)).unwrap();
        assert!(part.exists());
        let now = fs::metadata(&part).unwrap().modified().unwrap();
        let old = now - Duration::from_secs(7200);
        fs::File::options()
            .write(true)
            .open(&part)
            .unwrap()
            .set_modified(old)
            .unwrap();
        drop_stale_parts(dir.path(), Duration::from_secs(3600)).unwrap();
        assert!(!part.exists());
    }

    #[tokio::test]
    async fn the_second_of_two_waits_for_the_first() {
        let flights = Flights::default();
        let first = flights.turn(Path::new("a")).await;
        let other = flights.turn(Path::new("b")).await;
        let second = tokio::time::timeout(Duration::from_millis(20), flights.turn(Path::new("a")));
        assert!(second.await.is_err());
        drop((first, other));
        let _again = flights.turn(Path::new("a")).await;
        assert_eq!(flights.0.lock().unwrap().len(), 1);
    }
}
