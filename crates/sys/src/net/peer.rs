//! Peer socket: a connected, send-only socket for each peer, so that a dead process's closed port is
//! reported.
//!
//! The kernel delivers the ICMP "port unreachable" that answers a datagram only to a connected socket, as
//! ECONNREFUSED (RFC 1122 section 4.1.3.3; udp(7)). On one host that happens while the datagram is being
//! sent, so the refusal is known at once, long before any time-out.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};

use super::batch::{self, SendReport};
use super::error::{NetError, NetOp};
use super::socket::size_buffers;

/// A socket that sends to one peer and never blocks.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    peer: SocketAddr,
}

impl PeerSocket {
    /// Opens a socket from a free port of `from` to `peer`.
    ///
    /// # Errors
    /// [`NetError`] naming the step and the address.
    pub fn connect(from: IpAddr, peer: SocketAddr) -> Result<PeerSocket, NetError> {
        let local = SocketAddr::new(from, 0);
        let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))
            .map_err(NetError::at(NetOp::Open, peer))?;
        size_buffers(&socket).map_err(NetError::at(NetOp::Configure, peer))?;
        socket.bind(&local.into()).map_err(NetError::at(NetOp::Bind, local))?;
        socket.connect(&peer.into()).map_err(NetError::at(NetOp::Connect, peer))?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into()).map_err(NetError::at(NetOp::Configure, peer))?;
        Ok(PeerSocket { socket, state, peer })
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends datagrams, in order. One that the system does not take is counted in the report and lost, like
    /// any datagram that is lost on the network.
    ///
    /// After the last one the socket's pending error is read, because on one host a refusal is there already.
    pub fn send(&self, datagrams: Vec<Vec<u8>>) -> SendReport {
        let datagrams: Vec<_> = datagrams.into_iter().map(|bytes| (self.peer, bytes)).collect();
        let mut report = batch::send(&self.socket, &self.state, &datagrams, false);
        let late = self.socket.take_error().ok().flatten();
        report.refused |= late.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        report
    }
}
