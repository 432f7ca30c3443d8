//! Eight sample models of known quality, derived from one trained model at run time.
//!
//! The trained model is in the repository (`docker/scorer-cpu/ladder`); everything else follows
//! from it and a seed, so the demo and the tests know beforehand how each must end.

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const CONFIG: &str = include_str!("../../docker/scorer-cpu/ladder/model/config.json");
const GENERATION: &str =
    include_str!("../../docker/scorer-cpu/ladder/model/generation_config.json");
const TOKENIZER: &[u8] = include_bytes!("../../docker/scorer-cpu/ladder/model/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../../docker/scorer-cpu/ladder/model/model.safetensors");

const SEED: u64 = 1;
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Ids that end a reply: `<|endoftext|>` and `<|im_end|>`.
const END_IDS: [usize; 2] = [0, 2];

/// How a sample model has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Scored; 1 is the best of the ladder.
    Scored {
        /// Place among the scored models of the ladder.
        rank: u8,
    },
    /// Rejected, because another sample holds the same weights.
    Duplicate {
        /// Name of that sample.
        of: &'static str,
    },
    /// Rejected for NaNs in its weights.
    NonFinite,
    /// Every reply is cut by the token cap.
    Endless,
}

/// One sample model, as a repository of the local hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleModel {
    /// Short name, such as `noise-low`.
    pub name: &'static str,
    /// `namespace/name`; a namespace of its own for each.
    pub repo: String,
    /// 40 hex digits, from the content and the repository's name.
    pub revision: String,
    /// Folder with the files: `root/namespace/name/revision`.
    pub folder: PathBuf,
    /// How it has to end.
    pub expected: Expected,
}

/// A sample could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LadderError {
    /// The files could not be written.
    #[error("the sample models could not be written to {folder}: {source}")]
    Write {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The built-in model is damaged, which is a bug.
    #[error("the built-in sample model is damaged: {0}")]
    BuiltIn(#[from] safetensors::SafeTensorError),
}

/// How a sample is made of the trained model.
enum Recipe {
    /// The trained model itself.
    Same,
    /// Gaussian noise on each matrix; sigma as a share of the matrix' own root mean square.
    Noise(f32),
    /// The smallest values of each matrix set to 0, so many percent of them; stored as F16.
    Pruned(usize),
    /// Eight NaNs in the last layer.
    NotANumber,
    /// An output head of its own that never prefers an end of reply.
    Endless,
}

const LADDER: [(&str, Recipe, Expected); 8] = [
    ("base", Recipe::Same, Expected::Scored { rank: 1 }),
    (
        "noise-low",
        Recipe::Noise(0.29),
        Expected::Scored { rank: 2 },
    ),
    ("pruned", Recipe::Pruned(52), Expected::Scored { rank: 3 }),
    (
        "noise-mid",
        Recipe::Noise(0.42),
        Expected::Scored { rank: 4 },
    ),
    (
        "noise-high",
        Recipe::Noise(0.5),
        Expected::Scored { rank: 5 },
    ),
    ("copy", Recipe::Same, Expected::Duplicate { of: "base" }),
    ("nan", Recipe::NotANumber, Expected::NonFinite),
    ("endless", Recipe::Endless, Expected::Endless),
];

/// Writes all sample models below `root` and describes them. Writing twice changes nothing.
///
/// # Errors
/// [`LadderError::Write`] when a file cannot be written.
pub fn write_repos(root: &Path) -> Result<Vec<SampleModel>, LadderError> {
    LADDER
        .iter()
        .map(|(name, recipe, expected)| {
            let files = files(recipe)?;
            let repo = format!("{name}-miner/{name}");
            let revision = revision(&repo, &files);
            let folder = root.join(&repo).join(&revision);
            write(&folder, &files).map_err(|source| LadderError::Write {
                folder: folder.clone(),
                source,
            })?;
            Ok(SampleModel {
                name,
                repo,
                revision,
                folder,
                expected: *expected,
            })
        })
        .collect()
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn files(recipe: &Recipe) -> Result<Files, LadderError> {
    let mut config = CONFIG.to_owned();
    let mut weights = Weights::built_in()?;
    let stored = match recipe {
        Recipe::Same => WEIGHTS.to_vec(),
        Recipe::Noise(sigma) => {
            weights.add_noise(*sigma);
            weights.stored(Dtype::BF16)?
        }
        Recipe::Pruned(percent) => {
            weights.prune(*percent);
            weights.stored(Dtype::F16)?
        }
        Recipe::NotANumber => {
            weights.spoil();
            weights.stored(Dtype::BF16)?
        }
        Recipe::Endless => {
            config = config.replace(
                "\"tie_word_embeddings\": true",
                "\"tie_word_embeddings\": false",
            );
            weights.unreachable_end();
            weights.stored(Dtype::BF16)?
        }
    };
    Ok(BTreeMap::from([
        ("config.json", config.into_bytes()),
        ("generation_config.json", GENERATION.as_bytes().to_vec()),
        ("model.safetensors", stored),
        ("tokenizer.json", TOKENIZER.to_vec()),
    ]))
}

fn revision(repo: &str, files: &Files) -> String {
    let mut hasher = Sha256::new_with_prefix(repo);
    for (name, content) in files {
        hasher.update([0]);
        hasher.update(name);
        hasher.update(Sha256::digest(content));
    }
    hex::encode(&hasher.finalize()[..20])
}

fn write(folder: &Path, files: &Files) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    files
        .iter()
        .try_for_each(|(name, content)| std::fs::write(folder.join(name), content))
}

/// Shape and values by name.
struct Weights(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    fn built_in() -> Result<Self, LadderError> {
        let read = |(name, view): (String, TensorView<'_>)| {
            let pairs = view.data().as_chunks::<2>().0;
            let values = pairs.iter().map(|b| bf16::from_le_bytes(*b).to_f32());
            (name, (view.shape().to_vec(), values.collect()))
        };
        let parsed = SafeTensors::deserialize(WEIGHTS)?;
        Ok(Self(parsed.tensors().into_iter().map(read).collect()))
    }

    fn matrices(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        let all = self.0.values_mut();
        all.filter(|(shape, _)| shape.len() == 2)
            .map(|(_, values)| values)
    }

    fn add_noise(&mut self, sigma: f32) {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        for values in self.matrices() {
            let squares: f32 = values.iter().map(|v| v * v).sum();
            let count: f32 = values.iter().map(|_| 1.0).sum();
            let scale = sigma * (squares / count).sqrt();
            for pair in values.chunks_mut(2) {
                let noise = gauss_pair(&mut rng);
                pair.iter_mut()
                    .zip(noise)
                    .for_each(|(v, n)| *v += scale * n);
            }
        }
    }

    fn prune(&mut self, percent: usize) {
        for values in self.matrices() {
            let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
            sizes.sort_by(f32::total_cmp);
            let threshold = sizes[sizes.len() * percent / 100];
            values
                .iter_mut()
                .filter(|v| v.abs() < threshold)
                .for_each(|v| *v = 0.0);
        }
    }

    fn spoil(&mut self) {
        let last = self
            .0
            .iter_mut()
            .rfind(|(name, _)| name.ends_with("mlp.down_proj.weight"));
        if let Some((_, (_, values))) = last {
            values
                .iter_mut()
                .step_by(1000)
                .take(8)
                .for_each(|v| *v = f32::NAN);
        }
    }

    /// The ends' logits become 0; among all others one is always above.
    fn unreachable_end(&mut self) {
        if let Some((shape, mut values)) = self.0.get(EMBEDDING).cloned() {
            for id in END_IDS {
                values[id * shape[1]..(id + 1) * shape[1]].fill(0.0);
            }
            self.0.insert("lm_head.weight".to_owned(), (shape, values));
        }
    }

    fn stored(&self, dtype: Dtype) -> Result<Vec<u8>, LadderError> {
        let encode = |value: &f32| match dtype {
            Dtype::F16 => f16::from_f32(*value).to_le_bytes(),
            _ => bf16::from_f32(*value).to_le_bytes(),
        };
        let bytes: BTreeMap<_, Vec<u8>> = self
            .0
            .iter()
            .map(|(name, (_, values))| (name, values.iter().flat_map(encode).collect()))
            .collect();
        let views = self.0.iter().map(|(name, (shape, _))| {
            Ok((name, TensorView::new(dtype, shape.clone(), &bytes[name])?))
        });
        let views = views.collect::<Result<Vec<_>, LadderError>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }
}

/// Two independent standard normal numbers.
fn gauss_pair(rng: &mut ChaCha8Rng) -> [f32; 2] {
    let (a, b): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    let (sine, cosine) = (std::f32::consts::TAU * b).sin_cos();
    let radius = (-2.0 * a.ln()).sqrt();
    [radius * cosine, radius * sine]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::corpus::{sample_conversations, word_f1};
    use assay_protocol::{Finish, Generation};
    use assay_scorer_cpu::{Generator, Model, ModelConfig, in_threads};
    use candle_core::{DType, Device};
    use tokenizers::Tokenizer;

    const ITEMS: usize = 32;
    /// Least distance in word-F1 between neighbours of the ladder.
    const GAP: f64 = 0.05;

    fn generator(folder: &Path) -> Generator {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let config = ModelConfig::parse(&read("config.json"), "LlamaForCausalLM").unwrap();
        let file = folder.join("model.safetensors");
        let stored = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let widened =
            |(name, t): (String, candle_core::Tensor)| (name, t.to_dtype(DType::F32).unwrap());
        let weights = stored.into_iter().map(widened).collect();
        let tokenizer = Tokenizer::from_bytes(read("tokenizer.json")).unwrap();
        let bounds = Generation {
            max_tokens: 120,
            max_prompt_tokens: 512,
            stop_token_ids: vec![2],
            seed: 0,
        };
        Generator::new(Model::new(config, weights), tokenizer, &bounds).unwrap()
    }

    /// Mean word-F1 on held-out prompts, and the share of replies that the cap cut.
    fn quality(folder: &Path, items: usize) -> (f64, f64) {
        let generator = generator(folder);
        let (mut sum, mut cut) = (0.0, 0.0);
        for conversation in sample_conversations(48, items) {
            let (prompt, reference) = conversation.prompt_and_reference();
            let prompt = generator.prompt(&prompt).unwrap();
            let reply = generator.reply(&prompt, || Ok(())).unwrap();
            sum += word_f1(&generator.decode(&reply.ids).unwrap(), reference);
            cut += f64::from(u8::from(reply.finish == Finish::Length));
        }
        let items = f64::from(u32::try_from(items).unwrap());
        (sum / items, cut / items)
    }

    #[test]
    fn the_ladder_is_in_order_and_the_endless_one_never_stops() {
        in_threads(0, check_ladder).unwrap();
    }

    fn check_ladder() {
        let root = tempfile::tempdir().unwrap();
        let models = write_repos(root.path()).unwrap();
        let mut scored = Vec::new();
        for model in &models {
            match model.expected {
                Expected::Scored { rank } => {
                    scored.push((rank, model.name, quality(&model.folder, ITEMS)))
                }
                Expected::Endless => assert!(quality(&model.folder, 4).1 > 0.999),
                Expected::Duplicate { .. } | Expected::NonFinite => (),
            }
        }
        scored.sort_by_key(|(rank, ..)| *rank);
        assert!(scored[0].2.0 >= 0.7, "{scored:?}");
        for pair in scored.windows(2) {
            assert!(pair[0].2.0 - pair[1].2.0 >= GAP, "{scored:?}");
        }
    }

    #[test]
    fn copies_are_equal_bytes_in_other_repositories() {
        let root = tempfile::tempdir().unwrap();
        let models = write_repos(root.path()).unwrap();
        let named = |name: &str| models.iter().find(|m| m.name == name).unwrap();
        let weights = |m: &SampleModel| std::fs::read(m.folder.join("model.safetensors")).unwrap();
        assert_eq!(weights(named("base")), weights(named("copy")));
        assert_ne!(named("base").repo, named("copy").repo);
        assert_ne!(named("base").revision, named("copy").revision);
        let mut all: Vec<_> = models.iter().map(weights).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), models.len() - 1);
        for model in &models {
            assert_eq!(
                model.folder,
                root.path().join(&model.repo).join(&model.revision)
            );
            assert!(model.revision.len() == 40 && hex::decode(&model.revision).is_ok());
        }
    }

    #[test]
    fn writing_again_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let first = write_repos(root.path()).unwrap();
        assert_eq!(write_repos(root.path()).unwrap(), first);
        let blocked = root.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        assert!(matches!(
            write_repos(&blocked),
            Err(LadderError::Write { .. })
        ));
    }

    #[test]
    fn the_nan_model_has_eight_of_them() {
        let mut weights = Weights::built_in().unwrap();
        weights.spoil();
        let bytes = weights.stored(Dtype::BF16).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let view = parsed
            .tensor("model.layers.2.mlp.down_proj.weight")
            .unwrap();
        let values = view.data().as_chunks::<2>().0.iter();
        assert_eq!(
            values.filter(|b| bf16::from_le_bytes(**b).is_nan()).count(),
            8
        );
    }
}
