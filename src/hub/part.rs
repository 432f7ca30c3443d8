//! The unfinished file on disk: locked, hashed as it grows, made visible in one step.

use super::{Digests, Hasher, HubError, RepoFile, TransientKind};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// Bytes gathered before they go to the disk, and read at once when hashing.
const BUFFER: usize = 1 << 20;

/// An unfinished file. The lock on it ends with the process, so a kill leaves nothing to clean up.
pub(super) struct Part {
    path: PathBuf,
    file: RepoFile,
    gathered: Vec<u8>,
    disk: Disk,
    len: u64,
}

/// The file and the hash of what it holds: at hand, or with the thread that writes and hashes the
/// last buffer while the next one fills.
enum Disk {
    Idle(Box<Held>),
    Busy(JoinHandle<(Box<Held>, io::Result<()>)>),
    /// A write ended its thread; nothing more can be done with this part.
    Gone,
}

struct Held {
    out: File,
    hasher: Hasher,
    spare: Vec<u8>,
}

impl Part {
    /// Opens or makes the unfinished file and hashes what it already holds. More bytes than the
    /// file may have are not resumed.
    pub(super) async fn open(path: PathBuf, file: RepoFile) -> Result<Self, HubError> {
        off_thread("hash", path.clone(), move || {
            let mut out = open_locked(&path)?;
            let mut hasher = Hasher::like(&file.digest, file.size);
            let mut len = out
                .metadata()
                .map_err(|e| HubError::disk("measure", &path, e))?
                .len();
            if len > file.size {
                out.set_len(0)
                    .map_err(|e| HubError::disk("empty", &path, e))?;
            }
            len = hash_all(&mut out, &mut hasher).map_err(|e| HubError::disk("read", &path, e))?;
            let held = Box::new(Held {
                out,
                hasher,
                spare: Vec::with_capacity(BUFFER),
            });
            Ok(Self {
                path,
                file,
                gathered: Vec::with_capacity(BUFFER),
                disk: Disk::Idle(held),
                len,
            })
        })
        .await
    }

    /// Bytes held.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes still to come.
    pub(super) fn missing(&self) -> u64 {
        self.file.size.saturating_sub(self.len)
    }

    /// Takes the next bytes; at most [`Part::missing`]. Waits only when the disk is slower than the
    /// hub by a whole buffer.
    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.gathered.extend_from_slice(bytes);
        self.len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.gathered.len() >= BUFFER {
            self.write_gathered().await?;
        }
        Ok(())
    }

    /// Hands gathered bytes to the system, so that a later attempt finds them.
    pub(super) async fn flush(&mut self) -> Result<(), HubError> {
        if !self.gathered.is_empty() {
            self.write_gathered().await?;
        }
        let held = self.settle().await?;
        self.disk = Disk::Idle(held);
        Ok(())
    }

    async fn write_gathered(&mut self) -> Result<(), HubError> {
        let mut held = self.settle().await?;
        let buffer = std::mem::replace(&mut self.gathered, std::mem::take(&mut held.spare));
        self.disk = Disk::Busy(tokio::task::spawn_blocking(move || {
            let mut buffer = buffer;
            let written = held.out.write_all(&buffer);
            held.hasher.update(&buffer);
            buffer.clear();
            held.spare = buffer;
            (held, written)
        }));
        Ok(())
    }

    /// Waits for the write in flight.
    async fn settle(&mut self) -> Result<Box<Held>, HubError> {
        let stopped = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let ended = match std::mem::replace(&mut self.disk, Disk::Gone) {
            Disk::Idle(held) => return Ok(held),
            Disk::Busy(writing) => writing.await.map_err(|e| stopped(&e)),
            Disk::Gone => Err(stopped(&"an earlier write failed")),
        };
        ended
            .and_then(|(held, written)| written.map(|()| held))
            .map_err(|e| HubError::disk("write", &self.path, e))
    }

    /// Throws all bytes away.
    pub(super) async fn restart(&mut self) -> Result<(), HubError> {
        self.gathered.clear();
        let mut held = self.settle().await?;
        let emptied = held.out.set_len(0).and_then(|()| held.out.rewind());
        emptied.map_err(|e| HubError::disk("empty", &self.path, e))?;
        held.hasher = Hasher::like(&self.file.digest, self.file.size);
        self.disk = Disk::Idle(held);
        self.len = 0;
        Ok(())
    }

    /// The digests of the bytes held.
    pub(super) async fn digests(&mut self) -> Result<Digests, HubError> {
        self.flush().await?;
        let held = self.settle().await?;
        let digests = held.hasher.clone().finish();
        self.disk = Disk::Idle(held);
        Ok(digests)
    }

    /// Makes the bytes durable and gives them their name, readable by all.
    pub(super) async fn publish(mut self, name: PathBuf) -> Result<(), HubError> {
        self.flush().await?;
        let held = self.settle().await?;
        let path = self.path;
        off_thread("publish", path.clone(), move || {
            let named = held
                .out
                .set_permissions(Permissions::from_mode(0o644))
                .and_then(|()| held.out.sync_all())
                .and_then(|()| fs::rename(&path, &name));
            named.map_err(|e| HubError::disk("publish", &path, e))
        })
        .await
    }
}

/// Hashes a finished file under its name, if it is there, a plain file and of the right size.
/// Anything else of that name is removed.
pub(super) async fn hash_finished(
    path: PathBuf,
    file: RepoFile,
) -> Result<Option<Digests>, HubError> {
    off_thread("hash", path.clone(), move || {
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(HubError::disk("look at", &path, e)),
        };
        if there.is_file() && there.len() == file.size {
            let mut hasher = Hasher::like(&file.digest, file.size);
            File::open(&path)
                .and_then(|mut finished| hash_all(&mut finished, &mut hasher))
                .map_err(|e| HubError::disk("read", &path, e))?;
            let digests = hasher.finish();
            if digests.like(&file.digest).as_ref() == Some(&file.digest) {
                return Ok(Some(digests));
            }
        }
        fs::remove_file(&path).map_err(|e| HubError::disk("remove", &path, e))?;
        Ok(None)
    })
    .await
}

fn open_locked(path: &Path) -> Result<File, HubError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
    let file = File::from(opened.map_err(|e| HubError::disk("open", path, e.into()))?);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HubError::transient(
            TransientKind::Busy,
            format!("{} is being downloaded by another process", path.display()),
        )),
        Err(TryLockError::Error(e)) => Err(HubError::disk("lock", path, e)),
    }
}

fn hash_all(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut len = 0_u64;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..read]);
        len += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

async fn off_thread<T: Send + 'static>(
    action: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(HubError::disk(action, &path, io::Error::other(stopped))))
}
