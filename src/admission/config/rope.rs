//! Rotary embeddings: the base, and the stretching that an architecture may ask for.

use super::invalid;
use super::raw::{Raw, RopeParameters};
use crate::incentive::{Architecture, Rejection};
use serde_json::{Value, json};

/// Rotary embedding of the layers that look back over everything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base, 1e2 to 1e8.
    pub theta: f64,
    /// How positions are stretched.
    pub scaling: RopeScaling,
}

/// How rotary positions are stretched; the names are those of `rope_type`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// `linear`, Gemma 3: all frequencies divided by the factor, 1 to 64.
    Linear(f64),
    /// `llama3`, Llama 3.1 and later: low frequencies divided, high ones kept.
    Llama3 {
        /// 1 to 64.
        factor: f64,
        /// Above 0, below `high`.
        low: f64,
        /// At most 64.
        high: f64,
        /// Length of the first training, 512 to 2^20.
        original: u64,
    },
}

impl Rope {
    pub(super) fn read(raw: &Raw, architecture: Architecture) -> Result<Self, Rejection> {
        let (full, _) = raw.ropes();
        let stated = raw
            .rope_theta
            .into_iter()
            .chain(full.iter().filter_map(|r| r.rope_theta));
        let default = match architecture {
            Architecture::Gemma3 => 1_000_000.0,
            _ => 10_000.0,
        };
        let theta = one_theta(stated)?.unwrap_or(default);
        let mut scaling = RopeScaling::Default;
        for rope in &full {
            match RopeScaling::read(rope, architecture)? {
                RopeScaling::Default => {}
                other if scaling == RopeScaling::Default || scaling == other => scaling = other,
                _ => return Err(invalid("It states two different scalings of rope.")),
            }
        }
        Ok(Self { theta, scaling })
    }

    /// The parameters as the libraries read them.
    pub(super) fn to_json(self) -> Value {
        let theta = self.theta;
        match self.scaling {
            RopeScaling::Default => json!({"rope_type": "default", "rope_theta": theta}),
            RopeScaling::Linear(factor) => {
                json!({"rope_type": "linear", "rope_theta": theta, "factor": factor})
            }
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => json!({
                "rope_type": "llama3", "rope_theta": theta, "factor": factor,
                "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }),
        }
    }
}

impl RopeScaling {
    fn read(rope: &RopeParameters, architecture: Architecture) -> Result<Self, Rejection> {
        let kind = rope.rope_type.as_deref().unwrap_or("default");
        let scaling = match (kind, architecture, rope.factor) {
            ("default", ..) => Self::Default,
            ("linear", Architecture::Gemma3, Some(factor)) => Self::Linear(factor),
            ("llama3", Architecture::Llama, Some(factor)) => Self::Llama3 {
                factor,
                low: rope.low_freq_factor.unwrap_or(0.0),
                high: rope.high_freq_factor.unwrap_or(0.0),
                original: rope.original_max_position_embeddings.unwrap_or(0),
            },
            _ => {
                let shown: String = kind.chars().take(32).collect();
                return Err(invalid(format!(
                    "It demands rotary embeddings of type {shown:?}, not accepted for {architecture}."
                )));
            }
        };
        if scaling.in_range() {
            return Ok(scaling);
        }
        Err(invalid(format!(
            "The parameters of rope type {kind:?} are missing or out of range."
        )))
    }

    fn in_range(self) -> bool {
        let factors = 1.0..=64.0;
        match self {
            Self::Default => true,
            Self::Linear(factor) => factors.contains(&factor),
            Self::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                factors.contains(&factor)
                    && low > 0.0
                    && low < high
                    && high <= 64.0
                    && (512..=1 << 20).contains(&original)
            }
        }
    }
}

/// The one base that is stated, in however many places.
pub(super) fn one_theta(stated: impl Iterator<Item = f64>) -> Result<Option<f64>, Rejection> {
    let mut thetas: Vec<f64> = stated.collect();
    thetas.dedup();
    if thetas.len() > 1 {
        return Err(invalid("It states two different values of rope_theta."));
    }
    match thetas.first() {
        Some(theta) if !(1e2..=1e8).contains(theta) => {
            Err(invalid("rope_theta must lie in 1e2 to 1e8."))
        }
        theta => Ok(theta.copied()),
    }
}
