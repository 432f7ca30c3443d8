//! Integration tests: hub.
