use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::DATAGRAM_BASE;
use crate::envelope::{AckRange, Class, Opened};
use crate::fragment::Reassembler;
use crate::id::{ClusterId, Incarnation, Op, Priority, Seq, SessionId};
use crate::packet::{self, Content, Learn, OptionalFields, SnapshotChunk, ToClient, ToPeer, ToServer};
use crate::seal::Key;

/// No packets: a datagram that only acknowledges.
const NOTHING: &[ToPeer] = &[];

const MS: Duration = Duration::from_millis(1);

fn keys() -> PacketKeys {
    Key::new([7; 32]).into()
}

fn link() -> Link {
    let envelope = Envelope {
        class: Class::Client,
        cluster: ClusterId(1),
        session: SessionId(Op(2)),
        node: None,
        incarnation: Incarnation(0),
        number: 77,
    };
    Link::new(envelope, keys())
}

fn open(datagram: &[u8]) -> Opened<ToPeer> {
    envelope::open(&mut keys(), datagram).unwrap()
}

fn small(id: u64) -> ToPeer {
    ToPeer::Learn(Learn { nonce: id })
}

fn chunk(length: usize) -> ToPeer {
    ToPeer::SnapshotChunk(SnapshotChunk {
        op: Op(u64::MAX),
        view: View(u64::MAX),
        offset: 0,
        total: u64::MAX,
        crc: u32::MAX,
        bytes: vec![7; length],
    })
}

/// Returns true if a datagram of [`ToPeer`] carries nothing but PING.
fn is_probe(datagram: &[u8]) -> bool {
    envelope::open::<ToPeer>(&mut keys(), datagram).unwrap().packets == [ToPeer::Ping]
}

/// A SEND with so many bytes of text.
fn said(length: usize) -> ToServer {
    let (title, priority, tags, extra) = (None, Priority::default(), vec![], vec![]);
    ToServer::Send(packet::Send {
        seq: Seq(1),
        answered_below: Seq(1),
        topic: None,
        content: Content { title, priority, tags, body: "7".repeat(length).into(), extra },
        nonce: 1,
        options: OptionalFields::NONE,
    })
}

/// The ack of a receiver of these datagrams.
fn ack(numbers: impl IntoIterator<Item = u64>) -> Ack {
    let mut received = Received::default();
    numbers.into_iter().for_each(|number| assert!(received.accept(number)));
    received.ack().unwrap()
}

/// Sends one tracked small packet per token and returns their numbers.
fn send(link: &mut Link, now: Moment, tokens: impl IntoIterator<Item = u64>) -> Vec<u64> {
    tokens
        .into_iter()
        .map(|token| {
            let mut out = Vec::new();
            link.transmit(now, View::ZERO, &[small(token)], Some(token), &mut out);
            assert_eq!(out.len(), 1);
            open(&out[0]).envelope.number
        })
        .collect()
}

fn events(link: &mut Link) -> Vec<LinkEvent> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

#[test]
fn numbers_start_at_one_and_never_repeat() {
    let mut link = link();
    assert_eq!(send(&mut link, Moment(0), [10, 11, 12]), [1, 2, 3]);
    let mut out = Vec::new();
    link.transmit(Moment(0), View(9), NOTHING, None, &mut out);
    let opened = open(&out[0]);
    assert_eq!((opened.envelope.number, opened.header.view, opened.packets.len()), (4, View(9), 0));
}

#[test]
fn a_number_is_taken_once_and_zero_never() {
    let mut link = link();
    assert!(!link.receive(Moment(0), 0, None));
    assert!(link.receive(Moment(0), 5, None));
    assert!(!link.receive(Moment(0), 5, None));
    assert!(link.receive(Moment(0), 4, None));
    assert!(link.receive(Moment(0), 5000, None));
    assert!(!link.receive(Moment(0), 4, None), "too old to tell");
    assert!(link.receive(Moment(0), 5000 - 1024, None), "the window has at least 1024 numbers");
    assert!(!link.receive(Moment(0), 5000 - 1024, None));
    assert!(link.receive(Moment(0), u64::MAX, None));
    assert!(!link.receive(Moment(0), u64::MAX, None));
}

#[test]
fn every_header_carries_what_was_received() {
    let mut link = link();
    assert_eq!(link.ack(), None);
    for number in [1, 2, 4, 7] {
        link.receive(Moment(0), number, None);
    }
    let ack = Ack {
        largest: 7,
        first: 0,
        further: vec![AckRange { gap: 1, length: 0 }, AckRange { gap: 0, length: 1 }],
    };
    assert_eq!(link.ack().as_ref(), Some(&ack));
    assert_eq!(ack.ranges().collect::<Vec<_>>(), [7..=7, 4..=4, 1..=2]);
    let mut out = Vec::new();
    link.transmit(Moment(0), View::ZERO, &[small(1)], None, &mut out);
    assert_eq!(open(&out[0]).header.ack, Some(ack));
}

#[test]
fn an_ack_names_the_highest_eight_ranges_and_no_lower_one() {
    let numbers = |count: u64| (1..=count).map(|range| 10 * range).flat_map(|last| [last - 1, last]);
    for count in 1..=10 {
        let highest: Vec<_> =
            (1..=count).rev().take(Ack::RANGES_MAX).map(|range| 10 * range - 1..=10 * range).collect();
        assert_eq!(ack(numbers(count)).ranges().collect::<Vec<_>>(), highest, "of {count}");
    }
    // A number that fills a hole joins the ranges on both sides, and one more becomes visible.
    let joined = ack(numbers(10).chain(92..=98));
    let ranges: Vec<_> = joined.ranges().collect();
    assert_eq!((ranges.first(), ranges.len()), (Some(&(92..=100)), Ack::RANGES_MAX));
    let joined = ack(numbers(10).chain(91..=98));
    let ranges: Vec<_> = joined.ranges().collect();
    assert_eq!((ranges.first(), ranges.last()), (Some(&(89..=100)), Some(&(19..=20))));
}

#[test]
fn an_ack_reaches_as_far_as_the_ring() {
    assert_eq!(ack(1..=5_000).ranges().collect::<Vec<_>>(), [4_992 - 31 * 64..=5_000]);
    assert_eq!(ack([1, 2_047]).ranges().collect::<Vec<_>>(), [2_047..=2_047, 1..=1]);
    assert_eq!(ack([1, 2_048]).ranges().collect::<Vec<_>>(), [2_048..=2_048]);
    let last = ack([u64::MAX - 1_000, u64::MAX]);
    assert_eq!(last.ranges().collect::<Vec<_>>(), [u64::MAX..=u64::MAX, u64::MAX - 1_000..=u64::MAX - 1_000]);
}

#[test]
fn an_ack_is_due_after_thirty_two_datagrams() {
    let mut link = link();
    (1..=31).for_each(|number| assert!(link.receive(Moment(0), number, None)));
    assert!(!link.ack_due());
    link.receive(Moment(0), 32, None);
    assert!(link.ack_due());
    link.transmit(Moment(0), View::ZERO, NOTHING, None, &mut Vec::new());
    assert!(!link.ack_due());
}

#[test]
fn an_ack_ends_a_token_and_measures_the_round_trip() {
    let mut link = link();
    send(&mut link, Moment(0), [10]);
    assert_eq!(link.rto(), 200 * MS);
    assert!(link.receive(Moment(0) + 40 * MS, 1, Some(&ack([1]))));
    assert_eq!(events(&mut link), [LinkEvent::Acked(10)]);
    assert_eq!(link.round_trip.smoothed(), Some(40 * MS));
    // RFC 6298: the first sample gives SRTT + 4 * SRTT/2.
    assert_eq!(link.rto(), 120 * MS);
    assert_eq!(link.next_deadline(), None);
}

#[test]
fn three_later_arrivals_mean_lost() {
    let mut link = link();
    send(&mut link, Moment(0), 10..14);
    link.receive(Moment(1000), 1, Some(&ack(2..=3)));
    assert_eq!(events(&mut link), [LinkEvent::Acked(11), LinkEvent::Acked(12)]);
    link.receive(Moment(1000), 2, Some(&ack(2..=4)));
    assert_eq!(events(&mut link), [LinkEvent::Acked(13), LinkEvent::Lost(10)]);
    // A late ack causes no second event.
    link.receive(Moment(1000), 3, Some(&ack(1..=4)));
    assert_eq!(events(&mut link), []);
}

#[test]
fn what_one_later_datagram_overtook_is_lost_after_nine_eighths_of_a_round_trip() {
    let mut link = link();
    send(&mut link, Moment(0), [10, 11]);
    link.receive(Moment(0) + 80 * MS, 1, Some(&ack([2])));
    assert_eq!(events(&mut link), [LinkEvent::Acked(11)]);
    assert_eq!(link.next_deadline(), Some(Moment(0) + 90 * MS));
    link.on_deadline(Moment(0) + 89 * MS);
    assert_eq!(events(&mut link), []);
    link.on_deadline(Moment(0) + 90 * MS);
    assert_eq!(events(&mut link), [LinkEvent::Lost(10)]);
    assert_eq!(link.next_deadline(), None);
}

#[test]
fn silence_loses_all_collapses_the_window_and_backs_off_until_an_ack() {
    let mut link = link();
    send(&mut link, Moment(0), [10, 11]);
    assert_eq!(link.next_deadline(), Some(Moment(200_000)));
    link.on_deadline(Moment(199_999));
    assert_eq!(events(&mut link), []);
    link.on_deadline(Moment(200_000));
    assert_eq!(events(&mut link), [LinkEvent::Lost(10), LinkEvent::Lost(11)]);
    assert_eq!(link.congestion.window(), 2 * DATAGRAM_BASE);
    assert_eq!(link.rto(), 400 * MS);
    let mut now = Moment(200_000);
    for token in 20..30 {
        send(&mut link, now, [token]);
        now = link.next_deadline().unwrap();
        link.on_deadline(now);
    }
    assert_eq!(link.rto(), Duration::from_secs(2));
    send(&mut link, now, [30]);
    link.receive(now + MS, 1, Some(&ack([13])));
    assert_eq!(link.rto(), 20 * MS);
}

#[test]
fn a_token_of_several_datagrams_has_one_fate() {
    let mut link = link();
    let mut out = Vec::new();
    let packets = [chunk(1024), chunk(1024), chunk(1024)];
    link.transmit(Moment(0), View::ZERO, &packets, Some(10), &mut out);
    assert_eq!(
        out.iter().map(|datagram| is_probe(datagram)).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    link.receive(Moment(1000), 1, Some(&ack(1..=2)));
    assert_eq!(events(&mut link), []);
    link.receive(Moment(1000), 2, Some(&ack(1..=3)));
    assert_eq!(events(&mut link), [LinkEvent::Acked(10)]);

    link.transmit(Moment(1000), View::ZERO, &packets, Some(11), &mut out);
    send(&mut link, Moment(1000), [12]);
    link.receive(Moment(2000), 3, Some(&ack([8])));
    assert_eq!(events(&mut link), [LinkEvent::Acked(12), LinkEvent::Lost(11)]);
    link.receive(Moment(2000), 4, Some(&ack(5..=8)));
    assert_eq!(events(&mut link), []);
    assert_eq!((link.flight.bytes(), link.next_deadline()), (0, None));
}

#[test]
fn a_token_used_again_stands_for_the_newer_transmission() {
    let mut link = link();
    send(&mut link, Moment(0), [10]);
    send(&mut link, Moment(0), [10]);
    link.receive(Moment(1000), 1, Some(&ack([1])));
    assert_eq!(events(&mut link), []);
    link.receive(Moment(1000), 2, Some(&ack(1..=2)));
    assert_eq!(events(&mut link), [LinkEvent::Acked(10)]);
}

#[test]
fn losses_of_one_round_trip_halve_the_window_once() {
    let mut link = link();
    let before = link.congestion.window();
    send(&mut link, Moment(0), 1..=16);
    link.receive(Moment(1000), 1, Some(&ack([16])));
    assert_eq!(link.congestion.window(), before / 2);
    assert_eq!(events(&mut link).len(), 14);
}

#[test]
fn a_used_window_grows_and_an_unused_one_does_not() {
    let mut link = link();
    let before = link.congestion.window();
    send(&mut link, Moment(0), [1]);
    link.receive(Moment(1000), 1, Some(&ack([1])));
    assert_eq!(link.congestion.window(), before);
    for round in 0..2 {
        let mut token = 100 * (round + 1);
        while link.room() >= DATAGRAM_BASE {
            link.transmit(Moment(1000), View::ZERO, &[chunk(1024)], Some(token), &mut Vec::new());
            token += 1;
        }
        let largest = link.envelope.number;
        link.receive(Moment(2000), 2 + round, Some(&ack(1..=largest)));
    }
    assert!(link.congestion.window() > 3 * before, "{} after {before}", link.congestion.window());
}

#[test]
fn an_ack_of_what_was_never_sent_changes_nothing() {
    let mut link = link();
    send(&mut link, Moment(0), [10]);
    assert!(link.receive(Moment(0), 1, Some(&ack([1, u64::MAX]))));
    assert_eq!(events(&mut link), []);
    assert_eq!(link.next_deadline(), Some(Moment(200_000)));
}

#[test]
fn an_ack_ends_every_token_in_its_ranges_and_no_other() {
    let mut link = link();
    send(&mut link, Moment(0), 1..=300);
    let arrived = (1..=10).chain(100..=200).chain([250]).chain(299..=300);
    link.receive(Moment(1000), 1, Some(&ack(arrived.clone())));
    let acked: Vec<u64> = events(&mut link)
        .into_iter()
        .filter_map(|event| match event {
            LinkEvent::Acked(token) => Some(token),
            LinkEvent::Lost(_) => None,
        })
        .collect();
    assert_eq!(acked, arrived.collect::<Vec<_>>());
}

#[test]
fn an_ack_below_number_zero_or_of_too_many_ranges_is_out_of_bounds() {
    let opens = |largest, first, further: Vec<AckRange>| {
        let header = Header { ack: Some(Ack { largest, first, further }), view: View::ZERO };
        envelope::open::<ToPeer>(&mut keys(), &envelope::seal(&mut keys(), &link().envelope, &header, &[]))
            .map(|_| ())
    };
    let bounds = Err(codec::DecodeError::Bounds);
    let range = |gap, length| AckRange { gap, length };
    assert_eq!(opens(5, 5, vec![]), Ok(()));
    assert_eq!(opens(5, 6, vec![]), bounds);
    assert_eq!(opens(5, 1, vec![range(1, 1)]), Ok(()));
    assert_eq!(opens(5, 1, vec![range(2, 1)]), bounds);
    assert_eq!(opens(5, 1, vec![range(3, 0)]), bounds);
    assert_eq!(opens(5, 1, vec![range(u16::MAX, u16::MAX)]), bounds);
    assert_eq!(opens(100, 0, vec![range(0, 0); Ack::RANGES_MAX - 1]), Ok(()));
    assert_eq!(opens(100, 0, vec![range(0, 0); Ack::RANGES_MAX]), bounds);
}

#[test]
fn a_header_leaves_out_the_lowest_ranges_rather_than_be_longer() {
    let further: Vec<AckRange> = (251..258).map(|gap| AckRange { gap, length: 251 }).collect();
    let ack = Ack { largest: u64::MAX, first: 251, further: further.clone() };
    let header = Header { ack: Some(ack.clone()), view: View(u64::MAX) };
    let kept = Ack { further: further[..2].to_vec(), ..ack };
    let kept = Header { ack: Some(kept), ..header };
    assert_eq!(header.encode(), codec::encode(&kept));
    assert!(header.encode().len() <= envelope::HEADER_MAX);
}

#[test]
fn padding_ends_its_datagram_and_is_no_packet_to_the_receiver() {
    let mut link = link();
    let mut out = Vec::new();
    let [one, two] = [1, 2].map(ToServer::PathResponse);
    let packets = [one.clone(), ToServer::Padding, two.clone(), said(2_000)];
    link.transmit(Moment(0), View::ZERO, &packets, None, &mut out);
    assert_eq!(out.len(), 4);
    let read = |datagram| envelope::open::<ToServer>(&mut keys(), datagram).unwrap().packets;
    assert_eq!(read(&out[0]), std::slice::from_ref(&one));
    assert_eq!(read(&out[1]), [two]);
    let mut length = |packets: &[ToServer]| {
        let mut out = Vec::new();
        link.transmit(Moment(0), View::ZERO, packets, None, &mut out);
        out[0].len()
    };
    assert_eq!(length(&[one.clone(), ToServer::Padding]), length(&[one]) + 1 + PADDING_LEN);
}

proptest! {
    /// Datagrams of one size cross the kernel as one.
    #[test]
    fn all_datagrams_of_a_transmission_but_the_last_have_one_size(
        sizes in prop::collection::vec(0..1500usize, 1..40), filled: bool,
    ) {
        let mut link = link();
        let packets: Vec<ToServer> = sizes.iter().copied().map(said).collect();
        let mut out = Vec::new();
        link.transmit_before(Moment(0), View(7), &packets, None, filled, &mut Buffers::default(), &mut out);
        let lengths: Vec<usize> = out.iter().map(Vec::len).collect();
        let (last, others) = lengths.split_last().unwrap();
        prop_assert!(others.iter().all(|length| *length == DATAGRAM_BASE), "{lengths:?}");
        prop_assert!(*last <= DATAGRAM_BASE && (!filled || *last == DATAGRAM_BASE), "{lengths:?}");
        let mut reassembler = Reassembler::default();
        let mut read = Vec::new();
        for datagram in &out {
            for packet in envelope::open::<ToServer>(&mut keys(), datagram).unwrap().packets {
                read.extend(match packet.into_fragment() {
                    Ok(piece) => reassembler.accept(Moment(0), piece).unwrap(),
                    Err(packet) => Some(packet),
                });
            }
        }
        prop_assert_eq!(read, packets);
    }
}

#[test]
fn packets_share_datagrams_and_large_ones_go_in_fragments() {
    let mut link = link();
    let mut out = Vec::new();
    let large = chunk(30_000);
    let packets: Vec<ToPeer> =
        (0..500).map(small).chain([large.clone()]).chain((500..510).map(small)).collect();
    link.transmit(Moment(0), View(u64::MAX), &packets, Some(1), &mut out);
    assert!(out.pop().is_some_and(|last| is_probe(&last)));
    assert!(out.iter().all(|datagram| datagram.len() <= DATAGRAM_BASE));
    assert!(out.len() <= 33, "{} datagrams", out.len());
    let carried = out.iter().flat_map(|datagram| {
        let number = Envelope::peek(datagram).unwrap().number;
        let inside = keys().open(number, envelope::OUTER_LEN, datagram).unwrap();
        let (_, mut at) = codec::decode_first::<Header>(&inside).unwrap();
        std::iter::from_fn(move || {
            let rest = inside.get(at..).filter(|rest| !rest.is_empty())?;
            let (packet, length) = codec::decode_first::<ToPeer>(rest).unwrap();
            at += length;
            (packet != ToPeer::Padding).then_some(packet)
        })
        .collect::<Vec<_>>()
    });
    let (fragments, whole): (Vec<ToPeer>, Vec<ToPeer>) =
        carried.partition(|packet| matches!(packet, ToPeer::Fragment(_)));
    assert_eq!(whole, (0..510).map(small).collect::<Vec<_>>());
    assert!(fragments.len() > 20);
}

#[test]
fn a_caller_that_ignores_the_window_loses_its_oldest() {
    let mut link = link();
    let most = FLIGHT_MAX as u64;
    send(&mut link, Moment(0), 0..most + 3);
    assert_eq!(events(&mut link), [LinkEvent::Lost(0), LinkEvent::Lost(1), LinkEvent::Lost(2)]);
    assert_eq!(link.room(), 0);
}

/// The treatment of one datagram by the network.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lose,
    Deliver { after: u64 },
    Double { after: u64, again: u64 },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => Just(Fate::Lose),
        3 => (1..5_000_u64).prop_map(|after| Fate::Deliver { after }),
        1 => (1..5_000_u64, 1..400_000_u64).prop_map(|(after, again)| Fate::Double { after, again }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_ack_names_what_came_and_nothing_else(steps in prop::collection::vec(-300_i64..900, 1..200)) {
        let mut received = Received::default();
        let mut numbers = BTreeSet::new();
        let mut at = 1_000_i64;
        for step in steps {
            at = (at + step / 8).max(1);
            let number = at as u64;
            let largest: u64 = numbers.last().copied().unwrap_or(0);
            let fits = largest.saturating_sub(number) < received::WINDOW && !numbers.contains(&number);
            prop_assert_eq!(received.accept(number), fits);
            numbers.extend(fits.then_some(number));
        }
        let largest = *numbers.last().unwrap();
        let known: BTreeSet<u64> = numbers.into_iter().filter(|n| largest / 64 - n / 64 < 32).collect();
        let named: BTreeSet<u64> = received.ack().unwrap().ranges().flatten().collect();
        let lowest = *named.first().unwrap();
        prop_assert!(named.iter().eq(known.range(lowest..)));
        let count = received.ack().unwrap().ranges().count();
        prop_assert!(named.len() == known.len() || count == Ack::RANGES_MAX);
    }

    /// With loss, reordering and duplication in both directions, every token is acked or lost exactly once,
    /// acked content did arrive, no number is used twice, and something can always be sent.
    #[test]
    fn every_token_ends_once_whatever_the_network_does(
        fates in prop::collection::vec(fate(), 1..40),
        sizes in prop::collection::vec(1_usize..4_000, 1..40),
    ) {
        let mut ends = [link(), link()];
        let mut fates = fates.iter().cycle();
        let mut wire: BTreeMap<(u64, u64), (usize, Vec<u8>)> = BTreeMap::new();
        let mut sent = 0;
        let mut now = Moment(0);
        let mut numbers: [BTreeSet<u64>; 2] = Default::default();
        let mut arrived: BTreeSet<u64> = BTreeSet::new();
        let mut carriers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut outcome: BTreeMap<u64, LinkEvent> = BTreeMap::new();
        let mut queue = (0..sizes.len() as u64).collect::<std::collections::VecDeque<_>>();
        let mut steps = 0;
        while outcome.len() < sizes.len() {
            steps += 1;
            prop_assert!(steps < 100_000, "no end");
            let mut out = Vec::new();
            while ends[0].room() > 0 && let Some(token) = queue.pop_front() {
                let mut datagrams = Vec::new();
                let packet = chunk(sizes[token as usize]);
                ends[0].transmit(now, View::ZERO, &[packet], Some(token), &mut datagrams);
                let carry = datagrams.iter().filter(|bytes| !is_probe(bytes));
                let numbers = carry.map(|bytes| Envelope::peek(bytes).unwrap().number);
                carriers.insert(token, numbers.collect());
                out.extend(datagrams.into_iter().map(|bytes| (1, bytes)));
            }
            let next = wire.first_key_value().map(|((at, _), _)| Moment(*at));
            let deadline = ends[0].next_deadline();
            if next.is_none() || deadline.is_some_and(|at| Some(at) < next) {
                if let Some(at) = deadline {
                    now = now.max(at);
                    ends[0].on_deadline(now);
                }
            } else if let Some(((at, _), (to, bytes))) = wire.pop_first() {
                now = now.max(Moment(at));
                let number = Envelope::peek(&bytes).unwrap().number;
                let inside = keys().open(number, envelope::OUTER_LEN, &bytes).unwrap();
                let (header, _) = codec::decode_first::<Header>(&inside).unwrap();
                let fresh = ends[to].receive(now, number, header.ack.as_ref());
                prop_assert_eq!(fresh, (to == 0) || arrived.insert(number) , "{}", number);
                if fresh && to == 1 {
                    let mut answer = Vec::new();
                    ends[1].transmit(now, View::ZERO, NOTHING, None, &mut answer);
                    out.extend(answer.into_iter().map(|bytes| (0, bytes)));
                }
            }
            for (to, bytes) in out {
                let number = Envelope::peek(&bytes).unwrap().number;
                prop_assert!(numbers[1 - to].insert(number), "{} twice", number);
                let times = match fates.next().unwrap() {
                    Fate::Lose => vec![],
                    Fate::Deliver { after } => vec![*after],
                    // Acks are not duplicated, because only the data end checks for duplicates here.
                    Fate::Double { after, .. } if to == 0 => vec![*after],
                    Fate::Double { after, again } => vec![*after, *again],
                };
                for after in times {
                    sent += 1;
                    wire.insert((now.0 + after, sent), (to, bytes.clone()));
                }
            }
            while let Some(event) = ends[0].poll_event() {
                let token = match event { LinkEvent::Acked(token) | LinkEvent::Lost(token) => token };
                prop_assert!(outcome.insert(token, event).is_none(), "{} ended twice", token);
                if event == LinkEvent::Acked(token) {
                    prop_assert!(carriers[&token].iter().all(|number| arrived.contains(number)));
                }
            }
            prop_assert!(ends[0].congestion.window() >= 2 * DATAGRAM_BASE);
            let sum: usize = ends[0].flight.iter().map(|(_, sent)| sent.bytes).sum();
            prop_assert_eq!(sum, ends[0].flight.bytes());
            prop_assert_eq!(ends[0].flight.is_empty(), ends[0].next_deadline().is_none());
        }
        prop_assert_eq!(ends[0].room(), ends[0].congestion.window());
    }
}

#[test]
fn fragments_of_a_link_are_put_together_again_in_any_order() {
    let mut link = link();
    let page = crate::packet::HistoryPage {
        notifications: (1..=10)
            .map(|op| {
                std::sync::Arc::new(crate::packet::Notification {
                    op: Op(op),
                    topic: crate::id::Topic::to_follow("#ops").unwrap(),
                    author: "alice".parse().unwrap(),
                    unix_ms: op,
                    content: crate::packet::Content {
                        title: None,
                        priority: crate::id::Priority::default(),
                        tags: vec![],
                        body: format!("{op}").repeat(1000).into(),
                        extra: Vec::new(),
                    },
                    options: OptionalFields::NONE,
                })
            })
            .collect(),
        more: false,
        trimmed_upto: Op(0),
    };
    let large = ToClient::Answer(crate::packet::Answer {
        id: crate::packet::QueryId(1),
        applied: Default::default(),
        kind: crate::packet::AnswerKind::History(page),
        options: Default::default(),
    });
    let mut out = Vec::new();
    link.transmit(Moment(0), View::ZERO, std::slice::from_ref(&large), None, &mut out);
    let mut whole: Vec<ToClient> = Vec::new();
    let mut reassembler = Reassembler::default();
    for datagram in out.iter().rev() {
        for packet in envelope::open::<ToClient>(&mut keys(), datagram).unwrap().packets {
            let ToClient::Fragment(piece) = packet else { panic!("{packet:?}") };
            whole.extend(reassembler.accept(Moment(0), piece).unwrap());
        }
    }
    assert_eq!(whole, [large]);
    assert_eq!(reassembler.waiting(), 0);
}

/// A path that carries datagrams of so many bytes, with a receiver that acknowledges each transmission.
struct Way {
    link: Link,
    carries: usize,
    now: Moment,
    arrived: Received,
    /// The numbers of the receiver's datagrams, and the tokens.
    turn: u64,
}

impl Way {
    fn new(carries: usize) -> Way {
        Way { link: link(), carries, now: Moment(0), arrived: Received::default(), turn: 0 }
    }

    /// Sends so many packets of 200 bytes, and again what is lost. Returns the lengths of all datagrams of
    /// the last transmission, and the number of transmissions.
    fn send(&mut self, count: usize) -> (Vec<usize>, usize) {
        let packets: Vec<ToServer> = (0..count).map(|_| said(200)).collect();
        for times in 1..10 {
            self.turn += 1;
            self.now.0 += 1_000;
            let mut out = Vec::new();
            self.link.transmit(self.now, View::ZERO, &packets, Some(self.turn), &mut out);
            for datagram in out.iter().filter(|datagram| datagram.len() <= self.carries) {
                assert!(self.arrived.accept(Envelope::peek(datagram).unwrap().number));
            }
            self.now.0 += 1_000;
            self.link.receive(self.now, self.turn, self.arrived.ack().as_ref());
            loop {
                match self.link.poll_event() {
                    Some(LinkEvent::Acked(token)) if token == self.turn => {
                        return (out.iter().map(Vec::len).collect(), times);
                    }
                    Some(LinkEvent::Lost(token)) if token == self.turn => break,
                    Some(other) => panic!("{other:?}"),
                    None => {
                        self.now = self.link.next_deadline().unwrap();
                        self.link.on_deadline(self.now);
                    }
                }
            }
        }
        panic!("it never arrives")
    }
}

#[test]
fn a_link_with_much_to_send_finds_how_long_its_datagrams_may_be_and_fills_them() {
    for (carries, found) in [(1_200, 1_200), (1_400, 1_372), (1_472, 1_452), (8_952, 8_952)] {
        let mut way = Way::new(carries);
        let window = way.link.congestion.window();
        let sent: Vec<_> = (0..12).map(|_| way.send(60)).collect();
        assert!(sent.iter().all(|(_, times)| *times == 1), "no probe makes anything count as lost");
        assert!(way.link.congestion.window() >= window, "nor the path as congested");
        let (lengths, _) = &sent[11];
        let (_, others) = lengths.split_last().unwrap();
        assert!(!others.is_empty() && others.iter().all(|length| *length == found), "{carries}: {lengths:?}");
        assert_eq!(way.link.packets_max(), envelope::PACKETS_MAX + found - DATAGRAM_BASE);
    }
}

/// The end of a burst, of which everything but the probe is acknowledged.
#[test]
fn a_lost_probe_at_the_end_of_a_burst_sets_no_timer_and_costs_no_window() {
    let mut way = Way::new(1_200);
    for _ in 0..4 {
        let (window, rto) = (way.link.congestion.window(), way.link.rto());
        way.send(60);
        assert_eq!(way.link.next_deadline(), None);
        assert!(way.link.congestion.window() >= window && way.link.rto() <= rto);
        way.now.0 += 5_000_000;
    }
}

#[test]
fn a_link_with_little_to_send_probes_nothing() {
    let mut way = Way::new(8_952);
    for _ in 0..20 {
        assert_eq!(way.send(4).0.len(), 1);
    }
}

#[test]
fn longer_datagrams_that_arrive_no_more_are_given_up_and_their_content_arrives() {
    let mut way = Way::new(8_952);
    (0..8).for_each(|_| drop(way.send(60)));
    way.carries = 1_300;
    let (lengths, times) = way.send(60);
    assert!(lengths.iter().all(|length| *length <= DATAGRAM_BASE), "{lengths:?}");
    assert_eq!(times, 3);
    let (lengths, times) = way.send(60);
    assert!(times == 1 && lengths.iter().all(|length| *length <= DATAGRAM_BASE), "{lengths:?}");
}

#[test]
fn another_path_begins_with_short_datagrams() {
    let mut way = Way::new(8_952);
    (0..8).for_each(|_| drop(way.send(60)));
    way.link.on_new_path();
    way.carries = 1_200;
    for _ in 0..8 {
        assert_eq!(way.send(60).1, 1);
    }
}

/// It would show nowhere that the path does not carry them any more.
#[test]
fn datagrams_that_are_not_tracked_are_short_on_any_path() {
    let mut way = Way::new(8_952);
    (0..8).for_each(|_| drop(way.send(60)));
    let packets: Vec<ToServer> = (0..60).map(|_| said(200)).collect();
    let mut out = Vec::new();
    way.link.transmit(way.now, View::ZERO, &packets, None, &mut out);
    assert!(out.len() > 1 && out.iter().all(|datagram| datagram.len() <= DATAGRAM_BASE));
}

#[test]
fn a_packet_goes_in_as_few_fragments_as_the_path_allows_and_whole_if_it_fits() {
    let mut way = Way::new(8_952);
    let packets = |way: &mut Way, length: usize| {
        let mut out = Vec::new();
        way.link.transmit(way.now, View::ZERO, &[chunk(length)], Some(u64::MAX), &mut out);
        let carry = out.iter().filter(|datagram| !is_probe(datagram));
        let opened = carry.map(|datagram| envelope::open::<ToPeer>(&mut keys(), datagram).unwrap().packets);
        let (fragments, whole): (Vec<_>, Vec<_>) =
            opened.flatten().partition(|packet| matches!(packet, ToPeer::Fragment(_)));
        (whole.len(), fragments.len())
    };
    assert_eq!(packets(&mut Way::new(8_952), 8_000), (0, 8));
    (0..8).for_each(|_| drop(way.send(60)));
    assert_eq!(packets(&mut way, 8_000), (1, 0));
    assert_eq!(packets(&mut way, 16_000), (0, 2));
}
