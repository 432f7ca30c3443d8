//! One worker of one stage: lease, work under a heartbeat, record.

use super::metrics::{Doing, Usage};
use crate::bittensor::BlockNumber;
use crate::clock::now_ms;
use crate::shutdown::Shutdown;
use crate::store::{Ask, Lease, Outcome, Stage, Store, StoreError, WorkerId};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;

/// A lease without a heartbeat lasts this long.
const TTL: Duration = Duration::from_secs(60);
/// Three beats for each lease time.
const BEAT: Duration = Duration::from_secs(20);
/// Longest pause of an idle worker: work that only time makes ready is not announced.
const IDLE: Duration = Duration::from_secs(2);

/// What a stage does with a lease.
pub trait Work: Send + Sync {
    /// The stage.
    fn stage(&self) -> Stage;

    /// Only what was committed before this block may be worked on now; `Err` means that nothing may
    /// (before the first snapshot, say).
    fn committed_before(&self) -> Option<Option<BlockNumber>>;

    /// Only models with so many bytes of weights at most; `None` takes every one.
    fn model_bytes_max(&self) -> Option<u64> {
        None
    }

    /// Whether work may be taken now. May take as long as a job does; says no soon after `stop` is
    /// triggered.
    fn ready<'a>(&'a self, _stop: &'a Shutdown) -> BoxFuture<'a, bool> {
        std::future::ready(true).boxed()
    }

    /// Does the work; `None` hands the lease back unfinished, without counting the attempt. Returns
    /// soon after `stop` is triggered.
    fn work<'a>(&'a self, lease: &'a Lease, stop: &'a Shutdown) -> BoxFuture<'a, Option<Outcome>>;
}

/// Runs one worker until shutdown. The work in hand is handed back at shutdown. `usage` learns how its
/// time passes.
///
/// # Errors
/// [`StoreError`] other than a lost lease: without its store the node must end.
pub async fn run(
    store: Store,
    worker: WorkerId,
    work: impl Work,
    usage: Usage,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    store.abandon_leases(&worker, now_ms()).await?;
    let mut changes = store.queue_changes();
    while !shutdown.is_triggered() {
        usage.enter(Doing::Held);
        let committed_before = work.committed_before();
        let ready = committed_before.is_some() && work.ready(&shutdown).await;
        let lease = match committed_before {
            Some(committed_before) if ready => {
                let ask = Ask {
                    stage: work.stage(),
                    worker: worker.clone(),
                    committed_before,
                    model_bytes_max: work.model_bytes_max(),
                    now_ms: now_ms(),
                    ttl: TTL,
                };
                store.lease(ask).await?
            }
            _ => None,
        };
        if let Some(lease) = lease {
            usage.enter(Doing::Busy);
            match attend(&store, &work, &lease, &shutdown).await {
                Err(StoreError::LeaseLost(_)) => {
                    tracing::warn!(submission = %lease.submission.id, "lease lost, work dropped");
                }
                other => other?,
            }
            continue;
        }
        if ready {
            usage.enter(Doing::Idle);
        }
        tokio::select! {
            () = shutdown.signalled() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
    Ok(())
}

/// Works on one lease and records how it ended.
async fn attend(
    store: &Store,
    work: &impl Work,
    lease: &Lease,
    shutdown: &Shutdown,
) -> Result<(), StoreError> {
    let begun = now_ms();
    // The work is told to stop and waited for, never dropped: a scorer would run on unwatched.
    let stop = Shutdown::new();
    let mut working = std::pin::pin!(work.work(lease, &stop));
    let outcome = tokio::select! {
        outcome = &mut working => outcome,
        lost = beat(store, lease) => {
            stop.trigger();
            working.await;
            return Err(lost);
        }
        () = shutdown.signalled() => {
            stop.trigger();
            working.await
        }
    };
    let (id, stage, now) = (lease.submission.id, lease.stage, now_ms());
    let Some(outcome) = outcome else {
        return store.release(lease.clone(), now, now).await;
    };
    match &outcome {
        Outcome::Failed(fault) => {
            tracing::warn!(submission = %id, %stage, attempt = lease.attempt, %fault, "stage failed");
        }
        Outcome::Rejected(rejection) => {
            tracing::info!(submission = %id, %stage, code = %rejection.code, "rejected");
        }
        Outcome::Advance(_) | Outcome::Scored(_) => {
            tracing::info!(submission = %id, %stage, ms = now.saturating_sub(begun), "stage done");
        }
    }
    store.finish_stage(lease, outcome, now).await.map(|_| ())
}

/// Beats until the lease is lost or the store fails.
async fn beat(store: &Store, lease: &Lease) -> StoreError {
    loop {
        tokio::time::sleep(BEAT).await;
        if let Err(error) = store.heartbeat(lease, now_ms(), TTL).await {
            return error;
        }
    }
}
