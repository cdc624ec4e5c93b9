//! The links to the other servers: one a peer, numbers and acks and fragments.

use std::collections::BTreeMap;

use crate::config::Cluster;
use crate::id::{Incarnation, Moment, NodeId, Op, SessionId, View};
use crate::wire::envelope::{Class, Envelope, Opened};
use crate::wire::fragment::Reassembler;
use crate::wire::link::{Link, LinkEvent};
use crate::wire::packet::{Packet, RefusedDatagram};

use super::Effect;

/// Packets for a peer between two flushes; more is lost as on the network. A datagram full of
/// questions must not become thousands of times its size in answers at once.
const WAITING_MAX: usize = 1_024;

#[derive(Debug)]
struct Peer {
    link: Link,
    reassembler: Reassembler,
    /// The newest incarnation heard.
    incarnation: Incarnation,
    /// What is in flight, by token: as much as the link tracks.
    tracked: BTreeMap<u64, (Op, Op)>,
    /// What shares the next datagram.
    waiting: Vec<Packet>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    envelope: Envelope,
    tokens: u64,
}

impl Peers {
    pub(super) fn new(cluster: &Cluster, incarnation: Incarnation) -> Peers {
        let envelope = Envelope {
            class: Class::Peer,
            cluster: cluster.id,
            session: SessionId::default(),
            node: Some(cluster.me),
            incarnation,
            number: 0,
        };
        let peer = |id| {
            let link = Link::new(envelope);
            (
                id,
                Peer {
                    link,
                    reassembler: Reassembler::default(),
                    incarnation: Incarnation(0),
                    waiting: Vec::new(),
                    tracked: BTreeMap::new(),
                },
            )
        };
        Peers { peers: cluster.peers().map(peer).collect(), envelope, tokens: 0 }
    }

    /// Takes a datagram: gives its sender and its packets, whole; none if it is no peer's, came
    /// before, or is of an earlier life of the sender.
    pub(super) fn open(
        &mut self,
        now: Moment,
        opened: Opened,
        out: &mut Vec<Effect>,
    ) -> Option<(NodeId, Incarnation, Vec<Packet>)> {
        let Envelope { class, node, incarnation, number, .. } = opened.envelope;
        let from = node.filter(|_| class == Class::Peer)?;
        let peer = self.peers.get_mut(&from)?;
        if incarnation < peer.incarnation {
            return None;
        }
        if incarnation > peer.incarnation {
            // Another process: what the old one received or sent says nothing. Our own numbers go on.
            peer.incarnation = incarnation;
            peer.link = Link::starting_at(self.envelope, peer.link.next_number());
            peer.reassembler = Reassembler::default();
            peer.tracked.clear();
        }
        if !peer.link.receive(now, number, opened.header.ack) {
            out.push(Effect::Refused(RefusedDatagram::Repeated));
            return None;
        }
        let mut packets = Vec::with_capacity(opened.packets.len());
        for packet in opened.packets {
            match packet {
                // A piece that fits nothing costs only what it belongs to; it will be sent again.
                Packet::Fragment(piece) => packets.extend(peer.reassembler.accept(now, piece).ok().flatten()),
                whole => packets.push(whole),
            }
        }
        Some((from, incarnation, packets))
    }

    /// Sends at once, and reports a loss.
    pub(super) fn send_tracked(
        &mut self,
        now: Moment,
        view: View,
        to: NodeId,
        packet: Packet,
        ops: (Op, Op),
        out: &mut Vec<Effect>,
    ) {
        self.tokens += 1;
        let token = self.tokens;
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.tracked.insert(token, ops);
            let mut datagrams = Vec::new();
            peer.link.transmit(now, view, &[packet], Some(token), &mut datagrams);
            out.extend(datagrams.into_iter().map(|bytes| Effect::Peer { to, bytes }));
        }
    }

    /// Sends with whatever else goes to that peer until the next [`Peers::flush`].
    pub(super) fn send(&mut self, to: NodeId, packet: Packet) {
        if let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.waiting.len() < WAITING_MAX) {
            peer.waiting.push(packet);
        }
    }

    pub(super) fn flush(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        for (to, peer) in &mut self.peers {
            if peer.waiting.is_empty() && !peer.link.owes_ack() {
                continue;
            }
            let mut datagrams = Vec::new();
            peer.link.transmit(now, view, &peer.waiting, None, &mut datagrams);
            peer.waiting.clear();
            out.extend(datagrams.into_iter().map(|bytes| Effect::Peer { to: *to, bytes }));
        }
    }

    /// What was sent tracked and is believed lost.
    pub(super) fn losses(&mut self, now: Moment) -> Vec<(NodeId, (Op, Op))> {
        let mut lost = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.link.next_deadline().is_some_and(|at| at <= now) {
                peer.link.on_deadline(now);
            }
            while let Some(event) = peer.link.poll_event() {
                match event {
                    LinkEvent::Acked(token) => drop(peer.tracked.remove(&token)),
                    LinkEvent::Lost(token) => lost.extend(peer.tracked.remove(&token).map(|ops| (*id, ops))),
                }
            }
        }
        lost
    }

    /// Bytes the link to `peer` takes now.
    pub(super) fn room(&self, peer: NodeId) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.link.room())
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.peers.values().filter_map(|peer| peer.link.next_deadline()).min()
    }
}
