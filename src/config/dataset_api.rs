//! `[dataset_api]`: the Dataset API's process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::servers::{Limits, limits};
use super::value::{Bytes, Network, duration_text};
use crate::bittensor::{BlockHash, Hotkey};

const HOUR: Duration = Duration::from_hours(1);

/// Bounds of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneBounds {
    /// Leading bits of an IPv4 address that make one network.
    pub prefix_v4_bits: u8,
    /// Leading bits of an IPv6 address that make one network.
    pub prefix_v6_bits: u8,
    /// Open connections of one network.
    pub prefix_connections: u32,
    /// Heavy answers under way to one network.
    pub prefix_responses: u32,
    /// Requests per second of one network; twice as many at once.
    pub prefix_requests_per_s: u32,
    /// Refusals per second that one network gets an answer to; four times as many at once.
    pub prefix_refusals_per_s: u32,
    /// How long a network that provoked more is reset unread.
    #[serde(serialize_with = "duration_text")]
    pub penalty: Duration,
    /// Heavy answers under way, at most and at least: the limit in force lies between.
    pub seats: u32,
    /// The least.
    pub seats_min: u32,
    /// Bytes per second that a reader must take on average.
    pub reader_rate_min: Bytes,
    /// Time for any answer before that counts.
    #[serde(serialize_with = "duration_text")]
    pub reader_grace: Duration,
    /// Bytes per second of heavy answers; 0B is no bound.
    pub bandwidth: Bytes,
    /// Kernel's send buffer of one connection.
    pub send_buffer: Bytes,
    /// Signatures verified per second; each costs about 50 µs.
    pub signatures_per_s: u32,
    /// Niceness of the lane's thread.
    pub nice: u8,
}

impl LaneBounds {
    fn public() -> Self {
        Self {
            prefix_v4_bits: 32,
            prefix_v6_bits: 64,
            prefix_connections: 32,
            prefix_responses: 4,
            prefix_requests_per_s: 20,
            prefix_refusals_per_s: 5,
            penalty: Duration::from_secs(2),
            seats: 32,
            seats_min: 4,
            reader_rate_min: Bytes(64 * 1024),
            reader_grace: Duration::from_secs(5),
            bandwidth: Bytes::mib(64),
            send_buffer: Bytes(256 * 1024),
            signatures_per_s: 1000,
            nice: 10,
        }
    }

    fn protected() -> Self {
        Self {
            prefix_connections: 128,
            prefix_responses: 64,
            prefix_requests_per_s: 200,
            prefix_refusals_per_s: 20,
            seats: 128,
            seats_min: 64,
            bandwidth: Bytes(0),
            nice: 0,
            ..Self::public()
        }
    }
}

/// `[dataset_api.protected]`: the way in for scorers and validators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protected {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Networks of the operator's own scoring workers: no token needed. Never name a proxy's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<Network>,
    /// Bounds.
    #[serde(flatten)]
    pub bounds: LaneBounds,
}

/// How much one client may take: `burst` at once, then `per_hour`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Heavy requests at once.
    pub burst: u32,
    /// Heavy requests per hour in the long run.
    pub per_hour: u32,
}

/// `[dataset_api.budgets]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budgets {
    /// A scoring worker.
    pub scorer: Budget,
    /// A validator.
    pub validator: Budget,
    /// Another registered hotkey.
    pub miner: Budget,
    /// An account known by its coldkey.
    pub coldkey: Budget,
    /// One network without token.
    pub anonymous: Budget,
    /// All hotkeys of one coldkey together, in the public lane.
    pub per_coldkey: Budget,
    /// All known clients of one network together, in the public lane.
    pub network: Budget,
}

/// `[[dataset_api.group]]`: clients that are counted, limited and closed off together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The subnet whose registered keys belong to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netuid: Option<u16>,
    /// What all its members together may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// `[dataset_api.chain]`: where the metagraphs of the groups are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetChain {
    /// WebSocket endpoints in order of preference.
    pub endpoints: Vec<String>,
    /// Genesis hash that they must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis: Option<BlockHash>,
    /// Time between two readings.
    #[serde(serialize_with = "duration_text")]
    pub refresh: Duration,
    /// Deadline of one reading.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
}

/// `[dataset_api]`: the Dataset API's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetApi {
    /// Address of the public lane.
    pub listen: SocketAddr,
    /// Folder of sealed packs and built rounds.
    pub packs: PathBuf,
    /// Folder of tokens, budgets, access rules, audit and reports; without it they live in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// Loopback address of metrics and operator's commands; needs `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// This server's own address, which signed requests must name as receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotkey: Option<Hotkey>,
    /// Hotkeys of the operator's scoring workers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scorers: Vec<Hotkey>,
    /// Least stake of a validator, whole alpha.
    pub validator_stake_min: u64,
    /// Life of a token.
    #[serde(serialize_with = "duration_text")]
    pub token_life: Duration,
    /// One of so many answered requests is logged; 0 for none.
    pub log_every: u64,
    /// Bounds of the connections of each lane.
    pub limits: Limits,
    /// Bounds of the public lane.
    pub public: LaneBounds,
    /// The protected lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected: Option<Protected>,
    /// Budgets.
    pub budgets: Budgets,
    /// Client groups.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Where the metagraphs are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<DatasetChain>,
}

fn bounds(s: &mut Section<'_>, d: &LaneBounds) -> LaneBounds {
    let count = 1..=1_000_000;
    let bytes = Bytes(1)..=Bytes::gib(64);
    let found = LaneBounds {
        prefix_v4_bits: s.within("prefix_v4_bits", d.prefix_v4_bits, 8..=32),
        prefix_v6_bits: s.within("prefix_v6_bits", d.prefix_v6_bits, 16..=128),
        prefix_connections: s.within("prefix_connections", d.prefix_connections, count.clone()),
        prefix_responses: s.within("prefix_responses", d.prefix_responses, count.clone()),
        prefix_requests_per_s: s.within(
            "prefix_requests_per_s",
            d.prefix_requests_per_s,
            count.clone(),
        ),
        prefix_refusals_per_s: s.within("prefix_refusals_per_s", d.prefix_refusals_per_s, count),
        penalty: s.duration("penalty", d.penalty, HOUR),
        seats: s.within("seats", d.seats, 1..=4096),
        seats_min: s.within("seats_min", d.seats_min, 1..=4096),
        reader_rate_min: s.within("reader_rate_min", d.reader_rate_min, bytes.clone()),
        reader_grace: s.duration("reader_grace", d.reader_grace, HOUR),
        bandwidth: s.within("bandwidth", d.bandwidth, Bytes(0)..=Bytes::gib(64)),
        send_buffer: s.within(
            "send_buffer",
            d.send_buffer,
            Bytes(16 * 1024)..=Bytes::mib(16),
        ),
        signatures_per_s: s.within("signatures_per_s", d.signatures_per_s, 1..=100_000),
        nice: s.within("nice", d.nice, 0..=19),
    };
    if found.seats_min > found.seats {
        s.problem("seats_min", "must not be larger than seats");
    }
    found
}

fn budget(root: &mut Section<'_>, key: &'static str, (burst, per_hour): (u32, u32)) -> Budget {
    let mut s = root.section(key);
    let budget = Budget {
        burst: s.within("burst", burst, 1..=1_000_000),
        per_hour: s.within("per_hour", per_hour, 1..=1_000_000),
    };
    s.finish();
    budget
}

fn budgets(mut s: Section<'_>) -> Budgets {
    let budgets = Budgets {
        scorer: budget(&mut s, "scorer", (1000, 1000)),
        validator: budget(&mut s, "validator", (100, 50)),
        miner: budget(&mut s, "miner", (3, 3)),
        coldkey: budget(&mut s, "coldkey", (3, 3)),
        anonymous: budget(&mut s, "anonymous", (1, 1)),
        per_coldkey: budget(&mut s, "per_coldkey", (12, 12)),
        network: budget(&mut s, "network", (30, 30)),
    };
    s.finish();
    budgets
}

fn groups(root: &mut Section<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for mut s in root.sections("group") {
        let name: Option<String> = s.required("name");
        let netuid = s.optional("netuid");
        let budget = s.has("budget").then(|| budget(&mut s, "budget", (1, 1)));
        let sound = |n: &str| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if let Some(name) = name {
            if !sound(&name) || name == "none" || groups.iter().any(|g| g.name == name) {
                s.problem(
                    "name",
                    "must be unique, of a-z, 0-9 and -, and not \"none\"",
                );
            }
            groups.push(Group {
                name,
                netuid,
                budget,
            });
        }
        s.finish();
    }
    if groups.len() > 64 {
        root.problem("group", "at most 64 groups");
    }
    groups
}

fn protected(mut s: Section<'_>) -> Option<Protected> {
    let listen = s.required("listen");
    let trusted = s.optional("trusted").unwrap_or_default();
    let bounds = bounds(&mut s, &LaneBounds::protected());
    s.finish();
    Some(Protected {
        listen: listen?,
        trusted,
        bounds,
    })
}

fn chain(mut s: Section<'_>) -> Option<DatasetChain> {
    let endpoints: Option<Vec<String>> = s.required("endpoints");
    let chain = DatasetChain {
        endpoints: endpoints.unwrap_or_default(),
        genesis: s.optional("genesis"),
        refresh: s.duration("refresh", Duration::from_mins(5), Duration::from_hours(24)),
        request_timeout: s.duration("request_timeout", Duration::from_secs(30), HOUR),
    };
    s.finish();
    (!chain.endpoints.is_empty()).then_some(chain)
}

pub(super) fn dataset_api(mut s: Section<'_>) -> Option<DatasetApi> {
    let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8401)));
    let packs = s.path_value("packs");
    let (state, admin) = (s.optional_path("state"), s.optional::<SocketAddr>("admin"));
    if admin.is_some_and(|address| !address.ip().is_loopback()) {
        s.problem(
            "admin",
            "must be a loopback address; reach it from elsewhere through ssh",
        );
    }
    if admin.is_some() && state.is_none() {
        s.problem("admin", "needs state: the operator's token is kept there");
    }
    let (hotkey, scorers) = (
        s.optional("hotkey"),
        s.optional("scorers").unwrap_or_default(),
    );
    let validator_stake_min = s.within("validator_stake_min", 0u64, 0..=1_000_000_000);
    let token_life = s.duration(
        "token_life",
        Duration::from_hours(24),
        Duration::from_hours(24 * 90),
    );
    let log_every = s.or("log_every", 100u64);
    let limits = limits(s.section("limits"));
    let mut lane = s.section("public");
    let public = bounds(&mut lane, &LaneBounds::public());
    lane.finish();
    let protected = s
        .has("protected")
        .then(|| protected(s.section("protected")));
    let budgets = budgets(s.section("budgets"));
    let groups = groups(&mut s);
    let chain = s.has("chain").then(|| chain(s.section("chain")));
    s.finish();
    Some(DatasetApi {
        listen,
        packs: packs?,
        state,
        admin,
        hotkey,
        scorers,
        validator_stake_min,
        token_life,
        log_every,
        limits,
        public,
        protected: protected.flatten(),
        budgets,
        groups,
        chain: chain.flatten(),
    })
}
