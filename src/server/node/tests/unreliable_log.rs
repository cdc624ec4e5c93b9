//! Client machines, the delivery and a node over a log that delays, loses, doubles and reorders what is
//! proposed: each request is applied once, in the order of its numbers, and each notification comes once and
//! in order.

use std::convert::Infallible;
use std::net::SocketAddr;

use recado_client::machine::handshake::Identity;
use recado_client::machine::{self, Machine, Request, Start};
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::fragment::Reassembler;
use recado_proto::id::{Seq, Topic};

use super::vector_log::{Faults, VectorLog, node};
use super::*;
use crate::config::PlantedBug;
use crate::delivery::Delivery;
use crate::server::handshake::{HandshakeEvent, HandshakeServer, Keyring};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// The number of notifications that each client sends.
const SENDS: usize = 40;

struct Client {
    machine: Machine,
    home: SocketAddr,
    connected: bool,
    /// The text of each notification that it has sent, by number; none for a follow.
    requests: BTreeMap<Seq, Option<String>>,
    answers: Vec<(Seq, Result<Op, Code>)>,
    seen: Vec<(Op, String)>,
}

impl Client {
    fn new(index: usize, seed: u64, now: Moment, out: &mut Vec<machine::Effect>) -> Client {
        let handshake_config = handshake_config(ME.0, 1);
        let private = || Key::new([1 + index as u8; 32]);
        let start = Start {
            servers: vec![server()],
            handshakes: BTreeMap::new(),
            identity: Identity {
                cluster: handshake_config.cluster,
                cluster_key: noise::public(&handshake_config.keys.cluster_private()),
                private: private(),
            },
            device: DeviceId { key: DeviceKey(noise::public(&private())), slot: 0 },
            created_op: None,
            profile: NAMES[index].parse().unwrap(),
            code: None,
            invite: None,
            receives: true,
            cursor: None,
            outbox: Vec::new(),
            highest_seq: Some(Default::default()),
            entropy: Entropy::new([1 + index as u8 + (seed << 2) as u8; 32]),
            ciphers: Default::default(),
            planted: Default::default(),
        };
        let machine = Machine::new(now, start, out);
        let home = ([127, 0, 0, 9], 4_000 + index as u16).into();
        let (connected, requests, answers, seen) = Default::default();
        Client { machine, home, connected, requests, answers, seen }
    }
}

fn server() -> SocketAddr {
    config().cluster.member(ME).unwrap().client
}

/// A server, its clients, and a path between them that loses a twentieth.
struct World {
    seed: u64,
    entropy: Entropy,
    clock: Clock,
    node: Node<VectorLog>,
    delivery: Delivery,
    responder: HandshakeServer,
    keyring: Keyring,
    fragments: BTreeMap<SessionId, Reassembler>,
    clients: Vec<Client>,
    /// Datagrams under way, by arrival: the client, true if it is the sender, and the bytes.
    wire: BTreeMap<(Moment, u64), (usize, bool, Vec<u8>)>,
    datagrams: u64,
    snapshots: usize,
}

impl World {
    fn new(seed: u64, planted: PlantedBug) -> World {
        let clock = Clock { now: Moment(1_000_000), unix_ms: 1_800_000_000_000 };
        // Small, so that the log is trimmed meanwhile.
        let config = Config { snapshot_bytes: 1_024, planted, ..config() };
        let (delivery, handshake_config) =
            (Delivery::new(&config, Incarnation(1), [1; 32]), handshake_config(ME.0, 1));
        let (node, effects) = node(config, VectorLog::new(seed, true), clock);
        let mut world = World {
            seed,
            entropy: Entropy::from_number(seed),
            clock,
            node,
            delivery,
            responder: HandshakeServer::new(handshake_config.clone(), [1; 32]),
            keyring: Keyring::new(&handshake_config),
            fragments: BTreeMap::new(),
            clients: Vec::new(),
            wire: BTreeMap::new(),
            datagrams: 0,
            snapshots: 0,
        };
        world.perform(effects);
        for index in 0..NAMES.len() {
            let mut out = Vec::new();
            world.clients.push(Client::new(index, seed, clock.now, &mut out));
            world.perform_of_client(index, out);
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    fn send(&mut self, client: usize, sends: bool, bytes: Vec<u8>) {
        if self.draw(100) < 5 {
            return;
        }
        self.datagrams += 1;
        let at = self.clock.now + Duration::from_micros(500 + self.draw(2_000));
        self.wire.insert((at, self.datagrams), (client, sends, bytes));
    }

    /// Gives the node an input.
    fn input(&mut self, input: Input<Infallible>) {
        let mut out = Vec::new();
        self.node.handle(self.clock, input, &mut out);
        self.node.flush(self.clock, &mut out);
        self.node.apply(self.clock, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<Effect<Infallible>>) {
        for effect in effects {
            match effect {
                Effect::Log(never) => match never {},
                Effect::Snapshot(image) => {
                    self.snapshots += 1;
                    self.input(Input::SnapshotDone(image.op));
                }
                Effect::Delivery(input) => self.deliver(input),
                Effect::SessionKnown { session, device, nonce, aead } => {
                    self.keyring.learn(session, device.key, nonce, aead);
                }
                Effect::SessionGone(session) => self.keyring.forget(session),
                Effect::Administered { .. }
                | Effect::BeyondEnd { .. }
                | Effect::ClockAway(_)
                | Effect::Dropping(_)
                | Effect::SnapshotRefused(_)
                | Effect::Discard(_)
                | Effect::Stopped
                | Effect::Failed(_) => panic!("seed {}: {effect:?}", self.seed),
            }
        }
    }

    fn deliver(&mut self, input: delivery::Input) {
        let mut out = Vec::new();
        self.delivery.handle(self.clock.now, input, &mut out);
        self.delivery.flush(self.clock.now, &mut out);
        for effect in out {
            match effect {
                delivery::Effect::Datagram { to, bytes } => {
                    let client = self.clients.iter().position(|client| client.home == to).unwrap();
                    self.send(client, false, bytes);
                }
                delivery::Effect::WantPage { session, after, limit } => {
                    self.input(Input::WantPage { session, after, limit });
                }
                delivery::Effect::Path { session, address } => self.input(Input::Path { session, address }),
                delivery::Effect::Cursor { session, upto } => self.input(Input::Cursor(session, upto)),
                delivery::Effect::AnswerDone { session, query } => {
                    self.input(Input::AnswerDone { session, query });
                }
                delivery::Effect::Refused(_) => {}
            }
        }
    }

    /// The work of listener and handler on a client's datagram.
    fn serve(&mut self, from: usize, bytes: &[u8]) {
        let from = self.clients[from].home;
        if Envelope::peek(bytes).unwrap().class == Class::Handshake {
            match self.responder.receive(self.clock.now, from, bytes) {
                Ok(HandshakeEvent::Retry(bytes)) => {
                    let client = self.clients.iter().position(|client| client.home == from).unwrap();
                    self.send(client, false, bytes);
                }
                Ok(HandshakeEvent::Initiation { reply_to, key, packet }) => {
                    self.input(Input::Initiation { reply_to, key, packet });
                }
                Err(_) => {}
            }
            return;
        }
        let Ok((opened, keys)) = self.keyring.open(bytes) else { return };
        let (session, number) = (opened.envelope.session, opened.envelope.number);
        let (ack, length) = (opened.header.ack, bytes.len());
        self.deliver(delivery::Input::DatagramReceived { session, from, number, ack, length, keys });
        for packet in opened.packets {
            let whole = match packet.into_fragment() {
                Ok(piece) => {
                    let fragments = self.fragments.entry(session).or_default();
                    fragments.accept::<ToServer>(self.clock.now, piece).unwrap()
                }
                Err(whole) => Some(whole),
            };
            match whole {
                None => {}
                Some(ToServer::ClientAck(ack)) => self.deliver(delivery::Input::ClientAck(session, ack)),
                Some(ToServer::PathResponse(token)) => {
                    self.deliver(delivery::Input::PathResponse { session, from, token });
                }
                Some(packet) => self.input(Input::Client { session, packet }),
            }
        }
    }

    fn client(&mut self, index: usize, input: machine::Input) {
        let mut out = Vec::new();
        self.clients[index].machine.handle(self.clock.now, input, &mut out);
        self.perform_of_client(index, out);
        self.flush_client(index);
    }

    fn flush_client(&mut self, index: usize) {
        let mut out = Vec::new();
        self.clients[index].machine.flush(self.clock.now, &mut out);
        self.perform_of_client(index, out);
    }

    fn perform_of_client(&mut self, index: usize, effects: Vec<machine::Effect>) {
        for effect in effects {
            let event = match effect {
                machine::Effect::Datagram { to, bytes } if to == server() => {
                    self.send(index, true, bytes);
                    continue;
                }
                machine::Effect::Datagram { .. } => continue,
                machine::Effect::Event(event) => event,
            };
            let client = &mut self.clients[index];
            match event {
                machine::Event::Connected { .. } => client.connected = true,
                machine::Event::Answered { seq, result } => client.answers.push((seq, result)),
                machine::Event::Notification(one) => {
                    client.seen.push((one.op, one.content.body.to_string()));
                    self.client(index, machine::Input::Taken(one.op));
                }
                machine::Event::Numbered { .. }
                | machine::Event::MadeChannel { .. }
                | machine::Event::Timestamp { .. }
                | machine::Event::Searching
                | machine::Event::PrimaryFound { .. } => {}
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
    }

    /// A client asks the next request, which gets the next number.
    fn ask(&mut self, index: usize, request: Request) {
        let client = &mut self.clients[index];
        let text = match &request {
            Request::Send { content, .. } => Some(content.body.to_string()),
            _ => None,
        };
        let seq = Seq(client.requests.len() as u64 + 1);
        client.requests.insert(seq, text);
        self.client(index, machine::Input::Request(request));
    }

    fn pass(&mut self, wait: Duration) {
        let end = self.clock.now + wait;
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timers = [self.node.next_deadline(), self.delivery.next_deadline()];
            let machines = self.clients.iter().map(|client| client.machine.next_deadline());
            let next = timers.into_iter().chain(machines).flatten().chain(arrival).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.set_now(next);
            if arrival == Some(next)
                && let Some((_, (client, sends, bytes))) = self.wire.pop_first()
            {
                if sends {
                    self.serve(client, &bytes);
                } else {
                    self.client(client, machine::Input::Datagram { from: server(), bytes });
                }
                continue;
            }
            self.input(Input::Deadline);
            self.deliver(delivery::Input::Deadline);
            (0..NAMES.len()).for_each(|index| self.flush_client(index));
        }
        self.set_now(end);
    }

    fn set_now(&mut self, now: Moment) {
        let now = now.max(self.clock.now);
        self.clock = Clock { now, unix_ms: 1_800_000_000_000 + now.0 / 1_000 };
    }

    /// Passes time until this holds of all clients.
    fn until(&mut self, holds: impl Fn(&Client) -> bool) {
        for _ in 0..6_000 {
            if self.clients.iter().all(&holds) {
                return;
            }
            self.pass(Duration::from_millis(10));
        }
        panic!("seed {}: not within a minute", self.seed);
    }

    /// Clients follow each other's feeds, and then send to their own.
    fn run(&mut self) {
        self.until(|client| client.connected);
        for (index, me) in NAMES.iter().enumerate() {
            for other in NAMES.iter().filter(|name| *name != me) {
                let topic = Topic::Feed(other.parse().unwrap());
                self.ask(index, Request::Follow { topic, change: FollowChange::Add });
            }
        }
        self.until(|client| client.answers.len() >= client.requests.len());
        for n in 0..SENDS {
            for (index, me) in NAMES.iter().enumerate() {
                let body = format!("{me} {n}");
                let content = Content::of(body);
                self.ask(index, Request::Send { topic: None, content });
                let pause = self.draw(3_000);
                self.pass(Duration::from_micros(pause));
            }
        }
        self.until(|client| client.answers.len() >= client.requests.len());
        self.pass(Duration::from_secs(10));
    }

    /// The op under which each request of a client was applied.
    fn ops(&self, client: &Client) -> Vec<Op> {
        let mut answers = client.answers.clone();
        answers.sort();
        let numbers: Vec<Seq> = answers.iter().map(|(seq, _)| *seq).collect();
        assert!(
            client.requests.keys().eq(&numbers),
            "seed {}: each is answered once: {numbers:?}",
            self.seed
        );
        answers.into_iter().map(|(_, result)| result.unwrap()).collect()
    }

    fn check(&self) {
        let mut sent: Vec<(Op, String)> = Vec::new();
        for client in &self.clients {
            let ops = self.ops(client);
            assert!(ops.is_sorted_by(|one, next| one < next), "seed {}: in order: {ops:?}", self.seed);
            let texts = client.requests.values().zip(ops);
            sent.extend(texts.filter_map(|(text, op)| text.clone().map(|text| (op, text))));
        }
        sent.sort();
        for (name, client) in NAMES.iter().zip(&self.clients) {
            let of_others = |(_, text): &&(Op, String)| !text.starts_with(name);
            let expected: Vec<(Op, String)> = sent.iter().filter(of_others).cloned().collect();
            assert_eq!(client.seen, expected, "seed {}: {name} gets each once and in order", self.seed);
        }
    }
}

#[test]
fn whatever_a_log_does_requests_are_applied_once_and_in_order_and_so_are_notifications_delivered() {
    let mut all = Faults::default();
    let mut snapshots = 0;
    for seed in 0..40 {
        let mut world = World::new(seed, PlantedBug::default());
        world.run();
        world.check();
        assert!(world.snapshots > 1, "seed {seed}: the log is trimmed");
        snapshots += world.snapshots;
        let Faults { lost, doubled, overtaken } = world.node.log.faults;
        all.lost += lost;
        all.doubled += doubled;
        all.overtaken += overtaken;
    }
    assert!(snapshots > 4 * 40, "{snapshots}");
    assert!(all.lost > 40 && all.doubled > 40 && all.overtaken > 40, "{all:?}");
}

/// Runs with a planted bug.
fn run_with(bug: Planted) {
    for seed in 0..40 {
        let mut world = World::new(seed, PlantedBug(Some(bug)));
        world.run();
        world.check();
    }
}

#[test]
#[should_panic(expected = "not within a minute")]
fn an_admission_that_ignores_void_tickets_is_found() {
    run_with(Planted::NumbersOutliveView);
}

#[test]
#[should_panic(expected = "not within a minute")]
fn a_request_that_is_applied_as_often_as_it_is_logged_is_found() {
    run_with(Planted::DuplicatesOnlyCommitted);
}
