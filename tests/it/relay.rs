//! A relay: forwards datagrams to a server, and the answers back. A test sees every datagram, and can send as
//! either side.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

/// A buffer longer than any datagram of the protocol.
const LONGEST: usize = 4_096;

/// The read timeout of the threads, after which they see that they should end.
const PATIENCE: Duration = Duration::from_millis(50);

/// The direction of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// A datagram that passes the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassingDatagram<'a> {
    pub(crate) way: Direction,
    /// The peer of the server: a client or another server.
    pub(crate) client: SocketAddr,
    pub(crate) bytes: &'a [u8],
}

type Tap = dyn Fn(&PassingDatagram<'_>) + Send + Sync;

#[derive(Debug)]
pub(crate) struct Relay {
    server: SocketAddr,
    address: SocketAddr,
    wires: Arc<RelayState>,
    threads: Vec<JoinHandle<()>>,
}

struct RelayState {
    server: SocketAddr,
    front: UdpSocket,
    /// The relay's socket towards the server, for each client.
    clients: Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>,
    answering: Mutex<Vec<JoinHandle<()>>>,
    held: AtomicBool,
    stop: AtomicBool,
    tap: Box<Tap>,
}

impl std::fmt::Debug for RelayState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wires").field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts a relay to this server. `tap` sees every datagram before it is forwarded.
    pub(crate) fn to(
        server: SocketAddr,
        tap: impl Fn(&PassingDatagram<'_>) + Send + Sync + 'static,
    ) -> Relay {
        let front = bind();
        let address = front.local_addr().unwrap();
        let wires = Arc::new(RelayState {
            server,
            front,
            clients: Mutex::default(),
            answering: Mutex::default(),
            held: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            tap: Box::new(tap),
        });
        let asking = Arc::clone(&wires);
        let thread = Builder::new().name("relay".into()).spawn(move || asking.pass_to_server()).unwrap();
        Relay { server, address, wires, threads: vec![thread] }
    }

    /// The address to which clients send.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server.
    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Stops forwarding to the server, or resumes it. The tap still sees every datagram.
    pub(crate) fn hold(&self, held: bool) {
        self.wires.held.store(held, Ordering::SeqCst);
    }

    /// Sends to the server from the address by which it knows this client.
    pub(crate) fn send_as_client(&self, client: SocketAddr, bytes: &[u8]) {
        let socket = Arc::clone(&self.wires.clients.lock()[&client]);
        socket.send_to(bytes, self.server).unwrap();
    }

    /// Sends to a client from the address by which it knows the server.
    pub(crate) fn send_as_server(&self, client: SocketAddr, bytes: &[u8]) {
        self.wires.front.send_to(bytes, client).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.wires.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        // The first thread starts the others, and it has ended.
        let answering = std::mem::take(&mut *self.wires.answering.lock());
        answering.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl RelayState {
    fn pass_to_server(self: &Arc<RelayState>) {
        let mut bytes = [0; LONGEST];
        while !self.stop.load(Ordering::SeqCst) {
            let Ok((length, client)) = self.front.recv_from(&mut bytes) else { continue };
            let bytes = &bytes[..length];
            // The socket is made before the tap runs, so that a test that saw a client can send as it.
            let socket = self.socket_of(client);
            (self.tap)(&PassingDatagram { way: Direction::ToServer, client, bytes });
            if !self.held.load(Ordering::SeqCst) {
                // A datagram that the system refuses counts as lost.
                let _ = socket.send_to(bytes, self.server);
            }
        }
    }

    fn socket_of(self: &Arc<RelayState>, client: SocketAddr) -> Arc<UdpSocket> {
        let mut clients = self.clients.lock();
        let socket = clients.entry(client).or_insert_with(|| {
            let socket = Arc::new(bind());
            let (wires, answers) = (Arc::clone(self), Arc::clone(&socket));
            let thread = Builder::new().name("relay-back".into());
            let thread = thread.spawn(move || wires.pass_to_client(client, &answers)).unwrap();
            self.answering.lock().push(thread);
            socket
        });
        Arc::clone(socket)
    }

    fn pass_to_client(&self, client: SocketAddr, answers: &UdpSocket) {
        let mut bytes = [0; LONGEST];
        while !self.stop.load(Ordering::SeqCst) {
            let Ok((length, from)) = answers.recv_from(&mut bytes) else { continue };
            if from == self.server {
                let bytes = &bytes[..length];
                (self.tap)(&PassingDatagram { way: Direction::ToClient, client, bytes });
                let _ = self.front.send_to(bytes, client);
            }
        }
    }
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
