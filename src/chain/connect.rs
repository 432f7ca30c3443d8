//! Connecting, checking the network, and the plain questions about blocks.

use super::error::ChainError;
use super::shapes;
use super::view::View;
use super::wire::{Wire, WireUsage};
use crate::bittensor::{BlockHash, BlockNumber, BlockRef};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subxt::backend::LegacyBackend;
use subxt::config::{RpcConfigFor, SubstrateConfig};
use subxt::rpcs::RpcClient;
use subxt::rpcs::methods::legacy::LegacyRpcMethods;
use subxt::utils::H256;
use subxt::{OnlineClient, config::Header as _};

pub(super) type Rpc = LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>;

/// One way to the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// WebSocket URL; plain `ws://` on loopback only.
    pub url: String,
    /// Shared with others: asked at most once per second, and left alone for long after a failure.
    pub public: bool,
}

impl Endpoint {
    /// An endpoint of one's own, asked as often as needed.
    pub fn own(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            public: false,
        }
    }
}

/// How to reach the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSettings {
    /// Endpoints in order of preference, the own node first.
    pub endpoints: Vec<Endpoint>,
    /// Genesis hash that every endpoint must have; `None` takes the first one's (trials only).
    pub genesis: Option<BlockHash>,
    /// Longest that one read may take, all its requests and a reconnection included.
    pub request_timeout: Duration,
    /// The chain's block time: what silence, rests and eras are measured in.
    pub block_time: Duration,
}

/// A client of one chain over one connection at a time. Clones share it.
#[derive(Clone)]
pub struct ChainClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: ChainSettings,
    pub(super) api: OnlineClient<SubstrateConfig>,
    pub(super) rpc: Rpc,
    pub(super) wire: Wire,
    pub(super) genesis: BlockHash,
    /// What each runtime version seen so far lacks.
    shapes: Mutex<HashMap<u32, Arc<Vec<String>>>>,
    /// Held while a nonce is taken and its transaction enters the pool.
    pub(super) signing: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for ChainClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainClient")
            .field("endpoint", &self.endpoint())
            .field("genesis", &self.inner.genesis)
            .finish_non_exhaustive()
    }
}

impl ChainClient {
    /// Connects to the first endpoint that answers, and checks its genesis hash. From then on every
    /// request goes over one connection to the most preferred healthy endpoint; one that breaks off,
    /// falls silent, lags, limits us or serves another chain is left alone for a growing, jittered
    /// time, or for as long as it asks.
    ///
    /// # Errors
    /// [`ChainError::WrongNetwork`] at once when the first endpoint that answers serves another
    /// chain: a list that mixes networks is a mistake. Otherwise what the last endpoint tried said.
    pub async fn connect(settings: &ChainSettings) -> Result<Self, ChainError> {
        let wire = Wire::new(settings)?;
        let genesis = wire.connect().await?;
        let client = RpcClient::new(wire.clone());
        let rpc = Rpc::new(client.clone());
        let config = SubstrateConfig::builder()
            .set_genesis_hash(H256(genesis.0))
            .build();
        let backend = LegacyBackend::builder().build(client);
        let api = OnlineClient::from_backend_with_config(config, Arc::new(backend))
            .await
            .map_err(|e| ChainError::transient("connecting to the chain", e))?;
        Ok(Self {
            inner: Arc::new(Inner {
                settings: settings.clone(),
                api,
                rpc,
                wire,
                genesis,
                shapes: Mutex::default(),
                signing: Arc::default(),
            }),
        })
    }

    /// The chain's block time, as configured.
    #[must_use]
    pub fn block_time(&self) -> Duration {
        self.inner.settings.block_time
    }

    /// Genesis hash of the connected chain.
    #[must_use]
    pub fn genesis(&self) -> BlockHash {
        self.inner.genesis
    }

    /// The endpoint last connected to.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.inner.wire.endpoint()
    }

    /// Requests and bytes so far, over all connections.
    #[must_use]
    pub fn usage(&self) -> WireUsage {
        self.inner.wire.usage()
    }

    /// The latest finalised block. Two requests.
    ///
    /// # Errors
    /// [`ChainError::Transient`] mostly.
    pub async fn finalised_head(&self) -> Result<BlockRef, ChainError> {
        self.read("reading the finalised head", async {
            let failed = |e| ChainError::from_rpc("reading the finalised head", None, e);
            let rpc = &self.inner.rpc;
            let hash = rpc.chain_get_finalized_head().await.map_err(failed)?;
            self.block_at(BlockHash(hash.0)).await
        })
        .await
    }

    /// The hash of the best chain's block `number`; `None` when the chain is not that long yet.
    ///
    /// # Errors
    /// [`ChainError::Transient`] mostly.
    pub async fn block_hash(&self, number: BlockNumber) -> Result<Option<BlockHash>, ChainError> {
        let what = "reading a block hash";
        self.read(what, async {
            let answer = self
                .inner
                .rpc
                .chain_get_block_hash(Some(number.0.into()))
                .await;
            let hash = answer.map_err(|e| ChainError::from_rpc(what, None, e))?;
            Ok(hash.map(|h| BlockHash(h.0)))
        })
        .await
    }

    /// Number and hash of the block with that hash. One request, no deadline of its own.
    pub(super) async fn block_at(&self, hash: BlockHash) -> Result<BlockRef, ChainError> {
        let answer = self.inner.rpc.chain_get_header(Some(H256(hash.0))).await;
        let header = answer
            .map_err(|e| ChainError::from_rpc("reading a header", Some(hash), e))?
            .ok_or_else(|| ChainError::BlockGone {
                block: hash.to_string(),
            })?;
        Ok(BlockRef {
            number: BlockNumber(header.number()),
            hash,
        })
    }

    /// What is needed to read at `block`: one request, and the metadata once per runtime version.
    pub(super) async fn view(&self, block: BlockRef) -> Result<View, ChainError> {
        let at = self
            .inner
            .api
            .at_block_hash_and_number(H256(block.hash.0), block.number.0)
            .await
            .map_err(|e| ChainError::from_at_block(block.hash, e))?;
        Ok(View::new(self.inner.rpc.clone(), at, block))
    }

    /// Whether the runtime at `at` has every shape that this program relies on, by name. One request;
    /// the list is gone through once per runtime version.
    ///
    /// # Errors
    /// [`ChainError::UnknownShape`] names what does not fit: until that is mended nothing is signed.
    pub async fn check_runtime(&self, at: BlockRef) -> Result<(), ChainError> {
        self.read("checking the runtime", async {
            self.fits(&self.view(at).await?)
        })
        .await
    }

    pub(super) fn fits(&self, view: &View) -> Result<(), ChainError> {
        let spec_version = view.at.spec_version();
        let mut known = self
            .inner
            .shapes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let misfits = known.entry(spec_version).or_insert_with(|| {
            let misfits = shapes::misfits(view.metadata());
            if misfits.is_empty() {
                tracing::info!(
                    spec_version,
                    "the runtime has every shape that is relied on"
                );
            } else {
                tracing::error!(
                    spec_version,
                    misfits = misfits.join("; "),
                    "unknown runtime: nothing will be signed"
                );
            }
            Arc::new(misfits)
        });
        if misfits.is_empty() {
            return Ok(());
        }
        Err(ChainError::UnknownShape {
            spec_version,
            misfits: misfits.to_vec(),
        })
    }

    /// Puts a read under the configured deadline. A line that lets it pass is left: pings may still be
    /// answered by a gateway whose node is not there any more.
    pub(super) async fn read<T>(
        &self,
        what: &str,
        reading: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let limit = self.inner.settings.request_timeout;
        let begun = Instant::now();
        match tokio::time::timeout(limit, reading).await {
            Ok(result) => result,
            Err(_) => {
                let reason = format!("no answer within {limit:?}");
                self.inner.wire.give_up(&reason, begun).await;
                Err(ChainError::transient(what, reason))
            }
        }
    }
}
