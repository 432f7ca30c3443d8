//! Everything subxt: connect, read, watch, submit, wallet.
