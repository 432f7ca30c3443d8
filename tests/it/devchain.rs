//! Integration tests: devchain.
