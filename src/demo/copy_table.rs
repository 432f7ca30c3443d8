//! The table that the thresholds of the search for copies stand on: models that were tampered with and
//! models that were honestly trained, beside one and the same model, by the checks of the node.
//! `cargo test --lib copy_table -- --include-ignored --nocapture` prints it; an ordinary run looks at
//! the rows that lie nearest to the thresholds, by fewer probes.

use super::corpus::{Conversation, sample_conversations, training_conversations};
use super::ladder::write_repos;
use crate::admission;
use crate::incentive::copies::{Behaviour, Kinship, Measure, Sketch};
use crate::incentive::eligibility::{ModelFiles, RepoFile};
use crate::incentive::era::CopyRules;
use crate::incentive::{Era, Template};
use assay_scorer_cpu::{Cache, Model, ModelConfig, in_threads};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::Tokenizer;

type Weights = HashMap<String, Tensor>;

const LAYERS: usize = 3;
const STEPS: usize = 60;
/// Probes of the whole table, and as few as the era's rules take.
const PROBES: usize = 48;
const FEW: usize = 16;
/// The rows of an ordinary run: what was tampered with most, another form of the same values, and the
/// honest model that is nearest.
const NEAREST: [&str; 4] = [
    "stored as float32",
    "noise 5 %",
    "permuted, rescaled",
    "merge 0.25 with B",
];

/// The parts that every model of the table shares.
struct Bench {
    folder: tempfile::TempDir,
    base: std::path::PathBuf,
    config: Vec<u8>,
    tokenizer: Tokenizer,
    era: Era,
    probes: usize,
}

/// What the checks see of a model.
struct Seen {
    sketch: Sketch,
    behaviour: Behaviour,
}

impl Bench {
    fn new(probes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = write_repos(folder.path()).unwrap().remove(0).folder;
        let config: toml::Table = include_str!("../../configs/demo.toml").parse().unwrap();
        Self {
            config: std::fs::read(base.join("config.json")).unwrap(),
            tokenizer: Tokenizer::from_file(base.join("tokenizer.json")).unwrap(),
            era: config["era"][0].clone().try_into().unwrap(),
            folder,
            base,
            probes,
        }
    }

    fn trained(&self) -> Weights {
        let file = self.base.join("model.safetensors");
        let stored = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let widened = stored
            .into_iter()
            .map(|(n, t)| (n, t.to_dtype(DType::F32).unwrap()));
        widened.collect()
    }

    fn model(&self, weights: Weights) -> Model {
        let config = ModelConfig::parse(&self.config, "LlamaForCausalLM").unwrap();
        Model::new(config, weights)
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        let encoded = self.tokenizer.encode(text, false).unwrap();
        encoded.get_ids().to_vec()
    }

    /// Log-probabilities (tokens × vocabulary) at the reference's places, and the reference's ids.
    fn foresee(&self, model: &Model, conversation: &Conversation) -> (Tensor, Tensor) {
        let (prompt, reference) = conversation.prompt_and_reference();
        let (mut all, target) = (self.ids(&prompt), self.ids(reference));
        all.extend(&target[..target.len() - 1]);
        let all = Tensor::new(all.as_slice(), &Device::Cpu).unwrap();
        let all = all.unsqueeze(0).unwrap();
        let logits = model.forward(&all, &mut Cache::default(), target.len());
        let logits = logits.unwrap().squeeze(0).unwrap();
        let target = Tensor::new(target.as_slice(), &Device::Cpu).unwrap();
        (
            candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap(),
            target,
        )
    }

    fn behaviour(&self, weights: &Weights) -> Behaviour {
        let model = self.model(weights.clone());
        let probe = |(i, conversation): (usize, Conversation)| {
            let (all, target) = self.foresee(&model, &conversation);
            let own = all.gather(&target.unsqueeze(1).unwrap(), 1).unwrap();
            let nats = own.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (format!("c_{i:03}"), nats)
        };
        let probes = sample_conversations(77, self.probes)
            .into_iter()
            .enumerate();
        Behaviour::new(probes.map(probe))
    }

    /// AdamW over conversations that no probe shows, one at a step.
    fn train(&self, from: &Weights, on: &[Conversation]) -> Weights {
        let var = |(name, t): (&String, &Tensor)| (name.clone(), Var::from_tensor(t).unwrap());
        let vars: HashMap<String, Var> = from.iter().map(var).collect();
        let shared = vars
            .iter()
            .map(|(name, v)| (name.clone(), v.as_tensor().clone()));
        let model = self.model(shared.collect());
        let rate = ParamsAdamW {
            lr: 1e-3,
            ..ParamsAdamW::default()
        };
        let mut adam = AdamW::new(vars.values().cloned().collect(), rate).unwrap();
        for conversation in on {
            let (all, target) = self.foresee(&model, conversation);
            let loss = candle_nn::loss::nll(&all, &target).unwrap();
            adam.backward_step(&loss).unwrap();
        }
        let fixed = |(name, v): (String, Var)| (name, v.as_tensor().detach().copy().unwrap());
        vars.into_iter().map(fixed).collect()
    }

    /// Through the node's own admission: files, headers, one pass, and the sketch.
    fn sketch(&self, weights: &Weights, dtype: DType) -> Sketch {
        let folder = self.folder.path().join("stored");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::copy(self.base.join(name), folder.join(name)).unwrap();
        }
        let stored: HashMap<_, _> = weights
            .iter()
            .map(|(name, t)| (name.clone(), t.to_dtype(dtype).unwrap()))
            .collect();
        candle_core::safetensors::save(&stored, folder.join("model.safetensors")).unwrap();
        let files = ModelFiles {
            config: listed(&folder, "config.json"),
            tokenizer: listed(&folder, "tokenizer.json"),
            generation_config: None,
            index: None,
            weights: vec![listed(&folder, "model.safetensors")],
        };
        let verified = admission::verify(&folder, &files, &self.era, Template::ChatMl).unwrap();
        let sketch = admission::sketch(&folder, &files, &verified, &[5; 32]);
        sketch.unwrap().1
    }

    fn see(&self, weights: &Weights, dtype: DType) -> Seen {
        Seen {
            sketch: self.sketch(weights, dtype),
            behaviour: self.behaviour(weights),
        }
    }
}

fn listed(folder: &Path, name: &str) -> RepoFile {
    RepoFile {
        path: name.to_owned(),
        size: std::fs::metadata(folder.join(name)).unwrap().len(),
        sha256: None,
    }
}

/// As a miner stores it.
fn rounded(weights: &Weights) -> Weights {
    let round = |t: &Tensor| t.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32);
    let all = weights.iter().map(|(n, t)| (n.clone(), round(t).unwrap()));
    all.collect()
}

/// Gaussian noise, `share` of each matrix' root mean square.
fn noisy(weights: &Weights, share: f64, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut names: Vec<&String> = weights.keys().collect();
    names.sort();
    let mut out = weights.clone();
    for name in names {
        let tensor = &weights[name];
        if tensor.rank() != 2 {
            continue;
        }
        let size = tensor.sqr().unwrap().mean_all().unwrap();
        let scale = share * f64::from(size.to_scalar::<f32>().unwrap()).sqrt();
        // Twelve uniform numbers minus 6 are nearly normal with variance 1.
        let mut draw = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let noise: Vec<f32> = (0..tensor.elem_count()).map(|_| draw()).collect();
        let noise = Tensor::from_vec(noise, tensor.shape(), &Device::Cpu).unwrap();
        out.insert(name.clone(), (tensor + (noise * scale).unwrap()).unwrap());
    }
    out
}

/// `share` of the second, the rest of the first.
fn merged(first: &Weights, second: &Weights, share: f64) -> Weights {
    let merge = |(name, a): (&String, &Tensor)| {
        let b = (&second[name] * share).unwrap();
        (name.clone(), ((a * (1.0 - share)).unwrap() + b).unwrap())
    };
    first.iter().map(merge).collect()
}

/// MLP neurons in another order, each scaled up on one side and down on the other: the same function.
fn turned(weights: &Weights, permute: bool, rescale: bool) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut out = weights.clone();
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}_proj.weight");
        let neurons = weights[&name("up")].dim(0).unwrap();
        let mut order: Vec<u32> = (0..u32::try_from(neurons).unwrap()).collect();
        if permute {
            order.shuffle(&mut rng);
        }
        let powers = [0.25f32, 0.5, 1.0, 2.0, 4.0];
        let factors: Vec<f32> = (0..neurons)
            .map(|_| {
                if rescale {
                    powers[rng.random_range(0..5)]
                } else {
                    1.0
                }
            })
            .collect();
        let order = Tensor::new(order.as_slice(), &Device::Cpu).unwrap();
        let factors = Tensor::new(factors.as_slice(), &Device::Cpu).unwrap();
        let moved = |part: &str, dim| weights[&name(part)].index_select(&order, dim).unwrap();
        let up = moved("up", 0).broadcast_mul(&factors.unsqueeze(1).unwrap());
        let down = moved("down", 1).broadcast_div(&factors.unsqueeze(0).unwrap());
        out.insert(name("gate"), moved("gate", 0));
        out.insert(name("up"), up.unwrap());
        out.insert(name("down"), down.unwrap());
    }
    out
}

/// What a model of the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tampered,
    Honest,
}

#[test]
fn what_lies_nearest_to_the_thresholds_of_the_copy_table_is_told_apart() {
    in_threads(0, || table(FEW, |name| NEAREST.contains(&name))).unwrap();
}

#[test]
#[ignore = "a minute and more; the thresholds' whole table"]
fn every_tampered_copy_is_found_and_nobody_else() {
    in_threads(0, || table(PROBES, |_| true)).unwrap();
}

/// A row: its name, what it is, how it is made, and how it is stored.
type Row<'a> = (&'static str, Kind, Box<dyn Fn() -> Weights + 'a>, DType);

/// All models that are compared with `a`, which was made from `base`.
fn rows<'a>(bench: &'a Bench, a: &'a Weights, b: &'a Weights, base: &'a Weights) -> Vec<Row<'a>> {
    use Kind::{Honest, Tampered};
    let train = |from: &'a Weights, seed: u64| -> Box<dyn Fn() -> Weights + 'a> {
        Box::new(move || bench.train(from, &training_conversations(seed, STEPS)))
    };
    let noise = |share: f64, seed: u64| -> Box<dyn Fn() -> Weights + 'a> {
        Box::new(move || noisy(a, share, seed))
    };
    let turn = |permute: bool, rescale: bool| -> Box<dyn Fn() -> Weights + 'a> {
        Box::new(move || turned(a, permute, rescale))
    };
    let merge =
        |share: f64| -> Box<dyn Fn() -> Weights + 'a> { Box::new(move || merged(a, b, share)) };
    let same = |of: &'a Weights| -> Box<dyn Fn() -> Weights + 'a> { Box::new(move || of.clone()) };
    let backwards = || {
        let mut data = training_conversations(1, STEPS);
        data.reverse();
        bench.train(base, &data)
    };
    let (bf16, f32) = (DType::BF16, DType::F32);
    vec![
        ("exact copy", Tampered, same(a), bf16),
        ("stored as float32", Tampered, same(a), f32),
        ("noise 0.1 %", Tampered, noise(0.001, 2), f32),
        ("noise 1 %", Tampered, noise(0.01, 3), bf16),
        ("noise 5 %", Tampered, noise(0.05, 4), bf16),
        ("permuted MLP", Tampered, turn(true, false), bf16),
        ("rescaled MLP", Tampered, turn(false, true), bf16),
        ("permuted, rescaled", Tampered, turn(true, true), bf16),
        ("merge 0.25 with B", Honest, merge(0.25), bf16),
        ("merge 0.5 with B", Honest, merge(0.5), bf16),
        ("same data, other order", Honest, Box::new(backwards), bf16),
        ("trained on from A", Honest, train(a, 3), bf16),
        ("independent B", Honest, same(b), bf16),
        ("base", Honest, same(base), bf16),
    ]
}

fn table(probes: usize, wanted: impl Fn(&str) -> bool) {
    let bench = Bench::new(probes);
    // Less than trained, so that there is something to learn in different ways.
    let base = rounded(&noisy(&bench.trained(), 0.4, 1));
    let a = rounded(&bench.train(&base, &training_conversations(1, STEPS)));
    let b = rounded(&bench.train(&base, &training_conversations(2, STEPS)));
    let mut models = rows(&bench, &a, &b, &base);
    models.retain(|(name, ..)| wanted(name));
    let rules = CopyRules::default();
    let (own, third) = (bench.see(&a, DType::BF16), bench.see(&base, DType::BF16));
    println!(
        "{:24} {:9} nats/token  cosine  distance  values  verdict",
        "model", "kind"
    );
    let mut wrong = Vec::new();
    for (name, kind, make, dtype) in models {
        let seen = bench.see(&make(), dtype);
        let nats = seen.behaviour.distance(&own.behaviour, rules.probes_min);
        let thirds = [&third.sketch].into_iter().filter(|_| name != "base");
        let by_weights = seen.sketch.beside(&own.sketch, thirds, &rules);
        let by_behaviour = seen.behaviour.beside(&own.behaviour, &rules);
        let near = seen.sketch.nearness(&own.sketch, &third.sketch);
        let shared = seen.sketch.shared(&own.sketch);
        let found = [by_weights, by_behaviour].into_iter().flatten();
        let verdict = found
            .map(|l| (l.kinship, l.measure))
            .max_by_key(|(k, _)| *k);
        println!(
            "{name:24} {:9} {:10.4}  {:6.3}  {:8.3}  {shared:6.2}  {verdict:?}",
            format!("{kind:?}"),
            nats.unwrap(),
            near.map_or(f64::NAN, |n| n.cosine),
            near.map_or(f64::NAN, |n| n.distance),
        );
        let same = verdict.is_some_and(|(kinship, _)| kinship == Kinship::Same);
        if same != (kind == Kind::Tampered) {
            wrong.push(name);
        }
        if name == "stored as float32" {
            assert_eq!(by_weights.map(|l| l.measure), Some(Measure::Values));
        }
    }
    assert!(wrong.is_empty(), "misses or false alarms: {wrong:?}");
}
