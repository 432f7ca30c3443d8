//! The Dataset API: hands out sealed packs as immutable objects.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /v1/status` | number of packs, the newest, uptime |
//! | `GET /v1/packs` | manifests, newest first |
//! | `GET /v1/packs/{digest}` | the pack, zstd or plain as negotiated, streamed from its file |
//!
//! Nothing is computed per request beyond decompression for clients that cannot do it.

mod encoding;
mod listing;
mod routes;

pub use routes::router;
