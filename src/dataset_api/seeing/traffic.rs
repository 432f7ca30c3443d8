//! One place that hears of every connection and request, and what is made of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::anomaly::{Turn, Watch};
use super::day::{Recent, Report, day_of};
use super::sketch::{Sketch, Talker};
use crate::bittensor::{Coldkey, Hotkey};
use crate::dataset_api::client::Client;
use crate::dataset_api::head::Weight;
use crate::dataset_api::lock;
use crate::dataset_api::prefix::Prefix;
use crate::dataset_api::refusal::Reason;

/// Counters of the sketch.
const TALKERS: usize = 256;
/// Refusals that are logged per second at most.
const REFUSALS_LOGGED: u64 = 5;

/// A key of the sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A proven hotkey.
    Hotkey(Hotkey),
    /// A proven coldkey.
    Coldkey(Coldkey),
    /// A network.
    Prefix(Prefix),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hotkey(key) => write!(f, "hotkey:{key}"),
            Self::Coldkey(key) => write!(f, "coldkey:{key}"),
            Self::Prefix(prefix) => write!(f, "prefix:{prefix}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    lane: &'static str,
    class: &'static str,
    group: &'static str,
    network: &'static str,
    path: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    lane: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: &'static str,
}

type Requests = Family<RequestLabels, Counter>;
type Seconds = Family<LaneLabels, Histogram, fn() -> Histogram>;

/// What became of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It is served.
    Served,
    /// Reset unread: its prefix is a repeated offender or holds too many.
    Dropped,
    /// Reset unread: the lane is full.
    Full,
    /// Refused from its first bytes.
    Refused,
}

impl Connection {
    fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Dropped => "dropped",
            Self::Full => "full",
            Self::Refused => "refused",
        }
    }
}

/// The present numbers of one lane, for metrics and autoscalers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneState {
    /// The lane's name.
    pub lane: &'static str,
    /// Connections open and the most.
    pub connections: (u32, u32),
    /// Seats taken, the adaptive limit, and the most.
    pub seats: (u32, u32, u32),
}

impl LaneState {
    /// 1 where the lane turns requests away: the larger of connections and seats in use.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        let of = |part: u32, whole: u32| f64::from(part) / f64::from(whole.max(1));
        let seats = of(self.seats.0, self.seats.1);
        seats.max(of(self.connections.0, self.connections.1))
    }
}

/// Everything that is counted.
pub struct Traffic {
    registry: Registry,
    requests: Requests,
    connections: Family<ConnectionLabels, Counter>,
    bytes: Family<GroupLabels, Counter>,
    seconds: Seconds,
    saturation: Family<LaneLabels, Gauge<f64, AtomicU64>>,
    seats: Family<LaneLabels, Gauge>,
    seats_limit: Family<LaneLabels, Gauge>,
    anomaly: Family<GroupLabels, Gauge>,
    talkers: Mutex<Sketch<Who>>,
    day: Mutex<(Report, Recent)>,
    groups: Mutex<BTreeMap<&'static str, (u32, Watch)>>,
    dropped: AtomicU64,
    sample_every: u64,
    sampled: AtomicU64,
    logged: AtomicU64,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}

fn histogram() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
    ])
}

impl Traffic {
    /// Counts from `report` on and logs one of `sample_every` answered requests (0: none).
    #[must_use]
    pub fn new(report: Report, sample_every: u64) -> Self {
        let mut traffic = Self {
            registry: Registry::with_prefix("assay_dataset"),
            requests: Family::default(),
            connections: Family::default(),
            bytes: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            saturation: Family::default(),
            seats: Family::default(),
            seats_limit: Family::default(),
            anomaly: Family::default(),
            talkers: Mutex::new(Sketch::new(TALKERS)),
            day: Mutex::new((report, Recent::default())),
            groups: Mutex::default(),
            dropped: AtomicU64::new(0),
            sample_every,
            sampled: AtomicU64::new(0),
            logged: AtomicU64::new(0),
        };
        traffic.register();
        traffic
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "requests",
            "Requests by what became of them",
            self.requests.clone(),
        );
        r.register(
            "connections",
            "Accepted connections by what became of them",
            self.connections.clone(),
        );
        r.register_with_unit(
            "conversation",
            "Bytes of conversations begun to be sent",
            Unit::Bytes,
            self.bytes.clone(),
        );
        r.register_with_unit(
            "answer",
            "Time until an answer begins",
            Unit::Seconds,
            self.seconds.clone(),
        );
        r.register(
            "saturation",
            "1 where the lane turns requests away; the signal for autoscalers",
            self.saturation.clone(),
        );
        r.register("seats", "Heavy answers under way", self.seats.clone());
        r.register(
            "seats_limit",
            "The adaptive limit of heavy answers",
            self.seats_limit.clone(),
        );
        r.register(
            "abnormal",
            "1 while a group's traffic is abnormal",
            self.anomaly.clone(),
        );
    }

    /// A connection was accepted.
    pub fn connection(&self, lane: &'static str, prefix: Prefix, outcome: Connection) {
        let labels = ConnectionLabels {
            lane,
            outcome: outcome.as_str(),
        };
        self.connections.get_or_create(&labels).inc();
        if outcome == Connection::Dropped {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            lock(&self.talkers).count(Who::Prefix(prefix));
        }
    }

    /// A request was refused.
    pub fn refused(&self, lane: &'static str, client: &Client, weight: Weight, reason: Reason) {
        self.note(lane, client, weight, reason.code());
        let mut day = lock(&self.day);
        let share = day.1.share(client.group, client.class.as_str());
        if reason.is_clients_fault() {
            share.refused += 1;
        } else {
            share.shed += 1;
        }
        drop(day);
        if self.logged.fetch_add(1, Ordering::Relaxed) < REFUSALS_LOGGED {
            tracing::info!(target: "assay::access", lane, who = %client.name(), class = client.class.as_str(),
                group = client.group, weight = weight.as_str(), code = reason.code(), "refused a request");
        }
    }

    /// A request was answered with `status` after `took`.
    pub fn served(
        &self,
        lane: &'static str,
        client: &Client,
        weight: Weight,
        (status, took): (u16, Duration),
    ) {
        let outcome = match status {
            200..300 => "ok",
            304 => "unchanged",
            300..500 => "client_error",
            _ => "server_error",
        };
        self.note(lane, client, weight, outcome);
        self.seconds
            .get_or_create(&LaneLabels { lane })
            .observe(took.as_secs_f64());
        let class = client.class.as_str();
        lock(&self.day).1.share(client.group, class).served += 1;
        let number = self.sampled.fetch_add(1, Ordering::Relaxed);
        if self.sample_every > 0 && number.is_multiple_of(self.sample_every) {
            tracing::info!(target: "assay::access", lane, who = %client.name(), class = client.class.as_str(),
                group = client.group, weight = weight.as_str(), status, "answered a request (sampled)");
        }
    }

    /// Conversations begin to be sent.
    pub fn sending(&self, client: &Client, bytes: u64) {
        let group = client.group;
        self.bytes
            .get_or_create(&GroupLabels { group })
            .inc_by(bytes);
        let class = client.class.as_str();
        lock(&self.day).1.share(group, class).bytes += bytes;
    }

    fn note(&self, lane: &'static str, client: &Client, weight: Weight, outcome: &'static str) {
        let labels = RequestLabels {
            lane,
            class: client.class.as_str(),
            group: client.group,
            network: client.prefix.kind(),
            path: weight.as_str(),
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
        let who = match (client.hotkey, client.coldkey) {
            (Some(hotkey), _) => Who::Hotkey(hotkey),
            (None, Some(coldkey)) => Who::Coldkey(coldkey),
            (None, None) => Who::Prefix(client.prefix),
        };
        lock(&self.talkers).count(who);
        lock(&self.groups).entry(client.group).or_default().0 += 1;
    }

    /// Ends an interval of the watch over groups: alerts where traffic became abnormal.
    pub fn interval(&self) {
        let mut groups = lock(&self.groups);
        for (group, (requests, watch)) in groups.iter_mut() {
            let turn = watch.interval(std::mem::take(requests));
            let gauge = self.anomaly.get_or_create(&GroupLabels { group });
            gauge.set(i64::from(watch.is_alarmed()));
            match turn {
                Turn::Alarmed => tracing::warn!(
                    group,
                    z = watch.z(),
                    "abnormal traffic; see `assay dataset top`, close the group off with `assay dataset block group:{group}`"
                ),
                Turn::Calmed => tracing::info!(group, "traffic is normal again"),
                Turn::Same => {}
            }
        }
    }

    /// Once a second: refusals may be logged again.
    pub fn second(&self) {
        let logged = self.logged.swap(0, Ordering::Relaxed);
        if logged > REFUSALS_LOGGED {
            let silent = logged - REFUSALS_LOGGED;
            tracing::info!(target: "assay::access", silent, "more requests were refused in this second");
        }
    }

    /// Halves the counts of the talkers, so that they tell of lately.
    pub fn fade(&self) {
        lock(&self.talkers).fade();
    }

    /// The present day so far. Leaves the turn of the day to [`Self::reports`].
    #[must_use]
    pub fn today(&self) -> Report {
        self.settled().0.clone()
    }

    fn settled(&self) -> MutexGuard<'_, (Report, Recent)> {
        let mut held = lock(&self.day);
        let (day, recent) = &mut *held;
        recent.settle(day);
        day.dropped += self.dropped.swap(0, Ordering::Relaxed);
        held
    }

    /// The report of the present day; the one of the day that ended comes first, when one did.
    pub fn reports(&self, now_ms: u64) -> Vec<Report> {
        let mut held = self.settled();
        let day = &mut held.0;
        let today = day_of(now_ms);
        if day.day == today {
            return vec![day.clone()];
        }
        let next = Report {
            day: today,
            ..Report::default()
        };
        let ended = std::mem::replace(day, next);
        vec![ended, day.clone()]
    }

    /// The `n` that asked most lately.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<Talker<Who>> {
        lock(&self.talkers).top(n)
    }

    /// Groups whose traffic is abnormal.
    #[must_use]
    pub fn abnormal(&self) -> Vec<&'static str> {
        let groups = lock(&self.groups);
        let alarmed = groups.iter().filter(|(_, (_, watch))| watch.is_alarmed());
        alarmed.map(|(group, _)| *group).collect()
    }

    /// Sets the gauges of a lane.
    pub fn lane(&self, state: &LaneState) {
        let labels = LaneLabels { lane: state.lane };
        self.saturation
            .get_or_create(&labels)
            .set(state.saturation());
        self.seats.get_or_create(&labels).set(state.seats.0.into());
        self.seats_limit
            .get_or_create(&labels)
            .set(state.seats.1.into());
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
