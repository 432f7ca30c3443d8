//! Scoring: jobs, runners, replies, judge.
//!
//! A job's way: [`job::prepare`] lays out its folder, a [`Scorer`] runs it sealed, [`replies::read`]
//! reads what it left behind as hostile data, [`outcome::classify`] says whose matter the end is,
//! and [`judge::Judge::judge_all`] has the replies judged outside the container.

pub mod breaker;
pub mod control;
pub mod docker;
mod error;
pub mod gpu;
pub mod job;
pub mod judge;
pub mod logs;
pub mod outcome;
pub mod process;
pub mod replies;
pub mod runner;
mod watchdog;

pub use error::ScoringError;
pub use runner::{Finished, Kill, Scorer};
