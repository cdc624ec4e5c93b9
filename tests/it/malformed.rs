//! The decoder on arbitrary bytes: it returns a packet or a typed error, never panics and never allocates
//! beyond a bound.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use recado_proto::codec::{ALLOCATION_MAX, DecodeError, PACKET_MAX, decode, decode_packet, encode};
use recado_proto::command::{Command, Stamped};
use recado_proto::envelope::{self, Ack, Class, Envelope, Header, OUTER_LEN, Opened, PACKETS_MAX, seal};
use recado_proto::fragment::{PARTIAL_MAX, PARTIAL_TIMEOUT, PIECE_MAX, PIECE_MIN, Reassembler, split};
use recado_proto::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, Topic, View};
use recado_proto::packet::{
    Answer, AnswerKind, Body, ClientAck, Content, Fragment, HistoryPage, Home, Notification, OptionalField,
    OptionalFields, Packet, Position, Promise, QueryId, RefusedDatagram, Reply, Resume, Send, ToClient,
    ToPeer, ToServer,
};
use recado_proto::seal::{Key, PacketKeys, TAG_LEN};
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX};

use crate::allocation::peak_of;
use crate::samples::{self, Samples};

fn sealed(packets: &[Vec<u8>]) -> Vec<u8> {
    let envelope = Envelope {
        class: Class::Peer,
        cluster: ClusterId(1),
        session: SessionId(Op(0)),
        node: Some(NodeId(1)),
        incarnation: Incarnation(1),
        number: 1,
    };
    let header = Header {
        ack: Some(Ack { largest: 9, first: 2, further: Vec::new() }),
        view: View::new(1, NodeId(1)),
    };
    seal(&mut keys(), &envelope, &header, packets)
}

fn keys() -> PacketKeys {
    Key::new([7; 32]).into()
}

fn open<P: Packet>(datagram: &[u8]) -> Result<Opened<P>, DecodeError> {
    envelope::open(&mut keys(), datagram)
}

/// Changes the plaintext of a datagram and seals it again with the right key, as only a faulty or hostile
/// peer does.
fn resealed(datagram: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let number = Envelope::peek(datagram).unwrap().number;
    let mut changed = datagram[..OUTER_LEN].to_vec();
    changed.extend(keys().open(number, OUTER_LEN, datagram).unwrap());
    change(&mut changed);
    let number = Envelope::peek(&[&changed[..], &[0; TAG_LEN]].concat()).map_or(number, |outer| outer.number);
    keys().seal(number, OUTER_LEN, &mut changed);
    changed
}

fn for_random_bytes(seed: u8, cases: u32, length: usize, check: impl Fn(Vec<u8>)) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
        .run(&prop::collection::vec(any::<u8>(), 0..length), |bytes| {
            check(bytes);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

#[test]
fn every_truncation_is_refused() {
    fn of<P: Packet + Samples + Debug + PartialEq>() {
        for packet in P::samples() {
            let encoded = encode(&packet);
            for length in 0..encoded.len() {
                let result = decode_packet::<P>(&encoded[..length]);
                assert_eq!(result, Err(DecodeError::Truncated), "{packet:?} cut to {length}");
            }
            let datagram = sealed(&[encoded]);
            for length in 0..datagram.len() {
                let error = open::<P>(&datagram[..length]).expect_err("cut short");
                let short = length < OUTER_LEN + TAG_LEN;
                assert_eq!(error, if short { DecodeError::Truncated } else { DecodeError::Seal });
            }
        }
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
    for command in Command::samples() {
        let encoded = encode(&Stamped { unix_ms: 1, command });
        for length in 0..encoded.len() {
            assert_eq!(decode::<Stamped>(&encoded[..length]), Err(DecodeError::Truncated));
        }
    }
}

#[test]
fn every_flipped_bit_of_a_datagram_is_refused() {
    for packet in samples::encoded() {
        let datagram = sealed(&[packet]);
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = open::<ToPeer>(&flipped).expect_err("flipped");
            match bit / 8 {
                0 | 1 => assert_eq!(error, DecodeError::Magic),
                2 => assert!(matches!(error, DecodeError::Version(_))),
                3 => assert!(matches!(error, DecodeError::Class(_) | DecodeError::Seal)),
                12 | 13 => assert!(matches!(error, DecodeError::Group(_))),
                _ => assert_eq!(error, DecodeError::Seal),
            }
        }
    }
}

#[test]
fn every_flipped_bit_under_a_seal_that_holds_is_a_packet_or_a_typed_error() {
    fn of<P: Packet + Samples + Debug>() {
        for packet in P::samples() {
            let datagram = sealed(&[encode(&packet)]);
            for bit in 0..(datagram.len() - TAG_LEN) * 8 {
                let flipped = resealed(&datagram, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                let peak = peak_of(|| open::<P>(&flipped));
                assert!(peak <= ALLOCATION_MAX, "{peak} bytes for bit {bit} of {packet:?}");
            }
        }
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}

#[test]
fn random_bytes_are_refused_at_every_layer() {
    fn of<P: Packet>() {
        for_random_bytes(2, 20_000, 200, |bytes| {
            let peak = peak_of(|| decode_packet::<P>(&bytes));
            assert!(peak <= ALLOCATION_MAX, "{peak} bytes for {bytes:02x?}");
        });
        for_random_bytes(3, 20_000, 200, |bytes| {
            let peak = peak_of(|| open::<P>(&sealed(std::slice::from_ref(&bytes))));
            assert!(peak <= ALLOCATION_MAX, "{peak} bytes for {bytes:02x?}");
        });
    }
    for_random_bytes(1, 2_000, DATAGRAM_MAX + 100, |bytes| {
        open::<ToServer>(&bytes).expect_err("noise");
    });
    for_random_bytes(2, 20_000, 200, |bytes| {
        let peak = peak_of(|| decode::<Stamped>(&bytes));
        assert!(peak <= ALLOCATION_MAX, "{peak} bytes for {bytes:02x?}");
    });
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}

/// Each tag, followed by the largest lengths: the shortest input that asks for much memory.
#[test]
fn a_length_that_lies_gets_no_memory() {
    fn of<P: Packet + Samples>() {
        for (tag, kind) in P::KINDS.iter().enumerate() {
            for small in 0..40 {
                for huge in [
                    [0xfb, 0xff, 0xff].as_slice(),
                    &[0xfc, 0xff, 0xff, 0xff, 0x7f],
                    &[0xfd; 9],
                    &[0xfd, 0, 0, 0, 0, 0, 0, 1, 0],
                ] {
                    let mut bytes = vec![tag as u8];
                    bytes.extend(std::iter::repeat_n(1, small));
                    while bytes.len() < 400 {
                        bytes.extend_from_slice(huge);
                    }
                    let peak = peak_of(|| decode_packet::<P>(&bytes));
                    assert!(peak <= ALLOCATION_MAX, "{peak} bytes for a {kind}");
                }
            }
        }
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}

/// A page, the notification in it and a value of that are each said to be very long.
#[test]
fn lengths_that_lie_within_each_other_get_the_memory_of_two_lists() {
    let huge = [0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
    let content = Content::of("");
    let (topic, author) = (Topic::to_send("#ops").unwrap(), "alice".parse().unwrap());
    let options = OptionalFields::NONE;
    let notification =
        Notification { op: Op(1), topic, author, unix_ms: 1, content, options: options.clone() };
    let page = HistoryPage { notifications: vec![], more: false, trimmed_upto: Op::ZERO };
    let (id, applied, kind) = (QueryId(1), Position::default(), AnswerKind::History(page));
    let answer = encode(&ToClient::Answer(Answer { id, applied, kind, options }));
    let notification = encode(&notification);
    // What stands before the list of the page, and before the list of the notification: all after them is
    // zero.
    let (page, content) = (&answer[..answer.len() - 4], &notification[..notification.len() - 2]);
    let bytes = [page, &huge[..], content, &huge[..], &encode(&"key")[..], &huge[..]].concat();
    let peak = peak_of(|| assert!(decode_packet::<ToClient>(&bytes).is_err()));
    assert!(peak > 1 << 20, "the page and the content are read");
    assert!(peak <= (2 << 20) + (1 << 14), "{peak} bytes");
}

#[test]
fn the_largest_packet_full_of_the_shortest_items_stays_within_the_bound() {
    let tags = vec![String::new(); PACKET_MAX - 100];
    let content = Content {
        title: None,
        priority: recado_proto::id::Priority::default(),
        tags,
        body: String::new().into(),
        extra: Vec::new(),
    };
    let seq = recado_proto::id::Seq(1);
    let bytes = encode(&ToServer::Send(Send {
        seq,
        answered_below: seq,
        topic: None,
        content,
        nonce: 1,
        options: OptionalFields::NONE,
    }));
    let peak = peak_of(|| assert_eq!(decode_packet::<ToServer>(&bytes), Err(DecodeError::Bounds)));
    assert!(peak <= ALLOCATION_MAX, "{peak} bytes");
}

#[test]
fn a_datagram_full_of_the_shortest_packets_stays_within_the_bound() {
    let datagram = sealed(&vec![encode(&ToServer::Ping); PACKETS_MAX]);
    assert!(datagram.len() <= DATAGRAM_BASE);
    assert_eq!(open::<ToServer>(&datagram).unwrap().packets.len(), PACKETS_MAX);
    let peak = peak_of(|| open::<ToServer>(&datagram));
    assert!(peak <= ALLOCATION_MAX, "{peak} bytes");
}

#[test]
fn another_version_class_or_magic_is_named() {
    let datagram = sealed(&[encode(&ToServer::keepalive())]);
    let with = |index: usize, value: u8| open::<ToServer>(&resealed(&datagram, |bytes| bytes[index] = value));
    assert_eq!(with(0, 0), Err(DecodeError::Magic));
    assert_eq!(with(2, 9), Err(DecodeError::Version(9)));
    assert_eq!(with(3, 4), Err(DecodeError::Class(4)));
    assert_eq!(DecodeError::Version(9).refused(), RefusedDatagram::Version);
    assert_eq!(DecodeError::TrailingBytes.refused(), RefusedDatagram::Malformed);
}

#[test]
fn the_oversized_is_refused_unread() {
    assert_eq!(open::<ToServer>(&vec![0; DATAGRAM_MAX + 1]), Err(DecodeError::Oversized));
    assert_eq!(decode_packet::<ToServer>(&vec![0; PACKET_MAX + 1]), Err(DecodeError::Oversized));
}

#[test]
fn trailing_bytes_are_refused() {
    fn of<P: Packet + Samples + Debug + PartialEq>() {
        for packet in P::samples() {
            let mut encoded = encode(&packet);
            encoded.push(0);
            assert_eq!(decode::<P>(&encoded), Err(DecodeError::TrailingBytes));
            // In a datagram the next packet would begin there, and a single 0 is an incomplete packet. What
            // follows PADDING is not read.
            let opened = open::<P>(&sealed(&[encoded])).map(|opened| opened.packets);
            let expected = if packet.is_padding() { Ok(vec![]) } else { Err(DecodeError::Truncated) };
            assert_eq!(opened, expected);
        }
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}

#[test]
fn an_unknown_tag_is_malformed() {
    fn of<P: Packet + Samples + Debug + PartialEq>() {
        let bytes = [P::KINDS.len() as u8, 1, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(decode_packet::<P>(&bytes), Err(DecodeError::Malformed));
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}

#[test]
fn parts_over_their_limits_are_refused_however_well_encoded() {
    let content = |title: usize, tags: usize, tag: usize, body: usize| {
        let content = Content {
            title: Some("t".repeat(title)),
            priority: recado_proto::id::Priority::default(),
            tags: vec!["g".repeat(tag); tags],
            body: "b".repeat(body).into(),
            extra: Vec::new(),
        };
        let seq = recado_proto::id::Seq(1);
        let send = ToServer::Send(Send {
            seq,
            answered_below: seq,
            topic: None,
            content,
            nonce: 1,
            options: OptionalFields::NONE,
        });
        decode_packet::<ToServer>(&encode(&send)).map(|_| ())
    };
    assert_eq!(content(1_024, 16, 64, 16 * 1024), Ok(()));
    assert_eq!(content(1_025, 16, 64, 0), Err(DecodeError::Bounds));
    assert_eq!(content(0, 17, 64, 0), Err(DecodeError::Bounds));
    assert_eq!(content(0, 1, 65, 0), Err(DecodeError::Bounds));
    assert_eq!(content(0, 0, 0, 16 * 1024 + 1), Err(DecodeError::Bounds));
    let held = |count| {
        let ack =
            ToServer::ClientAck(ClientAck { upto: Position::of(Op(1)), held: vec![Op(2); count], credit: 1 });
        decode_packet::<ToServer>(&encode(&ack)).map(|_| ())
    };
    assert_eq!(held(ClientAck::HELD_MAX), Ok(()));
    assert_eq!(held(ClientAck::HELD_MAX + 1), Err(DecodeError::Bounds));
}

#[test]
fn a_datagram_of_another_group_is_refused() {
    let mut datagram = sealed(&[encode(&ToServer::keepalive())]);
    datagram[13] = 1;
    assert_eq!(open::<ToServer>(&datagram), Err(DecodeError::Group(1)));
    assert_eq!(DecodeError::Group(1).refused(), RefusedDatagram::Cluster);
}

/// Makes a packet that needs several fragments; `seed` is the number of its first datagram.
fn large(seed: u64) -> (ToPeer, Vec<Fragment>) {
    let promise = Promise {
        view: View(seed),
        last_view: View(seed),
        last_op: Op(1),
        commit: Op(1),
        index: (0..300).map(|index| (View(u64::MAX - index), Op(u64::MAX - seed))).collect(),
        unknown: None,
        incarnations: Vec::new(),
        disk_ms: 0,
        members_op: Op::ZERO,
    };
    let packet = ToPeer::Reply(Reply::Promise(promise));
    let pieces = split(seed, &encode(&packet));
    assert!(pieces.len() > 3);
    (packet, pieces)
}

#[test]
fn pieces_come_together_in_any_order_and_more_than_once() {
    let (packet, pieces) = large(1);
    let mut reassembler = Reassembler::default();
    let mut order: Vec<Fragment> = pieces.iter().skip(1).rev().cloned().collect();
    order.extend_from_within(..);
    for piece in order {
        assert_eq!(reassembler.accept::<ToPeer>(Moment(0), piece), Ok(None));
    }
    assert_eq!(reassembler.accept::<ToPeer>(Moment(0), pieces[0].clone()), Ok(Some(packet)));
    assert_eq!(reassembler.waiting(), 0);
}

#[test]
fn a_piece_sent_again_fills_the_hole_and_a_packet_sent_again_fills_none() {
    let (packet, pieces) = large(1);
    let again = split(2, &encode(&packet));
    let mut reassembler = Reassembler::default();
    for piece in &pieces[1..] {
        assert_eq!(reassembler.accept::<ToPeer>(Moment(0), piece.clone()), Ok(None));
    }
    assert_eq!(reassembler.accept::<ToPeer>(Moment(0), again[0].clone()), Ok(None));
    assert_eq!(reassembler.accept::<ToPeer>(Moment(0), pieces[0].clone()), Ok(Some(packet.clone())));
    let whole =
        again[1..].iter().filter_map(|piece| reassembler.accept::<ToPeer>(Moment(0), piece.clone()).unwrap());
    assert_eq!(whole.collect::<Vec<_>>(), [packet]);
}

#[test]
fn pieces_of_other_lengths_come_together() {
    let (packet, _) = large(1);
    let encoded = encode(&packet);
    let mut reassembler = Reassembler::default();
    let mut whole = Vec::new();
    let total = encoded.len() as u32;
    for (offset, bytes) in (0..total).step_by(PIECE_MIN).zip(encoded.chunks(PIECE_MIN)) {
        let piece = Fragment { first: 1, offset, total, bytes: bytes.to_vec() };
        whole.extend(reassembler.accept::<ToPeer>(Moment(0), piece).unwrap());
    }
    assert_eq!(whole, [packet]);
}

#[test]
fn only_so_many_packets_wait_for_pieces_and_only_so_long() {
    let mut reassembler = Reassembler::default();
    for seed in 0..PARTIAL_MAX as u64 + 5 {
        let (_, pieces) = large(seed);
        assert_eq!(reassembler.accept::<ToPeer>(Moment(seed), pieces[0].clone()), Ok(None));
        assert!(reassembler.waiting() <= PARTIAL_MAX);
    }
    let (_, pieces) = large(99);
    assert_eq!(reassembler.accept::<ToPeer>(Moment(100) + PARTIAL_TIMEOUT, pieces[0].clone()), Ok(None));
    assert_eq!(reassembler.waiting(), 1);
}

#[test]
fn a_late_piece_of_a_packet_that_is_complete_displaces_none_that_is_not() {
    let mut reassembler = Reassembler::default();
    let mut accept = |now: u64, piece: &Fragment| reassembler.accept::<ToPeer>(Moment(now), piece.clone());
    let (packet, pieces) = large(100);
    assert_eq!(pieces.iter().filter_map(|piece| accept(0, piece).unwrap()).count(), 1);
    let begun: Vec<_> = (0..PARTIAL_MAX as u64).map(large).collect();
    for (_, pieces) in &begun[1..] {
        assert_eq!(accept(1, &pieces[0]), Ok(None));
    }
    // The late piece is the newest of all, and gives way all the same.
    assert_eq!(accept(2, &pieces[0]), Ok(None));
    assert_eq!(accept(3, &begun[0].1[0]), Ok(None));
    for (packet, pieces) in begun {
        assert_eq!(pieces[1..].iter().find_map(|piece| accept(4, piece).unwrap()), Some(packet));
    }
    // A sender whose request was refused sends it again under its first number.
    assert_eq!(pieces.iter().find_map(|piece| accept(5, piece).unwrap()), Some(packet));
}

#[test]
fn pieces_that_do_not_fit_are_refused_with_their_packet() {
    let (_, pieces) = large(1);
    let refuse = |change: fn(&mut Fragment), error: DecodeError| {
        let mut reassembler = Reassembler::default();
        reassembler.accept::<ToPeer>(Moment(0), pieces[0].clone()).unwrap();
        let mut piece = pieces[1].clone();
        change(&mut piece);
        assert_eq!(reassembler.accept::<ToPeer>(Moment(0), piece), Err(error));
    };
    refuse(|piece| piece.total += 1, DecodeError::Fragment);
    refuse(|piece| piece.offset = 0, DecodeError::Fragment);
    refuse(|piece| piece.offset -= 1, DecodeError::Fragment);
    refuse(|piece| piece.offset = piece.total, DecodeError::Bounds);
    refuse(|piece| piece.offset = u32::MAX, DecodeError::Bounds);
    refuse(|piece| piece.total = PACKET_MAX as u32 + 1, DecodeError::Bounds);
    refuse(|piece| piece.total = u32::MAX, DecodeError::Bounds);
    refuse(|piece| piece.bytes.clear(), DecodeError::Bounds);
    refuse(|piece| piece.bytes.truncate(PIECE_MIN - 1), DecodeError::Bounds);
    let whole = |piece: &mut Fragment| {
        (piece.offset, piece.bytes) = (0, vec![0; piece.total as usize]);
    };
    refuse(whole, DecodeError::Bounds);

    // A piece that overlaps the next one takes the whole packet with it.
    let mut reassembler = Reassembler::default();
    reassembler.accept::<ToPeer>(Moment(0), pieces[1].clone()).unwrap();
    let mut longer = pieces[0].clone();
    longer.bytes.push(0);
    assert_eq!(reassembler.accept::<ToPeer>(Moment(0), longer), Err(DecodeError::Fragment));
    assert_eq!(reassembler.waiting(), 0);
}

#[test]
fn bytes_after_a_reassembled_packet_are_refused() {
    let (packet, _) = large(1);
    let pieces = split(1, &[encode(&packet), vec![0]].concat());
    let mut reassembler = Reassembler::default();
    let results = pieces.into_iter().map(|piece| reassembler.accept::<ToPeer>(Moment(0), piece));
    assert_eq!(results.last(), Some(Err(DecodeError::TrailingBytes)));
}

#[test]
fn fragments_do_not_hold_fragments() {
    let mut reassembler = Reassembler::default();
    let inner =
        ToPeer::Fragment(Fragment { first: 1, offset: 0, total: 9_000, bytes: vec![1; PIECE_MAX + 9] });
    let pieces = split(2, &encode(&inner));
    assert_eq!(pieces.len(), 2);
    reassembler.accept::<ToPeer>(Moment(0), pieces[0].clone()).unwrap();
    assert_eq!(reassembler.accept::<ToPeer>(Moment(0), pieces[1].clone()), Err(DecodeError::Fragment));
}

#[test]
fn a_full_piece_fits_a_datagram_at_its_longest() {
    let (offset, total) = (PACKET_MAX as u32 - 1, PACKET_MAX as u32);
    let piece = Fragment { first: u64::MAX, offset, total, bytes: vec![255; PIECE_MAX] };
    assert!(encode(&ToPeer::Fragment(piece)).len() <= PACKETS_MAX);
}

#[test]
fn fields_beside_the_text_are_bounded_and_in_order() {
    let content = |body: Body, extra: Vec<(String, Vec<u8>)>| {
        let content = Content { title: None, priority: Default::default(), tags: Vec::new(), body, extra };
        content.within_limits()
    };
    let entry = |key: &str, value: usize| (key.to_owned(), vec![0; value]);
    let text = || Body::text("up");
    assert!(content(text(), vec![entry("a", 4_094), entry("b", 0)]));
    assert!(!content(text(), vec![entry("a", 4_095), entry("b", 0)]));
    assert!(!content(text(), vec![entry("b", 0), entry("a", 0)]), "not in order");
    assert!(!content(text(), vec![entry("a", 0), entry("a", 1)]), "a key twice");
    assert!(!content(text(), vec![entry("", 0)]));
    assert!(content(text(), vec![entry(&"k".repeat(32), 0)]));
    assert!(!content(text(), vec![entry(&"k".repeat(33), 0)]));
    let many = |count: usize| (0..count).map(|at| entry(&format!("{at:02}"), 1)).collect();
    assert!(content(text(), many(32)));
    assert!(!content(text(), many(33)), "few bytes, and much memory");
    let lying: Body = decode(&[1, 1, 0xff]).unwrap();
    assert!(!content(lying, Vec::new()), "bytes that are called text");
    assert!(content(Body::binary(vec![0xff]), Vec::new()));

    let resume = |fields: Vec<(u16, usize)>| {
        let field = |(tag, length)| OptionalField { tag, bytes: vec![0; length] };
        let options = OptionalFields(fields.into_iter().map(field).collect());
        let packet = ToServer::Resume(Resume { cursor: None, credit: 1, home: Home::PRIMARY, options });
        decode_packet::<ToServer>(&encode(&packet)).map(|_| ())
    };
    assert_eq!(resume((0..16).map(|tag| (tag, 32)).collect()), Ok(()));
    assert_eq!(resume((0..17).map(|tag| (tag, 0)).collect()), Err(DecodeError::Bounds));
    assert_eq!(resume(vec![(0, 513)]), Err(DecodeError::Bounds));
    assert_eq!(resume(vec![(2, 0), (0, 0)]), Err(DecodeError::Bounds), "not in order");
    assert_eq!(resume(vec![(2, 0), (2, 0)]), Err(DecodeError::Bounds), "a tag twice");
}
