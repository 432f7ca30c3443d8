//! One lane: a listener, an operating system thread and a runtime of its own.
//!
//! Lanes share no thread, no accept queue and no lock that is held for longer than a look-up:
//! what happens in the public lane cannot make the protected one wait, other than by the
//! processor, where the public lane's thread yields by its niceness.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::accept::{self, Accepted, Looked};
use super::gate::Gate;
use super::prefix::{Prefix, Welcome};
use super::seeing::traffic::Connection;
use super::timed::Timed;
use crate::shutdown::Shutdown;

/// Connections taken in one go before those that are open get their turn.
const BURST: usize = 64;
/// Waiting connections in the kernel.
const BACKLOG: i32 = 1024;
/// Threads that read files for a lane.
const FILE_THREADS: usize = 2;
/// How often a lane measures how late its thread runs.
const TICK: Duration = Duration::from_millis(20);

/// A lane that is bound and not yet served.
#[derive(Debug)]
pub struct Lane {
    gate: Arc<Gate>,
    listener: TcpListener,
    app: Router,
}

impl Lane {
    /// Binds the lane's address. `app` is served behind [`crate::web::guard`] and the gate.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(gate: Arc<Gate>, app: Router) -> io::Result<Self> {
        let settings = &gate.settings;
        let listener = accept::listen(settings.listen, settings.send_bytes, BACKLOG)?;
        let app = crate::web::guard(app, &settings.http);
        Ok(Self {
            gate,
            listener,
            app,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on a thread of its own until `stop`; the receiver hears how it ended.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(self, stop: Shutdown) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let (ended, end) = oneshot::channel();
        let name = format!("lane-{}", self.gate.kind.as_str());
        std::thread::Builder::new().name(name).spawn(move || {
            let result = self.run(&stop);
            // Nobody listens when the process is on its way out already.
            let _ = ended.send(result);
        })?;
        Ok(end)
    }

    fn run(self, stop: &Shutdown) -> io::Result<()> {
        yield_to_others(self.gate.settings.nice);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(FILE_THREADS)
            .build()?;
        let result = runtime.block_on(self.serve(stop));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    async fn serve(self, stop: &Shutdown) -> io::Result<()> {
        let address = self.address()?;
        let lane = self.gate.kind.as_str();
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a listener that is moved in and never taken out is sound"
        )]
        let listener = AsyncFd::new(self.listener)?;
        let (gate, app) = (self.gate, self.app);
        let mut connections = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tracing::info!(%address, lane, "serving");
        loop {
            while connections.try_join_next().is_some() {}
            let mut ready = tokio::select! {
                biased;
                () = stop.signalled() => break,
                due = tick.tick() => {
                    gate.seats.sample(Instant::now().saturating_duration_since(due.into_std()));
                    continue;
                }
                ready = listener.readable() => ready?,
            };
            for _ in 0..BURST {
                match accept::accept(listener.get_ref()) {
                    Ok(Some(accepted)) => welcome(&gate, &app, accepted, stop, &mut connections),
                    Ok(None) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) if accept::is_passing(&error) => {}
                    Err(error) => {
                        pause_after(&error).await;
                        break;
                    }
                }
            }
            drop(ready);
            tokio::task::yield_now().await;
        }
        drop(listener);
        drain(connections, gate.settings.http.drain_timeout).await;
        tracing::info!(%address, lane, "stopped serving");
        Ok(())
    }
}

/// Lowers the calling thread's priority. On Linux niceness is a thread's own.
fn yield_to_others(nice: i32) {
    if nice == 0 {
        return;
    }
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), nice) {
        tracing::warn!(%error, nice, "the lane's thread keeps the ordinary priority");
    }
}

/// Out of file descriptors or the like: without a pause the loop would spin.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "could not accept a connection; pausing for 100 ms");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Resets, refuses or serves a connection; only the last takes memory.
fn welcome(
    gate: &Arc<Gate>,
    app: &Router,
    accepted: Accepted,
    stop: &Shutdown,
    connections: &mut JoinSet<()>,
) {
    let prefix = gate.prefix(accepted.address);
    if gate.arrived(prefix) == Welcome::Drop {
        accept::reset(accepted.stream);
        return;
    }
    let guest = Guest {
        gate: Arc::clone(gate),
        address: accepted.address,
        prefix,
    };
    let looked = guest.look(&accepted.stream);
    if looked == Looked::Refused {
        return;
    }
    let Ok(stream) = tokio::net::TcpStream::from_std(accepted.stream) else {
        return;
    };
    connections.spawn(greet(stream, guest, looked, app.clone(), stop.clone()));
}

/// Waits for the first bytes of a connection that was silent so far, and looks at them: what is
/// refused by them costs no more than that. Only then is there an HTTP connection.
async fn greet(
    stream: tokio::net::TcpStream,
    guest: Guest,
    looked: Looked,
    app: Router,
    stop: Shutdown,
) {
    if looked == Looked::Silent {
        let patience = guest.gate.settings.http.header_timeout;
        let came = tokio::select! {
            () = stop.signalled() => return,
            came = tokio::time::timeout(patience, stream.readable()) => came,
        };
        if !matches!(came, Ok(Ok(()))) || guest.look(&stream) == Looked::Refused {
            return;
        }
    }
    let (lane, prefix) = (guest.gate.kind.as_str(), guest.prefix);
    let traffic = &guest.gate.shared.traffic;
    traffic.connection(lane, prefix, Connection::Served);
    Box::pin(connection(stream, guest, app, stop)).await;
}

/// A connection's place in the books; leaving it gives the place back.
struct Guest {
    gate: Arc<Gate>,
    address: IpAddr,
    prefix: Prefix,
}

impl Guest {
    fn look(&self, stream: impl AsFd) -> Looked {
        let gate = &self.gate;
        let looked = accept::look(stream, |head| gate.look(head, self.prefix));
        if looked == Looked::Refused {
            let traffic = &gate.shared.traffic;
            traffic.connection(gate.kind.as_str(), self.prefix, Connection::Refused);
        }
        looked
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gate.left(self.prefix);
    }
}

async fn connection(stream: tokio::net::TcpStream, guest: Guest, app: Router, stop: Shutdown) {
    let guest = Arc::new(guest);
    let limits = guest.gate.settings.http.clone();
    let stream = Timed::new(stream, guest.gate.settings.progress);
    let answering = Arc::clone(&guest);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (guest, app) = (Arc::clone(&answering), app.clone());
        async move {
            Ok::<_, std::convert::Infallible>(
                answer(&guest, app, request.map(axum::body::Body::new)).await,
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(super::head::HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut deadline = std::pin::pin!(tokio::time::sleep(limits.connection_timeout));
    let mut stopping = false;
    loop {
        tokio::select! {
            end = connection.as_mut() => {
                if let Err(error) = end {
                    tracing::debug!(%error, address = %guest.address, "a connection ended early");
                }
                return;
            }
            () = deadline.as_mut() => return,
            () = stop.signalled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(guest: &Guest, app: Router, request: Request) -> Response {
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let pass = match guest.gate.admit(&parts, guest.prefix) {
        Ok(pass) => Arc::new(pass),
        Err(refusal) => return refusal.into_response(),
    };
    parts.extensions.insert(Arc::clone(&pass));
    parts.extensions.insert(Arc::clone(&guest.gate));
    let request = Request::from_parts(parts, body);
    let mut response = match app.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if let Some(allowance) = &pass.allowance {
        super::refusal::add_allowance(response.headers_mut(), allowance);
    }
    let (lane, traffic) = (guest.gate.kind.as_str(), &guest.gate.shared.traffic);
    traffic.served(
        lane,
        &pass.client,
        pass.weight,
        (response.status().as_u16(), begun.elapsed()),
    );
    response
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
