//! Requests of our own to the hub: deadlines, bounded bodies, redirects, and the token, which goes
//! to the endpoint's own origin alone.

use super::error::Refusal;
use super::{HubError, HubSettings, TransientKind};
use crate::incentive::{RepoId, Revision};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use url::Url;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// The connection to one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    base: Url,
    token: Option<SecretString>,
    request_timeout: Duration,
    metadata: Client,
    transfers: Client,
}

impl Wire {
    pub(super) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        let mut base = settings.endpoint.clone();
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(HubError::Invalid {
                message: format!("the hub's endpoint {base} is no http or https address"),
            });
        }
        // Anything behind the path would end up in the middle of every address, and in messages.
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        if base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() {
            return Err(HubError::Invalid {
                message: "the hub's endpoint has a query, fragment or user name; give the base \
                          address and name the token apart"
                    .to_owned(),
            });
        }
        let metadata = builder(settings)
            .timeout(settings.request_timeout)
            .redirect(redirect::Policy::custom(within_origin));
        let transfers = builder(settings).redirect(redirect::Policy::none());
        Ok(Self {
            base,
            token: settings.token.clone(),
            request_timeout: settings.request_timeout,
            metadata: build(metadata)?,
            transfers: build(transfers)?,
        })
    }

    /// The endpoint without a slash at its end.
    pub(super) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The client for metadata: a deadline for the whole reply, redirects within the origin only.
    pub(super) fn metadata_client(&self) -> Client {
        self.metadata.clone()
    }

    /// Whether requests to the endpoint carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The first page of the whole file list at a revision.
    pub(super) fn list_url(&self, repo: &RepoId, revision: &Revision) -> Result<Url, HubError> {
        self.url(&format!("api/models/{repo}/tree/{revision}?recursive=true"))
    }

    /// The address of a file at a revision. The name was checked to be plain.
    pub(super) fn file_url(
        &self,
        repo: &RepoId,
        revision: &Revision,
        file: &str,
    ) -> Result<Url, HubError> {
        self.url(&format!("{repo}/resolve/{revision}/{file}"))
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let text = format!("{}/{path}", self.base());
        Url::parse(&text).map_err(|error| HubError::Invalid {
            message: format!("{text} is no address: {error}"),
        })
    }

    /// Fetches a metadata reply, its body at most `limit` bytes.
    pub(super) async fn get_bounded(
        &self,
        url: Url,
        limit: usize,
        what: &str,
    ) -> Result<(HeaderMap, Vec<u8>), HubError> {
        let (request, token_sent) = self.request(&self.metadata, Method::GET, url);
        let mut response = request.send().await.map_err(|e| lost(what, e))?;
        if !response.status().is_success() {
            return Err(refusal(&response, token_sent).into_error(what));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| lost(what, e))? {
            if body.len() + chunk.len() > limit {
                return Err(HubError::OutOfBounds {
                    message: format!("{what} is larger than {limit} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.headers().clone(), body))
    }

    /// Asks for a file's metadata. A redirect that already carries the commit is the answer; one
    /// that does not (a renamed repository) is followed within the origin.
    pub(super) async fn head(&self, mut url: Url, what: &str) -> Result<Response, HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let (response, token_sent) =
                self.send(Method::HEAD, url, HeaderMap::new(), what).await?;
            let status = response.status();
            let answered = response.headers().contains_key("x-repo-commit");
            if status.is_success() || (status.is_redirection() && answered) {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(refusal(&response, token_sent).into_error(what));
            }
            url = target(&response, what)?;
            if url.origin() != self.base.origin() {
                return Err(HubError::protocol(format!(
                    "the hub sent {what} to another host without naming its commit"
                )));
            }
        }
        Err(HubError::protocol(format!(
            "the hub redirects {what} without end"
        )))
    }

    /// Opens a transfer, following redirects to wherever the hub keeps the bytes.
    pub(super) async fn open(
        &self,
        mut url: Url,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Response, HubError> {
        for hop in 0..=MAX_REDIRECTS {
            let (response, token_sent) = self.send(Method::GET, url, headers.clone(), what).await?;
            let status = response.status();
            // 416 answers a range that the caller chose, and is its to read.
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(refusal(&response, token_sent).into_store_error(what, hop > 0));
            }
            url = target(&response, what)?;
        }
        Err(HubError::protocol(format!(
            "the hub redirects {what} without end"
        )))
    }

    /// Sends one request and waits for its header; also tells whether the token went with it.
    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        what: &str,
    ) -> Result<(Response, bool), HubError> {
        let (request, token_sent) = self.request(&self.transfers, method, url);
        let sent = tokio::time::timeout(self.request_timeout, request.headers(headers).send());
        let response = sent.await.map_err(|_| {
            let text = format!("no reply for {what} within {:?}", self.request_timeout);
            HubError::transient(TransientKind::Timeout, text)
        })?;
        Ok((response.map_err(|e| lost(what, e))?, token_sent))
    }

    fn request(&self, client: &Client, method: Method, url: Url) -> (RequestBuilder, bool) {
        let own = url.origin() == self.base.origin();
        let request = client.request(method, url);
        match self.token.as_ref().filter(|_| own) {
            Some(token) => (request.bearer_auth(token.expose_secret()), true),
            None => (request, false),
        }
    }
}

fn builder(settings: &HubSettings) -> ClientBuilder {
    // Digests and lengths are those of the plain content.
    let plain = [(ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
    Client::builder()
        .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
        .default_headers(plain.into_iter().collect())
        .connect_timeout(settings.connect_timeout)
}

fn build(builder: ClientBuilder) -> Result<Client, HubError> {
    builder.build().map_err(|error| HubError::Invalid {
        message: format!("the HTTP client cannot be set up: {error}"),
    })
}

fn within_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first().map(Url::origin);
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else if first != Some(attempt.url().origin()) {
        attempt.error("redirected to another host")
    } else {
        attempt.follow()
    }
}

/// Where a redirect leads. Never from `https` down to plain `http`.
fn target(response: &Response, what: &str) -> Result<Url, HubError> {
    let location = header(response, LOCATION)
        .and_then(|text| response.url().join(text).ok())
        .filter(|url| {
            url.scheme() == "https" || (url.scheme() == "http" && response.url().scheme() == "http")
        });
    location
        .ok_or_else(|| HubError::protocol(format!("the hub redirects {what} to no usable address")))
}

/// A header's value, if it is there and plain text.
pub(super) fn header(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn refusal(response: &Response, token_sent: bool) -> Refusal {
    let text = |name| header(response, HeaderName::from_static(name)).map(str::to_owned);
    let seconds = header(response, RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    Refusal {
        status: response.status().as_u16(),
        code: text("x-error-code"),
        text: text("x-error-message"),
        retry_after: seconds.map(Duration::from_secs),
        token_sent,
    }
}

/// A request that got no complete reply. The address is left out: a signed one is a secret.
pub(super) fn lost(what: &str, error: reqwest::Error) -> HubError {
    let kind = if error.is_timeout() {
        TransientKind::Timeout
    } else if error.is_redirect() {
        TransientKind::Protocol
    } else {
        TransientKind::Connection
    };
    let error = anyhow::Error::from(error.without_url());
    HubError::transient(kind, format!("no complete reply for {what}: {error:#}"))
}
