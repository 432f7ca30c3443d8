//! The connection: one line at a time, to the most preferred endpoint that is healthy.

use super::connect::ChainSettings;
use super::error::{ChainError, limit_of};
use super::line::{Line, check_endpoint};
use super::roster::{Roster, Trouble};
use crate::bittensor::{BlockHash, BlockNumber};
use jsonrpsee::core::client::Error as ClientError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subxt::config::{Header as _, RpcConfigFor, SubstrateConfig};
use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClient, RpcClientT};
use subxt::rpcs::{self, methods::legacy::LegacyRpcMethods};

/// Longest that opening and checking a line may take: half a block time, between these two.
const LONGEST_DIAL: Duration = Duration::from_secs(5);
const SHORTEST_DIAL: Duration = Duration::from_secs(1);

/// What a connection has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireUsage {
    /// JSON-RPC requests, subscriptions included.
    pub requests: u64,
    /// Bytes of the requests' parameters.
    pub sent_bytes: u64,
    /// Bytes of the answers' results; notifications of subscriptions are not counted.
    pub received_bytes: u64,
}

#[derive(Debug, Default)]
struct Meter {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

fn length(value: Option<&RawValue>) -> u64 {
    value.map_or(0, |v| u64::try_from(v.get().len()).unwrap_or(u64::MAX))
}

/// The one connection to the chain. Clones share it.
#[derive(Clone)]
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    settings: ChainSettings,
    meter: Meter,
    roster: Mutex<Roster>,
    line: tokio::sync::Mutex<Option<Arc<Line>>>,
    genesis: Mutex<Option<BlockHash>>,
    /// Set by the first good line; before it, a wrong network is a mistake of configuration.
    started: AtomicBool,
    /// The endpoint last connected to.
    current: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// Checks the endpoints; nothing is dialled yet.
    pub(super) fn new(settings: &ChainSettings) -> Result<Self, ChainError> {
        for endpoint in &settings.endpoints {
            check_endpoint(&endpoint.url)?;
        }
        if settings.endpoints.is_empty() {
            return Err(ChainError::BadEndpoint {
                endpoint: String::new(),
                reason: "the list of endpoints is empty".to_owned(),
            });
        }
        Ok(Self(Arc::new(Shared {
            roster: Mutex::new(Roster::new(&settings.endpoints, settings.block_time)),
            settings: settings.clone(),
            meter: Meter::default(),
            line: tokio::sync::Mutex::default(),
            genesis: Mutex::new(settings.genesis),
            started: AtomicBool::new(false),
            current: AtomicU64::new(0),
        })))
    }

    /// Connects, and gives the genesis hash that every endpoint must have from now on.
    pub(super) async fn connect(&self) -> Result<BlockHash, ChainError> {
        self.line().await?;
        lock(&self.0.genesis).ok_or_else(|| ChainError::unreadable("the genesis hash", "unknown"))
    }

    pub(super) fn usage(&self) -> WireUsage {
        let meter = &self.0.meter;
        WireUsage {
            requests: meter.requests.load(Ordering::Relaxed),
            sent_bytes: meter.sent.load(Ordering::Relaxed),
            received_bytes: meter.received.load(Ordering::Relaxed),
        }
    }

    /// The endpoint last connected to.
    pub(super) fn endpoint(&self) -> &str {
        let index = usize::try_from(self.0.current.load(Ordering::Relaxed)).unwrap_or(0);
        self.0.settings.endpoints.get(index).map_or("", |e| &e.url)
    }

    /// Takes note of a head that arrived.
    pub(super) fn saw(&self, head: BlockNumber) {
        let index = usize::try_from(self.0.current.load(Ordering::Relaxed)).unwrap_or(0);
        lock(&self.0.roster).delivered(index, head);
    }

    /// Leaves the present line if it was open by `begun`, when the wait for it began; the next request
    /// dials another, or this one after its rest.
    pub(super) async fn give_up(&self, why: &str, begun: Instant) {
        let mut slot = self.0.line.lock().await;
        if let Some(line) = slot.take_if(|line| line.opened <= begun) {
            self.failed(line.index, &Trouble::Broken(why.to_owned()));
        }
    }

    fn failed(&self, index: usize, trouble: &Trouble) {
        let rest = lock(&self.0.roster).failed(index, trouble, Instant::now());
        let endpoint = self.0.settings.endpoints.get(index).map_or("", |e| &e.url);
        tracing::info!(endpoint, %trouble, rest_ms = rest.as_millis(), "endpoint left alone");
    }

    /// The open line; dials when there is none, and waits out a rest of up to a block time. While one
    /// call dials the others wait for it.
    async fn line(&self) -> Result<Arc<Line>, ChainError> {
        let mut slot = self.0.line.lock().await;
        if let Some(line) = slot.as_ref() {
            if let Some(trouble) = self.trouble(line).await {
                self.failed(line.index, &trouble);
            } else if !lock(&self.0.roster).should_return(Instant::now()) {
                return Ok(Arc::clone(line));
            }
            *slot = None;
        }
        let until = Instant::now() + self.0.settings.request_timeout;
        loop {
            let ready = lock(&self.0.roster).ready(Instant::now());
            for index in ready {
                match self.dial(index).await {
                    Ok(line) => {
                        let line = Arc::new(line);
                        *slot = Some(Arc::clone(&line));
                        return Ok(line);
                    }
                    Err(Dial::Trouble(trouble)) => self.failed(index, &trouble),
                    Err(Dial::Fatal(error)) => return Err(error),
                }
            }
            let (after, reason) = lock(&self.0.roster).next_ready(Instant::now());
            if after > self.0.settings.block_time || Instant::now() + after > until {
                let what = "every endpoint rests".to_owned();
                return Err(ChainError::Limited {
                    what,
                    reason,
                    after: Some(after),
                });
            }
            tokio::time::sleep(after).await;
        }
    }

    /// Why the line is to be left: it is down, or slow where another endpoint waits.
    async fn trouble(&self, line: &Line) -> Option<Trouble> {
        if !line.is_up() {
            return Some(line.why_down().await);
        }
        let slow = line.latency() > self.0.settings.block_time / 2;
        let ready = lock(&self.0.roster).ready(Instant::now());
        let other = ready.iter().any(|index| *index != line.index);
        (slow && other).then(|| Trouble::Broken(format!("slow: {:?} per answer", line.latency())))
    }

    /// Opens a line and checks it, all within a limit of its own: an endpoint that lets the handshake or
    /// the first questions hang must not use up the time of the request that waits for a line.
    async fn dial(&self, index: usize) -> Result<Line, Dial> {
        let block_time = self.0.settings.block_time;
        let limit = (block_time / 2).clamp(SHORTEST_DIAL, LONGEST_DIAL);
        tokio::time::timeout(limit, self.dial_unbounded(index))
            .await
            .map_err(|_| Trouble::Broken(format!("no connection within {limit:?}")))?
    }

    async fn dial_unbounded(&self, index: usize) -> Result<Line, Dial> {
        let (settings, broken) = (&self.0.settings, |e: rpcs::Error| {
            Trouble::Broken(e.to_string())
        });
        let endpoint = &settings.endpoints[index];
        let line = Arc::new(Line::open(endpoint, index, settings).await?);
        let rpc = LegacyRpcMethods::<RpcConfigFor<SubstrateConfig>>::new(RpcClient::new(Probe(
            self.clone(),
            Arc::clone(&line),
        )));
        let genesis = rpc.genesis_hash().await.map_err(broken)?;
        self.check_genesis(index, BlockHash(genesis.0))?;
        let head = rpc.chain_get_header(None).await.map_err(broken)?;
        let head = head.ok_or_else(|| Trouble::Broken("it has no head".to_owned()))?;
        let head = BlockNumber(head.number());
        if lock(&self.0.roster).lags(head) {
            return Err(Trouble::Broken(format!("its head {head} is far behind")).into());
        }
        drop(rpc);
        lock(&self.0.roster).connected(index, Instant::now());
        self.0.started.store(true, Ordering::Relaxed);
        self.0
            .current
            .store(u64::try_from(index).unwrap_or(0), Ordering::Relaxed);
        tracing::info!(endpoint = endpoint.url, %head, latency_ms = line.latency().as_millis(), "connected to the chain");
        Arc::into_inner(line).ok_or_else(|| Trouble::Broken("still in use".to_owned()).into())
    }

    /// Another chain ends a start; later it is an endpoint in trouble, from which nothing is read.
    fn check_genesis(&self, index: usize, found: BlockHash) -> Result<(), Dial> {
        let mut genesis = lock(&self.0.genesis);
        let expected = *genesis.get_or_insert(found);
        if expected == found {
            return Ok(());
        }
        let endpoint = self.0.settings.endpoints[index].url.clone();
        if self.0.started.load(Ordering::Relaxed) {
            tracing::error!(endpoint, %expected, %found, "the endpoint serves another chain");
            return Err(Trouble::Limited(format!("genesis {found}"), None).into());
        }
        Err(Dial::Fatal(ChainError::WrongNetwork {
            endpoint,
            expected,
            found,
        }))
    }

    /// One request on one line, metered, in its turn.
    async fn ask(
        &self,
        line: &Line,
        method: &str,
        params: Option<Box<RawValue>>,
    ) -> Result<Box<RawValue>, rpcs::Error> {
        line.turn().await;
        self.count(params.as_deref());
        let begun = Instant::now();
        let answer = line.client.request_raw(method, params).await;
        match &answer {
            Ok(answer) => {
                line.answered_in(begun.elapsed());
                let bytes = length(Some(answer));
                self.0.meter.received.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => self.heed(line, error).await,
        }
        answer
    }

    fn count(&self, params: Option<&RawValue>) {
        self.0.meter.requests.fetch_add(1, Ordering::Relaxed);
        self.0
            .meter
            .sent
            .fetch_add(length(params), Ordering::Relaxed);
    }

    /// A limit told by an error code, or no answer in time, closes the line: the endpoint is left alone
    /// for as long.
    async fn heed(&self, line: &Line, error: &rpcs::Error) {
        let Some(trouble) = trouble_of(error) else {
            return;
        };
        let mut slot = self.0.line.lock().await;
        if slot.take_if(|l| l.opened == line.opened).is_some() {
            drop(slot);
            self.failed(line.index, &trouble);
        }
    }
}

/// Why a dial gave no line.
enum Dial {
    Trouble(Trouble),
    Fatal(ChainError),
}

impl From<Trouble> for Dial {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// The requests that check a line before it is used.
struct Probe(Wire, Arc<Line>);

impl RpcClientT for Probe {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            self.1.turn().await;
            self.0.count(params.as_deref());
            let begun = Instant::now();
            let answer = self.1.client.request_raw(method, params).await;
            self.1.answered_in(begun.elapsed());
            answer
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        self.1.client.subscribe_raw(sub, params, unsub)
    }
}

/// What a request's error tells of its endpoint; nothing, when it is about the request.
fn trouble_of(error: &rpcs::Error) -> Option<Trouble> {
    if let Some(after) = limit_of(error) {
        return Some(Trouble::Limited(error.to_string(), after));
    }
    let rpcs::Error::Client(inner) = error else {
        return None;
    };
    matches!(inner.downcast_ref(), Some(ClientError::RequestTimeout))
        .then(|| Trouble::Broken("a request was not answered in time".to_owned()))
}

fn carried(error: ChainError) -> rpcs::Error {
    rpcs::Error::Client(Box::new(error))
}

impl RpcClientT for Wire {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            let line = self.line().await.map_err(carried)?;
            self.ask(&line, method, params).await
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(async move {
            let line = self.line().await.map_err(carried)?;
            line.turn().await;
            self.count(params.as_deref());
            let answer = line.client.subscribe_raw(sub, params, unsub).await;
            if let Err(error) = &answer {
                self.heed(&line, error).await;
            }
            answer
        })
    }
}
