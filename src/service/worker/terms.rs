//! On what terms an attempt runs, given what went wrong on the submission's way before. Pure.

use crate::scoring::outcome::{OOM_HOST, TIMED_OUT};
use crate::store::LoggedFault;
use assay_protocol::Limits;

/// What the next attempt gets more of; each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Twice the deadlines.
    pub(super) more_time: bool,
    /// Twice the memory.
    pub(super) more_memory: bool,
}

/// Terms after these faults.
pub(super) fn of(ledger: &[LoggedFault]) -> Terms {
    let had = |codes: &[&str]| {
        ledger
            .iter()
            .any(|f| codes.contains(&f.fault.code.as_str()))
    };
    Terms {
        more_time: had(&TIMED_OUT),
        more_memory: had(&[OOM_HOST]),
    }
}

impl Terms {
    /// The deadlines; how long a scorer may be silent stays.
    pub(super) fn limits(self, limits: &Limits) -> Limits {
        let factor = if self.more_time { 2 } else { 1 };
        Limits {
            load_s: limits.load_s.saturating_mul(factor),
            generate_s: limits.generate_s.saturating_mul(factor),
            likelihood_s: limits.likelihood_s.saturating_mul(factor),
            total_s: limits.total_s.saturating_mul(factor),
            stall_s: limits.stall_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Party};

    fn fault(code: &str) -> LoggedFault {
        LoggedFault {
            submission: None,
            fault: Fault::retryable(Party::Engine, code, ""),
            at_ms: 0,
        }
    }

    #[test]
    fn a_timeout_doubles_time_once_and_an_oom_memory() {
        let limits = Limits {
            load_s: 1,
            generate_s: 2,
            likelihood_s: 3,
            total_s: 4,
            stall_s: 5,
        };
        assert_eq!(of(&[fault("HUB_STALLED")]).limits(&limits), limits);
        let twice = of(&[fault("I_TIMEOUT_LOAD"), fault("I_TIMEOUT_TOTAL")]);
        assert_eq!(twice.limits(&limits).total_s, 8);
        assert_eq!(twice.limits(&limits).stall_s, 5);
        assert!(!twice.more_memory);
        assert!(of(&[fault("OOM_HOST")]).more_memory);
    }
}
