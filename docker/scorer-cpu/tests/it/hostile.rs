//! Every exit class, brought about by a job, a folder or a model that is wrong.

use crate::harness::{Case, Ended, sha256};
use assay_protocol::{Job, Mode};
use serde_json::{Value, json};

const DOWN: &str = "model.layers.2.mlp.down_proj.weight";

fn with_job(change: impl FnOnce(&mut Job)) -> Ended {
    let case = Case::new(1);
    let mut job = case.job();
    change(&mut job);
    case.run_job(&job)
}

#[test]
fn a_job_that_is_not_understood_is_the_nodes_bug() {
    let case = Case::new(1);
    let mut unknown: Value = serde_json::to_value(case.job()).unwrap();
    unknown["surprise"] = json!(1);
    for text in ["", "{}", &unknown.to_string()] {
        let ended = case.run_text(text);
        assert_eq!(ended.exit, 30, "{text}");
        assert!(ended.result.is_none());
        assert!(ended.stderr.starts_with("J_SCHEMA: "), "{}", ended.stderr);
    }
    let ended = with_job(|job| job.nonce = "beef".to_owned());
    assert_eq!(ended.exit, 30);
    assert!(ended.result.is_none(), "nothing binds a result to that job");
}

#[test]
fn a_job_that_contradicts_itself_is_refused_with_a_result() {
    let changes: [fn(&mut Job); 16] = [
        |job| job.schema = "assay-job/2".to_owned(),
        |job| job.job_id = String::new(),
        |job| job.attempt = 0,
        |job| job.mode = vec![],
        |job| job.mode = vec![Mode::Generate, Mode::Generate],
        |job| job.mode = vec![Mode::Likelihood],
        |job| job.model.dir = "/elsewhere".to_owned(),
        |job| job.model.files[0].path = "../config.json".to_owned(),
        |job| job.model.files[0].path = ".hidden".to_owned(),
        |job| job.model.files[1] = job.model.files[0].clone(),
        |job| job.dataset.count = 0,
        |job| job.generation.max_tokens = 0,
        |job| job.generation.max_prompt_tokens = 0,
        |job| job.engine_args.dtype = "bfloat16".to_owned(),
        |job| job.engine_args.max_model_len = job.generation.max_tokens,
        |job| job.limits.stall_s = 0,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let ended = with_job(change);
        assert_eq!((n, ended.code()), (n, "J_SCHEMA"), "{}", ended.message());
    }
}

#[test]
fn wrong_samples_are_the_jobs_fault() {
    assert_eq!(
        with_job(|job| job.dataset.samples_sha256 = "00".to_owned()).code(),
        "J_DIGEST"
    );
    assert_eq!(with_job(|job| job.dataset.count = 2).code(), "J_SAMPLES");
    for (lines, count) in [
        ("{}\n", 1),
        ("{\"id\":\"a\",\"prompt\":\"b\",\"more\":1}\n", 1),
        ("{\"id\":\"\",\"prompt\":\"b\"}\n", 1),
        (
            "{\"id\":\"a\",\"prompt\":\"b\"}\n{\"id\":\"a\",\"prompt\":\"b\"}\n",
            2,
        ),
    ] {
        let case = Case::new(1);
        let mut job = case.job();
        std::fs::write(case.path("job/samples.jsonl"), lines).unwrap();
        job.dataset.samples_sha256 = sha256(lines);
        job.dataset.count = count;
        assert_eq!(case.run_job(&job).code(), "J_SAMPLES", "{lines}");
    }
}

#[test]
fn a_folder_that_is_not_the_verified_one_is_infrastructure() {
    let other_digest = with_job(|job| job.model.files[0].sha256 = "00".repeat(32));
    assert_eq!(other_digest.code(), "I_MOUNT");
    assert_eq!(
        with_job(|job| job.model.files[0].size += 1).code(),
        "I_MOUNT"
    );
    let tensors = with_job(|job| job.model.tensor_digest = "sha256:00".to_owned());
    assert_eq!(tensors.code(), "I_MOUNT");

    let case = Case::new(1);
    let job = case.job();
    std::fs::remove_file(case.path("model/model.safetensors")).unwrap();
    assert_eq!(case.run_job(&job).code(), "I_MOUNT");
}

#[test]
fn what_cannot_be_read_or_written_is_infrastructure() {
    let case = Case::new(1);
    let job = case.job();
    std::fs::remove_file(case.path("model/config.json")).unwrap();
    std::fs::create_dir(case.path("model/config.json")).unwrap();
    let mut as_folder = job.clone();
    let size = std::fs::metadata(case.path("model/config.json"))
        .unwrap()
        .len();
    as_folder
        .model
        .files
        .iter_mut()
        .find(|f| f.path == "config.json")
        .unwrap()
        .size = size;
    assert_eq!(case.run_job(&as_folder).code(), "I_IO");

    let case = Case::new(1);
    let job = case.job();
    std::fs::remove_file(case.path("job/samples.jsonl")).unwrap();
    assert_eq!(case.run_job(&job).code(), "I_IO");

    let case = Case::new(1);
    std::fs::write(case.path("out/replies.jsonl"), "").unwrap();
    let ended = case.run();
    assert_eq!(ended.exit, 20);
    assert!(ended.result.is_none());
    assert!(ended.stderr.starts_with("I_IO: "), "{}", ended.stderr);
}

#[test]
fn a_model_without_its_files_or_shape_is_the_miners_fault() {
    let without = |name: &str| {
        let case = Case::new(1);
        std::fs::remove_file(case.path("model").join(name)).unwrap();
        case.run().code()
    };
    assert_eq!(without("config.json"), "E_FILES");
    assert_eq!(without("tokenizer.json"), "E_FILES");
    assert_eq!(without("model.safetensors"), "E_SHAPE");

    let config = |key: &str, value: Value| {
        let case = Case::new(1);
        case.set_config(key, value);
        case.run().code()
    };
    assert_eq!(config("hidden_size", json!(130)), "E_SHAPE");
    assert_eq!(config("num_hidden_layers", json!(4)), "E_SHAPE");
    assert_eq!(config("num_hidden_layers", json!(2)), "E_SHAPE");
    assert_eq!(config("tie_word_embeddings", json!(false)), "E_SHAPE");
    assert_eq!(config("num_key_value_heads", json!(3)), "E_CONFIG");
    assert_eq!(config("max_position_embeddings", json!(100)), "E_CONFIG");
    assert_eq!(config("rope_scaling", json!({"factor": 2.0})), "E_CONFIG");
    assert_eq!(
        config("architectures", json!(["MambaForCausalLM"])),
        "E_ARCH"
    );
    assert_eq!(config("vocab_size", json!("many")), "E_FORMAT");
    assert_eq!(
        with_job(|job| job.model.architecture = "GPT2LMHeadModel".to_owned()).code(),
        "E_ARCH"
    );
}

#[test]
fn malformed_files_are_the_miners_fault() {
    let with = |name: &str, content: &[u8]| {
        let case = Case::new(1);
        case.write(name, content);
        case.run().code()
    };
    assert_eq!(with("config.json", b"{"), "E_FORMAT");
    assert_eq!(with("tokenizer.json", b"{}"), "E_TOKENIZER");
    assert_eq!(with("model.safetensors", b""), "E_FORMAT");
    assert_eq!(
        with("model.safetensors", &u64::MAX.to_le_bytes()),
        "E_FORMAT"
    );
    let mut twice = std::fs::read(Case::new(1).path("model/model.safetensors")).unwrap();
    assert_eq!(with("more.safetensors", &twice), "E_FORMAT");
    twice.truncate(twice.len() - 1);
    assert_eq!(with("model.safetensors", &twice), "E_FORMAT");
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_the_miners_fault() {
    let case = Case::new(1);
    let text = std::fs::read(case.path("model/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&text).unwrap();
    tokenizer["model"]["vocab"]["zzz"] = json!(512);
    case.write("tokenizer.json", tokenizer.to_string());
    assert_eq!(case.run().code(), "E_VOCAB");

    let case = Case::new(1);
    let mut tokenizer: Value = serde_json::from_slice(&text).unwrap();
    tokenizer["normalizer"] =
        json!({"type": "Replace", "pattern": {"Regex": "(?s).+"}, "content": ""});
    tokenizer["added_tokens"] = json!([]);
    case.write("tokenizer.json", tokenizer.to_string());
    let ended = case.run();
    assert_eq!(ended.code(), "E_TOKENIZER", "{}", ended.message());
}

/// The library's `Strip` decoder counts below zero on a token of nothing but its character.
#[test]
fn a_panic_in_a_library_counts_against_the_miner_only_if_confirmed() {
    let case = Case::new(1);
    let text = std::fs::read(case.path("model/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&text).unwrap();
    tokenizer["decoder"] = json!({"type": "Strip", "content": "*", "start": 0, "stop": 9});
    case.write("tokenizer.json", tokenizer.to_string());
    let ended = case.run();
    assert_eq!((ended.code(), ended.exit), ("E_DEVICE_ASSERT", 11));
}

#[test]
fn a_tokenizer_that_asks_for_truncation_is_not_obeyed() {
    let case = Case::new(2);
    let plain = case.run();
    let text = std::fs::read(case.path("model/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&text).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 600}, "direction": "Left",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    case.write("tokenizer.json", tokenizer.to_string());
    case.clear();
    assert_eq!(case.run().replies, plain.replies);
}

#[test]
fn numbers_that_are_not_finite_are_the_miners_fault() {
    let case = Case::new(1);
    case.edit_weights(|weights| {
        let (_, _, bytes) = weights.get_mut(DOWN).unwrap();
        bytes[200..202].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    });
    let ended = case.run();
    assert_eq!(ended.code(), "E_NONFINITE");
    assert_eq!(ended.message(), format!("{DOWN} is NaN at position 100"));
    assert!(ended.replies.is_empty());

    // Finite weights, infinite products.
    let case = Case::new(1);
    case.edit_weights(|weights| {
        for name in [DOWN, "model.layers.2.mlp.up_proj.weight"] {
            let (_, _, bytes) = weights.get_mut(name).unwrap();
            *bytes = half::bf16::MAX.to_le_bytes().repeat(bytes.len() / 2);
        }
    });
    let ended = case.run();
    assert_eq!(ended.code(), "E_NONFINITE");
    let first = crate::harness::golden().swap_remove(0).id;
    assert!(
        ended
            .message()
            .starts_with(&format!("sample {first}: a logit is "))
    );
}
