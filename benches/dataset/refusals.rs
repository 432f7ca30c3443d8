//! What a refusal costs, beside what the kernel alone takes for the same traffic.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::Outcome;
use super::kernel::{Bare, Deed, per_connection, per_request};
use super::load::{TRUSTED, connect};
use super::server::Server;

const TIMES: usize = 6_400;
/// A token that nobody has, from a network that is trusted: each is answered, none is dropped.
const REFUSED: &[u8] = b"GET /dataset HTTP/1.1\r\nhost: a\r\nauthorization: Bearer assay_x\r\n\r\n";
const SERVED: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
/// More than one network may hold on the public lane.
const HELD: usize = 40;

/// Three kinds of refusals.
pub(crate) fn print(server: &Server) -> Outcome<()> {
    println!(
        "a refusal, processor time of the server (user and kernel); a process that does nothing but the system calls; ours alone:"
    );
    kept(server)?;
    at_accept(server)?;
    new_connection(server)
}

fn line(what: &str, calls: &str, ours: f64, bare: f64) {
    println!(
        "  {what}: {ours:.1} µs; {calls} {bare:.1} µs; {:.1} µs",
        ours - bare
    );
}

fn kept(server: &Server) -> Outcome<()> {
    let (ours, bare) = ((server.pid(), server.protected), Bare::start(Deed::Keep)?);
    let requests = (SERVED, REFUSED);
    let ours = per_request(ours, TRUSTED, requests, TIMES)?;
    let bare = per_request((bare.pid(), bare.at), TRUSTED, (REFUSED, REFUSED), TIMES)?;
    line("on kept connections", "read, write", ours, bare);
    Ok(())
}

fn at_accept(server: &Server) -> Outcome<()> {
    let source: IpAddr = [127, 9, 0, 1].into();
    let held = (0..HELD).map(|_| connect(source, server.public));
    let held = held.collect::<Outcome<Vec<_>>>()?;
    // Until they are all accepted.
    std::thread::sleep(Duration::from_millis(200));
    let ours = per_connection((server.pid(), server.public), source, REFUSED, TIMES)?;
    drop(held);
    let bare = Bare::start(Deed::Reset)?;
    let bare = per_connection((bare.pid(), bare.at), source, REFUSED, TIMES)?;
    line(
        "at accept, reset unread (network over its connections)",
        "accept, close",
        ours,
        bare,
    );
    Ok(())
}

fn new_connection(server: &Server) -> Outcome<()> {
    let ours = (server.pid(), server.protected);
    let mut seen = connect(TRUSTED, server.protected)?;
    seen.write_all(REFUSED)?;
    let mut answer = [0; 1024];
    if super::load::read_answer(&mut seen, &mut answer)? != 401 {
        return Err("not refused".into());
    }
    let ours = per_connection(ours, TRUSTED, REFUSED, TIMES)?;
    let bare = Bare::start(Deed::Answer)?;
    let bare = per_connection((bare.pid(), bare.at), TRUSTED, REFUSED, TIMES)?;
    line(
        "new connection, request, answer, close",
        "accept, read, write, close",
        ours,
        bare,
    );
    Ok(())
}
