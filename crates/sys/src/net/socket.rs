//! Bound socket of a port: many threads may send on it, one receives.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};

use super::batch::{self, Inbox, SendReport};
use super::error::{NetError, NetOp};
use super::waker::Waker;

/// Buffer size requested in each direction, in bytes. The answers of a batch of clients, or a cast of a few
/// hundred large entries, then wait in the kernel and are not lost. Systems grant less unless
/// `net.core.rmem_max` is raised; the caller logs the size granted.
pub const BUFFER_WANTED: usize = 4 * 1024 * 1024;

/// Sizes of the kernel's buffers of one socket, in bytes, as the kernel reports them (Linux reports twice
/// what it grants, for its own bookkeeping: socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// SO_RCVBUF.
    pub receive: usize,
    /// SO_SNDBUF.
    pub send: usize,
}

/// A UDP socket bound to one address.
#[derive(Debug)]
pub struct BoundSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    addr: SocketAddr,
    buffers: Buffers,
    patience: Duration,
}

impl BoundSocket {
    /// Binds `addr` (port 0: a free one) with buffers of 4 MiB, or as near to it as the system grants. A
    /// receive waits at most `patience`, so that its thread can check regularly whether it should end.
    ///
    /// The address is never shared (no SO_REUSEADDR): two servers on one port would each get some
    /// of the datagrams.
    ///
    /// # Errors
    /// [`NetError`] naming the step and the address.
    pub fn bind(addr: SocketAddr, patience: Duration) -> Result<BoundSocket, NetError> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
            .map_err(NetError::at(NetOp::Open, addr))?;
        let buffers = size_buffers(&socket).map_err(NetError::at(NetOp::Configure, addr))?;
        socket.bind(&addr.into()).map_err(NetError::at(NetOp::Bind, addr))?;
        let socket = UdpSocket::from(socket);
        let addr = socket.local_addr().map_err(NetError::at(NetOp::Configure, addr))?;
        let state = UdpSocketState::new((&socket).into()).map_err(NetError::at(NetOp::Configure, addr))?;
        Ok(BoundSocket { socket, state, addr, buffers, patience })
    }

    /// From now on a receive waits at most `patience`.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The bound address; it has the real port if port 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The sizes of the kernel's buffers, as granted.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Waits for a datagram, then takes the others that are queued, up to the inbox's size. The inbox is
    /// empty if nothing came within the time-out.
    ///
    /// # Errors
    /// [`NetError`] if the socket is not usable any more.
    pub fn receive(&self, inbox: &mut Inbox) -> Result<(), NetError> {
        inbox.clear();
        match batch::wait(&self.socket, self.patience) {
            Ok(true) => self.take(inbox),
            Ok(false) => Ok(()),
            Err(error) => Err(NetError::at(NetOp::Receive, self.addr)(error)),
        }
    }

    /// Waits for a datagram, and takes none; at most `patience`, or until the waker is set. Returns true if
    /// there is something to take.
    ///
    /// # Errors
    /// [`NetError`] if the socket is not usable any more.
    pub fn wait(&self, waker: &Waker, patience: Duration) -> Result<bool, NetError> {
        batch::wait_or_woken(&self.socket, waker, patience).map_err(NetError::at(NetOp::Receive, self.addr))
    }

    /// Takes the datagrams that are queued, up to the inbox's size, without waiting for any.
    ///
    /// # Errors
    /// [`NetError`] if the socket is not usable any more.
    pub fn take(&self, inbox: &mut Inbox) -> Result<(), NetError> {
        batch::take(&self.socket, &self.state, inbox).map_err(NetError::at(NetOp::Receive, self.addr))
    }

    /// The number of datagrams that the system sends as one; 1: it joins none.
    #[cfg(test)]
    pub(super) fn joins(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends each datagram to its address, in order. A datagram that the system does not take is counted in
    /// the report and lost, like any datagram that is lost on the network.
    pub fn send(&self, datagrams: &[(SocketAddr, Vec<u8>)]) -> SendReport {
        batch::send(&self.socket, &self.state, datagrams, true)
    }
}

/// For a thread that waits for many sockets at once.
impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Requests large buffers. It is no error if the system grants less.
pub(super) fn size_buffers(socket: &Socket) -> std::io::Result<Buffers> {
    // A refusal leaves the system's default, which the report below shows.
    let _ = socket.set_recv_buffer_size(BUFFER_WANTED);
    let _ = socket.set_send_buffer_size(BUFFER_WANTED);
    Ok(Buffers { receive: socket.recv_buffer_size()?, send: socket.send_buffer_size()? })
}
