//! The real CPU scorer on the trained sample model, through both runners.

use crate::harness::probe;
use assay::scoring::docker::{DockerScorer, Engine, Resources};
use assay::scoring::job::{PreparedJob, ScoreJob, prepare};
use assay::scoring::outcome::{Attempt, Outcome, ReplySet, classify};
use assay::scoring::process::ProcessScorer;
use assay::scoring::runner::GRACE;
use assay::scoring::{Finished, Scorer, replies};
use assay::shutdown::Shutdown;
use assay_protocol::{ModelFile, Sample, TensorEntry, tensor_digest};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The scorer as the demo builds it.
pub(super) fn scorer() -> PathBuf {
    assay::demo::scorer_build::locate_or_build(None, |_| {}).unwrap()
}

/// A job on a copy of the sample model, altered by `alter`.
pub(super) fn job(dir: &Path, alter: impl FnOnce(&Path)) -> ScoreJob {
    let mut job = probe::job(dir, "", probe::patient());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/scorer-cpu/ladder/model");
    std::fs::remove_dir_all(&job.model.dir).unwrap();
    std::fs::create_dir_all(&job.model.dir).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, job.model.dir.join(path.file_name().unwrap())).unwrap();
    }
    alter(&job.model.dir.join("model.safetensors"));
    job.model.files.clear();
    for entry in std::fs::read_dir(&job.model.dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        job.model.files.push(ModelFile {
            path: path.file_name().unwrap().to_str().unwrap().to_owned(),
            size: bytes.len().try_into().unwrap(),
            sha256: hex::encode(Sha256::digest(&bytes)),
        });
    }
    let bytes = std::fs::read(job.model.dir.join("model.safetensors")).unwrap();
    let mut tensors: Vec<TensorEntry> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| TensorEntry {
            name: name.to_owned(),
            dtype: format!("{:?}", view.dtype()),
            shape: view
                .shape()
                .iter()
                .map(|n| u64::try_from(*n).unwrap())
                .collect(),
            sha256: Sha256::digest(view.data()).into(),
        })
        .collect();
    job.model.tensor_digest = tensor_digest(&mut tensors);
    job.generation.max_tokens = 40;
    job.generation.max_prompt_tokens = 80;
    job.items = ["Hello there", "What do you fear?"]
        .map(|text| Sample {
            id: hex::encode(&Sha256::digest(text)[..8]),
            prompt: format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"),
        })
        .into();
    job.canary.tensors = 4;
    job
}

pub(super) fn outcome(job: &PreparedJob, finished: &Finished) -> Outcome {
    let attempt = Attempt {
        memory_raised: false,
    };
    classify(replies::read(job), finished, &job.job, attempt)
}

async fn run(scorer: &dyn Scorer, dir: &Path, alter: impl FnOnce(&Path)) -> Outcome {
    let job = prepare(&job(dir, alter), &dir.join("jobs")).unwrap();
    let finished = scorer.run(&job, &Shutdown::new()).await.unwrap();
    assert_eq!(finished.killed, None, "{finished:?}");
    outcome(&job, &finished)
}

fn replied(outcome: Outcome) -> Box<ReplySet> {
    match outcome {
        Outcome::Replies(set) => set,
        other => panic!("{other:?}"),
    }
}

/// Makes the last value of the weights a NaN, whether they are 16 or 32 bits wide.
pub(super) fn break_weights(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&[0xff; 4]);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn both_runners_give_the_same_replies_and_find_the_same_fault() {
    let binary = scorer();
    let dir = tempfile::tempdir().unwrap();
    let process = ProcessScorer {
        binary: binary.clone(),
        memory_bytes: 1 << 30,
        grace: GRACE,
    };
    let plain = replied(run(&process, dir.path(), |_| {}).await);
    assert!(plain.replies.iter().all(|reply| reply.tokens > 0));
    let broken = run(&process, dir.path(), break_weights).await;
    assert!(
        matches!(&broken, Outcome::Rejected(r) if r.code.as_str() == "NON_FINITE"),
        "{broken:?}"
    );
    let Ok(engine) = Engine::connect().await else {
        writeln!(
            std::io::stderr(),
            "SKIPPED real scorer in a container: no engine"
        )
        .ok();
        return;
    };
    let image = engine.build_image_from_binary(&binary).await.unwrap();
    let sealed = DockerScorer {
        engine: engine.clone(),
        image: image.parse().unwrap(),
        resources: Resources::default(),
        node: format!("test-real-{}", std::process::id()),
    };
    let contained = run(&sealed, dir.path(), |_| {}).await;
    let found = run(&sealed, dir.path(), break_weights).await;
    engine.remove_image(&image).await.unwrap();
    assert_eq!(replied(contained).replies, plain.replies);
    assert_eq!(found, broken);
}
