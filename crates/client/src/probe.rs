//! Probes without a session: find out which cluster is at an address and whether it is trusted, and ask
//! servers for their status.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::id::{ClusterId, ClusterKey, Moment, NodeId};
use recado_proto::packet::{Answer, AnswerKind, Query, QueryId, QueryKind, Status, ToClient, ToServer};
use recado_proto::seal::Key;
use recado_sys::clock::MachineClock;
use recado_sys::random;
use recado_sys::sync::BoundSocket;

use super::error::ClientError;
use super::handshake_query::{self, HandshakeQuery, PATIENCE};
use super::known::KnownCluster;
use super::machine::handshake::{FromServer, HandshakeClient, Identity};
use super::machine::handshakes::{self, HandshakeClients};
use super::trust::{ClusterIdentity, Others, Trust, TrustDecision, trust_decision};

/// The time that other servers have to answer after one whose cluster is not wanted.
const OTHERS: Duration = Duration::from_millis(300);

/// The status of one server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// The server's id.
    pub node: NodeId,
    /// Its address for clients.
    pub addr: SocketAddr,
    /// Its answer; none if it did not answer in time.
    pub answer: Option<Status>,
    /// The time from the query that was answered to its answer.
    pub round_trip: Option<Duration>,
}

/// Asks every server of the cluster for its status, without a session. Any one server's address is enough:
/// the others are learnt from its answer. Returns when all have answered, or after `timeout`, which does not
/// include the time for the decision about a new cluster. Ascending by id.
///
/// # Errors
/// [`ClientError::Unreachable`] if no server answers at all; otherwise the cluster is not trusted.
pub fn status(
    servers: &[SocketAddr],
    timeout: Duration,
    trust: &Trust,
) -> Result<Vec<ServerStatus>, ClientError> {
    let Meeting { cluster_identity, until, begun } = meet(servers, timeout, trust)?;
    let left = until.since(begun.clock.now());
    let servers = trust.places(servers)?;
    let round = query_status(&servers, &cluster_identity, left, Enough::All)?;
    let found = round.end().ok_or(ClientError::Unreachable { servers, waited: timeout })?;
    let members: Vec<SocketAddr> = found.iter().map(|server| server.addr).collect();
    trust.learn(&cluster_identity, &members);
    Ok(found)
}

/// The cluster at these addresses, trusted or not: the server that answers first has proved to hold its key.
/// Nothing is remembered.
///
/// # Errors
/// [`ClientError::Unreachable`] if no server answers, [`ClientError::Unproved`].
pub fn identify(servers: &[SocketAddr], timeout: Duration) -> Result<ClusterIdentity, ClientError> {
    let clock = MachineClock::start();
    let (cluster_identity, _) = find(servers, clock, timeout, |_| true, |_| true)?;
    prove(&cluster_identity, timeout.saturating_sub(clock.now().since(Moment(0))))?;
    Ok(cluster_identity)
}

/// The result of [`meet`].
#[derive(Debug)]
pub(super) struct Meeting {
    /// The cluster.
    pub(super) cluster_identity: ClusterIdentity,
    /// The end of the time-out, by the clock of `begun`. The time for the decision about a new cluster does
    /// not count.
    pub(super) until: Moment,
    /// What a session goes on with.
    pub(super) begun: Begun,
}

/// Handshakes that have begun, and the socket to whose address their cookies belong. A client goes on with
/// them, which saves its first round trip.
#[derive(Debug)]
pub(super) struct Begun {
    /// The clock of the handshakes.
    pub(super) clock: MachineClock,
    pub(super) socket: BoundSocket,
    pub(super) handshakes: BTreeMap<SocketAddr, HandshakeClient>,
}

impl Begun {
    /// Nothing has begun with these servers.
    ///
    /// # Errors
    /// [`ClientError::NoServers`], or the system cannot provide a socket.
    pub(super) fn nothing(servers: &[SocketAddr]) -> Result<Begun, ClientError> {
        let socket = handshake_query::bind(servers, PATIENCE)?;
        Ok(Begun { clock: MachineClock::start(), socket, handshakes: BTreeMap::new() })
    }
}

/// The cluster of the server that answers first, if it is trusted. A new cluster is remembered only after it
/// has proved to hold its key. A known one is not asked for a proof here: it gives one in the handshake that
/// goes on.
pub(super) fn meet(servers: &[SocketAddr], timeout: Duration, trust: &Trust) -> Result<Meeting, ClientError> {
    let clock = MachineClock::start();
    let left = || timeout.saturating_sub(clock.now().since(Moment(0)));
    let (clusters, decide, remembered) = match trust {
        Trust::Pinned(key) => {
            let (cluster_identity, begun) =
                find(servers, clock, timeout, |_| true, |cluster_identity| *key == cluster_identity.key)?;
            if *key == cluster_identity.key {
                return Ok(Meeting { cluster_identity, until: Moment(0) + timeout, begun });
            }
            // Only a server that proves its key may raise an alarm: one that took the port of a stopped
            // server cannot.
            prove(&cluster_identity, left())?;
            return Err(ClientError::NotThePinnedKey { pinned: *key, offered: cluster_identity });
        }
        Trust::Known { clusters, decide, remembered } => (clusters, decide, remembered),
    };
    let known = clusters.list()?;
    let aim = Aim { known: &known, servers, others: Others::of(&known, servers) };
    let places = aim.others.as_ref().map_or_else(|| servers.to_vec(), |others| others.beside(servers));
    let (cluster_identity, begun) =
        find(&places, clock, timeout, |offer| aim.counts(offer), |offer| aim.is_wanted(offer))?;
    let decision = trust_decision(&known, servers, &cluster_identity);
    match decision {
        TrustDecision::Known => {
            return Ok(Meeting { cluster_identity, until: Moment(0) + timeout, begun });
        }
        TrustDecision::Changed(addr, known) => {
            prove(&cluster_identity, left())?;
            return Err(ClientError::changed(addr, known, cluster_identity));
        }
        TrustDecision::KnownElsewhere | TrustDecision::New => prove(&cluster_identity, left())?,
    }
    let left = left();
    if decision == TrustDecision::New && !decide(&cluster_identity) {
        return Err(ClientError::UnknownCluster(cluster_identity));
    }
    match clusters.remember(servers, &cluster_identity, clock.read().unix_ms) {
        // A known cluster's further address need not be remembered: a reader may not be able to write, and
        // who sends that the disk is full cannot either.
        Err(ClientError::Store(error)) if decision == TrustDecision::KnownElsewhere => {
            tracing::debug!(%error, "remembering an address");
        }
        remembered => remembered?,
    }
    if decision == TrustDecision::New {
        remembered(&cluster_identity);
    }
    Ok(Meeting { cluster_identity, until: clock.now() + left, begun })
}

/// What is looked for at the given servers.
struct Aim<'a> {
    known: &'a [KnownCluster],
    servers: &'a [SocketAddr],
    others: Option<Others>,
}

impl Aim<'_> {
    fn is_looked_for(&self, offer: &ClusterIdentity) -> bool {
        self.others.as_ref().is_some_and(|others| others.cluster.is(offer))
    }

    /// Returns true if an answer of this cluster from this address may be the one.
    fn counts(&self, offer: &ClusterIdentity) -> bool {
        self.servers.contains(&offer.addr) || self.is_looked_for(offer)
    }

    /// Returns true if no other answer is waited for. Where the known cluster was not met, another one may be
    /// meant: an answer from a given address is preferred, whoever gives it, and the known cluster answers
    /// elsewhere only for a silent one.
    fn is_wanted(&self, offer: &ClusterIdentity) -> bool {
        match &self.others {
            Some(others) if !others.was_met => self.servers.contains(&offer.addr),
            _ => {
                self.is_looked_for(offer)
                    || trust_decision(self.known, self.servers, offer) == TrustDecision::Known
            }
        }
    }
}

/// The cluster of the first server that answers and is `wanted`, among those for which `counts` is true. If
/// there is none within [`OTHERS`] after the first answer that counts, the cluster of that first server. It
/// is a claim without any proof.
fn find(
    servers: &[SocketAddr],
    clock: MachineClock,
    timeout: Duration,
    counts: impl Fn(&ClusterIdentity) -> bool,
    wanted: impl Fn(&ClusterIdentity) -> bool,
) -> Result<(ClusterIdentity, Begun), ClientError> {
    let socket = handshake_query::bind(servers, PATIENCE)?;
    let initiators = servers.iter().map(|server| (*server, HandshakeClient::default())).collect();
    let mut search = Search {
        counts,
        wanted,
        entropy: Entropy::new(random::bytes()?),
        initiators,
        offers: Vec::new(),
        first: None,
    };
    handshake_query::run_on(&mut search, &socket, clock, timeout)?;
    let other_version = handshakes::other_version(&search.initiators);
    let found = search.found().ok_or_else(|| ClientError::unanswered(servers, timeout, other_version))?;
    Ok((found, Begun { clock, socket, handshakes: search.initiators }))
}

/// The search for a cluster by the claims in RETRYs.
struct Search<C, W> {
    counts: C,
    wanted: W,
    entropy: Entropy,
    initiators: BTreeMap<SocketAddr, HandshakeClient>,
    /// The claims in the order of their arrival, at most one of each server.
    offers: Vec<ClusterIdentity>,
    /// The time of the first claim.
    first: Option<Moment>,
}

impl<C, W: Fn(&ClusterIdentity) -> bool> Search<C, W> {
    fn found(&self) -> Option<ClusterIdentity> {
        self.offers
            .iter()
            .find(|cluster_identity| (self.wanted)(cluster_identity))
            .or(self.offers.first())
            .copied()
    }
}

impl<C: Fn(&ClusterIdentity) -> bool, W: Fn(&ClusterIdentity) -> bool> HandshakeQuery for Search<C, W> {
    fn datagrams(&mut self, _now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let Search { entropy, initiators, .. } = self;
        let unheard = initiators.iter_mut().filter(|(_, initiator)| initiator.greeting().is_none());
        unheard.map(|(to, initiator)| (*to, initiator.hello(ClusterId(0), entropy))).collect()
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        let received = self.initiators.get_mut(&from).and_then(|initiator| initiator.take(now, datagram));
        if let Some(FromServer::Greeting(greeting)) = received {
            let key = ClusterKey(greeting.cluster_key);
            let cluster_identity = ClusterIdentity { addr: from, cluster: greeting.cluster, key };
            if (self.counts)(&cluster_identity) {
                self.offers.push(cluster_identity);
                self.first.get_or_insert(now);
            }
        }
        false
    }

    fn is_over(&self, now: Moment) -> bool {
        self.first.is_some_and(|first| {
            self.offers.len() >= self.initiators.len()
                || now.since(first) >= OTHERS
                || self.offers.iter().any(&self.wanted)
        })
    }
}

/// Waits until the server has proved to hold the key that it claims, by an answer to a query that only
/// this key opens.
fn prove(cluster_identity: &ClusterIdentity, timeout: Duration) -> Result<(), ClientError> {
    let round = query_status(&[cluster_identity.addr], cluster_identity, timeout, Enough::One)?;
    if round.answers.is_empty() {
        return Err(ClientError::Unproved { server: cluster_identity.addr, waited: timeout });
    }
    Ok(())
}

/// Asks for the status until there are enough answers, or until `timeout`.
fn query_status(
    servers: &[SocketAddr],
    cluster_identity: &ClusterIdentity,
    timeout: Duration,
    enough: Enough,
) -> Result<Round, ClientError> {
    let mut entropy = Entropy::new(random::bytes()?);
    let identity = Identity {
        cluster: cluster_identity.cluster,
        cluster_key: cluster_identity.key.0,
        // The status is told to any key, so the device's own key need not be revealed for it.
        private: Key::new(entropy.bytes()),
    };
    let mut round = Round::new(HandshakeClients::new(servers, identity, entropy), enough);
    handshake_query::run(&mut round, servers, timeout)?;
    Ok(round)
}

/// The number of answers that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enough {
    /// One answer of any server: it proves the cluster's key.
    One,
    /// The answers of all members.
    All,
}

/// A query of the status, and the answers so far.
#[derive(Debug)]
struct Round {
    initiators: HandshakeClients,
    enough: Enough,
    /// The time of each query, by its number from 1 on.
    sent: Vec<Moment>,
    members: BTreeMap<NodeId, SocketAddr>,
    answers: BTreeMap<NodeId, (Status, Duration)>,
}

impl Round {
    fn new(initiators: HandshakeClients, enough: Enough) -> Round {
        Round { initiators, enough, sent: Vec::new(), members: BTreeMap::new(), answers: BTreeMap::new() }
    }

    /// Returns true if this server has nothing more to tell: it answered, or it is not a member.
    fn is_done_with(&self, server: SocketAddr) -> bool {
        match self.members.iter().find(|(_, addr)| **addr == server) {
            Some((node, _)) => self.answers.contains_key(node),
            None => !self.members.is_empty(),
        }
    }

    fn end(mut self) -> Option<Vec<ServerStatus>> {
        if self.answers.is_empty() {
            return None;
        }
        let status = |(node, addr)| {
            let (answer, round_trip) = self.answers.remove(&node).unzip();
            ServerStatus { node, addr, answer, round_trip }
        };
        Some(self.members.into_iter().map(status).collect())
    }
}

impl HandshakeQuery for Round {
    /// The query of the status, or the HELLO before it, to each server that has not answered: at first to the
    /// addresses given, then to the members.
    fn datagrams(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut queries = Vec::new();
        for to in self.initiators.addrs() {
            if !self.is_done_with(to) {
                self.sent.push(now);
                let status = ToServer::Query(Query::new(QueryId(self.sent.len() as u64), QueryKind::Status));
                queries.push(self.initiators.datagram_to(now, to, &status));
            }
        }
        queries
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        let answer = match self.initiators.take(now, from, datagram) {
            None => return false,
            Some(FromServer::Greeting(_)) => return true,
            Some(FromServer::Answer(answer)) => answer,
        };
        for packet in answer.packets {
            let ToClient::Answer(Answer { id, kind: AnswerKind::Status(status), .. }) = packet else {
                continue;
            };
            let number = usize::try_from(id.0).unwrap_or(usize::MAX);
            if let Some(sent) = number.checked_sub(1).and_then(|at| self.sent.get(at)) {
                let round_trip = now.since(*sent);
                self.members.extend(status.members.iter().copied());
                self.answers.insert(status.node, (status, round_trip));
            }
        }
        let mut new = false;
        for member in self.members.values() {
            new |= self.initiators.add(*member);
        }
        new
    }

    fn is_over(&self, _now: Moment) -> bool {
        match self.enough {
            Enough::One => !self.answers.is_empty(),
            Enough::All => {
                !self.members.is_empty() && self.members.keys().all(|node| self.answers.contains_key(node))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use recado_proto::codec;
    use recado_proto::envelope::{Class, Envelope, Header};
    use recado_proto::handshake::{self, Handshake, Retry};
    use recado_proto::id::{BootId, Incarnation, Op, SessionId, View};
    use recado_proto::noise::{self, Prologue};
    use recado_proto::packet::{Position, RoleName};
    use recado_sys::net::Inbox;

    use super::*;
    use crate::known::KnownClusters;

    const BOOT_ID: BootId = BootId([3; 16]);
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(400);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// One server of a cluster, played by the test.
    #[derive(Clone)]
    struct Hand {
        node: u16,
        cluster: u64,
        /// The key that it claims.
        says: ClusterKey,
        /// The private key that it has.
        holds: Key,
        members: Vec<(NodeId, SocketAddr)>,
        /// Another version of the protocol, if it speaks that one.
        speaks: Option<u8>,
    }

    impl Hand {
        fn honest(n: u8) -> Hand {
            let holds = Key::new([n; 32]);
            let says = ClusterKey(noise::public(&holds));
            Hand { node: 1, cluster: n.into(), says, holds, members: Vec::new(), speaks: None }
        }

        fn envelope(&self) -> Envelope {
            Envelope {
                class: Class::Handshake,
                cluster: ClusterId(self.cluster),
                session: SessionId::default(),
                node: Some(NodeId(self.node)),
                incarnation: Incarnation(1),
                number: 1,
            }
        }

        /// Its answer to a datagram; the status only to a client that knows its key.
        fn answer(&self, datagram: &[u8], entropy: &mut Entropy) -> Option<Vec<u8>> {
            match Handshake::read(datagram).ok()?.1 {
                Handshake::Hello(echo) if let Some(version) = self.speaks => {
                    Some([&[0x72, 0x65, 0, 0][..], &echo.to_be_bytes(), &[version]].concat())
                }
                Handshake::Hello(echo) => {
                    let retry = Retry { echo, cookie: [9; 16], boot_id: BOOT_ID, cluster_key: self.says.0 };
                    Some(handshake::retry(&self.envelope(), &retry))
                }
                Handshake::Initiation { message, .. } => {
                    let prologue = Prologue {
                        cluster: ClusterId(self.cluster),
                        server: NodeId(self.node),
                        boot_id: BOOT_ID,
                    };
                    let (_, load, reply) = noise::answer(prologue, &self.holds, message, entropy).ok()?;
                    let packets = handshake::unload(&load).ok()?;
                    let Some(ToServer::Query(query)) = packets.first() else { return None };
                    let (kind, options) = (AnswerKind::Status(self.status()), query.options.clone());
                    let answer = Answer { id: query.id, applied: Position::default(), kind, options };
                    let status = codec::encode(&ToClient::Answer(answer));
                    Some(handshake::answer(&self.envelope(), &reply, &Header::default(), &[status]))
                }
                _ => None,
            }
        }

        fn status(&self) -> Status {
            Status {
                node: NodeId(self.node),
                role: RoleName::Backup,
                view: View::ZERO,
                applied: Op(1),
                durable: Op(1),
                lag: 0,
                pid: 1,
                incarnation: Incarnation(1),
                uptime_ms: 1,
                members: self.members.clone(),
                refused: vec![],
            }
        }
    }

    /// Runs `test` with the address of a server that `hand` plays.
    fn with_server<T>(hand: &Hand, test: impl FnOnce(SocketAddr) -> T) -> T {
        let socket = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let at = socket.addr();
        let hand = Hand { members: vec![(NodeId(hand.node), at)], ..hand.clone() };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut entropy = Entropy::new([1; 32]);
                let mut inbox = Inbox::new(4);
                while !over.load(Ordering::Relaxed) {
                    socket.receive(&mut inbox).unwrap();
                    let answers: Vec<_> = inbox
                        .datagrams()
                        .filter_map(|(from, bytes)| Some((from, hand.answer(bytes, &mut entropy)?)))
                        .collect();
                    let _ = socket.send(&answers);
                }
            });
            // The server must end also when the test fails.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(at)));
            over.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A trust that counts how often it is asked about a new cluster, and always decides `says`.
    fn asking(known: &KnownClusters, says: bool) -> (Trust, std::sync::Arc<AtomicUsize>) {
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let decide = move |_: &ClusterIdentity| {
            count.fetch_add(1, Ordering::Relaxed);
            says
        };
        (Trust::asking(known.clone(), decide, |_| {}), asked)
    }

    #[test]
    fn the_user_decides_once_about_a_new_cluster_and_only_a_yes_saves_it() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        let hand = Hand::honest(5);
        with_server(&hand, |at| {
            let (no, asked) = asking(&known, false);
            let refused = meet(&[at], LONG, &no).unwrap_err();
            assert!(
                matches!(&refused, ClientError::UnknownCluster(cluster_identity) if cluster_identity.key == hand.says)
            );
            assert_eq!((asked.load(Ordering::Relaxed), known.list().unwrap().len()), (1, 0));

            let (yes, asked) = asking(&known, true);
            for _ in 0..2 {
                assert_eq!(meet(&[at], LONG, &yes).unwrap().cluster_identity.key, hand.says);
                assert_eq!(status(&[at], LONG, &yes).unwrap()[0].node, NodeId(1));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
            assert_eq!(known.list().unwrap()[0].addresses, [at]);
        });
    }

    #[test]
    fn a_new_cluster_is_reported_once_after_it_is_saved() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        let reports = std::sync::Arc::new(AtomicUsize::new(0));
        let (stored, count) = (known.clone(), reports.clone());
        let remembered = move |cluster_identity: &ClusterIdentity| {
            assert!(stored.list().unwrap().iter().any(|one| one.is(cluster_identity)));
            count.fetch_add(1, Ordering::Relaxed);
        };
        let trust = Trust::asking(known, |_| true, remembered);
        with_server(&Hand::honest(5), |at| {
            for _ in 0..2 {
                meet(&[at], LONG, &trust).unwrap();
            }
        });
        assert_eq!(reports.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_server_that_cannot_prove_its_key_causes_no_query_and_is_not_saved() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        let liar = Hand { holds: Key::new([6; 32]), ..Hand::honest(5) };
        with_server(&liar, |at| {
            let (trust, asked) = asking(&known, true);
            let refused = meet(&[at], SHORT, &trust).unwrap_err();
            assert!(matches!(refused, ClientError::Unproved { server, .. } if server == at));
            assert!(matches!(identify(&[at], SHORT), Err(ClientError::Unproved { .. })));
            assert_eq!((asked.load(Ordering::Relaxed), known.list().unwrap().len()), (0, 0));
            // With the key pinned, it fails later: no answer of the server opens.
            let pinned = Trust::Pinned(liar.says);
            assert!(matches!(status(&[at], SHORT, &pinned), Err(ClientError::Unreachable { .. })));
        });
    }

    #[test]
    fn another_key_at_a_known_address_is_refused_without_asking() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        with_server(&Hand::honest(6), |at| {
            let first = Hand::honest(5);
            let cluster_identity = ClusterIdentity { addr: at, cluster: ClusterId(5), key: first.says };
            known.remember(&[at], &cluster_identity, 1).unwrap();
            let (trust, asked) = asking(&known, true);
            let refused = meet(&[at], LONG, &trust).unwrap_err();
            assert!(matches!(refused, ClientError::ClusterKeyChanged { addr, .. } if addr == at));
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            known.forget(|_| true).unwrap();
            assert!(meet(&[at], LONG, &trust).is_ok());
        });
    }

    #[test]
    fn a_known_cluster_at_another_address_is_remembered_there_without_asking() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        let hand = Hand::honest(5);
        known
            .remember(
                &[addr(9)],
                &ClusterIdentity { addr: addr(9), cluster: ClusterId(5), key: hand.says },
                1,
            )
            .unwrap();
        with_server(&hand, |at| {
            let (trust, asked) = asking(&known, false);
            meet(&[at], LONG, &trust).unwrap();
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            assert_eq!(known.list().unwrap()[0].addresses, [addr(9), at]);
        });
    }

    #[test]
    fn a_pinned_key_needs_no_file_and_takes_no_other() {
        let hand = Hand::honest(5);
        with_server(&hand, |at| {
            assert_eq!(status(&[at], LONG, &Trust::Pinned(hand.says)).unwrap().len(), 1);
            let other = Hand::honest(6).says;
            let refused = status(&[at], LONG, &Trust::Pinned(other)).unwrap_err();
            assert!(matches!(refused, ClientError::NotThePinnedKey { pinned, .. } if pinned == other));
            let message = refused.to_string();
            assert!(
                message.contains(&other.to_string()) && message.contains(&hand.says.to_string()),
                "{message}"
            );
        });
        // A process that took the port of a stopped server raises no alarm.
        let liar = Hand { holds: Key::new([6; 32]), ..hand };
        with_server(&liar, |at| {
            let pinned = Trust::Pinned(Hand::honest(7).says);
            assert!(matches!(status(&[at], SHORT, &pinned), Err(ClientError::Unproved { .. })));
        });
    }

    /// Known clusters with one that was met at `dead` and said that it also has a server at `at`.
    fn met_elsewhere(state: &tempfile::TempDir, dead: SocketAddr, at: SocketAddr) -> KnownClusters {
        let known = KnownClusters::under(state.path());
        let cluster_identity =
            ClusterIdentity { addr: dead, cluster: ClusterId(5), key: Hand::honest(5).says };
        known.remember(&[dead], &cluster_identity, 1).unwrap();
        known.learn(&cluster_identity, &[dead, at]).unwrap();
        known
    }

    #[test]
    fn a_known_cluster_is_found_by_its_other_servers_when_the_configured_one_is_down() {
        let state = tempfile::tempdir().unwrap();
        let dead = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let dead = dead.addr();
        with_server(&Hand::honest(5), |at| {
            let known = met_elsewhere(&state, dead, at);
            let (trust, asked) = asking(&known, false);
            assert_eq!(meet(&[dead], LONG, &trust).unwrap().cluster_identity.addr, at);
            assert_eq!(asked.load(Ordering::Relaxed), 0);
            assert_eq!(known.list().unwrap()[0].addresses, [dead, at], "met there now");
            assert_eq!(status(&[dead], LONG, &trust).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_known_cluster_is_found_by_an_address_of_which_it_only_said_that_it_has_a_server_there() {
        let state = tempfile::tempdir().unwrap();
        let dead = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let dead = dead.addr();
        with_server(&Hand::honest(5), |at| {
            let known = met_elsewhere(&state, at, dead);
            let (trust, asked) = asking(&known, false);
            assert_eq!(meet(&[dead], LONG, &trust).unwrap().cluster_identity.addr, at);
            assert_eq!(status(&[dead], LONG, &trust).unwrap().len(), 1);
            assert_eq!(
                (asked.load(Ordering::Relaxed), &known.list().unwrap()[0].addresses[..]),
                (0, &[at][..])
            );
        });
    }

    #[test]
    fn whoever_answers_where_a_known_cluster_was_only_said_to_be_is_the_one_that_is_meant() {
        let state = tempfile::tempdir().unwrap();
        let (met, said) = (addr(1), addr(2));
        let known = met_elsewhere(&state, met, said).list().unwrap();
        let offer =
            |at, n: u8| ClusterIdentity { addr: at, cluster: ClusterId(n.into()), key: Hand::honest(n).says };
        // For each answer: whether it counts, and whether no other one is waited for.
        for (given, at, n, counts, wanted) in [
            (said, said, 6, true, true),
            (said, said, 5, true, true),
            (said, met, 5, true, false),
            (said, met, 6, false, false),
            (met, said, 5, true, true),
            (met, said, 6, false, false),
        ] {
            let (servers, offer) = ([given], offer(at, n));
            let aim = Aim { known: &known, servers: &servers, others: Others::of(&known, &servers) };
            let found = (aim.counts(&offer), aim.is_wanted(&offer) && aim.counts(&offer));
            assert_eq!(found, (counts, wanted), "{given} asked, cluster {n} answers at {at}");
        }
    }

    #[test]
    fn another_cluster_where_a_known_one_has_a_server_is_neither_trusted_nor_an_alarm() {
        let state = tempfile::tempdir().unwrap();
        let dead = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let dead = dead.addr();
        with_server(&Hand::honest(6), |at| {
            let known = met_elsewhere(&state, dead, at);
            let before = known.list().unwrap();
            let (trust, asked) = asking(&known, true);
            let refused = meet(&[dead], SHORT, &trust).unwrap_err();
            assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused:?}");
            assert_eq!((asked.load(Ordering::Relaxed), known.list().unwrap()), (0, before));
        });
    }

    #[test]
    fn another_version_is_the_reason_only_if_no_server_speaks_this_one() {
        let other = Hand { speaks: Some(2), ..Hand::honest(5) };
        let pinned = Trust::Pinned(other.says);
        with_server(&other, |at| {
            let refused = status(&[at], SHORT, &pinned).unwrap_err();
            let told = matches!(refused, ClientError::OtherVersion { server, version: 2 } if server == at);
            assert!(told && refused.to_string().contains("update recado here"), "{refused}");
            with_server(&Hand::honest(5), |good| {
                assert_eq!(meet(&[at, good], LONG, &pinned).unwrap().cluster_identity.addr, good);
            });
        });
    }

    #[test]
    fn the_time_to_decide_does_not_count() {
        let state = tempfile::tempdir().unwrap();
        with_server(&Hand::honest(5), |at| {
            let clock = MachineClock::start();
            // When the decision was asked for, and when it was made.
            let decision = std::sync::Arc::new(recado_sys::sync::Mutex::new((Moment(0), Moment(0))));
            let noted = decision.clone();
            let decide = move |_: &ClusterIdentity| {
                let asked_at = clock.now();
                // The decision takes as long as everything before it: longer than the two clocks differ.
                while clock.now() <= asked_at + asked_at.since(Moment(0)) {
                    std::thread::yield_now();
                }
                *noted.lock() = (asked_at, clock.now());
                true
            };
            let slow = Trust::asking(KnownClusters::under(state.path()), decide, |_| {});
            let Meeting { until, begun, .. } = meet(&[at], LONG, &slow).unwrap();
            let left = until.since(begun.clock.now());
            let (asked_at, decided_at) = *decision.lock();
            let counted = asked_at.since(Moment(0)) + clock.now().since(decided_at);
            assert!(left >= LONG.saturating_sub(counted), "{left:?} of {LONG:?}, and {counted:?} count");
        });
    }

    /// Passes a hand's answers to the round's queries back to the round.
    fn exchange(round: &mut Round, hand: &Hand, to: SocketAddr, entropy: &mut Entropy) -> bool {
        let asked = round.datagrams(Moment(1));
        let asked: Vec<_> = asked.into_iter().filter(|(at, _)| *at == to).collect();
        asked.iter().fold(false, |known, (_, datagram)| {
            let answer = hand.answer(datagram, entropy);
            answer.is_some_and(|answer| round.take(Moment(1), to, &answer)) || known
        })
    }

    fn round(hand: &Hand, servers: &[SocketAddr]) -> Round {
        let identity = Identity {
            cluster: ClusterId(hand.cluster),
            cluster_key: hand.says.0,
            private: Key::new([8; 32]),
        };
        Round::new(HandshakeClients::new(servers, identity, Entropy::new([2; 32])), Enough::All)
    }

    #[test]
    fn the_other_servers_are_learnt_from_the_first_answer() {
        let mut entropy = Entropy::new([1; 32]);
        let members = vec![(NodeId(1), addr(1)), (NodeId(2), addr(2))];
        let hand = Hand { members, ..Hand::honest(5) };
        let mut round = round(&hand, &[addr(9)]);
        assert!(exchange(&mut round, &hand, addr(9), &mut entropy), "it said hello back");
        assert!(exchange(&mut round, &hand, addr(9), &mut entropy), "it told of two more");
        assert!(!round.is_over(Moment(1)));
        let to: Vec<_> = round.datagrams(Moment(1)).into_iter().map(|(to, _)| to).collect();
        assert_eq!(to, [addr(2)]);
        let found = round.end().unwrap();
        assert_eq!(found.iter().map(|server| server.answer.is_some()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn junk_strangers_and_other_clusters_are_ignored() {
        let mut entropy = Entropy::new([1; 32]);
        let hand = Hand { members: vec![(NodeId(1), addr(9))], ..Hand::honest(5) };
        let mut round = round(&hand, &[addr(9)]);
        for other in [Hand::honest(6), Hand { holds: Key::new([6; 32]), ..hand.clone() }] {
            for _ in 0..3 {
                let again = exchange(&mut round, &other, addr(9), &mut entropy);
                // If every HELLO caused another, the two sides would exchange datagrams at the network's
                // speed.
                assert!(
                    !again || other.says == hand.says,
                    "a stranger's greeting is no reason to ask at once"
                );
            }
            assert!(round.answers.is_empty(), "{}", other.says);
        }
        assert!(!round.take(Moment(1), addr(9), b"junk"));
        let (_, hello) = round.datagrams(Moment(1)).remove(0);
        let retry = hand.answer(&hello, &mut entropy).unwrap();
        assert!(!round.take(Moment(1), addr(7), &retry), "from somebody who was not asked");
        for _ in 0..3 {
            exchange(&mut round, &hand, addr(9), &mut entropy);
        }
        assert!(round.is_over(Moment(1)));
    }

    #[test]
    fn the_error_without_an_answer_names_the_servers_that_were_queried() {
        let silent = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let trust = Trust::Pinned(ClusterKey([0; 32]));
        let error = status(&[silent.addr()], Duration::from_millis(50), &trust).unwrap_err();
        assert!(error.to_string().contains(&silent.addr().to_string()));
        assert!(matches!(status(&[], Duration::ZERO, &trust), Err(ClientError::NoServers)));
    }
}
