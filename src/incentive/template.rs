//! Names of the chat templates that a submission may choose from.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A named chat template. The node renders prompts itself; a model's own template is never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// Vicuna 1.1.
    Vicuna,
    /// `ChatML`.
    ChatMl,
    /// Zephyr.
    Zephyr,
    /// Mistral instruct.
    Mistral,
    /// Alpaca.
    Alpaca,
    /// Llama 2 chat.
    Llama2,
    /// Llama 3 instruct.
    Llama3,
    /// Llama 3.1 instruct.
    Llama3dot1,
    /// Gemma 2 instruct.
    Gemma2,
    /// Qwen 2.5 instruct.
    Qwen2dot5,
}

impl Template {
    /// Every name that a commitment may carry.
    pub const ALL: &'static [Self] = &[
        Self::Vicuna,
        Self::ChatMl,
        Self::Zephyr,
        Self::Mistral,
        Self::Alpaca,
        Self::Llama2,
        Self::Llama3,
        Self::Llama3dot1,
        Self::Gemma2,
        Self::Qwen2dot5,
    ];

    /// The name as committed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vicuna => "vicuna",
            Self::ChatMl => "chatml",
            Self::Zephyr => "zephyr",
            Self::Mistral => "mistral",
            Self::Alpaca => "alpaca",
            Self::Llama2 => "llama2",
            Self::Llama3 => "llama3",
            Self::Llama3dot1 => "llama3dot1",
            Self::Gemma2 => "gemma2",
            Self::Qwen2dot5 => "qwen2dot5",
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text names no template; says which names exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no chat template; known are vicuna, chatml, zephyr, mistral, alpaca, llama2, llama3, llama3dot1, gemma2 and qwen2dot5"
)]
pub struct TemplateError(String);

impl std::str::FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|t| t.as_str() == text);
        known
            .copied()
            .ok_or_else(|| TemplateError(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_in_every_form() {
        for template in Template::ALL {
            assert_eq!(template.as_str().parse(), Ok(*template));
            let json = serde_json::to_string(template).unwrap();
            assert_eq!(json, format!("\"{template}\""));
        }
        assert!("ChatML".parse::<Template>().is_err());
    }
}
