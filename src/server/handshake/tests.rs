//! Tests of the handshake responder, with clients, and of the keyring.

use recado_proto::Link;
use recado_proto::envelope::{self, Header};
use recado_proto::id::{Op, View};
use recado_proto::noise::Initiation;
use recado_proto::packet::{Query, QueryId, QueryKind};
use recado_proto::seal::Direction;

use super::*;

const ASKED: ToServer = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));

/// Identity of server `me` in its boot with this incarnation, in the cluster that tests agree on.
pub(crate) fn handshake_config(me: u16, incarnation: u64) -> HandshakeConfig {
    let mut boot_id = [me as u8; 16];
    boot_id[8..].copy_from_slice(&incarnation.to_be_bytes());
    HandshakeConfig {
        cluster: ClusterId(7),
        me: NodeId(me),
        incarnation: Incarnation(incarnation),
        boot_id: BootId(boot_id),
        keys: ClusterKeys::new(&[0x5e; 32]),
        limits: Limits::default(),
    }
}

fn home() -> SocketAddr {
    ([192, 0, 2, 9], 4_000).into()
}

/// A client with a key of its own that wants to connect.
struct Visitor {
    from: SocketAddr,
    entropy: Entropy,
}

impl Visitor {
    fn at(from: SocketAddr) -> Visitor {
        Visitor { from, entropy: Entropy::new([2; 32]) }
    }

    fn private() -> Key {
        Key::new([6; 32])
    }

    fn envelope(cluster: u64) -> Envelope {
        Envelope {
            class: Class::Handshake,
            cluster: ClusterId(cluster),
            session: SessionId::default(),
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        }
    }

    fn hello(&self, responder: &mut HandshakeServer, now: Moment) -> Retry {
        let hello = handshake::hello(&Self::envelope(7), 5);
        let Ok(HandshakeEvent::Retry(bytes)) = responder.receive(now, self.from, &hello) else {
            panic!("no RETRY")
        };
        match Handshake::read(&bytes) {
            Ok((_, Handshake::Retry(retry))) => retry,
            other => panic!("{other:?}"),
        }
    }

    /// An INITIATION for the server of `handshake_config` with this cookie, and the state that opens its
    /// answer.
    fn initiation(
        &mut self,
        handshake_config: &HandshakeConfig,
        cookie: Cookie,
        packets: &[ToServer],
    ) -> (Initiation, Vec<u8>) {
        self.initiate_with(handshake_config, cookie, &handshake::load(packets))
    }

    fn initiate_with(
        &mut self,
        handshake_config: &HandshakeConfig,
        cookie: Cookie,
        load: &[u8],
    ) -> (Initiation, Vec<u8>) {
        let prologue = Prologue {
            cluster: handshake_config.cluster,
            server: handshake_config.me,
            boot_id: handshake_config.boot_id,
        };
        let public = noise::public(&handshake_config.keys.cluster_private());
        let (initiation, message) =
            Initiation::new(prologue, &public, &Self::private(), load, &mut self.entropy).unwrap();
        (initiation, handshake::initiation(&Self::envelope(handshake_config.cluster.0), &cookie, &message))
    }

    /// Sends HELLO, then the INITIATION with its cookie.
    fn come(
        &mut self,
        responder: &mut HandshakeServer,
        now: Moment,
    ) -> Result<HandshakeEvent, RefusedDatagram> {
        let cookie = self.hello(responder, now).cookie;
        let (_, initiation) = self.initiation(&handshake_config(2, 1), cookie, &[ASKED]);
        responder.receive(now, self.from, &initiation)
    }
}

fn responder() -> HandshakeServer {
    HandshakeServer::new(handshake_config(2, 1), [1; 32])
}

fn at(seconds: u64) -> Moment {
    Moment(seconds * 1_000_000)
}

#[test]
fn a_hello_is_answered_with_what_it_takes_to_initiate_and_no_more_bytes() {
    let mut responder = responder();
    let before = format!("{responder:?}");
    // A client that does not know the cluster yet sends 0.
    for cluster in [7, 0] {
        let hello = handshake::hello(&Visitor::envelope(cluster), 77);
        let Ok(HandshakeEvent::Retry(bytes)) = responder.receive(at(0), home(), &hello) else {
            panic!("no RETRY")
        };
        assert!(bytes.len() <= hello.len());
        let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(&bytes) else { panic!("no RETRY") };
        let handshake_config = handshake_config(2, 1);
        assert_eq!((envelope.cluster, envelope.node), (handshake_config.cluster, Some(handshake_config.me)));
        assert_eq!((retry.echo, retry.boot_id), (77, handshake_config.boot_id));
        assert_eq!(retry.cluster_key, noise::public(&handshake_config.keys.cluster_private()));
    }
    assert_eq!(format!("{responder:?}"), before, "nothing is kept");
    let other = handshake::hello(&Visitor::envelope(8), 77);
    assert_eq!(responder.receive(at(0), home(), &other), Err(RefusedDatagram::Cluster));
}

#[test]
fn the_sender_of_an_initiation_is_known_by_the_key_it_proved_and_can_read_the_answer() {
    let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
    let cookie = visitor.hello(&mut responder, at(0)).cookie;
    let (mut initiation, datagram) = visitor.initiation(&handshake_config(2, 1), cookie, &[ASKED]);
    let Ok(HandshakeEvent::Initiation { reply_to, key, packet }) =
        responder.receive(at(0), home(), &datagram)
    else {
        panic!("it is not let in")
    };
    assert_eq!((reply_to.to, packet), (home(), ASKED));
    assert_eq!(key, DeviceKey(noise::public(&Visitor::private())));
    assert_eq!(initiation.read_response(&reply_to.reply.opening), Ok(reply_to.reply.key));
}

#[test]
fn an_initiation_without_the_cookie_of_its_address_is_met_with_silence() {
    let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
    let cookie = visitor.hello(&mut responder, at(0)).cookie;
    let (_, good) = visitor.initiation(&handshake_config(2, 1), cookie, &[ASKED]);
    let refused = Err(RefusedDatagram::Cookie);
    for from in ["192.0.2.9:4001", "192.0.2.10:4000", "[::ffff:192.0.2.10]:4000"] {
        assert_eq!(responder.receive(at(0), from.parse().unwrap(), &good), refused, "{from}");
    }
    let mut wrong = cookie;
    wrong[15] ^= 1;
    for cookie in [[0; COOKIE_LEN], wrong] {
        let (_, initiation) = visitor.initiation(&handshake_config(2, 1), cookie, &[ASKED]);
        assert_eq!(responder.receive(at(0), home(), &initiation), refused);
    }
    // The cookie of another responder, even of the same server, is refused.
    let mut other = HandshakeServer::new(handshake_config(2, 1), [3; 32]);
    assert_eq!(other.receive(at(0), home(), &good), refused);
    assert!(responder.receive(at(0), home(), &good).is_ok());
}

#[test]
fn a_cookie_is_good_for_ten_seconds_at_least_and_twenty_at_most() {
    for given in [Moment(0), Moment(9_999_999)] {
        let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
        let cookie = visitor.hello(&mut responder, given).cookie;
        let (_, initiation) = visitor.initiation(&handshake_config(2, 1), cookie, &[ASKED]);
        assert!(responder.receive(Moment(given.0 + 10_000_000), home(), &initiation).is_ok());
        let late = Moment(given.0 + 20_000_000);
        assert_eq!(responder.receive(late, home(), &initiation), Err(RefusedDatagram::Cookie));
    }
}

#[test]
fn an_initiation_at_another_boot_server_or_cluster_is_not_opened() {
    let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
    let cookie = visitor.hello(&mut responder, at(0)).cookie;
    let foreign = HandshakeConfig { keys: ClusterKeys::new(&[1; 32]), ..handshake_config(2, 1) };
    let cases = [
        (handshake_config(2, 2), RefusedDatagram::Seal),
        (handshake_config(1, 1), RefusedDatagram::Seal),
        (foreign, RefusedDatagram::Seal),
        (HandshakeConfig { cluster: ClusterId(8), ..handshake_config(2, 1) }, RefusedDatagram::Cluster),
        (HandshakeConfig { cluster: ClusterId(0), ..handshake_config(2, 1) }, RefusedDatagram::Cluster),
    ];
    for (meant, why) in cases {
        let (_, initiation) = visitor.initiation(&meant, cookie, &[ASKED]);
        assert_eq!(responder.receive(at(0), home(), &initiation), Err(why), "{meant:?}");
    }
    // An INITIATION for another cluster under our cluster's id does not open either.
    let other = HandshakeConfig { cluster: ClusterId(8), ..handshake_config(2, 1) };
    let (_, mut initiation) = visitor.initiation(&other, cookie, &[ASKED]);
    initiation[4..12].copy_from_slice(&7_u64.to_be_bytes());
    assert_eq!(responder.receive(at(0), home(), &initiation), Err(RefusedDatagram::Seal));
}

#[test]
fn an_initiation_carries_one_request() {
    let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
    let cookie = visitor.hello(&mut responder, at(0)).cookie;
    let length = handshake::load(&[]).len();
    let mut garbage = vec![0xff; length];
    garbage[..2].copy_from_slice(&[0, 40]);
    let loads = [
        (handshake::load(&[ASKED, ASKED]), RefusedDatagram::Malformed),
        (handshake::load(&[]), RefusedDatagram::Malformed),
        (garbage, RefusedDatagram::Malformed),
        (vec![0xff; length], RefusedDatagram::Truncated),
    ];
    for (load, why) in loads {
        let (_, initiation) = visitor.initiate_with(&handshake_config(2, 1), cookie, &load);
        assert_eq!(responder.receive(at(0), home(), &initiation), Err(why));
    }
}

#[test]
fn a_server_refuses_handshake_packets_that_only_servers_send() {
    let (mut responder, visitor) = (responder(), Visitor::at(home()));
    let retry = visitor.hello(&mut responder, at(0));
    let said = handshake::retry(&Visitor::envelope(7), &retry);
    assert_eq!(responder.receive(at(0), home(), &said), Err(RefusedDatagram::Malformed));
    let reply = noise::Reply { opening: [1; noise::OPENING_LEN], key: Key::new([1; 32]) };
    let answer = handshake::answer(&Visitor::envelope(7), &reply, &Header::default(), &[]);
    assert_eq!(responder.receive(at(0), home(), &answer), Err(RefusedDatagram::Malformed));
}

#[test]
fn a_network_that_initiates_too_often_leaves_the_others_theirs() {
    let mut responder = responder();
    let mut crowd =
        (0..=255_u8).cycle().map(|host| Visitor::at((IpAddr::from([192, 0, 2, host]), 4_000).into()));
    let burst = Limits::default().network_handshakes.burst;
    for visitor in crowd.by_ref().take(burst as usize) {
        assert!({ visitor }.come(&mut responder, at(0)).is_ok());
    }
    let refused = Err(RefusedDatagram::Budget);
    assert_eq!(crowd.next().unwrap().come(&mut responder, at(0)), refused);
    let mut neighbour = Visitor::at(([192, 0, 3, 1], 4_000).into());
    assert!(neighbour.come(&mut responder, at(0)).is_ok());
    // A second later the network has the tokens of one second, and no more.
    let let_in = crowd
        .by_ref()
        .take(burst as usize)
        .filter_map(|mut visitor| visitor.come(&mut responder, at(1)).ok())
        .count();
    assert_eq!(let_in, Limits::default().network_handshakes.per_s as usize);
}

#[test]
fn a_hello_and_an_initiation_without_cookie_cost_no_budget() {
    let (mut responder, mut visitor) = (responder(), Visitor::at(home()));
    let (_, initiation) = visitor.initiation(&handshake_config(2, 1), [0; COOKIE_LEN], &[ASKED]);
    for _ in 0..2 * Limits::default().handshakes.burst {
        visitor.hello(&mut responder, at(0));
        assert_eq!(responder.receive(at(0), home(), &initiation), Err(RefusedDatagram::Cookie));
    }
    assert!(visitor.come(&mut responder, at(0)).is_ok());
}

#[test]
fn all_networks_together_have_a_budget_too() {
    let mut responder = responder();
    let visitor = |n: u32| Visitor::at((IpAddr::from((0x0a00_0000 | n << 8).to_be_bytes()), 4_000).into());
    let let_in = (0..Limits::default().handshakes.burst + 10)
        .filter_map(|n| visitor(n).come(&mut responder, at(0)).ok())
        .count();
    assert_eq!(let_in, Limits::default().handshakes.burst as usize);
}

// ---- the keyring

const SESSION: SessionId = SessionId(Op(12));
const DEVICE: DeviceKey = DeviceKey([4; 32]);
const NONCE: u64 = 3;

/// The client's link of a session.
fn client(handshake_config: &HandshakeConfig, session: SessionId, nonce: u64) -> Link {
    let secret = handshake_config.keys.session_secret(session, DEVICE, nonce, Default::default());
    let envelope = Envelope { class: Class::Client, session, ..Visitor::envelope(7) };
    Link::new(envelope, secret.of_session(Direction::ToServer, handshake_config.me, handshake_config.boot_id))
}

fn say(link: &mut Link, packet: ToServer) -> Vec<u8> {
    let mut datagrams = Vec::new();
    link.transmit(at(0), View::ZERO, &[packet], None, &mut datagrams);
    datagrams.swap_remove(0)
}

fn keyring() -> Keyring {
    let mut keyring = Keyring::new(&handshake_config(2, 1));
    keyring.learn(SESSION, DEVICE, NONCE, Default::default());
    keyring
}

#[test]
fn a_known_session_is_opened_and_its_client_can_be_answered() {
    let mut keyring = keyring();
    let mut link = client(&handshake_config(2, 1), SESSION, NONCE);
    let (opened, mut keys) = keyring.open(&say(&mut link, ToServer::keepalive())).unwrap();
    assert_eq!((opened.envelope.session, opened.packets), (SESSION, vec![ToServer::keepalive()]));
    let answer = envelope::seal(&mut keys, &opened.envelope, &Header::default(), &[]);
    let handshake_config = handshake_config(2, 1);
    let secret = handshake_config.keys.session_secret(SESSION, DEVICE, NONCE, Default::default());
    let mut of_client = secret.of_session(Direction::ToClient, handshake_config.me, handshake_config.boot_id);
    assert!(envelope::open::<ToServer>(&mut of_client, &answer).is_ok());
}

#[test]
fn a_datagram_of_an_unknown_session_or_of_another_boot_does_not_open() {
    let mut keyring = keyring();
    let other = SessionId(Op(13));
    let refusals = [
        (client(&handshake_config(2, 1), other, NONCE), RefusedDatagram::Session),
        (client(&handshake_config(2, 1), SESSION, NONCE + 1), RefusedDatagram::Seal),
        (client(&handshake_config(2, 2), SESSION, NONCE), RefusedDatagram::Seal),
        (client(&handshake_config(1, 1), SESSION, NONCE), RefusedDatagram::Seal),
    ];
    for (mut link, why) in refusals {
        assert_eq!(keyring.open(&say(&mut link, ToServer::keepalive())), Err(why));
    }
    // A datagram that does not open uses up no number.
    let mut link = client(&handshake_config(2, 1), SESSION, NONCE);
    assert!(keyring.open(&say(&mut link, ToServer::keepalive())).is_ok());
    assert_eq!(keyring.open(&handshake::hello(&Visitor::envelope(7), 1)), Err(RefusedDatagram::Malformed));
}

#[test]
fn a_number_comes_once_and_learning_again_does_not_change_that() {
    let mut keyring = keyring();
    let mut link = client(&handshake_config(2, 1), SESSION, NONCE);
    let [one, two] = [(); 2].map(|()| say(&mut link, ToServer::keepalive()));
    assert!(keyring.open(&two).is_ok());
    assert_eq!(keyring.open(&two), Err(RefusedDatagram::Repeated));
    keyring.learn(SESSION, DEVICE, NONCE, Default::default());
    assert_eq!(keyring.open(&two), Err(RefusedDatagram::Repeated));
    assert!(keyring.open(&one).is_ok(), "overtaken, but new");
}

#[test]
fn a_session_that_is_over_opens_no_more() {
    let mut keyring = keyring();
    let mut link = client(&handshake_config(2, 1), SESSION, NONCE);
    keyring.open(&say(&mut link, ToServer::keepalive())).unwrap();
    keyring.forget(SESSION);
    let late = say(&mut link, ToServer::keepalive());
    assert_eq!(keyring.open(&late), Err(RefusedDatagram::Session));
}

#[test]
fn an_administrators_change_is_remembered_for_longer_than_its_initiation_can_be_resent() {
    let taken_for = std::time::Duration::from_micros(2 * COOKIE_EPOCH_MICROS);
    // The log's clock runs at most twice as fast as real time.
    assert!(Limits::default().administered_for > 2 * taken_for);
}
