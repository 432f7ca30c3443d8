//! Model architectures that an era can accept.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The one entry of `architectures` in a model's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// Llama 2 and 3.
    #[serde(rename = "LlamaForCausalLM")]
    Llama,
    /// Qwen 2 and 2.5: Llama with biases on query, key and value.
    #[serde(rename = "Qwen2ForCausalLM")]
    Qwen2,
}

impl Architecture {
    /// Every architecture that admission can check.
    pub const ALL: &'static [Self] = &[Self::Llama, Self::Qwen2];

    /// The name in `architectures`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    /// The value of `model_type` that belongs to it.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
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
