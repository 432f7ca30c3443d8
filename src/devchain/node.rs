//! The chain shared between sealing, RPC and tests.

use super::chain::Chain;
use super::error::DevChainError;
use super::faults::Faults;
use super::journal::Journal;
use crate::clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The chain, its journal, and the news of new heads.
#[derive(Debug)]
pub(super) struct Node {
    chain: Mutex<(Chain, Option<Journal>)>,
    head: watch::Sender<u32>,
    pub(super) faults: Faults,
}

/// Access to the chain; no await while it lives.
pub(super) struct Locked<'a>(MutexGuard<'a, (Chain, Option<Journal>)>);

impl std::ops::Deref for Locked<'_> {
    type Target = Chain;
    fn deref(&self) -> &Chain {
        &self.0.0
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Chain {
        &mut self.0.0
    }
}

impl Node {
    pub(super) fn new(chain: Chain, journal: Option<Journal>) -> Self {
        let (head, _) = watch::channel(chain.head().header.number);
        Self {
            chain: Mutex::new((chain, journal)),
            head,
            faults: Faults::default(),
        }
    }

    pub(super) fn chain(&self) -> Locked<'_> {
        // A panic under the lock is a bug of this chain; what it holds is still one whole block.
        Locked(self.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seals the next block, writes it down, and tells the subscribers.
    pub(super) fn seal(&self) -> Result<(u32, [u8; 32]), DevChainError> {
        let sealed = {
            let mut locked = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            let record = locked.0.seal(clock::now_ms())?;
            if let Some(journal) = &mut locked.1 {
                journal.append(&record)?;
            }
            (record.block.header.number, record.block.hash)
        };
        self.head.send_replace(sealed.0);
        Ok(sealed)
    }

    /// Numbers of new heads as they come; a slow reader sees only the latest.
    pub(super) fn heads(&self) -> watch::Receiver<u32> {
        self.head.subscribe()
    }
}
