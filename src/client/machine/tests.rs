//! Behaviours of the machine against servers played by hand; the simulator has the real ones.

use super::*;
use crate::id::{DeviceKey, Incarnation, NodeId};
use crate::wire::envelope::Envelope;
use crate::wire::link::Link;
use crate::wire::packet::{Delivered, SendAck};

const CLUSTER: ClusterId = ClusterId(7);
const SESSION: SessionId = SessionId(Op(10));

fn address(node: u16) -> SocketAddr {
    ([127, 0, 0, 1], 10_000 + node).into()
}

fn coordinator(round: u64, node: u16) -> Coordinator {
    let members = (1..=3).map(|node| (NodeId(node), address(node))).collect();
    Coordinator { view: View::new(round, NodeId(node)), members }
}

fn content(body: &str) -> Content {
    Content { title: None, priority: Default::default(), tags: Vec::new(), body: body.to_owned() }
}

fn say(body: &str) -> Input {
    Input::Ask(Ask::Send { topic: None, content: content(body) })
}

/// A machine, and one hand that plays every server.
struct Play {
    now: Moment,
    machine: Machine,
    number: u64,
    events: Vec<Event>,
    sent: Vec<(u16, Packet)>,
}

impl Play {
    fn new() -> Play {
        let now = Moment(1_000_000);
        let start = Start {
            servers: vec![address(1)],
            cluster: None,
            device: DeviceId { key: DeviceKey([1; 32]), slot: 0 },
            fresh: true,
            profile: "alice".parse().unwrap(),
            code: None,
            receives: true,
            cursor: None,
            outbox: Vec::new(),
            seed: 1,
            connect: true,
            planted: PlantedBug::default(),
        };
        let mut out = Vec::new();
        let machine = Machine::new(now, start, &mut out);
        let mut play = Play { now, machine, number: 0, events: Vec::new(), sent: Vec::new() };
        play.note(out);
        play
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::Datagram { to, bytes } => {
                    let packets = envelope::open(&bytes).unwrap().packets;
                    self.sent.extend(packets.into_iter().map(|packet| (to.port() - 10_000, packet)));
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.note(out);
    }

    /// A packet from a server in this view.
    fn from(&mut self, node: u16, round: u64, primary: u16, packet: Packet) {
        let apart = self.machine.session.is_none();
        self.number += 1;
        let envelope = Envelope {
            class: if apart { Class::Handshake } else { Class::Client },
            cluster: CLUSTER,
            session: if apart { SessionId::default() } else { SESSION },
            node: Some(NodeId(node)),
            incarnation: Incarnation(1),
            number: 0,
        };
        let mut datagrams = Vec::new();
        let view = View::new(round, NodeId(primary));
        Link::starting_at(envelope, self.number).transmit(self.now, view, &[packet], None, &mut datagrams);
        for bytes in datagrams {
            self.input(Input::Datagram { from: address(node), bytes });
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now + Duration::from_micros(1));
            self.input(Input::Deadline);
        }
        self.now = end;
    }

    /// The nonce of the last CONNECT.
    fn nonce(&self) -> u64 {
        let nonce = |(_, packet): &(u16, Packet)| match packet {
            Packet::Connect(connect) => Some(connect.nonce),
            _ => None,
        };
        self.sent.iter().rev().find_map(nonce).expect("a CONNECT")
    }

    fn accept(&mut self) {
        self.from(1, 0, 0, Packet::Coordinator(coordinator(1, 3)));
        let (nonce, coordinator) = (self.nonce(), coordinator(1, 3));
        self.from(3, 1, 3, Packet::AcceptConn(AcceptConn { nonce, session: SESSION, coordinator }));
    }

    fn connect(&mut self) {
        self.accept();
        self.resumed(1, 3);
        self.events.clear();
        self.sent.clear();
    }

    fn resumed(&mut self, round: u64, node: u16) {
        let coordinator = coordinator(round, node);
        let resumed = ResumeOk { last_seq: Seq(4), coordinator, cursor: Op(10) };
        self.from(node, round, node, Packet::ResumeOk(resumed));
    }

    fn notify(&mut self, prev: u64, op: u64) {
        let notification = Notification {
            op: Op(op),
            topic: Topic::Feed("bob".parse().unwrap()),
            author: "bob".parse().unwrap(),
            unix_ms: 0,
            content: content("hello"),
        };
        let delivered = Delivered { prev: Op(prev), notification: Arc::new(notification) };
        self.from(3, 1, 3, Packet::Notification(delivered));
    }

    fn delivered(&self) -> Vec<u64> {
        let op = |event: &Event| match event {
            Event::Notification(notification) => Some(notification.op.0),
            _ => None,
        };
        self.events.iter().filter_map(op).collect()
    }

    fn sends(&self) -> Vec<(u16, u64)> {
        let seq = |(to, packet): &(u16, Packet)| match packet {
            Packet::Send(send) => Some((*to, send.seq.0)),
            _ => None,
        };
        self.sent.iter().filter_map(seq).collect()
    }
}

#[test]
fn the_primary_is_found_from_any_one_address() {
    let mut play = Play::new();
    let connects = play.sent.len();
    play.from(1, 0, 0, Packet::Coordinator(coordinator(1, 3)));
    play.pass(300);
    assert!(
        play.sent.iter().skip(connects).any(|(to, packet)| *to == 3 && matches!(packet, Packet::Connect(_)))
    );
}

#[test]
fn numbers_go_on_where_the_service_says() {
    let mut play = Play::new();
    play.input(say("early"));
    assert!(play.sends().is_empty());
    play.accept();
    assert!(play.events.is_empty(), "an older session may still take numbers");
    play.resumed(1, 3);
    assert!(matches!(play.events[0], Event::Connected { last_seq: Seq(4), cursor: Op(10), .. }));
    assert!(play.events.contains(&Event::Numbered(Seq(5))));
    assert_eq!(play.sends(), vec![(3, 5)]);
}

#[test]
fn a_session_that_is_over_before_it_was_served_is_asked_for_anew() {
    let mut play = Play::new();
    play.accept();
    let first = play.nonce();
    let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
    play.from(3, 1, 3, Packet::Error(over));
    play.pass(300);
    assert_ne!(play.nonce(), first, "under a nonce of its own");
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.iter().any(|event| matches!(event, Event::Connected { .. })));
}

#[test]
fn nothing_but_resume_and_keepalive_is_said_on_a_session_that_is_not_served_yet() {
    let mut play = Play::new();
    play.input(say("early"));
    play.accept();
    play.sent.clear();
    play.pass(5_000);
    let said = |packet: &Packet| matches!(packet, Packet::Resume(_) | Packet::Keepalive);
    assert!(play.sent.len() > 3 && play.sent.iter().all(|(_, packet)| said(packet)), "{:?}", play.sent);
    assert!(play.events.is_empty(), "{:?}", play.events);
    play.input(Input::Disconnect);
    assert_eq!(play.events, [Event::Disconnected]);
}

#[test]
fn a_request_is_sent_again_until_it_is_answered_and_answered_once() {
    let mut play = Play::new();
    play.connect();
    play.input(say("hello"));
    play.pass(3_000);
    assert!(play.sends().len() > 2);
    let ack = Packet::SendAck(SendAck { seq: Seq(5), op: Op(11) });
    play.from(3, 1, 3, ack.clone());
    play.from(3, 1, 3, ack);
    let answered = play.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    assert_eq!(answered, 1);
    play.sent.clear();
    play.pass(3_000);
    assert!(play.sends().is_empty());
}

#[test]
fn a_new_primary_is_asked_to_resume_and_gets_what_is_unanswered() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.input(say("two"));
    play.sent.clear();
    play.from(2, 2, 2, Packet::Coordinator(coordinator(2, 2)));
    assert!(play.sent.iter().any(|(to, packet)| *to == 2 && matches!(packet, Packet::Resume(_))));
    assert!(play.sends().is_empty(), "nothing before RESUME_OK");
    play.resumed(2, 2);
    assert_eq!(play.sends(), vec![(2, 5), (2, 6)]);
    assert!(play.events.iter().any(|event| matches!(event, Event::PrimaryChanged { .. })));
}

#[test]
fn what_a_deposed_primary_says_is_ignored() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.from(2, 2, 2, Packet::Coordinator(coordinator(2, 2)));
    play.from(3, 1, 3, Packet::SendAck(SendAck { seq: Seq(5), op: Op(11) }));
    assert!(!play.events.iter().any(|event| matches!(event, Event::Answered { .. })));
}

#[test]
fn a_silent_primary_is_looked_for_at_every_server() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.pass(400);
    let asked =
        |node| play.sent.iter().any(|(to, packet)| *to == node && matches!(packet, Packet::Keepalive));
    assert!(asked(1) && asked(2) && asked(3));
    assert!(play.events.contains(&Event::Searching));
}

#[test]
fn a_refusal_that_passes_takes_no_number_and_is_tried_again() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    let busy = Refused { code: Code::Busy, answers: Answers::Request(Seq(5)), retry_ms: 50 };
    play.from(3, 1, 3, Packet::Error(busy));
    play.pass(60);
    assert_eq!(play.sends(), vec![(3, 5)]);
    let gone = Refused { code: Code::UnknownProfile, answers: Answers::Request(Seq(5)), retry_ms: 0 };
    play.from(3, 1, 3, Packet::Error(gone));
    assert!(play.events.contains(&Event::Answered { seq: Seq(5), result: Err(Code::UnknownProfile) }));
}

#[test]
fn notifications_come_out_once_in_order_and_never_across_a_hole() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.notify(12, 12);
    play.notify(15, 19);
    assert_eq!(play.delivered(), vec![12], "19 waits for what lies between");
    play.notify(12, 15);
    play.notify(10, 12);
    assert_eq!(play.delivered(), vec![12, 15, 19]);
}

#[test]
fn only_what_the_application_took_moves_the_cursor() {
    let mut play = Play::new();
    play.connect();
    let upto = |play: &Play| {
        play.sent.iter().rev().find_map(|(_, packet)| match packet {
            Packet::ClientAck(ack) => Some(ack.clone()),
            _ => None,
        })
    };
    play.notify(10, 12);
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto, ack.held)), Some((Op(10), vec![Op(12)])));
    play.input(Input::Taken(Op(12)));
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto, ack.held)), Some((Op(12), vec![])));
}

#[test]
fn the_257th_request_without_an_answer_is_not_taken() {
    let mut play = Play::new();
    play.connect();
    (0..256).for_each(|_| play.input(say("x")));
    assert!(!play.events.contains(&Event::NotTaken));
    play.input(say("x"));
    assert!(play.events.contains(&Event::NotTaken));
}

#[test]
fn a_fenced_session_ends_for_good() {
    let mut play = Play::new();
    play.connect();
    let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
    play.from(3, 1, 3, Packet::Error(over));
    assert!(play.events.contains(&Event::Ended(Code::SessionOver)));
    assert_eq!(play.machine.next_deadline(), None);
}

#[test]
fn a_primary_whose_name_is_forged_away_does_not_make_a_question_spin() {
    let mut play = Play::new();
    play.connect();
    let question = Question::List { what: crate::wire::packet::Listing::People, after: None };
    // The address of the primary, under another server's name.
    let members = vec![(NodeId(9), address(3))];
    play.from(3, 1, 3, Packet::Coordinator(Coordinator { view: View::new(1, NodeId(3)), members }));
    play.input(Input::Question(QueryId(1), question));
    assert_eq!(play.machine.primary(), None);
    let mut turns = 0;
    let end = play.now + Duration::from_secs(1);
    while let Some(at) = play.machine.next_deadline().filter(|at| *at <= end) {
        turns += 1;
        assert!(turns < 100, "it spins");
        play.now = at.max(play.now);
        play.input(Input::Deadline);
    }
}

#[test]
fn a_rejection_that_says_at_once_is_not_obeyed_at_once() {
    let mut play = Play::new();
    play.pass(30);
    let Some((_, Packet::Connect(connect))) = play.sent.first().cloned() else { panic!("no CONNECT") };
    let before = play.sent.len();
    let reject = RejectConn { nonce: connect.nonce, code: Code::Busy, retry_ms: 0 };
    for _ in 0..100 {
        play.from(1, 0, 0, Packet::RejectConn(reject));
    }
    assert_eq!(play.sent.len(), before);
}

#[test]
fn a_notification_that_overtakes_the_resume_ok_is_not_lost() {
    let mut play = Play::new();
    play.connect();
    play.from(3, 4, 3, Packet::Coordinator(coordinator(4, 3)));
    let notification = Notification {
        op: Op(12),
        topic: Topic::Feed("bob".parse().unwrap()),
        author: "bob".parse().unwrap(),
        unix_ms: 0,
        content: content("early"),
    };
    let delivered = Delivered { prev: Op(10), notification: Arc::new(notification) };
    play.from(3, 4, 3, Packet::Notification(delivered));
    play.resumed(4, 3);
    assert_eq!(play.delivered(), vec![12]);
}

#[test]
fn a_server_that_takes_nothing_is_asked_with_one_request_until_it_takes_it() {
    let mut play = Play::new();
    play.connect();
    (0..20).for_each(|_| play.input(say("x")));
    for seq in 5..25 {
        let busy = Refused { code: Code::NoQuorum, answers: Answers::Request(Seq(seq)), retry_ms: 50 };
        play.from(3, 1, 3, Packet::Error(busy));
    }
    play.sent.clear();
    play.pass(60);
    assert_eq!(play.sends(), vec![(3, 5)]);
    play.from(3, 1, 3, Packet::SendAck(SendAck { seq: Seq(5), op: Op(11) }));
    play.pass(60);
    assert_eq!(play.sends().len(), 20, "then all the others follow");
}
