//! The little that is read of a request before it is let in.

use axum::http::{HeaderMap, Method, header};

/// Longest path with query.
const TARGET_BYTES_MAX: usize = 2048;
/// Most header fields of one request.
pub(super) const HEADERS_MAX: usize = 48;

/// How much work an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// A ready small answer; costs no budget.
    Light,
    /// Challenges and tokens.
    Auth,
    /// Conversations: takes a seat and one unit of the budget.
    Heavy,
}

impl Weight {
    /// The weight of `path` (without query).
    #[must_use]
    pub fn of(path: &str) -> Self {
        let items = path.starts_with("/v1/rounds/") && path.ends_with("/items");
        let pack = path.len() > 10 && path.starts_with("/v1/packs/");
        if items || pack || path == "/dataset" {
            Self::Heavy
        } else if path.starts_with("/v1/auth/") || path == "/authenticate" {
            Self::Auth
        } else {
            Self::Light
        }
    }

    /// The stable lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Auth => "auth",
            Self::Heavy => "heavy",
        }
    }
}

/// What the first line and the credentials say.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// How much work it is.
    pub weight: Weight,
    /// The method, if it is one of those served.
    pub method: Asked,
    /// Path and query as sent.
    pub target: &'a str,
    /// The bearer token.
    pub token: Option<&'a str>,
    /// Whether it carries a signature.
    pub signed: bool,
}

/// The methods that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// GET or HEAD.
    Read,
    /// POST.
    Post,
    /// Anything else.
    Other,
}

/// What the first bytes of a connection are.
#[derive(Debug)]
pub(super) enum Opening<'a> {
    /// A whole head.
    Whole(Head<'a>),
    /// Not whole yet.
    Partial,
    /// No HTTP/1 request, or one out of bounds.
    Bad,
}

fn bearer(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn head<'a>(method: &str, target: &'a str, token: Option<&'a str>, signed: bool) -> Head<'a> {
    let path = target.split('?').next().unwrap_or(target);
    let method = match method {
        "GET" | "HEAD" => Asked::Read,
        "POST" => Asked::Post,
        _ => Asked::Other,
    };
    Head {
        weight: Weight::of(path),
        method,
        target,
        token,
        signed,
    }
}

/// Reads a head out of the first bytes. Allocates nothing.
#[must_use]
pub(super) fn opening(bytes: &[u8]) -> Opening<'_> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Opening::Partial,
        Err(_) => return Opening::Bad,
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Opening::Bad;
    };
    let (mut token, mut signed) = (None, false);
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("authorization") {
            token = bearer(field.value);
        }
        signed |= is_signature(field.name);
    }
    Opening::Whole(head(method, target, token, signed))
}

fn is_signature(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-bittensor-signature")
        || name.eq_ignore_ascii_case("epistula-request-signature")
}

impl<'a> Head<'a> {
    /// The same of a parsed request.
    #[must_use]
    pub fn of(method: &Method, target: &'a str, headers: &'a HeaderMap) -> Self {
        let token = headers.get(header::AUTHORIZATION);
        let token = token.and_then(|value| bearer(value.as_bytes()));
        let signed = headers.contains_key("x-bittensor-signature")
            || headers.contains_key("epistula-request-signature");
        head(method.as_str(), target, token, signed)
    }

    /// The path without query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or(self.target)
    }

    /// Whether path and query are within bounds.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.target.len() <= TARGET_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_whole_partly_or_not() {
        let text =
            b"GET /dataset?limit=3 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer  abc \r\n\r\n";
        let Opening::Whole(head) = opening(text) else {
            panic!("not whole");
        };
        assert_eq!(head.weight, Weight::Heavy);
        assert_eq!((head.path(), head.token), ("/dataset", Some("abc")));
        assert!(!head.signed);
        assert!(matches!(opening(&text[..text.len() - 1]), Opening::Partial));
        assert!(matches!(opening(b"\x16\x03\x01\x02"), Opening::Bad));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        assert!(matches!(opening(many.as_bytes()), Opening::Bad));
    }

    #[test]
    fn paths_weigh_what_they_cost() {
        for (path, weight) in [
            ("/dataset", Weight::Heavy),
            ("/v1/packs/abc", Weight::Heavy),
            ("/v1/rounds/7/items", Weight::Heavy),
            ("/v1/packs", Weight::Light),
            ("/v1/rounds/current", Weight::Light),
            ("/authenticate", Weight::Auth),
            ("/v1/auth/token", Weight::Auth),
            ("/healthz", Weight::Light),
        ] {
            assert_eq!(Weight::of(path), weight, "{path}");
        }
    }
}
