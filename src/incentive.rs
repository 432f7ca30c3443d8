//! The subnet's rules. Pure: no I/O, clock, randomness or logging.

mod rejection;

pub use rejection::{Rejection, RejectionCode};
