//! The Dataset API over loopback, from a corpus on disk to items in the node.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use assay::dataset::client::{ClientSettings, DatasetClient};
use assay::dataset::{
    Corpus, DatasetError, Day, Manifest, Pack, PackDigest, Rejected, list_packs, pack_path,
    sampling, seal,
};
use assay::dataset_api;
use sha2::{Digest, Sha256};
use url::Url;

use super::Served;

fn line(day: &str, n: u32) -> String {
    format!(
        r#"{{"created":"{day}","system_prompt":"You are a lighthouse keeper.","messages":[{{"role":"user","content":"Night {n}, what do you see?"}},{{"role":"assistant","content":"Ship number {n}, far out."}}]}}"#
    )
}

fn lines(day: &str, range: std::ops::Range<u32>) -> String {
    range.map(|n| line(day, n) + "\n").collect()
}

fn import(folder: &Path, text: &str) -> (assay::dataset::ImportSummary, Vec<(u64, Rejected)>) {
    let mut corpus = Corpus::open(folder).unwrap();
    let mut rejected = Vec::new();
    let summary = corpus
        .import(&mut Cursor::new(text), None, |n, why| {
            rejected.push((n, why));
        })
        .unwrap();
    (summary, rejected)
}

fn sealed(folder: &Path, count: u32) -> Manifest {
    let corpus = folder.join("corpus");
    import(&corpus, &lines("2026-11-20", 0..count));
    let corpus = Corpus::open(&corpus).unwrap();
    seal(&corpus, &folder.join("sealed"), (None, None), 1_000).unwrap()
}

fn client(endpoints: &[&Url], cache: &Path) -> DatasetClient {
    DatasetClient::new(ClientSettings {
        endpoints: endpoints.iter().map(|url| (*url).clone()).collect(),
        cache: cache.to_owned(),
        request_timeout: Duration::from_secs(5),
        download_timeout: Duration::from_secs(20),
        pack_bytes_max: 8 * 1024 * 1024,
    })
    .unwrap()
}

#[test]
fn an_import_takes_what_is_good_and_lists_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(300 * 1024));
    let good = line("2026-11-20", 1);
    let text = format!(
        "{good}\n\nnot json\n{long}\n{good}\n{}",
        line("2026-11-21", 2)
    );
    let (summary, rejected) = import(folder.path(), &text);
    assert_eq!(
        (summary.added, summary.duplicates, summary.rejected),
        (2, 1, 2)
    );
    let reasons: Vec<_> = rejected
        .iter()
        .map(|(n, why)| format!("{n}: {why}"))
        .collect();
    assert!(reasons[0].starts_with("3: not a conversation in JSON"));
    assert_eq!(reasons[1], "4: is longer than 256 KiB");
    assert_eq!(reasons[2], "5: is in the corpus already");
    let (again, _) = import(folder.path(), &text);
    assert_eq!((again.added, again.duplicates), (0, 3));
}

#[test]
fn a_torn_partition_is_mended_and_a_second_process_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    import(folder.path(), &lines("2026-11-20", 0..10));
    let path = folder.path().join("2026-11-20.jsonl");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let (summary, _) = import(folder.path(), &lines("2026-11-20", 0..10));
    assert_eq!((summary.added, summary.duplicates), (1, 9));
    assert_eq!(std::fs::read(&path).unwrap(), whole);

    let held = Corpus::open(folder.path()).unwrap();
    let second = Corpus::open(folder.path());
    assert!(matches!(second, Err(DatasetError::Locked(_))));
    drop(held);
    assert_eq!(Corpus::open(folder.path()).unwrap().len(), 10);
}

#[test]
fn a_pack_depends_on_its_conversations_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a"), folder.path().join("b"));
    let packs = folder.path().join("packs");
    import(&first, &lines("2026-11-20", 0..50));
    import(&first, &lines("2026-11-21", 50..80));
    import(&second, &lines("2026-11-21", 60..80));
    import(&second, &lines("2026-11-20", 10..50));
    import(
        &second,
        &(lines("2026-11-21", 50..60) + &lines("2026-11-20", 0..10)),
    );
    let one = seal(&Corpus::open(&first).unwrap(), &packs, (None, None), 5).unwrap();
    let other = seal(&Corpus::open(&second).unwrap(), &packs, (None, None), 9).unwrap();
    assert_eq!(one, other, "sealing again changes nothing");
    assert_eq!((one.count, one.sealed_ms), (80, 5));

    let day: Day = "2026-11-21".parse().unwrap();
    let corpus = Corpus::open(&first).unwrap();
    let later = seal(&corpus, &packs, (Some(day), None), 7).unwrap();
    assert_eq!((later.count, later.from, later.to), (30, day, day));
    let listed: Vec<_> = list_packs(&packs).unwrap();
    assert_eq!(listed, [later, one.clone()]);
    let none = seal(
        &corpus,
        &packs,
        (None, Some("2026-01-01".parse().unwrap())),
        7,
    );
    assert!(matches!(none, Err(DatasetError::Empty)));

    let bytes = std::fs::read(pack_path(&packs, one.digest)).unwrap();
    let plain = zstd::decode_all(&bytes[..]).unwrap();
    assert_eq!(PackDigest(Sha256::digest(&plain).into()), one.digest);
    assert_eq!(u64::try_from(plain.len()).unwrap(), one.plain_bytes);
}

#[test]
fn a_pack_gives_the_drawn_items_and_refuses_changed_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 40);
    let path = pack_path(&folder.path().join("sealed"), manifest.digest);
    let pack = Pack::open(&path).unwrap();
    let drawn = sampling::draw([3; 32], pack.ids(), 8);
    let items = pack.items(&drawn).unwrap();
    let ids: Vec<_> = items.iter().map(|item| item.id).collect();
    assert_eq!(ids, drawn);
    assert_eq!(
        items[0].system.as_deref(),
        Some("You are a lighthouse keeper.")
    );
    assert!(items[0].reference.starts_with("Ship number"));

    let plain = zstd::decode_all(&std::fs::read(&path).unwrap()[..]).unwrap();
    let other = String::from_utf8(plain.clone())
        .unwrap()
        .replacen("far", "fat", 1);
    for changed in [
        zstd::encode_all(other.as_bytes(), 1).unwrap(),
        zstd::encode_all(&plain[..plain.len() - 1], 1).unwrap(),
        zstd::encode_all(&[&plain[..], &plain[..]].concat()[..], 1).unwrap(),
        std::fs::read(&path).unwrap()[..100].to_vec(),
        b"no zstd".to_vec(),
    ] {
        std::fs::write(&path, changed).unwrap();
        let refused = Pack::open(&path);
        assert!(
            matches!(refused, Err(DatasetError::Corrupt { .. })),
            "{refused:?}"
        );
        assert!(matches!(
            pack.items(&drawn),
            Err(DatasetError::Corrupt { .. })
        ));
    }
}

#[tokio::test]
async fn packs_are_served_as_immutable_objects() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 3_000);
    let server = Served::start(dataset_api::router(folder.path().join("sealed"))).await;

    let status: serde_json::Value = server.get("v1/status", &[]).await.json().await.unwrap();
    assert_eq!(status["packs"], 1);
    assert_eq!(status["newest"], manifest.digest.to_string());
    let list: serde_json::Value = server.get("v1/packs", &[]).await.json().await.unwrap();
    assert_eq!(list["packs"][0]["count"], 3_000);

    let path = format!("v1/packs/{}", manifest.digest);
    let packed = server
        .get(&path, &[("accept-encoding", "gzip, zstd")])
        .await;
    assert_eq!(packed.headers()["content-encoding"], "zstd");
    assert_eq!(packed.headers()["vary"], "accept-encoding");
    let cache = packed.headers()["cache-control"].to_str().unwrap();
    assert!(cache.contains("immutable"), "{cache}");
    let tag = packed.headers()["etag"].to_str().unwrap().to_owned();
    let packed = packed.bytes().await.unwrap();
    let plain = server.get(&path, &[]).await;
    assert_ne!(plain.headers()["etag"], tag.as_str());
    assert_eq!(plain.content_length(), Some(manifest.plain_bytes));
    let plain = plain.bytes().await.unwrap();
    assert_eq!(PackDigest(Sha256::digest(&plain).into()), manifest.digest);
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);

    let headers = [("accept-encoding", "zstd"), ("if-none-match", tag.as_str())];
    let unchanged = server.get(&path, &headers).await;
    assert_eq!(unchanged.status(), 304);
    assert_eq!(unchanged.headers()["etag"], tag.as_str());

    for (path, headers, status, code) in [
        ("v1/packs/xyz", &[][..], 400, "PACK_DIGEST"),
        ("v1/packs/..%2f..%2fetc%2fpasswd", &[], 400, "PACK_DIGEST"),
        (
            &*format!("v1/packs/{}", "0".repeat(64)),
            &[],
            404,
            "NO_SUCH_PACK",
        ),
        (
            &*path,
            &[("accept-encoding", "identity;q=0")],
            406,
            "NOT_ACCEPTABLE",
        ),
    ] {
        let refused = server.get(path, headers).await;
        assert_eq!(refused.status(), status, "{path}");
        let problem: serde_json::Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], code);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_node_fetches_verifies_keeps_and_works_on_without_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 200);
    let server = Served::start(dataset_api::router(folder.path().join("sealed"))).await;
    let cache = folder.path().join("cache");
    let dead: Url = "http://127.0.0.1:1".parse().unwrap();

    let client_ = client(&[&dead, &server.url], &cache);
    let pack = client_.newest().await.unwrap();
    assert_eq!(pack.digest(), manifest.digest);
    assert_eq!(pack.ids().len(), 200);
    assert_eq!(list_packs(&cache).unwrap().len(), 1);
    server.stop().await;

    let pack = client_.newest().await.unwrap();
    assert_eq!(pack.digest(), manifest.digest);
    assert_eq!(
        client_.fetch(manifest.digest).await.unwrap().ids().len(),
        200
    );
    let other = client_.fetch(PackDigest([0; 32])).await;
    assert!(matches!(other, Err(DatasetError::Unavailable(_))));
    let empty = client(&[&dead], &folder.path().join("other"));
    let none = empty.newest().await.unwrap_err();
    assert!(none.to_string().contains("127.0.0.1:1"), "{none}");
    assert!(none.to_fault().retryable);
}

#[tokio::test]
async fn bytes_that_are_not_the_pack_are_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sealed(folder.path(), 20);
    let listing = serde_json::json!({ "packs": [manifest] }).to_string();
    let wrong = zstd::encode_all(line("2026-11-20", 5).as_bytes(), 1).unwrap();
    let endless = vec![7u8; 9 * 1024 * 1024];
    for body in [wrong, endless, Vec::new()] {
        let (listing, headers) = (listing.clone(), [("content-encoding", "zstd")]);
        let app = axum::Router::new()
            .route("/v1/packs", axum::routing::get(async || listing))
            .route(
                "/v1/packs/{digest}",
                axum::routing::get(async move || (headers, body)),
            );
        let liar = Served::start(app).await;
        let cache = folder.path().join("cache");
        let refused = client(&[&liar.url], &cache).newest().await;
        assert!(
            matches!(refused, Err(DatasetError::Unavailable(_))),
            "{refused:?}"
        );
        assert_eq!(
            std::fs::read_dir(&cache).unwrap().count(),
            0,
            "something was kept"
        );

        let honest = Served::start(dataset_api::router(folder.path().join("sealed"))).await;
        let both = client(&[&liar.url, &honest.url], &cache);
        assert_eq!(both.newest().await.unwrap().digest(), manifest.digest);
        std::fs::remove_dir_all(&cache).unwrap();
    }
}
