//! The operator's own way in: metrics for everyone on loopback, commands for the holder of the
//! token in `admin.token`. Every command is audited.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Class;
use super::gate::Gate;
use super::identity::tokens::{Subject, Token};
use super::rules::{Change, Target};
use super::shared::{Shared, read, write};
use crate::clock::now_ms;
use crate::web::{self, ApiError};

const TOKEN_FILE: &str = "admin.token";
/// Talkers shown.
const TOP: usize = 20;

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Change the access rules.
    Change(Change),
    /// Give out a token.
    Issue {
        /// The class it grants.
        class: Class,
        /// The group it belongs to.
        group: String,
        /// Whom it is for.
        note: String,
        /// How long it lives, ms.
        life_ms: u64,
    },
    /// End tokens: one by its id, or all of a key.
    Revoke {
        /// Id, or `hotkey:…`, `coldkey:…`, `group:…`.
        which: String,
    },
}

/// A command and who gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The operator, as the audit names him.
    pub actor: String,
    /// What to do.
    pub command: Command,
}

/// The operator's token of this state folder, made when absent, readable by its owner alone.
///
/// # Errors
/// What the disk says.
pub fn operators_token(state: &Path) -> std::io::Result<String> {
    let path = state.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        Ok(_) => {
            return Err(std::io::Error::other(
                "admin.token is cut; remove it and restart",
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let token = hex::encode(rand::random::<[u8; 32]>());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(token.as_bytes())?;
    Ok(token)
}

struct Admin {
    shared: Arc<Shared>,
    gates: Vec<Arc<Gate>>,
    token: String,
}

/// `GET /metrics`, and behind the operator's token `GET /v1/top`, `GET /v1/rules`,
/// `POST /v1/orders`.
pub fn router(shared: Arc<Shared>, gates: Vec<Arc<Gate>>, token: String) -> Router {
    let admin = Arc::new(Admin {
        shared,
        gates,
        token,
    });
    let closed = Router::new()
        .route("/v1/top", get(top))
        .route("/v1/rules", get(rules))
        .route("/v1/orders", post(order))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), operator));
    web::with_basics(closed.route("/metrics", get(metrics))).with_state(admin)
}

async fn operator(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let expected = format!("Bearer {}", admin.token);
    // Digests are compared, so that the time tells nothing of where they differ.
    let same = |a: &[u8], b: &[u8]| {
        use sha2::{Digest, Sha256};
        Sha256::digest(a) == Sha256::digest(b)
    };
    if given.is_some_and(|value| same(value.as_bytes(), expected.as_bytes())) {
        return next.run(request).await;
    }
    let detail = "Send the token of admin.token in the state folder.";
    ApiError::new(StatusCode::UNAUTHORIZED, "OPERATOR", detail).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    for gate in &admin.gates {
        admin.shared.traffic.lane(&gate.state());
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.shared.traffic.text()).into_response()
}

async fn top(State(admin): State<Arc<Admin>>) -> Json<serde_json::Value> {
    let traffic = &admin.shared.traffic;
    let talkers: Vec<_> = traffic
        .top(TOP)
        .iter()
        .map(|t| json!({ "who": t.key.to_string(), "requests": t.count, "error": t.error }))
        .collect();
    let lanes: Vec<_> = admin
        .gates
        .iter()
        .map(|gate| {
            let s = gate.state();
            json!({ "lane": s.lane, "connections": s.connections, "seats": s.seats,
                "saturation": s.saturation() })
        })
        .collect();
    Json(json!({
        "talkers": talkers,
        "lanes": lanes,
        "abnormal": traffic.abnormal(),
        "today": traffic.today(),
        "tokens": read(&admin.shared.tokens).count(),
        "registered": admin.shared.registry().count(),
    }))
}

async fn rules(State(admin): State<Arc<Admin>>) -> Json<serde_json::Value> {
    Json(read(&admin.shared.rules).to_json())
}

async fn order(State(admin): State<Arc<Admin>>, Json(order): Json<Order>) -> Response {
    let now = now_ms();
    let done = match &order.command {
        Command::Change(change) => write(&admin.shared.rules)
            .change(change, &order.actor, now)
            .map(|()| json!({ "done": true })),
        Command::Issue { .. } => issue(&admin.shared, &order, now),
        Command::Revoke { which } => revoke(&admin.shared, which, &order, now),
    };
    match done {
        Ok(body) => Json(body).into_response(),
        Err(error) => ApiError::bad_request("ORDER", error.to_string()).into_response(),
    }
}

fn issue(shared: &Shared, order: &Order, now: u64) -> std::io::Result<serde_json::Value> {
    let Command::Issue {
        class,
        group,
        note,
        life_ms,
    } = order.command.clone()
    else {
        return Err(std::io::Error::other("not an order for a token"));
    };
    if shared.settings.group_name(&group) != group {
        return Err(std::io::Error::other("the configuration has no such group"));
    }
    let token = Token {
        subject: Subject::Issued { class, group, note },
        issued_ms: now,
        expires_ms: now.saturating_add(life_ms),
    };
    let what = json!({ "issue": token });
    read(&shared.rules).audit(&what, &order.actor, now)?;
    let (text, id) = write(&shared.tokens).issue(token, now)?;
    Ok(json!({ "token": text, "token_id": id }))
}

fn revoke(
    shared: &Shared,
    which: &str,
    order: &Order,
    now: u64,
) -> std::io::Result<serde_json::Value> {
    let target = which.parse::<Target>().ok();
    let picked = |id: &str, token: &Token| match (&target, &token.subject) {
        (Some(Target::Hotkey(key)), Subject::Hotkey(of)) => key == of,
        (Some(Target::Coldkey(key)), Subject::Coldkey(of)) => key == of,
        (Some(Target::Group(name)), Subject::Issued { group, .. }) => name == group,
        _ => id == which,
    };
    read(&shared.rules).audit(&json!({ "revoke": which }), &order.actor, now)?;
    let ended = write(&shared.tokens).revoke(picked)?;
    Ok(json!({ "revoked": ended }))
}
