//! What the Gemma family has besides.

use super::invalid;
use super::raw::Raw;
use super::rope::one_theta;
use crate::incentive::{Architecture, Rejection};
use serde_json::{Value, json};

/// Parameters of Gemma 2 and 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemma {
    /// Queries are divided by its root; 1 to 16384.
    pub query_pre_attn_scalar: f64,
    /// Soft cap of attention scores, 1 to 1000.
    pub attention_cap: Option<f64>,
    /// Soft cap of the output's logits, 1 to 1000.
    pub output_cap: Option<f64>,
    /// Tokens that a windowed layer looks back over, 128 to 2^20.
    pub sliding_window: u64,
    /// Base of the rotary embedding of windowed layers, Gemma 3 only; 1e2 to 1e8.
    pub local_theta: Option<f64>,
}

impl Gemma {
    pub(super) fn read(raw: &Raw, architecture: Architecture) -> Result<Self, Rejection> {
        let second = architecture == Architecture::Gemma2;
        let gemma = Self {
            query_pre_attn_scalar: raw.query_pre_attn_scalar.unwrap_or(256.0),
            attention_cap: raw.attn_logit_softcapping.unwrap_or(second.then_some(50.0)),
            output_cap: raw
                .final_logit_softcapping
                .unwrap_or(second.then_some(30.0)),
            sliding_window: raw.sliding_window.unwrap_or(4096),
            local_theta: match second {
                true => None,
                false => Some(local_theta(raw)?),
            },
        };
        let caps = [gemma.attention_cap, gemma.output_cap];
        let capped = |cap: &f64| (1.0..=1000.0).contains(cap);
        if !caps.iter().flatten().all(capped) {
            return Err(invalid("A soft cap of logits must lie in 1 to 1000."));
        }
        if !(1.0..=16_384.0).contains(&gemma.query_pre_attn_scalar) {
            return Err(invalid("query_pre_attn_scalar must lie in 1 to 16384."));
        }
        if !(128..=1 << 20).contains(&gemma.sliding_window) {
            return Err(invalid("sliding_window must lie in 128 to 2^20."));
        }
        Ok(gemma)
    }

    /// Adds the keys of this family to a rewritten configuration.
    pub(super) fn write(&self, value: &mut Value) {
        value["query_pre_attn_scalar"] = json!(self.query_pre_attn_scalar);
        value["attn_logit_softcapping"] = json!(self.attention_cap);
        value["final_logit_softcapping"] = json!(self.output_cap);
        value["sliding_window"] = json!(self.sliding_window);
        value["use_bidirectional_attention"] = json!(false);
        if let Some(theta) = self.local_theta {
            value["rope_local_base_freq"] = json!(theta);
            value["rope_parameters"] = json!({
                "full_attention": value["rope_parameters"],
                "sliding_attention": {"rope_type": "default", "rope_theta": theta},
            });
        }
    }
}

fn local_theta(raw: &Raw) -> Result<f64, Rejection> {
    let (_, windowed) = raw.ropes();
    let scaled = |kind: &str| kind != "default";
    if windowed
        .iter()
        .any(|r| r.rope_type.as_deref().is_some_and(scaled))
    {
        return Err(invalid(
            "It scales the rotary embedding of windowed layers.",
        ));
    }
    let stated = raw
        .rope_local_base_freq
        .into_iter()
        .chain(windowed.iter().filter_map(|r| r.rope_theta));
    Ok(one_theta(stated)?.unwrap_or(10_000.0))
}
