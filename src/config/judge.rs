//! `[judge]` and `[[judge.provider]]`: who compares replies, within which bounds, at what price.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use url::Url;

use super::reader::Section;
use super::scorer::is_plain_name;
use super::validator::{http_url, secret_names};
use super::value::{self, SecretError, duration_text, url_text};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// A question with its answer may take this many tokens; less per minute would never let one go.
const TOKENS_PER_MINUTE_MIN: u32 = 10_000;

/// `[judge]`: bounds over all providers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judge {
    /// Requests in flight, for each judge.
    pub concurrency: u16,
    /// Deadline of one request.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// How long one question waits for an answer, outages included; then its submission is handed
    /// back to the queue.
    #[serde(serialize_with = "duration_text")]
    pub total_timeout: Duration,
    /// Most money per day (UTC) over all providers; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_spend_usd: Option<f64>,
    /// `[[judge.provider]]`, in order of preference among those of the same model.
    #[serde(rename = "provider")]
    pub providers: Vec<JudgeProvider>,
}

/// `[[judge.provider]]`: one endpoint that offers one judge model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeProvider {
    /// Unique name, for logs and the cost meter.
    pub name: String,
    /// The judge that it offers, as eras name it: an exact model.
    pub model: String,
    /// How this provider calls that model; the same name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_model: Option<String>,
    /// Base URL of an OpenAI-compatible API, ending before `/chat/completions`.
    #[serde(serialize_with = "url_text")]
    pub base_url: Url,
    /// Variable that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// File that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The account's limit on requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// The account's limit on tokens, questions and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Price of a million tokens of questions.
    pub usd_per_million_input: f64,
    /// Price of a million tokens of answers.
    pub usd_per_million_output: f64,
}

impl JudgeProvider {
    /// The provider's key, read now; `None` when none is named.
    ///
    /// # Errors
    /// [`SecretError`] when the named variable or file does not give one.
    pub fn key(&self) -> Result<Option<SecretString>, SecretError> {
        value::secret(self.key_env.as_deref(), self.key_file.as_deref())
    }
}

pub(super) fn judge(mut s: Section<'_>) -> Option<Judge> {
    let concurrency = s.within("concurrency", 8, 1..=256);
    let request_timeout = s.duration("request_timeout", MINUTE, HOUR);
    let total_timeout = s.duration("total_timeout", 2 * HOUR, DAY);
    let daily_spend_usd: Option<f64> = s.optional("daily_spend_usd");
    if daily_spend_usd.is_some_and(|usd| !(usd > 0.0 && usd <= 1e6)) {
        s.problem("daily_spend_usd", "must lie above 0 and up to 1000000");
    }
    let providers = providers(&mut s, daily_spend_usd.is_some());
    s.finish();
    Some(Judge {
        concurrency,
        request_timeout,
        total_timeout,
        daily_spend_usd,
        providers: providers?,
    })
}

fn providers(s: &mut Section<'_>, capped: bool) -> Option<Vec<JudgeProvider>> {
    let sections = s.sections("provider");
    if sections.is_empty() {
        s.problem(
            "provider",
            "is missing; give at least one [[judge.provider]]",
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for section in sections {
        found.push(provider(section, capped, &mut names));
    }
    found.into_iter().collect()
}

fn provider(
    mut s: Section<'_>,
    capped: bool,
    names: &mut BTreeSet<String>,
) -> Option<JudgeProvider> {
    let name: Option<String> = s.required("name");
    if let Some(name) = &name
        && !(is_plain_name(name) && names.insert(name.clone()))
    {
        let reason = "must be unique, 1 to 32 letters, digits, - or _";
        s.problem("name", format!("is {name:?}, {reason}"));
    }
    let model = s.required("model");
    let served_model = s.optional("served_model");
    let base_url = http_url(&mut s, "base_url");
    let (key_env, key_file) = secret_names(&mut s, "key_env", "key_file");
    let requests = s.optional_within("requests_per_minute", 1..=u32::MAX);
    let tokens = s.optional_within("tokens_per_minute", TOKENS_PER_MINUTE_MIN..=u32::MAX);
    let input = s.within("usd_per_million_input", 0.0, 0.0..=10_000.0);
    let output = s.within("usd_per_million_output", 0.0, 0.0..=10_000.0);
    if capped && input <= 0.0 && key_env.is_some() {
        let reason = "is missing; judge.daily_spend_usd counts with it";
        s.problem("usd_per_million_input", reason);
    }
    s.finish();
    Some(JudgeProvider {
        name: name?,
        model: model?,
        served_model,
        base_url: base_url?,
        key_env,
        key_file,
        requests_per_minute: requests.and_then(NonZeroU32::new),
        tokens_per_minute: tokens.and_then(NonZeroU32::new),
        usd_per_million_input: input,
        usd_per_million_output: output,
    })
}
