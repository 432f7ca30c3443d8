//! Long-running loops.
