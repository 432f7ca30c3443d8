//! A job folder around a copy of the sample model, and what the scorer leaves in it.

use assay_protocol::{
    Canary, Dataset, EngineArgs, Generation, JOB_SCHEMA, Job, JobResult, Likelihood, Limits, Mode,
    Model, ModelFile, Progress, Reference, ReferenceLikelihood, Reply, Sample, TensorEntry,
    tensor_digest,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// One line of `ladder/golden.jsonl`: what the trained model answers.
#[derive(serde::Deserialize)]
pub(crate) struct Golden {
    pub(crate) id: String,
    pub(crate) prompt: String,
    pub(crate) reference: String,
    pub(crate) reply: String,
}

/// Stored tensors: element type, shape, bytes.
pub(crate) type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn ladder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ladder")
}

pub(crate) fn golden() -> Vec<Golden> {
    let text = std::fs::read_to_string(ladder().join("golden.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A job folder.
pub(crate) struct Case {
    pub(crate) root: TempDir,
    samples: Vec<Sample>,
    references: Vec<Reference>,
}

/// How the scorer ended.
pub(crate) struct Ended {
    pub(crate) exit: i32,
    pub(crate) result: Option<JobResult>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) likelihood: Vec<ReferenceLikelihood>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The result's code, after checking that result and exit code agree.
    pub(crate) fn code(&self) -> &'static str {
        let result = self.result.as_ref().expect(&self.stderr);
        result.check_mac().unwrap();
        let error = result.error.as_ref().expect("an error");
        assert_eq!(i32::from(error.code.class().exit_code()), self.exit);
        assert_eq!(result.status, error.code.class().status());
        error.code.as_str()
    }

    pub(crate) fn message(&self) -> String {
        self.result
            .as_ref()
            .unwrap()
            .error
            .as_ref()
            .unwrap()
            .message
            .clone()
    }
}

impl Case {
    /// The sample model with the first `n` golden prompts.
    pub(crate) fn new(n: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["model", "job", "out"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        for file in std::fs::read_dir(ladder().join("model")).unwrap() {
            let file = file.unwrap();
            let copy = root.path().join("model").join(file.file_name());
            std::fs::copy(file.path(), copy).unwrap();
        }
        let (samples, references) = golden()
            .into_iter()
            .take(n)
            .map(|g| {
                let reference = Reference {
                    id: g.id.clone(),
                    content: g.reference,
                };
                (
                    Sample {
                        id: g.id,
                        prompt: g.prompt,
                    },
                    reference,
                )
            })
            .unzip();
        Self {
            root,
            samples,
            references,
        }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Replaces a file of the model.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path("model").join(name), content).unwrap();
    }

    /// Changes one key of the model's `config.json`.
    pub(crate) fn set_config(&self, key: &str, value: serde_json::Value) {
        let text = std::fs::read(self.path("model/config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
        config[key] = value;
        self.write("config.json", config.to_string());
    }

    /// Changes the model's tensors.
    pub(crate) fn edit_weights(&self, edit: impl FnOnce(&mut Stored)) {
        let mut stored = self.weights();
        edit(&mut stored);
        let views = stored.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        self.write(
            "model.safetensors",
            safetensors::serialize(views, None).unwrap(),
        );
    }

    pub(crate) fn weights(&self) -> Stored {
        let bytes = std::fs::read(self.path("model/model.safetensors")).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let own = |(name, view): (String, TensorView<'_>)| {
            (
                name,
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        };
        parsed.tensors().into_iter().map(own).collect()
    }

    pub(crate) fn set_prompt(&mut self, at: usize, prompt: &str) {
        prompt.clone_into(&mut self.samples[at].prompt);
    }

    /// The job that fits the folder as it is now; writes the line files.
    pub(crate) fn job(&self) -> Job {
        let samples = lines(&self.samples);
        let references = lines(&self.references);
        std::fs::write(self.path("job/samples.jsonl"), &samples).unwrap();
        std::fs::write(self.path("job/references.jsonl"), &references).unwrap();
        let count = u32::try_from(self.samples.len()).unwrap();
        Job {
            schema: JOB_SCHEMA.to_owned(),
            job_id: "job-1".to_owned(),
            nonce: "5a".repeat(32),
            attempt: 1,
            mode: vec![Mode::Generate],
            model: Model {
                dir: "/model".to_owned(),
                architecture: "LlamaForCausalLM".to_owned(),
                files: self.model_files(),
                tensor_digest: self.tensor_digest(),
                param_count: 1,
            },
            dataset: Dataset {
                snapshot: "sha256:00".to_owned(),
                samples_sha256: sha256(&samples),
                references_sha256: Some(sha256(&references)),
                count,
            },
            generation: Generation {
                max_tokens: 120,
                max_prompt_tokens: 512,
                stop_token_ids: vec![2],
                seed: 1,
            },
            likelihood: None,
            engine_args: EngineArgs {
                max_model_len: 1024,
                max_num_seqs: 1,
                gpu_memory_utilization: 0.9,
                dtype: "float32".to_owned(),
            },
            limits: Limits {
                load_s: 60,
                generate_s: 60,
                likelihood_s: 60,
                total_s: 120,
                stall_s: 30,
            },
            canary: Canary {
                tensors: 8,
                values: 1024,
            },
        }
    }

    /// As [`Case::job`], with the likelihood of all references.
    pub(crate) fn likelihood_job(&self, mode: Vec<Mode>) -> Job {
        let count = u32::try_from(self.references.len()).unwrap();
        Job {
            mode,
            likelihood: Some(Likelihood {
                count,
                top_k: 10,
                max_target_tokens: 200,
            }),
            ..self.job()
        }
    }

    pub(crate) fn run(&self) -> Ended {
        self.run_job(&self.job())
    }

    pub(crate) fn run_job(&self, job: &Job) -> Ended {
        self.run_text(&serde_json::to_string(job).unwrap())
    }

    pub(crate) fn run_text(&self, job: &str) -> Ended {
        std::fs::write(self.path("job/job.json"), job).unwrap();
        self.start(&mut Command::new(env!("CARGO_BIN_EXE_scorer-cpu")))
    }

    /// Runs the given scorer on the folder as it is.
    pub(crate) fn start(&self, scorer: &mut Command) -> Ended {
        let output = scorer
            .env_clear()
            .arg("run")
            .arg("--root")
            .arg(self.root.path())
            .output();
        let output = output.unwrap();
        let read = |name: &str| std::fs::read(self.path("out").join(name)).unwrap_or_default();
        let result = read("result.json");
        Ended {
            exit: output.status.code().unwrap(),
            result: (!result.is_empty()).then(|| serde_json::from_slice(&result).unwrap()),
            replies: parsed(&read("replies.jsonl")),
            progress: parsed(&read("progress.jsonl")),
            likelihood: parsed(&read("likelihood.jsonl")),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Empties the output folder for another run.
    pub(crate) fn clear(&self) {
        std::fs::remove_dir_all(self.path("out")).unwrap();
        std::fs::create_dir(self.path("out")).unwrap();
    }

    fn model_files(&self) -> Vec<ModelFile> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("model"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let file = |path: String| {
            let bytes = std::fs::read(self.path("model").join(&path)).unwrap();
            ModelFile {
                size: u64::try_from(bytes.len()).unwrap(),
                sha256: sha256(&bytes),
                path,
            }
        };
        names.into_iter().map(file).collect()
    }

    /// Empty when the weights are not readable, which only hostile cases have.
    fn tensor_digest(&self) -> String {
        let bytes = std::fs::read(self.path("model/model.safetensors")).unwrap_or_default();
        let Ok(parsed) = SafeTensors::deserialize(&bytes) else {
            return String::new();
        };
        let entry = |(name, view): (String, TensorView<'_>)| TensorEntry {
            name,
            dtype: view.dtype().to_string(),
            shape: view
                .shape()
                .iter()
                .map(|d| u64::try_from(*d).unwrap())
                .collect(),
            sha256: Sha256::digest(view.data()).into(),
        };
        let mut entries: Vec<_> = parsed.tensors().into_iter().map(entry).collect();
        tensor_digest(&mut entries)
    }
}

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn lines<T: serde::Serialize>(items: &[T]) -> String {
    items
        .iter()
        .map(|item| serde_json::to_string(item).unwrap() + "\n")
        .collect()
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
