//! The network between the servers and to the clients: a relay for each ordered pair of servers, and one in
//! front of each client port, all in user space and on loopback. One thread carries every datagram, and
//! drops, repeats, delays and reorders them as it is configured.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use recado_proto::id::{Moment, NodeId};
use recado_sys::clock::MachineClock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cluster::{Cluster, Port};
use crate::rng::Rng;

/// A buffer longer than any datagram of the protocol.
const LONGEST: usize = 4_096;

/// The number of datagrams taken from one socket before the next one's turn.
const AT_ONCE: usize = 64;

/// The longest wait in `poll`, after which the thread sees that it should end.
const PATIENCE: Duration = Duration::from_millis(50);

/// The silence after which a socket towards a server is closed. Running clients and servers send more often.
const SILENCE: Duration = Duration::from_secs(120);

/// A one-way cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    /// From the first server to the second.
    Between(NodeId, NodeId),
    /// From clients to the server.
    ToServer(NodeId),
    /// From the server to clients.
    ToClients(NodeId),
}

/// The fault mix for datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultMix {
    /// Lost datagrams, per thousand.
    pub(crate) lost: u64,
    /// Repeated datagrams, per thousand.
    pub(crate) twice: u64,
    /// Delayed datagrams, per thousand. The delay is at most `delay_ms`, and later datagrams overtake them.
    pub(crate) delayed: u64,
    pub(crate) delay_ms: u64,
    pub(crate) cuts: BTreeSet<Cut>,
}

/// A relay: forwards datagrams at `front` to `server`.
#[derive(Debug)]
struct LinkRelay {
    /// The server that uses this relay to a peer port; `None` for a client port, which everybody uses.
    from: Option<NodeId>,
    port: Port,
    front: Arc<UdpSocket>,
    server: SocketAddr,
    /// The relay's socket towards the server for each sender, and the time of its last use.
    backs: BTreeMap<SocketAddr, (Arc<UdpSocket>, Moment)>,
}

/// The relays of a cluster. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    fault_mix: Arc<Mutex<FaultMix>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Puts relays in front of all ports of a cluster that has not started.
    pub(crate) fn between(cluster: &mut Cluster, rng: Rng) -> Network {
        let mut wires = Vec::new();
        for to in cluster.nodes() {
            let member = cluster.member(to);
            wires.push(LinkRelay::new(None, Port::Client(to), member.client));
            for from in cluster.nodes().into_iter().filter(|from| *from != to) {
                wires.push(LinkRelay::new(Some(from), Port::Peer(to), member.peer));
            }
        }
        cluster.redirect(|me, port| {
            let way = |wire: &&LinkRelay| wire.port == port && wire.from.is_none_or(|from| from == me);
            wires.iter().find(way).expect("a way to every other server, and to every client port").address()
        });
        let weather: Arc<Mutex<FaultMix>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let carrier = Carrier {
            clock: cluster.clock(),
            wires,
            weather: Arc::clone(&weather),
            stop: Arc::clone(&stop),
            rng,
            later: BinaryHeap::new(),
        };
        let thread = Builder::new().name("network".into()).spawn(move || carrier.run()).unwrap();
        Network { fault_mix: weather, stop, thread: Some(thread) }
    }

    /// Sets the fault mix.
    pub(crate) fn set(&self, weather: FaultMix) {
        *self.fault_mix.lock() = weather;
    }

    /// Ends all faults.
    pub(crate) fn clear_faults(&self) {
        self.set(FaultMix::default());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl LinkRelay {
    fn new(from: Option<NodeId>, port: Port, server: SocketAddr) -> LinkRelay {
        LinkRelay { from, port, front: Arc::new(bind()), server, backs: BTreeMap::new() }
    }

    fn address(&self) -> SocketAddr {
        self.front.local_addr().unwrap()
    }

    fn is_cut(&self, weather: &FaultMix, to_server: bool) -> bool {
        let cut = match (self.from, self.port, to_server) {
            (Some(from), Port::Peer(to), _) => Cut::Between(from, to),
            (_, port, true) => Cut::ToServer(port.node()),
            (_, port, false) => Cut::ToClients(port.node()),
        };
        weather.cuts.contains(&cut)
    }
}

/// A delayed datagram. The greatest in the order is due first.
#[derive(Debug)]
struct DelayedDatagram {
    due: Moment,
    by: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for DelayedDatagram {
    fn eq(&self, other: &DelayedDatagram) -> bool {
        self.due == other.due
    }
}

impl Eq for DelayedDatagram {}

impl PartialOrd for DelayedDatagram {
    fn partial_cmp(&self, other: &DelayedDatagram) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DelayedDatagram {
    fn cmp(&self, other: &DelayedDatagram) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

struct Carrier {
    clock: MachineClock,
    wires: Vec<LinkRelay>,
    weather: Arc<Mutex<FaultMix>>,
    stop: Arc<AtomicBool>,
    rng: Rng,
    later: BinaryHeap<DelayedDatagram>,
}

impl Carrier {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let ready = self.wait();
            let now = self.clock.now();
            while self.later.peek().is_some_and(|held| held.due <= now) {
                if let Some(held) = self.later.pop() {
                    // A datagram that the system refuses counts as lost.
                    let _ = held.by.send_to(&held.bytes, held.to);
                }
            }
            let weather = self.weather.lock().clone();
            for (wire, sender) in ready {
                match sender {
                    None => self.carry_to_server(wire, &weather, now),
                    Some(sender) => self.carry_back(wire, sender, &weather, now),
                }
            }
        }
    }

    /// Waits until a socket is readable, a delayed datagram is due, or [`PATIENCE`] is over. Returns the
    /// relays with datagrams to the server, and those with datagrams back to a sender.
    fn wait(&self) -> Vec<(usize, Option<SocketAddr>)> {
        let now = self.clock.now();
        let next = self.later.peek().map_or(PATIENCE, |held| held.due.since(now).min(PATIENCE));
        let sockets = self.wires.iter().enumerate().flat_map(|(number, wire)| {
            let front = std::iter::once((number, None, wire.front.as_ref()));
            front.chain(wire.backs.iter().map(move |(to, (back, _))| (number, Some(*to), back.as_ref())))
        });
        let sockets: Vec<_> = sockets.collect();
        let mut polled: Vec<PollFd<'_>> =
            sockets.iter().map(|(_, _, socket)| PollFd::new(*socket, PollFlags::IN)).collect();
        let limit = Timespec { tv_sec: 0, tv_nsec: next.subsec_nanos().into() };
        // An interrupted poll does no harm, because the sockets do not block.
        let _ = poll(&mut polled, Some(&limit));
        let ready = sockets.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        ready.map(|((wire, sender, _), _)| (*wire, *sender)).collect()
    }

    fn carry_to_server(&mut self, wire: usize, weather: &FaultMix, now: Moment) {
        let mut bytes = [0; LONGEST];
        for _ in 0..AT_ONCE {
            let Ok((length, sender)) = self.wires[wire].front.recv_from(&mut bytes) else { break };
            let LinkRelay { backs, server, .. } = &mut self.wires[wire];
            let (back, used) = backs.entry(sender).or_insert_with(|| (Arc::new(bind()), now));
            *used = now;
            let (back, server) = (Arc::clone(back), *server);
            if !self.wires[wire].is_cut(weather, true) {
                self.pass(weather, now, back, server, &bytes[..length]);
            }
        }
        self.wires[wire].backs.retain(|_, (_, used)| now.since(*used) < SILENCE);
    }

    fn carry_back(&mut self, wire: usize, sender: SocketAddr, weather: &FaultMix, now: Moment) {
        let mut bytes = [0; LONGEST];
        let LinkRelay { front, backs, .. } = &self.wires[wire];
        let Some((back, _)) = backs.get(&sender) else { return };
        let (front, back) = (Arc::clone(front), Arc::clone(back));
        for _ in 0..AT_ONCE {
            let Ok((length, _)) = back.recv_from(&mut bytes) else { break };
            if !self.wires[wire].is_cut(weather, false) {
                self.pass(weather, now, Arc::clone(&front), sender, &bytes[..length]);
            }
        }
    }

    fn pass(&mut self, weather: &FaultMix, now: Moment, by: Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        if self.rng.permille(weather.lost) {
            return;
        }
        let copies = if self.rng.permille(weather.twice) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.permille(weather.delayed) {
                let due = now + Duration::from_millis(self.rng.below(weather.delay_ms + 1));
                self.later.push(DelayedDatagram { due, by: Arc::clone(&by), to, bytes: bytes.to_vec() });
            } else {
                let _ = by.send_to(bytes, to);
            }
        }
    }
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}
