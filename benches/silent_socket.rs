//! A socket that stays open and carries nothing more: how long until blocks come again.
//!
//! Each trial follows finalised blocks through a proxy of its own, at the real block time of 12 s. At a
//! drawn moment the proxy goes silent for good on that line, in both directions, pongs included; new
//! lines work. Measured are the time until the client has another line, and until the next block
//! arrives over it. The trials run at the same time: they wait, they do not compute.
//!
//! `cargo bench --bench silent_socket`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may stop"
)]

use assay::chain::{ChainClient, ChainSettings, Endpoint};
use assay::devchain::{DevChain, Genesis, Options, Sealing};
use rand::{Rng as _, SeedableRng as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const TRIALS: usize = 100;
const BLOCK_TIME: Duration = Duration::from_secs(12);
/// Recovery of the best published peer that states one (async-substrate-interface's receive timeout
/// of 60 s and its reconnection).
const PEER: Duration = Duration::from_secs(65);

/// A proxy whose first line can be silenced.
struct Proxy {
    url: String,
    silence: Arc<Notify>,
    dialled: Arc<Notify>,
}

async fn proxy(to: SocketAddr) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (silence, dialled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (silent, again) = (Arc::clone(&silence), Arc::clone(&dialled));
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::spawn(async move {
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = silent.notified() => std::future::pending().await,
            }
        });
        while let Ok((mut near, _)) = listener.accept().await {
            again.notify_one();
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    Proxy {
        url,
        silence,
        dialled,
    }
}

/// Seconds until the next line, and until the next block.
async fn trial(chain: Arc<DevChain>, wait: Duration) -> (f64, f64) {
    let to = chain.url().trim_start_matches("ws://").parse().unwrap();
    let proxy = proxy(to).await;
    let settings = ChainSettings {
        endpoints: vec![Endpoint::own(proxy.url.clone())],
        genesis: Some(chain.genesis_hash()),
        request_timeout: Duration::from_secs(20),
        block_time: BLOCK_TIME,
    };
    let client = ChainClient::connect(&settings).await.unwrap();
    let mut blocks = client.follow();
    blocks.next().await.unwrap();
    let following = tokio::spawn(async move {
        // Blocks before the silence arrive as well; the last arrival counts.
        let mut arrived = Vec::new();
        while arrived.len() < 5 {
            if let Ok(block) = blocks.next().await {
                arrived.push((Instant::now(), block));
            }
        }
        arrived
    });
    tokio::time::sleep(wait).await;
    proxy.silence.notify_one();
    let silent = Instant::now();
    proxy.dialled.notified().await;
    let line = silent.elapsed().as_secs_f64();
    let arrived = following.await.unwrap();
    let block = arrived.iter().find(|(at, _)| *at > silent).unwrap();
    (line, (block.0 - silent).as_secs_f64())
}

fn at(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a hundred"
    )]
    let rank = (part * (sorted.len() - 1) as f64).round() as usize;
    sorted[rank]
}

#[tokio::main]
async fn main() {
    let mut genesis = Genesis::dev();
    genesis.block_time = BLOCK_TIME;
    let options = Options {
        sealing: Sealing::Interval,
        ..Options::default()
    };
    let chain = Arc::new(DevChain::start(genesis, options).await.unwrap());
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let trials = (0..TRIALS).map(|_| {
        let wait = Duration::from_millis(rng.random_range(1000..13_000));
        tokio::spawn(trial(Arc::clone(&chain), wait))
    });
    let (mut lines, mut blocks) = (Vec::new(), Vec::new());
    for trial in trials.collect::<Vec<_>>() {
        let (line, block) = trial.await.unwrap();
        lines.push(line);
        blocks.push(block);
    }
    lines.sort_by(f64::total_cmp);
    blocks.sort_by(f64::total_cmp);
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine   {cores} cores; {build} build");
    println!("command   cargo bench --bench silent_socket");
    println!("trials    {TRIALS} at the same time, block time {BLOCK_TIME:?}, one endpoint");
    for (name, times) in [("new line", &lines), ("next block", &blocks)] {
        let (p50, p99) = (at(times, 0.5), at(times, 0.99));
        println!(
            "{name:<10} p50 {p50:.1} s, p99 {p99:.1} s; a published peer needs about {} s: {:.1} times and {:.1} times as long",
            PEER.as_secs(),
            PEER.as_secs_f64() / p50,
            PEER.as_secs_f64() / p99,
        );
    }
}
