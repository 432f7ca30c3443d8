//! Which ready form a client gets.

use axum::http::{HeaderMap, header};

use crate::dataset::Form;

/// Picks the smallest form that the client accepts; `None` when it forbids all.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Form> {
    let (mut zstd, mut gzip, mut identity, mut any) = (None, None, None, None);
    let values = headers.get_all(header::ACCEPT_ENCODING);
    for value in values.iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let name = fields.next().unwrap_or_default();
            let quality = fields.find_map(|f| f.strip_prefix("q="));
            let accepted = quality.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0));
            match name.to_ascii_lowercase().as_str() {
                "zstd" => zstd = Some(accepted),
                "gzip" | "x-gzip" => gzip = Some(accepted),
                "identity" => identity = Some(accepted),
                "*" => any = Some(accepted),
                _ => {}
            }
        }
    }
    if zstd.or(any) == Some(true) {
        Some(Form::Zstd)
    } else if gzip.or(any) == Some(true) {
        Some(Form::Gzip)
    } else if identity.or(any) != Some(false) {
        Some(Form::Identity)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
        headers
    }

    #[test]
    fn the_clients_wish_is_met() {
        use Form::{Gzip, Identity, Zstd};
        assert_eq!(negotiate(&HeaderMap::new()), Some(Identity));
        let cases = [
            ("zstd", Some(Zstd)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("ZSTD;q=0.5", Some(Zstd)),
            ("gzip", Some(Gzip)),
            ("gzip, deflate", Some(Gzip)),
            ("gzip;q=0", Some(Identity)),
            ("zstd;q=0", Some(Identity)),
            ("*", Some(Zstd)),
            ("identity", Some(Identity)),
            ("identity;q=0, gzip", Some(Gzip)),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("zstd;q=0, *;q=0", None),
            ("zstd;q=x", Some(Identity)),
        ];
        for (text, expected) in cases {
            assert_eq!(negotiate(&accept(text)), expected, "{text}");
        }
    }
}
