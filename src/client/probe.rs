//! Without a session: finds out which cluster is there, and asks servers how they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::ClientError;
use super::machine::door::{Door, FromDoor, Greeting, Identity};
use crate::id::{ClusterId, Moment, NodeId};
use crate::net::{BoundSocket, Inbox};
use crate::server::MachineClock;
use crate::wire::entropy::Entropy;
use crate::wire::packet::{Packet, QueryId, StatusOk};
use crate::wire::seal::Key;

/// Between two STATUS to a server that has not answered.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for one datagram, so that deadlines are seen in time.
const PATIENCE: Duration = Duration::from_millis(20);

/// How one server of a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which.
    pub node: NodeId,
    /// Where clients reach it.
    pub addr: SocketAddr,
    /// Its answer; none: it gave none in time.
    pub answer: Option<StatusOk>,
}

/// Asks every server of the cluster how it is, without a session. Any one server's address is
/// enough: the others are learnt from its answer. Ends when all have answered, or after `timeout`.
/// Ascending by id. `accept` says whether a cluster's key is to be trusted.
///
/// # Errors
/// [`ClientError::Unreachable`] if nobody answers at all; what `accept` says.
pub fn status(
    servers: &[SocketAddr],
    timeout: Duration,
    accept: &mut Accept<'_>,
) -> Result<Vec<ServerStatus>, ClientError> {
    let clock = MachineClock::start();
    let found = find(servers, timeout, accept)?;
    let socket = bind(servers, PATIENCE)?;
    let mut entropy = Entropy::new(seed()?);
    let identity = Identity {
        cluster: found.cluster,
        cluster_key: found.cluster_key,
        // STATUS is answered to anybody: no device's name need be given away for it.
        private: Key::new(entropy.bytes()),
    };
    let mut round = Round::new(servers, identity, entropy);
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    while !round.is_complete() && clock.now().since(Moment(0)) < timeout {
        let now = clock.now();
        if now >= ask_at {
            ask_at = now + ASK_EVERY;
            // What is lost is asked again.
            let _ = socket.send(&round.questions(now));
        }
        socket.receive(&mut inbox)?;
        for (from, bytes, _) in inbox.datagrams() {
            if round.take(now, from, bytes) {
                // Who said hello, or was just learnt of, need not wait for the next round.
                ask_at = now;
            }
        }
    }
    round.end().ok_or_else(|| ClientError::Unreachable { servers: servers.to_vec(), waited: timeout })
}

/// Whether the key of this cluster, as the server at this address gives it, is to be trusted. The
/// server has not proved to hold it: the handshake to come does.
pub(super) type Accept<'a> = dyn FnMut(SocketAddr, &Greeting) -> Result<(), ClientError> + 'a;

/// The cluster of whoever answers first.
pub(super) fn find(
    servers: &[SocketAddr],
    timeout: Duration,
    accept: &mut Accept<'_>,
) -> Result<Greeting, ClientError> {
    let socket = bind(servers, PATIENCE)?;
    let clock = MachineClock::start();
    let mut entropy = Entropy::new(seed()?);
    let mut doors: BTreeMap<SocketAddr, Door> =
        servers.iter().map(|server| (*server, Door::default())).collect();
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    loop {
        let now = clock.now();
        if now.since(Moment(0)) >= timeout {
            return Err(ClientError::Unreachable { servers: servers.to_vec(), waited: timeout });
        }
        if now >= ask_at {
            ask_at = now + ASK_EVERY;
            let hello = |(to, door): (&SocketAddr, &mut Door)| (*to, door.hello(ClusterId(0), &mut entropy));
            // What is lost is said again.
            let _ = socket.send(&doors.iter_mut().map(hello).collect::<Vec<_>>());
        }
        socket.receive(&mut inbox)?;
        for (from, bytes, _) in inbox.datagrams() {
            if let Some(FromDoor::Greeting(greeting)) =
                doors.get_mut(&from).and_then(|door| door.take(now, bytes))
            {
                accept(from, &greeting)?;
                return Ok(greeting);
            }
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

/// 32 bytes of the system's randomness.
pub(super) fn seed() -> Result<[u8; 32], ClientError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// What is known so far.
#[derive(Debug)]
struct Round {
    identity: Identity,
    entropy: Entropy,
    query: u64,
    doors: BTreeMap<SocketAddr, Door>,
    members: BTreeMap<NodeId, SocketAddr>,
    answers: BTreeMap<NodeId, StatusOk>,
}

impl Round {
    fn new(servers: &[SocketAddr], identity: Identity, entropy: Entropy) -> Round {
        Round {
            identity,
            entropy,
            query: 0,
            doors: servers.iter().map(|server| (*server, Door::default())).collect(),
            members: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    fn is_complete(&self) -> bool {
        !self.members.is_empty() && self.members.keys().all(|node| self.answers.contains_key(node))
    }

    /// STATUS, or HELLO before it, to each server that has not answered: first those we were told of,
    /// then the members.
    fn questions(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let Round { identity, entropy, .. } = self;
        let mut questions = Vec::new();
        for (to, door) in &mut self.doors {
            let node = self.members.iter().find(|(_, addr)| *addr == to).map(|(node, _)| node);
            let answered = node.is_some_and(|node| self.answers.contains_key(node));
            if answered || (node.is_none() && !self.members.is_empty()) {
                continue;
            }
            self.query += 1;
            let status = Packet::Status(QueryId(self.query));
            let knock = door.knock(now, identity, &status, entropy);
            questions.push((*to, knock.unwrap_or_else(|| door.hello(identity.cluster, entropy))));
        }
        questions
    }

    /// Takes an answer; anything else is not for us. True if somebody new can be asked.
    fn take(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) -> bool {
        let Some(door) = self.doors.get_mut(&from) else { return false };
        match door.take(now, bytes) {
            None => false,
            Some(FromDoor::Greeting(greeting)) => self.identity.trusts(&greeting),
            Some(FromDoor::Answer(opened)) => {
                let known = self.doors.len();
                for packet in opened.packets {
                    if let Packet::StatusOk(status) = packet {
                        self.members.extend(status.members.iter().copied());
                        self.answers.insert(status.node, status);
                    }
                }
                for member in self.members.values() {
                    self.doors.entry(*member).or_default();
                }
                self.doors.len() > known
            }
        }
    }

    fn end(mut self) -> Option<Vec<ServerStatus>> {
        if self.answers.is_empty() {
            return None;
        }
        let status = |(node, addr)| ServerStatus { node, addr, answer: self.answers.remove(&node) };
        Some(self.members.into_iter().map(status).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Op, SessionId, View};
    use crate::server::door::tests::keeper;
    use crate::server::door::{self, Visit};
    use crate::wire::envelope::{Class, Envelope, Header};
    use crate::wire::packet::RoleName;
    use crate::wire::seal::ClusterKeys;
    use crate::wire::{codec, handshake, noise};

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    fn round(servers: &[SocketAddr]) -> Round {
        let keeper = keeper(1, 1);
        let identity = Identity {
            cluster: keeper.cluster,
            cluster_key: noise::public(&keeper.keys.cluster_private()),
            private: Key::new([1; 32]),
        };
        Round::new(servers, identity, Entropy::new([1; 32]))
    }

    /// The door of a server, and what it says to those it lets in: how it is.
    fn at(node: u16) -> door::Door {
        door::Door::new(keeper(node, 1), [node as u8; 32], Moment(0))
    }

    fn to(questions: &[(SocketAddr, Vec<u8>)]) -> Vec<SocketAddr> {
        questions.iter().map(|(to, _)| *to).collect()
    }

    /// What the server behind this door answers; none if it does not open.
    fn answer(door: &mut door::Door, node: u16, question: &[u8]) -> Option<Vec<u8>> {
        let (caller, packet) = match door.visit(Moment(0), addr(99), question).ok()? {
            Visit::Retry(bytes) => return Some(bytes),
            Visit::Knock { caller, packet, .. } => (caller, packet),
        };
        let Packet::Status(query) = packet else { panic!("{packet:?}") };
        let status = StatusOk {
            query,
            node: NodeId(node),
            role: RoleName::Backup,
            view: View::ZERO,
            applied: Op(1),
            durable: Op(1),
            lag: 0,
            pid: 1,
            incarnation: Incarnation(1),
            uptime_ms: 1,
            members: vec![(NodeId(1), addr(1)), (NodeId(2), addr(2))],
            refused: vec![],
        };
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: keeper(node, 1).cluster,
            session: SessionId::default(),
            node: Some(NodeId(node)),
            incarnation: Incarnation(1),
            number: 1,
        };
        let packets = [codec::encode(&Packet::StatusOk(status))];
        Some(handshake::answer(&envelope, &caller.reply, &Header::default(), &packets))
    }

    /// HELLO and KNOCK, each answered at once.
    fn let_in(round: &mut Round, from: SocketAddr, node: u16) {
        let mut door = at(node);
        for _ in 0..2 {
            let questions = round.questions(Moment(0));
            let (_, question) = questions.iter().find(|(to, _)| *to == from).expect("it is asked");
            let answer = answer(&mut door, node, question).expect("it opens");
            assert!(round.take(Moment(0), from, &answer) || round.is_complete());
        }
    }

    #[test]
    fn the_other_servers_are_learnt_from_the_first_answer() {
        let mut round = round(&[addr(9)]);
        assert_eq!(to(&round.questions(Moment(0))), [addr(9)]);
        let_in(&mut round, addr(9), 1);
        assert!(!round.is_complete());
        assert_eq!(to(&round.questions(Moment(0))), [addr(2)]);
        let_in(&mut round, addr(2), 2);
        assert!(round.is_complete() && round.questions(Moment(0)).is_empty());
        let found = round.end().unwrap();
        assert_eq!(found.iter().map(|server| server.addr).collect::<Vec<_>>(), [addr(1), addr(2)]);
    }

    #[test]
    fn who_did_not_answer_in_time_is_named_without_an_answer() {
        let mut round = round(&[addr(9)]);
        let_in(&mut round, addr(9), 1);
        let found = round.end().unwrap();
        assert_eq!(found.iter().map(|server| server.answer.is_some()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn junk_repeated_answers_and_other_addresses_are_ignored() {
        let mut round = round(&[addr(9)]);
        let mut door = at(1);
        let hello = round.questions(Moment(0)).remove(0).1;
        let retry = answer(&mut door, 1, &hello).unwrap();
        assert!(!round.take(Moment(0), addr(8), &retry));
        assert!(!round.take(Moment(0), addr(9), b"junk"));
        assert!(round.take(Moment(0), addr(9), &retry));
        let knock = round.questions(Moment(0)).remove(0).1;
        let said = answer(&mut door, 1, &knock).unwrap();
        assert!(!round.take(Moment(0), addr(8), &said));
        assert!(round.answers.is_empty());
        assert!(round.take(Moment(0), addr(9), &said));
        assert!(!round.take(Moment(0), addr(9), &said));
        assert_eq!(round.answers.len(), 1);
    }

    #[test]
    fn a_server_of_another_cluster_key_is_asked_nothing() {
        let mut round = round(&[addr(9)]);
        let stranger = door::Doorkeeper { keys: ClusterKeys::new(&[1; 32]), ..keeper(1, 1) };
        let mut door = door::Door::new(stranger, [1; 32], Moment(0));
        for _ in 0..3 {
            let question = round.questions(Moment(0)).remove(0).1;
            let Ok(Visit::Retry(retry)) = door.visit(Moment(0), addr(99), &question) else {
                panic!("more than HELLO was said to it")
            };
            assert!(!round.take(Moment(0), addr(9), &retry), "it would be asked again at once");
        }
        assert!(round.end().is_none());
    }

    #[test]
    fn nobody_there_is_an_error_that_names_who_was_asked() {
        let silent = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let mut accept = |_, _: &Greeting| Ok(());
        let error = status(&[silent.addr()], Duration::from_millis(50), &mut accept).unwrap_err();
        assert!(error.to_string().contains(&silent.addr().to_string()));
        assert!(matches!(status(&[], Duration::ZERO, &mut accept), Err(ClientError::NoServers)));
    }

    #[test]
    fn a_key_that_is_not_accepted_is_not_used() {
        let server = BoundSocket::bind(addr(0), Duration::from_secs(5)).unwrap();
        let address = server.addr();
        let answering = std::thread::spawn(move || {
            let mut inbox = Inbox::new(1);
            server.receive(&mut inbox).unwrap();
            let (from, hello, _) = inbox.datagrams().next().expect("a HELLO within five seconds");
            let Ok(Visit::Retry(retry)) = at(1).visit(Moment(0), from, hello) else { panic!("no HELLO") };
            server.send(&[(from, retry)]);
        });
        let mut asked = Vec::new();
        let mut accept = |from, greeting: &Greeting| {
            asked.push((from, greeting.cluster_key));
            Err(ClientError::NoServers)
        };
        let refused = status(&[address], Duration::from_secs(5), &mut accept);
        assert!(matches!(refused, Err(ClientError::NoServers)));
        answering.join().unwrap();
        assert_eq!(asked, [(address, noise::public(&keeper(1, 1).keys.cluster_private()))]);
    }
}
