//! House rules as a test: reads source text only, so it stays under a second.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the crate each module may name. What is not listed is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("bittensor", &[]),
    ("fault", &[]),
    ("clock", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    ("retry", &["fault"]),
    ("incentive", &["bittensor"]),
    ("admission", &["incentive", "bittensor", "fault"]),
    ("config", &["bittensor", "incentive"]),
    (
        "chain",
        &[
            "bittensor",
            "incentive",
            "fault",
            "retry",
            "clock",
            "shutdown",
        ],
    ),
    ("store", &["bittensor", "incentive", "fault", "clock"]),
    (
        "hub",
        &["bittensor", "incentive", "fault", "retry", "clock"],
    ),
    (
        "scoring",
        &[
            "bittensor",
            "incentive",
            "admission",
            "fault",
            "retry",
            "clock",
            "shutdown",
        ],
    ),
    ("dataset", &["bittensor", "fault", "retry", "clock"]),
    ("devchain", &["bittensor", "clock"]),
    ("web", &["fault", "clock", "shutdown"]),
    ("cli", &["bittensor", "config", "dataset", "telemetry"]),
];

/// Modules that may name everything below `cmd`.
const JOINING: &[&str] = &["service", "dataset_api", "score_api", "demo", "cmd"];

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files_under(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in folders {
        files_under(&root().join(folder), "rs", &mut found);
    }
    assert!(!found.is_empty(), "no sources under {folders:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

fn report(rule: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.join("\n  ")
    );
}

/// The top module that a source under `src/` belongs to.
fn module_of(path: &Path) -> String {
    let first = path.iter().nth(1).unwrap().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules named by `crate::x` outside comments.
fn named_modules(text: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let ident = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            named.push((index + 1, ident));
        }
    }
    named
}

#[test]
fn arrows_point_one_way() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut bad = Vec::new();
    for (path, text) in sources(&["src"]) {
        let module = module_of(&path);
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        let joining = JOINING.contains(&module.as_str());
        for (line, named) in named_modules(&text) {
            if named.is_empty() || named == module {
                continue;
            }
            let fine = match allowed.get(module.as_str()) {
                Some(list) => list.contains(&named.as_str()),
                None if module == "cmd" => true,
                None if joining => named != "cmd",
                None => false,
            };
            if !fine {
                bad.push(format!(
                    "{}:{line}: {module} may not use {named}",
                    path.display()
                ));
            }
        }
    }
    report("modules outside the table of arrows", &bad);
}

#[test]
fn grouped_imports_of_the_crate_are_not_used() {
    // `use crate::{a, b}` would hide names from the arrows test.
    let grouped = "crate::".to_owned() + "{";
    let hidden = |(path, text): &(PathBuf, String)| {
        text.contains(&grouped).then(|| path.display().to_string())
    };
    let bad: Vec<_> = sources(&["src"]).iter().filter_map(hidden).collect();
    report("name one module per `use crate::…` line", &bad);
}

#[test]
fn files_are_short() {
    let all = sources(&["src", "tests", "benches", "examples", "docker"]);
    let long = |(path, text): &(PathBuf, String)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
    };
    let bad: Vec<_> = all.iter().filter_map(long).collect();
    report("files over 500 lines", &bad);
}

#[test]
fn modules_are_named_by_subject() {
    let vague = [
        "utils", "util", "common", "helpers", "helper", "manager", "misc", "mod",
    ];
    let bad: Vec<_> = sources(&["src", "docker"])
        .iter()
        .filter(|(path, _)| {
            path.iter()
                .any(|part| vague.contains(&part.to_string_lossy().trim_end_matches(".rs")))
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    report("vague module names", &bad);
}

#[test]
fn sql_lives_in_store_alone() {
    let statements = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "CREATE TABLE",
    ];
    let mut bad = Vec::new();
    for (path, text) in sources(&["src"]) {
        if module_of(&path) == "store" {
            continue;
        }
        let sql = text.contains("rusqlite")
            || text
                .lines()
                .any(|l| statements.iter().any(|s| l.contains(&format!("\"{s}"))));
        if sql {
            bad.push(path.display().to_string());
        }
    }
    report("SQL outside store/", &bad);
}

#[test]
fn subxt_lives_in_chain_and_devchain_alone() {
    let mut bad = Vec::new();
    for (path, text) in sources(&["src"]) {
        let module = module_of(&path);
        let code = text
            .lines()
            .map(|l| l.split("//").next().unwrap_or_default());
        if module != "chain"
            && module != "devchain"
            && code.into_iter().any(|l| l.contains("subxt::"))
        {
            bad.push(path.display().to_string());
        }
    }
    report("subxt outside chain/ and devchain/", &bad);
}

#[test]
fn every_config_stands_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut found = Vec::new();
    files_under(&root().join("configs"), "toml", &mut found);
    assert!(!found.is_empty(), "configs/ holds no TOML file");
    let names = found
        .iter()
        .map(|p| p.strip_prefix(root()).unwrap().display().to_string());
    let bad: Vec<_> = names.filter(|name| !readme.contains(name)).collect();
    report("configs that README.md does not mention", &bad);
}

#[test]
fn nothing_is_left_open_and_no_machine_path_is_baked_in() {
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "/ro".to_owned() + "ot/",
        "/wo".to_owned() + "rk/",
    ];
    let mut bad = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches", "examples", "docker"]) {
        for (index, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|m| line.contains(m.as_str())) {
                bad.push(format!("{}:{}: {mark}", path.display(), index + 1));
            }
        }
    }
    report("open ends or machine paths", &bad);
}
