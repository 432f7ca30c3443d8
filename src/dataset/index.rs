//! A pack's index: where each conversation lies, so that items are read without the rest.
//!
//! One record of 48 bytes for each line, in the pack's order: id (32 bytes), offset of the line
//! (u64), its length with the newline (u32), and the day as the number YYYYMMDD (u32); numbers are
//! little-endian. The index follows from the pack alone, and its digest is in the manifest.

use super::{CONVERSATIONS_MAX, Day, ItemId, LINE_BYTES_MAX};

const RECORD: usize = 48;

/// Where a conversation lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The conversation.
    pub id: ItemId,
    /// Offset of its line in the plain bytes.
    pub offset: u64,
    /// Length of the line, with the newline.
    pub length: u32,
    /// Day of its making.
    pub created: Day,
}

/// Writes the records one after another.
#[derive(Debug, Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    offset: u64,
}

impl Builder {
    pub(super) fn push(&mut self, id: ItemId, created: Day, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&id.0);
        self.bytes.extend_from_slice(&self.offset.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        let day = created.to_number().to_le_bytes();
        self.bytes.extend_from_slice(&day);
        self.offset += u64::from(length);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() / RECORD
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads an index; the reason when the bytes are none.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    if !rest.is_empty() || records.len() > CONVERSATIONS_MAX {
        return Err("its index has a wrong length");
    }
    let mut expected = 0;
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        let entry = entry(record).ok_or("its index names an impossible day")?;
        let bounded = (1..=LINE_BYTES_MAX + 1).contains(&(entry.length as usize));
        if entry.offset != expected || !bounded {
            return Err("its index has gaps or overlaps");
        }
        expected += u64::from(entry.length);
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(record: &[u8; RECORD]) -> Option<Entry> {
    let (id, rest) = record.split_first_chunk::<32>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (length, day) = rest.split_first_chunk::<4>()?;
    Some(Entry {
        id: ItemId(*id),
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
        created: Day::from_number(u32::from_le_bytes(day.try_into().ok()?))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_reads_back_and_a_damaged_one_does_not() {
        let day: Day = "2026-11-20".parse().unwrap();
        let mut builder = Builder::default();
        builder.push(ItemId([1; 32]), day, 10);
        builder.push(ItemId([2; 32]), day, 20);
        assert_eq!(builder.len(), 2);
        let bytes = builder.into_bytes();
        let entries = read(&bytes).unwrap();
        assert_eq!((entries[1].offset, entries[1].length), (10, 20));
        assert_eq!((entries[1].id, entries[1].created), (ItemId([2; 32]), day));
        assert!(read(&bytes[1..]).is_err());
        assert!(read(&bytes[48..]).is_err());
        let mut wrong = bytes;
        wrong[44..48].fill(0xff);
        assert!(read(&wrong).is_err());
    }
}
