use super::fixtures::{Tensor, config, era, safetensors, tensor, tensors, tokenizer, write};
use super::*;
use serde_json::{Value, json};

type Files = Vec<(&'static str, Vec<u8>)>;

fn files(config: &Value, tensors: &[Tensor]) -> Files {
    vec![
        ("config.json", config.to_string().into_bytes()),
        ("tokenizer.json", tokenizer().to_string().into_bytes()),
        ("model.safetensors", safetensors(tensors)),
    ]
}

fn run(files: &Files) -> Result<Verified, AdmissionError> {
    let folder = tempfile::tempdir().unwrap();
    let listed = write(folder.path(), files);
    verify(folder.path(), &listed, &era(), Template::ChatMl)
}

fn verdict(files: &Files) -> Rejection {
    run(files).unwrap_err().into_rejection().unwrap()
}

#[test]
fn a_good_model_is_verified() {
    let mut files = files(&config(), &tensors());
    let generation = json!({"eos_token_id": [258, 3], "temperature": 9.0, "min_length": 500});
    files.push((
        "generation_config.json",
        generation.to_string().into_bytes(),
    ));
    let model = run(&files).unwrap();
    let count: u64 = tensors()
        .iter()
        .map(|t| t.shape.iter().product::<u64>())
        .sum();
    assert_eq!(model.param_count, count);
    assert_eq!(model.stop_ids, [3, 258]);
    assert_eq!(model.unchanged, ["tokenizer.json", "model.safetensors"]);
    let names: Vec<_> = model.rewritten.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["config.json", "generation_config.json"]);
    let generation: Value = serde_json::from_slice(&model.rewritten[1].1).unwrap();
    assert_eq!(
        generation,
        json!({"eos_token_id": [3, 258], "do_sample": false})
    );
}

#[test]
fn the_library_reads_the_same_tensors() {
    let bytes = safetensors(&tensors());
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let model = run(&files(&config(), &tensors())).unwrap();
    assert_eq!(theirs.len(), model.tensors.len());
    for entry in &model.tensors {
        let view = theirs.tensor(&entry.name).unwrap();
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(view.data()).into();
        assert_eq!(entry.sha256, digest);
    }
}

fn shards(cut: usize, order: bool) -> Files {
    let mut all = tensors();
    if order {
        all.reverse();
    }
    let (first, second) = all.split_at(cut);
    let name = |tensor: &Tensor| tensor.name.clone();
    let in_file = |file: &'static str| move |t: &Tensor| (name(t), json!(file));
    let a = "model-00001-of-00002.safetensors";
    let b = "model-00002-of-00002.safetensors";
    let map: serde_json::Map<_, _> = first
        .iter()
        .map(in_file(a))
        .chain(second.iter().map(in_file(b)))
        .collect();
    let index = json!({"metadata": {"evil": "x"}, "weight_map": map});
    let mut files = files(&config(), &[]);
    files.pop();
    files.push((a, safetensors(first)));
    files.push((b, safetensors(second)));
    files.push((
        "model.safetensors.index.json",
        index.to_string().into_bytes(),
    ));
    files
}

#[test]
fn the_digest_is_the_same_however_the_model_is_cut() {
    let whole = run(&files(&config(), &tensors())).unwrap();
    for cut in [1, 5] {
        for order in [false, true] {
            let cut = run(&shards(cut, order)).unwrap();
            assert_eq!(cut.tensor_digest, whole.tensor_digest);
            let (name, index) = &cut.rewritten[2];
            assert_eq!(*name, "model.safetensors.index.json");
            assert!(!String::from_utf8_lossy(index).contains("evil"));
        }
    }
    let mut other = tensors();
    other[3].data[0] ^= 1;
    let other = run(&files(&config(), &other)).unwrap();
    assert_ne!(other.tensor_digest, whole.tensor_digest);
}

#[test]
fn an_index_that_lies_is_refused() {
    let mut lying = shards(5, false);
    let last = lying.len() - 1;
    let text = String::from_utf8(lying[last].1.clone()).unwrap();
    let moved = text.replacen("model-00001", "model-00002", 1);
    let mut short: Value = serde_json::from_str(&text).unwrap();
    let map = short["weight_map"].as_object_mut().unwrap();
    map.shift_remove("model.norm.weight").unwrap();
    for bad in [
        short.to_string(),
        moved,
        text.replacen("model-00001", "../00001", 1),
        "{}".into(),
        "[[".into(),
    ] {
        lying[last].1 = bad.into_bytes();
        assert_eq!(verdict(&lying).code, RejectionCode::Format);
    }
}

#[test]
fn values_that_are_no_numbers_are_found_in_any_tensor_and_type() {
    for (index, dtype, bits) in [
        (0, Dtype::Bf16, &[0xc0, 0x7f][..]),
        (10, Dtype::Bf16, &[0x80, 0xff]),
        (4, Dtype::F16, &[0x00, 0x7c]),
        (7, Dtype::F32, &[0x00, 0x00, 0xc0, 0x7f]),
    ] {
        let mut all = tensors();
        let tensor = &mut all[index];
        let elements: usize = tensor
            .shape
            .iter()
            .map(|d| usize::try_from(*d).unwrap())
            .product();
        tensor.dtype = dtype;
        tensor.data = vec![0; elements * bits.len()];
        let clean = run(&files(&config(), &all));
        assert!(clean.is_ok(), "{clean:?}");
        let at = all[index].data.len() - bits.len();
        all[index].data[at..].copy_from_slice(bits);
        let rejection = verdict(&files(&config(), &all));
        assert_eq!(rejection.code, RejectionCode::NonFinite);
        assert!(
            rejection.detail.contains(&all[index].name),
            "{}",
            rejection.detail
        );
    }
}

#[test]
fn the_same_verdict_and_digest_on_any_number_of_cores() {
    let mut broken = tensors();
    for index in [3, 5, 9] {
        let end = broken[index].data.len();
        broken[index].data[end - 2..].copy_from_slice(&[0x80, 0x7f]);
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |tensors: &[Tensor], cores: usize| {
        let listed = write(folder.path(), &files(&config(), tensors));
        let cores = NonZeroUsize::new(cores).unwrap();
        verify_on(cores, folder.path(), &listed, &era(), Template::ChatMl)
    };
    let whole = run(&tensors(), 1).unwrap();
    for cores in [2, 7, 64] {
        assert_eq!(run(&tensors(), cores).unwrap(), whole);
        let rejection = run(&broken, cores).unwrap_err().into_rejection().unwrap();
        assert!(rejection.detail.contains(&broken[3].name), "{rejection}");
    }
}

#[test]
fn tensors_must_be_exactly_those_of_the_configuration() {
    let code = |tensors: &[Tensor]| verdict(&files(&config(), tensors)).code;
    let mut missing = tensors();
    missing.remove(4);
    let mut extra = tensors();
    extra.push(tensor("model.hidden.payload", &[4]));
    let mut renamed = tensors();
    renamed[1].name = "model.norm2.weight".into();
    let mut reshaped = tensors();
    reshaped[4] = tensor(&reshaped[4].name.clone(), &[32, 128]);
    // A tied head of its own would make a copy look different.
    let mut tied = tensors();
    tied.push(tensor("lm_head.weight", &[300, 64]));
    for wrong in [missing, extra, renamed, reshaped, tied.clone()] {
        assert_eq!(code(&wrong), RejectionCode::TensorSet);
    }
    let mut untied = config();
    untied["tie_word_embeddings"] = json!(false);
    assert!(run(&files(&untied, &tied)).is_ok());
    assert_eq!(
        verdict(&files(&untied, &tensors())).code,
        RejectionCode::TensorSet
    );
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let mut twice = shards(5, false);
    let whole = twice
        .iter()
        .position(|(n, _)| n.starts_with("model-00002"))
        .unwrap();
    twice[whole].1 = safetensors(&tensors()[4..]);
    assert_eq!(verdict(&twice).code, RejectionCode::TensorSet);
}

#[test]
fn qwen2_has_biases() {
    let mut rules = era();
    rules.admission.architectures = vec![crate::incentive::Architecture::Qwen2];
    let mut qwen = config();
    qwen["architectures"] = json!(["Qwen2ForCausalLM"]);
    qwen["model_type"] = json!("qwen2");
    let mut all = tensors();
    for (part, width) in [("q", 64), ("k", 32), ("v", 32)] {
        all.push(tensor(
            &format!("model.layers.0.self_attn.{part}_proj.bias"),
            &[width],
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    let listed = write(folder.path(), &files(&qwen, &all));
    assert!(verify(folder.path(), &listed, &rules, Template::ChatMl).is_ok());
    let listed = write(folder.path(), &files(&qwen, &tensors()));
    let error = verify(folder.path(), &listed, &rules, Template::ChatMl).unwrap_err();
    assert_eq!(
        error.into_rejection().unwrap().code,
        RejectionCode::TensorSet
    );
}

#[test]
fn a_file_that_changed_or_vanished_is_our_fault() {
    let folder = tempfile::tempdir().unwrap();
    let all = files(&config(), &tensors());
    let listed = write(folder.path(), &all);
    let path = folder.path().join("model.safetensors");
    let fault = |listed: &ModelFiles| {
        let error = verify(folder.path(), listed, &era(), Template::ChatMl).unwrap_err();
        error.into_rejection().unwrap_err()
    };
    std::fs::write(&path, &all[2].1[..all[2].1.len() - 10]).unwrap();
    assert_eq!(fault(&listed).code, "MODEL_UNREADABLE");
    let longer = [&all[2].1[..], b"x"].concat();
    std::fs::write(&path, longer).unwrap();
    assert_eq!(fault(&listed).code, "MODEL_UNREADABLE");
    std::fs::remove_file(&path).unwrap();
    let gone = fault(&listed);
    assert!(gone.retryable && gone.message.contains("model.safetensors"));
}

#[test]
fn end_of_text_ids_outside_the_vocabulary_are_refused() {
    let mut files = files(&config(), &tensors());
    for bad in [
        json!({"eos_token_id": 300}),
        json!({"eos_token_id": [1, 4_000_000_000u32]}),
        json!({"eos_token_id": "x"}),
        json!({"eos_token_id": (0..17).collect::<Vec<_>>()}),
    ] {
        files.retain(|(n, _)| *n != "generation_config.json");
        files.push(("generation_config.json", bad.to_string().into_bytes()));
        assert_eq!(verdict(&files).code, RejectionCode::ConfigInvalid, "{bad}");
    }
}
