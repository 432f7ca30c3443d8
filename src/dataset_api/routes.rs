//! Paths and answers.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Deserialize;

use super::answer::{Way, object};
use super::gate::{Gate, Pass};
use super::samples;
use super::shelf::Shelf;
use crate::dataset::ObjectDigest;
use crate::web::{self, ApiError};

const SHORT: &str = "public, max-age=2";
/// The interface, kept by hand and checked against the routes by a test.
const OPENAPI: &str = include_str!("../../docs/dataset-api.openapi.json");

type Passed = (Option<Extension<Arc<Gate>>>, Option<Extension<Arc<Pass>>>);

fn way((gate, pass): Passed) -> Way {
    match (gate, pass) {
        (Some(Extension(gate)), Some(Extension(pass))) => Way::of(gate, pass),
        _ => Way::default(),
    }
}

/// The paths that need no gate, over the packs and rounds of `folder` as they are now.
pub fn router(folder: PathBuf) -> Router {
    open_routes(Arc::new(Shelf::open(&folder)))
}

fn open_routes(shelf: Arc<Shelf>) -> Router {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/packs", get(packs))
        .route("/v1/packs/{digest}", get(pack))
        .route("/v1/rounds", get(rounds))
        .route("/v1/rounds/current", get(current))
        .route("/v1/rounds/{number}/items", get(items))
        .route("/dataset", get(dataset))
        .route("/openapi.json", get(openapi));
    web::with_basics(router).with_state(shelf)
}

/// All paths of a lane: those of [`router`] and those that tell clients about themselves.
pub fn lane_router(shelf: Arc<Shelf>) -> Router {
    open_routes(shelf).merge(super::access::routes())
}

fn json(body: impl Into<axum::body::Body>, cache: &'static str) -> Response {
    let mut response = body.into().into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

async fn openapi() -> Response {
    json(OPENAPI, "public, max-age=3600")
}

async fn status(State(shelf): State<Arc<Shelf>>) -> Response {
    json(shelf.status(), SHORT)
}

async fn packs(State(shelf): State<Arc<Shelf>>) -> Response {
    json(shelf.view().listing.clone(), SHORT)
}

async fn rounds(State(shelf): State<Arc<Shelf>>) -> Response {
    json(shelf.view().rounds_listing.clone(), SHORT)
}

fn no_round() -> Response {
    let detail = "No such round is built; GET /v1/rounds lists those there are.";
    ApiError::not_found("NO_SUCH_ROUND", detail).into_response()
}

async fn current(State(shelf): State<Arc<Shelf>>) -> Response {
    match shelf.view().rounds.first() {
        Some(round) => json(round.to_json(), SHORT),
        None => no_round(),
    }
}

async fn pack(
    State(shelf): State<Arc<Shelf>>,
    Path(digest): Path<String>,
    (gate, pass): Passed,
    headers: HeaderMap,
) -> Response {
    let digest: ObjectDigest = match digest.parse::<ObjectDigest>() {
        Ok(digest) => digest,
        Err(reason) => return ApiError::bad_request("PACK_DIGEST", reason).into_response(),
    };
    let view = shelf.view();
    match view.object(&digest) {
        Some(shown) => object(shown, &headers, true, way((gate, pass))).await,
        None => {
            let detail = "No such pack; GET /v1/packs lists those there are.";
            ApiError::not_found("NO_SUCH_PACK", detail).into_response()
        }
    }
}

fn wants_ndjson(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept.is_some_and(|text| text.contains("ndjson"))
}

/// `current` or a number; of several eras' rounds of that number the newest.
async fn items(
    State(shelf): State<Arc<Shelf>>,
    Path(number): Path<String>,
    (gate, pass): Passed,
    headers: HeaderMap,
) -> Response {
    let view = shelf.view();
    let fixed = number != "current";
    let mut rounds = view.rounds.iter();
    let round = if fixed {
        rounds.find(|round| round.number.to_string() == number)
    } else {
        rounds.next()
    };
    let Some(round) = round else {
        return no_round();
    };
    let digest = if wants_ndjson(&headers) {
        round.ndjson
    } else {
        round.json
    };
    match view.object(&digest) {
        // A later era may reuse the number: only the digest is for good.
        Some(shown) => object(shown, &headers, false, way((gate, pass))).await,
        None => no_round(),
    }
}

/// The origin's query. Dates are days; what the origin's clients send beside them is passed over.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    start_date: Option<String>,
    end_date: Option<String>,
    current_date: Option<String>,
    epoch_date: Option<String>,
    limit: Option<usize>,
}

/// `{"all_convos":[…]}`: the newest round's list, the first `limit` of it, or a sample of a past
/// date.
async fn dataset(
    State(shelf): State<Arc<Shelf>>,
    Query(asked): Query<Asked>,
    (gate, pass): Passed,
    headers: HeaderMap,
) -> Response {
    let client = pass.as_ref().map(|Extension(pass)| pass.client);
    let dates = [
        &asked.start_date,
        &asked.end_date,
        &asked.current_date,
        &asked.epoch_date,
    ];
    let wanted = match samples::Wanted::read(dates) {
        Ok(wanted) => wanted,
        Err(response) => return response.into_response(),
    };
    let view = shelf.view();
    match (&view.current, asked.limit) {
        (Some(shown), limit) if wanted.is_present() => {
            let cut = limit.filter(|limit| *limit < shown.ends.len());
            match (cut, shown.ready(crate::dataset::Form::Identity)) {
                (Some(limit), Some(bytes)) => first(&bytes, &shown.ends, limit, way((gate, pass))),
                _ => object(shown, &headers, false, way((gate, pass))).await,
            }
        }
        _ => samples::serve(&shelf, &wanted, asked.limit, (client, way((gate, pass)))).await,
    }
}

/// The first `limit` conversations, cut out of the ready bytes without copying.
fn first(bytes: &Bytes, ends: &[usize], limit: usize, way: Way) -> Response {
    let begin = bytes.iter().position(|b| *b == b'[').map_or(0, |p| p + 1);
    let end = if limit == 0 { begin } else { ends[limit - 1] };
    let parts = vec![bytes.slice(..end), Bytes::from_static(b"]}\n")];
    json(way.bytes(parts), SHORT)
}
