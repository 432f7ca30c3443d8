//! The packs on disk, listed at most every few seconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::dataset::{DatasetError, SignedManifest, list_packs};

/// How old a listing may be. A newly sealed pack is offered within this time.
const FRESH: Duration = Duration::from_secs(2);

/// Manifests of a folder, read anew when they are older than [`FRESH`].
#[derive(Debug)]
pub(super) struct Listing {
    folder: PathBuf,
    last: Mutex<Option<(Instant, Arc<Vec<SignedManifest>>)>>,
}

impl Listing {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            last: Mutex::new(None),
        }
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The manifests, newest first. One reader lists, the others wait for it: a storm of requests
    /// costs one listing. Each waits within its request's deadline.
    pub(super) async fn get(&self) -> Result<Arc<Vec<SignedManifest>>, DatasetError> {
        let mut last = self.last.lock().await;
        if let Some((at, manifests)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(manifests));
        }
        let folder = self.folder.clone();
        let listed = tokio::task::spawn_blocking(move || list_packs(&folder)).await;
        let manifests = listed.map_err(|e| DatasetError::Unavailable(e.to_string()))??;
        let manifests = Arc::new(manifests);
        *last = Some((Instant::now(), Arc::clone(&manifests)));
        Ok(manifests)
    }
}
