//! The Dataset API in the storm that took the old one down: `cargo bench --bench dataset_storm`.
//!
//! Three processes on loopback: the server (the real binary), the abusers (this program again),
//! and the measuring client. Every figure of the storm stands beside the same one without it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "dataset/load.rs"]
mod load;
#[path = "dataset/process.rs"]
mod process;
#[path = "dataset/server.rs"]
mod server;
#[path = "dataset/storm.rs"]
mod storm;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use load::{TRUSTED, Times, connect};
use server::Server;
use storm::Storm;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Connections per second that an abusive group offers, its retries included: 100 x the 50 whole
/// samples a second that a core serves beside everything else here.
const OFFERED: u32 = 5_000;
const FORGED: u32 = 10_000;
const STORM: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(6);
/// The protected client's requests per second.
const GOOD_PER_S: u32 = 10;
/// A token that nobody has.
const BOGUS: &str = "authorization: Bearer assay_x\r\n";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(storm) = Storm::from_arguments(&arguments)? {
        return storm.rage();
    }
    println!("machine: {}", process::machine());
    println!("command: cargo bench --bench dataset_storm");
    let mut server = Server::start(2048)?;
    println!(
        "sample: {:.1} MB of JSON, sent as zstd",
        server.sample_mb()?
    );
    let calm = good(&server, CALM);
    println!("{}", calm.line("protected lane unloaded", None));
    storm_of(&server, &calm, 40)?;
    storm_of(&server, &calm, 2_000)?;
    restart(&mut server)?;
    slow_readers(&server, &calm)?;
    forged(&server, &calm)?;
    rejected(&server)
}

/// Whole samples from the protected lane.
fn good(server: &Server, length: Duration) -> Times {
    let ask = || load::fetch(server.protected, "/dataset", "zstd");
    Times::of(length, GOOD_PER_S, ask)
}

/// An abusive group's connections from so many networks, a bogus token in each request.
fn storm_of(server: &Server, calm: &Times, networks: u32) -> Outcome<()> {
    let pid = server.pid();
    process::reset_peak(pid)?;
    let (idle, cpu, before) = (
        process::resident_kib(pid)?,
        process::cpu(pid)?,
        server.counted()?,
    );
    let abusers = Storm::new(server.public, OFFERED, networks, STORM, BOGUS).start()?;
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

fn restart(server: &mut Server) -> Outcome<()> {
    let length = Duration::from_secs(5);
    let abusers = Storm::new(server.public, OFFERED, 40, length, BOGUS).start()?;
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

/// Readers at about 1 KB/s, dribbled heads, huge heads and silent connections, both lanes.
fn slow_readers(server: &Server, calm: &Times) -> Outcome<()> {
    let mut held = Vec::new();
    for n in 0..300u32 {
        let source: IpAddr = [127, 2, u8::try_from(n / 100)?, u8::try_from(n % 100)? + 1].into();
        for lane in [server.public, server.protected] {
            let mut slow = connect(source, lane)?;
            slow.write_all(b"GET /dataset HTTP/1.1\r\nhost: a\r\n\r\n")?;
            held.push(slow);
        }
        let mut dribble = connect(source, server.public)?;
        let _ = dribble.write_all(b"GET /dataset HTTP/1.1\r\nhost:");
        held.extend([dribble, connect(source, server.public)?]);
        if n < 100 {
            let mut huge = connect(source, server.public)?;
            let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(60_000));
            let _ = huge.write_all(head.as_bytes());
            held.push(huge);
        }
    }
    let reading = std::thread::spawn(move || read_slowly(held));
    let times = good(server, CALM);
    let name =
        "protected lane beside 300 readers at 1 KB/s, 300 dribbled, 100 huge heads, 300 idle";
    println!("{}", times.line(name, Some(calm)));
    reading.join().map_err(|_| "a reader failed")?;
    Ok(())
}

fn read_slowly(mut held: Vec<TcpStream>) {
    let (begun, mut bytes) = (Instant::now(), [0; 1024]);
    for stream in &held {
        let _ = stream.set_nonblocking(true);
    }
    while begun.elapsed() < CALM {
        for stream in &mut held {
            let _ = stream.read(&mut bytes);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Requests signed in a validator's name by somebody who has not its key.
fn forged(server: &Server, calm: &Times) -> Outcome<()> {
    let length = Duration::from_secs(8);
    let (pid, head) = (server.pid(), server.forged_head());
    let (cpu, before) = (process::cpu(pid)?, server.outcomes("SIGNATURE")?);
    let abusers = Storm::new(server.protected, FORGED, 2_000, length, &head).start()?;
    let times = good(server, CALM);
    let offered = Storm::end(abusers)?;
    let share = (process::cpu(pid)? - cpu).as_secs_f64() / length.as_secs_f64();
    let verified = server.outcomes("SIGNATURE")? - before;
    println!("forged signatures: {offered:.0} requests offered per s (aim {FORGED})");
    println!("  {}", times.line("protected lane", Some(calm)));
    println!(
        "  {:.0} verified per s; server's whole share of a core {:.0} %",
        f64::from(verified) / length.as_secs_f64(),
        share * 100.0
    );
    Ok(())
}

/// What one refusal costs where it is answered: a token that nobody has, on the protected lane
/// from the trusted network, so that none of it is dropped at accept.
fn rejected(server: &Server) -> Outcome<()> {
    const TIMES: u32 = 5_000;
    let cpu = process::cpu(server.pid())?;
    for _ in 0..TIMES {
        let mut stream = connect(TRUSTED, server.protected)?;
        stream.write_all(
            b"GET /dataset HTTP/1.1\r\nhost: a\r\nauthorization: Bearer assay_x\r\n\r\n",
        )?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer)?;
        if !answer[..read].starts_with(b"HTTP/1.1 401") {
            return Err("not refused".into());
        }
    }
    let used = (process::cpu(server.pid())? - cpu).as_secs_f64() * 1e6 / f64::from(TIMES);
    println!(
        "refused and answered, one connection each: {used:.1} µs of processor, kernel's included (20 at most)"
    );
    Ok(())
}
