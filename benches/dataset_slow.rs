//! Clients that hold on to what they get, and forged signatures: `cargo bench --bench dataset_slow`.
//!
//! Each kind by itself beside the same measuring client, whose figures without them come first.

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
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use load::Times;
use server::Server;
use storm::Storm;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const LENGTH: Duration = Duration::from_secs(6);
const GOOD_PER_S: u32 = 30;
const MANY: u32 = 300;
/// Forged requests per second, and the networks that they come from: each stays within what one
/// network may ask for, the worst case for the verifier.
const FORGED: u32 = 10_000;
const FORGERS: u32 = 500;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(storm) = Storm::from_arguments(&arguments)? {
        return storm.rage();
    }
    println!("machine: {}", process::machine());
    println!("command: cargo bench --bench dataset_slow");
    let server = Server::start(2048)?;
    let calm = good(&server);
    println!("{}", calm.line("protected lane unloaded", None));
    let lanes = [server.public, server.protected];
    for kind in [Kind::Reader, Kind::Dribble, Kind::Huge, Kind::Idle] {
        beside(&server, &calm, kind, &lanes)?;
    }
    drop(server);
    let more = format!("[dataset_api.limits]\nconnections = {}\n", 4 * FORGERS);
    forged(&Server::start_with(2048, &more)?)
}

/// Whole samples from the protected lane.
fn good(server: &Server) -> Times {
    let ask = || load::fetch(server.protected, "/dataset", "zstd");
    Times::of(LENGTH, GOOD_PER_S, ask)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reader,
    Dribble,
    Huge,
    Idle,
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Reader => format!("{MANY} readers at 1 KB/s"),
            Self::Dribble => format!("{MANY} heads dribbled at a byte a second"),
            Self::Huge => format!("{MANY} heads of 60 KB a second"),
            Self::Idle => format!("{MANY} silent connections"),
        }
    }

    /// What one of them sends at once.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::Reader => b"GET /dataset HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            Self::Dribble => b"GET /dataset HTTP/1.1\r\nx: ".to_vec(),
            Self::Huge => {
                let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(60_000));
                head.into_bytes()
            }
            Self::Idle => Vec::new(),
        }
    }

    fn open(self, lanes: &[SocketAddr]) -> Outcome<Vec<TcpStream>> {
        let (mut held, opening) = (Vec::new(), self.opening());
        for n in 0..MANY {
            let source: IpAddr =
                [127, 2, u8::try_from(n / 100)?, u8::try_from(n % 100)? + 1].into();
            for lane in lanes {
                // One that is reset at once is one less to hold.
                let Ok(mut stream) = load::connect(source, *lane) else {
                    continue;
                };
                rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096)?;
                let _ = stream.write_all(&opening);
                stream.set_nonblocking(true)?;
                held.push(stream);
            }
        }
        Ok(held)
    }

    /// Goes on with them for [`LENGTH`], and gives how many got the head of a good answer.
    fn hold(self, mut held: Vec<TcpStream>, lanes: &[SocketAddr]) -> Outcome<usize> {
        let (begun, mut bytes, mut served) = (Instant::now(), [0; 1024], 0);
        while begun.elapsed() < LENGTH {
            std::thread::sleep(Duration::from_secs(1));
            if self == Self::Huge {
                held = self.open(lanes)?;
                continue;
            }
            for stream in &mut held {
                if self == Self::Dribble {
                    let _ = stream.write(b"z");
                }
                let read = stream.read(&mut bytes).unwrap_or(0);
                served += usize::from(bytes[..read].starts_with(b"HTTP/1.1 200"));
            }
        }
        Ok(served)
    }
}

fn beside(server: &Server, calm: &Times, kind: Kind, lanes: &[SocketAddr; 2]) -> Outcome<()> {
    let pid = server.pid();
    process::reset_peak(pid)?;
    let idle = process::resident_kib(pid)?;
    let (held, lanes) = (kind.open(lanes)?, *lanes);
    let holding = std::thread::spawn(move || kind.hold(held, &lanes).map_err(|e| e.to_string()));
    let times = good(server);
    let served = holding.join().map_err(|_| "a client failed")??;
    let more = f64::from(process::peak_kib(pid)?.saturating_sub(idle)) / 1024.0;
    let name = format!("beside {} on each lane", kind.name());
    println!("{}", times.line(&name, Some(calm)));
    println!("  {served} of them were being served; memory at most {more:.1} MiB over before");
    Ok(())
}

/// Requests signed in a validator's name by somebody who has not its key, on connections that are
/// kept, so that the forgers keep up.
fn forged(server: &Server) -> Outcome<()> {
    let calm = good(server);
    println!(
        "{}",
        calm.line("protected lane unloaded, more connections allowed", None)
    );
    let length = LENGTH + Duration::from_secs(2);
    let storm = Storm {
        kept: true,
        ..Storm::new(
            server.protected,
            FORGED,
            FORGERS,
            length,
            &server.forged_head(),
        )
    };
    let (pid, abusers) = (server.pid(), storm.start()?);
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    let (cpu, before) = (process::cpu(pid)?, server.outcomes("SIGNATURE")?);
    let busy = server.outcomes("VERIFIER_BUSY")?;
    let times = good(server);
    let spent = begun.elapsed().as_secs_f64();
    let share = (process::cpu(pid)? - cpu).as_secs_f64() / spent;
    let verified = f64::from(server.outcomes("SIGNATURE")? - before) / spent;
    let turned = f64::from(server.outcomes("VERIFIER_BUSY")? - busy) / spent;
    let offered = Storm::end(abusers)?;
    println!(
        "forged signatures: {offered:.0} requests offered per s (aim {FORGED}) by {FORGERS} networks"
    );
    println!("  {}", times.line("protected lane", Some(&calm)));
    println!(
        "  {verified:.0} verified per s, {turned:.0} turned away unverified; server's whole share of a core {:.0} %",
        share * 100.0
    );
    Ok(())
}
