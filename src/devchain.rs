//! A small truthful subtensor over JSON-RPC. Never imports [`crate::chain`].
