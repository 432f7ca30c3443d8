//! Makes a pack out of a stretch of days.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::draft::{About, Draft, lock, sweep};
use super::index;
use super::manifest::{Kind, MediaType};
use super::object::{SignedManifest, write_listing};
use super::signed::Signer;
use super::{Conversation, Corpus, DatasetError, Day, ItemId, PLAIN_BYTES_MAX};

/// Seals the conversations of the days `from..=to` (the corpus' first and last when absent) into
/// `folder`, ordered by day and id, and returns the signed manifest. The same conversations always
/// give the same digest; sealing them again returns the first manifest and changes nothing. The
/// manifest appears last, and nothing is ever seen half-written. `on_line` hears the length of
/// every line. Memory is bounded by the index, 48 bytes for each conversation.
///
/// # Errors
/// [`DatasetError::Empty`] when the days hold nothing; [`DatasetError::Locked`] while another
/// process seals into `folder`; else what the disk or a partition says.
pub fn seal(
    corpus: &Corpus,
    folder: &Path,
    (from, to): (Option<Day>, Option<Day>),
    (signer, now_ms): (&Signer, u64),
    on_line: &mut dyn FnMut(u64),
) -> Result<SignedManifest, DatasetError> {
    let _lock = lock(folder)?;
    sweep(folder)?;
    let mut days = corpus.days()?;
    days.retain(|day| from.is_none_or(|from| from <= *day) && to.is_none_or(|to| *day <= to));
    let mut sealing = Sealing {
        draft: Draft::new(folder)?,
        index: index::Builder::default(),
        days: None,
        on_line,
    };
    for day in days {
        sealing.append_day(corpus, day)?;
    }
    let days = sealing.days.ok_or(DatasetError::Empty)?;
    let about = About {
        kind: Kind::Pack,
        media_type: MediaType::Ndjson,
        count: u64::try_from(sealing.index.len()).unwrap_or(u64::MAX),
        days,
        sealed_ms: now_ms,
        index: Some(sealing.index.into_bytes()),
    };
    let manifest = sealing.draft.finish(folder, about, signer)?;
    write_listing(folder)?;
    Ok(manifest)
}

struct Sealing<'a> {
    draft: Draft,
    index: index::Builder,
    days: Option<(Day, Day)>,
    on_line: &'a mut dyn FnMut(u64),
}

impl Sealing<'_> {
    /// Appends one partition in the order of ids. Only the index is held in memory.
    fn append_day(&mut self, corpus: &Corpus, day: Day) -> Result<(), DatasetError> {
        let path = corpus.partition(day);
        let mut reader = BufReader::new(File::open(&path).map_err(DatasetError::io(&path))?);
        let lines = day_index(&mut reader, &path, day)?;
        let mut line = Vec::new();
        for (id, offset, length) in lines {
            line.resize(length, 0);
            reader
                .seek(SeekFrom::Start(offset))
                .and_then(|_| reader.read_exact(&mut line))
                .map_err(DatasetError::io(&path))?;
            self.append(id, &line, day)?;
        }
        Ok(())
    }

    fn append(&mut self, id: ItemId, line: &[u8], day: Day) -> Result<(), DatasetError> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.draft.bytes() + length > PLAIN_BYTES_MAX {
            return Err(DatasetError::TooLarge {
                what: "the pack".to_owned(),
                reason: "at most 16 GiB of plain bytes; seal fewer days".to_owned(),
            });
        }
        self.index.push(id, day, line.len());
        self.days = Some((self.days.map_or(day, |(first, _)| first), day));
        (self.on_line)(length);
        self.draft.write(line)
    }
}

/// Ids, offsets and lengths of a partition's lines, in the order of ids, each once.
fn day_index(
    reader: &mut impl BufRead,
    path: &Path,
    day: Day,
) -> Result<Vec<(ItemId, u64, usize)>, DatasetError> {
    let corrupt = |reason: String| DatasetError::corrupt(path.display().to_string(), reason);
    let mut lines: Vec<(ItemId, u64, usize)> = Vec::new();
    let (mut line, mut offset) = (Vec::new(), 0u64);
    loop {
        line.clear();
        // Lines are bounded: `Corpus::open` read this partition under the lock we still hold.
        let n = reader
            .read_until(b'\n', &mut line)
            .map_err(DatasetError::io(path))?;
        if n == 0 {
            break;
        }
        let conversation =
            Conversation::from_json(&line, None).map_err(|e| corrupt(e.to_string()))?;
        if conversation.created() != day {
            return Err(corrupt("a conversation of another day is in it".into()));
        }
        lines.push((conversation.id(), offset, n));
        offset += u64::try_from(n).unwrap_or(u64::MAX);
    }
    lines.sort_unstable();
    lines.dedup_by_key(|(id, _, _)| *id);
    Ok(lines)
}

/// Writes a small file whole or not at all, durably. Its draft is not among those that are swept
/// away: others may write to the folder while somebody seals there.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".write-")
        .tempfile_in(folder)
        .map_err(DatasetError::io(folder))?;
    file.write_all(bytes).map_err(DatasetError::io(path))?;
    persist(file, path)
}

/// Gives a finished file its name, durably, readable by all.
pub(super) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<(), DatasetError> {
    use std::os::unix::fs::PermissionsExt;
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file()
        .set_permissions(readable)
        .and_then(|()| file.as_file().sync_all())
        .map_err(DatasetError::io(path))?;
    file.persist(path)
        .map_err(|e| DatasetError::io(path)(e.error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(DatasetError::io(folder))
}
