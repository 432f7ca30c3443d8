//! The Dataset API over loopback, from a corpus on disk to items in the node.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use assay::dataset::client::{ClientSettings, DatasetClient};
use assay::dataset::rounds::{self, ListSpec, draw_from, ids_of_json};
use assay::dataset::sampling::Wanted;
use assay::dataset::source::Source;
use assay::dataset::{
    Corpus, DatasetError, Day, Form, ImportOptions, ImportSummary, ItemId, Kind, ObjectDigest,
    Pack, SignedManifest, Signer, items, list_packs, object, seal, verify,
};
use assay::dataset_api;
use url::Url;

use super::Served;

pub(super) fn line(day: &str, n: u32) -> String {
    format!(
        r#"{{"created":"{day}","system_prompt":"You are a lighthouse keeper.","messages":[{{"role":"user","content":"Night {n}, what do you see?"}},{{"role":"assistant","content":"Ship number {n}, far out."}}]}}"#
    )
}

fn lines(day: &str, range: std::ops::Range<u32>) -> String {
    range.map(|n| line(day, n) + "\n").collect()
}

/// Imports lines; gives the summary and the list of what was not taken.
fn import(folder: &Path, text: &str) -> (ImportSummary, Vec<(u64, String)>) {
    let rejects = tempfile::NamedTempFile::new().unwrap();
    let mut corpus = Corpus::open(folder).unwrap();
    let mut source = Source::lines(Path::new("lines"), Cursor::new(text.to_owned()));
    let options = ImportOptions::new(rejects.path().to_owned());
    let summary = corpus
        .import(&mut source, &options, &mut |_, _| {})
        .unwrap();
    let listed = std::fs::read_to_string(rejects.path()).unwrap();
    let rejected = listed.lines().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            entry["record"].as_u64().unwrap(),
            entry["reason"].as_str().unwrap().to_owned(),
        )
    });
    (summary, rejected.collect())
}

pub(super) fn signer(uri: &str) -> Signer {
    let pair = assay::chain::HotkeyPair::from_uri(uri).unwrap();
    Signer::new(pair.hotkey(), move |message| pair.sign(message))
}

pub(super) fn signer_hotkey(uri: &str) -> assay::bittensor::Hotkey {
    assay::chain::HotkeyPair::from_uri(uri).unwrap().hotkey()
}

fn operator() -> assay::bittensor::Hotkey {
    signer_hotkey("//Operator")
}

fn seal_days(
    corpus: &Path,
    packs: &Path,
    days: (Option<Day>, Option<Day>),
    now_ms: u64,
) -> Result<SignedManifest, DatasetError> {
    let corpus = Corpus::open(corpus).unwrap();
    let with = (&signer("//Operator"), now_ms);
    seal(&corpus, packs, days, with, &mut |_| {})
}

pub(super) fn sealed(folder: &Path, count: u32) -> SignedManifest {
    let corpus = folder.join("corpus");
    import(&corpus, &lines("2026-11-20", 0..count));
    seal_days(&corpus, &folder.join("sealed"), (None, None), 1_000).unwrap()
}

/// Bytes of one form of an object.
fn form(folder: &Path, digest: ObjectDigest, form: Form) -> Vec<u8> {
    let object = object::lookup(folder, digest).unwrap().unwrap();
    let (path, facts) = object.path(form).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(ObjectDigest::of(&bytes), facts.sha256);
    assert_eq!(u64::try_from(bytes.len()).unwrap(), facts.bytes);
    bytes
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes);
    std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
    plain
}

pub(super) fn client(endpoints: &[&Url], cache: &Path) -> DatasetClient {
    DatasetClient::new(ClientSettings {
        endpoints: endpoints.iter().map(|url| (*url).clone()).collect(),
        request_timeout: Duration::from_secs(5),
        download_timeout: Duration::from_secs(20),
        pack_bytes_max: 8 * 1024 * 1024,
        operators: vec![operator()],
        ..ClientSettings::new(cache.to_owned())
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
    let one = seal_days(&first, &packs, (None, None), 5).unwrap();
    let other = seal_days(&second, &packs, (None, None), 9).unwrap();
    assert_eq!(one, other, "sealing again changes nothing");
    assert_eq!((one.count, one.sealed_ms), (80, 5));
    assert_eq!(one.signer(), operator());

    let day: Day = "2026-11-21".parse().unwrap();
    let later = seal_days(&first, &packs, (Some(day), None), 7).unwrap();
    assert_eq!((later.count, later.from, later.to), (30, day, day));
    let listed: Vec<_> = list_packs(&packs).unwrap();
    assert_eq!(listed, [later.clone(), one.clone()]);
    let none = seal_days(
        &first,
        &packs,
        (None, Some("2026-01-01".parse().unwrap())),
        7,
    );
    assert!(matches!(none, Err(DatasetError::Empty)));
    let names = std::fs::read_dir(&packs).unwrap();
    let drafts = names.filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".draft")
    });
    assert_eq!(drafts.count(), 0, "something unfinished was left");

    let plain = form(&packs, one.digest, Form::Identity);
    assert_eq!(ObjectDigest::of(&plain), one.digest);
    assert_eq!(gunzip(&form(&packs, one.digest, Form::Gzip)), plain);
    let packed = form(&packs, one.digest, Form::Zstd);
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);
    let listing = std::fs::read(packs.join(object::LISTING_FILE)).unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
    assert_eq!(listing["packs"][0]["digest"], later.digest.to_string());
}

fn ids(pack: &Pack) -> Vec<ItemId> {
    pack.entries().iter().map(|entry| entry.id).collect()
}

#[test]
fn a_pack_gives_the_drawn_items_and_refuses_changed_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let digest = sealed(folder.path(), 40).digest;
    let packs = folder.path().join("sealed");
    let pack = Pack::open(&packs, digest).unwrap();
    let wanted = Wanted { fresh: 5, older: 3 };
    let drawn = draw_from(std::slice::from_ref(&pack), [3; 32], 0, wanted).mixed([3; 32]);
    let found = items(std::slice::from_ref(&pack), &drawn).unwrap();
    let got: Vec<_> = found.iter().map(|item| item.id).collect();
    assert_eq!(got, drawn);
    let system = found[0].system.as_deref();
    assert_eq!(system, Some("You are a lighthouse keeper."));
    assert!(found[0].reference.starts_with("Ship number"));
    assert_eq!(verify(&packs, digest).unwrap().digest, digest);

    let path = packs.join(digest.hex());
    let plain = std::fs::read(&path).unwrap();
    let other = String::from_utf8(plain.clone()).unwrap();
    std::fs::write(&path, other.replace("far", "fat")).unwrap();
    let refused = items(std::slice::from_ref(&pack), &drawn);
    assert!(matches!(refused, Err(DatasetError::Corrupt { .. })));
    for changed in [&plain[1..], &other.replacen("far", "fat", 1).into_bytes()] {
        std::fs::write(&path, changed).unwrap();
        let refused = verify(&packs, digest);
        assert!(matches!(refused, Err(DatasetError::Corrupt { .. })));
    }
    std::fs::write(&path, &plain[1..]).unwrap();
    let refused = Pack::open(&packs, digest);
    assert!(matches!(refused, Err(DatasetError::Corrupt { .. })));
    std::fs::write(&path, &plain).unwrap();
    for suffix in [".gz", ".zst", ".index", ".manifest.json"] {
        let path = packs.join(format!("{}{suffix}", digest.hex()));
        let whole = std::fs::read(&path).unwrap();
        let mut wrong = whole.clone();
        let at = wrong.len() / 2;
        wrong[at] ^= 1;
        std::fs::write(&path, wrong).unwrap();
        let refused = verify(&packs, digest);
        let corrupt = matches!(refused, Err(DatasetError::Corrupt { .. }));
        assert!(corrupt, "{suffix}: {refused:?}");
        std::fs::write(&path, whole).unwrap();
    }
    verify(&packs, digest).unwrap();
}

fn spec(start_ms: u64, wanted: Wanted) -> ListSpec {
    use assay::bittensor::{BlockHash, BlockNumber, BlockRef, Netuid, RoundNumber};
    ListSpec {
        netuid: Netuid(11),
        era_id: "ab".repeat(32),
        number: RoundNumber(3),
        start: BlockRef {
            number: BlockNumber(700),
            hash: BlockHash([5; 32]),
        },
        start_ms,
        seed: [9; 32],
        wanted,
    }
}

#[test]
fn a_rounds_list_is_built_once_and_holds_what_a_scorer_draws() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, packs) = (folder.path().join("corpus"), folder.path().join("packs"));
    import(&corpus, &lines("2026-11-01", 0..300));
    import(&corpus, &lines("2026-11-24", 300..600));
    seal_days(&corpus, &packs, (None, None), 1_000).unwrap();
    // 2026-11-25T12:00:00Z
    let start_ms = 1_795_608_000_000;
    let wanted = Wanted {
        fresh: 200,
        older: 100,
    };
    let spec = spec(start_ms, wanted);
    let operator = signer("//Operator");
    let round = rounds::build(&packs, &spec, &operator, 2_000).unwrap();
    assert_eq!((round.fresh, round.older), (200, 100));
    assert_eq!(
        rounds::build(&packs, &spec, &operator, 9_000).unwrap(),
        round
    );
    assert_eq!(rounds::list(&packs).unwrap(), std::slice::from_ref(&round));
    assert_eq!(object::list(&packs, Kind::Items).unwrap().len(), 2);

    let json = form(&packs, round.json, Form::Identity);
    let listed = ids_of_json(&json).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let first = &document["all_convos"][0];
    assert_eq!(first["system_prompt"], "You are a lighthouse keeper.");
    assert_eq!(first["messages"][1]["role"], "assistant");
    let ndjson = String::from_utf8(form(&packs, round.ndjson, Form::Identity)).unwrap();
    let lines: Vec<serde_json::Value> = ndjson
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(document["all_convos"], serde_json::Value::Array(lines));

    let opened: Vec<_> = round
        .packs
        .iter()
        .map(|d| Pack::open(&packs, *d).unwrap())
        .collect();
    let small = Wanted {
        fresh: 48,
        older: 16,
    };
    let scored = draw_from(&opened, spec.seed, start_ms, small);
    for id in scored.mixed(spec.seed) {
        assert!(listed.contains(&id));
    }
    assert_eq!(ids(&opened[0]).len(), 600);
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
    assert_eq!(plain.content_length(), Some(manifest.forms.identity.bytes));
    let plain = plain.bytes().await.unwrap();
    assert_eq!(ObjectDigest::of(&plain), manifest.digest);
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);
    let gzip = server.get(&path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    assert_eq!(gunzip(&gzip.bytes().await.unwrap()), plain);

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

    let node = client(&[&dead, &server.url], &cache);
    let report = node.sync().await.unwrap();
    assert_eq!(
        (report.listed, report.fetched, report.failed.len()),
        (1, 1, 0)
    );
    assert_eq!(node.sync().await.unwrap().fetched, 0);
    let packs = node.round_packs(5_000).await.unwrap();
    assert_eq!(packs[0].digest(), manifest.digest);
    let wanted = ids(&packs[0]);
    assert_eq!(wanted.len(), 200);

    // A line damaged on disk is noticed when it is read, and the pack fetched again.
    let path = cache.join(manifest.digest.hex());
    let damaged = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("far", "fat", 1);
    std::fs::write(&path, damaged).unwrap();
    let read = node.items(&[manifest.digest], &wanted).await.unwrap();
    assert_eq!(read.len(), 200);
    server.stop().await;

    assert_eq!(
        node.round_packs(5_000).await.unwrap()[0].digest(),
        manifest.digest
    );
    assert_eq!(node.items(&[manifest.digest], &wanted).await.unwrap(), read);
    let other = node.items(&[ObjectDigest([0; 32])], &wanted).await;
    assert!(matches!(other, Err(DatasetError::Unavailable(_))));
    let empty = client(&[&dead], &folder.path().join("other"));
    let none = empty.round_packs(5_000).await.unwrap_err();
    assert!(none.to_string().contains("127.0.0.1:1"), "{none}");
    assert!(none.to_fault().retryable);
}
