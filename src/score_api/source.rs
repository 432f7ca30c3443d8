//! The store, opened when it is there.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use crate::store::{Reader, StoreError};
use crate::web::ApiError;

/// A store that may not exist yet: the node makes it, and may start after this server.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    reader: OnceCell<Reader>,
}

impl Source {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            reader: OnceCell::new(),
        }
    }

    /// The reader; tried again on each request until it opens.
    pub(super) async fn reader(&self) -> Result<&Reader, ApiError> {
        let open = async || {
            let path = self.path.clone();
            let opened = tokio::task::spawn_blocking(move || Reader::open(&path)).await;
            opened
                .map_err(|e| {
                    tracing::error!(error = %e, "opening the store failed");
                    ApiError::unavailable()
                })?
                .map_err(|e| failed(&e))
        };
        self.reader.get_or_try_init(open).await
    }
}

/// What a client hears of trouble with the store. The error's own text goes to the log: it names
/// paths of this machine.
pub(super) fn failed(error: &StoreError) -> ApiError {
    match error {
        StoreError::NotFound(_) => ApiError::not_found(
            "NO_SUCH_SUBMISSION",
            "No submission has this number; GET /v1/submissions lists those there are.",
        ),
        StoreError::Missing(_) | StoreError::Older { .. } => {
            tracing::warn!(%error, "the store is not ready");
            ApiError::unavailable()
        }
        _ => {
            tracing::error!(%error, "the store could not be read");
            ApiError::unavailable()
        }
    }
}
