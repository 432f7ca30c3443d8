//! Who is asked, when, and again: one question over all providers of a judge.
//!
//! What asks is a closure, so that the same code runs over HTTP and, in tests, over a paused clock.

use super::error::{JudgeError, JudgeFailure};
use super::health::{Admit, Health};
use super::limits::Limits;
use super::spend::{Meter, Prices, Usage, day_of};
use crate::clock::now_ms;
use futures::{Stream, StreamExt};
use std::future::{Future, ready};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Failed calls of one question while its provider is fine otherwise.
const OWN_FAILURES: u32 = 8;
/// Failed calls of one question in all, trials of a resting provider included.
const TRIES_MAX: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What one provider may be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Its name, for logs and the cost meter.
    pub name: String,
    /// Most calls begun per minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Most tokens per minute, question and answer.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// What it costs.
    pub prices: Prices,
}

/// How long and how often one question is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Most calls in flight at a time over all providers, at least 1.
    pub in_flight: usize,
    /// Time for one question, pauses and outages included.
    pub total: Duration,
    /// Answers of no use (not in the asked form, declined) before a question is given up.
    pub poor_answers: u32,
}

/// One call's result; the usage is `None` where the provider did not tell it.
#[derive(Debug)]
pub struct Call<T> {
    /// The value, or why there is none.
    pub result: Result<T, JudgeError>,
    /// What was used, also by an answer of no use.
    pub usage: Option<Usage>,
    /// The provider answered, so it charges.
    pub answered: bool,
}

/// The providers of one judge, in order of preference.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    patience: Patience,
    permits: Semaphore,
    meter: Arc<Meter>,
    changed: Notify,
}

#[derive(Debug)]
struct Member {
    bounds: Bounds,
    limits: Limits,
    health: Mutex<Health>,
}

impl Member {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one call. Dropped without a result, it leaves no trace.
struct Ticket<'a> {
    pool: &'a Pool,
    at: usize,
    trial: bool,
    settled: bool,
}

impl Ticket<'_> {
    /// Whether the provider may still be asked.
    fn settle(mut self, error: Option<&JudgeError>) -> bool {
        self.settled = true;
        let mut health = self.pool.members[self.at].health();
        let Some(error) = error else {
            health.succeeded(self.trial);
            return true;
        };
        health.failed(error, self.trial, Instant::now())
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.pool.members[self.at].health().dropped(self.trial);
        }
        self.pool.changed.notify_waiters();
    }
}

/// How one question fared so far.
#[derive(Default)]
struct Tries {
    poor: u32,
    own: u32,
    all: u32,
    avoid: Option<usize>,
    last: Option<JudgeError>,
}

impl Pool {
    /// Providers in order of preference; the first that is well is asked.
    #[must_use]
    pub fn new(providers: Vec<Bounds>, patience: Patience, meter: Arc<Meter>) -> Self {
        let member = |bounds: Bounds| Member {
            limits: Limits::new(bounds.requests_per_minute, bounds.tokens_per_minute),
            health: Mutex::default(),
            bounds,
        };
        Self {
            members: providers.into_iter().map(member).collect(),
            permits: Semaphore::new(patience.in_flight),
            patience,
            meter,
            changed: Notify::new(),
        }
    }

    /// How long no new batch should be begun, and why: the day's money is spent, or every provider
    /// rests.
    #[must_use]
    pub fn closed(&self) -> Option<(Duration, JudgeError)> {
        if let Some(left) = self.meter.closed(now_ms()) {
            let cap_micro_usd = self.meter.spent(day_of(now_ms()));
            return Some((left, JudgeError::SpendCap { cap_micro_usd }));
        }
        let now = Instant::now();
        let rests = self.members.iter().map(|member| {
            let health = member.health();
            match health.look(now) {
                Admit::Out(why, until) => Some((until - now, why)),
                Admit::At(until) => Some((until - now, health.why()?)),
                Admit::Go | Admit::Trial | Admit::OnTrial => None,
            }
        });
        let rests: Option<Vec<_>> = rests.collect();
        rests?.into_iter().min_by_key(|(rest, _)| *rest)
    }

    /// Asks all questions through `call`, which gets the number of the provider, and gives each
    /// answer as it comes, with its question's place. After the first failure no new question is
    /// begun, and those in flight are finished. `weight` gives a question's expected usage.
    pub fn ask_all<'a, Q, T, F, Fut>(
        &'a self,
        questions: Vec<Q>,
        weight: impl Fn(&Q) -> Usage + 'a,
        call: F,
    ) -> impl Stream<Item = Result<(usize, T), JudgeFailure>> + 'a
    where
        Q: 'a,
        T: 'a,
        F: Fn(usize, &Q) -> Fut + Clone + 'a,
        Fut: Future<Output = Call<T>> + 'a,
    {
        let failed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&failed);
        futures::stream::iter(questions.into_iter().enumerate())
            .take_while(move |_| ready(!seen.load(Ordering::Relaxed)))
            .map(move |(at, question)| {
                let (usage, call) = (weight(&question), call.clone());
                let failed = Arc::clone(&failed);
                async move {
                    let answer = self.ask(usage, |provider| call(provider, &question)).await;
                    failed.fetch_or(answer.is_err(), Ordering::Relaxed);
                    answer.map(|value| (at, value))
                }
            })
            // Twice the calls in flight: a question that pauses keeps no other from being asked.
            .buffer_unordered(self.patience.in_flight.saturating_mul(2))
    }

    /// Asks one question until it is answered, its patience ends, or nobody can be asked.
    async fn ask<T, F, Fut>(&self, usage: Usage, call: F) -> Result<T, JudgeFailure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Call<T>>,
    {
        let deadline = Instant::now() + self.patience.total;
        let mut tries = Tries::default();
        loop {
            let result = match timeout_at(deadline, self.attempt(usage, &mut tries, &call)).await {
                Ok(attempt) => attempt?,
                Err(_) => None,
            };
            if let Some(value) = result {
                return Ok(value);
            }
            let pause = tries.pause();
            if Instant::now() + pause >= deadline {
                let last = tries.last.unwrap_or_else(|| self.why());
                return Err(JudgeFailure::held(last));
            }
            sleep(pause).await;
        }
    }

    /// Why nobody can be asked.
    fn why(&self) -> JudgeError {
        let why = self.members.iter().find_map(|member| member.health().why());
        why.unwrap_or_else(|| JudgeError::Unavailable("every call was in use".to_owned()))
    }

    /// One call. `Ok(None)` when it gave nothing and another may.
    async fn attempt<T, F, Fut>(
        &self,
        usage: Usage,
        tries: &mut Tries,
        call: &F,
    ) -> Result<Option<T>, JudgeFailure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Call<T>>,
    {
        let at = self.choose(tries.avoid).await.map_err(JudgeFailure::held)?;
        let member = &self.members[at];
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        member.limits.wait(tokens).await;
        // Held for the call alone.
        let permit = self.permits.acquire().await;
        let closed = |e: tokio::sync::AcquireError| JudgeError::Unavailable(e.to_string());
        let _permit = permit.map_err(|e| JudgeFailure::held(closed(e)))?;
        let Some(trial) = member.health().begin(Instant::now()) else {
            return Ok(None);
        };
        let ticket = Ticket {
            pool: self,
            at,
            trial,
            settled: false,
        };
        let price = member.bounds.prices.micro_usd(usage);
        let reserved = self.meter.reserve(price, day_of(now_ms()));
        let reserved = reserved.map_err(JudgeFailure::held)?;
        let done = call(at).await;
        if done.answered {
            let used = done.usage.unwrap_or(usage);
            let cost = member.bounds.prices.micro_usd(used);
            reserved.settle(&member.bounds.name, used, cost, day_of(now_ms()));
        }
        match done.result {
            Ok(value) => {
                ticket.settle(None);
                Ok(Some(value))
            }
            Err(error) => {
                let well = ticket.settle(Some(&error));
                tracing::debug!(provider = member.bounds.name, %error, well, "judge call failed");
                if !well {
                    let provider = &member.bounds.name;
                    tracing::warn!(provider, %error, "the judge's provider rests");
                }
                tries.note(&error, at, well, self.patience.poor_answers)?;
                Ok(None)
            }
        }
    }

    /// The provider to ask: the first that is well, another than `avoid` where there is one. Waits
    /// while those that are not will pass by themselves.
    async fn choose(&self, avoid: Option<usize>) -> Result<usize, JudgeError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let states: Vec<_> = self.members.iter().map(|m| m.health().look(now)).collect();
            let ready = |at: &usize| matches!(states[*at], Admit::Go | Admit::Trial);
            let mut able = (0..states.len()).filter(ready);
            let first = able.next();
            if let Some(at) = first
                .filter(|at| Some(*at) != avoid)
                .or(able.next())
                .or(first)
            {
                return Ok(at);
            }
            let out = |state: &Admit| match state {
                Admit::Out(why, _) => Some(why.clone()),
                _ => None,
            };
            let outs: Option<Vec<_>> = states.iter().map(out).collect();
            if let Some(why) = outs {
                let none = || JudgeError::Settings("no provider is configured".to_owned());
                return Err(why.into_iter().next().unwrap_or_else(none));
            }
            let wake = states.iter().filter_map(|state| match state {
                Admit::At(until) | Admit::Out(_, until) => Some(*until),
                _ => None,
            });
            match wake.min() {
                Some(until) => tokio::select! {
                    () = &mut changed => {}
                    () = sleep_until(until + turn()) => {}
                },
                None => changed.await,
            }
        }
    }
}

/// A moment's delay by chance, so that every waiting question has its turn at being the trial.
fn turn() -> Duration {
    Duration::from_millis(rand::random_range(0..200))
}

impl Tries {
    /// Notes a failed call; gives the question up when the trouble is its own.
    fn note(
        &mut self,
        error: &JudgeError,
        at: usize,
        well: bool,
        poor_max: u32,
    ) -> Result<(), JudgeFailure> {
        self.avoid = Some(at);
        self.last = Some(error.clone());
        self.all += 1;
        if error.is_poor_answer() {
            self.poor += 1;
        } else if well {
            self.own += 1;
        }
        if self.poor >= poor_max || self.own >= OWN_FAILURES || self.all >= TRIES_MAX {
            return Err(JudgeFailure::question(error.clone()));
        }
        Ok(())
    }

    /// Pause before the next call: doubled each time, jittered by half.
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.poor + self.own).min(16));
        let mean = match self.poor + self.own {
            0 => return Duration::ZERO,
            _ => doubled.min(LONGEST_PAUSE),
        };
        mean.mul_f64(rand::random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests;
