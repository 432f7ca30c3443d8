//! The subnet's rules. Pure: no I/O, clock, randomness or logging.

pub mod architecture;
pub mod copies;
pub mod duplicates;
pub mod early_stop;
pub mod eligibility;
pub mod era;
pub mod gates;
pub mod judge_checks;
pub mod likelihood;
pub mod model_ref;
pub mod origin;
pub mod ranking;
mod rejection;
pub mod round;
pub mod score;
pub mod statistics;
pub mod submission;
pub mod template;
pub mod weights;

pub use architecture::Architecture;
pub use era::{Era, EraId, era_at};
pub use model_ref::{CompetitionId, ModelRef, RepoId, Revision};
pub use ranking::{Contender, Place, Ranking, rank};
pub use rejection::{Rejection, RejectionCode};
pub use score::{ItemScores, ItemVerdict, Preference, Score, Verdict};
pub use submission::Submission;
pub use template::Template;
pub use weights::{WeightError, WeightVector};
