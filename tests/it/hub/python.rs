//! The local hub before a client that is not ours: Python's `huggingface_hub`.

use super::{REPO, World, quick};
use crate::harness::python;
use assay::demo::model_hub::ModelHub;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/python/hub_snapshot.py"
);

#[tokio::test]
async fn huggingface_hub_reads_the_same_bytes_from_the_local_hub() {
    let Some(python) = python() else { return };
    // Once with a store of its own address, as the Hub has it, and once from one address.
    for apart in [true, false] {
        read_with_python(&python, apart).await;
    }
}

async fn read_with_python(python: &Path, apart: bool) {
    let mut world = World::new();
    let root = world.root.path().to_owned();
    let store = world.start(&ModelHub::new(root.clone())).await;
    let hub = ModelHub::with(root, apart.then_some(store), 1);
    let settings = quick(world.start(&hub).await);
    let endpoint = settings.endpoint.as_str().trim_end_matches('/');
    let run = Command::new(python)
        .args([SCRIPT, endpoint, REPO, &world.revision])
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), run)
        .await
        .unwrap()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(said["head"], world.revision);
    let errors = [
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
    ];
    assert_eq!(said["errors"], serde_json::json!(errors));
    let client = assay::hub::HubClient::new(settings.clone()).unwrap();
    let facts = client.facts(REPO, None).await.unwrap();
    let listing = said["listing"].as_object().unwrap();
    assert_eq!(listing.len(), facts.files.len());
    for file in &facts.files {
        let listed = &listing[&file.path];
        assert_eq!(listed["size"], file.size);
        let bytes = world.published(&file.path);
        let mut hasher = assay::hub::Hasher::sha256();
        hasher.update(&bytes);
        assert_eq!(
            said["files"][&file.path],
            hasher.finish().sha256,
            "{}",
            file.path
        );
        match file.sha256() {
            Some(sha256) => assert_eq!(listed["sha256"], sha256),
            None => assert_eq!(said["git"][&file.path], file.digest.hex()),
        }
    }
    for name in ["config.json", "model.safetensors"] {
        let file = facts.files.iter().find(|file| file.path == name).unwrap();
        let expected = serde_json::json!([world.revision, file.digest.hex(), file.size]);
        assert_eq!(said["metadata"][name], expected);
    }
    world.end().await;
}
