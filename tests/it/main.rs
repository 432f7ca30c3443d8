//! One integration binary: every test runs against real parts.

mod apis;
mod chain;
mod cli;
mod commit;
mod configs;
mod corpus;
mod crash;
mod devchain;
mod docker;
mod flow;
mod harness;
mod hostile;
mod hub;
mod incentive_sim;
mod judge;
mod packs;
mod queue;
mod scoring;
mod simulation;
