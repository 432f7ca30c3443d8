//! Why a call is not known to be done, and what the pool's refusals ask of the sender.

use super::error::{ChainError, bounded};
use super::submit::Pending;
use crate::bittensor::{BlockRef, Netuid};
use crate::fault::{Fault, Party};
use subxt::rpcs;

/// JSON-RPC codes of the transaction pool.
const CODE_INVALID: i32 = 1010;
const CODE_BANNED: i32 = 1012;
const CODE_ALREADY_IMPORTED: i32 = 1013;
const CODE_PRIORITY_TOO_LOW: i32 = 1014;
const CODE_POOL_FULL: i32 = 1016;

/// The pool's reasons, by code and by the runtime's own number or words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 1010: the nonce is used already.
    Stale,
    /// 1010: signed for another runtime version, another chain or another birth block.
    BadSignature,
    /// 1010: the birth block is too old or not on this chain.
    AncientBirthBlock,
    /// 1010 with subtensor's own number.
    Custom(u8),
    /// 1012: these bytes were found invalid a while ago.
    Banned,
    /// 1013: these bytes are in the pool already.
    AlreadyImported,
    /// 1014: another call with this nonce is in the pool.
    PriorityTooLow,
    /// 1016: no room.
    PoolFull,
    /// Any other.
    Other,
}

/// What a refusal asks of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Sign anew at once, with fresh nonce, era and runtime version.
    SignAnew,
    /// Sign anew after a pause; a tip would buy nothing.
    Pause,
    /// Wait for the call that holds the nonce: until it is in a block or its era is over.
    AwaitFirst,
    /// Wait until `last_update` is one rate limit old.
    AwaitRateLimit,
    /// Compute the reveal round anew, then sign.
    RecomputeRound,
    /// No new try helps before a person or the chain has changed something.
    Stop,
}

impl Refusal {
    /// Classifies the pool's answer. Subtensor's own number comes as the text `Custom error: n`
    /// only, the other kinds of 1010 as the standard node's fixed words.
    #[must_use]
    pub fn classify(code: i32, data: Option<&str>) -> Self {
        match (code, data) {
            (CODE_INVALID, Some("Transaction is outdated")) => Self::Stale,
            (CODE_INVALID, Some("Transaction has a bad signature")) => Self::BadSignature,
            (CODE_INVALID, Some("Transaction has an ancient birth block")) => {
                Self::AncientBirthBlock
            }
            (CODE_INVALID, Some(text)) => text
                .strip_prefix("Custom error: ")
                .and_then(|n| n.parse().ok())
                .map_or(Self::Other, Self::Custom),
            (CODE_BANNED, _) => Self::Banned,
            (CODE_ALREADY_IMPORTED, _) => Self::AlreadyImported,
            (CODE_PRIORITY_TOO_LOW, _) => Self::PriorityTooLow,
            (CODE_POOL_FULL, _) => Self::PoolFull,
            _ => Self::Other,
        }
    }

    /// What to do. The numbers are those of subtensor's `CustomTransactionError`: 6
    /// `RateLimitExceeded`, 15 `InvalidRevealRound`; the others name a lack of stake, registration,
    /// subnet or balance.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        match self {
            Self::Stale | Self::BadSignature | Self::AncientBirthBlock => Remedy::SignAnew,
            Self::Banned | Self::PoolFull => Remedy::Pause,
            Self::AlreadyImported | Self::PriorityTooLow => Remedy::AwaitFirst,
            Self::Custom(6) => Remedy::AwaitRateLimit,
            Self::Custom(15) => Remedy::RecomputeRound,
            Self::Custom(_) | Self::Other => Remedy::Stop,
        }
    }
}

/// Why a call is not known to be done, one variant per decision.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The subnet demands commit-reveal: plain weights were not sent.
    #[error("subnet {0} demands commit-reveal; plain weights were not sent")]
    CommitRevealDemanded(Netuid),
    /// The call itself is malformed; nothing was sent.
    #[error("the call was not sent: {0}")]
    BadCall(String),
    /// The node's pool refused it: nothing entered a block.
    #[error("the pool refused the call with code {code} ({refusal:?}): {message}")]
    Pool {
        /// JSON-RPC code, 1010 for an invalid transaction.
        code: i32,
        /// What it means, and by [`Refusal::remedy`] what to do.
        refusal: Refusal,
        /// The node's words, bounded.
        message: String,
    },
    /// It entered a finalised block and failed there.
    #[error("the call failed in block {} with {pallet}.{error}", block.number)]
    Dispatch {
        /// Pallet that failed, or `System` for errors outside of pallets.
        pallet: String,
        /// Error's name in the metadata.
        error: String,
        /// The block.
        block: BlockRef,
    },
    /// It never was in a finalised block and can never be: signing anew is safe.
    #[error("nonce {} was not used by this call and its era is over or its nonce is taken", .0.nonce)]
    NeverIncluded(Pending),
    /// Nobody knows yet. Signing anew could do the same thing twice: settle first.
    #[error("the fate of nonce {} is not known; settle it before signing anew", .0.nonce)]
    FateUnknown(Pending),
    /// The chain could not be read; nothing was sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// What a pallet's error in a block asks of the sender, by the error's name.
fn after_dispatch(pallet: &str, error: &str) -> Remedy {
    match (pallet, error) {
        ("SubtensorModule", "SettingWeightsTooFast" | "CommittingWeightsTooFast") => {
            Remedy::AwaitRateLimit
        }
        // The subnet changed its mind between the snapshot and the block: the other form is due.
        ("SubtensorModule", "CommitRevealEnabled" | "CommitRevealDisabled") => Remedy::SignAnew,
        ("SubtensorModule", "InvalidRevealRound") => Remedy::RecomputeRound,
        // Stake, permit, registration, version, or the vector itself: the same call fails again.
        ("SubtensorModule" | "Commitments", _) => Remedy::Stop,
        // Not about the call: a filter, weight or resource of the block.
        _ => Remedy::Pause,
    }
}

impl SubmitError {
    /// What to do, for everything that can go wrong with a call.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Pool { refusal, .. } => refusal.remedy(),
            Self::Dispatch { pallet, error, .. } => after_dispatch(pallet, error),
            Self::CommitRevealDemanded(_) | Self::NeverIncluded(_) | Self::Chain(_) => {
                Remedy::SignAnew
            }
            Self::FateUnknown(_) => Remedy::AwaitFirst,
            Self::BadCall(_) => Remedy::Stop,
        }
    }

    /// The pool's answer.
    pub(super) fn from_pool(error: &rpcs::UserError) -> Self {
        let data: Option<String> = error
            .data
            .as_ref()
            .and_then(|d| serde_json::from_str(d.get()).ok());
        let refusal = Refusal::classify(error.code, data.as_deref());
        let message = match data {
            Some(data) if !error.message.contains(&data) => format!("{}: {data}", error.message),
            _ => error.message.clone(),
        };
        Self::Pool {
            code: error.code,
            refusal,
            message: bounded(&message),
        }
    }

    /// The ledger's form of this error.
    #[must_use]
    pub fn to_fault(&self) -> Fault {
        let code = match self {
            Self::Chain(error) => return error.to_fault(),
            Self::CommitRevealDemanded(_) => "CHAIN_COMMIT_REVEAL",
            Self::BadCall(_) => "CHAIN_BAD_CALL",
            Self::Pool { .. } => "CHAIN_POOL",
            Self::Dispatch { .. } => "CHAIN_DISPATCH",
            Self::NeverIncluded(_) => "CHAIN_NEVER_INCLUDED",
            Self::FateUnknown(_) => "CHAIN_FATE_UNKNOWN",
        };
        Fault {
            party: Party::Chain,
            code: code.to_owned(),
            retryable: self.remedy() != Remedy::Stop,
            message: self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        let cases = [
            (
                1010,
                "Transaction is outdated",
                Refusal::Stale,
                Remedy::SignAnew,
            ),
            (
                1010,
                "Transaction has a bad signature",
                Refusal::BadSignature,
                Remedy::SignAnew,
            ),
            (
                1010,
                "Transaction has an ancient birth block",
                Refusal::AncientBirthBlock,
                Remedy::SignAnew,
            ),
            (1010, "Custom error: 1", Refusal::Custom(1), Remedy::Stop),
            (
                1010,
                "Custom error: 6",
                Refusal::Custom(6),
                Remedy::AwaitRateLimit,
            ),
            (
                1010,
                "Custom error: 15",
                Refusal::Custom(15),
                Remedy::RecomputeRound,
            ),
            (1010, "Custom error: 256", Refusal::Other, Remedy::Stop),
            (1012, "", Refusal::Banned, Remedy::Pause),
            (1013, "0x12", Refusal::AlreadyImported, Remedy::AwaitFirst),
            (1014, "", Refusal::PriorityTooLow, Remedy::AwaitFirst),
            (1016, "", Refusal::PoolFull, Remedy::Pause),
            (1002, "", Refusal::Other, Remedy::Stop),
        ];
        for (code, data, refusal, remedy) in cases {
            let found = Refusal::classify(code, Some(data));
            assert_eq!((found, found.remedy()), (refusal, remedy), "{code} {data}");
        }
    }
}
