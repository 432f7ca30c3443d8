//! Whether a provider can be asked now: a circuit breaker with a retry budget. Time is an argument.

use super::error::JudgeError;
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row that make a provider rest.
const FAILURES_IN_A_ROW: u32 = 5;
/// First rest; each next one without a success between is twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Rest when a person has to help: asked again now and then, for they may have done so.
const OPERATOR_REST: Duration = Duration::from_secs(600);
/// The retry budget: every failure costs 1, every success earns a quarter, so that up to a fifth of
/// all calls may fail for as long as they like. Used up, the provider rests.
const BUDGET_START: f64 = 20.0;
const BUDGET_MAX: f64 = 50.0;
const EARNED: f64 = 0.25;

/// What a provider may be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admit {
    /// Anything.
    Go,
    /// One question, to see whether it is back.
    Trial,
    /// Nothing until then.
    At(Instant),
    /// Nothing until the question on trial is answered.
    OnTrial,
    /// Nothing until then, and a person has to help.
    Out(JudgeError, Instant),
}

/// A provider's state.
#[derive(Debug)]
pub(super) struct Health {
    in_a_row: u32,
    rest: Duration,
    budget: f64,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    until: Instant,
    why: JudgeError,
    trial: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            in_a_row: 0,
            rest: FIRST_REST,
            budget: BUDGET_START,
            down: None,
        }
    }
}

impl Health {
    pub(super) fn look(&self, now: Instant) -> Admit {
        match &self.down {
            None => Admit::Go,
            Some(down) if down.trial => Admit::OnTrial,
            Some(down) if now >= down.until => Admit::Trial,
            Some(down) if down.why.passes() => Admit::At(down.until),
            Some(down) => Admit::Out(down.why.clone(), down.until),
        }
    }

    /// Why it is not well.
    pub(super) fn why(&self) -> Option<JudgeError> {
        self.down.as_ref().map(|down| down.why.clone())
    }

    /// Takes the right to ask one question: `Some(true)` when it is the trial.
    pub(super) fn begin(&mut self, now: Instant) -> Option<bool> {
        match self.look(now) {
            Admit::Go => Some(false),
            Admit::Trial => {
                if let Some(down) = &mut self.down {
                    down.trial = true;
                }
                Some(true)
            }
            Admit::At(_) | Admit::OnTrial | Admit::Out(..) => None,
        }
    }

    /// The call was given up before it ended, so nothing was learnt.
    pub(super) fn dropped(&mut self, trial: bool) {
        if let Some(down) = self.down.as_mut().filter(|_| trial) {
            down.trial = false;
        }
    }

    pub(super) fn succeeded(&mut self, trial: bool) {
        if self.down.is_some() && !trial {
            // One of many that were in flight: a pause that the provider asked for still holds.
            return;
        }
        self.in_a_row = 0;
        self.rest = FIRST_REST;
        self.budget = (self.budget + EARNED).min(BUDGET_MAX);
        self.down = None;
    }

    /// Notes a failed call; true while the provider may still be asked.
    pub(super) fn failed(&mut self, error: &JudgeError, trial: bool, now: Instant) -> bool {
        if self.down.is_some() && !trial {
            // One of many that were in flight when the provider went down.
            return false;
        }
        self.budget -= 1.0;
        if error.is_poor_answer() {
            // It did answer.
            self.down = None;
        } else {
            self.in_a_row += 1;
        }
        let rest = match error {
            JudgeError::Throttled(Some(pause)) => Some(*pause),
            JudgeError::Throttled(None) => Some(self.next_rest()),
            error if !error.passes() => Some(OPERATOR_REST),
            _ if trial && !error.is_poor_answer() => Some(self.next_rest()),
            _ if self.in_a_row >= FAILURES_IN_A_ROW || self.budget < 0.0 => Some(self.next_rest()),
            _ => None,
        };
        let Some(rest) = rest else { return true };
        self.budget = self.budget.max(BUDGET_START / 2.0);
        self.in_a_row = 0;
        self.down = Some(Down {
            until: now + rest,
            why: error.clone(),
            trial: false,
        });
        false
    }

    fn next_rest(&mut self) -> Duration {
        let rest = self.rest;
        self.rest = (rest * 2).min(LONGEST_REST);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> JudgeError {
        JudgeError::Unavailable("status 500".to_owned())
    }

    #[test]
    fn a_dead_provider_rests_ever_longer_and_one_trial_brings_it_back() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..4 {
            assert!(health.failed(&broken(), false, now));
        }
        assert!(!health.failed(&broken(), false, now));
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let rest = Duration::from_secs(seconds);
            assert_eq!(health.look(now), Admit::At(now + rest));
            assert_eq!(health.begin(now), None);
            // Late failures of calls that were in flight change nothing.
            assert!(!health.failed(&broken(), false, now));
            now += rest;
            assert_eq!(health.begin(now), Some(true));
            assert_eq!(
                (health.look(now), health.begin(now)),
                (Admit::OnTrial, None)
            );
            assert!(!health.failed(&broken(), true, now));
        }
        now += Duration::from_secs(30);
        assert_eq!(health.begin(now), Some(true));
        health.dropped(true);
        health.succeeded(false);
        assert_eq!(health.begin(now), Some(true), "a dropped trial is no trial");
        health.succeeded(true);
        assert_eq!(health.look(now), Admit::Go);
        for _ in 0..5 {
            health.failed(&broken(), false, now);
        }
        assert_eq!(health.look(now), Admit::At(now + FIRST_REST));
    }

    #[test]
    fn a_fifth_of_all_calls_may_fail_and_a_quarter_may_not() {
        let rests = |every: usize| {
            let (mut health, now) = (Health::default(), Instant::now());
            (0..2000).any(|i| {
                if i % every == 0 {
                    !health.failed(&broken(), false, now)
                } else {
                    health.succeeded(false);
                    false
                }
            })
        };
        assert!(!rests(10) && !rests(5));
        assert!(rests(4));
    }

    #[test]
    fn every_cause_has_its_own_rest() {
        let now = Instant::now();
        let after = |error: JudgeError| {
            let mut health = Health::default();
            health.failed(&error, false, now);
            health.look(now)
        };
        let asked = Duration::from_secs(17);
        assert_eq!(
            after(JudgeError::Throttled(Some(asked))),
            Admit::At(now + asked)
        );
        assert_eq!(
            after(JudgeError::Throttled(None)),
            Admit::At(now + FIRST_REST)
        );
        for error in [JudgeError::Credit, JudgeError::Key(401)] {
            let out = Admit::Out(error.clone(), now + OPERATOR_REST);
            assert_eq!(after(error), out);
        }
        for error in [
            JudgeError::Declined,
            JudgeError::Answer(String::new()),
            broken(),
        ] {
            assert_eq!(after(error), Admit::Go);
        }
    }
}
