//! May 2025 again: the five ways in which a wrong model, or the right one by wrong code, could have become
//! a score. Each is refused with a code of its own, and only replies become scores.

use super::real::{break_weights, job, outcome, scorer};
use crate::harness::probe;
use assay::fault::Fault;
use assay::scoring::Scorer;
use assay::scoring::docker::{DockerScorer, Resources};
use assay::scoring::job::{JobPath, PreparedJob, prepare};
use assay::scoring::outcome::Outcome;
use assay::scoring::process::ProcessScorer;
use assay::scoring::runner::GRACE;
use assay::shutdown::Shutdown;
use assay_protocol::JobResult;
use std::path::Path;

fn process() -> ProcessScorer {
    ProcessScorer {
        binary: scorer(),
        memory_bytes: 1 << 30,
        grace: GRACE,
    }
}

fn prepared(dir: &Path) -> PreparedJob {
    prepare(&job(dir, |_| {}), &dir.join("jobs")).unwrap()
}

async fn scored(prepared: &PreparedJob) -> Outcome {
    let finished = process().run(prepared, &Shutdown::new()).await.unwrap();
    outcome(prepared, &finished)
}

fn fault(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Fault(fault) => fault,
        other => panic!("{other:?}"),
    }
}

/// Another model's folder in the place of this one's: noticed before a scorer starts.
#[test]
fn another_models_folder_is_not_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = job(dir.path(), |_| {});
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for file in &wrong.model.files {
        std::fs::write(other.join(&file.path), "another model").unwrap();
    }
    wrong.model.dir = other;
    let error = prepare(&wrong, &dir.path().join("jobs")).unwrap_err();
    assert_eq!(Fault::from(error).code, "MODEL_FOLDER");
}

/// The right names and sizes with other bytes: the scorer finds another digest than the node's.
#[tokio::test]
async fn the_right_name_with_other_bytes_is_found_by_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let prepared = prepared(dir.path());
    break_weights(&prepared.model_dir.join("model.safetensors"));
    let fault = fault(scored(&prepared).await);
    assert_eq!(fault.code, "I_MOUNT", "{fault}");
}

/// Swapped between the scorer's check and its loading: its own proof says so. The swap is too quick to
/// be made here, so a real result is altered to what a scorer writes then.
#[tokio::test]
async fn a_file_swapped_while_it_was_loaded_spoils_the_proof() {
    let dir = tempfile::tempdir().unwrap();
    let prepared = prepared(dir.path());
    assert!(matches!(scored(&prepared).await, Outcome::Replies(_)));
    let path = prepared.path(JobPath::Result);
    let honest: JobResult = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let alterations: [fn(&mut JobResult); 2] = [
        |result| result.proof.files_unchanged = false,
        |result| result.proof.canary[0].sha256_loaded = "0".repeat(64),
    ];
    for alter in alterations {
        let mut result = honest.clone();
        alter(&mut result);
        let sealed = result.seal().unwrap();
        std::fs::write(&path, serde_json::to_vec(&sealed).unwrap()).unwrap();
        let ended = assay::scoring::Finished {
            exit: Some(0),
            oom_killed: false,
            killed: None,
            log_tail: String::new(),
            image_id: None,
            wall: std::time::Duration::ZERO,
        };
        let fault = fault(outcome(&prepared, &ended));
        assert_eq!(fault.code, "PROOF_MISMATCH", "{fault}");
    }
}

/// An older image that somebody tagged with the name of the pinned one: the name counts for nothing.
#[tokio::test]
async fn an_older_image_under_the_same_tag_does_not_start() {
    let Some(engine) = probe::engine("may").await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let build = async |version: &str| {
        let binary = dir.path().join(version);
        let mut bytes = std::fs::read(probe::binary()).unwrap();
        bytes.extend_from_slice(format!("{version} {}", std::process::id()).as_bytes());
        std::fs::write(&binary, bytes).unwrap();
        engine.build_image_from_binary(&binary).await.unwrap()
    };
    let (old, new) = (build("old").await, build("new").await);
    let tag = format!("assay-may-{}:latest", std::process::id());
    let docker = async |args: &[&str]| {
        let output = tokio::process::Command::new("docker")
            .args(args)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{args:?}");
    };
    docker(&["tag", &old, &tag]).await;
    engine.remove_image(&new).await.unwrap();
    let name = tag.split(':').next().unwrap();
    for pin in [new.clone(), format!("{name}@{new}")] {
        let scorer = DockerScorer {
            engine: engine.clone(),
            image: pin.parse().unwrap(),
            resources: Resources::default(),
            node: format!("test-may-{}", std::process::id()),
        };
        let job = probe::prepared(dir.path(), "look", probe::patient());
        let fault = scorer.run(&job, &Shutdown::new()).await.unwrap_err();
        assert_eq!(fault.code, "IMAGE_NOT_PINNED", "{pin}");
        assert_eq!(
            std::fs::read_dir(job.path(JobPath::Out)).unwrap().count(),
            0
        );
    }
    docker(&["rmi", &tag]).await;
    let _ = engine.remove_image(&old).await;
}
