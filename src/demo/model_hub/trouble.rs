//! Misbehaviour on demand, and a record of what was asked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Requests kept in the record.
const MAX_SEEN: usize = 4096;

/// One kind of misbehaviour of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// After this many bytes of the body nothing more comes, and the connection stays open.
    StallAfter(u64),
    /// After this many bytes of the body the connection breaks off.
    CutAfter(u64),
    /// The byte at this place of the content is another one.
    FlipByte(u64),
    /// A range is ignored: status 200 and the whole content.
    IgnoreRange,
    /// Another commit is named than the one asked for.
    OtherCommit,
    /// An error page with this status.
    Answer {
        /// HTTP status.
        status: u16,
        /// `X-Error-Code`.
        code: Option<&'static str>,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
}

/// A request as the hub saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Range` header.
    pub if_range: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

#[derive(Debug)]
pub(super) struct Troubles {
    rules: Mutex<Vec<(String, Trouble, u32)>>,
    seen: Mutex<VecDeque<Seen>>,
    count: watch::Sender<u64>,
}

impl Default for Troubles {
    fn default() -> Self {
        Self {
            rules: Mutex::default(),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Troubles {
    pub(super) fn add(&self, path: &str, trouble: Trouble, times: u32) {
        lock(&self.rules).push((path.to_owned(), trouble, times));
    }

    /// Takes the first trouble that lies in wait for this path and is of a kind that `fits`.
    pub(super) fn take(&self, path: &str, fits: impl Fn(&Trouble) -> bool) -> Option<Trouble> {
        let mut rules = lock(&self.rules);
        let (_, trouble, left) = rules.iter_mut().find(|(part, trouble, left)| {
            *left > 0 && path.contains(part.as_str()) && fits(trouble)
        })?;
        *left -= 1;
        Some(trouble.clone())
    }

    /// A trouble has taken effect.
    pub(super) fn happened(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) async fn reached(&self, count: u64) {
        let mut now = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = now.wait_for(|now| *now >= count).await;
    }

    pub(super) fn record(&self, request: Seen) {
        let mut seen = lock(&self.seen);
        if seen.len() == MAX_SEEN {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
