//! Long-running loops, each `async fn run(self, Shutdown)`. They hold order and rhythm; rules are in
//! [`crate::incentive`], I/O in the modules of its row. A loop ends by the shutdown signal or by an
//! error that an operator has to see; everything else is a fault that is recorded and passes.
//!
//! ```text
//! watcher ──snapshot──▶ intake ──record──▶ store ◀──lease── fetcher, worker, judging
//!                ├────▶ weight setter ◀──scores──┤
//!                └────▶ leaders ◀──scores, runs──┘
//! ```

pub mod absence;
pub mod artifacts;
pub mod fetcher;
pub mod intake;
pub mod janitor;
pub mod judging;
pub mod leaders;
pub mod metrics;
pub mod packs;
pub mod room;
pub mod round_lists;
mod rounds;
pub mod stage;
mod standing;
pub mod twins;
pub mod watcher;
pub mod weight_setter;
pub mod worker;

pub use absence::Confirmations;
pub use artifacts::Artifacts;
pub use rounds::{Drawn, RoundStart, Rounds, round_start};
pub use watcher::{Latest, Watcher};
