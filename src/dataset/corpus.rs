//! The growing collection: daily JSONL partitions in one folder.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::draft::{FolderLock, lock};
use super::import::{Checkpoint, read_checkpoint};
use super::lines::{Line, next_line};
use super::{CONVERSATIONS_MAX, Conversation, DatasetError, Day, ItemId, LINE_BYTES_MAX};

/// A corpus folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct Corpus {
    pub(super) folder: PathBuf,
    pub(super) ids: HashSet<ItemId>,
    /// Where an import was cut off.
    pub(super) checkpoint: Option<Checkpoint>,
    _lock: FolderLock,
}

/// Numbers of one day, or of a whole corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Conversations.
    pub conversations: u64,
    /// Messages.
    pub messages: u64,
    /// Conversations with a system prompt.
    pub with_system_prompt: u64,
    /// Bytes of JSON.
    pub bytes: u64,
    /// Longest line, bytes.
    pub longest: u64,
}

impl Stats {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            conversations: self.conversations + other.conversations,
            messages: self.messages + other.messages,
            with_system_prompt: self.with_system_prompt + other.with_system_prompt,
            bytes: self.bytes + other.bytes,
            longest: self.longest.max(other.longest),
        }
    }
}

impl Corpus {
    /// Opens the corpus in `folder`, makes it when absent, and reads the ids it holds. What an
    /// import that was cut off had written after its last checkpoint is taken back; a last line
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
            checkpoint: read_checkpoint(folder)?,
            _lock: lock,
        };
        corpus.take_back()?;
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

    /// Numbers of one day's partition, read in one pass.
    ///
    /// # Errors
    /// When the partition cannot be read or holds what is no conversation.
    pub fn stats(&self, day: Day) -> Result<Stats, DatasetError> {
        let mut stats = Stats::default();
        self.each_line(day, |line| {
            let conversation =
                Conversation::from_json(line, None).map_err(|e| format!("a conversation {e}"))?;
            let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX) + 1;
            let one = Stats {
                conversations: 1,
                messages: u64::try_from(conversation.messages().len()).unwrap_or(u64::MAX),
                with_system_prompt: u64::from(!conversation.system_prompt().is_empty()),
                bytes,
                longest: bytes,
            };
            stats = stats.plus(one);
            Ok(())
        })?;
        Ok(stats)
    }

    /// Bytes of these days' partitions.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn bytes(&self, days: &[Day]) -> Result<u64, DatasetError> {
        let lengths = self.partition_lengths()?;
        Ok(days.iter().filter_map(|day| lengths.get(day)).sum())
    }

    pub(super) fn partition(&self, day: Day) -> PathBuf {
        self.folder.join(format!("{day}.jsonl"))
    }

    /// Lengths of all partitions.
    pub(super) fn partition_lengths(
        &self,
    ) -> Result<std::collections::BTreeMap<Day, u64>, DatasetError> {
        let length = |day| {
            let path = self.partition(day);
            let facts = fs::metadata(&path).map_err(DatasetError::io(&path))?;
            Ok((day, facts.len()))
        };
        self.days()?.into_iter().map(length).collect()
    }

    fn take_back(&self) -> Result<(), DatasetError> {
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(());
        };
        for (day, length) in self.partition_lengths()? {
            let path = self.partition(day);
            match checkpoint.partitions.get(&day) {
                Some(kept) if *kept == length => {}
                Some(kept) if *kept < length => cut(&path, *kept)?,
                Some(_) => {
                    let what = path.display().to_string();
                    return Err(DatasetError::corrupt(what, "it lost lines since an import"));
                }
                None => fs::remove_file(&path).map_err(DatasetError::io(&path))?,
            }
        }
        Ok(())
    }

    fn read_ids(&mut self, day: Day) -> Result<(), DatasetError> {
        let mut ids = Vec::new();
        self.each_line(day, |line| {
            ids.push(id_of(line).ok_or("a line carries no id")?);
            Ok(())
        })?;
        self.ids.extend(ids);
        self.check_room()
    }

    /// Hands every line of a partition to `each`; a torn last line is cut off.
    fn each_line(
        &self,
        day: Day,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), DatasetError> {
        let path = self.partition(day);
        let corrupt = |reason: String| DatasetError::corrupt(path.display().to_string(), reason);
        let file = File::open(&path).map_err(DatasetError::io(&path))?;
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let (mut buffer, mut whole) = (Vec::new(), 0u64);
        while let Some(line) =
            next_line(&mut reader, &mut buffer, LINE_BYTES_MAX).map_err(DatasetError::io(&path))?
        {
            match line {
                Line::Whole => each(&buffer).map_err(corrupt)?,
                Line::Unended => return cut(&path, whole),
                Line::TooLong => return Err(corrupt("a line is longer than 256 KiB".to_owned())),
            }
            whole += u64::try_from(buffer.len()).unwrap_or(u64::MAX) + 1;
        }
        Ok(())
    }

    pub(super) fn check_room(&self) -> Result<(), DatasetError> {
        if self.ids.len() <= CONVERSATIONS_MAX {
            return Ok(());
        }
        Err(DatasetError::TooLarge {
            what: format!("corpus {}", self.folder.display()),
            reason: format!("at most {CONVERSATIONS_MAX} conversations; use several corpora"),
        })
    }
}

/// The id that a partition's line carries. Lines of ours begin with it, which spares the parsing.
fn id_of(line: &[u8]) -> Option<ItemId> {
    #[derive(Deserialize)]
    struct Known {
        id: ItemId,
    }
    let quick = line
        .strip_prefix(br#"{"id":""#)
        .and_then(|rest| rest.split_first_chunk::<64>())
        .and_then(|(hex, _)| std::str::from_utf8(hex).ok()?.parse().ok());
    quick.or_else(|| {
        serde_json::from_slice::<Known>(line)
            .ok()
            .map(|known| known.id)
    })
}

fn cut(path: &Path, length: u64) -> Result<(), DatasetError> {
    tracing::warn!(path = %path.display(), "cut off what a crash left unfinished");
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(length).and_then(|()| file.sync_all()))
        .map_err(DatasetError::io(path))
}
