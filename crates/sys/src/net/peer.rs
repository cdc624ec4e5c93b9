//! Peer socket: a connected, send-only socket for each peer, so that a dead process's closed port is
//! reported.
//!
//! The kernel delivers the ICMP "port unreachable" that answers a datagram only to a connected socket, as
//! ECONNREFUSED (RFC 1122 section 4.1.3.3; udp(7)). On one host that happens while the datagram is being
//! sent, so the refusal is known at once, long before any time-out.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::{NetError, NetOp};
use super::socket::size_buffers;

/// Outcome of sending a datagram to a peer.
#[derive(Debug)]
pub enum SendOutcome {
    /// The system took the datagram, which may still be lost.
    Sent,
    /// The peer's port is closed, so its process is gone. This datagram or an earlier one was refused.
    Refused,
    /// The system did not take the datagram.
    Failed(io::Error),
}

/// A socket that sends to one peer and never blocks.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UdpSocket,
    peer: SocketAddr,
}

impl PeerSocket {
    /// Opens a socket from a free port of `from` to `peer`.
    pub fn connect(from: IpAddr, peer: SocketAddr) -> Result<PeerSocket, NetError> {
        let local = SocketAddr::new(from, 0);
        let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))
            .map_err(NetError::at(NetOp::Open, peer))?;
        size_buffers(&socket).map_err(NetError::at(NetOp::Configure, peer))?;
        socket.set_nonblocking(true).map_err(NetError::at(NetOp::Configure, peer))?;
        socket.bind(&local.into()).map_err(NetError::at(NetOp::Bind, local))?;
        socket.connect(&peer.into()).map_err(NetError::at(NetOp::Connect, peer))?;
        Ok(PeerSocket { socket: socket.into(), peer })
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends one datagram.
    ///
    /// The kernel reports an error that an earlier datagram left behind instead of sending this one. So a
    /// refusal is recorded and the datagram is sent again. After the send, the socket's pending error is
    /// read, because on one host the refusal is there already.
    pub fn send(&self, bytes: &[u8]) -> SendOutcome {
        let mut refused = false;
        let sent = loop {
            match self.socket.send(bytes) {
                Ok(_) => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !refused => refused = true,
                Err(error) => break Err(error),
            }
        };
        let late = self.socket.take_error().ok().flatten();
        if refused || late.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return SendOutcome::Refused;
        }
        match sent {
            Ok(()) => SendOutcome::Sent,
            Err(error) => SendOutcome::Failed(error),
        }
    }
}
