//! The Rust side of the sample model's training, which `docker/scorer-cpu/ladder/README.md`
//! describes.
//!
//! `cargo run --example ladder -- corpus N` prints N conversations to train on, one JSON line each.
//! `cargo run --example ladder -- answer` lets the trained model answer held-out prompts, prints
//! how well, and keeps the first answers in `docker/scorer-cpu/ladder/golden.jsonl`.
//! `cargo run --example ladder -- rungs FOLDER` writes the sample models to FOLDER and prints how
//! well each answers.

#![expect(
    clippy::print_stdout,
    reason = "its output is for the person who trains"
)]

use assay::demo::corpus::{Conversation, sample_conversations, training_conversations, word_f1};
use assay::demo::ladder::{Expected, write_repos};
use assay_protocol::{Finish, Generation};
use assay_scorer_cpu::{Generator, Model, ModelConfig, in_threads};
use candle_core::{DType, Device};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::Tokenizer;

const SEED: u64 = 20_261_122;
const END: u32 = 2;
const HELD_OUT: usize = 64;
const GOLDEN: usize = 16;

fn main() -> anyhow::Result<()> {
    in_threads(0, work)?
}

fn work() -> anyhow::Result<()> {
    let ladder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/scorer-cpu/ladder");
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["corpus", count] => {
            for conversation in training_conversations(SEED, count.parse()?) {
                println!("{}", serde_json::to_string(&conversation)?);
            }
            Ok(())
        }
        ["answer"] => {
            let answered = answer("trained", &ladder.join("model"))?;
            let lines = answered
                .iter()
                .take(GOLDEN)
                .map(|a| format!("{}\n", a.golden()));
            Ok(std::fs::write(
                ladder.join("golden.jsonl"),
                lines.collect::<String>(),
            )?)
        }
        ["rungs", folder] => {
            for model in write_repos(Path::new(folder))? {
                if model.expected != Expected::NonFinite {
                    answer(model.name, &model.folder)?;
                }
            }
            Ok(())
        }
        _ => anyhow::bail!("usage: ladder corpus N | ladder answer | ladder rungs FOLDER"),
    }
}

/// One answered prompt.
struct Answered {
    conversation: Conversation,
    reply: String,
    finish: Finish,
}

impl Answered {
    fn golden(&self) -> serde_json::Value {
        let (prompt, reference) = self.conversation.prompt_and_reference();
        let (id, reply) = (&self.conversation.id, &self.reply);
        json!({"id": id, "prompt": prompt, "reference": reference, "reply": reply})
    }
}

/// Lets the model in `folder` answer held-out prompts and prints how well.
fn answer(name: &str, folder: &Path) -> anyhow::Result<Vec<Answered>> {
    let generator = generator(folder)?;
    let mut all = Vec::new();
    for conversation in sample_conversations(SEED, HELD_OUT) {
        let prompt = generator.prompt(&conversation.prompt_and_reference().0)?;
        let generated = generator.reply(&prompt, || Ok(()))?;
        all.push(Answered {
            conversation,
            reply: generator.decode(&generated.ids)?,
            finish: generated.finish,
        });
    }
    let likeness = |a: &Answered| word_f1(&a.reply, a.conversation.prompt_and_reference().1);
    let mean = all.iter().map(likeness).sum::<f64>() / HELD_OUT as f64;
    let stopped = all.iter().filter(|a| a.finish == Finish::Stop).count();
    println!("{name:12} word-F1 {mean:.3}, {stopped} of {HELD_OUT} stopped");
    Ok(all)
}

fn generator(folder: &Path) -> anyhow::Result<Generator> {
    let config = std::fs::read(folder.join("config.json"))?;
    let config = ModelConfig::parse(&config, "LlamaForCausalLM")?;
    let tokenizer =
        Tokenizer::from_file(folder.join("tokenizer.json")).map_err(anyhow::Error::msg)?;
    let mut weights = HashMap::new();
    let file = folder.join("model.safetensors");
    for (name, tensor) in candle_core::safetensors::load(file, &Device::Cpu)? {
        weights.insert(name, tensor.to_dtype(DType::F32)?);
    }
    let bounds = Generation {
        max_tokens: 120,
        max_prompt_tokens: 512,
        stop_token_ids: vec![END],
        seed: 0,
    };
    Ok(Generator::new(
        Model::new(config, weights),
        tokenizer,
        &bounds,
    )?)
}
