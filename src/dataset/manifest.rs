//! What is said, and signed, about an object.

use serde::{Deserialize, Serialize};

use super::signed::Statement;
use super::{Day, ObjectDigest};

/// Value of [`Manifest::schema`].
pub const SCHEMA: &str = "assay-object/1";

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Conversations of a stretch of days, one JSON object a line.
    Pack,
    /// The items of one round.
    Items,
}

/// Format of the plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaType {
    /// One JSON document.
    #[serde(rename = "application/json")]
    Json,
    /// One JSON object a line.
    #[serde(rename = "application/x-ndjson")]
    Ndjson,
}

impl MediaType {
    /// As `Content-Type` carries it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// A ready form of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The plain bytes.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Zstd];

    /// The compressed forms.
    pub const COMPRESSED: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// As `Content-Encoding` carries it; `None` for plain bytes.
    #[must_use]
    pub fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// What follows the hex digest in the file's name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Length and digest of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: ObjectDigest,
}

/// Facts of every form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forms {
    /// The plain bytes; its digest is the object's.
    pub identity: FileFacts,
    /// Compressed with gzip.
    pub gzip: FileFacts,
    /// Compressed with zstd.
    pub zstd: FileFacts,
}

impl Forms {
    /// Facts of one form.
    #[must_use]
    pub fn get(&self, form: Form) -> FileFacts {
        match form {
            Form::Identity => self.identity,
            Form::Gzip => self.gzip,
            Form::Zstd => self.zstd,
        }
    }
}

/// An object's manifest. Whoever has it signed can check every byte before using it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What it is.
    pub kind: Kind,
    /// Digest of the plain bytes.
    pub digest: ObjectDigest,
    /// Format of the plain bytes.
    pub media_type: MediaType,
    /// The files.
    pub forms: Forms,
    /// The index of a pack, see `dataset::index`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<FileFacts>,
    /// Number of conversations.
    pub count: u64,
    /// When it was sealed, unix milliseconds.
    pub sealed_ms: u64,
    /// Earliest day in it.
    pub from: Day,
    /// Latest day in it.
    pub to: Day,
}

impl Statement for Manifest {
    const TYPE: &'static str = "application/vnd.assay.object+json";
}

impl Manifest {
    /// What makes it unusable, if anything: another schema, or facts that contradict each other.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        if self.schema != SCHEMA {
            return Some("it is of another schema");
        }
        if self.forms.identity.sha256 != self.digest {
            return Some("the digest of its plain form is not its own");
        }
        if self.index.is_some() != (self.kind == Kind::Pack) {
            return Some("a pack has an index, and nothing else has one");
        }
        None
    }
}
