//! A second root of this crate: only what reads the text and bytes of others and decides on them,
//! without chain, store and servers. `fuzz/` builds it alone, since the whole takes minutes.

pub mod admission;
pub mod bittensor;
pub mod fault;
pub mod incentive;
