//! Behaviours of the machine against servers that the tests play; the simulator runs real ones.

mod connecting;
mod device_files;
mod ending;
mod failover;
mod paths;
mod queries;
mod requests;
pub(super) mod server;
mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::{self, Class, Envelope, Header};
use recado_proto::handshake::{self, Handshake};
use recado_proto::id::{DeviceId, DeviceKey, Epoch, Incarnation, NodeId, Seq, Topic};
use recado_proto::link::{ACK_EVERY, Link};
use recado_proto::packet::{
    self, AcceptConn, AnswerKind, Answers, Code, Content, Coordinator, Delivered, Disconnect, Fragment, Item,
    ListPage, Listing, Notification, OptionalFields, Position, QueryKind, Refused, RejectConn, ResumeOk,
    RoleName, Send, SendAck, Status, ToClient,
};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::{Ciphers, ClusterKeys, Direction, Key, PacketKeys, SessionSecret};
use recado_proto::{codec, fragment, noise};

use self::server::{
    HandshakeConfig, HandshakeEvent, HandshakeServer, TestServer, answer_of_version_2, forged_retry,
    handshake_config,
};
use super::again::{ASK_AGAIN_MAX, ASK_AGAIN_MIN};
use super::handshake::{HandshakeClient, Identity};
use super::primary::KEEPALIVE_FIRST;
use super::primary::{QUIET, QUIET_IDLE};
use super::queries::QUERIES_MAX;
use super::server::Received;
use super::session::{DOUBT_EVERY, OTHER_VERSION_AFTER, SESSION_QUERY_AFTER};
use super::*;

const SESSION: SessionId = SessionId(Op(10));
/// The op that admitted the device.
const BORN: Op = Op(9);

fn private() -> Key {
    Key::new([1; 32])
}

fn device() -> DeviceKey {
    DeviceKey(noise::public(&private()))
}

fn address(node: u16) -> SocketAddr {
    ([127, 0, 0, 1], 10_000 + node).into()
}

fn coordinator(round: u64, node: u16) -> Coordinator {
    let members = (1..=3).map(|node| (NodeId(node), address(node))).collect();
    Coordinator::new(View::new(round, NodeId(node)), members)
}

fn content(body: &str) -> Content {
    Content::of(body)
}

fn say(body: &str) -> Input {
    Input::Request(Request::Send { topic: None, content: content(body) })
}

fn notification(op: u64) -> Arc<Notification> {
    Arc::new(Notification {
        op: Op(op),
        topic: Topic::Feed("bob".parse().unwrap()),
        author: "bob".parse().unwrap(),
        unix_ms: 0,
        content: content("hello"),
        options: OptionalFields::NONE,
    })
}

/// A machine, and all its servers. The servers answer HELLO by themselves; the tests answer initiations and
/// datagrams of the session.
struct Play {
    now: Moment,
    machine: Machine,
    servers_by_id: BTreeMap<u16, TestServer>,
    number: u64,
    events: Vec<Event>,
    sent: Vec<(u16, ToServer)>,
    /// The nonce of the last CONNECT.
    nonce: Option<u64>,
    /// The servers that got a HELLO.
    hellos: Vec<u16>,
    /// The number of session datagrams that the receiving server could not open.
    unopened: usize,
}

impl Play {
    fn new() -> Play {
        Play::among((1..=3).map(|node| handshake_config(node, 1)))
    }

    fn among(handshake_configs: impl Iterator<Item = HandshakeConfig>) -> Play {
        Play::remembering(handshake_configs, None, Vec::new())
    }

    /// A client whose device remembers a cursor and unanswered requests.
    fn remembering(
        handshake_configs: impl Iterator<Item = HandshakeConfig>,
        cursor: Option<Op>,
        outbox: Vec<Numbered>,
    ) -> Play {
        Play::starting(handshake_configs, cursor, outbox, BTreeMap::new())
    }

    /// A client that goes on with handshakes that have begun.
    fn begun(handshakes: BTreeMap<SocketAddr, HandshakeClient>) -> Play {
        Play::starting((1..=3).map(|node| handshake_config(node, 1)), None, Vec::new(), handshakes)
    }

    fn starting(
        handshake_configs: impl Iterator<Item = HandshakeConfig>,
        cursor: Option<Op>,
        outbox: Vec<Numbered>,
        handshakes: BTreeMap<SocketAddr, HandshakeClient>,
    ) -> Play {
        let now = Moment(1_000_000);
        let ours = handshake_config(1, 1);
        let start = Start {
            servers: vec![address(1)],
            handshakes,
            identity: Identity {
                cluster: ours.cluster,
                cluster_key: noise::public(&ours.keys.cluster_private()),
                private: private(),
            },
            device: DeviceId { key: device(), slot: 0 },
            created_op: None,
            profile: "alice".parse().unwrap(),
            code: None,
            invite: None,
            receives: true,
            cursor,
            highest_seq: Some(outbox.last().map_or(Seq(4), |of: &Numbered| of.seq)),
            outbox,
            entropy: Entropy::new([1; 32]),
            ciphers: Ciphers::default(),
            planted: PlantedBug::default(),
        };
        let mut out = Vec::new();
        let machine = Machine::new(now, start, &mut out);
        let servers_by_id = handshake_configs
            .map(|handshake_config| (handshake_config.me.0, TestServer::new(handshake_config)))
            .collect();
        let (events, sent, nonce, hellos) = Default::default();
        let mut play =
            Play { now, machine, servers_by_id, number: 0, events, sent, nonce, hellos, unopened: 0 };
        play.note(out);
        play
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::Datagram { to, bytes } => self.hear(to.port() - 10_000, &bytes),
            }
        }
    }

    /// Delivers a datagram to a server.
    fn hear(&mut self, node: u16, bytes: &[u8]) {
        let secret = self.secret();
        let Some(server_boot) = self.servers_by_id.get_mut(&node).filter(|server_boot| !server_boot.deaf)
        else {
            return;
        };
        if server_boot.upgraded {
            if let Some(bytes) = answer_of_version_2(bytes) {
                self.input(Input::Datagram { from: address(node), bytes });
            }
            return;
        }
        if Envelope::peek(bytes).unwrap().class == Class::Client {
            let handshake_config = server_boot.handshake_config.clone();
            match secret {
                None => self.unopened += 1,
                Some(secret) => match envelope::open(
                    &mut secret.of_session(
                        Direction::ToServer,
                        handshake_config.me,
                        handshake_config.boot_id,
                    ),
                    bytes,
                ) {
                    Ok(opened) => {
                        server_boot.heard.push(opened.envelope.number);
                        self.sent.extend(opened.packets.into_iter().map(|packet| (node, packet)));
                    }
                    Err(_) => self.unopened += 1,
                },
            }
            return;
        }
        match server_boot.server.receive(([127, 0, 0, 9], 4_000).into(), bytes) {
            Some(HandshakeEvent::Retry(bytes)) => {
                self.hellos.push(node);
                let forged = server_boot.forged;
                for lie in 0..forged {
                    self.input(Input::Datagram { from: address(node), bytes: forged_retry(&bytes, lie) });
                }
                self.input(Input::Datagram { from: address(node), bytes: bytes.clone() });
                if forged > 0 {
                    self.input(Input::Datagram { from: address(node), bytes: forged_retry(&bytes, forged) });
                }
            }
            Some(HandshakeEvent::Initiation { reply, key, packet }) => {
                assert_eq!(key, device());
                server_boot.reply = Some(reply);
                if let ToServer::Connect(connect) = &*packet {
                    self.nonce = Some(connect.nonce);
                }
                self.sent.push((node, *packet));
            }
            None => assert!(server_boot.forged > 0, "server {node} refuses a datagram"),
        }
    }

    /// The secret of the session, once there is one.
    fn secret(&self) -> Option<SessionSecret> {
        self.machine.session?;
        Some(handshake_config(1, 1).keys.session_secret(SESSION, device(), self.nonce(), Default::default()))
    }

    fn keys(&self, secret: &SessionSecret, node: u16, direction: Direction) -> PacketKeys {
        let handshake_config = &self.servers_by_id[&node].handshake_config;
        secret.of_session(direction, handshake_config.me, handshake_config.boot_id)
    }

    fn restart(&mut self, node: u16) {
        let TestServer { forged, handshake_config: ref before, .. } = self.servers_by_id[&node];
        let next = handshake_config(node, before.incarnation.0 + 1);
        self.servers_by_id.insert(node, TestServer { forged, ..TestServer::new(next) });
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.note(out);
        self.flush();
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        self.machine.flush(self.now, &mut out);
        self.note(out);
    }

    /// A packet from a server in this view, in answer to an initiation or on the session.
    fn from(&mut self, node: u16, round: u64, primary: u16, packet: ToClient) {
        let view = View::new(round, NodeId(primary));
        self.number += 1;
        let bytes = match self.secret() {
            None => self.answer(node, view, &packet),
            Some(secret) => self.on_session(node, view, &packet, &secret),
        };
        self.input(Input::Datagram { from: address(node), bytes });
    }

    fn envelope(&self, node: u16, class: Class, session: SessionId) -> Envelope {
        let HandshakeConfig { cluster, me, incarnation, .. } = self.servers_by_id[&node].handshake_config;
        Envelope { class, cluster, session, node: Some(me), incarnation, number: self.number }
    }

    /// Answers the pending initiation, or waits for the next one and answers it.
    fn answer(&mut self, node: u16, view: View, packet: &ToClient) -> Vec<u8> {
        for _ in 0..100 {
            if let Some(reply) =
                self.servers_by_id.get_mut(&node).and_then(|server_boot| server_boot.reply.take())
            {
                let envelope = self.envelope(node, Class::Handshake, SessionId::default());
                let header = Header { ack: None, view };
                return handshake::answer(&envelope, &reply, &header, &[codec::encode(packet)]);
            }
            self.pass(10);
        }
        panic!("nobody sends an initiation to {node}")
    }

    fn on_session(&self, node: u16, view: View, packet: &ToClient, secret: &SessionSecret) -> Vec<u8> {
        let mut datagrams = Vec::new();
        let envelope = self.envelope(node, Class::Client, SESSION);
        let keys = self.keys(secret, node, Direction::ToClient);
        let packets = std::slice::from_ref(packet);
        let mut link = Link::starting_at(envelope, keys, self.number);
        for number in &self.servers_by_id[&node].heard {
            assert!(link.receive(self.now, *number, None), "a number twice");
        }
        link.transmit(self.now, view, packets, None, &mut datagrams);
        assert_eq!(datagrams.len(), 1);
        datagrams.swap_remove(0)
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now + Duration::from_micros(1));
            self.flush();
        }
        self.now = end;
    }

    /// Wakes the machine whenever it wants to be woken, and never else, until this has come true: how long
    /// that took.
    fn until(&mut self, come: impl Fn(&Play) -> bool) -> Duration {
        let began = self.now;
        for _ in 0..1_000 {
            if come(self) {
                return self.now.since(began);
            }
            self.now = self.machine.next_deadline().expect("it waits for something").max(self.now);
            self.flush();
        }
        panic!("it spins, or it never comes: {:?}", self.sent)
    }

    /// How many packets of this kind went to a server.
    fn sent_to(&self, node: u16, kind: fn(&ToServer) -> bool) -> usize {
        self.sent.iter().filter(|(to, packet)| *to == node && kind(packet)).count()
    }

    /// The nonce of the last CONNECT.
    fn nonce(&self) -> u64 {
        self.nonce.expect("a CONNECT")
    }

    fn accept(&mut self) {
        self.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3)));
        let (nonce, coordinator) = (self.nonce(), coordinator(1, 3));
        let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
        // A new session has keys of its own, so packet numbers begin anew.
        self.servers_by_id.values_mut().for_each(|server_boot| server_boot.heard.clear());
        self.from(
            3,
            1,
            3,
            ToClient::AcceptConn(AcceptConn {
                nonce,
                session: SESSION,
                coordinator,
                secret: secret.key().clone(),
                aead: Default::default(),
                options: OptionalFields::NONE,
            }),
        );
    }

    fn connect(&mut self) {
        self.accept();
        self.resumed(1, 3);
        self.events.clear();
        self.sent.clear();
    }

    fn resumed(&mut self, round: u64, node: u16) {
        self.resumed_with(round, node, 2_000);
    }

    /// RESUME_OK with this interval of keepalives.
    fn resumed_with(&mut self, round: u64, node: u16, keepalive_ms: u32) {
        let coordinator = coordinator(round, node);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms,
            options: OptionalFields::NONE,
        };
        self.from(node, round, node, ToClient::ResumeOk(resumed));
    }

    fn notify(&mut self, prev: u64, op: u64) {
        let delivered = Delivered { prev: Op(prev), item: Item::Notification(notification(op)) };
        self.from(3, 1, 3, ToClient::Delivered(delivered));
    }

    fn delivered(&self) -> Vec<u64> {
        let op = |event: &Event| match event {
            Event::Notification(notification) => Some(notification.op.0),
            _ => None,
        };
        self.events.iter().filter_map(op).collect()
    }

    fn sends(&self) -> Vec<(u16, u64)> {
        let seq = |(to, packet): &(u16, ToServer)| match packet {
            ToServer::Send(send) => Some((*to, send.seq.0)),
            _ => None,
        };
        self.sent.iter().filter_map(seq).collect()
    }
}

/// The answer to a query.
fn answer_of(query: u64, kind: AnswerKind) -> ToClient {
    let applied = Position::of(Op(11));
    ToClient::Answer(packet::Answer { id: QueryId(query), applied, kind, options: OptionalFields::NONE })
}

/// The answer to the query of a list that has no items.
fn empty_page(query: u64) -> ToClient {
    answer_of(query, AnswerKind::List(ListPage { items: Vec::new(), more: false }))
}

/// The session is refused.
fn refused(code: Code) -> ToClient {
    ToClient::Error(Refused::new(code, Answers::Session, 0))
}

/// Between this and a quarter more: what goes again is not to go together with what others send again.
fn about(ms: u64) -> std::ops::Range<Duration> {
    Duration::from_millis(ms)..Duration::from_millis(ms) * 5 / 4
}

fn list(query: u64) -> Input {
    Input::Query(QueryId(query), Query::List { what: Listing::People, after: None })
}

fn status_of(node: u16) -> Query {
    Query::Status { server: address(node) }
}

/// The fragments of so many bytes, of which a client never gets all.
fn pieces(bytes: usize) -> Vec<Fragment> {
    fragment::split(1, &vec![7; bytes])
}
