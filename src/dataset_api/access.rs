//! How a client gets a token, and what it is told about itself.
//!
//! Two ways: sign a challenge (`GET /v1/auth/challenge`, then `POST /v1/auth/token`), or send
//! `POST /v1/auth/token` as a btauth/1 or Epistula request. `POST /authenticate` is the same.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, OriginalUri, Query};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::client::{Class, Client};
use super::gate::proving::Signed;
use super::gate::{Gate, Pass};
use super::identity::signature::{Claim, verify_text};
use super::identity::tokens::{Subject, Token};
use super::lock;
use super::prefix::Prefix;
use super::refusal::{Reason, Refusal};
use super::shared::{read, write};
use crate::bittensor::{Coldkey, Hotkey};
use crate::clock::now_ms;
use crate::web::ApiError;

/// Longest body of a request for a token, and how much of a longer one is read.
const BODY_BYTES_MAX: usize = 4096;
const READ_BYTES_MAX: usize = 64 * 1024;

/// The paths of this module.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let token = || post(token).layer(DefaultBodyLimit::max(READ_BYTES_MAX));
    Router::new()
        .route("/v1/auth/challenge", get(challenge))
        .route("/v1/auth/token", token())
        .route("/authenticate", token())
        .route("/v1/me", get(me))
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Hotkey,
    Coldkey,
}

#[derive(Deserialize)]
struct Wanted {
    address: String,
}

#[derive(Deserialize)]
struct Answer {
    address: String,
    #[serde(default)]
    kind: Kind,
    challenge: String,
    signature: String,
}

fn bad(code: &'static str, detail: &'static str) -> Response {
    ApiError::bad_request(code, detail).into_response()
}

async fn challenge(
    Extension(gate): Extension<Arc<Gate>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Ok(address) = wanted.address.parse::<Hotkey>() else {
        return bad("ADDRESS", "The address must be SS58 with prefix 42.");
    };
    let made = lock(&gate.shared.challenges).make(&address.to_string(), now_ms());
    let body = json!({
        "challenge": made.text,
        "expires_ms": made.expires_ms,
        "sign_with": "sr25519 over the text of challenge, bare or wrapped in <Bytes>",
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Proves who asks for a token.
#[expect(
    clippy::result_large_err,
    reason = "the error is the answer itself, built once and sent"
)]
fn prove(
    gate: &Gate,
    (method, uri): (&Method, &str),
    headers: &HeaderMap,
    body: &[u8],
    prefix: Prefix,
) -> Result<Subject, Response> {
    let signed = headers.contains_key("x-bittensor-signature")
        || headers.contains_key("epistula-request-signature");
    if signed {
        let refuse = |why: Refusal| why.into_response();
        let malformed = |_| Refusal::from(Reason::Signature).into_response();
        let claim = Claim::read(headers).map_err(malformed)?;
        let about = Signed {
            method: method.as_str(),
            target: uri,
            body,
        };
        gate.prove(&claim, about, prefix).map_err(refuse)?;
        return Ok(Subject::Hotkey(claim.sender()));
    }
    answered(gate, body, prefix)
}

#[expect(
    clippy::result_large_err,
    reason = "the error is the answer itself, built once and sent"
)]
fn answered(gate: &Gate, body: &[u8], prefix: Prefix) -> Result<Subject, Response> {
    let form = "Send {\"address\", \"kind\": \"hotkey\" or \"coldkey\", \"challenge\", \"signature\"}, or a signed request.";
    let answer: Answer = serde_json::from_slice(body).map_err(|_| bad("BODY", form))?;
    let key: Hotkey = answer
        .address
        .parse()
        .map_err(|_| bad("ADDRESS", "The address must be SS58 with prefix 42."))?;
    let (address, now) = (key.to_string(), now_ms());
    let stale = |why: super::identity::challenge::Stale| {
        ApiError::new(StatusCode::UNAUTHORIZED, "CHALLENGE", why.to_string()).into_response()
    };
    let challenges = &gate.shared.challenges;
    lock(challenges)
        .check(&answer.challenge, &address, now)
        .map_err(stale)?;
    gate.may_verify(prefix)
        .map_err(IntoResponse::into_response)?;
    verify_text(&key.0, &answer.challenge, &answer.signature)
        .map_err(|_| Refusal::from(Reason::Signature).into_response())?;
    lock(challenges)
        .spend(&answer.challenge, &address, now)
        .map_err(stale)?;
    Ok(match answer.kind {
        Kind::Hotkey => Subject::Hotkey(key),
        Kind::Coldkey => Subject::Coldkey(Coldkey(key.0)),
    })
}

async fn token(
    Extension(gate): Extension<Arc<Gate>>,
    Extension(pass): Extension<Arc<Pass>>,
    (method, OriginalUri(uri), headers): (Method, OriginalUri, HeaderMap),
    body: Bytes,
) -> Response {
    if body.len() > BODY_BYTES_MAX {
        return bad("BODY", "A request for a token has 4 KiB at most.");
    }
    let target = uri.path_and_query().map_or("/", |t| t.as_str());
    let prefix = pass.client.prefix;
    match prove(&gate, (&method, target), &headers, &body, prefix) {
        Ok(subject) => issue(&gate, subject, &pass.client),
        Err(response) => {
            if response.status() == StatusCode::UNAUTHORIZED {
                gate.note(&pass.client, pass.weight, Reason::Signature);
            }
            response
        }
    }
}

fn issue(gate: &Gate, subject: Subject, asker: &Client) -> Response {
    let (shared, now) = (&gate.shared, now_ms());
    let life = u64::try_from(shared.settings.token_life.as_millis()).unwrap_or(u64::MAX);
    let token = Token {
        subject,
        issued_ms: now,
        expires_ms: now.saturating_add(life),
    };
    let client = shared.by_token(&token, "", asker.prefix);
    if read(&shared.rules).is_blocked(&client, now) {
        return Refusal::after(Reason::Blocked, 3600).into_response();
    }
    let expires_ms = token.expires_ms;
    // The journal is flushed here: a few hundred µs, and bounded by the signatures per second.
    match write(&shared.tokens).issue(token, now) {
        Ok((text, id)) => {
            let body = json!({
                "token": text,
                "token_id": id,
                "expires_ms": expires_ms,
                "class": client.class,
                "group": client.group,
            });
            ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a token could not be issued");
            Refusal::after(Reason::Unavailable, 60).into_response()
        }
    }
}

async fn me(
    Extension(gate): Extension<Arc<Gate>>,
    Extension(pass): Extension<Arc<Pass>>,
) -> Response {
    let client = &pass.client;
    let budgets: Vec<_> = gate
        .allowances(client)
        .iter()
        .map(|a| {
            json!({ "policy": a.policy, "burst": a.quota, "left": a.left,
                "next_unit_s": a.refill_s, "full_window_s": a.window_s })
        })
        .collect();
    let body = json!({
        "class": client.class,
        "group": client.group,
        "hotkey": client.hotkey,
        "coldkey": client.coldkey,
        "network": client.prefix.to_string(),
        "lane": gate.kind.as_str(),
        "protected_lane": client.class.is_protected(),
        "token": client.class != Class::Anonymous,
        "budgets": budgets,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
