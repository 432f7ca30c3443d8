//! `model.safetensors.index.json`: which shard holds which tensor.

use super::header::{Header, TensorInfo};
use super::{json, reject};
use crate::incentive::eligibility::INDEX_BYTES_MAX;
use crate::incentive::{Rejection, RejectionCode};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Raw {
    weight_map: BTreeMap<String, String>,
}

/// Which shard holds which tensor, from the headers themselves.
fn weight_map(headers: &[(String, Header)]) -> BTreeMap<&str, &str> {
    let tensors = headers
        .iter()
        .flat_map(|(file, header)| header.tensors.iter().map(move |t| (file, t)));
    tensors
        .map(|(file, tensor)| (tensor.name.as_str(), file.as_str()))
        .collect()
}

/// The index must say what the shards hold.
pub(super) fn check(text: &[u8], headers: &[(String, Header)]) -> Result<(), Rejection> {
    let bad = |what: String| reject(RejectionCode::Format, format!("The index {what}."));
    json::bounded(text, INDEX_BYTES_MAX).map_err(bad)?;
    let raw: Raw = serde_json::from_slice(text).map_err(|e| bad(format!("is malformed: {e}")))?;
    let held = weight_map(headers);
    let differs = raw.weight_map.len() != held.len()
        || raw
            .weight_map
            .iter()
            .any(|(tensor, file)| held.get(tensor.as_str()) != Some(&file.as_str()));
    if differs {
        return Err(bad("does not say what the shards hold".to_owned()));
    }
    Ok(())
}

/// The index as it is mounted.
pub(super) fn rewrite(headers: &[(String, Header)]) -> Vec<u8> {
    let tensors = headers.iter().flat_map(|(_, header)| &header.tensors);
    let total: u64 = tensors.map(TensorInfo::bytes).sum();
    let index = serde_json::json!({
        "metadata": {"total_size": total},
        "weight_map": weight_map(headers),
    });
    format!("{index:#}\n").into_bytes()
}
