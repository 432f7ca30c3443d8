//! One connection of a lane: from its first bytes to its last answer.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::ServiceExt as _;

use crate::dataset_api::accept::{self, Looked};
use crate::dataset_api::gate::Gate;
use crate::dataset_api::head;
use crate::dataset_api::prefix::Prefix;
use crate::dataset_api::refusal::{self, Refusal};
use crate::dataset_api::seeing::traffic::Connection;
use crate::dataset_api::timed::Timed;
use crate::shutdown::Shutdown;

/// Waits for the first bytes of a connection that was silent so far, and looks at them: what is
/// refused by them costs no more than that. Only then is there an HTTP connection.
pub(super) async fn greet(
    stream: tokio::net::TcpStream,
    guest: Guest,
    before: Option<Bytes>,
    app: Router,
    stop: Shutdown,
) {
    let before = match before {
        Some(before) => before,
        None => {
            let patience = guest.gate.settings.http.header_timeout;
            let came = tokio::select! {
                () = stop.signalled() => return,
                came = tokio::time::timeout(patience, stream.readable()) => came,
            };
            if !matches!(came, Ok(Ok(()))) {
                return;
            }
            match guest.look(&stream) {
                Looked::Welcome(before) => before,
                // Woken for nothing is seldom; the HTTP connection waits on.
                Looked::Silent => Bytes::new(),
                Looked::Refused | Looked::Gone => return,
            }
        }
    };
    let (lane, prefix) = (guest.gate.kind.as_str(), guest.prefix);
    let traffic = &guest.gate.shared.traffic;
    traffic.connection(lane, prefix, Connection::Served);
    Box::pin(connection(stream, before, Host { guest, app }, stop)).await;
}

/// A connection's place in the books; leaving it gives the place back.
pub(super) struct Guest {
    pub(super) gate: Arc<Gate>,
    pub(super) address: IpAddr,
    pub(super) prefix: Prefix,
}

impl Guest {
    pub(super) fn look(&self, stream: impl AsFd) -> Looked {
        let gate = &self.gate;
        let looked = accept::look(stream, |head| gate.look(head, self.prefix));
        if looked == Looked::Refused {
            let traffic = &gate.shared.traffic;
            traffic.connection(gate.kind.as_str(), self.prefix, Connection::Refused);
        }
        looked
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gate.left(self.prefix);
    }
}

/// What answers the requests of one connection.
struct Host {
    guest: Guest,
    app: Router,
}

async fn connection(stream: tokio::net::TcpStream, before: Bytes, host: Host, stop: Shutdown) {
    let host = Arc::new(host);
    let gate = Arc::clone(&host.guest.gate);
    let limits = &gate.settings.http;
    let stream = Timed::new(stream, before, gate.settings.progress);
    let answering = Arc::clone(&host);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let host = Arc::clone(&answering);
        async move {
            let request = request.map(axum::body::Body::new);
            Ok::<_, std::convert::Infallible>(host.answer(request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(head::HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut deadline = std::pin::pin!(tokio::time::sleep(limits.connection_timeout));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            end = connection.as_mut() => {
                if let Err(error) = end {
                    let address = host.guest.address;
                    tracing::debug!(%error, %address, "a connection ended early");
                }
                return;
            }
            () = deadline.as_mut() => return,
            () = stop.signalled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

impl Host {
    async fn answer(&self, request: Request) -> Response {
        let begun = Instant::now();
        let (gate, prefix) = (&self.guest.gate, self.guest.prefix);
        let (mut parts, body) = request.into_parts();
        let pass = match gate.admit(&parts, prefix) {
            Ok(pass) => Arc::new(pass),
            Err(refusal) => return self.refused(refusal),
        };
        parts.extensions.insert(Arc::clone(&pass));
        parts.extensions.insert(Arc::clone(gate));
        let request = Request::from_parts(parts, body);
        let app = self.app.clone();
        let run = |request| async move {
            match app.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        let mut response = crate::web::bounded(&gate.settings.http, request, run).await;
        if let Some(allowance) = &pass.allowance {
            refusal::add_allowance(response.headers_mut(), allowance);
        }
        let facts = (response.status().as_u16(), begun.elapsed());
        let traffic = &gate.shared.traffic;
        traffic.served(gate.kind.as_str(), &pass.client, pass.weight, facts);
        response
    }

    fn refused(&self, refusal: Refusal) -> Response {
        let stays = self.guest.gate.may_stay(self.guest.prefix, refusal.reason);
        let mut response = refusal.into_response();
        if !stays {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}
