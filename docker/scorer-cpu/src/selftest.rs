//! Does the engine still compute what it computed when it was written?

use crate::config::ModelConfig;
use crate::failure::{Failure, OrFailure};
use crate::model::{Cache, Model};
use assay_protocol::ResultCode;
use candle_core::{Device, Tensor};
use std::collections::HashMap;

const IDS: [u32; 5] = [1, 7, 3, 9, 4];
/// Logits of ids 0..4 after [`IDS`], from transformers 5 in f64.
const EXPECTED: [f32; 4] = [-0.110_782_8, 0.135_986_28, 0.057_849_53, 0.169_256_32];
const TOLERANCE: f32 = 1e-4;

/// A made-up model of 2 layers must give known logits, at once and token by token.
///
/// # Errors
/// `I_SELFTEST` when it does not.
pub fn selftest() -> Result<(), Failure> {
    let model = sample_model()?;
    let at_once = logits(&model, &[&IDS])?;
    let singles: Vec<&[u32]> = IDS.chunks(1).collect();
    for found in [at_once, logits(&model, &singles)?] {
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < TOLERANCE;
        if !found.iter().zip(&EXPECTED).all(near) {
            let message = format!("logits are {:?}, expected {EXPECTED:?}", &found[..4]);
            return Err(Failure::new(ResultCode::Selftest, message));
        }
    }
    Ok(())
}

fn logits(model: &Model, chunks: &[&[u32]]) -> Result<Vec<f32>, Failure> {
    let mut cache = Cache::default();
    let mut last = Vec::new();
    for chunk in chunks {
        last = Tensor::new(*chunk, &Device::Cpu)
            .and_then(|ids| {
                model
                    .forward(&ids.unsqueeze(0)?, &mut cache, 1)?
                    .flatten_all()?
                    .to_vec1()
            })
            .or_failure(ResultCode::Selftest, "a forward pass")?;
    }
    Ok(last)
}

fn sample_model() -> Result<Model, Failure> {
    let config = br#"{"architectures":["Qwen2ForCausalLM"],"vocab_size":16,"hidden_size":8,
        "intermediate_size":12,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"tie_word_embeddings":false}"#;
    let config = ModelConfig::parse(config, "Qwen2ForCausalLM")?;
    let mut weights = HashMap::new();
    for (name, shape) in config.tensors() {
        let values = values(&name, shape.iter().product());
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)
            .or_failure(ResultCode::Selftest, "a tensor")?;
        weights.insert(name, tensor);
    }
    Ok(Model::new(config, weights))
}

/// Numbers in -0.5..0.5 that depend on the name and the position only.
fn values(name: &str, count: usize) -> Vec<f32> {
    let mut state = name
        .bytes()
        .fold(7u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let high = u16::try_from(state >> 16).unwrap_or(0);
        f32::from(high) / 65_536.0 - 0.5
    };
    (0..count).map(|_| next()).collect()
}
