//! Integration tests: the dev chain, by clients that nobody here wrote.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failed unwrap is a failed test, and skips are said aloud"
)]

mod checks;
mod client;
mod golden;
mod persistence;
mod python;
mod rpc;
