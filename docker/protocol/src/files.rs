//! The line files: samples and references in, progress and replies out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest line of `replies.jsonl` that the node reads.
pub const LINE_BYTES_MAX: usize = 20 * 1024;
/// Longest `replies.jsonl` that the node reads.
pub const REPLIES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest `result.json` that the node reads.
pub const RESULT_BYTES_MAX: u64 = 1024 * 1024;

/// One line of `/job/samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The item's id, unique in the job.
    pub id: String,
    /// The prompt as the model sees it: rendered by the node from a template of its own, so that
    /// there is one definition of every template and none of the miner's text in it.
    pub prompt: String,
}

/// One line of `/job/references.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Id of the sample that it answers.
    pub id: String,
    /// The reference reply.
    pub content: String,
}

/// Stage of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Hashing the files.
    Verify,
    /// Loading the weights.
    Load,
    /// Producing replies.
    Generate,
    /// Scoring references.
    Likelihood,
    /// Writing the result.
    Write,
}

/// One line of `/out/progress.jsonl`: liveness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Seconds since the scorer started.
    pub t: f64,
    /// Present stage.
    pub stage: Stage,
    /// Units done in it.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// One line of `/out/replies.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Id of the sample.
    pub id: String,
    /// The model's text, hostile.
    pub text: String,
    /// Why the reply ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the reply, the stop token not counted.
    pub tokens: u32,
    /// Hex SHA-256 over the reply's token ids, each as little-endian u32.
    pub ids_sha256: String,
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model produced a stop token.
    Stop,
    /// The token cap cut it.
    Length,
}
