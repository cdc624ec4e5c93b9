//! Servers as a client knows them: their addresses, the handshake with each, and the session's paths to
//! them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::DATAGRAM_BASE;
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope, Opened, PACKETS_MAX};
use recado_proto::id::{MEMBERS_MAX, Moment, NodeId, SessionId, View};
use recado_proto::packet::{ToClient, ToServer};
use recado_proto::seal::SessionSecret;

use super::Effect;
use super::handshake::{FromServer, Greeting, HandshakeClient, Identity};
use super::paths::Paths;

/// Most addresses known: each server may have a second one.
const ADDRESSES_MAX: usize = 2 * MEMBERS_MAX;

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Known from its datagrams, or from other servers.
    node: Option<NodeId>,
    initiator: HandshakeClient,
    /// True if a datagram from it has ever opened ...
    heard: bool,
    /// ... and true if one has since the last [`Servers::check_boot`].
    answered: bool,
    /// True if it had not answered at the last [`Servers::check_boot`], and has not since.
    silent: bool,
}

/// Input from a server.
#[derive(Debug)]
pub(super) enum Received {
    /// A RETRY; an initiation can be sent.
    Greeting {
        /// The claimed identity, which is not proved.
        greeting: Greeting,
        /// True if a packet is to be sent to it on the session: see [`Servers::probe`].
        on_trial: bool,
    },
    /// Packets, on the session or in answer to an initiation.
    Opened(Opened<ToClient>),
    /// The server is said to speak this version of the protocol, which is not authenticated.
    OtherVersion(u8),
}

/// All known servers.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    identity: Identity,
    /// The paths of the session, once it is open.
    paths: Option<Paths>,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], identity: Identity) -> Servers {
        let mut servers = Servers { servers: Vec::new(), identity, paths: None };
        addresses.iter().for_each(|address| servers.learn(*address));
        servers
    }

    /// Goes on with handshakes that have begun with these servers.
    pub(super) fn go_on(&mut self, handshakes: BTreeMap<SocketAddr, HandshakeClient>) {
        for (address, initiator) in handshakes {
            if let Some(server) = self.at_mut(address) {
                server.initiator = initiator;
            }
        }
    }

    /// Adds an address, if there is room.
    pub(super) fn learn(&mut self, address: SocketAddr) {
        if self.servers.len() < ADDRESSES_MAX && self.at(address).is_none() {
            self.servers.push(Server {
                address,
                node: None,
                initiator: HandshakeClient::default(),
                heard: false,
                answered: false,
                silent: false,
            });
        }
    }

    /// Takes the addresses that a server gave for all servers. A server that has been heard keeps the address
    /// it was heard from: another server's claim does not move it.
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

    /// Starts a session. Every path begins anew, with a trial for each server that has sent a RETRY.
    pub(super) fn open_session(&mut self, now: Moment, session: SessionId, secret: SessionSecret) {
        self.paths = Some(Paths::new(self.identity.cluster, session, secret));
        let greeted = |server: &Server| Some((server.address, server.initiator.greeting()?));
        for (at, greeting) in self.servers.iter().filter_map(greeted).collect::<Vec<_>>() {
            self.greeted(now, at, &greeting);
        }
    }

    /// Returns true if the server that sent this RETRY is on trial at this address.
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
        // Among several addresses of one server at most one is proved; it comes first.
        let proved = |at| self.paths.as_ref().is_some_and(|paths| paths.prove(node, at));
        let known = self.servers.iter().filter(|server| server.node == Some(node));
        known.min_by_key(|server| !proved(server.address)).map(|server| server.address)
    }

    /// The first server that has sent a RETRY.
    pub(super) fn first_greeted(&self) -> Option<SocketAddr> {
        self.servers.iter().find(|server| server.initiator.greeting().is_some()).map(|server| server.address)
    }

    /// Returns true if a datagram from this address has ever opened.
    pub(super) fn has_heard(&self, address: SocketAddr) -> bool {
        self.at(address).is_some_and(|server| server.heard)
    }

    /// Returns true if a datagram from any server has ever opened.
    pub(super) fn has_heard_any(&self) -> bool {
        self.servers.iter().any(|server| server.heard)
    }

    fn at(&self, address: SocketAddr) -> Option<&Server> {
        self.servers.iter().find(|server| server.address == address)
    }

    fn at_mut(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.address == address)
    }

    /// Takes a datagram; none if it is not from a known server, does not open, or is a replay.
    pub(super) fn receive(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> Option<Received> {
        let server = self.servers.iter_mut().find(|server| server.address == from)?;
        // A VERSION has no outer header.
        if let Some(version) = server.initiator.version(datagram) {
            return Some(Received::OtherVersion(version));
        }
        let envelope = Envelope::peek(datagram).ok()?;
        let opened = match envelope.class {
            Class::Handshake => match server.initiator.take(now, datagram)? {
                FromServer::Greeting(greeting) => {
                    if !self.identity.trusts(&greeting) {
                        return None;
                    }
                    let on_trial = self.greeted(now, from, &greeting);
                    return Some(Received::Greeting { greeting, on_trial });
                }
                FromServer::Answer(opened) => opened,
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

    /// The packet itself, or the one that a fragment completes.
    pub(super) fn whole(&mut self, now: Moment, from: SocketAddr, packet: ToClient) -> Option<ToClient> {
        match &mut self.paths {
            Some(paths) => paths.whole(now, from, packet),
            None => Some(packet),
        }
    }

    /// The number of the next datagram of the session, whatever server it goes to.
    pub(super) fn next_number(&self) -> u64 {
        self.paths.as_ref().map_or(0, Paths::next_number)
    }

    /// Sends packets on the session. Sends nothing to a server whose boot id is not known.
    pub(super) fn send(
        &mut self,
        now: Moment,
        to: SocketAddr,
        view: View,
        packets: &[ToServer],
        token: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        self.send_before(now, to, view, packets, token, false, out);
    }

    /// As [`Servers::send`]; `more` says that more is to follow at once.
    #[expect(clippy::too_many_arguments, reason = "what is said, where and how")]
    pub(super) fn send_before(
        &mut self,
        now: Moment,
        to: SocketAddr,
        view: View,
        packets: &[ToServer],
        token: Option<u64>,
        more: bool,
        out: &mut Vec<Effect>,
    ) {
        if let Some(paths) = &mut self.paths {
            paths.send(now, to, view, packets, token, more, out);
        }
    }

    /// Sends packets on the session to the boot id that `greeting` names, whichever path is proved at the
    /// address.
    pub(super) fn probe(
        &mut self,
        now: Moment,
        to: SocketAddr,
        greeting: &Greeting,
        view: View,
        packets: &[ToServer],
        out: &mut Vec<Effect>,
    ) {
        if let Some(paths) = &mut self.paths {
            paths.probe(now, to, greeting, view, packets, out);
        }
    }

    /// Sends a packet outside of the session. If the server needs a HELLO first, its RETRY
    /// ([`Received::Greeting`]) comes soon; then the packet can be sent again.
    pub(super) fn initiation(
        &mut self,
        now: Moment,
        to: SocketAddr,
        packet: &ToServer,
        entropy: &mut Entropy,
        out: &mut Vec<Effect>,
    ) {
        let identity = self.identity.clone();
        let Some(server) = self.at_mut(to) else { return };
        let initiation = server.initiator.initiation(now, &identity, packet, entropy);
        let bytes = initiation.unwrap_or_else(|| server.initiator.hello(identity.cluster, entropy));
        out.push(Effect::Datagram { to, bytes });
    }

    /// Sends HELLO to a server that has not answered since the last call, or to which there is no path. The
    /// server may have restarted, and nothing can be sealed for it before its boot id is known.
    pub(super) fn check_boot(&mut self, to: SocketAddr, entropy: &mut Entropy, out: &mut Vec<Effect>) {
        let has_path = self.has_path(to);
        let Some(server) = self.at_mut(to) else { return };
        server.silent = !std::mem::take(&mut server.answered);
        if server.silent || !has_path {
            self.hello(to, entropy, out);
        }
    }

    /// Sends HELLO, whatever is known of the server.
    pub(super) fn hello(&mut self, to: SocketAddr, entropy: &mut Entropy, out: &mut Vec<Effect>) {
        let cluster = self.identity.cluster;
        if let Some(server) = self.at_mut(to) {
            out.push(Effect::Datagram { to, bytes: server.initiator.hello(cluster, entropy) });
        }
    }

    /// Returns true if a packet can be sent to this address on the session.
    pub(super) fn has_path(&self, to: SocketAddr) -> bool {
        self.paths.as_ref().is_some_and(|paths| paths.lead_to(to))
    }

    /// Bytes that the link accepts at present.
    pub(super) fn room(&self, to: SocketAddr) -> usize {
        self.paths.as_ref().map_or(0, |paths| paths.room(to))
    }

    pub(super) fn datagram_max(&self, to: SocketAddr) -> usize {
        self.paths.as_ref().map_or(DATAGRAM_BASE, |paths| paths.datagram_max(to))
    }

    pub(super) fn packets_max(&self, to: SocketAddr) -> usize {
        self.paths.as_ref().map_or(PACKETS_MAX, |paths| paths.packets_max(to))
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

    /// Tokens declared lost since the last call.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        self.paths.as_mut().map_or_else(Vec::new, Paths::lost)
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.paths.as_ref()?.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::{BootId, ClusterId, Op};

    use recado_proto::seal::Key;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn greeting(node: u16) -> Greeting {
        Greeting {
            server: NodeId(node),
            boot_id: BootId([node as u8; 16]),
            cluster: ClusterId(7),
            cluster_key: [5; 32],
        }
    }

    /// Sends `times` datagrams to this address and returns their numbers.
    fn send(servers: &mut Servers, to: SocketAddr, times: usize) -> Vec<u64> {
        let mut out = Vec::new();
        for _ in 0..times {
            servers.send(Moment(1), to, View::ZERO, &[ToServer::keepalive()], None, &mut out);
        }
        let bytes = out.into_iter().filter_map(|effect| match effect {
            Effect::Datagram { bytes, .. } => Some(bytes),
            Effect::Event(_) => None,
        });
        bytes.map(|bytes| Envelope::peek(&bytes).unwrap().number).collect()
    }

    #[test]
    fn forged_retries_do_not_bring_a_packet_number_back() {
        let (one, two, now) = (address(1), address(2), Moment(1));
        let identity = Identity { cluster: ClusterId(7), cluster_key: [5; 32], private: Key::new([1; 32]) };
        let mut servers = Servers::new(&[one, two], identity);
        let secret = SessionSecret::new(Key::new([2; 32]), Default::default(), Default::default());
        servers.open_session(now, SessionId(Op(9)), secret);
        servers.greeted(now, one, &greeting(1));
        servers.greeted(now, two, &greeting(2));
        let before = send(&mut servers, one, 50).into_iter().max().unwrap();
        send(&mut servers, two, 3);
        // Two forged RETRYs: the first address claims to be another server, and the second claims to be the
        // first server.
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
    fn a_server_that_has_answered_keeps_its_address_whatever_other_servers_list() {
        let mut servers = Servers::new(&[address(1)], identity());
        servers.learn_all(&[(NodeId(1), address(1)), (NodeId(2), address(2))]);
        servers.at_mut(address(1)).unwrap().heard = true;
        servers.learn_all(&[(NodeId(1), address(3)), (NodeId(2), address(4))]);
        assert_eq!(servers.addresses(), [1, 2, 4].map(address));
        assert_eq!(servers.address_of(NodeId(1)), Some(address(1)));
    }
}
