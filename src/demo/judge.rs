//! `assay-dev-judge`: an OpenAI-compatible endpoint for the demo and for tests, never for real scores.
//!
//! It knows the corpus and compares both responses with the reference by word overlap, so it is
//! deterministic and needs no model. Misbehaviour can be asked for, to test those who call it.

use crate::demo::corpus::word_f1;
use crate::scoring::judge::prompt::{Prompt, shown_context};
use crate::scoring::judge::{REPLY_CHARS_MAX, Turn, sanitise};
use crate::shutdown::Shutdown;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// The model name under which it answers.
pub const MODEL: &str = "assay-dev-judge";
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A conversation with its reference reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The conversation, persona first, the user's message last.
    pub context: Vec<Turn>,
    /// The reference reply.
    pub reference: String,
}

/// A fault on demand. Each is used up by one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Answer this much later.
    Delay(Duration),
    /// Answer with this status, and with a `Retry-After` in seconds where given.
    Status(u16, Option<u64>),
    /// Status 429 with the code `insufficient_quota`.
    OutOfCredit,
    /// Answer with text that is not the asked JSON.
    BadJson,
    /// Decline to answer.
    Refusal,
    /// Break off at the token limit.
    CutShort,
}

/// The endpoint's behaviour and memory. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct DevJudge {
    references: Arc<HashMap<[u8; 32], String>>,
    flip_share: f64,
    obeys: bool,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Misbehaviour>,
    latency: Duration,
    fail_every: Option<usize>,
    outage: Option<Outage>,
    questions: Vec<String>,
    answered: Vec<String>,
    in_flight: usize,
    most_in_flight: usize,
}

#[derive(Debug)]
struct Outage {
    from_question: usize,
    lasts: Duration,
    begun: Option<Instant>,
}

impl Script {
    /// What is to go wrong with the question that has just come.
    fn fault(&mut self) -> Option<Misbehaviour> {
        if let Some(fault) = self.next.pop_front() {
            return Some(fault);
        }
        let n = self.questions.len();
        if let Some(outage) = self.outage.as_mut().filter(|o| n >= o.from_question) {
            let begun = *outage.begun.get_or_insert_with(Instant::now);
            if begun.elapsed() < outage.lasts {
                return Some(Misbehaviour::Status(503, None));
            }
        }
        let fails = self.fail_every.is_some_and(|every| n.is_multiple_of(every));
        fails.then_some(Misbehaviour::Status(500, None))
    }
}

impl DevJudge {
    /// A judge that knows these conversations and answers the share `flip_share` of all questions
    /// the wrong way round (which ones is a matter of what is shown alone).
    #[must_use]
    pub fn new(corpus: &[Known], flip_share: f64) -> Self {
        let known = |known: &Known| {
            let shown = shown_context(&known.context);
            (
                context_key(&shown),
                sanitise(&known.reference, REPLY_CHARS_MAX),
            )
        };
        Self {
            references: Arc::new(corpus.iter().map(known).collect()),
            flip_share,
            obeys: false,
            script: Arc::default(),
        }
    }

    /// The same judge, but one that lets itself be told what to say: whoever speaks to it wins, and
    /// it does not tell.
    #[must_use]
    pub fn obedient(mut self) -> Self {
        self.obeys = true;
        self
    }

    /// Answers every question this much later.
    pub fn answer_after(&self, latency: Duration) {
        self.with_script(|script| script.latency = latency);
    }

    /// Answers every `every`th question with status 500.
    pub fn fail_every(&self, every: usize) {
        self.with_script(|script| script.fail_every = Some(every));
    }

    /// Answers with status 503 for a while, from the given question on.
    pub fn go_down_at(&self, from_question: usize, lasts: Duration) {
        let outage = Outage {
            from_question,
            lasts,
            begun: None,
        };
        self.with_script(|script| script.outage = Some(outage));
    }

    /// Lets the next requests misbehave, in this order, after those already asked for.
    pub fn misbehave(&self, faults: impl IntoIterator<Item = Misbehaviour>) {
        self.with_script(|script| script.next.extend(faults));
    }

    /// Every question so far, in order of arrival.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.with_script(|script| script.questions.clone())
    }

    /// Every question that got a verdict, in order.
    #[must_use]
    pub fn answered(&self) -> Vec<String> {
        self.with_script(|script| script.answered.clone())
    }

    /// Most requests that were ever open at the same time.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.with_script(|script| script.most_in_flight)
    }

    /// Serves `/v1/chat/completions` until `stop` is triggered.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: Shutdown) -> std::io::Result<()> {
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self);
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.signalled().await })
            .await
    }

    fn with_script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn verdict(&self, question: &str) -> Option<Value> {
        let shown = Prompt::read_back(question)?;
        let reference = self.references.get(&context_key(&shown.conversation))?;
        let flip = self.flips(question);
        let pick = |score: fn(&str, &str) -> f64, band: f64| {
            // Who speaks to the judge loses, as a real one is told to decide; an obedient one obeys.
            let score = |text: &str| {
                if speaks_to_judge(text) {
                    if self.obeys { 2.0 } else { -1.0 }
                } else {
                    score(text, reference)
                }
            };
            let difference = score(&shown.response_1) - score(&shown.response_2);
            match (difference, flip) {
                (d, _) if d.abs() <= band => "tie",
                (d, false) if d > 0.0 => "1",
                (d, true) if d < 0.0 => "1",
                _ => "2",
            }
        };
        Some(json!({
            "why": "compared by word overlap with the reference",
            "realism": pick(word_f1, 0.10),
            "entertainment": pick(length_ratio, 0.20),
            "coherency": pick(bigram_f1, 0.30),
            "addresses_judge": match self.obeys {
                true => "none",
                false => addresses_judge(&shown.response_1, &shown.response_2),
            },
        }))
    }

    fn flips(&self, question: &str) -> bool {
        // Without the fence, which is another one for each call.
        let shown = question.lines().nth(2).unwrap_or_default();
        let digest = Sha256::digest(shown.as_bytes());
        f64::from(digest[0]) < self.flip_share * 256.0
    }
}

/// Counts a request as open for as long as it lives.
struct Open<'a>(&'a DevJudge);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.with_script(|script| script.in_flight -= 1);
    }
}

#[derive(Debug, Deserialize)]
struct Request {
    model: String,
    messages: Vec<Turn>,
}

async fn complete(State(judge): State<DevJudge>, Json(request): Json<Request>) -> Response {
    let question = request.messages.last().map(|turn| turn.content.clone());
    let question = question.unwrap_or_default();
    let (fault, latency) = judge.with_script(|script| {
        script.questions.push(question.clone());
        script.in_flight += 1;
        script.most_in_flight = script.most_in_flight.max(script.in_flight);
        (script.fault(), script.latency)
    });
    let _open = Open(&judge);
    if fault.is_none() && !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let useless = fault == Some(Misbehaviour::BadJson);
    let text = match fault {
        Some(Misbehaviour::Status(status, pause)) => return failure(status, "failed", pause),
        Some(Misbehaviour::OutOfCredit) => return failure(429, "insufficient_quota", None),
        Some(Misbehaviour::Refusal) => return completion(None, "stop", &request.model),
        Some(Misbehaviour::CutShort) => {
            return completion(Some("{\"why\":\"bec".to_owned()), "length", &request.model);
        }
        Some(Misbehaviour::BadJson) => Some("Response 1 is better.".to_owned()),
        Some(Misbehaviour::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            judge.verdict(&question).map(|verdict| verdict.to_string())
        }
        None => judge.verdict(&question).map(|verdict| verdict.to_string()),
    };
    match text {
        Some(text) => {
            if !useless {
                judge.with_script(|script| script.answered.push(question));
            }
            completion(Some(text), "stop", &request.model)
        }
        None => failure(400, "unknown_conversation", None),
    }
}

fn completion(content: Option<String>, finish: &str, model: &str) -> Response {
    let refusal = content.is_none().then_some("I cannot judge this.");
    Json(json!({
        "object": "chat.completion",
        "model": model,
        "system_fingerprint": "dev",
        "usage": {"prompt_tokens": 400, "completion_tokens": 80},
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": refusal},
            "finish_reason": finish,
        }],
    }))
    .into_response()
}

fn failure(status: u16, code: &str, pause: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Json(json!({"error": {"code": code, "type": code, "message": code}}));
    match pause {
        Some(seconds) => (status, [("retry-after", seconds.to_string())], body).into_response(),
        None => (status, body).into_response(),
    }
}

fn context_key(shown: &[Turn]) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(shown).unwrap_or_default()).into()
}

fn addresses_judge(first: &str, second: &str) -> &'static str {
    match (speaks_to_judge(first), speaks_to_judge(second)) {
        (false, false) => "none",
        (true, false) => "1",
        (false, true) => "2",
        (true, true) => "both",
    }
}

fn speaks_to_judge(text: &str) -> bool {
    let text = text.to_lowercase();
    let phrases = [
        "note to judge",
        "dear judge",
        "to the evaluator",
        "to the grader",
    ];
    phrases.iter().any(|phrase| text.contains(phrase))
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// As [`word_f1`], over pairs of neighbouring words.
fn bigram_f1(text: &str, reference: &str) -> f64 {
    let pairs = |text| -> Vec<[String; 2]> {
        let words = words(text);
        let pair = |pair: &[String]| [pair[0].clone(), pair[1].clone()];
        words.windows(2).map(pair).collect()
    };
    let (text, mut left) = (pairs(text), pairs(reference));
    let total = count(text.len() + left.len());
    let mut common = 0;
    for pair in text {
        if let Some(at) = left.iter().position(|other| *other == pair) {
            left.swap_remove(at);
            common += 1;
        }
    }
    if total == 0.0 {
        1.0
    } else {
        2.0 * count(common) / total
    }
}

fn length_ratio(text: &str, reference: &str) -> f64 {
    let (a, b) = (text.chars().count(), reference.chars().count());
    let longer = a.max(b);
    if longer == 0 {
        1.0
    } else {
        count(a.min(b)) / count(longer)
    }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}
