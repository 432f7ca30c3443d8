//! Whether a submission may be queued, from facts that others gathered. No byte of the model is
//! needed yet.

use super::era::{AdmissionRules, Era};
use super::rejection::{Rejection, RejectionCode};
use super::submission::Submission;
use crate::bittensor::BlockNumber;

/// Most shards of one model.
pub const SHARDS_MAX: usize = 128;
/// Largest `config.json` and `generation_config.json`.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Largest `tokenizer.json`.
pub const TOKENIZER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest `model.safetensors.index.json`.
pub const INDEX_BYTES_MAX: u64 = 32 * 1024 * 1024;

const INDEX_NAME: &str = "model.safetensors.index.json";

/// One file of a repository, as the hub lists it at the pinned revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoFile {
    /// Path within the repository; hostile.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex SHA-256 of the content, where the hub publishes one.
    pub sha256: Option<String>,
}

/// The repository at the pinned revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repo<'a> {
    /// Publicly there, with these files.
    Public(&'a [RepoFile]),
    /// Private, deleted, gated or without that revision, and confirmed so: a hub that does not
    /// answer is a fault and never gets here. Holds the hub's reason.
    Unavailable(&'a str),
}

/// What must be known about a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// `BlockAtRegistration` of the hotkey at the snapshot; `None`: not registered.
    pub registered_at: Option<BlockNumber>,
    /// What the hub says.
    pub repo: Repo<'a>,
}

/// The files of a model that are downloaded, and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: RepoFile,
    /// `tokenizer.json`.
    pub tokenizer: RepoFile,
    /// `generation_config.json`, where there is one.
    pub generation_config: Option<RepoFile>,
    /// `model.safetensors.index.json` of a sharded model.
    pub index: Option<RepoFile>,
    /// The weights, ordered by name: one file, or all shards.
    pub weights: Vec<RepoFile>,
}

impl ModelFiles {
    /// Every file, the small ones first.
    pub fn all(&self) -> impl Iterator<Item = &RepoFile> {
        [&self.config, &self.tokenizer]
            .into_iter()
            .chain(&self.generation_config)
            .chain(&self.index)
            .chain(&self.weights)
    }

    /// Sum of the weight files in bytes.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        sum_of_sizes(&self.weights)
    }
}

/// All rules that need no download: [`check_commitment`], then the repository.
///
/// # Errors
/// A [`Rejection`] that names the first violation.
pub fn check(
    submission: &Submission,
    facts: &Facts<'_>,
    era: &Era,
) -> Result<ModelFiles, Rejection> {
    check_commitment(submission, facts.registered_at, &era.admission)?;
    match facts.repo {
        Repo::Public(files) => select_files(files, &era.admission),
        Repo::Unavailable(reason) => Err(unavailable(submission, reason)),
    }
}

/// The verdict on a repository that the hub says is not publicly there.
#[must_use]
pub fn unavailable(submission: &Submission, reason: &str) -> Rejection {
    let detail = format!(
        "{} is not publicly available: {reason}.",
        submission.model.repo
    );
    Rejection::new(RejectionCode::RepoUnavailable, detail)
}

/// The rules that need nothing but the chain.
///
/// # Errors
/// A [`Rejection`] that names the first violation.
pub fn check_commitment(
    submission: &Submission,
    registered_at: Option<BlockNumber>,
    rules: &AdmissionRules,
) -> Result<(), Rejection> {
    check_registration(submission, registered_at)?;
    let reject = |code, detail: String| Err(Rejection::new(code, detail));
    let block = submission.block;
    if block < rules.earliest_commit_block {
        let earliest = rules.earliest_commit_block;
        let detail = format!("Committed at block {block}; the era accepts from block {earliest}.");
        return reject(RejectionCode::CommittedBeforeEra, detail);
    }
    if !rules.competitions.contains(&submission.competition) {
        let detail = format!("The era offers no competition {}.", submission.competition);
        return reject(RejectionCode::CompetitionUnknown, detail);
    }
    if !rules.templates.contains(&submission.template) {
        let detail = format!(
            "The era does not offer the template {}.",
            submission.template
        );
        return reject(RejectionCode::TemplateUnknown, detail);
    }
    Ok(())
}

/// The rule that holds in every era: the commitment belongs to the hotkey's present registration.
///
/// # Errors
/// A [`Rejection`].
pub fn check_registration(
    submission: &Submission,
    registered_at: Option<BlockNumber>,
) -> Result<(), Rejection> {
    let block = submission.block;
    let Some(registered_at) = registered_at else {
        let detail = format!("{} holds no uid on the subnet.", submission.hotkey);
        return Err(Rejection::new(RejectionCode::NotRegistered, detail));
    };
    if block < registered_at {
        let detail = format!("Committed at block {block}, registered at block {registered_at}.");
        let code = RejectionCode::CommittedBeforeRegistration;
        return Err(Rejection::new(code, detail));
    }
    Ok(())
}

/// Picks a model's files out of a listing. Files that no rule asks for are left where they are.
///
/// # Errors
/// A [`Rejection`] for hostile names, missing files, other formats and sizes beyond the limits.
pub fn select_files(files: &[RepoFile], rules: &AdmissionRules) -> Result<ModelFiles, Rejection> {
    check_names(files)?;
    let weights = select_weights(files)?;
    let sharded = weights.len() > 1 || weights.iter().any(|w| w.path != "model.safetensors");
    let selected = ModelFiles {
        config: required(files, "config.json", CONFIG_BYTES_MAX)?,
        tokenizer: required(files, "tokenizer.json", TOKENIZER_BYTES_MAX)?,
        generation_config: optional(files, "generation_config.json", CONFIG_BYTES_MAX)?,
        index: match sharded {
            true => Some(required(files, INDEX_NAME, INDEX_BYTES_MAX)?),
            false => None,
        },
        weights,
    };
    let total = selected.weight_bytes();
    if total > rules.max_model_bytes {
        let detail = format!(
            "The weights have {total} bytes, more than {}.",
            rules.max_model_bytes
        );
        return Err(Rejection::new(RejectionCode::TooLarge, detail));
    }
    if total < rules.min_model_bytes {
        let detail = format!(
            "The weights have {total} bytes, fewer than {}.",
            rules.min_model_bytes
        );
        return Err(Rejection::new(RejectionCode::TooSmall, detail));
    }
    Ok(selected)
}

/// No name may leave the folder it is put into, and none may be listed twice.
fn check_names(files: &[RepoFile]) -> Result<(), Rejection> {
    let mut seen = std::collections::HashSet::new();
    for RepoFile { path, .. } in files {
        let escapes = path.is_empty()
            || path.len() > 512
            || path.starts_with('/')
            || path.split('/').any(|part| matches!(part, "" | "." | ".."))
            || path.chars().any(|c| c.is_control() || c == '\\');
        if escapes || !seen.insert(path) {
            let detail = format!("The repository lists {path:?}, which is no plain file name.");
            return Err(Rejection::new(RejectionCode::FileName, detail));
        }
    }
    Ok(())
}

fn find<'a>(files: &'a [RepoFile], name: &str) -> Option<&'a RepoFile> {
    files.iter().find(|f| f.path == name)
}

fn optional(files: &[RepoFile], name: &str, limit: u64) -> Result<Option<RepoFile>, Rejection> {
    let Some(file) = find(files, name) else {
        return Ok(None);
    };
    if file.size > limit {
        let detail = format!("{name} has {} bytes, more than {limit}.", file.size);
        return Err(Rejection::new(RejectionCode::TooLarge, detail));
    }
    Ok(Some(file.clone()))
}

fn required(files: &[RepoFile], name: &str, limit: u64) -> Result<RepoFile, Rejection> {
    optional(files, name, limit)?.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Rejection {
    Rejection::new(
        RejectionCode::FileMissing,
        format!("The repository has no {name}."),
    )
}

/// `model.safetensors`, or `model-00001-of-0000n.safetensors` with all n parts.
fn select_weights(files: &[RepoFile]) -> Result<Vec<RepoFile>, Rejection> {
    let single = find(files, "model.safetensors");
    let shards: Vec<_> = files
        .iter()
        .filter_map(|f| shard_numbers(&f.path).map(|numbers| (numbers, f)))
        .collect();
    let weights = match (single, shards.first()) {
        (Some(file), None) => vec![file.clone()],
        (None, Some(((_, total), _))) => all_shards(files, *total)?,
        (Some(_), Some(_)) => {
            let detail = "The repository has both model.safetensors and shards of a model.";
            return Err(Rejection::new(RejectionCode::FileName, detail));
        }
        (None, None) => return Err(not_safetensors(files)),
    };
    match weights.iter().find(|w| w.size == 0) {
        Some(empty) => {
            let detail = format!("{} is empty.", empty.path);
            Err(Rejection::new(RejectionCode::Format, detail))
        }
        None => Ok(weights),
    }
}

fn all_shards(files: &[RepoFile], total: usize) -> Result<Vec<RepoFile>, Rejection> {
    if total == 0 || total > SHARDS_MAX {
        let detail = format!("The model has {total} shards; 1 to {SHARDS_MAX} are accepted.");
        return Err(Rejection::new(RejectionCode::FileName, detail));
    }
    let listed = files.iter().filter(|f| shard_numbers(&f.path).is_some());
    if listed.count() > total {
        let detail = "The repository has shards of more than one model.";
        return Err(Rejection::new(RejectionCode::FileName, detail));
    }
    (1..=total)
        .map(|part| {
            let name = format!("model-{part:05}-of-{total:05}.safetensors");
            find(files, &name).cloned().ok_or_else(|| missing(&name))
        })
        .collect()
}

fn not_safetensors(files: &[RepoFile]) -> Rejection {
    const OTHERS: [&str; 6] = [".bin", ".pt", ".pth", ".pkl", ".ckpt", ".gguf"];
    let other = files
        .iter()
        .find(|f| OTHERS.iter().any(|end| f.path.ends_with(end)));
    let detail = match other {
        Some(file) => format!("The weights are offered as {:?} only.", file.path),
        None => "The repository has no model.safetensors and no shards of one.".to_owned(),
    };
    Rejection::new(RejectionCode::NotSafetensors, detail)
}

/// Part and total of `model-XXXXX-of-XXXXX.safetensors`.
fn shard_numbers(path: &str) -> Option<(usize, usize)> {
    let numbers = path.strip_prefix("model-")?.strip_suffix(".safetensors")?;
    let (part, total) = numbers.split_once("-of-")?;
    let number = |text: &str| {
        let five = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        five.then(|| text.parse().ok()).flatten()
    };
    Some((number(part)?, number(total)?))
}

/// Sum of sizes that a hub may make up.
fn sum_of_sizes(files: &[RepoFile]) -> u64 {
    files
        .iter()
        .fold(0, |sum: u64, f| sum.saturating_add(f.size))
}

#[cfg(test)]
mod tests;
