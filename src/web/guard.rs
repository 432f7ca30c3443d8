//! The one layer around every route: request id, deadline, security headers, access log.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::{ApiError, Limits};

/// Request bodies are not read by any route; this bounds what a mistake could buffer.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest path that is routed or logged.
const PATH_BYTES_MAX: usize = 2048;

/// Puts `app` behind the bounds: an answer begins within `limits.request_timeout`, a panic in a
/// handler becomes a 500, every answer carries `x-request-id` (made here, never taken from the
/// client) and headers that forbid scripts, framing and sniffing unless the route set its own.
pub fn guard(app: Router, limits: &Limits) -> Router {
    app.layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            Arc::new(limits.clone()),
            around,
        ))
}

async fn around(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    bounded(&limits, request, |request| next.run(request)).await
}

/// What [`guard`] does, around one call of `run`.
pub async fn bounded<F: Future<Output = Response>>(
    limits: &Limits,
    request: Request,
    run: impl FnOnce(Request) -> F,
) -> Response {
    let id = RequestId::new();
    let told = Told::of(&request);
    let mut response = answer(limits, request, run).await;
    add_headers(response.headers_mut(), &id);
    if let Some(told) = told {
        told.tell(&id, &response);
    }
    response
}

/// Sixteen hexadecimal digits by chance.
struct RequestId([u8; 16]);

impl RequestId {
    fn new() -> Self {
        let mut text = [b'0'; 16];
        // The buffer has the length that the number needs.
        let _ = hex::encode_to_slice(rand::random::<[u8; 8]>(), &mut text);
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What the access log says of a request; collected where it is written alone.
struct Told {
    started: Instant,
    method: Method,
    path: String,
}

impl Told {
    fn of(request: &Request) -> Option<Self> {
        tracing::enabled!(tracing::Level::DEBUG).then(|| Self {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(128).collect(),
        })
    }

    fn tell(&self, id: &RequestId, response: &Response) {
        // The path is the client's text: formatted with ? so that control characters are escaped.
        tracing::debug!(
            request_id = %id.as_str(),
            method = %self.method,
            path = ?self.path,
            status = response.status().as_u16(),
            ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "answered a request"
        );
    }
}

async fn answer<F: Future<Output = Response>>(
    limits: &Limits,
    request: Request,
    run: impl FnOnce(Request) -> F,
) -> Response {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > PATH_BYTES_MAX {
        let detail = "Path and query may have 2048 bytes at most.";
        return ApiError::new(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", detail).into_response();
    }
    // A handler's panic may end its own request, never the server.
    let caught = std::panic::AssertUnwindSafe(run(request)).catch_unwind();
    match tokio::time::timeout(limits.request_timeout, caught).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!("a request handler panicked; the request was answered with 500");
            let detail = "The server failed on this request; the failure was logged.";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, "INTERNAL", detail).into_response()
        }
        Err(_elapsed) => {
            let detail = "No answer was ready in time; ask again later.";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT", detail).into_response()
        }
    }
}

fn add_headers(headers: &mut HeaderMap, id: &RequestId) {
    let defaults = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ];
    // One growth instead of one for each doubling.
    headers.reserve(defaults.len() + 1);
    for (name, value) in defaults {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_bytes(&id.0) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
}
