//! The judge's answers by the content they were given for, so that nothing is judged twice, and what
//! they cost.
//!
//! A verdict is its batch's alone until the batch's hidden controls were passed: then it is proven,
//! and holds for every batch. One of a judge that failed its controls is forgotten.

use super::columns::{int, to_json, uint};
use super::error::StoreError;
use super::{Reader, Store};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes of JSON per verdict.
const VALUE_LIMIT: usize = 16 * 1024;

/// What one provider of judges was asked and paid on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgeSpend {
    /// Days since 1970-01-01 (UTC).
    pub day: u64,
    /// The provider's name in the configuration.
    pub provider: String,
    /// Answered calls, usable or not.
    pub calls: u64,
    /// Tokens of questions.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar.
    pub micro_usd: u64,
}

fn insert(
    conn: &Connection,
    batch: &str,
    verdicts: &[(String, Value)],
    now_ms: u64,
) -> Result<(), StoreError> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO verdicts (key, value, created_ms, batch) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, batch = excluded.batch, \
         created_ms = excluded.created_ms WHERE verdicts.batch <> excluded.batch",
    )?;
    for (key, value) in verdicts {
        let value = to_json(value, VALUE_LIMIT)?;
        insert.execute(params![key, value, int(now_ms)?, batch])?;
    }
    Ok(())
}

fn add_spend(conn: &Connection, spend: &JudgeSpend) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO judge_spend (day, provider, calls, input_tokens, output_tokens, micro_usd) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (day, provider) DO UPDATE SET \
         calls = calls + excluded.calls, input_tokens = input_tokens + excluded.input_tokens, \
         output_tokens = output_tokens + excluded.output_tokens, \
         micro_usd = micro_usd + excluded.micro_usd",
    )?
    .execute(params![
        int(spend.day)?,
        spend.provider,
        int(spend.calls)?,
        int(spend.input_tokens)?,
        int(spend.output_tokens)?,
        int(spend.micro_usd)?,
    ])?;
    Ok(())
}

impl Store {
    /// Keeps a batch's verdicts by content key, and adds what was spent, in one transaction. A
    /// proven verdict that is there already stays, and so does one of the same batch.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] over 16 KiB of JSON; then nothing was kept.
    pub async fn put_verdicts(
        &self,
        batch: &str,
        verdicts: Vec<(String, Value)>,
        spend: Vec<JudgeSpend>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let batch = batch.to_owned();
        self.writer
            .call(move |conn| {
                insert(conn, &batch, &verdicts, now_ms)?;
                spend.iter().try_for_each(|spend| add_spend(conn, spend))
            })
            .await
    }

    /// The batch passed its controls: its verdicts hold for everyone. Returns how many there were.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn prove_verdicts(&self, batch: &str) -> Result<usize, StoreError> {
        self.of_batch("UPDATE verdicts SET batch = NULL WHERE batch = ?1", batch)
            .await
    }

    /// The batch's judge failed its controls: its verdicts are forgotten. Returns how many there were.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn forget_verdicts(&self, batch: &str) -> Result<usize, StoreError> {
        self.of_batch("DELETE FROM verdicts WHERE batch = ?1", batch)
            .await
    }

    async fn of_batch(&self, sql: &'static str, batch: &str) -> Result<usize, StoreError> {
        let batch = batch.to_owned();
        self.writer
            .call(move |conn| Ok(conn.prepare_cached(sql)?.execute([batch])?))
            .await
    }
}

impl Reader {
    /// The kept verdicts of `keys` that are proven or `batch`'s own; what is missing is to be judged.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn verdicts(
        &self,
        batch: &str,
        keys: Vec<String>,
    ) -> Result<BTreeMap<String, Value>, StoreError> {
        let batch = batch.to_owned();
        self.read(move |conn| {
            let mut query = conn.prepare_cached(
                "SELECT value FROM verdicts WHERE key = ?1 AND (batch IS NULL OR batch = ?2)",
            )?;
            let mut found = BTreeMap::new();
            for key in keys {
                let row = query.query_row([&key, &batch], |row| row.get(0));
                let text: Option<String> = row.optional()?;
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

    /// What all providers of judges together were paid on a day (days since 1970-01-01, UTC), in
    /// millionths of a US dollar.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn judge_spent(&self, day: u64) -> Result<u64, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT COALESCE(SUM(micro_usd), 0) AS spent FROM judge_spend WHERE day = ?1";
            let mut query = conn.prepare_cached(sql)?;
            Ok(query.query_row([int(day)?], |row| uint(row, "spent"))?)
        })
        .await
    }

    /// What each provider of judges was asked and paid since a day, newest day first, then by name.
    ///
    /// # Errors
    /// Trouble with the store.
    pub async fn judge_spend(&self, since_day: u64) -> Result<Vec<JudgeSpend>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT * FROM judge_spend WHERE day >= ?1 ORDER BY day DESC, provider";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map([int(since_day)?], |row| {
                Ok(JudgeSpend {
                    day: uint(row, "day")?,
                    provider: row.get("provider")?,
                    calls: uint(row, "calls")?,
                    input_tokens: uint(row, "input_tokens")?,
                    output_tokens: uint(row, "output_tokens")?,
                    micro_usd: uint(row, "micro_usd")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
