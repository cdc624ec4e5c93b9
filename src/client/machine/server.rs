//! The servers as a client knows them: addresses, and one link each.

use std::net::SocketAddr;
use std::time::Duration;

use super::Effect;
use crate::id::{ClusterId, Incarnation, MEMBERS_MAX, Moment, NodeId, SessionId, View};
use crate::wire::envelope::{Ack, Class, Envelope};
use crate::wire::fragment::Reassembler;
use crate::wire::link::{Link, LinkEvent};
use crate::wire::packet::Packet;

/// Most addresses known: each server may have another beside its own.
const ADDRESSES_MAX: usize = 2 * MEMBERS_MAX;

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Known from its datagrams, or from what other servers say.
    node: Option<NodeId>,
    incarnation: Incarnation,
    /// Whether any datagram came from it.
    heard: bool,
    link: Link,
    reassembler: Reassembler,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    /// Of the datagrams of the session.
    envelope: Envelope,
    /// Numbers what is sent outside of a session.
    apart: Link,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], cluster: Option<ClusterId>) -> Servers {
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: cluster.unwrap_or(ClusterId(0)),
            session: SessionId::default(),
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let mut servers = Servers { servers: Vec::new(), envelope, apart: Link::new(envelope) };
        addresses.iter().for_each(|address| servers.learn(*address));
        servers
    }

    /// One more address, if there is room.
    pub(super) fn learn(&mut self, address: SocketAddr) {
        if self.servers.len() < ADDRESSES_MAX && self.at(address).is_none() {
            let link = Link::new(self.envelope);
            let reassembler = Reassembler::default();
            let (node, incarnation, heard) = (None, Incarnation(0), false);
            self.servers.push(Server { address, node, incarnation, heard, link, reassembler });
        }
    }

    /// What a server says of all of them. One that has been heard keeps the address it was heard
    /// from: two links to one server would use each other's numbers.
    pub(super) fn learn_all(&mut self, members: &[(NodeId, SocketAddr)]) {
        for (node, address) in members {
            if self.servers.iter().any(|server| server.node == Some(*node) && server.heard) {
                continue;
            }
            self.learn(*address);
            if let Some(server) = self.servers.iter_mut().find(|server| server.address == *address) {
                server.node = Some(*node);
            }
        }
    }

    /// From now on datagrams are of this session: every link begins anew.
    pub(super) fn open_session(&mut self, cluster: ClusterId, session: SessionId) {
        self.envelope = Envelope { class: Class::Client, cluster, session, ..self.envelope };
        for server in &mut self.servers {
            server.link = Link::new(self.envelope);
            server.reassembler = Reassembler::default();
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    pub(super) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.servers.iter().find(|server| server.node == Some(node)).map(|server| server.address)
    }

    fn at(&self, address: SocketAddr) -> Option<&Server> {
        self.servers.iter().find(|server| server.address == address)
    }

    fn at_mut(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.address == address)
    }

    /// Whether a datagram counts: from a known server of this cluster, outside of a session or of
    /// this one, from the newest life of that server, and not seen before.
    pub(super) fn accept(
        &mut self,
        now: Moment,
        from: SocketAddr,
        envelope: &Envelope,
        ack: Option<Ack>,
        session: Option<SessionId>,
    ) -> bool {
        let Some(node) = envelope.node else { return false };
        let known = self.envelope.cluster;
        let ours = known == ClusterId(0) || known == envelope.cluster;
        let fits = match envelope.class {
            Class::Handshake => true,
            Class::Client => Some(envelope.session) == session,
            Class::Peer => false,
        };
        let own = self.envelope;
        let Some(server) = self.at_mut(from).filter(|_| ours && fits) else { return false };
        if envelope.incarnation < server.incarnation {
            return false;
        }
        if envelope.incarnation > server.incarnation {
            server.incarnation = envelope.incarnation;
            server.link = Link::starting_at(own, server.link.next_number());
            server.reassembler = Reassembler::default();
        }
        server.node = Some(node);
        server.heard = true;
        envelope.class == Class::Handshake || server.link.receive(now, envelope.number, ack)
    }

    /// The packet, or what a piece completes.
    pub(super) fn whole(&mut self, now: Moment, from: SocketAddr, packet: Packet) -> Option<Packet> {
        match packet {
            // A piece that fits nothing is as good as lost.
            Packet::Fragment(piece) => self.at_mut(from)?.reassembler.accept(now, piece).ok().flatten(),
            whole => Some(whole),
        }
    }

    /// Sends on the session.
    pub(super) fn send(
        &mut self,
        now: Moment,
        to: SocketAddr,
        view: View,
        packets: &[Packet],
        token: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let Some(server) = self.at_mut(to) else { return };
        let mut datagrams = Vec::new();
        server.link.transmit(now, view, packets, token, &mut datagrams);
        out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
    }

    /// Sends outside of a session.
    pub(super) fn send_apart(&mut self, now: Moment, to: SocketAddr, packet: &Packet, out: &mut Vec<Effect>) {
        let mut datagrams = Vec::new();
        self.apart.transmit(now, View::ZERO, std::slice::from_ref(packet), None, &mut datagrams);
        out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
    }

    /// Bytes the link takes now.
    pub(super) fn room(&self, to: SocketAddr) -> usize {
        self.at(to).map_or(0, |server| server.link.room())
    }

    pub(super) fn rto(&self, to: SocketAddr) -> Duration {
        self.at(to).map_or(Duration::ZERO, |server| server.link.rto())
    }

    pub(super) fn owes_ack(&self, to: SocketAddr) -> bool {
        self.at(to).is_some_and(|server| server.link.owes_ack())
    }

    pub(super) fn on_deadline(&mut self, now: Moment) {
        for server in &mut self.servers {
            if server.link.next_deadline().is_some_and(|at| at <= now) {
                server.link.on_deadline(now);
            }
        }
    }

    /// Tokens believed lost since the last time.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        let mut lost = Vec::new();
        for server in &mut self.servers {
            while let Some(event) = server.link.poll_event() {
                if let LinkEvent::Lost(token) = event {
                    lost.push(token);
                }
            }
        }
        lost
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.servers.iter().filter_map(|server| server.link.next_deadline()).min()
    }
}
