//! Hostile listings, and hostile names in a download.

use super::{REPO, World, facts, quick};
use assay::hub::{Download, HubClient, HubError, MAX_FILES, PublishedDigest, RepoFile};
use axum::extract::Query;
use axum::http::header::LINK;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const HEAD: &str = "00112233445566778899aabbccddeeff00112233";

/// A hub whose info and listing are what a test wants; every page links to a next one if `endless`.
async fn hub_saying(info: Value, tree: Value, endless: bool) -> (HubClient, Tasks) {
    let pages = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pages);
    let page = move |Query(query): Query<HashMap<String, String>>| async move {
        counter.fetch_add(1, Ordering::Relaxed);
        let next: usize = query.get("cursor").map_or(0, |c| c.parse().unwrap()) + 1;
        let link = format!("</api/models/lab/model-1/tree/{HEAD}?cursor={next}>; rel=\"next\"");
        let body = Json(tree.clone());
        if endless {
            ([(LINK, link)], body).into_response()
        } else {
            body.into_response()
        }
    };
    let routes = Router::new()
        .route("/api/models/lab/model-1", get(move || async { Json(info) }))
        .route("/api/models/lab/model-1/tree/{revision}", get(page));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async { axum::serve(listener, routes).await });
    let client = HubClient::new(quick(url.parse().unwrap())).unwrap();
    (
        client,
        Tasks {
            pages,
            _tasks: tasks,
        },
    )
}

/// The hub ends with this.
struct Tasks {
    pages: Arc<AtomicUsize>,
    _tasks: JoinSet<std::io::Result<()>>,
}

fn info() -> Value {
    json!({ "id": REPO, "sha": HEAD, "private": false, "gated": false, "disabled": false })
}

fn file(path: &str) -> Value {
    json!({ "type": "file", "path": path, "oid": "ab".repeat(20), "size": 1 })
}

#[tokio::test]
async fn names_come_out_as_they_are_and_none_is_ever_written() {
    let hostile = [
        "../../x",
        "/etc/passwd",
        "a\u{0}b",
        "\u{1b}[2J",
        "sub/a.json",
        "é",
        ".parts",
    ];
    let tree: Vec<Value> = hostile.iter().map(|path| file(path)).collect();
    let (client, _tasks) = hub_saying(info(), json!(tree), false).await;
    let facts = facts(&client).await;
    assert_eq!(facts.revision, HEAD);
    assert_eq!(facts.files.len(), hostile.len());
    let out = tempfile::tempdir().unwrap();
    let dest = out.path().join("inner");
    for file in &facts.files {
        let job = Download {
            repo: REPO,
            revision: HEAD,
            files: std::slice::from_ref(file),
            dest: &dest,
            blobs: out.path(),
        };
        let error = client.download(job, &|_| ()).await.unwrap_err();
        assert!(matches!(error, HubError::Invalid { .. }), "{error}");
    }
    assert!(!dest.exists());
}

#[tokio::test]
async fn listings_are_read_to_a_bound() {
    let tree: Vec<Value> = (0..=MAX_FILES).map(|n| file(&format!("f{n}"))).collect();
    let (client, _tasks) = hub_saying(info(), json!(tree[1..]), false).await;
    assert_eq!(facts(&client).await.files.len(), MAX_FILES);

    let large = vec![file(&"p".repeat(400)); 10_000];
    for (tree, endless) in [
        (json!(tree), false),
        (json!([]), true),
        (json!(large), false),
    ] {
        let (client, tasks) = hub_saying(info(), tree, endless).await;
        let error = client.facts(REPO, None).await.unwrap_err();
        assert!(matches!(error, HubError::OutOfBounds { .. }), "{error}");
        assert!(tasks.pages.load(Ordering::Relaxed) <= 5);
    }
}

#[tokio::test]
async fn repositories_that_are_not_public_are_refused_with_the_reason() {
    for (key, value) in [
        ("private", json!(true)),
        ("gated", json!("manual")),
        ("gated", json!("auto")),
        ("disabled", json!(true)),
    ] {
        let mut info = info();
        info[key] = value;
        let (client, tasks) = hub_saying(info, json!([]), false).await;
        let error = client.facts(REPO, None).await.unwrap_err();
        assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(tasks.pages.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_hub_that_names_no_commit_is_not_believed() {
    for sha in [
        json!(null),
        json!("main"),
        json!(""),
        json!("../".repeat(13)),
    ] {
        let mut info = info();
        info["sha"] = sha;
        let (client, _tasks) = hub_saying(info, json!([]), false).await;
        let error = client.facts(REPO, None).await.unwrap_err();
        assert_eq!(error.fault().code, "HUB_PROTOCOL", "{error}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_is_asked() {
    let mut world = World::new();
    let (hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    for (repo, revision) in [
        ("../x", None),
        ("lab", None),
        (REPO, Some("main")),
        (REPO, Some("")),
    ] {
        let error = client.facts(repo, revision).await.unwrap_err();
        assert!(matches!(error, HubError::Invalid { .. }), "{error}");
    }
    let listed = RepoFile {
        path: "a.json".to_owned(),
        size: u64::MAX / 2,
        digest: PublishedDigest::git_blob_from(HEAD).unwrap(),
    };
    let dest = world.dest();
    let twice = [listed.clone(), listed];
    let error = client
        .download(world.job(&twice, &dest), &|_| ())
        .await
        .unwrap_err();
    assert!(matches!(error, HubError::Invalid { .. }), "{error}");
    assert_eq!(hub.requests(), []);
    for endpoint in [
        "ftp://hub.test",
        "http://me@hub.test",
        "http://hub.test/?a=b",
    ] {
        let made = HubClient::new(quick(endpoint.parse().unwrap()));
        assert!(matches!(made, Err(HubError::Invalid { .. })), "{endpoint}");
    }
    world.end().await;
}
