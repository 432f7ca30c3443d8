//! Numbers and closed sets of words that the store hands out.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_id! {
    /// A submission's number in this store, in order of discovery; never reused.
    SubmissionId
}
row_id! {
    /// One run of a submission through the stages.
    JobId
}
row_id! {
    /// One recorded score.
    ScoreId
}
row_id! {
    /// One weights decision.
    WeightEntryId
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as stored and shown.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|word| word.as_str() == text)
                    .ok_or_else(|| format!(concat!("{:?} is no ", stringify!($name)), text))
            }
        }
    };
}

words! {
    /// How far a submission has come.
    Status {
        /// Seen on chain; facts are still missing, by no fault of the miner.
        Discovered = "discovered",
        /// Waits to be fetched.
        Queued = "queued",
        /// Being downloaded and checked.
        Fetching = "fetching",
        /// On disk and checked; waits for a scorer.
        Ready = "ready",
        /// Generating replies.
        Scoring = "scoring",
        /// Replies are there; waits for the judge or is being judged.
        Judging = "judging",
        /// Has a score.
        Scored = "scored",
        /// Refused, by the miner's own fault.
        Rejected = "rejected",
        /// Given up for now after faults of ours; an earlier score stays.
        Parked = "parked",
    }
}

words! {
    /// What is to be done next with a submission.
    Stage {
        /// Download and check.
        Fetch = "fetch",
        /// Generate replies on a worker.
        Score = "score",
        /// Judge the replies.
        Judge = "judge",
    }
}

impl Stage {
    /// The stage after this one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Fetch => Some(Self::Score),
            Self::Score => Some(Self::Judge),
            Self::Judge => None,
        }
    }

    /// Status of a submission that waits for this stage.
    #[must_use]
    pub fn waiting(self) -> Status {
        match self {
            Self::Fetch => Status::Queued,
            Self::Score => Status::Ready,
            Self::Judge => Status::Judging,
        }
    }

    /// Status of a submission that is in this stage's hands.
    #[must_use]
    pub fn working(self) -> Status {
        match self {
            Self::Fetch => Status::Fetching,
            Self::Score => Status::Scoring,
            Self::Judge => Status::Judging,
        }
    }
}

/// Name of one worker, stable over restarts: who starts again under the same name takes its former
/// life's leases back with [`super::Store::abandon_leases`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_parse_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        for stage in Stage::ALL {
            assert_eq!(stage.as_str().parse(), Ok(*stage));
        }
        assert!("Queued".parse::<Status>().is_err());
    }

    #[test]
    fn stages_end() {
        let path: Vec<_> = std::iter::successors(Some(Stage::Fetch), |s| s.next()).collect();
        assert_eq!(path, Stage::ALL);
    }
}
