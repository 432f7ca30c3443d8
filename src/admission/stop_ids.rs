//! Token ids that end a reply, the only thing that is read of `generation_config.json`.

use super::config::{ModelConfig, TokenIds, check_ids};
use super::{json, reject};
use crate::incentive::eligibility::CONFIG_BYTES_MAX;
use crate::incentive::{Rejection, RejectionCode};
use serde::Deserialize;

#[derive(Deserialize)]
struct Raw {
    eos_token_id: Option<TokenIds>,
}

/// End-of-text ids of both configurations, ascending. Sampling parameters are ignored: decoding is
/// greedy for everyone.
pub(super) fn eos_ids(
    config: &ModelConfig,
    generation: Option<&[u8]>,
) -> Result<Vec<u32>, Rejection> {
    let mut ids = config.eos_token_ids.clone();
    if let Some(text) = generation {
        let bad = |what: String| {
            let detail = format!("generation_config.json {what}.");
            reject(RejectionCode::ConfigInvalid, detail)
        };
        json::bounded(text, CONFIG_BYTES_MAX).map_err(bad)?;
        let raw: Raw =
            serde_json::from_slice(text).map_err(|e| bad(format!("is malformed: {e}")))?;
        ids.extend(raw.eos_token_id.map(TokenIds::into_vec).unwrap_or_default());
    }
    ids.sort_unstable();
    ids.dedup();
    check_ids(ids.iter(), ids.len(), config.vocab_size)?;
    Ok(ids)
}

/// `generation_config.json` as it is mounted.
pub(super) fn rewrite(eos_ids: &[u32]) -> Vec<u8> {
    let value = serde_json::json!({"eos_token_id": eos_ids, "do_sample": false});
    format!("{value:#}\n").into_bytes()
}
