//! The fetch stage: download, verify, lay out what the scorer will see. The next models are fetched
//! while the present one is scored.

use super::absence::Confirmations;
use super::artifacts::Artifacts;
use super::room::Room;
use super::rounds::store_fault;
use super::stage::Work;
use super::{Latest, intake};
use crate::admission::{self, Verified};
use crate::bittensor::BlockNumber;
use crate::clock::now_ms;
use crate::fault::{Fault, Party};
use crate::hub::{
    Download, Downloaded, HubClient, HubError, Progress, RepoFile, bytes_to_write, model_dir,
};
use crate::incentive::copies::Sketch;
use crate::incentive::eligibility::{self, Facts, ModelFiles, Repo};
use crate::incentive::{Era, Rejection, RejectionCode, Submission, Template, era_at};
use crate::shutdown::Shutdown;
use crate::store::{Advance, Lease, Outcome, Stage, Store, SubmissionId};
use assay_protocol::ModelFile;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the fetch stage hands to the score stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    /// The one entry of `architectures`.
    pub architecture: String,
    /// Every file of the mount.
    pub files: Vec<ModelFile>,
    /// Digest over the tensors.
    pub tensor_digest: String,
    /// Number of parameters.
    pub param_count: u64,
    /// Token ids that end a reply.
    pub stop_token_ids: Vec<u32>,
}

/// One fetching worker.
#[derive(Debug)]
pub struct Fetcher {
    /// The model host.
    pub hub: HubClient,
    /// All eras.
    pub eras: Vec<Era>,
    /// The chain's newest state.
    pub latest: Latest,
    /// Folders.
    pub artifacts: Artifacts,
    /// The store, for the ledger of faults.
    pub store: Store,
    /// How far fetching may run ahead.
    pub room: Room,
    /// When a model that vanished counts against its miner.
    pub confirmations: Confirmations,
}

impl Work for Fetcher {
    fn stage(&self) -> Stage {
        Stage::Fetch
    }

    fn committed_before(&self) -> Option<Option<BlockNumber>> {
        self.latest.borrow().is_some().then_some(None)
    }

    fn work<'a>(&'a self, lease: &'a Lease, stop: &'a Shutdown) -> BoxFuture<'a, Option<Outcome>> {
        async move {
            tokio::select! {
                // A download that is dropped is resumed by the next attempt.
                () = stop.signalled() => None,
                fetched = self.fetch(lease) => Some(fetched.unwrap_or_else(Outcome::Failed)),
            }
        }
        .boxed()
    }
}

impl Fetcher {
    async fn fetch(&self, lease: &Lease) -> Result<Outcome, Fault> {
        let unparsed = "the recorded commitment no longer parses";
        let submission = intake::reparse(&lease.submission)
            .ok_or_else(|| Fault::permanent(Party::Node, "COMMITMENT_UNPARSED", unparsed))?;
        let era = self.era()?;
        let (chosen, listed) = match self.choose(lease, &submission, &era).await? {
            Ok(chosen) => chosen,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        let downloaded = match self.download(lease, &chosen, &listed).await? {
            Ok(downloaded) => downloaded,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        let mount = self.artifacts.mount(lease.submission.id);
        let dir = downloaded.dir.clone();
        let seed = self.store.sketch_seed().await.map_err(store_fault)?;
        let work = move || {
            let known = Known {
                chosen: &chosen,
                seed: &seed,
                template: submission.template,
            };
            verify(&downloaded, known, &era, &mount)
        };
        let fetched = match tokio::task::spawn_blocking(work).await {
            Ok(checked) => checked?,
            Err(error) => return Err(Fault::permanent(Party::Node, "PANIC", error)),
        };
        // The mount holds links to the same bytes, so the download is no longer needed; that of a
        // rejected model never was.
        remove_download(&dir, lease.submission.id).await;
        let (fetched, shape, sketch) = match fetched {
            Ok(fetched) => fetched,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        let put = self.store.put_sketch(lease.submission.id, shape, &sketch);
        put.await.map_err(store_fault)?;
        // The score stage looks for equals, once the digest is recorded.
        Ok(Outcome::Advance(Advance {
            tensor_digest: Some(fetched.tensor_digest.clone()),
            model_bytes: Some(fetched.files.iter().map(|file| file.size).sum()),
            payload: serde_json::to_value(&fetched).unwrap_or_default(),
            ..Advance::default()
        }))
    }

    fn era(&self) -> Result<Era, Fault> {
        let at = self
            .latest
            .borrow()
            .as_ref()
            .map(|snapshot| snapshot.at.number);
        let era = at.and_then(|at| era_at(&self.eras, at)).cloned();
        era.ok_or_else(|| {
            Fault::retryable(
                Party::Chain,
                "NO_ERA",
                "no era has begun at the newest block",
            )
        })
    }

    /// The files to download, from the hub's listing at the pinned revision.
    async fn choose(
        &self,
        lease: &Lease,
        submission: &Submission,
        era: &Era,
    ) -> Result<Result<(ModelFiles, Vec<RepoFile>), Rejection>, Fault> {
        let (repo, revision) = pinned(lease)?;
        let facts = match self.hub.facts(repo, Some(revision)).await {
            Ok(facts) => facts,
            Err(error) => return self.absent(lease, submission, era, error).await.map(Err),
        };
        let files: Vec<_> = facts.files.iter().map(intake::rule_file).collect();
        let snapshot = self.latest.borrow().clone();
        let neuron = snapshot
            .as_ref()
            .and_then(|s| s.metagraph.by_hotkey(&submission.hotkey));
        let rules = Facts {
            registered_at: neuron.map(|n| n.registered_at),
            repo: Repo::Public(&files),
        };
        let chosen = match eligibility::check(submission, &rules, era) {
            Ok(chosen) => chosen,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let wanted = |file: &&RepoFile| chosen.all().any(|c| c.path == file.path);
        let listed = facts.files.iter().filter(wanted).cloned().collect();
        Ok(Ok((chosen, listed)))
    }

    /// A model that was there when it was queued and is gone: the miner's doing once the hub has said
    /// so often enough, trouble of the hub until then.
    async fn absent(
        &self,
        lease: &Lease,
        submission: &Submission,
        era: &Era,
        error: HubError,
    ) -> Result<Rejection, Fault> {
        let HubError::Unavailable { message, .. } = &error else {
            return Err(error.fault());
        };
        let history = self.store.reader().history(lease.submission.id).await;
        let ledger = history.map_err(store_fault)?.faults;
        if !self.confirmations.met(&ledger, now_ms()) {
            return Err(error.fault());
        }
        let gone = Facts {
            // Whether the hotkey is still registered is another question, asked before.
            registered_at: Some(submission.block),
            repo: Repo::Unavailable(message),
        };
        match eligibility::check(submission, &gone, era) {
            Err(rejection) => Ok(rejection),
            Ok(_) => Err(error.fault()),
        }
    }

    async fn download(
        &self,
        lease: &Lease,
        chosen: &ModelFiles,
        listed: &[RepoFile],
    ) -> Result<Result<Downloaded, Rejection>, Fault> {
        let (repo, revision) = pinned(lease)?;
        let dest = model_dir(&self.artifacts.downloads(), repo, revision).map_err(|e| e.fault())?;
        let job = Download {
            repo,
            revision,
            files: listed,
            dest: &dest,
            blobs: &self.artifacts.blobs(),
        };
        let id = lease.submission.id;
        let room = self.room.reserve(id, bytes_to_write(&job)).await?;
        let total = chosen.weight_bytes();
        tracing::info!(submission = %id, repo, bytes = total, "fetching");
        let report = |progress: Progress| room.left(progress.total.saturating_sub(progress.done));
        match self.hub.download(job, &report).await {
            Ok(downloaded) => Ok(Ok(downloaded)),
            // The digest was published at a pinned revision, and the hub delivered other bytes twice.
            Err(error @ HubError::DigestMismatch { .. }) => Ok(Err(Rejection::new(
                RejectionCode::DigestMismatch,
                format!("{error}."),
            ))),
            Err(error) => Err(error.fault()),
        }
    }
}

fn pinned(lease: &Lease) -> Result<(&str, &str), Fault> {
    let submission = &lease.submission;
    let both = submission
        .repo
        .as_deref()
        .zip(submission.revision.as_deref());
    let lost = "the submission was queued without a pinned revision; requeue it";
    both.ok_or_else(|| Fault::permanent(Party::Node, "NOT_PINNED", lost))
}

async fn remove_download(dir: &Path, submission: SubmissionId) {
    if let Err(error) = tokio::fs::remove_dir_all(dir).await {
        tracing::warn!(%submission, %error, "a finished download stays on disk");
    }
}

type Checked = Result<(Fetched, String, Sketch), Rejection>;

/// What is known of a downloaded model before it is checked.
#[derive(Clone, Copy)]
struct Known<'a> {
    chosen: &'a ModelFiles,
    /// Decides which values of a matrix the sketch looks at.
    seed: &'a [u8; 32],
    template: Template,
}

/// Checks the model's content and lays out its mount. Blocks for as long as hashing takes.
fn verify(
    downloaded: &Downloaded,
    known: Known<'_>,
    era: &Era,
    mount: &Path,
) -> Result<Checked, Fault> {
    let dir = &downloaded.dir;
    let checked = admission::verify(dir, known.chosen, era, known.template).and_then(|verified| {
        let sketch = admission::sketch(dir, known.chosen, &verified, known.seed)?;
        Ok((verified, sketch))
    });
    let (verified, (shape, sketch)) = match checked {
        Ok(checked) => checked,
        Err(error) => return error.into_rejection().map(Err),
    };
    let disk = |e: io::Error| Fault::retryable(Party::Node, "MOUNT_DISK", e);
    let files = lay_out(downloaded, &verified, mount).map_err(disk)?;
    let fetched = Fetched {
        architecture: verified.config.architecture.to_string(),
        files,
        tensor_digest: verified.tensor_digest,
        param_count: verified.param_count,
        stop_token_ids: verified.stop_ids,
    };
    Ok(Ok((fetched, shape, sketch)))
}

/// The folder that the scorer sees: links to verified files, and files written anew. Built beside
/// and renamed, so that it is there whole or not at all.
fn lay_out(
    downloaded: &Downloaded,
    verified: &Verified,
    mount: &Path,
) -> io::Result<Vec<ModelFile>> {
    let part: PathBuf = mount.with_extension("part");
    for old in [part.as_path(), mount] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir_all(&part)?;
    let mut files = Vec::new();
    for file in downloaded
        .files
        .iter()
        .filter(|f| verified.unchanged.contains(&f.path))
    {
        fs::hard_link(downloaded.dir.join(&file.path), part.join(&file.path))?;
        let (path, sha256) = (file.path.clone(), file.sha256.clone());
        files.push(ModelFile {
            path,
            size: file.size,
            sha256,
        });
    }
    files.extend(verified.write_rewritten(&part)?);
    fs::rename(&part, mount)?;
    Ok(files)
}
