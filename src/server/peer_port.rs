//! Peer port: the socket on which this server hears its peers. It is apart from the clients' port, so that a
//! flood there does not reach it, and the replica thread itself waits for it and reads it: between a peer and
//! the node is no other thread, and no queue but the socket's buffer.
//!
//! It decrypts nothing, because the node has the keys of its peers. It drops datagrams that are plainly not
//! of a peer.

use std::sync::Arc;
use std::time::Duration;

use recado_sys::net::{Inbox, NetError};
use recado_sys::sync::BoundSocket;
use recado_sys::sync::signal::SocketSignal;

use recado_proto::DecodeError;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::id::Moment;
use recado_proto::packet::RefusedDatagram;

use super::counters::Counters;
use super::log_throttle::LogThrottle;
use super::places::PEER_DATAGRAMS_PER_TURN;
use crate::config::Cluster;

/// Maximum number of datagrams taken at once, or of what the system joins.
const BATCH: usize = 8;
/// Time for which the socket is left alone after it failed. An interface that is down may come back; until
/// then the thread must not spin.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct PeerPort {
    socket: BoundSocket,
    cluster: Cluster,
    counters: Arc<Counters>,
    inbox: Inbox,
    /// The socket may have datagrams.
    has: bool,
    /// The end of the pause after a failure.
    paused: Option<Moment>,
    trouble: LogThrottle,
}

impl PeerPort {
    pub(super) fn new(socket: BoundSocket, cluster: Cluster, counters: Arc<Counters>) -> PeerPort {
        PeerPort {
            socket,
            cluster,
            counters,
            inbox: Inbox::new(BATCH),
            has: false,
            paused: None,
            trouble: LogThrottle::default(),
        }
    }

    /// Waits for a datagram or the signal, at most for `patience`. It does not wait if `queued` holds.
    pub(super) fn wait(
        &mut self,
        signal: &SocketSignal,
        now: Moment,
        patience: Duration,
        queued: impl Fn() -> bool,
    ) {
        let pause = self.paused.map_or(Duration::ZERO, |end| end.since(now));
        if !pause.is_zero() {
            signal.signal().wait(patience.min(pause), queued);
            return;
        }
        match signal.wait(&self.socket, patience, queued) {
            Ok(has) => self.has = has,
            Err(error) => self.fail(now, &error),
        }
    }

    /// Takes the datagrams that have come. After [`PEER_DATAGRAMS_PER_TURN`] it takes no further batch, and
    /// the next wait ends at once.
    pub(super) fn receive(&mut self, now: Moment, mut take: impl FnMut(Vec<u8>)) {
        let mut taken = 0;
        while std::mem::take(&mut self.has) && taken < PEER_DATAGRAMS_PER_TURN {
            if let Err(error) = self.socket.take(&mut self.inbox) {
                return self.fail(now, &error);
            }
            for (from, bytes) in self.inbox.datagrams() {
                taken += 1;
                match check(bytes, &self.cluster) {
                    Ok(()) => take(bytes.to_vec()),
                    Err(reason) => {
                        tracing::debug!(%from, len = bytes.len(), ?reason, "peer datagram refused");
                        self.counters.refuse(reason);
                    }
                }
            }
            self.has = self.inbox.is_full();
        }
    }

    fn fail(&mut self, now: Moment, error: &NetError) {
        self.paused = Some(now + PAUSE);
        if let Some(suppressed) = self.trouble.allow(now) {
            tracing::warn!(%error, cause = %error.source, suppressed, port = "peer");
        }
    }
}

/// Checks by its outer header that a datagram may be of another member of this cluster.
fn check(bytes: &[u8], cluster: &Cluster) -> Result<(), RefusedDatagram> {
    let envelope = Envelope::peek(bytes).map_err(DecodeError::refused)?;
    if !matches!(envelope.class, Class::Peer | Class::PeerHello) {
        return Err(RefusedDatagram::Malformed);
    }
    let known = envelope.node.is_some_and(|node| node != cluster.me && cluster.member(node).is_some());
    if envelope.cluster != cluster.id || !known {
        return Err(RefusedDatagram::Cluster);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use recado_proto::Header;
    use recado_proto::envelope::seal;
    use recado_proto::id::{ClusterId, Incarnation, NodeId, Op, SessionId};
    use recado_proto::seal::Key;
    use recado_sys::net::NetOp;

    use super::*;
    use crate::config::Member;

    const NOW: Moment = Moment(1_000_000);
    const AN_HOUR: Duration = Duration::from_secs(3_600);

    fn socket() -> BoundSocket {
        BoundSocket::bind(([127, 0, 0, 1], 0).into(), AN_HOUR).unwrap()
    }

    /// The peer port of server 1 of two.
    fn port() -> PeerPort {
        let addr = ([127, 0, 0, 1], 1).into();
        let members = [1, 2].map(|id| Member { id: NodeId(id), client: addr, peer: addr }).into();
        let cluster = Cluster { id: ClusterId(7), me: NodeId(1), members };
        PeerPort::new(socket(), cluster, Arc::default())
    }

    fn datagram(class: Class, cluster: u64, node: u16) -> Vec<u8> {
        let envelope = Envelope {
            class,
            cluster: ClusterId(cluster),
            session: SessionId(Op(0)),
            node: matches!(class, Class::Peer | Class::PeerHello).then_some(NodeId(node)),
            incarnation: Incarnation(1),
            number: 1,
        };
        seal(&mut Key::new([1; 32]).into(), &envelope, &Header::default(), &[])
    }

    /// Waits and takes, as a turn does, and returns the number of datagrams taken.
    fn turn(port: &mut PeerPort, now: Moment, patience: Duration) -> usize {
        port.wait(&SocketSignal::new().unwrap(), now, patience, || false);
        let mut taken = 0;
        port.receive(now, |_| taken += 1);
        taken
    }

    #[test]
    fn a_turn_takes_a_limited_number_of_datagrams_and_the_next_ones_take_the_rest() {
        const SENT: usize = 3 * PEER_DATAGRAMS_PER_TURN;
        let mut port = port();
        // The system joins those of one size, so that the smallest buffer holds them.
        let sent = vec![(port.socket.addr(), datagram(Class::Peer, 7, 2)); SENT];
        assert_eq!(socket().send(&sent).sent, SENT);
        let (mut left, mut turns) = (SENT, 0);
        while left > 0 {
            let taken = turn(&mut port, NOW, Duration::from_secs(5));
            assert!(taken > 0, "{left} of {SENT} were lost: the buffer is {:?}", port.socket.buffers());
            (left, turns) = (left - taken, turns + 1);
        }
        assert!(turns >= 2, "all in one turn");
        assert_eq!(turn(&mut port, NOW, Duration::ZERO), 0);
    }

    #[test]
    fn a_socket_that_has_failed_is_left_alone_for_a_while_and_then_read_again() {
        let mut port = port();
        let addr = port.socket.addr();
        socket().send(&[(addr, datagram(Class::Peer, 7, 2))]);
        port.fail(NOW, &NetError { op: NetOp::Receive, addr, source: io::ErrorKind::NetworkDown.into() });
        let early = NOW + PAUSE / 2;
        assert_eq!(turn(&mut port, early, Duration::from_millis(1)), 0);
        assert_eq!(turn(&mut port, NOW + PAUSE, AN_HOUR), 1);
    }

    #[test]
    fn what_is_plainly_not_of_a_peer_is_refused_by_reason() {
        let port = port();
        let checked = |class, cluster, node| check(&datagram(class, cluster, node), &port.cluster);
        assert_eq!(checked(Class::Peer, 7, 2), Ok(()));
        assert_eq!(checked(Class::PeerHello, 7, 2), Ok(()));
        assert_eq!(checked(Class::Client, 7, 2), Err(RefusedDatagram::Malformed));
        assert_eq!(checked(Class::Peer, 8, 2), Err(RefusedDatagram::Cluster));
        assert_eq!(checked(Class::Peer, 7, 3), Err(RefusedDatagram::Cluster));
        assert_eq!(checked(Class::Peer, 7, 1), Err(RefusedDatagram::Cluster), "of this server itself");
    }
}
