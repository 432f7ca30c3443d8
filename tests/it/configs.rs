//! Integration tests: configs.
