//! Model architectures that an era can accept.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The one entry of `architectures` in a model's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// Llama 2 and 3.
    #[serde(rename = "LlamaForCausalLM")]
    Llama,
    /// Mistral: Llama, with a sliding window that must not bite.
    #[serde(rename = "MistralForCausalLM")]
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on query, key and value.
    #[serde(rename = "Qwen2ForCausalLM")]
    Qwen2,
    /// Qwen 3, dense: Llama with norms on query and key.
    #[serde(rename = "Qwen3ForCausalLM")]
    Qwen3,
    /// Gemma 2: norms before and after each part, soft caps, every second layer with a window.
    #[serde(rename = "Gemma2ForCausalLM")]
    Gemma2,
    /// Gemma 3, text only: norms on query and key besides, five of six layers with a window.
    #[serde(rename = "Gemma3ForCausalLM")]
    Gemma3,
}

impl Architecture {
    /// Every architecture that admission can check.
    pub const ALL: &'static [Self] = &[
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
    ];

    /// The name in `architectures`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// The value of `model_type` that belongs to it.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// Whether it is of the Gemma family.
    #[must_use]
    pub fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Whether query and key have a norm over the width of a head.
    #[must_use]
    pub fn norms_heads(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    /// Whether layer `index`, counted from 0, looks back over a window only.
    #[must_use]
    pub fn is_windowed(self, index: u64) -> bool {
        match self {
            Self::Gemma2 => index.is_multiple_of(2),
            Self::Gemma3 => !(index + 1).is_multiple_of(6),
            _ => false,
        }
    }

    /// The architecture of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.as_str() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
