//! Asking servers without a session: an [`Asker`] says what is asked and what the answers mean, [`run`]
//! says it again until it is over, and [`Doors`] are what the questions go through.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::ClientError;
use super::machine::door::{Door, FromDoor, Identity};
use crate::entropy::Entropy;
use crate::id::Moment;
use crate::net::Inbox;
use crate::server::MachineClock;
use crate::sync::BoundSocket;
use crate::wire::packet::Packet;

/// Between two questions to a server that has not answered.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for one datagram, so that deadlines are seen in time.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// A question to several servers, without a thread or a socket.
pub(super) trait Asker {
    /// What to say now, and to whom: whatever is not answered yet, for it may have been lost.
    fn questions(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)>;

    /// Takes a datagram. True if it is a reason to ask at once, and not only when it is time again.
    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool;

    /// Whether nothing more is wanted.
    fn is_over(&self, now: Moment) -> bool;
}

/// Asks until it is over, or for as long as `timeout`. `servers` tell the family of the addresses.
///
/// # Errors
/// [`ClientError::NoServers`], or the system has no socket for us.
pub(super) fn run(
    asker: &mut impl Asker,
    servers: &[SocketAddr],
    timeout: Duration,
) -> Result<(), ClientError> {
    let clock = MachineClock::start();
    let socket = bind(servers, PATIENCE)?;
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    loop {
        let now = clock.now();
        if asker.is_over(now) || now.since(Moment(0)) >= timeout {
            return Ok(());
        }
        if now >= ask_at {
            ask_at = now + ASK_EVERY;
            // What is lost is said again.
            let _ = socket.send(&asker.questions(now));
        }
        socket.receive(&mut inbox)?;
        let now = clock.now();
        for (from, bytes, _) in inbox.datagrams() {
            if asker.take(now, from, bytes) {
                ask_at = now;
            }
        }
    }
}

/// The doors of several servers of one cluster, and who stands before them.
#[derive(Debug)]
pub(super) struct Doors {
    identity: Identity,
    entropy: Entropy,
    doors: BTreeMap<SocketAddr, Door>,
}

impl Doors {
    pub(super) fn new(servers: &[SocketAddr], identity: Identity, entropy: Entropy) -> Doors {
        let doors = servers.iter().map(|server| (*server, Door::default())).collect();
        Doors { identity, entropy, doors }
    }

    pub(super) fn addrs(&self) -> Vec<SocketAddr> {
        self.doors.keys().copied().collect()
    }

    /// Adds a server; false if it is there already.
    pub(super) fn add(&mut self, server: SocketAddr) -> bool {
        let new = !self.doors.contains_key(&server);
        self.doors.entry(server).or_default();
        new
    }

    /// A question for a server: a KNOCK with it, or the HELLO before that.
    pub(super) fn ask(&mut self, now: Moment, to: SocketAddr, question: &Packet) -> (SocketAddr, Vec<u8>) {
        let Doors { identity, entropy, doors } = self;
        let door = doors.entry(to).or_default();
        let knock = door.knock(now, identity, question, entropy);
        (to, knock.unwrap_or_else(|| door.hello(identity.cluster, entropy)))
    }

    /// What a server of the cluster says; none from strangers. A greeting that is not this cluster's is
    /// nothing either: who took it for a reason to ask at once would be greeted once more, at the
    /// network's speed.
    pub(super) fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> Option<FromDoor> {
        let told = self.doors.get_mut(&from)?.take(now, datagram)?;
        match &told {
            FromDoor::Greeting(greeting) if !self.identity.trusts(greeting) => None,
            _ => Some(told),
        }
    }
}

/// An unbound port of the family of these servers.
pub(super) fn bind(servers: &[SocketAddr], patience: Duration) -> Result<BoundSocket, ClientError> {
    let ip = match servers.first() {
        None => return Err(ClientError::NoServers),
        Some(SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Ok(BoundSocket::bind(SocketAddr::new(ip, 0), patience)?)
}
