//! What goes on beside the requests: metagraphs, reports, the watch over groups.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::identity::registry::{Registry, Snapshot};
use super::shared::Shared;
use crate::bittensor::Netuid;
use crate::chain::{ChainClient, ChainError, ChainSettings};
use crate::clock::now_ms;
use crate::shutdown::Shutdown;

/// Seconds of one interval of the watch over groups, between two writes of the report, and after
/// which the talkers' counts are halved.
const INTERVAL_S: u64 = 10;
const REPORT_S: u64 = 60;
const FADE_S: u64 = 300;

/// Counts time for everything that is counted, and keeps the report on disk, until `stop`.
///
/// # Errors
/// None; a report that cannot be written is logged.
pub async fn watch(
    shared: Arc<Shared>,
    gates: Vec<Arc<Gate>>,
    stop: Shutdown,
) -> std::io::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 1u64.. {
        tokio::select! {
            () = stop.signalled() => break,
            _ = tick.tick() => {}
        }
        shared.traffic.second();
        for gate in &gates {
            shared.traffic.lane(&gate.state());
        }
        if second.is_multiple_of(INTERVAL_S) {
            shared.traffic.interval();
        }
        if second.is_multiple_of(FADE_S) {
            shared.traffic.fade();
        }
        if second.is_multiple_of(REPORT_S) {
            report(&shared);
        }
    }
    report(&shared);
    Ok(())
}

fn report(shared: &Shared) {
    let Some(folder) = &shared.settings.state else {
        return;
    };
    for report in shared.traffic.reports(now_ms()) {
        if let Err(error) = report.save(folder) {
            tracing::warn!(%error, "the traffic report cannot be written");
        }
    }
}

/// Where the metagraphs of the groups are read, and how often.
#[derive(Debug, Clone)]
pub struct Source {
    /// The chain.
    pub chain: ChainSettings,
    /// Time between two readings.
    pub refresh: Duration,
}

/// The groups' snapshots as the state folder keeps them.
#[must_use]
pub fn kept(shared: &Shared) -> Vec<(&'static str, Snapshot)> {
    let mut found = Vec::new();
    for (name, netuid) in subnets(shared) {
        let Some(folder) = &shared.settings.state else {
            break;
        };
        let path = folder.join(format!("metagraph-{netuid}.json"));
        match Snapshot::load(&path) {
            Ok(snapshot) => found.extend(snapshot.map(|s| (name, s))),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a metagraph's snapshot cannot be used")
            }
        }
    }
    found
}

fn subnets(shared: &Shared) -> Vec<(&'static str, Netuid)> {
    let groups = shared.settings.groups.iter();
    groups.filter_map(|g| Some((g.name, g.netuid?))).collect()
}

/// Reads the metagraphs again and again until `stop`. A failed reading keeps the last good one.
///
/// # Errors
/// None.
pub async fn follow(shared: Arc<Shared>, source: Source, stop: Shutdown) -> std::io::Result<()> {
    let mut snapshots = kept(&shared);
    let mut client = None;
    loop {
        match refresh(&shared, &source.chain, &mut client).await {
            Ok(read) => snapshots = read,
            Err(error) => {
                client = None;
                tracing::warn!(%error, "the metagraphs could not be read; keeping the last ones");
            }
        }
        shared.set_registry(Registry::new(&snapshots, &shared.settings.standing));
        tokio::select! {
            () = stop.signalled() => return Ok(()),
            () = tokio::time::sleep(source.refresh) => {}
        }
    }
}

async fn refresh(
    shared: &Shared,
    chain: &ChainSettings,
    client: &mut Option<ChainClient>,
) -> Result<Vec<(&'static str, Snapshot)>, ChainError> {
    if client.is_none() {
        *client = Some(ChainClient::connect(chain).await?);
    }
    let mut snapshots = Vec::new();
    let Some(client) = client else {
        return Ok(snapshots);
    };
    let head = client.finalised_head().await?;
    for (name, netuid) in subnets(shared) {
        let read = client.snapshot(netuid, head).await?;
        let snapshot = Snapshot::of(&read.metagraph, head.number.0, now_ms());
        if let Some(folder) = &shared.settings.state
            && let Err(error) = snapshot.save(&folder.join(format!("metagraph-{netuid}.json")))
        {
            tracing::warn!(%error, "a metagraph's snapshot cannot be kept");
        }
        snapshots.push((name, snapshot));
    }
    Ok(snapshots)
}
