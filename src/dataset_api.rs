//! The Dataset API: hands out sealed packs as immutable objects.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /v1/status` | number of packs, the newest, uptime |
//! | `GET /v1/packs` | manifests, newest first |
//! | `GET /v1/packs/{digest}` | the pack, zstd, gzip or plain as negotiated, streamed from its file |
//!
//! Every form lies ready on disk: nothing is computed per request.

mod accept;
mod access;
pub mod admin;
mod answer;
pub mod budgets;
pub mod client;
mod encoding;
pub mod gate;
pub mod gcra;
pub mod gradient;
mod head;
pub mod identity;
pub mod lane;

pub mod prefix;
pub mod refusal;
mod routes;
pub mod rules;
mod samples;
pub mod seats;
pub mod seeing;
pub mod settings;
pub mod shared;
pub mod shelf;
pub mod timed;
pub mod upkeep;

pub use routes::{lane_router, router};

/// Locks; a panic elsewhere does not make the value unusable, for every change of it is whole.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
