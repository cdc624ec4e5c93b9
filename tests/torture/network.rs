//! Everything that travels: a wire of its own from each server to each other, and one before each client
//! port, all in user space and on loopback. One thread carries it all, and loses, repeats, delays and
//! reorders what it is told to.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use recado::id::{Moment, NodeId};
use recado::server::MachineClock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cluster::{Cluster, Port};
use crate::rng::Rng;

/// Longer than any datagram of the protocol.
const LONGEST: usize = 4_096;

/// So many datagrams of one socket before the next one's turn.
const AT_ONCE: usize = 64;

/// The thread sees after this at the latest that it should end.
const PATIENCE: Duration = Duration::from_millis(50);

/// A socket towards a server is given up if its other end was silent for so long: clients and servers that
/// live say more.
const SILENCE: Duration = Duration::from_secs(120);

/// A one-way cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    /// What the first server says to the second.
    Between(NodeId, NodeId),
    /// What clients say to the server.
    ToServer(NodeId),
    /// What the server says to clients.
    ToClients(NodeId),
}

/// What happens to datagrams on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// So many of a thousand are lost.
    pub(crate) lost: u64,
    /// So many of a thousand go twice.
    pub(crate) twice: u64,
    /// So many of a thousand are held back, for up to `delay_ms`; later ones overtake them.
    pub(crate) delayed: u64,
    pub(crate) delay_ms: u64,
    pub(crate) cuts: BTreeSet<Cut>,
}

/// A way: datagrams to `front` go on to `server`.
#[derive(Debug)]
struct Wire {
    /// Whose way to a peer port it is; a client port's is everybody's.
    from: Option<NodeId>,
    port: Port,
    front: Arc<UdpSocket>,
    server: SocketAddr,
    /// For each sender the socket that the server knows it by, and when it was last used.
    backs: BTreeMap<SocketAddr, (Arc<UdpSocket>, Moment)>,
}

/// The wires of a cluster, until it is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    weather: Arc<Mutex<Weather>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Puts wires before all ports of a cluster that has not started.
    pub(crate) fn between(cluster: &mut Cluster, rng: Rng) -> Network {
        let mut wires = Vec::new();
        for to in cluster.nodes() {
            let member = cluster.member(to);
            wires.push(Wire::new(None, Port::Client(to), member.client));
            for from in cluster.nodes().into_iter().filter(|from| *from != to) {
                wires.push(Wire::new(Some(from), Port::Peer(to), member.peer));
            }
        }
        cluster.redirect(|me, port| {
            let way = |wire: &&Wire| wire.port == port && wire.from.is_none_or(|from| from == me);
            wires.iter().find(way).expect("a way to every other server, and to every client port").address()
        });
        let weather: Arc<Mutex<Weather>> = Arc::default();
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
        Network { weather, stop, thread: Some(thread) }
    }

    /// From now on.
    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    /// Nothing is done to datagrams any more.
    pub(crate) fn calm(&self) {
        self.set(Weather::default());
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

impl Wire {
    fn new(from: Option<NodeId>, port: Port, server: SocketAddr) -> Wire {
        Wire { from, port, front: Arc::new(bind()), server, backs: BTreeMap::new() }
    }

    fn address(&self) -> SocketAddr {
        self.front.local_addr().unwrap()
    }

    fn is_cut(&self, weather: &Weather, to_server: bool) -> bool {
        let cut = match (self.from, self.port, to_server) {
            (Some(from), Port::Peer(to), _) => Cut::Between(from, to),
            (_, port, true) => Cut::ToServer(port.node()),
            (_, port, false) => Cut::ToClients(port.node()),
        };
        weather.cuts.contains(&cut)
    }
}

/// A datagram that is held back; the greatest is due first.
#[derive(Debug)]
struct Held {
    due: Moment,
    by: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.due == other.due
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

struct Carrier {
    clock: MachineClock,
    wires: Vec<Wire>,
    weather: Arc<Mutex<Weather>>,
    stop: Arc<AtomicBool>,
    rng: Rng,
    later: BinaryHeap<Held>,
}

impl Carrier {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let ready = self.wait();
            let now = self.clock.now();
            while self.later.peek().is_some_and(|held| held.due <= now) {
                if let Some(held) = self.later.pop() {
                    // What the system does not take is lost on the way.
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

    /// Until a socket has something, or something held back is due, or the patience is over: which wires
    /// have something for the server, and which for whom.
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
        // Interrupted or not: the sockets do not block.
        let _ = poll(&mut polled, Some(&limit));
        let ready = sockets.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        ready.map(|((wire, sender, _), _)| (*wire, *sender)).collect()
    }

    fn carry_to_server(&mut self, wire: usize, weather: &Weather, now: Moment) {
        let mut bytes = [0; LONGEST];
        for _ in 0..AT_ONCE {
            let Ok((length, sender)) = self.wires[wire].front.recv_from(&mut bytes) else { break };
            let Wire { backs, server, .. } = &mut self.wires[wire];
            let (back, used) = backs.entry(sender).or_insert_with(|| (Arc::new(bind()), now));
            *used = now;
            let (back, server) = (Arc::clone(back), *server);
            if !self.wires[wire].is_cut(weather, true) {
                self.pass(weather, now, back, server, &bytes[..length]);
            }
        }
        self.wires[wire].backs.retain(|_, (_, used)| now.since(*used) < SILENCE);
    }

    fn carry_back(&mut self, wire: usize, sender: SocketAddr, weather: &Weather, now: Moment) {
        let mut bytes = [0; LONGEST];
        let Wire { front, backs, .. } = &self.wires[wire];
        let Some((back, _)) = backs.get(&sender) else { return };
        let (front, back) = (Arc::clone(front), Arc::clone(back));
        for _ in 0..AT_ONCE {
            let Ok((length, _)) = back.recv_from(&mut bytes) else { break };
            if !self.wires[wire].is_cut(weather, false) {
                self.pass(weather, now, Arc::clone(&front), sender, &bytes[..length]);
            }
        }
    }

    fn pass(&mut self, weather: &Weather, now: Moment, by: Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        if self.rng.permille(weather.lost) {
            return;
        }
        let copies = if self.rng.permille(weather.twice) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.permille(weather.delayed) {
                let due = now + Duration::from_millis(self.rng.below(weather.delay_ms + 1));
                self.later.push(Held { due, by: Arc::clone(&by), to, bytes: bytes.to_vec() });
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
