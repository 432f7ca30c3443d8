//! Watches the demo until its first weights were read back, and says how it ended.

use super::files::Folder;
use super::progress::Display;
use super::scorer::ChosenScorer;
use super::world::World;
use super::{NETUID, miners};
use crate::bittensor::{MechanismId, Uid};
use crate::cmd::{Failure, print_line};
use crate::incentive::weights::WeightVector;
use crate::store::{Reader, Status, StoreError, Submission, SubmissionFilter, WeightState};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Looking at the store costs nothing; this only paces the display.
const LOOK: Duration = Duration::from_millis(250);
/// Everything that the demo may take before it counts as stuck.
const DEADLINE: Duration = Duration::from_secs(900);
/// Bound of one listing; the demo has eight.
const LISTED: u32 = 100;

/// How the demo ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Commitments on chain.
    commitments: usize,
    /// Submissions with a score.
    scored: usize,
    /// Rejected submissions by code.
    rejected: BTreeMap<String, usize>,
    /// Submissions given up for now.
    parked: usize,
    /// The row on chain: uid and value.
    weights: Vec<(Uid, u16)>,
    /// Whether that row is the logged intent.
    read_back: bool,
    /// `docker` or `process`.
    runner: &'static str,
    /// From start to read-back.
    seconds: f64,
}

impl Summary {
    /// For a person.
    pub(super) fn print(&self, page: &str) -> Result<(), Failure> {
        print_line(format_args!(
            "{} commitments: {} scored, {} rejected, {} parked; scorer: {}",
            self.commitments,
            self.scored,
            self.rejected.values().sum::<usize>(),
            self.parked,
            self.runner
        ))?;
        for (code, count) in &self.rejected {
            print_line(format_args!("  rejected {code}: {count}"))?;
        }
        let entries: Vec<_> = self
            .weights
            .iter()
            .map(|(uid, weight)| format!("uid {uid}: {weight}"))
            .collect();
        print_line(format_args!("weights on chain: {}", entries.join(", ")))?;
        let equal = if self.read_back {
            "read back, equal to the intent"
        } else {
            "NOT equal to the intent"
        };
        print_line(format_args!("{equal}, after {:.1} s", self.seconds))?;
        print_line(format_args!("score page: {page}"))
    }
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) folder: &'a Folder,
    pub(super) world: &'a World,
    pub(super) scorer: &'a ChosenScorer,
    pub(super) display: &'a Display,
    pub(super) begun: Instant,
}

impl Watch<'_> {
    /// Waits for the first decision that the node read back, then reads the chain itself.
    pub(super) async fn until_confirmed(&self) -> Result<Summary, Failure> {
        let watched = tokio::time::timeout(DEADLINE, self.watch()).await;
        let (intent, submissions) = watched.map_err(|_| {
            let logs = self.folder.path("logs");
            Failure::unavailable(format_args!(
                "no weights after {DEADLINE:?}; the logs are in {}",
                logs.display()
            ))
        })??;
        let chain = miners::client(self.world).await?;
        let head = chain.finalised_head().await.map_err(Failure::unavailable)?;
        let snapshot = chain
            .snapshot(NETUID, head)
            .await
            .map_err(Failure::unavailable)?;
        let hotkey = miners::validator()?.hotkey();
        let neuron = snapshot.metagraph.by_hotkey(&hotkey);
        let uid = neuron
            .ok_or_else(|| Failure::bug("the demo's validator holds no uid"))?
            .uid;
        let row = chain
            .weights_row(head, NETUID, MechanismId(0), uid)
            .await
            .map_err(Failure::unavailable)?;
        let vector = WeightVector::new(intent).map_err(Failure::bug)?;
        let count = |status| submissions.iter().filter(|s| s.status == status).count();
        let mut rejected = BTreeMap::new();
        for rejection in submissions.iter().filter_map(|s| s.rejection.as_ref()) {
            *rejected.entry(rejection.code.to_string()).or_default() += 1;
        }
        Ok(Summary {
            commitments: snapshot.commitments.len(),
            scored: count(Status::Scored),
            rejected,
            parked: count(Status::Parked),
            read_back: vector.matches(&row),
            weights: row,
            runner: self.scorer.name(),
            seconds: self.begun.elapsed().as_secs_f64(),
        })
    }

    async fn watch(&self) -> Result<(Vec<(Uid, u16)>, Vec<Submission>), Failure> {
        let mut shown: HashMap<String, Status> = HashMap::new();
        let mut ticks = tokio::time::interval(LOOK);
        let reader = loop {
            ticks.tick().await;
            // The node makes its store when it starts.
            match Reader::open(&self.folder.store()) {
                Ok(reader) => break reader,
                Err(error) => self
                    .display
                    .detail(&format!("waiting for the validator: {error}")),
            }
        };
        loop {
            ticks.tick().await;
            let (submissions, intent) = match look(&reader).await {
                Ok(seen) => seen,
                Err(error) => {
                    self.display
                        .detail(&format!("the store cannot be read: {error}"));
                    continue;
                }
            };
            for submission in &submissions {
                self.show(submission, &mut shown);
            }
            if let Some(intent) = intent {
                return Ok((intent, submissions));
            }
            self.display.detail("scoring, then weights");
        }
    }

    fn show(&self, submission: &Submission, shown: &mut HashMap<String, Status>) {
        let subject = submission
            .repo
            .clone()
            .unwrap_or_else(|| submission.hotkey.to_string());
        if shown.insert(subject.clone(), submission.status) == Some(submission.status) {
            return;
        }
        let done = matches!(
            submission.status,
            Status::Scored | Status::Rejected | Status::Parked
        );
        let text = match &submission.rejection {
            Some(rejection) => format!("rejected: {}", rejection.code),
            None => submission.status.to_string(),
        };
        self.display.line(&subject, &text, done);
    }
}

type Seen = (Vec<Submission>, Option<Vec<(Uid, u16)>>);

async fn look(reader: &Reader) -> Result<Seen, StoreError> {
    let submissions = reader
        .submissions(SubmissionFilter::default(), LISTED)
        .await?;
    let log = reader.weight_log(None, LISTED).await?;
    let confirmed = log
        .into_iter()
        .find(|entry| matches!(entry.state, WeightState::ReadBack { .. }));
    Ok((submissions, confirmed.map(|entry| entry.weights)))
}
