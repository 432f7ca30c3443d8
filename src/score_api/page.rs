//! The one page for people: what leads, what waits, what was refused and why, what is on chain.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::answer::{clean, set, tagged};
use super::plot::{self, Interval};
use super::source::{Source, failed};
use super::views::Leaderboard;
use crate::store::{
    Counts, QueueEntry, QueueState, Reader, Scored, Status, StoreError, Submission,
    SubmissionFilter, WeightEntry, WeightState,
};
use crate::web::ApiError;

/// Lines of each table.
const LINES: u32 = 50;
const STYLE: &str = include_str!("../../templates/score.css");

/// Nothing but the page's own style may run or load, known by its digest.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
});

#[derive(Template)]
#[template(path = "score.html")]
struct Page {
    style: &'static str,
    totals: Vec<(&'static str, u64)>,
    era: String,
    leaders: Vec<Leader>,
    weights: Option<Weights>,
    queue: Vec<Queued>,
    rejected: Vec<Refused>,
    rejected_total: u64,
}

struct Model {
    id: i64,
    name: String,
    revision: String,
    hotkey: String,
    hotkey_short: String,
    block: u64,
}

struct Leader {
    rank: u32,
    model: Model,
    score: String,
    margin: String,
    /// With the effect of length taken off, and over how many rounds; empty before a ranking.
    controlled: String,
    rounds: String,
    /// What the place is about: tied with others, the champion, what is missing to the title.
    notes: Vec<String>,
    items: u64,
    round: u64,
    plot: Interval,
}

struct Weights {
    window: String,
    block: u64,
    state: &'static str,
    meaning: &'static str,
    reason: String,
    error: String,
    at: String,
    shares: Vec<Share>,
    more: usize,
}

struct Share {
    uid: u16,
    percent: String,
    width: String,
}

struct Queued {
    place: String,
    id: i64,
    name: String,
    stage: &'static str,
    block: u64,
    attempts: u32,
}

struct Refused {
    model: Model,
    code: &'static str,
    detail: String,
    advice: &'static str,
}

/// `GET /`.
pub(super) async fn show(
    State(source): State<Arc<Source>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = source.reader().await?;
    let page = Page::read(reader).await.map_err(|e| failed(&e))?;
    let html = page.render().map_err(|error| {
        tracing::error!(%error, "the page could not be rendered");
        ApiError::unavailable()
    })?;
    let mut response = tagged(&headers, html, "text/html; charset=utf-8");
    set(
        response.headers_mut(),
        header::CONTENT_SECURITY_POLICY,
        &POLICY,
    );
    Ok(response)
}

impl Page {
    async fn read(reader: &Reader) -> Result<Self, StoreError> {
        let counts = reader.counts().await?;
        let board = Leaderboard::read(reader, None).await?;
        let weights = reader.weight_log(None, 1).await?;
        let queue = reader.queue(0, LINES).await?;
        let refused = SubmissionFilter {
            status: Some(Status::Rejected),
            ..SubmissionFilter::default()
        };
        let rejected = reader.submissions(refused, LINES).await?;
        let lines = board.leaders.iter().zip(1u32..).take(50);
        let leaders = lines.map(|(s, rank)| leader(s, rank, &board)).collect();
        Ok(Self {
            style: STYLE,
            totals: totals(&counts),
            era: board
                .era
                .iter()
                .flat_map(|era| era.chars().take(12))
                .collect(),
            leaders,
            weights: weights.first().map(on_chain),
            queue: queue.iter().map(queued).collect(),
            rejected: rejected.iter().filter_map(refusal).collect(),
            rejected_total: count(&counts, &[Status::Rejected]),
        })
    }
}

fn count(counts: &Counts, wanted: &[Status]) -> u64 {
    let found = wanted.iter().filter_map(|s| counts.by_status.get(s));
    found.sum()
}

fn totals(counts: &Counts) -> Vec<(&'static str, u64)> {
    let waiting = [Status::Discovered, Status::Queued, Status::Ready];
    let working = [Status::Fetching, Status::Scoring, Status::Judging];
    vec![
        ("scored", count(counts, &[Status::Scored])),
        ("in work", count(counts, &working)),
        ("waiting", count(counts, &waiting)),
        ("rejected", count(counts, &[Status::Rejected])),
        ("parked", count(counts, &[Status::Parked])),
    ]
}

fn model(submission: &Submission) -> Model {
    let name = submission
        .repo
        .as_deref()
        .unwrap_or("unreadable commitment");
    let revision = submission.revision.as_deref().unwrap_or_default();
    let hotkey = submission.hotkey.to_string();
    Model {
        id: submission.id.0,
        name: clean(name),
        revision: clean(revision).chars().take(10).collect(),
        hotkey_short: hotkey.chars().take(8).collect(),
        hotkey,
        block: submission.commit_block.0,
    }
}

fn leader(scored: &Scored, rank: u32, board: &Leaderboard) -> Leader {
    let score = &scored.score;
    let standing = board.places.get(&scored.submission.id.0);
    let number = |key: &str| standing.and_then(|p| p["controlled"][key].as_f64());
    let controlled = number("value").map(|value| {
        let margin = 1.96 * number("standard_error").unwrap_or(f64::INFINITY);
        format!("{value:.3} ± {margin:.3}")
    });
    let rounds = standing.and_then(|p| p["rounds"].as_u64());
    Leader {
        rank,
        model: model(&scored.submission),
        score: format!("{:.3}", score.value),
        margin: format!("{:.3}", 1.96 * score.standard_error),
        controlled: controlled.unwrap_or_default(),
        rounds: rounds.map(|n| n.to_string()).unwrap_or_default(),
        notes: standing
            .map(|place| notes(place, board))
            .unwrap_or_default(),
        items: score.n,
        round: score.round.0,
        plot: plot::interval(score.value, score.standard_error),
    }
}

/// What a place of the ranking means, in a few words each.
fn notes(place: &Value, board: &Leaderboard) -> Vec<String> {
    let mut notes = Vec::new();
    let same = |other: &&Value| other["group"] == place["group"];
    let tied = board.places.values().filter(same).count();
    if tied > 1 {
        notes.push(format!(
            "statistically tied, group {} of {tied}",
            place["group"]
        ));
    }
    let challenge = &place["challenge"];
    match (challenge["lead"].as_f64(), challenge["needed"].as_f64()) {
        (Some(lead), Some(needed)) => {
            notes.push(format!("lead {lead:+.3}, needs {needed:+.3} for the title"));
        }
        _ if challenge.is_null() && place["win_rate"].is_null() => {
            notes.push("champion".to_owned())
        }
        _ => {}
    }
    if challenge["open"] == true {
        notes.push("open: scored again next round".to_owned());
    }
    if place["fresh_only"] == true {
        notes.push("knows old items: only fresh ones count".to_owned());
    }
    notes
}

fn queued(entry: &QueueEntry) -> Queued {
    let place = match (entry.state, entry.position) {
        (QueueState::Waiting, Some(position)) => position.to_string(),
        _ => "now".to_owned(),
    };
    Queued {
        place,
        id: entry.submission.0,
        name: clean(entry.repo.as_deref().unwrap_or("unreadable commitment")),
        stage: entry.stage.as_str(),
        block: entry.commit_block.0,
        attempts: entry.attempts,
    }
}

fn refusal(submission: &Submission) -> Option<Refused> {
    let rejection = submission.rejection.as_ref()?;
    Some(Refused {
        model: model(submission),
        code: rejection.code.as_str(),
        detail: clean(&rejection.detail),
        advice: rejection.code.advice(),
    })
}

fn on_chain(entry: &WeightEntry) -> Weights {
    let sum: f64 = entry.weights.iter().map(|(_, w)| f64::from(*w)).sum();
    let mut largest = entry.weights.clone();
    largest.retain(|(_, weight)| *weight > 0);
    largest.sort_by_key(|(uid, weight)| (std::cmp::Reverse(*weight), *uid));
    let shares = largest.iter().take(16).map(|(uid, weight)| {
        let share = f64::from(*weight) / sum.max(1.0);
        Share {
            uid: uid.0,
            percent: format!("{:.1}", share * 100.0),
            width: plot::bar(share),
        }
    });
    let error = match &entry.state {
        WeightState::Failed { error, .. } => clean(error),
        _ => String::new(),
    };
    Weights {
        window: clean(&entry.window),
        block: entry.block.0,
        state: entry.state.name(),
        meaning: meaning(&entry.state),
        reason: clean(&entry.reason),
        error,
        at: moment(entry.updated_ms),
        shares: shares.collect(),
        more: largest.len().saturating_sub(16),
    }
}

fn meaning(state: &WeightState) -> &'static str {
    match state {
        WeightState::Intended => "decided, not sent yet",
        WeightState::Signed(_) => "signed, on its way",
        WeightState::Pooled => "accepted by the chain's pool, in no block yet",
        WeightState::InBlock { failed: None, .. } => "in a block, not final yet",
        WeightState::InBlock { .. } => "failed in a block, not final yet",
        WeightState::Finalised { .. } => "final, not read back yet",
        WeightState::ReadBack { .. } => "read back from the chain, as intended",
        WeightState::Failed { .. } => "refused or lost",
    }
}

/// Unix milliseconds as people read them, UTC.
fn moment(ms: u64) -> String {
    // The formatter ends with the year 9999; a broken clock must not end a request.
    let bounded = Duration::from_millis(ms.min(253_402_300_799_000));
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + bounded).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}
