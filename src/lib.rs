//! assay: a Bittensor validator node for model-competition subnets.
//!
//! # Map
//! Arrows point one way:
//! `main → cmd → service, *_api, demo → chain, store, hub, scoring, dataset → incentive → bittensor`.
//! Siblings on the I/O row never import each other; [`service`] carries values between them.
//! [`devchain`] never imports [`chain`]: the client is tested against it over the wire.
//!
//! # Invariants
//! 1. **Only a miner's own fault may cost a miner.** A verdict about a miner is a value
//!    ([`incentive::Rejection`]); trouble of ours is an error ([`fault::Fault`]), is retried or
//!    parked, and never becomes a score or a zero.
//! 2. **A score is bound to its inputs.** Scores of different eras are never ranked together.
//! 3. **What was loaded is what was committed.** Digests of hub, download and container agree, or
//!    the result is refused.
//! 4. **Nothing is believed to be on chain until it was read back.**
//! 5. **A failed read is not an empty read.** No decision is taken from a partial, stale or
//!    undecodable snapshot.
//! 6. **One door to each dangerous act:** one function signs and submits, one leases a job, one
//!    records a result, one starts a container.
//! 7. **Kill the node anywhere, start it again: same end state.**
//! 8. **Miner-controlled text is hostile** everywhere.
//! 9. **No await without a deadline, no queue without a bound, no retry without an end.**
//! 10. **Rules are pure.** Whatever can change a weight is a function without I/O, clock,
//!     randomness or logging.

pub mod admission;
pub mod bittensor;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod dataset;
pub mod dataset_api;
pub mod demo;
pub mod devchain;
pub mod fault;
pub mod hub;
pub mod incentive;
pub mod retry;
pub mod score_api;
pub mod scoring;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod web;
