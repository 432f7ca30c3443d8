//! Our HTTP servers over loopback.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test ends it by a panic as the test itself does"
)]

mod dataset;
mod endpoints;
mod lanes;
mod score;

use assay::shutdown::Shutdown;
use assay::web;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

/// A server of ours on a free port; it ends with the test.
struct Served {
    url: Url,
    shutdown: Shutdown,
    task: JoinSet<std::io::Result<()>>,
}

impl Served {
    async fn start(app: axum::Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let mut task = JoinSet::new();
        let limits = web::Limits::default();
        task.spawn(async move { web::serve(listener, app, &limits, &stop).await });
        Self {
            url: url.parse().unwrap(),
            shutdown,
            task,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = reqwest::Client::new().get(self.url.join(path).unwrap());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn stop(mut self) {
        self.shutdown.trigger();
        self.task.join_next().await.unwrap().unwrap().unwrap();
    }
}
