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

use super::encoding::{Encoding, negotiate, plain};
use super::listing::Listing;
use crate::dataset::{DatasetError, Manifest, PackDigest, pack_path};
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

async fn manifests(api: &Api) -> Result<Arc<Vec<Manifest>>, ApiError> {
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
    let digest: PackDigest = digest
        .parse()
        .map_err(|reason: String| ApiError::bad_request("PACK_DIGEST", reason))?;
    let packs = manifests(&api).await?;
    let manifest = packs.iter().find(|m| m.digest == digest).ok_or_else(|| {
        ApiError::not_found(
            "NO_SUCH_PACK",
            "No such pack; GET /v1/packs lists those there are.",
        )
    })?;
    let encoding = negotiate(&headers).ok_or_else(|| {
        let detail = "A pack comes as zstd or plain; accept one of them.";
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", detail)
    })?;
    let tag = match encoding {
        Encoding::Zstd => format!("\"{}-zstd\"", digest.hex()),
        Encoding::Identity => format!("\"{}\"", digest.hex()),
    };
    let fixed = [
        (header::CACHE_CONTROL, IMMUTABLE.to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    if web::etag_matches(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let body = open(&api, manifest, encoding).await?;
    let mut response = (fixed, body).into_response();
    let headers = response.headers_mut();
    let length = match encoding {
        Encoding::Zstd => manifest.zstd_bytes,
        Encoding::Identity => manifest.plain_bytes,
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    headers.insert(header::CONTENT_TYPE, ndjson);
    if encoding == Encoding::Zstd {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    }
    Ok(response)
}

async fn open(api: &Api, manifest: &Manifest, encoding: Encoding) -> Result<Body, ApiError> {
    let path = pack_path(api.listing.folder(), manifest.digest);
    let failed = |error: std::io::Error| {
        tracing::error!(path = %path.display(), %error, "a listed pack cannot be opened");
        ApiError::unavailable()
    };
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    if length != manifest.zstd_bytes {
        return Err(failed(std::io::Error::other(
            "its length is not its manifest's",
        )));
    }
    match encoding {
        Encoding::Zstd => Ok(Body::from_stream(ReaderStream::with_capacity(file, CHUNK))),
        Encoding::Identity => Ok(Body::from_stream(plain(file).map_err(failed)?)),
    }
}
