//! The network: what becomes of a datagram between two hosts.
//!
//! Every directed link has the weather of the whole network, and may be cut or slow on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use recado::id::NodeId;

use crate::rng::Rng;

/// Virtual time, in microseconds since the world began.
pub type Micros = u64;

/// A machine: clients keep theirs when they change their port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    Server(NodeId),
    Client(u8),
}

/// Where clients reach a server.
pub fn client_port(node: NodeId) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node.0 as u8), 10_097))
}

/// Where its peers reach it.
pub fn peer_port(node: NodeId) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node.0 as u8), 11_097))
}

/// Where a client is, by how often it has moved.
pub fn client_address(client: u8, moves: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, client), 40_000 + moves))
}

/// Whose address it is.
pub fn host_of(address: SocketAddr) -> Option<Host> {
    let SocketAddr::V4(v4) = address else { return None };
    match v4.ip().octets() {
        [10, 0, 0, node] => Some(Host::Server(NodeId(u16::from(node)))),
        [10, 1, 0, client] => Some(Host::Client(client)),
        _ => None,
    }
}

/// The server that lives at an address, if any.
pub fn server_of(address: SocketAddr) -> Option<NodeId> {
    match host_of(address) {
        Some(Host::Server(node)) => Some(node),
        Some(Host::Client(_)) | None => None,
    }
}

/// What all links suffer alike.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Datagrams lost, of a thousand.
    pub loss: u64,
    /// Datagrams that come twice, of a thousand.
    pub duplication: u64,
    /// The usual time on the way.
    pub delay: (Micros, Micros),
    /// Datagrams that take much longer, of a thousand, and up to how long.
    pub spikes: (u64, Micros),
}

impl Weather {
    /// Nothing lost, nothing late.
    pub const CLEAR: Weather = Weather { loss: 0, duplication: 0, delay: (200, 800), spikes: (0, 0) };
}

/// The state of all links.
#[derive(Debug)]
pub struct Network {
    pub weather: Weather,
    cut: BTreeSet<(Host, Host)>,
    slow: BTreeMap<(Host, Host), Micros>,
}

impl Network {
    pub fn new(weather: Weather) -> Network {
        Network { weather, cut: BTreeSet::new(), slow: BTreeMap::new() }
    }

    /// Nothing passes from `from` to `to`; the other direction is left as it is.
    pub fn cut_one_way(&mut self, from: Host, to: Host) {
        self.cut.insert((from, to));
    }

    /// Nothing passes between the two.
    pub fn cut(&mut self, one: Host, other: Host) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Undoes [`Network::cut_one_way`].
    pub fn mend(&mut self, from: Host, to: Host) {
        self.cut.remove(&(from, to));
    }

    /// Everything from `from` to `to` takes so much longer.
    pub fn slow(&mut self, from: Host, to: Host, extra: Micros) {
        if extra == 0 {
            self.slow.remove(&(from, to));
        } else {
            self.slow.insert((from, to), extra);
        }
    }

    /// Everything as new, and the sun comes out.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
        self.weather = Weather::CLEAR;
    }

    /// How long each copy of a datagram is on its way: none, one or two of them.
    pub fn carry(&self, rng: &mut Rng, from: Host, to: Host) -> [Option<Micros>; 2] {
        if self.cut.contains(&(from, to)) || rng.permille(self.weather.loss) {
            return [None, None];
        }
        let extra = self.slow.get(&(from, to)).copied().unwrap_or(0);
        let first = extra + self.delay(rng);
        let second = rng.permille(self.weather.duplication).then(|| extra + 3 * self.delay(rng));
        [Some(first), second]
    }

    fn delay(&self, rng: &mut Rng) -> Micros {
        let (low, high) = self.weather.delay;
        let (spikes, longest) = self.weather.spikes;
        if rng.permille(spikes) { rng.range(high, longest.max(high)) } else { rng.range(low, high) }
    }
}
