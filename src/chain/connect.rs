//! Connecting, checking the network, and the plain questions about blocks.

use super::error::ChainError;
use super::view::View;
use super::wire::{Meter, Wire, WireUsage};
use crate::bittensor::{BlockHash, BlockNumber, BlockRef};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use subxt::backend::LegacyBackend;
use subxt::config::{RpcConfigFor, SubstrateConfig};
use subxt::rpcs::RpcClient;
use subxt::rpcs::methods::legacy::LegacyRpcMethods;
use subxt::utils::H256;
use subxt::{OnlineClient, config::Header as _};

pub(super) type Rpc = LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>;

/// How to reach the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSettings {
    /// WebSocket endpoints in order of preference; plain `ws://` on loopback only.
    pub endpoints: Vec<String>,
    /// Genesis hash that the endpoint must have; `None` accepts any chain (trials only).
    pub genesis: Option<BlockHash>,
    /// Longest that one read may take, all its requests and a reconnection included.
    pub request_timeout: Duration,
    /// The chain's block time: what silence and eras are measured in.
    pub block_time: Duration,
}

/// One connection to one subtensor node. Clones share it.
#[derive(Clone)]
pub struct ChainClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: ChainSettings,
    pub(super) api: OnlineClient<SubstrateConfig>,
    pub(super) rpc: Rpc,
    pub(super) genesis: BlockHash,
    /// Held while a nonce is taken and its transaction enters the pool.
    pub(super) signing: Arc<tokio::sync::Mutex<()>>,
    endpoint: String,
    meter: Arc<Meter>,
}

impl std::fmt::Debug for ChainClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainClient")
            .field("endpoint", &self.inner.endpoint)
            .field("genesis", &self.inner.genesis)
            .finish_non_exhaustive()
    }
}

impl ChainClient {
    /// Connects to the first endpoint that answers, and checks its genesis hash.
    ///
    /// # Errors
    /// [`ChainError::WrongNetwork`] at once when an endpoint serves another chain: a list that mixes
    /// networks is a mistake. Otherwise the error of the last endpoint tried.
    pub async fn connect(settings: &ChainSettings) -> Result<Self, ChainError> {
        let mut last = ChainError::BadEndpoint {
            endpoint: String::new(),
            reason: "the list of endpoints is empty".to_owned(),
        };
        for endpoint in &settings.endpoints {
            match Self::connect_to(endpoint, settings).await {
                Ok(client) => return Ok(client),
                Err(error @ ChainError::WrongNetwork { .. }) => return Err(error),
                Err(error) => {
                    tracing::debug!(endpoint, %error, "endpoint passed over");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn connect_to(endpoint: &str, settings: &ChainSettings) -> Result<Self, ChainError> {
        let meter = Arc::new(Meter::default());
        let wire = Wire::open(endpoint, settings.request_timeout, Arc::clone(&meter)).await?;
        let client = RpcClient::new(wire);
        let rpc = Rpc::new(client.clone());
        let genesis = within(
            settings.request_timeout,
            "reading the genesis hash",
            async {
                rpc.genesis_hash()
                    .await
                    .map_err(|e| ChainError::from_rpc("reading the genesis hash", None, e))
            },
        )
        .await?;
        let genesis = BlockHash(genesis.0);
        if let Some(expected) = settings.genesis.filter(|expected| *expected != genesis) {
            return Err(ChainError::WrongNetwork {
                endpoint: endpoint.to_owned(),
                expected,
                found: genesis,
            });
        }
        let config = SubstrateConfig::builder()
            .set_genesis_hash(H256(genesis.0))
            .build();
        let backend = LegacyBackend::builder().build(client);
        let api = OnlineClient::from_backend_with_config(config, Arc::new(backend))
            .await
            .map_err(|e| ChainError::transient(format!("connecting to {endpoint}"), e))?;
        tracing::info!(endpoint, %genesis, "connected to the chain");
        Ok(Self {
            inner: Arc::new(Inner {
                settings: settings.clone(),
                api,
                rpc,
                genesis,
                signing: Arc::default(),
                endpoint: endpoint.to_owned(),
                meter,
            }),
        })
    }

    /// Genesis hash of the connected chain.
    #[must_use]
    pub fn genesis(&self) -> BlockHash {
        self.inner.genesis
    }

    /// The endpoint in use.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.inner.endpoint
    }

    /// Requests and bytes since the connection was made.
    #[must_use]
    pub fn usage(&self) -> WireUsage {
        self.inner.meter.read()
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

    /// Puts a read under the configured deadline.
    pub(super) async fn read<T>(
        &self,
        what: &str,
        reading: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        within(self.inner.settings.request_timeout, what, reading).await
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    doing: impl Future<Output = Result<T, ChainError>>,
) -> Result<T, ChainError> {
    match tokio::time::timeout(limit, doing).await {
        Ok(result) => result,
        Err(_) => Err(ChainError::transient(
            what,
            format!("no answer within {limit:?}"),
        )),
    }
}
