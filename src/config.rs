//! Configuration: raw TOML in, checked settings out, every problem at once.
