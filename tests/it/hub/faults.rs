//! Hubs, disks and processes that fail, and what is left after.

use super::{REPO, WEIGHTS, World, facts, quick, source};
use assay::demo::model_hub::{Seen, Trouble, publish};
use assay::hub::{Absence, HubClient, HubError, HubSettings, TransientKind};
use assay::retry::{Retry, Retryable};
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn kind(error: &HubError) -> Option<TransientKind> {
    match error {
        HubError::Transient { kind, .. } => Some(*kind),
        _ => None,
    }
}

fn absence(error: &HubError) -> Option<Absence> {
    match error {
        HubError::Unavailable { reason, .. } => Some(*reason),
        _ => None,
    }
}

fn transfers(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter()
        .filter(|seen| seen.path.starts_with("/cdn/"))
        .collect()
}

/// Begin of a `bytes=N-` range.
fn offset(seen: &Seen) -> u64 {
    let range = seen.range.as_deref().unwrap_or("bytes=0-");
    range
        .strip_prefix("bytes=")
        .unwrap()
        .strip_suffix('-')
        .unwrap()
        .parse()
        .unwrap()
}

/// Downloads everything under one trouble; gives the outcome, its time and the hub's record.
async fn under(
    world: &mut World,
    troubles: &[(&str, Trouble, u32)],
    change: impl Fn(&mut HubSettings),
) -> (Result<u64, HubError>, Duration, Vec<Seen>) {
    let (hub, mut settings) = world.one().await;
    change(&mut settings);
    let client = HubClient::new(settings).unwrap();
    let facts = facts(&client).await;
    for (path, trouble, times) in troubles {
        hub.trouble(path, trouble.clone(), *times);
    }
    let (dest, begun) = (world.dest(), Instant::now());
    let outcome = client
        .download(world.job(&facts.files, &dest), &|_| ())
        .await;
    (
        outcome.map(|done| done.received),
        begun.elapsed(),
        hub.requests(),
    )
}

const ALL: u64 = 24 + 3_000_000;

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_ended() {
    let mut world = World::new();
    let cut = [
        ("/cdn/", Trouble::CutAfter(1_000_000), 1),
        ("/cdn/", Trouble::CutAfter(500_000), 1),
    ];
    let (received, _, seen) = under(&mut world, &cut, |_| ()).await;
    world.assert_complete();
    assert_eq!(received.unwrap(), ALL, "no byte came twice");
    let seen = transfers(&seen);
    assert_eq!(seen.len(), 3);
    assert!(seen[0].range.is_none());
    assert!(offset(seen[1]) > 0 && offset(seen[2]) > offset(seen[1]));
    assert!(seen[1].if_range.is_some());
    world.end().await;
}

#[tokio::test]
async fn a_range_answered_with_everything_begins_anew() {
    let mut world = World::new();
    let troubles = [
        ("/cdn/", Trouble::CutAfter(1_000_000), 1),
        ("/cdn/", Trouble::IgnoreRange, 1),
    ];
    let (received, _, seen) = under(&mut world, &troubles, |_| ()).await;
    world.assert_complete();
    let kept = offset(transfers(&seen)[1]);
    assert_eq!(received.unwrap(), ALL + kept);
    world.end().await;
}

#[tokio::test]
async fn a_byte_garbled_on_the_way_is_noticed_and_fetched_again() {
    let mut world = World::new();
    let flip = [
        ("/cdn/", Trouble::FlipByte(2_999_999), 1),
        ("config.json", Trouble::FlipByte(0), 1),
    ];
    let (received, _, _) = under(&mut world, &flip, |_| ()).await;
    world.assert_complete();
    assert_eq!(received.unwrap(), ALL + 3_000_000 + 22);
    world.end().await;
}

#[tokio::test]
async fn content_that_differs_from_its_published_digest_is_named_and_not_kept() {
    let mut world = World::new();
    let (_, settings) = world.one().await;
    let listed = facts(&HubClient::new(settings.clone()).unwrap()).await;
    let weights = world
        .root
        .path()
        .join(REPO)
        .join(&world.revision)
        .join("model.safetensors");
    let part = world.part();
    std::fs::write(&weights, vec![1; WEIGHTS]).unwrap();
    let client = HubClient::new(settings).unwrap();
    let dest = world.dest();
    let error = client
        .download(world.job(&listed.files, &dest), &|_| ())
        .await
        .unwrap_err();
    let HubError::DigestMismatch {
        path,
        published,
        found,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(path, "model.safetensors");
    assert_eq!(published.sha256(), listed.files[1].sha256());
    assert_ne!(published, found);
    assert!(!dest.join("model.safetensors").exists());
    assert_eq!(std::fs::metadata(part).unwrap().len(), 0);
    world.end().await;
}

#[tokio::test]
async fn silence_is_noticed_within_the_limit_and_the_next_call_resumes() {
    let mut world = World::new();
    let stall = [("/cdn/", Trouble::StallAfter(1_500_000), 1)];
    let (outcome, took, _) = under(&mut world, &stall, |s| s.attempts = 1).await;
    let error = outcome.unwrap_err();
    assert_eq!(kind(&error), Some(TransientKind::Stalled), "{error}");
    assert_eq!(error.fault().code, "HUB_STALLED");
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let (received, _, seen) = under(&mut world, &[], |_| ()).await;
    world.assert_complete();
    let rest = received.unwrap();
    assert!((1_500_000..1_500_100).contains(&rest), "{rest} bytes");
    assert_eq!(offset(transfers(&seen)[0]), 1_500_000);
    world.end().await;
}

#[tokio::test]
async fn the_overall_deadline_ends_what_no_other_limit_does() {
    let mut world = World::new();
    let stall = [("/cdn/", Trouble::StallAfter(10), 9)];
    let (outcome, took, _) = under(&mut world, &stall, |settings| {
        settings.stall_limit = Duration::from_secs(60);
        settings.download_deadline = Duration::from_millis(300);
    })
    .await;
    assert_eq!(kind(&outcome.unwrap_err()), Some(TransientKind::Deadline));
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.end().await;
}

#[tokio::test]
async fn the_hubs_wish_to_wait_is_honoured() {
    let mut world = World::new();
    let slow = Trouble::Answer {
        status: 429,
        code: None,
        retry_after: Some(1),
    };
    let (received, took, _) = under(&mut world, &[("/resolve/", slow, 1)], |_| ()).await;
    assert_eq!(received.unwrap(), ALL);
    assert!(took >= Duration::from_secs(1), "{took:?}");

    let (hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    for path in ["/api/models/lab/model-1?", "/tree/"] {
        let slow = Trouble::Answer {
            status: 429,
            code: None,
            retry_after: Some(7),
        };
        hub.trouble(path, slow, 1);
        let error = client.facts(REPO, None).await.unwrap_err();
        assert_eq!(kind(&error), Some(TransientKind::RateLimited), "{error}");
        assert_eq!(error.retry(), Retry::After(Duration::from_secs(7)));
    }
    assert!(client.facts(REPO, None).await.is_ok());
    world.end().await;
}

#[tokio::test]
async fn error_pages_are_never_stored_and_attempts_end() {
    for (status, expected) in [
        (500, TransientKind::Server),
        (403, TransientKind::Protocol),
        (404, TransientKind::Protocol),
    ] {
        let mut world = World::new();
        let page = Trouble::Answer {
            status,
            code: None,
            retry_after: None,
        };
        let (outcome, _, seen) = under(&mut world, &[("/cdn/", page, 99)], |_| ()).await;
        assert_eq!(kind(&outcome.unwrap_err()), Some(expected));
        assert_eq!(transfers(&seen).len(), 4, "as many as attempts");
        assert_eq!(std::fs::metadata(world.part()).unwrap().len(), 0);
        assert!(!world.dest().join("model.safetensors").exists());
        world.end().await;
    }
}

#[tokio::test]
async fn another_commit_than_the_pinned_one_is_not_fetched() {
    let mut world = World::new();
    let other = [("/resolve/", Trouble::OtherCommit, 99)];
    let (outcome, _, seen) = under(&mut world, &other, |_| ()).await;
    assert_eq!(kind(&outcome.unwrap_err()), Some(TransientKind::Protocol));
    assert!(
        seen.iter()
            .all(|seen| seen.method == "HEAD" || seen.path.starts_with("/api/"))
    );
    world.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_a_hub_that_fails() {
    let mut world = World::new();
    let (hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    let error = client.facts("lab/none", None).await.unwrap_err();
    assert_eq!(absence(&error), Some(Absence::Repo), "{error}");
    let error = client.facts(REPO, Some(&"0".repeat(40))).await.unwrap_err();
    assert_eq!(absence(&error), Some(Absence::Revision), "{error}");
    let mut files = facts(&client).await.files;
    files[0].path = "absent.json".to_owned();
    let dest = world.dest();
    let error = client
        .download(world.job(&files, &dest), &|_| ())
        .await
        .unwrap_err();
    assert_eq!(absence(&error), Some(Absence::File), "{error}");

    for (status, code, expected) in [
        (403, Some("GatedRepo"), "HUB_REPO_UNAVAILABLE"),
        (404, None, "HUB_PROTOCOL"),
        (403, None, "HUB_DENIED"),
        (503, None, "HUB_SERVER_ERROR"),
    ] {
        hub.trouble(
            "/api/",
            Trouble::Answer {
                status,
                code,
                retry_after: None,
            },
            1,
        );
        let error = client.facts(REPO, None).await.unwrap_err();
        assert_eq!(error.fault().code, expected, "{error}");
    }
    world.end().await;
    let gone = HubClient::new(quick("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let error = gone.facts(REPO, None).await.unwrap_err();
    assert_eq!(kind(&error), Some(TransientKind::Connection), "{error}");
}

#[tokio::test]
async fn a_full_disk_stops_the_download_before_it_begins() {
    let mut world = World::new();
    let (outcome, _, seen) = under(&mut world, &[], |s| s.keep_free = u64::MAX).await;
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, HubError::NoSpace { needed: ALL, .. }),
        "{error}"
    );
    assert_eq!(error.fault().code, "DISK_FULL");
    assert!(seen.iter().all(|seen| seen.path.starts_with("/api/")));
    world.end().await;
}

#[tokio::test]
async fn leftovers_are_checked_and_never_trusted() {
    let mut world = World::new();
    let dest = world.dest();
    let parts = dest.join(".parts");
    let target = world.out.path().join("precious");
    std::fs::write(&target, "keep me").unwrap();
    std::fs::create_dir_all(&parts).unwrap();
    std::fs::create_dir_all(world.part().parent().unwrap()).unwrap();
    std::fs::write(world.part(), vec![9; 1000]).unwrap();
    std::fs::write(parts.join("tokenizer.json.part"), "longer than listed").unwrap();
    symlink(&target, dest.join("config.json")).unwrap();
    std::fs::write(dest.join("tokenizer.json"), "[]").unwrap();
    let (received, _, seen) = under(&mut world, &[], |_| ()).await;
    world.assert_complete();
    assert_eq!(std::fs::read(&target).unwrap(), b"keep me");
    assert_eq!(
        transfers(&seen).len(),
        2,
        "resumed, found wrong, fetched in full"
    );
    assert_eq!(received.unwrap(), ALL + 3_000_000 - 1000);

    std::fs::write(dest.join("modeling_evil.py"), "x").unwrap();
    let (outcome, _, _) = under(&mut world, &[], |_| ()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, HubError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("modeling_evil.py"));
    world.end().await;
}

#[tokio::test]
async fn a_link_in_place_of_an_unfinished_file_is_not_followed() {
    let mut world = World::new();
    let parts = world.dest().join(".parts");
    let target = world.out.path().join("precious");
    std::fs::write(&target, "keep me").unwrap();
    std::fs::create_dir_all(&parts).unwrap();
    symlink(&target, parts.join("config.json.part")).unwrap();
    let (outcome, _, _) = under(&mut world, &[], |_| ()).await;
    assert!(matches!(outcome.unwrap_err(), HubError::Disk { .. }));
    assert_eq!(std::fs::read(&target).unwrap(), b"keep me");
    world.end().await;
}

#[tokio::test]
async fn a_file_in_the_hands_of_another_download_is_left_alone() {
    let mut world = World::new();
    std::fs::create_dir_all(world.part().parent().unwrap()).unwrap();
    let other = std::fs::File::create(world.part()).unwrap();
    other.lock().unwrap();
    let (outcome, _, _) = under(&mut world, &[], |s| s.attempts = 2).await;
    assert_eq!(kind(&outcome.unwrap_err()), Some(TransientKind::Busy));
    drop(other);
    let (received, _, _) = under(&mut world, &[], |_| ()).await;
    assert!(received.is_ok());
    world.assert_complete();
    world.end().await;
}

/// Runs the test of that name in a process of its own, with the hub's address.
fn child(test: &str, url: &str, world: &World) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("hub::faults::{test}"), "--ignored"])
        .env("ASSAY_TEST_HUB", url)
        .env("ASSAY_TEST_DEST", world.dest())
        .env("ASSAY_TEST_BLOBS", world.blobs())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_killed_process_leaves_what_the_next_one_resumes() {
    let mut world = World::new();
    let (hub, settings) = world.one().await;
    let url = settings.endpoint.to_string();
    hub.trouble("/cdn/", Trouble::StallAfter(2_500_000), 1);
    let mut killed = child("child_downloads", &url, &world).spawn().unwrap();
    let part = world.part();
    let grown = async {
        hub.troubled(1).await;
        // The hub has sent the bytes; wait until the child has them on disk.
        let held = || std::fs::metadata(&part).map_or(0, |part| part.len());
        while held() < 1_000_000 {
            tokio::task::yield_now().await;
        }
        held()
    };
    let kept = tokio::time::timeout(Duration::from_secs(30), grown)
        .await
        .unwrap();
    killed.kill().await.unwrap();
    assert!(!world.dest().join("model.safetensors").exists());

    let status = child("child_downloads", &url, &world)
        .status()
        .await
        .unwrap();
    assert!(status.success());
    world.assert_complete();
    let requests = hub.requests();
    let resumed = offset(transfers(&requests)[1]);
    assert!(resumed >= kept, "{resumed} of {kept} bytes were kept");
    world.end().await;
}

#[tokio::test]
async fn no_token_is_taken_from_the_environment() {
    let mut world = World::new();
    let (hub, settings) = world.one().await;
    let mut command = child("child_downloads", settings.endpoint.as_str(), &world);
    let status = command
        .env("HF_TOKEN", "hf_implicit")
        .status()
        .await
        .unwrap();
    assert!(status.success());
    assert!(hub.requests().len() > 5);
    assert!(
        hub.requests()
            .iter()
            .all(|seen| seen.authorization.is_none())
    );
    world.end().await;
}

#[tokio::test]
#[ignore = "the part that other tests run in a process of its own"]
async fn child_downloads() {
    let Ok(url) = std::env::var("ASSAY_TEST_HUB") else {
        return;
    };
    let folder = |name| std::path::PathBuf::from(std::env::var_os(name).unwrap());
    let (dest, blobs) = (folder("ASSAY_TEST_DEST"), folder("ASSAY_TEST_BLOBS"));
    let mut settings = quick(url.parse().unwrap());
    settings.stall_limit = Duration::from_secs(60);
    let client = HubClient::new(settings).unwrap();
    let facts = facts(&client).await;
    let job = assay::hub::Download {
        repo: REPO,
        revision: &facts.revision,
        files: &facts.files,
        dest: &dest,
        blobs: &blobs,
    };
    client.download(job, &|_| ()).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_needs_no_transfer() {
    let mut world = World::new();
    let folder = source(9);
    std::fs::write(folder.path().join("tokenizer.json"), "").unwrap();
    world.revision = publish(world.root.path(), REPO, folder.path()).unwrap();
    let (received, _, _) = under(&mut world, &[], |_| ()).await;
    assert_eq!(received.unwrap(), ALL - 2);
    world.assert_complete();
    world.end().await;
}
