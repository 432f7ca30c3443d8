//! The bytes of one file: ranges, and the troubles that strike a body.

use super::Shared;
use super::catalogue::Entry;
use super::trouble::Trouble;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, stream};
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Answers a GET for a file's bytes, as asked for by the request's headers.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    entry: &Entry,
    asked: &HeaderMap,
    path: &str,
) -> io::Result<Response> {
    let tag = format!("\"{}\"", entry.digest.hex());
    let asks = |name| asked.get(name).and_then(|value| value.to_str().ok());
    if asks(IF_NONE_MATCH).is_some_and(|known| known == "*" || known.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let trouble = shared.troubles.take(path, |trouble| match trouble {
        Trouble::IgnoreRange => asked.contains_key(RANGE),
        Trouble::StallAfter(_) | Trouble::CutAfter(_) | Trouble::FlipByte(_) => true,
        Trouble::OtherCommit | Trouble::Answer { .. } => false,
    });
    let same = asks(IF_RANGE).is_none_or(|known| known == tag);
    let range = asks(RANGE).filter(|_| same && trouble != Some(Trouble::IgnoreRange));
    let part = match range.map_or(Ok(None), |range| parse_range(range, entry.size)) {
        Ok(part) => part,
        Err(Unsatisfiable) => {
            let range = format!("bytes */{}", entry.size);
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok((status, [(CONTENT_RANGE, range)]).into_response());
        }
    };
    if trouble == Some(Trouble::IgnoreRange) {
        shared.troubles.happened();
    }
    let span = part.clone().unwrap_or(0..entry.size);
    let length = span.end - span.start;
    let size = entry.size;
    let headers = [
        (ETAG, tag),
        (CONTENT_LENGTH, length.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let body = body(Arc::clone(shared), entry, span.clone(), trouble).await?;
    Ok(match part {
        None => (headers, body).into_response(),
        Some(Range { start, end }) => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            let status = StatusCode::PARTIAL_CONTENT;
            (status, headers, [(CONTENT_RANGE, range)], body).into_response()
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// One range of bytes. Other units and several ranges are ignored, as the standard allows.
fn parse_range(range: &str, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
    let span = range.strip_prefix("bytes=").and_then(|r| r.split_once('-'));
    let Some((first, last)) = span else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let span = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(tail)) if first.is_empty() => size.saturating_sub(tail)..size,
        _ => return Ok(None),
    };
    if span.is_empty() {
        return Err(Unsatisfiable);
    }
    Ok(Some(span))
}

/// What is left to send of a body.
struct Rest {
    shared: Arc<Shared>,
    file: File,
    span: Range<u64>,
    sent: u64,
    trouble: Option<Trouble>,
}

async fn body(
    shared: Arc<Shared>,
    entry: &Entry,
    span: Range<u64>,
    trouble: Option<Trouble>,
) -> io::Result<Body> {
    let mut file = File::open(&entry.file).await?;
    file.seek(SeekFrom::Start(span.start)).await?;
    let rest = Rest {
        shared,
        file,
        span,
        sent: 0,
        trouble,
    };
    Ok(Body::from_stream(chunks(rest)))
}

fn chunks(rest: Rest) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(rest, |mut rest| async move {
        let chunk = rest.next().await?;
        Ok((!chunk.is_empty()).then_some((chunk, rest)))
    })
}

impl Rest {
    async fn next(&mut self) -> io::Result<Bytes> {
        let mut room = self.span.end - self.span.start;
        if room == 0 {
            return Ok(Bytes::new());
        }
        if let Some(Trouble::StallAfter(limit) | Trouble::CutAfter(limit)) = self.trouble {
            room = room.min(limit.saturating_sub(self.sent));
        }
        if room == 0 {
            return self.break_off().await;
        }
        let want = usize::try_from(room.min(1 << 16)).unwrap_or(1 << 16);
        let mut chunk = vec![0; want];
        let read = self.file.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        self.flip(&mut chunk);
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.span.start += read;
        self.sent += read;
        Ok(chunk.into())
    }

    async fn break_off(&mut self) -> io::Result<Bytes> {
        self.shared.troubles.happened();
        if matches!(self.trouble, Some(Trouble::StallAfter(_))) {
            self.shared.stopped.cancelled().await;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn flip(&self, chunk: &mut [u8]) {
        let Some(Trouble::FlipByte(place)) = self.trouble else {
            return;
        };
        let place = place.checked_sub(self.span.start);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(byte) = place.and_then(|place| chunk.get_mut(place)) {
            *byte ^= 1;
            self.shared.troubles.happened();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let parse = |range| parse_range(range, 10);
        assert_eq!(parse("bytes=0-0"), Ok(Some(0..1)));
        assert_eq!(parse("bytes=3-"), Ok(Some(3..10)));
        assert_eq!(parse("bytes=3-99"), Ok(Some(3..10)));
        assert_eq!(parse("bytes=-4"), Ok(Some(6..10)));
        assert_eq!(parse("bytes=-99"), Ok(Some(0..10)));
        assert_eq!(parse("bytes=10-"), Err(Unsatisfiable));
        assert_eq!(parse("bytes=-0"), Err(Unsatisfiable));
        for ignored in [
            "",
            "items=0-1",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "bytes=a-b",
            "bytes=-",
        ] {
            assert_eq!(parse(ignored), Ok(None), "{ignored}");
        }
    }
}
