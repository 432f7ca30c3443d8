//! The node's client against endpoints that lie, fail or are overloaded.

use std::time::Duration;

use assay::dataset::{Corpus, DatasetError, list_packs, seal};
use assay::dataset_api;

use super::Served;
use super::dataset::{client, line, sealed, signer, signer_hotkey};

/// A server that lists `listing` and answers every pack with `body`.
async fn liar(listing: String, body: Vec<u8>) -> Served {
    let headers = [("content-encoding", "zstd")];
    let app = axum::Router::new()
        .route("/v1/packs", axum::routing::get(async || listing))
        .route(
            "/v1/packs/{digest}",
            axum::routing::get(async move || (headers, body)),
        );
    Served::start(app).await
}

#[tokio::test]
async fn bytes_that_are_not_the_pack_are_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 20);
    let listing = serde_json::json!({ "packs": [manifest] }).to_string();
    let wrong = zstd::encode_all(line("2026-11-20", 5).as_bytes(), 1).unwrap();
    let endless = vec![7u8; 9 * 1024 * 1024];
    let honest = Served::start(dataset_api::router(folder.path().join("sealed"))).await;
    for body in [wrong, endless, Vec::new()] {
        let liar = liar(listing.clone(), body).await;
        let cache = folder.path().join("cache");
        let refused = client(&[&liar.url], &cache).round_packs(5_000).await;
        let unavailable = matches!(refused, Err(DatasetError::Unavailable(_)));
        assert!(unavailable, "{refused:?}");
        assert_eq!(list_packs(&cache).unwrap(), [], "something was kept");

        // What the liar left half done does not spoil the honest one's bytes.
        let both = client(&[&liar.url, &honest.url], &cache);
        let packs = both.round_packs(5_000).await.unwrap();
        assert_eq!(packs[0].digest(), manifest.digest);
        std::fs::remove_dir_all(&cache).unwrap();
    }
}

#[tokio::test]
async fn packs_of_strangers_and_forged_manifests_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 20);
    let corpus = Corpus::open(&folder.path().join("corpus")).unwrap();
    let strange = folder.path().join("strange");
    let with = (&signer("//Stranger"), 1_000);
    let stranger = seal(&corpus, &strange, (None, None), with, &mut |_| {}).unwrap();
    let mut forged: serde_json::Value = serde_json::from_str(&manifest.to_json()).unwrap();
    forged["signed"]["signatures"][0]["keyid"] =
        serde_json::json!(signer_hotkey("//Stranger").to_string());
    let listing = serde_json::json!({ "packs": [stranger, forged] }).to_string();
    let liar = liar(listing, Vec::new()).await;
    let cache = folder.path().join("cache");
    let listed = client(&[&liar.url], &cache).list().await.unwrap();
    assert_eq!(listed, []);
    let refused = client(&[&liar.url], &cache).round_packs(5_000).await;
    assert!(matches!(refused, Err(DatasetError::Unavailable(_))));
}

#[tokio::test]
async fn whoever_is_overloaded_is_left_alone_and_the_budget_ends_retries() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let asked = std::sync::Arc::new(AtomicU32::new(0));
    for (status, expected) in [(503, 1..=50), (500, 50..=66)] {
        let count = std::sync::Arc::clone(&asked);
        asked.store(0, Ordering::Relaxed);
        let app = axum::Router::new().route(
            "/v1/packs",
            axum::routing::get(async move || {
                count.fetch_add(1, Ordering::Relaxed);
                let status = axum::http::StatusCode::from_u16(status).unwrap();
                (status, [("retry-after", "60")])
            }),
        );
        let server = Served::start(app).await;
        let node = client(&[&server.url], folder.path());
        let begun = std::time::Instant::now();
        let calls = (0..50).map(|_| node.list());
        for answer in futures::future::join_all(calls).await {
            answer.unwrap_err();
        }
        // 50 calls ask once each at most; retries come out of a budget of 10 and a tenth of calls.
        let seen = asked.load(Ordering::Relaxed);
        if status == 503 {
            node.list().await.unwrap_err();
            assert_eq!(
                asked.load(Ordering::Relaxed),
                seen,
                "asked in spite of Retry-After"
            );
        } else {
            assert!(expected.contains(&seen), "{seen} requests");
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
