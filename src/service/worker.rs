//! The score stage: one model, one sealed scorer, replies or a verdict.

mod standing;
mod terms;

pub use standing::{Standing, replies_of};

use super::artifacts::{Artifacts, job_id};
use super::rounds::{Drawn, Rounds, store_fault};
use super::stage::Work;
use super::{fetcher::Fetched, intake, twins};
use crate::admission::template;
use crate::bittensor::BlockNumber;
use crate::dataset::{Item, Role};
use crate::fault::{Fault, Party};
use crate::incentive::copies::Behaviour;
use crate::incentive::gates::{self, ReplyText};
use crate::incentive::{Era, EraId, Rejection, Template};
use crate::scoring::control::Control;
use crate::scoring::gpu::Gate;
use crate::scoring::job::{self, JobPath, ModelFacts, PreparedJob, ScoreJob};
use crate::scoring::outcome::{self, Attempt, ReplySet};
use crate::scoring::{Finished, Scorer, ScoringError, replies};
use crate::shutdown::Shutdown;
use crate::store::{Advance, Fingerprint, Lease, Outcome, Seen, Stage, Store};
use assay_protocol::{Canary, EngineArgs, Finish, Generation, Limits, Reference, Sample};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What the score stage hands to the judge stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replied {
    /// Era of the round.
    pub era_id: String,
    /// Round that was answered.
    pub round: crate::bittensor::RoundNumber,
    /// Hex SHA-256 of the kept replies file.
    pub replies_sha256: String,
    /// Image that ran, as the engine says; none for a plain process.
    pub image_id: Option<String>,
    /// Engine, the scorer's word.
    pub engine: String,
    /// Digest over the tensors.
    pub tensor_digest: String,
    /// What the gates saw.
    pub gates: serde_json::Value,
}

/// One run that ended, with what it was made from.
#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    lease: &'a Lease,
    job: &'a PreparedJob,
    finished: &'a Finished,
    fetched: &'a Fetched,
    drawn: &'a Drawn,
    era: &'a Era,
}

/// How a run ended, before the control model was asked.
enum Concluded {
    Outcome(Outcome),
    /// Code and detail.
    Suspect((&'static str, String)),
}

/// One scoring worker.
#[derive(Debug)]
pub struct Worker {
    /// The store.
    pub store: Store,
    /// Rounds and items.
    pub rounds: Arc<Rounds>,
    /// The sealed scorer of each era, bound to the image that the era names.
    pub scorers: HashMap<EraId, Arc<dyn Scorer>>,
    /// Folders.
    pub artifacts: Artifacts,
    /// Deadlines of one run.
    pub limits: Limits,
    /// Its name in logs and in the ledger of faults.
    pub name: String,
    /// Whether other workers could try what failed here.
    pub has_peers: bool,
    /// Largest model that it takes, in bytes of weights; `None` takes every one.
    pub model_bytes_max: Option<u64>,
    /// Its GPUs.
    pub gate: Arc<Gate>,
    /// Precision and sequences of its engine.
    pub engine: EngineSetup,
    /// What its scorer must reproduce before its results count.
    pub control: Option<Control>,
    /// What it remembers of itself.
    pub standing: Mutex<Standing>,
}

/// What the hardware decides about an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSetup {
    /// `float32`, `float16` or `bfloat16`.
    pub dtype: String,
    /// Sequences decoded together.
    pub sequences: u32,
}

impl Work for Worker {
    fn stage(&self) -> Stage {
        Stage::Score
    }

    /// A model takes part only in rounds that began after its commitment.
    fn committed_before(&self) -> Option<Option<BlockNumber>> {
        self.rounds.present().map(|(_, _, start)| Some(start))
    }

    fn model_bytes_max(&self) -> Option<u64> {
        self.model_bytes_max
    }

    fn ready<'a>(&'a self, stop: &'a Shutdown) -> BoxFuture<'a, bool> {
        self.may_work(stop).boxed()
    }

    fn work<'a>(&'a self, lease: &'a Lease, stop: &'a Shutdown) -> BoxFuture<'a, Option<Outcome>> {
        async move {
            let ended = self.score(lease, stop).await;
            self.note(&ended).await;
            ended.unwrap_or_else(|fault| Some(Outcome::Failed(fault)))
        }
        .boxed()
    }
}

impl Worker {
    async fn score(&self, lease: &Lease, stop: &Shutdown) -> Result<Option<Outcome>, Fault> {
        let fetched: Fetched = payload(lease)?;
        let key = Fingerprint::TensorDigest(fetched.tensor_digest.clone());
        let twin = twins::settle(&self.store, &lease.submission, key)
            .await
            .map_err(store_fault)?;
        if let Err(rejection) = twin {
            return Ok(Some(Outcome::Rejected(rejection)));
        }
        let (era, drawn) = self.rounds.current().await?;
        let alike = twins::settle_weights(&self.store, &lease.submission, &era.copies);
        if let Err(rejection) = alike.await.map_err(store_fault)? {
            return Ok(Some(Outcome::Rejected(rejection)));
        }
        let job = self.prepare(lease, &fetched, &era, &drawn).await?;
        let begun = self.look().await?;
        let finished = self.scorer(&era)?.run(&job, stop).await?;
        if stop.is_triggered() {
            return Ok(None);
        }
        self.stayed_well(&begun).await?;
        let run = Run {
            lease,
            job: &job,
            finished: &finished,
            fetched: &fetched,
            drawn: &drawn,
            era: &era,
        };
        let outcome = match self.conclude(run).await? {
            Concluded::Outcome(outcome) => outcome,
            Concluded::Suspect(why) => self.suspect(lease, why, &era, stop).await?,
        };
        discard(&job);
        Ok(Some(outcome))
    }

    fn scorer(&self, era: &Era) -> Result<&dyn Scorer, Fault> {
        let unknown = "no scorer is set up for the present era";
        let scorer = self.scorers.get(&era.id()).map(AsRef::as_ref);
        scorer.ok_or_else(|| Fault::permanent(Party::Node, "NO_SCORER", unknown))
    }

    async fn prepare(
        &self,
        lease: &Lease,
        fetched: &Fetched,
        era: &Era,
        drawn: &Drawn,
    ) -> Result<PreparedJob, Fault> {
        let submission = intake::reparse(&lease.submission).ok_or_else(|| {
            Fault::permanent(
                Party::Node,
                "COMMITMENT_UNPARSED",
                "the recorded commitment no longer parses",
            )
        })?;
        let terms = terms::of(&self.ledger(lease).await?);
        let job = ScoreJob {
            job_id: job_id(lease.submission.id, drawn.round.number),
            attempt: lease.attempt,
            nonce: rand::random(),
            model: ModelFacts {
                dir: self.artifacts.mount(lease.submission.id),
                architecture: fetched.architecture.clone(),
                files: fetched.files.clone(),
                tensor_digest: fetched.tensor_digest.clone(),
                param_count: fetched.param_count,
            },
            items: samples(&drawn.items, submission.template)?,
            references: probes(&drawn.items, era.copies.probes),
            pack: drawn.round.pack_digest.clone(),
            generation: Generation {
                max_tokens: era.scoring.max_tokens,
                max_prompt_tokens: era.scoring.max_prompt_tokens,
                stop_token_ids: fetched.stop_token_ids.clone(),
                seed: 1,
            },
            engine_args: engine_args(&self.engine, era),
            limits: terms.limits(&self.limits),
            canary: Canary {
                tensors: 8,
                values: 1024,
            },
            memory_raised: terms.more_memory,
        };
        let folder = self.artifacts.jobs();
        blocking(move || job::prepare(&job, &folder)).await
    }

    async fn conclude(&self, run: Run<'_>) -> Result<Concluded, Fault> {
        let of_report = run.job.clone();
        let report = blocking(move || Ok(replies::read(&of_report))).await?;
        let attempt = Attempt {
            memory_raised: run.job.memory_raised,
        };
        match outcome::classify(report, run.finished, &run.job.job, attempt) {
            outcome::Outcome::Replies(set) => self.accept(run, *set).await.map(Concluded::Outcome),
            outcome::Outcome::Rejected(rejection) => {
                Ok(Concluded::Outcome(Outcome::Rejected(rejection)))
            }
            outcome::Outcome::Suspect { code, detail } => {
                let log = &run.finished.log_tail;
                tracing::warn!(code, log, "the scorer failed on this model");
                Ok(Concluded::Suspect((code, detail)))
            }
            outcome::Outcome::Fault(fault) => Err(fault),
        }
    }

    async fn accept(&self, run: Run<'_>, set: ReplySet) -> Result<Outcome, Fault> {
        let texts: Vec<_> = set
            .replies
            .iter()
            .map(|reply| ReplyText {
                text: &reply.text,
                cut: reply.finish == Finish::Length,
            })
            .collect();
        let counts = gates::count_bad(&texts);
        if let Err(rejection) = gates::check(&counts, &run.era.scoring.gates) {
            return Ok(Outcome::Rejected(rejection));
        }
        if let Err(rejection) = self.compare(run, &set).await? {
            return Ok(Outcome::Rejected(rejection));
        }
        let (artifacts, digest) = (self.artifacts.clone(), set.replies_sha256.clone());
        let from = run.job.path(JobPath::Replies);
        let kept =
            tokio::task::spawn_blocking(move || artifacts.keep_replies(&digest, &from)).await;
        let disk = |e: &dyn std::fmt::Display| Fault::retryable(Party::Node, "REPLIES_DISK", e);
        kept.map_err(|e| disk(&e))?.map_err(|e| disk(&e))?;
        let replied = Replied {
            era_id: run.drawn.round.era_id.clone(),
            round: run.drawn.round.number,
            replies_sha256: set.replies_sha256,
            image_id: run.finished.image_id.clone(),
            engine: set.scorer.engine,
            tensor_digest: run.fetched.tensor_digest.clone(),
            gates: serde_json::to_value(counts).unwrap_or_default(),
        };
        let payload = serde_json::to_value(replied).unwrap_or_default();
        Ok(Outcome::Advance(Advance {
            payload,
            ..Advance::default()
        }))
    }
}

impl Worker {
    /// Compares how the model behaved with all others that were asked the same by the same scorer.
    async fn compare(&self, run: Run<'_>, set: &ReplySet) -> Result<Result<(), Rejection>, Fault> {
        if set.likelihoods.is_empty() {
            return Ok(Ok(()));
        }
        let seen = Seen {
            era_id: run.drawn.round.era_id.clone(),
            round: run.drawn.round.number,
            // Arithmetic of another device moves probabilities as much as a little noise does.
            scorer: format!(
                "{} {} {}",
                run.finished.image_id.as_deref().unwrap_or("none"),
                set.scorer.engine,
                set.scorer.device
            ),
        };
        let behaviour = Behaviour::new(set.likelihoods.iter().map(|(id, nats)| {
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
            let nats = nats.iter().map(|nats| *nats as f32).collect();
            (id.clone(), nats)
        }));
        let (of, rules) = (&run.lease.submission, &run.era.copies);
        twins::settle_behaviour(&self.store, of, seen, &behaviour, rules)
            .await
            .map_err(store_fault)
    }
}

/// The references of the round's first items, in the order that the seed drew: known to nobody before.
fn probes(items: &[Item], count: u32) -> Vec<Reference> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let reference = |item: &Item| Reference {
        id: item.id.to_string(),
        content: item.reference.clone(),
    };
    items.iter().take(count).map(reference).collect()
}

/// How the engine is set up for an era's jobs.
#[must_use]
pub fn engine_args(setup: &EngineSetup, era: &Era) -> EngineArgs {
    let scoring = &era.scoring;
    EngineArgs {
        max_model_len: scoring.max_prompt_tokens.saturating_add(scoring.max_tokens),
        max_num_seqs: setup.sequences,
        gpu_memory_utilization: 0.92,
        dtype: setup.dtype.clone(),
    }
}

/// A job's folder is no longer needed.
fn discard(job: &PreparedJob) {
    if let Err(error) = job.remove() {
        tracing::warn!(%error, "a job's folder stays for the janitor");
    }
}

/// What the former stage handed on.
pub(super) fn payload<T: serde::de::DeserializeOwned>(lease: &Lease) -> Result<T, Fault> {
    serde_json::from_value(lease.payload.clone()).map_err(|error| {
        let detail = format!(
            "the payload of stage {} does not parse: {error}; requeue the submission",
            lease.stage
        );
        Fault::permanent(Party::Node, "PAYLOAD", detail)
    })
}

fn samples(items: &[Item], template: Template) -> Result<Vec<Sample>, Fault> {
    let sample = |item: &Item| {
        let mut turns = Vec::with_capacity(item.messages.len() + 1);
        if let Some(system) = &item.system {
            turns.push(template::Message {
                role: template::Role::System,
                content: system,
            });
        }
        for message in &item.messages {
            let role = match message.role {
                Role::User => template::Role::User,
                Role::Assistant => template::Role::Assistant,
            };
            turns.push(template::Message {
                role,
                content: &message.content,
            });
        }
        let prompt = template::render(template, &turns)
            .map_err(|e| Fault::permanent(Party::Node, "TEMPLATE", e))?;
        Ok(Sample {
            id: item.id.to_string(),
            prompt,
        })
    };
    items.iter().map(sample).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ScoringError> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Fault::from),
        Err(error) => Err(Fault::permanent(Party::Node, "PANIC", error)),
    }
}
