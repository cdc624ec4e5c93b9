//! Behaviours of the delivery alone; the test plays the client.

use std::sync::Arc;

use recado_proto::envelope;
use recado_proto::fragment::Reassembler;
use recado_proto::packet::{
    Code, Content, Fragment, Home, OptionalField, OptionalFields, Packet, Position, SendAck, ToServer,
};
use recado_service::Page;

use crate::config::{Cluster, Config, Limits, Member, Preempt, Retention, Timing};
use crate::delivery::*;

const ME: NodeId = NodeId(3);
const SESSION: SessionId = SessionId(Op(5));

pub(super) fn config() -> Config {
    let members = (1..=3)
        .map(|id| Member {
            id: NodeId(id),
            client: ([127, 0, 0, 1], 10_000 + id).into(),
            peer: ([127, 0, 0, 1], 11_000 + id).into(),
        })
        .collect();
    Config {
        cluster: Cluster { id: ClusterId(7), me: ME, members },
        timing: Timing::DEFAULT,
        preempt: Preempt::Graceful,
        limits: Limits::default(),
        retention: Retention::default(),
        admission: Default::default(),
        snapshot_every: Duration::from_secs(60),
        snapshot_bytes: 1 << 26,
        planted: Default::default(),
    }
}

pub(super) fn coordinator(round: u64) -> Coordinator {
    let members = config().cluster.members.iter().map(|member| (member.id, member.client)).collect();
    Coordinator::new(View::new(round, ME), members)
}

pub(super) fn notification(op: u64, bytes: usize) -> Arc<Notification> {
    let body = "x".repeat(bytes);
    Arc::new(Notification {
        op: Op(op),
        topic: recado_proto::id::Topic::Feed("bob".parse().unwrap()),
        author: "bob".parse().unwrap(),
        unix_ms: op,
        content: Content {
            title: None,
            priority: Default::default(),
            tags: Vec::new(),
            body: body.into(),
            extra: Vec::new(),
        },
        options: OptionalFields::NONE,
    })
}

fn home() -> SocketAddr {
    ([127, 0, 0, 9], 4_000).into()
}

fn away() -> SocketAddr {
    ([127, 0, 0, 8], 4_000).into()
}

/// The key of every session here.
fn key() -> Key {
    Key::new([7; 32])
}

/// The first datagram of a session, from the client's first address.
fn first_heard(session: u64) -> Input {
    let session = SessionId(Op(session));
    Input::DatagramReceived { session, from: home(), number: 1, ack: None, length: LONG, key: key() }
}

/// The length of a datagram that may be answered with a PATH_CHALLENGE.
const LONG: usize = 200;

/// A packet that is sent once.
fn reply() -> ToClient {
    ToClient::SendAck(SendAck { seq: recado_proto::id::Seq(7), op: Op(7), data: OptionalFields::NONE })
}

/// A delivery; the test plays client and replica thread.
struct Play {
    now: Moment,
    delivery: Delivery,
    number: u64,
    pages: Vec<(Op, u32)>,
    cursors: Vec<Op>,
    /// The addresses reported by [`Effect::Path`].
    paths: Vec<SocketAddr>,
    /// The datagrams sent, without the PATH_CHALLENGEs.
    sent: Vec<(SocketAddr, envelope::Opened<ToClient>)>,
    /// The PATH_CHALLENGEs sent: the address, the token, and the length of the datagram.
    challenges: Vec<(SocketAddr, u64, usize)>,
}

impl Play {
    fn new() -> Play {
        let now = Moment(1_000_000);
        let delivery = Delivery::new(&config(), Incarnation(1), [1; 32]);
        let (pages, cursors, paths, sent, challenges) = Default::default();
        let mut play = Play { now, delivery, number: 0, pages, cursors, paths, sent, challenges };
        play.input(Input::Announce(coordinator(1)));
        play
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.delivery.handle(self.now, input, &mut out);
        for effect in out {
            match effect {
                Effect::Datagram { to, bytes } => {
                    let opened = envelope::open(&key(), &bytes).unwrap();
                    match opened.packets[..] {
                        [ToClient::PathChallenge(token)] => self.challenges.push((to, token, bytes.len())),
                        _ => self.sent.push((to, opened)),
                    }
                }
                Effect::WantPage { after, limit, .. } => self.pages.push((after, limit)),
                Effect::Path { address, .. } => self.paths.push(address),
                Effect::Cursor { upto, .. } => self.cursors.push(upto),
                Effect::AnswerDone { .. } | Effect::Refused(_) => {}
            }
        }
    }

    /// The client sends from its first address, and answers if it is challenged.
    fn heard(&mut self) {
        self.number += 1;
        self.heard_from(home(), self.number);
        self.answer_challenge();
    }

    fn heard_from(&mut self, from: SocketAddr, number: u64) {
        self.heard_of(from, number, LONG);
    }

    fn heard_of(&mut self, from: SocketAddr, number: u64, length: usize) {
        let ack = self.sent.last().map(|(_, opened)| {
            let largest = opened.envelope.number;
            Ack { largest, first: 64, further: Vec::new() }
        });
        self.input(Input::DatagramReceived { session: SESSION, from, number, ack, length, key: key() });
    }

    /// The client answers the last challenge.
    fn answer_challenge(&mut self) {
        if let Some((from, token, _)) = self.challenges.pop() {
            self.respond(from, token);
        }
    }

    fn respond(&mut self, from: SocketAddr, token: u64) {
        self.input(Input::PathResponse { session: SESSION, from, token });
    }

    /// The server sends a packet; the address it went to, if any.
    fn say(&mut self) -> Option<SocketAddr> {
        self.sent.clear();
        self.input(Input::Answer { session: SESSION, packet: reply() });
        self.sent.pop().map(|(to, _)| to)
    }

    /// A session that was heard and is served from `cursor` on, with nothing pending.
    fn live(&mut self, cursor: u64, credit: u32) {
        self.heard();
        self.serve(cursor, credit);
        self.page(cursor, Vec::new(), false);
    }

    fn serve(&mut self, cursor: u64, credit: u32) {
        self.input(Input::Serve { session: SESSION, cursor: Op(cursor), credit: Some(credit) });
    }

    fn page(&mut self, after: u64, notifications: Vec<Arc<Notification>>, more: bool) {
        let page = Page { gap: None, notifications, more };
        self.input(Input::Page { session: SESSION, after: Op(after), page });
    }

    fn applied(&mut self, op: u64) {
        self.input(Input::Applied { notification: notification(op, 10), sessions: vec![SESSION] });
    }

    fn ack(&mut self, upto: u64, held: &[u64], credit: u32) {
        self.heard();
        let held = held.iter().map(|op| Op(*op)).collect();
        self.input(Input::ClientAck(SESSION, ClientAck { upto: Position::of(Op(upto)), held, credit }));
    }

    fn pass(&mut self, wait: Duration) {
        let end = self.now + wait;
        let mut turns = 0;
        while let Some(at) = self.delivery.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.input(Input::Deadline);
            turns += 1;
            assert!(turns < 10_000, "a deadline that does not pass");
        }
        self.now = end;
    }

    /// The fragments sent since the last call.
    fn pieces(&mut self) -> Vec<Fragment> {
        let packets = self.sent.drain(..).flat_map(|(_, opened)| opened.packets);
        packets.filter_map(|packet| packet.into_fragment().ok()).collect()
    }

    /// The `(prev, op)` of the items sent since the last call.
    fn stream(&mut self) -> Vec<(u64, u64)> {
        let packets = self.sent.drain(..).flat_map(|(_, opened)| opened.packets);
        packets
            .filter_map(|packet| match packet {
                ToClient::Delivered(delivered) => Some((delivered.prev.0, delivered.item.op().0)),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn each_notification_names_the_one_before_it_in_its_stream() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    assert_eq!(play.pages, vec![(Op(10), 256)]);
    play.page(10, vec![notification(12, 10), notification(20, 10)], false);
    play.applied(31);
    assert_eq!(play.stream(), vec![(10, 12), (12, 20), (20, 31)]);
}

#[test]
fn what_is_applied_while_a_page_is_awaited_comes_once() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.applied(12);
    assert_eq!(play.stream(), vec![]);
    play.page(10, vec![notification(12, 10)], false);
    play.applied(12);
    assert_eq!(play.stream(), vec![(10, 12)]);
}

#[test]
fn a_page_nobody_waits_for_is_ignored() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.page(9, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![]);
    play.page(10, Vec::new(), false);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![], "live: what comes now is applied");
}

#[test]
fn a_page_that_does_not_come_is_asked_for_again() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.pass(Duration::from_millis(1_100));
    assert_eq!(play.pages, vec![(Op(10), 256), (Op(10), 256)]);
}

#[test]
fn dropped_applied_notifications_are_asked_for_in_pages() {
    let mut play = Play::new();
    play.live(10, 256);
    play.applied(12);
    play.pages.clear();
    play.input(Input::AppliedDropped);
    assert_eq!(play.pages, vec![(Op(12), 256)]);
    play.applied(30);
    play.page(12, vec![notification(20, 10), notification(30, 10)], false);
    assert_eq!(play.stream(), vec![(10, 12), (12, 20), (20, 30)]);
}

#[test]
fn no_more_is_in_flight_than_the_client_gives_credit_for() {
    let mut play = Play::new();
    play.live(10, 2);
    (11..=20).for_each(|op| play.applied(op));
    assert_eq!(play.stream(), vec![(10, 11), (11, 12)]);
    play.ack(12, &[], 3);
    assert_eq!(play.stream(), vec![(12, 13), (13, 14), (14, 15)]);
    play.ack(15, &[], 0);
    play.pass(Duration::from_secs(5));
    assert_eq!(play.stream(), vec![], "no credit, nothing sent");
    assert_eq!(play.cursors, vec![Op(12), Op(15)]);
}

#[test]
fn a_queue_that_is_full_drops_its_tail_and_pages_later() {
    let mut play = Play::new();
    play.live(0, 1);
    play.pages.clear();
    (1..=1_000).for_each(|op| play.applied(op));
    assert!(play.pages.is_empty(), "there is no room for a page");
    play.ack(300, &[], 1);
    assert_eq!(play.pages, vec![(Op(512), 256)], "it goes on where the queue ended");
}

#[test]
fn small_notifications_share_datagrams_and_large_ones_do_not_crowd_each_other_out() {
    let mut play = Play::new();
    play.heard();
    play.serve(0, 256);
    play.page(0, (1..=8).map(|op| notification(op, 10)).collect(), false);
    assert_eq!(play.sent.len(), 1);
    assert_eq!(play.stream().len(), 8);
    let mut play = Play::new();
    play.heard();
    play.serve(0, 256);
    play.page(0, (1..=8).map(|op| notification(op, 2_000)).collect(), false);
    let pieces = play.sent.iter().flat_map(|(_, opened)| &opened.packets);
    let ids: BTreeSet<u64> = pieces
        .filter_map(|packet| match packet {
            ToClient::Fragment(piece) => Some(piece.first),
            _ => None,
        })
        .collect();
    assert!((1..=4).contains(&ids.len()), "{} large ones in flight", ids.len());
}

#[test]
fn a_large_notification_sent_again_completes_what_arrived_of_it() {
    let mut play = Play::new();
    play.live(0, 1);
    play.sent.clear();
    let notification = notification(1, 5_000);
    play.input(Input::Applied { notification, sessions: vec![SESSION] });
    let once = play.pieces();
    play.pass(Duration::from_millis(250));
    let again = play.pieces();
    assert_eq!((once.len(), again.len()), (5, 5), "nothing was acknowledged");
    let mut reassembler = Reassembler::default();
    let arrived = once.into_iter().skip(1).chain(again.into_iter().take(4));
    let whole = arrived.filter_map(|piece| reassembler.accept(Moment(0), piece).unwrap()).next();
    let Some(ToClient::Delivered(delivered)) = whole else { panic!("{whole:?}") };
    assert_eq!(delivered.item.op(), Op(1));
}

#[test]
fn a_notification_is_large_by_its_encoding_whatever_part_makes_it_so() {
    let mut play = Play::new();
    play.live(0, 1);
    play.sent.clear();
    let mut notification = Arc::unwrap_or_clone(notification(1, 800));
    notification.options = OptionalFields(vec![OptionalField { tag: 0, bytes: vec![7; 500] }]);
    play.input(Input::Applied { notification: Arc::new(notification), sessions: vec![SESSION] });
    let first_of = |pieces: Vec<Fragment>| pieces.iter().map(|piece| piece.first).collect::<Vec<u64>>();
    let once = first_of(play.pieces());
    play.pass(Duration::from_millis(250));
    assert_eq!(once.len(), 2);
    assert_eq!(first_of(play.pieces()), once, "the fragments of both transmissions complete each other");
}

#[test]
fn what_is_lost_is_sent_again_and_what_is_held_is_not() {
    let mut play = Play::new();
    play.live(0, 256);
    (1..=3).for_each(|op| play.applied(op));
    assert_eq!(play.stream().len(), 3);
    play.input(Input::ClientAck(
        SESSION,
        ClientAck { upto: Position::of(Op(0)), held: vec![Op(2), Op(3)], credit: 256 },
    ));
    play.pass(Duration::from_secs(3));
    let again = play.stream();
    assert!(!again.is_empty());
    assert!(again.iter().all(|step| *step == (0, 1)), "{again:?}");
}

#[test]
fn the_oldest_is_sent_again_now_and_then_to_a_client_that_says_nothing() {
    let mut play = Play::new();
    play.live(0, 256);
    (1..=3).for_each(|op| play.applied(op));
    play.heard();
    play.stream();
    play.input(Input::ClientAck(
        SESSION,
        ClientAck { upto: Position::of(Op(0)), held: vec![Op(1), Op(2), Op(3)], credit: 256 },
    ));
    play.pass(Duration::from_secs(1));
    let again = play.stream();
    assert!(!again.is_empty(), "its answer replaces an ack that was lost");
    assert!(again.iter().all(|step| *step == (0, 1)), "{again:?}");
}

#[test]
fn a_gap_is_told_in_the_stream() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    let page = Page { gap: Some(Op(40)), notifications: vec![notification(41, 10)], more: false };
    play.input(Input::Page { session: SESSION, after: Op(10), page });
    assert_eq!(play.stream(), vec![(10, 40), (40, 41)]);
}

#[test]
fn a_page_that_has_no_room_with_its_gap_is_asked_for_again_from_where_it_was_cut() {
    let mut play = Play::new();
    play.live(0, 1);
    (1..=512).for_each(|op| play.applied(op));
    play.applied(513);
    play.pages.clear();
    play.ack(200, &[], 1);
    assert_eq!(play.pages, vec![(Op(512), 200)], "as many as there are places");
    let notifications = (601..=800).map(|op| notification(op, 10)).collect();
    let page = Page { gap: Some(Op(600)), notifications, more: false };
    play.input(Input::Page { session: SESSION, after: Op(512), page });
    // The gap took a place too, so the last notification has none; the next applied one does not follow the
    // tail.
    play.pages.clear();
    play.sent.clear();
    play.ack(798, &[], 256);
    play.applied(801);
    assert_eq!(play.pages, vec![(Op(799), 256)]);
    play.page(799, vec![notification(800, 10), notification(801, 10)], false);
    assert_eq!(play.stream(), vec![(798, 799), (799, 800), (800, 801)]);
}

#[test]
fn a_page_that_costs_too_much_now_is_asked_for_again_when_it_can_be_had() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    assert_eq!(play.pages, vec![(Op(10), 256)]);
    play.input(Input::PageLater { session: SESSION, after: Op(10), wait: Duration::from_millis(40) });
    play.pass(Duration::from_millis(39));
    assert_eq!(play.pages.len(), 1);
    play.pass(Duration::from_millis(2));
    assert_eq!(play.pages, vec![(Op(10), 256); 2]);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![(10, 12)]);
}

#[test]
fn an_ack_from_beyond_the_queue_moves_the_stream_there() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.ack(50, &[], 256);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![]);
    assert_eq!(play.pages.last(), Some(&(Op(50), 256)));
    play.ack(20, &[], 256);
    assert_eq!(play.cursors, vec![Op(50)], "an old ack moves nothing back");
}

#[test]
fn a_session_first_heard_is_only_asked_whether_it_is_there() {
    let mut play = Play::new();
    play.heard_from(home(), 1);
    play.serve(0, 256);
    play.page(0, vec![notification(1, 10)], false);
    play.applied(2);
    play.input(Input::Announce(coordinator(2)));
    play.input(Input::Answer {
        session: SESSION,
        packet: ToClient::SendAck(SendAck { seq: Default::default(), op: Op(1), data: OptionalFields::NONE }),
    });
    // Enough datagrams that an ack is due.
    (2..=40).for_each(|number| play.heard_from(home(), number));
    play.pass(Duration::from_secs(5));
    assert!(play.sent.is_empty(), "{:?}", play.sent);
    assert_eq!(play.challenges.len(), 40);
    assert!(play.challenges.iter().all(|(to, ..)| *to == home()));

    play.answer_challenge();
    assert_eq!(play.say(), Some(home()));
    play.serve(0, 256);
    play.page(0, vec![notification(1, 10)], false);
    assert_eq!(play.stream(), vec![(0, 1)]);
}

#[test]
fn a_challenge_is_never_longer_than_what_it_is_asked_upon() {
    let mut play = Play::new();
    // The longest header that a challenge can have: all integers of the ack have full width.
    play.delivery = Delivery::new(&config(), Incarnation(u64::from(u32::MAX)), [1; 32]);
    for (length, number) in (1..=LONG).zip(u64::MAX / 2..) {
        play.challenges.clear();
        play.heard_of(home(), number, length);
        assert!(play.challenges.iter().all(|(_, _, bytes)| *bytes <= length), "{:?}", play.challenges);
    }
    assert_eq!(play.challenges.len(), 1, "the longest was enough");
}

#[test]
fn every_word_that_may_be_the_first_is_long_enough_to_be_answered() {
    for first in [
        ToServer::keepalive(),
        ToServer::Resume(recado_proto::packet::Resume {
            cursor: None,
            credit: 0,
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        }),
    ] {
        let envelope = Envelope {
            class: Class::Client,
            cluster: ClusterId(7),
            session: SESSION,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let (mut play, mut datagrams) = (Play::new(), Vec::new());
        let packets = [first, ToServer::Padding];
        Link::new(envelope, key()).transmit(play.now, View::ZERO, &packets, None, &mut datagrams);
        play.heard_of(home(), 1, datagrams[0].len());
        assert_eq!(play.challenges.len(), 1, "{packets:?}");
    }
}

#[test]
fn a_new_address_is_used_once_it_has_answered_and_the_old_one_until_then() {
    let mut play = Play::new();
    play.live(0, 256);
    play.heard_from(away(), 10);
    assert_eq!(play.say(), Some(home()));
    play.applied(1);
    assert_eq!(play.sent.pop().map(|(to, _)| to), Some(home()), "the stream too");
    play.answer_challenge();
    assert_eq!(play.say(), Some(away()));
    play.applied(2);
    assert_eq!(play.sent.pop().map(|(to, _)| to), Some(away()));
}

#[test]
fn only_the_token_from_the_address_that_was_asked_counts() {
    let mut play = Play::new();
    play.live(0, 256);
    play.heard_from(away(), 10);
    let (to, token, _) = play.challenges[0];
    assert_eq!(to, away());
    let elsewhere = ([127, 0, 0, 7], 4_000).into();
    for (from, said) in [(away(), token ^ 1), (away(), 0), (elsewhere, token), (home(), token)] {
        play.respond(from, said);
        assert_eq!(play.say(), Some(home()), "{said} from {from}");
    }
    assert_eq!(play.paths.last(), Some(&home()));
    play.respond(away(), token);
    assert_eq!(play.paths.last(), Some(&away()), "what it asks is charged there");
    assert_eq!(play.say(), Some(away()));
    // A challenge that was answered moves nothing a second time.
    play.heard_from(home(), 11);
    play.answer_challenge();
    assert_eq!(play.say(), Some(home()));
    play.respond(away(), token);
    assert_eq!(play.say(), Some(home()));
}

#[test]
fn an_address_that_is_tried_keeps_its_token_and_another_has_its_own() {
    let mut play = Play::new();
    let elsewhere = ([127, 0, 0, 7], 4_000).into();
    play.heard_from(away(), 1);
    play.heard_from(away(), 2);
    play.heard_from(elsewhere, 3);
    let tokens: Vec<u64> = play.challenges.iter().map(|(_, token, _)| *token).collect();
    assert_eq!(tokens[0], tokens[1], "an answer to either counts");
    assert_ne!(tokens[1], tokens[2]);
}

#[test]
fn only_the_highest_number_makes_an_address_a_new_one() {
    let mut play = Play::new();
    play.heard_from(home(), 5);
    play.answer_challenge();
    // A datagram that was held back and sent on from another address.
    play.heard_from(away(), 4);
    // A datagram that was replayed.
    play.heard_from(away(), 5);
    assert!(play.challenges.is_empty());
    play.heard_from(away(), 6);
    assert_eq!(play.challenges.len(), 1);
}

#[test]
fn a_higher_view_is_announced_to_who_was_heard_lately_and_a_lower_one_to_nobody() {
    let mut play = Play::new();
    play.heard();
    play.input(Input::Announce(coordinator(3)));
    let (to, opened) = play.sent.pop().unwrap();
    assert_eq!((to, opened.header.view), (home(), coordinator(3).view));
    play.input(Input::Announce(coordinator(2)));
    assert!(play.sent.is_empty());
    play.pass(Duration::from_secs(61));
    play.input(Input::Announce(coordinator(4)));
    assert!(play.sent.is_empty());
}

#[test]
fn a_silent_client_costs_no_queue_and_goes_on_at_its_cursor_when_it_is_back() {
    let mut play = Play::new();
    play.live(0, 256);
    play.applied(1);
    play.pass(Duration::from_secs(90));
    play.applied(2);
    play.stream();
    play.pages.clear();
    play.heard();
    assert_eq!(play.pages, vec![(Op(0), 256)]);
    play.page(0, vec![notification(1, 10), notification(2, 10)], false);
    assert_eq!(play.stream(), vec![(0, 1), (1, 2)]);
}

#[test]
fn a_server_that_is_no_primary_streams_nothing() {
    let mut play = Play::new();
    play.live(0, 256);
    play.input(Input::Silence);
    play.applied(1);
    play.pass(Duration::from_secs(5));
    assert_eq!(play.stream(), vec![]);
}

#[test]
fn the_last_words_are_sent_and_the_session_is_forgotten() {
    let mut play = Play::new();
    play.live(0, 256);
    play.input(Input::SessionEnded { session: SESSION, packets: vec![reply()] });
    assert_eq!(play.sent.pop().unwrap().1.packets, vec![reply()]);
    play.applied(1);
    play.input(Input::Answer { session: SESSION, packet: reply() });
    assert!(play.sent.is_empty());
}

#[test]
fn numbers_never_repeat_on_a_session_that_was_forgotten_nor_in_a_later_life() {
    let mut play = Play::new();
    let mut highest = 0;
    for _ in 0..5 {
        play.heard();
        play.input(Input::Answer { session: SESSION, packet: reply() });
        let number = play.sent.pop().unwrap().1.envelope.number;
        assert!(number > highest);
        highest = number;
        play.pass(Duration::from_secs(700));
        assert!(play.delivery.sessions.is_empty(), "forgotten");
    }
    play.delivery = Delivery::new(&config(), Incarnation(2), [2; 32]);
    play.heard();
    play.input(Input::Answer { session: SESSION, packet: reply() });
    assert!(play.sent.pop().unwrap().1.envelope.number > highest);
}

/// A delivery with few places, and clients in several networks.
struct Crowd {
    now: Moment,
    delivery: Delivery,
    out: Vec<Effect>,
}

const PLACES: u64 = 8;

impl Crowd {
    fn new() -> Crowd {
        let mut config = config();
        config.limits.sessions_served = PLACES as usize;
        let delivery = Delivery::new(&config, Incarnation(1), [1; 32]);
        let mut crowd = Crowd { now: Moment(1_000_000), delivery, out: Vec::new() };
        crowd.input(Input::Announce(coordinator(1)));
        crowd
    }

    fn input(&mut self, input: Input) {
        self.out.clear();
        self.delivery.handle(self.now, input, &mut self.out);
    }

    /// A datagram of a session from a network; its client answers if it is challenged.
    fn hear(&mut self, session: u64, network: u8, number: u64) {
        let (session, from) = (SessionId(Op(session)), ([10, 0, network, session as u8], 4_000).into());
        self.input(Input::DatagramReceived { session, from, number, ack: None, length: LONG, key: key() });
        // The answer to a displaced session may precede the challenge.
        let challenge = self.packets().into_iter().find_map(|packet| match packet {
            ToClient::PathChallenge(token) => Some(token),
            _ => None,
        });
        if let Some(token) = challenge {
            self.input(Input::PathResponse { session, from, token });
        }
    }

    fn serve(&mut self, session: u64, network: u8) {
        self.hear(session, network, 1);
        let session = SessionId(Op(session));
        self.input(Input::Serve { session, cursor: Op(5), credit: Some(8) });
        assert!(self.serves(session.0.0));
    }

    fn packets(&self) -> Vec<ToClient> {
        let datagram = |effect: &Effect| match effect {
            Effect::Datagram { bytes, .. } => Some(envelope::open(&key(), bytes).unwrap().packets),
            _ => None,
        };
        self.out.iter().filter_map(datagram).flatten().collect()
    }

    /// Returns true if a client was sent Busy.
    fn turned_away(&self) -> bool {
        let told =
            |packet: &ToClient| matches!(packet, ToClient::Error(refused) if refused.code == Code::Busy);
        self.packets().iter().any(told)
    }

    fn refused(&self) -> bool {
        self.out.contains(&Effect::Refused(RefusedDatagram::QueueFull))
    }

    fn knows(&self, session: u64) -> bool {
        self.delivery.sessions.contains_key(&SessionId(Op(session)))
    }

    fn serves(&self, session: u64) -> bool {
        self.delivery.sessions.get(&SessionId(Op(session))).is_some_and(Session::is_served)
    }
}

#[test]
fn a_network_that_takes_every_place_shuts_nobody_else_out() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(100, 2, 1);
    assert!(!crowd.refused() && crowd.knows(100), "a newcomer of another network gets in");
    crowd.serve(100, 2);
    // The flood continues, with old and new sessions, and the newcomer stays.
    for session in 1..=3 * PLACES {
        crowd.hear(session, 1, 2);
        assert!(crowd.serves(100), "session {session} has pushed it out");
    }
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
    // Other networks get their share, down to an even one.
    for network in 3..PLACES as u8 {
        crowd.serve(100 + u64::from(network), network);
    }
    assert!((3..PLACES).all(|network| crowd.serves(100 + network)) && crowd.serves(100));
}

#[test]
fn one_that_lost_its_place_is_told_then_and_when_it_speaks_again() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(2);
    (2..=PLACES).for_each(|session| crowd.hear(session, 1, 2));
    crowd.hear(100, 2, 1);
    assert!(!crowd.knows(1), "the one silent longest");
    // That ERROR may be lost: it is sent again once the client has sent for a second without resuming.
    crowd.input(Input::SessionEnded { session: SessionId(Op(100)), packets: Vec::new() });
    crowd.hear(1, 1, 3);
    assert!(crowd.knows(1) && !crowd.turned_away(), "it may be about to resume");
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(1, 1, 4);
    assert!(crowd.turned_away());
    crowd.hear(1, 1, 5);
    assert!(!crowd.turned_away(), "once a second");
    crowd.input(Input::Serve { session: SessionId(Op(1)), cursor: Op(5), credit: Some(8) });
    crowd.now = crowd.now + Duration::from_secs(5);
    crowd.hear(1, 1, 6);
    assert!(!crowd.turned_away(), "it is served");
}

#[test]
fn a_session_that_a_new_primary_has_known_for_long_is_not_turned_away_when_it_resumes() {
    let mut crowd = Crowd::new();
    // Another server is primary; the client sends its keepalive to this one too.
    crowd.input(Input::Announce(Coordinator { view: View::new(2, NodeId(9)), ..coordinator(1) }));
    crowd.hear(1, 1, 1);
    crowd.now = crowd.now + Duration::from_secs(3);
    crowd.input(Input::Announce(Coordinator { view: View::new(3, ME), ..coordinator(1) }));
    crowd.hear(1, 1, 2);
    assert!(!crowd.turned_away(), "its RESUME is on its way to the node");
}

#[test]
fn a_session_that_loses_its_place_is_told_so() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    let from = ([10, 0, 2, 1], 4_000).into();
    let session = SessionId(Op(100));
    crowd.input(Input::DatagramReceived { session, from, number: 1, ack: None, length: LONG, key: key() });
    assert!(crowd.turned_away());
}

#[test]
fn a_newcomer_of_the_same_network_waits_while_all_are_served_and_here() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(100, 1, 1);
    assert!(crowd.refused() && !crowd.knows(100));
    crowd.now = crowd.now + AWAY_AFTER;
    crowd.hear(100, 1, 2);
    assert!(crowd.knows(100), "all the others are away");
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
}

#[test]
fn addresses_that_nobody_answered_at_are_one_network_together() {
    let mut crowd = Crowd::new();
    crowd.serve(1, 1);
    crowd.now = crowd.now + Duration::from_secs(1);
    for session in 100..100 + 4 * PLACES {
        let (id, from) = (SessionId(Op(session)), ([10, 0, session as u8, 1], 4_000).into());
        crowd.input(Input::DatagramReceived {
            session: id,
            from,
            number: 1,
            ack: None,
            length: LONG,
            key: key(),
        });
        assert!(crowd.serves(1), "pushed out by {session}");
    }
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
    crowd.serve(2, 2);
    assert!(crowd.serves(1) && crowd.serves(2));
}

#[test]
fn a_datagram_that_came_before_is_refused_and_counted() {
    let mut delivery = Delivery::new(&config(), Incarnation(1), [1; 32]);
    let (now, mut out) = (Moment(1_000_000), Vec::new());
    let heard = first_heard(SESSION.0.0);
    delivery.handle(now, heard.clone(), &mut out);
    assert!(!out.contains(&Effect::Refused(RefusedDatagram::Repeated)));
    delivery.handle(now, heard, &mut out);
    assert!(out.contains(&Effect::Refused(RefusedDatagram::Repeated)));
}

#[test]
fn what_may_no_longer_be_read_is_not_sent_from_the_queue() {
    let mut play = Play::new();
    play.live(5, 1);
    play.applied(7);
    play.applied(8);
    play.applied(9);
    assert_eq!(play.stream(), [(5, 7)], "the others wait for credit");
    play.pages.clear();
    play.input(Input::Withdrawn(vec![SESSION]));
    assert_eq!(play.pages.iter().map(|(after, _)| *after).collect::<Vec<_>>(), [Op(5)]);
    play.page(5, vec![notification(7, 10), notification(9, 10)], false);
    play.ack(7, &[], 10);
    assert!(play.stream().contains(&(7, 9)), "and what follows is joined to what it may read");
    play.pass(Duration::from_secs(20));
    assert!(play.stream().iter().all(|(_, op)| *op != 8));
}
