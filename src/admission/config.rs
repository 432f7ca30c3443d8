//! `config.json` by an allow-list: what is known is checked, what is dangerous or would change the
//! model is refused, the rest is dropped by writing the file anew.

use super::{json, reject};
use crate::incentive::eligibility::CONFIG_BYTES_MAX;
use crate::incentive::{Architecture, Era, Rejection, RejectionCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Keys that load code, other repositories or other models, or change the weights' meaning.
const FORBIDDEN: [&str; 9] = [
    "auto_map",
    "model_file",
    "quantization_config",
    "compression_config",
    "custom_pipelines",
    "trust_remote_code",
    "vision_config",
    "text_config",
    "audio_config",
];

/// The attention implementations that name no code of others.
const ATTENTION: [&str; 5] = [
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
];

/// Element type that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelDtype {
    /// Brain float.
    BFloat16,
    /// Half precision.
    Float16,
    /// Single precision.
    Float32,
}

/// A decoder of the Llama family. Every number lies in the range that its check states, heads and
/// widths fit each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Accepted by the era.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Width of the gated MLP.
    pub intermediate_size: u64,
    /// Decoder layers.
    pub num_hidden_layers: u64,
    /// Query heads.
    pub num_attention_heads: u64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: u64,
    /// Width of a head; even.
    pub head_dim: u64,
    /// Rows of the embedding.
    pub vocab_size: u64,
    /// Longest sequence in tokens; holds a prompt and a reply of the era.
    pub max_position_embeddings: u64,
    /// Added to the mean square in the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Element type that the miner names, if any.
    pub dtype: Option<ModelDtype>,
    /// End-of-text ids, within the vocabulary.
    pub eos_token_ids: Vec<u32>,
    /// Begin-of-text id, within the vocabulary.
    pub bos_token_id: Option<u32>,
}

/// One id or several, as the libraries write them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// The keys that are read. Absent ones have the defaults of the published implementations.
#[derive(Deserialize)]
struct Raw {
    architectures: Vec<String>,
    model_type: String,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    vocab_size: u64,
    max_position_embeddings: u64,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    tie_word_embeddings: Option<bool>,
    #[serde(alias = "torch_dtype")]
    dtype: Option<ModelDtype>,
    eos_token_id: Option<TokenIds>,
    bos_token_id: Option<u32>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    partial_rotary_factor: Option<f64>,
    layer_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    partial_rotary_factor: Option<f64>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// A [`Rejection`]: not JSON of the known shape, a forbidden key, an architecture that the era
    /// does not accept, a feature that changes the model's arithmetic, or a number out of range.
    pub fn parse(text: &[u8], era: &Era) -> Result<Self, Rejection> {
        json::bounded(text, CONFIG_BYTES_MAX)
            .map_err(|what| invalid(format!("The file {what}.")))?;
        let keys: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|e| invalid(format!("Not a JSON object: {e}.")))?;
        refuse_forbidden(&keys)?;
        let raw: Raw = serde_json::from_value(Value::Object(keys))
            .map_err(|e| invalid(format!("A key is missing or of the wrong type: {e}.")))?;
        let architecture = accepted_architecture(&raw, era)?;
        refuse_features(&raw)?;
        let config = build(raw, architecture)?;
        config.check_ranges(era)?;
        Ok(config)
    }

    /// `config.json` as it is mounted: the checked values and nothing else of the miner's.
    #[must_use]
    pub fn rewrite(&self, eos_ids: &[u32]) -> Vec<u8> {
        let mut value = serde_json::json!({
            "architectures": [self.architecture.as_str()],
            "model_type": self.architecture.model_type(),
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": false,
            "mlp_bias": false,
            "use_sliding_window": false,
            "eos_token_id": eos_ids,
            "bos_token_id": self.bos_token_id,
        });
        if let Some(dtype) = self.dtype {
            value["torch_dtype"] = serde_json::json!(dtype);
        }
        value.sort_all_objects();
        format!("{value:#}\n").into_bytes()
    }

    fn check_ranges(&self, era: &Era) -> Result<(), Rejection> {
        let in_range = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(invalid(format!(
                "{key} is {value}; {low} to {high} are accepted."
            )))
        };
        let tokens = u64::from(era.scoring.max_prompt_tokens) + u64::from(era.scoring.max_tokens);
        in_range("hidden_size", self.hidden_size, 64, 16_384)?;
        in_range("intermediate_size", self.intermediate_size, 64, 131_072)?;
        in_range("num_hidden_layers", self.num_hidden_layers, 1, 128)?;
        in_range("num_attention_heads", self.num_attention_heads, 1, 256)?;
        in_range("num_key_value_heads", self.num_key_value_heads, 1, 256)?;
        in_range("head_dim", self.head_dim, 8, 512)?;
        in_range("vocab_size", self.vocab_size, 256, 300_000)?;
        in_range(
            "max_position_embeddings",
            self.max_position_embeddings,
            tokens,
            1 << 20,
        )?;
        let fits = self.head_dim.is_multiple_of(2)
            && self
                .num_attention_heads
                .is_multiple_of(self.num_key_value_heads);
        if !fits {
            let detail = "head_dim must be even, num_key_value_heads divide num_attention_heads.";
            return Err(invalid(detail));
        }
        if !(1e-8..=1e-2).contains(&self.rms_norm_eps) {
            return Err(invalid("rms_norm_eps must lie in 1e-8 to 1e-2."));
        }
        if !(1e2..=1e8).contains(&self.rope_theta) {
            return Err(invalid("rope_theta must lie in 1e2 to 1e8."));
        }
        let ids = self.eos_token_ids.iter().chain(&self.bos_token_id);
        check_ids(ids, self.eos_token_ids.len(), self.vocab_size)
    }
}

/// Ids within the vocabulary, at most 16 of them.
pub(super) fn check_ids<'a>(
    mut ids: impl Iterator<Item = &'a u32>,
    count: usize,
    vocab_size: u64,
) -> Result<(), Rejection> {
    if count > 16 {
        return Err(invalid(format!(
            "{count} end-of-text ids; 16 are accepted."
        )));
    }
    match ids.find(|id| u64::from(**id) >= vocab_size) {
        Some(id) => Err(invalid(format!("Token id {id} is outside the vocabulary."))),
        None => Ok(()),
    }
}

fn invalid(detail: impl std::fmt::Display) -> Rejection {
    reject(
        RejectionCode::ConfigInvalid,
        format!("config.json: {detail}"),
    )
}

fn refuse_forbidden(keys: &Map<String, Value>) -> Result<(), Rejection> {
    let set = |key: &str| {
        keys.get(key)
            .is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)))
    };
    if let Some(key) = FORBIDDEN.iter().find(|key| set(key)) {
        return Err(invalid(format!("The key {key} is not accepted.")));
    }
    let foreign = |(key, value): &(&String, &Value)| {
        let name = value.as_str();
        key.starts_with("_attn_implementation") && name.is_some_and(|n| !ATTENTION.contains(&n))
    };
    match keys.iter().find(foreign) {
        Some((key, value)) => Err(invalid(format!(
            "{key:?} names {value}, not an own implementation."
        ))),
        None => Ok(()),
    }
}

fn accepted_architecture(raw: &Raw, era: &Era) -> Result<Architecture, Rejection> {
    let known = match &raw.architectures[..] {
        [one] => Architecture::from_name(one),
        _ => None,
    };
    let accepted = known.filter(|a| era.admission.architectures.contains(a));
    let Some(architecture) = accepted else {
        let names: Vec<_> = raw.architectures.iter().take(4).collect();
        let detail = format!("config.json: The era does not accept the architectures {names:?}.");
        return Err(reject(RejectionCode::ArchitectureUnknown, detail));
    };
    if raw.model_type != architecture.model_type() {
        let detail = format!(
            "model_type {:?} does not belong to {architecture}.",
            raw.model_type
        );
        return Err(invalid(detail));
    }
    Ok(architecture)
}

/// Features that the checked values cannot express: dropping them would score another model.
fn refuse_features(raw: &Raw) -> Result<(), Rejection> {
    let ropes = || raw.rope_parameters.iter().chain(&raw.rope_scaling);
    let scaled = |r: &RopeParameters| r.rope_type.as_deref().is_some_and(|t| t != "default");
    let partial = |factor: Option<f64>| factor.is_some_and(|f| f != 1.0);
    let windowed = |layers: &Vec<String>| layers.iter().any(|l| l != "full_attention");
    let demanded = [
        (ropes().any(scaled), "scaled rotary embeddings"),
        (
            partial(raw.partial_rotary_factor) || ropes().any(|r| partial(r.partial_rotary_factor)),
            "partial rotary embeddings",
        ),
        (
            raw.hidden_act.as_ref().is_some_and(|act| act != "silu"),
            "an activation other than silu",
        ),
        (raw.attention_bias == Some(true), "attention_bias"),
        (raw.mlp_bias == Some(true), "mlp_bias"),
        (
            raw.use_sliding_window == Some(true) || raw.layer_types.as_ref().is_some_and(windowed),
            "sliding windows",
        ),
    ];
    match demanded.iter().find(|(is_set, _)| *is_set) {
        Some((_, feature)) => Err(invalid(format!("It demands {feature}, not accepted yet."))),
        None => Ok(()),
    }
}

fn build(raw: Raw, architecture: Architecture) -> Result<ModelConfig, Rejection> {
    let mut thetas: Vec<f64> = [raw.rope_theta]
        .into_iter()
        .chain(
            raw.rope_parameters
                .iter()
                .chain(&raw.rope_scaling)
                .map(|r| r.rope_theta),
        )
        .flatten()
        .collect();
    thetas.dedup();
    if thetas.len() > 1 {
        return Err(invalid("It states two different values of rope_theta."));
    }
    let head_dim = raw
        .head_dim
        .or_else(|| raw.hidden_size.checked_div(raw.num_attention_heads));
    Ok(ModelConfig {
        architecture,
        hidden_size: raw.hidden_size,
        intermediate_size: raw.intermediate_size,
        num_hidden_layers: raw.num_hidden_layers,
        num_attention_heads: raw.num_attention_heads,
        num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
        head_dim: head_dim.unwrap_or(0),
        vocab_size: raw.vocab_size,
        max_position_embeddings: raw.max_position_embeddings,
        rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        rope_theta: thetas.first().copied().unwrap_or(10_000.0),
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        dtype: raw.dtype,
        eos_token_ids: raw.eos_token_id.map(TokenIds::into_vec).unwrap_or_default(),
        bos_token_id: raw.bos_token_id,
    })
}

#[cfg(test)]
mod tests;
