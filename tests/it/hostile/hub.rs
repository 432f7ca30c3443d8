//! A model hub that says and serves whatever it is told to.

use super::model::Repo;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every repository is at this commit.
pub(super) const REVISION: &str = "00112233445566778899aabbccddeeff00112233";

type Repos = Arc<BTreeMap<&'static str, Repo>>;
type Answer = Result<Response, StatusCode>;

pub(super) fn routes(repos: BTreeMap<&'static str, Repo>) -> Router {
    Router::new()
        .route("/api/models/hostile/{name}", get(info))
        .route("/api/models/hostile/{name}/revision/{revision}", get(info))
        .route("/api/models/hostile/{name}/tree/{revision}", get(tree))
        .route("/hostile/{name}/resolve/{revision}/{file}", get(resolve))
        .with_state(Arc::new(repos))
}

async fn info(Path(path): Path<Vec<(String, String)>>) -> Json<Value> {
    let id = format!("hostile/{}", path[0].1);
    Json(json!({"id": id, "sha": REVISION, "private": false, "gated": false, "disabled": false}))
}

async fn tree(State(repos): State<Repos>, Path(path): Path<(String, String)>) -> Answer {
    let repo = repos.get(path.0.as_str()).ok_or(StatusCode::NOT_FOUND)?;
    let file = |(path, content): (&String, &Vec<u8>)| {
        let size = content.len();
        let entry = json!({"type": "file", "path": path, "oid": git_blob(content), "size": size});
        match is_large(path) {
            false => entry,
            true => {
                let lfs = json!({"oid": sha256(content), "size": size, "pointerSize": 130});
                json!({"type": "file", "path": path, "oid": git_blob(b""), "size": size, "lfs": lfs})
            }
        }
    };
    let only =
        |path: &String| json!({"type": "file", "path": path, "oid": git_blob(b"x"), "size": 1});
    let all: Vec<_> = repo
        .files
        .iter()
        .map(file)
        .chain(repo.listed.iter().map(only))
        .collect();
    Ok(Json(all).into_response())
}

async fn resolve(
    State(repos): State<Repos>,
    method: Method,
    Path((name, _, path)): Path<(String, String, String)>,
) -> Answer {
    let repo = repos.get(name.as_str()).ok_or(StatusCode::NOT_FOUND)?;
    let content = repo.files.get(&path).ok_or(StatusCode::NOT_FOUND)?;
    let tag = match is_large(&path) {
        true => sha256(content),
        false => git_blob(content),
    };
    let said = Response::builder()
        .header("x-repo-commit", REVISION)
        .header("x-linked-etag", format!("\"{tag}\""))
        .header("x-linked-size", content.len())
        .header("etag", format!("\"{tag}\""));
    let body = match method {
        Method::HEAD => Body::empty(),
        _ if repo.endless.contains(&path) => {
            let chunk = Bytes::from(vec![0; 1 << 16]);
            let chunks =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            Body::from_stream(chunks)
        }
        _ => Body::from(repo.swapped.get(&path).unwrap_or(content).clone()),
    };
    said.body(body)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether a file is kept as a large one, with a published SHA-256.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn git_blob(content: &[u8]) -> String {
    let mut hasher = assay::hub::Hasher::with_git_blob(content.len().try_into().unwrap());
    hasher.update(content);
    hasher.finish().git_blob.unwrap()
}
