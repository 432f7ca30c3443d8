//! Models per GPU-hour: the node's own queue and stage loops on a trace of 40 models, at 200 times real
//! speed, beside the origin's flow on the same trace, one step after the other.
//!
//! Stages take the times of the throughput model for 512 prompts of 1,500 tokens and 250 tokens of
//! reply on one H100, scaled by the number of parameters from the figures for 27 B: only what a GPU, a hub and
//! a judge would do is slept; leases, heartbeats, the disk and the order of work are real.
//!
//! `cargo bench --bench pipeline`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may stop"
)]

use assay::bittensor::{BlockNumber, Hotkey};
use assay::incentive::{Rejection, RejectionCode};
use assay::service::Artifacts;
use assay::service::metrics::Usage;
use assay::service::room::Room;
use assay::service::stage::{self, Work};
use assay::shutdown::Shutdown;
use assay::store::{
    Admission, Advance, Lease, ModelFacts, NewSubmission, Outcome, RetryPolicy, Stage, Status,
    Store, SubmissionFilter, WorkerId,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Virtual seconds in a real one.
const SPEED: f64 = 200.0;
const MODELS: usize = 40;
/// As `assay run` has them, and `hub.ahead` of the sample configuration.
const FETCHERS: usize = 2;
const JUDGES: usize = 2;
const AHEAD: usize = 2;

/// Seconds of each step for one model; the figures for 27 B on an H100 with 80 GB.
#[derive(Debug, Clone, Copy)]
struct Steps {
    /// 55 GB at half a GB a second, then reading it once more for the digests.
    fetch: f64,
    /// Engine start, and reading the weights.
    load: f64,
    /// Prefill and decoding with as many sequences as fit.
    generate: f64,
    /// The same with 16 sequences.
    origin_generate: f64,
    /// 1,024 calls of 2.5 s, 32 at a time.
    judge: f64,
    /// 512 calls of 5 s, one after the other, while the GPU is held.
    origin_judge: f64,
}

impl Steps {
    fn of(billions: f64, slow_hub: bool) -> Self {
        let share = billions / 27.0;
        let fetch = 110.0 * share * if slow_hub { 5.0 } else { 1.0 } + 18.0 * share;
        Self {
            fetch,
            load: 50.0 + 100.0 * share,
            generate: (77.0 + 84.0) * share,
            origin_generate: (77.0 + 222.0) * share,
            judge: 1024.0 / 32.0 * 2.5,
            origin_judge: 512.0 * 5.0,
        }
    }

    fn origin(&self) -> f64 {
        self.fetch + self.load + self.origin_generate + self.origin_judge
    }
}

/// A stretch of virtual seconds from the start in which the judge does not answer.
type Outage = Option<(f64, f64)>;

fn trace(seed: u64, slow_share: f64) -> Vec<Steps> {
    let mut rng = StdRng::seed_from_u64(seed);
    let models = (0..MODELS).map(|_| {
        let billions = *[7.0, 14.0, 27.0, 27.0, 32.0].choose(&mut rng).unwrap();
        Steps::of(billions, rng.random_bool(slow_share))
    });
    models.collect()
}

/// What the stages share.
struct World {
    steps: Vec<Steps>,
    outage: Outage,
    begun: Instant,
    /// Begin and end of each time that the GPU worked, in virtual seconds.
    gpu: Mutex<Vec<(f64, f64)>>,
    room: Room,
}

impl World {
    fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * SPEED
    }

    async fn until(&self, at: f64) {
        let at = self.begun + Duration::from_secs_f64(at / SPEED);
        tokio::time::sleep_until(at.into()).await;
    }

    fn steps(&self, lease: &Lease) -> Steps {
        let number = usize::try_from(lease.submission.commit_block.0).unwrap();
        self.steps[number]
    }
}

/// One stage whose work is waiting.
struct Timed {
    stage: Stage,
    world: Arc<World>,
}

impl Work for Timed {
    fn stage(&self) -> Stage {
        self.stage
    }

    fn committed_before(&self) -> Option<Option<BlockNumber>> {
        Some(None)
    }

    fn work<'a>(&'a self, lease: &'a Lease, _stop: &'a Shutdown) -> BoxFuture<'a, Option<Outcome>> {
        async move {
            let (world, steps) = (&self.world, self.world.steps(lease));
            match self.stage {
                Stage::Fetch => {
                    let _room = world.room.reserve(lease.submission.id, 0).await.unwrap();
                    world.until(world.now() + steps.fetch).await;
                }
                Stage::Score => {
                    let from = world.now();
                    world.until(from + steps.load + steps.generate).await;
                    world.gpu.lock().unwrap().push((from, world.now()));
                }
                Stage::Judge => {
                    if let Some((_, to)) = world.outage.filter(|(from, _)| world.now() >= *from) {
                        world.until(to).await;
                    }
                    world.until(world.now() + steps.judge).await;
                    // The shortest way to end a run; what it says does not matter here.
                    let rejection = Rejection::new(RejectionCode::Format, "end of the trace");
                    return Some(Outcome::Rejected(rejection));
                }
            }
            Some(Outcome::Advance(Advance::default()))
        }
        .boxed()
    }
}

async fn record(store: &Store) {
    for number in 0..MODELS {
        let number = u64::try_from(number).unwrap();
        let mut hotkey = [0; 32];
        hotkey[..8].copy_from_slice(&number.to_be_bytes());
        let new = NewSubmission {
            hotkey: Hotkey(hotkey),
            commit_block: BlockNumber(number),
            registered_at: Some(BlockNumber(0)),
            raw: b"2:name/model:0123456789012345678901234567890123456789:chatml:d1".to_vec(),
            model: Some(ModelFacts {
                repo: "name/model".to_owned(),
                revision: None,
                template: "chatml".to_owned(),
                competition: "d1".to_owned(),
                weights_key: None,
            }),
            admission: Admission::Queued,
        };
        store.record(new, 0).await.unwrap();
    }
}

/// Runs the trace to its end; returns models per GPU-hour, and the share of its time that the GPU was
/// idle between its first model and its last.
async fn ours(steps: Vec<Steps>, outage: Outage) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db"), RetryPolicy::default()).unwrap();
    record(&store).await;
    let artifacts = Artifacts::open(&dir.path().join("artifacts")).unwrap();
    let world = Arc::new(World {
        steps,
        outage,
        begun: Instant::now(),
        gpu: Mutex::default(),
        room: Room::new(store.clone(), artifacts, 0, AHEAD),
    });
    let stop = Shutdown::new();
    let mut loops = tokio::task::JoinSet::new();
    for (stage, count) in [
        (Stage::Fetch, FETCHERS),
        (Stage::Score, 1),
        (Stage::Judge, JUDGES),
    ] {
        for n in 0..count {
            let worker = WorkerId(format!("{stage}-{n}"));
            let world = Arc::clone(&world);
            let work = Timed { stage, world };
            let usage = Usage::default();
            loops.spawn(stage::run(store.clone(), worker, work, usage, stop.clone()));
        }
    }
    let mut changes = store.queue_changes();
    let done = SubmissionFilter {
        status: Some(Status::Rejected),
        ..SubmissionFilter::default()
    };
    while store
        .reader()
        .submissions(done.clone(), 100)
        .await
        .unwrap()
        .len()
        < MODELS
    {
        changes.changed().await.unwrap();
    }
    stop.trigger();
    while let Some(ended) = loops.join_next().await {
        ended.unwrap().unwrap();
    }
    let gpu = world.gpu.lock().unwrap();
    let busy: f64 = gpu.iter().map(|(from, to)| to - from).sum();
    let span = gpu.last().unwrap().1 - gpu.first().unwrap().0;
    #[expect(clippy::cast_precision_loss, reason = "forty")]
    let models = MODELS as f64;
    (models / span * 3600.0, 1.0 - busy / span)
}

#[tokio::main]
async fn main() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine   {cores} cores; one virtual GPU; {SPEED} virtual seconds in one");
    println!("command   cargo bench --bench pipeline");
    let traces = [
        ("40 models", trace(1, 0.0), None),
        (
            "40 models, 20 % slow hubs, judge out for 1,800 s",
            trace(1, 0.2),
            Some((3600.0, 5400.0)),
        ),
    ];
    for (name, steps, outage) in traces {
        // One step after the other, so its time is their sum; an outage only adds to it.
        let origin: f64 = steps.iter().map(Steps::origin).sum();
        #[expect(clippy::cast_precision_loss, reason = "forty")]
        let origin = MODELS as f64 / origin * 3600.0;
        let (rate, idle) = ours(steps, outage).await;
        println!(
            "{name}: {rate:.2} models per GPU-hour, GPU idle {:.1} %; origin's flow {origin:.2}; ratio {:.2}",
            idle * 100.0,
            rate / origin
        );
    }
}
