use super::*;

fn problems<T: std::fmt::Debug>(
    text: &str,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Vec<String> {
    let problems = parse(text, Path::new("/etc/assay"), read).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

fn sample() -> String {
    include_str!("../../configs/validator.toml").to_owned()
}

fn validator(text: &str) -> Result<Validator, Vec<Problem>> {
    parse(text, Path::new("/etc/assay"), read_validator)
}

#[test]
fn every_problem_is_told_at_once_with_key_reason_and_line() {
    let text = sample()
        .replace("netuid = 11", "netuid = 70000")
        .replace("block_time = \"12s\"", "block_time = 120")
        .replace(
            "keep_free = \"20GiB\"",
            "keep_free = \"20\"\ncolour = \"red\"",
        )
        .replace("concurrency = 32", "concurrency = 0")
        .replace("items = 512", "items = 1");
    let found = problems(&text, read_validator);
    let lines: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "line 12: chain.netuid: is 70000, must be a whole number from 0 to 65535",
            "line 15: chain.block_time: must be a duration with its unit, such as \"30s\" or \"2h\", found integer",
            "line 28: store.keep_free: \"20\" is not a size with its unit, such as \"72GiB\" or \"512MiB\"",
            "line 29: store.colour: unknown key; known here: artifacts, keep_free, path",
            "line 62: judge.concurrency: is 0, must be 1 to 256",
            "line 127: era[0].scoring.items: must lie in 2 to 100000; one item has no standard error",
        ]
    );
}

#[test]
fn an_empty_file_names_all_that_is_missing() {
    let found = problems("", read_validator);
    for key in [
        "chain.endpoints",
        "chain.genesis",
        "chain.netuid",
        "wallet.hotkey_file",
        "store.path",
        "store.artifacts",
        "hub.endpoint",
        "dataset.endpoints",
        "dataset.cache",
        "judge.provider",
        "scorer.runner",
        "worker",
        "era",
    ] {
        let start = format!("{key}: is missing");
        assert!(found.iter().any(|p| p.contains(&start)), "{key}: {found:?}");
    }
}

#[test]
fn text_that_is_not_toml_gives_its_line_and_nothing_else() {
    let found = problems("[chain]\nnetuid = = 3\n[hub\n", read_validator);
    assert!(found.iter().all(|p| p.contains("not TOML")), "{found:?}");
    assert!(found[0].starts_with("line 2:"), "{found:?}");
    assert!(found.iter().any(|p| p.starts_with("line 3:")), "{found:?}");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let text = sample()
        .replace("token_env = \"HF_TOKEN\"", "token = \"hf_abcdef\"")
        .replace("key_env = \"ASSAY_JUDGE_KEY\"", "key_env = \"sk-abcdef\"")
        .replace("http://127.0.0.1:8401", "http://me:abcdef@127.0.0.1:8401");
    let found = problems(&text, read_validator);
    assert_eq!(found.len(), 3, "{found:?}");
    for problem in found {
        assert!(
            problem.contains("secrets do not belong in this file"),
            "{problem}"
        );
        assert!(!problem.contains("abcdef"), "{problem}");
    }
}

#[test]
fn the_process_runner_must_be_asked_for_twice() {
    let process = "runner = \"process\"\nprogram = \"scorer-cpu\"";
    let text = sample().replace("runner = \"docker\"", process);
    let found = problems(&text, read_validator);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("scorer.runner: the process runner has no seal"));
    let allowed = format!("{process}\nallow_process = true");
    let config = validator(&sample().replace("runner = \"docker\"", &allowed)).unwrap();
    let program = "/etc/assay/scorer-cpu".into();
    let expected = Runner::Process {
        program,
        allow_process: true,
    };
    assert_eq!(config.scorer.runner, expected);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases = [
        (
            "load_timeout = \"15m\"",
            "load_timeout = \"2h\"",
            "longer than total_timeout",
        ),
        (
            "name = \"gpu0\"",
            "name = \"gpu0\"\n[[worker]]\nname = \"gpu0\"",
            "must be unique",
        ),
        (
            "name = \"gpu0\"",
            "name = \"gpu0\"\ngpus = [\"GPU-1\"]\n[[worker]]\nname = \"b\"\ngpus = [\"GPU-1\"]",
            "owned by another",
        ),
        (
            "token_env = \"HF_TOKEN\"",
            "token_env = \"A\"\ntoken_file = \"b\"",
            "not both",
        ),
        ("\"wss://", "\"https://", "must start with ws"),
        (
            "runner = \"docker\"",
            "runner = \"docker\"\nimage = \"a:latest\"",
            "part of the rules",
        ),
        (
            "runner = \"docker\"",
            "runner = \"podman\"",
            "must be docker or process",
        ),
        (
            "rule = \"champion\"",
            "rule = \"champion\"\nz_min = 1",
            "unknown field",
        ),
    ];
    for (old, new, reason) in cases {
        let found = problems(&sample().replace(old, new), read_validator);
        assert_eq!(found.len(), 1, "{new}: {found:?}");
        assert!(found[0].contains(reason), "{new}: {found:?}");
    }
    let sample = sample();
    let era = &sample[sample.find("[[era]]").unwrap()..];
    let twice = problems(&format!("{sample}\n{era}"), read_validator);
    assert!(twice[0].contains("must ascend by from_block"), "{twice:?}");
}

#[test]
fn the_effective_text_loads_to_the_same_configuration() {
    let config = validator(&sample()).unwrap();
    let text = effective(&config).unwrap();
    assert_eq!(validator(&text).unwrap(), config, "{text}");
    assert!(text.contains("keep_free = \"20GiB\""), "{text}");
    let minimal = parse("[score_api]\nstore = \"x\"", Path::new("/a"), |root| {
        servers::score_api(root.section("score_api"))
    })
    .unwrap();
    assert_eq!(minimal.store, Path::new("/a/x"));
    assert!(minimal.listen.ip().is_loopback());
}

#[test]
fn other_roles_sections_are_passed_over_but_not_unknown_ones() {
    let text = "[score_api]\nstore = \"x\"\n[chain]\nnetuid = \"?\"\n[scoreapi]\na = 1";
    let found = problems(text, |root| servers::score_api(root.section("score_api")));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("line 5: scoreapi: unknown key"));
}

#[test]
fn secrets_come_from_a_file_or_variable_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let mut hub = validator(&sample()).unwrap().hub;
    hub.token_env = None;
    assert!(hub.token().unwrap().is_none());
    hub.token_file = Some(path.clone());
    assert!(hub.token().unwrap_err().to_string().contains("token"));
    std::fs::write(&path, "a secret\n").unwrap();
    let token = hub.token().unwrap().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&token), "a secret");
    std::fs::write(&path, "two\nlines").unwrap();
    assert!(matches!(hub.token(), Err(SecretError::Content(_))));
    hub.token_env = Some("ASSAY_TEST_UNSET_VARIABLE".into());
    assert!(matches!(hub.token(), Err(SecretError::Env(_))));
}

#[test]
fn judges_need_names_models_and_under_a_limit_prices() {
    let config = validator(&sample()).unwrap();
    let [provider] = config.judge.providers.as_slice() else {
        panic!("{:?}", config.judge.providers);
    };
    assert_eq!(provider.requests_per_minute.map(|n| n.get()), Some(5000));
    assert_eq!(config.judge.daily_spend_usd, Some(100.0));
    let text = sample()
        .replace("usd_per_million_input = 2.5\n", "")
        .replace("tokens_per_minute = 800000", "tokens_per_minute = 999")
        .replace("daily_spend_usd = 100.0", "daily_spend_usd = -1")
        + "\n[[judge.provider]]\nname = \"openai\"\nbase_url = \"ftp://x\"\n";
    let found = problems(&text, read_validator).join("\n");
    for expected in [
        "judge.provider[0].usd_per_million_input: is missing; judge.daily_spend_usd counts with it",
        "judge.provider[0].tokens_per_minute: is 999, must be 10000 to",
        "judge.daily_spend_usd: must lie above 0",
        "judge.provider[1].name: is \"openai\", must be unique",
        "judge.provider[1].model: is missing",
        "judge.provider[1].base_url: ftp://x/ must start with http:// or https://",
    ] {
        assert!(found.contains(expected), "{expected} is not in {found}");
    }
}
