//! What the validator tells of itself at `[metrics] listen`: how its workers spend their time, where the
//! submissions stand, and how old its view of the chain is.

use super::Latest;
use crate::clock::now_ms;
use crate::store::{Status, Store, StoreError, WorkerId};
use crate::web::{self, ApiError};
use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a worker does with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It may not take work: no round yet, its card is not fit, its breaker is open, its control model
    /// runs.
    Held,
    /// It may, and there is none for it.
    Idle,
    /// It works.
    Busy,
}

impl Doing {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Held, "held"),
        (Self::Idle, "idle"),
        (Self::Busy, "busy"),
    ];
}

#[derive(Debug)]
struct Spent {
    doing: Doing,
    since: Instant,
    before: [Duration; 3],
}

/// How one worker has spent its time. Clones share it.
#[derive(Debug, Clone)]
pub struct Usage(Arc<Mutex<Spent>>);

impl Default for Usage {
    /// Held from now on.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Spent {
            doing: Doing::Held,
            since: Instant::now(),
            before: [Duration::ZERO; 3],
        })))
    }
}

impl Usage {
    /// From now on it does this.
    pub fn enter(&self, doing: Doing) {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, was) = (Instant::now(), spent.doing as usize);
        let passed = now.duration_since(spent.since);
        spent.before[was] += passed;
        (spent.doing, spent.since) = (doing, now);
    }

    /// Time spent on this so far, the present stretch included.
    #[must_use]
    pub fn spent(&self, doing: Doing) -> Duration {
        let spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = if spent.doing == doing {
            spent.since.elapsed()
        } else {
            Duration::ZERO
        };
        spent.before[doing as usize] + present
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    worker: String,
    doing: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// Where the numbers come from. Nothing is kept: each request reads them anew.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where the submissions stand.
    pub store: Store,
    /// The chain's newest state.
    pub latest: Latest,
    /// Every worker with its time.
    pub workers: Vec<(WorkerId, Usage)>,
}

impl Metrics {
    /// All numbers in OpenMetrics' text form.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn text(&self) -> Result<String, StoreError> {
        let mut registry = Registry::with_prefix("assay");
        self.workers(&mut registry);
        self.submissions(&mut registry).await?;
        self.chain(&mut registry);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        Ok(text)
    }

    fn workers(&self, registry: &mut Registry) {
        let seconds = Family::<WorkerLabels, Counter<f64, AtomicU64>>::default();
        for (worker, usage) in &self.workers {
            for (doing, name) in Doing::ALL {
                let labels = WorkerLabels {
                    worker: worker.0.clone(),
                    doing: name,
                };
                let spent = usage.spent(doing).as_secs_f64();
                seconds.get_or_create(&labels).inc_by(spent);
            }
        }
        let help = "Time of each worker: busy, idle (it may work and there is nothing), held";
        registry.register_with_unit("worker", help, Unit::Seconds, seconds);
    }

    async fn submissions(&self, registry: &mut Registry) -> Result<(), StoreError> {
        let counts = self.store.reader().counts().await?;
        let submissions = Family::<StatusLabels, Gauge>::default();
        for status in Status::ALL {
            let count = counts.by_status.get(status).copied().unwrap_or(0);
            let labels = StatusLabels {
                status: status.as_str(),
            };
            submissions
                .get_or_create(&labels)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        registry.register("submissions", "Submissions by status", submissions);
        Ok(())
    }

    fn chain(&self, registry: &mut Registry) {
        let Some(snapshot) = self.latest.borrow().clone() else {
            return;
        };
        let block: Gauge = Gauge::default();
        block.set(i64::try_from(snapshot.at.number.0).unwrap_or(i64::MAX));
        registry.register("chain_block", "Finalised block last read", block);
        let age: Gauge<f64, AtomicU64> = Gauge::default();
        let since = now_ms().saturating_sub(snapshot.timestamp_ms);
        age.set(Duration::from_millis(since).as_secs_f64());
        let help = "Age of the finalised block last read, by its own timestamp";
        registry.register_with_unit("chain_block_age", help, Unit::Seconds, age);
    }
}

/// `GET /metrics` and `GET /healthz`.
pub fn router(metrics: Metrics) -> Router {
    let router = Router::new().route("/metrics", get(page));
    web::with_basics(router).with_state(Arc::new(metrics))
}

async fn page(Shared(metrics): Shared<Arc<Metrics>>) -> Response {
    match metrics.text().await {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be read");
            ApiError::unavailable().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RetryPolicy;
    use tokio::sync::watch;

    #[tokio::test(start_paused = true)]
    async fn each_moment_counts_for_what_was_done_in_it() {
        let usage = Usage::default();
        for (doing, seconds) in [(Doing::Busy, 7), (Doing::Idle, 2), (Doing::Busy, 1)] {
            usage.enter(doing);
            tokio::time::advance(Duration::from_secs(seconds)).await;
        }
        let spent = |doing| usage.spent(doing).as_secs();
        assert_eq!(Doing::ALL.map(|(doing, _)| spent(doing)), [0, 2, 8]);
    }

    #[tokio::test]
    async fn the_page_names_workers_and_every_status() {
        let dir = tempfile::tempdir().unwrap();
        let (_sender, latest) = watch::channel(None);
        let metrics = Metrics {
            store: Store::open(&dir.path().join("node.db"), RetryPolicy::default()).unwrap(),
            latest,
            workers: vec![(WorkerId("score-gpu0".to_owned()), Usage::default())],
        };
        let text = metrics.text().await.unwrap();
        let busy = "assay_worker_seconds_total{worker=\"score-gpu0\",doing=\"busy\"} 0.0";
        assert!(text.contains(busy), "{text}");
        for status in Status::ALL {
            let line = format!("assay_submissions{{status=\"{status}\"}} 0");
            assert!(text.contains(&line), "{text}");
        }
        assert!(!text.contains("assay_chain_block"), "{text}");
    }
}
