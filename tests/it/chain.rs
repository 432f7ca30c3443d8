//! Integration tests: the chain client, wallet files, and both against real answers.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests stop at the first surprise and say what was skipped"
)]

mod endpoints;
mod fate;
mod golden;
mod last_good;
mod live;
mod mechanisms;
mod refusals;
mod snapshot;
mod submit;
mod timelock;
mod upgrade;
mod wallet;
pub(crate) mod wire;
