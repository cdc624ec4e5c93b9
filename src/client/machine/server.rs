//! The servers as a client knows them: addresses, and for each its door and one link.

use std::net::SocketAddr;
use std::time::Duration;

use super::Effect;
use super::door::{Door, FromDoor, Greeting, Identity};
use crate::entropy::Entropy;
use crate::id::{BootId, Incarnation, MEMBERS_MAX, Moment, NodeId, SessionId, View};
use crate::wire::envelope::{self, Class, Envelope, Opened};
use crate::wire::fragment::Reassembler;
use crate::wire::link::{Link, LinkEvent};
use crate::wire::packet::Packet;
use crate::wire::seal::{Direction, Key};

/// Most addresses known: each server may have another beside its own.
const ADDRESSES_MAX: usize = 2 * MEMBERS_MAX;

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Known from its datagrams, or from what other servers say.
    node: Option<NodeId>,
    door: Door,
    /// What it seals with for this session, and the link to it, once its life is known.
    path: Option<Path>,
    reassembler: Reassembler,
    /// Whether a datagram that opened came from it, ever ...
    heard: bool,
    /// ... and since it was last asked whether it lives.
    answered: bool,
    /// Whether it was asked and did not answer, lately.
    silent: bool,
}

/// The session with one life of a server.
#[derive(Debug)]
struct Path {
    node: NodeId,
    life: BootId,
    receive: Key,
    link: Link,
}

/// What came from a server.
#[derive(Debug)]
pub(super) enum Received {
    /// It can be knocked at.
    Greeting {
        /// Also spoken to on the session, which it could not before; or there is no session.
        news: bool,
    },
    /// Packets: on the session, or in answer to a knock.
    Opened(Opened),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    identity: Identity,
    /// Of the session, once it is let in: its id and its secret.
    pub(super) session: Option<(SessionId, Key)>,
    /// No link of the session begins below this number.
    next_number: u64,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], identity: Identity) -> Servers {
        let mut servers = Servers { servers: Vec::new(), identity, session: None, next_number: 1 };
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
                path: None,
                reassembler: Reassembler::default(),
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

    /// From now on datagrams are of this session: every link begins anew.
    pub(super) fn open_session(&mut self, session: SessionId, secret: Key) {
        self.session = Some((session, secret));
        self.next_number = 1;
        for server in &mut self.servers {
            server.path = None;
            server.reassembler = Reassembler::default();
        }
        let greeted = |server: &Server| Some((server.address, server.door.greeting()?));
        for (at, greeting) in self.servers.iter().filter_map(greeted).collect::<Vec<_>>() {
            self.begin(at, &greeting);
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    pub(super) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        // Of two addresses of one server only one has a path.
        let known = self.servers.iter().filter(|server| server.node == Some(node));
        known.min_by_key(|server| server.path.is_none()).map(|server| server.address)
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
                    let news = self.begin(from, &greeting) || self.session.is_none();
                    return Some(Received::Greeting { news });
                }
                FromDoor::Answer(opened) => opened,
            },
            Class::Client => {
                let session = self.session.as_ref().map(|(session, _)| *session);
                let path = server.path.as_mut().filter(|_| session == Some(envelope.session))?;
                let opened = envelope::open(&path.receive, datagram).ok()?;
                path.link.receive(now, envelope.number, opened.header.ack).then_some(opened)?
            }
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
        match packet {
            // A piece that fits nothing is as good as lost.
            Packet::Fragment(piece) => self.at_mut(from)?.reassembler.accept(now, piece).ok().flatten(),
            whole => Some(whole),
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
        let Some(path) = self.at_mut(to).and_then(|server| server.path.as_mut()) else { return };
        let mut datagrams = Vec::new();
        path.link.transmit(now, view, packets, token, &mut datagrams);
        out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
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
        let Some(server) = self.at_mut(to) else { return };
        server.silent = !std::mem::take(&mut server.answered);
        if server.silent || server.path.is_none() {
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
        self.at(to).is_some_and(|server| server.path.is_some())
    }

    /// Bytes the link takes now.
    pub(super) fn room(&self, to: SocketAddr) -> usize {
        self.at(to).and_then(|server| server.path.as_ref()).map_or(0, |path| path.link.room())
    }

    pub(super) fn rto(&self, to: SocketAddr) -> Duration {
        let path = self.at(to).and_then(|server| server.path.as_ref());
        path.map_or(Duration::ZERO, |path| path.link.rto())
    }

    pub(super) fn owes_ack(&self, to: SocketAddr) -> bool {
        self.at(to).and_then(|server| server.path.as_ref()).is_some_and(|path| path.link.owes_ack())
    }

    pub(super) fn on_deadline(&mut self, now: Moment) {
        for path in self.servers.iter_mut().filter_map(|server| server.path.as_mut()) {
            if path.link.next_deadline().is_some_and(|at| at <= now) {
                path.link.on_deadline(now);
            }
        }
    }

    /// Tokens believed lost since the last time.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        let mut lost = Vec::new();
        for path in self.servers.iter_mut().filter_map(|server| server.path.as_mut()) {
            while let Some(event) = path.link.poll_event() {
                if let LinkEvent::Lost(token) = event {
                    lost.push(token);
                }
            }
        }
        lost
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let paths = self.servers.iter().filter_map(|server| server.path.as_ref());
        paths.filter_map(|path| path.link.next_deadline()).min()
    }

    /// A server's life is known: with a session there is a link to it from now on; true if that is new. A
    /// forged greeting costs its link until the next true one: an answer that opens is what counts, and
    /// while there is none HELLO is said again.
    ///
    /// There is one link to a server, or two addresses of it would use the same numbers under the same
    /// keys: it goes over to another address only when the one that has it is silent.
    fn begin(&mut self, at: SocketAddr, greeting: &Greeting) -> bool {
        let Some((session, secret)) = self.session.clone().filter(|_| self.identity.trusts(greeting)) else {
            return false;
        };
        let is_of = |server: &Server| server.path.as_ref().is_some_and(|path| path.node == greeting.server);
        if let Some(holder) = self.servers.iter().find(|server| is_of(server)) {
            let same = holder.path.as_ref().is_some_and(|path| path.life == greeting.life);
            let stays = if holder.address == at { same } else { !holder.silent };
            if stays {
                return false;
            }
        }
        // Above every number of the session so far: what a greeting says is not proved, and two lies must
        // not bring a key back under a lower number.
        let used = self.servers.iter().filter_map(|server| server.path.as_ref());
        let used = used.map(|path| path.link.next_number()).max();
        self.next_number = self.next_number.max(used.unwrap_or(1));
        for holder in self.servers.iter_mut().filter(|server| is_of(server)) {
            holder.path = None;
        }
        let envelope = Envelope {
            class: Class::Client,
            cluster: self.identity.cluster,
            session,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let first = self.next_number;
        let Some(server) = self.at_mut(at) else { return false };
        let send = secret.of_session(Direction::ToServer, greeting.server, greeting.life);
        server.path = Some(Path {
            node: greeting.server,
            life: greeting.life,
            receive: secret.of_session(Direction::ToClient, greeting.server, greeting.life),
            link: Link::starting_at(envelope, send, first),
        });
        server.reassembler = Reassembler::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, Op};

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
    fn lies_about_who_is_where_do_not_bring_a_key_back_under_a_lower_number() {
        let (one, two) = (address(1), address(2));
        let identity = Identity { cluster: ClusterId(7), cluster_key: [5; 32], private: Key::new([1; 32]) };
        let mut servers = Servers::new(&[one, two], identity);
        servers.open_session(SessionId(Op(9)), Key::new([2; 32]));
        servers.begin(one, &greeting(1));
        servers.begin(two, &greeting(2));
        let before = send(&mut servers, one, 50).into_iter().max().unwrap();
        send(&mut servers, two, 3);
        // Forged: the first is somebody else, and the second is the first.
        servers.begin(one, &greeting(9));
        servers.begin(two, &greeting(1));
        let after = send(&mut servers, two, 1);
        assert!(after[0] > before, "{after:?} after {before} under the same key");
    }
}
