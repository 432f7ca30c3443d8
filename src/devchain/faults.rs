//! Faults on demand: answers that never come, come empty or as errors, and lines that break.

use futures::future::Either;
use jsonrpsee::core::middleware::{Batch, Notification, RpcServiceT};
use jsonrpsee::types::{ErrorObjectOwned, Request};
use jsonrpsee::{MethodResponse, ResponsePayload};
use serde::Deserialize;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What happens instead of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcFault {
    /// All connections are cut.
    Drop,
    /// The answer never comes, and nothing is done.
    Stall,
    /// The call is carried out, and its answer never comes.
    Lose,
    /// This result, such as `null` or `[]`, instead of the true one.
    Answer(Value),
    /// This error.
    Error {
        /// JSON-RPC error code.
        code: i32,
        /// Its message.
        message: String,
        /// Its data, if it has any.
        #[serde(default)]
        data: Option<Value>,
    },
}

#[derive(Debug)]
struct Rule {
    method: String,
    fault: RpcFault,
    left: Option<u32>,
}

/// State of the lines below the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lines {
    /// Connections opened before this count of cuts are closed.
    pub(super) cuts: u64,
    /// Connections opened before this count of freezes carry nothing more, without being closed.
    pub(super) freezes: u64,
    /// New connections are closed at once.
    pub(super) refuse: bool,
}

/// The handle by which a test disturbs the chain's RPC.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    lines: Arc<watch::Sender<Lines>>,
}

impl Faults {
    /// Disturbs the next `times` calls of `method` (`"*"` for every method but `dev_*`), or all of
    /// them until [`Faults::clear`]. Earlier rules go first. Subscribing is a call too.
    pub fn inject(&self, method: &str, fault: RpcFault, times: Option<u32>) {
        let rule = Rule {
            method: method.to_owned(),
            fault,
            left: times,
        };
        self.rules().push(rule);
    }

    /// Ends all rules and accepts connections again. Stalled calls stay stalled.
    pub fn clear(&self) {
        self.rules().clear();
        self.lines.send_modify(|lines| lines.refuse = false);
    }

    /// Cuts every open connection.
    pub fn drop_connections(&self) {
        self.lines.send_modify(|lines| lines.cuts += 1);
    }

    /// Half-open lines: every open connection stays open and carries nothing more.
    pub fn freeze_connections(&self) {
        self.lines.send_modify(|lines| lines.freezes += 1);
    }

    /// Closes new connections at once, until [`Faults::clear`].
    pub fn refuse_connections(&self) {
        self.lines.send_modify(|lines| lines.refuse = true);
    }

    pub(super) fn lines(&self) -> watch::Receiver<Lines> {
        self.lines.subscribe()
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, method: &str) -> Option<RpcFault> {
        let mut rules = self.rules();
        let at = rules.iter().position(|rule| {
            rule.method == method || (rule.method == "*" && !method.starts_with("dev_"))
        })?;
        let rule = &mut rules[at];
        let fault = rule.fault.clone();
        if let Some(left) = &mut rule.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                rules.remove(at);
            }
        }
        Some(fault)
    }
}

/// The RPC service with the faults in front. Batches pass undisturbed.
#[derive(Debug, Clone)]
pub(super) struct Faulty<S> {
    pub(super) inner: S,
    pub(super) faults: Faults,
}

impl<S> RpcServiceT for Faulty<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            NotificationResponse = MethodResponse,
            BatchResponse = MethodResponse,
        > + Send
        + Sync
        + Clone
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(
        &self,
        request: Request<'a>,
    ) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let Some(fault) = self.faults.next(request.method_name()) else {
            return Either::Left(self.inner.call(request));
        };
        let faults = self.faults.clone();
        let lost = (fault == RpcFault::Lose).then(|| self.inner.call(unwatched(&request)));
        Either::Right(async move {
            if let Some(call) = lost {
                call.await;
            }
            disturb(fault, &faults, request).await
        })
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        self.inner.batch(batch)
    }

    fn notification<'a>(
        &self,
        n: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.inner.notification(n)
    }
}

/// A subscription writes its answer itself, so the plain call of the same effect stands in for it.
fn unwatched<'a>(request: &Request<'a>) -> Request<'a> {
    let mut request = request.clone();
    if request.method == "author_submitAndWatchExtrinsic" {
        request.method = "author_submitExtrinsic".into();
    }
    request
}

async fn disturb(fault: RpcFault, faults: &Faults, request: Request<'_>) -> MethodResponse {
    match fault {
        RpcFault::Drop => {
            faults.drop_connections();
            std::future::pending().await
        }
        RpcFault::Stall | RpcFault::Lose => std::future::pending().await,
        RpcFault::Answer(value) => {
            MethodResponse::response(request.id, ResponsePayload::success(value), usize::MAX)
        }
        RpcFault::Error {
            code,
            message,
            data,
        } => {
            let error = ErrorObjectOwned::owned(code, message, data);
            MethodResponse::error(request.id, error)
        }
    }
}
