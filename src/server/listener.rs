//! Client listener: receives in batches, drops datagrams that are plainly invalid, and dispatches the rest
//! to the handlers, so that the datagrams of one sender keep their order.
//!
//! It decrypts nothing: the outer header only selects the handler that opens the datagram.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use recado_sys::sync::BoundSocket;
use recado_sys::sync::signal::Sender;

use recado_proto::id::ClusterId;
use recado_proto::packet::RefusedDatagram;
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::recv_loop;
use super::shard::shard_for;

/// A datagram for a handler.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Listener {
    pub(super) socket: Arc<BoundSocket>,
    pub(super) cluster: ClusterId,
    /// One channel per handler. A full one drops the datagram and counts it; the client retransmits.
    pub(super) handlers: Vec<Sender<Received>>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
    pub(super) stop: Arc<AtomicBool>,
}

impl Listener {
    /// Runs until the stop flag is set.
    pub(super) fn run(self) {
        let Listener { socket, stop, clock, .. } = &self;
        recv_loop::run(
            "client",
            stop,
            *clock,
            |inbox| socket.receive(inbox),
            |from, bytes| {
                if let Err(reason) = self.dispatch(from, bytes) {
                    tracing::debug!(%from, len = bytes.len(), ?reason, "datagram refused");
                    self.counters.refuse(reason);
                }
            },
            || self.handlers.iter().filter(|handler| !handler.is_empty()).for_each(Sender::wake),
        );
    }

    fn dispatch(&self, from: SocketAddr, bytes: &[u8]) -> Result<(), RefusedDatagram> {
        let shard = shard_for(from, bytes, self.cluster, self.handlers.len())?;
        let handler = self.handlers.get(shard).ok_or(RefusedDatagram::QueueFull)?;
        let received = Received { from, bytes: bytes.to_vec() };
        handler.try_queue(received).map_err(|_| RefusedDatagram::QueueFull)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use recado_proto::envelope::{Class, Envelope, seal};
    use recado_proto::id::{Incarnation, NodeId, Op, SessionId};
    use recado_proto::seal::Key;
    use recado_proto::{DATAGRAM_MAX, Header};
    use recado_sys::sync::signal::Signal;

    use super::*;
    use crate::server::shard::shard_of;

    fn datagram(class: Class, cluster: u64, session: u64) -> Vec<u8> {
        let node = matches!(class, Class::Peer | Class::PeerHello).then_some(NodeId(1));
        let envelope = Envelope {
            class,
            cluster: ClusterId(cluster),
            session: SessionId(Op(session)),
            node,
            incarnation: Incarnation(0),
            number: 1,
        };
        seal(&mut Key::new([1; 32]).into(), &envelope, &Header::default(), &[])
    }

    fn shard(bytes: &[u8]) -> Result<usize, RefusedDatagram> {
        shard_for("127.0.0.1:4001".parse().unwrap(), bytes, ClusterId(7), 2)
    }

    #[test]
    fn a_session_always_goes_to_the_same_handler() {
        for session in 1..20 {
            let of_session = shard_of(SessionId(Op(session)), 2);
            assert_eq!(shard(&datagram(Class::Client, 7, session)), Ok(of_session));
        }
        assert_eq!(shard(&datagram(Class::Handshake, 7, 0)), Ok(1));
    }

    #[test]
    fn a_client_may_not_know_the_cluster_before_its_session_but_must_on_it() {
        assert_eq!(shard(&datagram(Class::Handshake, 0, 0)), Ok(1));
        assert_eq!(shard(&datagram(Class::Client, 0, 5)), Err(RefusedDatagram::Cluster));
        assert_eq!(shard(&datagram(Class::Handshake, 8, 0)), Err(RefusedDatagram::Cluster));
    }

    #[test]
    fn a_handler_that_is_behind_costs_its_own_datagrams_alone() {
        let socket = BoundSocket::bind(([127, 0, 0, 1], 0).into(), Duration::from_millis(1));
        let ((even, _even_out), (odd, _odd_out)) =
            (Signal::default().bounded(1), Signal::default().bounded(1));
        let listener = Listener {
            socket: Arc::new(socket.unwrap()),
            cluster: ClusterId(7),
            handlers: vec![even, odd],
            counters: Arc::default(),
            clock: MachineClock::start(),
            stop: Arc::default(),
        };
        let dispatch = |session| {
            let bytes = datagram(Class::Client, 7, session);
            listener.dispatch("127.0.0.1:4001".parse().unwrap(), &bytes)
        };
        let mut of_first = (1..).filter(|id| shard_of(SessionId(Op(*id)), 2) == 0);
        let (one, another) = (of_first.next().unwrap(), of_first.next().unwrap());
        let other = (1..).find(|id| shard_of(SessionId(Op(*id)), 2) == 1).unwrap();
        assert_eq!(
            (dispatch(one), dispatch(another), dispatch(other)),
            (Ok(()), Err(RefusedDatagram::QueueFull), Ok(()))
        );
    }

    #[test]
    fn another_version_goes_to_a_handler_whatever_else_it_says() {
        let mut other = datagram(Class::Handshake, 8, 0);
        other[2] += 1;
        assert_eq!(shard(&other), Ok(1));
    }

    #[test]
    fn what_is_plainly_not_ours_is_refused_by_reason() {
        assert_eq!(shard(b"GET / HTTP/1.1"), Err(RefusedDatagram::Truncated));
        assert_eq!(shard(&[0; 100]), Err(RefusedDatagram::Magic));
        assert_eq!(shard(&vec![0; DATAGRAM_MAX + 1]), Err(RefusedDatagram::Oversized));
        assert_eq!(shard(&datagram(Class::Peer, 7, 0)), Err(RefusedDatagram::Malformed));
        assert_eq!(shard(&datagram(Class::PeerHello, 7, 0)), Err(RefusedDatagram::Malformed));
    }
}
