//! Every file under `configs/` loads, and every key in it says what the program would assume.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

use std::path::{Path, PathBuf};

use assay::config;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_sample_loads_and_its_effective_text_loads_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = configs();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let roles = config::load_roles(&file).unwrap_or_else(|e| panic!("{e}"));
        let text = config::effective(&roles).unwrap();
        let copy = folder.path().join("copy.toml");
        std::fs::write(&copy, &text).unwrap();
        let again = config::load_roles(&copy).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(again, roles, "{text}");
    }
}

#[test]
fn each_role_finds_itself_in_its_sample() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let validator = config::load_validator(&folder.join("validator.toml")).unwrap();
    assert!(validator.metrics.listen.ip().is_loopback());
    config::load_dataset_api(&folder.join("dataset-api.toml")).unwrap();
    config::load_score_api(&folder.join("score-api.toml")).unwrap();
    let demo = folder.join("demo.toml");
    config::load_validator(&demo).unwrap();
    config::load_dataset_api(&demo).unwrap();
    config::load_score_api(&demo).unwrap();
    let missing = config::load_score_api(&folder.join("dataset-api.toml")).unwrap_err();
    assert!(
        missing.to_string().contains("score_api.store: is missing"),
        "{missing}"
    );
}
