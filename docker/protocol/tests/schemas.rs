//! The checked-in schemas are those of the types.

use std::path::Path;

#[test]
fn checked_in_schemas_are_current() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut expected = Vec::new();
    for (name, text) in assay_protocol::schemas() {
        let stored = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let command = "cargo run -p assay-protocol --example schemas";
        assert_eq!(stored, text, "{name} is out of date: run `{command}`");
        expected.push(name.to_owned());
    }
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "a schema without a type");
}

#[test]
fn schemas_refuse_unknown_fields() {
    for (name, text) in assay_protocol::schemas() {
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{name}");
    }
}
