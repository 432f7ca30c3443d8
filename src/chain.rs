//! Everything subxt: connect, read, watch, submit, wallet.
//!
//! Pallets, calls, storage, errors and types are resolved by name from the live metadata of the
//! block that is read: the runtime renumbers and retypes them several times a year.
//!
//! A read never retries by itself and never fills in a value that it could not read. Every public
//! call carries a deadline; [`ChainError`] says whether the caller may try again.

mod block_time;
mod call;
mod commitments;
mod connect;
mod cost;
mod epoch_state;
mod error;
mod fate;
mod follow;
mod in_flight;
mod line;
mod refusal;
mod roster;
mod shapes;
mod snapshot;
mod submit;
pub mod timelock;
mod view;
mod wallet;
mod wire;

pub use call::{COMMIT_REVEAL_VERSION, Call};
pub use connect::{ChainClient, ChainSettings, Endpoint};
pub use cost::CommitmentTerms;
pub use error::ChainError;
pub use fate::Inclusion;
pub use follow::{Finalised, FinalisedBlocks};
pub use in_flight::{InFlight, Step};
pub use refusal::{Refusal, Remedy, SubmitError};
pub use submit::{Pending, SignedCall};
pub use wallet::{HotkeyPair, LooseMode, WalletError};
pub use wire::WireUsage;
