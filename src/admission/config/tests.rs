use super::*;
use crate::admission::fixtures::{config, era};
use proptest::prelude::*;
use serde_json::json;

fn parse(value: &Value) -> Result<ModelConfig, Rejection> {
    ModelConfig::parse(value.to_string().as_bytes(), &era())
}

fn with(key: &str, value: Value) -> Value {
    let mut changed = config();
    changed[key] = value;
    changed
}

#[test]
fn defaults_are_the_libraries() {
    let mut short = config();
    let keys = short.as_object_mut().unwrap();
    for key in [
        "num_key_value_heads",
        "rope_theta",
        "rms_norm_eps",
        "tie_word_embeddings",
    ] {
        keys.shift_remove(key);
    }
    let parsed = parse(&short).unwrap();
    assert_eq!((parsed.num_key_value_heads, parsed.head_dim), (2, 32));
    assert!((parsed.rope.theta - 10_000.0).abs() < 1e-9);
    assert!((parsed.rms_norm_eps - 1e-6).abs() < 1e-12);
    assert!(!parsed.tie_word_embeddings);
}

#[test]
fn the_rewritten_file_holds_only_what_was_checked() {
    let parsed = parse(&with("my_payload", json!("x"))).unwrap();
    let text = parsed.rewrite(&[258]);
    let value: Value = serde_json::from_slice(&text).unwrap();
    for dropped in ["my_payload", "transformers_version"] {
        assert!(value.get(dropped).is_none(), "{dropped}");
    }
    assert_eq!(value["eos_token_id"], json!([258]));
    assert_eq!(value["torch_dtype"], json!("bfloat16"));
    // Reading it again gives the same model, and the same file.
    let again = ModelConfig::parse(&text, &era()).unwrap();
    assert_eq!(again, parsed);
    assert_eq!(again.rewrite(&[258]), text);
}

#[test]
fn forbidden_keys_are_refused_and_their_empty_forms_are_not() {
    for (key, value) in [
        ("auto_map", json!({"AutoModel": "evil--modeling.Evil"})),
        ("quantization_config", json!({"quant_method": "awq"})),
        ("trust_remote_code", json!(true)),
        ("vision_config", json!({})),
        ("custom_pipelines", json!([])),
        ("model_file", json!("evil.py")),
        ("torchscript", json!(true)),
        ("pruned_heads", json!({"0": [1]})),
        ("_attn_implementation_internal", json!("evil/kernels")),
        ("_attn_implementation", json!("evil/kernels:main")),
    ] {
        let rejection = parse(&with(key, value)).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ConfigInvalid, "{key}");
        assert!(rejection.detail.contains(key), "{}", rejection.detail);
    }
    for (key, value) in [
        ("quantization_config", Value::Null),
        ("trust_remote_code", json!(false)),
        ("pruned_heads", json!({})),
        ("_attn_implementation", json!("sdpa")),
        ("_attn_implementation_autoset", json!(true)),
    ] {
        assert!(parse(&with(key, value)).is_ok(), "{key}");
    }
}

#[test]
fn features_that_would_be_lost_are_refused() {
    for (key, value) in [
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0}),
        ),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        (
            "rope_parameters",
            json!({"rope_type": "yarn", "rope_theta": 10000.0}),
        ),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 5e5}),
        ),
        ("partial_rotary_factor", json!(0.5)),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["sliding_attention"])),
        ("sliding_window", json!(6543)),
        ("use_bidirectional_attention", json!(true)),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}}),
        ),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 1e9, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
        ),
    ] {
        let rejection = parse(&with(key, value.clone())).unwrap_err();
        assert_eq!(
            rejection.code,
            RejectionCode::ConfigInvalid,
            "{key} {value}"
        );
    }
    let plain = with(
        "rope_parameters",
        json!({"rope_type": "default", "rope_theta": 10000.0}),
    );
    assert!(parse(&plain).is_ok());
}

#[test]
fn other_architectures_are_refused() {
    for (key, value) in [
        ("architectures", json!(["GPT2LMHeadModel"])),
        ("architectures", json!([])),
        (
            "architectures",
            json!(["LlamaForCausalLM", "LlamaForCausalLM"]),
        ),
        // Known, but not accepted by this era.
        ("architectures", json!(["Qwen2ForCausalLM"])),
    ] {
        let rejection = parse(&with(key, value)).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ArchitectureUnknown);
    }
    let mixed = parse(&with("model_type", json!("qwen2"))).unwrap_err();
    assert_eq!(mixed.code, RejectionCode::ConfigInvalid);
}

#[test]
fn numbers_have_ranges() {
    for (key, value) in [
        ("hidden_size", json!(32)),
        ("hidden_size", json!(-64)),
        ("hidden_size", json!(64.5)),
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!("64")),
        ("intermediate_size", json!(0)),
        ("num_hidden_layers", json!(129)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(31)),
        ("head_dim", json!(6)),
        ("head_dim", json!(514)),
        ("vocab_size", json!(300_001)),
        // Shorter than the era's prompt and reply together.
        ("max_position_embeddings", json!(6543)),
        ("rms_norm_eps", json!(0.1)),
        ("rope_theta", json!(1e9)),
        ("eos_token_id", json!(300)),
        ("bos_token_id", json!(300)),
        ("torch_dtype", json!("float8_e4m3fn")),
    ] {
        let rejection = parse(&with(key, value.clone())).unwrap_err();
        assert_eq!(
            rejection.code,
            RejectionCode::ConfigInvalid,
            "{key} {value}"
        );
    }
    assert!(parse(&with("max_position_embeddings", json!(6544))).is_ok());
}

#[test]
fn text_that_is_no_configuration_is_refused() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(400), "]".repeat(400));
    let long = " ".repeat(300 * 1024);
    for text in [
        "",
        "[]",
        "null",
        "{}",
        "{\"hidden_size\":1e999}",
        &deep,
        &long,
    ] {
        let rejection = ModelConfig::parse(text.as_bytes(), &era()).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ConfigInvalid);
    }
}

#[test]
fn what_llama_3_1_writes_is_kept() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let old = parse(&with("rope_scaling", scaling.clone())).unwrap();
    let mut parameters = scaling;
    parameters["rope_theta"] = json!(10000.0);
    let new = parse(&with("rope_parameters", parameters.clone())).unwrap();
    assert_eq!(old, new);
    let written: Value = serde_json::from_slice(&old.rewrite(&[1])).unwrap();
    assert_eq!(written["rope_parameters"], parameters);
    let mut two = with("rope_parameters", parameters);
    two["rope_scaling"] = json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    assert!(parse(&two).is_err());
    assert!(parse(&with("sliding_window", json!(6544))).is_ok());
}

/// Configurations and tensors as the reference implementation (transformers 5.23.0) writes them.
fn golden() -> serde_json::Map<String, Value> {
    serde_json::from_str(include_str!("../data/architectures.json")).unwrap()
}

#[test]
fn every_architecture_has_the_tensors_of_the_reference_implementation() {
    let mut rules = era();
    rules.admission.architectures = crate::incentive::Architecture::ALL.to_vec();
    let golden = golden();
    assert_eq!(golden.len(), rules.admission.architectures.len());
    for (name, golden) in golden {
        let mut theirs = golden["config"].clone();
        let refused = ModelConfig::parse(theirs.to_string().as_bytes(), &rules);
        if name.starts_with("Mistral") {
            // A window of 4096, and the era's sequences are longer.
            assert!(refused.unwrap_err().detail.contains("sliding"));
            theirs["sliding_window"] = Value::Null;
        }
        let parsed = ModelConfig::parse(theirs.to_string().as_bytes(), &rules).unwrap();
        let ours = serde_json::to_value(crate::admission::tensors::expected(&parsed)).unwrap();
        assert_eq!(ours, golden["tensors"], "{name}");
        let own = parsed.rewrite(&parsed.eos_token_ids);
        let again = ModelConfig::parse(&own, &rules).unwrap();
        assert_eq!(again, parsed, "{name}");
        // Whatever bears on the arithmetic is written as they write it.
        let written: Value = serde_json::from_slice(&parsed.rewrite(&[1])).unwrap();
        for key in [
            "rope_parameters",
            "layer_types",
            "sliding_window",
            "hidden_activation",
            "head_dim",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "tie_word_embeddings",
        ] {
            if theirs.get(key).is_some() {
                assert_eq!(written[key], theirs[key], "{name} {key}");
            }
        }
    }
}

#[test]
fn gemmas_numbers_have_ranges() {
    let mut rules = era();
    rules.admission.architectures = crate::incentive::Architecture::ALL.to_vec();
    let golden = golden();
    for (key, value) in [
        ("attn_logit_softcapping", json!(0.0)),
        ("final_logit_softcapping", json!(1e300)),
        ("query_pre_attn_scalar", json!(0)),
        ("sliding_window", json!(1)),
        ("rope_local_base_freq", json!(1.0)),
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("hidden_activation", json!("silu")),
        ("head_dim", Value::Null),
        ("num_key_value_heads", Value::Null),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_type": "linear", "factor": 65.0}, "sliding_attention": {}}),
        ),
        (
            "rope_parameters",
            json!({"full_attention": {}, "sliding_attention": {"rope_type": "linear", "factor": 2.0}}),
        ),
    ] {
        let mut changed = golden["Gemma3ForCausalLM"]["config"].clone();
        changed[key] = value;
        let rejection = ModelConfig::parse(changed.to_string().as_bytes(), &rules).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ConfigInvalid, "{key}");
    }
}

proptest! {
    #[test]
    fn any_value_in_any_key_ends_in_a_value(
        key in prop::sample::select(config().as_object().unwrap().keys().cloned().collect::<Vec<_>>()),
        value in prop::sample::select(vec![
            json!(null), json!(0), json!(-1), json!(u64::MAX), json!(1e300), json!(""), json!([]),
            json!({}), json!([[]]), json!(true), json!(2.5), json!(["x"]), json!([u64::MAX]),
        ]),
    ) {
        if let Ok(parsed) = parse(&with(&key, value)) {
            prop_assert!(ModelConfig::parse(&parsed.rewrite(&[1]), &era()).is_ok());
        }
    }

    #[test]
    fn any_bytes_end_in_a_value(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ModelConfig::parse(&bytes, &era()).is_err());
    }
}
