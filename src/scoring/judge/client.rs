//! One question, one answer: HTTP to an OpenAI-compatible endpoint, with a deadline. Tried once; the pool
//! decides about more.

use super::super::logs;
use super::answer::{self, Answerer, Verdict};
use super::error::JudgeError;
use super::pool::{Bounds, Call};
use super::prompt::{Order, Prompt, answer_schema};
use super::spend::Usage;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// Longest response body that is read.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest pause that a provider may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Longest answer.
pub(super) const ANSWER_TOKENS_MAX: u32 = 400;

/// One endpoint of a judge.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub base_url: Url,
    /// The judge's model as this provider calls it.
    pub model: String,
    /// API key; none for a local endpoint.
    pub key: Option<SecretString>,
    /// Deadline of one call.
    pub call_deadline: Duration,
    /// Name, limits and prices.
    pub bounds: Bounds,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    model: String,
    call_deadline: Duration,
}

impl Client {
    pub(super) fn new(settings: &ProviderSettings) -> Result<Self, JudgeError> {
        let bad = |what: &str| JudgeError::Settings(format!("{}: {what}", settings.bounds.name));
        if settings.call_deadline.is_zero() || settings.model.is_empty() {
            return Err(bad("model and deadline must be given"));
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
            .map_err(|error| bad(&error.to_string()))?;
        Ok(Self {
            http,
            endpoint,
            model: settings.model.clone(),
            call_deadline: settings.call_deadline,
        })
    }

    /// One question, one call.
    pub(super) async fn ask(&self, prompt: &Prompt, order: Order) -> Call<Verdict> {
        let (bytes, failure) = match self.call(&self.request(prompt)).await {
            Ok(bytes) => (bytes, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        if let Some(error) = failure {
            return Call {
                answered: error.is_poor_answer(),
                result: Err(error),
                usage: None,
            };
        }
        let usage = read_usage(&bytes);
        let read = read_completion(&bytes).and_then(|(content, by)| {
            answer::read(&content, order, &by).map_err(JudgeError::Answer)
        });
        Call {
            result: read,
            usage,
            answered: true,
        }
    }

    fn request(&self, prompt: &Prompt) -> Value {
        json!({
            "model": self.model,
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

    async fn call(&self, body: &Value) -> Result<Vec<u8>, JudgeError> {
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
            Ok(bytes)
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
            return JudgeError::Timeout(self.call_deadline);
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
struct Used {
    usage: UsageObject,
}

#[derive(Debug, Deserialize)]
struct UsageObject {
    prompt_tokens: u32,
    completion_tokens: u32,
}

fn read_usage(body: &[u8]) -> Option<Usage> {
    let used: Used = serde_json::from_slice(body).ok()?;
    Some(Usage {
        input_tokens: used.usage.prompt_tokens,
        output_tokens: used.usage.completion_tokens,
    })
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
