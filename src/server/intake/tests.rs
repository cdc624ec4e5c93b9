use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::model::{TimeOuts, explore, seeds_to_find};
use recado_sys::sync::signal::Signal;
use recado_sys::sync::{Mistake, Mutex};

use recado_proto::codec::encode;
use recado_proto::envelope::{Envelope, seal};
use recado_proto::fragment::split;
use recado_proto::handshake::{self, Handshake};
use recado_proto::id::{DeviceKey, Incarnation, NodeId, Op, Seq, View};
use recado_proto::packet::{
    ClientAck, Content, OptionalFields, Position, Query, QueryId, QueryKind, Send, ToPeer,
};
use recado_proto::seal::{Direction, PacketKeys};
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX, Header, Link};
use recado_sys::threads::{Thread, spawn_named};

use super::*;
use crate::server::handshake::tests::handshake_config;
use crate::server::request_channel::{RequestReceiver, RequestSender, bounded_by_network};

const DEVICE: DeviceKey = DeviceKey([4; 32]);

struct Rig {
    intake: Intake,
    taken: Taken,
    requests: RequestSender,
    asked: RequestReceiver,
    from: SocketAddr,
    number: u64,
}

/// An intake with a request channel of this size; every session that sends is in its keyring.
fn rig(requests_max: usize) -> Rig {
    let (requests, asked) = bounded_by_network(&Signal::default(), requests_max);
    let handshakes = HandshakeServer::new(handshake_config(1, 1), [1; 32]);
    Rig {
        intake: Intake::new(handshakes, Keyring::new(&handshake_config(1, 1))),
        taken: Taken::default(),
        requests,
        asked,
        from: from(),
        number: 0,
    }
}

fn from() -> SocketAddr {
    "127.0.0.1:4000".parse().unwrap()
}

/// The keys of a session in this direction.
fn keys(direction: Direction, session: u64) -> PacketKeys {
    let handshake_config = handshake_config(1, 1);
    let secret = handshake_config.keys.session_secret(SessionId(Op(session)), DEVICE, 1, Default::default());
    secret.of_session(direction, handshake_config.me, handshake_config.boot_id)
}

fn envelope(class: Class, session: u64, number: u64) -> Envelope {
    Envelope {
        class,
        cluster: handshake_config(1, 1).cluster,
        session: SessionId(Op(session)),
        node: (class == Class::Peer).then_some(NodeId(1)),
        incarnation: Incarnation(0),
        number,
    }
}

fn send(seq: u64, body: &str) -> ToServer {
    let content = Content::of(body);
    ToServer::Send(Send {
        seq: Seq(seq),
        answered_below: Seq(1),
        topic: None,
        content,
        nonce: 0,
        options: OptionalFields::NONE,
    })
}

impl Rig {
    /// Gives the intake one datagram with these packets, on this session.
    fn take(&mut self, session: u64, packets: &[ToServer]) -> Result<(), RefusedDatagram> {
        self.intake.keyring.learn(SessionId(Op(session)), DEVICE, 1, Default::default());
        self.number += 1;
        let packets: Vec<Vec<u8>> = packets.iter().map(encode).collect();
        let envelope = envelope(Class::Client, session, self.number);
        self.take_bytes(&seal(
            &mut keys(Direction::ToServer, session),
            &envelope,
            &Header::default(),
            &packets,
        ))
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), RefusedDatagram> {
        let Rig { intake, taken, requests, from, .. } = self;
        let mut ask = |from: SocketAddr, input| {
            let taken = requests.try_queue(Network::of(from.ip()), input);
            requests.wake();
            taken
        };
        intake.receive(Moment(1_000_000), *from, bytes, &mut ask, taken)
    }

    /// The inputs of the delivery since the last call.
    fn heard(&mut self) -> Vec<delivery::Input> {
        std::mem::take(&mut self.taken.heard)
    }

    /// The only datagram to be sent at once.
    fn reply(&mut self) -> Vec<u8> {
        let [(to, bytes)] = &std::mem::take(&mut self.taken.replies)[..] else { panic!("one reply") };
        assert_eq!(*to, self.from);
        bytes.clone()
    }

    /// The packet that the replica thread gets, if it gets one.
    fn packet_asked(&self) -> Option<ToServer> {
        match self.asked.take()? {
            engine::Input::Client { packet, .. } => Some(packet),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_datagram_is_reported_to_delivery_before_its_requests_are_queued() {
    let mut rig = rig(4);
    let session = SessionId(Op(12));
    let ack = ClientAck { upto: Position::of(Op(9)), held: Vec::new(), credit: 3 };
    // PING, and an EXTENSION that needs no answer, go no further.
    let extension = ToServer::Extension(Extension { kind: 300, answers: None, bytes: vec![7] });
    let packets = [
        ToServer::ClientAck(ack.clone()),
        ToServer::PathResponse(8),
        ToServer::Ping,
        extension,
        send(1, "hi"),
    ];
    rig.take(12, &packets).unwrap();
    let heard = rig.heard();
    let [delivery::Input::DatagramReceived { length, .. }, ..] = heard[..] else { panic!("{heard:?}") };
    assert!(length > 60, "all of it: {length}");
    let keys = keys(Direction::ToClient, 12);
    assert_eq!(
        heard,
        [
            delivery::Input::DatagramReceived { session, from: from(), number: 1, ack: None, length, keys },
            delivery::Input::ClientAck(session, ack),
            delivery::Input::PathResponse { session, from: from(), token: 8 },
        ]
    );
    assert_eq!(rig.asked.take(), Some(engine::Input::Client { session, packet: send(1, "hi") }));
    assert!(rig.asked.len() == 0);
}

#[test]
fn a_datagram_that_does_not_open_is_neither_reported_nor_queued() {
    let mut rig = rig(4);
    let wrong = keys(Direction::ToServer, 13);
    rig.take(12, &[]).unwrap();
    rig.heard();
    let sealed = |session, number| {
        seal(&mut wrong.clone(), &envelope(Class::Client, session, number), &Header::default(), &[])
    };
    assert_eq!(rig.take_bytes(&sealed(12, 2)), Err(RefusedDatagram::Seal));
    assert_eq!(rig.take_bytes(&sealed(13, 1)), Err(RefusedDatagram::Session), "nobody let it in");
    rig.number = 0;
    assert_eq!(rig.take(12, &[]), Err(RefusedDatagram::Repeated));
    assert!(rig.taken.heard.is_empty() && rig.asked.len() == 0);
}

#[test]
fn a_hello_gets_a_retry_at_once() {
    let mut rig = rig(0);
    rig.take_bytes(&handshake::hello(&envelope(Class::Handshake, 0, 0), 5)).unwrap();
    let bytes = rig.reply();
    assert!(matches!(Handshake::read(&bytes), Ok((_, Handshake::Retry(retry))) if retry.echo == 5));
    assert!(rig.taken.heard.is_empty() && rig.asked.len() == 0);
}

#[test]
fn the_sender_of_an_initiation_is_passed_on_with_what_it_proved_or_dropped_when_there_is_no_room() {
    let mut client = recado_client::machine::handshake::HandshakeClient::default();
    let handshake_config = handshake_config(1, 1);
    let mut entropy = recado_proto::entropy::Entropy::new([2; 32]);
    let identity = recado_client::machine::handshake::Identity {
        cluster: handshake_config.cluster,
        cluster_key: recado_proto::noise::public(&handshake_config.keys.cluster_private()),
        private: recado_proto::seal::Key::new([3; 32]),
    };
    let mut rig = rig(1);
    rig.take_bytes(&client.hello(handshake_config.cluster, &mut entropy)).unwrap();
    let now = Moment(1_000_000);
    drop(client.take(now, &rig.reply()));
    let mut initiation = || {
        let query = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));
        let bytes = client.initiation(now, &identity, &query, &mut entropy).expect("it was greeted");
        rig.take_bytes(&bytes)
    };
    assert_eq!(initiation(), Ok(()));
    assert_eq!(initiation(), Err(RefusedDatagram::QueueFull));
    let Some(engine::Input::Initiation { reply_to, key, packet }) = rig.asked.take() else {
        panic!("no initiation")
    };
    let proved = DeviceKey(recado_proto::noise::public(&identity.private));
    assert_eq!(
        (reply_to.to, key, packet),
        (from(), proved, ToServer::Query(Query::new(QueryId(1), QueryKind::Status)))
    );
}

#[test]
fn each_numbered_request_that_finds_no_room_is_answered_busy_and_a_query_is_not() {
    let mut rig = rig(0);
    let sends: Vec<ToServer> = (3..=18).map(|seq| send(seq, "hi")).collect();
    assert_eq!(rig.take(12, &sends), Err(RefusedDatagram::QueueFull));
    let answer = |seq| {
        let busy = Refused::new(Code::Busy, Answers::Request(Seq(seq)), RETRY_MS);
        delivery::Input::Answer { session: SessionId(Op(12)), packet: ToClient::Error(busy) }
    };
    assert_eq!(rig.heard()[1..], (3..=18).map(answer).collect::<Vec<_>>());

    let query = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));
    assert_eq!(rig.take(12, &[query]), Err(RefusedDatagram::QueueFull));
    assert_eq!(rig.heard().len(), 1);
}

/// Requests that each intake below passes on.
const EACH: u64 = 4;

/// Three intakes with more requests than places, each of a network of its own, and a replica thread that
/// takes the queued ones. Each request is taken once, or it is answered Busy and its datagram is refused.
fn more_requests_than_places() {
    let replica = Signal::default();
    let (requests, asked) = bounded_by_network(&replica, 4);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let handlers: Vec<Thread> = (0..3u8)
        .map(|at| {
            let mut rig = rig(0);
            rig.from = ([10, 0, at, 1], 4_000).into();
            rig.requests = requests.clone();
            let (refused, first) = (Arc::clone(&refused), 1 + u64::from(at) * EACH);
            spawn_named("handler", move || {
                for seq in first..first + EACH {
                    let taken = rig.take(12, &[send(seq, "hi")]);
                    let busy: Vec<_> = rig.heard().into_iter().filter_map(busy).collect();
                    assert_eq!(busy.len(), usize::from(taken.is_err()), "{taken:?}");
                    refused.lock().extend(busy);
                }
            })
            .unwrap()
        })
        .collect();
    drop(requests);

    let mut outcomes: Vec<Seq> = Vec::new();
    let mut take_all = || {
        while let Some(input) = asked.take() {
            match input {
                engine::Input::Client { packet, .. } => outcomes.extend(packet.seq()),
                other => panic!("{other:?}"),
            }
        }
    };
    while replica.wait(Duration::from_secs(1), || asked.len() > 0) {
        take_all();
    }
    handlers.into_iter().for_each(Thread::join);
    take_all();
    outcomes.extend(refused.lock().iter());
    outcomes.sort();
    assert_eq!(outcomes, (1..=3 * EACH).map(Seq).collect::<Vec<_>>());
}

/// The number of the request that an input answers with Busy, if it does.
fn busy(input: delivery::Input) -> Option<Seq> {
    match input {
        delivery::Input::DatagramReceived { .. } => None,
        delivery::Input::Answer {
            packet: ToClient::Error(Refused { code: Code::Busy, answers: Answers::Request(seq), .. }),
            ..
        } => Some(seq),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_request_is_taken_once_or_answered_busy_in_every_order() {
    explore(TimeOuts::Any, 100, more_requests_than_places);
    let seed = seeds_to_find(Mistake::LooksThenAsks, TimeOuts::Any, 300, more_requests_than_places);
    eprintln!("{:?} is found by seed {seed:?}", Mistake::LooksThenAsks);
    assert!(seed.is_some());
}

#[test]
fn a_flood_of_one_network_leaves_room_for_the_requests_of_others() {
    let mut rig = rig(8);
    rig.from = ([10, 0, 1, 1], 4_000).into();
    let query = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));
    let ask = |rig: &mut Rig, session| rig.take(session, std::slice::from_ref(&query));
    let taken = (0..8).filter(|_| ask(&mut rig, 12).is_ok()).count();
    assert_eq!(taken, 4, "half of the places");
    rig.heard();
    rig.from = ([10, 0, 2, 1], 4_000).into();
    assert_eq!(ask(&mut rig, 13), Ok(()));
}

#[test]
fn a_session_accepts_no_packet_that_only_servers_send_or_that_precedes_a_session() {
    let mut rig = rig(4);
    let connect = ToServer::Connect(recado_proto::packet::Connect {
        device: recado_proto::id::DeviceId { key: DEVICE, slot: 0 },
        profile: "alice".parse().unwrap(),
        receives: true,
        nonce: 1,
        code: None,
        invite: None,
        fresh: true,
        aeads: 0,
        options: OptionalFields::NONE,
    });
    assert_eq!(rig.take(12, &[connect]), Err(RefusedDatagram::Malformed));
    let learn = encode(&ToPeer::Learn(recado_proto::packet::Learn { nonce: 1 }));
    let challenge = encode(&ToClient::PathChallenge(1));
    for (number, packet) in [(2, learn), (3, challenge)] {
        let envelope = envelope(Class::Client, 12, number);
        let bytes = seal(&mut keys(Direction::ToServer, 12), &envelope, &Header::default(), &[packet]);
        assert!(rig.take_bytes(&bytes).is_err(), "no packet of a client");
    }
    for class in [Class::Peer, Class::PeerHello] {
        let bytes = seal(&mut keys(Direction::ToServer, 12), &envelope(class, 0, 1), &Header::default(), &[]);
        assert_eq!(rig.take_bytes(&bytes), Err(RefusedDatagram::Malformed));
    }
    assert!(rig.asked.len() == 0);
}

#[test]
fn a_packet_in_pieces_is_queued_once_it_is_complete() {
    let mut rig = rig(4);
    let large = send(1, &"x".repeat(5000));
    let mut datagrams = Vec::new();
    rig.take(12, &[]).unwrap();
    Link::starting_at(envelope(Class::Client, 12, 0), keys(Direction::ToServer, 12), 2).transmit(
        Moment(0),
        View::ZERO,
        std::slice::from_ref(&large),
        None,
        &mut datagrams,
    );
    assert!(datagrams.len() > 1);
    for datagram in datagrams {
        assert!(rig.asked.len() == 0);
        rig.take_bytes(&datagram).unwrap();
    }
    assert_eq!(rig.packet_asked(), Some(large));
}

#[test]
fn a_hello_of_another_version_is_counted_and_told_this_version() {
    let mut rig = rig(1);
    let mut hello = handshake::hello(&envelope(Class::Handshake, 0, 0), 9);
    hello[2] += 1;
    assert_eq!(rig.take_bytes(&hello), Err(RefusedDatagram::Version));
    assert_eq!(Some(rig.reply()), version::answer(&hello));
}

#[test]
fn a_probe_of_the_path_is_answered_and_not_counted() {
    let mut rig = rig(1);
    for length in [DATAGRAM_BASE, DATAGRAM_MAX] {
        let probe = version::probe(9, length);
        assert_eq!(rig.take_bytes(&probe), Ok(()));
        assert_eq!(Some(rig.reply()), version::answer(&probe));
    }
    let mut of_a_session = version::probe(9, DATAGRAM_BASE);
    // The class Client.
    of_a_session[3] = 1;
    assert_eq!(rig.take_bytes(&of_a_session), Err(RefusedDatagram::Version), "it asks for no answer");
}

#[test]
fn sessions_with_pieces_under_way_are_bounded() {
    let mut rig = rig(4);
    let piece = split(1, &encode(&send(1, &"x".repeat(5000)))).swap_remove(0);
    for session in 1..=(REASSEMBLERS_MAX as u64 + 10) {
        rig.take(session, &[ToServer::Fragment(piece.clone())]).unwrap();
        rig.heard();
    }
    assert_eq!(rig.intake.partial.sessions.len(), REASSEMBLERS_MAX);
}

#[test]
fn pieces_of_one_network_push_out_none_of_another() {
    let mut rig = rig(4);
    let pieces = split(1, &encode(&send(1, &"x".repeat(5000))));
    let (last, others) = pieces.split_last().unwrap();
    let honest = |rig: &mut Rig, pieces: &[recado_proto::packet::Fragment]| {
        rig.from = ([10, 0, 2, 1], 4_000).into();
        for piece in pieces {
            rig.take(10_000, &[ToServer::Fragment(piece.clone())]).unwrap();
            rig.heard();
        }
    };
    honest(&mut rig, others);
    rig.from = ([10, 0, 1, 1], 4_000).into();
    for session in 1..=(2 * REASSEMBLERS_MAX as u64) {
        rig.take(session, &[ToServer::Fragment(others[0].clone())]).unwrap();
        rig.heard();
    }
    honest(&mut rig, std::slice::from_ref(last));
    assert_eq!(rig.packet_asked(), Some(send(1, &"x".repeat(5000))));
}
