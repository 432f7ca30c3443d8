//! The model host: revision, file list, sizes, digests, download.
//!
//! [`HubClient::facts`] answers what a repository holds at one pinned commit, before a byte of it
//! is fetched; [`HubClient::download`] fetches named files of that commit and gives them out only
//! after their length and digest agree with what the hub published.
//!
//! Repository info goes through `hf-hub`. The file listing and the transfers are requests of our
//! own, because that crate drops the SHA-256 of large files from a listing, reads replies without
//! a size limit, starts a broken transfer from zero again and does not check what it stored.

mod blobs;
mod digest;
mod download;
mod error;
mod facts;
mod layout;
mod pace;
mod part;
mod transfer;
mod wire;

pub use blobs::{drop_stale_parts, evict};
pub use digest::{Digests, Hasher, PublishedDigest};
pub use download::{Download, Downloaded, LocalFile, Progress, bytes_to_write};
pub use error::{Absence, HubError, TransientKind};
pub use facts::{MAX_FILES, RepoFacts, RepoFile};
pub use layout::model_dir;

use hf_hub::HFClient;
use secrecy::{ExposeSecret, SecretString};
use std::num::NonZeroU64;
use std::time::Duration;
use url::Url;
use wire::Wire;

/// How the model host is reached, and the bounds of every request to it.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Base URL of the Hub or a mirror of it.
    pub endpoint: Url,
    /// Access token; sent to the endpoint's own origin only. Without one, none is sent, whatever
    /// the environment or a login file holds.
    pub token: Option<SecretString>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole metadata reply, and for a transfer's first header.
    pub request_timeout: Duration,
    /// Longest silence within a transfer.
    pub stall_limit: Duration,
    /// Longest time for all files of one download together. What was fetched by then is kept and
    /// resumed by the next call.
    pub download_deadline: Duration,
    /// Most attempts for one file within one download.
    pub attempts: u32,
    /// Mean pause after a file's first failed attempt; doubles up to 30 s.
    pub first_pause: Duration,
    /// Files in flight at once.
    pub parallel_files: usize,
    /// Bytes that must stay free on the disk after the download.
    pub keep_free: u64,
    /// Bytes per second of all transfers together; none: as fast as they come.
    pub bandwidth: Option<NonZeroU64>,
}

impl HubSettings {
    /// Settings for an endpoint, without a token, with bounds fit for models of tens of GB.
    #[must_use]
    pub fn new(endpoint: Url) -> Self {
        Self {
            endpoint,
            token: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            stall_limit: Duration::from_secs(60),
            download_deadline: Duration::from_secs(4 * 3600),
            attempts: 8,
            first_pause: Duration::from_millis(500),
            parallel_files: 4,
            keep_free: 1 << 30,
            bandwidth: None,
        }
    }
}

/// Client of one model host. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct HubClient {
    settings: HubSettings,
    info: HFClient,
    wire: Wire,
    pace: pace::Pace,
    flights: blobs::Flights,
}

impl HubClient {
    /// A client for the given settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::Invalid`] when the endpoint is no `http` or `https` base URL or TLS cannot be
    /// set up.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let wire = Wire::new(&settings)?;
        // Given no token, hf-hub would take one from the environment or a login file. A text that
        // cannot stand in a header makes it send none.
        let token = settings
            .token
            .as_ref()
            .map_or("\n", |token| token.expose_secret());
        let info = HFClient::builder()
            .endpoint(wire.base())
            .token(token)
            .client(wire.metadata_client())
            .cache_enabled(false)
            .retry_max_attempts(0)
            .build()
            .map_err(|error| HubError::Invalid {
                message: format!("the hub client cannot be set up: {error}"),
            })?;
        Ok(Self {
            pace: pace::Pace::new(settings.bandwidth),
            flights: blobs::Flights::default(),
            settings,
            info,
            wire,
        })
    }
}
