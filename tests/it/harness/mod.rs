//! Shared parts of the integration tests: temporary folders, child processes, small servers.
