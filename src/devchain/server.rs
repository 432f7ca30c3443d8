//! The listening socket: each connection is pumped through a pipe, so that it can be cut or frozen.

use super::error::DevChainError;
use super::faults::{Faulty, Lines};
use super::node::Node;
use super::rpc;
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{
    Methods, Server, ServerConfig, StopHandle, serve_with_graceful_shutdown, stop_channel,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes between socket and protocol.
const PIPE: usize = 256 * 1024;
/// Largest message either way.
const MAX_MESSAGE: u32 = 64 * 1024 * 1024;
/// Connections and subscriptions, as a node with its limits off.
const MAX_CONNECTIONS: u32 = 10_000;
const MAX_SUBSCRIPTIONS: u32 = 10_000;

/// Binds `listen` and serves the node there until the returned future is dropped.
pub(super) async fn bind(
    node: Arc<Node>,
    listen: SocketAddr,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send + 'static), DevChainError> {
    let fail = |e| DevChainError::io(format!("cannot listen on {listen}"), e);
    let listener = TcpListener::bind(listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    // Whoever reaches these methods rules the chain, so only this machine may.
    let control = address.ip().is_loopback();
    let methods = rpc::methods(&node, control);
    Ok((address, accept(node, listener, methods)))
}

async fn accept(node: Arc<Node>, listener: TcpListener, methods: Methods) {
    // Dropped with this future, which stops what the connections left running.
    let (stop, _handle) = stop_channel();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let serving = connection(node.clone(), methods.clone(), stop.clone(), socket);
                    connections.spawn(serving);
                }
                Err(error) => tracing::warn!(%error, "a connection was not accepted"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(node: Arc<Node>, methods: Methods, stop: StopHandle, socket: TcpStream) {
    let lines = node.faults.lines();
    if lines.borrow().refuse {
        return;
    }
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no delay could not be set");
    }
    let (near, far) = tokio::io::duplex(PIPE);
    let config = ServerConfig::builder()
        .max_request_body_size(MAX_MESSAGE)
        .max_response_body_size(MAX_MESSAGE)
        .max_connections(MAX_CONNECTIONS)
        .max_subscriptions_per_connection(MAX_SUBSCRIPTIONS)
        .build();
    let faults = node.faults.clone();
    let middleware = RpcServiceBuilder::new().layer_fn(move |inner| Faulty {
        inner,
        faults: faults.clone(),
    });
    let service = Server::builder()
        .set_config(config)
        .set_rpc_middleware(middleware)
        .to_service_builder()
        .build(methods, stop.clone());
    // Serving ends early when the connection becomes a WebSocket: the pump outlives it.
    let serving = serve_with_graceful_shutdown(far, service, stop.shutdown());
    let (served, ()) = tokio::join!(serving, pump(socket, near, lines));
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Carries bytes both ways until either end closes, or the line is cut.
async fn pump(
    mut socket: TcpStream,
    mut pipe: tokio::io::DuplexStream,
    mut lines: watch::Receiver<Lines>,
) {
    let opened = *lines.borrow_and_update();
    let mut ice = lines.clone();
    tokio::select! {
        _ = copy_bidirectional(&mut socket, &mut pipe) => return,
        () = until(&mut lines, |now| now.cuts > opened.cuts) => return,
        () = until(&mut ice, |now| now.freezes > opened.freezes) => {}
    }
    // Frozen: both ends stay open and silent until a cut.
    until(&mut lines, |now| now.cuts > opened.cuts).await;
}

async fn until(lines: &mut watch::Receiver<Lines>, reached: impl Fn(&Lines) -> bool) {
    if lines.wait_for(|now| reached(now)).await.is_err() {
        // The chain is gone, and this connection with it.
        std::future::pending::<()>().await;
    }
}
