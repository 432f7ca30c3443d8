//! Whatever is accepted as config.json is the same model after it was written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::admission::ModelConfig;
use rules::incentive::{Architecture, Era};
use std::sync::LazyLock;

static ERA: LazyLock<Era> = LazyLock::new(|| {
    serde_json::from_value(serde_json::json!({
        "from_block": 0,
        "scoring": {"image": format!("sha256:{}", "0".repeat(64)), "judge": "none",
            "prompt_version": 1, "round_blocks": 100, "items": 2, "max_tokens": 100,
            "max_prompt_tokens": 1000},
        "admission": {"earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": Architecture::ALL, "min_model_bytes": 0, "max_model_bytes": 1u64 << 40},
        "incentive": {"burn_share": 0.0, "ranking": {"rule": "win-rate"}},
    }))
    .expect("the era of this target")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(model) = ModelConfig::parse(data, &ERA) {
        let written = model.rewrite(&[1]);
        let mut again = ModelConfig::parse(&written, &ERA).expect("what we write, we accept");
        again.eos_token_ids.clone_from(&model.eos_token_ids);
        assert_eq!(again, model);
    }
});
