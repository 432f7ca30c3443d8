//! Serves a router on a listener, within bounds, until told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// Bounds of one listener. Memory is at most `connections` × (`header_bytes_max` + the socket's
/// own buffers) above what the routes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at the same time; further ones wait in the kernel's queue.
    pub connections: u32,
    /// Size of one request's head in bytes, at least 8192.
    pub header_bytes_max: usize,
    /// Deadline of receiving one request's head; also ends idle connections.
    pub header_timeout: Duration,
    /// Deadline until an answer begins.
    pub request_timeout: Duration,
    /// Longest life of one connection, slow readers included.
    pub connection_timeout: Duration,
    /// Time for running answers after the stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header_bytes_max: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connection_timeout: Duration::from_mins(10),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves `app` (behind [`super::guard`]) over HTTP/1.1 on `listener` until `stop` is triggered.
/// Then it accepts nothing more, lets running answers end for at most `limits.drain_timeout`, and
/// cuts what is left.
///
/// # Errors
/// When the listener itself is broken. A failed single accept is logged and passed over.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: &Limits,
    stop: &Shutdown,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let app = super::guard(app, limits);
    let seats = Arc::new(Semaphore::new(
        usize::try_from(limits.connections).unwrap_or(usize::MAX >> 4),
    ));
    let mut connections = JoinSet::new();
    tracing::info!(%address, "serving");
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.signalled() => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        let (stream, seat) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let (app, limits, stop) = (app.clone(), limits.clone(), stop.clone());
        connections.spawn(async move {
            let _seat = seat;
            connection(stream, app, &limits, stop).await;
        });
    }
    drop(listener);
    drain(connections, limits.drain_timeout).await;
    tracing::info!(%address, "stopped serving");
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await;
    let seat = seat.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, seat))
}

/// Out of file descriptors or the like: without a pause the loop would spin.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        return;
    }
    tracing::warn!(%error, "could not accept a connection; pausing for 100 ms");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection(stream: TcpStream, app: Router, limits: &Limits, stop: Shutdown) {
    // A refused socket option costs latency only.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let deadline = tokio::time::sleep(limits.connection_timeout);
    let mut deadline = std::pin::pin!(deadline);
    let mut stopping = false;
    let end = loop {
        tokio::select! {
            end = connection.as_mut() => break end,
            () = deadline.as_mut() => {
                tracing::debug!("cut a connection at its longest life");
                return;
            }
            () = stop.signalled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = end {
        // The other side's doing in nearly all cases: resets, dribbled or oversized heads.
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::warn!(
            left = connections.len(),
            "cut the answers that did not end within the drain time"
        );
        connections.shutdown().await;
    }
}
