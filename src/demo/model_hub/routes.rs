//! The Hub's paths and the shapes of its replies.

use super::Shared;
use super::catalogue::{Entry, Missing, Snapshot, git_oid};
use super::content;
use super::trouble::{Seen, Trouble};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, ETAG, HOST, IF_RANGE};
use axum::http::header::{LINK, LOCATION, RANGE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_TAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_TEXT: HeaderName = HeaderName::from_static("x-error-message");

type Hub = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/models/{namespace}/{name}", get(head_info))
        .route(
            "/api/models/{namespace}/{name}/revision/{revision}",
            get(info),
        )
        .route("/api/models/{namespace}/{name}/tree/{revision}", get(tree))
        .route(
            "/{namespace}/{name}/resolve/{revision}/{*path}",
            get(resolve),
        )
        .route("/cdn/{namespace}/{name}/{revision}/{*path}", get(stored))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), watch))
        .with_state(shared)
}

/// Records the request and answers with an error page where that trouble lies in wait.
async fn watch(State(hub): Hub, request: Request, next: Next) -> Response {
    let path = request.uri().to_string();
    hub.troubles.record(seen(&request));
    let error_page = |trouble: &Trouble| matches!(trouble, Trouble::Answer { .. });
    let Some(Trouble::Answer {
        status,
        code,
        retry_after,
    }) = hub.troubles.take(&path, error_page)
    else {
        return next.run(request).await;
    };
    hub.troubles.happened();
    let mut headers = HeaderMap::new();
    if let Some(code) = code {
        headers.insert(ERROR_CODE, HeaderValue::from_static(code));
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, "an error page, not a model").into_response()
}

fn seen(request: &Request) -> Seen {
    let asks = |name| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Seen {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        range: asks(RANGE),
        if_range: asks(IF_RANGE),
        authorization: asks(AUTHORIZATION),
    }
}

/// Why a request has no answer.
enum Failure {
    Missing(Missing),
    NoFile(String),
    Disk(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (code, text, commit) = match self {
            Self::Missing(Missing::Repo) => ("RepoNotFound", "Repository not found", None),
            Self::Missing(Missing::Revision) => ("RevisionNotFound", "Invalid rev id", None),
            Self::NoFile(commit) => ("EntryNotFound", "Entry not found", Some(commit)),
            Self::Disk(error) => {
                tracing::warn!(%error, "the model hub cannot read its folder");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        let commit = commit.map(|commit| [(COMMIT, commit)]);
        let body = Json(json!({ "error": text }));
        let headers = [(ERROR_CODE, code), (ERROR_TEXT, text)];
        match commit {
            Some(commit) => (StatusCode::NOT_FOUND, headers, commit, body).into_response(),
            None => (StatusCode::NOT_FOUND, headers, body).into_response(),
        }
    }
}

/// Finds a snapshot on a thread where reading files may block.
async fn find(
    hub: &Arc<Shared>,
    namespace: String,
    name: String,
    revision: String,
) -> Result<Arc<Snapshot>, Failure> {
    let hub = Arc::clone(hub);
    let found =
        tokio::task::spawn_blocking(move || hub.catalogue.find(&namespace, &name, &revision));
    found
        .await
        .map_err(io::Error::other)??
        .map_err(Failure::Missing)
}

async fn head_info(
    hub: Hub,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    info(hub, Path((namespace, name, "main".to_owned()))).await
}

async fn info(
    State(hub): Hub,
    Path((namespace, name, revision)): Path<(String, String, String)>,
) -> Result<Json<Value>, Failure> {
    let id = format!("{namespace}/{name}");
    let snapshot = find(&hub, namespace.clone(), name, revision).await?;
    let siblings: Vec<Value> = snapshot
        .files
        .keys()
        .map(|path| json!({ "rfilename": path }))
        .collect();
    Ok(Json(json!({
        "_id": &git_oid(id.as_bytes())[..24],
        "id": id,
        "modelId": id,
        "author": namespace,
        "sha": snapshot.revision,
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": ["safetensors"],
        "siblings": siblings,
    })))
}

#[derive(Deserialize)]
struct TreeQuery {
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    cursor: usize,
}

async fn tree(
    State(hub): Hub,
    Path((namespace, name, revision)): Path<(String, String, String)>,
    Query(query): Query<TreeQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let path = format!("/api/models/{namespace}/{name}/tree/{revision}");
    let snapshot = find(&hub, namespace, name, revision).await?;
    let entries = listing(&snapshot, query.recursive);
    let page: Vec<&Value> = entries.iter().skip(query.cursor).take(hub.page).collect();
    let next = query.cursor.saturating_add(page.len());
    let body = Json(json!(page));
    if next >= entries.len() || page.is_empty() {
        return Ok(body.into_response());
    }
    let recursive = query.recursive;
    let address = format!(
        "{}{path}?recursive={recursive}&cursor={next}",
        own_address(&headers)
    );
    Ok(([(LINK, format!("<{address}>; rel=\"next\""))], body).into_response())
}

fn listing(snapshot: &Snapshot, recursive: bool) -> Vec<Value> {
    let mut folders = BTreeSet::new();
    let mut files = Vec::new();
    for (path, entry) in &snapshot.files {
        let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        let shown = if recursive {
            slashes.len()
        } else {
            slashes.len().min(1)
        };
        folders.extend(slashes[..shown].iter().map(|at| path[..*at].to_owned()));
        if recursive || slashes.is_empty() {
            files.push(file_entry(path, entry));
        }
    }
    let folders = folders.into_iter().map(|path| {
        // Git would hash the folder's entries; no client looks at more than the shape.
        json!({ "type": "directory", "oid": git_oid(path.as_bytes()), "size": 0, "path": path })
    });
    folders.chain(files).collect()
}

fn file_entry(path: &str, entry: &Entry) -> Value {
    let size = entry.size;
    match entry.digest.sha256() {
        None => json!({ "type": "file", "oid": entry.digest.hex(), "size": size, "path": path }),
        Some(sha256) => {
            let pointer = pointer(sha256, size);
            json!({
                "type": "file",
                "oid": git_oid(pointer.as_bytes()),
                "size": size,
                "path": path,
                "lfs": { "oid": sha256, "size": size, "pointerSize": pointer.len() },
            })
        }
    }
}

/// The text that git holds in place of a large file.
fn pointer(sha256: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
}

fn own_address(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("localhost"))
}

async fn resolve(
    State(hub): Hub,
    method: Method,
    Path((namespace, name, revision, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let place = format!("/{namespace}/{name}/resolve/{revision}/{path}");
    let store = match &hub.store {
        Some(store) => store.as_str().trim_end_matches('/').to_owned(),
        None => own_address(&headers),
    };
    let snapshot = find(&hub, namespace.clone(), name.clone(), revision).await?;
    let pinned = &snapshot.revision;
    let entry = snapshot.files.get(&path);
    let entry = entry.ok_or_else(|| Failure::NoFile(pinned.clone()))?;
    let swapped = hub.troubles.take(&place, |t| *t == Trouble::OtherCommit);
    let commit = match swapped {
        None => pinned.clone(),
        Some(_) => {
            hub.troubles.happened();
            git_oid(pinned.as_bytes())
        }
    };
    let commit = [(COMMIT, commit)];
    if entry.digest.sha256().is_some() {
        let to = format!("{store}/cdn/{namespace}/{name}/{pinned}/{path}");
        return Ok((StatusCode::FOUND, commit, linked(entry), [(LOCATION, to)]).into_response());
    }
    if method == Method::HEAD {
        return Ok((commit, describe(entry)).into_response());
    }
    let answer = content::answer(&hub, entry, &headers, &place).await?;
    Ok((commit, answer).into_response())
}

async fn stored(
    State(hub): Hub,
    method: Method,
    Path((namespace, name, revision, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let place = format!("/cdn/{namespace}/{name}/{revision}/{path}");
    let snapshot = find(&hub, namespace, name, revision).await?;
    let entry = snapshot.files.get(&path);
    let entry = entry.ok_or_else(|| Failure::NoFile(snapshot.revision.clone()))?;
    if method == Method::HEAD {
        // Clients that follow a redirect within one host look here for what the hub names itself.
        let commit = [(COMMIT, snapshot.revision.clone())];
        return Ok((commit, linked(entry), describe(entry)).into_response());
    }
    Ok(content::answer(&hub, entry, &headers, &place).await?)
}

fn linked(entry: &Entry) -> [(HeaderName, String); 2] {
    [
        (LINKED_TAG, format!("\"{}\"", entry.digest.hex())),
        (LINKED_SIZE, entry.size.to_string()),
    ]
}

fn describe(entry: &Entry) -> [(HeaderName, String); 3] {
    [
        (ETAG, format!("\"{}\"", entry.digest.hex())),
        (CONTENT_LENGTH, entry.size.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ]
}
