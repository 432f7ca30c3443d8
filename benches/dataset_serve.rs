//! What serving costs beside the best there is: `cargo bench --bench dataset_serve`.
//!
//! The real binary against nginx with the same file, and against a bare axum route with the same
//! ready bytes. Rounds alternate; medians. Server and clients share the machine's cores.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "dataset/load.rs"]
mod load;
#[path = "dataset/process.rs"]
mod process;
#[path = "dataset/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::header;
use bytes::Bytes;
use load::{TRUSTED, connect, fetch, read_answer};
use server::Server;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 5;
/// Requests of one round for a whole sample.
const SAMPLES: u32 = 30;
/// Length of one round of small calls.
const SMALL: Duration = Duration::from_millis(1000);
/// Connections that are kept alive in a round of small calls.
const CLIENTS: usize = 8;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, file, status] = &arguments[..]
        && role == "--bare"
    {
        return bare(Path::new(file), status.clone());
    }
    println!("machine: {}", process::machine());
    println!("command: cargo bench --bench dataset_serve");
    let server = Server::start(2048)?;
    println!("sample: {:.1} MB of JSON", server.sample_mb()?);
    let status = body_of(server.protected, "/v1/status")?;
    let file = server.sample_file()?;
    let folder = tempfile::tempdir()?;
    let nginx = nginx(&file, folder.path())?;
    let bare = start_bare(&file, &status)?;
    let (ours, other) = (server.pid(), bare.pid());

    let at = server.protected;
    if let Some((nginx, port)) = &nginx {
        let pair = cpu_per_sample((ours, at), (nginx.pid(), *port), "identity")?;
        pair.print("full sample, CPU per request", "ms", "nginx static file");
    } else {
        println!("full sample: NOT COMPARED, no nginx here (apt-get install nginx-light)");
    }
    let pair = cpu_per_sample((ours, at), (other, bare.at), "identity")?;
    pair.print("full sample, CPU per request", "ms", "bare axum");
    rates("zstd sample", "/dataset", "zstd", at, bare.at)?;
    rates("/v1/status", "/v1/status", "identity", at, bare.at)
}

/// Medians of ours and the baseline.
struct Pair(f64, f64);

impl Pair {
    fn of(mut all: Vec<(f64, f64)>) -> Self {
        let middle = all.len() / 2;
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ours = all[middle].0;
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        Self(ours, all[middle].1)
    }

    fn print(&self, what: &str, unit: &str, baseline: &str) {
        let (ours, other, ratio) = (self.0, self.1, self.0 / self.1);
        println!("{what}: {ours:.2} {unit}; {baseline} {other:.2} {unit}; ratio {ratio:.2}");
    }
}

type Target = (u32, SocketAddr);

fn cpu_per_sample(ours: Target, other: Target, encoding: &str) -> Outcome<Pair> {
    let one = |(pid, at): Target| -> Outcome<f64> {
        fetch(at, "/dataset", encoding)?;
        let before = process::cpu(pid)?;
        for _ in 0..SAMPLES {
            fetch(at, "/dataset", encoding)?;
        }
        Ok((process::cpu(pid)? - before).as_secs_f64() * 1e3 / f64::from(SAMPLES))
    };
    let rounds = (0..ROUNDS).map(|_| Ok((one(ours)?, one(other)?)));
    Ok(Pair::of(rounds.collect::<Outcome<_>>()?))
}

/// Requests per second of [`CLIENTS`] connections that are kept alive.
fn rates(
    what: &str,
    path: &str,
    encoding: &str,
    ours: SocketAddr,
    other: SocketAddr,
) -> Outcome<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: {encoding}\r\n\r\n");
    let rounds = (0..ROUNDS).map(|_| Ok((rate(ours, &request)?, rate(other, &request)?)));
    let pair = Pair::of(rounds.collect::<Outcome<_>>()?);
    pair.print(what, "requests/s", "bare axum on one thread");
    Ok(())
}

fn rate(at: SocketAddr, request: &str) -> Outcome<f64> {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let request = request.to_owned();
            std::thread::spawn(move || keep_asking(at, &request, begun).map_err(|e| e.to_string()))
        })
        .collect();
    let mut served = 0;
    for client in clients {
        served += client.join().map_err(|_| "a client failed")??;
    }
    Ok(f64::from(served) / begun.elapsed().as_secs_f64())
}

fn keep_asking(at: SocketAddr, request: &str, begun: Instant) -> Outcome<u32> {
    let mut stream = connect(TRUSTED, at)?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut served) = (vec![0; 256 * 1024], 0);
    while begun.elapsed() < SMALL {
        stream.write_all(request.as_bytes())?;
        let status = read_answer(&mut stream, &mut buffer)?;
        if status != 200 {
            return Err("not served".into());
        }
        served += 1;
    }
    Ok(served)
}

fn body_of(at: SocketAddr, path: &str) -> Outcome<String> {
    let mut stream = connect(TRUSTED, at)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").ok_or("no body")?.1;
    Ok(body.to_owned())
}

/// A process that ends with the benchmark.
struct Process {
    child: Child,
    at: SocketAddr,
}

impl Process {
    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx as one process with a configuration of its own; `None` where it is not installed.
fn nginx(file: &Path, folder: &Path) -> Outcome<Option<(Process, SocketAddr)>> {
    let at = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let site = folder.join("site");
    std::fs::create_dir_all(&site)?;
    std::os::unix::fs::symlink(file, site.join("dataset"))?;
    let pid = folder.join("pid");
    let (root, pid, temp) = (site.display(), pid.display(), folder.display());
    let text = format!(
        "daemon off; master_process off; pid {pid}; error_log stderr crit;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {temp};\n\
         proxy_temp_path {temp}; fastcgi_temp_path {temp}; uwsgi_temp_path {temp}; scgi_temp_path {temp};\n\
         server {{ listen {at}; root {root}; default_type application/json; }} }}\n"
    );
    let conf = folder.join("nginx.conf");
    std::fs::write(&conf, text)?;
    // The folder must be readable by the user that nginx answers as; with one process it is ours.
    let started = Command::new("nginx")
        .arg("-c")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        return Ok(None);
    };
    let process = Process { child, at };
    let begun = Instant::now();
    while fetch(at, "/dataset", "identity").is_err() {
        if begun.elapsed() > Duration::from_secs(5) {
            return Err("nginx does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some((process, at)))
}

fn start_bare(file: &Path, status: &str) -> Outcome<Process> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--bare")
        .arg(file)
        .arg(status)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let line = BufReader::new(output)
        .lines()
        .next()
        .ok_or("no address")??;
    let at = line.parse()?;
    Ok(Process { child, at })
}

/// The least that axum can do: ready bytes behind two routes, on one thread as a lane has.
fn bare(file: &Path, status: String) -> Outcome<()> {
    let plain = Bytes::from(std::fs::read(file)?);
    let packed = Bytes::from(std::fs::read(file.with_extension("zst"))?);
    let status = Bytes::from(status);
    let dataset = axum::routing::get(async move |headers: axum::http::HeaderMap| {
        let zstd = headers
            .get(header::ACCEPT_ENCODING)
            .is_some_and(|v| v == "zstd");
        let (encoding, bytes) = if zstd {
            ("zstd", packed)
        } else {
            ("identity", plain)
        };
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_ENCODING, encoding),
        ];
        (headers, bytes)
    });
    let status =
        axum::routing::get(async move || ([(header::CONTENT_TYPE, "application/json")], status));
    let app = axum::Router::new()
        .route("/dataset", dataset)
        .route("/v1/status", status);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, app).await?;
        Ok(())
    })
}
