//! What can go wrong with the model host, one variant per decision of the caller.

use super::PublishedDigest;
use crate::fault::{Fault, Party};
use crate::retry::{Retry, Retryable};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest pause that a hub's `Retry-After` can ask of us.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What is not publicly there, by the hub's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// No such repository, or a private one: the hub does not tell which to strangers.
    Repo,
    /// The repository is visible to our token alone.
    Private,
    /// The repository is there, but hands out files only to approved accounts.
    Gated,
    /// The hub closed the repository.
    Disabled,
    /// The repository has no such commit.
    Revision,
    /// The commit has no such file.
    File,
}

/// How a request failed that may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransientKind {
    /// No connection, or it broke off; or the body ended early.
    Connection,
    /// No reply within the limit.
    Timeout,
    /// A transfer fell silent for longer than the stall limit.
    Stalled,
    /// The overall deadline of a download passed.
    Deadline,
    /// 429.
    RateLimited,
    /// 5xx.
    Server,
    /// A reply that contradicts itself, the pin or the protocol.
    Protocol,
    /// The content arrived in full, but not with the published digest, for the first time.
    Garbled,
    /// Another process holds the same unfinished file.
    Busy,
}

impl TransientKind {
    fn code(self) -> &'static str {
        match self {
            Self::Connection => "HUB_CONNECTION",
            Self::Timeout => "HUB_TIMEOUT",
            Self::Stalled => "HUB_STALLED",
            Self::Deadline => "HUB_DEADLINE",
            Self::RateLimited => "HUB_RATE_LIMITED",
            Self::Server => "HUB_SERVER_ERROR",
            Self::Protocol => "HUB_PROTOCOL",
            Self::Garbled => "HUB_GARBLED",
            Self::Busy => "HUB_DOWNLOAD_BUSY",
        }
    }
}

/// Failure of a request to the model host or of storing what it sent.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The hub says that it is not publicly there. Once is no verdict about the miner: the caller
    /// decides after how many confirmations it is.
    #[error("{message}")]
    Unavailable {
        /// What is missing.
        reason: Absence,
        /// What was asked for.
        message: String,
    },
    /// May pass by itself; what was downloaded is kept for the next attempt.
    #[error("{message}")]
    Transient {
        /// How it failed.
        kind: TransientKind,
        /// The hub's own wish; at most an hour.
        retry_after: Option<Duration>,
        /// What happened, to what.
        message: String,
    },
    /// The hub turns this node away (token, address); an operator must act.
    #[error("{message}")]
    Denied {
        /// What happened and what to do.
        message: String,
    },
    /// The listing is larger than this node reads; the repository's owner chose it so.
    #[error("{message}")]
    OutOfBounds {
        /// Which bound.
        message: String,
    },
    /// The hub delivered, twice from the first byte on, the same content, and its digest is not the
    /// published one. A rejection only if the digest published at the pinned revision is still the
    /// same; else a fault.
    #[error("{path} has {found}, but the hub publishes {published}")]
    DigestMismatch {
        /// The file.
        path: String,
        /// The hub's word.
        published: PublishedDigest,
        /// What the bytes gave.
        found: PublishedDigest,
    },
    /// The disk has no room for the download.
    #[error(
        "{needed} bytes are needed in {dir} and {free} are free, {keep_free} of which must stay so; free some"
    )]
    NoSpace {
        /// Where to.
        dir: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free now.
        free: u64,
        /// Bytes that must stay free.
        keep_free: u64,
    },
    /// The disk failed.
    #[error("cannot {action} {path}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The request itself is wrong: settings, or names that an earlier check should have refused.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
}

impl HubError {
    pub(super) fn transient(kind: TransientKind, message: impl Into<String>) -> Self {
        Self::Transient {
            kind,
            retry_after: None,
            message: message.into(),
        }
    }

    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::transient(TransientKind::Protocol, message)
    }

    pub(super) fn disk(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The fault to keep in the ledger when this error is not turned into a verdict.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unavailable { .. } => Fault::retryable(Party::Hub, "HUB_REPO_UNAVAILABLE", self),
            Self::Transient { kind, .. } => Fault::retryable(Party::Hub, kind.code(), self),
            Self::Denied { .. } => Fault::permanent(Party::Hub, "HUB_DENIED", self),
            Self::OutOfBounds { .. } => Fault::permanent(Party::Hub, "HUB_LISTING_TOO_LARGE", self),
            Self::DigestMismatch { .. } => {
                Fault::retryable(Party::Hub, "HUB_DIGEST_MISMATCH", self)
            }
            Self::NoSpace { .. } => Fault::retryable(Party::Node, "DISK_FULL", self),
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Fault::retryable(Party::Node, "DISK_FULL", self)
            }
            Self::Disk { .. } => Fault::retryable(Party::Node, "DISK_FAILED", self),
            Self::Invalid { .. } => Fault::permanent(Party::Node, "HUB_REQUEST_INVALID", self),
        }
    }
}

impl Retryable for HubError {
    fn retry(&self) -> Retry {
        match self {
            Self::Transient {
                retry_after: Some(pause),
                ..
            } => Retry::After(*pause),
            Self::Transient { .. } => Retry::Now,
            _ => Retry::Never,
        }
    }
}

/// A reply with an error status, without its body.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// `X-Error-Code`.
    pub(super) code: Option<String>,
    /// `X-Error-Message`.
    pub(super) text: Option<String>,
    /// `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// Whether our token went with the request.
    pub(super) token_sent: bool,
}

impl Refusal {
    /// The decision that this refusal calls for. That something of a miner's is not there is
    /// believed only from the hub's own marks, never from a bare status: a proxy in between or a
    /// wrong endpoint gives 401, 403 and 404 too.
    pub(super) fn into_error(self, what: &str) -> HubError {
        let absent = |reason| HubError::Unavailable {
            reason,
            message: format!("the hub does not hand out {what}: {}", self.summary()),
        };
        match (self.status, self.code.as_deref(), self.text.as_deref()) {
            (_, Some("RepoNotFound"), _) => absent(Absence::Repo),
            (_, Some("RevisionNotFound"), _) => absent(Absence::Revision),
            (_, Some("EntryNotFound"), _) => absent(Absence::File),
            (_, Some("GatedRepo"), _) => absent(Absence::Gated),
            (403, _, Some("Access to this resource is disabled.")) => absent(Absence::Disabled),
            // So the hub answers strangers, for a missing repository as for a private one.
            (401, None, Some(_)) if !self.token_sent => absent(Absence::Repo),
            (401 | 403 | 407 | 451, ..) => HubError::Denied {
                message: format!(
                    "the hub refused {what}: {}; check the endpoint and the token",
                    self.summary()
                ),
            },
            _ => self.into_transient(what),
        }
    }

    /// As [`Refusal::into_error`], for a transfer. A store behind the hub refuses a signed address
    /// that has aged, without a word of the hub's: the next attempt gets a new one.
    pub(super) fn into_store_error(self, what: &str, redirected: bool) -> HubError {
        if redirected && self.code.is_none() {
            return self.into_transient(what);
        }
        self.into_error(what)
    }

    fn into_transient(self, what: &str) -> HubError {
        let kind = match self.status {
            408 => TransientKind::Timeout,
            429 => TransientKind::RateLimited,
            500..=599 => TransientKind::Server,
            _ => TransientKind::Protocol,
        };
        HubError::Transient {
            kind,
            retry_after: self.retry_after.map(|wish| wish.min(LONGEST_RETRY_AFTER)),
            message: format!("the hub failed on {what}: {}", self.summary()),
        }
    }

    fn summary(&self) -> String {
        let words = [self.code.as_deref(), self.text.as_deref()];
        let words: Vec<String> = words.into_iter().flatten().map(clean).collect();
        format!("status {} {}", self.status, words.join(", "))
            .trim_end()
            .to_owned()
    }
}

/// Foreign text made fit for a message: no control characters, at most 120 characters.
pub(super) fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(120).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(status: u16, code: &str, text: &str, token_sent: bool) -> HubError {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let refusal = Refusal {
            status,
            code: some(code),
            text: some(text),
            retry_after: None,
            token_sent,
        };
        refusal.into_error("a/b")
    }

    #[test]
    fn absence_is_believed_only_with_the_hubs_own_marks() {
        let absent = |error| match error {
            HubError::Unavailable { reason, .. } => Some(reason),
            _ => None,
        };
        let repo = Some(Absence::Repo);
        assert_eq!(absent(decide(404, "RepoNotFound", "", true)), repo);
        assert_eq!(absent(decide(401, "RepoNotFound", "", true)), repo);
        let stranger = decide(401, "", "Invalid username or password.", false);
        assert_eq!(absent(stranger), repo);
        let gated = decide(403, "GatedRepo", "", false);
        assert_eq!(absent(gated), Some(Absence::Gated));
        for (status, code, text, token) in [
            (404, "", "", false),
            (404, "SomethingNew", "", false),
            (401, "", "", false),
            (401, "", "Invalid credentials in Authorization header", true),
            (403, "", "", false),
            (500, "", "", false),
        ] {
            assert_eq!(absent(decide(status, code, text, token)), None, "{status}");
        }
    }

    #[test]
    fn statuses_say_whether_to_wait_or_to_call_an_operator() {
        for (status, code) in [
            (429, "HUB_RATE_LIMITED"),
            (408, "HUB_TIMEOUT"),
            (502, "HUB_SERVER_ERROR"),
            (404, "HUB_PROTOCOL"),
            (301, "HUB_PROTOCOL"),
            (403, "HUB_DENIED"),
        ] {
            let fault = decide(status, "", "", false).fault();
            assert_eq!((fault.code.as_str(), fault.party), (code, Party::Hub));
            assert_eq!(fault.retryable, status != 403);
        }
    }

    #[test]
    fn a_hubs_wish_to_wait_is_bounded_and_its_words_are_cleaned() {
        let refusal = Refusal {
            status: 429,
            text: Some(format!("slow\x1b[2J{}", "x".repeat(9_999))),
            retry_after: Some(Duration::from_secs(u64::MAX)),
            ..Refusal::default()
        };
        let error = refusal.into_error("a/b");
        assert_eq!(error.retry(), Retry::After(LONGEST_RETRY_AFTER));
        assert!(error.to_string().len() < 300 && !error.to_string().contains('\x1b'));
    }
}
