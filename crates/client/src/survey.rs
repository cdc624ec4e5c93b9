//! A survey of servers without a session: whether datagrams go both ways, how many and how fast, how long
//! they may be, which cluster and version is there, and what each server tells of itself, with its clock.
//!
//! A survey trusts nobody and remembers nothing: it asks the cluster that each server claims to be, so an
//! answer shows that the server has the key that it claims, and nothing more. It sends no secret.
//!
//! [`Target`] is what is asked of one server, without a socket; [`survey`] asks all of them at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::handshake::{self, Handshake};
use recado_proto::id::SessionId;
use recado_proto::id::{BootId, Clock, ClusterId, ClusterKey, Incarnation, MEMBERS_MAX, Moment, NodeId};
use recado_proto::packet::{Answer, AnswerKind, OptionalFields, Query, QueryId, QueryKind, Status};
use recado_proto::packet::{ToClient, ToServer};
use recado_proto::seal::Key;
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX, version};
use recado_sys::clock::MachineClock;
use recado_sys::random;
use recado_sys::sync::{BoundSocket, PeerSocket};

use super::error::ClientError;
use super::handshake_query::{self, HandshakeQuery, PATIENCE};
use super::machine::handshake::{FromServer, HandshakeClient, Identity};

/// Number of HELLOs by which losses and round trips are measured.
const HELLOS: usize = 10;
/// The interval between two of them, a little less than that between two calls of
/// [`HandshakeQuery::datagrams`].
const EVERY: Duration = Duration::from_millis(90);
/// How long an answer may take. A later one counts as lost.
const GRACE: Duration = Duration::from_millis(800);
/// The lengths of datagrams that are tried: what every path must carry; what nearly every one does, an
/// Ethernet's less the headers of a tunnel; and what a path of jumbo frames does.
pub const LENGTHS: [usize; 3] = [DATAGRAM_BASE, 1452, DATAGRAM_MAX];
/// How often each length is tried.
const TRIES: usize = 3;
/// Number of answers from which the one with the shortest round trip is taken.
const STATUSES: usize = 3;
/// Number of queries for them.
const QUERIES: usize = 9;
/// The most bytes of a release that are taken.
const RELEASE_MAX: usize = 32;

/// What was found at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// The address.
    pub addr: SocketAddr,
    /// The number of HELLOs sent there that were answered, or whose answer had the time to come.
    pub sent: usize,
    /// The round trip of each that was answered, ascending.
    pub round_trips: Vec<Duration>,
    /// True if its machine reports that no program has the port.
    pub is_closed: bool,
    /// The lengths of [`LENGTHS`] that were tried, and whether a datagram of each arrived.
    pub carried: Vec<(usize, bool)>,
    /// The version of the protocol that it speaks, if it said so.
    pub version: Option<u8>,
    /// The identity that it claims; proved, if there is a status.
    pub claim: Option<Claim>,
    /// What it told of itself.
    pub told: Option<Told>,
}

/// The identity that a server claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The server's id.
    pub node: NodeId,
    /// Its boot id: another one after each start.
    pub boot_id: BootId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's key.
    pub key: ClusterKey,
}

/// What a server told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its status.
    pub status: Status,
    /// The time from the query to the answer.
    pub round_trip: Duration,
    /// How far its wall clock is ahead of this machine's, in ms; negative: behind. It is exact to half of the
    /// round trip. None: a server of an earlier build.
    pub clock_ms: Option<i64>,
    /// How far the log's time is ahead of this machine's clock, in ms, as exactly. None: it does not lead, or
    /// as before.
    pub log_ms: Option<i64>,
    /// The servers whose packets it ignores, because it knows of a later start of them.
    pub ignored: Vec<NodeId>,
    /// The digest of what all servers must be configured with alike. None: as before.
    pub agreed: Option<u64>,
    /// The release of its program. None: as before.
    pub release: Option<String>,
}

/// Asks all servers at these addresses, and those that they name, at once. Ends when nothing more is to be
/// learnt, after 2 s as a rule, or after `timeout`. Addresses of another family than the first one's are left
/// out, and those of which nothing can be said, because they were learnt too late. Ascending by address.
///
/// # Errors
/// [`ClientError::NoServers`], or the system cannot provide a socket or randomness.
pub fn survey(servers: &[SocketAddr], timeout: Duration) -> Result<Vec<Surveyed>, ClientError> {
    let socket = handshake_query::bind(servers, PATIENCE)?;
    let clock = MachineClock::start();
    let mut survey = Survey::new(servers, clock.read(), Entropy::new(random::bytes()?));
    // The port of a dead process is reported to a connected socket alone, and at once only on one machine:
    // elsewhere the second datagram shows it.
    let given: Vec<SocketAddr> = survey.targets.keys().copied().collect();
    let mut sockets: BTreeMap<SocketAddr, PeerSocket> =
        given.into_iter().filter_map(|addr| Some((addr, connected(&socket, addr)?))).collect();
    handshake_query::run_on(&mut survey, &socket, clock, timeout)?;
    let mut found = survey.end(clock.now());
    for one in found.iter_mut().filter(|one| one.round_trips.is_empty()) {
        let hello = handshake::hello(&envelope(), 0);
        let peer = sockets.remove(&one.addr).or_else(|| connected(&socket, one.addr));
        one.is_closed = peer.is_some_and(|peer| peer.send(vec![hello.clone(), hello]).refused);
    }
    found.retain(|one| one.sent > 0 || one.is_closed);
    Ok(found)
}

/// A socket that is connected to the address, over which one datagram has gone.
fn connected(socket: &BoundSocket, addr: SocketAddr) -> Option<PeerSocket> {
    let peer = PeerSocket::connect(socket.addr().ip(), addr).ok()?;
    peer.send(vec![handshake::hello(&envelope(), 0)]);
    Some(peer)
}

fn envelope() -> Envelope {
    Envelope {
        class: Class::Handshake,
        cluster: ClusterId(0),
        session: SessionId::default(),
        node: None,
        incarnation: Incarnation(0),
        number: 0,
    }
}

/// A survey under way.
#[derive(Debug)]
struct Survey {
    /// Both clocks of this machine at the beginning.
    begun: Clock,
    entropy: Entropy,
    /// A key for this survey alone: the status is told to any.
    private: Key,
    targets: BTreeMap<SocketAddr, Target>,
    /// The number of addresses that may be added.
    room: usize,
}

/// What was sent to one server and came back.
#[derive(Debug, Default)]
struct Target {
    hellos: Vec<Sent>,
    probes: Vec<(usize, Sent)>,
    handshake: HandshakeClient,
    queries: Vec<Sent>,
    version: Option<u8>,
    answers: usize,
    told: Option<Told>,
}

/// A datagram that was sent, with the number that its answer echoes.
#[derive(Clone, Copy, Debug)]
struct Sent {
    echo: u64,
    at: Moment,
    answered: Option<Moment>,
}

impl Sent {
    fn now(echo: u64, at: Moment) -> Sent {
        Sent { echo, at, answered: None }
    }

    fn is_settled(&self, now: Moment, grace: Duration) -> bool {
        self.answered.is_some() || now.since(self.at) >= grace
    }
}

impl Survey {
    fn new(servers: &[SocketAddr], begun: Clock, mut entropy: Entropy) -> Survey {
        let family = servers.first().map(SocketAddr::is_ipv4);
        let ours = servers.iter().filter(|addr| Some(addr.is_ipv4()) == family);
        let private = Key::new(entropy.bytes());
        let targets = ours.map(|addr| (*addr, Target::default())).collect();
        Survey { begun, entropy, private, targets, room: MEMBERS_MAX }
    }

    /// What was found until `now`. What is still under way counts neither as answered nor as lost.
    fn end(self, now: Moment) -> Vec<Surveyed> {
        // A survey that ends before an answer has all its time still tells which server is silent.
        let grace = GRACE.min(now.since(self.begun.now) / 2);
        self.targets.into_iter().map(|(addr, target)| target.end(addr, now, grace)).collect()
    }
}

impl HandshakeQuery for Survey {
    fn datagrams(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for (addr, target) in &mut self.targets {
            let datagrams = target.datagrams(now, &self.private, &mut self.entropy);
            all.extend(datagrams.into_iter().map(|bytes| (*addr, bytes)));
        }
        all
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(target) = self.targets.get_mut(&from) else { return false };
        let (first, members) = target.take(now, self.begun, datagram);
        let mut more = first;
        for member in members.into_iter().filter(|member| member.is_ipv4() == from.is_ipv4()) {
            if self.room > 0 && !self.targets.contains_key(&member) {
                self.room -= 1;
                self.targets.insert(member, Target::default());
                more = true;
            }
        }
        more
    }

    fn is_over(&self, now: Moment) -> bool {
        self.targets.values().all(|target| target.is_done(now))
    }
}

impl Target {
    fn is_heard(&self) -> bool {
        self.hellos.iter().any(|hello| hello.answered.is_some())
    }

    fn carries(&self, length: usize) -> bool {
        self.probes.iter().any(|(tried, sent)| *tried == length && sent.answered.is_some())
    }

    fn tries(&self, length: usize) -> usize {
        self.probes.iter().filter(|(tried, _)| *tried == length).count()
    }

    fn datagrams(&mut self, now: Moment, private: &Key, entropy: &mut Entropy) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let is_due = |last: Option<&Sent>| last.is_none_or(|last| now.since(last.at) >= EVERY);
        if self.hellos.len() < HELLOS && is_due(self.hellos.last()) {
            let echo = entropy.number();
            self.hellos.push(Sent::now(echo, now));
            all.push(handshake::hello(&envelope(), echo));
        }
        if self.is_heard() && is_due(self.probes.last().map(|(_, sent)| sent)) {
            for length in LENGTHS {
                if !self.carries(length) && self.tries(length) < TRIES {
                    let echo = entropy.number();
                    self.probes.push((length, Sent::now(echo, now)));
                    all.push(version::probe(echo, length));
                }
            }
        }
        let Some(greeting) = self.handshake.greeting() else {
            // Its echo is its own, so that the measured HELLOs stay one answer each.
            if self.hellos.len() < HELLOS {
                all.push(self.handshake.hello(ClusterId(0), entropy));
            }
            return all;
        };
        if self.answers < STATUSES && self.queries.len() < QUERIES && is_due(self.queries.last()) {
            let identity = Identity {
                cluster: greeting.cluster,
                cluster_key: greeting.cluster_key,
                private: private.clone(),
            };
            let number = self.queries.len() as u64 + 1;
            let query = ToServer::Query(Query::new(QueryId(number), QueryKind::Status));
            self.queries.push(Sent::now(number, now));
            let initiation = self.handshake.initiation(now, &identity, &query, entropy);
            all.push(initiation.unwrap_or_else(|| self.handshake.hello(greeting.cluster, entropy)));
        }
        all
    }

    /// Takes a datagram. Returns true if it is the first greeting, and the addresses that it names.
    fn take(&mut self, now: Moment, begun: Clock, datagram: &[u8]) -> (bool, Vec<SocketAddr>) {
        let nothing = (false, Vec::new());
        if let Some((echo, version)) = version::probed(datagram) {
            let mut asked = self.hellos.iter_mut().chain(self.probes.iter_mut().map(|(_, sent)| sent));
            if let Some(sent) = asked.find(|sent| sent.echo == echo) {
                sent.answered.get_or_insert(now);
                self.version = Some(version);
            }
            return nothing;
        }
        if let Ok((_, Handshake::Retry(retry))) = Handshake::read(datagram)
            && let Some(hello) = self.hellos.iter_mut().find(|hello| hello.echo == retry.echo)
        {
            hello.answered.get_or_insert(now);
            return nothing;
        }
        match self.handshake.take(now, datagram) {
            None => nothing,
            Some(FromServer::Greeting(_)) => (self.queries.is_empty(), Vec::new()),
            Some(FromServer::Answer(opened)) => {
                let answers = opened.packets.into_iter();
                (false, answers.flat_map(|packet| self.on_answer(now, begun, packet)).collect())
            }
        }
    }

    fn on_answer(&mut self, now: Moment, begun: Clock, packet: ToClient) -> Vec<SocketAddr> {
        let ToClient::Answer(Answer { id, kind: AnswerKind::Status(status), options, .. }) = packet else {
            return Vec::new();
        };
        let Some(query) = self.queries.iter_mut().find(|query| query.echo == id.0) else {
            return Vec::new();
        };
        query.answered.get_or_insert(now);
        self.answers += 1;
        let round_trip = now.since(query.at);
        let members = status.members.iter().map(|(_, addr)| *addr).collect();
        if self.told.as_ref().is_none_or(|told| round_trip < told.round_trip) {
            // The server read its clock half a round trip ago, as far as anybody can tell from here.
            let passed = now.since(begun.now).saturating_sub(round_trip / 2);
            let ours = begun.unix_ms.saturating_add(passed.as_millis() as u64);
            let ahead = |theirs: u64| i64::try_from(i128::from(theirs) - i128::from(ours)).ok();
            let number =
                |tag| options.get(tag).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
            self.told = Some(Told {
                round_trip,
                clock_ms: number(OptionalFields::WALL_CLOCK).and_then(ahead),
                log_ms: number(OptionalFields::LOG_CLOCK).and_then(ahead),
                ignored: options.get(OptionalFields::IGNORED).map(nodes).unwrap_or_default(),
                agreed: number(OptionalFields::AGREED),
                release: options.get(OptionalFields::RELEASE).and_then(release),
                status,
            });
        }
        members
    }

    fn is_done(&self, now: Moment) -> bool {
        if self.hellos.len() < HELLOS || !self.hellos.iter().all(|hello| hello.is_settled(now, GRACE)) {
            return false;
        }
        if !self.is_heard() {
            return true;
        }
        let lengths = LENGTHS.iter().all(|length| {
            self.carries(*length)
                || self.tries(*length) >= TRIES
                    && self.probes.iter().all(|(tried, sent)| tried != length || sent.is_settled(now, GRACE))
        });
        let answers = self.answers >= STATUSES
            || self.handshake.greeting().is_none()
            || self.queries.len() >= QUERIES && self.queries.iter().all(|query| query.is_settled(now, GRACE));
        lengths && answers
    }

    fn end(self, addr: SocketAddr, now: Moment, grace: Duration) -> Surveyed {
        let mut round_trips: Vec<_> =
            self.hellos.iter().filter_map(|hello| Some(hello.answered?.since(hello.at))).collect();
        round_trips.sort_unstable();
        let is_known = |length: usize| {
            let mut tries = self.probes.iter().filter(|(tried, _)| *tried == length);
            self.carries(length)
                || self.tries(length) > 0 && tries.all(|(_, sent)| sent.is_settled(now, grace))
        };
        let tried = LENGTHS.iter().filter(|length| is_known(**length));
        Surveyed {
            addr,
            sent: self.hellos.iter().filter(|hello| hello.is_settled(now, grace)).count(),
            round_trips,
            is_closed: false,
            carried: tried.map(|length| (*length, self.carries(*length))).collect(),
            version: self.version.or(self.handshake.other_version()),
            claim: self.handshake.greeting().map(|greeting| Claim {
                node: greeting.server,
                boot_id: greeting.boot_id,
                cluster: greeting.cluster,
                key: ClusterKey(greeting.cluster_key),
            }),
            told: self.told,
        }
    }
}

/// The servers that are named, of which a cluster has a few.
fn nodes(bytes: &[u8]) -> Vec<NodeId> {
    let (ids, _) = bytes.as_chunks();
    ids.iter().take(MEMBERS_MAX).map(|id| NodeId(u16::from_be_bytes(*id))).collect()
}

/// The release that a server names, if a terminal can show it.
fn release(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = text.len() <= RELEASE_MAX && text.chars().all(|letter| letter.is_ascii_graphic());
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use recado_proto::codec;
    use recado_proto::envelope::Header;
    use recado_proto::id::{Op, View};
    use recado_proto::noise::{self, Prologue};
    use recado_proto::packet::{Position, RoleName};

    use super::*;

    /// The round trip of the test's network.
    const ROUND_TRIP: u64 = 10_000;

    fn addr(id: u16) -> SocketAddr {
        ([192, 0, 2, id as u8], 10_097).into()
    }

    /// A server of a cluster, played by the test.
    struct Hand {
        node: u16,
        members: Vec<(NodeId, SocketAddr)>,
        /// Its wall clock when the survey begins, in ms.
        clock_ms: u64,
        /// The longest datagram that arrives there.
        carries: usize,
        /// True if each second datagram is lost on the way there.
        loses: bool,
        speaks: u8,
        received: usize,
    }

    impl Hand {
        fn new(node: u16) -> Hand {
            let members = vec![(NodeId(1), addr(1)), (NodeId(2), addr(2))];
            let (carries, speaks) = (DATAGRAM_MAX, recado_proto::envelope::VERSION);
            Hand { node, members, clock_ms: 5_000, carries, loses: false, speaks, received: 0 }
        }

        fn envelope(&self) -> Envelope {
            Envelope { cluster: ClusterId(7), node: Some(NodeId(self.node)), number: 1, ..envelope() }
        }

        fn answer(&mut self, now: Moment, datagram: &[u8], entropy: &mut Entropy) -> Option<Vec<u8>> {
            self.received += 1;
            if datagram.len() > self.carries || (self.loses && self.received.is_multiple_of(2)) {
                return None;
            }
            let holds = Key::new([7; 32]);
            let boot_id = BootId([3; 16]);
            match Handshake::read(datagram) {
                _ if self.speaks != recado_proto::envelope::VERSION => {
                    let echo = &datagram[datagram.len().min(41)..][..8];
                    Some([&[0x72, 0x65, 0, 0][..], echo, &[self.speaks]].concat())
                }
                Err(_) => version::answer(datagram),
                Ok((_, Handshake::Hello(echo))) => {
                    let cluster_key = noise::public(&holds);
                    let retry = handshake::Retry { echo, cookie: [9; 16], boot_id, cluster_key };
                    Some(handshake::retry(&self.envelope(), &retry))
                }
                Ok((_, Handshake::Initiation { message, .. })) => {
                    let prologue = Prologue { cluster: ClusterId(7), server: NodeId(self.node), boot_id };
                    let (_, load, reply) = noise::answer(prologue, &holds, message, entropy).ok()?;
                    let packets = handshake::unload(&load).ok()?;
                    let Some(ToServer::Query(query)) = packets.first() else { return None };
                    let clock_ms = self.clock_ms + now.0 / 1000;
                    let options = OptionalFields::NONE
                        .with(OptionalFields::WALL_CLOCK, clock_ms.to_be_bytes().to_vec())
                        .with(OptionalFields::AGREED, 77_u64.to_be_bytes().to_vec())
                        .with(OptionalFields::RELEASE, b"1.2.3".to_vec())
                        .with(OptionalFields::LOG_CLOCK, (clock_ms + 70_000).to_be_bytes().to_vec())
                        .with(OptionalFields::IGNORED, vec![0, 2, 1, 2]);
                    let kind = AnswerKind::Status(self.status());
                    let answer = Answer { id: query.id, applied: Position::default(), kind, options };
                    let packet = codec::encode(&ToClient::Answer(answer));
                    Some(handshake::answer(&self.envelope(), &reply, &Header::default(), &[packet]))
                }
                Ok(_) => None,
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

    /// Surveys `given` on virtual time, as `run_on` does, and returns what was found and how long it took.
    fn run(given: &[SocketAddr], hands: &mut [Hand]) -> (Vec<Surveyed>, Moment) {
        let begun = Clock { now: Moment(0), unix_ms: 5_000 };
        let mut survey = Survey::new(given, begun, Entropy::new([1; 32]));
        let mut entropy = Entropy::new([2; 32]);
        let (mut now, mut ask_at) = (Moment(0), Moment(0));
        let mut under_way: Vec<(Moment, SocketAddr, Vec<u8>)> = Vec::new();
        while !survey.is_over(now) {
            assert!(now < Moment(5_000_000), "it ends by itself: {survey:?}");
            if now >= ask_at {
                ask_at = now + Duration::from_millis(100);
                for (to, datagram) in survey.datagrams(now) {
                    let hand = hands.iter_mut().find(|hand| addr(hand.node) == to);
                    let there = Moment(now.0 + ROUND_TRIP / 2);
                    let answer = hand.and_then(|hand| hand.answer(there, &datagram, &mut entropy));
                    under_way.extend(answer.map(|answer| (Moment(now.0 + ROUND_TRIP), to, answer)));
                }
            }
            now = Moment(now.0 + 1_000);
            for (_, from, datagram) in under_way.extract_if(.., |(at, ..)| *at <= now) {
                if survey.take(now, from, &datagram) {
                    ask_at = now;
                }
            }
        }
        (survey.end(now), now)
    }

    #[test]
    fn what_is_under_way_when_the_time_is_over_is_not_lost() {
        let begun = Clock { now: Moment(0), unix_ms: 5_000 };
        let mut entropy = Entropy::new([2; 32]);
        let mut hand = Hand::new(1);
        let mut survey = Survey::new(&[addr(1), addr(2)], begun, Entropy::new([1; 32]));
        for (to, datagram) in survey.datagrams(Moment(0)) {
            let answer = hand.answer(Moment(0), &datagram, &mut entropy);
            if let Some(answer) = answer.filter(|_| to == addr(1)) {
                survey.take(Moment(ROUND_TRIP), to, &answer);
            }
        }
        // The second HELLO of each, and the first probes, are sent at the end.
        let end = Moment(300_000);
        survey.datagrams(end);
        let found = survey.end(end);
        assert_eq!((found[0].sent, found[0].round_trips.len()), (1, 1));
        assert!(found[0].carried.is_empty(), "{found:?}");
        assert_eq!((found[1].sent, found[1].round_trips.len()), (1, 0), "the first had its time");
    }

    #[test]
    fn of_an_address_that_was_learnt_at_the_end_nothing_is_known() {
        let begun = Clock { now: Moment(0), unix_ms: 5_000 };
        let mut survey = Survey::new(&[addr(1)], begun, Entropy::new([1; 32]));
        survey.datagrams(Moment(0));
        survey.targets.insert(addr(2), Target::default());
        let end = Moment(1_500_000);
        survey.datagrams(end);
        let found = survey.end(end);
        assert_eq!(
            found.iter().map(|one| (one.addr, one.sent)).collect::<Vec<_>>(),
            [(addr(1), 1), (addr(2), 0)]
        );
    }

    #[test]
    fn one_address_is_enough_to_find_and_measure_all_servers_in_two_seconds() {
        let (found, took) = run(&[addr(1)], &mut [Hand::new(1), Hand::new(2)]);
        assert!(took < Moment(2_500_000), "{took:?}");
        assert_eq!(found.iter().map(|one| one.addr).collect::<Vec<_>>(), [addr(1), addr(2)]);
        for one in found {
            assert_eq!(
                (one.sent, one.round_trips),
                (HELLOS, vec![Duration::from_micros(ROUND_TRIP); HELLOS])
            );
            assert_eq!(one.carried, LENGTHS.map(|length| (length, true)));
            assert_eq!(one.version, Some(recado_proto::envelope::VERSION));
            let told = one.told.unwrap();
            assert_eq!((told.agreed, told.release.as_deref()), (Some(77), Some("1.2.3")));
            assert!(told.clock_ms.unwrap().abs() <= 1, "{:?}", told.clock_ms);
            assert!((told.log_ms.unwrap() - 70_000).abs() <= 1, "{:?}", told.log_ms);
            assert_eq!(told.ignored, [NodeId(2), NodeId(258)]);
            let claim = one.claim.unwrap();
            assert_eq!((claim.cluster, claim.key.0), (ClusterId(7), noise::public(&Key::new([7; 32]))));
        }
    }

    #[test]
    fn the_offset_of_a_clock_is_its_difference_without_the_way() {
        for (clock_ms, ahead) in [(65_000, 60_000), (2_000, -3_000)] {
            let (found, _) = run(&[addr(1)], &mut [Hand { clock_ms, ..Hand::new(1) }, Hand::new(2)]);
            let seen = found[0].told.as_ref().unwrap().clock_ms.unwrap();
            assert!((seen - ahead).abs() <= 1, "{seen} of {ahead}");
        }
    }

    #[test]
    fn a_silent_server_is_one_that_has_sent_no_answer_and_the_others_are_surveyed_all_the_same() {
        let (found, took) = run(&[addr(1)], &mut [Hand::new(1)]);
        assert!(took < Moment(3_000_000), "{took:?}");
        assert_eq!((found[1].sent, &found[1].round_trips[..]), (HELLOS, &[][..]));
        assert!(found[1].claim.is_none() && found[1].told.is_none() && found[1].carried.is_empty());
        assert!(found[0].told.is_some());
        let (found, took) = run(&[addr(1)], &mut []);
        assert!(found[0].round_trips.is_empty() && took < Moment(2_000_000), "{took:?}");
    }

    #[test]
    fn losses_are_counted_and_what_has_losses_is_still_measured() {
        let (found, _) = run(&[addr(1)], &mut [Hand { loses: true, ..Hand::new(1) }, Hand::new(2)]);
        let answered = found[0].round_trips.len();
        assert!((1..HELLOS).contains(&answered), "{answered}");
        assert!(found[0].told.is_some());
    }

    #[test]
    fn the_lengths_that_the_path_does_not_carry_are_found() {
        let (found, _) = run(&[addr(1)], &mut [Hand { carries: 1452, ..Hand::new(1) }, Hand::new(2)]);
        assert_eq!(found[0].carried, [(1200, true), (1452, true), (8952, false)]);
        // With less than a handshake needs there is a greeting, and no status.
        let (found, took) = run(&[addr(1)], &mut [Hand { carries: 1199, ..Hand::new(1) }]);
        assert_eq!(found[0].carried, LENGTHS.map(|length| (length, false)));
        assert!(found[0].claim.is_some() && found[0].told.is_none() && took < Moment(3_000_000), "{took:?}");
    }

    #[test]
    fn a_server_of_another_version_is_heard_and_named() {
        let (found, _) = run(&[addr(1)], &mut [Hand { speaks: 2, ..Hand::new(1) }]);
        assert_eq!((found[0].version, found[0].round_trips.len()), (Some(2), HELLOS));
        assert!(found[0].claim.is_none() && found[0].told.is_none());
    }

    #[test]
    fn a_server_adds_at_most_as_many_addresses_as_a_cluster_has_members_and_none_of_another_family() {
        let mut members: Vec<_> = (2..9).map(|id| (NodeId(id), addr(id))).collect();
        members.push((NodeId(9), "[2001:db8::1]:1".parse().unwrap()));
        let others: Vec<_> = (10..19).map(|id| (NodeId(id), addr(id))).collect();
        let second = Hand { members: others, ..Hand::new(2) };
        let (found, _) = run(&[addr(1)], &mut [Hand { members, ..Hand::new(1) }, second]);
        assert_eq!(found.len(), 1 + MEMBERS_MAX);
        assert!(found.iter().all(|one| one.addr.is_ipv4()));
    }

    #[test]
    fn a_release_that_a_terminal_might_obey_is_left_out() {
        assert_eq!(release(b"0.1.0-rc.1+x").as_deref(), Some("0.1.0-rc.1+x"));
        for wrong in [&b"\x1b[2J"[..], b"a b", b"\xff", &[b'a'; 33]] {
            assert_eq!(release(wrong), None);
        }
    }

    #[test]
    fn a_port_without_a_process_is_seen_on_the_same_machine() {
        let gone = BoundSocket::bind(([127, 0, 0, 1], 0).into(), PATIENCE).unwrap().addr();
        let found = survey(&[gone], Duration::from_millis(300)).unwrap();
        assert!(found[0].is_closed && found[0].round_trips.is_empty(), "{found:?}");
        assert!(matches!(survey(&[], Duration::ZERO), Err(ClientError::NoServers)));
    }
}
