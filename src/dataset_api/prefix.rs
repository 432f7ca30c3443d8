//! Where a client comes from: its network prefix, and what is remembered about each.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use super::gcra::Quota;

/// A network: an address and how many of its leading bits count. IPv4 is held as mapped IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

/// Bits before an IPv4 address mapped into IPv6.
const MAPPED: u8 = 96;

impl Prefix {
    fn new(address: IpAddr, length: u8) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let mask = u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0);
        Self {
            bits: bits & mask,
            length,
        }
    }

    /// The network of `address` with `length` leading bits of its own kind.
    #[must_use]
    pub fn network(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(_) => Self::new(address, MAPPED + length.min(32)),
            IpAddr::V6(_) => Self::new(address, length.min(128)),
        }
    }

    /// The network of `address`: its first `v4` or `v6` bits.
    #[must_use]
    pub fn of(address: IpAddr, v4: u8, v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(a) => Self::new(a.into(), MAPPED + v4.min(32)),
            IpAddr::V6(a) => Self::new(a.into(), v6.min(128)),
        }
    }

    /// Whether all of `other` lies in this network.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mask = u128::MAX
            .checked_shl(u32::from(128 - self.length))
            .unwrap_or(0);
        other.length >= self.length && other.bits & mask == self.bits
    }

    /// The kind of network, as metrics show it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let address = Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped() {
            Some(v4) if v4.is_loopback() => "loopback",
            Some(v4) if v4.is_private() || v4.is_link_local() => "private",
            Some(_) => "ipv4",
            None if address.is_loopback() => "loopback",
            None if address.is_unique_local() || address.is_unicast_link_local() => "private",
            None => "ipv6",
        }
    }

    /// As the 17 bytes that a journal holds.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&self.bits.to_be_bytes());
        bytes[16] = self.length;
        bytes
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped() {
            Some(v4) if self.length >= MAPPED => write!(f, "{v4}/{}", self.length - MAPPED),
            _ => write!(f, "{address}/{}", self.length),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a bare address.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network; write it like 10.0.0.0/8 or 2001:db8::/32");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(most);
        if length > most {
            return Err(wrong());
        }
        let before = if address.is_ipv4() { MAPPED } else { 0 };
        Ok(Self::new(address, before + length))
    }
}

impl serde::Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl From<Ipv4Addr> for Prefix {
    fn from(address: Ipv4Addr) -> Self {
        Self::new(address.into(), 128)
    }
}

/// What one prefix may do before anything about its requests is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixLimits {
    /// Connections open at the same time.
    pub connections: u32,
    /// Heavy answers under way at the same time.
    pub responses: u32,
    /// Requests of any kind.
    pub requests: Quota,
    /// Refusals that are still answered. Whoever provokes more is dropped at accept for
    /// [`Self::penalty`].
    pub refusals: Quota,
    /// Signatures that are verified.
    pub signatures: Quota,
    /// How long connections of a repeated offender are reset unread.
    pub penalty: Duration,
    /// Prefixes remembered; each takes about 100 bytes.
    pub remembered: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    connections: u32,
    responses: u32,
    requests: u64,
    refusals: u64,
    signatures: u64,
    drop_until: u64,
    known_until: u64,
}

impl State {
    /// Whether forgetting it changes nothing.
    fn is_blank(&self, now: u64) -> bool {
        let ends = [
            self.requests,
            self.refusals,
            self.signatures,
            self.drop_until,
            self.known_until,
        ];
        self.connections == 0 && self.responses == 0 && ends.into_iter().all(|end| end <= now)
    }
}

/// What to do with a connection that was just accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// Serve it; [`PrefixTable::left`] must be told when it ends.
    Serve,
    /// Reset it unread: its prefix holds too many or provoked too many refusals.
    Drop,
}

/// The state of every prefix seen lately. Bounded: when it is full of prefixes that matter, new
/// ones are dropped at accept.
#[derive(Debug)]
pub struct PrefixTable {
    limits: PrefixLimits,
    states: HashMap<Prefix, State>,
    swept: u64,
}

/// How long a prefix counts as known after somebody there proved who it is, in ns.
const KNOWN_NS: u64 = 600_000_000_000;
/// Pause between two sweeps of a full table, in ns: a sweep looks at every entry.
const SWEEP_PAUSE_NS: u64 = 250_000_000;

impl PrefixTable {
    /// An empty table.
    #[must_use]
    pub fn new(limits: PrefixLimits) -> Self {
        Self {
            limits,
            states: HashMap::new(),
            swept: 0,
        }
    }

    fn entry(&mut self, prefix: Prefix, now: u64) -> Option<&mut State> {
        if self.states.len() >= self.limits.remembered && !self.states.contains_key(&prefix) {
            if now.saturating_sub(self.swept) >= SWEEP_PAUSE_NS {
                self.swept = now;
                self.states.retain(|_, state| !state.is_blank(now));
            }
            if self.states.len() >= self.limits.remembered {
                return None;
            }
        }
        Some(self.states.entry(prefix).or_default())
    }

    /// A connection was accepted. While the lane is `crowded` only known prefixes are served.
    pub fn arrived(&mut self, prefix: Prefix, now: u64, crowded: bool) -> Welcome {
        let most = self.limits.connections;
        let known = self.states.get(&prefix).map_or(0, |s| s.known_until) > now;
        if crowded && !known {
            return Welcome::Drop;
        }
        let Some(state) = self.entry(prefix, now) else {
            return Welcome::Drop;
        };
        if state.drop_until > now || state.connections >= most {
            return Welcome::Drop;
        }
        state.connections += 1;
        Welcome::Serve
    }

    /// Somebody of the prefix proved who it is.
    pub fn proven(&mut self, prefix: Prefix, now: u64) {
        if let Some(state) = self.entry(prefix, now) {
            state.known_until = now.saturating_add(KNOWN_NS);
        }
    }

    /// A served connection ended.
    pub fn left(&mut self, prefix: Prefix) {
        if let Some(state) = self.states.get_mut(&prefix) {
            state.connections = state.connections.saturating_sub(1);
        }
    }

    /// A request came in.
    ///
    /// # Errors
    /// The ns until the next one is welcome.
    pub fn request(&mut self, prefix: Prefix, now: u64) -> Result<(), u64> {
        let quota = self.limits.requests;
        let Some(state) = self.entry(prefix, now) else {
            return Err(SWEEP_PAUSE_NS);
        };
        state.requests = quota.take(state.requests, now)?;
        Ok(())
    }

    /// Whether [`Self::request`] would succeed; counts nothing.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn peek_request(&self, prefix: Prefix, now: u64) -> Result<(), u64> {
        let tat = self.states.get(&prefix).map_or(0, |state| state.requests);
        self.limits.requests.take(tat, now).map(|_| ())
    }

    /// A signature is about to be verified.
    ///
    /// # Errors
    /// The ns until the next one is.
    pub fn signature(&mut self, prefix: Prefix, now: u64) -> Result<(), u64> {
        let quota = self.limits.signatures;
        let Some(state) = self.entry(prefix, now) else {
            return Err(SWEEP_PAUSE_NS);
        };
        state.signatures = quota.take(state.signatures, now)?;
        Ok(())
    }

    /// A request was refused by the client's own fault. Beyond the quota of answered refusals the
    /// prefix is dropped at accept for a while.
    pub fn refused(&mut self, prefix: Prefix, now: u64) {
        let (quota, penalty) = (self.limits.refusals, self.limits.penalty);
        let Some(state) = self.entry(prefix, now) else {
            return;
        };
        match quota.take(state.refusals, now) {
            Ok(tat) => state.refusals = tat,
            Err(_) => {
                let penalty = u64::try_from(penalty.as_nanos()).unwrap_or(u64::MAX / 2);
                state.drop_until = now.saturating_add(penalty);
            }
        }
    }

    /// Whether connections of the prefix are reset unread at the moment.
    #[must_use]
    pub fn is_dropped(&self, prefix: Prefix, now: u64) -> bool {
        let state = self.states.get(&prefix);
        state.is_some_and(|state| state.drop_until > now)
    }

    /// A heavy answer begins; `false` when the prefix has enough under way.
    pub fn begin_response(&mut self, prefix: Prefix, now: u64) -> bool {
        let most = self.limits.responses;
        let Some(state) = self.entry(prefix, now) else {
            return false;
        };
        if state.responses >= most {
            return false;
        }
        state.responses += 1;
        true
    }

    /// A heavy answer ended.
    pub fn end_response(&mut self, prefix: Prefix) {
        if let Some(state) = self.states.get_mut(&prefix) {
            state.responses = state.responses.saturating_sub(1);
        }
    }

    /// Prefixes remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.states.len()
    }
}

#[cfg(test)]
mod tests;
