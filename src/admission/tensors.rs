//! The tensors that a configuration demands, no more and no fewer.

use super::config::ModelConfig;
use super::header::Header;
use super::reject;
use crate::incentive::{Architecture, Rejection, RejectionCode};
use std::collections::BTreeMap;

/// Names and shapes of every tensor of the model. A tied output head has no tensor of its own: it
/// would be dead weight that makes a copy look different.
pub(super) fn expected(config: &ModelConfig) -> BTreeMap<String, Vec<u64>> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let query = config.num_attention_heads * config.head_dim;
    let key = config.num_key_value_heads * config.head_dim;
    let mut all = BTreeMap::new();
    all.insert(
        "model.embed_tokens.weight".to_owned(),
        vec![config.vocab_size, hidden],
    );
    all.insert("model.norm.weight".to_owned(), vec![hidden]);
    if !config.tie_word_embeddings {
        all.insert("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]);
    }
    for layer in 0..config.num_hidden_layers {
        let mut add = |part: &str, shape: Vec<u64>| {
            all.insert(format!("model.layers.{layer}.{part}"), shape);
        };
        add("input_layernorm.weight", vec![hidden]);
        add("post_attention_layernorm.weight", vec![hidden]);
        add("self_attn.q_proj.weight", vec![query, hidden]);
        add("self_attn.k_proj.weight", vec![key, hidden]);
        add("self_attn.v_proj.weight", vec![key, hidden]);
        add("self_attn.o_proj.weight", vec![hidden, query]);
        if config.architecture == Architecture::Qwen2 {
            add("self_attn.q_proj.bias", vec![query]);
            add("self_attn.k_proj.bias", vec![key]);
            add("self_attn.v_proj.bias", vec![key]);
        }
        if config.architecture.norms_heads() {
            add("self_attn.q_norm.weight", vec![config.head_dim]);
            add("self_attn.k_norm.weight", vec![config.head_dim]);
        }
        if config.architecture.is_gemma() {
            add("pre_feedforward_layernorm.weight", vec![hidden]);
            add("post_feedforward_layernorm.weight", vec![hidden]);
        }
        add("mlp.gate_proj.weight", vec![inner, hidden]);
        add("mlp.up_proj.weight", vec![inner, hidden]);
        add("mlp.down_proj.weight", vec![hidden, inner]);
    }
    all
}

/// Compares what the files hold with what the configuration demands.
pub(super) fn check(config: &ModelConfig, headers: &[(String, Header)]) -> Result<(), Rejection> {
    let bad = |detail: String| Err(reject(RejectionCode::TensorSet, detail));
    let mut missing = expected(config);
    for (file, header) in headers {
        for tensor in &header.tensors {
            let name = &tensor.name;
            let Some(shape) = missing.remove(name) else {
                let detail =
                    format!("{file} holds {name:?}, which config.json does not demand, or twice.");
                return bad(detail);
            };
            if shape != tensor.shape {
                let found = &tensor.shape;
                return bad(format!(
                    "{name} has shape {found:?}, config.json demands {shape:?}."
                ));
            }
        }
    }
    match missing.first_key_value() {
        Some((name, _)) => bad(format!(
            "{} tensors are missing, such as {name}.",
            missing.len()
        )),
        None => Ok(()),
    }
}
