//! Integration tests: the dev chain, by clients that nobody here wrote.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failed unwrap is a failed test, and skips are said aloud"
)]

pub(crate) mod checks;
pub(crate) mod client;
mod golden;
mod older;
mod persistence;
mod python;
mod rpc;
