//! Errors of sockets, with the step that failed.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Step at which a socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetOp {
    /// Making the socket.
    Open,
    /// Binding it to its address.
    Bind,
    /// Connecting it to the one address it sends to.
    Connect,
    /// Setting or reading one of its options.
    Configure,
    /// Receiving.
    Receive,
}

impl fmt::Display for NetOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetOp::Open => "open a UDP socket for",
            NetOp::Bind => "bind",
            NetOp::Connect => "connect to",
            NetOp::Configure => "configure the socket of",
            NetOp::Receive => "receive on",
        })
    }
}

/// A socket could not be opened, or is not usable any more. The machine's or its administrator's fault.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {addr}")]
pub struct NetError {
    /// The step that failed.
    pub op: NetOp,
    /// The socket's address.
    pub addr: SocketAddr,
    /// The system's error.
    pub source: io::Error,
}

impl NetError {
    pub(super) fn at(op: NetOp, addr: SocketAddr) -> impl FnOnce(io::Error) -> NetError {
        move |source| NetError { op, addr, source }
    }
}
