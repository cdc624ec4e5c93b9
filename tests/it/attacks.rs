//! Attacks on running servers and clients. The attacker sees every datagram on a wire and can send from any
//! address, but has no key. No attack may have an effect.
//!
//! The servers' counters show how they treated an attack. The attacker's own sockets show that a server sent
//! nothing: they are read after a later request was answered.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use parking_lot::Mutex;
use recado::config::file::ServerFile;
use recado::config::secret::ClusterSecret;
use recado_client::machine::handshake::{FromServer, HandshakeClient, Identity};
use recado_client::{
    self, AdminChange, Client, ClusterKey, ConnectionEvent, HistoryRange, Incoming, Listing, Options,
    Queries as _, Trust,
};
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope, Header, OUTER_LEN, PeerHello, seal};
use recado_proto::handshake::{self, Handshake, Retry};
use recado_proto::id::{
    BootId, ClusterId, DeviceId, DeviceKey, Incarnation, Moment, Name, NodeId, Op, Seq, SessionId, Topic,
    View,
};
use recado_proto::noise;
use recado_proto::packet::{
    Connect, Coordinator, OptionalFields, RefusedDatagram, Send, ToClient, ToPeer, ToServer,
};
use recado_proto::seal::{ClusterKeys, Key};
use recado_proto::{DATAGRAM_BASE, codec};

use crate::cluster::{Cluster, PATIENCE, Port, lock_out_other_clusters, primary_of};
use crate::load::{connect, plain, round_trip};
use crate::relay::{Direction, PassingDatagram, Relay};
use crate::rng::Rng;

/// The number of repetitions of each attack.
const TIMES: usize = 20;

/// A datagram that passed the relay.
#[derive(Clone, Debug)]
struct RecordedDatagram {
    way: Direction,
    client: SocketAddr,
    bytes: Vec<u8>,
}

impl RecordedDatagram {
    fn class(&self) -> Option<Class> {
        Envelope::peek(&self.bytes).ok().map(|envelope| envelope.class)
    }

    fn is_initiation(&self) -> bool {
        matches!(Handshake::read(&self.bytes), Ok((_, Handshake::Initiation { .. })))
    }

    fn is_answer(&self) -> bool {
        matches!(Handshake::read(&self.bytes), Ok((_, Handshake::Answer(_))))
    }
}

/// All datagrams that passed the relay, in order.
#[derive(Clone, Debug, Default)]
struct Recording(Arc<Mutex<Vec<RecordedDatagram>>>);

impl Recording {
    fn take(&self, passed: &PassingDatagram<'_>) {
        let PassingDatagram { way, client, bytes } = *passed;
        self.0.lock().push(RecordedDatagram { way, client, bytes: bytes.to_vec() });
    }

    fn all(&self, which: impl Fn(&RecordedDatagram) -> bool) -> Vec<RecordedDatagram> {
        self.0.lock().iter().filter(|seen| which(seen)).cloned().collect()
    }
}

/// A cluster, and a relay to its primary that records the traffic.
struct AttackTest {
    cluster: Cluster,
    primary: NodeId,
    relay: Relay,
    tape: Recording,
    views: Vec<View>,
}

impl AttackTest {
    fn set() -> AttackTest {
        let cluster = Cluster::steady(3);
        let primary = cluster.wait_primary();
        let tape = Recording::default();
        let taking = tape.clone();
        let relay = Relay::to(cluster.member(primary).client, move |passed| taking.take(passed));
        let views = views(&cluster);
        AttackTest { cluster, primary, relay, tape, views }
    }

    /// Connects a client that reaches the primary only through the relay.
    fn over_the_wire(&self, profile: &str) -> Client {
        let servers = vec![self.relay.address()];
        // A client with a pinned key remembers no other addresses of the cluster, so it cannot bypass the
        // relay.
        let key = noise::public(&ClusterKeys::new(self.cluster.secret()).cluster_private());
        let options = Options::new(name(profile), servers, self.cluster.dir().join("clients"));
        let client = Client::connect(options.trust(Trust::Pinned(ClusterKey(key)))).unwrap();
        let primary = client.connection().expect("it is connected").primary;
        assert_eq!(primary, self.relay.address(), "it goes by another way");
        client
    }

    fn server(&self) -> SocketAddr {
        self.relay.server()
    }

    /// Waits until the primary has refused `more` datagrams beyond `before` for this reason.
    fn wait_refused(&self, reason: RefusedDatagram, before: u64, more: usize) {
        wait_refused(&self.cluster, self.primary, reason, before, more);
    }

    fn refused(&self, reason: RefusedDatagram) -> u64 {
        refused(&self.cluster, self.primary, reason)
    }

    /// Checks that the attack caused no election and that the cluster still serves.
    fn end(self) {
        assert_eq!(self.cluster.wait_ready(), self.primary);
        assert_eq!(views(&self.cluster), self.views, "an attack is no reason to elect");
        round_trip(&self.cluster, "after the attack");
    }
}

fn views(cluster: &Cluster) -> Vec<View> {
    cluster.statuses().into_iter().map(|status| status.expect("it answers").view).collect()
}

fn refused(cluster: &Cluster, node: NodeId, reason: RefusedDatagram) -> u64 {
    let mut counts = Vec::new();
    let answered = cluster.poll(PATIENCE, || {
        let status = cluster.status(node);
        let found = status.is_some();
        counts = status.map(|status| status.refused).unwrap_or_default();
        found
    });
    assert!(answered, "{node} answers no more");
    counts.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count)
}

fn wait_refused(cluster: &Cluster, node: NodeId, reason: RefusedDatagram, before: u64, more: usize) {
    let mut now = 0;
    let counted = cluster.poll(PATIENCE, || {
        now = refused(cluster, node, reason);
        now >= before + more as u64
    });
    assert!(counted, "{node} refused {} for {reason:?}, of {more}", now - before);
}

/// The attacker: a socket at another address, and the number of bytes that it sent.
struct Attacker {
    socket: UdpSocket,
    sent: usize,
}

impl Attacker {
    fn at(ip: &str) -> Attacker {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Attacker { socket, sent: 0 }
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.sent += self.socket.send_to(bytes, to).unwrap();
    }

    /// Returns the datagrams that have arrived.
    fn received(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4_096];
        let next = || self.socket.recv_from(&mut buffer).ok().map(|(length, _)| buffer[..length].to_vec());
        std::iter::from_fn(next).collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Sends a text from `from` to an inbox. The request is acknowledged when this returns.
fn tell(from: &Client, to: &str, text: &str) -> Op {
    from.send(Some(Topic::Inbox(name(to))), plain(text.to_owned())).unwrap().wait(PATIENCE).unwrap()
}

/// Checks that the client's next notification is this one.
fn expect_next(client: &Client, op: Op, text: &str) {
    match client.notifications().recv_timeout(PATIENCE) {
        Ok(Incoming::Notification(notification)) => {
            assert_eq!((notification.op, &*notification.content.body.as_text()), (op, text));
            client.ack(op).unwrap();
        }
        other => panic!("{text:?} was to come as {op}: {other:?}"),
    }
}

fn has_ended(client: &Client) -> bool {
    client.connection_events().try_iter().any(|event| matches!(event, ConnectionEvent::Ended(_)))
}

#[test]
fn a_connect_with_a_cookie_of_another_address_opens_nothing() {
    let _alone = lock_out_other_clusters();
    let stage = AttackTest::set();
    let mallory = name("mallory");
    let mut entropy = Entropy::new([7; 32]);
    let identity = Identity {
        cluster: stage.cluster.id,
        cluster_key: noise::public(&ClusterKeys::new(stage.cluster.secret()).cluster_private()),
        private: Key::new(entropy.bytes()),
    };
    let device = DeviceId { key: DeviceKey(noise::public(&identity.private)), slot: 0 };
    let connect = Connect {
        device,
        profile: mallory.clone(),
        receives: true,
        nonce: entropy.number(),
        fresh: true,
        code: None,
        invite: None,
        aeads: 0,
        options: OptionalFields::NONE,
    };

    // The attacker gets a cookie at an address where it receives, as any client may ...
    let mut honest = Attacker::at("127.0.0.1");
    let mut initiator = HandshakeClient::default();
    honest.send(stage.server(), &initiator.hello(stage.cluster.id, &mut entropy));
    let mut retry = Vec::new();
    assert!(stage.cluster.poll(PATIENCE, || {
        retry = honest.received();
        !retry.is_empty()
    }));
    assert!(retry[0].len() <= honest.sent, "{} for {}", retry[0].len(), honest.sent);
    assert!(matches!(initiator.take(Moment(0), &retry[0]), Some(FromServer::Greeting(_))));
    let initiation =
        initiator.initiation(Moment(0), &identity, &ToServer::Connect(connect), &mut entropy).unwrap();

    // ... and uses it at addresses where it does not: another port of the host, and another host.
    let before = stage.refused(RefusedDatagram::Cookie);
    let mut spoofed = [Attacker::at("127.0.0.1"), Attacker::at("127.0.9.9")];
    for attacker in &mut spoofed {
        (0..TIMES).for_each(|_| attacker.send(stage.server(), &initiation));
    }
    stage.wait_refused(RefusedDatagram::Cookie, before, 2 * TIMES);
    assert!(spoofed.iter().all(|attacker| attacker.received().is_empty()), "a spoofed CONNECT is answered");
    assert_eq!(honest.received(), Vec::<Vec<u8>>::new(), "the owner of the cookie is answered");
    let someone = connect_directly(&stage.cluster, "sam");
    let people = someone.list(Listing::People).unwrap();
    assert!(!format!("{people:?}").contains("mallory"), "a spoofed CONNECT claimed a name: {people:?}");
    stage.end();
}

fn connect_directly(cluster: &Cluster, profile: &str) -> Client {
    connect(cluster, &name(profile), true)
}

#[test]
fn a_connect_sent_again_opens_and_closes_nothing() {
    let _alone = lock_out_other_clusters();
    let stage = AttackTest::set();
    let sam = connect_directly(&stage.cluster, "sam");
    let rita = stage.over_the_wire("rita");
    let session = rita.connection().expect("it is connected").session;
    expect_next(&rita, tell(&sam, "rita", "before"), "before");
    let first_initiations = stage.tape.all(|seen| seen.way == Direction::ToServer && seen.is_initiation());
    assert!(!first_initiations.is_empty());

    // The replay comes at once and from her address: her stream continues in the same session.
    replay_initiations(&stage, &first_initiations);
    expect_next(&rita, tell(&sam, "rita", "after one"), "after one");
    assert_eq!(rita.connection().map(|connection| connection.session), Some(session));
    assert!(!has_ended(&rita));

    // The device has connected anew from another port: its current session continues.
    drop(rita);
    let rita = stage.over_the_wire("rita");
    let session = rita.connection().expect("it is connected").session;
    let known_to = rita.list(Listing::Devices).unwrap();
    replay_initiations(&stage, &first_initiations);
    expect_next(&rita, tell(&sam, "rita", "after two"), "after two");
    tell(&rita, "sam", "she can send too");
    assert_eq!(rita.connection().map(|connection| connection.session), Some(session));
    assert!(!has_ended(&rita));
    let now_known = rita.list(Listing::Devices).unwrap();
    assert_eq!(now_known.len(), known_to.len(), "{now_known:?}");

    // A replay from another host is not even answered.
    let before = stage.refused(RefusedDatagram::Cookie);
    let mut elsewhere = Attacker::at("127.0.9.9");
    first_initiations.iter().for_each(|initiation| elsewhere.send(stage.server(), &initiation.bytes));
    stage.wait_refused(RefusedDatagram::Cookie, before, first_initiations.len());
    assert_eq!(elsewhere.received(), Vec::<Vec<u8>>::new());
    expect_next(&rita, tell(&sam, "rita", "after all"), "after all");
    stage.end();
}

/// Sends each INITIATION again from its original address, and waits until the server has processed it. The
/// server answers, because the cookie is valid.
fn replay_initiations(stage: &AttackTest, initiations: &[RecordedDatagram]) {
    let answers = |client| {
        stage
            .tape
            .all(|seen| seen.way == Direction::ToClient && seen.client == client && seen.is_answer())
            .len()
    };
    for initiation in initiations {
        let before = answers(initiation.client);
        stage.relay.send_as_client(initiation.client, &initiation.bytes);
        let answered = stage.cluster.poll(PATIENCE, || answers(initiation.client) > before);
        assert!(answered, "the INITIATION sent again was not dealt with");
    }
}

#[test]
fn datagrams_of_a_session_sent_again_or_forged_are_met_with_silence() {
    let _alone = lock_out_other_clusters();
    let mut rng = crate::rng("session datagrams");
    let stage = AttackTest::set();
    let rita = connect_directly(&stage.cluster, "rita");
    let sam = stage.over_the_wire("sam");
    let (session, at) =
        (sam.connection().expect("it is connected").session, client_port(&stage, Class::Client));
    let one = tell(&sam, "rita", "one");

    // Everything that sam sent so far, sent again: from his address, and from another host.
    let said = stage.tape.all(|seen| seen.way == Direction::ToServer && seen.class() == Some(Class::Client));
    let before = stage.refused(RefusedDatagram::Repeated);
    let mut elsewhere = Attacker::at("127.0.9.9");
    for seen in &said {
        stage.relay.send_as_client(seen.client, &seen.bytes);
        elsewhere.send(stage.server(), &seen.bytes);
    }
    stage.wait_refused(RefusedDatagram::Repeated, before, 2 * said.len());
    assert_eq!(elsewhere.received(), Vec::<Vec<u8>>::new(), "a repetition is answered");

    // Forged datagrams with his session id, which is readable on the wire, but without his key.
    let before = stage.refused(RefusedDatagram::Seal);
    for n in 0..TIMES as u64 {
        let forged = forged_send(stage.cluster.id, session, 1_000_000 + n, random_key(&mut rng));
        stage.relay.send_as_client(at, &forged);
        elsewhere.send(stage.server(), &forged);
    }
    stage.wait_refused(RefusedDatagram::Seal, before, 2 * TIMES);
    assert_eq!(elsewhere.received(), Vec::<Vec<u8>>::new(), "a forgery is answered");

    let two = tell(&sam, "rita", "two");
    expect_next(&rita, one, "one");
    expect_next(&rita, two, "two");

    // A genuine datagram, held back and forwarded from another host: the server accepts it, but sends there
    // at most a path challenge that is no longer than the datagram. Datagrams for sam still go to his own
    // address.
    stage.relay.hold(true);
    let heard = stage.tape.all(|seen| seen.way == Direction::ToServer).len();
    let three_text = "three ".repeat(50);
    let receipt = sam.send(Some(Topic::Inbox(name("rita"))), plain(three_text.clone())).unwrap();
    let mut held = Vec::new();
    assert!(stage.cluster.poll(PATIENCE, || {
        held = stage.tape.all(|seen| seen.way == Direction::ToServer).split_off(heard);
        held.iter().any(|seen| seen.bytes.len() > three_text.len())
    }));
    let mut thief = Attacker::at("127.0.9.8");
    held.iter().for_each(|seen| thief.send(stage.server(), &seen.bytes));
    let three = receipt.wait(PATIENCE).unwrap();
    let mut drawn = Vec::new();
    assert!(stage.cluster.poll(PATIENCE, || {
        drawn.extend(thief.received());
        !drawn.is_empty()
    }));
    let long = "for sam alone ".repeat(60);
    expect_next(&sam, tell(&rita, "sam", &long), &long);
    stage.relay.hold(false);
    let four = tell(&sam, "rita", "four");
    drawn.extend(thief.received());
    assert!(drawn.len() <= held.len(), "{} datagrams for {}", drawn.len(), held.len());
    for datagram in &drawn {
        let most = held.iter().map(|seen| seen.bytes.len()).max().unwrap_or(0);
        assert!(datagram.len() <= most.min(three_text.len()), "{} bytes: no mere question", datagram.len());
    }
    expect_next(&rita, three, &three_text);
    expect_next(&rita, four, "four");
    assert_eq!(sam.connection().map(|connection| connection.session), Some(session));
    drop((rita, sam));
    stage.end();
}

/// Returns the address from which a client behind the relay sent its last datagram of this class.
fn client_port(stage: &AttackTest, class: Class) -> SocketAddr {
    let said = stage.tape.all(|seen| seen.way == Direction::ToServer && seen.class() == Some(class));
    said.last().expect("it spoke").client
}

fn random_key(rng: &mut Rng) -> Key {
    Key::new(std::array::from_fn(|_| rng.next() as u8))
}

fn forged_send(cluster: ClusterId, session: SessionId, number: u64, key: Key) -> Vec<u8> {
    let mut keys = key.into();
    let send = Send {
        seq: Seq(2),
        answered_below: Seq(1),
        topic: Some(Topic::Inbox(name("rita"))),
        content: plain("forged".into()),
        nonce: 1,
        options: OptionalFields::NONE,
    };
    let envelope =
        Envelope { class: Class::Client, cluster, session, node: None, incarnation: Incarnation(0), number };
    seal(&mut keys, &envelope, &Header::default(), &[codec::encode(&ToServer::Send(send))])
}

#[test]
fn a_client_follows_no_forged_server() {
    let _alone = lock_out_other_clusters();
    let mut rng = crate::rng("forged servers");
    let stage = AttackTest::set();
    let sam = connect_directly(&stage.cluster, "sam");
    let rita = stage.over_the_wire("rita");
    expect_next(&rita, tell(&sam, "rita", "before"), "before");
    let connection = rita.connection().expect("it is connected");
    let at = client_port(&stage, Class::Client);

    let trap = Attacker::at("127.0.0.1");
    let trapped = trap.socket.local_addr().unwrap();
    let coordinator = |view| {
        let members = stage.cluster.nodes().into_iter().map(|node| (node, trapped)).collect();
        codec::encode(&ToClient::Coordinator(Coordinator::new(view, members)))
    };
    let heard = stage.tape.all(|seen| seen.way == Direction::ToClient && seen.class() == Some(Class::Client));
    assert!(!heard.is_empty());
    for n in 0..TIMES as u64 {
        for node in stage.cluster.nodes() {
            let mut envelope = Envelope {
                class: Class::Client,
                cluster: stage.cluster.id,
                session: connection.session,
                node: Some(node),
                incarnation: Incarnation(1),
                number: 1_000_000 + n,
            };
            let view = View::new(1_000 + n, node);
            let header = Header { ack: None, view };
            let mut keys = random_key(&mut rng).into();
            stage.relay.send_as_server(at, &seal(&mut keys, &envelope, &header, &[coordinator(view)]));
            // Forged replies to a handshake, although she has none in progress.
            envelope.class = Class::Handshake;
            envelope.session = SessionId::default();
            let reply = noise::Reply { opening: [rng.next() as u8; 48], key: random_key(&mut rng) };
            stage
                .relay
                .send_as_server(at, &handshake::answer(&envelope, &reply, &header, &[coordinator(view)]));
            let retry = Retry {
                echo: rng.next(),
                cookie: [rng.next() as u8; 16],
                boot_id: BootId([rng.next() as u8; 16]),
                cluster_key: noise::public(&ClusterKeys::new(stage.cluster.secret()).cluster_private()),
            };
            stage.relay.send_as_server(at, &handshake::retry(&envelope, &retry));
        }
        // A genuine datagram of the primary, repeated, and then with one bit flipped.
        let true_one = rng.pick(&heard).expect("she was told something").clone();
        stage.relay.send_as_server(at, &true_one.bytes);
        let mut changed = true_one.bytes;
        let place = rng.range(OUTER_LEN as u64, changed.len() as u64 - 1) as usize;
        changed[place] ^= 1 << rng.below(8);
        stage.relay.send_as_server(at, &changed);
    }
    // The client processes datagrams in order, so by then it has seen all the forged ones.
    expect_next(&rita, tell(&sam, "rita", "after"), "after");
    tell(&rita, "sam", "to the true one");
    assert_eq!(rita.connection(), Some(connection));
    assert!(!has_ended(&rita));
    assert_eq!(trap.received(), Vec::<Vec<u8>>::new(), "she asked the attacker");
    stage.end();
}

#[test]
fn servers_accept_nothing_from_a_sender_without_the_cluster_s_secret() {
    let _alone = lock_out_other_clusters();
    let tape = Arc::new(Mutex::new(Vec::<(NodeId, Vec<u8>)>::new()));
    let taking = Arc::clone(&tape);
    let mut cluster = Cluster::relayed(3, move |port, passed| {
        if let Port::Peer(to) = port {
            let mut tape = taking.lock();
            if tape.len() < 2_000 {
                tape.push((to, passed.bytes.to_vec()));
            }
        }
    });
    cluster.disable_preemption();
    cluster.start_all();
    let primary = cluster.wait_ready();
    round_trip(&cluster, "before");
    let before = views(&cluster);
    let mut attacker = Attacker::at("127.0.9.9");

    // The servers' genuine datagrams to each other, each sent again to its receiver.
    let said = tape.lock().clone();
    let is = |class, bytes: &[u8]| Envelope::peek(bytes).is_ok_and(|envelope| envelope.class == class);
    for node in cluster.nodes() {
        let to = cluster.member(node).peer;
        let to_it = |class| said.iter().filter(move |(goal, bytes)| *goal == node && is(class, bytes));
        let repeated = refused(&cluster, node, RefusedDatagram::Repeated);
        to_it(Class::PeerHello).take(TIMES).for_each(|(_, bytes)| attacker.send(to, bytes));
        let peers: Vec<_> = to_it(Class::Peer).take(TIMES).collect();
        assert!(!peers.is_empty(), "nobody spoke to {node}");
        peers.iter().for_each(|(_, bytes)| attacker.send(to, bytes));
        wait_refused(&cluster, node, RefusedDatagram::Repeated, repeated, peers.len());
    }

    // Datagrams sealed as servers seal them, for the boot ids that are readable in their hellos, but with the
    // keys of another secret.
    let wrong = ClusterKeys::new(&[0x66; 32]);
    let boot_ids: Vec<(NodeId, Incarnation, BootId)> = said
        .iter()
        .filter_map(|(_, bytes)| {
            let envelope =
                Envelope::peek(bytes).ok().filter(|envelope| envelope.class == Class::PeerHello)?;
            Some((envelope.node?, envelope.incarnation, PeerHello::peek(bytes).ok()?))
        })
        .collect();
    let life_of = |node| {
        let found = boot_ids.iter().find(|(from, ..)| *from == node);
        found.map(|(_, incarnation, boot_id)| (*incarnation, *boot_id)).expect("it said hello")
    };
    for node in cluster.nodes() {
        let to = cluster.member(node).peer;
        let (_, its_life) = life_of(node);
        let sealed = refused(&cluster, node, RefusedDatagram::Seal);
        let mut forgeries = 0;
        for from in cluster.nodes().into_iter().filter(|from| *from != node) {
            let (incarnation, boot_id) = life_of(from);
            for n in 0..TIMES as u64 {
                let number = 1_000_000 + n;
                let envelope = Envelope {
                    class: Class::Peer,
                    cluster: cluster.id,
                    session: SessionId::default(),
                    node: Some(from),
                    incarnation,
                    number,
                };
                let view = View::new(1_000 + n, from);
                let coordinator = ToPeer::Coordinator(Coordinator::new(view, Vec::new()));
                let header = Header { ack: None, view };
                let mut keys = wrong.peer((from, boot_id), (node, its_life), 0);
                attacker.send(to, &seal(&mut keys, &envelope, &header, &[codec::encode(&coordinator)]));
                // A hello of a later boot of the peer, which echoes this server's boot id.
                let hello = PeerHello::new(BootId([n as u8; 16]), Some(its_life));
                let envelope = Envelope {
                    class: Class::PeerHello,
                    incarnation: Incarnation(incarnation.0 + 1 + n),
                    ..envelope
                };
                attacker.send(to, &hello.seal(&wrong.peer_hello((from, hello.mine), node), &envelope));
                forgeries += 2;
            }
        }
        wait_refused(&cluster, node, RefusedDatagram::Seal, sealed, forgeries);
    }
    assert_eq!(views(&cluster), before, "a forgery is no reason to elect");

    // A backup restarts: datagrams sealed for its previous boot id do not open.
    let backup = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are three");
    cluster.kill(backup);
    cluster.start(backup);
    cluster.wait_ready();
    let to = cluster.member(backup).peer;
    let sealed = refused(&cluster, backup, RefusedDatagram::Seal);
    let old: Vec<_> =
        said.iter().filter(|(goal, bytes)| *goal == backup && is(Class::Peer, bytes)).take(TIMES).collect();
    old.iter().for_each(|(_, bytes)| attacker.send(to, bytes));
    wait_refused(&cluster, backup, RefusedDatagram::Seal, sealed, old.len());

    assert_eq!(cluster.wait_ready(), primary);
    assert_eq!(views(&cluster), before, "a forgery is no reason to elect");
    assert_eq!(attacker.received(), Vec::<Vec<u8>>::new(), "a server answered the attacker");
    assert!(attacker.sent > DATAGRAM_BASE);
    round_trip(&cluster, "after");
}

/// An attacker records the INITIATIONs that an administrator sent to all servers to remove a name, and sends
/// them again when another server is primary. By then another client owns the name, and a notification sent
/// to it is acknowledged.
#[test]
fn a_replayed_administrators_change_is_applied_once_also_by_the_next_primary() {
    let _alone = lock_out_other_clusters();
    /// The receiving server, the sender's address, and the datagram.
    type Said = (NodeId, SocketAddr, Vec<u8>);
    let said: Arc<Mutex<Vec<Said>>> = Arc::default();
    let hearing = Arc::clone(&said);
    let mut cluster = Cluster::relayed(3, move |port, passed| {
        let initiation = matches!(Handshake::read(passed.bytes), Ok((_, Handshake::Initiation { .. })));
        if let (Port::Client(node), Direction::ToServer, true) = (port, passed.way, initiation) {
            hearing.lock().push((node, passed.client, passed.bytes.to_vec()));
        }
    });
    cluster.start_all();
    let primary = cluster.wait_ready();
    let installation = |cluster: &Cluster, who: &str, state: &str| {
        let options = Options::new(name(who), cluster.addresses(), cluster.dir().join(state));
        Client::connect(options.timeout(PATIENCE)).unwrap()
    };
    drop(installation(&cluster, "alice", "old"));
    let bob = installation(&cluster, "bob", "old");
    said.lock().clear();
    let secret = ClusterSecret::new(*cluster.secret());
    let id = ServerFile::read(&cluster.config(primary)).unwrap().config.cluster.id;
    let remove = AdminChange::RemoveProfile { name: name("alice") };
    recado_client::administer(&cluster.addresses(), id, &secret, remove, PATIENCE).unwrap();
    let said = std::mem::take(&mut *said.lock());
    assert!(said.iter().any(|(node, ..)| *node != primary), "it goes to all");

    let alice = installation(&cluster, "alice", "new");
    bob.send(Some(Topic::to_send("@alice").unwrap()), plain("kept".into())).unwrap().wait(PATIENCE).unwrap();
    cluster.kill(primary);
    cluster.wait_until("another primary", PATIENCE, |statuses| {
        primary_of(statuses).is_some_and(|now| now.node != primary)
    });
    for (node, client, bytes) in said.iter().filter(|(node, ..)| *node != primary) {
        cluster.replay_from_client(*node, *client, bytes);
    }
    // This later request is acknowledged, so the server has processed the earlier datagrams.
    bob.send(None, plain("later".into())).unwrap().wait(PATIENCE).unwrap();
    let held = alice.history(Some(Topic::Inbox(name("alice"))), HistoryRange::After(Op::ZERO), 10).unwrap();
    let bodies: Vec<String> = held.notifications.iter().map(|one| one.content.body.to_string()).collect();
    assert_eq!(bodies, ["kept"]);
}
