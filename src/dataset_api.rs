//! The Dataset API: hands out sealed packs as immutable objects.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /openapi.json` | the interface |
//! | `GET /v1/status` | number of packs, the newest, the round, uptime |
//! | `GET /v1/packs` | manifests, newest first |
//! | `GET /v1/packs/{digest}` | the pack, zstd, gzip or plain as negotiated, streamed from its file |
//! | `GET /v1/rounds`, `/v1/rounds/current` | built rounds |
//! | `GET /v1/rounds/{number}/items` | a round's list, JSON or NDJSON |
//! | `GET /dataset` | the newest round's list as the origin's clients read it, or a sample of a past date |
//! | `GET /v1/auth/challenge`, `POST /v1/auth/token`, `POST /authenticate` | tokens |
//! | `GET /v1/me` | class, budgets and when they refill |
//!
//! Every form lies ready: nothing is computed per request but a past date's sample, once.
//!
//! The way of a request: [`lane`] accepts and looks at its first bytes, [`gate`] lets it in or
//! refuses it, [`router`]'s paths answer, [`seeing`] counts.

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
