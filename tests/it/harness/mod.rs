//! Shared parts of the integration tests: temporary folders, child processes, small servers.

pub(crate) mod demo;
pub(crate) mod probe;
