use super::*;

/// A valid era with a round length.
pub(crate) fn era(from_block: u64, round_blocks: u64) -> Era {
    let json = serde_json::json!({
        "from_block": from_block,
        "scoring": {
            "image": format!("sha256:{}", "ab".repeat(32)),
            "judge": "judge-1", "prompt_version": 1, "round_blocks": round_blocks,
            "items": 64, "max_tokens": 400, "max_prompt_tokens": 6144,
        },
        "admission": {
            "earliest_commit_block": 0, "competitions": ["d1"], "templates": ["chatml"],
            "architectures": ["LlamaForCausalLM"], "min_model_bytes": 0, "max_model_bytes": "6 MB",
        },
        "incentive": {"burn_share": 0.1, "ranking": {"rule": "champion"}},
    });
    serde_json::from_value(json).unwrap()
}

const TOML: &str = r#"
from_block = 10
[scoring]
image = "registry/scorer@sha256:abababababababababababababababababababababababababababababababab"
judge = "gpt-x-2026-01-01"
prompt_version = 1
round_blocks = 7200
items = 512
max_tokens = 400
max_prompt_tokens = 6144
[admission]
earliest_commit_block = 10
competitions = ["d1"]
templates = ["chatml"]
architectures = ["LlamaForCausalLM", "Qwen2ForCausalLM"]
min_model_bytes = "20 GB"
max_model_bytes = "72GiB"
[incentive]
burn_share = 0.2
ranking = { rule = "win-rate", temperature = 0.1 }
"#;

#[test]
fn an_era_reads_from_toml_with_units_and_defaults() {
    let era: Era = toml::from_str(TOML).unwrap();
    assert_eq!(era.validate(), vec![]);
    assert_eq!(era.admission.min_model_bytes, 20_000_000_000);
    assert_eq!(era.admission.max_model_bytes, 72 << 30);
    assert_eq!(era.scoring.gates, Gates::default());
    assert_eq!(era.scoring.fresh_items(), 384);
    let RankingRule::WinRate(rule) = &era.incentive.ranking else {
        panic!("wrong rule")
    };
    assert_eq!((rule.newer_factor, rule.temperature), (0.97, 0.1));
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    for (from, to) in [
        ("judge =", "extra = 1\njudge ="),
        ("competitions =", "extra = 1\ncompetitions ="),
        ("burn_share =", "extra = 1\nburn_share ="),
        ("temperature = 0.1", "temperature = 0.1, extra = 1"),
        ("from_block = 10\n", "from_block = 10\nextra = 1\n"),
        ("win-rate", "winner"),
        ("72GiB", "72 parsecs"),
        ("d1", "../d1"),
    ] {
        let text = TOML.replacen(from, to, 1);
        assert!(toml::from_str::<Era>(&text).is_err(), "{to} passed");
    }
}

#[test]
fn the_id_follows_from_every_value_and_not_from_the_spelling() {
    let base: Era = toml::from_str(TOML).unwrap();
    let respelt = TOML
        .replace("72GiB", "77309411328 B")
        .replace("0.2", "0.20");
    assert_eq!(toml::from_str::<Era>(&respelt).unwrap().id(), base.id());
    for (from, to) in [("512", "513"), ("0.2", "0.25"), ("72GiB", "71GiB")] {
        let changed: Era = toml::from_str(&TOML.replacen(from, to, 1)).unwrap();
        assert_ne!(changed.id(), base.id(), "{to}");
    }
    let json = base.canonical_json();
    assert!(json.starts_with(r#"{"admission":{"architectures":["LlamaForCausalLM""#));
    let back: Era = serde_json::from_str(&json).unwrap();
    assert_eq!(back, base);
    assert_eq!(back.id().to_string().parse(), Ok(base.id()));
}

#[test]
fn every_problem_is_found_at_once() {
    let mut bad = era(0, 0);
    bad.scoring.image = "scorer:latest".into();
    bad.scoring.items = 1;
    bad.scoring.fresh_share = 1.5;
    bad.scoring.gates.cut_max = f64::NAN;
    bad.scoring.length_effect_max = -1.0;
    bad.scoring.judge_checks.second_kappa_min = f64::NAN;
    bad.scoring.early_stop.looks = 0;
    bad.incentive.evidence.live_rounds = 1;
    bad.admission.templates = Vec::new();
    bad.admission.min_model_bytes = u64::MAX;
    bad.incentive.burn_share = 1.5;
    bad.incentive.ranking = RankingRule::Champion(ChampionRule {
        shares: vec![0.3, 0.6],
        margin_end: f64::NAN,
        ..ChampionRule::default()
    });
    let keys: Vec<_> = bad.validate().iter().map(|p| p.key).collect();
    assert_eq!(
        keys,
        [
            "scoring.image",
            "scoring.round_blocks",
            "scoring.items",
            "scoring.fresh_share",
            "scoring.gates.cut_max",
            "scoring.length_effect_max",
            "scoring.judge_checks.second_kappa_min",
            "scoring.early_stop.looks",
            "admission.templates",
            "admission.max_model_bytes",
            "incentive.burn_share",
            "incentive.evidence.live_rounds",
            "incentive.ranking.margin_start",
            "incentive.ranking.shares",
            "incentive.ranking.shares",
        ]
    );
}

#[test]
fn the_last_era_that_began_is_in_force() {
    let eras = [era(100, 10), era(200, 10)];
    assert_eq!(era_at(&eras, BlockNumber(99)), None);
    assert_eq!(era_at(&eras, BlockNumber(199)), Some(&eras[0]));
    assert_eq!(era_at(&eras, BlockNumber(200)), Some(&eras[1]));
}
