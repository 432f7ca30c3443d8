//! Everything subxt: connect, read, watch, submit, wallet.
//!
//! Pallets, calls, storage, errors and types are resolved by name from the live metadata of the
//! block that is read: the runtime renumbers and retypes them several times a year.
//!
//! A read never retries by itself and never fills in a value that it could not read. Every public
//! call carries a deadline; [`ChainError`] says whether the caller may try again.

mod call;
mod commitments;
mod connect;
mod error;
mod fate;
mod follow;
mod in_flight;
mod refusal;
mod snapshot;
mod submit;
mod view;
mod wallet;
mod wire;

pub use call::Call;
pub use connect::{ChainClient, ChainSettings};
pub use error::ChainError;
pub use fate::Inclusion;
pub use follow::{Finalised, FinalisedBlocks};
pub use in_flight::{InFlight, Step};
pub use refusal::{Refusal, Remedy, SubmitError};
pub use submit::{Pending, SignedCall};
pub use wallet::{HotkeyPair, LooseMode, WalletError};
pub use wire::WireUsage;
