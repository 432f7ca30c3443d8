//! CPU scorer: container protocol v1 on candle.
//!
//! [`run`] does one job from `model/` and `job/` into `out/`. It computes in f32 whatever the
//! files hold, one sequence at a time, so a reply depends on nothing but the model and its prompt.

mod config;
mod failure;
mod generate;
mod job;
mod likelihood;
mod model;
mod output;
mod proof;
mod run;
mod selftest;
mod threads;
mod weights;

pub use config::{Architecture, ModelConfig};
pub use failure::Failure;
pub use generate::{Generated, Generator};
pub use model::{Cache, Model};
pub use run::{run, scorer_info};
pub use selftest::selftest;
pub use threads::in_threads;
