//! What judging costs: a meter with a daily limit. Amounts are millionths of a US dollar, so tokens
//! times USD per million tokens is an amount.

use super::error::JudgeError;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const DAY_MS: u64 = 86_400_000;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the question.
    pub input_tokens: u32,
    /// Of the answer.
    pub output_tokens: u32,
}

/// A provider's prices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// US dollars per million tokens of questions.
    pub usd_per_million_input: f64,
    /// US dollars per million tokens of answers.
    pub usd_per_million_output: f64,
}

impl Prices {
    /// Cost of a call in millionths of a US dollar, rounded up.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "prices are checked to be small and not negative; `as` saturates"
    )]
    pub fn micro_usd(&self, usage: Usage) -> u64 {
        let input = f64::from(usage.input_tokens) * self.usd_per_million_input;
        let output = f64::from(usage.output_tokens) * self.usd_per_million_output;
        (input + output).ceil() as u64
    }
}

/// What one provider was asked and paid on one day (UTC).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spend {
    /// Answered calls, usable or not.
    pub calls: u64,
    /// Tokens of questions.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar.
    pub micro_usd: u64,
}

/// Days since 1970-01-01 (UTC) at a Unix time in milliseconds.
#[must_use]
pub fn day_of(now_ms: u64) -> u64 {
    now_ms / DAY_MS
}

/// Counts what is spent, and refuses what would exceed the day's limit. Shared by all judges.
#[derive(Debug)]
pub struct Meter {
    cap_micro_usd: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    day: u64,
    spent: u64,
    reserved: u64,
    warned: bool,
    unsaved: BTreeMap<(u64, String), Spend>,
}

impl Meter {
    /// A meter with what today (`day`) has cost so far. Without a cap it only counts.
    #[must_use]
    pub fn new(cap_micro_usd: Option<u64>, day: u64, spent_micro_usd: u64) -> Self {
        let state = State {
            day,
            spent: spent_micro_usd,
            ..State::default()
        };
        Self {
            cap_micro_usd,
            state: Mutex::new(state),
        }
    }

    fn at(&self, day: u64) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if day > state.day {
            (state.day, state.spent, state.warned) = (day, 0, false);
        }
        state
    }

    /// Spent on `day` so far, in millionths of a US dollar.
    #[must_use]
    pub fn spent(&self, day: u64) -> u64 {
        self.at(day).spent
    }

    /// How long nothing more may be asked, when the limit is reached; calls in flight count.
    #[must_use]
    pub fn closed(&self, now_ms: u64) -> Option<Duration> {
        let state = self.at(day_of(now_ms));
        let full = self.cap_micro_usd.is_some_and(|cap| state.spent >= cap);
        full.then(|| Duration::from_millis(DAY_MS - now_ms % DAY_MS))
    }

    /// Sets the dearest possible price of a call aside.
    ///
    /// # Errors
    /// [`JudgeError::SpendCap`] when it does not fit under the limit; nothing is set aside then.
    pub(super) fn reserve(&self, micro_usd: u64, day: u64) -> Result<Reserved<'_>, JudgeError> {
        let mut state = self.at(day);
        if let Some(cap) = self.cap_micro_usd
            && state.spent + state.reserved + micro_usd > cap
        {
            // What is left is too little for one call: the day is over, or calls in flight end it.
            if state.reserved == 0 {
                state.spent = state.spent.max(cap);
            }
            return Err(JudgeError::SpendCap { cap_micro_usd: cap });
        }
        state.reserved += micro_usd;
        Ok(Reserved {
            meter: self,
            micro_usd,
        })
    }

    /// What was spent since the last time this was asked, by day and provider; to be stored.
    #[must_use]
    pub fn take_unsaved(&self) -> Vec<(u64, String, Spend)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = std::mem::take(&mut state.unsaved).into_iter();
        rows.map(|((day, provider), spend)| (day, provider, spend))
            .collect()
    }

    /// Puts back what could not be stored.
    pub fn put_back(&self, rows: Vec<(u64, String, Spend)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (day, provider, spend) in rows {
            add(state.unsaved.entry((day, provider)).or_default(), &spend);
        }
    }
}

fn add(to: &mut Spend, more: &Spend) {
    to.calls += more.calls;
    to.input_tokens += more.input_tokens;
    to.output_tokens += more.output_tokens;
    to.micro_usd += more.micro_usd;
}

/// Money set aside for one call; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    meter: &'a Meter,
    micro_usd: u64,
}

impl Reserved<'_> {
    /// The call cost this much.
    pub(super) fn settle(self, provider: &str, usage: Usage, micro_usd: u64, day: u64) {
        let mut state = self.meter.at(day);
        state.spent += micro_usd;
        let spend = Spend {
            calls: 1,
            input_tokens: usage.input_tokens.into(),
            output_tokens: usage.output_tokens.into(),
            micro_usd,
        };
        let key = (state.day, provider.to_owned());
        add(state.unsaved.entry(key).or_default(), &spend);
        let (spent, cap) = (state.spent, self.meter.cap_micro_usd.unwrap_or(u64::MAX));
        if spent >= cap / 5 * 4 && !state.warned {
            state.warned = true;
            tracing::warn!(
                spent_micro_usd = spent,
                cap_micro_usd = cap,
                "four fifths of the day's judging money are spent"
            );
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let state = &self.meter.state;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reserved = state.reserved.saturating_sub(self.micro_usd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        input_tokens: 1300,
        output_tokens: 120,
    };

    #[test]
    fn a_call_costs_tokens_times_price() {
        // 1,300 × 2.50 + 120 × 10 millionths of a dollar.
        let prices = Prices {
            usd_per_million_input: 2.5,
            usd_per_million_output: 10.0,
        };
        assert_eq!(prices.micro_usd(USAGE), 4450);
        assert_eq!(Prices::default().micro_usd(USAGE), 0);
    }

    #[test]
    fn the_limit_holds_with_calls_in_flight_and_ends_at_midnight() {
        let meter = Meter::new(Some(100), 7, 40);
        let first = meter.reserve(30, 7).unwrap();
        let second = meter.reserve(30, 7).unwrap();
        let full = JudgeError::SpendCap { cap_micro_usd: 100 };
        assert_eq!(meter.reserve(1, 7).unwrap_err(), full);
        assert_eq!(meter.closed(7 * DAY_MS), None, "calls may come out cheaper");
        drop(second);
        first.settle("a", USAGE, 20, 7);
        assert_eq!(meter.spent(7), 60);
        meter.reserve(40, 7).unwrap().settle("b", USAGE, 40, 7);
        let left = meter.closed(7 * DAY_MS + 1000).unwrap();
        assert_eq!(left, Duration::from_millis(DAY_MS - 1000));
        assert_eq!(meter.closed(8 * DAY_MS), None);
        assert!(meter.reserve(100, 8).is_ok());
        let rows = meter.take_unsaved();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].0, rows[0].1.as_str(), rows[0].2.micro_usd),
            (7, "a", 20)
        );
        assert!(meter.take_unsaved().is_empty());
        meter.put_back(rows);
        assert_eq!(meter.take_unsaved().len(), 2);
    }

    #[test]
    fn a_rest_too_small_for_a_call_closes_the_day() {
        let meter = Meter::new(Some(100), 7, 95);
        assert!(meter.reserve(10, 7).is_err());
        assert!(meter.closed(7 * DAY_MS).is_some());
        let free = Meter::new(None, 7, u64::MAX / 2);
        assert!(free.reserve(u64::MAX / 4, 7).is_ok() && free.closed(0).is_none());
    }
}
