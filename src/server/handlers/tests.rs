use crossbeam::channel::bounded;

use super::*;
use crate::id::{ClusterId, Incarnation, NodeId};
use crate::wire::codec::encode;
use crate::wire::envelope::{Envelope, seal};
use crate::wire::fragment::split;
use crate::wire::packet::{ClientAck, Content, QueryId, Send};
use crate::wire::{Header, Link};

struct Rig {
    handler: Handler,
    heard: Receiver<delivery::Input>,
    requests: Receiver<Request>,
    partial: Partial,
}

fn rig(requests_max: usize) -> Rig {
    let (_, datagrams) = bounded(1);
    let (heard, heard_inputs) = bounded(16);
    let (requests, request_inputs) = bounded(requests_max);
    let counters = Arc::new(Counters::default());
    let clock = MachineClock::start();
    Rig {
        handler: Handler { datagrams, heard, requests, counters, clock },
        heard: heard_inputs,
        requests: request_inputs,
        partial: Partial::default(),
    }
}

fn from() -> SocketAddr {
    "127.0.0.1:4000".parse().unwrap()
}

fn envelope(class: Class, session: u64) -> Envelope {
    Envelope {
        class,
        cluster: ClusterId(7),
        session: SessionId(Op(session)),
        node: (class == Class::Peer).then_some(NodeId(1)),
        incarnation: Incarnation(0),
        number: 5,
    }
}

fn send(seq: u64, body: &str) -> Packet {
    let content =
        Content { title: None, priority: Default::default(), tags: Vec::new(), body: body.to_owned() };
    Packet::Send(Send { seq: Seq(seq), answered_below: Seq(1), topic: None, content })
}

impl Rig {
    fn take(&mut self, class: Class, session: u64, packets: &[Packet]) -> Result<(), RefusedDatagram> {
        let packets: Vec<Vec<u8>> = packets.iter().map(encode).collect();
        self.take_bytes(seal(&envelope(class, session), &Header::default(), &packets))
    }

    fn take_bytes(&mut self, bytes: Vec<u8>) -> Result<(), RefusedDatagram> {
        self.handler.take(&mut self.partial, Received { from: from(), bytes })
    }
}

#[test]
fn a_datagram_is_heard_before_what_it_carries_is_asked() {
    let mut rig = rig(4);
    let ack = ClientAck { upto: Op(9), held: Vec::new(), credit: 3 };
    rig.take(Class::Client, 12, &[Packet::ClientAck(ack.clone()), send(1, "hi")]).unwrap();
    let session = SessionId(Op(12));
    assert_eq!(
        rig.heard.try_iter().collect::<Vec<_>>(),
        [
            delivery::Input::Heard { session, from: from(), number: 5, ack: None },
            delivery::Input::ClientAck(session, ack),
        ]
    );
    let request = rig.requests.try_recv().unwrap();
    assert_eq!((request.session, request.from, request.packet), (session, from(), send(1, "hi")));
}

#[test]
fn a_numbered_request_that_finds_no_room_is_answered_busy_and_a_query_is_not() {
    let mut rig = rig(0);
    assert_eq!(rig.take(Class::Client, 12, &[send(3, "hi")]), Err(RefusedDatagram::QueueFull));
    let busy = Refused { code: Code::Busy, answers: Answers::Request(Seq(3)), retry_ms: BUSY_RETRY_MS };
    let answer = delivery::Input::Answer { session: SessionId(Op(12)), packet: Packet::Error(busy) };
    assert_eq!(rig.heard.try_iter().nth(1), Some(answer));

    let query = Packet::Status(QueryId(1));
    assert_eq!(rig.take(Class::Client, 12, &[query]), Err(RefusedDatagram::QueueFull));
    assert_eq!(rig.heard.try_iter().count(), 1);
}

#[test]
fn without_a_session_only_connect_and_status_are_taken() {
    let mut rig = rig(4);
    assert_eq!(rig.take(Class::Handshake, 0, &[Packet::Status(QueryId(1))]), Ok(()));
    assert_eq!(rig.requests.try_recv().unwrap().session, SessionId(Op::ZERO));
    assert_eq!(rig.take(Class::Handshake, 0, &[send(1, "hi")]), Err(RefusedDatagram::Session));
    assert_eq!(rig.take(Class::Client, 0, &[send(1, "hi")]), Err(RefusedDatagram::Session));
    assert!(rig.heard.is_empty() && rig.requests.is_empty());
}

#[test]
fn what_only_servers_say_is_not_taken_from_a_client() {
    let mut rig = rig(4);
    let learn = Packet::Learn(crate::wire::packet::Learn { nonce: 1 });
    assert_eq!(rig.take(Class::Client, 12, &[learn]), Err(RefusedDatagram::Malformed));
    assert_eq!(rig.take(Class::Peer, 0, &[]), Err(RefusedDatagram::Malformed));
    assert!(rig.requests.is_empty());
}

#[test]
fn a_packet_in_pieces_is_asked_once_whole() {
    let mut rig = rig(4);
    let large = send(1, &"x".repeat(5000));
    let mut datagrams = Vec::new();
    Link::new(envelope(Class::Client, 12)).transmit(
        Moment(0),
        crate::id::View::ZERO,
        std::slice::from_ref(&large),
        None,
        &mut datagrams,
    );
    assert!(datagrams.len() > 1);
    for datagram in datagrams {
        assert!(rig.requests.is_empty());
        rig.take_bytes(datagram).unwrap();
    }
    assert_eq!(rig.requests.try_recv().unwrap().packet, large);
}

#[test]
fn sessions_with_pieces_under_way_are_bounded() {
    let mut rig = rig(4);
    let piece = split(&encode(&send(1, &"x".repeat(5000)))).swap_remove(0);
    for session in 1..=(REASSEMBLERS_MAX as u64 + 10) {
        rig.take(Class::Client, session, &[Packet::Fragment(piece.clone())]).unwrap();
        rig.heard.try_iter().for_each(drop);
    }
    assert_eq!(rig.partial.sessions.len(), REASSEMBLERS_MAX);
}
