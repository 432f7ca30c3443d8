use super::*;
use crate::admission::fixtures::tokenizer;
use serde_json::json;

fn run(value: &Value) -> Result<TokenizerFacts, Rejection> {
    check(value.to_string().as_bytes(), 300, Template::ChatMl)
}

fn with(pointer: &str, value: Value) -> Value {
    let mut changed = tokenizer();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed
}

#[test]
fn a_good_tokenizer_knows_the_templates_end() {
    assert_eq!(run(&tokenizer()).unwrap().template_end_id, Some(258));
    let renamed = with("/added_tokens/0/content", json!("<|end|>"));
    assert_eq!(run(&renamed).unwrap().template_end_id, None);
}

#[test]
fn each_bound_is_kept() {
    let vocab = |pairs: &[(&str, u32)]| {
        let mut vocab = tokenizer()["model"]["vocab"].clone();
        for (token, id) in pairs {
            vocab[*token] = json!(id);
        }
        with("/model/vocab", vocab)
    };
    let many: Vec<_> = (0..2049)
        .map(|i| json!({"id": 258 + i, "content": format!("<{i}>"), "special": true}))
        .collect();
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b"]]});
    let table = [
        ("a gap", vocab(&[("far", 299)])),
        ("outside the vocabulary", vocab(&[("far", 4_000_000_000)])),
        ("shared id", vocab(&[("t300", 7)])),
        ("word piece", with("/model/type", json!("WordPiece"))),
        (
            "no type",
            with("/model", json!({"vocab": {}, "merges": []})),
        ),
        ("piece without score", with("/model", unigram)),
        ("too many added", with("/added_tokens", json!(many))),
        (
            "long added",
            with("/added_tokens/0/content", json!("x".repeat(65))),
        ),
        ("empty added", with("/added_tokens/0/content", json!(""))),
        (
            "control in added",
            with("/added_tokens/0/content", json!("a\u{1b}[0m")),
        ),
        ("unknown part", with("/pre_tokenizer/type", json!("Python"))),
        (
            "long regex",
            with(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "a".repeat(1025)}, "behavior": "Isolated", "invert": false}),
            ),
        ),
        (
            "broken regex",
            with(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": false}),
            ),
        ),
        (
            "merge of nothing",
            with("/model/merges", json!([["no", "such"]])),
        ),
        ("merges of another type", with("/model/merges", json!(7))),
        (
            "added tokens swapped",
            with("/added_tokens/0/id", json!(259)),
        ),
    ];
    let shared = run(&vocab(&[("t300", 7)])).unwrap_err();
    assert!(shared.detail.contains("share an id"), "{shared}");
    for (name, value) in table {
        let rejection = run(&value).expect_err(name);
        assert_eq!(rejection.code, RejectionCode::TokenizerInvalid, "{name}");
    }
}

#[test]
fn tricks_with_text_are_refused() {
    let table = [
        (
            "a sentence",
            with("/added_tokens/0/content", json!("[The text above is bad.]")),
        ),
        (
            "a bare word",
            with("/added_tokens/0/content", json!("kitchen")),
        ),
        (
            "part of text",
            with("/added_tokens/0/content", json!(" (x - y)")),
        ),
        ("a sign", with("/added_tokens/0/content", json!(","))),
        (
            "text that grows",
            with(
                "/normalizer",
                json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "xx"}),
            ),
        ),
        (
            "text that grows in steps",
            with(
                "/normalizer",
                json!({"type": "Sequence", "normalizers": vec![
                json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x"}); 5]}),
            ),
        ),
        (
            "long mark",
            with("/model/end_of_word_suffix", json!("x".repeat(65))),
        ),
        (
            "tokens that multiply",
            with(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 257],
                "pair": [], "special_tokens": {}}),
            ),
        ),
        (
            "lower case",
            with("/normalizer", json!({"type": "Lowercase"})),
        ),
        ("lost bytes", with("/model/vocab", json!({"a": 0, "b": 1}))),
        ("not decoded", with("/decoder", Value::Null)),
        (
            "backtracking",
            with(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(?=x)((a+)+)+$|(([a-z]+)+)+(?!.)#"}, "behavior": "Isolated", "invert": false}),
            ),
        ),
    ];
    for (name, value) in table {
        let rejection = run(&value).expect_err(name);
        assert_eq!(rejection.code, RejectionCode::TokenizerInvalid, "{name}");
    }
}

#[test]
fn the_sample_is_ordinary_to_the_sample_model() {
    let ladder = include_bytes!("../../../docker/scorer-cpu/ladder/model/tokenizer.json");
    assert!(check(ladder, 512, Template::ChatMl).is_ok());
}

#[test]
fn text_that_is_no_tokenizer_is_refused() {
    let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
    for text in ["", "{}", "null", "[1]", &deep] {
        let rejection = check(text.as_bytes(), 300, Template::ChatMl).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::TokenizerInvalid);
    }
}

#[test]
fn a_vocabulary_larger_than_the_model_is_refused() {
    let text = tokenizer().to_string();
    assert!(check(text.as_bytes(), 260, Template::ChatMl).is_ok());
    assert!(check(text.as_bytes(), 259, Template::ChatMl).is_err());
}
