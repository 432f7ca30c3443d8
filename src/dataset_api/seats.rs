//! Seats for heavy answers: how many are under way, who is turned away first, and how fast bytes go.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::client::Class;
use super::gradient::{Gradient, Range};

/// Bytes handed to the connection at a time.
const CHUNK: usize = 256 * 1024;

/// The seats of one lane.
#[derive(Debug)]
pub struct Seats {
    taken: AtomicU32,
    limit: AtomicU32,
    gradient: Mutex<Gradient>,
    most: u32,
}

impl Seats {
    /// All seats free, the limit at its largest.
    #[must_use]
    pub fn new(range: Range) -> Self {
        Self {
            taken: AtomicU32::new(0),
            limit: AtomicU32::new(range.most),
            gradient: Mutex::new(Gradient::new(range)),
            most: range.most,
        }
    }

    /// How many of `limit` seats `class` may fill: those who come last leave room for the others.
    fn share(class: Class, limit: u32) -> u32 {
        match class {
            Class::Scorer | Class::Validator => limit,
            Class::Miner => limit.saturating_mul(9) / 10,
            Class::Coldkey => limit.saturating_mul(3) / 4,
            Class::Anonymous => limit / 2,
        }
        .max(1)
    }

    /// Whether `class` would get a seat now.
    #[must_use]
    pub fn is_free(&self, class: Class) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.taken.load(Ordering::Relaxed) < Self::share(class, limit)
    }

    /// Takes a seat, given back when the value is dropped.
    pub fn take(self: &Arc<Self>, class: Class) -> Option<Seat> {
        let limit = Self::share(class, self.limit.load(Ordering::Relaxed));
        let next = |taken: u32| (taken < limit).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .ok()
            .map(|_| Seat(Arc::clone(self)))
    }

    /// Takes how late the lane's thread ran.
    pub fn sample(&self, delay: Duration) {
        if let Ok(mut gradient) = self.gradient.lock() {
            self.limit.store(gradient.sample(delay), Ordering::Relaxed);
        }
    }

    /// Seats taken, the present limit, and the largest.
    #[must_use]
    pub fn read(&self) -> (u32, u32, u32) {
        let (taken, limit) = (&self.taken, &self.limit);
        (
            taken.load(Ordering::Relaxed),
            limit.load(Ordering::Relaxed),
            self.most,
        )
    }
}

/// One seat.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bytes per second that a lane may send: the rest of the line belongs to the other lane.
#[derive(Debug)]
pub struct Bandwidth {
    ns_per_mib: u64,
    /// When the bytes let through so far will have passed, ns after `begun`.
    booked: AtomicU64,
    begun: Instant,
}

const MIB: u64 = 1024 * 1024;

impl Bandwidth {
    /// A line of so many bytes per second; 0 is no bound.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        let ns = |rate: u64| MIB.saturating_mul(1_000_000_000) / rate;
        Self {
            ns_per_mib: if bytes_per_s == 0 { 0 } else { ns(bytes_per_s) },
            booked: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// Most bytes to hand on at once: everything where nothing is bounded, so that one write takes what
    /// the socket has room for.
    fn slice(&self) -> usize {
        if self.ns_per_mib == 0 {
            usize::MAX
        } else {
            CHUNK
        }
    }

    /// Books `bytes` and says when they may go; `None` for at once. A tenth of a second of the
    /// line may be used ahead.
    pub(super) fn book(&self, bytes: usize) -> Option<Instant> {
        if self.ns_per_mib == 0 {
            return None;
        }
        let cost = u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.ns_per_mib)
            / MIB;
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let next = |booked: u64| Some(booked.max(now) + cost);
        let before = self
            .booked
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .unwrap_or(now);
        let ahead = before.saturating_sub(now);
        (ahead > 100_000_000).then(|| Instant::now() + Duration::from_nanos(ahead - 100_000_000))
    }
}

/// What an answer holds until its last byte is sent: dropped with the body.
pub trait Held: Send + 'static {}
impl<T: Send + 'static> Held for T {}

/// Ready bytes, sent in slices at the lane's pace.
pub struct Paced {
    parts: std::collections::VecDeque<Bytes>,
    left: u64,
    bandwidth: Arc<Bandwidth>,
    sleep: Option<Pin<Box<Sleep>>>,
    booked: bool,
    _held: Box<dyn Held>,
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Paced {
    /// A body of `parts`; `held` (seat, counters) is dropped with it.
    pub fn new(parts: Vec<Bytes>, bandwidth: Arc<Bandwidth>, held: impl Held) -> Self {
        let left = parts
            .iter()
            .map(|part| u64::try_from(part.len()).unwrap_or(0))
            .sum();
        Self {
            parts: parts.into(),
            left,
            bandwidth,
            sleep: None,
            booked: false,
            _held: Box::new(held),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        while self.parts.front().is_some_and(Bytes::is_empty) {
            self.parts.pop_front();
        }
        let slice = self.bandwidth.slice();
        let front = self.parts.front_mut()?;
        let chunk = front.split_to(front.len().min(slice));
        self.left -= u64::try_from(chunk.len()).unwrap_or(0);
        Some(chunk)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.booked && self.left > 0 {
            let slice = self.bandwidth.slice();
            let size = self.parts.front().map_or(0, |part| part.len().min(slice));
            self.sleep = self
                .bandwidth
                .book(size)
                .map(|at| Box::pin(tokio::time::sleep_until(at)));
            self.booked = true;
        }
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        self.booked = false;
        let chunk = self.next();
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_last_leave_room() {
        let seats = Arc::new(Seats::new(Range { least: 1, most: 10 }));
        let anonymous: Vec<_> = std::iter::from_fn(|| seats.take(Class::Anonymous)).collect();
        assert_eq!(anonymous.len(), 5);
        assert!(!seats.is_free(Class::Anonymous));
        let miners: Vec<_> = std::iter::from_fn(|| seats.take(Class::Miner)).collect();
        assert_eq!(miners.len(), 4);
        let last = seats.take(Class::Validator);
        assert!(last.is_some() && seats.take(Class::Scorer).is_none());
        drop((anonymous, miners, last));
        assert_eq!(seats.read().0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_lanes_pace_and_the_seat_comes_back() {
        let seats = Arc::new(Seats::new(Range { least: 1, most: 1 }));
        let seat = seats.take(Class::Miner).unwrap();
        let bandwidth = Arc::new(Bandwidth::new(MIB));
        let bytes = Bytes::from(vec![7; 3 * 1024 * 1024]);
        let body = Paced::new(vec![bytes.slice(..9), bytes.slice(9..)], bandwidth, seat);
        let begun = Instant::now();
        let whole = axum::body::to_bytes(axum::body::Body::new(body), 1 << 23)
            .await
            .unwrap();
        assert_eq!(whole.len(), bytes.len());
        let took = begun.elapsed();
        assert!(
            took > Duration::from_secs(2) && took < Duration::from_secs(4),
            "{took:?}"
        );
        assert!(seats.is_free(Class::Miner));
    }
}
