//! The traffic report of one UTC day, kept on disk as it grows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// What one class of one group did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Requests answered.
    pub served: u64,
    /// Requests refused by the client's own fault or budget.
    pub refused: u64,
    /// Requests turned away because the server was full.
    pub shed: u64,
    /// Bytes of conversations begun to be sent.
    pub bytes: u64,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Days since 1970-01-01 UTC.
    pub day: u64,
    /// Connections reset unread.
    pub dropped: u64,
    /// Shares by `group/class`.
    pub shares: BTreeMap<String, Share>,
}

/// The day, counted from 1970-01-01, of a unix time.
#[must_use]
pub fn day_of(now_ms: u64) -> u64 {
    now_ms / DAY_MS
}

impl Report {
    /// Where the report of `day` lies.
    #[must_use]
    pub fn path(folder: &Path, day: u64) -> PathBuf {
        folder.join(format!("traffic-{day}.json"))
    }

    /// The report of `day` so far, from disk when it is there and whole.
    #[must_use]
    pub fn load(folder: &Path, day: u64) -> Self {
        let read = std::fs::read(Self::path(folder, day)).ok();
        read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|report| report.day == day)
            .unwrap_or_else(|| Self {
                day,
                ..Self::default()
            })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        let draft = folder.join("traffic.draft");
        std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&draft, Self::path(folder, self.day))
    }

    /// The share of a group's class.
    pub fn share(&mut self, group: &str, class: &str) -> &mut Share {
        self.shares.entry(format!("{group}/{class}")).or_default()
    }
}

/// Shares since they were last put into a report. Counting allocates nothing for those seen before.
#[derive(Debug, Default)]
pub struct Recent(Vec<(&'static str, &'static str, Share)>);

impl Recent {
    /// The share of a group's class.
    pub fn share(&mut self, group: &'static str, class: &'static str) -> &mut Share {
        let known = self.0.iter().position(|s| s.0 == group && s.1 == class);
        let place = known.unwrap_or_else(|| {
            self.0.push((group, class, Share::default()));
            self.0.len() - 1
        });
        &mut self.0[place].2
    }

    /// Moves everything counted so far into `report`.
    pub fn settle(&mut self, report: &mut Report) {
        for (group, class, recent) in &mut self.0 {
            let recent = std::mem::take(recent);
            if recent == Share::default() {
                continue;
            }
            let share = report.share(group, class);
            share.served += recent.served;
            share.refused += recent.refused;
            share.shed += recent.shed;
            share.bytes += recent.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_on_after_a_restart_and_a_new_day_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::load(folder.path(), 20_000);
        let mut recent = Recent::default();
        for _ in 0..3 {
            recent.share("sn11", "miner").served += 1;
        }
        recent.settle(&mut report);
        recent.settle(&mut report);
        assert_eq!(report.share("sn11", "miner").served, 3);
        report.save(folder.path()).unwrap();
        assert_eq!(Report::load(folder.path(), 20_000), report);
        assert!(Report::load(folder.path(), 20_001).shares.is_empty());
        std::fs::write(Report::path(folder.path(), 20_000), "{").unwrap();
        assert!(Report::load(folder.path(), 20_000).shares.is_empty());
        assert_eq!(day_of(DAY_MS * 3 + 5), 3);
    }
}
