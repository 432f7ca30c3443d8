//! Which endpoint comes next: order of preference, health, and rests that grow. No I/O.

use super::connect::Endpoint;
use crate::bittensor::BlockNumber;
use crate::retry::{Pauses, RetryPolicy};
use std::time::{Duration, Instant};

/// An endpoint this many blocks behind the highest head seen is not read from.
const LAG_BLOCKS: u64 = 10;
/// Block times on a less preferred endpoint before the preferred ones are tried again.
const RETURN_BLOCKS: u32 = 25;
/// Block times of rest after a refusal that names no time: 429, 403, close code 1008, −32004.
const LIMITED_BLOCKS: u32 = 2;

/// Why an endpoint is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It did not connect, broke off, fell silent or lags.
    Broken(String),
    /// It limits us, and perhaps says for how long.
    Limited(String, Option<Duration>),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) | Self::Limited(why, None) => f.write_str(why),
            Self::Limited(why, Some(rest)) => write!(f, "{why}, retry after {rest:?}"),
        }
    }
}

struct Seat {
    pauses: Pauses,
    rests_until: Option<Instant>,
    last_trouble: String,
}

/// The endpoints with what is known of them.
pub(super) struct Roster {
    block_time: Duration,
    seats: Vec<Seat>,
    highest: BlockNumber,
    since: Option<(usize, Instant)>,
}

impl Roster {
    pub(super) fn new(endpoints: &[Endpoint], block_time: Duration) -> Self {
        let seats = endpoints.iter().map(|endpoint| Seat {
            pauses: Pauses::new(&policy(endpoint, block_time)),
            rests_until: None,
            last_trouble: String::new(),
        });
        Self {
            block_time,
            seats: seats.collect(),
            highest: BlockNumber(0),
            since: None,
        }
    }

    /// Endpoints that may be dialled now, most preferred first.
    pub(super) fn ready(&self, now: Instant) -> Vec<usize> {
        let free = |seat: &Seat| seat.rests_until.is_none_or(|until| until <= now);
        (0..self.seats.len())
            .filter(|i| free(&self.seats[*i]))
            .collect()
    }

    /// How long until any endpoint may be dialled, and what its last trouble was.
    pub(super) fn next_ready(&self, now: Instant) -> (Duration, String) {
        let left = |seat: &Seat| {
            let until = seat.rests_until.unwrap_or(now);
            until.saturating_duration_since(now)
        };
        let first = self.seats.iter().min_by_key(|seat| left(seat));
        first.map_or((Duration::ZERO, "there is no endpoint".to_owned()), |s| {
            (left(s), s.last_trouble.clone())
        })
    }

    /// It answers and its head is good.
    pub(super) fn connected(&mut self, index: usize, now: Instant) {
        self.since = Some((index, now));
    }

    /// It delivered a head: its rests begin small again.
    pub(super) fn delivered(&mut self, index: usize, head: BlockNumber) {
        self.highest = self.highest.max(head);
        if let Some(seat) = self.seats.get_mut(index) {
            seat.pauses.restart();
        }
    }

    /// Whether a head is too far behind what was seen elsewhere.
    pub(super) fn lags(&self, head: BlockNumber) -> bool {
        head.plus(LAG_BLOCKS) < self.highest
    }

    /// Puts an endpoint to rest and says for how long.
    pub(super) fn failed(&mut self, index: usize, trouble: &Trouble, now: Instant) -> Duration {
        let limited = self.block_time * LIMITED_BLOCKS;
        let Some(seat) = self.seats.get_mut(index) else {
            return Duration::ZERO;
        };
        let pause = seat.pauses.lengthen();
        let rest = match trouble {
            Trouble::Broken(_) => pause,
            Trouble::Limited(_, asked) => pause.max(asked.unwrap_or(limited)),
        };
        seat.rests_until = Some(now + rest);
        seat.last_trouble = trouble.to_string();
        rest
    }

    /// Whether it is time to leave a less preferred endpoint for a more preferred one.
    pub(super) fn should_return(&self, now: Instant) -> bool {
        let Some((index, since)) = self.since else {
            return false;
        };
        let stay = self.block_time * RETURN_BLOCKS;
        let preferred = self.ready(now).first().is_some_and(|first| *first < index);
        preferred && now.saturating_duration_since(since) >= stay
    }
}

/// Rests after failures. An own node is tried again within a block time, so that a short outage
/// costs little; a public one is left alone for longer and longer.
fn policy(endpoint: &Endpoint, block_time: Duration) -> RetryPolicy {
    RetryPolicy {
        attempts: u32::MAX,
        total_time: Duration::MAX,
        first_pause: block_time / 24,
        longest_pause: if endpoint.public {
            block_time * 10
        } else {
            block_time / 2
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_secs(12);

    fn roster() -> Roster {
        let own = Endpoint::own("ws://127.0.0.1:1");
        let public = Endpoint {
            public: true,
            ..Endpoint::own("wss://example.org")
        };
        Roster::new(&[own, public], BLOCK)
    }

    #[test]
    fn rests_grow_and_start_small_again_after_a_head() {
        let (mut roster, now) = (roster(), Instant::now());
        let broken = Trouble::Broken("closed".into());
        assert_eq!(roster.ready(now), [0, 1]);
        let first = roster.failed(1, &broken, now);
        assert!(first <= Duration::from_secs(1), "{first:?}");
        assert_eq!(roster.ready(now), [0]);
        let rests: Vec<_> = (0..12).map(|_| roster.failed(1, &broken, now)).collect();
        assert!(
            rests[11] >= BLOCK * 5 && rests[11] <= BLOCK * 15,
            "{rests:?}"
        );
        roster.delivered(1, BlockNumber(5));
        assert!(roster.failed(1, &broken, now) <= Duration::from_secs(1));
        // An own node is never left alone for a whole block.
        let longest = (0..40).map(|_| roster.failed(0, &broken, now)).max();
        assert!(
            longest.is_some_and(|rest| rest <= BLOCK * 3 / 4),
            "{longest:?}"
        );
    }

    #[test]
    fn a_named_time_is_kept_and_a_preferred_endpoint_returned_to() {
        let (mut roster, now) = (roster(), Instant::now());
        let asked = Duration::from_secs(600);
        let limited = Trouble::Limited("429".into(), Some(asked));
        assert_eq!(roster.failed(0, &limited, now), asked);
        assert_eq!(
            roster.failed(1, &Trouble::Limited("1008".into(), None), now),
            BLOCK * 2
        );
        assert_eq!(roster.next_ready(now).0, BLOCK * 2);
        roster.connected(1, now);
        assert!(!roster.should_return(now + asked - Duration::from_secs(1)));
        assert!(roster.should_return(now + asked));
        roster.connected(0, now);
        assert!(!roster.should_return(now + asked));
    }

    #[test]
    fn a_lagging_head_is_told_by_the_highest_one() {
        let mut roster = roster();
        roster.delivered(0, BlockNumber(100));
        assert!(!roster.lags(BlockNumber(90)));
        assert!(roster.lags(BlockNumber(89)));
    }
}
