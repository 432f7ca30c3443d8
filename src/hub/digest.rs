//! Digests as the hub publishes them, and the hasher that recomputes them from bytes.

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;

/// What the hub publishes about a file's content, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedDigest {
    /// SHA-256 of the content; published for large (LFS) files.
    Sha256(String),
    /// Git's blob id, SHA-1 of `"blob <size>\0"` and the content; published for all other files.
    GitBlob(String),
}

impl PublishedDigest {
    /// A SHA-256, if the text is 64 lower-case hex digits.
    #[must_use]
    pub fn sha256_from(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self::Sha256(text.to_owned()))
    }

    /// A git blob id, if the text is 40 lower-case hex digits.
    #[must_use]
    pub fn git_blob_from(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitBlob(text.to_owned()))
    }

    /// The SHA-256, where that is what the hub publishes.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Self::Sha256(hex) => Some(hex),
            Self::GitBlob(_) => None,
        }
    }

    /// The hex digits, as they stand in the hub's `ETag`.
    #[must_use]
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

impl fmt::Display for PublishedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256:{hex}"),
            Self::GitBlob(hex) => write!(f, "git:{hex}"),
        }
    }
}

/// Whether the text is exactly `len` lower-case hex digits.
fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Digests of one content, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256.
    pub sha256: String,
    /// Git blob id, where it was asked for.
    pub git_blob: Option<String>,
}

impl Digests {
    /// The digest of the kind that was published.
    #[must_use]
    pub fn like(&self, published: &PublishedDigest) -> Option<PublishedDigest> {
        match published {
            PublishedDigest::Sha256(_) => Some(PublishedDigest::Sha256(self.sha256.clone())),
            PublishedDigest::GitBlob(_) => self.git_blob.clone().map(PublishedDigest::GitBlob),
        }
    }
}

/// Hashes a content as it streams by: always SHA-256, and git's blob id where wanted.
#[derive(Clone)]
pub struct Hasher {
    sha256: Sha256,
    git_blob: Option<Sha1>,
}

impl Hasher {
    /// For SHA-256 alone.
    #[must_use]
    pub fn sha256() -> Self {
        Self {
            sha256: Sha256::new(),
            git_blob: None,
        }
    }

    /// For SHA-256 and the git blob id of a content of `size` bytes.
    #[must_use]
    pub fn with_git_blob(size: u64) -> Self {
        Self {
            sha256: Sha256::new(),
            git_blob: Some(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    /// For SHA-256 and the kind of digest that was published for a content of `size` bytes.
    #[must_use]
    pub fn like(published: &PublishedDigest, size: u64) -> Self {
        match published {
            PublishedDigest::Sha256(_) => Self::sha256(),
            PublishedDigest::GitBlob(_) => Self::with_git_blob(size),
        }
    }

    /// The next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git_blob) = &mut self.git_blob {
            git_blob.update(bytes);
        }
    }

    /// The digests of all bytes seen.
    #[must_use]
    pub fn finish(self) -> Digests {
        Digests {
            sha256: hex::encode(self.sha256.finalize()),
            git_blob: self.git_blob.map(|sha1| hex::encode(sha1.finalize())),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_agree_with_git_and_sha256sum() {
        let mut hasher = Hasher::with_git_blob(6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let digests = hasher.finish();
        // `printf 'hello\n' | git hash-object --stdin` and `| sha256sum`
        assert_eq!(
            digests.git_blob.as_deref(),
            Some("ce013625030ba8dba906f756967f9e9ca394464a")
        );
        assert_eq!(
            digests.sha256,
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_digest() {
        assert!(PublishedDigest::sha256_from(&"a0".repeat(32)).is_some());
        for bad in [
            "",
            "A0",
            &"g0".repeat(32),
            &"A0".repeat(32),
            &"a0".repeat(20),
        ] {
            assert_eq!(PublishedDigest::sha256_from(bad), None, "{bad:?}");
        }
        assert!(PublishedDigest::git_blob_from(&"a0".repeat(20)).is_some());
        assert_eq!(PublishedDigest::git_blob_from(&"a0".repeat(32)), None);
    }
}
