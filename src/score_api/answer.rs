//! Answers with an entity tag, and text made fit to be shown.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::telemetry::is_deceptive;
use crate::web::etag_matches;

/// Stale for this long at most; a page that many people reload costs few reads.
const CACHE: &str = "public, max-age=3, stale-while-revalidate=10";

/// `text` with every character replaced that could hide, reorder or forge what is around it.
pub(super) fn clean(text: &str) -> String {
    let shown = |c| if is_deceptive(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Cleans every text of a JSON value. Keys are ours, but for maps of measured values they come from
/// data, so they are cleaned as well.
pub(super) fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if text.chars().any(is_deceptive) {
                *text = clean(text);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean_value),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            for (key, mut value) in old {
                clean_value(&mut value);
                fields.insert(clean(&key), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A cleaned JSON answer.
pub(super) fn json(request: &HeaderMap, mut value: Value) -> Response {
    clean_value(&mut value);
    tagged(request, value.to_string(), "application/json")
}

/// `body` with its entity tag, or 304 when the client has it.
pub(super) fn tagged(request: &HeaderMap, body: String, kind: &'static str) -> Response {
    let digest = Sha256::digest(&body);
    let tag = format!("\"{}\"", hex::encode(&digest[..16]));
    let mut response = if etag_matches(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind)], body).into_response()
    };
    let headers = response.headers_mut();
    set(headers, header::ETAG, &tag);
    set(headers, header::CACHE_CONTROL, CACHE);
    set(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    response
}

/// Sets a header whose value is known to be plain ASCII.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_in_an_answer_is_cleaned() {
        let mut value = serde_json::json!({
            "a\u{202e}b": ["x\u{0}y", { "n": 1, "t": "<script>\u{200b}" }],
        });
        clean_value(&mut value);
        let expected = serde_json::json!({
            "a\u{fffd}b": ["x\u{fffd}y", { "n": 1, "t": "<script>\u{fffd}" }],
        });
        assert_eq!(value, expected);
    }
}
