//! Makes a pack out of a stretch of days.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::pack::{
    MANIFEST_SCHEMA, Manifest, PLAIN_BYTES_MAX, PackDigest, WINDOW_LOG, manifest_path, pack_path,
    read_manifest,
};
use super::{Conversation, Corpus, DatasetError, Day, ItemId};

/// Good ratio at a speed that one core sustains beside other work.
const LEVEL: i32 = 9;

/// Seals the conversations of the days `from..=to` (the corpus' first and last when absent) into
/// `folder`, ordered by day and id, and returns the manifest. The same conversations always give
/// the same digest; sealing them again returns the first manifest and changes nothing. The pack is
/// durable before its manifest appears, and neither is ever seen half-written.
///
/// # Errors
/// [`DatasetError::Empty`] when the days hold nothing; else what the disk or a partition says.
pub fn seal(
    corpus: &Corpus,
    folder: &Path,
    (from, to): (Option<Day>, Option<Day>),
    now_ms: u64,
) -> Result<Manifest, DatasetError> {
    fs::create_dir_all(folder).map_err(DatasetError::io(folder))?;
    let days: Vec<Day> = corpus
        .days()?
        .into_iter()
        .filter(|day| from.is_none_or(|from| from <= *day) && to.is_none_or(|to| *day <= to))
        .collect();
    let mut draft = Draft::new(folder)?;
    for day in days {
        append_day(&mut draft, corpus, day)?;
    }
    draft.finish(folder, now_ms)
}

/// Appends one partition in the order of ids. Only the index is held in memory.
fn append_day(draft: &mut Draft, corpus: &Corpus, day: Day) -> Result<(), DatasetError> {
    let path = corpus.partition(day);
    let mut reader = BufReader::new(File::open(&path).map_err(DatasetError::io(&path))?);
    let mut index: Vec<(ItemId, u64, usize)> = Vec::new();
    let (mut line, mut offset) = (Vec::new(), 0u64);
    loop {
        line.clear();
        // Lines are bounded: `Corpus::open` read this partition under the lock we still hold.
        let n = reader
            .read_until(b'\n', &mut line)
            .map_err(DatasetError::io(&path))?;
        if n == 0 {
            break;
        }
        let conversation = Conversation::from_json(&line, None)
            .map_err(|e| DatasetError::corrupt(path.display().to_string(), e.to_string()))?;
        if conversation.created() != day {
            let reason = "a conversation of another day is in it";
            return Err(DatasetError::corrupt(path.display().to_string(), reason));
        }
        index.push((conversation.id(), offset, n));
        offset += u64::try_from(n).unwrap_or(u64::MAX);
    }
    index.sort_unstable();
    index.dedup_by_key(|(id, _, _)| *id);
    for (_, offset, length) in index {
        line.resize(length, 0);
        reader
            .seek(SeekFrom::Start(offset))
            .and_then(|_| reader.read_exact(&mut line))
            .map_err(DatasetError::io(&path))?;
        draft.append(&line, day)?;
    }
    Ok(())
}

/// A pack in the making.
struct Draft {
    encoder: zstd::Encoder<'static, tempfile::NamedTempFile>,
    hash: Sha256,
    plain_bytes: u64,
    count: u64,
    days: Option<(Day, Day)>,
}

impl Draft {
    fn new(folder: &Path) -> Result<Self, DatasetError> {
        let file = tempfile::Builder::new()
            .prefix(".draft-")
            .tempfile_in(folder)
            .map_err(DatasetError::io(folder))?;
        let mut encoder = zstd::Encoder::new(file, LEVEL).map_err(DatasetError::io(folder))?;
        encoder
            .include_checksum(true)
            .and_then(|()| encoder.window_log(WINDOW_LOG.min(23)))
            .map_err(DatasetError::io(folder))?;
        Ok(Self {
            encoder,
            hash: Sha256::new(),
            plain_bytes: 0,
            count: 0,
            days: None,
        })
    }

    fn append(&mut self, line: &[u8], day: Day) -> Result<(), DatasetError> {
        self.plain_bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.plain_bytes > PLAIN_BYTES_MAX {
            return Err(DatasetError::TooLarge {
                what: "the pack".to_owned(),
                reason: "at most 16 GiB of plain bytes; seal fewer days".to_owned(),
            });
        }
        self.hash.update(line);
        self.count += 1;
        self.days = Some((self.days.map_or(day, |(first, _)| first), day));
        self.encoder
            .write_all(line)
            .map_err(DatasetError::io(Path::new("the pack's draft")))
    }

    fn finish(self, folder: &Path, now_ms: u64) -> Result<Manifest, DatasetError> {
        let (from, to) = self.days.ok_or(DatasetError::Empty)?;
        let digest = PackDigest(self.hash.finalize().into());
        let path = pack_path(folder, digest);
        if let Ok(first) = read_manifest(folder, digest)
            && path.is_file()
        {
            return Ok(first);
        }
        let file = self.encoder.finish().map_err(DatasetError::io(folder))?;
        let zstd_bytes = file
            .as_file()
            .metadata()
            .map_err(DatasetError::io(folder))?;
        persist(file, &path)?;
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            digest,
            plain_bytes: self.plain_bytes,
            zstd_bytes: zstd_bytes.len(),
            count: self.count,
            sealed_ms: now_ms,
            from,
            to,
        };
        write_manifest(folder, &manifest)?;
        Ok(manifest)
    }
}

pub(super) fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), DatasetError> {
    let path = manifest_path(folder, manifest.digest);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(DatasetError::io(folder))?;
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|e| DatasetError::corrupt("the manifest", e.to_string()))?;
    writeln!(file, "{text}").map_err(DatasetError::io(&path))?;
    persist(file, &path)
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
