//! The journal: one checksummed record per block, so that a killed chain goes on where it was.

use super::block::{Block, Hash, Header};
use super::error::DevChainError;
use super::state::Diff;
use codec::{Decode, Encode};
use sp_crypto_hashing::blake2_256;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Names file and format.
const MAGIC: &[u8; 8] = b"assaydc1";
/// A record above this size is damage, not data.
const MAX_RECORD: u32 = 256 * 1024 * 1024;

/// One sealed block and what it changed.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) block: Block,
    pub(super) diff: Diff,
}

type Parts = (Hash, u32, Hash, Hash, u64, Vec<Vec<u8>>);

impl Record {
    fn encode(&self) -> Vec<u8> {
        let header = &self.block.header;
        let parts: Parts = (
            header.parent,
            header.number,
            header.state_root,
            header.extrinsics_root,
            header.slot,
            self.block.extrinsics.clone(),
        );
        (parts, &self.diff).encode()
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (parts, diff) = <(Parts, Diff)>::decode(&mut bytes).ok()?;
        let (parent, number, state_root, extrinsics_root, slot, extrinsics) = parts;
        let header = Header {
            parent,
            number,
            state_root,
            extrinsics_root,
            slot,
        };
        let block = Block {
            hash: header.hash(),
            header,
            extrinsics,
        };
        bytes.is_empty().then_some(Self { block, diff })
    }
}

/// The open file, positioned behind the last whole record.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens or creates the journal of the chain with block 0 `genesis` in `dir` and hands each
    /// whole record to `replay`. A torn tail, as a kill leaves it, is cut off.
    pub(super) fn open(
        dir: &Path,
        genesis: &Hash,
        mut replay: impl FnMut(Record),
    ) -> Result<Self, DevChainError> {
        let path = dir.join("devchain.journal");
        let fail = |what: &str| {
            let what = format!("{what} {}", path.display());
            move |e| DevChainError::io(what, e)
        };
        std::fs::create_dir_all(dir).map_err(fail("cannot create the folder of"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail("cannot open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail("cannot read"))?;
        let head = [&MAGIC[..], &genesis[..]].concat();
        if bytes.len() < head.len() {
            // New, or killed while it was created.
            file.set_len(0).map_err(fail("cannot empty"))?;
            file.seek(SeekFrom::Start(0)).map_err(fail("cannot seek"))?;
            file.write_all(&head).map_err(fail("cannot write"))?;
            return Ok(Self { file, path });
        }
        if !bytes.starts_with(&head) {
            return Err(DevChainError::ForeignJournal { path });
        }
        let mut at = head.len();
        while let Some((record, next)) = next_record(&bytes, at) {
            replay(record);
            at = next;
        }
        let end = u64::try_from(at).unwrap_or(u64::MAX);
        if at < bytes.len() {
            tracing::warn!(path = %path.display(), dropped = bytes.len() - at, "journal had a torn tail");
        }
        file.set_len(end).map_err(fail("cannot cut the tail of"))?;
        file.seek(SeekFrom::Start(end))
            .map_err(fail("cannot seek"))?;
        Ok(Self { file, path })
    }

    /// Appends a record; it is in the system's hands when this returns, so that killing this
    /// process loses nothing.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), DevChainError> {
        let body = record.encode();
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(checksum(&body));
        bytes.extend(body);
        self.file
            .write_all(&bytes)
            .map_err(|e| DevChainError::io(format!("cannot append to {}", self.path.display()), e))
    }
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&blake2_256(body)[..8]);
    out
}

fn next_record(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let head = bytes.get(at..at + 12)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?);
    if len > MAX_RECORD {
        return None;
    }
    let end = at + 12 + usize::try_from(len).ok()?;
    let body = bytes.get(at + 12..end)?;
    if checksum(body) != head[4..] {
        return None;
    }
    Some((Record::decode(body)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u32) -> Record {
        let header = Header {
            parent: [7; 32],
            number,
            state_root: [1; 32],
            extrinsics_root: [2; 32],
            slot: 9,
        };
        Record {
            block: Block {
                hash: header.hash(),
                header,
                extrinsics: vec![vec![1, 2, 3]],
            },
            diff: Diff::from([(vec![1], Some(vec![2])), (vec![3], None)]),
        }
    }

    fn numbers(dir: &Path) -> (Journal, Vec<u32>) {
        let mut seen = Vec::new();
        let journal = Journal::open(dir, &[5; 32], |r| seen.push(r.block.header.number)).unwrap();
        (journal, seen)
    }

    /// Whatever byte the kill came at: all whole records are back, and the journal goes on.
    #[test]
    fn every_torn_tail_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = numbers(dir.path());
        journal.append(&record(1)).unwrap();
        let whole = std::fs::metadata(&journal.path).unwrap().len();
        journal.append(&record(2)).unwrap();
        let path = journal.path.clone();
        let full = std::fs::read(&path).unwrap();
        for cut in usize::try_from(whole).unwrap()..full.len() {
            std::fs::write(&path, &full[..cut]).unwrap();
            let (mut journal, seen) = numbers(dir.path());
            assert_eq!(seen, [1], "cut at {cut}");
            journal.append(&record(3)).unwrap();
            assert_eq!(numbers(dir.path()).1, [1, 3]);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_replay() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = numbers(dir.path());
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        let mut bytes = std::fs::read(&journal.path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&journal.path, bytes).unwrap();
        assert_eq!(numbers(dir.path()).1, [1]);
    }

    #[test]
    fn another_chains_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(numbers(dir.path()));
        let other = Journal::open(dir.path(), &[6; 32], |_| ());
        assert!(matches!(other, Err(DevChainError::ForeignJournal { .. })));
    }
}
