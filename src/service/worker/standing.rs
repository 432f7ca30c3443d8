//! Whether a worker may score: its GPUs are well, its scorer gives the known replies on the control
//! model, and it did not fail too often in a row.

use super::Worker;
use crate::clock::now_ms;
use crate::fault::{Fault, Party};
use crate::incentive::{Era, EraId, Rejection, RejectionCode};
use crate::scoring::breaker::Breaker;
use crate::scoring::control::Control;
use crate::scoring::gpu::{self, Look, Trouble};
use crate::scoring::job::{self, ScoreJob};
use crate::scoring::outcome::{Attempt, Outcome, ReplySet, classify};
use crate::scoring::{Scorer, replies};
use crate::shutdown::Shutdown;
use crate::store::{self, Lease, LoggedFault};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Code of a suspicion in the ledger, once the control model has passed on the same worker.
const SUSPECTED: &str = "SUSPECTED";

/// Under what the control model was last reproduced; anything else has to be proven anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proven {
    /// The era pins image and engine.
    era: EraId,
    driver: Option<String>,
}

/// What a worker remembers of itself; a restart begins anew.
#[derive(Debug, Default)]
pub struct Standing {
    breaker: Breaker,
    proven: Option<Proven>,
}

impl Worker {
    /// Whether this worker may take work: looks at its GPUs, and has the control model run where
    /// something changed since it last passed. Why not stands in the ledger of faults.
    pub(super) async fn may_work(&self, stop: &Shutdown) -> bool {
        let rests = !self.standing(|s| s.breaker.closed(Instant::now()));
        let Some((era, _, _)) = self.rounds.present().filter(|_| !rests) else {
            return false;
        };
        let era = era.clone();
        match self.prove(&era, stop).await {
            Ok(()) => !stop.is_triggered(),
            Err(fault) => {
                if !stop.is_triggered() {
                    self.failed(&fault).await;
                }
                false
            }
        }
    }

    async fn prove(&self, era: &Era, stop: &Shutdown) -> Result<(), Fault> {
        let now = Proven {
            era: era.id(),
            driver: gpu::driver(),
        };
        for look in self.look().await? {
            gpu::before(&look).map_err(|trouble| trouble.fault(&look.uuid))?;
        }
        if self.standing(|s| s.proven.as_ref() == Some(&now)) {
            return Ok(());
        }
        if let Some(control) = &self.control {
            self.run_control(control, era, stop).await?;
            tracing::info!(
                worker = self.name,
                "the control model gave the known replies"
            );
        }
        self.standing(|s| s.proven = Some(now));
        Ok(())
    }

    async fn run_control(
        &self,
        control: &Control,
        era: &Era,
        stop: &Shutdown,
    ) -> Result<(), Fault> {
        let job = control.job(
            &self.name,
            super::engine_args(&self.engine, era),
            self.limits.clone(),
        );
        let replies = replies_of(self.scorer(era)?, job, self.artifacts.jobs(), stop).await?;
        control.check(&replies)
    }

    /// The GPUs' state now.
    pub(super) async fn look(&self) -> Result<Vec<Look>, Fault> {
        let gate = Arc::clone(&self.gate);
        let looked = tokio::task::spawn_blocking(move || gate.look()).await;
        looked.map_err(|e| Fault::permanent(Party::Node, "PANIC", e))?
    }

    /// Whether the GPUs were well while a job ran. What somebody left running there does not spoil
    /// the job that is done; the next one waits until it is gone.
    pub(super) async fn stayed_well(&self, begun: &[Look]) -> Result<(), Fault> {
        for (then, now) in begun.iter().zip(self.look().await?) {
            match gpu::after(then, &now) {
                Ok(()) => {}
                Err(trouble @ (Trouble::Taken { .. } | Trouble::Processes(_))) => {
                    tracing::warn!(worker = self.name, gpu = now.uuid, %trouble, "not free after a job");
                }
                Err(trouble) => return Err(trouble.fault(&now.uuid)),
            }
        }
        Ok(())
    }

    /// A suspicion counts against the miner once the control model passes on this worker and the same
    /// happened on another (or here again, if there is no other).
    pub(super) async fn suspect(
        &self,
        lease: &Lease,
        (code, detail): (&'static str, String),
        era: &Era,
        stop: &Shutdown,
    ) -> Result<store::Outcome, Fault> {
        if self.control.is_none() {
            let text = format!("{detail}; without a control model this is nobody's fault");
            return Err(Fault::retryable(Party::Engine, code, text));
        }
        self.standing(|s| s.proven = None);
        self.prove(era, stop).await?;
        let ledger = self.ledger(lease).await?;
        let elsewhere = |fault: &LoggedFault| {
            let by = fault.fault.message.split(':').next();
            fault.fault.code == SUSPECTED && (!self.has_peers || by != Some(&self.name))
        };
        if ledger.iter().any(elsewhere) {
            let text = format!("{code}: {detail}; twice, while the control model ran well.");
            let rejection = Rejection::new(RejectionCode::DoesNotRun, text);
            return Ok(store::Outcome::Rejected(rejection));
        }
        let text = format!(
            "{}: {code}: {detail}; the control model passes here",
            self.name
        );
        Err(Fault::retryable(Party::Engine, SUSPECTED, text))
    }

    /// Our faults on a submission's way so far, newest first.
    pub(super) async fn ledger(&self, lease: &Lease) -> Result<Vec<LoggedFault>, Fault> {
        let history = self.store.reader().history(lease.submission.id).await;
        Ok(history.map_err(super::store_fault)?.faults)
    }

    /// Takes note of how a job ended on this worker.
    pub(super) async fn note(&self, ended: &Result<Option<store::Outcome>, Fault>) {
        match ended {
            // A suspicion says nothing against the worker: its control model has just passed.
            Err(fault) if fault.code != SUSPECTED && on_worker(fault) => {
                self.standing(|s| s.proven = None);
                self.count(fault);
            }
            Err(_) | Ok(None) => {}
            Ok(Some(_)) => self.standing(|s| s.breaker.succeeded()),
        }
    }

    /// A failure that belongs to no submission: counted, and put into the ledger.
    async fn failed(&self, fault: &Fault) {
        tracing::warn!(worker = self.name, %fault, "this worker scores nothing");
        self.count(fault);
        let text = format!("{}: {}", self.name, fault.message);
        let fault = Fault {
            message: text,
            ..fault.clone()
        };
        if let Err(error) = self.store.record_fault(None, fault, now_ms()).await {
            tracing::warn!(%error, "a fault could not be recorded");
        }
    }

    fn count(&self, fault: &Fault) {
        if let Some(rest) = self.standing(|s| s.breaker.failed(Instant::now())) {
            tracing::error!(worker = self.name, %fault, rest_s = rest.as_secs(), "out of service for a while");
        }
    }

    fn standing<T>(&self, look: impl FnOnce(&mut Standing) -> T) -> T {
        look(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a scorer makes of a model that is known to be good, such as the control model; laid out in
/// `jobs`.
///
/// # Errors
/// A fault whenever there are no replies: the model is not to blame.
pub async fn replies_of(
    scorer: &dyn Scorer,
    job: ScoreJob,
    jobs: PathBuf,
    stop: &Shutdown,
) -> Result<Box<ReplySet>, Fault> {
    let job = super::blocking(move || job::prepare(&job, &jobs)).await?;
    let finished = scorer.run(&job, stop).await?;
    let of_report = job.clone();
    let report = super::blocking(move || Ok(replies::read(&of_report))).await?;
    let attempt = Attempt {
        memory_raised: false,
    };
    let failed = |what: String| {
        let text = format!("the control model did not run: {what}; see the scorer's log");
        Err(Fault::retryable(Party::Engine, "CONTROL_FAILED", text))
    };
    match classify(report, &finished, &job.job, attempt) {
        Outcome::Replies(set) => {
            super::discard(&job);
            Ok(set)
        }
        Outcome::Rejected(rejection) => failed(rejection.detail),
        Outcome::Suspect { code, detail } => failed(format!("{code}: {detail}")),
        Outcome::Fault(fault) => failed(fault.to_string()),
    }
}

/// Faults that tell of the worker rather than of chain, hub, dataset or judge.
fn on_worker(fault: &Fault) -> bool {
    matches!(fault.party, Party::Gpu | Party::Engine)
}
