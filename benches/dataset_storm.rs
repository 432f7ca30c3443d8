//! The Dataset API in the storm that took the old one down: `cargo bench --bench dataset_storm`.
//!
//! Three processes on loopback: the server (the real binary), the abusers (this program again),
//! and the measuring client. Every figure of the storm stands beside the same one without it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "dataset/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use server::{Server, machine};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Connections per second that the abusers offer, from so many networks.
const OFFERED: u32 = 5_000;
const NETWORKS: u32 = 40;
const STORM: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(5);
/// The protected client's requests per second.
const GOOD_PER_S: u32 = 10;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, address] = &arguments[..]
        && role == "--storm"
    {
        return storm(address.parse()?);
    }
    println!("machine: {}", machine());
    println!(
        "command: cargo bench --bench dataset_storm; profile {}",
        if cfg!(debug_assertions) {
            "dev"
        } else {
            "release"
        }
    );
    let mut server = Server::start(2048)?;
    println!(
        "sample: {:.1} MB of JSON, sent as zstd",
        server.sample_mb()?
    );
    let calm = good(&server, CALM)?;
    calm.print("unloaded", None);
    let (idle, before) = (server.resident_kib()?, server.counted()?);
    let cpu = server.cpu()?;
    let mut abusers = abusers(server.public)?;
    std::thread::sleep(Duration::from_millis(500));
    let stormy = good(&server, STORM)?;
    let (used, peak) = (server.cpu()? - cpu, server.peak_kib()?);
    let after = server.counted()?;
    abusers.kill()?;
    abusers.wait()?;
    stormy.print("in the storm", Some(&calm));
    let turned = after - before;
    println!(
        "turned away: {turned} connections, {:.0} per s",
        f64::from(turned) / (STORM.as_secs_f64() + 0.5)
    );
    println!(
        "processor: {:.1} µs of the server's per turned away connection, the served ones' share included",
        used.as_secs_f64() * 1e6 / f64::from(turned.max(1))
    );
    println!(
        "memory: {:.1} MiB over idle at most (idle {:.1} MiB)",
        mib(peak.saturating_sub(idle)),
        mib(idle)
    );
    let begun = Instant::now();
    fetch(server.protected)?;
    println!(
        "recovery: first full answer {:.1} ms after the storm",
        begun.elapsed().as_secs_f64() * 1e3
    );
    restart(&mut server)?;
    slow_readers(&server, &calm)?;
    rejected(&server)
}

fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}

/// Requests of the protected client and how long each took.
struct Good {
    asked: usize,
    times: Vec<Duration>,
}

impl Good {
    fn at(&self, part: usize) -> f64 {
        let place = (self.times.len() * part / 100).min(self.times.len().saturating_sub(1));
        self.times
            .get(place)
            .map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    fn print(&self, name: &str, base: Option<&Self>) {
        let (p50, p99) = (self.at(50), self.at(99));
        let ratio = base.map_or(String::new(), |b| {
            format!(", p99 {:.1} x unloaded", p99 / b.at(99))
        });
        println!(
            "protected lane {name}: {} of {} served, p50 {p50:.1} ms, p99 {p99:.1} ms{ratio}",
            self.times.len(),
            self.asked
        );
    }
}

fn good(server: &Server, length: Duration) -> Outcome<Good> {
    let (begun, pause) = (Instant::now(), Duration::from_secs(1) / GOOD_PER_S);
    let mut good = Good {
        asked: 0,
        times: Vec::new(),
    };
    while begun.elapsed() < length {
        let one = Instant::now();
        good.asked += 1;
        if fetch(server.protected).is_ok() {
            good.times.push(one.elapsed());
        }
        std::thread::sleep(pause.saturating_sub(one.elapsed()));
    }
    good.times.sort();
    Ok(good)
}

/// One whole sample from the protected lane, on a new connection as the origin's client makes it.
fn fetch(at: SocketAddr) -> Outcome<usize> {
    let mut stream = connect([127, 0, 0, 9].into(), at)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        b"GET /dataset HTTP/1.1\r\nhost: a\r\naccept-encoding: zstd\r\nconnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(answer.len())
    } else {
        Err("not served".into())
    }
}

fn connect(source: IpAddr, to: SocketAddr) -> Outcome<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn abusers(public: SocketAddr) -> Outcome<Child> {
    let me = std::env::current_exe()?;
    let mut command = Command::new(me);
    command.args(["--storm", &public.to_string()]);
    Ok(command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}

/// Offers [`OFFERED`] connections per second, each one request, and takes what comes. A client
/// that is reset tries again at once: the next connection is its retry.
fn storm(public: SocketAddr) -> Outcome<()> {
    let begun = Instant::now();
    let mut open: std::collections::VecDeque<TcpStream> = std::collections::VecDeque::new();
    for n in 0u32.. {
        let due = Duration::from_secs(1) * n / OFFERED;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if begun.elapsed() > STORM + Duration::from_secs(20) {
            break;
        }
        let network = u8::try_from(n % NETWORKS)?;
        if let Ok(mut stream) = connect([127, 1, 0, network + 1].into(), public) {
            let _ = stream.write_all(
                b"GET /dataset HTTP/1.1\r\nhost: a\r\nauthorization: Bearer assay_x\r\n\r\n",
            );
            open.push_back(stream);
        }
        if open.len() > 200 {
            open.pop_front();
        }
    }
    Ok(())
}

fn restart(server: &mut Server) -> Outcome<()> {
    let mut abusers = abusers(server.public)?;
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    server.kill_and_start()?;
    while fetch(server.protected).is_err() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err("the protected lane did not come back".into());
        }
    }
    println!(
        "kill -9 in the storm: protected lane served {:.0} ms after the start",
        begun.elapsed().as_secs_f64() * 1e3
    );
    abusers.kill()?;
    abusers.wait()?;
    Ok(())
}

/// 300 readers at about 1 KB/s on the public lane, 300 dribbled heads, 100 huge ones.
fn slow_readers(server: &Server, calm: &Good) -> Outcome<()> {
    let mut held = Vec::new();
    for n in 0..300u32 {
        let source = [127, 2, u8::try_from(n / 100)?, u8::try_from(n % 100)? + 1];
        let mut slow = connect(source.into(), server.public)?;
        slow.write_all(b"GET /dataset HTTP/1.1\r\nhost: a\r\n\r\n")?;
        let mut dribble = connect(source.into(), server.public)?;
        let _ = dribble.write_all(b"GET /dataset HTTP/1.1\r\nhost:");
        held.extend([slow, dribble]);
        if n < 100 {
            let mut huge = connect(source.into(), server.public)?;
            let _ =
                huge.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(60_000)).as_bytes());
            held.push(huge);
        }
    }
    let reading = std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        for _ in 0..5 {
            for stream in &mut held {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
                let _ = stream.read(&mut bytes);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    good(server, CALM)?.print(
        "beside 300 slow readers, 300 dribbled and 100 huge heads",
        Some(calm),
    );
    let _ = reading.join();
    Ok(())
}

/// What one refusal costs where it is answered: a token that nobody has, on the protected lane
/// from the trusted network, so that none of it is dropped at accept.
fn rejected(server: &Server) -> Outcome<()> {
    const TIMES: u32 = 5_000;
    let cpu = server.cpu()?;
    for _ in 0..TIMES {
        let mut stream = connect([127, 0, 0, 9].into(), server.protected)?;
        stream.write_all(
            b"GET /dataset HTTP/1.1\r\nhost: a\r\nauthorization: Bearer assay_x\r\n\r\n",
        )?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer)?;
        if !answer[..read].starts_with(b"HTTP/1.1 401") {
            return Err("not refused".into());
        }
    }
    let used = (server.cpu()? - cpu).as_secs_f64() * 1e6 / f64::from(TIMES);
    println!("refused and answered, one connection each: {used:.1} µs of processor (20 at most)");
    Ok(())
}
