//! The delivery and a client machine over a path with faults: the application gets every notification once,
//! in order. The service is a list of notifications; an election is a new view at a given time.

use std::collections::BTreeMap;

use recado_client::machine::handshake::Identity;
use recado_client::machine::{self, Event, Machine, Start};
use recado_proto::entropy::Entropy;
use recado_proto::fragment::Reassembler;
use recado_proto::id::{DeviceId, DeviceKey, Seq};
use recado_proto::noise;
use recado_proto::packet::{AcceptConn, OptionalFields, Position, ResumeOk, ToServer};
use recado_proto::seal::Key;
use recado_service::Page;

use super::hand::{config, coordinator, notification};
use crate::delivery::*;
use crate::server::handshake::tests::handshake_config;
use crate::server::handshake::{HandshakeEvent, HandshakeServer, Keyring};

const SESSION: SessionId = SessionId(Op(1));

/// The id of the server under test; it is number 3 of [`config`].
const ME: u16 = 3;

fn private() -> Key {
    Key::new([1; 32])
}

fn client() -> SocketAddr {
    ([127, 0, 0, 9], 4_000).into()
}

/// The faults of the path, each in percent of the datagrams.
#[derive(Clone, Copy, Default)]
struct Faults {
    lost: u64,
    repeated: u64,
    late: u64,
}

const BAD: Faults = Faults { lost: 10, repeated: 5, late: 20 };

/// One server (which can be restarted), one client, and the path between them.
struct World {
    seed: u64,
    noise: u64,
    now: Moment,
    faults: Faults,
    responder: HandshakeServer,
    keyring: Keyring,
    delivery: Delivery,
    incarnation: u64,
    round: u64,
    reassembler: Reassembler,
    machine: Machine,
    /// The client's address.
    home: SocketAddr,
    /// The nonce of the CONNECT that opened the session.
    nonce: Option<u64>,
    /// Datagrams under way, by arrival: the client's address when it sent them (none if the server did), and
    /// the bytes.
    wire: BTreeMap<(Moment, u64), (Option<SocketAddr>, Vec<u8>)>,
    datagrams: u64,
    log: Vec<Stored>,
    seen: Vec<u64>,
    events: Vec<Event>,
    cursor: Op,
    /// True if the application takes everything it is given at once.
    prompt: bool,
    disconnected: bool,
}

impl World {
    fn new(seed: u64, faults: Faults) -> World {
        let now = Moment(1_000_000);
        let mut out = Vec::new();
        let handshake_config = handshake_config(ME, 1);
        let start = Start {
            handshakes: BTreeMap::new(),
            servers: vec![config().cluster.members[2].client],
            identity: Identity {
                cluster: handshake_config.cluster,
                cluster_key: noise::public(&handshake_config.keys.cluster_private()),
                private: private(),
            },
            device: DeviceId { key: DeviceKey(noise::public(&private())), slot: 0 },
            created_op: None,
            profile: "alice".parse().unwrap(),
            code: None,
            invite: None,
            receives: true,
            cursor: None,
            outbox: Vec::new(),
            highest_seq: Some(Default::default()),
            entropy: Entropy::new([seed as u8; 32]),
            ciphers: Default::default(),
            planted: Default::default(),
        };
        let machine = Machine::new(now, start, &mut out);
        let mut world = World {
            seed,
            noise: seed,
            now,
            faults,
            responder: HandshakeServer::new(handshake_config.clone(), [1; 32]),
            keyring: Keyring::new(&handshake_config),
            delivery: Delivery::new(&config(), Incarnation(1), [1; 32]),
            incarnation: 1,
            round: 1,
            reassembler: Reassembler::default(),
            machine,
            home: client(),
            nonce: None,
            wire: BTreeMap::new(),
            datagrams: 0,
            log: Vec::new(),
            seen: Vec::new(),
            events: Vec::new(),
            cursor: Op::ZERO,
            prompt: true,
            disconnected: false,
        };
        world.deliver(Input::Announce(coordinator(1)));
        world.client_does(out);
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 33) % below
    }

    fn send(&mut self, from: Option<SocketAddr>, bytes: Vec<u8>) {
        let copies = 1 + u64::from(self.draw(100) < self.faults.repeated);
        for _ in 0..copies {
            if self.draw(100) < self.faults.lost {
                continue;
            }
            let late = if self.draw(100) < self.faults.late { self.draw(20_000) } else { 0 };
            self.datagrams += 1;
            let at = self.now + Duration::from_micros(500 + self.draw(200) + late);
            self.wire.insert((at, self.datagrams), (from, bytes.clone()));
        }
    }

    fn deliver(&mut self, input: Input) {
        let mut out = Vec::new();
        self.delivery.handle(self.now, input, &mut out);
        self.delivery.flush(self.now, &mut out);
        for effect in out {
            match effect {
                Effect::Datagram { to, bytes } if to == self.home => self.send(None, bytes),
                Effect::Datagram { .. } | Effect::Refused(_) => {}
                Effect::WantPage { session, after, limit } => {
                    let mut rest = self.log.iter().filter(|one| one.op() > after).cloned();
                    let notifications = rest.by_ref().take(limit as usize).collect();
                    let page = Page { gap: None, notifications, more: rest.next().is_some() };
                    self.deliver(Input::Page { session, after, page });
                }
                Effect::Path { .. } | Effect::AnswerDone { .. } => {}
                Effect::Cursor { upto, .. } => self.cursor = self.cursor.max(upto),
            }
        }
    }

    fn client_does(&mut self, effects: Vec<machine::Effect>) {
        for effect in effects {
            match effect {
                machine::Effect::Datagram { bytes, .. } => self.send(Some(self.home), bytes),
                machine::Effect::Event(Event::Notification(one)) => {
                    self.seen.push(one.op.0);
                    if self.prompt {
                        self.client(machine::Input::Taken(one.op));
                    }
                }
                machine::Effect::Event(event) => {
                    self.disconnected |= event == Event::Disconnected;
                    self.events.push(event);
                }
            }
        }
    }

    fn client(&mut self, input: machine::Input) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.client_does(out);
        self.flush_client();
    }

    fn flush_client(&mut self) {
        let mut out = Vec::new();
        self.machine.flush(self.now, &mut out);
        self.client_does(out);
    }

    /// The work of listener, handler and replica thread on a datagram.
    fn serve(&mut self, from: SocketAddr, bytes: &[u8]) {
        if Envelope::peek(bytes).unwrap().class == Class::Handshake {
            // Only this client connects. Its INITIATION names the boot id it was told last, which may be that
            // of an earlier run.
            match self.responder.receive(self.now, from, bytes) {
                Ok(HandshakeEvent::Retry(answer)) if from == self.home => self.send(None, answer),
                Ok(HandshakeEvent::Initiation { reply_to, packet, .. }) => self.let_in(reply_to, packet),
                Ok(HandshakeEvent::Retry(_)) | Err(_) => {}
            }
            return;
        }
        let Ok((opened, keys)) = self.keyring.open(bytes) else { return };
        let session = opened.envelope.session;
        let (number, ack) = (opened.envelope.number, opened.header.ack);
        self.deliver(Input::DatagramReceived { session, from, number, ack, length: bytes.len(), keys });
        for packet in opened.packets {
            let whole = match packet {
                ToServer::Fragment(piece) => self.reassembler.accept(self.now, piece).unwrap(),
                ToServer::PathResponse(token) => {
                    self.deliver(Input::PathResponse { session, from, token });
                    None
                }
                whole => Some(whole),
            };
            whole.into_iter().for_each(|packet| self.answer(session, packet));
        }
    }

    fn let_in(&mut self, reply_to: ReplyTo, packet: ToServer) {
        let ToServer::Connect(connect) = packet else { return };
        self.nonce = Some(connect.nonce);
        self.keyring.learn(SESSION, connect.device.key, connect.nonce, Default::default());
        let secret = handshake_config(ME, 1).keys.session_secret(
            SESSION,
            connect.device.key,
            connect.nonce,
            Default::default(),
        );
        let coordinator = coordinator(self.round);
        let accept = AcceptConn {
            nonce: connect.nonce,
            session: SESSION,
            coordinator,
            secret: secret.key().clone(),
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        self.deliver(Input::AnswerTo { reply_to, packets: vec![ToClient::AcceptConn(accept)] });
    }

    fn answer(&mut self, session: SessionId, packet: ToServer) {
        let coordinator = coordinator(self.round);
        match packet {
            ToServer::Resume(resume) => {
                let resumed = ResumeOk {
                    created_op: Op(1),
                    last_seq: Seq(0),
                    coordinator,
                    cursor: Position::of(Op(0)),
                    keepalive_ms: 2_000,
                    options: OptionalFields::NONE,
                };
                self.deliver(Input::Answer { session, packet: ToClient::ResumeOk(resumed) });
                let (cursor, credit) = (resume.cursor.and_then(Position::op), Some(resume.credit));
                let cursor = cursor.unwrap_or(Op(0));
                self.deliver(Input::Serve { session, cursor, credit });
            }
            ToServer::ClientAck(ack) => self.deliver(Input::ClientAck(session, ack)),
            ToServer::Keepalive(_) => {
                self.deliver(Input::Answer { session, packet: ToClient::Coordinator(coordinator) });
            }
            ToServer::Disconnect(last) => {
                self.cursor = self.cursor.max(last.upto.op().unwrap());
                self.deliver(Input::SessionEnded { session, packets: Vec::new() });
            }
            _ => {}
        }
    }

    fn notify(&mut self, bytes: usize) {
        let op = self.log.last().map_or(1, |one| one.op().0) + 1 + self.draw(5);
        let one = notification(op, bytes);
        self.log.push(one.clone());
        self.deliver(Input::Applied { notification: one, sessions: [SESSION].into() });
    }

    /// The server process ends and starts again as the primary of a higher view.
    fn restart(&mut self) {
        self.incarnation += 1;
        self.round += 1;
        let handshake_config = handshake_config(ME, self.incarnation);
        self.responder = HandshakeServer::new(handshake_config.clone(), [self.incarnation as u8; 32]);
        self.keyring = Keyring::new(&handshake_config);
        if let Some(nonce) = self.nonce {
            self.keyring.learn(SESSION, DeviceKey(noise::public(&private())), nonce, Default::default());
        }
        self.delivery = Delivery::new(&config(), Incarnation(self.incarnation), [self.incarnation as u8; 32]);
        self.reassembler = Reassembler::default();
        self.deliver(Input::Announce(coordinator(self.round)));
    }

    fn pass(&mut self, wait: Duration) {
        let end = self.now + wait;
        let mut turns = 0;
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timers = [self.delivery.next_deadline(), self.machine.next_deadline()];
            let Some(next) = timers.into_iter().flatten().chain(arrival).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next)
                && let Some((_, (from, bytes))) = self.wire.pop_first()
            {
                if let Some(from) = from {
                    self.serve(from, &bytes);
                } else {
                    let from = config().cluster.members[2].client;
                    self.client(machine::Input::Datagram { from, bytes });
                }
            } else {
                self.deliver(Input::Deadline);
                self.flush_client();
            }
            turns += 1;
            assert!(turns < 2_000_000, "seed {}: no peace", self.seed);
        }
        self.now = end;
    }

    fn check(&self) {
        let all: Vec<u64> = self.log.iter().map(|one| one.op().0).collect();
        let same = self.seen.iter().zip(&all).take_while(|(seen, sent)| seen == sent).count();
        assert!(
            self.seen == all,
            "seed {}: {} of {}, equal up to {same}",
            self.seed,
            self.seen.len(),
            all.len()
        );
    }

    /// Sends `count` notifications, a little apart.
    fn notify_many(&mut self, count: usize, bytes: usize) {
        for _ in 0..count {
            self.notify(bytes);
            let pause = self.draw(4_000);
            self.pass(Duration::from_micros(pause));
        }
    }
}

#[test]
fn everything_comes_once_and_in_order_over_a_bad_path() {
    for seed in 0..30 {
        let mut world = World::new(seed, BAD);
        world.notify_many(300, 40);
        world.pass(Duration::from_secs(20));
        world.check();
        assert_eq!(world.cursor, world.log.last().unwrap().op(), "seed {seed}: the cursor");
    }
}

#[test]
fn what_was_pending_before_the_client_came_is_paged() {
    for seed in 0..10 {
        let mut world = World::new(seed, BAD);
        (0..2_000).for_each(|_| world.notify(100));
        world.pass(Duration::from_secs(60));
        world.check();
    }
}

#[test]
fn large_bodies_come_through_a_path_that_loses_a_tenth() {
    for seed in 0..10 {
        let mut world = World::new(seed, BAD);
        world.notify_many(20, 16 * 1024);
        world.pass(Duration::from_secs(60));
        world.check();
    }
}

#[test]
fn a_server_that_starts_again_goes_on_where_the_client_is() {
    for seed in 0..20 {
        let mut world = World::new(seed, BAD);
        for _ in 0..4 {
            world.notify_many(60, 200);
            world.restart();
        }
        world.notify_many(60, 200);
        world.pass(Duration::from_secs(30));
        world.check();
    }
}

#[test]
fn a_client_that_moves_about_gets_everything() {
    for seed in 0..20 {
        let mut world = World::new(seed, BAD);
        for port in 4_001..4_006 {
            world.notify_many(60, 200);
            world.home.set_port(port);
        }
        world.notify_many(60, 200);
        world.pass(Duration::from_secs(30));
        world.check();
    }
}

#[test]
fn a_slow_application_gets_all_of_it_and_no_more_than_its_window_at_a_time() {
    for seed in 0..10 {
        let mut world = World::new(seed, BAD);
        world.prompt = false;
        (0..1_000).for_each(|_| world.notify(100));
        let mut taken = 0;
        for _ in 0..400 {
            world.pass(Duration::from_millis(150));
            assert!(world.seen.len() - taken <= 256, "seed {seed}: {} untaken", world.seen.len() - taken);
            taken = world.seen.len().min(taken + 10);
            if taken > 0 {
                let op = Op(world.seen[taken - 1]);
                world.client(machine::Input::Taken(op));
                assert!(world.cursor <= op, "seed {seed}: the cursor passed the application");
            }
        }
        world.check();
    }
}

#[test]
fn an_application_that_stands_still_costs_next_to_nothing() {
    let mut world = World::new(1, Faults::default());
    world.prompt = false;
    (0..1_000).for_each(|_| world.notify(100));
    world.pass(Duration::from_secs(10));
    let before = world.datagrams;
    world.pass(Duration::from_secs(60));
    assert!(world.datagrams - before < 200, "{} datagrams in a minute", world.datagrams - before);
    assert!(!world.events.contains(&Event::Searching));
}

#[test]
fn a_request_after_a_rest_is_no_search() {
    let mut world = World::new(1, Faults::default());
    world.pass(Duration::from_millis(1_700));
    world.client(machine::Input::Query(
        recado_proto::packet::QueryId(1),
        machine::Query::Info { profile: None },
    ));
    world.pass(Duration::from_millis(100));
    assert!(!world.events.contains(&Event::Searching));
}

#[test]
fn after_a_silence_the_client_resumes_and_says_so() {
    let mut world = World::new(1, Faults::default());
    world.notify_many(3, 10);
    world.faults.lost = 100;
    world.pass(Duration::from_secs(120));
    assert!(world.events.contains(&Event::Searching));
    world.faults.lost = 0;
    world.notify_many(3, 10);
    world.pass(Duration::from_secs(3));
    world.check();
    assert!(matches!(world.events.last(), Some(Event::PrimaryFound { .. })), "{:?}", world.events.last());
}

#[test]
fn a_client_that_leaves_has_told_what_it_took() {
    let mut world = World::new(1, Faults::default());
    world.notify_many(3, 10);
    while world.seen.is_empty() {
        world.pass(Duration::from_micros(100));
    }
    world.client(machine::Input::Disconnect);
    world.pass(Duration::from_secs(1));
    assert!(world.disconnected);
    assert_eq!(Some(&world.cursor.0), world.seen.last());
}
