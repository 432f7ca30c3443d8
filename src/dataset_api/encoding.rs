//! Which encoding a client accepts, and plain bytes out of a zstd file.

use std::io;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::Stream;
use futures::stream::try_unfold;
use tokio::io::{AsyncRead, AsyncReadExt};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// How a pack can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The file as it is.
    Zstd,
    /// Plain bytes.
    Identity,
}

/// Picks zstd when the client accepts it, else plain bytes; `None` when it forbids both.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Encoding> {
    let (mut zstd, mut identity, mut any) = (None, None, None);
    let values = headers.get_all(header::ACCEPT_ENCODING);
    for value in values.iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let name = fields.next().unwrap_or_default();
            let quality = fields.find_map(|f| f.strip_prefix("q="));
            let accepted = quality.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0));
            match name.to_ascii_lowercase().as_str() {
                "zstd" => zstd = Some(accepted),
                "identity" => identity = Some(accepted),
                "*" => any = Some(accepted),
                _ => {}
            }
        }
    }
    if zstd.or(any) == Some(true) {
        Some(Encoding::Zstd)
    } else if identity.or(any) != Some(false) {
        Some(Encoding::Identity)
    } else {
        None
    }
}

/// Bytes of one step; bounds the memory of one answer together with the decoder's window.
const CHUNK: usize = 128 * 1024;

struct Plain<R> {
    file: R,
    decoder: Decoder<'static>,
    input: Vec<u8>,
    used: usize,
    ended: bool,
    whole: bool,
}

/// Decompresses `file` as the client takes it, without a thread of its own.
pub(super) fn plain<R: AsyncRead + Unpin + Send>(
    file: R,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
    let state = Plain {
        file,
        decoder: Decoder::new()?,
        input: Vec::new(),
        used: 0,
        ended: false,
        whole: false,
    };
    Ok(try_unfold(state, async |mut state| {
        let chunk = state.next().await?;
        Ok(chunk.map(|chunk| (chunk, state)))
    }))
}

impl<R: AsyncRead + Unpin> Plain<R> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.used == self.input.len() && !self.ended {
                self.input.clear();
                self.used = 0;
                let bound = u64::try_from(CHUNK).unwrap_or(u64::MAX);
                let read = (&mut self.file)
                    .take(bound)
                    .read_buf(&mut self.input)
                    .await?;
                self.ended = read == 0;
            }
            if self.ended && self.whole {
                return Ok(None);
            }
            let mut output = vec![0; CHUNK];
            let mut out = OutBuffer::around(&mut output[..]);
            let mut input = InBuffer::around(&self.input[self.used..]);
            let hint = self.decoder.run(&mut input, &mut out)?;
            self.used += input.pos();
            // 0 says that a frame ended with what was given so far.
            self.whole = hint == 0;
            let written = out.pos();
            if written > 0 {
                output.truncate(written);
                return Ok(Some(output.into()));
            }
            if self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    fn accept(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
        headers
    }

    #[test]
    fn the_clients_wish_is_met() {
        use Encoding::{Identity, Zstd};
        assert_eq!(negotiate(&HeaderMap::new()), Some(Identity));
        let cases = [
            ("zstd", Some(Zstd)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("ZSTD;q=0.5", Some(Zstd)),
            ("gzip", Some(Identity)),
            ("zstd;q=0", Some(Identity)),
            ("*", Some(Zstd)),
            ("identity", Some(Identity)),
            ("identity;q=0, gzip", None),
            ("*;q=0", None),
            ("zstd;q=0, *;q=0", None),
            ("zstd;q=x", Some(Identity)),
        ];
        for (text, expected) in cases {
            assert_eq!(negotiate(&accept(text)), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn plain_bytes_come_back_and_a_cut_file_is_an_error() {
        let text: Vec<u8> = (0..400_000u32)
            .flat_map(|i| (i % 251).to_le_bytes())
            .collect();
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        let chunks: Vec<Bytes> = plain(&packed[..]).unwrap().try_collect().await.unwrap();
        assert_eq!(chunks.concat(), text);
        let cut = &packed[..packed.len() - 3];
        let failed: Result<Vec<Bytes>, _> = plain(cut).unwrap().try_collect().await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
