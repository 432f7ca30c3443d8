//! An abusive group as a process of its own: this program again.
//!
//! It runs at the public lane's niceness: abusers sit on other machines and do not take the
//! server's processor, other than by what they send.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;
use super::load::connect;

/// Connections kept open at the same time.
const HELD: usize = 200;
const NICE: i32 = 10;

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
        let (begun, mut open) = (Instant::now(), VecDeque::new());
        let (mut offered, mut due) = (0u32, Duration::ZERO);
        while begun.elapsed() < self.length {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            due += Duration::from_secs_f64(1.0 / self.rate(due));
            let network = offered % self.networks;
            offered += 1;
            let (high, low) = (u8::try_from(network / 250)?, u8::try_from(network % 250)?);
            if let Ok(mut stream) = connect([127, self.home, high, low + 1].into(), self.to) {
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
}
