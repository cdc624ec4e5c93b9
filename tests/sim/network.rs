//! The simulated network: decides the fate of each datagram between two hosts.
//!
//! All links share the network's fault mix, and each directed link may be cut or slow on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use recado_proto::id::NodeId;
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX};

use crate::rng::Rng;

/// Virtual time, in microseconds since the start of the run.
pub type Micros = u64;

/// A machine. A client that changes its address stays the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    Server(NodeId),
    Client(u8),
}

/// The address at which clients reach a server.
pub fn client_port(node: NodeId) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node.0 as u8), 10_097))
}

/// The address at which its peers reach a server.
pub fn peer_port(node: NodeId) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node.0 as u8), 11_097))
}

/// The address of a client after this number of moves.
pub fn client_address(client: u8, moves: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, client), 40_000 + moves))
}

/// The host of an address.
pub fn host_of(address: SocketAddr) -> Option<Host> {
    let SocketAddr::V4(v4) = address else { return None };
    match v4.ip().octets() {
        [10, 0, 0, node] => Some(Host::Server(NodeId(u16::from(node)))),
        [10, 1, 0, client] => Some(Host::Client(client)),
        _ => None,
    }
}

/// The server at an address, if there is one.
pub fn server_of(address: SocketAddr) -> Option<NodeId> {
    match host_of(address) {
        Some(Host::Server(node)) => Some(node),
        Some(Host::Client(_)) | None => None,
    }
}

/// The fault mix that applies to all links.
#[derive(Clone, Copy, Debug)]
pub struct FaultMix {
    /// Lost datagrams, per thousand.
    pub loss: u64,
    /// Duplicated datagrams, per thousand.
    pub duplication: u64,
    /// The range of the usual delay.
    pub delay: (Micros, Micros),
    /// Datagrams with a much longer delay, per thousand, and the maximum of that delay.
    pub spikes: (u64, Micros),
}

impl FaultMix {
    /// No loss, no duplication, no long delay.
    pub const CLEAR: FaultMix = FaultMix { loss: 0, duplication: 0, delay: (200, 800), spikes: (0, 0) };
}

/// The longest datagrams that paths carry. The paths of each client, and those of each two servers, have one
/// of them for some time, and then another.
const CARRIED: [usize; 6] = [DATAGRAM_BASE, 1_372, 1_400, 1_452, 4_452, DATAGRAM_MAX];
/// The time for which a path carries the same.
const CARRIED_FOR: Micros = 7_000_000;

/// The state of all links.
#[derive(Debug)]
pub struct Network {
    pub fault_mix: FaultMix,
    /// The time at which paths ceased to change; none: they change.
    settled: Option<Micros>,
    cut: BTreeSet<(Host, Host)>,
    slow: BTreeMap<(Host, Host), Micros>,
}

impl Network {
    pub fn new(weather: FaultMix) -> Network {
        let settled = (weather.loss == 0).then_some(0);
        Network { fault_mix: weather, settled, cut: BTreeSet::new(), slow: BTreeMap::new() }
    }

    /// Cuts the link from `from` to `to`; the other direction is not changed.
    pub fn cut_one_way(&mut self, from: Host, to: Host) {
        self.cut.insert((from, to));
    }

    /// Cuts the links between the two, in both directions.
    pub fn cut(&mut self, one: Host, other: Host) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub fn mend(&mut self, from: Host, to: Host) {
        self.cut.remove(&(from, to));
    }

    /// Adds `extra` to the delay of every datagram from `from` to `to`.
    pub fn slow(&mut self, from: Host, to: Host, extra: Micros) {
        if extra == 0 {
            self.slow.remove(&(from, to));
        } else {
            self.slow.insert((from, to), extra);
        }
    }

    /// Restores all links, and ends loss, duplication, long delays and changes of paths.
    pub fn heal(&mut self, now: Micros) {
        self.settled.get_or_insert(now);
        self.cut.clear();
        self.slow.clear();
        self.fault_mix = FaultMix::CLEAR;
    }

    /// Returns the length of the longest datagram that arrives between two hosts at some time.
    pub fn carries(&self, now: Micros, one: Host, other: Host) -> usize {
        let path = match (one, other) {
            (Host::Client(client), _) | (_, Host::Client(client)) => u64::from(client),
            // Beyond those of clients.
            (Host::Server(one), Host::Server(other)) => {
                u64::from(one.0.min(other.0)) << 8 | u64::from(one.0.max(other.0)) << 16
            }
        };
        let turn = self.settled.unwrap_or(now).min(now) / CARRIED_FOR + 5 * path;
        CARRIED[(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % CARRIED.len()]
    }

    /// Returns the delay of each copy of a datagram that arrives: none, one or two.
    pub fn carry(&self, rng: &mut Rng, from: Host, to: Host) -> [Option<Micros>; 2] {
        if self.cut.contains(&(from, to)) || rng.permille(self.fault_mix.loss) {
            return [None, None];
        }
        let extra = self.slow.get(&(from, to)).copied().unwrap_or(0);
        let first = extra + self.delay(rng);
        let second = rng.permille(self.fault_mix.duplication).then(|| extra + 3 * self.delay(rng));
        [Some(first), second]
    }

    fn delay(&self, rng: &mut Rng) -> Micros {
        let (low, high) = self.fault_mix.delay;
        let (spikes, longest) = self.fault_mix.spikes;
        if rng.permille(spikes) { rng.range(high, longest.max(high)) } else { rng.range(low, high) }
    }
}
