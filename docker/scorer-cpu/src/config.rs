//! `config.json`: the shape of the model.

use crate::failure::{Failure, OrFailure};
use assay_protocol::ResultCode;
use serde::Deserialize;

/// A supported architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
    /// `Qwen2ForCausalLM`: as Llama, with biases on query, key and value.
    Qwen2,
}

/// The numbers that a forward pass needs; every one checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which architecture.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Longest sequence in tokens that the model was made for.
    pub max_positions: usize,
}

/// The keys of `config.json` that matter, with the defaults of the reference implementation.
/// Keys that are absent here change nothing about inference.
#[derive(Deserialize)]
struct Raw {
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
}

#[derive(Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl ModelConfig {
    /// Reads `config.json` of a model that the job says is an `architecture`.
    ///
    /// # Errors
    /// `E_FORMAT` when it is not JSON of the right types, `E_ARCH` when the architecture is not
    /// supported or not the job's, `E_CONFIG` when a number is out of range or a feature is
    /// demanded that this scorer does not have.
    pub fn parse(json: &[u8], architecture: &str) -> Result<Self, Failure> {
        let raw: Raw =
            serde_json::from_slice(json).or_failure(ResultCode::Format, "config.json")?;
        let supported = match architecture {
            "LlamaForCausalLM" => Architecture::Llama,
            "Qwen2ForCausalLM" => Architecture::Qwen2,
            other => {
                let message = format!("architecture {other:?} is not supported");
                return Err(Failure::new(ResultCode::Arch, message));
            }
        };
        if raw.architectures != [architecture] {
            let message = format!(
                "config.json says {:?}, the job says {architecture:?}",
                raw.architectures
            );
            return Err(Failure::new(ResultCode::Arch, message));
        }
        raw.refuse_features()?;
        raw.checked(supported)
    }

    /// Every tensor that a model of this shape consists of, in no special order.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut all = vec![
            (
                "model.embed_tokens.weight".to_owned(),
                vec![self.vocab_size, hidden],
            ),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        if !self.tied {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        for layer in 0..self.layers {
            let mut add = |part: &str, shape: Vec<usize>| {
                all.push((format!("model.layers.{layer}.{part}"), shape));
            };
            add("input_layernorm.weight", vec![hidden]);
            add("post_attention_layernorm.weight", vec![hidden]);
            for (name, width) in [("q", q), ("k", kv), ("v", kv)] {
                add(
                    &format!("self_attn.{name}_proj.weight"),
                    vec![width, hidden],
                );
                if self.architecture == Architecture::Qwen2 {
                    add(&format!("self_attn.{name}_proj.bias"), vec![width]);
                }
            }
            add("self_attn.o_proj.weight", vec![hidden, q]);
            add("mlp.gate_proj.weight", vec![inner, hidden]);
            add("mlp.up_proj.weight", vec![inner, hidden]);
            add("mlp.down_proj.weight", vec![hidden, inner]);
        }
        all
    }
}

impl Raw {
    fn refuse_features(&self) -> Result<(), Failure> {
        let rope_type = self
            .rope_parameters
            .as_ref()
            .and_then(|r| r.rope_type.as_deref());
        let demanded = [
            (
                self.rope_scaling.as_ref().is_some_and(|v| !v.is_null()),
                "rope_scaling",
            ),
            (
                rope_type.is_some_and(|kind| kind != "default"),
                "rope_parameters.rope_type",
            ),
            (
                self.hidden_act.as_deref().is_some_and(|act| act != "silu"),
                "hidden_act",
            ),
            (self.attention_bias, "attention_bias"),
            (self.mlp_bias, "mlp_bias"),
            (self.use_sliding_window, "use_sliding_window"),
        ];
        match demanded.iter().find(|(is_set, _)| *is_set) {
            None => Ok(()),
            Some((_, key)) => {
                let message = format!("config.json sets {key}, which this scorer cannot do");
                Err(Failure::new(ResultCode::Config, message))
            }
        }
    }

    fn checked(self, architecture: Architecture) -> Result<ModelConfig, Failure> {
        let heads = in_range("num_attention_heads", self.num_attention_heads, 1024)?;
        let hidden_size = in_range("hidden_size", self.hidden_size, 65_536)?;
        let head_dim = self.head_dim.unwrap_or(hidden_size / heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let rope_theta = self
            .rope_theta
            .or(self.rope_parameters.and_then(|r| r.rope_theta));
        let config = ModelConfig {
            architecture,
            vocab_size: in_range("vocab_size", self.vocab_size, 1 << 20)?,
            hidden_size,
            intermediate_size: in_range("intermediate_size", self.intermediate_size, 1 << 18)?,
            layers: in_range("num_hidden_layers", self.num_hidden_layers, 512)?,
            heads,
            kv_heads: in_range("num_key_value_heads", kv_heads, heads)?,
            head_dim: in_range("head_dim", head_dim, 1024)?,
            rms_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            tied: self.tie_word_embeddings,
            max_positions: in_range(
                "max_position_embeddings",
                self.max_position_embeddings.unwrap_or(2048),
                1 << 24,
            )?,
        };
        let problem = if !config.heads.is_multiple_of(config.kv_heads) {
            "num_key_value_heads does not divide num_attention_heads"
        } else if !config.head_dim.is_multiple_of(2) {
            "head_dim is odd"
        } else if !(config.rms_eps > 0.0 && config.rms_eps < 1.0) {
            "rms_norm_eps is not between 0 and 1"
        } else if !(config.rope_theta >= 1.0 && config.rope_theta <= 1e12) {
            "rope_theta is not between 1 and 1e12"
        } else {
            return Ok(config);
        };
        Err(Failure::new(
            ResultCode::Config,
            format!("config.json: {problem}"),
        ))
    }
}

fn in_range(key: &str, value: usize, max: usize) -> Result<usize, Failure> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    let message = format!("config.json: {key} is {value}, not between 1 and {max}");
    Err(Failure::new(ResultCode::Config, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn llama() -> Value {
        json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 96,
            "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "tie_word_embeddings": true, "hidden_act": "silu"})
    }

    fn code(change: impl FnOnce(&mut Value)) -> Option<ResultCode> {
        let mut config = llama();
        change(&mut config);
        ModelConfig::parse(config.to_string().as_bytes(), "LlamaForCausalLM")
            .err()
            .map(|f| f.code)
    }

    #[test]
    fn out_of_range_is_the_configs_fault() {
        assert_eq!(code(|_| ()), None);
        for (key, value) in [
            ("vocab_size", json!(0)),
            ("hidden_size", json!(1_000_000)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(7)),
            ("rms_norm_eps", json!(0)),
            ("rope_theta", json!(0.5)),
            ("rope_scaling", json!({"type": "linear", "factor": 2})),
            ("rope_parameters", json!({"rope_type": "yarn"})),
            ("hidden_act", json!("gelu")),
            ("attention_bias", json!(true)),
            ("max_position_embeddings", json!(0)),
        ] {
            assert_eq!(code(|c| c[key] = value), Some(ResultCode::Config), "{key}");
        }
        assert_eq!(
            code(|c| c["vocab_size"] = json!(-1)),
            Some(ResultCode::Format)
        );
        let other = json!(["Qwen2ForCausalLM"]);
        assert_eq!(code(|c| c["architectures"] = other), Some(ResultCode::Arch));
    }

    #[test]
    fn rope_theta_is_read_from_either_place() {
        let mut config = llama();
        config["rope_parameters"] = json!({"rope_theta": 5e5, "rope_type": "default"});
        let parsed = ModelConfig::parse(config.to_string().as_bytes(), "LlamaForCausalLM").unwrap();
        assert!((parsed.rope_theta - 5e5).abs() < 1e-9);
    }
}
