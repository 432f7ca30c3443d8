use super::*;
use crate::bittensor::{Commitment, CommitmentField, Hotkey};
use crate::incentive::era::tests::era;
use crate::incentive::submission::parse;
use proptest::prelude::*;

fn file(path: &str, size: u64) -> RepoFile {
    RepoFile {
        path: path.to_owned(),
        size,
        sha256: Some("ab".repeat(32)),
    }
}

fn repo() -> Vec<RepoFile> {
    vec![
        file("README.md", 10),
        file("config.json", 900),
        file("tokenizer.json", 40_000),
        file("model.safetensors", 700_000),
        file("pytorch_model.bin", 700_000),
        file("onnx/model.onnx", 5),
    ]
}

fn sharded(total: usize) -> Vec<RepoFile> {
    let mut files = vec![
        file("config.json", 900),
        file("tokenizer.json", 40_000),
        file(INDEX_NAME, 100),
    ];
    files.extend((1..=total).map(|i| file(&shard(i, total), 1000)));
    files
}

fn shard(part: usize, total: usize) -> String {
    format!("model-{part:05}-of-{total:05}.safetensors")
}

fn submission(text: &str, block: u64) -> Submission {
    let commitment = Commitment {
        hotkey: Hotkey([7; 32]),
        block: BlockNumber(block),
        fields: vec![CommitmentField::Raw(text.as_bytes().to_vec())],
    };
    parse(&commitment).unwrap()
}

fn entry(block: u64) -> Submission {
    let text = format!("2:a/b:{}:chatml:d1", "ab".repeat(20));
    submission(&text, block)
}

fn select(files: &[RepoFile]) -> Result<ModelFiles, RejectionCode> {
    select_files(files, &era(0, 10).admission).map_err(|r| r.code)
}

#[test]
fn a_plain_repository_is_accepted_and_only_its_model_is_taken() {
    let files = repo();
    let facts = Facts {
        registered_at: Some(BlockNumber(50)),
        repo: Repo::Public(&files),
    };
    let model = check(&entry(50), &facts, &era(0, 10)).unwrap();
    let names: Vec<_> = model.all().map(|f| f.path.as_str()).collect();
    assert_eq!(
        names,
        ["config.json", "tokenizer.json", "model.safetensors"]
    );
    assert_eq!(model.weight_bytes(), 700_000);
}

#[test]
fn the_chains_facts_are_checked_in_order() {
    let mut rules = era(0, 10).admission;
    let code = |submission: &Submission, at: Option<u64>, rules: &AdmissionRules| {
        let at = at.map(BlockNumber);
        check_commitment(submission, at, rules).unwrap_err().code
    };
    let base = entry(50);
    assert_eq!(code(&base, None, &rules), RejectionCode::NotRegistered);
    assert_eq!(
        code(&base, Some(51), &rules),
        RejectionCode::CommittedBeforeRegistration
    );
    rules.earliest_commit_block = BlockNumber(51);
    assert_eq!(
        code(&base, Some(50), &rules),
        RejectionCode::CommittedBeforeEra
    );
    rules.earliest_commit_block = BlockNumber(50);
    assert_eq!(
        check_commitment(&base, Some(BlockNumber(50)), &rules),
        Ok(())
    );
    let text = format!("2:a/b:{}:chatml:d9", "ab".repeat(20));
    let other = submission(&text, 50);
    assert_eq!(
        code(&other, Some(1), &rules),
        RejectionCode::CompetitionUnknown
    );
    let text = format!("2:a/b:{}:gemma2:d1", "ab".repeat(20));
    let other = submission(&text, 50);
    assert_eq!(
        code(&other, Some(1), &rules),
        RejectionCode::TemplateUnknown
    );
}

#[test]
fn an_unavailable_repository_is_the_miners_fault() {
    let facts = Facts {
        registered_at: Some(BlockNumber(1)),
        repo: Repo::Unavailable("401 gated"),
    };
    let rejection = check(&entry(5), &facts, &era(0, 10)).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::RepoUnavailable);
    assert!(rejection.detail.contains("401 gated"));
}

#[test]
fn each_bad_listing_has_its_code() {
    let without = |name: &str| {
        let mut files = repo();
        files.retain(|f| f.path != name);
        files
    };
    let with = |path: &str, size| {
        let mut files = without(path);
        files.push(file(path, size));
        files
    };
    let mut pickle = without("model.safetensors");
    assert_eq!(select(&pickle), Err(RejectionCode::NotSafetensors));
    pickle.retain(|f| f.path != "pytorch_model.bin");
    assert_eq!(select(&pickle), Err(RejectionCode::NotSafetensors));
    for name in ["config.json", "tokenizer.json"] {
        assert_eq!(select(&without(name)), Err(RejectionCode::FileMissing));
        assert_eq!(select(&with(name, 1 << 30)), Err(RejectionCode::TooLarge));
    }
    let table = [
        (
            with("model.safetensors", 6_000_001),
            RejectionCode::TooLarge,
        ),
        (with("model.safetensors", u64::MAX), RejectionCode::TooLarge),
        (with("model.safetensors", 0), RejectionCode::Format),
        (
            with("generation_config.json", 1 << 20),
            RejectionCode::TooLarge,
        ),
        (with(&shard(1, 1), 10), RejectionCode::FileName),
    ];
    for (files, want) in table {
        assert_eq!(select(&files), Err(want));
    }
    for name in [
        "../x",
        "/etc/passwd",
        "a/../b",
        "a\\b",
        "a\0b",
        "a\nb",
        "",
        "a//b",
        "./a",
    ] {
        assert_eq!(
            select(&with(name, 1)),
            Err(RejectionCode::FileName),
            "{name:?}"
        );
    }
    let mut twice = repo();
    twice.push(file("config.json", 1));
    assert_eq!(select(&twice), Err(RejectionCode::FileName));
}

#[test]
fn too_small_is_a_rule_of_the_era() {
    let mut rules = era(0, 10).admission;
    rules.min_model_bytes = 700_001;
    let rejection = select_files(&repo(), &rules).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::TooSmall);
}

#[test]
fn shards_are_taken_only_as_a_complete_set() {
    let model = select(&sharded(3)).unwrap();
    assert_eq!(model.weights.len(), 3);
    assert_eq!(model.weights[2].path, shard(3, 3));
    assert!(model.index.is_some());
    let mut missing = sharded(3);
    missing.retain(|f| f.path != shard(2, 3));
    assert_eq!(select(&missing), Err(RejectionCode::FileMissing));
    let mut no_index = sharded(2);
    no_index.retain(|f| f.path != INDEX_NAME);
    assert_eq!(select(&no_index), Err(RejectionCode::FileMissing));
    let mut mixed = sharded(2);
    mixed.push(file(&shard(1, 3), 1));
    assert_eq!(select(&mixed), Err(RejectionCode::FileName));
    assert_eq!(
        select(&sharded(SHARDS_MAX + 1)),
        Err(RejectionCode::FileName)
    );
    // A lone shard still needs its index: loaders look for one.
    assert!(select(&sharded(1)).unwrap().index.is_some());
}

proptest! {
    #[test]
    fn any_listing_ends_in_a_value_and_plain_names(
        names in prop::collection::vec("(model-[0-9]{5}-of-0000[0-9]|model|config|[\\PC]{0,6}|\\.\\./a)(\\.safetensors|\\.json|\\.bin)?", 0..8),
        size in any::<u64>(),
    ) {
        let mut files: Vec<_> = names.iter().map(|n| file(n, size)).collect();
        files.extend([file("config.json", 9), file("tokenizer.json", 9)]);
        if let Ok(model) = select(&files) {
            prop_assert!(model.all().all(|f| !f.path.contains(['/', '\\'])));
            prop_assert!(model.weight_bytes() <= 6_000_000);
        }
    }
}
