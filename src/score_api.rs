//! The score API: public, read-only answers out of the node's store, and one page.
//!
//! | path | answer |
//! |---|---|
//! | `GET /` | leaderboard, queue, rejections and weights for people |
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /v1/status` | submissions by status and by rejection code |
//! | `GET /v1/submissions?status=&hotkey=&before=&limit=` | submissions, newest first |
//! | `GET /v1/submissions/{id}` | one with its whole path: steps, job, scores, faults |
//! | `GET /v1/leaderboard?era=` | latest scores of an era, best first |
//! | `GET /v1/queue?offset=&limit=` | what is in work and what waits, in order |
//! | `GET /v1/weights?before=&limit=` | weights decisions with their states, newest first |
//!
//! Everything a miner wrote is hostile: characters that hide or reorder text are replaced in every
//! answer, the page escapes the rest and forbids scripts. Answers carry an entity tag and may be
//! kept for a few seconds.

mod answer;
mod page;
mod plot;
mod routes;
mod source;
mod views;

pub use routes::router;
