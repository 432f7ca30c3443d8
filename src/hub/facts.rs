//! What a repository holds at one commit, before a byte of it is fetched.

use super::error::{Refusal, clean};
use super::layout::{commit_id, repo_id};
use super::wire::lost;
use super::{Absence, HubClient, HubError, PublishedDigest};
use crate::incentive::{RepoId, Revision};
use hf_hub::HFError;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use url::Url;

/// Most files of a repository that are read; one with more is out of bounds.
pub const MAX_FILES: usize = 1000;
/// Most bytes of one page of a listing.
const MAX_PAGE: usize = 4 << 20;
/// Most pages of a listing; the hub puts up to 1000 entries, folders included, on one.
const MAX_PAGES: usize = 5;
/// Longest path that is kept.
const MAX_PATH: usize = 512;

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoFacts {
    /// The commit, 40 lower-case hex digits: the one asked for, or the head's.
    pub revision: String,
    /// All files, by path. At most [`MAX_FILES`].
    pub files: Vec<RepoFile>,
}

/// One file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoFile {
    /// Path within the repository, as the hub gives it: hostile text, at most 512 bytes.
    pub path: String,
    /// Bytes of the content.
    pub size: u64,
    /// What the hub publishes about the content.
    pub digest: PublishedDigest,
}

impl RepoFile {
    /// SHA-256 of the content, published for large (LFS) files only.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.digest.sha256()
    }
}

impl HubClient {
    /// Looks a repository up: pins the commit (`revision`, or the head's where none is given) and
    /// lists its files with sizes and digests. One attempt; the caller retries.
    ///
    /// # Errors
    /// [`HubError::Unavailable`] when the hub says that the repository or commit is not publicly
    /// there, [`HubError::OutOfBounds`] for a listing larger than is read, and the errors of ours
    /// and the hub's.
    pub async fn facts(&self, repo: &str, revision: Option<&str>) -> Result<RepoFacts, HubError> {
        let repo = repo_id(repo)?;
        let asked = revision.map(commit_id).transpose()?;
        let revision = self.pin(&repo, asked.as_ref()).await?;
        let what = format!("the file list of {repo} at {revision}");
        let mut next = Some(self.wire.list_url(&repo, &revision)?);
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { break };
            let (headers, body) = self.wire.get_bounded(url.clone(), MAX_PAGE, &what).await?;
            read_page(&body, &what, &mut files)?;
            next = next_page(&headers, &url, &what)?;
        }
        if files.len() > MAX_FILES || next.is_some() {
            return Err(HubError::OutOfBounds {
                message: format!("{what} has more than {MAX_FILES} files; publish fewer"),
            });
        }
        files.sort_by(|a: &RepoFile, b| a.path.cmp(&b.path));
        Ok(RepoFacts {
            revision: revision.to_string(),
            files,
        })
    }

    async fn pin(&self, repo: &RepoId, asked: Option<&Revision>) -> Result<Revision, HubError> {
        let model = self.info.model(repo.namespace(), repo.name());
        let wanted = ["sha", "private", "gated", "disabled"];
        let wanted = wanted.map(str::to_owned).to_vec();
        let sent = model
            .info()
            .maybe_revision(asked.map(Revision::as_str))
            .expand(wanted)
            .send()
            .await;
        let info = sent.map_err(|error| from_hf(error, repo, self.wire.has_token()))?;
        let absent = |reason, how| {
            let message = format!("{repo} is {how}; make it public");
            Err(HubError::Unavailable { reason, message })
        };
        if info.disabled == Some(true) {
            return absent(Absence::Disabled, "disabled by the hub");
        }
        if info.private == Some(true) {
            return absent(Absence::Private, "private");
        }
        if !matches!(info.gated, None | Some(serde_json::Value::Bool(false))) {
            return absent(Absence::Gated, "gated");
        }
        let named = info.sha.unwrap_or_default();
        let head = named.parse().ok();
        head.filter(|head| asked.is_none_or(|asked| asked == head))
            .ok_or_else(|| {
                let asked = asked.map_or("the head", Revision::as_str);
                HubError::protocol(format!(
                    "the hub names commit {:?} for {asked} of {repo}",
                    clean(&named)
                ))
            })
    }
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

fn read_page(body: &[u8], what: &str, files: &mut Vec<RepoFile>) -> Result<(), HubError> {
    let entries: Vec<Entry> = serde_json::from_slice(body)
        .map_err(|error| HubError::protocol(format!("{what} is unreadable: {error}")))?;
    for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
        if entry.path.len() > MAX_PATH {
            return Err(HubError::OutOfBounds {
                message: format!("{what} has a path longer than {MAX_PATH} bytes"),
            });
        }
        let (digest, size) = match &entry.lfs {
            Some(lfs) => (PublishedDigest::sha256_from(&lfs.oid), lfs.size),
            None => (PublishedDigest::git_blob_from(&entry.oid), entry.size),
        };
        let Some(digest) = digest else {
            let path = clean(&entry.path);
            return Err(HubError::protocol(format!(
                "{what} has no digest for {path:?}"
            )));
        };
        files.push(RepoFile {
            path: entry.path,
            size,
            digest,
        });
    }
    Ok(())
}

/// The next page, from the `Link` header. Only one of the same listing is followed, so that the
/// token and the answer stay where they belong.
fn next_page(headers: &HeaderMap, current: &Url, what: &str) -> Result<Option<Url>, HubError> {
    let links = headers.get(LINK).and_then(|value| value.to_str().ok());
    let next = links.and_then(|links| {
        let link = links
            .split(',')
            .find(|link| link.contains("rel=\"next\""))?;
        link.split_once('<')?.1.split_once('>').map(|(url, _)| url)
    });
    let Some(next) = next else { return Ok(None) };
    current
        .join(next)
        .ok()
        .filter(|url| url.origin() == current.origin() && url.path() == current.path())
        .map(Some)
        .ok_or_else(|| HubError::protocol(format!("{what} goes on at another address")))
}

fn from_hf(error: HFError, repo: &RepoId, token_sent: bool) -> HubError {
    let (context, retry_after) = match error {
        HFError::RateLimited {
            retry_after,
            context,
        } => (context, retry_after),
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::RepoNotFound {
            context: Some(context),
            ..
        }
        | HFError::RevisionNotFound {
            context: Some(context),
            ..
        } => (context, None),
        HFError::Request { source, .. } => return lost(&repo.to_string(), source),
        other => {
            let text = clean(&other.to_string());
            return HubError::protocol(format!("the hub's answer for {repo} is unusable: {text}"));
        }
    };
    let refusal = Refusal {
        status: context.status.as_u16(),
        code: context.error_code,
        text: context.server_message,
        retry_after,
        token_sent,
    };
    refusal.into_error(&repo.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn page(body: &str) -> Result<Vec<RepoFile>, HubError> {
        let mut files = Vec::new();
        read_page(body.as_bytes(), "x", &mut files).map(|()| files)
    }

    #[test]
    fn a_page_gives_files_with_the_digest_of_their_kind() {
        let (sha1, sha256) = ("ab".repeat(20), "cd".repeat(32));
        let files = page(&format!(
            r#"[{{"type":"directory","oid":"{sha1}","size":0,"path":"d"}},
                {{"type":"file","oid":"{sha1}","size":7,"path":"../x\u0000"}},
                {{"type":"file","oid":"{sha1}","size":9,"path":"m.safetensors","xetHash":"1",
                  "lfs":{{"oid":"{sha256}","size":9,"pointerSize":135}}}}]"#
        ))
        .unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].path, "../x\0");
        assert_eq!(files[0].digest, PublishedDigest::GitBlob(sha1));
        assert_eq!(files[1].sha256(), Some(sha256.as_str()));
    }

    #[test]
    fn hostile_pages_are_refused() {
        let sha1 = "ab".repeat(20);
        let long = "p".repeat(MAX_PATH + 1);
        let file = |path: &str, oid: &str, size: &str| {
            page(&format!(
                r#"[{{"type":"file","oid":"{oid}","size":{size},"path":"{path}"}}]"#
            ))
        };
        assert!(matches!(
            file(&long, &sha1, "1"),
            Err(HubError::OutOfBounds { .. })
        ));
        assert!(matches!(
            file("a", "zz", "1"),
            Err(HubError::Transient { .. })
        ));
        assert!(matches!(
            file("a", &sha1, "-1"),
            Err(HubError::Transient { .. })
        ));
        assert!(matches!(
            file("a", &sha1, "1e30"),
            Err(HubError::Transient { .. })
        ));
        assert!(matches!(page("<html>"), Err(HubError::Transient { .. })));
    }

    #[test]
    fn only_the_same_listing_is_paged_through() {
        let here = Url::parse("http://hub.test/api/models/a/b/tree/0?recursive=true").unwrap();
        let follow = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_str(link).unwrap());
            next_page(&headers, &here, "x")
        };
        let next = follow("<http://hub.test/api/models/a/b/tree/0?cursor=9>; rel=\"next\"");
        assert_eq!(next.unwrap().unwrap().query(), Some("cursor=9"));
        assert!(
            follow("<http://hub.test/x>; rel=\"prev\"")
                .unwrap()
                .is_none()
        );
        assert!(next_page(&HeaderMap::new(), &here, "x").unwrap().is_none());
        for bad in [
            "https://evil.test/api/models/a/b/tree/0",
            "/api/models/c/d/tree/0",
        ] {
            assert!(follow(&format!("<{bad}>; rel=\"next\"")).is_err(), "{bad}");
        }
    }
}
