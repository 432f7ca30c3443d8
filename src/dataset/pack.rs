//! Sealed packs: opened by their index, read item by item, each checked by its id.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::draft::facts_of;
use super::index::{self, Entry};
use super::lines::{Line, next_line};
use super::manifest::{FileFacts, Form, Kind};
use super::object::{SignedManifest, form_path, index_path, read_manifest};
use super::{CONVERSATIONS_MAX, Conversation, DatasetError, Item, ItemId, ObjectDigest};
use super::{LINE_BYTES_MAX, PLAIN_BYTES_MAX};

/// Largest window of the compression that is accepted, 2²³ bytes (RFC 9659).
const WINDOW_LOG: u32 = 23;

/// A pack whose manifest and index were found to be true. Its plain bytes are checked item by
/// item, by id, when they are read.
#[derive(Debug, Clone)]
pub struct Pack {
    path: PathBuf,
    manifest: SignedManifest,
    entries: Vec<Entry>,
}

impl Pack {
    /// Opens the pack `digest` of `folder` by its manifest and index; of the pack's own bytes only
    /// the length is looked at. Memory: 56 bytes for each conversation.
    ///
    /// # Errors
    /// [`DatasetError::Corrupt`] when manifest, index and files disagree; [`DatasetError::Io`].
    pub fn open(folder: &Path, digest: ObjectDigest) -> Result<Self, DatasetError> {
        let corrupt = |reason: &str| DatasetError::corrupt(format!("pack {digest}"), reason);
        let manifest = read_manifest(folder, digest)?;
        let facts = manifest.index.filter(|_| manifest.kind == Kind::Pack);
        let facts = facts.ok_or_else(|| corrupt("it is no pack"))?;
        let index = index_path(folder, digest);
        let bytes = fs::read(&index).map_err(DatasetError::io(&index))?;
        if facts_of(&bytes) != facts {
            return Err(corrupt("its index is not the one that was signed"));
        }
        let entries = index::read(&bytes).map_err(corrupt)?;
        let path = form_path(folder, digest, Form::Identity);
        let length = fs::metadata(&path).map_err(DatasetError::io(&path))?.len();
        if length != manifest.forms.identity.bytes {
            return Err(corrupt("its file has another length"));
        }
        Ok(Self {
            path,
            manifest,
            entries,
        })
    }

    /// Digest of the plain bytes.
    #[must_use]
    pub fn digest(&self) -> ObjectDigest {
        self.manifest.digest
    }

    /// The signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        &self.manifest
    }

    /// All its conversations, in the pack's order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads the lines of those of `wanted` that are in this pack, without the newline, into
    /// `found`. Each is checked: its content must have the id asked for.
    ///
    /// # Errors
    /// [`DatasetError::Corrupt`] when a line is not what the index says; [`DatasetError::Io`].
    pub fn read(
        &self,
        wanted: &HashSet<ItemId>,
        found: &mut HashMap<ItemId, Conversation>,
    ) -> Result<(), DatasetError> {
        let file = File::open(&self.path).map_err(DatasetError::io(&self.path))?;
        let mut line = Vec::new();
        for entry in &self.entries {
            if !wanted.contains(&entry.id) || found.contains_key(&entry.id) {
                continue;
            }
            line.resize(entry.length as usize, 0);
            file.read_exact_at(&mut line, entry.offset)
                .map_err(DatasetError::io(&self.path))?;
            let read = Conversation::from_json(&line, None).ok();
            let read = read.filter(|c| c.id() == entry.id && c.created() == entry.created);
            let conversation = read.ok_or_else(|| {
                let what = format!("pack {}", self.digest());
                DatasetError::corrupt(what, format!("its line for {} is another", entry.id))
            })?;
            found.insert(entry.id, conversation);
        }
        Ok(())
    }
}

/// The items with these ids out of several packs, in the order asked for.
///
/// # Errors
/// As [`Pack::read`]; also when an id is in none of the packs.
pub fn items(packs: &[Pack], ids: &[ItemId]) -> Result<Vec<Item>, DatasetError> {
    conversations(packs, ids)?
        .into_iter()
        .map(|conversation| Ok(conversation.into_item()))
        .collect()
}

/// The conversations with these ids out of several packs, in the order asked for.
pub(super) fn conversations(
    packs: &[Pack],
    ids: &[ItemId],
) -> Result<Vec<Conversation>, DatasetError> {
    let wanted: HashSet<_> = ids.iter().copied().collect();
    let mut found = HashMap::with_capacity(wanted.len());
    for pack in packs {
        pack.read(&wanted, &mut found)?;
    }
    let missing = |id| DatasetError::corrupt("the packs at hand", format!("they hold no {id}"));
    ids.iter()
        .map(|id| found.get(id).cloned().ok_or_else(|| missing(id)))
        .collect()
}

/// Checks an object on disk from end to end: every form that is there against the manifest, and,
/// of a pack, every conversation and the index. At least one form must be there.
///
/// # Errors
/// [`DatasetError::Corrupt`] with the first thing that is wrong; [`DatasetError::Io`].
pub fn verify(folder: &Path, digest: ObjectDigest) -> Result<SignedManifest, DatasetError> {
    let manifest = read_manifest(folder, digest)?;
    let corrupt = |reason: String| DatasetError::corrupt(format!("object {digest}"), reason);
    let mut forms = 0;
    for form in Form::ALL {
        let path = form_path(folder, digest, form);
        if !path.is_file() {
            continue;
        }
        forms += 1;
        let facts = file_facts(&path)?;
        if facts != manifest.forms.get(form) {
            return Err(corrupt(format!("its {form:?} form is not what was signed")));
        }
        let file = File::open(&path).map_err(DatasetError::io(&path))?;
        let mut plain = Plain::new(decoder(file, form).map_err(DatasetError::io(&path))?);
        if manifest.kind == Kind::Pack {
            check_pack(&mut plain, &manifest)?;
        }
        io::copy(&mut plain, &mut io::sink()).map_err(|e| corrupt(e.to_string()))?;
        if plain.finish() != manifest.forms.identity {
            return Err(corrupt(format!("its {form:?} form holds other bytes")));
        }
    }
    if manifest.kind == Kind::Pack {
        Pack::open(folder, digest)?;
    }
    if forms == 0 {
        return Err(corrupt("none of its forms is there".to_owned()));
    }
    Ok(manifest)
}

pub(super) fn file_facts(path: &Path) -> Result<FileFacts, DatasetError> {
    let mut file = File::open(path).map_err(DatasetError::io(path))?;
    let mut hash = super::draft::Hashing::new(io::sink());
    io::copy(&mut file, &mut hash).map_err(DatasetError::io(path))?;
    let (_, facts) = hash.finish().map_err(DatasetError::io(path))?;
    Ok(facts)
}

/// Plain bytes out of a form, with bounded memory.
pub(super) fn decoder<'a>(file: impl Read + 'a, form: Form) -> io::Result<Box<dyn BufRead + 'a>> {
    let reader: Box<dyn Read> = match form {
        Form::Identity => Box::new(file),
        Form::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Form::Zstd => {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(BufReader::with_capacity(
        128 * 1024,
        reader.take(PLAIN_BYTES_MAX),
    )))
}

/// Hashes and counts the plain bytes that pass.
pub(super) struct Plain<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: BufRead> Plain<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    pub(super) fn finish(self) -> FileFacts {
        FileFacts {
            bytes: self.bytes,
            sha256: ObjectDigest(self.hash.finalize().into()),
        }
    }
}

impl<R: BufRead> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        buffer[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Plain<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        if let Ok(available) = self.inner.fill_buf() {
            self.hash.update(&available[..n]);
        }
        self.bytes += u64::try_from(n).unwrap_or(u64::MAX);
        self.inner.consume(n);
    }
}

/// Reads a pack's plain bytes to the end and checks every conversation; gives the index that
/// follows from them, which must be the manifest's.
pub(super) fn check_pack(
    plain: &mut impl BufRead,
    manifest: &SignedManifest,
) -> Result<Vec<u8>, DatasetError> {
    let corrupt = |reason: String| {
        let what = format!("pack {}", manifest.digest);
        DatasetError::corrupt(what, reason)
    };
    let (mut seen, mut builder) = (HashSet::new(), index::Builder::default());
    let mut buffer = Vec::new();
    loop {
        match next_line(plain, &mut buffer, LINE_BYTES_MAX) {
            Ok(None) => break,
            Ok(Some(Line::Whole)) => {}
            Ok(Some(_)) => return Err(corrupt("a line is torn or longer than 256 KiB".into())),
            Err(error) => return Err(corrupt(format!("cannot be decompressed: {error}"))),
        }
        let conversation = Conversation::from_json(&buffer, None)
            .map_err(|reason| corrupt(format!("a conversation {reason}")))?;
        if !seen.insert(conversation.id()) || builder.len() >= CONVERSATIONS_MAX {
            return Err(corrupt("a conversation is there twice, or too many".into()));
        }
        builder.push(conversation.id(), conversation.created(), buffer.len() + 1);
    }
    let count = u64::try_from(builder.len()).unwrap_or(u64::MAX);
    let bytes = builder.into_bytes();
    if count != manifest.count || manifest.index != Some(facts_of(&bytes)) {
        return Err(corrupt(
            "its conversations are not those of its index".into(),
        ));
    }
    Ok(bytes)
}
