//! `/job/job.json`: what the scorer has to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Value of [`Job::schema`].
pub const JOB_SCHEMA: &str = "assay-job/1";

/// One scoring job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Always [`JOB_SCHEMA`].
    pub schema: String,
    /// The node's id of this attempt's job.
    pub job_id: String,
    /// 64 hex digits, fresh for each attempt; binds the result to this job.
    pub nonce: String,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// What to produce.
    pub mode: Vec<Mode>,
    /// The model.
    pub model: Model,
    /// The samples.
    pub dataset: Dataset,
    /// Decoding.
    pub generation: Generation,
    /// Teacher-forced likelihood of the references; required with [`Mode::Likelihood`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<Likelihood>,
    /// Engine settings.
    pub engine_args: EngineArgs,
    /// Deadlines.
    pub limits: Limits,
    /// Read-back of loaded weights.
    pub canary: Canary,
}

/// What a job produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Replies to the samples.
    Generate,
    /// Log-probabilities of the references.
    Likelihood,
}

/// The model under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Folder with the model's files, `/model` in a container.
    pub dir: String,
    /// The one entry of `architectures`, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// Every file that may be read, with what it must contain.
    pub files: Vec<ModelFile>,
    /// `sha256:` + hex over the sorted tensors (name, dtype, shape, SHA-256 of the bytes).
    pub tensor_digest: String,
    /// Number of parameters.
    pub param_count: u64,
}

/// One file of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// File name without folders.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex SHA-256 of the content.
    pub sha256: String,
}

/// The samples file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Digest of the pack that the samples were drawn from, `sha256:` + hex.
    pub snapshot: String,
    /// Hex SHA-256 of `samples.jsonl`.
    pub samples_sha256: String,
    /// Hex SHA-256 of `references.jsonl`; absent when the job brings none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references_sha256: Option<String>,
    /// Number of samples.
    pub count: u32,
}

/// Greedy decoding and its bounds. Temperature is fixed at 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Most new tokens of one reply.
    pub max_tokens: u32,
    /// Longest prompt; a longer one keeps its end.
    pub max_prompt_tokens: u32,
    /// Token ids that end a reply: the model's own and the template's.
    pub stop_token_ids: Vec<u32>,
    /// Seed of everything that an engine may draw.
    pub seed: u64,
}

/// Bounds of the likelihood pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Number of references.
    pub count: u32,
    /// Size of the top set of the n-gram metric.
    pub top_k: u32,
    /// Longest reference in tokens.
    pub max_target_tokens: u32,
}

/// Settings of the inference engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineArgs {
    /// Longest sequence in tokens.
    pub max_model_len: u32,
    /// Sequences decoded together.
    pub max_num_seqs: u32,
    /// Share of GPU memory that the engine may take, 0 to 1; ignored on CPU.
    pub gpu_memory_utilization: f64,
    /// `float32`, `float16` or `bfloat16`.
    pub dtype: String,
}

/// Deadlines of the stages, whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Verifying and loading the model.
    pub load_s: u64,
    /// Generating all replies.
    pub generate_s: u64,
    /// The likelihood pass.
    pub likelihood_s: u64,
    /// Everything.
    pub total_s: u64,
    /// Longest time without a progress line.
    pub stall_s: u64,
}

/// How many loaded values are read back and compared with the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Number of tensors.
    pub tensors: u32,
    /// Values of each, at positions drawn from the nonce.
    pub values: u32,
}
