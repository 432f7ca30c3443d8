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
    let mut stream = connect(TRUSTED, at)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: {encoding}\r\nconnection: close\r\n\r\n"
    );
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

/// Requests and how long each served one took.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) asked: usize,
    pub(crate) served: Vec<Duration>,
}

impl Times {
    /// Asks `per_s` times a second for `length`, one request after another.
    pub(crate) fn of(
        length: Duration,
        per_s: u32,
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
            }
        }
        times.served.sort();
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
        format!(
            "{name}: {} of {} served, p50 {p50:.1} ms, p99 {p99:.1} ms{ratio}",
            self.served.len(),
            self.asked
        )
    }
}
