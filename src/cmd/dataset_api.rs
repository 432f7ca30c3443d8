//! `assay dataset-api`: serves sealed packs and rounds, one thread per lane.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::lifetime::Lifetime;
use super::{Failure, print_line, web_limits};
use crate::chain::{ChainSettings, Endpoint};
use crate::cli::ConfigFile;
use crate::config::{self, DatasetApi};
use crate::dataset_api::gate::Gate;
use crate::dataset_api::identity::registry::Registry;
use crate::dataset_api::lane::Lane;
use crate::dataset_api::settings::LaneKind;
use crate::dataset_api::shared::Shared;
use crate::dataset_api::shelf::{self, Shelf};
use crate::dataset_api::upkeep::{self, Source};
use crate::dataset_api::{self, admin};
use crate::web;

/// The chain's block time, by which a silent connection is judged.
const BLOCK_TIME: Duration = Duration::from_secs(12);

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when an address or the state folder cannot be had.
pub async fn run(options: &ConfigFile) -> Result<(), Failure> {
    let config = config::load_dataset_api(&options.config).map_err(Failure::usage)?;
    let settings = convert::settings(&config);
    let mut life = Lifetime::begin(options.with_parent)?;
    let state = config.state.as_deref().map(|p| p.display().to_string());
    let unusable = |e: std::io::Error| {
        Failure::unavailable(format_args!(
            "state folder {}: {e}",
            state.as_deref().unwrap_or("(none)")
        ))
    };
    if config.state.is_none() {
        tracing::warn!("no dataset_api.state: tokens, budgets and blocks are lost at a restart");
    }
    let lanes = [
        (LaneKind::Public, Some(settings.public.clone())),
        (LaneKind::Protected, settings.protected.clone()),
    ];
    let shared = Arc::new(Shared::open(settings).map_err(unusable)?);
    shared.set_registry(Registry::new(
        &upkeep::kept(&shared),
        &shared.settings().standing,
    ));
    let shelf = Arc::new(Shelf::open(&config.packs));
    let mut gates = Vec::new();
    for (kind, settings) in lanes {
        let Some(settings) = settings else { continue };
        let gate = Gate::open(kind, settings, Arc::clone(&shared)).map_err(unusable)?;
        gates.push(Arc::new(gate));
    }
    for gate in &gates {
        start_lane(&mut life, gate, &shelf)?;
    }
    start_upkeep(&mut life, &config, &shared, &gates);
    let stop = life.shutdown.clone();
    life.spawn("shelf", async move { shelf::follow(shelf, stop).await });
    if let Some(address) = config.admin {
        start_admin(&mut life, (address, &config), &shared, gates).await?;
    }
    life.run().await
}

fn start_lane(life: &mut Lifetime, gate: &Arc<Gate>, shelf: &Arc<Shelf>) -> Result<(), Failure> {
    let listen = gate.settings().listen;
    let app = dataset_api::lane_router(Arc::clone(shelf));
    let lane = Lane::bind(Arc::clone(gate), app)
        .map_err(|e| Failure::unavailable(format_args!("cannot listen on {listen}: {e}")))?;
    let address = lane.address().map_err(Failure::bug)?;
    let name = match gate.kind() {
        LaneKind::Public => "listening on",
        LaneKind::Protected => "protected lane on",
    };
    // Port 0 asks for any free port; whoever started us reads here which one it became.
    print_line(format_args!("{name} http://{address}"))?;
    let end = lane.start(life.shutdown.clone()).map_err(Failure::bug)?;
    life.spawn("lane", ended(end));
    Ok(())
}

async fn ended(end: oneshot::Receiver<std::io::Result<()>>) -> std::io::Result<()> {
    let broke = |_| std::io::Error::other("the lane's thread broke");
    end.await.map_err(broke)?
}

fn start_upkeep(
    life: &mut Lifetime,
    config: &DatasetApi,
    shared: &Arc<Shared>,
    gates: &[Arc<Gate>],
) {
    let watch = upkeep::watch(Arc::clone(shared), gates.to_vec(), life.shutdown.clone());
    life.spawn("watch", watch);
    let Some(chain) = &config.chain else {
        return;
    };
    let source = Source {
        chain: ChainSettings {
            endpoints: chain.endpoints.iter().map(|url| endpoint(url)).collect(),
            genesis: chain.genesis,
            request_timeout: chain.request_timeout,
            block_time: BLOCK_TIME,
        },
        refresh: chain.refresh,
    };
    let follow = upkeep::follow(Arc::clone(shared), source, life.shutdown.clone());
    life.spawn("metagraphs", follow);
}

/// Read every few minutes, so the pace of a public endpoint is enough for any.
fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.to_owned(),
        public: true,
    }
}

async fn start_admin(
    life: &mut Lifetime,
    (address, config): (std::net::SocketAddr, &DatasetApi),
    shared: &Arc<Shared>,
    gates: Vec<Arc<Gate>>,
) -> Result<(), Failure> {
    let failed = |e| Failure::unavailable(format_args!("cannot listen on {address}: {e}"));
    let state = config.state.as_deref().unwrap_or(std::path::Path::new("."));
    let token = admin::operators_token(state)
        .map_err(|e| Failure::unavailable(format_args!("the operator's token: {e}")))?;
    let app = admin::router(Arc::clone(shared), gates, token);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let bound = listener.local_addr().map_err(Failure::bug)?;
    print_line(format_args!("operator's lane on http://{bound}"))?;
    let (limits, stop) = (web_limits(&config.limits), life.shutdown.clone());
    life.spawn("operator's lane", async move {
        web::serve(listener, app, &limits, &stop).await
    });
    Ok(())
}
