//! Several endpoints: what one of them asks for costs the others nothing.

use super::wire::{NETUID, genesis, settings, soon, start};
use crate::harness::chaos::{ChaosProxy, Trouble, Weather};
use assay::bittensor::MechanismId;
use assay::chain::{ChainClient, ChainSettings, Endpoint};
use assay::devchain::Sealing;
use assay::service::Watcher;
use assay::shutdown::Shutdown;
use assay::store::{RetryPolicy, Store};
use std::time::Duration;
use tokio::sync::watch;

/// Far longer than [`soon`] waits.
const ASKED: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_limit_of_one_endpoint_rests_it_alone() {
    let (chain, _) = start(genesis(), Sealing::Interval).await;
    let first = ChaosProxy::start(&chain.url(), 1).await;
    let second = ChaosProxy::start(&chain.url(), 2).await;
    let endpoints = [&first, &second].map(|proxy| Endpoint::own(proxy.url.clone()));
    let settings = ChainSettings {
        endpoints: endpoints.to_vec(),
        ..settings(&chain)
    };
    let client = ChainClient::connect(&settings).await.unwrap();
    assert_eq!(client.endpoint(), first.url);
    first.set(Weather {
        rate: 1.0,
        troubles: vec![Trouble::RateLimit],
        pause: ASKED,
    });
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut latest) = watch::channel(None);
    let watcher = Watcher {
        chain: client.clone(),
        netuid: NETUID,
        mechanism: MechanismId(0),
        store: Store::open(&dir.path().join("node.db"), RetryPolicy::default()).unwrap(),
        latest: sender,
    };
    let stop = Shutdown::new();
    let read = async {
        latest.wait_for(Option::is_some).await.unwrap();
        stop.trigger();
    };
    let (ended, ()) = soon(async { tokio::join!(watcher.run(stop.clone()), read) }).await;
    ended.unwrap();
    assert_eq!(client.endpoint(), second.url);
}
