//! Whose matter the end of a job is. Pure: the same evidence always gives the same answer.
//!
//! A valid result wins over the exit code. Without one nothing counts against the miner; the few
//! ends that may be the model's doing (a crash in native code, a stalled generation, memory that
//! does not suffice even after it was raised) are suspicions, which a control model has to confirm.

use super::replies::{self, NoReport, Report};
use super::runner::{Finished, Kill};
use crate::fault::{Fault, Party};
use crate::incentive::{Rejection, RejectionCode};
use assay_protocol::{ExitClass, Job, Metrics, Reply, ResultCode, ScorerInfo, Stage, Timing};

/// Code of a run into the host's memory limit.
pub const OOM_HOST: &str = "OOM_HOST";
/// Codes of runs into a deadline.
pub const TIMED_OUT: [&str; 2] = ["I_TIMEOUT_LOAD", "I_TIMEOUT_TOTAL"];

/// Replies of a model to all items of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplySet {
    /// In the job's order.
    pub replies: Vec<Reply>,
    /// Hex SHA-256 of the replies file.
    pub replies_sha256: String,
    /// Log-probabilities in nats of each reference's tokens, by item id.
    pub likelihoods: Vec<(String, Vec<f64>)>,
    /// Counts; replies, cuts and tokens equal what the replies themselves show.
    pub metrics: Metrics,
    /// The scorer's word about itself.
    pub scorer: ScorerInfo,
    /// Seconds by stage, the scorer's word.
    pub timing: Timing,
}

/// What to do with a job that ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Judge them.
    Replies(Box<ReplySet>),
    /// Final for this commitment.
    Rejected(Rejection),
    /// The miner's fault only if a control model passes on the same worker and the model fails
    /// again; then `code` and `detail` are the reason.
    Suspect {
        /// Stable code.
        code: &'static str,
        /// What was seen, cleaned.
        detail: String,
    },
    /// Ours: retried or parked.
    Fault(Fault),
}

/// Facts about the attempt beside its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The memory limit was already raised after an earlier attempt ran into it.
    pub memory_raised: bool,
}

/// Exit after SIGXFSZ: a file grew to the limit before the watchdog looked.
const FILE_TOO_LARGE: i64 = 128 + 25;

/// Maps evidence to its outcome.
#[must_use]
pub fn classify(
    report: Result<Report, NoReport>,
    finished: &Finished,
    job: &Job,
    attempt: Attempt,
) -> Outcome {
    match report {
        Ok(report) => from_result(report, job),
        Err(missing) => without_result(&missing, finished, attempt),
    }
}

fn from_result(report: Report, job: &Job) -> Outcome {
    let Some(error) = &report.result.error else {
        return Outcome::Replies(Box::new(ReplySet {
            replies: report.replies,
            replies_sha256: report.replies_sha256,
            likelihoods: report.likelihoods,
            metrics: report.result.metrics,
            scorer: report.result.scorer,
            timing: report.result.timing,
        }));
    };
    let code = error.code;
    let detail = super::logs::clean(error.message.as_bytes());
    let detail: String = detail.chars().take(500).collect();
    match code.class() {
        ExitClass::Miner | ExitClass::MinerIfConfirmed
            if !replies::saw_the_files(&report.result, job) =>
        {
            let text = format!(
                "{}: the scorer did not prove that it read the verified files, so its verdict \
                 does not count; check the model mount. It said: {detail}",
                code.as_str()
            );
            Outcome::Fault(Fault::retryable(Party::Engine, "PROOF_MISMATCH", text))
        }
        // The node accepted architecture and configuration by its own rules before, so a scorer that
        // refuses them lacks a feature that the era promises.
        ExitClass::Miner if matches!(code, ResultCode::Arch | ResultCode::Config) => {
            let text = format!(
                "the scorer cannot run what the era admits; use one that can, or append an era: {detail}"
            );
            Outcome::Fault(Fault::permanent(Party::Engine, code.as_str(), text))
        }
        ExitClass::Miner => Outcome::Rejected(Rejection::new(rejection_code(code), detail)),
        ExitClass::MinerIfConfirmed => Outcome::Suspect {
            code: code.as_str(),
            detail,
        },
        class => Outcome::Fault(fault_of(code, class, &detail)),
    }
}

/// The public code of a miner's fault that a scorer found.
fn rejection_code(code: ResultCode) -> RejectionCode {
    match code {
        ResultCode::Files => RejectionCode::FileMissing,
        ResultCode::Format => RejectionCode::Format,
        ResultCode::Tokenizer | ResultCode::Vocab => RejectionCode::TokenizerInvalid,
        ResultCode::NonFinite => RejectionCode::NonFinite,
        ResultCode::Shape => RejectionCode::TensorSet,
        _ => RejectionCode::DoesNotRun,
    }
}

fn fault_of(code: ResultCode, class: ExitClass, detail: &str) -> Fault {
    let party = match code {
        ResultCode::Driver | ResultCode::GpuBusy => Party::Gpu,
        ResultCode::Io | ResultCode::Mount => Party::Node,
        _ if class == ExitClass::Job => Party::Node,
        _ => Party::Engine,
    };
    if class == ExitClass::Job {
        Fault::permanent(party, code.as_str(), detail)
    } else {
        Fault::retryable(party, code.as_str(), detail)
    }
}

fn without_result(missing: &NoReport, finished: &Finished, attempt: Attempt) -> Outcome {
    if let Some(kill) = finished.killed {
        return from_kill(kill);
    }
    let fault = |party, code, text: String| Outcome::Fault(Fault::retryable(party, code, text));
    match (missing, finished.exit) {
        (NoReport::Missing, _) if finished.oom_killed && attempt.memory_raised => {
            suspect(OOM_HOST, "out of memory again after the limit was raised")
        }
        (NoReport::Missing, _) if finished.oom_killed => fault(
            Party::Engine,
            OOM_HOST,
            "the scorer ran into its memory limit; the next attempt gets twice as much".to_owned(),
        ),
        (NoReport::Missing, Some(code @ (134 | 139))) => suspect(
            "CRASHED",
            &format!("the scorer crashed in native code (exit {code})"),
        ),
        (NoReport::Missing, Some(FILE_TOO_LARGE)) => from_kill(Kill::Quota),
        (NoReport::Missing, Some(code @ 125..=127)) => fault(
            Party::Engine,
            "ENGINE_START",
            format!("the container engine could not start the scorer (exit {code})"),
        ),
        (NoReport::Missing, Some(code @ (137 | 143))) => fault(
            Party::Node,
            "KILLED",
            format!("something outside the node ended the scorer (exit {code})"),
        ),
        (NoReport::Proof(_), _) => fault(Party::Engine, "PROOF_MISMATCH", missing.to_string()),
        (NoReport::Unreadable { .. }, _) => {
            fault(Party::Node, "OUT_UNREADABLE", missing.to_string())
        }
        (_, exit) => fault(
            Party::Engine,
            "NO_RESULT",
            format!("{missing} (exit {}); see the scorer's log", shown(exit)),
        ),
    }
}

fn shown(exit: Option<i64>) -> String {
    exit.map_or("unknown".to_owned(), |code| code.to_string())
}

fn suspect(code: &'static str, detail: &str) -> Outcome {
    Outcome::Suspect {
        code,
        detail: detail.to_owned(),
    }
}

fn from_kill(kill: Kill) -> Outcome {
    let timeout = |code: ResultCode, what: &str| {
        let text = format!("{what}; the next attempt gets twice the limit");
        Outcome::Fault(Fault::retryable(Party::Engine, code.as_str(), text))
    };
    match kill {
        Kill::Load => timeout(ResultCode::TimeoutLoad, "loading took too long"),
        Kill::Total => timeout(ResultCode::TimeoutTotal, "the job took too long"),
        Kill::Generate => timeout(ResultCode::TimeoutTotal, "generating took too long"),
        Kill::Likelihood => timeout(
            ResultCode::TimeoutTotal,
            "the likelihood pass took too long",
        ),
        Kill::Stall(Some(Stage::Generate)) => suspect(
            ResultCode::GenStall.as_str(),
            "generation stopped making progress",
        ),
        Kill::Stall(stage) => {
            let stage = stage.map_or("before its first stage".to_owned(), |s| format!("in {s:?}"));
            let text = format!("the scorer showed no sign of life {stage}");
            Outcome::Fault(Fault::retryable(Party::Engine, "STALLED", text))
        }
        Kill::Quota => Outcome::Fault(Fault::retryable(
            Party::Engine,
            "OUT_QUOTA",
            "the scorer wrote more than the protocol allows",
        )),
        Kill::Stopped => Outcome::Fault(Fault::retryable(
            Party::Node,
            "INTERRUPTED",
            "the node ended the scorer before its time; the job runs again",
        )),
    }
}
