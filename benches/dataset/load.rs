//! Clients on loopback that cost little themselves: plain sockets, one thread each.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Outcome;

/// The network that the servers of these benchmarks trust.
pub(crate) const TRUSTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9));

/// A connection from a chosen address.
pub(crate) fn connect(source: IpAddr, to: SocketAddr) -> Outcome<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// A request on a new connection, as the origin's client makes it; the length of the answer.
pub(crate) fn fetch(at: SocketAddr, path: &str, encoding: &str) -> Outcome<usize> {
    fetch_from(
        TRUSTED,
        at,
        path,
        &format!("accept-encoding: {encoding}\r\n"),
    )
}

/// The same from another address, with header lines of its own.
pub(crate) fn fetch_from(source: IpAddr, at: SocketAddr, path: &str, head: &str) -> Outcome<usize> {
    let mut stream = connect(source, at)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{head}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut buffer, mut length) = (vec![0; 256 * 1024], 0);
    loop {
        let read = stream.read(&mut buffer)?;
        if length == 0 && !buffer[..read].starts_with(b"HTTP/1.1 200") {
            return Err("not served".into());
        }
        if read == 0 {
            return Ok(length);
        }
        length += read;
    }
}

/// Reads one answer whose head comes in one piece, and gives its status.
pub(crate) fn read_answer(stream: &mut impl Read, buffer: &mut [u8]) -> Outcome<u16> {
    let mut read = stream.read(buffer)?;
    let head = buffer[..read].windows(4).position(|w| w == b"\r\n\r\n");
    let end = head.ok_or("no whole head")? + 4;
    let text = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
    let status = text.strip_prefix("http/1.1 ").and_then(|t| t.get(..3));
    let status = status.ok_or("no status")?.parse()?;
    let length = text
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let length: usize = length.ok_or("no length")?.parse()?;
    let mut left = (end + length).saturating_sub(read);
    while left > 0 {
        read = stream.read(buffer)?;
        if read == 0 {
            return Err("cut short".into());
        }
        left = left.saturating_sub(read);
    }
    Ok(status)
}

/// Requests and how long each served one took.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) asked: usize,
    pub(crate) served: Vec<Duration>,
    /// Served when asked again, with the time from the first try.
    pub(crate) again: Vec<Duration>,
}

impl Times {
    /// Asks `per_s` times a second for `length`, one request after another.
    pub(crate) fn of(length: Duration, per_s: u32, ask: impl FnMut() -> Outcome<usize>) -> Self {
        Self::patient(length, per_s, Duration::ZERO, ask)
    }

    /// The same; what fails is asked again every 100 ms for at most `patience`.
    pub(crate) fn patient(
        length: Duration,
        per_s: u32,
        patience: Duration,
        mut ask: impl FnMut() -> Outcome<usize>,
    ) -> Self {
        let (begun, mut times) = (Instant::now(), Self::default());
        while begun.elapsed() < length {
            let due =
                Duration::from_secs(1) * u32::try_from(times.asked).unwrap_or(u32::MAX) / per_s;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let one = Instant::now();
            times.asked += 1;
            if ask().is_ok() {
                times.served.push(one.elapsed());
                continue;
            }
            while one.elapsed() < patience {
                std::thread::sleep(Duration::from_millis(100));
                if ask().is_ok() {
                    times.again.push(one.elapsed());
                    break;
                }
            }
        }
        times.served.sort();
        times.again.sort();
        times
    }

    /// The percentile `part` in ms.
    pub(crate) fn at(&self, part: usize) -> f64 {
        let place = self.served.len() * part / 100;
        let found = self
            .served
            .get(place.min(self.served.len().saturating_sub(1)));
        found.map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// One line; with `base`, its p99 beside.
    pub(crate) fn line(&self, name: &str, base: Option<&Self>) -> String {
        let (p50, p99) = (self.at(50), self.at(99));
        let ratio = base.map_or(String::new(), |b| {
            format!(", p99 {:.2} x unloaded", p99 / b.at(99))
        });
        let again = self.again.last().map_or(String::new(), |longest| {
            format!(
                ", {} more when asked again (within {} ms)",
                self.again.len(),
                longest.as_millis()
            )
        });
        let (served, asked) = (self.served.len(), self.asked);
        format!(
            "{name}: {served} of {asked} served{again}, p50 {p50:.1} ms, p99 {p99:.1} ms{ratio}"
        )
    }
}
