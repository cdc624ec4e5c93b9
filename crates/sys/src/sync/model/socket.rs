//! Sockets: net's, or ports of a network in memory. That network loses only datagrams that find no room;
//! loss, delay and reordering are the simulation's.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::net as real;
use crate::net::{Buffers, Inbox, NetError, NetOp, SendReport};

use super::{Scheduler, key_of, turn};

/// Maximum number of datagrams queued at a port.
const WAITING_MAX: usize = 64;
/// First number of the ports that are bound without a number.
const FREE: u16 = 50_000;

/// Datagrams queued at a port, with their source addresses.
type Waiting = Arc<Mutex<VecDeque<(SocketAddr, Vec<u8>)>>>;

/// The bound ports.
#[derive(Default)]
pub(super) struct Ports {
    bound: BTreeMap<SocketAddr, Waiting>,
    free: u16,
}

impl Scheduler {
    fn ports<R>(&self, act: impl FnOnce(&mut Ports) -> R) -> R {
        act(&mut self.ports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Delivers a datagram. Returns false if the port is closed.
    fn deliver(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let Some(waiting) = self.ports(|ports| ports.bound.get(&to).cloned()) else { return false };
        self.change(key_of(&waiting), || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() < WAITING_MAX {
                waiting.push_back((from, bytes.to_vec()));
            }
        });
        true
    }
}

/// A port of the network in memory.
pub struct Port {
    turn: Arc<Scheduler>,
    addr: SocketAddr,
    patience: Duration,
    waiting: Waiting,
}

impl Port {
    fn bind(turn: Arc<Scheduler>, mut addr: SocketAddr, patience: Duration) -> io::Result<Port> {
        let waiting = Waiting::default();
        turn.ports(|ports| {
            if addr.ip().is_unspecified() {
                addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            if addr.port() == 0 {
                addr.set_port(FREE + ports.free);
                ports.free += 1;
            }
            match ports.bound.contains_key(&addr) {
                true => Err(io::ErrorKind::AddrInUse.into()),
                false => Ok(ports.bound.insert(addr, waiting.clone())),
            }
        })
        .map(|_| Port { turn, addr, patience, waiting })
    }

    /// Takes what is queued, at most for `patience` until there is something.
    fn receive(&self, inbox: &mut Inbox, patience: Duration) {
        inbox.clear();
        // The inbox stays empty if nothing came within the time-out.
        let _ = self.turn.when(&[key_of(&self.waiting)], Some(patience), || {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            while !inbox.is_full()
                && let Some((from, bytes)) = waiting.pop_front()
            {
                inbox.put(from, &bytes);
            }
            (!inbox.is_empty()).then_some(())
        });
    }

    fn wait(&self, woken: &Arc<AtomicBool>, patience: Duration) -> bool {
        let ended = self.turn.when(&[key_of(&self.waiting), key_of(woken)], Some(patience), || {
            let has = !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            (woken.swap(false, Ordering::Relaxed) || has).then_some(has)
        });
        ended.unwrap_or(false)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.turn.ports(|ports| ports.bound.remove(&self.addr));
    }
}

/// A bound socket: the system's, or a port of the model.
pub enum BoundSocket {
    Real(real::BoundSocket),
    Model(Port),
}

impl BoundSocket {
    pub fn bind(addr: SocketAddr, patience: Duration) -> Result<BoundSocket, NetError> {
        match turn() {
            None => real::BoundSocket::bind(addr, patience).map(BoundSocket::Real),
            Some(turn) => Port::bind(turn, addr, patience)
                .map(BoundSocket::Model)
                .map_err(|source| NetError { op: NetOp::Bind, addr, source }),
        }
    }

    pub fn set_patience(&mut self, patience: Duration) {
        match self {
            BoundSocket::Real(socket) => socket.set_patience(patience),
            BoundSocket::Model(port) => port.patience = patience,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        match self {
            BoundSocket::Real(socket) => socket.addr(),
            BoundSocket::Model(port) => port.addr,
        }
    }

    pub fn buffers(&self) -> Buffers {
        match self {
            BoundSocket::Real(socket) => socket.buffers(),
            BoundSocket::Model(_) => Buffers { receive: WAITING_MAX, send: WAITING_MAX },
        }
    }

    pub fn receive(&self, inbox: &mut Inbox) -> Result<(), NetError> {
        match self {
            BoundSocket::Real(socket) => socket.receive(inbox),
            BoundSocket::Model(port) => {
                port.receive(inbox, port.patience);
                Ok(())
            }
        }
    }

    pub fn wait(&self, waker: &Waker, patience: Duration) -> Result<bool, NetError> {
        match (self, waker) {
            (BoundSocket::Real(socket), Waker::Real(waker)) => socket.wait(waker, patience),
            (BoundSocket::Model(port), Waker::Model(_, woken)) => Ok(port.wait(woken, patience)),
            _ => unreachable!("a socket and its waker are of one world"),
        }
    }

    pub fn take(&self, inbox: &mut Inbox) -> Result<(), NetError> {
        match self {
            BoundSocket::Real(socket) => socket.take(inbox),
            BoundSocket::Model(port) => {
                port.receive(inbox, Duration::ZERO);
                Ok(())
            }
        }
    }

    pub fn send(&self, datagrams: &[(SocketAddr, Vec<u8>)]) -> SendReport {
        match self {
            BoundSocket::Real(socket) => socket.send(datagrams),
            BoundSocket::Model(port) => {
                datagrams.iter().for_each(|(to, bytes)| {
                    port.turn.deliver(port.addr, *to, bytes);
                });
                SendReport { sent: datagrams.len(), ..SendReport::default() }
            }
        }
    }
}

impl std::fmt::Debug for BoundSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundSocket {{ {} }}", self.addr())
    }
}

/// A waker: the system's, or one of the model.
pub enum Waker {
    Real(real::Waker),
    Model(Arc<Scheduler>, Arc<AtomicBool>),
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        Ok(match turn() {
            None => Waker::Real(real::Waker::new()?),
            Some(turn) => Waker::Model(turn, Arc::default()),
        })
    }

    pub fn wake(&self) {
        match self {
            Waker::Real(waker) => waker.wake(),
            Waker::Model(turn, woken) => turn.change(key_of(woken), || woken.store(true, Ordering::Relaxed)),
        }
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker { .. }")
    }
}

/// A connected socket: the system's, or a path in the model.
pub enum PeerSocket {
    Real(real::PeerSocket),
    Model { turn: Arc<Scheduler>, from: SocketAddr, to: SocketAddr },
}

impl PeerSocket {
    pub fn connect(from: IpAddr, peer: SocketAddr) -> Result<PeerSocket, NetError> {
        Ok(match turn() {
            None => PeerSocket::Real(real::PeerSocket::connect(from, peer)?),
            Some(turn) => PeerSocket::Model { turn, from: SocketAddr::new(from, FREE - 1), to: peer },
        })
    }

    pub fn send(&self, datagrams: Vec<Vec<u8>>) -> SendReport {
        match self {
            PeerSocket::Real(socket) => socket.send(datagrams),
            PeerSocket::Model { turn, from, to } => {
                let mut refused = false;
                for bytes in &datagrams {
                    refused |= !turn.deliver(*from, *to, bytes);
                }
                SendReport { sent: datagrams.len(), refused, ..SendReport::default() }
            }
        }
    }
}
