//! When and whether to try again.
