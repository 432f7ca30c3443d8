//! What the kernel alone costs: a process of its own that does nothing with its connections, on
//! one thread, without waiting for readiness, timers or tasks.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Outcome;
use super::load::{connect, read_answer};
use super::process;

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Deed {
    /// Accept, close by a reset.
    Reset,
    /// Accept, read, write as many bytes as a refusal has, close.
    Answer,
    /// Read and write again and again, on [`KEPT`] connections in turn.
    Keep,
}

/// As long as the server's own refusal of a token.
const ANSWER: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/problem+json\r\ncontent-length: 169\r\ncache-control: no-store\r\nconnection: close\r\n\r\n";
const BODY: [u8; 169] = [b' '; 169];
/// Connections that are open at the same time where many are measured.
const BATCH: usize = 64;
/// Connections that are kept.
const KEPT: usize = 16;

/// The process; it ends with the value.
pub(crate) struct Bare {
    child: Child,
    pub(crate) at: SocketAddr,
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bare {
    pub(crate) fn start(deed: Deed) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--bare")
            .arg(serde_json::to_string(&deed)?)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(output).lines().next();
        let at = line.ok_or("no address")??.parse()?;
        Ok(Self { child, at })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What [`Self::start`] gave this process to do, if it did.
    pub(crate) fn from_arguments(arguments: &[String]) -> Outcome<Option<Deed>> {
        match arguments {
            [_, role, deed] if role == "--bare" => Ok(Some(serde_json::from_str(deed)?)),
            _ => Ok(None),
        }
    }
}

impl Deed {
    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    pub(crate) fn serve(self) -> Outcome<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        let (mut request, answer) = ([0; 4096], [ANSWER, &BODY].concat());
        let mut answered = |stream: &mut TcpStream| {
            let asked = stream.read(&mut request).is_ok_and(|read| read > 0);
            asked && stream.write_all(&answer).is_ok()
        };
        loop {
            let (mut stream, _) = listener.accept()?;
            match self {
                Self::Reset => {
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                }
                Self::Answer => {
                    answered(&mut stream);
                }
                // The client asks on all of them in turn, so each can be waited for.
                Self::Keep => {
                    let mut open = vec![stream];
                    while open.len() < KEPT {
                        open.push(listener.accept()?.0);
                    }
                    while open.iter_mut().all(&mut answered) {}
                }
            }
        }
    }
}

/// Processor time of the process `pid`, user's and kernel's, per connection of `count`: each is
/// opened, given `request`, read to its end and closed; many at a time, as in a storm.
pub(crate) fn per_connection(
    (pid, at): (u32, SocketAddr),
    source: IpAddr,
    request: &[u8],
    count: usize,
) -> Outcome<f64> {
    let (before, mut answer) = (process::cpu(pid)?, [0; 1024]);
    for _ in 0..count / BATCH {
        let mut open = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            // One that is reset unread may be so before it can be used or written to.
            if let Ok(mut stream) = connect(source, at) {
                let _ = stream.write_all(request);
                open.push(stream);
            }
        }
        for mut stream in open {
            while stream.read(&mut answer).is_ok_and(|read| read > 0) {}
        }
    }
    per(process::cpu(pid)? - before, count / BATCH * BATCH)
}

/// The same per request on [`KEPT`] connections that are kept; `first` is asked before, and not
/// counted.
pub(crate) fn per_request(
    (pid, at): (u32, SocketAddr),
    source: IpAddr,
    (first, request): (&[u8], &[u8]),
    count: usize,
) -> Outcome<f64> {
    let (mut open, mut answer) = (Vec::with_capacity(KEPT), [0; 4096]);
    for _ in 0..KEPT {
        let stream = connect(source, at)?;
        stream.set_nodelay(true)?;
        open.push(stream);
    }
    for stream in &mut open {
        stream.write_all(first)?;
    }
    for stream in &mut open {
        read_answer(stream, &mut answer)?;
    }
    let before = process::cpu(pid)?;
    for _ in 0..count / KEPT {
        for stream in &mut open {
            stream.write_all(request)?;
        }
        for stream in &mut open {
            if read_answer(stream, &mut answer)? != 401 {
                return Err("not refused".into());
            }
        }
    }
    per(process::cpu(pid)? - before, count / KEPT * KEPT)
}

fn per(spent: Duration, count: usize) -> Outcome<f64> {
    Ok(spent.as_secs_f64() * 1e6 / f64::from(u32::try_from(count)?))
}
