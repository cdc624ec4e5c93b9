//! The handshakes of one client with the servers of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use recado_proto::entropy::Entropy;
use recado_proto::id::Moment;
use recado_proto::packet::ToServer;

use super::handshake::{FromServer, HandshakeClient, Identity};

/// The handshakes of one identity with several servers of one cluster.
#[derive(Debug)]
pub struct HandshakeClients {
    identity: Identity,
    entropy: Entropy,
    clients: BTreeMap<SocketAddr, HandshakeClient>,
}

impl HandshakeClients {
    /// Begins the handshakes with these servers.
    pub fn new(servers: &[SocketAddr], identity: Identity, entropy: Entropy) -> HandshakeClients {
        let initiators = servers.iter().map(|server| (*server, HandshakeClient::default())).collect();
        HandshakeClients { identity, entropy, clients: initiators }
    }

    /// Goes on with handshakes that have begun, and begins those with the other `servers`.
    pub fn resuming(
        begun: BTreeMap<SocketAddr, HandshakeClient>,
        servers: &[SocketAddr],
        identity: Identity,
        entropy: Entropy,
    ) -> HandshakeClients {
        let mut clients = HandshakeClients { identity, entropy, clients: begun };
        for server in servers {
            clients.add(*server);
        }
        clients
    }

    /// Returns true if the server has answered a HELLO.
    pub fn has_begun(&self, server: SocketAddr) -> bool {
        self.clients.get(&server).is_some_and(|client| client.greeting().is_some())
    }

    /// The servers' addresses.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.clients.keys().copied().collect()
    }

    /// A server that said to speak another version of the protocol, and the version; see
    /// [`HandshakeClient::other_version`].
    pub(crate) fn other_version(&self) -> Option<(SocketAddr, u8)> {
        other_version(&self.clients)
    }

    /// Adds a server. Returns false if it is there already.
    pub fn add(&mut self, server: SocketAddr) -> bool {
        let new = !self.clients.contains_key(&server);
        self.clients.entry(server).or_default();
        new
    }

    /// The datagram that brings `packet` to a server: an INITIATION with it, or a HELLO if no cookie is held.
    pub fn datagram_to(&mut self, now: Moment, to: SocketAddr, packet: &ToServer) -> (SocketAddr, Vec<u8>) {
        let HandshakeClients { identity, entropy, clients: initiators } = self;
        let initiator = initiators.entry(to).or_default();
        let initiation = initiator.initiation(now, identity, packet, entropy);
        (to, initiation.unwrap_or_else(|| initiator.hello(identity.cluster, entropy)))
    }

    /// Takes what a server of the cluster sent; none if the sender is not one of the servers. A RETRY that
    /// names another cluster is dropped: if it caused another query at once, the two sides would exchange
    /// HELLO and RETRY at the network's speed.
    pub fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> Option<FromServer> {
        let received = self.clients.get_mut(&from)?.take(now, datagram)?;
        match &received {
            FromServer::Greeting(greeting) if !self.identity.trusts(greeting) => None,
            _ => Some(received),
        }
    }
}

/// The first of these servers that said to speak another version of the protocol, and the version.
pub(crate) fn other_version(clients: &BTreeMap<SocketAddr, HandshakeClient>) -> Option<(SocketAddr, u8)> {
    clients.iter().find_map(|(server, client)| Some((*server, client.other_version()?)))
}
