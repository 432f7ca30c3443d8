//! The sample model as parts, to be broken in one place each.

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What a hub serves below a repository: files by path, and where the listing lies about them.
#[derive(Clone)]
pub(super) struct Repo {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Paths that are listed with one byte each, whether they can be fetched or not.
    pub(super) listed: Vec<String>,
    /// Bytes that come instead of the listed ones.
    pub(super) swapped: BTreeMap<String, Vec<u8>>,
    /// Files whose body never ends.
    pub(super) endless: Vec<String>,
}

/// One tensor.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<u8>,
}

fn ladder(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/scorer-cpu/ladder/model");
    std::fs::read(folder.join(name)).unwrap()
}

pub(super) fn config() -> Value {
    serde_json::from_slice(&ladder("config.json")).unwrap()
}

pub(super) fn tokenizer() -> Value {
    serde_json::from_slice(&ladder("tokenizer.json")).unwrap()
}

pub(super) fn tensors() -> Vec<Tensor> {
    let bytes = ladder("model.safetensors");
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = parsed
        .tensors()
        .into_iter()
        .map(|(name, view)| Tensor {
            name,
            dtype: "BF16",
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The good model in one file.
pub(super) fn good() -> Repo {
    let mut repo = Repo {
        files: BTreeMap::new(),
        listed: Vec::new(),
        swapped: BTreeMap::new(),
        endless: Vec::new(),
    };
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        repo.files.insert(name.to_owned(), ladder(name));
    }
    repo
}

/// A safetensors file of that header and those bytes.
pub(super) fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut text = header.as_bytes().to_vec();
    text.resize(text.len().next_multiple_of(8), b' ');
    let length = u64::try_from(text.len()).unwrap().to_le_bytes();
    [&length[..], &text, data].concat()
}

pub(super) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.data);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape,
            "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    file(&Value::Object(header).to_string(), &data)
}

impl Repo {
    pub(super) fn with(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.files.remove(name);
        self
    }

    pub(super) fn listing(mut self, path: &str) -> Self {
        self.listed.push(path.to_owned());
        self
    }
}

/// The good model with another configuration, tokenizer or weights.
pub(super) fn with_config(key: &str, value: Value) -> Repo {
    let mut changed = config();
    changed[key] = value;
    good().with("config.json", changed.to_string())
}

pub(super) fn with_tokenizer(pointer: &str, value: Value) -> Repo {
    let mut changed = tokenizer();
    *changed.pointer_mut(pointer).unwrap() = value;
    good().with("tokenizer.json", changed.to_string())
}

pub(super) fn with_tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> Repo {
    let mut all = tensors();
    change(&mut all);
    good().with("model.safetensors", safetensors(&all))
}

/// The good model in two shards, with that index.
pub(super) fn sharded(index: impl FnOnce(&mut Map<String, Value>)) -> Repo {
    let all = tensors();
    let (first, second) = all.split_at(all.len() / 2);
    let names = [1, 2].map(|n| format!("model-0000{n}-of-00002.safetensors"));
    let mut repo = good().without("model.safetensors");
    let mut map = Map::new();
    for (name, part) in names.iter().zip([first, second]) {
        map.extend(part.iter().map(|t| (t.name.clone(), json!(name))));
        repo = repo.with(name, safetensors(part));
    }
    index(&mut map);
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    repo.with("model.safetensors.index.json", index.to_string())
}

/// A model that says these tokens whatever it is asked, then ends; without tokens it says nothing,
/// and with `again` it never ends. Layers add nothing, so the next token follows from the last.
pub(super) fn parrot(tokens: &[usize], again: bool) -> Repo {
    const HIDDEN: usize = 128;
    const VOCAB: usize = 512;
    const END: usize = 2;
    let rows = |axes: &dyn Fn(usize) -> Vec<usize>| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(VOCAB * HIDDEN * 2);
        for row in 0..VOCAB {
            let axes = axes(row);
            for column in 0..HIDDEN {
                let value = if axes.contains(&column) { 8.0 } else { 0.0 };
                bytes.extend(half::bf16::from_f32(value).to_le_bytes());
            }
        }
        bytes
    };
    let place = |token: usize| tokens.iter().position(|t| *t == token);
    // Token k of the text stands on axis k + 1, everything else on axis 0.
    let embed = rows(&|row| vec![place(row).map_or(0, |k| k + 1)]);
    // Token k answers to axis k, the end to the last axis; with `again` the last token answers to its
    // own axis as well.
    let head = rows(&|row| match place(row) {
        Some(k) if again && k + 1 == tokens.len() => vec![k, k + 1],
        Some(k) => vec![k],
        None if row == END && !again => vec![tokens.len()],
        None => vec![],
    });
    let mut all = tensors();
    for tensor in &mut all {
        if tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight") {
            tensor.data.fill(0);
        }
        if tensor.name == "model.norm.weight" {
            let one = half::bf16::ONE.to_le_bytes();
            tensor.data = one.repeat(HIDDEN);
        }
        if tensor.name == "model.embed_tokens.weight" {
            tensor.data.clone_from(&embed);
        }
    }
    all.push(Tensor {
        name: "lm_head.weight".to_owned(),
        dtype: "BF16",
        shape: vec![VOCAB, HIDDEN],
        data: head,
    });
    let mut config = config();
    config["tie_word_embeddings"] = json!(false);
    good()
        .with("model.safetensors", safetensors(&all))
        .with("config.json", config.to_string())
}
