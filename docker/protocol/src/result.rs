//! `/out/result.json`: how a job ended, with what it proves.

use crate::job::ModelFile;
use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Value of [`JobResult::schema`].
pub const RESULT_SCHEMA: &str = "assay-result/1";

/// The only file that ends a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobResult {
    /// Always [`RESULT_SCHEMA`].
    pub schema: String,
    /// [`crate::Job::job_id`] of the job.
    pub job_id: String,
    /// [`crate::Job::nonce`] of the job.
    pub nonce: String,
    /// How it ended.
    pub status: Status,
    /// Present unless `status` is ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// What was loaded; complete only when `status` is ok.
    pub proof: Proof,
    /// Who scored.
    pub scorer: ScorerInfo,
    /// Raw counts; every judged metric is computed by the node.
    pub metrics: Metrics,
    /// Seconds by stage.
    pub timing: Timing,
    /// Hex HMAC-SHA256 over the canonical JSON of everything else, key = the nonce's 32 bytes. Stops
    /// mix-ups and replays, not a compromised container: the nonce is visible inside.
    pub mac: String,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All replies are there.
    Ok,
    /// The model is at fault.
    Rejected,
    /// The surroundings are at fault.
    Infra,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorDetail {
    /// Stable code; its class follows from it.
    pub code: ResultCode,
    /// At most 500 characters, control characters removed.
    pub message: String,
}

/// Class of an exit code or of a [`ResultCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExitClass {
    /// Exit 0.
    Ok,
    /// Exit 10: the miner's fault, final for this commitment.
    Miner,
    /// Exit 11: the miner's fault only if a control model passes on the same worker and the
    /// model fails again.
    MinerIfConfirmed,
    /// Exit 20: infrastructure, retried.
    Infra,
    /// Exit 21: a deadline passed with healthy progress; retried once with twice the limit.
    Timeout,
    /// Exit 30: the job itself is bad; a bug of the node.
    Job,
}

impl ExitClass {
    /// The process exit code of this class.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Miner => 10,
            Self::MinerIfConfirmed => 11,
            Self::Infra => 20,
            Self::Timeout => 21,
            Self::Job => 30,
        }
    }

    /// The status of a result of this class: only [`Self::Miner`] rejects, because every other
    /// failure still has to be confirmed or is not the miner's.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Ok => Status::Ok,
            Self::Miner => Status::Rejected,
            Self::MinerIfConfirmed | Self::Infra | Self::Timeout | Self::Job => Status::Infra,
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $class:ident,)*) => {
        /// Stable code of a failed job.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ResultCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ResultCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as written in files.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn class(self) -> ExitClass {
                match self { $(Self::$name => ExitClass::$class,)* }
            }
        }
    };
}

codes! {
    /// A file is missing or differs from the job.
    Files = "E_FILES" => Miner,
    /// A file is malformed.
    Format = "E_FORMAT" => Miner,
    /// `config.json` is outside the accepted ranges.
    Config = "E_CONFIG" => Miner,
    /// The architecture is not supported.
    Arch = "E_ARCH" => Miner,
    /// The tokenizer does not load.
    Tokenizer = "E_TOKENIZER" => Miner,
    /// A weight or a logit is NaN or infinite.
    NonFinite = "E_NONFINITE" => Miner,
    /// Tensors do not have the shapes that the configuration demands.
    Shape = "E_SHAPE" => Miner,
    /// Token ids exceed the vocabulary.
    Vocab = "E_VOCAB" => Miner,
    /// Out of memory although the pre-flight check passed.
    OomModel = "E_OOM_MODEL" => MinerIfConfirmed,
    /// The engine refused or crashed while loading.
    EngineLoad = "E_ENGINE_LOAD" => MinerIfConfirmed,
    /// Generation stopped making progress.
    GenStall = "E_GEN_STALL" => MinerIfConfirmed,
    /// The device asserted.
    DeviceAssert = "E_DEVICE_ASSERT" => MinerIfConfirmed,
    /// The driver or the GPU failed.
    Driver = "I_DRIVER" => Infra,
    /// The GPU was not free.
    GpuBusy = "I_GPU_BUSY" => Infra,
    /// Reading or writing failed.
    Io = "I_IO" => Infra,
    /// `/model` is not what the node verified.
    Mount = "I_MOUNT" => Infra,
    /// The scorer's self-test failed.
    Selftest = "I_SELFTEST" => Infra,
    /// Loading took too long.
    TimeoutLoad = "I_TIMEOUT_LOAD" => Timeout,
    /// The whole job took too long.
    TimeoutTotal = "I_TIMEOUT_TOTAL" => Timeout,
    /// `job.json` is malformed.
    JobSchema = "J_SCHEMA" => Job,
    /// `samples.jsonl` is malformed.
    JobSamples = "J_SAMPLES" => Job,
    /// A job file differs from its digest.
    JobDigest = "J_DIGEST" => Job,
}

/// Evidence of what was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Every file of `/model` as the scorer read it.
    pub files: Vec<ModelFile>,
    /// Device, inode, size and mtime were the same before and after loading.
    pub files_unchanged: bool,
    /// As [`crate::Model::tensor_digest`], computed from the bytes that were read.
    pub tensor_digest: String,
    /// Loaded values against file values.
    pub canary: Vec<CanaryProof>,
    /// Hex SHA-256 of `samples.jsonl` as read.
    pub samples_sha256: String,
    /// Hex SHA-256 of `replies.jsonl` as written.
    pub replies_sha256: String,
    /// Hex SHA-256 of `likelihood.jsonl` as written; absent without that pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likelihood_sha256: Option<String>,
}

/// Digest of the same values taken from the file and from the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryProof {
    /// Tensor name.
    pub tensor: String,
    /// Hex SHA-256 of the drawn values as f32 little-endian, from the file.
    pub sha256_file: String,
    /// The same from the loaded model.
    pub sha256_loaded: String,
}

/// Versions of the scorer. A container's word about itself proves nothing; the node pins the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScorerInfo {
    /// Version of the scorer.
    pub version: String,
    /// Engine and version, such as `candle 0.11`.
    pub engine: String,
    /// Device in words.
    pub device: String,
    /// Whether replies are independent of batching.
    pub batch_invariant: bool,
}

/// Raw counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Replies written.
    pub replies: u32,
    /// Replies without text.
    pub empty: u32,
    /// Replies cut by the token cap.
    pub hit_length: u32,
    /// Tokens produced.
    pub tokens: u64,
    /// Negative log-likelihood of the references in bits per byte; 0 without that pass.
    pub bits_per_byte: f64,
}

/// Seconds by stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Hashing.
    pub verify_s: f64,
    /// Loading.
    pub load_s: f64,
    /// Generating.
    pub generate_s: f64,
    /// Likelihood pass.
    pub likelihood_s: f64,
    /// Everything.
    pub total_s: f64,
}

/// The result cannot be trusted to belong to its job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The nonce is not 64 hex digits.
    #[error("the nonce is not 64 hex digits")]
    Nonce,
    /// The MAC does not fit the content.
    #[error("the result's MAC does not fit its content")]
    Mismatch,
}

impl JobResult {
    /// Computes [`JobResult::mac`] over everything else and stores it.
    ///
    /// # Errors
    /// [`MacError::Nonce`] when the nonce is malformed.
    pub fn seal(mut self) -> Result<Self, MacError> {
        self.mac = String::new();
        self.mac = hex::encode(self.keyed()?.finalize().into_bytes());
        Ok(self)
    }

    /// Checks [`JobResult::mac`] in constant time.
    ///
    /// # Errors
    /// [`MacError`] when nonce or MAC are malformed or do not fit.
    pub fn check_mac(&self) -> Result<(), MacError> {
        let claimed = hex::decode(&self.mac).map_err(|_| MacError::Mismatch)?;
        let bare = Self {
            mac: String::new(),
            ..self.clone()
        };
        bare.keyed()?
            .verify_slice(&claimed)
            .map_err(|_| MacError::Mismatch)
    }

    fn keyed(&self) -> Result<Hmac<Sha256>, MacError> {
        let key = hex::decode(&self.nonce)
            .ok()
            .filter(|k| k.len() == 32)
            .ok_or(MacError::Nonce)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| MacError::Nonce)?;
        mac.update(&canonical_json(self));
        Ok(mac)
    }
}

/// JSON with sorted keys and no white space: the form that is digested.
fn canonical_json(value: &JobResult) -> Vec<u8> {
    let tree = serde_json::to_value(value).unwrap_or_default();
    let mut out = String::new();
    write_sorted(&tree, &mut out);
    out.into_bytes()
}

fn write_sorted(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::String(key.clone()).to_string());
                out.push(':');
                write_sorted(&map[key], out);
            }
            out.push('}');
        }
        serde_json::Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}
