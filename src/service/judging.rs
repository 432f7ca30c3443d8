//! The judge stage: replies in, a score out, while the scorers already work on the next model.

mod session;

use super::artifacts::Artifacts;
use super::rounds::{Drawn, Rounds, store_fault};
use super::stage::Work;
use super::worker::{Replied, payload};
use crate::bittensor::BlockNumber;
use crate::clock::now_ms;
use crate::dataset::{Item, Role};
use crate::fault::{Fault, Party};
use crate::incentive::score::{self, ItemScore, ItemScores, ItemVerdict, Lengths};
use crate::scoring::judge::spend::Meter;
use crate::scoring::judge::{
    Judge, JudgeItem, JudgedItem, PROMPT_VERSION, Preference, Turn, Verdict,
};
use crate::shutdown::Shutdown;
use crate::store::{Lease, NewScore, Outcome, ScoreInputs, Stage, Store};
use assay_protocol::Reply;
use futures::FutureExt;
use futures::future::BoxFuture;
use session::{Session, Trouble};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Longest pause before a batch that no judge could take goes back to the queue.
const PAUSE_MAX: Duration = Duration::from_secs(600);
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The judges on offer, under one meter.
#[derive(Debug, Clone)]
pub struct Judges {
    /// By the model that eras name.
    pub by_model: BTreeMap<String, Arc<Judge>>,
    /// What they all cost.
    pub meter: Arc<Meter>,
}

/// The judge's worker.
#[derive(Debug)]
pub struct Judging {
    /// The store, which also keeps verdicts.
    pub store: Store,
    /// Rounds and items.
    pub rounds: Arc<Rounds>,
    /// All judges.
    pub judges: Judges,
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
                Err(Trouble::Failed(fault)) => Some(Outcome::Failed(fault)),
                Err(Trouble::Held(fault)) => self.hold(lease, fault, stop).await,
            }
        }
        .boxed()
    }
}

impl Judging {
    /// Tells why the batch cannot be judged now, and waits until it may be tried again; then the
    /// lease goes back without its attempt counted. No model is parked because a judge is away.
    async fn hold(&self, lease: &Lease, fault: Fault, stop: &Shutdown) -> Option<Outcome> {
        let closed = self.judges.by_model.values().filter_map(|j| j.closed());
        let pause = closed.map(|(rest, _)| rest).min().unwrap_or(PAUSE_MIN);
        let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
        tracing::error!(submission = %lease.submission.id, %fault, pause_s = pause.as_secs(), "judging waits");
        let id = Some(lease.submission.id);
        if let Err(error) = self.store.record_fault(id, fault, now_ms()).await {
            return Some(Outcome::Failed(store_fault(error)));
        }
        tokio::select! {
            () = stop.signalled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        None
    }

    async fn score(&self, lease: &Lease, stop: &Shutdown) -> Result<NewScore, Trouble> {
        let replied: Replied = payload(lease)?;
        let drawn = self.rounds.drawn(&replied.era_id, replied.round).await?;
        let replies = self.replies(&replied.replies_sha256).await?;
        let items = judge_items(&drawn, replies)?;
        let model = self.judge_model(&replied.era_id)?;
        let judge = self
            .judges
            .by_model
            .get(model)
            .ok_or_else(|| no_judge(model))?;
        let batch = format!(
            "{}:{}:{}",
            lease.submission.id, replied.era_id, replied.round
        );
        let session = Session {
            store: &self.store,
            meter: &self.judges.meter,
            judge,
            batch: &batch,
            stop,
        };
        let judged = session.judge(&items).await?;
        self.store
            .prove_verdicts(&batch)
            .await
            .map_err(store_fault)?;
        let lengths: HashMap<&str, Lengths> = items
            .iter()
            .map(|item| (item.id.as_str(), Lengths::of(&item.reply, &item.reference)))
            .collect();
        let values = judged.iter().map(|item| {
            let score = ItemScore {
                lengths: lengths.get(item.id.as_str()).copied(),
                ..item_verdict(item).value().into()
            };
            (item.id.clone(), score)
        });
        let broken = |e| Fault::permanent(Party::Node, "ITEM_SCORES", e);
        let items = ItemScores::new(values).map_err(broken)?;
        Ok(self.new_score(&replied, &drawn, &items, model))
    }

    /// The judge that an era names.
    fn judge_model(&self, era_id: &str) -> Result<&str, Fault> {
        let era = self
            .rounds
            .eras
            .iter()
            .find(|era| era.id().to_string() == era_id);
        let gone = || {
            let what = format!("era {era_id} is not in the configuration; put it back");
            Fault::permanent(Party::Node, "ERA_UNKNOWN", what)
        };
        Ok(&era.ok_or_else(gone)?.scoring.judge)
    }

    fn new_score(
        &self,
        replied: &Replied,
        drawn: &Drawn,
        items: &ItemScores,
        judge: &str,
    ) -> NewScore {
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
                judge_id: judge.to_owned(),
                prompt_version: PROMPT_VERSION.to_owned(),
                tensor_digest: replied.tensor_digest.clone(),
                replies_digest: format!("sha256:{}", replied.replies_sha256),
            },
            items: items
                .details()
                .map(|(id, item)| (id.to_owned(), *item))
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
}

fn no_judge(model: &str) -> Fault {
    let what = format!("no judge.provider offers {model}; add one and requeue the submission");
    Fault::permanent(Party::Node, "NO_JUDGE", what)
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
