//! The bounds that both public servers share, and `[score_api]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{Bytes, duration_text};

const HOUR: Duration = Duration::from_hours(1);

/// Bounds of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Connections served at the same time.
    pub connections: u32,
    /// Size of one request's head.
    pub header_size_max: Bytes,
    /// Deadline of receiving one request's head; also the longest idle time of a connection.
    #[serde(serialize_with = "duration_text")]
    pub header_timeout: Duration,
    /// Deadline until an answer begins.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// Longest life of one connection: bounds slow readers.
    #[serde(serialize_with = "duration_text")]
    pub connection_timeout: Duration,
    /// Time for running answers after a stop.
    #[serde(serialize_with = "duration_text")]
    pub drain_timeout: Duration,
}

/// `[score_api]`: the public score server's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScoreApi {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// The node's store, opened read-only.
    pub store: PathBuf,
    /// Bounds of the listener.
    pub limits: Limits,
}

pub(super) fn limits(mut s: Section<'_>) -> Limits {
    let limits = Limits {
        connections: s.within("connections", 256, 1..=65_536),
        header_size_max: s.within(
            "header_size_max",
            Bytes(16 * 1024),
            Bytes(8 * 1024)..=Bytes::mib(1),
        ),
        header_timeout: s.duration("header_timeout", Duration::from_secs(10), HOUR),
        request_timeout: s.duration("request_timeout", Duration::from_secs(10), HOUR),
        connection_timeout: s.duration("connection_timeout", Duration::from_mins(10), HOUR),
        drain_timeout: s.duration("drain_timeout", Duration::from_secs(10), HOUR),
    };
    s.finish();
    limits
}

pub(super) fn score_api(mut s: Section<'_>) -> Option<ScoreApi> {
    let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8402)));
    let store = s.path_value("store");
    let limits = limits(s.section("limits"));
    s.finish();
    Some(ScoreApi {
        listen,
        store: store?,
        limits,
    })
}
