//! A tiny valid model as bytes, for tests to break in one place each.

use super::header::Dtype;
use crate::incentive::eligibility::{ModelFiles, RepoFile};
use serde_json::{Value, json};
use std::path::Path;

/// The era of the fixtures accepts Llama, `ChatML`, 6144 + 400 tokens.
pub(super) fn era() -> crate::incentive::Era {
    crate::incentive::era::tests::era(0, 100)
}

/// A Llama of one layer.
pub(super) fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 300,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "eos_token_id": 258,
        "transformers_version": "5.0.0",
    })
}

/// The characters that byte-level tokenizers write bytes 0 to 255 as.
fn byte_letters() -> impl Iterator<Item = char> {
    let plain = |b: &u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256u32;
    (0..=255u8).map(move |b| match plain(&b) {
        true => char::from(b),
        false => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    })
}

/// The 256 bytes, two tokens that nothing yields, and the markers of `ChatML`.
pub(super) fn tokenizer() -> Value {
    let bytes = byte_letters().map(String::from);
    let names = bytes.chain(["t256".to_owned(), "t257".to_owned()]);
    let vocab: serde_json::Map<_, _> = names.zip(0..).map(|(t, i)| (t, json!(i))).collect();
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(258, "<|im_end|>"), added(259, "<|im_start|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": []},
    })
}

/// One tensor to write.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) data: Vec<u8>,
}

/// A tensor of finite values that depend on its name.
pub(super) fn tensor(name: &str, shape: &[u64]) -> Tensor {
    let elements = usize::try_from(shape.iter().product::<u64>()).unwrap();
    let seed = name
        .bytes()
        .fold(7u16, |s, b| s.wrapping_mul(31).wrapping_add(b.into()));
    // Exponent 0x3f: values around 1.
    let value = |i: usize| 0x3f00 | (seed.wrapping_add(u16::try_from(i % 1000).unwrap()) & 0x7f);
    Tensor {
        name: name.to_owned(),
        dtype: Dtype::Bf16,
        shape: shape.to_vec(),
        data: (0..elements).flat_map(|i| value(i).to_le_bytes()).collect(),
    }
}

/// Every tensor of [`config`].
pub(super) fn tensors() -> Vec<Tensor> {
    let layer = |part: &str, shape: &[u64]| tensor(&format!("model.layers.0.{part}.weight"), shape);
    vec![
        tensor("model.embed_tokens.weight", &[300, 64]),
        tensor("model.norm.weight", &[64]),
        layer("input_layernorm", &[64]),
        layer("post_attention_layernorm", &[64]),
        layer("self_attn.q_proj", &[64, 64]),
        layer("self_attn.k_proj", &[32, 64]),
        layer("self_attn.v_proj", &[32, 64]),
        layer("self_attn.o_proj", &[64, 64]),
        layer("mlp.gate_proj", &[96, 64]),
        layer("mlp.up_proj", &[96, 64]),
        layer("mlp.down_proj", &[64, 96]),
    ]
}

/// A safetensors file of `tensors`, in their order.
pub(super) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.data);
        let entry = json!({"dtype": tensor.dtype.as_str(), "shape": tensor.shape,
            "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    file(&Value::Object(header).to_string(), &data)
}

/// A file of that header, padded to 8 bytes, and that data.
pub(super) fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut text = header.as_bytes().to_vec();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    file.extend(text);
    file.extend_from_slice(data);
    file
}

/// Writes a model and lists it as the hub would.
pub(super) fn write(folder: &Path, files: &[(&str, Vec<u8>)]) -> ModelFiles {
    let put = |name: &str| {
        let (_, content) = files.iter().find(|(n, _)| *n == name)?;
        std::fs::write(folder.join(name), content).unwrap();
        Some(RepoFile {
            path: name.to_owned(),
            size: u64::try_from(content.len()).unwrap(),
            sha256: None,
        })
    };
    let weights = files.iter().filter(|(n, _)| n.ends_with(".safetensors"));
    ModelFiles {
        config: put("config.json").unwrap(),
        tokenizer: put("tokenizer.json").unwrap(),
        generation_config: put("generation_config.json"),
        index: put("model.safetensors.index.json"),
        weights: weights.map(|(n, _)| put(n).unwrap()).collect(),
    }
}
