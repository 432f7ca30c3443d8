//! One question, one answer: HTTP to an OpenAI-compatible endpoint, with deadline and bounded retries.

use super::super::logs;
use super::answer::{self, Answerer, Verdict};
use super::prompt::{Order, Prompt, answer_schema};
use crate::fault::{Fault, Party};
use crate::retry::{Retry, RetryPolicy, Retryable, retry};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Semaphore;
use url::Url;

/// Longest response body that is read.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest pause that a provider may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(120);
const ANSWER_TOKENS_MAX: u32 = 400;

/// Where and how to ask.
#[derive(Debug, Clone)]
pub struct JudgeSettings {
    /// Such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub base_url: Url,
    /// A pinned model snapshot: verdicts of different ones are never mixed.
    pub model: String,
    /// API key; none for a local endpoint.
    pub key: Option<SecretString>,
    /// Most calls in flight at a time, at least 1.
    pub in_flight: usize,
    /// Deadline of one call.
    pub call_deadline: Duration,
    /// Bounds of the attempts for one question.
    pub retry: RetryPolicy,
}

/// Why there is no verdict. All are faults of ours or the provider's; a variant for each decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// The settings cannot work.
    #[error("the judge cannot be used: {0}")]
    Settings(String),
    /// The key is missing, wrong or lacks the right.
    #[error("the judge does not accept the API key (status {0}); renew it")]
    Key(u16),
    /// The account is out of credit.
    #[error("the judge's account is out of credit; top it up")]
    Credit,
    /// The endpoint does not accept the request.
    #[error("the judge refuses the request (status {status}): {message}; check model and base URL")]
    Request {
        /// HTTP status.
        status: u16,
        /// The provider's words, cleaned.
        message: String,
    },
    /// Too many requests.
    #[error("the judge asks for fewer calls; lower the number in flight")]
    Throttled(Option<Duration>),
    /// The endpoint fails or cannot be reached.
    #[error("the judge is not available: {0}")]
    Unavailable(String),
    /// No answer within the deadline.
    #[error("the judge did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The model declined to judge.
    #[error("the judge declined to answer")]
    Declined,
    /// The answer does not have the asked form.
    #[error("the judge's answer cannot be read: {0}")]
    Answer(String),
}

impl Retryable for JudgeError {
    fn retry(&self) -> Retry {
        match self {
            Self::Settings(_) | Self::Key(_) | Self::Credit | Self::Request { .. } => Retry::Never,
            Self::Throttled(Some(pause)) => Retry::After(*pause),
            _ => Retry::Now,
        }
    }
}

impl From<JudgeError> for Fault {
    fn from(error: JudgeError) -> Self {
        let code = match &error {
            JudgeError::Settings(_) => "JUDGE_SETTINGS",
            JudgeError::Key(_) => "JUDGE_KEY",
            JudgeError::Credit => "JUDGE_CREDIT",
            JudgeError::Request { .. } => "JUDGE_REQUEST",
            JudgeError::Throttled(_) => "JUDGE_THROTTLED",
            JudgeError::Unavailable(_) => "JUDGE_UNAVAILABLE",
            JudgeError::Timeout(_) => "JUDGE_TIMEOUT",
            JudgeError::Declined => "JUDGE_DECLINED",
            JudgeError::Answer(_) => "JUDGE_ANSWER",
        };
        match error.retry() {
            Retry::Never => Fault::permanent(Party::Judge, code, error),
            _ => Fault::retryable(Party::Judge, code, error),
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    settings: JudgeSettings,
    permits: Semaphore,
}

impl Client {
    pub(super) fn new(settings: JudgeSettings) -> Result<Self, JudgeError> {
        let bad = |what: &str| JudgeError::Settings(what.to_owned());
        if settings.in_flight == 0 || settings.call_deadline.is_zero() || settings.model.is_empty()
        {
            return Err(bad("model, calls in flight and deadline must be given"));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &settings.key {
            if settings.base_url.scheme() != "https" && !is_loopback(&settings.base_url) {
                return Err(bad("a key is only sent over https, or to this host"));
            }
            let value = format!("Bearer {}", key.expose_secret());
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| bad("the API key holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut endpoint = settings.base_url.clone();
        endpoint
            .path_segments_mut()
            .map_err(|()| bad("the base URL cannot carry a path"))?
            .pop_if_empty()
            .extend(["chat", "completions"]);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .timeout(settings.call_deadline)
            .build()
            .map_err(|error| JudgeError::Settings(error.to_string()))?;
        Ok(Self {
            http,
            endpoint,
            permits: Semaphore::new(settings.in_flight),
            settings,
        })
    }

    pub(super) fn model(&self) -> &str {
        &self.settings.model
    }

    pub(super) fn in_flight(&self) -> usize {
        self.settings.in_flight
    }

    pub(super) async fn ask(&self, prompt: &Prompt, order: Order) -> Result<Verdict, JudgeError> {
        let body = self.request(prompt);
        retry(&self.settings.retry, || async {
            // Held for the call alone, so that pauses do not keep others from asking.
            let permit = self.permits.acquire().await;
            let _permit = permit.map_err(|error| JudgeError::Unavailable(error.to_string()))?;
            let (content, by) = self.call(&body).await?;
            answer::read(&content, order, &by).map_err(JudgeError::Answer)
        })
        .await
    }

    fn request(&self, prompt: &Prompt) -> Value {
        json!({
            "model": self.settings.model,
            "messages": [
                {"role": "system", "content": prompt.rules},
                {"role": "user", "content": prompt.question},
            ],
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS_MAX,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": true, "schema": answer_schema()},
            },
        })
    }

    async fn call(&self, body: &Value) -> Result<(String, Answerer), JudgeError> {
        let sent = self
            .http
            .post(self.endpoint.clone())
            .json(body)
            .send()
            .await;
        let response = sent.map_err(|error| self.transport(&error))?;
        let (status, pause) = (response.status(), retry_after(&response));
        let bytes = self.read_body(response).await?;
        if status.is_success() {
            read_completion(&bytes)
        } else {
            Err(from_status(status, pause, &bytes))
        }
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, JudgeError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.transport(&error))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BODY_BYTES_MAX {
                return Err(JudgeError::Answer("the response is too long".to_owned()));
            }
        }
        Ok(bytes)
    }

    fn transport(&self, error: &reqwest::Error) -> JudgeError {
        if error.is_timeout() {
            return JudgeError::Timeout(self.settings.call_deadline);
        }
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let text = cause.unwrap_or_else(|| "the connection failed".to_owned());
        JudgeError::Unavailable(logs::clean(text.as_bytes()))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    code: Value,
    #[serde(rename = "type")]
    kind: Value,
    message: String,
}

fn from_status(status: StatusCode, pause: Option<Duration>, body: &[u8]) -> JudgeError {
    let error = serde_json::from_slice::<ErrorBody>(body)
        .unwrap_or_default()
        .error;
    let no_credit = [&error.code, &error.kind]
        .iter()
        .any(|value| value.as_str() == Some("insufficient_quota"));
    match status.as_u16() {
        402 => JudgeError::Credit,
        429 if no_credit => JudgeError::Credit,
        401 | 403 => JudgeError::Key(status.as_u16()),
        429 => JudgeError::Throttled(pause),
        408 | 409 | 425 | 500.. => match pause {
            Some(pause) => JudgeError::Throttled(Some(pause)),
            None => JudgeError::Unavailable(format!("status {status}")),
        },
        status => JudgeError::Request {
            status,
            message: logs::cut(logs::clean(error.message.as_bytes()), 300),
        },
    }
}

#[derive(Debug, Deserialize)]
struct Completion {
    #[serde(default)]
    model: String,
    #[serde(default)]
    system_fingerprint: Option<String>,
    choices: Vec<Choice>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

fn read_completion(body: &[u8]) -> Result<(String, Answerer), JudgeError> {
    let unreadable = |what: &str| JudgeError::Answer(what.to_owned());
    let completion: Completion =
        serde_json::from_slice(body).map_err(|_| unreadable("it is no chat completion"))?;
    let [choice] = <[Choice; 1]>::try_from(completion.choices)
        .map_err(|_| unreadable("it holds not exactly one choice"))?;
    let by = Answerer {
        model: completion.model,
        fingerprint: completion.system_fingerprint.unwrap_or_default(),
    };
    match (choice.finish_reason.as_deref(), choice.message) {
        (Some("content_filter"), _) => Err(JudgeError::Declined),
        (
            _,
            Message {
                refusal: Some(text),
                ..
            },
        ) if !text.is_empty() => Err(JudgeError::Declined),
        (Some("length"), _) => Err(unreadable("it was cut at the token limit")),
        (
            _,
            Message {
                content: Some(content),
                ..
            },
        ) => Ok((content, by)),
        _ => Err(unreadable("it is empty")),
    }
}
