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

mod encoding;
mod listing;
mod routes;

pub use routes::router;
