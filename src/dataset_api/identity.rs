//! Who is who: signatures, tokens, and what the metagraph says about a key.

pub mod challenge;
pub mod registry;
pub mod signature;
pub mod tokens;
