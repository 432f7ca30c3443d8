//! An object in the making: written once, in all forms at the same time.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::manifest::{FileFacts, Form, Forms, Kind, Manifest, SCHEMA};
use super::object::{
    SignedManifest, form_path, index_path, is_whole, manifest_path, read_manifest,
};
use super::seal::{persist, write_whole};
use super::signed::{Signed, Signer};
use super::{DatasetError, Day, MediaType, ObjectDigest};

/// Good ratios at speeds that one core sustains beside other work.
const ZSTD_LEVEL: i32 = 6;
const GZIP_LEVEL: u32 = 6;
/// Bytes handed to the compressors at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that may wait for a compressor: bounds the memory, whatever the object's size.
const CHUNKS_WAITING: usize = 8;
/// Beginning of the names of unfinished files.
const DRAFT_PREFIX: &str = ".draft-";

/// Writes to a file, and hashes and counts what passes.
pub(super) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    pub(super) fn finish(mut self) -> io::Result<(W, FileFacts)> {
        self.inner.flush()?;
        let sha256 = ObjectDigest(self.hash.finalize().into());
        let facts = FileFacts {
            bytes: self.bytes,
            sha256,
        };
        Ok((self.inner, facts))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += u64::try_from(n).unwrap_or(u64::MAX);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type Sink = Hashing<BufWriter<NamedTempFile>>;
type Finished = (NamedTempFile, FileFacts);

fn sink(folder: &Path) -> io::Result<Sink> {
    let file = tempfile::Builder::new()
        .prefix(DRAFT_PREFIX)
        .tempfile_in(folder)?;
    Ok(Hashing::new(BufWriter::with_capacity(CHUNK_BYTES, file)))
}

fn finished(sink: Sink) -> io::Result<Finished> {
    let (writer, facts) = sink.finish()?;
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok((file, facts))
}

/// A compressor on a thread of its own: sealing is bound by compression, and there are two.
/// Dropped before its end, it waits for the thread, which takes its unfinished file away.
struct Packer {
    chunks: Option<SyncSender<std::sync::Arc<[u8]>>>,
    thread: Option<JoinHandle<io::Result<Finished>>>,
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.chunks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Packer {
    fn start<W: Write + Send + 'static>(
        mut encoder: W,
        end: impl FnOnce(W) -> io::Result<Sink> + Send + 'static,
    ) -> Self {
        let (chunks, incoming) = sync_channel::<std::sync::Arc<[u8]>>(CHUNKS_WAITING);
        let thread = std::thread::spawn(move || {
            for chunk in incoming {
                encoder.write_all(&chunk)?;
            }
            finished(end(encoder)?)
        });
        Self {
            chunks: Some(chunks),
            thread: Some(thread),
        }
    }

    fn finish(mut self) -> io::Result<Finished> {
        self.chunks = None;
        let Some(thread) = self.thread.take() else {
            return Err(io::Error::other("the compressor has ended before"));
        };
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("a compressor panicked")))
    }
}

/// What a finished object is said to be.
pub(super) struct About {
    pub(super) kind: Kind,
    pub(super) media_type: MediaType,
    pub(super) count: u64,
    pub(super) days: (Day, Day),
    pub(super) sealed_ms: u64,
    /// Bytes of a pack's index.
    pub(super) index: Option<Vec<u8>>,
}

/// An object in the making. Dropped before [`Draft::finish`], it leaves nothing behind.
pub(super) struct Draft {
    plain: Sink,
    waiting: Vec<u8>,
    gzip: Packer,
    zstd: Packer,
}

impl Draft {
    pub(super) fn new(folder: &Path) -> Result<Self, DatasetError> {
        let start = || {
            let gzip = GzEncoder::new(sink(folder)?, flate2::Compression::new(GZIP_LEVEL));
            let mut zstd = zstd::Encoder::new(sink(folder)?, ZSTD_LEVEL)?;
            zstd.include_checksum(true)?;
            Ok(Self {
                plain: sink(folder)?,
                waiting: Vec::with_capacity(CHUNK_BYTES),
                gzip: Packer::start(gzip, GzEncoder::finish),
                zstd: Packer::start(zstd, zstd::Encoder::finish),
            })
        };
        start().map_err(DatasetError::io(folder))
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.plain.bytes
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DatasetError> {
        self.waiting.extend_from_slice(bytes);
        let here = DatasetError::io(Path::new("the draft of an object"));
        self.plain.write_all(bytes).map_err(here)?;
        if self.waiting.len() >= CHUNK_BYTES {
            self.hand_over();
        }
        Ok(())
    }

    /// A compressor that is gone has failed; `finish` hears why.
    fn hand_over(&mut self) {
        let chunk: std::sync::Arc<[u8]> = self.waiting.as_slice().into();
        self.waiting.clear();
        for packer in [&self.gzip, &self.zstd] {
            if let Some(chunks) = &packer.chunks {
                let _ = chunks.send(chunk.clone());
            }
        }
    }

    /// Gives the files their names, durably, the manifest last. An object that is there already
    /// keeps its first manifest, and nothing changes.
    pub(super) fn finish(
        mut self,
        folder: &Path,
        about: About,
        signer: &Signer,
    ) -> Result<SignedManifest, DatasetError> {
        self.hand_over();
        let end = || {
            let plain = finished(self.plain)?;
            Ok((plain, self.gzip.finish()?, self.zstd.finish()?))
        };
        let (plain, gzip, zstd) = end().map_err(DatasetError::io(folder))?;
        let forms = Forms {
            identity: plain.1,
            gzip: gzip.1,
            zstd: zstd.1,
        };
        let digest = forms.identity.sha256;
        if let Ok(first) = read_manifest(folder, digest)
            && is_whole(folder, &first, &Form::ALL)
        {
            return Ok(first);
        }
        for (form, (file, _)) in Form::ALL.into_iter().zip([plain, gzip, zstd]) {
            persist(file, &form_path(folder, digest, form))?;
        }
        let index = match &about.index {
            Some(bytes) => {
                write_whole(&index_path(folder, digest), bytes)?;
                Some(facts_of(bytes))
            }
            None => None,
        };
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            kind: about.kind,
            digest,
            media_type: about.media_type,
            forms,
            index,
            count: about.count,
            sealed_ms: about.sealed_ms,
            from: about.days.0,
            to: about.days.1,
        };
        let signed = Signed::new(manifest, signer);
        let path = manifest_path(folder, digest);
        write_whole(&path, signed.to_json().as_bytes())?;
        Ok(signed)
    }
}

/// Length and digest of bytes in memory.
pub(super) fn facts_of(bytes: &[u8]) -> FileFacts {
    FileFacts {
        bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        sha256: ObjectDigest::of(bytes),
    }
}

/// Removes unfinished files of a process that was killed. Call it while no other one writes there.
pub(super) fn sweep(folder: &Path) -> Result<(), DatasetError> {
    for entry in std::fs::read_dir(folder).map_err(DatasetError::io(folder))? {
        let entry = entry.map_err(DatasetError::io(folder))?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(DRAFT_PREFIX) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(DatasetError::io(&path))?;
        }
    }
    Ok(())
}

/// A folder held by this process alone until dropped.
#[derive(Debug)]
pub(super) struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Said, not left to the closing: a child that is just being started may hold the file too.
        let _ = self.0.unlock();
    }
}

/// Takes the folder, which is made when absent.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, DatasetError> {
    std::fs::create_dir_all(folder).map_err(DatasetError::io(folder))?;
    let path = folder.join(".lock");
    let lock = File::create(&path).map_err(DatasetError::io(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(FolderLock(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Err(DatasetError::Locked(folder.to_owned())),
        Err(std::fs::TryLockError::Error(e)) => Err(DatasetError::io(&path)(e)),
    }
}
