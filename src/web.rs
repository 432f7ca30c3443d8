//! What every HTTP server of ours shares: bounds, draining, errors and headers.

mod error;
mod guard;
mod serve;

pub use error::ApiError;
pub use guard::{bounded, guard};
pub use serve::{Limits, serve};

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::get;

/// Adds `GET /healthz`, which answers 200 and `ok` while the process serves, and gives every
/// unknown path and method a problem+json answer.
pub fn with_basics<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || ApiError::not_found("NO_SUCH_PATH", "There is nothing at this path."))
        .method_not_allowed_fallback(async || {
            let detail = "This path answers GET and HEAD only.";
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                detail,
            )
        })
}

/// Whether `If-None-Match` names `tag` (a quoted entity tag) or any.
#[must_use]
pub fn etag_matches(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH);
    let mut listed = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"));
    listed.any(|one| one == tag || one == "*")
}

#[cfg(test)]
mod tests;
