//! Between columns and domain values. What cannot be decoded is damage, never a default.

use super::error::StoreError;
use crate::bittensor::{BlockHash, BlockNumber, Hotkey};
use rusqlite::types::Type;
use rusqlite::{Error, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;

/// The integer as the column holds it.
pub(super) fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Invalid(format!("{value} is over 2^63")))
}

/// JSON text of `value`, at most `limit` bytes.
pub(super) fn to_json<T: Serialize>(value: &T, limit: usize) -> Result<String, StoreError> {
    let text = serde_json::to_string(value)
        .map_err(|e| StoreError::Invalid(format!("value without JSON form: {e}")))?;
    if text.len() > limit {
        let length = text.len();
        return Err(StoreError::Invalid(format!(
            "JSON of {length} bytes where at most {limit} are kept"
        )));
    }
    Ok(text)
}

/// `text` without NUL (which not every engine stores), cut at `limit` bytes.
pub(super) fn bounded(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}

fn undecodable(column: &str, reason: impl std::fmt::Display) -> Error {
    let text = format!("column {column}: {reason}");
    Error::FromSqlConversionFailure(0, Type::Null, text.into())
}

pub(super) fn uint(row: &Row<'_>, column: &str) -> Result<u64, Error> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|e| undecodable(column, e))
}

pub(super) fn block(row: &Row<'_>, column: &str) -> Result<BlockNumber, Error> {
    uint(row, column).map(BlockNumber)
}

pub(super) fn optional_block(row: &Row<'_>, column: &str) -> Result<Option<BlockNumber>, Error> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => block(row, column).map(Some),
    }
}

pub(super) fn block_hash(row: &Row<'_>, column: &str) -> Result<BlockHash, Error> {
    row.get(column).map(BlockHash)
}

pub(super) fn hotkey(row: &Row<'_>, column: &str) -> Result<Hotkey, Error> {
    row.get(column).map(Hotkey)
}

/// A value with a text form.
pub(super) fn word<T>(row: &Row<'_>, column: &str) -> Result<T, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|e| undecodable(column, e))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|e| undecodable(column, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(bounded("aé\0", 2), "a");
        assert_eq!(bounded("aé\0", 9), "aé\u{fffd}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(int(u64::MAX).is_err());
        assert!(to_json(&"12345", 6).is_err());
        assert_eq!(to_json(&"1234", 6).unwrap(), "\"1234\"");
    }
}
