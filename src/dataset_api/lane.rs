//! One lane: a listener, an operating system thread and a runtime of its own.
//!
//! Lanes share no thread, no accept queue and no lock that is held for longer than a look-up:
//! what happens in the public lane cannot make the protected one wait, other than by the
//! processor, where the public lane's thread yields by its niceness.

mod serving;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::accept::{self, Accepted, Looked};
use super::gate::Gate;
use super::prefix::Welcome;
use super::settings::LaneKind;
use crate::shutdown::Shutdown;
use serving::{Guest, greet};

/// Connections taken in one go before those that are open get their turn.
const BURST: usize = 64;
/// Waiting connections in the kernel. Beyond them the kernel drops handshakes, which costs less than
/// anything that is done here.
const BACKLOG: i32 = 512;
/// Pause of the public lane between hearing of connections and taking them: they are taken by the
/// handful, and what they ask has come by then, so that a refusal needs no task, no timer and no
/// place in the poll set. The protected lane takes each at once.
const GATHER: Duration = Duration::from_millis(1);
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
    /// Binds the lane's address. `app` is served behind the gate, within the bounds that
    /// [`crate::web::bounded`] keeps.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(gate: Arc<Gate>, app: Router) -> io::Result<Self> {
        let settings = &gate.settings;
        let listener = accept::listen(settings.listen, settings.send_bytes, BACKLOG)?;
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
        let mut door = Door {
            gate: self.gate,
            app: self.app,
            stop: stop.clone(),
            connections: JoinSet::new(),
            silent: Vec::new(),
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tracing::info!(%address, lane, "serving");
        loop {
            while door.connections.try_join_next().is_some() {}
            let mut ready = tokio::select! {
                biased;
                () = stop.signalled() => break,
                due = tick.tick() => {
                    door.gate.seats.sample(Instant::now().saturating_duration_since(due.into_std()));
                    continue;
                }
                ready = listener.readable() => ready?,
            };
            if door.gate.kind == LaneKind::Public {
                tokio::time::sleep(GATHER).await;
            }
            for _ in 0..BURST {
                match accept::accept(listener.get_ref()) {
                    Ok(Some(accepted)) => door.welcome(accepted),
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
            door.look_again();
        }
        drop(listener);
        drain(door.connections, door.gate.settings.http.drain_timeout).await;
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

/// Where connections come in.
struct Door {
    gate: Arc<Gate>,
    app: Router,
    stop: Shutdown,
    connections: JoinSet<()>,
    /// Accepted in this turn, and nothing had come yet.
    silent: Vec<(TcpStream, Guest)>,
}

impl Door {
    /// Resets, refuses or serves a connection; only the last takes memory.
    fn welcome(&mut self, accepted: Accepted) {
        let prefix = self.gate.prefix(accepted.address);
        if self.gate.arrived(prefix) == Welcome::Drop {
            accept::reset(accepted.stream);
            return;
        }
        let guest = Guest {
            gate: Arc::clone(&self.gate),
            address: accepted.address,
            prefix,
        };
        match guest.look(&accepted.stream) {
            Looked::Welcome(before) => self.serve(accepted.stream, guest, Some(before)),
            Looked::Silent => self.silent.push((accepted.stream, guest)),
            Looked::Refused | Looked::Gone => {}
        }
    }

    /// Looks once more at those that were silent: a request follows its handshake closely, and one
    /// that is refused now needs no task and no place in the poll set.
    fn look_again(&mut self) {
        for (stream, guest) in std::mem::take(&mut self.silent) {
            match guest.look(&stream) {
                Looked::Welcome(before) => self.serve(stream, guest, Some(before)),
                Looked::Silent => self.serve(stream, guest, None),
                Looked::Refused | Looked::Gone => {}
            }
        }
    }

    fn serve(&mut self, stream: TcpStream, guest: Guest, before: Option<Bytes>) {
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
            return;
        };
        let (app, stop) = (self.app.clone(), self.stop.clone());
        self.connections
            .spawn(greet(stream, guest, before, app, stop));
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
