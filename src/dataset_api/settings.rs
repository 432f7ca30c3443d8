//! Settings of the Dataset API as its parts need them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::client::{Class, NO_GROUP};
use super::gcra::Quota;
use super::gradient::Range;
use super::identity::registry::Standing;
use super::prefix::{Prefix, PrefixLimits};
use super::timed::Progress;
use crate::bittensor::{Hotkey, Netuid};
use crate::web::Limits;

/// Which of the two ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKind {
    /// Scorers and validators alone.
    Protected,
    /// Everybody.
    Public,
}

impl LaneKind {
    /// The stable lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Public => "public",
        }
    }
}

/// One lane: its own listener, thread and bounds.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Networks whose clients are scorers without further proof.
    pub trusted: Vec<Prefix>,
    /// Bounds of the HTTP connections.
    pub http: Limits,
    /// Bounds per prefix.
    pub prefix: PrefixLimits,
    /// Leading bits of an IPv4 and of an IPv6 address that make a prefix.
    pub prefix_bits: (u8, u8),
    /// Heavy answers under way.
    pub seats: Range,
    /// How slow a reader may be.
    pub progress: Progress,
    /// Bytes per second for heavy answers; 0 is no bound.
    pub bandwidth: u64,
    /// Kernel's send buffer of one connection.
    pub send_bytes: usize,
    /// Signatures verified per second: bounds the verifier's share of the processor.
    pub signatures_per_s: u32,
    /// Niceness of the lane's thread, 0 to 19.
    pub nice: i32,
}

/// A client group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name; lives as long as the process.
    pub name: &'static str,
    /// The subnet whose registered keys belong to it.
    pub netuid: Option<Netuid>,
    /// What all its members together may take.
    pub quota: Option<Quota>,
}

/// Quotas of the classes and of networks.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// By class.
    pub classes: BTreeMap<Class, Quota>,
    /// All hotkeys of one coldkey together, in the public lane.
    pub coldkey: Quota,
    /// All known clients of one network together, in the public lane.
    pub network: Quota,
}

impl Quotas {
    /// The quota of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> Quota {
        let least = || Quota::new(1, 1, Duration::from_hours(1));
        self.classes.get(&class).copied().unwrap_or_else(least)
    }
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public lane.
    pub public: LaneSettings,
    /// The protected lane, if there is one.
    pub protected: Option<LaneSettings>,
    /// Folder of tokens, budgets, rules, audit, reports; memory alone when absent.
    pub state: Option<PathBuf>,
    /// This server's own address, which signatures must name.
    pub receiver: Option<Hotkey>,
    /// Who counts as what.
    pub standing: Standing,
    /// Client groups.
    pub groups: Vec<Group>,
    /// Quotas.
    pub quotas: Quotas,
    /// Life of a token.
    pub token_life: Duration,
    /// One of so many answered requests is logged; 0 for none.
    pub log_every: u64,
}

impl Settings {
    /// The configured group with this name, or the name of none.
    #[must_use]
    pub fn group_name(&self, name: &str) -> &'static str {
        let found = self.groups.iter().find(|group| group.name == name);
        found.map_or(NO_GROUP, |group| group.name)
    }
}
