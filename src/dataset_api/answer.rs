//! An immutable object as an HTTP answer: form, entity tag, range, pace.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::encoding::negotiate;
use super::gate::{Gate, Pass, Permit};
use super::lock;
use super::seats::{Bandwidth, Paced};
use super::shelf::Shown;
use crate::dataset::Form;
use crate::web::{self, ApiError};

/// An object never changes: whoever has it need never ask again.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// What may be another object soon.
const SHORT: &str = "public, max-age=10";
/// Bytes read from a file at a time.
const CHUNK: usize = 256 * 1024;

/// The lane that an answer goes through, when there is one: its pace and the request's seat.
#[derive(Debug, Default)]
pub(super) struct Way {
    bandwidth: Option<Arc<Bandwidth>>,
    permit: Option<Permit>,
    noted: Option<(Arc<Gate>, Arc<Pass>)>,
}

impl Way {
    /// The way of a request that passed a gate.
    pub(super) fn of(gate: Arc<Gate>, pass: Arc<Pass>) -> Self {
        let permit = lock(&pass.permit).take();
        Self {
            bandwidth: Some(Arc::clone(&gate.bandwidth)),
            permit,
            noted: Some((gate, pass)),
        }
    }

    fn pace(&self) -> Arc<Bandwidth> {
        let bandwidth = self.bandwidth.clone();
        bandwidth.unwrap_or_else(|| Arc::new(Bandwidth::new(0)))
    }

    fn note(&self, bytes: u64) {
        if let Some((gate, pass)) = &self.noted {
            gate.shared.traffic.sending(&pass.client, bytes);
        }
    }

    /// Ready bytes, paced, with the seat held until the last is sent.
    pub(super) fn bytes(self, parts: Vec<Bytes>) -> Body {
        let length: usize = parts.iter().map(Bytes::len).sum();
        self.note(u64::try_from(length).unwrap_or(u64::MAX));
        Body::new(Paced::new(parts, self.pace(), self.permit))
    }

    async fn file(self, path: &std::path::Path, range: Range<u64>) -> std::io::Result<Body> {
        let length = range.end - range.start;
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(std::io::SeekFrom::Start(range.start)).await?;
        self.note(length);
        let stream = ReaderStream::with_capacity(file.take(length), CHUNK);
        let (pace, permit) = (self.pace(), self.permit);
        let stream = stream.then(move |chunk| {
            // The seat is held by the stream, and so by the answer.
            let _ = &permit;
            let due = pace.book(chunk.as_ref().map_or(0, Bytes::len));
            async move {
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                chunk
            }
        });
        Ok(Body::from_stream(stream))
    }
}

/// The one range asked for: `None` for the whole, `Err` when it lies outside.
fn range(headers: &HeaderMap, tag: &str, length: u64) -> Result<Option<Range<u64>>, ()> {
    let condition = headers.get(header::IF_RANGE);
    if condition.is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        return Ok(None);
    }
    let text = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let Some(spec) = text.and_then(|t| t.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    // Several ranges at once may be answered by the whole (RFC 9110, 14.2).
    let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Ok(None);
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let found = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.trim().is_empty() => first..length,
        (None, Some(suffix)) if first.trim().is_empty() => length.saturating_sub(suffix)..length,
        _ => return Ok(None),
    };
    if found.start < found.end {
        Ok(Some(found))
    } else {
        Err(())
    }
}

/// Serves an object in the form that the client accepts. `fixed` says whether its address names it
/// for good.
pub(super) async fn object(shown: &Shown, headers: &HeaderMap, fixed: bool, way: Way) -> Response {
    let Some(form) = negotiate(headers) else {
        let detail = "It comes as zstd, gzip or plain; accept one of them.";
        return ApiError::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", detail).into_response();
    };
    let manifest = shown.object.manifest();
    let hex = manifest.digest.hex();
    let tag = match form.content_encoding() {
        Some(encoding) => format!("\"{hex}-{encoding}\""),
        None => format!("\"{hex}\""),
    };
    let length = manifest.forms.get(form).bytes;
    let mut response = if web::etag_matches(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match range(headers, &tag, length) {
            Ok(part) => whole_or_part(shown, form, part, way).await,
            Err(()) => outside(length),
        }
    };
    let all = response.headers_mut();
    let cache = if fixed { IMMUTABLE } else { SHORT };
    all.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    all.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    all.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        all.insert(header::ETAG, value);
    }
    response
}

fn outside(length: u64) -> Response {
    let detail = "The range lies outside of the object.";
    let mut response =
        ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE", detail).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

async fn whole_or_part(shown: &Shown, form: Form, part: Option<Range<u64>>, way: Way) -> Response {
    let manifest = shown.object.manifest();
    let length = manifest.forms.get(form).bytes;
    let sent = part.clone().unwrap_or(0..length);
    let body = match (shown.ready(form), usize_range(&sent)) {
        (Some(bytes), Some(place)) => way.bytes(vec![bytes.slice(place)]),
        _ => match from_file(shown, form, sent.clone(), way).await {
            Ok(body) => body,
            Err(response) => return response,
        },
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = manifest.media_type.as_str();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CONTENT_LENGTH,
        HeaderValue::from(sent.end - sent.start),
    );
    if let Some(encoding) = form.content_encoding() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if part.is_some() {
        let text = format!("bytes {}-{}/{length}", sent.start, sent.end - 1);
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn usize_range(range: &Range<u64>) -> Option<Range<usize>> {
    Some(range.start.try_into().ok()?..range.end.try_into().ok()?)
}

async fn from_file(
    shown: &Shown,
    form: Form,
    range: Range<u64>,
    way: Way,
) -> Result<Body, Response> {
    let failed = |error: &dyn std::fmt::Display| {
        // The reason goes to the log: it names paths of this machine.
        let digest = shown.object.manifest().digest;
        tracing::error!(%digest, %error, "an offered object cannot be read");
        ApiError::unavailable().into_response()
    };
    let (path, _) = shown.object.path(form).map_err(|e| failed(&e))?;
    way.file(&path, range).await.map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let of = |spec: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, spec.parse().unwrap());
            range(&headers, "\"t\"", 100)
        };
        assert_eq!(of("bytes=0-9"), Ok(Some(0..10)));
        assert_eq!(of("bytes=90-"), Ok(Some(90..100)));
        assert_eq!(of("bytes=-5"), Ok(Some(95..100)));
        assert_eq!(of("bytes=5-1000"), Ok(Some(5..100)));
        assert_eq!(of("bytes=100-"), Err(()));
        assert_eq!(of("bytes=-0"), Err(()));
        for whole in [
            "bytes=9-5",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=a-b",
            "bytes=-",
        ] {
            assert_eq!(of(whole), Ok(None), "{whole}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-9".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(range(&headers, "\"t\"", 100), Ok(None));
    }
}
