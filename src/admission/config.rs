//! `config.json` by an allow-list: what is known is checked, what is dangerous or would change the
//! model is refused, the rest is dropped by writing the file anew.

use super::{json, reject};
use crate::incentive::eligibility::CONFIG_BYTES_MAX;
use crate::incentive::{Architecture, Era, Rejection, RejectionCode};
use gemma::Gemma;
use raw::Raw;
use rope::Rope;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) mod gemma;
mod raw;
pub(super) mod rope;

/// Keys that load code, other repositories or other models, or change the weights' meaning.
const FORBIDDEN: [&str; 11] = [
    "auto_map",
    "model_file",
    "quantization_config",
    "compression_config",
    "custom_pipelines",
    "trust_remote_code",
    "vision_config",
    "text_config",
    "audio_config",
    "torchscript",
    "pruned_heads",
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

/// A decoder-only model. Every number lies in the range that its check states, heads and
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
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Element type that the miner names, if any.
    pub dtype: Option<ModelDtype>,
    /// End-of-text ids, within the vocabulary.
    pub eos_token_ids: Vec<u32>,
    /// Begin-of-text id, within the vocabulary.
    pub bos_token_id: Option<u32>,
    /// What the Gemma family has besides; there for that family only.
    pub gemma: Option<Gemma>,
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
        refuse_features(&raw, architecture, era)?;
        let config = build(raw, architecture)?;
        config.check_ranges(era)?;
        Ok(config)
    }

    /// `config.json` as it is mounted: the checked values and nothing else of the miner's.
    #[must_use]
    pub fn rewrite(&self, eos_ids: &[u32]) -> Vec<u8> {
        let layers = 0..self.num_hidden_layers;
        let mut value = serde_json::json!({
            "architectures": [self.architecture.as_str()],
            "model_type": self.architecture.model_type(),
            "hidden_act": activation(self.architecture),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta,
            "rope_parameters": self.rope.to_json(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": false,
            "mlp_bias": false,
            "use_sliding_window": false,
            "sliding_window": null,
            "layer_types": layers.map(|i| layer_type(self.architecture, i)).collect::<Vec<_>>(),
            "eos_token_id": eos_ids,
            "bos_token_id": self.bos_token_id,
        });
        if let Some(gemma) = &self.gemma {
            value["hidden_activation"] = value["hidden_act"].clone();
            gemma.write(&mut value);
        }
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
        let tokens = sequence_tokens(era);
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

/// Older libraries write an empty table of pruned heads into every file.
fn no_heads(key: &str, value: &Value) -> bool {
    key == "pruned_heads" && value.as_object().is_some_and(Map::is_empty)
}

/// Longest sequence that a job of the era makes.
fn sequence_tokens(era: &Era) -> u64 {
    u64::from(era.scoring.max_prompt_tokens) + u64::from(era.scoring.max_tokens)
}

fn activation(architecture: Architecture) -> &'static str {
    match architecture.is_gemma() {
        true => "gelu_pytorch_tanh",
        false => "silu",
    }
}

fn layer_type(architecture: Architecture, index: u64) -> &'static str {
    match architecture.is_windowed(index) {
        true => "sliding_attention",
        false => "full_attention",
    }
}

fn refuse_forbidden(keys: &Map<String, Value>) -> Result<(), Rejection> {
    let set = |key: &str| {
        keys.get(key)
            .is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)) && !no_heads(key, v))
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
fn refuse_features(raw: &Raw, architecture: Architecture, era: &Era) -> Result<(), Rejection> {
    let (full, windowed) = raw.ropes();
    let partial = |factor: Option<f64>| factor.is_some_and(|f| f != 1.0);
    let mut ropes = full.iter().chain(&windowed);
    let other = |act: &Option<String>| act.as_ref().is_some_and(|a| a != activation(architecture));
    // A window that is longer than any sequence changes nothing.
    let bites = !architecture.is_gemma()
        && raw.use_sliding_window != Some(false)
        && raw.sliding_window.is_some_and(|w| w < sequence_tokens(era));
    let types = raw.layer_types.as_deref().unwrap_or_default();
    let mut typed = (0u64..).zip(types);
    let demanded = [
        (
            partial(raw.partial_rotary_factor) || ropes.any(|r| partial(r.partial_rotary_factor)),
            "partial rotary embeddings",
        ),
        (
            other(&raw.hidden_act) || other(&raw.hidden_activation),
            "an activation other than the architecture's",
        ),
        (raw.attention_bias == Some(true), "attention_bias"),
        (raw.mlp_bias == Some(true), "mlp_bias"),
        (
            raw.use_bidirectional_attention == Some(true),
            "attention in both directions",
        ),
        (
            raw.use_sliding_window == Some(true)
                || bites
                || typed.any(|(i, t)| t != layer_type(architecture, i)),
            "sliding windows that the architecture does not have or the era's prompts exceed",
        ),
        (
            !windowed.is_empty() && architecture != Architecture::Gemma3,
            "rotary embeddings for each kind of layer",
        ),
    ];
    match demanded.iter().find(|(is_set, _)| *is_set) {
        Some((_, feature)) => Err(invalid(format!("It demands {feature}, not accepted."))),
        None => Ok(()),
    }
}

fn build(raw: Raw, architecture: Architecture) -> Result<ModelConfig, Rejection> {
    let missing = |key: &str| invalid(format!("{key} is missing."));
    let own_width = architecture.is_gemma() || architecture == Architecture::Qwen3;
    let head_dim = match raw.head_dim {
        None if own_width => return Err(missing("head_dim")),
        None => raw.hidden_size.checked_div(raw.num_attention_heads),
        given => given,
    };
    let kv_heads = match raw.num_key_value_heads {
        None if architecture != Architecture::Llama => {
            return Err(missing("num_key_value_heads"));
        }
        given => given.unwrap_or(raw.num_attention_heads),
    };
    let gemma = match architecture.is_gemma() {
        true => Some(Gemma::read(&raw, architecture)?),
        false => None,
    };
    Ok(ModelConfig {
        architecture,
        rope: Rope::read(&raw, architecture)?,
        gemma,
        hidden_size: raw.hidden_size,
        intermediate_size: raw.intermediate_size,
        num_hidden_layers: raw.num_hidden_layers,
        num_attention_heads: raw.num_attention_heads,
        num_key_value_heads: kv_heads,
        head_dim: head_dim.unwrap_or(0),
        vocab_size: raw.vocab_size,
        max_position_embeddings: raw.max_position_embeddings,
        rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(architecture.is_gemma()),
        dtype: raw.dtype,
        eos_token_ids: raw.eos_token_id.map(TokenIds::into_vec).unwrap_or_default(),
        bos_token_id: raw.bos_token_id,
    })
}

#[cfg(test)]
mod tests;
