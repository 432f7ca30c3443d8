//! Paths and answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::encoding::negotiate;
use super::listing::Listing;
use crate::dataset::object::lookup;
use crate::dataset::{DatasetError, Form, ObjectDigest, SignedManifest};
use crate::web::{self, ApiError};

/// A pack never changes: whoever has it need never ask again.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const SHORT: &str = "public, max-age=2";
/// Bytes read from the file at a time.
const CHUNK: usize = 128 * 1024;

struct Api {
    listing: Listing,
    started: Instant,
}

/// All paths of the Dataset API over the sealed packs in `packs`. The folder may be empty or
/// absent and may fill while it is served.
pub fn router(packs: PathBuf) -> Router {
    let api = Api {
        listing: Listing::new(packs),
        started: Instant::now(),
    };
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/packs", get(list))
        .route("/v1/packs/{digest}", get(pack));
    web::with_basics(router).with_state(Arc::new(api))
}

/// The reason goes to the log: it names paths of this machine.
fn failed(error: &DatasetError) -> ApiError {
    tracing::error!(%error, "the packs cannot be listed");
    ApiError::unavailable()
}

async fn manifests(api: &Api) -> Result<Arc<Vec<SignedManifest>>, ApiError> {
    api.listing.get().await.map_err(|e| failed(&e))
}

async fn status(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let packs = manifests(&api).await?;
    Ok(Json(json!({
        "service": "dataset-api",
        "version": env!("CARGO_PKG_VERSION"),
        "packs": packs.len(),
        "newest": packs.first().map(|m| m.digest),
        "uptime_s": api.started.elapsed().as_secs(),
    })))
}

async fn list(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let packs = manifests(&api).await?;
    let body = Json(json!({ "packs": *packs }));
    Ok(([(header::CACHE_CONTROL, SHORT)], body).into_response())
}

async fn pack(
    State(api): State<Arc<Api>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest: ObjectDigest = digest
        .parse()
        .map_err(|reason: String| ApiError::bad_request("PACK_DIGEST", reason))?;
    let packs = manifests(&api).await?;
    let manifest = packs.iter().find(|m| m.digest == digest).ok_or_else(|| {
        ApiError::not_found(
            "NO_SUCH_PACK",
            "No such pack; GET /v1/packs lists those there are.",
        )
    })?;
    let form = negotiate(&headers).ok_or_else(|| {
        let detail = "A pack comes as zstd, gzip or plain; accept one of them.";
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", detail)
    })?;
    let facts = manifest.forms.get(form);
    let tag = format!("\"{}\"", facts.sha256.hex());
    let fixed = [
        (header::CACHE_CONTROL, IMMUTABLE.to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    if web::etag_matches(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let body = open(&api, digest, form).await?;
    let mut response = (fixed, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(facts.bytes));
    let media_type = HeaderValue::from_static(manifest.media_type.as_str());
    headers.insert(header::CONTENT_TYPE, media_type);
    if let Some(encoding) = form.content_encoding() {
        let encoding = HeaderValue::from_static(encoding);
        headers.insert(header::CONTENT_ENCODING, encoding);
    }
    Ok(response)
}

async fn open(api: &Api, digest: ObjectDigest, form: Form) -> Result<Body, ApiError> {
    let folder = api.listing.folder().to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let object = lookup(&folder, digest)?;
        object.map(|object| object.path(form)).transpose()
    });
    let found = found.await.map_err(|_| ApiError::unavailable())?;
    let (path, _) = found
        .map_err(|e| failed(&e))?
        .ok_or_else(ApiError::unavailable)?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| {
        tracing::error!(path = %path.display(), %error, "a listed pack cannot be opened");
        ApiError::unavailable()
    })?;
    Ok(Body::from_stream(ReaderStream::with_capacity(file, CHUNK)))
}
