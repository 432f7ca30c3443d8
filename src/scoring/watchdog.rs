//! Decides when a running scorer has to be ended. Monotonic time only.

use super::job::{JobPath, PreparedJob};
use super::replies::open_plain;
use super::runner::Kill;
use assay_protocol::{
    LIKELIHOOD_BYTES_MAX, Limits, Progress, REPLIES_BYTES_MAX, RESULT_BYTES_MAX, Stage,
};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most bytes that `out` may hold: replies, likelihoods, result twice (before renaming) and progress.
pub(super) const OUT_BYTES_MAX: u64 =
    REPLIES_BYTES_MAX + LIKELIHOOD_BYTES_MAX + 2 * RESULT_BYTES_MAX + 4 * 1024 * 1024;
/// Most files that `out` may hold; the protocol knows five names.
const OUT_FILES_MAX: usize = 16;
const READ_MAX: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Watchdog {
    limits: Limits,
    out: PathBuf,
    progress: PathBuf,
    begun: Instant,
    offset: u64,
    line: Vec<u8>,
    last_line: Instant,
    stage: Option<Stage>,
    phase_begun: Instant,
}

/// Stages that share one deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Load,
    Generate,
    Likelihood,
    Write,
}

fn phase(stage: Option<Stage>) -> Phase {
    match stage {
        None | Some(Stage::Verify | Stage::Load) => Phase::Load,
        Some(Stage::Generate) => Phase::Generate,
        Some(Stage::Likelihood) => Phase::Likelihood,
        Some(Stage::Write) => Phase::Write,
    }
}

impl Watchdog {
    pub(super) fn new(job: &PreparedJob, now: Instant) -> Self {
        Self {
            limits: job.job.limits.clone(),
            out: job.path(JobPath::Out),
            progress: job.path(JobPath::Progress),
            begun: now,
            offset: 0,
            line: Vec::new(),
            last_line: now,
            stage: None,
            phase_begun: now,
        }
    }

    /// Looks at the output folder; says whether the scorer has to end now. Reads at most 64 KiB of
    /// local files, so it may run on an async thread.
    pub(super) fn check(&mut self, now: Instant) -> Option<Kill> {
        if over_quota(&self.out) {
            return Some(Kill::Quota);
        }
        self.read_progress(now);
        let passed = |since: Instant, seconds: u64| {
            now.saturating_duration_since(since) >= Duration::from_secs(seconds)
        };
        if passed(self.begun, self.limits.total_s) {
            return Some(Kill::Total);
        }
        if passed(self.last_line, self.limits.stall_s) {
            return Some(Kill::Stall(self.stage));
        }
        let (limit, kill) = match phase(self.stage) {
            Phase::Load => (self.limits.load_s, Kill::Load),
            Phase::Generate => (self.limits.generate_s, Kill::Generate),
            Phase::Likelihood => (self.limits.likelihood_s, Kill::Likelihood),
            Phase::Write => return None,
        };
        passed(self.phase_begun, limit).then_some(kill)
    }

    /// Takes in the new whole lines; only a line that parses counts as a sign of life.
    fn read_progress(&mut self, now: Instant) {
        let mut bytes = Vec::new();
        let Ok(mut file) = open_plain(&self.progress) else {
            return;
        };
        let read = file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(READ_MAX).read_to_end(&mut bytes));
        if read.is_err() {
            return;
        }
        self.offset += u64::try_from(bytes.len()).unwrap_or(0);
        for byte in bytes {
            if byte != b'\n' {
                if self.line.len() < 512 {
                    self.line.push(byte);
                }
                continue;
            }
            if let Ok(progress) = serde_json::from_slice::<Progress>(&self.line) {
                self.enter(progress.stage, now);
            }
            self.line.clear();
        }
    }

    /// Stages only move on: going back would restart a deadline.
    fn enter(&mut self, stage: Stage, now: Instant) {
        self.last_line = now;
        if phase(Some(stage)) > phase(self.stage) {
            self.phase_begun = now;
        }
        if phase(Some(stage)) >= phase(self.stage) {
            self.stage = Some(stage);
        }
    }
}

/// Bind mounts have no quota of their own, so the folder is measured at every look. A folder in it
/// counts as a breach: the protocol knows none, and measuring stays one listing.
fn over_quota(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else {
        return false;
    };
    let mut bytes = 0u64;
    for (index, entry) in entries.flatten().enumerate() {
        let Ok(found) = entry.metadata() else {
            continue;
        };
        bytes = bytes.saturating_add(found.len());
        if index >= OUT_FILES_MAX || found.is_dir() || bytes > OUT_BYTES_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        dog: Watchdog,
        begun: Instant,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let limits = Limits {
            load_s: 30,
            generate_s: 60,
            likelihood_s: 20,
            total_s: 200,
            stall_s: 15,
        };
        let dog = Watchdog {
            limits,
            out: dir.path().to_owned(),
            progress: dir.path().join("progress.jsonl"),
            begun,
            offset: 0,
            line: Vec::new(),
            last_line: begun,
            stage: None,
            phase_begun: begun,
        };
        Rig { dir, dog, begun }
    }

    impl Rig {
        fn at(&mut self, second: u64, append: &str) -> Option<Kill> {
            use std::io::Write;
            let mut file = fs::File::options();
            let mut file = file
                .create(true)
                .append(true)
                .open(&self.dog.progress)
                .unwrap();
            file.write_all(append.as_bytes()).unwrap();
            self.dog.check(self.begun + Duration::from_secs(second))
        }
    }

    fn line(stage: &str) -> String {
        format!("{{\"t\":1,\"stage\":\"{stage}\",\"done\":0,\"total\":9}}\n")
    }

    #[test]
    fn a_line_is_a_sign_of_life_and_garbage_is_none() {
        let mut rig = rig();
        assert_eq!(rig.at(10, &line("load")), None);
        assert_eq!(rig.at(24, ""), None);
        assert_eq!(
            rig.at(25, "{\"t\":1}\nnoise\n"),
            Some(Kill::Stall(Some(Stage::Load)))
        );
        let mut rig = self::rig();
        let line = line("load");
        assert_eq!(rig.at(14, &line[..10]), None);
        assert_eq!(rig.at(14, &line[10..]), None);
        assert_eq!(rig.at(20, ""), None);
    }

    #[test]
    fn each_phase_has_its_deadline_and_none_restarts_it() {
        let mut rig = rig();
        for second in [0, 10, 20] {
            assert_eq!(rig.at(second, &line("verify")), None);
        }
        assert_eq!(rig.at(30, &line("load")), Some(Kill::Load));
        let mut rig = self::rig();
        for second in (0..60).step_by(10) {
            assert_eq!(rig.at(second, &line("generate")), None);
        }
        // Going back to loading and forth again does not restart the clock.
        assert_eq!(rig.at(59, &(line("load") + &line("generate"))), None);
        assert_eq!(rig.at(60, &line("generate")), Some(Kill::Generate));
    }

    #[test]
    fn the_whole_has_a_deadline_of_its_own() {
        let mut rig = rig();
        for second in (0..200).step_by(10) {
            assert_eq!(rig.at(second, &line("write")), None);
        }
        assert_eq!(rig.at(200, &line("write")), Some(Kill::Total));
    }

    #[test]
    fn the_output_folder_is_bounded_in_bytes_files_and_depth() {
        let mut rig = rig();
        let file = fs::File::create(rig.dir.path().join("replies.jsonl")).unwrap();
        file.set_len(OUT_BYTES_MAX).unwrap();
        assert_eq!(rig.dog.check(rig.begun), None);
        file.set_len(OUT_BYTES_MAX + 1).unwrap();
        assert_eq!(rig.dog.check(rig.begun), Some(Kill::Quota));
        file.set_len(0).unwrap();
        fs::create_dir(rig.dir.path().join("deep")).unwrap();
        assert_eq!(rig.dog.check(rig.begun), Some(Kill::Quota));
        fs::remove_dir(rig.dir.path().join("deep")).unwrap();
        for n in 0..OUT_FILES_MAX {
            fs::write(rig.dir.path().join(n.to_string()), "").unwrap();
        }
        assert_eq!(rig.dog.check(rig.begun), Some(Kill::Quota));
    }
}
