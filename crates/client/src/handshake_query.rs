//! Queries without a session: a [`HandshakeQuery`] defines the datagrams and the meaning of the answers,
//! [`run`] repeats it until it is over, and its
//! [`HandshakeClients`](super::machine::handshakes::HandshakeClients) run the handshake with each server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;
use recado_sys::net::Inbox;
use recado_sys::sync::BoundSocket;

use super::error::ClientError;

/// The interval between two queries to a server that has not answered.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The longest wait for one datagram, so that deadlines are noticed in time.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// A query to several servers, without a thread or a socket.
pub(super) trait HandshakeQuery {
    /// The datagrams to send at `now`, with their destinations. Repeats every query that has no answer: it
    /// may have been lost.
    fn datagrams(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)>;

    /// Takes a datagram. Returns true if the next queries are to go out at once, without waiting for the
    /// interval.
    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool;

    /// The interval at which [`HandshakeQuery::datagrams`] is called.
    fn ask_every(&self) -> Duration {
        ASK_EVERY
    }

    /// Returns true once nothing more is wanted.
    fn is_over(&self, now: Moment) -> bool;
}

/// Runs `query` until it is over, at most for `timeout`. The addresses in `servers` decide the socket's
/// address family.
///
/// # Errors
/// [`ClientError::NoServers`], or the system cannot provide a socket.
pub(super) fn run(
    query: &mut impl HandshakeQuery,
    servers: &[SocketAddr],
    timeout: Duration,
) -> Result<(), ClientError> {
    run_on(query, &bind(servers, PATIENCE)?, MachineClock::start(), timeout)
}

/// Runs `query` on a socket until it is over, at most until `timeout` after the start of the clock.
///
/// # Errors
/// The socket fails.
pub(super) fn run_on(
    query: &mut impl HandshakeQuery,
    socket: &BoundSocket,
    clock: MachineClock,
    timeout: Duration,
) -> Result<(), ClientError> {
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    loop {
        let now = clock.now();
        if query.is_over(now) || now.since(Moment(0)) >= timeout {
            return Ok(());
        }
        if now >= ask_at {
            ask_at = now + query.ask_every();
            // A datagram that cannot be sent is lost like any other; the query sends it again.
            let _ = socket.send(&query.datagrams(now));
        }
        socket.receive(&mut inbox)?;
        let now = clock.now();
        for (from, bytes) in inbox.datagrams() {
            if query.take(now, from, bytes) {
                ask_at = now;
            }
        }
    }
}

/// Binds a port that the system chooses, in the address family of `servers`.
pub(super) fn bind(servers: &[SocketAddr], patience: Duration) -> Result<BoundSocket, ClientError> {
    let ip = match servers.first() {
        None => return Err(ClientError::NoServers),
        Some(SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Ok(BoundSocket::bind(SocketAddr::new(ip, 0), patience)?)
}
