//! Commitments in, submissions out: recorded once, then admitted with the hub's facts.

use super::absence::{self, Confirmations};
use super::{Latest, twins};
use crate::bittensor::{BlockNumber, Commitment, CommitmentField, Hotkey, SubnetSnapshot};
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::hub::{HubClient, HubError, RepoFacts};
use crate::incentive::duplicates::weights_key;
use crate::incentive::eligibility::{self, Facts, Repo, RepoFile};
use crate::incentive::{Era, Submission, era_at, submission};
use crate::shutdown::Shutdown;
use crate::store::{
    Admission, Fingerprint, ModelFacts, NewSubmission, Status, Store, StoreError,
    Submission as Stored, SubmissionFilter, SubmissionId,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Submissions read at a time.
const PAGE: u32 = 200;
/// Pause before the hub is asked again about a submission, after a fault.
const HUB_PAUSE: Duration = Duration::from_secs(60);

/// The loop that admits commitments.
#[derive(Debug)]
pub struct Intake {
    store: Store,
    hub: HubClient,
    eras: Vec<Era>,
    confirmations: Confirmations,
    latest: Latest,
    seen: HashSet<(Hotkey, BlockNumber)>,
    /// Not to be asked about before this time, unix milliseconds. Lost at a restart: then the hub
    /// is asked at once, which counts for nothing.
    not_before_ms: HashMap<SubmissionId, u64>,
}

impl Intake {
    /// An intake with nothing seen.
    #[must_use]
    pub fn new(
        store: Store,
        hub: HubClient,
        eras: Vec<Era>,
        confirmations: Confirmations,
        latest: Latest,
    ) -> Self {
        let (seen, not_before_ms) = (HashSet::new(), HashMap::new());
        Self {
            store,
            hub,
            eras,
            confirmations,
            latest,
            seen,
            not_before_ms,
        }
    }

    /// Runs until shutdown.
    ///
    /// # Errors
    /// [`StoreError`]: without its store the node must end.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), StoreError> {
        let mut latest = self.latest.clone();
        loop {
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
            }
            let snapshot = latest.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                self.record_new(&snapshot).await?;
                tokio::select! {
                    () = shutdown.signalled() => return Ok(()),
                    result = self.admit_waiting(&snapshot) => result?,
                }
            }
        }
    }

    async fn record_new(&mut self, snapshot: &SubnetSnapshot) -> Result<(), StoreError> {
        let Some(era) = era_at(&self.eras, snapshot.at.number) else {
            return Ok(());
        };
        for commitment in &snapshot.commitments {
            if self.seen.insert((commitment.hotkey, commitment.block)) {
                let new = new_submission(commitment, snapshot, era);
                self.store.record(new, now_ms()).await?;
            }
        }
        // Only what is still on chain can come again, so the set stays as small as the subnet.
        let now: HashSet<_> = snapshot
            .commitments
            .iter()
            .map(|c| (c.hotkey, c.block))
            .collect();
        self.seen.retain(|key| now.contains(key));
        Ok(())
    }

    async fn admit_waiting(&mut self, snapshot: &SubnetSnapshot) -> Result<(), StoreError> {
        let waiting = self.waiting().await?;
        let ids: HashSet<_> = waiting.iter().map(|s| s.id).collect();
        self.not_before_ms.retain(|id, _| ids.contains(id));
        for stored in waiting {
            let not_before = self.not_before_ms.get(&stored.id);
            let due = not_before.is_none_or(|at| *at <= now_ms());
            if due {
                self.admit(&stored, snapshot).await?;
            }
        }
        Ok(())
    }

    /// Everything that waits for the hub's facts, earliest commitment first.
    async fn waiting(&self) -> Result<Vec<Stored>, StoreError> {
        let mut filter = SubmissionFilter {
            status: Some(Status::Discovered),
            ..SubmissionFilter::default()
        };
        let mut waiting = Vec::new();
        loop {
            let page = self
                .store
                .reader()
                .submissions(filter.clone(), PAGE)
                .await?;
            filter.before = page.last().map(|last| last.id);
            let last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            waiting.extend(page);
            if last {
                break;
            }
        }
        waiting.sort_by_key(|s| (s.commit_block, s.hotkey));
        Ok(waiting)
    }

    async fn admit(
        &mut self,
        stored: &Stored,
        snapshot: &SubnetSnapshot,
    ) -> Result<(), StoreError> {
        let Some(era) = era_at(&self.eras, snapshot.at.number).cloned() else {
            return Ok(());
        };
        let Some(submission) = reparse(stored) else {
            let detail = "the recorded commitment no longer parses; this is a bug of the node";
            let fault = Fault::permanent(crate::fault::Party::Node, "COMMITMENT_UNPARSED", detail);
            return self.postpone(stored.id, fault, HUB_PAUSE).await;
        };
        let repo = submission.model.repo.to_string();
        let revision = submission.model.revision.as_ref().map(ToString::to_string);
        match self.hub.facts(&repo, revision.as_deref()).await {
            Ok(facts) => {
                self.decide(stored, &submission, &facts, (snapshot, &era))
                    .await
            }
            Err(HubError::Unavailable { message, .. }) => {
                self.unavailable(stored, &submission, message, (snapshot, &era))
                    .await
            }
            Err(error) => {
                let pause = match &error {
                    HubError::Transient {
                        retry_after: Some(wait),
                        ..
                    } => *wait,
                    _ => HUB_PAUSE,
                };
                self.postpone(stored.id, error.fault(), pause).await
            }
        }
    }

    async fn decide(
        &mut self,
        stored: &Stored,
        submission: &Submission,
        repo: &RepoFacts,
        (snapshot, era): (&SubnetSnapshot, &Era),
    ) -> Result<(), StoreError> {
        let files: Vec<_> = repo.files.iter().map(rule_file).collect();
        let facts = Facts {
            registered_at: registered_at(snapshot, &submission.hotkey),
            repo: Repo::Public(&files),
        };
        let (admission, key) = match eligibility::check(submission, &facts, era) {
            Err(rejection) => (Admission::Rejected(rejection), None),
            Ok(chosen) => (Admission::Queued, weights_key(&chosen)),
        };
        let model = model_facts(submission, Some(repo.revision.clone()), key.clone());
        let queued = admission == Admission::Queued;
        self.store
            .settle(stored.id, Some(model), admission, now_ms())
            .await?;
        self.not_before_ms.remove(&stored.id);
        match key.filter(|_| queued) {
            Some(key) => {
                self.settle_twins(stored, Fingerprint::WeightsKey(key))
                    .await
            }
            None => Ok(()),
        }
    }

    /// After the key was recorded, so that of two equals seen together one finds the other.
    async fn settle_twins(&self, stored: &Stored, key: Fingerprint) -> Result<(), StoreError> {
        match twins::settle(&self.store, stored, key).await? {
            Ok(()) => Ok(()),
            Err(rejection) => self.store.reject(stored.id, rejection, now_ms()).await,
        }
    }

    async fn unavailable(
        &mut self,
        stored: &Stored,
        submission: &Submission,
        reason: String,
        (snapshot, era): (&SubnetSnapshot, &Era),
    ) -> Result<(), StoreError> {
        let ledger = self.store.reader().history(stored.id).await?.faults;
        let counted = self.confirmations.counted(&ledger, now_ms());
        if counted < self.confirmations.count {
            let detail = format!(
                "{reason} (answer {counted} of {})",
                self.confirmations.count
            );
            let fault = Fault::retryable(crate::fault::Party::Hub, absence::CODE, detail);
            return self
                .postpone(stored.id, fault, self.confirmations.apart)
                .await;
        }
        let facts = Facts {
            registered_at: registered_at(snapshot, &submission.hotkey),
            repo: Repo::Unavailable(&reason),
        };
        if let Err(rejection) = eligibility::check(submission, &facts, era) {
            self.store
                .settle(stored.id, None, Admission::Rejected(rejection), now_ms())
                .await?;
        }
        Ok(())
    }

    async fn postpone(
        &mut self,
        id: SubmissionId,
        fault: Fault,
        pause: Duration,
    ) -> Result<(), StoreError> {
        tracing::warn!(submission = %id, %fault, "admission waits");
        let now = now_ms();
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.not_before_ms.insert(id, now.saturating_add(pause_ms));
        self.store.record_fault(Some(id), fault, now).await
    }
}

fn registered_at(snapshot: &SubnetSnapshot, hotkey: &Hotkey) -> Option<BlockNumber> {
    snapshot
        .metagraph
        .by_hotkey(hotkey)
        .map(|neuron| neuron.registered_at)
}

/// The commitment as it is first recorded: what the chain alone can decide is decided here.
fn new_submission(commitment: &Commitment, snapshot: &SubnetSnapshot, era: &Era) -> NewSubmission {
    let registered_at = registered_at(snapshot, &commitment.hotkey);
    let parsed = submission::parse(commitment);
    let admission = match &parsed {
        Err(rejection) => Admission::Rejected(rejection.clone()),
        Ok(parsed) => match eligibility::check_commitment(parsed, registered_at, &era.admission) {
            Err(rejection) => Admission::Rejected(rejection),
            Ok(()) => Admission::Pending,
        },
    };
    NewSubmission {
        hotkey: commitment.hotkey,
        commit_block: commitment.block,
        registered_at,
        raw: raw_bytes(commitment),
        model: parsed.ok().map(|parsed| {
            let revision = parsed.model.revision.as_ref().map(ToString::to_string);
            model_facts(&parsed, revision, None)
        }),
        admission,
    }
}

fn raw_bytes(commitment: &Commitment) -> Vec<u8> {
    let raw = commitment.fields.iter().filter_map(|field| match field {
        CommitmentField::Raw(bytes) => Some(bytes.as_slice()),
        CommitmentField::Other(_) => None,
    });
    raw.collect::<Vec<_>>().concat()
}

fn model_facts(
    submission: &Submission,
    revision: Option<String>,
    key: Option<String>,
) -> ModelFacts {
    ModelFacts {
        repo: submission.model.repo.to_string(),
        revision,
        template: submission.template.to_string(),
        competition: submission.competition.to_string(),
        weights_key: key,
    }
}

/// The submission of a recorded commitment, from its own text.
pub(super) fn reparse(stored: &Stored) -> Option<Submission> {
    let fields = vec![CommitmentField::Raw(stored.raw.clone().into_bytes())];
    let commitment = Commitment {
        hotkey: stored.hotkey,
        block: stored.commit_block,
        fields,
    };
    submission::parse(&commitment).ok()
}

/// A listed file as the rules see it.
#[must_use]
pub fn rule_file(file: &crate::hub::RepoFile) -> RepoFile {
    RepoFile {
        path: file.path.clone(),
        size: file.size,
        sha256: file.sha256().map(str::to_owned),
    }
}
