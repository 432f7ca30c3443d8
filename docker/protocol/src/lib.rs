//! Container protocol v1: the files that the node and a scorer exchange.
//!
//! A scorer sees three folders and nothing else: `/model` (read-only: rewritten configuration and
//! verified weights), `/job` (read-only: [`Job`] as `job.json`, [`Sample`]s as `samples.jsonl`,
//! optionally [`Reference`]s as `references.jsonl`) and `/out` (empty, writable). It appends
//! [`Progress`] lines to `progress.jsonl`, [`Reply`] lines to `replies.jsonl`, with a likelihood
//! pass [`ReferenceLikelihood`] lines to `likelihood.jsonl`, and ends the job by renaming a complete [`JobResult`] to `result.json`. The exit code ([`ExitClass`]) only helps
//! where no valid result exists.
//!
//! Every type refuses unknown fields, so a scorer of another version fails loudly.

mod canary;
mod files;
mod job;
mod result;
mod schemas;
mod tensor_digest;

pub use canary::{canary_positions, canary_tensors};
pub use files::{
    Finish, LIKELIHOOD_BYTES_MAX, LINE_BYTES_MAX, LP_STEPS_PER_NAT, Progress, REPLIES_BYTES_MAX,
    RESULT_BYTES_MAX, Reference, ReferenceLikelihood, Reply, Sample, Stage,
};
pub use job::{
    Canary, Dataset, EngineArgs, Generation, JOB_SCHEMA, Job, Likelihood, Limits, Mode, Model,
    ModelFile,
};
pub use result::{
    CanaryProof, ErrorDetail, ExitClass, JobResult, MacError, Metrics, Proof, RESULT_SCHEMA,
    ResultCode, ScorerInfo, Status, Timing,
};
pub use schemas::schemas;
pub use tensor_digest::{TensorEntry, tensor_digest};
