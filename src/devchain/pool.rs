//! The transaction pool: what waits for a block, and the node's answers to submissions.

use super::block::{Hash, hex0x};
use super::extrinsic::{Invalid, Signed};
use std::collections::{HashSet, VecDeque};

/// Transactions that may wait; a node's pool is bounded too.
const LIMIT: usize = 8192;
/// Hashes of transactions that became invalid, refused for a while.
const BANNED: usize = 1024;

/// Why a submission was refused, as the node's RPC says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 1001: no extrinsic at all.
    Format(String),
    /// 1002: the runtime could not read it.
    Unreadable(String),
    /// 1010.
    Invalid(Invalid),
    /// 1012.
    Banned,
    /// 1013.
    Known(Hash),
    /// 1014: same account and nonce.
    Priority,
    /// 1016.
    Full,
    /// A fault of this chain.
    Internal(String),
}

impl Refusal {
    /// Code, message and data of the RPC error.
    pub(super) fn rpc(&self) -> (i32, String, Option<String>) {
        let plain = |code, text: &str, data: &str| (code, text.to_owned(), Some(data.to_owned()));
        match self {
            Self::Format(why) => (1001, format!("Extrinsic has invalid format: {why}"), None),
            Self::Unreadable(why) => (1002, format!("Verification Error: {why}"), None),
            Self::Invalid(invalid) => {
                (1010, "Invalid Transaction".to_owned(), Some(invalid.text()))
            }
            Self::Banned => (1012, "Transaction is temporarily banned".to_owned(), None),
            Self::Known(hash) => plain(1013, "Transaction Already Imported", &hex0x(hash)),
            Self::Priority => plain(
                1014,
                "Priority is too low: (1 vs 1)",
                "The transaction has too low priority to replace another transaction already in the pool.",
            ),
            Self::Full => plain(
                1016,
                "Immediately Dropped",
                "The transaction couldn't enter the pool because of the limit",
            ),
            Self::Internal(why) => (-32603, format!("Internal error: {why}"), None),
        }
    }
}

/// A waiting transaction.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) signed: Signed,
    /// First block that may no longer include it.
    pub(super) death: u64,
}

/// The pool, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Vec<Waiting>,
    banned: VecDeque<Hash>,
}

impl Pool {
    /// Takes a validated transaction.
    pub(super) fn insert(&mut self, signed: Signed, death: u64) -> Result<(), Refusal> {
        if self.waiting.len() >= LIMIT {
            return Err(Refusal::Full);
        }
        if self
            .waiting
            .iter()
            .any(|w| w.signed.who == signed.who && w.signed.nonce == signed.nonce)
        {
            return Err(Refusal::Priority);
        }
        self.waiting.push(Waiting { signed, death });
        Ok(())
    }

    /// Refuses what is in the pool already or was lately found invalid.
    pub(super) fn check_hash(&self, hash: &Hash) -> Result<(), Refusal> {
        if self.contains(hash) {
            return Err(Refusal::Known(*hash));
        }
        if self.banned.contains(hash) {
            return Err(Refusal::Banned);
        }
        Ok(())
    }

    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.waiting.iter().any(|w| w.signed.hash == *hash)
    }

    /// Removes the first transaction that `pick` accepts.
    pub(super) fn take(&mut self, pick: impl Fn(&Signed) -> bool) -> Option<Waiting> {
        let at = self.waiting.iter().position(|w| pick(&w.signed))?;
        Some(self.waiting.remove(at))
    }

    /// Drops what `keep` refuses and bans it for a while.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Waiting) -> bool) {
        let mut dropped = Vec::new();
        self.waiting.retain(|w| {
            let stays = keep(w);
            if !stays {
                dropped.push(w.signed.hash);
            }
            stays
        });
        dropped.into_iter().for_each(|hash| self.ban(hash));
    }

    pub(super) fn ban(&mut self, hash: Hash) {
        self.banned.push_back(hash);
        while self.banned.len() > BANNED {
            self.banned.pop_front();
        }
    }

    /// All waiting transactions as they travel.
    pub(super) fn extrinsics(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.iter().map(|w| w.signed.bytes.as_slice())
    }

    /// The next free nonce of `who`, counting the waiting ones without a gap.
    pub(super) fn next_nonce(&self, who: &[u8; 32], on_chain: u32) -> u32 {
        let taken: HashSet<u32> = self
            .waiting
            .iter()
            .filter(|w| w.signed.who == *who)
            .map(|w| w.signed.nonce)
            .collect();
        (on_chain..)
            .find(|nonce| !taken.contains(nonce))
            .unwrap_or(on_chain)
    }
}
