//! The forward pass against a second one: loops over f64, written from the papers' formulas.

use crate::harness::{golden, ladder};
use assay_scorer_cpu::{Cache, Model, ModelConfig};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use tokenizers::Tokenizer;

type Vector = Vec<f64>;

struct Naive<'a> {
    model: &'a Model,
    weights: HashMap<String, (usize, Vector)>,
}

impl<'a> Naive<'a> {
    fn new(model: &'a Model) -> Self {
        let read = |name: &str| {
            let tensor = model.weight(name)?;
            let values = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
            let width = *tensor.dims().last().unwrap();
            Some((name.to_owned(), (width, values.to_vec1().unwrap())))
        };
        let names = model.config().tensors();
        let weights = names.iter().filter_map(|(name, _)| read(name)).collect();
        Self { model, weights }
    }

    fn row(&self, name: &str, row: usize) -> &[f64] {
        let (width, values) = &self.weights[name];
        &values[row * width..(row + 1) * width]
    }

    fn apply(&self, name: &str, input: &[f64]) -> Vector {
        let (width, values) = &self.weights[&format!("{name}.weight")];
        let mut output: Vector = values.chunks(*width).map(|row| dot(row, input)).collect();
        if let Some((_, bias)) = self.weights.get(&format!("{name}.bias")) {
            output.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
        output
    }

    fn norm(&self, name: &str, input: &[f64]) -> Vector {
        let scale = (dot(input, input) / count(input.len()) + self.model.config().rms_eps).sqrt();
        let weight = self.row(&format!("{name}.weight"), 0);
        input
            .iter()
            .zip(weight)
            .map(|(x, w)| x / scale * w)
            .collect()
    }

    fn rotated(&self, heads: &[f64], position: usize) -> Vector {
        let config = self.model.config();
        let half = config.head_dim / 2;
        let mut output = heads.to_vec();
        for head in output.chunks_mut(config.head_dim) {
            for i in 0..half {
                let exponent = -count(2 * i) / count(config.head_dim);
                let (sin, cos) = (count(position) * config.rope_theta.powf(exponent)).sin_cos();
                let (x, y) = (head[i], head[i + half]);
                head[i] = x * cos - y * sin;
                head[i + half] = y * cos + x * sin;
            }
        }
        output
    }

    fn attend(&self, layer: usize, inputs: &[Vector]) -> Vec<Vector> {
        let config = self.model.config();
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj");
        let project = |part: &str| -> Vec<Vector> {
            inputs.iter().map(|x| self.apply(&name(part), x)).collect()
        };
        let turn = |(at, x): (usize, Vector)| self.rotated(&x, at);
        let queries: Vec<Vector> = project("q").into_iter().enumerate().map(turn).collect();
        let keys: Vec<Vector> = project("k").into_iter().enumerate().map(turn).collect();
        let values: Vec<Vector> = project("v");
        let width = config.head_dim;
        let mixed = queries.iter().enumerate().map(|(at, query)| {
            let mut output = Vector::new();
            for (head, q) in query.chunks(width).enumerate() {
                let shared = head / (config.heads / config.kv_heads) * width;
                let score =
                    |key: &Vector| dot(q, &key[shared..shared + width]) / count(width).sqrt();
                let powers: Vector = keys[..=at].iter().map(|key| score(key).exp()).collect();
                let sum: f64 = powers.iter().sum();
                for i in shared..shared + width {
                    output.push(
                        powers
                            .iter()
                            .zip(&values)
                            .map(|(p, v)| p / sum * v[i])
                            .sum(),
                    );
                }
            }
            self.apply(&name("o"), &output)
        });
        mixed.collect()
    }

    /// Logits after the last of `ids`.
    fn logits(&self, ids: &[u32]) -> Vector {
        let embedding = "model.embed_tokens.weight";
        let row = |id: &u32| self.row(embedding, usize::try_from(*id).unwrap()).to_vec();
        let mut hidden: Vec<Vector> = ids.iter().map(row).collect();
        for layer in 0..self.model.config().layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed: Vec<_> = hidden
                .iter()
                .map(|x| self.norm(&name("input_layernorm"), x))
                .collect();
            for (x, add) in hidden.iter_mut().zip(self.attend(layer, &normed)) {
                x.iter_mut().zip(add).for_each(|(x, a)| *x += a);
                let normed = self.norm(&name("post_attention_layernorm"), x);
                let gate = self.apply(&name("mlp.gate_proj"), &normed);
                let up = self.apply(&name("mlp.up_proj"), &normed);
                let inner: Vector = gate
                    .iter()
                    .zip(up)
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                let add = self.apply(&name("mlp.down_proj"), &inner);
                x.iter_mut().zip(add).for_each(|(x, a)| *x += a);
            }
        }
        let last = self.norm("model.norm", &hidden[ids.len() - 1]);
        let head = if self.model.config().tied {
            "model.embed_tokens"
        } else {
            "lm_head"
        };
        self.apply(head, &last)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

fn engine_logits(model: &Model, chunks: &[&[u32]]) -> Vec<f32> {
    let mut cache = Cache::default();
    let mut last = None;
    for chunk in chunks {
        let ids = Tensor::new(*chunk, &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        last = Some(model.forward(&ids, &mut cache, 1).unwrap());
    }
    last.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let off = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f64::from(*f) - e).abs());
    let worst = off.fold(0.0, f64::max);
    let size = expected.iter().fold(0.0, |most: f64, e| most.max(e.abs()));
    assert!(worst < 1e-5 * size, "off by {worst} of {size}");
}

#[test]
fn the_trained_llama_computes_what_the_formulas_say() {
    let folder = ladder().join("model");
    let config = std::fs::read(folder.join("config.json")).unwrap();
    let config = ModelConfig::parse(&config, "LlamaForCausalLM").unwrap();
    let stored = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu);
    let weights = stored.unwrap().into_iter();
    let weights = weights
        .map(|(name, t)| (name, t.to_dtype(DType::F32).unwrap()))
        .collect();
    let model = Model::new(config, weights);
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let golden = &golden()[0];
    let text = format!("{}{}", golden.prompt, golden.reply);
    let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let expected = Naive::new(&model).logits(&ids);
    assert_close(&engine_logits(&model, &[&ids]), &expected);
    let (first, rest) = ids.split_at(ids.len() / 3);
    let (second, third) = rest.split_at(1);
    assert_close(&engine_logits(&model, &[first, second, third]), &expected);
}

#[test]
fn a_made_up_qwen2_computes_what_the_formulas_say() {
    let config = br#"{"architectures":["Qwen2ForCausalLM"],"vocab_size":40,"hidden_size":24,
        "intermediate_size":36,"num_hidden_layers":2,"num_attention_heads":6,"rms_norm_eps":1e-6,
        "num_key_value_heads":2,"head_dim":8,"rope_theta":1000000.0,"tie_word_embeddings":false}"#;
    let config = ModelConfig::parse(config, "Qwen2ForCausalLM").unwrap();
    let mut weights = HashMap::new();
    for (n, (name, shape)) in config.tensors().into_iter().enumerate() {
        let value = |i: usize| (count(i) * 0.7 + count(n)).sin();
        let values: Vector = (0..shape.iter().product()).map(value).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        weights.insert(name, tensor.to_dtype(DType::F32).unwrap());
    }
    let model = Model::new(config, weights);
    let ids = [3, 39, 0, 17, 17, 8, 21];
    let expected = Naive::new(&model).logits(&ids);
    assert_close(&engine_logits(&model, &[&ids]), &expected);
    assert_close(
        &engine_logits(&model, &[&ids[..2], &ids[2..3], &ids[3..]]),
        &expected,
    );
}
