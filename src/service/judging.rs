//! The judge stage: replies in, a score out, while the scorers already work on the next model.

mod batch;
mod hidden;
mod session;

use super::artifacts::Artifacts;
use super::rounds::{Drawn, Rounds, store_fault};
use super::stage::Work;
use super::worker::{Replied, payload};
use crate::bittensor::{BlockNumber, RoundNumber};
use crate::clock::now_ms;
use crate::dataset::{Item, Role};
use crate::fault::{Fault, Party};
use crate::incentive::{Era, ItemScores};
use crate::scoring::judge::spend::Meter;
use crate::scoring::judge::{Judge, JudgeItem, PROMPT_VERSION, Turn};
use crate::shutdown::Shutdown;
use crate::store::{
    self, Lease, NewScore, Outcome, Reader, ScoreInputs, Scored, Stage, Store, StoreError,
};
use assay_protocol::Reply;
use batch::{Batch, Judged, Report};
use futures::FutureExt;
use futures::future::BoxFuture;
use hidden::Draw;
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
                Ok(outcome) => Some(outcome),
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

    async fn score(&self, lease: &Lease, stop: &Shutdown) -> Result<Outcome, Trouble> {
        let replied: Replied = payload(lease)?;
        let drawn = self.rounds.drawn(&replied.era_id, replied.round).await?;
        let replies = self.replies(&replied.replies_sha256).await?;
        let items = judge_items(&drawn, replies)?;
        let rules = &self.era(&replied.era_id)?.scoring;
        let name = format!(
            "{}:{}:{}",
            lease.submission.id, replied.era_id, replied.round
        );
        let reader = self.store.reader();
        let rival = rival(reader, &replied.era_id, replied.round, &lease.submission).await;
        let rival = rival.map_err(store_fault)?;
        let second = rules.second_judge.as_deref().map(|model| self.judge(model));
        let batch = Batch {
            session: Session {
                store: &self.store,
                meter: &self.judges.meter,
                judge: self.judge(&rules.judge)?,
                batch: &name,
                stop,
            },
            second: second.transpose()?,
            rules,
            draw: Draw {
                seed: &drawn.round.seed,
                batch: &name,
            },
            rival: rival.as_ref(),
        };
        let (judged, alarm) = batch.run(&items).await?;
        if let Some(alarm) = alarm {
            tracing::error!(submission = %lease.submission.id, %alarm, "two judges disagree");
            let recorded = self.store.record_fault(None, alarm, now_ms()).await;
            recorded.map_err(store_fault)?;
        }
        self.store
            .prove_verdicts(&name)
            .await
            .map_err(store_fault)?;
        match judged {
            Judged::Rejected(rejection) => Ok(Outcome::Rejected(rejection)),
            Judged::Scores(values, report) => {
                let broken = |e| Fault::permanent(Party::Node, "ITEM_SCORES", e);
                let items = ItemScores::new(values).map_err(broken)?;
                let score = new_score(&replied, &drawn, &items, &report, &rules.judge);
                Ok(Outcome::Scored(Box::new(score)))
            }
        }
    }

    fn era(&self, era_id: &str) -> Result<&Era, Fault> {
        let era = self
            .rounds
            .eras
            .iter()
            .find(|era| era.id().to_string() == era_id);
        era.ok_or_else(|| {
            let what = format!("era {era_id} is not in the configuration; put it back");
            Fault::permanent(Party::Node, "ERA_UNKNOWN", what)
        })
    }

    fn judge(&self, model: &str) -> Result<&Judge, Fault> {
        let judge = self.judges.by_model.get(model);
        judge.map(|judge| &**judge).ok_or_else(|| {
            let what =
                format!("no judge.provider offers {model}; add one and requeue the submission");
            Fault::permanent(Party::Node, "NO_JUDGE", what)
        })
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

/// Item values of the model that the round began with as the champion, when it was committed before
/// `own` and has its score of this round: who has no hope against it will not win the title. Where
/// there was no champion yet, those of the best one that was committed earlier.
pub(super) async fn rival(
    reader: &Reader,
    era_id: &str,
    round: RoundNumber,
    own: &store::Submission,
) -> Result<Option<HashMap<String, f64>>, StoreError> {
    let champion = reader.title(era_id, round).await?;
    let wanted = |other: &Scored| {
        let of = &other.submission;
        other.score.round == round
            && (of.commit_block, of.hotkey) < (own.commit_block, own.hotkey)
            && champion.is_none_or(|id| of.id == id)
    };
    let scored = reader.scored(era_id).await?.into_iter().filter(wanted);
    let Some(best) = scored.max_by(|a, b| a.score.value.total_cmp(&b.score.value)) else {
        return Ok(None);
    };
    let items = reader.item_scores(best.score.id).await?;
    Ok(Some(items.into_iter().collect()))
}

fn new_score(
    replied: &Replied,
    drawn: &Drawn,
    items: &ItemScores,
    report: &Report,
    judge: &str,
) -> NewScore {
    let score = items.score();
    let mut gates = replied.gates.clone();
    if let Some(gates) = gates.as_object_mut() {
        let report = serde_json::to_value(report).unwrap_or_default();
        gates.insert("judging".to_owned(), report);
    }
    let runner = match replied.image_id {
        Some(_) => "docker",
        None => "process",
    };
    NewScore {
        era_id: replied.era_id.clone(),
        round: replied.round,
        value: score.value,
        standard_error: score.standard_error,
        gates,
        inputs: ScoreInputs {
            image_id: replied
                .image_id
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
            runner: runner.to_owned(),
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

#[cfg(test)]
mod tests;
