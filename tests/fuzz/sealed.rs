//! Fuzz targets for datagrams, and for the handshake on both sides, with inputs that an attacker without a
//! key can make.

use std::net::SocketAddr;

use bolero::check;
use recado::config::Limits;
use recado::server::handshake::{HandshakeConfig, HandshakeEvent, HandshakeServer};
use recado_client::machine::handshake as client;
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{self, Class, Envelope, Header, OUTER_LEN, PeerHello};
use recado_proto::handshake::{self, Handshake};
use recado_proto::id::{BootId, ClusterId, Incarnation, Moment, NodeId, Op, SessionId};
use recado_proto::noise::{self, OPENING_LEN, Prologue, Reply};
use recado_proto::packet::{Query, QueryId, QueryKind, ToServer};
use recado_proto::seal::{ClusterKeys, Key, PacketKeys};
use recado_proto::{DATAGRAM_BASE, codec};

use crate::samples::{self, Samples};
use crate::script::Script;

const CLUSTER: ClusterId = ClusterId(7);
const BOOT_ID: BootId = BootId([3; 16]);

fn keys() -> ClusterKeys {
    ClusterKeys::new(&[0x5e; 32])
}

fn outer(class: Class, node: Option<NodeId>) -> Envelope {
    let session = SessionId(Op(if class == Class::Client { 40 } else { 0 }));
    Envelope { class, cluster: CLUSTER, session, node, incarnation: Incarnation(2), number: 9 }
}

fn from() -> SocketAddr {
    "127.0.0.1:4001".parse().unwrap()
}

fn responder() -> HandshakeServer {
    let (me, incarnation, limits) = (NodeId(2), Incarnation(2), Limits::default());
    let handshake_config =
        HandshakeConfig { cluster: CLUSTER, me, incarnation, boot_id: BOOT_ID, keys: keys(), limits };
    HandshakeServer::new(handshake_config, [1; 32])
}

/// A datagram with one changed bit, in the clear or in the sealed part, does not open.
#[test]
fn a_datagram_opens_as_it_was_sealed_or_not_at_all() {
    let key = Key::new([1; 32]);
    let keys = PacketKeys::from(key.clone());
    let hello = PeerHello::new(BOOT_ID, Some(BootId([4; 16])));
    let hello = hello.seal(&key, &outer(Class::PeerHello, Some(NodeId(1))));
    let packets: Vec<Vec<u8>> = ToServer::samples().iter().map(codec::encode).collect();
    let fitting: Vec<&Vec<u8>> =
        packets.iter().filter(|packet| packet.len() <= envelope::PACKETS_MAX).collect();
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let class = *script.pick(&[Class::Client, Class::Peer]);
        let packet = (*script.pick(&fitting)).clone();
        let sealed =
            envelope::seal(&mut keys.clone(), &outer(class, Some(NodeId(1))), &Header::default(), &[packet]);
        for genuine in [&sealed, &hello] {
            let mut datagram = genuine.clone();
            script.corrupt(&mut datagram);
            let opens = match Envelope::peek(&datagram) {
                Ok(envelope) if envelope.class == Class::PeerHello => {
                    PeerHello::open(&key, &datagram).is_ok()
                }
                _ => envelope::open::<ToServer>(&mut keys.clone(), &datagram).is_ok(),
            };
            assert_eq!(opens, datagram == *genuine);
            let _ = (Handshake::read(&datagram).is_ok(), PeerHello::peek(&datagram).is_ok());
        }
        let _ = (Envelope::peek(input).is_ok(), Handshake::read(input).is_ok());
        assert!(envelope::open::<ToServer>(&mut keys.clone(), input).is_err());
    });
}

/// A sender that holds the key can seal anything.
#[test]
fn what_is_sealed_well_and_no_packet_is_refused() {
    let keys = PacketKeys::from(Key::new([1; 32]));
    let envelope = outer(Class::Client, None);
    let packets = samples::encoded();
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut inside = codec::encode(&Header::default());
        for _ in 0..script.number::<1>() % 3 {
            inside.extend_from_slice(script.pick::<Vec<u8>>(&packets));
        }
        script.corrupt(&mut inside);
        inside.extend_from_slice(script.bytes(input.len()));
        inside.truncate(DATAGRAM_BASE - OUTER_LEN - recado_proto::seal::TAG_LEN);
        // The outer header of an empty datagram, with other content after it.
        let mut keys = keys.clone();
        let empty = envelope::seal(&mut keys, &envelope, &Header::default(), &[]);
        let mut datagram = empty[..OUTER_LEN].to_vec();
        datagram.extend_from_slice(&inside);
        keys.seal(envelope.number, OUTER_LEN, &mut datagram);
        if let Ok(opened) = envelope::open::<ToServer>(&mut keys, &datagram) {
            let again: Vec<Vec<u8>> = opened.packets.iter().map(codec::encode).collect();
            assert!(again.iter().map(Vec::len).sum::<usize>() <= inside.len());
        }
        // The same content as the load of an INITIATION.
        let mut load = (script.number::<2>() as u16).to_be_bytes().to_vec();
        load.extend_from_slice(&inside);
        let _ = handshake::unload(&load).is_ok();
    });
}

/// The server side of the handshake: its only immediate answer is a RETRY, which is no longer than the
/// datagram that it answers, and only an unchanged INITIATION is accepted.
#[test]
fn a_server_opens_to_a_genuine_initiation_and_its_answer_is_no_longer_than_the_request() {
    let cluster_key = noise::public(&keys().cluster_private());
    let mut entropy = Entropy::new([2; 32]);
    let private = Key::new(entropy.bytes());
    let identity = client::Identity { cluster: CLUSTER, cluster_key, private };
    let mut visitor = client::HandshakeClient::default();
    let hello = visitor.hello(CLUSTER, &mut entropy);
    let Ok(HandshakeEvent::Retry(retry)) = responder().receive(Moment(0), from(), &hello) else {
        panic!("no RETRY")
    };
    assert!(visitor.take(Moment(0), &retry).is_some());
    let status = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));
    let initiation = visitor.initiation(Moment(0), &identity, &status, &mut entropy).unwrap();
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let genuine = *script.pick(&[&hello, &retry, &initiation]);
        let mut datagram = genuine.clone();
        script.corrupt(&mut datagram);
        match responder().receive(Moment(0), from(), &datagram) {
            Ok(HandshakeEvent::Retry(answer)) => assert!(answer.len() <= datagram.len()),
            // Of the outer header the server reads all before the session.
            Ok(HandshakeEvent::Initiation { packet, .. }) => {
                assert_eq!(
                    (&datagram[..14], &datagram[OUTER_LEN..]),
                    (&initiation[..14], &initiation[OUTER_LEN..])
                );
                assert_eq!(packet, status);
            }
            Err(_) => {}
        }
        let raw = responder().receive(Moment(0), from(), input);
        assert!(!matches!(raw, Ok(HandshakeEvent::Initiation { .. })), "bytes by chance came in");
    });
}

/// The client side of the handshake: only the genuine answer is accepted, also after forged ones.
#[test]
fn a_client_accepts_the_true_answer_and_no_other() {
    let private = keys().cluster_private();
    let cluster_key = noise::public(&private);
    let prologue = Prologue { cluster: CLUSTER, server: NodeId(2), boot_id: BOOT_ID };
    let device = Key::new([5; 32]);
    let load = handshake::load(&[ToServer::Query(Query::new(QueryId(1), QueryKind::Status))]);
    let envelope = outer(Class::Handshake, Some(NodeId(2)));
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut entropy = Entropy::new([script.number::<1>() as u8; 32]);
        let (mut initiation, message) =
            noise::Initiation::new(prologue, &cluster_key, &device, &load, &mut entropy).unwrap();
        let mut changed = message.clone();
        script.corrupt(&mut changed);
        let heard = noise::answer(prologue, &private, &changed, &mut entropy);
        assert_eq!(heard.is_ok(), changed == message);

        let (_, _, reply) = noise::answer(prologue, &private, &message, &mut entropy).unwrap();
        let mut opening = reply.opening.to_vec();
        script.corrupt(&mut opening);
        if opening != reply.opening {
            assert!(initiation.read_response(&opening).is_err());
        }
        assert_eq!(initiation.read_response(&reply.opening), Ok(reply.key.clone()));
        let answer = handshake::answer(&envelope, &reply, &Header::default(), &[]);
        let mut spoilt = answer.clone();
        script.corrupt(&mut spoilt);
        assert_eq!(handshake::open_answer(&reply.key, &spoilt).is_ok(), spoilt == answer);
        let other = Reply { opening: [0; OPENING_LEN], key: Key::new([6; 32]) };
        assert!(handshake::open_answer(&other.key, &answer).is_err());
    });
}
