//! The unfinished file on disk: locked, hashed as it grows, made visible in one step.

use super::{Digests, Hasher, HubError, RepoFile, TransientKind};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};

/// Bytes gathered before they go to the disk, and read at once when hashing.
const BUFFER: usize = 1 << 20;

/// An unfinished file. The lock on it ends with the process, so a kill leaves nothing to clean up.
pub(super) struct Part {
    path: PathBuf,
    file: RepoFile,
    out: BufWriter<tokio::fs::File>,
    hasher: Hasher,
    len: u64,
}

impl Part {
    /// Opens or makes the unfinished file and hashes what it already holds. More bytes than the
    /// file may have are not resumed.
    pub(super) async fn open(path: PathBuf, file: RepoFile) -> Result<Self, HubError> {
        off_thread("hash", path.clone(), move || {
            let mut std_file = open_locked(&path)?;
            let mut hasher = Hasher::like(&file.digest, file.size);
            let mut len = std_file
                .metadata()
                .map_err(|e| HubError::disk("measure", &path, e))?
                .len();
            if len > file.size {
                std_file
                    .set_len(0)
                    .map_err(|e| HubError::disk("empty", &path, e))?;
            }
            len = hash_all(&mut std_file, &mut hasher)
                .map_err(|e| HubError::disk("read", &path, e))?;
            let out = tokio::fs::File::from_std(std_file);
            Ok(Self {
                out: BufWriter::with_capacity(BUFFER, out),
                path,
                file,
                hasher,
                len,
            })
        })
        .await
    }

    /// Bytes held and hashed.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes still to come.
    pub(super) fn missing(&self) -> u64 {
        self.file.size.saturating_sub(self.len)
    }

    /// Takes the next bytes; at most [`Part::missing`].
    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.out.write_all(bytes).await;
        written.map_err(|e| HubError::disk("write", &self.path, e))?;
        self.hasher.update(bytes);
        self.len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Hands gathered bytes to the system, so that a later attempt finds them.
    pub(super) async fn flush(&mut self) -> Result<(), HubError> {
        let flushed = self.out.flush().await;
        flushed.map_err(|e| HubError::disk("write", &self.path, e))
    }

    /// Throws all bytes away.
    pub(super) async fn restart(&mut self) -> Result<(), HubError> {
        self.flush().await?;
        let emptied = async {
            self.out.get_mut().set_len(0).await?;
            self.out.rewind().await
        };
        let emptied = emptied.await;
        emptied.map_err(|e| HubError::disk("empty", &self.path, e))?;
        self.hasher = Hasher::like(&self.file.digest, self.file.size);
        self.len = 0;
        Ok(())
    }

    /// The digests of the bytes held.
    pub(super) fn digests(&self) -> Digests {
        self.hasher.clone().finish()
    }

    /// Makes the bytes durable and gives them their name, readable by all.
    pub(super) async fn publish(mut self, name: PathBuf) -> Result<(), HubError> {
        self.flush().await?;
        let std_file = self.out.into_inner().into_std().await;
        let path = self.path;
        off_thread("publish", path.clone(), move || {
            let named = std_file
                .set_permissions(Permissions::from_mode(0o644))
                .and_then(|()| std_file.sync_all())
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
