use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::shutdown::Shutdown;

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinSet<std::io::Result<()>>,
}

impl Server {
    async fn start(app: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { serve(listener, app, &limits, &stop).await });
        Self {
            address,
            shutdown,
            task,
        }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address);
        reqwest::Client::new().get(url).send().await.unwrap()
    }

    /// Sends raw bytes and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A reset after the answer is the server's way to stop a flood.
        let _ = within(read).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn stopped(mut self) {
        self.shutdown.trigger();
        let ended = within(self.task.join_next()).await;
        ended.unwrap().unwrap().unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not end in time")
}

fn app() -> Router {
    with_basics(Router::new())
        .route("/slow", get(async || std::future::pending::<&str>().await))
        .route(
            "/panic",
            get(async || if true { panic!("boom") } else { "" }),
        )
}

#[tokio::test]
async fn every_answer_has_an_id_and_headers_and_errors_are_problems() {
    let server = Server::start(app(), Limits::default()).await;
    let healthy = server.get("/healthz").await;
    assert_eq!(healthy.status(), 200);
    assert_eq!(healthy.headers()["x-content-type-options"], "nosniff");
    assert!(healthy.headers().contains_key("content-security-policy"));
    let id = healthy.headers()["x-request-id"].clone();

    let missing = server.get("/nothing").await;
    assert_ne!(missing.headers()["x-request-id"], id);
    assert_eq!(missing.status(), 404);
    assert_eq!(
        missing.headers()["content-type"],
        "application/problem+json"
    );
    let problem: serde_json::Value = missing.json().await.unwrap();
    assert_eq!(problem["code"], "NO_SUCH_PATH");
    assert_eq!(problem["status"], 404);

    let panicked = server.get("/panic").await;
    assert_eq!(panicked.status(), 500);
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.stopped().await;
}

#[tokio::test]
async fn an_answer_that_never_comes_and_an_endless_path_are_cut() {
    let limits = Limits {
        request_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start(app(), limits).await;
    let late = server.get("/slow").await;
    assert_eq!(late.status(), 503);
    assert_eq!(late.headers()["retry-after"], "5");
    let long = server.get(&format!("/{}", "x".repeat(4000))).await;
    assert_eq!(long.status(), 414);
    let posted = server.raw(b"POST /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(posted.await.contains("METHOD_NOT_ALLOWED"));
    server.stopped().await;
}

#[tokio::test]
async fn dribbled_and_huge_heads_are_cut() {
    let limits = Limits {
        header_timeout: Duration::from_millis(100),
        header_bytes_max: 8192,
        ..Limits::default()
    };
    let server = Server::start(app(), limits).await;
    let dribbled = server.raw(b"GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(!dribbled.contains("200 OK"), "{dribbled}");
    let huge = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(60_000));
    let refused = server.raw(huge.as_bytes()).await;
    assert!(!refused.contains("200 OK"), "{refused}");
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    let refused = server.raw(many.as_bytes()).await;
    assert!(!refused.contains("200 OK"), "{refused}");
    server.stopped().await;
}

#[tokio::test]
async fn beyond_the_seats_a_connection_waits_for_one_to_end() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = Server::start(app(), limits).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 12];
    within(first.read_exact(&mut head)).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut head));
    assert!(early.await.is_err(), "served beyond the seats");
    drop(first);
    within(second.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    server.stopped().await;
}

#[tokio::test]
async fn stopping_lets_a_running_answer_end_and_cuts_a_stuck_one() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let slow = move || {
        let mut wait = wait.clone();
        async move {
            let _ = wait.wait_for(|go| *go).await;
            "done"
        }
    };
    let begun = std::sync::Arc::new(tokio::sync::Notify::new());
    let seen = begun.clone();
    let handler = move || {
        seen.notify_one();
        slow()
    };
    let limits = Limits {
        drain_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let app = app().route("/held", get(handler));
    let server = Server::start(app.clone(), limits.clone()).await;
    let url = format!("http://{}/held", server.address);
    let mut asking = JoinSet::new();
    asking.spawn(reqwest::get(url));
    within(begun.notified()).await;
    server.shutdown.trigger();
    go.send(true).unwrap();
    let answer = within(asking.join_next()).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().text().await.unwrap(), "done");
    server.stopped().await;

    let server = Server::start(app, limits).await;
    let url = format!("http://{}/slow", server.address);
    asking.spawn(reqwest::get(url));
    assert_eq!(server.get("/healthz").await.status(), 200);
    let address = server.address;
    server.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_longest_life() {
    let limits = Limits {
        connection_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(app(), limits).await;
    let cut = server.raw(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(cut, "");
    server.stopped().await;
}

#[test]
fn entity_tags_match_as_listed() {
    let headers = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, text.parse().unwrap());
        headers
    };
    assert!(etag_matches(&headers("\"b\", W/\"a\""), "\"a\""));
    assert!(etag_matches(&headers("*"), "\"a\""));
    assert!(!etag_matches(&headers("\"ab\""), "\"a\""));
    assert!(!etag_matches(&HeaderMap::new(), "\"a\""));
}
