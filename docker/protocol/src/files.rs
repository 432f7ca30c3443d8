//! The line files: samples and references in, progress and replies out.

use base64::Engine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest line of `replies.jsonl` that the node reads.
pub const LINE_BYTES_MAX: usize = 20 * 1024;
/// Longest `replies.jsonl` that the node reads.
pub const REPLIES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest `result.json` that the node reads.
pub const RESULT_BYTES_MAX: u64 = 1024 * 1024;
/// Longest `likelihood.jsonl` that the node reads.
pub const LIKELIHOOD_BYTES_MAX: u64 = 16 * 1024 * 1024;

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

/// One line of `/out/likelihood.jsonl`: how well the model foresees one reference. A diagnosis and a
/// fingerprint, never reward: a compromised container could write what it likes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceLikelihood {
    /// Id of the reference.
    pub id: String,
    /// Tokens of the reference that were scored, its end not counted.
    pub tokens: u32,
    /// Bytes of text that these tokens cover.
    pub bytes: u64,
    /// Negative log-likelihood of the tokens in nats.
    pub nll: f64,
    /// For k = 1 to 4: the sum over positions of the product of k successive probabilities within
    /// the `top_k` set; a token outside the set counts as 1e-9.
    pub ngram_sums: [f64; 4],
    /// Mean entropy of the `top_k` set divided by ln(`top_k`), 0 to 1.
    pub entropy: f64,
    /// Base64 of one little-endian u16 for each token: its negative log-probability in steps of
    /// 1/1024 nat, at most 65535.
    pub lp_q16: String,
}

/// Steps of [`ReferenceLikelihood::lp_q16`] in one nat.
pub const LP_STEPS_PER_NAT: f64 = 1024.0;

impl ReferenceLikelihood {
    /// [`Self::lp_q16`] of natural-log probabilities, each 0 or less.
    #[must_use]
    pub fn pack(log_probabilities: &[f64]) -> String {
        let steps = log_probabilities.iter().flat_map(|lp| {
            let steps = (-lp * LP_STEPS_PER_NAT).round().clamp(0.0, 65_535.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to the range of u16"
            )]
            (steps as u16).to_le_bytes()
        });
        base64::engine::general_purpose::STANDARD.encode(steps.collect::<Vec<u8>>())
    }

    /// The log-probabilities of [`Self::lp_q16`] in nats, exact to 1/2048; `None` unless it holds
    /// exactly one for each token.
    #[must_use]
    pub fn log_probabilities(&self) -> Option<Vec<f64>> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(&self.lp_q16);
        let bytes = bytes.ok()?;
        let (steps, rest) = bytes.as_chunks::<2>();
        let whole = rest.is_empty() && u32::try_from(steps.len()).ok() == Some(self.tokens);
        let nats = |step: &[u8; 2]| -f64::from(u16::from_le_bytes(*step)) / LP_STEPS_PER_NAT;
        whole.then(|| steps.iter().map(nats).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_survive_packing_to_half_a_step() {
        let given = [0.0, -0.25, -1.234_567, -40.0, -1e9];
        let line = ReferenceLikelihood {
            id: "a".to_owned(),
            tokens: 5,
            bytes: 9,
            nll: 0.0,
            ngram_sums: [0.0; 4],
            entropy: 0.0,
            lp_q16: ReferenceLikelihood::pack(&given),
        };
        let read = line.log_probabilities().unwrap();
        for (a, b) in given.iter().zip(&read) {
            assert!(
                (a.max(-65_535.0 / 1024.0) - b).abs() <= 0.5 / 1024.0,
                "{a} {b}"
            );
        }
        let short = ReferenceLikelihood { tokens: 4, ..line };
        assert_eq!(short.log_probabilities(), None);
    }
}
