//! The one layer around every route: request id, deadline, security headers, access log.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
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
    let started = Instant::now();
    let id = format!("{:016x}", rand::random::<u64>());
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(128).collect();
    let mut response = answer(&limits, request, next).await;
    let status = response.status();
    add_headers(response.headers_mut(), &id);
    // The path is the client's text: formatted with ? so that control characters are escaped.
    tracing::debug!(
        request_id = %id,
        method = %method,
        path = ?path,
        status = status.as_u16(),
        ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered a request"
    );
    response
}

async fn answer(limits: &Limits, request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > PATH_BYTES_MAX {
        let detail = "Path and query may have 2048 bytes at most.";
        return ApiError::new(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", detail).into_response();
    }
    // A handler's panic may end its own request, never the server.
    let caught = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
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

fn add_headers(headers: &mut HeaderMap, id: &str) {
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
    for (name, value) in defaults {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
}
