//! An abusive group as a process of its own: this program again.
//!
//! It runs at niceness 19: abusers sit on other machines and do not take the server's processor,
//! other than by what they send.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;
use super::load::connect;

/// Connections kept open at the same time.
const HELD: usize = 200;
pub(crate) const NICE: i32 = 19;

/// Offers connections, one request each, and takes what comes: a client that is refused or reset
/// tries again at once, so retries are part of the rate.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Storm {
    pub(crate) to: SocketAddr,
    /// Connections per second at the end.
    pub(crate) per_s: u32,
    /// The rate begins at `per_s` / 2^`doublings`, and doubles at even times.
    pub(crate) doublings: u32,
    /// Second byte of the sources' addresses.
    pub(crate) home: u8,
    /// Networks that they come from.
    pub(crate) networks: u32,
    pub(crate) length: Duration,
    /// Header lines of each request.
    pub(crate) head: String,
    /// One connection per network, kept as long as the server keeps it, instead of one per request.
    pub(crate) kept: bool,
}

impl Storm {
    /// A steady storm.
    pub(crate) fn new(
        to: SocketAddr,
        per_s: u32,
        networks: u32,
        length: Duration,
        head: &str,
    ) -> Self {
        Self {
            to,
            per_s,
            doublings: 0,
            home: 1,
            networks,
            length,
            head: head.to_owned(),
            kept: false,
        }
    }

    /// What [`Self::start`] gave this process to do, if it did.
    pub(crate) fn from_arguments(arguments: &[String]) -> Outcome<Option<Self>> {
        match arguments {
            [_, role, storm] if role == "--storm" => Ok(Some(serde_json::from_str(storm)?)),
            _ => Ok(None),
        }
    }

    pub(crate) fn start(&self) -> Outcome<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--storm").arg(serde_json::to_string(self)?);
        Ok(command.stdout(Stdio::piped()).spawn()?)
    }

    /// Waits for the end; connections per second that were offered on average.
    pub(crate) fn end(storm: Child) -> Outcome<f64> {
        let output = storm.wait_with_output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    /// Connections per second at a time.
    fn rate(&self, at: Duration) -> f64 {
        let doublings = f64::from(self.doublings);
        let passed = at.as_secs_f64() / self.length.as_secs_f64();
        f64::from(self.per_s) * ((passed.min(1.0) - 1.0) * doublings).exp2()
    }

    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    pub(crate) fn rage(&self) -> Outcome<()> {
        rustix::process::setpriority_process(None, NICE)?;
        let request = format!("GET /dataset HTTP/1.1\r\nhost: a\r\n{}\r\n", self.head);
        let mut kept = Vec::new();
        for network in 0..if self.kept { self.networks } else { 0 } {
            kept.push(self.greeted(network)?);
        }
        let (begun, mut open) = (Instant::now(), VecDeque::new());
        let (mut offered, mut due) = (0u32, Duration::ZERO);
        while begun.elapsed() < self.length {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            due += Duration::from_secs_f64(1.0 / self.rate(due));
            let network = offered % self.networks;
            offered += 1;
            if self.kept {
                self.ask_again(&mut kept, network, request.as_bytes())?;
                continue;
            }
            if let Ok(mut stream) = connect(self.source(network)?, self.to) {
                let _ = stream.write_all(request.as_bytes());
                open.push_back(stream);
            }
            if open.len() > HELD {
                open.pop_front();
            }
        }
        println!("{}", f64::from(offered) / begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn source(&self, network: u32) -> Outcome<std::net::IpAddr> {
        let (high, low) = (u8::try_from(network / 250)?, u8::try_from(network % 250)?);
        Ok([127, self.home, high, low + 1].into())
    }

    /// A connection that was served once, and so is kept.
    fn greeted(&self, network: u32) -> Outcome<Option<TcpStream>> {
        let Ok(mut stream) = connect(self.source(network)?, self.to) else {
            return Ok(None);
        };
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
        if asked.is_err() || stream.read(&mut [0; 1024]).unwrap_or(0) == 0 {
            return Ok(None);
        }
        stream.set_nonblocking(true)?;
        Ok(Some(stream))
    }

    fn ask_again(
        &self,
        kept: &mut [Option<TcpStream>],
        network: u32,
        request: &[u8],
    ) -> Outcome<()> {
        let place = usize::try_from(network)?;
        let ask = |stream: &mut TcpStream| {
            let closed = matches!(stream.read(&mut [0; 4096]), Ok(0));
            !closed && stream.write_all(request).is_ok()
        };
        if !kept[place].as_mut().is_some_and(ask) {
            kept[place] = self.greeted(network)?;
        }
        Ok(())
    }
}
