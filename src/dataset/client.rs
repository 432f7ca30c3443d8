//! The node's side of the dataset: packs from a list of endpoints, verified by signature and digest
//! before use, kept on disk, and used from there when nobody answers.
//!
//! Endpoints are asked in the order of preference. One that fails is put last for a while; a slow
//! one is overtaken by asking the next as well (hedging). Retries and hedges come out of a budget
//! of a tenth of all requests, with jittered pauses, and whoever answers 429 or 503 is left alone
//! for as long as it asks. A download that stops goes on at the next endpoint where it stopped.

mod download;
mod endpoint;
mod health;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use self::endpoint::{Endpoint, Refusal};
use self::health::Health;
use super::object::{self, SignedManifest};
use super::signed::Envelope;
use super::{DatasetError, Form, Item, ItemId, Kind, ObjectDigest, Pack};
use super::{items, list_packs, sampling, verify};
use crate::bittensor::Hotkey;
use crate::retry::{Retry, RetryPolicy, Retryable, retry};

/// Packs kept on disk that no endpoint lists any more: rounds under way may still need them.
const UNLISTED_KEPT: usize = 16;

/// Where packs come from, and the bounds of fetching them.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Dataset APIs, in order of preference.
    pub endpoints: Vec<Url>,
    /// Static hosts and buckets with the same packs, asked after the endpoints.
    pub mirrors: Vec<Url>,
    /// Folder that keeps verified packs; made when absent.
    pub cache: PathBuf,
    /// Deadline of one listing from one endpoint, and of every pause within a download.
    pub request_timeout: Duration,
    /// How long an endpoint may be silent before the next one is asked as well.
    pub hedge_after: Duration,
    /// Deadline of one pack from all endpoints.
    pub download_timeout: Duration,
    /// Largest pack accepted, compressed bytes.
    pub pack_bytes_max: u64,
    /// Hotkeys whose packs are used; empty for anybody's.
    pub operators: Vec<Hotkey>,
    /// Bearer token for the Dataset APIs; never sent to mirrors.
    pub token: Option<SecretString>,
    /// Forms kept on disk beside the plain one: none in a node, all in a replica that serves them.
    pub keep: &'static [Form],
}

impl ClientSettings {
    /// The defaults: a node's cache in `cache`, no endpoint, any operator.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self {
            endpoints: Vec::new(),
            mirrors: Vec::new(),
            cache,
            request_timeout: Duration::from_secs(20),
            hedge_after: Duration::from_secs(2),
            download_timeout: Duration::from_mins(30),
            pack_bytes_max: 4 * 1024 * 1024 * 1024,
            operators: Vec::new(),
            token: None,
            keep: &[],
        }
    }
}

/// What [`DatasetClient::sync`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    /// Packs on offer.
    pub listed: usize,
    /// Packs fetched now.
    pub fetched: usize,
    /// Packs that could not be fetched, with the reason.
    pub failed: Vec<(ObjectDigest, String)>,
}

/// The client. Clones share endpoints' health, budget and cache.
#[derive(Debug, Clone)]
pub struct DatasetClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ClientSettings,
    endpoints: Vec<Endpoint>,
    health: Health,
    /// Held while the cache is written to.
    writing: tokio::sync::Mutex<()>,
}

/// Every endpoint failed in one pass over them.
#[derive(Debug, thiserror::Error)]
#[error("{reasons}")]
struct AllFailed {
    reasons: String,
    retry: Retry,
}

impl Retryable for AllFailed {
    fn retry(&self) -> Retry {
        self.retry
    }
}

impl DatasetClient {
    /// A client that has asked nothing yet.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] when an endpoint cannot be set up.
    pub fn new(settings: ClientSettings) -> Result<Self, DatasetError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            let value = format!("Bearer {}", token.expose_secret());
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| DatasetError::Unavailable("the token is no text".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(settings.request_timeout)
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| DatasetError::Unavailable(e.to_string()))?;
        let api = |url: &Url| {
            let (url, http) = (url.clone(), http.clone());
            Ok(Endpoint::Api { url, http })
        };
        let mirror = |url| Endpoint::mirror(url, settings.request_timeout);
        let apis = settings.endpoints.iter().map(api);
        let endpoints: Vec<Endpoint> = apis
            .chain(settings.mirrors.iter().map(mirror))
            .collect::<Result<_, DatasetError>>()?;
        Ok(Self(Arc::new(Inner {
            health: Health::new(endpoints.len()),
            endpoints,
            settings,
            writing: tokio::sync::Mutex::default(),
        })))
    }

    /// Packs on offer, newest sealed first: those of the first endpoint that gives a listing, as
    /// far as they are signed by an operator.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] with every endpoint's reason when none answered well.
    pub async fn list(&self) -> Result<Vec<SignedManifest>, DatasetError> {
        let policy = RetryPolicy {
            attempts: 3,
            total_time: self.0.settings.request_timeout * 3,
            ..RetryPolicy::default()
        };
        let asked = retry(&policy, || {
            self.0.first(|endpoint| self.0.list_from(endpoint))
        });
        let listed = asked.await;
        listed.map_err(|failed| DatasetError::Unavailable(failed.reasons))
    }

    /// Fetches every pack on offer that is not on disk, and removes old ones that no endpoint
    /// lists any more. Packs that cannot be had are reported, not waited for.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] without a listing; [`DatasetError::Io`].
    pub async fn sync(&self) -> Result<SyncReport, DatasetError> {
        let listed = self.list().await?;
        let _writing = self.0.writing.lock().await;
        let mut report = SyncReport {
            listed: listed.len(),
            ..SyncReport::default()
        };
        for manifest in &listed {
            match self.0.obtain(manifest).await {
                Ok(fetched) => report.fetched += usize::from(fetched),
                Err(error @ DatasetError::Io { .. }) => return Err(error),
                Err(error) => report.failed.push((manifest.digest, error.to_string())),
            }
        }
        self.0.prune(&listed).await?;
        Ok(report)
    }

    /// The packs of a round that starts at `start_ms`, verified and on disk. When no endpoint
    /// answers, or one of the packs cannot be had, those on disk are used and the log says so.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] when there is none at all.
    pub async fn round_packs(&self, start_ms: u64) -> Result<Vec<Pack>, DatasetError> {
        let (offered, reason) = match self.list().await {
            Ok(packs) if packs.is_empty() => (packs, Some("no pack is on offer".to_owned())),
            Ok(packs) => (packs, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let chosen = sampling::packs_of_round(offered, start_ms);
        let reason = match reason {
            None => match self.packs_of(&chosen).await {
                Ok(packs) => return Ok(packs),
                Err(error) => error.to_string(),
            },
            Some(reason) => reason,
        };
        let kept = sampling::packs_of_round(self.on_disk().await?, start_ms);
        if kept.is_empty() {
            return Err(DatasetError::Unavailable(reason));
        }
        tracing::warn!(%reason, packs = kept.len(), "the round's packs cannot be had; using those on disk");
        self.open_all(kept.iter().map(|m| m.digest).collect()).await
    }

    async fn packs_of(&self, chosen: &[SignedManifest]) -> Result<Vec<Pack>, DatasetError> {
        let _writing = self.0.writing.lock().await;
        for manifest in chosen {
            self.0.obtain(manifest).await?;
        }
        self.open_all(chosen.iter().map(|m| m.digest).collect())
            .await
    }

    /// The items with these ids out of the packs `digests`, in the order asked for. Packs that are
    /// missing or damaged on disk are fetched again.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] when a pack cannot be had.
    pub async fn items(
        &self,
        digests: &[ObjectDigest],
        ids: &[ItemId],
    ) -> Result<Vec<Item>, DatasetError> {
        match self.read_items(digests, ids).await {
            Ok(items) => return Ok(items),
            Err(error) => tracing::warn!(%error, "packs on disk do not do; mending them"),
        }
        self.mend(digests).await?;
        self.read_items(digests, ids).await
    }

    async fn read_items(
        &self,
        digests: &[ObjectDigest],
        ids: &[ItemId],
    ) -> Result<Vec<Item>, DatasetError> {
        let packs = self.open_all(digests.to_vec()).await?;
        let ids = ids.to_vec();
        blocking(move || items(&packs, &ids)).await
    }

    /// Checks packs on disk from end to end, and fetches those anew that fail.
    async fn mend(&self, digests: &[ObjectDigest]) -> Result<(), DatasetError> {
        let _writing = self.0.writing.lock().await;
        let mut bad = Vec::new();
        for digest in digests.iter().copied() {
            let cache = self.0.settings.cache.clone();
            let checked = blocking(move || {
                verify(&cache, digest).inspect_err(|_| {
                    // What cannot be removed is overwritten by what is fetched.
                    let _ = object::remove(&cache, digest);
                })
            });
            if let Err(error) = checked.await {
                tracing::warn!(%digest, %error, "a pack on disk is not usable; fetching it again");
                bad.push(digest);
            }
        }
        let offered = if bad.is_empty() {
            Vec::new()
        } else {
            self.list().await?
        };
        for digest in bad {
            let manifest = offered.iter().find(|m| m.digest == digest);
            let unlisted = || DatasetError::Unavailable(format!("no endpoint lists {digest}"));
            self.0.obtain(manifest.ok_or_else(unlisted)?).await?;
        }
        Ok(())
    }

    async fn open_all(&self, digests: Vec<ObjectDigest>) -> Result<Vec<Pack>, DatasetError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let cache = &inner.settings.cache;
            let open = |digest| Pack::open(cache, digest);
            digests.into_iter().map(open).collect()
        })
        .await
    }

    /// Manifests of the packs on disk that an operator signed.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub async fn on_disk(&self) -> Result<Vec<SignedManifest>, DatasetError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut packs = list_packs(&inner.settings.cache)?;
            packs.retain(|m| m.clone().by_one_of(&inner.settings.operators).is_ok());
            Ok(packs)
        })
        .await
    }
}

impl Inner {
    /// The first good answer. Endpoints are asked one after another as they fail, and also when
    /// the one before is silent for `hedge_after`.
    async fn first<'a, T>(
        &'a self,
        ask: impl Fn(usize) -> BoxFuture<'a, Result<T, Refusal>>,
    ) -> Result<T, AllFailed> {
        self.health.earn();
        let mut waiting = self.health.order().into_iter();
        let (mut running, mut hedging) = (FuturesUnordered::new(), true);
        let (mut asked, mut reasons) = (Vec::new(), Vec::new());
        loop {
            if running.is_empty() {
                let Some(next) = waiting.next() else {
                    return Err(self.all_failed(&reasons));
                };
                asked.push(next);
                running.push(self.within(next, ask(next)));
            }
            let hedge = hedging && waiting.len() > 0;
            tokio::select! {
                Some((endpoint, answer)) = running.next() => {
                    asked.retain(|i| *i != endpoint);
                    match answer {
                        Ok(answer) => {
                            self.health.succeeded(endpoint);
                            // Those still silent were overtaken.
                            asked.iter().for_each(|slow| self.failed(*slow, None));
                            return Ok(answer);
                        }
                        Err(refusal) => {
                            self.failed(endpoint, refusal.wait);
                            reasons.push(format!("{}: {refusal}", self.endpoints[endpoint].name()));
                        }
                    }
                }
                () = tokio::time::sleep(self.settings.hedge_after), if hedge => {
                    hedging = self.health.spend();
                    if let Some(next) = waiting.next().filter(|_| hedging) {
                        asked.push(next);
                        running.push(self.within(next, ask(next)));
                    }
                }
            }
        }
    }

    async fn within<T>(
        &self,
        endpoint: usize,
        asked: BoxFuture<'_, Result<T, Refusal>>,
    ) -> (usize, Result<T, Refusal>) {
        let answer = tokio::time::timeout(self.settings.request_timeout, asked).await;
        let late = |_| Err("no answer in time".to_owned().into());
        (endpoint, answer.unwrap_or_else(late))
    }

    fn failed(&self, endpoint: usize, wait: Option<Duration>) {
        self.health.failed(endpoint, wait, rand::random());
    }

    fn all_failed(&self, reasons: &[String]) -> AllFailed {
        let none = reasons.is_empty();
        AllFailed {
            reasons: if none {
                "every endpoint asked to be left alone for a while".to_owned()
            } else {
                reasons.join("; ")
            },
            retry: if !none && self.health.spend() {
                Retry::Now
            } else {
                Retry::Never
            },
        }
    }

    fn list_from(&self, endpoint: usize) -> BoxFuture<'_, Result<Vec<SignedManifest>, Refusal>> {
        #[derive(Deserialize)]
        struct Listing {
            packs: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            signed: Envelope,
        }
        Box::pin(async move {
            let endpoint = &self.endpoints[endpoint];
            let body = endpoint.listing().await?;
            let listing: Listing =
                serde_json::from_slice(&body).map_err(|_| "answered no pack listing".to_owned())?;
            let mut packs = Vec::with_capacity(listing.packs.len());
            for listed in listing.packs {
                let proven = SignedManifest::open(listed.signed)
                    .and_then(|manifest| manifest.by_one_of(&self.settings.operators));
                match proven {
                    Ok(m) if m.kind == Kind::Pack && m.problem().is_none() => packs.push(m),
                    Ok(_) => {}
                    Err(reason) => {
                        let endpoint = endpoint.name();
                        tracing::warn!(%endpoint, %reason, "a listed pack is not used");
                    }
                }
            }
            packs.sort_by_key(|m| (std::cmp::Reverse(m.sealed_ms), m.digest));
            Ok(packs)
        })
    }

    /// Removes packs that are not on offer any more, beyond the newest [`UNLISTED_KEPT`].
    async fn prune(&self, listed: &[SignedManifest]) -> Result<(), DatasetError> {
        let cache = self.settings.cache.clone();
        let listed: HashSet<ObjectDigest> = listed.iter().map(|m| m.digest).collect();
        blocking(move || {
            let kept = list_packs(&cache)?;
            let unlisted = kept.iter().filter(|m| !listed.contains(&m.digest));
            for old in unlisted.skip(UNLISTED_KEPT) {
                object::remove(&cache, old.digest)?;
            }
            download::sweep(&cache, &listed)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatasetError> + Send + 'static,
) -> Result<T, DatasetError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        let reason = format!("a file task failed: {e}");
        Err(DatasetError::Unavailable(reason))
    })
}
