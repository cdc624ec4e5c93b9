//! Answers to queries: each datagram is sent again until it is acknowledged. The test plays the client, and
//! decides which datagrams arrive.

use recado_proto::envelope;
use recado_proto::fragment::{self, Reassembler};
use recado_proto::packet::{Answer, AnswerKind, Fragment, HistoryPage, OptionalFields, Position};
use recado_proto::seal::Key;
use recado_service::Page;

use super::hand::{config, coordinator, notification};
use crate::delivery::session::{ANSWERS_BYTES_MAX, LARGE_ANSWERS};
use crate::delivery::*;

const SESSION: SessionId = SessionId(Op(5));
/// The notifications of 1,000 bytes that make a full page of history.
const FULL: u64 = 23;

fn home() -> SocketAddr {
    ([127, 0, 0, 9], 4_000).into()
}

fn keys() -> PacketKeys {
    Key::new([7; 32]).into()
}

/// The answer to a query, with so many notifications of 1,000 bytes.
fn page(query: u64, notifications: u64) -> ToClient {
    let page = HistoryPage {
        notifications: (1..=notifications).filter_map(|op| notification(op, 1_000).notification()).collect(),
        more: false,
        trimmed_upto: Op::ZERO,
    };
    ToClient::Answer(Answer {
        id: QueryId(query),
        applied: Position::of(Op(9)),
        kind: AnswerKind::History(page),
        options: OptionalFields::NONE,
    })
}

/// A delivery that serves one session; the test plays its client.
struct Play {
    now: Moment,
    delivery: Delivery,
    /// The client's end of the link. It only receives: the test makes the client's datagrams.
    link: Link,
    number: u64,
    reassembler: Reassembler,
    /// The datagrams on their way to the client.
    wire: Vec<Vec<u8>>,
    /// The packets that the client has whole.
    taken: Vec<ToClient>,
    /// The queries of which [`Effect::AnswerDone`] was reported.
    done: Vec<u64>,
}

impl Play {
    fn new() -> Play {
        let envelope = Envelope {
            class: Class::Client,
            cluster: ClusterId(7),
            session: SESSION,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let mut play = Play {
            now: Moment(1_000_000),
            delivery: Delivery::new(&config(), Incarnation(1), [1; 32]),
            link: Link::new(envelope, keys()),
            number: 0,
            reassembler: Reassembler::default(),
            wire: Vec::new(),
            taken: Vec::new(),
            done: Vec::new(),
        };
        play.input(Input::Announce(coordinator(1)));
        play.hear();
        let challenge = play.wire.pop().map(|bytes| envelope::open(&mut keys(), &bytes).unwrap().packets);
        let Some([ToClient::PathChallenge(token)]) = challenge.as_deref() else { panic!("{challenge:?}") };
        play.input(Input::PathResponse { session: SESSION, from: home(), token: *token });
        play.input(Input::Serve { session: SESSION, cursor: Op(0), credit: None });
        play
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.delivery.handle(self.now, input, &mut out);
        self.delivery.flush(self.now, &mut out);
        for effect in out {
            match effect {
                Effect::Datagram { bytes, .. } => self.wire.push(bytes),
                Effect::AnswerDone { query, .. } => self.done.push(query.0),
                Effect::WantPage { .. }
                | Effect::Path { .. }
                | Effect::Cursor { .. }
                | Effect::Refused(_) => {}
            }
        }
    }

    fn answer(&mut self, packet: ToClient) {
        self.input(Input::Answer { session: SESSION, packet });
    }

    /// The client sends a datagram, which acknowledges what has arrived.
    fn hear(&mut self) {
        self.number += 1;
        let (number, ack) = (self.number, self.link.ack());
        let (session, from, length) = (SESSION, home(), 200);
        self.input(Input::DatagramReceived { session, from, number, ack, length, keys: keys() });
    }

    /// The datagrams on their way arrive, without those that have a packet for which `is_lost` returns true.
    fn carry(&mut self, mut is_lost: impl FnMut(&ToClient) -> bool) {
        for bytes in std::mem::take(&mut self.wire) {
            let opened = envelope::open(&mut keys(), &bytes).unwrap();
            if opened.packets.iter().any(&mut is_lost) {
                continue;
            }
            assert!(self.link.receive(self.now, opened.envelope.number, None), "a number twice");
            for packet in opened.packets {
                let whole = match packet {
                    ToClient::Fragment(piece) => self.reassembler.accept(self.now, piece).unwrap(),
                    whole => Some(whole),
                };
                self.taken.extend(whole);
            }
        }
    }

    /// Time passes until something is sent.
    fn wait(&mut self) {
        for _ in 0..1_000 {
            if !self.wire.is_empty() {
                return;
            }
            let next = self.delivery.next_deadline().expect("it waits for something");
            self.now = self.now.max(next);
            self.input(Input::Deadline);
        }
        panic!("nothing is sent");
    }

    fn pass(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(at) = self.delivery.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Deadline);
        }
        self.now = end;
    }

    /// The client acknowledges at once what arrives, until no answer is outstanding.
    fn finish(&mut self, mut is_lost: impl FnMut(&ToClient) -> bool) {
        for _ in 0..1_000 {
            if !self.delivery.sessions[&SESSION].has_answers() {
                return assert!(self.wire.is_empty(), "it goes on after the end");
            }
            self.wait();
            self.carry(&mut is_lost);
            self.hear();
        }
        panic!("it has no end");
    }

    /// The pieces of large packets on their way.
    fn fragments(&self) -> Vec<Fragment> {
        let packets = self.wire.iter().flat_map(|bytes| envelope::open(&mut keys(), bytes).unwrap().packets);
        let piece = |packet| match packet {
            ToClient::Fragment(piece) => Some(piece),
            _ => None,
        };
        packets.filter_map(piece).collect()
    }
}

#[test]
fn a_piece_that_is_lost_goes_again_and_no_other_does() {
    let pieces = fragment::split(1, &codec::encode(&page(1, FULL))).len() as u32;
    assert!(pieces > 20);
    for lost in 0..pieces {
        let mut play = Play::new();
        play.answer(page(1, FULL));
        let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
        play.finish(|packet| {
            let ToClient::Fragment(piece) = packet else { return false };
            let index = piece.offset / fragment::PIECE_MAX as u32;
            let times = sent.entry(index).or_default();
            *times += 1;
            index == lost && *times == 1
        });
        assert_eq!(play.taken, [page(1, FULL)], "piece {lost}");
        assert_eq!(play.done, [1], "piece {lost}");
        let once = |index: u32| (index, 1 + u32::from(index == lost));
        assert_eq!(sent, (0..pieces).map(once).collect::<BTreeMap<_, _>>(), "piece {lost}");
    }
}

#[test]
fn an_answer_of_one_datagram_that_is_lost_goes_again() {
    let mut play = Play::new();
    play.answer(page(1, 1));
    assert_eq!(play.wire.len(), 1);
    play.wire.clear();
    play.finish(|_| false);
    assert_eq!((play.taken, play.done), (vec![page(1, 1)], vec![1]));
}

#[test]
fn when_all_pieces_are_lost_all_go_again() {
    let mut play = Play::new();
    let began = play.now;
    play.answer(page(1, FULL));
    assert!(play.fragments().len() > 10);
    play.wire.clear();
    play.finish(|_| false);
    assert_eq!((play.taken, play.done), (vec![page(1, FULL)], vec![1]));
    assert!(play.now.since(began) < Duration::from_secs(1));
}

#[test]
fn when_acks_are_lost_pieces_go_again_until_one_arrives() {
    let mut play = Play::new();
    play.answer(page(1, FULL));
    for _ in 0..3 {
        play.wait();
        play.carry(|_| false);
    }
    assert!(play.taken.is_empty() && play.done.is_empty(), "the window is shut");
    play.finish(|_| false);
    assert_eq!((play.taken, play.done), (vec![page(1, FULL)], vec![1]));

    let mut play = Play::new();
    play.answer(page(1, 1));
    for _ in 0..3 {
        play.wait();
        play.carry(|_| false);
    }
    assert_eq!(play.taken, vec![page(1, 1); 3], "the client takes it once");
    play.hear();
    assert_eq!(play.done, [1]);
    play.pass(Duration::from_secs(5));
    assert!(play.wire.is_empty());
}

#[test]
fn for_one_answer_too_many_the_oldest_is_forgotten() {
    let (mut play, most) = (Play::new(), ANSWERS_MAX as u64);
    (1..=most).for_each(|query| play.answer(page(query, 0)));
    assert!(play.done.is_empty());
    play.answer(page(most + 1, 0));
    assert_eq!(play.done, [1]);
    play.finish(|_| false);
    assert_eq!(play.done, (1..=most + 1).collect::<Vec<_>>());

    let mut play = Play::new();
    let most = (ANSWERS_BYTES_MAX / codec::encode(&page(100, FULL)).len()) as u64;
    assert!(most < ANSWERS_MAX as u64);
    (100..100 + most).for_each(|query| play.answer(page(query, FULL)));
    assert!(play.done.is_empty());
    play.answer(page(100 + most, FULL));
    assert_eq!(play.done, [100]);
}

#[test]
fn another_answer_to_a_query_supersedes_the_outstanding_one() {
    let mut play = Play::new();
    play.answer(page(1, FULL));
    play.answer(page(1, 2));
    play.finish(|_| false);
    assert_eq!((play.taken, play.done), (vec![page(1, 2)], vec![1]));
}

#[test]
fn what_ends_or_narrows_a_session_ends_its_answers() {
    for (input, done) in [
        (Input::SessionEnded { session: SESSION, packets: Vec::new() }, vec![1_u64]),
        (Input::Withdrawn(vec![SESSION]), vec![1]),
        (Input::Retracted { op: Op(1), sessions: vec![SESSION] }, vec![1]),
        // The node has lost its role, and has forgotten its queries.
        (Input::Silence, vec![]),
    ] {
        let (mut play, which) = (Play::new(), format!("{input:?}"));
        play.answer(page(1, FULL));
        play.wire.clear();
        play.input(input);
        play.pass(Duration::from_secs(10));
        assert!(play.fragments().is_empty(), "{which}");
        assert_eq!(play.done, done, "{which}");
    }
}

#[test]
fn a_client_that_is_silent_for_long_is_sent_no_answer() {
    let mut play = Play::new();
    play.answer(page(1, FULL));
    play.pass(AWAY_AFTER - Duration::from_secs(1));
    assert!(play.done.is_empty());
    play.pass(Duration::from_secs(4));
    assert_eq!(play.done, [1]);
    play.wire.clear();
    play.pass(Duration::from_secs(20));
    assert!(play.wire.is_empty());
}

#[test]
fn a_session_whose_place_goes_to_another_loses_its_answers() {
    let mut play = Play::new();
    play.delivery.most = 1;
    play.answer(page(1, FULL));
    play.pass(AWAY_AFTER - Duration::from_secs(1));
    play.wire.clear();
    // The other one is of another network, and this one counts as away by then.
    play.now = play.now + Duration::from_secs(2);
    let (session, from) = (SessionId(Op(6)), ([10, 0, 0, 1], 4_000).into());
    play.input(Input::DatagramReceived { session, from, number: 1, ack: None, length: 200, keys: keys() });
    assert!(!play.delivery.sessions.contains_key(&SESSION));
    assert_eq!(play.done, [1]);
}

#[test]
fn a_client_that_resumes_gets_the_rest_of_its_answers() {
    let mut play = Play::new();
    play.answer(page(1, FULL));
    play.wire.clear();
    play.input(Input::Serve { session: SESSION, cursor: Op(0), credit: None });
    play.finish(|_| false);
    assert_eq!((play.taken, play.done), (vec![page(1, FULL)], vec![1]));
}

#[test]
fn an_answer_that_cannot_be_sent_is_given_up_at_once() {
    let mut play = Play::new();
    let (unknown, unproved) = (SessionId(Op(77)), SessionId(Op(78)));
    play.input(Input::Answer { session: unknown, packet: page(1, 1) });
    assert_eq!(play.done, [1]);
    play.input(Input::DatagramReceived {
        session: unproved,
        from: home(),
        number: 1,
        ack: None,
        length: 200,
        keys: keys(),
    });
    play.wire.clear();
    play.input(Input::Answer { session: unproved, packet: page(2, 1) });
    assert_eq!(play.done, [1, 2]);
    assert!(play.wire.is_empty());
}

#[test]
fn answers_wait_for_the_window_and_go_before_notifications() {
    let mut play = Play::new();
    play.input(Input::Serve { session: SESSION, cursor: Op(0), credit: Some(256) });
    let notifications = (1..=60).map(|op| notification(op, 1_000)).collect();
    let pending = Page { gap: None, notifications, more: false };
    play.input(Input::Page { session: SESSION, after: Op(0), page: pending });
    let full = play.wire.len();
    assert!((10..60).contains(&full), "{full}");
    play.answer(page(1, FULL));
    assert_eq!(play.wire.len(), full, "the window is full of notifications");
    play.carry(|_| false);
    play.hear();
    let is_piece = |bytes: &Vec<u8>| {
        let packets = envelope::open::<ToClient>(&mut keys(), bytes).unwrap().packets;
        let probes = packets == [ToClient::Ping];
        (!probes).then(|| packets.iter().any(|packet| matches!(packet, ToClient::Fragment(_))))
    };
    let pieces: Vec<bool> = play.wire.iter().filter_map(is_piece).collect();
    assert!(pieces.first() == Some(&true) && pieces.is_sorted_by(|one, next| one >= next), "{pieces:?}");
}

#[test]
fn no_more_large_answers_are_in_flight_than_a_client_puts_together() {
    let mut play = Play::new();
    (1..=6).for_each(|query| play.answer(page(query, 2)));
    play.answer(page(7, 0));
    let ids: BTreeSet<u64> = play.fragments().iter().map(|piece| piece.first).collect();
    assert_eq!(ids.len(), LARGE_ANSWERS);
    assert_eq!(play.wire.len(), play.fragments().len() + 1, "a small one does not wait for them");
    play.finish(|_| false);
    play.done.sort_unstable();
    assert_eq!((play.taken.len(), play.done), (7, vec![1, 2, 3, 4, 5, 6, 7]));
}
