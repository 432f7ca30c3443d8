//! Forward pass of Llama and Qwen2 in f32.
//!
//! Every operation used here has a gradient, so the very same pass trains the sample model.

use crate::config::ModelConfig;
use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{silu, softmax};
use std::collections::HashMap;

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    weights: HashMap<String, Tensor>,
}

/// Keys and values of the positions already seen, by layer.
#[derive(Debug, Default)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    positions: usize,
}

impl Cache {
    /// Positions already seen.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// Rotation angles and mask of one forward call, shared by all layers.
struct Positions {
    cos: Tensor,
    sin: Tensor,
    mask: Option<Tensor>,
}

impl Model {
    /// Takes the f32 tensors that [`ModelConfig::tensors`] lists, in their shapes; the caller has
    /// checked both.
    #[must_use]
    pub fn new(config: ModelConfig, weights: HashMap<String, Tensor>) -> Self {
        Self { config, weights }
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The loaded tensor of that name, as the forward pass uses it.
    #[must_use]
    pub fn weight(&self, name: &str) -> Option<&Tensor> {
        self.weights.get(name)
    }

    /// Feeds `ids` (batch × tokens, u32), which continue what `cache` holds, and returns the
    /// logits of the last `keep` positions (batch × keep × vocabulary).
    ///
    /// # Errors
    /// When an id is outside the vocabulary or candle fails.
    pub fn forward(&self, ids: &Tensor, cache: &mut Cache, keep: usize) -> Result<Tensor> {
        let (_, tokens) = ids.dims2()?;
        let positions = self.positions(tokens, cache.positions)?;
        let embedding = self.get("model.embed_tokens.weight")?;
        let flat = embedding.index_select(&ids.flatten_all()?, 0)?;
        let mut hidden = flat.reshape((ids.dim(0)?, tokens, self.config.hidden_size))?;
        for layer in 0..self.config.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&hidden, &name("input_layernorm"))?;
            let attended = self.attention(&normed, layer, &positions, cache)?;
            hidden = (hidden + attended)?;
            let normed = self.norm(&hidden, &name("post_attention_layernorm"))?;
            let gate = silu(&self.linear(&normed, &name("mlp.gate_proj"))?)?;
            let up = self.linear(&normed, &name("mlp.up_proj"))?;
            hidden = (hidden + self.linear(&(gate * up)?, &name("mlp.down_proj"))?)?;
        }
        cache.positions += tokens;
        let last = hidden.narrow(1, tokens - keep, keep)?;
        let head = if self.config.tied {
            embedding
        } else {
            self.get("lm_head.weight")?
        };
        multiply(&self.norm(&last, "model.norm")?, head)
    }

    fn attention(
        &self,
        input: &Tensor,
        layer: usize,
        at: &Positions,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let ModelConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        let (batch, tokens, _) = input.dims3()?;
        let project = |part: &str, count: usize| {
            self.linear(
                input,
                &format!("model.layers.{layer}.self_attn.{part}_proj"),
            )?
            .reshape((batch, tokens, count, head_dim))?
            .transpose(1, 2)?
            .contiguous()
        };
        let query = rotate(&project("q", heads)?, at)?;
        let key = rotate(&project("k", kv_heads)?, at)?;
        let value = project("v", kv_heads)?;
        let (key, value) = extend(cache, layer, key, value)?;

        // The query heads of one group share keys, so they stand as rows of one matrix.
        let rows = heads / kv_heads * tokens;
        let query = (query * (1.0 / root(head_dim)))?;
        let scores = query
            .reshape((batch, kv_heads, rows, head_dim))?
            .matmul(&key.transpose(2, 3)?)?
            .reshape((batch, heads, tokens, key.dim(2)?))?;
        let scores = match &at.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let shares = softmax(&scores, D::Minus1)?.reshape((batch, kv_heads, rows, key.dim(2)?))?;
        let mixed = shares
            .matmul(&value)?
            .reshape((batch, heads, tokens, head_dim))?
            .transpose(1, 2)?
            .reshape((batch, tokens, heads * head_dim))?;
        self.linear(&mixed, &format!("model.layers.{layer}.self_attn.o_proj"))
    }

    fn positions(&self, tokens: usize, past: usize) -> Result<Positions> {
        let half = self.config.head_dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in past..past + tokens {
            for i in 0..half {
                let (sine, cosine) = self.angle(position, i).sin_cos();
                cos.push(narrow(cosine));
                sin.push(narrow(sine));
            }
        }
        let mask = (tokens > 1).then(|| {
            let row = |query: usize| {
                (0..past + tokens).map(move |key| {
                    if key > past + query {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                })
            };
            let values: Vec<f32> = (0..tokens).flat_map(row).collect();
            Tensor::from_vec(values, (tokens, past + tokens), &Device::Cpu)
        });
        Ok(Positions {
            cos: Tensor::from_vec(cos, (tokens, half), &Device::Cpu)?,
            sin: Tensor::from_vec(sin, (tokens, half), &Device::Cpu)?,
            mask: mask.transpose()?,
        })
    }

    fn angle(&self, position: usize, i: usize) -> f64 {
        let exponent = exact(2 * i) / exact(self.config.head_dim);
        exact(position) / self.config.rope_theta.powf(exponent)
    }

    fn norm(&self, input: &Tensor, name: &str) -> Result<Tensor> {
        let mean = input.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (mean + self.config.rms_eps)?.sqrt()?;
        input
            .broadcast_div(&scale)?
            .broadcast_mul(self.get(&format!("{name}.weight"))?)
    }

    fn linear(&self, input: &Tensor, name: &str) -> Result<Tensor> {
        let product = multiply(input, self.get(&format!("{name}.weight"))?)?;
        match self.weights.get(&format!("{name}.bias")) {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.weights
            .get(name)
            .ok_or_else(|| candle_core::Error::msg(format!("there is no tensor {name}")))
    }
}

/// `input` (batch × tokens × in) times the transpose of `weight` (out × in).
fn multiply(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (batch, tokens, width) = input.dims3()?;
    input
        .reshape((batch * tokens, width))?
        .matmul(&weight.t()?)?
        .reshape((batch, tokens, weight.dim(0)?))
}

/// Rotary embedding; the first half of a head is paired with the second.
fn rotate(input: &Tensor, at: &Positions) -> Result<Tensor> {
    let half = input.dim(D::Minus1)? / 2;
    let first = input.narrow(D::Minus1, 0, half)?;
    let second = input.narrow(D::Minus1, half, half)?;
    let left = (first.broadcast_mul(&at.cos)? - second.broadcast_mul(&at.sin)?)?;
    let right = (second.broadcast_mul(&at.cos)? + first.broadcast_mul(&at.sin)?)?;
    Tensor::cat(&[left, right], D::Minus1)
}

/// Appends to the cache and returns everything that layer has seen.
fn extend(cache: &mut Cache, layer: usize, key: Tensor, value: Tensor) -> Result<(Tensor, Tensor)> {
    let Some(slot) = cache.layers.get_mut(layer) else {
        cache.layers.push((key.clone(), value.clone()));
        return Ok((key, value));
    };
    *slot = (
        Tensor::cat(&[&slot.0, &key], 2)?,
        Tensor::cat(&[&slot.1, &value], 2)?,
    );
    Ok(slot.clone())
}

fn root(n: usize) -> f64 {
    exact(n).sqrt()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "positions and widths are far below 2^53"
)]
fn exact(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
fn narrow(x: f64) -> f32 {
    x as f32
}
