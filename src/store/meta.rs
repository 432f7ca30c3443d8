//! Small values that outlive a restart, such as the last processed block.

use super::columns::to_json;
use super::error::StoreError;
use super::{Reader, Store};
use rusqlite::OptionalExtension;
use serde::Serialize;
use serde::de::DeserializeOwned;

const VALUE_LIMIT: usize = 16 * 1024;

impl Store {
    /// Keeps `value` under `key`; the last one wins.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] over 16 KiB of JSON.
    pub async fn put_meta<T: Serialize>(
        &self,
        key: &'static str,
        value: &T,
    ) -> Result<(), StoreError> {
        let text = to_json(value, VALUE_LIMIT)?;
        self.writer
            .call(move |conn| {
                let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) \
                           ON CONFLICT (key) DO UPDATE SET value = excluded.value";
                conn.prepare_cached(sql)?.execute([key, &text])?;
                Ok(())
            })
            .await
    }
}

impl Reader {
    /// What is kept under `key`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is no `T`.
    pub async fn meta<T: DeserializeOwned>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self
            .read(move |conn| {
                let mut query = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
                Ok(query.query_row([key], |row| row.get(0)).optional()?)
            })
            .await?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|e| StoreError::Corrupt(format!("value of {key}: {e}")))
    }
}
