//! One place that packs come from: a Dataset API, a static host, or a bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE, RETRY_AFTER};
use url::Url;

use super::super::object::LISTING_FILE;
use super::super::{DatasetError, Form, ObjectDigest};

/// Longest listing accepted.
const LISTING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest `Retry-After` that is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Why one endpoint did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// What the endpoint asked for: it is overloaded, or the budget there is used up.
    pub(super) wait: Option<Duration>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, wait: None }
    }
}

impl From<reqwest::Error> for Refusal {
    fn from(error: reqwest::Error) -> Self {
        describe(&error).into()
    }
}

impl From<object_store::Error> for Refusal {
    fn from(error: object_store::Error) -> Self {
        describe(&error).into()
    }
}

/// The error with its causes; the outermost text alone says too little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text.chars().take(500).collect()
}

/// Where to ask.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// `GET {url}/v1/packs`, `GET {url}/v1/packs/{hex}`.
    Api { url: Url, http: reqwest::Client },
    /// The operator's folder of packs as files, `packs.json` first.
    Files {
        name: String,
        store: Arc<dyn ObjectStore>,
        prefix: object_store::path::Path,
    },
}

/// Bytes of a form from some offset on.
pub(super) struct Opened {
    /// Where they begin: the offset asked for, or 0 when the endpoint cannot do ranges.
    pub(super) from: u64,
    pub(super) bytes: BoxStream<'static, Result<Bytes, Refusal>>,
}

impl Endpoint {
    /// A static host (`http`, `https`) or an S3-compatible bucket (`s3://bucket/prefix`, with
    /// region, endpoint and keys from the `AWS_*` variables). Retries are the caller's.
    pub(super) fn mirror(url: &Url, timeout: Duration) -> Result<Self, DatasetError> {
        let wrong = |e: object_store::Error| DatasetError::Unavailable(format!("{url}: {e}"));
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        // No deadline on the whole of an answer: it may be large. Each read has its own.
        let options = object_store::ClientOptions::new()
            .with_connect_timeout(timeout)
            .with_read_timeout(timeout)
            .with_timeout_disabled()
            .with_allow_http(url.scheme() == "http");
        let (store, prefix): (Arc<dyn ObjectStore>, &str) = if url.scheme() == "s3" {
            let builder = object_store::aws::AmazonS3Builder::from_env()
                .with_bucket_name(url.host_str().unwrap_or_default())
                .with_client_options(options)
                .with_allow_http(std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true"))
                .with_retry(once);
            (Arc::new(builder.build().map_err(wrong)?), url.path())
        } else {
            let builder = object_store::http::HttpBuilder::new()
                .with_url(url.as_str())
                .with_client_options(options)
                .with_retry(once);
            (Arc::new(builder.build().map_err(wrong)?), "")
        };
        Ok(Self::Files {
            name: url.to_string(),
            store,
            prefix: object_store::path::Path::from(prefix),
        })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Api { url, .. } => url.as_str(),
            Self::Files { name, .. } => name,
        }
    }

    /// The listing of packs, as it comes.
    pub(super) async fn listing(&self) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Api { url, http } => {
                let response = http.get(join(url, "v1/packs")?).send().await?;
                bounded(checked(response)?.bytes_stream().err_into().boxed()).await
            }
            Self::Files { store, prefix, .. } => {
                let found = store.get(&prefix.clone().join(LISTING_FILE)).await?;
                bounded(found.into_stream().err_into().boxed()).await
            }
        }
    }

    /// A form of an object, from `from` on if the endpoint can.
    pub(super) async fn open(
        &self,
        digest: ObjectDigest,
        form: Form,
        from: u64,
    ) -> Result<Opened, Refusal> {
        match self {
            Self::Api { url, http } => {
                let path = format!("v1/packs/{}", digest.hex());
                let encoding = form.content_encoding().unwrap_or("identity");
                let mut request = http
                    .get(join(url, &path)?)
                    .header(ACCEPT_ENCODING, encoding);
                if from > 0 {
                    request = request.header(RANGE, format!("bytes={from}-"));
                }
                let response = checked(request.send().await?)?;
                let found = response.headers().get(CONTENT_ENCODING);
                let found = found.map_or("identity", |v| v.to_str().unwrap_or("?"));
                if found != encoding {
                    return Err(format!("answered {found} where {encoding} was asked").into());
                }
                let partial = response.status() == StatusCode::PARTIAL_CONTENT;
                let from = if partial { range_start(&response)? } else { 0 };
                let bytes = response.bytes_stream().err_into().boxed();
                Ok(Opened { from, bytes })
            }
            Self::Files { store, prefix, .. } => {
                let name = format!("{}{}", digest.hex(), form.suffix());
                let options = GetOptions {
                    range: (from > 0).then_some(GetRange::Offset(from)),
                    ..GetOptions::default()
                };
                let path = prefix.clone().join(name);
                let found = match store.get_opts(&path, options).await {
                    // Some hosts do not know ranges.
                    Err(_) if from > 0 => store.get(&path).await?,
                    found => found?,
                };
                let from = found.range.start;
                let bytes = found.into_stream().err_into().boxed();
                Ok(Opened { from, bytes })
            }
        }
    }
}

fn range_start(response: &reqwest::Response) -> Result<u64, Refusal> {
    let text = response.headers().get(CONTENT_RANGE);
    let start = text.and_then(|v| {
        let range = v.to_str().ok()?.strip_prefix("bytes ")?;
        range.split('-').next()?.parse().ok()
    });
    start.ok_or_else(|| {
        "answered 206 without a readable Content-Range"
            .to_owned()
            .into()
    })
}

fn checked(response: reqwest::Response) -> Result<reqwest::Response, Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ]
    .contains(&status);
    let asked = response.headers().get(RETRY_AFTER);
    let asked = asked.and_then(|v| v.to_str().ok()?.parse().ok());
    let wait = busy.then(|| Duration::from_secs(asked.unwrap_or(1)).min(RETRY_AFTER_MAX));
    let reason = format!("answered {status}");
    Err(Refusal { reason, wait })
}

async fn bounded(
    mut bytes: BoxStream<'static, Result<Bytes, Refusal>>,
) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    while let Some(chunk) = bytes.try_next().await? {
        if body.len() + chunk.len() > LISTING_BYTES_MAX {
            return Err("the listing is larger than 16 MiB".to_owned().into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `endpoint` with `path` below it, whether or not it ends in a slash.
fn join(endpoint: &Url, path: &str) -> Result<Url, Refusal> {
    let base = endpoint.as_str().trim_end_matches('/');
    let joined = format!("{base}/{path}").parse();
    joined.map_err(|e| format!("is no usable endpoint: {e}").into())
}
