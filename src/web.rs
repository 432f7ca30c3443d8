//! Shared HTTP parts: serve and drain, errors, limits.
