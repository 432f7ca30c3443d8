//! The queue beside a model of it that fits on a page, under random histories.

use super::{TTL, advance, fixture, lease, record, stalled};
use assay::bittensor::Hotkey;
use assay::store::{Lease, Resume, RetryPolicy, Store, StoreError, SubmissionId};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Record { key: u64, block: u64 },
    Lease,
    Advance(usize),
    Fail(usize),
    Release(usize),
    Requeue(usize),
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u64, 0..6_u64).prop_map(|(key, block)| Step::Record { key, block }),
        6 => Just(Step::Lease),
        2 => any::<usize>().prop_map(Step::Advance),
        4 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Requeue),
        3 => (0..2000_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Ready,
    Leased,
    Parked,
    Gone,
}

#[derive(Debug)]
struct Job {
    id: SubmissionId,
    block: u64,
    hotkey: Hotkey,
    attempts: u32,
    from_ms: u64,
    place: Place,
    /// Index of the lease that holds it.
    holder: Option<usize>,
}

#[derive(Default)]
struct Model {
    jobs: Vec<Job>,
    leases: Vec<Lease>,
    now_ms: u64,
}

impl Model {
    fn expected(&mut self, max_attempts: u32) -> Option<usize> {
        for job in &mut self.jobs {
            let over = job.place == Place::Leased && job.from_ms <= self.now_ms;
            if over && job.attempts >= max_attempts {
                job.place = Place::Parked;
                job.holder = None;
            }
        }
        let free = |job: &Job| {
            matches!(job.place, Place::Ready | Place::Leased) && job.from_ms <= self.now_ms
        };
        (0..self.jobs.len())
            .filter(|i| free(&self.jobs[*i]))
            .min_by_key(|i| {
                let job = &self.jobs[*i];
                (job.attempts > 0, job.block, job.hotkey)
            })
    }

    /// The lease that `pick` means, and the job it still holds.
    fn picked(&self, pick: usize) -> Option<(usize, Option<usize>)> {
        let lease = pick.checked_rem(self.leases.len())?;
        Some((
            lease,
            self.jobs.iter().position(|job| job.holder == Some(lease)),
        ))
    }

    async fn take(&mut self, store: &Store, policy: &RetryPolicy) {
        let expected = self.expected(policy.max_attempts);
        let got = lease(store, "w", self.now_ms).await;
        let wanted = expected.map(|i| self.jobs[i].id);
        assert_eq!(got.as_ref().map(|l| l.submission.id), wanted);
        let (Some(i), Some(got)) = (expected, got) else {
            return;
        };
        let job = &mut self.jobs[i];
        job.attempts += 1;
        assert_eq!(got.attempt, job.attempts);
        job.place = Place::Leased;
        job.from_ms = self.now_ms + 1000 * TTL.as_secs();
        job.holder = Some(self.leases.len());
        self.leases.push(got);
    }

    async fn end(&mut self, store: &Store, policy: &RetryPolicy, step: &Step, pick: usize) {
        let Some((index, held)) = self.picked(pick) else {
            return;
        };
        let lease = &self.leases[index];
        let result = match step {
            Step::Fail(_) => store
                .finish_stage(lease, stalled(), self.now_ms)
                .await
                .map(|_| ()),
            Step::Release(_) => store.release(lease.clone(), self.now_ms, self.now_ms).await,
            _ => store
                .finish_stage(lease, advance(), self.now_ms)
                .await
                .map(|_| ()),
        };
        let Some(held) = held else {
            assert!(
                matches!(result, Err(StoreError::LeaseLost(_))),
                "{result:?}"
            );
            return;
        };
        result.unwrap();
        let job = &mut self.jobs[held];
        job.holder = None;
        job.from_ms = self.now_ms;
        job.place = Place::Ready;
        match step {
            Step::Release(_) => job.attempts -= 1,
            Step::Fail(_) => match policy.wait_after(job.attempts) {
                Some(wait) => job.from_ms += 1000 * wait.as_secs(),
                None => job.place = Place::Parked,
            },
            _ => job.place = Place::Gone,
        }
    }

    async fn step(&mut self, store: &Store, policy: &RetryPolicy, step: &Step) {
        match step {
            Step::Record { key, block } => {
                let id = record(store, *key, *block).await;
                if self.jobs.iter().all(|job| job.id != id) {
                    self.jobs.push(Job {
                        id,
                        block: *block,
                        hotkey: super::submission(*key, *block).hotkey,
                        attempts: 0,
                        from_ms: 0,
                        place: Place::Ready,
                        holder: None,
                    });
                }
            }
            Step::Lease => self.take(store, policy).await,
            Step::Advance(pick) | Step::Fail(pick) | Step::Release(pick) => {
                self.end(store, policy, step, *pick).await;
            }
            Step::Requeue(pick) => {
                let Some(i) = pick.checked_rem(self.jobs.len()) else {
                    return;
                };
                let job = &mut self.jobs[i];
                let done = store
                    .requeue(job.id, Resume::AtStage, self.now_ms)
                    .await
                    .unwrap();
                assert_eq!(done, job.place == Place::Parked, "{job:?}");
                if done {
                    (job.place, job.attempts, job.from_ms) = (Place::Ready, 0, self.now_ms);
                }
            }
            Step::Wait { seconds } => self.now_ms += 1000 * seconds,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_as_the_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (f, policy) = (fixture(), RetryPolicy::default());
            let mut model = Model::default();
            for step in &steps {
                model.step(&f.store, &policy, step).await;
            }
        });
    }
}
