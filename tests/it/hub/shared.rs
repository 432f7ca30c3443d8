//! Equal files of different models, bandwidth, and a mirror in place of the hub.

use super::{World, facts, quick, source};
use assay::demo::model_hub::{ModelHub, Trouble, publish};
use assay::hub::{Download, HubClient, evict, model_dir};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::http::header::{IF_RANGE, RANGE};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use url::Url;

const COPY: &str = "other/model-2";

/// A second repository with the same weights and another configuration.
fn publish_copy(world: &World) -> String {
    let folder = source(7);
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    publish(world.root.path(), COPY, folder.path()).unwrap()
}

/// Downloads both models at once; gives the bytes received for each.
async fn both(world: &World, client: &HubClient, copy: &str) -> (u64, u64) {
    let (first, second) = (facts(client).await, client.facts(COPY, None).await.unwrap());
    let (dest, other) = (
        world.dest(),
        model_dir(world.out.path(), COPY, copy).unwrap(),
    );
    let job = Download {
        repo: COPY,
        revision: copy,
        files: &second.files,
        dest: &other,
        blobs: world.blobs(),
    };
    let quiet = |_| ();
    let (first, second) = tokio::join!(
        client.download(world.job(&first.files, &dest), &quiet),
        client.download(job, &quiet),
    );
    (first.unwrap().received, second.unwrap().received)
}

#[tokio::test]
async fn equal_weights_of_two_models_are_fetched_once_and_kept_while_one_holds_them() {
    let mut world = World::new();
    let copy = publish_copy(&world);
    let (hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    let (first, second) = both(&world, &client, &copy).await;
    assert_eq!(first + second, 3_000_000 + 22 + 2 + 2 + 2);
    let opened = hub
        .requests()
        .iter()
        .filter(|r| r.path.starts_with("/cdn/"))
        .count();
    assert_eq!(opened, 1);
    world.assert_complete();

    let other = model_dir(world.out.path(), COPY, &copy).unwrap();
    let weights = |dir: &std::path::Path| std::fs::metadata(dir.join("model.safetensors")).unwrap();
    assert_eq!(weights(&world.dest()).ino(), weights(&other).ino());
    assert_eq!(evict(world.blobs(), u64::MAX).unwrap(), 0);
    std::fs::remove_dir_all(&other).unwrap();
    assert_eq!(evict(world.blobs(), u64::MAX).unwrap(), 0);
    std::fs::remove_dir_all(world.dest()).unwrap();

    // Nobody holds them now, and the next model that does finds them on the disk.
    let (first, second) = both(&world, &client, &copy).await;
    assert_eq!(first + second, 22 + 2 + 2 + 2);
    std::fs::remove_dir_all(world.dest()).unwrap();
    std::fs::remove_dir_all(&other).unwrap();
    assert_eq!(evict(world.blobs(), 1).unwrap(), 3_000_000);
    world.end().await;
}

#[tokio::test]
async fn a_kept_file_that_rotted_is_fetched_again() {
    let mut world = World::new();
    let copy = publish_copy(&world);
    let (_, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    both(&world, &client, &copy).await;
    let other = model_dir(world.out.path(), COPY, &copy).unwrap();
    std::fs::remove_dir_all(&other).unwrap();
    std::fs::remove_dir_all(world.dest()).unwrap();
    let blob = world.part().file_stem().unwrap().to_owned();
    std::fs::write(world.blobs().join(blob), vec![0; 3_000_000]).unwrap();
    let (first, second) = both(&world, &client, &copy).await;
    assert_eq!(first + second, 3_000_000 + 22 + 2 + 2 + 2);
    world.assert_complete();
    world.end().await;
}

#[tokio::test]
async fn transfers_keep_to_the_bandwidth_and_are_not_taken_for_stalled() {
    let mut world = World::new();
    let (_, mut settings) = world.one().await;
    settings.bandwidth = NonZeroU64::new(3_000_000);
    let client = HubClient::new(settings).unwrap();
    let facts = facts(&client).await;
    let (dest, begun) = (world.dest(), Instant::now());
    let job = world.job(&facts.files, &dest);
    client.download(job, &|_| ()).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(950),
        "{:?}",
        begun.elapsed()
    );
    world.assert_complete();
    world.end().await;
}

/// A server that passes on what is asked below `/hf`; gives its base address and its count.
async fn mirror(origin: Url, world: &mut World) -> (Url, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let passing = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let passing = passing.build().unwrap();
    let count = Arc::clone(&asked);
    let pass = move |request: Request| {
        count.fetch_add(1, Ordering::Relaxed);
        let (passing, mut url) = (passing.clone(), origin.clone());
        async move {
            let path = request.uri().path().strip_prefix("/hf").unwrap();
            url.set_path(path);
            url.set_query(request.uri().query());
            let mut on = passing.request(request.method().clone(), url);
            for name in [RANGE, IF_RANGE] {
                if let Some(value) = request.headers().get(&name) {
                    on = on.header(name, value);
                }
            }
            let answer = on.send().await.unwrap();
            let mut response = Response::builder().status(answer.status());
            response
                .headers_mut()
                .unwrap()
                .extend(answer.headers().clone());
            response
                .body(Body::from_stream(answer.bytes_stream()))
                .unwrap()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hf/", listener.local_addr().unwrap());
    let stop = world.stop.clone().cancelled_owned();
    let server = axum::serve(listener, Router::new().fallback(pass));
    world
        .tasks
        .spawn(server.with_graceful_shutdown(stop).into_future());
    (url.parse().unwrap(), asked)
}

#[tokio::test]
async fn a_mirror_below_a_path_serves_as_the_hub() {
    let mut world = World::new();
    let hub = ModelHub::new(world.root.path().to_owned());
    let origin = world.start(&hub).await;
    let (mirror, asked) = mirror(origin, &mut world).await;
    let client = HubClient::new(quick(mirror)).unwrap();
    // The mirror fails as a hub does: ours to bear, and resumed.
    hub.trouble("/cdn/", Trouble::CutAfter(1_000_000), 1);
    let facts = facts(&client).await;
    let dest = world.dest();
    let done = client
        .download(world.job(&facts.files, &dest), &|_| ())
        .await;
    assert_eq!(done.unwrap().received, 3_000_024);
    world.assert_complete();
    assert!(asked.load(Ordering::Relaxed) > 5);
    world.end().await;
}
