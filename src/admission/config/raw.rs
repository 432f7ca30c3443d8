//! The keys of `config.json` that are read. Absent ones have the defaults of the published
//! implementations, where those have one for the architecture.

use super::{ModelDtype, TokenIds};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
pub(super) struct Raw {
    pub(super) architectures: Vec<String>,
    pub(super) model_type: String,
    pub(super) hidden_size: u64,
    pub(super) intermediate_size: u64,
    pub(super) num_hidden_layers: u64,
    pub(super) num_attention_heads: u64,
    pub(super) num_key_value_heads: Option<u64>,
    pub(super) head_dim: Option<u64>,
    pub(super) vocab_size: u64,
    pub(super) max_position_embeddings: u64,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_local_base_freq: Option<f64>,
    pub(super) rope_parameters: Option<RopeField>,
    pub(super) rope_scaling: Option<RopeField>,
    pub(super) tie_word_embeddings: Option<bool>,
    #[serde(alias = "torch_dtype")]
    pub(super) dtype: Option<ModelDtype>,
    pub(super) eos_token_id: Option<TokenIds>,
    pub(super) bos_token_id: Option<u32>,
    pub(super) hidden_act: Option<String>,
    pub(super) hidden_activation: Option<String>,
    pub(super) attention_bias: Option<bool>,
    pub(super) mlp_bias: Option<bool>,
    pub(super) use_sliding_window: Option<bool>,
    pub(super) sliding_window: Option<u64>,
    pub(super) partial_rotary_factor: Option<f64>,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) use_bidirectional_attention: Option<bool>,
    pub(super) query_pre_attn_scalar: Option<f64>,
    /// Null means no cap, and absent the architecture's default.
    #[serde(default, deserialize_with = "present")]
    pub(super) attn_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) final_logit_softcapping: Option<Option<f64>>,
}

/// One set of rotary parameters, or one for each kind of layer.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RopeField {
    Layered {
        full_attention: RopeParameters,
        sliding_attention: RopeParameters,
    },
    Flat(RopeParameters),
}

#[derive(Deserialize)]
pub(super) struct RopeParameters {
    pub(super) rope_theta: Option<f64>,
    #[serde(alias = "type")]
    pub(super) rope_type: Option<String>,
    pub(super) factor: Option<f64>,
    pub(super) low_freq_factor: Option<f64>,
    pub(super) high_freq_factor: Option<f64>,
    pub(super) original_max_position_embeddings: Option<u64>,
    pub(super) partial_rotary_factor: Option<f64>,
}

fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(d).map(Some)
}

impl Raw {
    /// The rotary parameters of layers that look back over everything, then those of windowed ones.
    pub(super) fn ropes(&self) -> (Vec<&RopeParameters>, Vec<&RopeParameters>) {
        let (mut full, mut windowed) = (Vec::new(), Vec::new());
        for field in self.rope_parameters.iter().chain(&self.rope_scaling) {
            match field {
                RopeField::Flat(rope) => full.push(rope),
                RopeField::Layered {
                    full_attention,
                    sliding_attention,
                } => {
                    full.push(full_attention);
                    windowed.push(sliding_attention);
                }
            }
        }
        (full, windowed)
    }
}
