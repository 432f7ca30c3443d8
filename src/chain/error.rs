//! What went wrong with the chain, one variant per decision that the caller takes.

use crate::bittensor::{BlockHash, Netuid};
use crate::fault::{Fault, Party};
use crate::retry::{Retry, Retryable};
use std::time::Duration;
use subxt::error::{BackendError, OnlineClientAtBlockError, RpcError};
use subxt::rpcs;

/// JSON-RPC code of "unknown block" and "state already discarded".
const CODE_UNKNOWN_BLOCK: i32 = 4003;
/// JSON-RPC codes by which public gateways limit a client.
const CODES_LIMITED: [i32; 2] = [-32004, -32005];
/// A gateway's word about time is not trusted beyond this.
const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

/// The limit that an error tells of: `Some(None)` when it names no time.
pub(super) fn limit_of(error: &rpcs::Error) -> Option<Option<Duration>> {
    match error {
        rpcs::Error::User(e) if CODES_LIMITED.contains(&e.code) => Some(retry_after(e)),
        _ => None,
    }
}

/// `retry_after` of an error's data in seconds: the bare number or a field of that name.
fn retry_after(error: &rpcs::UserError) -> Option<Duration> {
    let data: serde_json::Value = serde_json::from_str(error.data.as_ref()?.get()).ok()?;
    let field = ["retry_after", "retryAfter"]
        .iter()
        .find_map(|k| data.get(k));
    let seconds = field.unwrap_or(&data).as_f64()?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    Some(wait.min(LONGEST_LIMIT))
}

/// Why a chain operation gave no answer. None of these says anything about a miner.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Connection, timeout or overload: the same read may succeed later.
    #[error("{what}: {reason}; the chain endpoint may be down or slow, trying again may help")]
    Transient {
        /// What was attempted.
        what: String,
        /// How it failed.
        reason: String,
    },
    /// An endpoint limits us, or all of them rest after failures.
    #[error("{what}: {reason}; {}", next_request(*after))]
    Limited {
        /// What was attempted.
        what: String,
        /// Who said so, and how.
        reason: String,
        /// How long until any endpoint may be asked. None: only the one that limits us is left alone, and
        /// the connection knows for how long.
        after: Option<Duration>,
    },
    /// The endpoint serves another chain. Nothing may be read from it or sent to it.
    #[error(
        "{endpoint} serves the chain with genesis {found}, but the configuration asks for \
         {expected}; correct the endpoint or the genesis hash"
    )]
    WrongNetwork {
        /// Endpoint as configured.
        endpoint: String,
        /// Genesis hash from the configuration.
        expected: BlockHash,
        /// Genesis hash that the endpoint gave.
        found: BlockHash,
    },
    /// The endpoint's text cannot be used.
    #[error("chain endpoint {endpoint:?} cannot be used: {reason}")]
    BadEndpoint {
        /// Endpoint as configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer has an unknown shape, or a part of it is missing: no part of it may be used.
    #[error(
        "{what} cannot be read: {reason}; keep the last good state, and check whether the runtime \
         was upgraded beyond this version of assay"
    )]
    Unreadable {
        /// What was read.
        what: String,
        /// What was expected or missing.
        reason: String,
    },
    /// The runtime is not the one that this program knows: nothing is signed for it.
    #[error(
        "runtime {spec_version} has unknown shapes: {}; this node only reads until assay is updated, and \
         its weights stay as they are", misfits.join("; ")
    )]
    UnknownShape {
        /// The runtime's version.
        spec_version: u32,
        /// What is gone or holds something else, by name.
        misfits: Vec<String>,
    },
    /// The endpoint does not know the block or no longer keeps its state: read at a newer one.
    #[error(
        "the endpoint does not hold block {block}; read at a newer block, or use an archive node"
    )]
    BlockGone {
        /// The block that was asked for, as hash or number.
        block: String,
    },
    /// No such subnet at that block.
    #[error("subnet {netuid} does not exist at block {block}; check the netuid and the network")]
    NoSuchSubnet {
        /// The subnet asked for.
        netuid: Netuid,
        /// Where it was looked for.
        block: BlockHash,
    },
    /// The node understood the request and refuses it.
    #[error("{what}: the node refuses with code {code}: {message}")]
    Refused {
        /// What was attempted.
        what: String,
        /// JSON-RPC error code.
        code: i32,
        /// The node's words, cut to a bounded length.
        message: String,
    },
}

impl ChainError {
    /// The ledger's form of this error.
    #[must_use]
    pub fn to_fault(&self) -> Fault {
        let (code, retryable) = match self {
            Self::Transient { .. } => ("CHAIN_TRANSIENT", true),
            Self::Limited { .. } => ("CHAIN_LIMITED", true),
            Self::BlockGone { .. } => ("CHAIN_BLOCK_GONE", true),
            Self::WrongNetwork { .. } => ("CHAIN_WRONG_NETWORK", false),
            Self::BadEndpoint { .. } => ("CHAIN_BAD_ENDPOINT", false),
            Self::Unreadable { .. } => ("CHAIN_UNREADABLE", false),
            Self::UnknownShape { .. } => ("CHAIN_UNKNOWN_SHAPE", false),
            Self::NoSuchSubnet { .. } => ("CHAIN_NO_SUCH_SUBNET", false),
            Self::Refused { .. } => ("CHAIN_REFUSED", false),
        };
        Fault {
            party: Party::Chain,
            code: code.to_owned(),
            retryable,
            message: self.to_string(),
        }
    }

    pub(super) fn unreadable(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            what: what.into(),
            reason: bounded(&reason.to_string()),
        }
    }

    pub(super) fn transient(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Transient {
            what: what.into(),
            reason: bounded(&reason.to_string()),
        }
    }

    /// Classifies a failed JSON-RPC request. `block` is what the request was pinned to, if anything.
    pub(super) fn from_rpc(what: &str, block: Option<BlockHash>, error: rpcs::Error) -> Self {
        match error {
            rpcs::Error::User(e) if e.code == CODE_UNKNOWN_BLOCK => Self::BlockGone {
                block: block.map_or_else(|| "asked for".to_owned(), |b| b.to_string()),
            },
            rpcs::Error::User(e) if CODES_LIMITED.contains(&e.code) => Self::Limited {
                what: what.to_owned(),
                reason: format!("code {}: {}", e.code, bounded(&e.message)),
                after: None,
            },
            rpcs::Error::User(e) => Self::Refused {
                what: what.to_owned(),
                code: e.code,
                message: bounded(&e.message),
            },
            // The connection's own errors travel through the RPC client as they are.
            rpcs::Error::Client(e) => match e.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::transient(what, other),
            },
            rpcs::Error::Deserialization(e) => Self::unreadable(what, e),
            rpcs::Error::Decode(e) => Self::unreadable(what, e),
            other => Self::transient(what, other),
        }
    }

    /// Classifies a failure to learn a block's runtime version and metadata.
    pub(super) fn from_at_block(block: BlockHash, error: OnlineClientAtBlockError) -> Self {
        use OnlineClientAtBlockError as E;
        let what = format!("the runtime at block {block}");
        match error {
            E::CannotGetCurrentBlock { reason }
            | E::CannotGetBlockHash { reason, .. }
            | E::CannotGetBlockHeader { reason, .. }
            | E::CannotGetSpecVersion { reason, .. } => match reason {
                BackendError::Rpc(RpcError::ClientError(e)) => {
                    Self::from_rpc(&what, Some(block), e)
                }
                other => Self::transient(what, other),
            },
            E::CannotGetMetadata { reason, .. } => Self::transient(what, reason),
            other => Self::unreadable(what, other),
        }
    }
}

impl Retryable for ChainError {
    fn retry(&self) -> Retry {
        match self {
            Self::Transient { .. } | Self::BlockGone { .. } | Self::Limited { after: None, .. } => {
                Retry::Now
            }
            Self::Limited {
                after: Some(after), ..
            } => Retry::After(*after),
            _ => Retry::Never,
        }
    }
}

fn next_request(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!("the next request may go out in {after:?}"),
        None => {
            "this endpoint is left alone for a while, the next request may go to another".to_owned()
        }
    }
}

/// Text from the network, short enough to log and store.
pub(super) fn bounded(text: &str) -> String {
    const LIMIT: usize = 300;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    text.chars().take(LIMIT).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(code: i32) -> rpcs::Error {
        rpcs::Error::User(rpcs::UserError {
            code,
            message: "x".repeat(1000),
            data: None,
        })
    }

    #[test]
    fn codes_decide_never_texts() {
        let at = Some(BlockHash([1; 32]));
        let gone = ChainError::from_rpc("a read", at, user(4003));
        assert!(matches!(&gone, ChainError::BlockGone { block } if block.starts_with("0x01")));
        assert!(gone.to_fault().retryable);
        let limited = ChainError::from_rpc("a read", at, user(-32005));
        assert!(matches!(limited, ChainError::Limited { after: None, .. }));
        // The endpoint rests, the reader need not.
        assert_eq!(limited.retry(), Retry::Now);
        assert_eq!(limit_of(&user(-32005)), Some(None));
        for data in ["{\"retry_after\": 3}", "3"] {
            let mut named = rpcs::UserError {
                code: -32005,
                message: "slow down".to_owned(),
                data: None,
            };
            named.data = Some(serde_json::value::RawValue::from_string(data.to_owned()).unwrap());
            let named = limit_of(&rpcs::Error::User(named));
            assert_eq!(named, Some(Some(Duration::from_secs(3))));
        }
        let refused = ChainError::from_rpc("a read", at, user(-32601));
        assert!(
            matches!(&refused, ChainError::Refused { code: -32601, message, .. } if message.len() < 400)
        );
        assert_eq!(refused.retry(), Retry::Never);
        let lost = rpcs::Error::DisconnectedWillReconnect("closed".into());
        assert_eq!(
            ChainError::from_rpc("a read", None, lost).retry(),
            Retry::Now
        );
    }

    #[test]
    fn a_fault_names_the_chain() {
        let fault = ChainError::unreadable("the metagraph", "no field hotkeys").to_fault();
        assert_eq!(
            (fault.party, fault.code.as_str()),
            (Party::Chain, "CHAIN_UNREADABLE")
        );
        assert!(!fault.retryable);
    }
}
