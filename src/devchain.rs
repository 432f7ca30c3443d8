//! A small truthful subtensor over JSON-RPC. Never imports [`crate::chain`].
//!
//! It runs on real metadata, lays storage out as the chain does, and checks extrinsics as the
//! runtime does, so that subxt and the Python SDKs talk to it unmodified. What it leaves out: state
//! proofs, fees by weight, stake movement, bonds, parent and child keys, and every call that no
//! validator or miner of a model subnet sends (such a call fails with `System.CallFiltered`).
//!
//! ```no_run
//! # async fn example() -> Result<(), assay::devchain::DevChainError> {
//! use assay::devchain::{DevChain, Genesis, Options};
//! let chain = DevChain::start(Genesis::dev(), Options::default()).await?;
//! println!("{}", chain.url());
//! chain.seal()?;
//! # Ok(())
//! # }
//! ```

mod account;
mod admin;
mod beacon;
mod block;
mod chain;
mod commitments;
mod dispatch;
mod epoch;
mod error;
mod extrinsic;
mod faults;
mod genesis;
mod journal;
mod layout;
mod metadata_versions;
mod metagraph;
mod neurons;
mod node;
mod pool;
mod registration;
mod reveal;
mod rpc;
mod runtime;
mod runtime_api;
mod server;
mod state;
mod storage;
mod subnet;
mod subscriptions;
mod upgrade;
mod weights;

pub use chain::Snapshot;
pub use error::DevChainError;
pub use faults::{Faults, RpcFault};
pub use genesis::{Genesis, GenesisBalance, GenesisNeuron, GenesisSubnet, account_id, dev_key};
pub use upgrade::Upgrade;

use crate::bittensor::{BlockHash, BlockNumber, BlockRef};
use chain::Chain;
use journal::Journal;
use node::Node;
use runtime::Runtime;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Metadata of spec 365, see `metadata/README.md`.
const METADATA: &[u8] = include_bytes!("../metadata/finney-365.scale");

/// When blocks are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// One block each genesis block time.
    Interval,
    /// Only by [`DevChain::seal`] (or `dev_seal` over the wire).
    Manual,
}

/// How a dev chain runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// When blocks are sealed.
    pub sealing: Sealing,
    /// The finalised head is this many blocks behind the head.
    pub finality_lag: u32,
    /// States kept behind the head; older ones answer "State already discarded".
    pub keep_states: usize,
    /// Raw metadata (V15 or V16) instead of the built-in spec 365.
    pub metadata: Option<PathBuf>,
    /// Where the journal lives; absent: memory only.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            sealing: Sealing::Interval,
            finality_lag: 2,
            keep_states: 300,
            metadata: None,
            dir: None,
        }
    }
}

/// What the chain begins with.
#[derive(Debug, Clone)]
pub enum Start {
    /// A genesis of our own.
    Genesis(Genesis),
    /// A recorded state; the journal is not used.
    Snapshot(Snapshot),
}

impl From<Genesis> for Start {
    fn from(genesis: Genesis) -> Self {
        Self::Genesis(genesis)
    }
}

impl From<Snapshot> for Start {
    fn from(snapshot: Snapshot) -> Self {
        Self::Snapshot(snapshot)
    }
}

/// A running dev chain. Dropping it stops sealing and serving and frees the port.
#[derive(Debug)]
pub struct DevChain {
    node: Arc<Node>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl DevChain {
    /// Starts a chain and serves it. With `dir`, a chain that was killed goes on at the same head.
    ///
    /// # Errors
    /// [`DevChainError`] for unusable metadata, genesis, journal or address.
    pub async fn start(start: impl Into<Start>, options: Options) -> Result<Self, DevChainError> {
        let start = start.into();
        let block_time = match &start {
            Start::Genesis(genesis) => genesis.block_time,
            Start::Snapshot(_) => Duration::from_secs(12),
        };
        let node = Arc::new(open(start, &options)?);
        let (address, serving) = server::bind(node.clone(), options.listen).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serving);
        if options.sealing == Sealing::Interval {
            tasks.spawn(seal_each(node.clone(), block_time));
        }
        Ok(Self {
            node,
            address,
            _tasks: tasks,
        })
    }

    /// The WebSocket address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Seals one block now.
    ///
    /// # Errors
    /// [`DevChainError`] when the journal cannot be written or the metadata lacks a block's needs.
    pub fn seal(&self) -> Result<BlockRef, DevChainError> {
        let (number, hash) = self.node.seal()?;
        Ok(block_ref(number, hash))
    }

    /// Changes the runtime from the next block on. Not kept by a journal.
    ///
    /// # Errors
    /// [`DevChainError::Metadata`] when the present metadata has not what is to be changed, or the chain
    /// keeps a journal.
    pub fn upgrade(&self, upgrade: &Upgrade) -> Result<(), DevChainError> {
        self.node.upgrade(upgrade)
    }

    /// Replaces the newest `depth` blocks by empty ones; their calls wait in the pool again.
    ///
    /// # Errors
    /// [`DevChainError::Reorganisation`] when some of them are final or the chain keeps a journal.
    pub fn reorganise(&self, depth: u32) -> Result<(), DevChainError> {
        self.node.reorganise(depth)
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> BlockRef {
        let chain = self.node.chain();
        block_ref(chain.head().header.number, chain.head().hash)
    }

    /// Waits for a head above `number` and returns it; ends at once when there is one.
    pub async fn head_above(&self, number: BlockNumber) -> BlockRef {
        // The node that is waited for holds the sender, so waiting cannot fail.
        let _ = self
            .node
            .heads()
            .wait_for(|n| u64::from(*n) > number.0)
            .await;
        self.head()
    }

    /// The newest finalised block.
    #[must_use]
    pub fn finalized(&self) -> BlockRef {
        let chain = self.node.chain();
        let block = chain.finalized();
        block_ref(block.header.number, block.hash)
    }

    /// Hash of block 0.
    #[must_use]
    pub fn genesis_hash(&self) -> BlockHash {
        BlockHash(self.node.chain().genesis_hash)
    }

    /// Extrinsics waiting in the pool.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.node.chain().pool.extrinsics().count()
    }

    /// Public key of the chain's own beacon, 96 bytes; `None` for a chain that goes on from a
    /// recorded state.
    #[must_use]
    pub fn beacon_public_key(&self) -> Option<Vec<u8>> {
        self.node.chain().beacon().map(beacon::Beacon::public_key)
    }

    /// While `withheld`, no pulse of the beacon is stored, so that commits cannot be revealed.
    pub fn withhold_pulses(&self, withheld: bool) {
        self.node.chain().withholds_pulses = withheld;
    }

    /// The handle that disturbs the RPC.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.node.faults.clone()
    }
}

fn block_ref(number: u32, hash: [u8; 32]) -> BlockRef {
    BlockRef {
        number: BlockNumber(u64::from(number)),
        hash: BlockHash(hash),
    }
}

fn open(start: Start, options: &Options) -> Result<Node, DevChainError> {
    let bytes = match &options.metadata {
        Some(path) => std::fs::read(path)
            .map_err(|e| DevChainError::io(format!("cannot read {}", path.display()), e))?,
        None => METADATA.to_vec(),
    };
    let (keep, lag) = (options.keep_states, options.finality_lag);
    match start {
        Start::Snapshot(snapshot) => {
            let runtime = Arc::new(Runtime::new(&bytes, None)?);
            let chain = Chain::from_snapshot(runtime, snapshot, keep, lag);
            Ok(Node::new(chain, None))
        }
        Start::Genesis(genesis) => {
            let runtime = Arc::new(Runtime::new(&bytes, Some(genesis.block_time))?);
            let mut chain = Chain::from_genesis(runtime, &genesis, keep, lag)?;
            let journal = match &options.dir {
                Some(dir) => {
                    let genesis_hash = chain.genesis_hash;
                    let journal = Journal::open(dir, &genesis_hash, |r| chain.replay(r))?;
                    Some(journal)
                }
                None => None,
            };
            Ok(Node::new(chain, journal))
        }
    }
}

async fn seal_each(node: Arc<Node>, block_time: Duration) {
    let mut ticks = tokio::time::interval(block_time.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = node.seal() {
            tracing::error!(%error, "no block could be sealed; the dev chain stands still");
            return;
        }
    }
}
