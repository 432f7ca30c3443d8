//! Fetches packs from the Dataset API and keeps them; works from disk when the API is down.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use serde::Deserialize;
use url::Url;

use super::manifest::{Form, Kind};
use super::object::{self, SignedManifest, form_path, index_path, manifest_path, read_manifest};
use super::pack::{Plain, check_pack, decoder, file_facts};
use super::seal::{persist, write_whole};
use super::signed::Envelope;
use super::{DatasetError, ObjectDigest, Pack, list_packs};
use crate::bittensor::Hotkey;

/// Longest listing accepted.
const LISTING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Packs kept on disk.
const PACKS_KEPT: usize = 16;

/// Where packs come from, and the bounds of fetching them.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Base URLs, tried in order.
    pub endpoints: Vec<Url>,
    /// Folder that keeps verified packs; made when absent.
    pub cache: PathBuf,
    /// Deadline of one listing from one endpoint.
    pub request_timeout: Duration,
    /// Deadline of one pack from one endpoint.
    pub download_timeout: Duration,
    /// Largest pack accepted, compressed bytes.
    pub pack_bytes_max: u64,
    /// Hotkeys whose packs are used; empty for anybody's.
    pub operators: Vec<Hotkey>,
}

/// The node's side of the Dataset API. Each call tries every endpoint once; calling again later is
/// the caller's decision.
#[derive(Debug, Clone)]
pub struct DatasetClient {
    http: reqwest::Client,
    settings: ClientSettings,
}

#[derive(Deserialize)]
struct Listing {
    packs: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    signed: Envelope,
}

impl DatasetClient {
    /// A client that has asked nothing yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(settings: ClientSettings) -> Result<Self, DatasetError> {
        let http = reqwest::Client::builder()
            .connect_timeout(settings.request_timeout)
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| DatasetError::Unavailable(describe(&e)))?;
        Ok(Self { http, settings })
    }

    /// Packs that the first answering endpoint offers, newest first.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] with every endpoint's reason when none answered well.
    pub async fn list(&self) -> Result<Vec<SignedManifest>, DatasetError> {
        let mut reasons = Vec::new();
        for endpoint in &self.settings.endpoints {
            let asked = self.list_from(endpoint);
            match tokio::time::timeout(self.settings.request_timeout, asked).await {
                Ok(Ok(packs)) => return Ok(packs),
                Ok(Err(reason)) => reasons.push(format!("{endpoint}: {reason}")),
                Err(_) => reasons.push(format!("{endpoint}: no listing in time")),
            }
        }
        Err(DatasetError::Unavailable(reasons.join("; ")))
    }

    async fn list_from(&self, endpoint: &Url) -> Result<Vec<SignedManifest>, String> {
        let url = join(endpoint, "v1/packs")?;
        let mut response = self.http.get(url).send().await.map_err(|e| describe(&e))?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| describe(&e))? {
            if body.len() + chunk.len() > LISTING_BYTES_MAX {
                return Err("the listing is larger than 4 MiB".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        let listing: Listing =
            serde_json::from_slice(&body).map_err(|_| "answered no pack listing".to_owned())?;
        let mut packs = Vec::with_capacity(listing.packs.len());
        for listed in listing.packs {
            let proven = SignedManifest::open(listed.signed)
                .and_then(|manifest| manifest.by_one_of(&self.settings.operators));
            match proven {
                Ok(manifest) if manifest.kind == Kind::Pack && manifest.problem().is_none() => {
                    packs.push(manifest);
                }
                Ok(_) => {}
                Err(reason) => tracing::warn!(%endpoint, %reason, "a listed pack is not used"),
            }
        }
        packs.sort_by_key(|m| (std::cmp::Reverse(m.sealed_ms), m.digest));
        Ok(packs)
    }

    /// The newest pack: from the API when it answers, else the newest good one on disk (logged).
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] when neither gives one.
    pub async fn newest(&self) -> Result<Pack, DatasetError> {
        let reason = match self.list().await {
            Ok(packs) => match packs.into_iter().next() {
                Some(newest) => match self.obtain(&newest).await {
                    Ok(pack) => return Ok(pack),
                    Err(error) => error.to_string(),
                },
                None => "the API offers no pack".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        for manifest in self.on_disk().await? {
            match self.open(manifest.digest).await {
                Ok(pack) => {
                    let digest = pack.digest();
                    tracing::warn!(%reason, %digest, "no newer pack can be had; using one on disk");
                    return Ok(pack);
                }
                Err(error) => tracing::warn!(%error, "passed over a pack on disk"),
            }
        }
        Err(DatasetError::Unavailable(reason))
    }

    /// The pack `digest`: from disk, else from the first endpoint that gives it whole and true.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] when no endpoint does; [`DatasetError::Io`] when the disk
    /// refuses.
    pub async fn fetch(&self, digest: ObjectDigest) -> Result<Pack, DatasetError> {
        if let Some(pack) = self.cached(digest).await {
            return Ok(pack);
        }
        let offered = self.list().await?;
        let manifest = offered.into_iter().find(|m| m.digest == digest);
        let manifest = manifest
            .ok_or_else(|| DatasetError::Unavailable(format!("no endpoint lists {digest}")))?;
        self.obtain(&manifest).await
    }

    async fn cached(&self, digest: ObjectDigest) -> Option<Pack> {
        read_manifest(&self.settings.cache, digest).ok()?;
        match self.open(digest).await {
            Ok(pack) => Some(pack),
            Err(error) => {
                tracing::warn!(%error, "a pack on disk is not usable; fetching it again");
                None
            }
        }
    }

    async fn obtain(&self, manifest: &SignedManifest) -> Result<Pack, DatasetError> {
        if let Some(pack) = self.cached(manifest.digest).await {
            return Ok(pack);
        }
        let mut reasons = Vec::new();
        for endpoint in &self.settings.endpoints {
            let limit = self.settings.download_timeout;
            let reason = match tokio::time::timeout(limit, self.download(endpoint, manifest)).await
            {
                Ok(Ok(pack)) => {
                    self.prune(manifest.digest).await;
                    return Ok(pack);
                }
                Ok(Err(error @ DatasetError::Io { .. })) => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the download did not end in time".to_owned(),
            };
            tracing::warn!(%endpoint, %reason, digest = %manifest.digest, "could not fetch a pack");
            reasons.push(format!("{endpoint}: {reason}"));
        }
        Err(DatasetError::Unavailable(reasons.join("; ")))
    }

    /// Streams the pack to a draft, checks it, and only then gives it its name.
    async fn download(
        &self,
        endpoint: &Url,
        manifest: &SignedManifest,
    ) -> Result<Pack, DatasetError> {
        let unavailable = |reason: String| DatasetError::Unavailable(reason);
        let path = format!("v1/packs/{}", manifest.digest.hex());
        let url = join(endpoint, &path).map_err(unavailable)?;
        let request = self.http.get(url).header(ACCEPT_ENCODING, "zstd");
        let mut response = request
            .send()
            .await
            .map_err(|e| unavailable(describe(&e)))?;
        let encoding = response.headers().get(CONTENT_ENCODING);
        if !response.status().is_success() || encoding.is_none_or(|e| e != "zstd") {
            let status = response.status();
            return Err(unavailable(format!(
                "answered {status} without a zstd pack"
            )));
        }
        let cache = &self.settings.cache;
        std::fs::create_dir_all(cache).map_err(DatasetError::io(cache))?;
        let mut draft = tempfile::Builder::new()
            .prefix(".draft-")
            .tempfile_in(cache)
            .map_err(DatasetError::io(cache))?;
        let mut read = 0;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| unavailable(describe(&e)))?
        {
            read += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if read > self.settings.pack_bytes_max {
                return Err(DatasetError::TooLarge {
                    what: format!("pack {}", manifest.digest),
                    reason: "dataset.pack_size_max".to_owned(),
                });
            }
            draft.write_all(&chunk).map_err(DatasetError::io(cache))?;
        }
        let (cache, manifest) = (cache.clone(), manifest.clone());
        blocking(move || keep(&cache, draft, &manifest)).await
    }

    async fn open(&self, digest: ObjectDigest) -> Result<Pack, DatasetError> {
        let cache = self.settings.cache.clone();
        blocking(move || Pack::open(&cache, digest)).await
    }

    async fn on_disk(&self) -> Result<Vec<SignedManifest>, DatasetError> {
        let cache = self.settings.cache.clone();
        blocking(move || list_packs(&cache)).await
    }

    /// Removes the oldest packs beyond [`PACKS_KEPT`], never `keep`.
    async fn prune(&self, keep: ObjectDigest) {
        let cache = self.settings.cache.clone();
        let pruned = blocking(move || {
            for old in list_packs(&cache)?.iter().skip(PACKS_KEPT) {
                if old.digest != keep {
                    object::remove(&cache, old.digest)?;
                }
            }
            Ok(())
        });
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "could not remove old packs");
        }
    }
}

/// Checks a downloaded zstd form, unpacks it, checks every conversation, and only then gives it
/// its names in the cache.
fn keep(
    cache: &Path,
    draft: tempfile::NamedTempFile,
    manifest: &SignedManifest,
) -> Result<Pack, DatasetError> {
    let digest = manifest.digest;
    let corrupt = |reason: &str| DatasetError::corrupt(format!("pack {digest}"), reason);
    // The compressed bytes first: the decoder is only given what the operator signed.
    if file_facts(draft.path())? != manifest.forms.zstd {
        return Err(corrupt("the download is not what was signed"));
    }
    let unpacked = tempfile::Builder::new()
        .prefix(".draft-")
        .tempfile_in(cache)
        .map_err(DatasetError::io(cache))?;
    // Opened anew: the draft's own handle stands at its end.
    let written = std::fs::File::open(draft.path()).map_err(DatasetError::io(cache))?;
    let mut packed = decoder(&written, Form::Zstd).map_err(DatasetError::io(cache))?;
    std::io::copy(&mut packed, &mut unpacked.as_file()).map_err(DatasetError::io(cache))?;
    let file = std::fs::File::open(unpacked.path()).map_err(DatasetError::io(cache))?;
    let mut plain = Plain::new(std::io::BufReader::new(file));
    let index = check_pack(&mut plain, manifest)?;
    if plain.finish() != manifest.forms.identity {
        return Err(corrupt("its plain bytes are not what was signed"));
    }
    persist(unpacked, &form_path(cache, digest, Form::Identity))?;
    write_whole(&index_path(cache, digest), &index)?;
    let manifest_file = manifest_path(cache, digest);
    write_whole(&manifest_file, manifest.to_json().as_bytes())?;
    Pack::open(cache, digest)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatasetError> + Send + 'static,
) -> Result<T, DatasetError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        Err(DatasetError::Unavailable(format!(
            "a file task failed: {e}"
        )))
    })
}

/// `endpoint` with `path` below it, whether or not it ends in a slash.
fn join(endpoint: &Url, path: &str) -> Result<Url, String> {
    let base = endpoint.as_str().trim_end_matches('/');
    format!("{base}/{path}")
        .parse()
        .map_err(|e| format!("is no usable endpoint: {e}"))
}

/// The error with its causes; reqwest's own text names only the outermost.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
