//! What a server allocates once it is warm: nothing for a delivery.
//!
//! Counted on this thread, around the calls of the pure parts that a handler and the replica thread drive.
//! The figures are exact, because the same inputs give the same calls.

use std::net::SocketAddr;
use std::time::Duration;

use recado::config::{Cluster, Config, Member};
use recado::delivery::{self, Input, ReplyTo};
use recado::server::engine::{self, BootIdentity, Node};
use recado::server::handshake::HandshakeConfig;
use recado::server::node;
use recado::server::shard::{Effect, Shard, Told};
use recado_log::bully;
use recado_log::journal::{Meta, Recovered};
use recado_proto::envelope::{self, Class, Envelope};
use recado_proto::id::{
    BootId, Clock, ClusterId, DeviceId, DeviceKey, Incarnation, Moment, NodeId, Op, Seq, SessionId, Topic,
    View,
};
use recado_proto::link::Link;
use recado_proto::noise::{self, OPENING_LEN};
use recado_proto::packet::{
    ClientAck, Connect, Content, Coordinator, Home, Notification, OptionalFields, Position, Resume, RoleName,
    Send, ToClient, ToServer,
};
use recado_proto::seal::{ClusterKeys, Direction, Key, PacketKeys};
use recado_service::{Page, Stored};

use crate::allocation::allocations_of;

const CLUSTER: ClusterId = ClusterId(7);
const ME: NodeId = NodeId(3);
const BOOT_ID: BootId = BootId([3; 16]);
const MS: Duration = Duration::from_millis(1);

/// The sessions that follow the topic.
const SESSIONS: u64 = 20;
/// The turns until everything has its size, and those that are counted: together less than the second in
/// which a session keeps its place in the indexes by when it was heard.
const WARM: u64 = 500;
const TURNS: u64 = 300;
/// The allocations for a datagram that is received: a copy that is opened, and the list of its packets.
const OPENED: u64 = 2;

fn config() -> Config {
    let member =
        Member { id: ME, client: "127.0.0.1:1".parse().unwrap(), peer: "127.0.0.1:2".parse().unwrap() };
    Config::default_for(Cluster { id: CLUSTER, me: ME, members: vec![member] })
}

fn keys() -> ClusterKeys {
    ClusterKeys::new(&[0x5e; 32])
}

/// A follower: the client's end of a session.
struct Follower {
    session: SessionId,
    link: Link,
    /// What the server seals with for it.
    receive: PacketKeys,
    from: SocketAddr,
}

impl Follower {
    fn new(number: u64) -> Follower {
        let (session, device) = (SessionId(Op(number)), DeviceKey([number as u8; 32]));
        let secret = keys().session_secret(session, device, number, Default::default());
        let (node, incarnation) = (None, Incarnation(0));
        let envelope =
            Envelope { class: Class::Client, cluster: CLUSTER, session, node, incarnation, number: 0 };
        Follower {
            session,
            link: Link::new(envelope, secret.of_session(Direction::ToServer, ME, BOOT_ID)),
            receive: secret.of_session(Direction::ToClient, ME, BOOT_ID),
            from: ([127, 0, 0, number as u8], 4_000).into(),
        }
    }
}

/// What was done and what it took.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    deliveries: u64,
    sent: u64,
    received: u64,
    allocations: u64,
}

/// A shard with its followers.
struct Play {
    now: Moment,
    shard: Shard,
    followers: Vec<Follower>,
    out: Vec<Effect>,
    op: u64,
    counts: Counts,
    /// The PATH_CHALLENGEs that came, by follower.
    challenges: Vec<(usize, u64)>,
}

impl Play {
    /// All followers are served and live.
    fn new() -> Play {
        let (config, incarnation) = (config(), Incarnation(1));
        let limits = config.limits;
        let handshakes =
            HandshakeConfig { cluster: CLUSTER, me: ME, incarnation, boot_id: BOOT_ID, keys: keys(), limits };
        let mut play = Play {
            now: Moment(10_000_000),
            shard: Shard::new(&config, &handshakes, 1, [1; 32]),
            followers: (1..=SESSIONS).map(Follower::new).collect(),
            out: Vec::new(),
            op: 0,
            counts: Counts::default(),
            challenges: Vec::new(),
        };
        play.tell(Input::Announce(Coordinator::new(View::new(1, ME), Vec::new())));
        for at in 0..play.followers.len() {
            let (session, device) = (play.followers[at].session, DeviceKey([at as u8 + 1; 32]));
            let known = Told::Known { session, device, nonce: at as u64 + 1, aead: Default::default() };
            play.shard.tell(play.now, known, &mut play.out);
            play.receive(at, ToServer::Padding);
            play.flush();
            let challenged = play.challenges.pop();
            let Some((_, token)) = challenged.filter(|(of, _)| *of == at) else { panic!("{challenged:?}") };
            play.receive(at, ToServer::PathResponse(token));
            play.tell(Input::Serve { session, cursor: Op::ZERO, credit: Some(256) });
            play.flush();
            play.tell(Input::Page { session, after: Op::ZERO, page: Page::default() });
            play.flush();
        }
        play
    }

    fn tell(&mut self, input: Input) {
        let Play { now, shard, out, .. } = self;
        self.counts.allocations += allocations_of(|| shard.tell(*now, Told::Delivery(input), out));
    }

    /// A follower sends a packet, and with it the acknowledgement of what it got.
    fn receive(&mut self, at: usize, packet: ToServer) {
        let Play { now, shard, out, followers, .. } = self;
        let follower = &mut followers[at];
        let mut datagrams = Vec::new();
        follower.link.transmit(*now, View::ZERO, &[packet], None, &mut datagrams);
        for bytes in datagrams {
            self.counts.received += 1;
            self.counts.allocations += allocations_of(|| {
                let mut no_request = |_, _| panic!("no request");
                shard.receive(*now, follower.from, &bytes, &mut no_request, out).unwrap();
            });
        }
    }

    /// Ends the turn of the shard. Its datagrams arrive, and their buffers are handed back.
    fn flush(&mut self) {
        let Play { now, shard, out, followers, counts, challenges, .. } = self;
        counts.allocations += allocations_of(|| shard.flush(*now, out));
        for effect in out.drain(..) {
            let Effect::Datagram { to, bytes } = effect else { continue };
            let at = followers.iter().position(|follower| follower.from == to).unwrap();
            let opened = envelope::open::<ToClient>(&mut followers[at].receive, &bytes).unwrap();
            let ack = opened.header.ack.as_ref();
            assert!(followers[at].link.receive(*now, opened.envelope.number, ack), "a number twice");
            counts.sent += 1;
            for packet in opened.packets {
                match packet {
                    ToClient::Delivered(_) => counts.deliveries += 1,
                    ToClient::PathChallenge(token) => challenges.push((at, token)),
                    ToClient::Ping => {}
                    other => panic!("{other:?}"),
                }
            }
            counts.allocations += allocations_of(|| shard.hand_back(bytes));
        }
    }

    /// So many notifications are committed, delivered, and acknowledged by all followers.
    fn turn(&mut self, notifications: u64) {
        for _ in 0..notifications {
            self.op += 1;
            let notification = Stored::new(&Notification {
                op: Op(self.op),
                topic: Topic::Feed("bob".parse().unwrap()),
                author: "bob".parse().unwrap(),
                unix_ms: self.op,
                content: Content::of("x".repeat(100)),
                options: OptionalFields::NONE,
            });
            let sessions = self.followers.iter().map(|follower| follower.session).collect();
            self.tell(Input::Applied { notification, sessions });
        }
        self.flush();
        self.now = self.now + MS;
        let upto = Position::of(Op(self.op));
        for at in 0..self.followers.len() {
            self.receive(at, ToServer::ClientAck(ClientAck { upto, held: Vec::new(), credit: 256 }));
        }
        self.flush();
    }
}

#[test]
fn a_delivery_allocates_nothing_once_the_server_is_warm() {
    for notifications in [1, 4, 40] {
        let mut play = Play::new();
        (0..WARM).for_each(|_| play.turn(notifications));
        play.counts = Counts::default();
        (0..TURNS).for_each(|_| play.turn(notifications));
        let Counts { deliveries, sent, received, allocations } = play.counts;
        eprintln!(
            "{notifications} notifications a turn to {SESSIONS} sessions: {allocations} allocations for {deliveries} \
             deliveries in {sent} datagrams, and {received} datagrams received"
        );
        assert_eq!(deliveries, notifications * SESSIONS * TURNS, "each once");
        assert_eq!(received, SESSIONS * TURNS);
        assert_eq!(allocations, OPENED * received, "those of the datagrams received alone");
    }
}

/// The node of a server that is its cluster, whose journal has done everything at once.
struct Alone {
    node: Node,
    clock: Clock,
    out: Vec<engine::Effect>,
    answers: Vec<delivery::Input>,
    allocations: u64,
}

impl Alone {
    fn new() -> Alone {
        let clock = Clock { now: Moment(1_000_000), unix_ms: 1 };
        let meta = Meta { incarnation: Incarnation(1), ..Meta::new(CLUSTER, ME, [ME]) };
        let recovered = Recovered { meta, snapshot: None, entries: Vec::new(), commit: Op::ZERO, lost: None };
        let identity = BootIdentity { id: BOOT_ID, keys: keys(), seed: 1 };
        let mut out = Vec::new();
        let service = node::empty(&config());
        let node = engine::start(config(), recovered, service, identity, clock, &mut out).unwrap();
        let mut alone = Alone { node, clock, out, answers: Vec::new(), allocations: 0 };
        while alone.node.role() != RoleName::Primary {
            assert!(alone.clock.now < Moment(60_000_000), "it does not lead");
            alone.clock.now = alone.node.next_deadline().unwrap().max(alone.clock.now);
            alone.turn([engine::Input::Deadline]);
        }
        alone
    }

    /// One turn of the replica thread, and those in which the journal reports.
    fn turn(&mut self, inputs: impl IntoIterator<Item = engine::Input>) {
        self.handle(inputs.into_iter().collect());
        loop {
            let mut journaled = None;
            for effect in self.out.drain(..) {
                match effect {
                    node::Effect::Log(bully::Effect::Journal { number, .. }) => journaled = Some(number),
                    node::Effect::Delivery(input) => self.answers.push(input),
                    _ => {}
                }
            }
            let Some(number) = journaled else { return };
            self.handle(vec![node::Input::Log(bully::Input::Journaled(number))]);
        }
    }

    fn handle(&mut self, inputs: Vec<engine::Input>) {
        let Alone { node, clock, out, allocations, .. } = self;
        *allocations += allocations_of(|| {
            inputs.into_iter().for_each(|input| node.handle(*clock, input, out));
            node.flush(*clock, out);
            node.apply(*clock, out);
        });
    }

    /// A session that is served, as `recado send` has one.
    fn session(&mut self) -> SessionId {
        let key = DeviceKey([9; 32]);
        let connect = Connect {
            device: DeviceId { key, slot: 0 },
            profile: "alice".parse().unwrap(),
            receives: false,
            nonce: 9,
            fresh: true,
            code: None,
            invite: None,
            aeads: 0,
            options: OptionalFields::NONE,
        };
        let reply = noise::Reply { opening: [0; OPENING_LEN], key: Key::new([0; 32]) };
        let reply_to = ReplyTo { to: ([127, 0, 0, 9], 4_000).into(), reply };
        self.turn([node::Input::Initiation { reply_to, key, packet: ToServer::Connect(connect) }]);
        let accepted = self.answers.drain(..).find_map(|input| match input {
            Input::AnswerTo { packets, .. } => match &packets[..] {
                [ToClient::AcceptConn(accept)] => Some(accept.session),
                _ => None,
            },
            _ => None,
        });
        let session = accepted.unwrap();
        let (home, options) = (Home::PRIMARY, OptionalFields::NONE);
        let packet = ToServer::Resume(Resume { cursor: None, credit: 256, home, options });
        self.turn([node::Input::Client { session, packet }]);
        self.answers.clear();
        session
    }
}

/// There is no floor: an entry of the log is bytes of its own, and so are the stored notification and the
/// answer.
#[test]
fn what_an_acknowledged_send_allocates_in_the_node_is_printed() {
    for in_flight in [1, 16] {
        let mut alone = Alone::new();
        let session = alone.session();
        let mut seq = 0;
        let mut acknowledged = 0;
        for turn in 0..300 {
            if turn == 100 {
                (alone.allocations, acknowledged) = (0, 0);
            }
            let sends = (0..in_flight).map(|_| {
                seq += 1;
                let packet = ToServer::Send(Send {
                    seq: Seq(seq),
                    answered_below: Seq(1 + (seq - 1) / in_flight * in_flight),
                    topic: None,
                    content: Content::of("x".repeat(100)),
                    nonce: seq,
                    options: OptionalFields::NONE,
                });
                node::Input::Client { session, packet }
            });
            let sends: Vec<_> = sends.collect();
            // No faster than a profile may send.
            alone.clock.now = alone.clock.now + 100 * MS;
            alone.clock.unix_ms += 100;
            alone.turn(sends);
            let is_ack = |input: &Input| matches!(input, Input::Answer { packet: ToClient::SendAck(_), .. });
            acknowledged += alone.answers.drain(..).filter(is_ack).count();
        }
        assert_eq!(acknowledged as u64, 200 * in_flight);
        let each = alone.allocations as f64 / acknowledged as f64;
        eprintln!("{in_flight} sends a turn: {each:.1} allocations in the node for each");
    }
}
