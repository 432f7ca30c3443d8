//! Integration tests: hub. The client against the local hub over loopback, in fair weather.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

mod faults;
mod listing;
mod python;
mod shared;

use assay::demo::model_hub::{ModelHub, publish};
use assay::hub::{Download, HubClient, HubSettings, RepoFacts, RepoFile, model_dir};
use rand::{RngCore, SeedableRng};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

const REPO: &str = "lab/model-1";
const WEIGHTS: usize = 3_000_000;

/// A published model and hubs that serve it.
struct World {
    root: TempDir,
    out: TempDir,
    blobs: PathBuf,
    revision: String,
    tasks: JoinSet<std::io::Result<()>>,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let revision = publish(root.path(), REPO, source(7).path()).unwrap();
        Self {
            root,
            blobs: out.path().join("blobs"),
            out,
            revision,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts a hub over the root and gives its address.
    async fn start(&mut self, hub: &ModelHub) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = self.stop.clone().cancelled_owned();
        self.tasks.spawn(hub.clone().serve(listener, stop));
        format!("http://{address}").parse().unwrap()
    }

    /// One hub and a client with short limits.
    async fn one(&mut self) -> (ModelHub, HubSettings) {
        let hub = ModelHub::new(self.root.path().to_owned());
        let url = self.start(&hub).await;
        (hub, quick(url))
    }

    fn dest(&self) -> PathBuf {
        model_dir(self.out.path(), REPO, &self.revision).unwrap()
    }

    fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// Where the weights lie until they are complete.
    fn part(&self) -> PathBuf {
        let mut hasher = assay::hub::Hasher::sha256();
        hasher.update(&self.published("model.safetensors"));
        let sha256 = hasher.finish().sha256;
        self.blobs().join(format!(".parts/{sha256}.part"))
    }

    fn job<'a>(&'a self, files: &'a [RepoFile], dest: &'a Path) -> Download<'a> {
        Download {
            repo: REPO,
            revision: &self.revision,
            files,
            dest,
            blobs: &self.blobs,
        }
    }

    fn published(&self, file: &str) -> Vec<u8> {
        let folder = self.root.path().join(REPO).join(&self.revision);
        std::fs::read(folder.join(file)).unwrap()
    }

    /// Asserts that the folder holds exactly the published files.
    fn assert_complete(&self) {
        let mut names: Vec<String> = std::fs::read_dir(self.dest())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["config.json", "model.safetensors", "tokenizer.json"]
        );
        for name in names {
            let path = self.dest().join(&name);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "{name}");
            assert!(
                std::fs::read(path).unwrap() == self.published(&name),
                "{name}"
            );
        }
    }

    /// Stops the hubs and proves that they end, with transfers in flight or not.
    async fn end(mut self) {
        self.stop.cancel();
        let ended = async {
            while let Some(hub) = self.tasks.join_next().await {
                hub.unwrap().unwrap();
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, ended).await.unwrap();
    }
}

fn source(seed: u64) -> TempDir {
    let source = tempfile::tempdir().unwrap();
    let mut block = vec![0; 1 << 16];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut block);
    let mut weights = block.repeat(WEIGHTS / block.len() + 1);
    weights.truncate(WEIGHTS);
    for (name, content) in [
        ("config.json", br#"{"model_type":"llama"}"#.as_slice()),
        ("tokenizer.json", b"{}".as_slice()),
        ("model.safetensors", weights.as_slice()),
    ] {
        std::fs::write(source.path().join(name), content).unwrap();
    }
    source
}

fn quick(endpoint: Url) -> HubSettings {
    HubSettings {
        stall_limit: Duration::from_millis(400),
        request_timeout: Duration::from_secs(10),
        download_deadline: Duration::from_secs(60),
        attempts: 4,
        first_pause: Duration::from_millis(5),
        keep_free: 0,
        ..HubSettings::new(endpoint)
    }
}

async fn facts(client: &HubClient) -> RepoFacts {
    client.facts(REPO, None).await.unwrap()
}

#[tokio::test]
async fn a_model_is_pinned_listed_and_downloaded_whole() {
    let mut world = World::new();
    let (hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();

    let facts = facts(&client).await;
    assert_eq!(facts.revision, world.revision);
    let sizes: Vec<_> = facts
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.size))
        .collect();
    let weights = u64::try_from(WEIGHTS).unwrap();
    let expected = [
        ("config.json", 22),
        ("model.safetensors", weights),
        ("tokenizer.json", 2),
    ];
    assert_eq!(sizes, expected);

    let steps = Mutex::new(Vec::new());
    let note = |progress| steps.lock().unwrap().push(progress);
    let dest = world.dest();
    let done = client
        .download(world.job(&facts.files, &dest), &note)
        .await
        .unwrap();
    world.assert_complete();
    assert_eq!(done.received, weights + 24);
    for (file, published) in done.files.iter().zip(&facts.files) {
        assert_eq!(file.path, published.path);
        let mut hasher = assay::hub::Hasher::sha256();
        hasher.update(&world.published(&file.path));
        assert_eq!(file.sha256, hasher.finish().sha256);
        assert!(
            published
                .sha256()
                .is_none_or(|sha256| sha256 == file.sha256)
        );
    }
    let last = *steps.lock().unwrap().last().unwrap();
    assert_eq!((last.done, last.total), (weights + 24, weights + 24));

    // Once more: everything is there, is hashed again, and nothing is asked.
    let before = hub.requests().len();
    let again = client
        .download(world.job(&facts.files, &dest), &|_| ())
        .await
        .unwrap();
    assert_eq!((again.received, again.files), (0, done.files));
    assert_eq!(hub.requests().len(), before);
    world.end().await;
}

#[tokio::test]
async fn the_pinned_commit_stays_when_the_head_moves() {
    let mut world = World::new();
    let (_hub, settings) = world.one().await;
    let client = HubClient::new(settings).unwrap();
    let first = facts(&client).await;
    let newer = publish(world.root.path(), REPO, source(8).path()).unwrap();
    assert_eq!(facts(&client).await.revision, newer);

    let pinned = client.facts(REPO, Some(&first.revision)).await.unwrap();
    assert_eq!(pinned, first);
    let dest = world.dest();
    client
        .download(world.job(&pinned.files, &dest), &|_| ())
        .await
        .unwrap();
    world.assert_complete();
    world.end().await;
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_to_its_store() {
    let mut world = World::new();
    let store = ModelHub::new(world.root.path().to_owned());
    let store_url = world.start(&store).await;
    let hub = ModelHub::with(world.root.path().to_owned(), Some(store_url), 2);
    let url = world.start(&hub).await;
    let client = HubClient::new(HubSettings {
        token: Some("hf_secret".to_owned().into()),
        ..quick(url)
    });
    let client = client.unwrap();
    assert!(!format!("{client:?}").contains("hf_secret"));

    let facts = facts(&client).await;
    assert_eq!(facts.files.len(), 3, "two pages");
    let dest = world.dest();
    client
        .download(world.job(&facts.files, &dest), &|_| ())
        .await
        .unwrap();
    world.assert_complete();
    let bearer = Some("Bearer hf_secret".to_owned());
    assert!(
        hub.requests()
            .iter()
            .all(|seen| seen.authorization == bearer)
    );
    let stored = store.requests();
    assert_eq!(stored.len(), 1);
    assert!(stored[0].path.starts_with("/cdn/"));
    assert_eq!(stored[0].authorization, None);
    world.end().await;
}
