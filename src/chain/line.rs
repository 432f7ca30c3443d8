//! One WebSocket connection: how it is opened, watched, and how its end is understood.

use super::connect::{ChainSettings, Endpoint};
use super::error::{ChainError, bounded};
use super::roster::Trouble;
use jsonrpsee::async_client::{Client, PingConfig};
use jsonrpsee::client_transport::ws::{WsError, WsHandshakeError, WsTransportClientBuilder};
use jsonrpsee::core::client::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use url::{Host, Url};

/// Largest JSON-RPC answer that is accepted. Metadata, the largest honest one, is 0.7 MB as hex.
const MAX_ANSWER_BYTES: u32 = 16 * 1024 * 1024;
/// Longest that a closed connection may take to say why.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);
/// Close code of a policy violation, by which gateways end a connection that asks too much.
const CLOSE_POLICY: u16 = 1008;
/// Bytes of a refused handshake that are kept to look for `Retry-After`.
const HEAD_BYTES: usize = 4096;
/// Pings are never sent more often than this.
const SHORTEST_BEAT: Duration = Duration::from_secs(1);
/// Least pause between two requests to a public endpoint.
const PUBLIC_PAUSE: Duration = Duration::from_secs(1);

/// An open connection.
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) index: usize,
    pub(super) opened: Instant,
    latency_us: AtomicU64,
    /// When the next request may go out, where the endpoint is public.
    turn: Option<tokio::sync::Mutex<Option<Instant>>>,
}

impl Line {
    /// Opens a connection; the caller bounds the time. Pings go out six times per block time. A line that carries nothing, not
    /// even a pong, for two and a half pings is closed; the library looks that often, so it is
    /// noticed after two and a half to five pings: on a chain of 12 s within 10 s. One request gets half
    /// of the time of a read, so that the read can go on over another line.
    pub(super) async fn open(
        endpoint: &Endpoint,
        index: usize,
        settings: &ChainSettings,
    ) -> Result<Self, Trouble> {
        let head = Head::default();
        let url = Url::parse(&endpoint.url).map_err(|e| Trouble::Broken(e.to_string()))?;
        let stream = FirstBytes {
            inner: connect(&url)
                .await
                .map_err(|e| Trouble::Broken(e.to_string()))?,
            head: Arc::clone(&head),
        };
        let transport = WsTransportClientBuilder::default()
            .max_response_size(MAX_ANSWER_BYTES)
            .max_redirections(0)
            .build_with_stream(url, stream);
        let (sender, receiver) = transport.await.map_err(|e| refused(&e, &head))?;
        let beat = (settings.block_time / 6).max(SHORTEST_BEAT);
        let pings = PingConfig::new()
            .ping_interval(beat)
            .inactive_limit(beat * 5 / 2)
            .max_failures(1);
        let client = Client::builder()
            .request_timeout(settings.request_timeout / 2)
            .enable_ws_ping(pings)
            .build_with_tokio(sender, receiver);
        Ok(Self {
            client,
            index,
            opened: Instant::now(),
            latency_us: AtomicU64::new(0),
            turn: endpoint.public.then(tokio::sync::Mutex::default),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.is_connected()
    }

    /// Waits until the next request may go out: at once, or one second after the last where the
    /// endpoint is public.
    pub(super) async fn turn(&self) {
        let Some(turn) = &self.turn else { return };
        let mut last = turn.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep_until((last + PUBLIC_PAUSE).into()).await;
        }
        *last = Some(Instant::now());
    }

    /// Takes note of how long an answer took: a mean in which the last one counts a quarter.
    pub(super) fn answered_in(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = self.latency_us.load(Ordering::Relaxed);
        let next = if mean == 0 {
            took
        } else {
            mean / 4 * 3 + took / 4
        };
        self.latency_us.store(next, Ordering::Relaxed);
    }

    /// Mean time of an answer.
    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    /// Why a line that is down went down.
    pub(super) async fn why_down(&self) -> Trouble {
        let reason = tokio::time::timeout(REASON_TIMEOUT, self.client.on_disconnect()).await;
        reason.map_or_else(|_| Trouble::Broken("closed".to_owned()), |e| ended(&e))
    }
}

/// `wss://` anywhere, `ws://` on this machine only: on the way, plain text can be changed by anyone.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), ChainError> {
    let bad = |reason: &str| ChainError::BadEndpoint {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(endpoint).map_err(|e| bad(&e.to_string()))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(bad("it names no host")),
    };
    match url.scheme() {
        "wss" => Ok(()),
        "ws" if loopback => Ok(()),
        "ws" => Err(bad(
            "plain ws:// is accepted for this machine only; use wss://",
        )),
        _ => Err(bad("want a wss:// URL")),
    }
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(url: &Url) -> std::io::Result<Either<TcpStream, Tls>> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let tcp = TcpStream::connect((bare, port)).await?;
    tcp.set_nodelay(true)?;
    if url.scheme() != "wss" {
        return Ok(Either::Left(tcp));
    }
    let name =
        rustls::pki_types::ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls_config().map_err(std::io::Error::other)?));
    Ok(Either::Right(connector.connect(name, tcp).await?))
}

fn tls_config() -> Result<rustls::ClientConfig, rustls::Error> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

type Head = Arc<Mutex<Vec<u8>>>;

/// A stream that remembers the first bytes it read: the WebSocket library tells the status of a
/// refused handshake, but not its `Retry-After`.
struct FirstBytes<S> {
    inner: S,
    head: Head,
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEAD_BYTES.saturating_sub(head.len());
        head.extend(buf.filled()[before..].iter().take(room));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn refused(error: &WsHandshakeError, head: &Head) -> Trouble {
    match error {
        WsHandshakeError::Rejected {
            status_code: status @ (403 | 429 | 503),
        } => {
            let head = head.lock().unwrap_or_else(PoisonError::into_inner);
            let why = format!("the handshake was refused with status {status}");
            Trouble::Limited(why, retry_after(&String::from_utf8_lossy(&head)))
        }
        other => Trouble::Broken(bounded(&other.to_string())),
    }
}

/// The seconds of a `Retry-After` header. Its form as a date is not understood and counts as absent.
fn retry_after(head: &str) -> Option<Duration> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let named = name.trim().eq_ignore_ascii_case("retry-after");
        named.then(|| value.trim().parse().ok()).flatten()
    };
    head.lines()
        .skip(1)
        .find_map(field)
        .map(Duration::from_secs)
}

fn ended(error: &Error) -> Trouble {
    let inner = match error {
        Error::RestartNeeded(inner) => inner,
        other => other,
    };
    if let Error::Transport(transport) = inner
        && let Some(WsError::Closed(reason)) = transport.downcast_ref::<WsError>()
        && reason.code == CLOSE_POLICY
    {
        return Trouble::Limited("closed with code 1008".to_owned(), None);
    }
    Trouble::Broken(bounded(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_sockets_are_for_this_machine_only() {
        for good in [
            "wss://entrypoint-finney.opentensor.ai:443",
            "ws://127.0.0.1:9944",
            "ws://localhost:9944",
            "ws://[::1]:9944",
        ] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "ws://10.0.0.1:9944",
            "ws://localhost.example.org",
            "http://127.0.0.1",
            "finney",
            "",
        ] {
            let error = check_endpoint(bad).unwrap_err();
            assert!(matches!(error, ChainError::BadEndpoint { .. }), "{bad}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let head = "HTTP/1.1 429 Too Many\r\nretry-after: 17\r\n\r\n";
        assert_eq!(retry_after(head), Some(Duration::from_secs(17)));
        let date = "HTTP/1.1 429 x\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n";
        assert_eq!(retry_after(date), None);
        assert_eq!(retry_after("HTTP/1.1 429 x\r\n\r\n"), None);
    }
}
