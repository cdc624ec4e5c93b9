//! Peer listener: has its own port and queue, so that a flood on the client port reaches neither.
//!
//! It decrypts nothing, because the node has the keys of its peers. It drops datagrams that are plainly not
//! of a peer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use recado_sys::sync::BoundSocket;
use recado_sys::sync::signal::Sender;

use recado_proto::DecodeError;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::packet::RefusedDatagram;
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::recv_loop;
use crate::config::Cluster;

pub(super) struct PeerListener {
    pub(super) socket: BoundSocket,
    pub(super) cluster: Cluster,
    /// To the replica thread. A full channel drops the datagram and counts it; the peer retransmits.
    pub(super) peers: Sender<Vec<u8>>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
    pub(super) stop: Arc<AtomicBool>,
}

impl PeerListener {
    /// Runs until the stop flag is set.
    pub(super) fn run(self) {
        let PeerListener { socket, stop, clock, .. } = &self;
        recv_loop::run(
            "peer",
            stop,
            *clock,
            |inbox| socket.receive(inbox),
            |from, bytes| {
                let taken = check(bytes, &self.cluster).and_then(|()| {
                    self.peers.try_queue(bytes.to_vec()).map_err(|_| RefusedDatagram::QueueFull)
                });
                if let Err(reason) = taken {
                    tracing::debug!(%from, len = bytes.len(), ?reason, "peer datagram refused");
                    self.counters.refuse(reason);
                }
            },
            || {
                if !self.peers.is_empty() {
                    self.peers.wake();
                }
            },
        );
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
