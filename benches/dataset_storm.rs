//! The Dataset API in the storm that took the old one down: `cargo bench --bench dataset_storm`.
//!
//! Three processes on loopback: the server (the real binary), the abusers (this program again),
//! and the measuring client. Every figure of the storm stands beside the same one without it.
//! With `-- --hold` the server alone is started, for looking at it by hand.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "dataset/kernel.rs"]
mod kernel;
#[path = "dataset/load.rs"]
mod load;
#[path = "dataset/process.rs"]
mod process;
#[path = "dataset/refusals.rs"]
mod refusals;
#[path = "dataset/server.rs"]
mod server;
#[path = "dataset/storm.rs"]
mod storm;

use std::time::{Duration, Instant};

use kernel::Bare;
use load::Times;
use server::Server;
use storm::Storm;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Connections per second that an abusive group offers at least, its retries included.
const OFFERED_MIN: u32 = 5_000;
const STORM: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(6);
/// The protected client's requests per second: enough that more than one stands behind a p99.
const GOOD_PER_S: u32 = 30;
/// A token that nobody has.
const BOGUS: &str = "authorization: Bearer assay_x\r\n";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(storm) = Storm::from_arguments(&arguments)? {
        return storm.rage();
    }
    if let Some(deed) = Bare::from_arguments(&arguments)? {
        return deed.serve();
    }
    if arguments.iter().any(|a| a == "--hold") {
        return Server::start(2048)?.hold();
    }
    println!("machine: {}", process::machine());
    println!("command: cargo bench --bench dataset_storm");
    let mut server = Server::start(2048)?;
    println!(
        "sample: {:.1} MB of JSON, sent as zstd; abusers are processes at niceness {}",
        server.sample_mb()?,
        storm::NICE
    );
    let offered = offered(&server)?;
    let calm = good(&server, CALM);
    println!("{}", calm.line("protected lane unloaded", None));
    storm_of(&server, &calm, 40, offered)?;
    storm_of(&server, &calm, 2_000, offered)?;
    restart(&mut server, offered)?;
    refusals::print(&server)
}

/// What the public lane carries when it is asked by well-behaved clients alone, and from it what
/// the abusers offer: 100 x as much, or [`OFFERED_MIN`].
fn offered(server: &Server) -> Outcome<u32> {
    const CLIENTS: u8 = 8;
    const LENGTH: Duration = Duration::from_secs(4);
    let head = format!(
        "accept-encoding: zstd\r\nauthorization: Bearer {}\r\n",
        server.token("scorer", "sn11")?
    );
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|n| {
            let (at, head) = (server.public, head.clone());
            std::thread::spawn(move || {
                let ask = || load::fetch_from([127, 8, 0, n].into(), at, "/dataset", &head);
                Times::of(LENGTH, 1_000, ask).served.len()
            })
        })
        .collect();
    let mut served = 0;
    for client in clients {
        served += u32::try_from(client.join().map_err(|_| "a client failed")?)?;
    }
    let capacity = served / u32::try_from(LENGTH.as_secs())?;
    let offered = (100 * capacity).max(OFFERED_MIN);
    println!(
        "capacity of the public lane: {capacity} whole samples per s (its bandwidth is bounded at 64 MiB/s); offered in the storms: {offered} connections per s, {} x",
        offered / capacity.max(1)
    );
    Ok(offered)
}

/// Whole samples from the protected lane.
fn good(server: &Server, length: Duration) -> Times {
    let ask = || load::fetch(server.protected, "/dataset", "zstd");
    Times::of(length, GOOD_PER_S, ask)
}

/// An abusive group's connections from so many networks, a bogus token in each request.
fn storm_of(server: &Server, calm: &Times, networks: u32, offered: u32) -> Outcome<()> {
    let pid = server.pid();
    process::reset_peak(pid)?;
    let (idle, cpu, before) = (
        process::resident_kib(pid)?,
        process::cpu(pid)?,
        server.counted()?,
    );
    let abusers = Storm::new(server.public, offered, networks, STORM, BOGUS).start()?;
    std::thread::sleep(Duration::from_millis(500));
    let stormy = good(server, STORM - Duration::from_secs(1));
    let offered = Storm::end(abusers)?;
    let began = Instant::now();
    load::fetch(server.protected, "/dataset", "zstd")?;
    let recovery = began.elapsed();
    let (used, turned) = (process::cpu(pid)? - cpu, server.counted()? - before);
    println!("storm from {networks} networks: {offered:.0} connections offered per s");
    println!("  {}", stormy.line("protected lane", Some(calm)));
    println!(
        "  {turned} connections turned away, {:.1} µs of processor each, the served samples included",
        used.as_secs_f64() * 1e6 / f64::from(turned.max(1))
    );
    println!(
        "  memory: at most {:.1} MiB over idle (idle {:.1} MiB); first full answer after the storm: {:.1} ms",
        mib(process::peak_kib(pid)?.saturating_sub(idle)),
        mib(idle),
        recovery.as_secs_f64() * 1e3
    );
    Ok(())
}

fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}

fn restart(server: &mut Server, offered: u32) -> Outcome<()> {
    let length = Duration::from_secs(5);
    let abusers = Storm::new(server.public, offered, 40, length, BOGUS).start()?;
    std::thread::sleep(Duration::from_secs(1));
    server.kill_and_start()?;
    let begun = server.started;
    while load::fetch(server.protected, "/dataset", "zstd").is_err() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err("the protected lane did not come back".into());
        }
    }
    println!(
        "kill -9 in the storm: protected lane served {:.0} ms after the start",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Storm::end(abusers)?;
    Ok(())
}
