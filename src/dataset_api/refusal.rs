//! Why a request is not served, as bytes on the wire and as an answer of the router.

use std::io::{Cursor, Write};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What the client may still take, for the IETF RateLimit fields
/// (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Name of the policy.
    pub policy: &'static str,
    /// Units of a full bucket.
    pub quota: u32,
    /// Seconds from an empty to a full bucket.
    pub window_s: u64,
    /// Units left.
    pub left: u32,
    /// Seconds until one more is there; 0 when the bucket is full.
    pub refill_s: u64,
}

impl Allowance {
    /// Value of `RateLimit-Policy`.
    #[must_use]
    pub fn policy_field(&self) -> String {
        format!("\"{}\";q={};w={}", self.policy, self.quota, self.window_s)
    }

    /// Value of `RateLimit`.
    #[must_use]
    pub fn field(&self) -> String {
        format!("\"{}\";r={};t={}", self.policy, self.left, self.refill_s)
    }
}

/// The stable reasons of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// 429: too many requests from this network.
    SlowDown,
    /// 429: the account's budget is used up.
    Budget,
    /// 429: too many signatures from this network.
    TooManySignatures,
    /// 503: the lane carries all it can; nothing is wrong with the request.
    Overload,
    /// 503: the verifier's share of the processor is used up.
    VerifierBusy,
    /// 503: the server is stopping or cannot read its own state.
    Unavailable,
    /// 401: the token is unknown, expired or revoked.
    Token,
    /// 401: the signature does not hold.
    Signature,
    /// 401: signatures are not accepted here.
    SignaturesOff,
    /// 403: closed off by the operator.
    Blocked,
    /// 403: this lane serves scorers and validators.
    WrongLane,
    /// 400: the head cannot be understood.
    BadHead,
    /// 405: only GET and HEAD, and POST where a token is asked for.
    Method,
    /// 414: path and query are too long.
    TooLong,
}

impl Reason {
    /// Status, code and sentence.
    #[must_use]
    pub fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::SlowDown => (
                429,
                "SLOW_DOWN",
                "Too many requests from your network; wait as long as Retry-After says.",
            ),
            Self::Budget => (
                429,
                "BUDGET",
                "Your budget is used up; GET /v1/me says when it refills. A token raises it.",
            ),
            Self::TooManySignatures => (
                429,
                "TOO_MANY_SIGNATURES",
                "Too many signed requests from your network; get a token and send that.",
            ),
            Self::Overload => (
                503,
                "OVERLOAD",
                "The server carries all it can; try again once, as late as Retry-After says or later.",
            ),
            Self::VerifierBusy => (
                503,
                "VERIFIER_BUSY",
                "Too many signatures are waiting; try again later or send a token.",
            ),
            Self::Unavailable => (
                503,
                "UNAVAILABLE",
                "The server cannot answer this now; ask again in a while.",
            ),
            Self::Token => (
                401,
                "TOKEN",
                "The token is unknown, expired or revoked; get a new one at /v1/auth/challenge.",
            ),
            Self::Signature => (
                401,
                "SIGNATURE",
                "The signature does not hold for this request, receiver and time.",
            ),
            Self::SignaturesOff => (
                401,
                "SIGNATURES_OFF",
                "This server names no hotkey of its own, so it takes tokens only.",
            ),
            Self::Blocked => (
                403,
                "BLOCKED",
                "The operator has closed this off; docs/dataset-api.md says whom to ask.",
            ),
            Self::WrongLane => (
                403,
                "WRONG_LANE",
                "This address serves scorers and validators; use the public one.",
            ),
            Self::BadHead => (400, "BAD_HEAD", "The request's head cannot be understood."),
            Self::Method => (
                405,
                "METHOD_NOT_ALLOWED",
                "This path does not take that method.",
            ),
            Self::TooLong => (
                414,
                "URI_TOO_LONG",
                "Path and query may have 2048 bytes at most.",
            ),
        }
    }

    /// The stable code in lower case, as metrics show it.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.parts().1
    }

    /// Whether a client that keeps its connection may ask on it again, later.
    #[must_use]
    pub fn leaves_open(self) -> bool {
        matches!(
            self,
            Self::SlowDown
                | Self::Budget
                | Self::TooManySignatures
                | Self::Overload
                | Self::VerifierBusy
                | Self::Token
                | Self::Signature
        )
    }

    /// Whether the client did something that it should stop doing.
    #[must_use]
    pub fn is_clients_fault(self) -> bool {
        !matches!(
            self,
            Self::Overload | Self::VerifierBusy | Self::Unavailable
        )
    }
}

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u64>,
    /// What the client may take.
    pub allowance: Option<Allowance>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            retry_after_s: None,
            allowance: None,
        }
    }
}

/// Longest refusal on the wire.
pub const REFUSAL_BYTES_MAX: usize = 1024;

impl Refusal {
    /// A refusal that ends after `seconds`.
    #[must_use]
    pub fn after(reason: Reason, seconds: u64) -> Self {
        Self {
            reason,
            retry_after_s: Some(seconds),
            allowance: None,
        }
    }

    /// With what the client may take.
    #[must_use]
    pub fn with(mut self, allowance: Allowance) -> Self {
        self.allowance = Some(allowance);
        self
    }

    fn write_body(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (status, code, detail) = self.reason.parts();
        write!(
            out,
            "{{\"type\":\"urn:assay:problem:{code}\",\"status\":{status},\"code\":\"{code}\",\"detail\":\"{detail}\""
        )?;
        if let Some(seconds) = self.retry_after_s {
            write!(out, ",\"retry_after_s\":{seconds}")?;
        }
        out.write_all(b"}\n")
    }

    /// Writes the whole HTTP/1.1 answer, which closes the connection, and gives its length.
    /// Allocates nothing.
    pub fn write(&self, out: &mut [u8; REFUSAL_BYTES_MAX]) -> usize {
        let mut body = [0; 512];
        let mut text = Cursor::new(&mut body[..]);
        let _ = self.write_body(&mut text);
        let length = usize::try_from(text.position()).unwrap_or(0);
        let (status, ..) = self.reason.parts();
        let name = StatusCode::from_u16(status).ok();
        let name = name.and_then(|s| s.canonical_reason()).unwrap_or("Refused");
        let mut head = Cursor::new(&mut out[..]);
        // The buffers hold the longest texts above; the test writes them all.
        let _ = write!(
            head,
            "HTTP/1.1 {status} {name}\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\ncache-control: no-store\r\nconnection: close\r\n"
        );
        if let Some(seconds) = self.retry_after_s {
            let _ = write!(head, "retry-after: {seconds}\r\n");
        }
        if let Some(a) = self.allowance {
            let _ = write!(
                head,
                "ratelimit-policy: \"{}\";q={};w={}\r\nratelimit: \"{}\";r={};t={}\r\n",
                a.policy, a.quota, a.window_s, a.policy, a.left, a.refill_s
            );
        }
        let _ = head.write_all(b"\r\n");
        let _ = head.write_all(&body[..length]);
        usize::try_from(head.position()).unwrap_or(0)
    }
}

/// Adds the RateLimit fields of `allowance`.
pub fn add_allowance(headers: &mut axum::http::HeaderMap, allowance: &Allowance) {
    let fields = [
        ("ratelimit-policy", allowance.policy_field()),
        ("ratelimit", allowance.field()),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(256);
        // Writing to a vector cannot fail.
        let _ = self.write_body(&mut body);
        let status = StatusCode::from_u16(self.reason.parts().0);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allowance) = &self.allowance {
            add_allowance(headers, allowance);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_fits_and_is_a_whole_answer() {
        let allowance = Allowance {
            policy: "validator",
            quota: u32::MAX,
            window_s: u64::MAX,
            left: u32::MAX,
            refill_s: u64::MAX,
        };
        for reason in [
            Reason::SlowDown,
            Reason::Budget,
            Reason::TooManySignatures,
            Reason::Overload,
            Reason::VerifierBusy,
            Reason::Unavailable,
            Reason::Token,
            Reason::Signature,
            Reason::SignaturesOff,
            Reason::Blocked,
            Reason::WrongLane,
            Reason::BadHead,
            Reason::Method,
            Reason::TooLong,
        ] {
            let refusal = Refusal::after(reason, u64::MAX).with(allowance);
            let mut out = [0; REFUSAL_BYTES_MAX];
            let length = refusal.write(&mut out);
            let text = std::str::from_utf8(&out[..length]).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").expect(text);
            let declared = format!("content-length: {}\r\n", body.len());
            assert!(head.contains(&declared), "{text}");
            assert!(head.contains("ratelimit: \"validator\""), "{text}");
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["code"], reason.code());
            assert_eq!(json["retry_after_s"], u64::MAX);
        }
    }
}
