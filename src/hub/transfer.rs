//! One file's way from the hub to the disk.

use super::blobs::{Flights, Place};
use super::download::{LocalFile, Meter, Pin};
use super::error::clean;
use super::pace::Pace;
use super::part::{Part, hash_finished};
use super::wire::{Wire, header, lost};
use super::{Digests, HubClient, HubError, HubSettings, PublishedDigest, RepoFile, TransientKind};
use crate::retry::{RetryPolicy, retry};
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_RANGE, RANGE,
};
use reqwest::{Response, StatusCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The download of one file.
pub(super) struct Transfer<'a> {
    wire: &'a Wire,
    settings: &'a HubSettings,
    pace: &'a Pace,
    flights: &'a Flights,
    pin: &'a Pin<'a>,
    file: &'a RepoFile,
    meter: &'a Meter<'a>,
    past: Mutex<Past>,
}

/// What earlier attempts of this transfer found out.
#[derive(Default)]
struct Past {
    /// The strong tag under which the bytes held so far came.
    tag: Option<HeaderValue>,
    /// The wrong digest of the last complete content.
    wrong: Option<PublishedDigest>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        client: &'a HubClient,
        pin: &'a Pin<'a>,
        file: &'a RepoFile,
        meter: &'a Meter<'a>,
    ) -> Self {
        Self {
            wire: &client.wire,
            settings: &client.settings,
            pace: &client.pace,
            flights: &client.flights,
            pin,
            file,
            meter,
            past: Mutex::default(),
        }
    }

    /// Brings the file under its name, within the settings' attempts.
    pub(super) async fn run(&self) -> Result<LocalFile, HubError> {
        let name = self.pin.dest.join(&self.file.path);
        let place = Place::of(self.pin, self.file);
        if let Some(digests) = hash_finished(name.clone(), self.file.clone()).await? {
            self.meter.add(self.file.size);
            return Ok(self.local(digests));
        }
        let _turn = self.flights.turn(&place.whole).await;
        // Another model may hold the same content already.
        if place.whole != name
            && let Some(digests) = hash_finished(place.whole.clone(), self.file.clone()).await?
        {
            place.link(&name)?;
            self.meter.add(self.file.size);
            return Ok(self.local(digests));
        }
        let policy = RetryPolicy {
            attempts: self.settings.attempts,
            total_time: self.settings.download_deadline,
            first_pause: self.settings.first_pause,
            longest_pause: Duration::from_secs(30),
        };
        retry(&policy, || self.attempt(&place)).await
    }

    async fn attempt(&self, place: &Place) -> Result<LocalFile, HubError> {
        self.confirm().await?;
        let mut part = Part::open(place.part.clone(), self.file.clone()).await?;
        self.meter.add(part.len());
        if let Err(error) = self.fill(&mut part).await {
            self.meter.take_back(part.len());
            return Err(error);
        }
        let digests = part.digests().await?;
        part.publish(place.whole.clone()).await?;
        place.link(&self.pin.dest.join(&self.file.path))?;
        Ok(self.local(digests))
    }

    /// Asks the hub once more what it publishes: commit, size and digest must be those that were
    /// pinned, else nothing is fetched.
    async fn confirm(&self) -> Result<(), HubError> {
        let (pin, file) = (self.pin, self.file);
        let url = self.wire.file_url(&pin.repo, &pin.revision, &file.path)?;
        let what = self.what();
        let response = self.wire.head(url, &what).await?;
        let named = |name| header(&response, HeaderName::from_static(name));
        let direct = response.status().is_success();
        let commit = named("x-repo-commit").unwrap_or_default();
        let size = named("x-linked-size")
            .or_else(|| header(&response, CONTENT_LENGTH).filter(|_| direct))
            .unwrap_or_default();
        let tag = named("x-linked-etag")
            .or_else(|| header(&response, ETAG))
            .unwrap_or_default();
        let same = |name, got: &str, wanted: &str| {
            if got == wanted {
                return Ok(());
            }
            let got = clean(got);
            Err(HubError::protocol(format!(
                "the hub names {name} {got:?} for {what}, and listed {wanted:?}"
            )))
        };
        same("commit", commit, pin.revision.as_str())?;
        same("size", size, &file.size.to_string())?;
        same("digest", bare_tag(tag), file.digest.hex())?;
        let mut past = self.past();
        past.tag = past
            .tag
            .take()
            .or_else(|| strong_tag(&response).filter(|_| direct));
        Ok(())
    }

    async fn fill(&self, part: &mut Part) -> Result<(), HubError> {
        if part.missing() > 0 {
            let response = self.open(part).await?;
            let poured = self.pour(response, part).await;
            part.flush().await?;
            poured?;
        }
        let digests = part.digests().await?;
        let found = digests.like(&self.file.digest);
        if found.as_ref() == Some(&self.file.digest) {
            return Ok(());
        }
        self.restart(part).await?;
        Err(self.mismatch(found.unwrap_or(PublishedDigest::Sha256(digests.sha256))))
    }

    /// Opens the transfer where the part ends. A reply with the whole content restarts the part.
    async fn open(&self, part: &mut Part) -> Result<Response, HubError> {
        let (offset, size, what) = (part.len(), self.file.size, self.what());
        let url = self
            .wire
            .file_url(&self.pin.repo, &self.pin.revision, &self.file.path)?;
        let response = self.wire.open(url, self.range(offset), &what).await?;
        let protocol = |text: String| Err(HubError::protocol(format!("{what}: {text}")));
        if !matches!(header(&response, CONTENT_ENCODING), None | Some("identity")) {
            return protocol("the content comes encoded, and was asked for plain".to_owned());
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let range = header(&response, CONTENT_RANGE).unwrap_or_default();
                if !is_rest(range, offset, size) {
                    return protocol(format!("range {:?} is not the rest", clean(range)));
                }
            }
            StatusCode::OK => {
                let length = header(&response, CONTENT_LENGTH);
                if length.is_some_and(|length| length != size.to_string()) {
                    return protocol(format!("{:?} bytes announced, {size} listed", length));
                }
                self.restart(part).await?;
            }
            status => {
                self.restart(part).await?;
                return protocol(format!("status {status} for bytes from {offset} on"));
            }
        }
        self.past().tag = strong_tag(&response);
        Ok(response)
    }

    async fn pour(&self, mut response: Response, part: &mut Part) -> Result<(), HubError> {
        let (what, stall) = (self.what(), self.settings.stall_limit);
        loop {
            let next = tokio::time::timeout(stall, response.chunk()).await;
            let chunk = next
                .map_err(|_| {
                    let text = format!("{what} fell silent for {stall:?} at byte {}", part.len());
                    HubError::transient(TransientKind::Stalled, text)
                })?
                .map_err(|e| lost(&what, e))?;
            let Some(chunk) = chunk else { break };
            let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.meter.receive(bytes);
            if bytes > part.missing() {
                self.restart(part).await?;
                return Err(HubError::protocol(format!("{what} is longer than listed")));
            }
            part.append(&chunk).await?;
            self.meter.add(bytes);
            self.pace.pass(bytes).await;
        }
        match part.missing() {
            0 => Ok(()),
            missing => Err(HubError::transient(
                TransientKind::Connection,
                format!("{what} ended {missing} bytes early"),
            )),
        }
    }

    async fn restart(&self, part: &mut Part) -> Result<(), HubError> {
        self.meter.take_back(part.len());
        part.restart().await
    }

    /// The first wrong content may have been garbled on the way or on our disk; only the same one
    /// again, fetched in full, is the hub's.
    fn mismatch(&self, found: PublishedDigest) -> HubError {
        let before = self.past().wrong.replace(found.clone());
        if before.as_ref() == Some(&found) {
            return HubError::DigestMismatch {
                path: self.file.path.clone(),
                published: self.file.digest.clone(),
                found,
            };
        }
        let text = format!(
            "{} came as {found}, listed is {}",
            self.what(),
            self.file.digest
        );
        HubError::transient(TransientKind::Garbled, text)
    }

    fn range(&self, offset: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            // The tag is a courtesy that saves bytes; what proves the content is its digest. So a
            // part left by a killed process is resumed without one.
            if let Some(tag) = self.past().tag.clone() {
                headers.insert(IF_RANGE, tag);
            }
            if let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-")) {
                headers.insert(RANGE, range);
            }
        }
        headers
    }

    fn local(&self, digests: Digests) -> LocalFile {
        LocalFile {
            path: self.file.path.clone(),
            size: self.file.size,
            sha256: digests.sha256,
        }
    }

    fn what(&self) -> String {
        format!(
            "{} of {} at {}",
            self.file.path, self.pin.repo, self.pin.revision
        )
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a `Content-Range` begins at `offset` and belongs to a content of `size` bytes.
fn is_rest(range: &str, offset: u64, size: u64) -> bool {
    let parsed = range.strip_prefix("bytes ").and_then(|range| {
        let (span, total) = range.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last: u64 = last.parse().ok()?;
        Some((first, last, total.parse::<u64>().ok()?))
    });
    parsed.is_some_and(|(first, last, total)| {
        first == offset && total == size && (first..size).contains(&last)
    })
}

/// A tag without its quotes and weakness mark.
fn bare_tag(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

/// The `ETag`, if it is a strong one; only such may stand in `If-Range`.
fn strong_tag(response: &Response) -> Option<HeaderValue> {
    let tag = response.headers().get(ETAG)?;
    tag.to_str().ok()?.starts_with('"').then(|| tag.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rest_that_was_asked_for_is_taken() {
        assert!(is_rest("bytes 5-9/10", 5, 10));
        assert!(
            is_rest("bytes 5-7/10", 5, 10),
            "a shorter piece is resumed after"
        );
        for bad in [
            "",
            "bytes 0-9/10",
            "bytes 6-9/10",
            "bytes 5-10/10",
            "bytes 5-9/11",
            "bytes 5-9/*",
            "bytes 5-4/10",
            "items 5-9/10",
            "bytes */10",
            "bytes 5-9",
            "bytes -5-9/10",
        ] {
            assert!(!is_rest(bad, 5, 10), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_compared_bare() {
        assert_eq!(bare_tag("\"ab\""), "ab");
        assert_eq!(bare_tag("W/\"ab\""), "ab");
        assert_eq!(bare_tag("ab"), "ab");
    }
}
