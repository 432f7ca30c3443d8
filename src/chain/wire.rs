//! The connection itself: which endpoints are allowed, how it reconnects, what it costs.

use super::error::ChainError;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use subxt::rpcs::client::reconnecting_rpc_client::{FixedInterval, PingConfig, RpcClient};
use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT};
use url::{Host, Url};

/// Largest JSON-RPC answer that is accepted. Metadata, the largest honest one, is 0.7 MB as hex.
const MAX_ANSWER_BYTES: u32 = 16 * 1024 * 1024;
/// Pause before the first reconnections.
const RECONNECT_SOON: Duration = Duration::from_millis(250);
/// Pause before later ones, so that a gateway in trouble is left alone.
const RECONNECT_LATER: Duration = Duration::from_secs(5);
/// Pings are never sent more often than this.
const SHORTEST_PING: Duration = Duration::from_secs(1);

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
pub(super) struct Meter {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self) -> WireUsage {
        WireUsage {
            requests: self.requests.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
        }
    }

    fn asked(&self, params: Option<&RawValue>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(length(params), Ordering::Relaxed);
    }
}

fn length(value: Option<&RawValue>) -> u64 {
    value.map_or(0, |v| u64::try_from(v.get().len()).unwrap_or(u64::MAX))
}

/// One reconnecting WebSocket whose requests are counted.
pub(super) struct Wire {
    inner: RpcClient,
    meter: Arc<Meter>,
}

impl Wire {
    /// Opens the connection. `timeout` bounds one request, and also how long a line may carry nothing,
    /// not even a pong, before it counts as broken. Reconnecting goes on in the background, every
    /// 250 ms at first and every 5 s later, for as long as the wire is held.
    pub(super) async fn open(
        endpoint: &str,
        timeout: Duration,
        meter: Arc<Meter>,
    ) -> Result<Self, ChainError> {
        check_endpoint(endpoint)?;
        let pauses = FixedInterval::new(RECONNECT_SOON)
            .take(20)
            .chain(FixedInterval::new(RECONNECT_LATER));
        let opening = RpcClient::builder()
            .retry_policy(pauses)
            .request_timeout(timeout)
            .connection_timeout(timeout)
            .max_response_size(MAX_ANSWER_BYTES)
            .enable_ws_ping(
                PingConfig::new()
                    .ping_interval((timeout / 3).max(SHORTEST_PING))
                    .inactive_limit(timeout.max(SHORTEST_PING * 2)),
            )
            .build(endpoint);
        let what = format!("connecting to {endpoint}");
        match tokio::time::timeout(timeout, opening).await {
            Ok(Ok(inner)) => Ok(Self { inner, meter }),
            Ok(Err(e)) => Err(ChainError::transient(what, e)),
            Err(_) => Err(ChainError::transient(
                what,
                format!("no connection within {timeout:?}"),
            )),
        }
    }
}

impl RpcClientT for Wire {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            self.meter.asked(params.as_deref());
            let answer = self.inner.request_raw(method, params).await?;
            self.meter
                .received
                .fetch_add(length(Some(&answer)), Ordering::Relaxed);
            Ok(answer)
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        self.meter.asked(params.as_deref());
        self.inner.subscribe_raw(sub, params, unsub)
    }
}

/// `wss://` anywhere, `ws://` on this machine only: on the way, plain text can be changed by anyone.
fn check_endpoint(endpoint: &str) -> Result<(), ChainError> {
    let bad = |reason: &str| ChainError::BadEndpoint {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(endpoint).map_err(|e| bad(&e.to_string()))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(bad("it names no host")),
    };
    match url.scheme() {
        "wss" => Ok(()),
        "ws" if loopback => Ok(()),
        "ws" => Err(bad(
            "plain ws:// is accepted for this machine only; use wss://",
        )),
        _ => Err(bad("want a wss:// URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_sockets_are_for_this_machine_only() {
        for good in [
            "wss://entrypoint-finney.opentensor.ai:443",
            "ws://127.0.0.1:9944",
            "ws://localhost:9944",
            "ws://[::1]:9944",
        ] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "ws://10.0.0.1:9944",
            "ws://localhost.example.org",
            "http://127.0.0.1",
            "finney",
            "",
        ] {
            let error = check_endpoint(bad).unwrap_err();
            assert!(matches!(error, ChainError::BadEndpoint { .. }), "{bad}");
        }
    }
}
