//! Adds conversations to a corpus; a killed import goes on from its last checkpoint and ends in the
//! same files as one that was never killed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::seal::write_whole;
use super::source::{Record, Source};
use super::{Conversation, Corpus, DatasetError, Day, Invalid};

/// Partitions held open for writing at the same time.
const OPEN_FILES_MAX: usize = 64;
/// Characters of a rejected record that its entry repeats.
const SHOWN_CHARS: usize = 120;
pub(super) const CHECKPOINT_FILE: &str = ".import.json";

/// A record that was not taken, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is no usable conversation.
    Invalid(Invalid),
    /// It is longer than [`super::LINE_BYTES_MAX`].
    TooLong,
    /// The corpus has the same conversation already.
    Duplicate,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(reason) => reason.fmt(f),
            Self::TooLong => f.write_str("is longer than 256 KiB"),
            Self::Duplicate => f.write_str("is in the corpus already"),
        }
    }
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImportSummary {
    /// Conversations added.
    pub added: u64,
    /// Same as one in the corpus.
    pub duplicates: u64,
    /// Not usable.
    pub rejected: u64,
}

/// How to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Day of conversations that carry none.
    pub day: Option<Day>,
    /// File that lists what was not taken, one JSON object a line: number of the record from 1,
    /// reason, and how it begins. Written anew.
    pub rejects: PathBuf,
    /// Records between two checkpoints.
    pub checkpoint_records: u64,
}

impl ImportOptions {
    /// The default: no day, a checkpoint every 50,000 records.
    #[must_use]
    pub fn new(rejects: PathBuf) -> Self {
        Self {
            day: None,
            rejects,
            checkpoint_records: 50_000,
        }
    }
}

/// How far an import came, durably: everything before is on disk, everything after is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    source: Identity,
    day: Option<Day>,
    records: u64,
    summary: ImportSummary,
    rejects: PathBuf,
    rejects_bytes: u64,
    /// Lengths of all partitions.
    pub(super) partitions: BTreeMap<Day, u64>,
}

/// A file, as far as one can tell that it is still the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    bytes: u64,
    modified_ms: u64,
}

/// `None` for what is no file.
fn identity(source: &Source) -> Option<Identity> {
    let path = fs::canonicalize(source.path()).ok()?;
    let facts = fs::metadata(&path).ok()?;
    let modified = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Identity {
        path,
        bytes: facts.len(),
        modified_ms: u64::try_from(modified.as_millis()).ok()?,
    })
}

/// The checkpoint of a corpus folder.
pub(super) fn read_checkpoint(folder: &Path) -> Result<Option<Checkpoint>, DatasetError> {
    let path = folder.join(CHECKPOINT_FILE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| DatasetError::corrupt(path.display().to_string(), e.to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DatasetError::io(&path)(e)),
    }
}

impl Corpus {
    /// Adds the conversations of `source`. Special tokens are taken out, conversations that the
    /// corpus has are passed over, and what is not usable is listed in the file of rejects. What
    /// was added is on disk when this returns. Killed and run again with the same file, it goes on
    /// from the last checkpoint; the end is the same. `on_record` hears of every record. Memory
    /// is bounded by the ids, 32 bytes for each conversation.
    ///
    /// # Errors
    /// When the disk refuses, the source cannot be read, or the corpus is full.
    pub fn import(
        &mut self,
        source: &mut Source,
        options: &ImportOptions,
        on_record: &mut dyn FnMut(&Source, ImportSummary),
    ) -> Result<ImportSummary, DatasetError> {
        let mut import = Import::start(self, source, options)?;
        while let Some(record) = source.next_record()? {
            import.take(record)?;
            on_record(source, import.summary);
            if import
                .records
                .is_multiple_of(options.checkpoint_records.max(1))
            {
                import.checkpoint()?;
            }
        }
        import.finish()
    }
}

struct Import<'a> {
    corpus: &'a mut Corpus,
    options: &'a ImportOptions,
    source: Option<Identity>,
    records: u64,
    summary: ImportSummary,
    rejects: BufWriter<File>,
    writers: Writers,
}

impl<'a> Import<'a> {
    fn start(
        corpus: &'a mut Corpus,
        source: &mut Source,
        options: &'a ImportOptions,
    ) -> Result<Self, DatasetError> {
        let identity = identity(source);
        let earlier = corpus.checkpoint.take().filter(|earlier| {
            Some(&earlier.source) == identity.as_ref()
                && earlier.day == options.day
                && earlier.rejects == options.rejects
        });
        let path = &options.rejects;
        let file = OpenOptions::new()
            .create(true)
            .truncate(earlier.is_none())
            .write(true)
            .open(path)
            .map_err(DatasetError::io(path))?;
        let mut import = Self {
            corpus,
            options,
            source: identity,
            records: 0,
            summary: ImportSummary::default(),
            rejects: BufWriter::new(file),
            writers: Writers::default(),
        };
        if let Some(earlier) = earlier {
            import.go_on(source, &earlier)?;
        } else {
            import.checkpoint()?;
        }
        Ok(import)
    }

    /// Passes over what an earlier run has done. `Corpus::open` cut the partitions already.
    fn go_on(&mut self, source: &mut Source, earlier: &Checkpoint) -> Result<(), DatasetError> {
        tracing::info!(
            records = earlier.records,
            "going on from the last checkpoint"
        );
        self.summary = earlier.summary;
        let rejects = self.rejects.get_mut();
        rejects
            .set_len(earlier.rejects_bytes)
            .and_then(|()| rejects.seek(SeekFrom::End(0)))
            .map_err(DatasetError::io(&self.options.rejects))?;
        while self.records < earlier.records && source.next_record()?.is_some() {
            self.records += 1;
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), DatasetError> {
        self.records += 1;
        let day = self.options.day;
        let read = match &record {
            Record::Blank => return Ok(()),
            Record::TooLong => Err(Rejected::TooLong),
            Record::Json(line) => Conversation::from_json(line, day).map_err(Rejected::Invalid),
            Record::Row(row) => Conversation::from_row(row.clone(), day).map_err(Rejected::Invalid),
        };
        let fresh = read.and_then(|conversation| {
            let new = self.corpus.ids.insert(conversation.id());
            new.then_some(conversation).ok_or(Rejected::Duplicate)
        });
        match fresh {
            Ok(conversation) => {
                self.corpus.check_room()?;
                let path = self.corpus.partition(conversation.created());
                self.writers.append(&path, &conversation)?;
                self.summary.added += 1;
                Ok(())
            }
            Err(reason) => self.reject(&record, reason),
        }
    }

    fn reject(&mut self, record: &Record, reason: Rejected) -> Result<(), DatasetError> {
        #[derive(Serialize)]
        struct Entry<'a> {
            record: u64,
            reason: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            begins: &'a str,
        }
        let begins: String = match record {
            Record::Json(line) if reason != Rejected::Duplicate => {
                let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_CHARS)]);
                text.chars().take(SHOWN_CHARS).collect()
            }
            _ => String::new(),
        };
        match reason {
            Rejected::Duplicate => self.summary.duplicates += 1,
            Rejected::Invalid(_) | Rejected::TooLong => self.summary.rejected += 1,
        }
        let entry = Entry {
            record: self.records,
            reason: reason.to_string(),
            begins: &begins,
        };
        serde_json::to_writer(&mut self.rejects, &entry)
            .map_err(io::Error::from)
            .and_then(|()| self.rejects.write_all(b"\n"))
            .map_err(DatasetError::io(&self.options.rejects))
    }

    /// Makes everything so far durable, then says so.
    fn checkpoint(&mut self) -> Result<(), DatasetError> {
        let Some(source) = self.source.clone() else {
            return Ok(());
        };
        self.writers.close()?;
        let checkpoint = Checkpoint {
            source,
            day: self.options.day,
            records: self.records,
            summary: self.summary,
            rejects: self.options.rejects.clone(),
            rejects_bytes: self.settle_rejects()?,
            partitions: self.corpus.partition_lengths()?,
        };
        let text = serde_json::to_vec(&checkpoint)
            .map_err(|e| DatasetError::corrupt("the checkpoint", e.to_string()))?;
        write_whole(&self.corpus.folder.join(CHECKPOINT_FILE), &text)
    }

    fn settle_rejects(&mut self) -> Result<u64, DatasetError> {
        let path = &self.options.rejects;
        self.rejects.flush().map_err(DatasetError::io(path))?;
        let file = self.rejects.get_ref();
        file.sync_all()
            .and_then(|()| file.metadata())
            .map(|facts| facts.len())
            .map_err(DatasetError::io(path))
    }

    fn finish(mut self) -> Result<ImportSummary, DatasetError> {
        self.writers.close()?;
        self.settle_rejects()?;
        let path = self.corpus.folder.join(CHECKPOINT_FILE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DatasetError::io(&path)(e)),
            _ => Ok(self.summary),
        }
    }
}

#[derive(Default)]
struct Writers {
    open: BTreeMap<PathBuf, BufWriter<File>>,
}

impl Writers {
    fn append(&mut self, path: &Path, conversation: &Conversation) -> Result<(), DatasetError> {
        if self.open.len() >= OPEN_FILES_MAX && !self.open.contains_key(path) {
            self.close()?;
        }
        let writer = match self.open.entry(path.to_owned()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(DatasetError::io(path))?;
                slot.insert(BufWriter::with_capacity(64 * 1024, file))
            }
        };
        writeln!(writer, "{}", conversation.to_json()).map_err(DatasetError::io(path))
    }

    fn close(&mut self) -> Result<(), DatasetError> {
        while let Some((path, writer)) = self.open.pop_first() {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error);
            file.and_then(|file| file.sync_all())
                .map_err(DatasetError::io(&path))?;
        }
        Ok(())
    }
}
