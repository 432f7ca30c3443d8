//! The judge's answers by the content they were given for, so that nothing is judged twice.

use super::columns::{int, to_json};
use super::error::StoreError;
use super::{Reader, Store};
use rusqlite::{OptionalExtension, params};
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes of JSON per verdict.
const VALUE_LIMIT: usize = 16 * 1024;

impl Store {
    /// Keeps verdicts by content key; one that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] over 16 KiB of JSON; then none was kept.
    pub async fn put_verdicts(
        &self,
        verdicts: Vec<(String, Value)>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.writer
            .call(move |conn| {
                let mut insert = conn.prepare_cached(
                    "INSERT INTO verdicts (key, value, created_ms) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (key) DO NOTHING",
                )?;
                for (key, value) in &verdicts {
                    insert.execute(params![key, to_json(value, VALUE_LIMIT)?, int(now_ms)?])?;
                }
                Ok(())
            })
            .await
    }
}

impl Reader {
    /// The kept verdicts of `keys`; what is missing was never judged.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn verdicts(&self, keys: Vec<String>) -> Result<BTreeMap<String, Value>, StoreError> {
        self.read(move |conn| {
            let mut query = conn.prepare_cached("SELECT value FROM verdicts WHERE key = ?1")?;
            let mut found = BTreeMap::new();
            for key in keys {
                let text: Option<String> = query.query_row([&key], |row| row.get(0)).optional()?;
                if let Some(text) = text {
                    let value = serde_json::from_str(&text)
                        .map_err(|e| StoreError::Corrupt(format!("verdict {key}: {e}")))?;
                    found.insert(key, value);
                }
            }
            Ok(found)
        })
        .await
    }
}
