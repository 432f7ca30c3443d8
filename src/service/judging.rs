//! The judge stage: replies in, a score out, while the scorers already work on the next model.

use super::artifacts::Artifacts;
use super::rounds::{Drawn, Rounds, store_fault};
use super::stage::Work;
use super::worker::{Replied, payload};
use crate::bittensor::BlockNumber;
use crate::clock::now_ms;
use crate::dataset::{Item, Role};
use crate::fault::{Fault, Party};
use crate::incentive::score::{self, ItemScores, ItemVerdict};
use crate::scoring::judge::{
    ContentKey, Judge, JudgeItem, JudgedItem, PROMPT_VERSION, Preference, Turn, Verdict, Verdicts,
};
use crate::shutdown::Shutdown;
use crate::store::{Lease, NewScore, Outcome, ScoreInputs, Stage, Store};
use assay_protocol::Reply;
use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Fresh verdicts on their way to the store.
const VERDICTS_IN_FLIGHT: usize = 256;
/// Verdicts written in one transaction.
const VERDICTS_BATCH: usize = 64;

/// The judge's worker.
#[derive(Debug)]
pub struct Judging {
    /// The store, which also keeps verdicts.
    pub store: Store,
    /// Rounds and items.
    pub rounds: Arc<Rounds>,
    /// The judge.
    pub judge: Arc<Judge>,
    /// Its exact model, as the era names it.
    pub judge_id: String,
    /// Folders.
    pub artifacts: Artifacts,
}

impl Work for Judging {
    fn stage(&self) -> Stage {
        Stage::Judge
    }

    fn committed_before(&self) -> Option<Option<BlockNumber>> {
        Some(None)
    }

    fn work<'a>(&'a self, lease: &'a Lease, stop: &'a Shutdown) -> BoxFuture<'a, Option<Outcome>> {
        async move {
            match self.score(lease, stop).await {
                _ if stop.is_triggered() => None,
                Ok(score) => Some(Outcome::Scored(Box::new(score))),
                Err(fault) => Some(Outcome::Failed(fault)),
            }
        }
        .boxed()
    }
}

impl Judging {
    async fn score(&self, lease: &Lease, stop: &Shutdown) -> Result<NewScore, Fault> {
        let replied: Replied = payload(lease)?;
        let drawn = self.rounds.drawn(&replied.era_id, replied.round).await?;
        let replies = self.replies(&replied.replies_sha256).await?;
        let items = judge_items(&drawn, replies)?;
        let known = self.known(&items).await?;
        let judged = self.judge(&items, &known, stop).await?;
        let values = judged
            .iter()
            .map(|item| (item.id.clone(), item_verdict(item).value()));
        let broken = |e| Fault::permanent(Party::Node, "ITEM_SCORES", e);
        let items = ItemScores::new(values).map_err(broken)?;
        Ok(self.new_score(&replied, &drawn, &items))
    }

    fn new_score(&self, replied: &Replied, drawn: &Drawn, items: &ItemScores) -> NewScore {
        let score = items.score();
        NewScore {
            era_id: replied.era_id.clone(),
            round: replied.round,
            value: score.value,
            standard_error: score.standard_error,
            gates: replied.gates.clone(),
            inputs: ScoreInputs {
                image_id: replied
                    .image_id
                    .clone()
                    .unwrap_or_else(|| "none".to_owned()),
                runner: if replied.image_id.is_some() {
                    "docker"
                } else {
                    "process"
                }
                .to_owned(),
                engine: replied.engine.clone(),
                pack_digest: drawn.round.pack_digest.clone(),
                seed: hex::encode(drawn.round.seed),
                judge_id: self.judge_id.clone(),
                prompt_version: PROMPT_VERSION.to_owned(),
                tensor_digest: replied.tensor_digest.clone(),
                replies_digest: format!("sha256:{}", replied.replies_sha256),
            },
            items: items
                .iter()
                .map(|(id, value)| (id.to_owned(), value))
                .collect(),
        }
    }

    /// The kept replies, checked against the digest they are kept under.
    async fn replies(&self, sha256: &str) -> Result<Vec<Reply>, Fault> {
        let lost = |e: &dyn std::fmt::Display| {
            let detail =
                format!("the replies {sha256} cannot be used: {e}; requeue the submission");
            Fault::permanent(Party::Node, "REPLIES_LOST", detail)
        };
        let path = self
            .artifacts
            .replies_file(sha256)
            .ok_or_else(|| lost(&"malformed digest"))?;
        let bytes = tokio::fs::read(path).await.map_err(|e| lost(&e))?;
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            return Err(lost(&"their content changed on disk"));
        }
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|e| lost(&e)))
            .collect()
    }

    async fn known(&self, items: &[JudgeItem]) -> Result<Verdicts, Fault> {
        let keys: HashMap<String, ContentKey> = self
            .judge
            .keys(items)
            .into_iter()
            .map(|key| (hex::encode(key.0), key))
            .collect();
        let kept = self
            .store
            .reader()
            .verdicts(keys.keys().cloned().collect())
            .await
            .map_err(store_fault)?;
        let mut known = Verdicts::new();
        for (text, value) in kept {
            // A verdict of a former program's shape is asked again.
            if let (Some(key), Ok(verdict)) = (keys.get(&text), serde_json::from_value(value)) {
                known.insert(*key, verdict);
            }
        }
        Ok(known)
    }

    /// Judges, and keeps every verdict as it comes.
    async fn judge(
        &self,
        items: &[JudgeItem],
        known: &Verdicts,
        stop: &Shutdown,
    ) -> Result<Vec<JudgedItem>, Fault> {
        let (sender, receiver) = mpsc::channel(VERDICTS_IN_FLIGHT);
        let asking = async move { self.judge.judge_all(items, known, &sender, stop).await };
        let (judged, kept) = tokio::join!(asking, self.keep(receiver));
        kept?;
        judged
    }

    async fn keep(&self, mut fresh: mpsc::Receiver<(ContentKey, Verdict)>) -> Result<(), Fault> {
        let mut batch = Vec::with_capacity(VERDICTS_BATCH);
        while fresh.recv_many(&mut batch, VERDICTS_BATCH).await > 0 {
            let rows = batch
                .drain(..)
                .map(|(key, verdict)| {
                    (
                        hex::encode(key.0),
                        serde_json::to_value(verdict).unwrap_or_default(),
                    )
                })
                .collect();
            self.store
                .put_verdicts(rows, now_ms())
                .await
                .map_err(store_fault)?;
        }
        Ok(())
    }
}

fn judge_items(drawn: &Drawn, replies: Vec<Reply>) -> Result<Vec<JudgeItem>, Fault> {
    let mut by_id: HashMap<String, String> = replies.into_iter().map(|r| (r.id, r.text)).collect();
    let item = |item: &Item| {
        let id = item.id.to_string();
        let missing = || {
            Fault::permanent(
                Party::Node,
                "REPLIES_LOST",
                format!("no reply to item {id} is kept"),
            )
        };
        let reply = by_id.remove(&id).ok_or_else(missing)?;
        Ok(JudgeItem {
            context: context(item),
            reply,
            reference: item.reference.clone(),
            id,
        })
    };
    drawn.items.iter().map(item).collect()
}

fn context(item: &Item) -> Vec<Turn> {
    let system = item.system.iter().map(|text| ("system", text));
    let turns = item.messages.iter().map(|message| {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        (role, &message.content)
    });
    system
        .chain(turns)
        .map(|(role, text)| Turn {
            role: role.to_owned(),
            content: text.clone(),
        })
        .collect()
}

fn item_verdict(judged: &JudgedItem) -> ItemVerdict {
    ItemVerdict {
        miner_first: rule_verdict(&judged.reply_first),
        reference_first: rule_verdict(&judged.reference_first),
    }
}

fn rule_verdict(verdict: &Verdict) -> score::Verdict {
    let side = |preference: Preference| match preference {
        Preference::Reply => score::Preference::Win,
        Preference::Tie => score::Preference::Tie,
        Preference::Reference => score::Preference::Loss,
    };
    score::Verdict {
        realism: side(verdict.realism),
        entertainment: side(verdict.entertainment),
        coherency: side(verdict.coherency),
        addresses_judge: verdict.reply_addresses_judge,
    }
}
