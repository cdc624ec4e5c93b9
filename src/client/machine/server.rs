//! The servers as a client knows them: addresses, for each its door, and the paths of the session to them.

use std::net::SocketAddr;
use std::time::Duration;

use super::Effect;
use super::door::{Door, FromDoor, Greeting, Identity};
use super::paths::Paths;
use crate::entropy::Entropy;
use crate::id::{MEMBERS_MAX, Moment, NodeId, SessionId, View};
use crate::wire::envelope::{Class, Envelope, Opened};
use crate::wire::packet::Packet;
use crate::wire::seal::Key;

/// Most addresses known: each server may have another beside its own.
const ADDRESSES_MAX: usize = 2 * MEMBERS_MAX;

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Known from its datagrams, or from what other servers say.
    node: Option<NodeId>,
    door: Door,
    /// Whether a datagram that opened came from it, ever ...
    heard: bool,
    /// ... and since it was last asked whether it lives.
    answered: bool,
    /// Whether it was asked and did not answer, lately.
    silent: bool,
}

/// What came from a server.
#[derive(Debug)]
pub(super) enum Received {
    /// Who it says it is; it can be knocked at.
    Greeting {
        /// Not to be believed.
        greeting: Greeting,
        /// Something is to be said to it on the session: see [`Servers::probe`].
        on_trial: bool,
    },
    /// Packets: on the session, or in answer to a knock.
    Opened(Opened),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    identity: Identity,
    /// Of the session, once it is let in.
    paths: Option<Paths>,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], identity: Identity) -> Servers {
        let mut servers = Servers { servers: Vec::new(), identity, paths: None };
        addresses.iter().for_each(|address| servers.learn(*address));
        servers
    }

    /// One more address, if there is room.
    pub(super) fn learn(&mut self, address: SocketAddr) {
        if self.servers.len() < ADDRESSES_MAX && self.at(address).is_none() {
            self.servers.push(Server {
                address,
                node: None,
                door: Door::default(),
                heard: false,
                answered: false,
                silent: false,
            });
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

    /// From now on datagrams are of this session: every path begins anew, to those who have greeted.
    pub(super) fn open_session(&mut self, now: Moment, session: SessionId, secret: Key) {
        self.paths = Some(Paths::new(self.identity.cluster, session, secret));
        let greeted = |server: &Server| Some((server.address, server.door.greeting()?));
        for (at, greeting) in self.servers.iter().filter_map(greeted).collect::<Vec<_>>() {
            self.greeted(now, at, &greeting);
        }
    }

    /// Whether who answers at this address as a server of the cluster is on trial from now on.
    fn greeted(&mut self, now: Moment, at: SocketAddr, greeting: &Greeting) -> bool {
        let Some(paths) = self.paths.as_mut().filter(|_| self.identity.trusts(greeting)) else {
            return false;
        };
        let servers = &self.servers;
        let is_silent = |at| servers.iter().any(|server| server.address == at && server.silent);
        paths.greeted(now, at, greeting, is_silent)
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    pub(super) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        // Of two addresses of one server only one is proved.
        let proved = |at| self.paths.as_ref().is_some_and(|paths| paths.prove(node, at));
        let known = self.servers.iter().filter(|server| server.node == Some(node));
        known.min_by_key(|server| !proved(server.address)).map(|server| server.address)
    }

    fn at(&self, address: SocketAddr) -> Option<&Server> {
        self.servers.iter().find(|server| server.address == address)
    }

    fn at_mut(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.address == address)
    }

    /// Takes a datagram; none if it is not from a known server, does not open, or was seen before.
    pub(super) fn receive(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> Option<Received> {
        let envelope = Envelope::peek(datagram).ok()?;
        let server = self.servers.iter_mut().find(|server| server.address == from)?;
        let opened = match envelope.class {
            Class::Handshake => match server.door.take(now, datagram)? {
                FromDoor::Greeting(greeting) => {
                    if !self.identity.trusts(&greeting) {
                        return None;
                    }
                    let on_trial = self.greeted(now, from, &greeting);
                    return Some(Received::Greeting { greeting, on_trial });
                }
                FromDoor::Answer(opened) => opened,
            },
            Class::Client => self.paths.as_mut()?.receive(now, from, &envelope, datagram)?,
            Class::Peer | Class::PeerHello => return None,
        };
        server.node = opened.envelope.node;
        server.heard = true;
        server.answered = true;
        server.silent = false;
        Some(Received::Opened(opened))
    }

    /// The packet, or what a piece completes.
    pub(super) fn whole(&mut self, now: Moment, from: SocketAddr, packet: Packet) -> Option<Packet> {
        match &mut self.paths {
            Some(paths) => paths.whole(now, from, packet),
            None => Some(packet),
        }
    }

    /// Sends on the session; nothing to a server whose life is not known.
    pub(super) fn send(
        &mut self,
        now: Moment,
        to: SocketAddr,
        view: View,
        packets: &[Packet],
        token: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(paths) = &mut self.paths {
            paths.send(now, to, view, packets, token, out);
        }
    }

    /// Says something on the session to one that greeted, whoever else is there.
    pub(super) fn probe(
        &mut self,
        now: Moment,
        to: SocketAddr,
        greeting: &Greeting,
        view: View,
        packets: &[Packet],
        out: &mut Vec<Effect>,
    ) {
        if let Some(paths) = &mut self.paths {
            paths.probe(now, to, greeting, view, packets, out);
        }
    }

    /// Asks outside of a session. A server that has to be said HELLO to first will be a
    /// [`Received::Greeting`] soon; then it can be asked.
    pub(super) fn knock(
        &mut self,
        now: Moment,
        to: SocketAddr,
        question: &Packet,
        entropy: &mut Entropy,
        out: &mut Vec<Effect>,
    ) {
        let identity = self.identity.clone();
        let Some(server) = self.at_mut(to) else { return };
        let knock = server.door.knock(now, &identity, question, entropy);
        let bytes = knock.unwrap_or_else(|| server.door.hello(identity.cluster, entropy));
        out.push(Effect::Datagram { to, bytes });
    }

    /// HELLO to a server that has not answered since the last time: it may have begun another life,
    /// to which nothing can be sealed before it is known.
    pub(super) fn check_life(&mut self, to: SocketAddr, entropy: &mut Entropy, out: &mut Vec<Effect>) {
        let has_path = self.has_path(to);
        let Some(server) = self.at_mut(to) else { return };
        server.silent = !std::mem::take(&mut server.answered);
        if server.silent || !has_path {
            self.hello(to, entropy, out);
        }
    }

    /// HELLO, whatever is known of it.
    pub(super) fn hello(&mut self, to: SocketAddr, entropy: &mut Entropy, out: &mut Vec<Effect>) {
        let cluster = self.identity.cluster;
        if let Some(server) = self.at_mut(to) {
            out.push(Effect::Datagram { to, bytes: server.door.hello(cluster, entropy) });
        }
    }

    /// Whether something can be sent to it on the session.
    pub(super) fn has_path(&self, to: SocketAddr) -> bool {
        self.paths.as_ref().is_some_and(|paths| paths.lead_to(to))
    }

    /// Bytes the link takes now.
    pub(super) fn room(&self, to: SocketAddr) -> usize {
        self.paths.as_ref().map_or(0, |paths| paths.room(to))
    }

    pub(super) fn rto(&self, to: SocketAddr) -> Duration {
        self.paths.as_ref().map_or(Duration::ZERO, |paths| paths.rto(to))
    }

    pub(super) fn owes_ack(&self, to: SocketAddr) -> bool {
        self.paths.as_ref().is_some_and(|paths| paths.owes_ack(to))
    }

    pub(super) fn on_deadline(&mut self, now: Moment) {
        if let Some(paths) = &mut self.paths {
            paths.on_deadline(now);
        }
    }

    /// Tokens believed lost since the last time.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        self.paths.as_mut().map_or_else(Vec::new, Paths::lost)
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.paths.as_ref()?.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BootId, ClusterId, Op};

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn greeting(node: u16) -> Greeting {
        Greeting {
            server: NodeId(node),
            life: BootId([node as u8; 16]),
            cluster: ClusterId(7),
            cluster_key: [5; 32],
        }
    }

    /// Numbers of so many datagrams to this address.
    fn send(servers: &mut Servers, to: SocketAddr, times: usize) -> Vec<u64> {
        let mut out = Vec::new();
        for _ in 0..times {
            servers.send(Moment(1), to, View::ZERO, &[Packet::Keepalive], None, &mut out);
        }
        let bytes = out.into_iter().filter_map(|effect| match effect {
            Effect::Datagram { bytes, .. } => Some(bytes),
            Effect::Event(_) => None,
        });
        bytes.map(|bytes| Envelope::peek(&bytes).unwrap().number).collect()
    }

    #[test]
    fn lies_about_who_is_where_do_not_bring_a_number_back() {
        let (one, two, now) = (address(1), address(2), Moment(1));
        let identity = Identity { cluster: ClusterId(7), cluster_key: [5; 32], private: Key::new([1; 32]) };
        let mut servers = Servers::new(&[one, two], identity);
        servers.open_session(now, SessionId(Op(9)), Key::new([2; 32]));
        servers.greeted(now, one, &greeting(1));
        servers.greeted(now, two, &greeting(2));
        let before = send(&mut servers, one, 50).into_iter().max().unwrap();
        send(&mut servers, two, 3);
        // Forged: the first is somebody else, and the second is the first.
        servers.greeted(now, one, &greeting(9));
        servers.greeted(now, two, &greeting(1));
        let after = send(&mut servers, two, 1);
        assert!(after.iter().all(|number| *number > before), "{after:?} after {before} under the same key");
    }
    fn identity() -> Identity {
        Identity { cluster: ClusterId(7), cluster_key: [5; 32], private: Key::new([1; 32]) }
    }

    #[test]
    fn each_address_is_known_once_and_no_more_than_two_for_each_member_that_there_can_be() {
        let mut servers = Servers::new(&[address(1), address(1)], identity());
        for port in 1..=ADDRESSES_MAX as u16 + 1 {
            servers.learn(address(port));
            servers.learn(address(port));
        }
        let all: Vec<SocketAddr> = (1..=ADDRESSES_MAX as u16).map(address).collect();
        assert_eq!(servers.addresses(), all);
        assert_eq!(servers.room(address(1)), 0, "nothing can be said there without a session");
    }

    #[test]
    fn a_server_that_was_heard_keeps_its_address_whatever_others_say() {
        let mut servers = Servers::new(&[address(1)], identity());
        servers.learn_all(&[(NodeId(1), address(1)), (NodeId(2), address(2))]);
        servers.at_mut(address(1)).unwrap().heard = true;
        servers.learn_all(&[(NodeId(1), address(3)), (NodeId(2), address(4))]);
        assert_eq!(servers.addresses(), [1, 2, 4].map(address));
        assert_eq!(servers.address_of(NodeId(1)), Some(address(1)));
    }
}
