//! The built scorer as a process, on the trained sample model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod hostile;
mod naive;
mod replies;
