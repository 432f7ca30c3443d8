//! A large model of random numbers, for benchmarks.

use anyhow::Result;
use assay::incentive::Era;
use assay::incentive::eligibility::{ModelFiles, RepoFile};
use rand::{RngCore, SeedableRng};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

const TOKENIZER: &[u8] = include_bytes!("../../docker/scorer-cpu/ladder/model/tokenizer.json");
const HIDDEN: u64 = 2048;
const INNER: u64 = 8192;
const VOCAB: u64 = 512;

/// The files of its weights.
pub(super) const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// The processor's name.
pub(super) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("model name"));
    line.and_then(|l| l.split(": ").nth(1))
        .unwrap_or("unknown processor")
        .to_owned()
}

/// Rules that accept it.
pub(super) fn era() -> Result<Era> {
    let image = format!("sha256:{}", "0".repeat(64));
    Ok(serde_json::from_value(json!({
        "from_block": 0,
        "scoring": {"image": image, "judge": "none", "prompt_version": 1, "round_blocks": 100,
            "items": 2, "max_tokens": 400, "max_prompt_tokens": 6144},
        "admission": {"earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": ["LlamaForCausalLM"], "min_model_bytes": 0,
            "max_model_bytes": 1u64 << 40},
        "incentive": {"burn_share": 0.0, "ranking": {"rule": "win-rate"}},
    }))?)
}

/// A Llama of random numbers with about so many MiB of weights, in two files.
pub(super) fn write_model(dir: &Path, mib: u64) -> Result<(ModelFiles, u64)> {
    let layer_bytes = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN);
    let layers = ((mib << 20) / layer_bytes).clamp(2, 128);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": VOCAB, "max_position_embeddings": 8192,
        "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let mut shards: [Vec<(String, Vec<u64>)>; 2] = [Vec::new(), Vec::new()];
    shards[0].push(("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]));
    shards[1].push(("model.norm.weight".into(), vec![HIDDEN]));
    for layer in 0..layers {
        let shard = &mut shards[usize::from(layer >= layers / 2)];
        let mut add = |part: &str, shape: Vec<u64>| {
            shard.push((format!("model.layers.{layer}.{part}.weight"), shape));
        };
        add("input_layernorm", vec![HIDDEN]);
        add("post_attention_layernorm", vec![HIDDEN]);
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{part}"), vec![HIDDEN, HIDDEN]);
        }
        add("mlp.gate_proj", vec![INNER, HIDDEN]);
        add("mlp.up_proj", vec![INNER, HIDDEN]);
        add("mlp.down_proj", vec![HIDDEN, INNER]);
    }
    let mut weight_map = Map::new();
    for (name, tensors) in SHARDS.iter().zip(&shards) {
        write_shard(&dir.join(name), tensors)?;
        weight_map.extend(tensors.iter().map(|(t, _)| (t.clone(), json!(name))));
    }
    let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
    fs::write(dir.join("config.json"), config.to_string())?;
    fs::write(dir.join("tokenizer.json"), TOKENIZER)?;
    fs::write(dir.join("model.safetensors.index.json"), index)?;
    let file = |name: &str| -> Result<RepoFile> {
        Ok(RepoFile {
            path: name.to_owned(),
            size: fs::metadata(dir.join(name))?.len(),
            sha256: None,
        })
    };
    let weights = SHARDS.iter().map(|n| file(n)).collect::<Result<Vec<_>>>()?;
    let bytes = weights.iter().map(|w| w.size).sum();
    let files = ModelFiles {
        config: file("config.json")?,
        tokenizer: file("tokenizer.json")?,
        generation_config: None,
        index: Some(file("model.safetensors.index.json")?),
        weights,
    };
    Ok((files, bytes))
}

fn write_shard(path: &Path, tensors: &[(String, Vec<u64>)]) -> Result<()> {
    let (mut header, mut end) = (Map::new(), 0u64);
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        let entry: Value = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&u64::try_from(text.len())?.to_le_bytes())?;
    out.write_all(&text)?;
    let mut block = vec![0; 1 << 20];
    rand_chacha::ChaCha8Rng::seed_from_u64(7).fill_bytes(&mut block);
    // Exponents below all ones: random numbers, all of them finite.
    block.chunks_mut(2).for_each(|value| value[1] &= 0x3f);
    let mut left = usize::try_from(end)?;
    while left > 0 {
        let part = left.min(block.len());
        out.write_all(&block[..part])?;
        left -= part;
    }
    out.flush()?;
    Ok(())
}
