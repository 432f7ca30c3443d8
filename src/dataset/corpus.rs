//! The growing collection: daily JSONL partitions in one folder.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::draft::lock;
use super::lines::{Line, next_line};
use super::{CONVERSATIONS_MAX, Conversation, DatasetError, Day, Invalid, ItemId, LINE_BYTES_MAX};

/// Partitions held open for writing at the same time.
const OPEN_FILES_MAX: usize = 64;

/// A corpus folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    ids: HashSet<ItemId>,
    _lock: File,
}

/// A line that was not taken, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It is no usable conversation.
    Invalid(Invalid),
    /// It is longer than [`LINE_BYTES_MAX`].
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportSummary {
    /// Conversations added.
    pub added: u64,
    /// Same as one in the corpus.
    pub duplicates: u64,
    /// Not usable.
    pub rejected: u64,
}

impl Corpus {
    /// Opens the corpus in `folder`, makes it when absent, and reads the ids it holds. A last line
    /// torn by a crash is cut off.
    ///
    /// # Errors
    /// [`DatasetError::Locked`] while another process holds it; else what the disk or a partition
    /// that is not ours says.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let lock = lock(folder)?;
        let mut corpus = Self {
            folder: folder.to_owned(),
            ids: HashSet::new(),
            _lock: lock,
        };
        for day in corpus.days()? {
            corpus.read_ids(day)?;
        }
        Ok(corpus)
    }

    /// Number of conversations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Days that have a partition, ascending.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn days(&self) -> Result<Vec<Day>, DatasetError> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(DatasetError::io(&self.folder))? {
            let name = entry.map_err(DatasetError::io(&self.folder))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
            days.extend(stem.and_then(|stem| stem.parse::<Day>().ok()));
        }
        days.sort_unstable();
        Ok(days)
    }

    pub(super) fn partition(&self, day: Day) -> PathBuf {
        self.folder.join(format!("{day}.jsonl"))
    }

    fn read_ids(&mut self, day: Day) -> Result<(), DatasetError> {
        #[derive(Deserialize)]
        struct Known {
            id: ItemId,
        }
        let path = self.partition(day);
        let mut reader = BufReader::new(File::open(&path).map_err(DatasetError::io(&path))?);
        let (mut buffer, mut whole) = (Vec::new(), 0u64);
        while let Some(line) =
            next_line(&mut reader, &mut buffer, LINE_BYTES_MAX).map_err(DatasetError::io(&path))?
        {
            match line {
                Line::Whole => {}
                Line::Unended => return cut(&path, whole),
                Line::TooLong => {
                    let what = path.display().to_string();
                    return Err(DatasetError::corrupt(what, "a line is longer than 256 KiB"));
                }
            }
            whole += u64::try_from(buffer.len()).unwrap_or(u64::MAX) + 1;
            let known: Known = serde_json::from_slice(&buffer).map_err(|_| {
                DatasetError::corrupt(path.display().to_string(), "a line carries no id")
            })?;
            self.ids.insert(known.id);
            self.check_room()?;
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), DatasetError> {
        if self.ids.len() < CONVERSATIONS_MAX {
            return Ok(());
        }
        Err(DatasetError::TooLarge {
            what: format!("corpus {}", self.folder.display()),
            reason: format!("at most {CONVERSATIONS_MAX} conversations; use several corpora"),
        })
    }

    /// Adds the conversations of `source`, one JSON object a line, `day` for lines without one.
    /// Blank lines are passed over. `on_reject` hears the number and fault of each line that is
    /// not taken. What was added is on disk when this returns; after a crash the same import can
    /// simply be run again. Memory is bounded by the ids.
    ///
    /// # Errors
    /// When the disk refuses or the corpus is full.
    pub fn import(
        &mut self,
        source: &mut impl BufRead,
        day: Option<Day>,
        mut on_reject: impl FnMut(u64, Rejected),
    ) -> Result<ImportSummary, DatasetError> {
        let mut summary = ImportSummary::default();
        let mut writers = Writers::default();
        let (mut buffer, mut number) = (Vec::new(), 0);
        let here = Path::new("the imported file");
        while let Some(line) =
            next_line(source, &mut buffer, LINE_BYTES_MAX).map_err(DatasetError::io(here))?
        {
            number += 1;
            if buffer.trim_ascii().is_empty() && line != Line::TooLong {
                continue;
            }
            let read = match line {
                Line::TooLong => Err(Rejected::TooLong),
                Line::Whole | Line::Unended => {
                    Conversation::from_json(&buffer, day).map_err(Rejected::Invalid)
                }
            };
            match read.and_then(|c| self.claim(&c).map(|()| c)) {
                Ok(conversation) => {
                    self.check_room()?;
                    let path = self.partition(conversation.created());
                    writers.append(conversation.created(), &path, &conversation)?;
                    summary.added += 1;
                }
                Err(reason) => {
                    match reason {
                        Rejected::Duplicate => summary.duplicates += 1,
                        Rejected::Invalid(_) | Rejected::TooLong => summary.rejected += 1,
                    }
                    on_reject(number, reason);
                }
            }
        }
        writers.close()?;
        Ok(summary)
    }

    fn claim(&mut self, conversation: &Conversation) -> Result<(), Rejected> {
        if self.ids.insert(conversation.id()) {
            Ok(())
        } else {
            Err(Rejected::Duplicate)
        }
    }
}

fn cut(path: &Path, length: u64) -> Result<(), DatasetError> {
    tracing::warn!(path = %path.display(), "cut off a last line torn by a crash");
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(length))
        .map_err(DatasetError::io(path))
}

#[derive(Default)]
struct Writers {
    open: BTreeMap<Day, (PathBuf, BufWriter<File>)>,
}

impl Writers {
    fn append(
        &mut self,
        day: Day,
        path: &Path,
        conversation: &Conversation,
    ) -> Result<(), DatasetError> {
        if self.open.len() >= OPEN_FILES_MAX && !self.open.contains_key(&day) {
            self.close()?;
        }
        let (_, writer) = match self.open.entry(day) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(DatasetError::io(path))?;
                slot.insert((path.to_owned(), BufWriter::new(file)))
            }
        };
        writeln!(writer, "{}", conversation.to_json()).map_err(DatasetError::io(path))
    }

    fn close(&mut self) -> Result<(), DatasetError> {
        while let Some((_, (path, writer))) = self.open.pop_first() {
            let file = writer.into_inner().map_err(|e| e.into_error());
            file.and_then(|file| file.sync_all())
                .map_err(DatasetError::io(&path))?;
        }
        Ok(())
    }
}
