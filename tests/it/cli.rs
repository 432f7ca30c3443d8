//! The binary as an operator meets it: exit codes, messages, and roles started by hand.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn assay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command
        .args(arguments)
        .env_remove("ASSAY_CONFIG")
        .env_remove("ASSAY_LOG")
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    assay(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A role that runs until it is told to stop; killed when a test fails before that.
struct Role {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    fn start(arguments: &[&str]) -> Self {
        let mut child = assay(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn stop(mut self) -> i32 {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it ended by a signal");
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "it does not stop"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_succeeds_and_wrong_usage_is_64() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in [
        "run",
        "dataset-api",
        "score-api",
        "demo",
        "devchain",
        "check",
        "commit",
        "chain",
        "corpus",
    ] {
        assert!(out(&help).contains(command), "{command} is not offered");
        let own = run(&[command, "--help"]);
        assert_eq!(own.status.code(), Some(0), "{command}");
    }
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["run"],
        &["run", "--config"],
        &["--log", "a=b=c", "demo", "--x"],
    ] {
        let refused = run(wrong);
        assert_eq!(refused.status.code(), Some(64), "{wrong:?}");
        assert_eq!(out(&refused), "", "{wrong:?}");
    }
    let filter = run(&[
        "--log",
        "assay=loudest",
        "corpus",
        "list",
        "--packs",
        "/nonexistent",
    ]);
    assert_eq!(filter.status.code(), Some(64));
    assert!(err(&filter).contains("log filter"));
}

#[test]
fn a_wrong_configuration_is_64_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(
        folder.path(),
        "a.toml",
        "[chain]\nnetuid = -1\nendpoint = 3\n[hub]\ntoken = \"hf_secret\"\n",
    );
    for role in ["run", "check"] {
        let refused = run(&[role, "--config", &config]);
        assert_eq!(refused.status.code(), Some(64), "{role}");
        let text = err(&refused);
        for expected in [
            "line 2: chain.netuid:",
            "line 3: chain.endpoint: unknown key",
            "line 5: hub.token: secrets do not belong",
            "judge.provider: is missing",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains("hf_secret"));
    }
    let missing = run(&["score-api", "--config", "/nonexistent.toml"]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(err(&missing).contains("/nonexistent.toml cannot be read"));
}

#[test]
fn a_corpus_becomes_a_pack_that_the_dataset_api_serves_until_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let line =
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]}"#;
    let input = write(
        folder.path(),
        "in.jsonl",
        &format!("{line}\nbroken\n{line}\n"),
    );
    let (corpus, packs) = (path("corpus"), path("packs"));
    let imported = run(&[
        "corpus",
        "import",
        "--corpus",
        &corpus,
        "--created",
        "2026-11-20",
        &input,
    ]);
    assert_eq!(imported.status.code(), Some(0), "{}", err(&imported));
    let text = out(&imported);
    let expected = "added 1, duplicates 1, rejected 1; the corpus holds 1; what was not taken: ";
    let rejects = text.strip_prefix(expected).expect(&text).trim();
    let rejects = std::fs::read_to_string(rejects).unwrap();
    assert!(
        rejects.contains(r#""record":2,"reason":"not a conversation"#),
        "{rejects}"
    );
    let hotkey = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wallet/phrase");
    let seal = [
        "corpus",
        "seal",
        "--corpus",
        &corpus,
        "--packs",
        &packs,
        "--hotkey-file",
        hotkey,
    ];
    let sealed = run(&seal);
    let listed = run(&["corpus", "list", "--packs", &packs]);
    assert_eq!(out(&sealed), out(&listed));
    let manifest: serde_json::Value = serde_json::from_str(&out(&listed)).unwrap();
    let nothing = run(&[&seal[..], &["--to", "2020-01-01"]].concat());
    assert_eq!(nothing.status.code(), Some(64));

    let config = write(
        folder.path(),
        "api.toml",
        "[dataset_api]\nlisten = \"127.0.0.1:0\"\npacks = \"packs\"\n",
    );
    let mut role = Role::start(&["dataset-api", "--config", &config]);
    let first = role.line();
    let url = first.strip_prefix("listening on ").expect(&first);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let list: serde_json::Value = runtime.block_on(async {
        let answer = reqwest::get(format!("{url}/v1/packs")).await.unwrap();
        answer.json().await.unwrap()
    });
    assert_eq!(list["packs"][0], manifest);
    assert_eq!(role.stop(), 0);
}

#[test]
fn check_prints_the_effective_values_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let sample = include_str!("../../configs/demo.toml")
        .replace("127.0.0.1:8", "127.0.0.1:1")
        .replace("ws://127.0.0.1:9944", "ws://127.0.0.1:1")
        .replace("127.0.0.1:9100", "127.0.0.1:0")
        .replace("request_timeout = \"20s\"", "request_timeout = \"2s\"")
        .replace(
            "model = \"assay-dev-judge\"",
            "model = \"assay-dev-judge\"\nkey_env = \"CLI_TEST_KEY\"",
        );
    let config = write(folder.path(), "demo.toml", &sample);
    let checked = assay(&["check", "--config", &config])
        .env("CLI_TEST_KEY", "very-secret")
        .output()
        .unwrap();
    let text = out(&checked);
    assert_eq!(checked.status.code(), Some(69), "{text}");
    assert!(
        text.contains("stall_timeout = \"1m\""),
        "no default is shown: {text}"
    );
    assert!(text.contains("key_env = \"CLI_TEST_KEY\""));
    for secret in [&text, &err(&checked)] {
        assert!(!secret.contains("very-secret"), "{secret}");
    }
    let at = text.find("# surroundings").unwrap();
    for name in ["hotkey", "chain", "scorer", "hub", "dataset", "judge"] {
        let line = text[at..]
            .lines()
            .find(|l| l.get(6..).is_some_and(|l| l.starts_with(name)));
        let line = line.unwrap_or_else(|| panic!("no line for {name}: {text}"));
        assert!(line.starts_with("FAIL "), "{line}");
    }
    assert!(text.contains("ok    disk"), "{text}");
    assert!(text.contains("warn  store"), "{text}");
    assert!(
        err(&checked).contains("6 needed things are missing"),
        "{}",
        err(&checked)
    );
}
