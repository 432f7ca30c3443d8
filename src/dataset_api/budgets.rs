//! Budgets per account: in memory for speed, in a journal so that a restart forgets nothing.
//!
//! Time is the server's own: nanoseconds that pass only while the machine runs. Wall time never
//! enters, so a clock step neither gives nor takes. Within one boot `CLOCK_BOOTTIME` carries on
//! over restarts; across a reboot only the time since boot is known to have passed, and only that
//! is counted. Every unit is in the journal before it is granted: `kill -9` loses none. A power cut
//! may lose what the system had not written yet, a few seconds of grants.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::gcra::Quota;
use super::prefix::Prefix;
use crate::bittensor::{Coldkey, Hotkey};

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// One hotkey.
    Hotkey(Hotkey),
    /// One coldkey, all its hotkeys together.
    Coldkey(Coldkey),
    /// One network.
    Prefix(Prefix),
    /// One client group, by the digest of its name.
    Group([u8; 32]),
}

impl Account {
    /// The account of the group `name`.
    #[must_use]
    pub fn group(name: &str) -> Self {
        Self::Group(Sha256::digest(name).into())
    }

    fn to_bytes(self) -> [u8; 33] {
        let mut bytes = [0; 33];
        let (tag, rest): (u8, &[u8]) = match &self {
            Self::Hotkey(key) => (1, key.as_bytes()),
            Self::Coldkey(key) => (2, key.as_bytes()),
            Self::Prefix(prefix) => (3, &prefix.to_bytes()),
            Self::Group(digest) => (4, digest),
        };
        bytes[0] = tag;
        bytes[1..=rest.len()].copy_from_slice(rest);
        bytes
    }
}

/// One charge: the account and what it may take.
pub type Charge = (Account, Quota);

/// A moment by this machine's boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Digest of the boot's id.
    pub boot: u64,
    /// Ns since that boot, suspends included.
    pub since_boot_ns: u64,
}

impl Moment {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(&id).into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self {
            boot: u64::from_be_bytes(first),
            since_boot_ns: since_boot_ns(),
        }
    }
}

/// Ns since boot, suspends included; unaffected by steps of the wall clock.
#[must_use]
pub fn since_boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).unwrap_or(0),
        u64::try_from(time.tv_nsec).unwrap_or(0),
    );
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Why a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The account at this position has nothing left for so many ns.
    Empty {
        /// Position in the charges.
        index: usize,
        /// Ns until one unit is there.
        wait_ns: u64,
    },
    /// More accounts are in use than the server remembers.
    Full,
}

/// All buckets that are not full, and the journal behind them.
#[derive(Debug)]
pub struct Budgets {
    buckets: HashMap<[u8; 33], u64>,
    remembered: usize,
    /// Service time minus boot time of this boot, wrapping.
    offset: u64,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    records: usize,
    failed: bool,
}

const RECORD: usize = 1 + 33 + 8 + 8 + 4;
/// First byte of a record that sets the clock, and of one that sets a bucket.
const CLOCK: u8 = 1;
const BUCKET: u8 = 2;
/// Records after which the journal is written anew.
const COMPACT_AT: usize = 200_000;

fn record(kind: u8, key: &[u8; 33], value: u64, at: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[0] = kind;
    bytes[1..34].copy_from_slice(key);
    bytes[34..42].copy_from_slice(&value.to_be_bytes());
    bytes[42..50].copy_from_slice(&at.to_be_bytes());
    let check: [u8; 32] = Sha256::digest(&bytes[..50]).into();
    bytes[50..].copy_from_slice(&check[..4]);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    u64::from_be_bytes(eight)
}

/// What a journal held.
#[derive(Default)]
struct Replay {
    buckets: HashMap<[u8; 33], u64>,
    /// Boot, its clock, and the service time at that clock.
    clock: Option<(Moment, u64)>,
    latest: u64,
}

impl Replay {
    /// Reads whole records up to the first that is torn.
    fn read(bytes: &[u8]) -> Self {
        let mut replay = Self::default();
        for chunk in bytes.chunks_exact(RECORD) {
            let check: [u8; 32] = Sha256::digest(&chunk[..50]).into();
            if chunk[50..] != check[..4] {
                break;
            }
            let mut key = [0; 33];
            key.copy_from_slice(&chunk[1..34]);
            let (value, at) = (number(&chunk[34..42]), number(&chunk[42..50]));
            replay.latest = replay.latest.max(at);
            if chunk[0] == CLOCK {
                let boot = number(&key[1..9]);
                replay.clock = Some((
                    Moment {
                        boot,
                        since_boot_ns: value,
                    },
                    at,
                ));
            } else {
                let bucket = replay.buckets.entry(key).or_default();
                *bucket = value.max(*bucket);
            }
        }
        replay
    }

    /// Service time now: what is known to have passed, and no more.
    fn service_ns(&self, now: Moment) -> u64 {
        match self.clock {
            Some((then, at)) if then.boot == now.boot => {
                let passed = now.since_boot_ns.saturating_sub(then.since_boot_ns);
                at.saturating_add(passed).max(self.latest)
            }
            _ => self.latest.saturating_add(now.since_boot_ns),
        }
    }
}

impl Budgets {
    /// Budgets that live in memory alone.
    #[must_use]
    pub fn volatile(remembered: usize, now: Moment) -> Self {
        Self::resume(Replay::default(), remembered, now)
    }

    fn resume(replay: Replay, remembered: usize, now: Moment) -> Self {
        let service = replay.service_ns(now);
        let mut buckets = replay.buckets;
        buckets.retain(|_, tat| *tat > service);
        Self {
            buckets,
            remembered,
            offset: service.wrapping_sub(now.since_boot_ns),
            journal: None,
        }
    }

    /// Budgets as the journal at `path` left them; it is made when absent, and written anew.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn open(path: &Path, remembered: usize, now: Moment) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes).map(|_| ())?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut budgets = Self::resume(Replay::read(&bytes), remembered, now);
        budgets.rewrite(path, now)?;
        Ok(budgets)
    }

    fn rewrite(&mut self, path: &Path, now: Moment) -> io::Result<()> {
        let draft = path.with_extension("draft");
        let service = self.service(now.since_boot_ns);
        let mut key = [0; 33];
        key[1..9].copy_from_slice(&now.boot.to_be_bytes());
        let mut bytes = record(CLOCK, &key, now.since_boot_ns, service).to_vec();
        self.buckets.retain(|_, tat| *tat > service);
        for (key, tat) in &self.buckets {
            bytes.extend_from_slice(&record(BUCKET, key, *tat, service));
        }
        std::fs::write(&draft, &bytes)?;
        File::open(&draft)?.sync_all()?;
        std::fs::rename(&draft, path)?;
        self.journal = Some(Journal {
            path: path.to_owned(),
            file: OpenOptions::new().append(true).open(path)?,
            records: 0,
            failed: false,
        });
        Ok(())
    }

    fn service(&self, since_boot_ns: u64) -> u64 {
        self.offset.wrapping_add(since_boot_ns)
    }

    /// Takes one unit from every account, or none from any. `now_ns` is ns since boot.
    ///
    /// # Errors
    /// [`Denied`]: the account that must wait longest.
    pub fn take(&mut self, charges: &[Charge], now_ns: u64) -> Result<(), Denied> {
        let now = self.service(now_ns);
        self.check(charges, now)?;
        self.make_room(charges.len(), now)?;
        for (account, quota) in charges {
            let key = account.to_bytes();
            let tat = self.buckets.get(&key).copied().unwrap_or(0);
            if let Ok(next) = quota.take(tat, now) {
                self.note(&record(BUCKET, &key, next, now));
                self.buckets.insert(key, next);
            }
        }
        self.compact();
        Ok(())
    }

    /// Whether [`Self::take`] would succeed; takes nothing.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn peek(&self, charges: &[Charge], now_ns: u64) -> Result<(), Denied> {
        self.check(charges, self.service(now_ns))
    }

    fn check(&self, charges: &[Charge], now: u64) -> Result<(), Denied> {
        let wait = |(index, (account, quota)): (usize, &Charge)| {
            let tat = self.buckets.get(&account.to_bytes()).copied().unwrap_or(0);
            quota.take(tat, now).err().map(|wait| (wait, index))
        };
        match charges.iter().enumerate().filter_map(wait).max() {
            Some((wait_ns, index)) => Err(Denied::Empty { index, wait_ns }),
            None => Ok(()),
        }
    }

    fn make_room(&mut self, wanted: usize, now: u64) -> Result<(), Denied> {
        if self.buckets.len() + wanted <= self.remembered {
            return Ok(());
        }
        self.buckets.retain(|_, tat| *tat > now);
        if self.buckets.len() + wanted <= self.remembered {
            Ok(())
        } else {
            Err(Denied::Full)
        }
    }

    fn note(&mut self, record: &[u8; RECORD]) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Err(error) = journal.file.write_all(record)
            && !journal.failed
        {
            journal.failed = true;
            tracing::error!(path = %journal.path.display(), %error,
                "budgets cannot be written; they hold until the next restart only");
        }
        journal.records += 1;
    }

    fn compact(&mut self) {
        let due = |journal: &&Journal| journal.records >= COMPACT_AT;
        let Some(path) = self.journal.as_ref().filter(due).map(|j| j.path.clone()) else {
            return;
        };
        if let Err(error) = self.rewrite(&path, Moment::now()) {
            tracing::error!(path = %path.display(), %error, "the journal of budgets cannot be rewritten");
            if let Some(journal) = &mut self.journal {
                journal.records = 0;
            }
        }
    }

    /// Units left of `charge`, and the ns until one more is there.
    #[must_use]
    pub fn left(&self, (account, quota): &Charge, now_ns: u64) -> (u32, u64) {
        let now = self.service(now_ns);
        let tat = self.buckets.get(&account.to_bytes()).copied().unwrap_or(0);
        let left = quota.left(tat, now);
        let full = tat <= now;
        let step =
            u64::try_from(quota.window().as_nanos()).unwrap_or(u64::MAX) / u64::from(quota.burst());
        let refill = if full { 0 } else { (tat - now) % step.max(1) };
        (left, if !full && refill == 0 { step } else { refill })
    }

    /// Whether grants reach the disk.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.journal.as_ref().is_some_and(|j| !j.failed)
    }

    /// Accounts that are not full.
    #[must_use]
    pub fn count(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests;
