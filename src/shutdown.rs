//! One signal that ends every loop.

use std::future::Future;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A stop that is asked for once and seen by everyone who holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A value that nobody has triggered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every holder to stop. Cannot be taken back; asking again changes nothing.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when a stop is asked for, at once when it already was. Safe to drop and to call again.
    pub async fn signalled(&self) {
        self.0.cancelled().await;
    }

    /// Takes over SIGINT and SIGTERM and returns a future that triggers this value at the first of
    /// them; the caller runs it. From this call on neither signal ends the process by itself.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        Ok(async move {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                () = shutdown.signalled() => return,
            };
            tracing::info!(signal = name, "stopping");
            shutdown.trigger();
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn every_clone_sees_the_trigger() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(async move { other.signalled().await });
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        shutdown.trigger();
        let ended = tokio::time::timeout(Duration::from_secs(5), waiting.join_next()).await;
        assert!(ended.unwrap().unwrap().is_ok());
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn listening_ends_when_triggered_otherwise() {
        let shutdown = Shutdown::new();
        let listening = shutdown.on_signals().unwrap();
        shutdown.trigger();
        tokio::time::timeout(Duration::from_secs(5), listening)
            .await
            .unwrap();
    }
}
