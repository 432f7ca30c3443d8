//! Where models lie on disk, and which foreign names may take part in a path or URL.

use super::HubError;
use super::error::clean;
use crate::incentive::model_ref::NameError;
use crate::incentive::{RepoId, Revision};
use std::path::{Path, PathBuf};

/// The folder of one model: `<root>/models/<namespace>--<name>/<revision>`. No part of a repository's
/// id may hold `--`, so two repositories never share a folder.
///
/// # Errors
/// [`HubError::Invalid`] when `repo` is no `namespace/name` or `revision` no 40-digit commit id.
pub fn model_dir(root: &Path, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
    let (repo, revision) = (repo_id(repo)?, commit_id(revision)?);
    let folder = format!("{}--{}", repo.namespace(), repo.name());
    Ok(root.join("models").join(folder).join(revision.as_str()))
}

/// The repository, if the text names one by the hub's own rules.
pub(super) fn repo_id(repo: &str) -> Result<RepoId, HubError> {
    repo.parse().map_err(invalid)
}

/// The revision, if the text is a full commit id and not a branch, which may move.
pub(super) fn commit_id(revision: &str) -> Result<Revision, HubError> {
    revision.parse().map_err(invalid)
}

fn invalid(error: NameError) -> HubError {
    HubError::Invalid {
        message: error.to_string(),
    }
}

/// Checks that a file name of a listing is plain: no folder, no hidden file, nothing that a shell,
/// URL or log would read otherwise.
pub(super) fn check_file_name(name: &str) -> Result<(), HubError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = name.as_bytes();
    let plain = bytes.len() <= 200
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
    if plain {
        return Ok(());
    }
    Err(HubError::Invalid {
        message: format!("{:?} is no plain file name", clean(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_never_become_paths() {
        let revision = "0".repeat(40);
        let root = Path::new("/r");
        let dir = model_dir(root, "org-1/My.Model_7B", &revision).unwrap();
        let expected = format!("/r/models/org-1--My.Model_7B/{revision}");
        assert_eq!(dir, Path::new(&expected));
        for repo in [
            "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b.", "-a/b", "a--b/c",
            "a/b..c", "a/b.git", "a\\b/c", "a/b\0", "a/b c", "a/é", "a/b?x=1", "a/b%2e",
        ] {
            let made = model_dir(root, repo, &revision);
            assert!(matches!(made, Err(HubError::Invalid { .. })), "{repo:?}");
        }
        for revision in [
            "main",
            "",
            &"0".repeat(39),
            &"A".repeat(40),
            &"../".repeat(13),
        ] {
            assert!(model_dir(root, "a/b", revision).is_err(), "{revision:?}");
        }
    }

    #[test]
    fn only_plain_file_names_pass() {
        for good in ["config.json", "model-00001-of-00002.safetensors", "_a"] {
            assert!(check_file_name(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".parts",
            "a/b",
            "../a",
            "/etc/passwd",
            "a\\b",
            "a\0",
            "a\n",
            "-rf",
            "a b",
            "a%2fb",
            "a?b",
            "a#b",
            "é",
            "C:a",
            &"x".repeat(201),
        ] {
            assert!(check_file_name(bad).is_err(), "{bad:?}");
        }
    }
}
