//! Paths and their parameters.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::source::{Source, failed};
use super::{answer, page, views};
use crate::store::{MAX_PAGE, SubmissionFilter, SubmissionId, WeightEntryId};
use crate::web::{self, ApiError};

/// Entries of a page when none is asked for.
const PAGE: u32 = 100;
/// Farthest that the queue can be paged.
const OFFSET_MAX: u64 = 1_000_000;

/// All paths of the score API over the node's store at `store`, which need not exist yet: until it
/// does, everything but `/healthz` answers 503.
pub fn router(store: PathBuf) -> Router {
    let router = Router::new()
        .route("/", get(page::show))
        .route("/v1/status", get(status))
        .route("/v1/submissions", get(submissions))
        .route("/v1/submissions/{id}", get(submission))
        .route("/v1/leaderboard", get(leaderboard))
        .route("/v1/queue", get(queue))
        .route("/v1/weights", get(weights));
    web::with_basics(router).with_state(Arc::new(Source::new(store)))
}

type Asked<T> = Result<Query<T>, QueryRejection>;

/// The parameters, or what is wrong with them.
fn asked<T>(query: Asked<T>) -> Result<T, ApiError> {
    let wrong = |rejection: QueryRejection| {
        let reason = answer::clean(&rejection.body_text());
        ApiError::bad_request("QUERY", reason)
    };
    query.map(|Query(query)| query).map_err(wrong)
}

fn page_size(limit: Option<u32>) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit must be 1 to {MAX_PAGE}.");
    Err(ApiError::bad_request("LIMIT", detail))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmissionsQuery {
    status: Option<String>,
    hotkey: Option<String>,
    before: Option<i64>,
    limit: Option<u32>,
}

async fn submissions(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
    query: Asked<SubmissionsQuery>,
) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let unknown = |_| {
        let detail = "status must be one of those that GET /v1/status counts.";
        ApiError::bad_request("STATUS", detail)
    };
    let no_key = |_| ApiError::bad_request("HOTKEY", "hotkey must be an SS58 address.");
    let filter = SubmissionFilter {
        status: query
            .status
            .map(|s| s.parse())
            .transpose()
            .map_err(unknown)?,
        hotkey: query
            .hotkey
            .map(|h| h.parse())
            .transpose()
            .map_err(no_key)?,
        before: query.before.map(SubmissionId),
    };
    let reader = source.reader().await?;
    let page = reader.submissions(filter, limit).await;
    let page = page.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, views::submissions(&page, limit)))
}

async fn submission(
    State(source): State<Arc<Source>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id.parse().map_err(|_| {
        ApiError::bad_request("SUBMISSION_ID", "A submission's id is a whole number.")
    })?;
    let reader = source.reader().await?;
    let history = reader.history(SubmissionId(id)).await;
    let history = history.map_err(|e| failed(&e))?;
    let alike = reader.likenesses(SubmissionId(id)).await;
    let alike = alike.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, views::history(&history, &alike)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EraQuery {
    era: Option<String>,
}

async fn leaderboard(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
    query: Asked<EraQuery>,
) -> Result<Response, ApiError> {
    let era = asked(query)?.era;
    let digits = |era: &String| era.len() == 64 && era.bytes().all(|b| b.is_ascii_hexdigit());
    if era.as_ref().is_some_and(|era| !digits(era)) {
        return Err(ApiError::bad_request(
            "ERA",
            "An era's id has 64 hex digits.",
        ));
    }
    let reader = source.reader().await?;
    let board = views::Leaderboard::read(reader, era).await;
    let board = board.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, board.to_json()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueQuery {
    offset: Option<u64>,
    limit: Option<u32>,
}

async fn queue(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
    query: Asked<QueueQuery>,
) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let offset = query.offset.unwrap_or(0);
    if offset > OFFSET_MAX {
        return Err(ApiError::bad_request(
            "OFFSET",
            "offset must be 0 to 1000000.",
        ));
    }
    let reader = source.reader().await?;
    let page = reader.queue(offset, limit).await;
    let page = page.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, views::queue(&page)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsQuery {
    before: Option<i64>,
    limit: Option<u32>,
}

async fn weights(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
    query: Asked<WeightsQuery>,
) -> Result<Response, ApiError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let before = query.before.map(WeightEntryId);
    let reader = source.reader().await?;
    let page = reader.weight_log(before, limit).await;
    let page = page.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, views::weights(&page, limit)))
}

async fn status(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let counts = source.reader().await?.counts().await;
    let counts = counts.map_err(|e| failed(&e))?;
    Ok(answer::json(&headers, views::status(&counts)))
}
