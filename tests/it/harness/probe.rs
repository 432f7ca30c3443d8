//! A static scorer that misbehaves on demand, and jobs that tell it how.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use assay::scoring::docker::Engine;
use assay::scoring::job::{ModelFacts, PreparedJob, ScoreJob, prepare};
use assay_protocol::{Canary, EngineArgs, Generation, Limits, ModelFile, Sample};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The probe as a static binary, built once.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = dir.join(format!("probe-{}.rs", std::process::id()));
        let made = source.with_extension("");
        std::fs::write(&source, include_str!("../data/probe.rs")).unwrap();
        let rustc = std::env::var("RUSTC").unwrap_or("rustc".to_owned());
        let status = Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
                "-o",
            ])
            .args([&made, &source])
            .status()
            .unwrap();
        assert!(status.success(), "the probe does not compile");
        let binary = dir.join("probe");
        std::fs::rename(&made, &binary).unwrap();
        std::fs::remove_file(&source).unwrap();
        binary
    })
}

/// A job that tells the probe what to do. The model is one small file.
pub(crate) fn job(dir: &Path, what: &str, limits: Limits) -> ScoreJob {
    let model = dir.join("model");
    std::fs::create_dir_all(&model).unwrap();
    std::fs::write(model.join("config.json"), b"{}").unwrap();
    ScoreJob {
        job_id: "job".to_owned(),
        attempt: 1,
        nonce: [7; 32],
        model: ModelFacts {
            dir: model,
            architecture: "LlamaForCausalLM".to_owned(),
            files: vec![ModelFile {
                path: "config.json".to_owned(),
                size: 2,
                sha256: hex::encode(Sha256::digest(b"{}")),
            }],
            tensor_digest: "sha256:00".to_owned(),
            param_count: 1,
        },
        items: ["a", "b"]
            .map(|id| Sample {
                id: id.to_owned(),
                prompt: what.to_owned(),
            })
            .into(),
        references: Vec::new(),
        pack: "sha256:11".to_owned(),
        generation: Generation {
            max_tokens: 8,
            max_prompt_tokens: 64,
            stop_token_ids: vec![2],
            seed: 1,
        },
        engine_args: EngineArgs {
            max_model_len: 128,
            max_num_seqs: 1,
            gpu_memory_utilization: 0.5,
            dtype: "float32".to_owned(),
        },
        limits,
        canary: Canary {
            tensors: 1,
            values: 4,
        },
        memory_raised: false,
    }
}

/// The same, laid out under `dir/jobs`.
pub(crate) fn prepared(dir: &Path, what: &str, limits: Limits) -> PreparedJob {
    prepare(&job(dir, what, limits), &dir.join("jobs")).unwrap()
}

/// Far longer than any test takes.
pub(crate) fn patient() -> Limits {
    Limits {
        load_s: 300,
        generate_s: 300,
        likelihood_s: 300,
        total_s: 300,
        stall_s: 300,
    }
}

/// The container engine; without one the test is skipped aloud, or fails where one is required.
pub(crate) async fn engine(test: &str) -> Option<Engine> {
    match Engine::connect().await {
        Ok(engine) => Some(engine),
        Err(error) => {
            let required = std::env::var("ASSAY_REQUIRE_DOCKER").is_ok_and(|v| v == "1");
            assert!(!required, "a container engine is required: {error}");
            // Not by a macro, whose output the test harness keeps to itself.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "SKIPPED docker test {test}: {error}").unwrap();
            None
        }
    }
}
