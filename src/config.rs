//! Configuration: TOML in, checked values out; every problem at once, with its key and line.
//!
//! One file may hold the sections of all roles, or each role its own file: a role reads its own
//! sections and passes over those of the others. Keys that no role knows are refused. Secrets are
//! named (`token_env`, `token_file`), never held. After loading nobody validates again.

mod dataset_api;
mod judge;
mod miner;
mod reader;
mod scorer;
mod servers;
mod validator;
mod value;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::DeTable;

pub use dataset_api::{Budget, Budgets, DatasetApi, DatasetChain, Group, LaneBounds, Protected};
pub use judge::{Judge, JudgeProvider};
pub use miner::Miner;
pub use reader::Problem;
pub use scorer::{Control, Runner, Scorer, Worker};
pub use servers::{Limits, ScoreApi};
pub use validator::{Chain, Dataset, Hub, Metrics, Store, Wallet, Weights};
pub use value::{Bytes, Network, SecretError};

use crate::incentive::Era;
use reader::{Report, Section};

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const VALIDATOR_SECTIONS: [&str; 11] = [
    "chain", "wallet", "store", "hub", "dataset", "judge", "scorer", "worker", "control",
    "weights", "metrics",
];

/// Sections that no miner has.
const VALIDATOR_ONLY: [&str; 7] = [
    "store", "dataset", "judge", "scorer", "worker", "weights", "metrics",
];

/// Everything that `assay run` needs to know, checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validator {
    /// `[chain]`.
    pub chain: Chain,
    /// `[wallet]`.
    pub wallet: Wallet,
    /// `[store]`.
    pub store: Store,
    /// `[hub]`.
    pub hub: Hub,
    /// `[dataset]`.
    pub dataset: Dataset,
    /// `[judge]`.
    pub judge: Judge,
    /// `[scorer]`.
    pub scorer: Scorer,
    /// `[weights]`.
    pub weights: Weights,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[control]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// `[[worker]]`.
    #[serde(rename = "worker")]
    pub workers: Vec<Worker>,
    /// `[[era]]`: append-only, ascending by `from_block`.
    #[serde(rename = "era")]
    pub eras: Vec<Era>,
}

/// Why a configuration cannot be used. All problems of the file are in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file holds problems.
    #[error("{}", list(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of the file.
        problems: Vec<Problem>,
    },
}

fn list(path: &Path, problems: &[Problem]) -> String {
    let many = if problems.len() == 1 {
        "problem"
    } else {
        "problems"
    };
    let mut text = format!("{} {many} in {}:", problems.len(), path.display());
    for problem in problems {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {problem}");
    }
    text
}

/// Loads what `assay run` needs.
///
/// # Errors
/// [`ConfigError`] with every problem of the file.
pub fn load_validator(path: &Path) -> Result<Validator, ConfigError> {
    load(path, read_validator)
}

/// Loads what follows the rounds of a subnet: `[chain]` and the eras.
///
/// # Errors
/// [`ConfigError`] with every problem of the file.
pub fn load_rounds(path: &Path) -> Result<(Chain, Vec<Era>), ConfigError> {
    load(path, |root| {
        let chain = validator::chain(root.section("chain"));
        let eras = eras(root);
        chain.map(|chain| (chain, eras))
    })
}

/// Loads what `assay dataset-api` needs.
///
/// # Errors
/// [`ConfigError`] with every problem of the file.
pub fn load_dataset_api(path: &Path) -> Result<DatasetApi, ConfigError> {
    load(path, |root| {
        dataset_api::dataset_api(root.section("dataset_api"))
    })
}

/// Loads what `assay score-api` needs.
///
/// # Errors
/// [`ConfigError`] with every problem of the file.
pub fn load_score_api(path: &Path) -> Result<ScoreApi, ConfigError> {
    load(path, |root| servers::score_api(root.section("score_api")))
}

/// Loads what `assay commit` and `assay chain` need.
///
/// # Errors
/// [`ConfigError`] with every problem of the file.
pub fn load_miner(path: &Path) -> Result<Miner, ConfigError> {
    load(path, miner::miner)
}

/// The roles that one file configures, each read and checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roles {
    /// The validator, when any of its sections is there.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    /// A miner, when the file has a chain and a wallet and nothing that only validators have.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub miner: Option<Miner>,
    /// The Dataset API, when its section is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_api: Option<DatasetApi>,
    /// The score API, when its section is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_api: Option<ScoreApi>,
}

/// Loads every role that the file configures.
///
/// # Errors
/// [`ConfigError`] with every problem of the file, also when it configures no role at all.
pub fn load_roles(path: &Path) -> Result<Roles, ConfigError> {
    load(path, |root| {
        let here = |keys: &[&str]| keys.iter().any(|key| root.has(key));
        let miner = root.has("chain") && root.has("wallet") && !here(&VALIDATOR_ONLY);
        let validator = !miner && (here(&VALIDATOR_SECTIONS) || here(&["era"]));
        let (dataset, score) = (here(&["dataset_api"]), here(&["score_api"]));
        if !(validator || miner || dataset || score) {
            root.problem("", "configures nothing; see the files under configs/");
        }
        Some(Roles {
            validator: validator.then(|| read_validator(root)).flatten(),
            miner: miner.then(|| miner::miner(root)).flatten(),
            dataset_api: dataset
                .then(|| dataset_api::dataset_api(root.section("dataset_api")))
                .flatten(),
            score_api: score
                .then(|| servers::score_api(root.section("score_api")))
                .flatten(),
        })
    })
}

fn load<T>(
    path: &Path,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let reason = "the file is larger than 1 MiB; this is no configuration of assay";
        return Err(unreadable(std::io::Error::other(reason)));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let full = std::path::absolute(path).map_err(unreadable)?;
    let base = full.parent().unwrap_or(Path::new("/"));
    parse(&text, base, read).map_err(|problems| ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}

fn parse<T>(
    text: &str,
    base: &Path,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let report = Report::new(text, base);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map(|span| span.start);
        report.add(at, "", format!("not TOML: {}", error.message()));
    }
    // Values read from a file that is not TOML would only bring up problems that are not there.
    let value = errors.is_empty().then(|| {
        let mut root = Section::root(table.get_ref(), &report);
        let value = read(&mut root);
        root.ignore(&VALIDATOR_SECTIONS);
        root.ignore(&["era", "dataset_api", "score_api"]);
        root.finish();
        value
    });
    let problems = report.into_problems();
    match value.flatten() {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}

fn read_validator(root: &mut Section<'_>) -> Option<Validator> {
    let chain = validator::chain(root.section("chain"));
    let wallet = validator::wallet(root.section("wallet"));
    let store = validator::store(root.section("store"));
    let hub = validator::hub(root.section("hub"));
    let dataset = validator::dataset(root.section("dataset"));
    let judge = judge::judge(root.section("judge"));
    let scorer = scorer::scorer(root.section("scorer"));
    let weights = validator::weights(root.section("weights"));
    let metrics = validator::metrics(root.section("metrics"));
    let control = scorer::control(root);
    let workers = scorer::workers(root);
    let eras = eras(root);
    Some(Validator {
        chain: chain?,
        wallet: wallet?,
        store: store?,
        hub: hub?,
        dataset: dataset?,
        judge: judge?,
        scorer: scorer?,
        control,
        weights,
        metrics,
        workers,
        eras,
    })
}

fn eras(root: &mut Section<'_>) -> Vec<Era> {
    let eras = root.values("era", |era: &Era| {
        let found = era.validate().into_iter();
        found.map(|p| (p.key.to_owned(), p.reason)).collect()
    });
    if eras.is_empty() && !root.has("era") {
        root.problem("era", "is missing; give at least one [[era]]");
    }
    if !eras.is_sorted_by(|a, b| a.from_block < b.from_block) {
        root.problem(
            "era",
            "entries must ascend by from_block; append new ones at the end",
        );
    }
    eras
}

/// A checked configuration as TOML, every default filled in. Holds no secret, for the types hold
/// none; loading the text again gives the same configuration.
///
/// # Errors
/// When a value has no TOML form, which is a bug.
pub fn effective<T: Serialize>(config: &T) -> Result<String, toml::ser::Error> {
    toml::to_string(config)
}

#[cfg(test)]
mod tests;
