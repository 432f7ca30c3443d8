//! Accepting: what can be refused is refused here, before anything is allocated for it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

use super::head::{Head, Opening, opening};
use super::refusal::{REFUSAL_BYTES_MAX, Reason, Refusal};

/// First bytes of a request that are looked at; a longer head is read on the ordinary way.
const FIRST: usize = 4096;

/// A connection that was accepted, and where it came from.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Non-blocking.
    pub stream: TcpStream,
    /// The other side.
    pub address: IpAddr,
}

/// Accepts one connection; `None` when none waits.
///
/// # Errors
/// What the system says, other than that the connection is gone already.
pub(super) fn accept(listener: &TcpListener) -> io::Result<Option<Accepted>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match rustix::net::acceptfrom_with(listener, flags) {
        Ok((fd, address)) => {
            let address = address.and_then(|a| SocketAddr::try_from(a).ok());
            let Some(address) = address else {
                return Ok(None);
            };
            Ok(Some(Accepted {
                stream: TcpStream::from(fd),
                address: address.ip(),
            }))
        }
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Binds `address` so that every connection inherits a send buffer of `send_bytes` and sends
/// small answers at once.
///
/// # Errors
/// What the system says.
pub(super) fn listen(
    address: SocketAddr,
    send_bytes: usize,
    backlog: i32,
) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket_with};
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart in the storm must not wait for the old connections to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_send_buffer_size(&socket, send_bytes)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

/// Closes by a reset: the other side learns at once, and nothing of it stays in the kernel.
pub(super) fn reset(stream: TcpStream) {
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
}

/// What became of a look at a connection's first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Refused, and told so; the connection is to be closed.
    Refused,
    /// To be served; these bytes were taken from it.
    Welcome(Bytes),
    /// Nothing has come yet.
    Silent,
    /// The other side is gone.
    Gone,
}

/// Takes what the client sent already. When `judge` refuses it, the refusal is written at once;
/// nothing is allocated and nothing waited for.
pub(super) fn look(stream: impl AsFd, judge: impl FnOnce(&Head<'_>) -> Option<Refusal>) -> Looked {
    let mut bytes = [0u8; FIRST];
    let read = match rustix::net::recv(&stream, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) => return Looked::Gone,
        Ok((read, _)) => read,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Looked::Silent,
        Err(_) => return Looked::Gone,
    };
    let refusal = match opening(&bytes[..read]) {
        Opening::Whole(head) => judge(&head),
        Opening::Bad => Some(Reason::BadHead.into()),
        Opening::Partial => None,
    };
    let Some(refusal) = refusal else {
        return Looked::Welcome(Bytes::copy_from_slice(&bytes[..read]));
    };
    let mut answer = [0u8; REFUSAL_BYTES_MAX];
    let length = refusal.write(&mut answer);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = rustix::net::send(&stream, &answer[..length], flags);
    Looked::Refused
}

/// Whether a failed accept concerns that one connection alone.
#[must_use]
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}
