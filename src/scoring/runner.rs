//! What every runner does: start one sealed scorer, watch it, end it, say how it ended.

use super::job::PreparedJob;
use super::watchdog::Watchdog;
use crate::fault::Fault;
use crate::shutdown::Shutdown;
use assay_protocol::Stage;
use futures::future::BoxFuture;
use std::time::{Duration, Instant};

/// Usual time between asking a scorer to end and killing it.
pub const GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(250);

/// The environment of every scorer, whole: no secret, no path of the host.
pub(super) const ENVIRONMENT: [(&str, &str); 7] = [
    ("HF_HUB_OFFLINE", "1"),
    ("HOME", "/tmp"),
    ("VLLM_HOST_IP", "127.0.0.1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("VLLM_BATCH_INVARIANT", "1"),
    ("OMP_WAIT_POLICY", "passive"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

/// Runs one job from start to end.
pub trait Scorer: Send + Sync + std::fmt::Debug {
    /// Starts the scorer on `job`, waits for its end, and ends it when a deadline of the job
    /// passes, when it stalls, when it writes too much, or when `stop` is triggered. Nothing of it
    /// runs any more when this returns. What it wrote is judged elsewhere ([`super::replies`]).
    /// When the returned future is dropped instead, the node's next start or the next attempt of the
    /// same job removes what is left.
    ///
    /// Always ends: at the latest `total_s` of the job, the grace time and a few engine calls
    /// later.
    fn run<'a>(
        &'a self,
        job: &'a PreparedJob,
        stop: &'a Shutdown,
    ) -> BoxFuture<'a, Result<Finished, Fault>>;
}

/// Why the node ended a scorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// `total_s` passed.
    Total,
    /// Verifying and loading took longer than `load_s`.
    Load,
    /// Generating took longer than `generate_s`.
    Generate,
    /// The likelihood pass took longer than `likelihood_s`.
    Likelihood,
    /// No progress line for `stall_s`, in this stage; none before the first line.
    Stall(Option<Stage>),
    /// More than the output folder may hold.
    Quota,
    /// The caller asked for it.
    Stopped,
}

/// How a scorer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; 128 + n after signal n; none when the runner could not learn it.
    pub exit: Option<i64>,
    /// The memory limit ended it.
    pub oom_killed: bool,
    /// The node ended it, and why. Signals of anyone else leave this empty.
    pub killed: Option<Kill>,
    /// End of its output streams, cleaned ([`super::logs::clean`]).
    pub log_tail: String,
    /// The image it ran from, as the engine says; none for a plain process.
    pub image_id: Option<String>,
    /// From start to end.
    pub wall: Duration,
}

/// Waits for `ended` under the job's watchdog. `Err` says why the scorer has to be ended.
pub(super) async fn supervise<T>(
    job: &PreparedJob,
    stop: &Shutdown,
    ended: impl Future<Output = T>,
) -> Result<T, Kill> {
    let mut watchdog = Watchdog::new(job, Instant::now());
    let mut ticks = tokio::time::interval(POLL);
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            biased;
            value = &mut ended => return Ok(value),
            () = stop.signalled() => return Err(Kill::Stopped),
            _ = ticks.tick() => {
                if let Some(kill) = watchdog.check(Instant::now()) {
                    return Err(kill);
                }
            }
        }
    }
}
