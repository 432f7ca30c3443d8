//! Integration tests: apis.
