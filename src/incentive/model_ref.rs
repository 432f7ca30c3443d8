//! Names of models and competitions, valid by construction.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A model repository on the hub: `namespace/name`, both plain path segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId {
    namespace: String,
    name: String,
}

/// A commit of a repository: 40 lower-case hex digits. Never a branch or a tag, which move.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(String);

/// A competition's id: 1 to 32 letters, digits, `-`, `_` or `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompetitionId(String);

/// A model: its repository, pinned to a revision where the commitment names one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// Repository on the hub.
    pub repo: RepoId,
    /// Commit that holds the model; `None`: the node pins the head at first sight.
    pub revision: Option<Revision>,
}

/// Why a text is no valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No `namespace/name` that the hub could hold.
    #[error(
        "{0:?} is not a repository: want namespace/name, each 1 to 96 of A-Z a-z 0-9 - _ . beginning and ending with a letter, digit or _, without -- or .., and not ending in .git"
    )]
    Repo(String),
    /// Not a full commit id.
    #[error("{0:?} is not a revision: want 40 lower-case hex digits")]
    Revision(String),
    /// Not a competition id.
    #[error("{0:?} is not a competition id: want 1 to 32 of A-Z a-z 0-9 - _ .")]
    Competition(String),
}

/// Quoted in errors, so bounded.
fn quoted(text: &str) -> String {
    text.chars().take(64).collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The hub's rule for one segment of a repository's id.
fn is_segment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 96
        && is_word(*first)
        && is_word(*last)
        && bytes
            .iter()
            .all(|b| is_word(*b) || matches!(b, b'-' | b'.'))
        && !text.contains("--")
        && !text.contains("..")
        && !text.ends_with(".git")
}

impl RepoId {
    /// Joins two segments.
    ///
    /// # Errors
    /// [`NameError::Repo`] unless both follow the hub's rule.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if !is_segment(namespace) || !is_segment(name) {
            return Err(NameError::Repo(quoted(&format!("{namespace}/{name}"))));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// User or organisation.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name below the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for RepoId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| NameError::Repo(quoted(text)))?;
        Self::new(namespace, name)
    }
}

impl Revision {
    /// The 40 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Revision {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 40 || !text.bytes().all(hex) {
            return Err(NameError::Revision(quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl CompetitionId {
    /// The id as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CompetitionId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| is_word(b) || matches!(b, b'-' | b'.');
        if text.is_empty() || text.len() > 32 || !text.bytes().all(plain) {
            return Err(NameError::Competition(quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(RepoId, Revision, CompetitionId);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CompetitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_follow_the_hubs_rule() {
        for good in ["a/b", "org/model-7B_v0.1", "_x/y_", "A.b/c.d"] {
            assert_eq!(good.parse::<RepoId>().unwrap().to_string(), good);
        }
        let long = format!("a/{}", "x".repeat(97));
        let bad = [
            "", "a", "/a", "a/", "a/b/c", "../b", "a/..", "a/b..c", "a/b--c", "a/-b", "a/b.",
            "a/.b", "a/b.git", "a/b c", "a/b\n", "a\\b/c", "ä/b", "a/b\0", "a/%2e", &long,
        ];
        for text in bad {
            assert!(text.parse::<RepoId>().is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn only_full_commit_ids_are_revisions() {
        assert!("ab".repeat(20).parse::<Revision>().is_ok());
        for bad in [
            "main",
            "",
            &"AB".repeat(20),
            &"a".repeat(39),
            &"g".repeat(40),
        ] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn names_are_checked_when_read_from_json() {
        assert!(serde_json::from_str::<RepoId>("\"a/../b\"").is_err());
        let id: CompetitionId = serde_json::from_str("\"d1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"d1\"");
    }
}
