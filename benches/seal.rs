//! Benchmark of sealing and opening datagrams: `cargo bench --bench seal`.
//!
//! A plain program without a benchmark library, because only ratios within one run matter. The fastest of
//! several rounds is the least disturbed one. Allocations are counted, and the same in each run. `cargo test`
//! runs a single round of everything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench ends where it fails")]
#![allow(clippy::disallowed_methods, reason = "the servers' clock counts microseconds, too few for this")]

#[path = "../bench/src/allocations.rs"]
mod allocations;

use std::hint::black_box;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use recado::config::{Cluster, Config, Limits, Member};
use recado::delivery::{Delivery, Effect, Input};
use recado::server::handshake::{HandshakeConfig, Keyring};
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{self, Class, Envelope, OUTER_LEN};
use recado_proto::handshake;
use recado_proto::id::{
    BootId, ClusterId, DeviceKey, Incarnation, Moment, NodeId, Op, SessionId, Topic, View,
};
use recado_proto::link::Link;
use recado_proto::noise::{self, Initiation, Prologue};
use recado_proto::packet::{
    ClientAck, Content, Coordinator, Notification, OptionalFields, Position, Query, QueryId, QueryKind,
    ToClient, ToServer,
};
use recado_proto::seal::{Aead, Ciphers, ClusterKeys, Direction, Key, PacketKeys, TAG_LEN};
use recado_service::{Page, Stored};

/// Number of rounds: many and short, so that some of them are not interrupted. `cargo bench` alone passes
/// `--bench`.
fn rounds() -> usize {
    if std::env::args().any(|argument| argument == "--bench") { 200 } else { 1 }
}

const ME: NodeId = NodeId(3);
const CLUSTER: ClusterId = ClusterId(7);
const BOOT_ID: BootId = BootId([3; 16]);
const SESSION: SessionId = SessionId(Op(5));
const NONCE: u64 = 9;

fn main() {
    datagrams();
    handshakes();
    println!();
    println!(
        "CPU of one delivered notification at the server: queued, sealed, its CLIENT_ACK opened and taken"
    );
    for body in [40, 900] {
        delivery(body);
    }
}

/// Time of one call in nanoseconds, in the fastest round.
fn each(times: u32, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let began = Instant::now();
        (0..times).for_each(|_| work());
        began.elapsed().as_nanos() as f64 / f64::from(times)
    };
    (0..rounds()).map(round).fold(f64::INFINITY, f64::min)
}

fn datagrams() {
    println!("{:>18} {:>9} {:>9} {:>9}", "", "datagram", "seal", "open");
    for (name, aead) in [("ChaCha20-Poly1305", Aead::ChaCha20Poly1305), ("AES-256-GCM", Aead::Aes256Gcm)] {
        let mut keys = PacketKeys::new(Key::new([1; 32]), aead, Ciphers::default());
        for length in [128, 1_100] {
            let plain = vec![7; length - TAG_LEN];
            let mut number = 0;
            let seal = each(200, || {
                let mut datagram = Vec::with_capacity(length);
                datagram.extend_from_slice(&plain);
                number += 1;
                keys.seal(number, OUTER_LEN, &mut datagram);
                black_box(&datagram);
            });
            let mut sealed = plain.clone();
            keys.seal(1, OUTER_LEN, &mut sealed);
            let open = each(200, || drop(black_box(keys.open(1, OUTER_LEN, &sealed).unwrap())));
            println!("{name:>18} {length:>7} B {seal:>6.0} ns {open:>6.0} ns");
        }
    }
}

fn handshakes() {
    let keys = ClusterKeys::new(&[0x5e; 32]);
    let private = keys.cluster_private();
    let cluster_key = noise::public(&private);
    let prologue = Prologue { cluster: CLUSTER, server: ME, boot_id: BOOT_ID };
    let device = Key::new([5; 32]);
    let load = handshake::load(&[ToServer::Query(Query::new(QueryId(1), QueryKind::Status))]);
    let mut entropy = Entropy::new([2; 32]);
    let mut initiation = || Initiation::new(prologue, &cluster_key, &device, &load, &mut entropy).unwrap();
    let (_, message) = initiation();
    let asks = each(5, || drop(black_box(initiation())));
    let mut others = Entropy::new([3; 32]);
    let answers = each(5, || {
        black_box(noise::answer(prologue, &private, &message, &mut others).unwrap());
    });
    let mut fresh: Vec<_> = (0..5 * rounds())
        .map(|_| {
            let (state, message) = initiation();
            let (_, _, reply) = noise::answer(prologue, &private, &message, &mut others).unwrap();
            (state, reply.opening)
        })
        .collect();
    let hears = each(5, || {
        let (mut state, opening) = fresh.pop().unwrap();
        black_box(state.read_response(&opening).unwrap());
    });
    println!();
    println!(
        "handshake: client {:.0} us ({:.0} to initiation, {:.0} to hear the answer), server {:.0} us",
        (asks + hears) / 1e3,
        asks / 1e3,
        hears / 1e3,
        answers / 1e3
    );
}

fn config() -> Config {
    let member = |id: u16| Member {
        id: NodeId(id),
        client: ([127, 0, 0, 1], 10_000 + id).into(),
        peer: ([127, 0, 0, 1], 11_000 + id).into(),
    };
    Config::default_for(Cluster { id: CLUSTER, me: ME, members: (1..=3).map(member).collect() })
}

/// Time of a delivery: in the machines without the system call (`machine`), of it for sealing and opening
/// the same bytes (`crypto`), and in the system call that sends (`sending`); and the allocations of the
/// machines.
#[derive(Default)]
struct Spent {
    machine: Duration,
    allocations: u64,
    crypto: Duration,
    sending: Duration,
}

fn delivery(body: usize) {
    let best = (0..rounds()).map(|_| deliver(body)).min_by_key(|spent| spent.machine).unwrap();
    let Spent { machine, allocations, crypto, sending } = best;
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(NOTIFICATIONS);
    println!(
        "{body:>5} B of text: {:.0} ns, of it {:.0} ns to seal and open ({:.0} %); with the system's sending of \
         the datagram {:.0} ns ({:.0} %); {:.2} allocations",
        each(machine),
        each(crypto),
        100.0 * each(crypto) / each(machine),
        each(machine + sending),
        100.0 * each(crypto) / each(machine + sending),
        allocations as f64 / f64::from(NOTIFICATIONS)
    );
}

/// More effects than a turn of one session has.
const EFFECTS_MAX: usize = 64;

/// Number of notifications that are delivered to one session, one after another.
const NOTIFICATIONS: u32 = 100;

fn deliver(body: usize) -> Spent {
    let keys = ClusterKeys::new(&[0x5e; 32]);
    let (device, limits) = (DeviceKey([8; 32]), Limits::default());
    let incarnation = Incarnation(1);
    let handshake_config = HandshakeConfig {
        cluster: CLUSTER,
        me: ME,
        incarnation,
        boot_id: BOOT_ID,
        keys: keys.clone(),
        limits,
    };
    let mut keyring = Keyring::new(&handshake_config);
    keyring.learn(SESSION, device, NONCE, Default::default());
    let mut delivery = Delivery::new(&config(), incarnation, [4; 32]);
    let secret = keys.session_secret(SESSION, device, NONCE, Default::default());
    let mut to_server = secret.of_session(Direction::ToServer, ME, BOOT_ID);
    let mut to_client = secret.of_session(Direction::ToClient, ME, BOOT_ID);
    let envelope = Envelope {
        class: Class::Client,
        cluster: CLUSTER,
        session: SESSION,
        node: None,
        incarnation: Incarnation(0),
        number: 0,
    };
    let mut client = Link::new(envelope, to_server.clone());
    let mut now = Moment(1_000_000);
    let mut spent = Spent::default();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sink = sink.local_addr().unwrap();

    let coordinator = Coordinator::new(View::new(1, ME), Vec::new());
    delivery.handle(now, Input::Announce(coordinator), &mut Vec::new());
    let mut say = |client: &mut Link, delivery: &mut Delivery, now, packet| {
        let mut datagrams = Vec::new();
        client.transmit(now, View::ZERO, &[packet], None, &mut datagrams);
        let [datagram] = &datagrams[..] else { panic!("one datagram") };
        let mut out = Vec::with_capacity(EFFECTS_MAX);
        let (began, allocated) = (Instant::now(), allocations::count());
        let (opened, keys) = keyring.open(datagram).unwrap();
        let heard = Input::DatagramReceived {
            session: SESSION,
            from: sink,
            number: opened.envelope.number,
            ack: opened.header.ack,
            length: datagram.len(),
            keys,
        };
        delivery.handle(now, heard, &mut out);
        for packet in opened.packets {
            if let ToServer::ClientAck(ack) = packet {
                delivery.handle(now, Input::ClientAck(SESSION, ack), &mut out);
            }
        }
        delivery.flush(now, &mut out);
        let (machine, allocated) = (began.elapsed(), allocations::count() - allocated);
        let began = Instant::now();
        black_box(to_server.open(opened.envelope.number, OUTER_LEN, datagram).unwrap());
        (machine, allocated, began.elapsed(), out)
    };

    // The session sends a first datagram, answers the challenge of its path, and is served.
    let (_, _, _, out) = say(&mut client, &mut delivery, now, ToServer::Padding);
    for effect in out {
        if let Effect::Datagram { bytes, .. } = effect {
            for packet in envelope::open::<ToClient>(&mut to_client, &bytes).unwrap().packets {
                if let ToClient::PathChallenge(token) = packet {
                    let response = Input::PathResponse { session: SESSION, from: sink, token };
                    delivery.handle(now, response, &mut Vec::new());
                }
            }
        }
    }
    let serve = Input::Serve { session: SESSION, cursor: Op(0), credit: Some(256) };
    delivery.handle(now, serve, &mut Vec::new());
    delivery.flush(now, &mut Vec::new());
    let page = Page { gap: None, notifications: Vec::new(), more: false };
    delivery.handle(now, Input::Page { session: SESSION, after: Op(0), page }, &mut Vec::new());
    delivery.flush(now, &mut Vec::new());

    let mut delivered = 0;
    for op in 1..=u64::from(NOTIFICATIONS) {
        now.0 += 1_000;
        let notification = Stored::new(&Notification {
            op: Op(op),
            topic: Topic::Feed("bob".parse().unwrap()),
            author: "bob".parse().unwrap(),
            unix_ms: op,
            content: Content::of("x".repeat(body)),
            options: OptionalFields::NONE,
        });
        let sessions = [SESSION].into();
        let mut out = Vec::with_capacity(EFFECTS_MAX);
        let (began, allocated) = (Instant::now(), allocations::count());
        delivery.handle(now, Input::Applied { notification, sessions }, &mut out);
        delivery.flush(now, &mut out);
        spent.machine += began.elapsed();
        spent.allocations += allocations::count() - allocated;
        for effect in out {
            let Effect::Datagram { bytes, .. } = effect else { continue };
            let number = Envelope::peek(&bytes).unwrap().number;
            let mut plain = bytes[..OUTER_LEN].to_vec();
            let opened = envelope::open::<ToClient>(&mut to_client, &bytes).unwrap();
            plain.extend(to_client.open(number, OUTER_LEN, &bytes).unwrap());
            delivered +=
                opened.packets.iter().filter(|packet| matches!(packet, ToClient::Delivered(_))).count();
            client.receive(now, number, opened.header.ack.as_ref());
            plain.reserve(TAG_LEN);
            let began = Instant::now();
            to_client.seal(number, OUTER_LEN, &mut plain);
            spent.crypto += began.elapsed();
            assert_eq!(plain, bytes);
            let began = Instant::now();
            // The result does not matter, only the duration of the call.
            let _ = socket.send_to(&bytes, sink);
            spent.sending += began.elapsed();
            delivery.hand_back(bytes);
        }
        let ack =
            ToServer::ClientAck(ClientAck { upto: Position::of(Op(op)), held: Vec::new(), credit: 256 });
        let (machine, allocated, opening, _) = say(&mut client, &mut delivery, now, ack);
        spent.machine += machine;
        spent.allocations += allocated;
        spent.crypto += opening;
    }
    assert_eq!(delivered, NOTIFICATIONS as usize, "each in a datagram, each once");
    spent
}
