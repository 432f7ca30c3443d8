//! A local model hub that speaks the Hugging Face Hub's HTTP API, for the demo and tests.
//!
//! Repositories are folders `<root>/<namespace>/<name>/<40-hex revision>/`; the text file `main`
//! beside the revisions names the head. `*.safetensors` are large files: listed with their
//! SHA-256 and handed out through a redirect to an address of a store, as the Hub does. Real
//! clients work against it unchanged; [`Trouble`] makes it misbehave on demand.

mod catalogue;
mod content;
mod routes;
mod trouble;

pub use catalogue::publish;
pub use trouble::{Seen, Trouble};

use catalogue::Catalogue;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trouble::Troubles;
use url::Url;

/// A hub over a folder of repositories. Clones are the same hub.
#[derive(Debug, Clone)]
pub struct ModelHub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    catalogue: Catalogue,
    troubles: Troubles,
    store: Option<Url>,
    page: usize,
    stopped: CancellationToken,
}

impl ModelHub {
    /// A hub over `root`, which hands out large files from its own address.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self::with(root, None, 1000)
    }

    /// A hub that redirects large files to the store of another hub over the same `root`, and puts
    /// at most `page` entries on one page of a listing.
    #[must_use]
    pub fn with(root: PathBuf, store: Option<Url>, page: usize) -> Self {
        let shared = Shared {
            catalogue: Catalogue::new(root),
            troubles: Troubles::default(),
            store,
            page: page.max(1),
            stopped: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Serves until `stop` ends; then transfers in flight are cut and the port is free.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let stopped = self.shared.stopped.clone();
        let routes = routes::router(self.shared);
        let stop = async move {
            stop.await;
            stopped.cancel();
        };
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop)
            .await
    }

    /// The next `times` replies to requests whose path contains `path` suffer this trouble.
    pub fn trouble(&self, path: &str, trouble: Trouble, times: u32) {
        self.shared.troubles.add(path, trouble, times);
    }

    /// Waits until `count` replies since the start have suffered a trouble. A stall counts when
    /// its bytes were sent and the silence begins.
    pub async fn troubled(&self, count: u64) {
        self.shared.troubles.reached(count).await;
    }

    /// The latest requests, oldest first; at most 4096.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.troubles.seen()
    }
}
