//! One batch before one judge: known verdicts are looked up, fresh ones kept as they come.

use super::super::rounds::store_fault;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::scoring::judge::spend::{Meter, Spend};
use crate::scoring::judge::{
    ContentKey, Judge, JudgeFailure, JudgeItem, JudgedItem, Verdict, Verdicts,
};
use crate::shutdown::Shutdown;
use crate::store::{JudgeSpend, Store, StoreError};
use serde_json::Value;
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Fresh verdicts on their way to the store.
const VERDICTS_IN_FLIGHT: usize = 256;
/// Verdicts written in one transaction.
const VERDICTS_BATCH: usize = 64;

/// Why a batch has no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No judge could be asked: the batch waits, and no attempt is counted.
    Held(Fault),
    /// The attempt failed.
    Failed(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<JudgeFailure> for Trouble {
    fn from(failure: JudgeFailure) -> Self {
        if failure.held {
            Self::Held(failure.into())
        } else {
            Self::Failed(failure.into())
        }
    }
}

/// A batch before a judge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) store: &'a Store,
    pub(super) meter: &'a Meter,
    pub(super) judge: &'a Judge,
    /// Whose the verdicts are until they are proven.
    pub(super) batch: &'a str,
    pub(super) stop: &'a Shutdown,
}

impl Session<'_> {
    /// Judges items in both orders, in the given order. What was paid for stays paid for.
    pub(super) async fn judge(&self, items: &[JudgeItem]) -> Result<Vec<JudgedItem>, Trouble> {
        let known = self.known(items).await?;
        let (sender, receiver) = mpsc::channel(VERDICTS_IN_FLIGHT);
        let asking = async move {
            let judged = self.judge.judge_all(items, &known, &sender, self.stop);
            judged.await
        };
        let (judged, kept) = tokio::join!(asking, self.keep(receiver));
        kept?;
        Ok(judged?)
    }

    /// Forgets the batch's verdicts, for its judge cannot be believed. Returns how many there were.
    pub(super) async fn forget(&self) -> Result<usize, Fault> {
        let forgotten = self.store.forget_verdicts(self.batch);
        forgotten.await.map_err(store_fault)
    }

    async fn known(&self, items: &[JudgeItem]) -> Result<Verdicts, Fault> {
        let keys = self.judge.keys(items).into_iter();
        let keys: HashMap<String, ContentKey> = keys.map(|key| (key.to_string(), key)).collect();
        let reader = self.store.reader();
        let kept = reader.verdicts(self.batch, keys.keys().cloned().collect());
        let mut known = Verdicts::new();
        for (text, value) in kept.await.map_err(store_fault)? {
            // A verdict of a former program's shape is asked again.
            if let (Some(key), Ok(verdict)) = (keys.get(&text), serde_json::from_value(value)) {
                known.insert(*key, verdict);
            }
        }
        Ok(known)
    }

    /// Keeps every verdict with what it cost; at the end also what answers of no use did.
    async fn keep(&self, mut fresh: mpsc::Receiver<(ContentKey, Verdict)>) -> Result<(), Fault> {
        let mut batch = Vec::with_capacity(VERDICTS_BATCH);
        while fresh.recv_many(&mut batch, VERDICTS_BATCH).await > 0 {
            let row = |(key, verdict): (ContentKey, Verdict)| {
                let value = serde_json::to_value(verdict).unwrap_or_default();
                (key.to_string(), value)
            };
            let rows = batch.drain(..).map(row).collect();
            self.write(rows).await.map_err(store_fault)?;
        }
        self.write(Vec::new()).await.map_err(store_fault)
    }

    async fn write(&self, rows: Vec<(String, Value)>) -> Result<(), StoreError> {
        let spent = self.meter.take_unsaved();
        let row = |(day, provider, spend): &(u64, String, Spend)| JudgeSpend {
            day: *day,
            provider: provider.clone(),
            calls: spend.calls,
            input_tokens: spend.input_tokens,
            output_tokens: spend.output_tokens,
            micro_usd: spend.micro_usd,
        };
        if rows.is_empty() && spent.is_empty() {
            return Ok(());
        }
        let spend = spent.iter().map(row).collect();
        let written = self.store.put_verdicts(self.batch, rows, spend, now_ms());
        let written = written.await;
        if written.is_err() {
            self.meter.put_back(spent);
        }
        written
    }
}
