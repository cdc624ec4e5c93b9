//! Behaviours of the delivery alone; the test plays the client.

mod addresses;
mod places;
mod stream;
mod turns;

use std::sync::Arc;

use recado_proto::envelope;
use recado_proto::fragment::Reassembler;
use recado_proto::packet::{
    Code, Content, Fragment, Home, Notification, OptionalField, OptionalFields, Packet, Position, SendAck,
    ToServer,
};
use recado_proto::seal::Key;
use recado_service::{Page, Stored};

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

pub(super) fn notification(op: u64, bytes: usize) -> Stored {
    let body = "x".repeat(bytes);
    let notification = Notification {
        op: Op(op),
        topic: recado_proto::id::Topic::Feed("bob".parse().unwrap()),
        author: "bob".parse().unwrap(),
        unix_ms: op,
        content: Content::of(body),
        options: OptionalFields::NONE,
    };
    Stored::new(&notification)
}

fn home() -> SocketAddr {
    ([127, 0, 0, 9], 4_000).into()
}

fn away() -> SocketAddr {
    ([127, 0, 0, 8], 4_000).into()
}

/// The keys of every session here.
fn keys() -> PacketKeys {
    Key::new([7; 32]).into()
}

/// The first datagram of a session, from the client's first address.
fn first_heard(session: u64) -> Input {
    let session = SessionId(Op(session));
    Input::DatagramReceived { session, from: home(), number: 1, ack: None, length: LONG, keys: keys() }
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
        self.turn([input]);
    }

    /// The inputs of one turn.
    fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut out = Vec::new();
        for input in inputs {
            self.delivery.handle(self.now, input, &mut out);
        }
        self.delivery.flush(self.now, &mut out);
        for effect in out {
            match effect {
                Effect::Datagram { to, bytes } => {
                    let opened = envelope::open(&mut keys(), &bytes).unwrap();
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
        self.input(Input::DatagramReceived { session: SESSION, from, number, ack, length, keys: keys() });
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

    fn page(&mut self, after: u64, notifications: Vec<Stored>, more: bool) {
        let page = Page { gap: None, notifications, more };
        self.input(Input::Page { session: SESSION, after: Op(after), page });
    }

    fn applied(&mut self, op: u64) {
        self.input(Input::Applied { notification: notification(op, 10), sessions: [SESSION].into() });
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
