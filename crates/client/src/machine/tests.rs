//! Behaviours of the machine against servers that the tests play; the simulator runs real ones.

pub(super) mod server;

use std::collections::BTreeSet;

use recado::delivery::ReplyTo;
use recado::server::handshake::{HandshakeConfig, HandshakeEvent, HandshakeServer};
use recado_proto::envelope::{self, Envelope, Header};
use recado_proto::handshake::{self, Handshake};
use recado_proto::id::{DeviceKey, Epoch, Incarnation, NodeId};
use recado_proto::link::{ACK_EVERY, Link};
use recado_proto::packet::{Delivered, Fragment, Item, OptionalFields, RoleName, Send, SendAck};
use recado_proto::seal::{ClusterKeys, Direction, Key};
use recado_proto::{codec, fragment, noise, version};

use self::server::handshake_config;
use super::*;

const SESSION: SessionId = SessionId(Op(10));
/// The op that admitted the device.
const BORN: Op = Op(9);

fn private() -> Key {
    Key::new([1; 32])
}

fn device() -> DeviceKey {
    DeviceKey(noise::public(&private()))
}

fn address(node: u16) -> SocketAddr {
    ([127, 0, 0, 1], 10_000 + node).into()
}

fn coordinator(round: u64, node: u16) -> Coordinator {
    let members = (1..=3).map(|node| (NodeId(node), address(node))).collect();
    Coordinator::new(View::new(round, NodeId(node)), members)
}

fn content(body: &str) -> Content {
    Content {
        title: None,
        priority: Default::default(),
        tags: Vec::new(),
        body: body.into(),
        extra: Vec::new(),
    }
}

fn say(body: &str) -> Input {
    Input::Request(Request::Send { topic: None, content: content(body) })
}

fn notification(op: u64) -> Arc<Notification> {
    Arc::new(Notification {
        op: Op(op),
        topic: Topic::Feed("bob".parse().unwrap()),
        author: "bob".parse().unwrap(),
        unix_ms: 0,
        content: content("hello"),
        options: OptionalFields::NONE,
    })
}

/// One boot of a server, and its side of the handshake.
struct TestServer {
    handshake_config: HandshakeConfig,
    server: HandshakeServer,
    /// The sender of the last initiation, while it has no answer.
    reply_to: Option<ReplyTo>,
    /// True if it drops every datagram.
    deaf: bool,
    /// True if it speaks version 2 of the protocol.
    upgraded: bool,
    /// The number of RETRYs that an attacker, who sees each HELLO, sends before the server's own; one more
    /// follows it.
    forged: u8,
    /// The packet numbers of the session's datagrams that it could open.
    heard: Vec<u64>,
}

impl TestServer {
    fn new(handshake_config: HandshakeConfig) -> TestServer {
        TestServer {
            server: HandshakeServer::new(handshake_config.clone(), [7; 32]),
            handshake_config,
            reply_to: None,
            deaf: false,
            upgraded: false,
            forged: 0,
            heard: Vec::new(),
        }
    }
}

/// The answer of a server of version 2 to a datagram.
fn answer_of_version_2(datagram: &[u8]) -> Option<Vec<u8>> {
    // This version answers one of version 2 so.
    let mut asked = datagram.to_vec();
    asked[2] = 2;
    let mut answer = version::answer(&asked)?;
    *answer.last_mut().unwrap() = 2;
    Some(answer)
}

/// A RETRY to the same HELLO, with a boot id that no server has.
fn forged_retry(retry: &[u8], lie: u8) -> Vec<u8> {
    let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(retry) else { panic!("no RETRY") };
    let lie = handshake::Retry { cookie: [lie; 16], boot_id: recado_proto::id::BootId([lie; 16]), ..retry };
    handshake::retry(&envelope, &lie)
}

/// A machine, and all its servers. The servers answer HELLO by themselves; the tests answer initiations and
/// datagrams of the session.
struct Play {
    now: Moment,
    machine: Machine,
    servers_by_id: BTreeMap<u16, TestServer>,
    number: u64,
    events: Vec<Event>,
    sent: Vec<(u16, ToServer)>,
    /// The nonce of the last CONNECT.
    nonce: Option<u64>,
    /// The servers that got a HELLO.
    hellos: Vec<u16>,
    /// The number of session datagrams that the receiving server could not open.
    unopened: usize,
}

impl Play {
    fn new() -> Play {
        Play::among((1..=3).map(|node| handshake_config(node, 1)))
    }

    fn among(handshake_configs: impl Iterator<Item = HandshakeConfig>) -> Play {
        Play::remembering(handshake_configs, None, Vec::new())
    }

    /// A client whose device remembers a cursor and unanswered requests.
    fn remembering(
        handshake_configs: impl Iterator<Item = HandshakeConfig>,
        cursor: Option<Op>,
        outbox: Vec<Numbered>,
    ) -> Play {
        let now = Moment(1_000_000);
        let ours = handshake_config(1, 1);
        let start = Start {
            servers: vec![address(1)],
            identity: Identity {
                cluster: ours.cluster,
                cluster_key: noise::public(&ours.keys.cluster_private()),
                private: private(),
            },
            device: DeviceId { key: device(), slot: 0 },
            created_op: None,
            profile: "alice".parse().unwrap(),
            code: None,
            invite: None,
            receives: true,
            cursor,
            highest_seq: outbox.last().map_or(Seq(4), |of: &Numbered| of.seq),
            outbox,
            entropy: Entropy::new([1; 32]),
            planted: PlantedBug::default(),
        };
        let mut out = Vec::new();
        let machine = Machine::new(now, start, &mut out);
        let servers_by_id = handshake_configs
            .map(|handshake_config| (handshake_config.me.0, TestServer::new(handshake_config)))
            .collect();
        let (events, sent, nonce, hellos) = Default::default();
        let mut play =
            Play { now, machine, servers_by_id, number: 0, events, sent, nonce, hellos, unopened: 0 };
        play.note(out);
        play
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::Datagram { to, bytes } => self.hear(to.port() - 10_000, &bytes),
            }
        }
    }

    /// Delivers a datagram to a server.
    fn hear(&mut self, node: u16, bytes: &[u8]) {
        let secret = self.secret();
        let Some(server_boot) = self.servers_by_id.get_mut(&node).filter(|server_boot| !server_boot.deaf)
        else {
            return;
        };
        if server_boot.upgraded {
            if let Some(bytes) = answer_of_version_2(bytes) {
                self.input(Input::Datagram { from: address(node), bytes });
            }
            return;
        }
        if Envelope::peek(bytes).unwrap().class == Class::Client {
            let handshake_config = server_boot.handshake_config.clone();
            match secret {
                None => self.unopened += 1,
                Some(secret) => match envelope::open(
                    &secret.of_session(Direction::ToServer, handshake_config.me, handshake_config.boot_id),
                    bytes,
                ) {
                    Ok(opened) => {
                        server_boot.heard.push(opened.envelope.number);
                        self.sent.extend(opened.packets.into_iter().map(|packet| (node, packet)));
                    }
                    Err(_) => self.unopened += 1,
                },
            }
            return;
        }
        match server_boot.server.receive(self.now, ([127, 0, 0, 9], 4_000).into(), bytes) {
            Ok(HandshakeEvent::Retry(bytes)) => {
                self.hellos.push(node);
                let forged = server_boot.forged;
                for lie in 0..forged {
                    self.input(Input::Datagram { from: address(node), bytes: forged_retry(&bytes, lie) });
                }
                self.input(Input::Datagram { from: address(node), bytes: bytes.clone() });
                if forged > 0 {
                    self.input(Input::Datagram { from: address(node), bytes: forged_retry(&bytes, forged) });
                }
            }
            Ok(HandshakeEvent::Initiation { reply_to, key, packet }) => {
                assert_eq!(key, device());
                server_boot.reply_to = Some(reply_to);
                if let ToServer::Connect(connect) = &packet {
                    self.nonce = Some(connect.nonce);
                }
                self.sent.push((node, packet));
            }
            Err(_) if server_boot.forged > 0 => {}
            Err(refused) => panic!("server {node} refuses: {refused:?}"),
        }
    }

    /// The secret of the session, once there is one.
    fn secret(&self) -> Option<Key> {
        self.machine.session?;
        Some(handshake_config(1, 1).keys.session_secret(SESSION, device(), self.nonce(), Default::default()))
    }

    fn key(&self, secret: &Key, node: u16, direction: Direction) -> Key {
        let handshake_config = &self.servers_by_id[&node].handshake_config;
        secret.of_session(direction, handshake_config.me, handshake_config.boot_id)
    }

    fn restart(&mut self, node: u16) {
        let TestServer { forged, handshake_config: ref before, .. } = self.servers_by_id[&node];
        let next = handshake_config(node, before.incarnation.0 + 1);
        self.servers_by_id.insert(node, TestServer { forged, ..TestServer::new(next) });
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.note(out);
    }

    /// A packet from a server in this view, in answer to an initiation or on the session.
    fn from(&mut self, node: u16, round: u64, primary: u16, packet: ToClient) {
        let view = View::new(round, NodeId(primary));
        self.number += 1;
        let bytes = match self.secret() {
            None => self.answer(node, view, &packet),
            Some(secret) => self.on_session(node, view, &packet, &secret),
        };
        self.input(Input::Datagram { from: address(node), bytes });
    }

    fn envelope(&self, node: u16, class: Class, session: SessionId) -> Envelope {
        let HandshakeConfig { cluster, me, incarnation, .. } = self.servers_by_id[&node].handshake_config;
        Envelope { class, cluster, session, node: Some(me), incarnation, number: self.number }
    }

    /// Answers the pending initiation, or waits for the next one and answers it.
    fn answer(&mut self, node: u16, view: View, packet: &ToClient) -> Vec<u8> {
        for _ in 0..100 {
            if let Some(reply_to) =
                self.servers_by_id.get_mut(&node).and_then(|server_boot| server_boot.reply_to.take())
            {
                let envelope = self.envelope(node, Class::Handshake, SessionId::default());
                let header = Header { ack: None, view };
                return handshake::answer(&envelope, &reply_to.reply, &header, &[codec::encode(packet)]);
            }
            self.pass(10);
        }
        panic!("nobody sends an initiation to {node}")
    }

    fn on_session(&self, node: u16, view: View, packet: &ToClient, secret: &Key) -> Vec<u8> {
        let mut datagrams = Vec::new();
        let envelope = self.envelope(node, Class::Client, SESSION);
        let key = self.key(secret, node, Direction::ToClient);
        let packets = std::slice::from_ref(packet);
        let mut link = Link::starting_at(envelope, key, self.number);
        for number in &self.servers_by_id[&node].heard {
            assert!(link.receive(self.now, *number, None), "a number twice");
        }
        link.transmit(self.now, view, packets, None, &mut datagrams);
        assert_eq!(datagrams.len(), 1);
        datagrams.swap_remove(0)
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now + Duration::from_micros(1));
            self.input(Input::Deadline);
        }
        self.now = end;
    }

    /// Wakes the machine whenever it wants to be woken, and never else, until this has come true: how long
    /// that took.
    fn until(&mut self, come: impl Fn(&Play) -> bool) -> Duration {
        let began = self.now;
        for _ in 0..1_000 {
            if come(self) {
                return self.now.since(began);
            }
            self.now = self.machine.next_deadline().expect("it waits for something").max(self.now);
            self.input(Input::Deadline);
        }
        panic!("it spins, or it never comes: {:?}", self.sent)
    }

    /// How many packets of this kind went to a server.
    fn sent_to(&self, node: u16, kind: fn(&ToServer) -> bool) -> usize {
        self.sent.iter().filter(|(to, packet)| *to == node && kind(packet)).count()
    }

    /// The nonce of the last CONNECT.
    fn nonce(&self) -> u64 {
        self.nonce.expect("a CONNECT")
    }

    fn accept(&mut self) {
        self.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3)));
        let (nonce, coordinator) = (self.nonce(), coordinator(1, 3));
        let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
        // A new session has keys of its own, so packet numbers begin anew.
        self.servers_by_id.values_mut().for_each(|server_boot| server_boot.heard.clear());
        self.from(
            3,
            1,
            3,
            ToClient::AcceptConn(AcceptConn {
                nonce,
                session: SESSION,
                coordinator,
                secret,
                aead: Default::default(),
                options: OptionalFields::NONE,
            }),
        );
    }

    fn connect(&mut self) {
        self.accept();
        self.resumed(1, 3);
        self.events.clear();
        self.sent.clear();
    }

    fn resumed(&mut self, round: u64, node: u16) {
        self.resumed_with(round, node, 2_000);
    }

    /// RESUME_OK with this interval of keepalives.
    fn resumed_with(&mut self, round: u64, node: u16, keepalive_ms: u32) {
        let coordinator = coordinator(round, node);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms,
            options: OptionalFields::NONE,
        };
        self.from(node, round, node, ToClient::ResumeOk(resumed));
    }

    fn notify(&mut self, prev: u64, op: u64) {
        let delivered = Delivered { stream: 0, prev: Op(prev), item: Item::Notification(notification(op)) };
        self.from(3, 1, 3, ToClient::Delivered(delivered));
    }

    fn delivered(&self) -> Vec<u64> {
        let op = |event: &Event| match event {
            Event::Notification(notification) => Some(notification.op.0),
            _ => None,
        };
        self.events.iter().filter_map(op).collect()
    }

    fn sends(&self) -> Vec<(u16, u64)> {
        let seq = |(to, packet): &(u16, ToServer)| match packet {
            ToServer::Send(send) => Some((*to, send.seq.0)),
            _ => None,
        };
        self.sent.iter().filter_map(seq).collect()
    }
}

/// The answer to a query.
fn answer_of(query: u64, kind: AnswerKind) -> ToClient {
    let applied = Position::of(Op(11));
    ToClient::Answer(packet::Answer { id: QueryId(query), applied, kind, options: OptionalFields::NONE })
}

/// The answer to the query of a list that has no items.
fn empty_page(query: u64) -> ToClient {
    answer_of(query, AnswerKind::List(ListPage { items: Vec::new(), more: false }))
}

#[test]
fn the_primary_is_found_from_any_one_address() {
    let mut play = Play::new();
    play.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3)));
    play.pass(300);
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Connect(_))));
}

#[test]
fn request_numbers_continue_from_the_files_and_none_is_sent_before_resume_ok() {
    let mut play = Play::new();
    play.input(say("early"));
    assert!(matches!(play.events[..], [Event::Numbered { seq: Seq(5), .. }]), "{:?}", play.events);
    play.events.clear();
    play.accept();
    assert!(play.events.is_empty(), "an older session may still take numbers");
    assert!(play.sends().is_empty());
    play.resumed(1, 3);
    assert!(matches!(play.events[..], [Event::Connected { last_seq: Seq(4), cursor: Op(10), .. }]));
    assert_eq!(play.sends(), vec![(3, 5)]);
}

/// The cursors of the RESUMEs sent, without consecutive duplicates.
fn resumed_from(play: &Play) -> Vec<Option<Op>> {
    let mut cursors: Vec<_> = play
        .sent
        .iter()
        .filter_map(|(_, packet)| match packet {
            ToServer::Resume(resume) => Some(resume.cursor.and_then(Position::op)),
            _ => None,
        })
        .collect();
    cursors.dedup();
    cursors
}

/// The session is refused.
fn refused(code: Code) -> ToClient {
    ToClient::Error(Refused::new(code, Answers::Session, 0))
}

#[test]
fn a_cursor_that_is_none_of_the_log_is_given_up_for_what_the_servers_remember() {
    for code in [Code::BeyondEnd, Code::OtherEpoch] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, Some(Op(1_000)), Vec::new());
        play.accept();
        play.from(3, 1, 3, refused(code));
        assert_eq!(resumed_from(&play), [Some(Op(1_000)), None]);
        // A repetition changes nothing.
        let resumes = |packet: &ToServer| matches!(packet, ToServer::Resume(_));
        let before = play.sent_to(3, resumes);
        play.from(3, 1, 3, refused(code));
        assert_eq!(play.sent_to(3, resumes), before, "nobody asks as fast as he is refused");
        play.resumed(1, 3);
        let Event::Connected { cursor, lost, .. } = play.events[0] else { panic!("{:?}", play.events) };
        assert_eq!((cursor, lost), (Op(10), Some(Op(1_000))));
        play.notify(10, 11);
        assert_eq!(play.delivered(), [11]);
    }
}

#[test]
fn a_log_that_ends_before_what_was_handed_out_or_another_one_ends_the_client() {
    for code in [Code::BeyondEnd, Code::OtherEpoch] {
        let mut play = Play::new();
        play.connect();
        play.from(3, 1, 3, refused(code));
        assert_eq!(play.events, [Event::Ended(code)]);
    }
}

#[test]
fn a_session_that_servers_do_not_support_ends_the_client_and_is_not_asked_for_again() {
    let mut play = Play::new();
    play.accept();
    play.from(3, 1, 3, refused(Code::Unsupported));
    assert_eq!(play.events, [Event::Ended(Code::Unsupported)]);
    play.sent.clear();
    play.pass(5_000);
    assert_eq!(play.sent, []);
}

#[test]
fn a_session_or_an_answer_of_another_log_is_not_taken_for_one_of_this_log() {
    for (group, epoch, generation) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let mut elsewhere = Position::of(Op(11));
        (elsewhere.group, elsewhere.epoch, elsewhere.generation) = (group, Epoch(epoch), generation);
        let mut play = Play::new();
        play.connect();
        play.input(Input::Query(QueryId(1), Query::List { what: Listing::People, after: None }));
        let ToClient::Answer(answer) = empty_page(1) else { unreachable!() };
        play.from(3, 1, 3, ToClient::Answer(packet::Answer { applied: elsewhere, ..answer }));
        assert_eq!(play.events, [Event::Answer(QueryId(1), Answer::Refused(Code::OtherEpoch))]);

        let mut play = Play::new();
        play.accept();
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator: coordinator(1, 3),
            cursor: elsewhere,
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        assert_eq!(play.events, [Event::Ended(Code::OtherEpoch)]);
    }
}

fn unanswered(seq: u64) -> Numbered {
    Numbered { seq: Seq(seq), nonce: seq, request: Request::Send { topic: None, content: content("hello") } }
}

#[test]
fn a_number_that_no_other_can_follow_is_assigned_anew_and_the_loss_before_it_is_reported() {
    for (lowest, lost) in [(4, None), (5, None), (6, Some((6, 5)))] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, None, vec![unanswered(lowest)]);
        play.machine.start.created_op = Some(BORN);
        play.accept();
        play.resumed(1, 3);
        let set_back = Event::ServersSetBack { answered: Seq(5), last: Seq(4) };
        assert_eq!(play.events.contains(&set_back), lost.is_some(), "{:?}", play.events);
        let moved = play.events.iter().find_map(|event| match event {
            Event::Renumbered(moved) => Some((moved[0].0.0, moved[0].1.0)),
            _ => None,
        });
        assert_eq!(moved, lost, "lowest {lowest} after 4 were applied: {:?}", play.events);
    }
}

#[test]
fn a_cursor_of_a_log_that_the_servers_have_no_more_is_set_back_though_their_log_has_grown_past_it() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(50)), Vec::new());
    (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Seq(9));
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.is_empty(), "what comes from there is of another history: {:?}", play.events);
    assert_eq!(resumed_from(&play), [Some(Op(50)), None]);
    play.resumed(1, 3);
    let Event::Connected { cursor, lost, .. } = play.events[0] else { panic!("{:?}", play.events) };
    assert_eq!((cursor, lost), (Op(10), Some(Op(50))));
    assert!(play.events.contains(&Event::ServersSetBack { answered: Seq(9), last: Seq(4) }));
}

#[test]
fn a_cursor_that_the_servers_remember_is_kept_though_they_lost_requests() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(10)), Vec::new());
    (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Seq(9));
    play.accept();
    play.resumed(1, 3);
    let [Event::Connected { cursor, lost, .. }, set_back] = &play.events[..] else {
        panic!("{:?}", play.events)
    };
    assert_eq!((*cursor, *lost), (Op(10), None));
    assert_eq!(*set_back, Event::ServersSetBack { answered: Seq(9), last: Seq(4) });
}

#[test]
fn what_a_removed_device_left_unanswered_is_not_done_again_by_the_one_that_is_let_in_after_it() {
    for (born, last_seq) in
        [None, Some(BORN), Some(Op(BORN.0 - 1))].into_iter().flat_map(|b| [(b, 0), (b, 5)])
    {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, None, vec![unanswered(6)]);
        play.machine.start.created_op = born;
        // The request was asked by this process, so no server can have applied it.
        play.input(say("new"));
        play.accept();
        let coordinator = coordinator(1, 3);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(last_seq),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        play.pass(1);
        let another = born.is_some_and(|born| born != BORN);
        let forgotten = Event::Answered { seq: Seq(6), result: Err(Code::NumberForgotten) };
        assert_eq!(play.events.contains(&forgotten), another, "{born:?} {last_seq}: {:?}", play.events);
        let set_back = play.events.iter().any(|event| matches!(event, Event::ServersSetBack { .. }));
        assert_eq!(set_back, born == Some(BORN) && last_seq == 0, "{born:?} {last_seq}: {:?}", play.events);
        let sent: BTreeSet<u64> = play.sends().into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(sent.len(), if another { 1 } else { 2 }, "{born:?} {last_seq}: {sent:?}");
    }
}

#[test]
fn a_copy_of_the_devices_files_is_noticed_by_its_numbers_and_by_what_it_read() {
    for (given, cursor, signs) in [
        (4, Some(Op(10)), vec![]),
        (4, None, vec![]),
        (3, None, vec![CopySign::Numbers { given: Seq(3), last: Seq(4) }]),
        (5, Some(Op(9)), vec![CopySign::Cursor { here: Op(9), read: Op(10) }]),
    ] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, cursor, Vec::new());
        play.machine.start.highest_seq = Seq(given);
        play.accept();
        play.resumed(1, 3);
        let told: Vec<CopySign> = play
            .events
            .iter()
            .filter_map(|event| if let Event::Copied(sign) = event { Some(*sign) } else { None })
            .collect();
        assert_eq!(told, signs);
    }
}

#[test]
fn a_cursor_at_the_op_of_the_session_open_is_no_sign_of_a_copy() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(BORN.0 - 1)), Vec::new());
    play.machine.start.created_op = Some(BORN);
    play.accept();
    let resumed = ResumeOk {
        created_op: BORN,
        last_seq: Seq(4),
        coordinator: coordinator(1, 3),
        cursor: Position::of(BORN),
        keepalive_ms: 2_000,
        options: OptionalFields::NONE,
    };
    play.from(3, 1, 3, ToClient::ResumeOk(resumed));
    assert!(matches!(play.events[..], [Event::Connected { .. }]), "{:?}", play.events);
}

#[test]
fn what_was_never_applied_is_sent_once_more_under_another_number_and_what_nobody_remembers_is_not() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, None, vec![unanswered(3), unanswered(4)]);
    play.accept();
    play.resumed(1, 3);
    assert_eq!(play.sends(), [(3, 3), (3, 4)]);
    play.input(say("new"));
    let refuse = |seq, code| ToClient::Error(Refused::new(code, Answers::Request(Seq(seq)), 0));
    play.sent.clear();
    play.from(3, 1, 3, refuse(3, Code::NumberForgotten));
    play.from(3, 1, 3, refuse(4, Code::NumberTaken));
    play.from(3, 1, 3, refuse(4, Code::NumberTaken));
    let unknown = Event::Answered { seq: Seq(3), result: Err(Code::NumberForgotten) };
    assert!(play.events.contains(&unknown));
    let moved = |event: &&Event| matches!(event, Event::Renumbered(_));
    assert_eq!(
        play.events.iter().filter(moved).collect::<Vec<_>>(),
        [&Event::Renumbered(vec![(Seq(4), Seq(5)), (Seq(5), Seq(6))])]
    );
    assert_eq!(play.sends(), [(3, 5), (3, 6)], "in the order they were asked, once");
    let nonces = |(_, packet): &(u16, ToServer)| match packet {
        ToServer::Send(send) => Some(send.nonce),
        _ => None,
    };
    assert_eq!(play.sent.iter().find_map(nonces), Some(4), "it is the same request");
}

#[test]
fn a_session_that_ends_before_it_is_served_is_requested_again_under_a_new_nonce() {
    let mut play = Play::new();
    play.accept();
    let first = play.nonce();
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    play.pass(300);
    assert_ne!(play.nonce(), first, "under a nonce of its own");
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.iter().any(|event| matches!(event, Event::Connected { .. })));
}

#[test]
fn a_session_that_is_not_served_yet_carries_only_resume_and_keepalive() {
    let mut play = Play::new();
    play.input(say("early"));
    play.events.clear();
    play.accept();
    let nonce = play.nonce();
    play.sent.clear();
    play.pass(5_000);
    // A session that may be over is asked for by the CONNECT that opened it, and by no fresh one.
    let said = |packet: &ToServer| match packet {
        ToServer::Resume(_) | ToServer::Keepalive(_) => true,
        ToServer::Connect(connect) => connect.nonce == nonce && !connect.fresh,
        _ => false,
    };
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
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(3, 1, 3, ack.clone());
    play.from(3, 1, 3, ack);
    let answered = play.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    assert_eq!(answered, 1);
    play.sent.clear();
    play.pass(3_000);
    assert!(play.sends().is_empty());
}

#[test]
fn a_new_primary_gets_a_resume_and_then_the_unanswered_requests() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.input(say("two"));
    play.sent.clear();
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    assert!(play.sent.iter().any(|(to, packet)| *to == 2 && matches!(packet, ToServer::Resume(_))));
    assert!(play.sends().is_empty(), "nothing before RESUME_OK");
    play.resumed(2, 2);
    assert_eq!(play.sends(), vec![(2, 5), (2, 6)]);
    assert!(play.events.iter().any(|event| matches!(event, Event::PrimaryChanged { .. })));
}

/// One primary may have room where another has none.
#[test]
fn a_new_primary_gets_all_requests_at_once_whatever_retry_ms_the_old_one_sent() {
    let mut play = Play::new();
    play.connect();
    (0..3).for_each(|_| play.input(say("x")));
    let busy = Refused::new(Code::NoQuorum, Answers::Request(Seq(5)), 900);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.sent.clear();
    play.resumed(2, 2);
    assert_eq!(play.sends(), vec![(2, 5), (2, 6), (2, 7)]);
}

#[test]
fn a_packet_of_a_deposed_primary_is_ignored() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.from(3, 1, 3, ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE }));
    assert!(!play.events.iter().any(|event| matches!(event, Event::Answered { .. })));
}

#[test]
fn a_primarys_packet_of_an_earlier_view_is_ignored_though_it_leads_again() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    play.resumed(4, 3);
    let answered = |play: &Play| play.events.iter().any(|event| matches!(event, Event::Answered { .. }));
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(3, 1, 3, ack.clone());
    assert!(!answered(&play));
    play.from(3, 4, 3, ack);
    assert!(answered(&play));
}

#[test]
fn any_packet_of_a_higher_view_names_its_primary() {
    let mut play = Play::new();
    play.connect();
    play.from(2, 4, 1, ToClient::Ping);
    let resumes = |play: &Play, node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_))) > 0;
    assert!(resumes(&play, 1));
    play.from(2, 0, 0, ToClient::Coordinator(coordinator(5, 2)));
    assert!(resumes(&play, 2), "also from one that was in a lower one when it said so");
}

#[test]
fn only_the_primary_answers_a_request() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.events.clear();
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(2, 1, 3, ack.clone());
    assert_eq!(play.events, []);
    play.from(3, 1, 3, ack);
    assert_eq!(play.events, [Event::Answered { seq: Seq(5), result: Ok(Op(11)) }]);
}

#[test]
fn no_step_of_a_stream_is_taken_before_the_session_is_served_nor_while_it_is_left() {
    for leaving in [false, true] {
        let mut play = Play::new();
        if leaving {
            play.connect();
            play.input(Input::Disconnect);
        } else {
            play.accept();
        }
        play.notify(0, 12);
        play.from(
            3,
            1,
            3,
            ToClient::Delivered(Delivered { stream: 0, prev: Op(0), item: Item::Gap { upto: Op(15) } }),
        );
        assert_eq!(play.events, [], "leaving: {leaving}");
    }
}

#[test]
fn a_restarted_primary_gets_a_resume_with_its_greeting_and_a_restarted_backup_does_not() {
    let mut play = Play::new();
    play.connect();
    play.restart(3);
    play.from(2, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    let resumes = |play: &Play, node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_)));
    assert_eq!(resumes(&play, 3), 1, "{:?}", play.sent);
    play.restart(1);
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(resumes(&play, 1), 0);
}

#[test]
fn only_packets_of_the_primary_in_its_view_show_that_it_is_alive() {
    for (node, round, primary) in [(2, 1, 3), (3, 0, 0)] {
        let mut play = Play::new();
        play.connect();
        play.pass(4_000);
        play.from(node, round, primary, ToClient::Ping);
        let waited = play.until(|play| play.events.contains(&Event::Searching));
        assert_eq!(
            waited,
            2 * KEEPALIVE_EVERY + QUIET_IDLE - Duration::from_secs(4),
            "{node} in view {round}"
        );
    }
}

#[test]
fn a_silent_primary_is_looked_for_at_every_server() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.pass(400);
    let asked =
        |node| play.sent.iter().any(|(to, packet)| *to == node && matches!(packet, ToServer::Keepalive(_)));
    assert!(asked(1) && asked(2) && asked(3));
    assert!(play.events.contains(&Event::Searching));
}

#[test]
fn a_refusal_that_passes_takes_no_number_and_is_tried_again() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 50);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(40);
    assert_eq!(play.sends(), vec![]);
    play.pass(30);
    assert_eq!(play.sends(), vec![(3, 5)]);
    let gone = Refused::new(Code::UnknownProfile, Answers::Request(Seq(5)), 0);
    play.from(3, 1, 3, ToClient::Error(gone));
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
            ToServer::ClientAck(ack) => Some(ack.clone()),
            _ => None,
        })
    };
    play.notify(10, 12);
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto.op().unwrap(), ack.held)), Some((Op(10), vec![Op(12)])));
    play.input(Input::Taken(Op(12)));
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto.op().unwrap(), ack.held)), Some((Op(12), vec![])));
}

#[test]
fn the_257th_request_without_an_answer_is_not_taken() {
    let mut play = Play::new();
    play.connect();
    for _ in 0..256 {
        assert!(play.machine.has_room());
        play.input(say("x"));
    }
    assert!(!play.events.contains(&Event::NotTaken));
    assert!(!play.machine.has_room());
    play.input(say("x"));
    assert!(play.events.contains(&Event::NotTaken));
}

#[test]
fn a_fenced_session_ends_for_good() {
    let mut play = Play::new();
    play.connect();
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    assert!(play.events.contains(&Event::Ended(Code::SessionOver)));
    assert_eq!(play.machine.next_deadline(), None);
}

fn other_version(play: &Play) -> bool {
    play.events.iter().any(|event| matches!(event, Event::OtherVersion { version: 2, .. }))
}

#[test]
fn a_client_whose_servers_all_speak_another_version_ends_and_says_so() {
    for served in [false, true] {
        let mut play = Play::new();
        if served {
            play.connect();
        }
        play.servers_by_id.values_mut().for_each(|server_boot| server_boot.upgraded = true);
        let waited = play.until(other_version);
        assert!(waited >= OTHER_VERSION_AFTER && waited < 2 * OTHER_VERSION_AFTER, "{waited:?}");
        play.servers_by_id.values_mut().for_each(|server_boot| server_boot.upgraded = false);
        play.sent.clear();
        play.hellos.clear();
        play.pass(5_000);
        assert!(play.sent.is_empty() && play.hellos.is_empty(), "it has ended");
    }
}

/// Whoever sees a HELLO can forge a VERSION, as from two of the servers here.
#[test]
fn no_version_ends_a_client_that_searches_while_any_server_answers_in_this_one() {
    for served in [false, true] {
        let mut play = Play::new();
        match served {
            true => play.connect(),
            false => play.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3))),
        }
        for node in [1, 2] {
            play.servers_by_id.get_mut(&node).unwrap().upgraded = true;
        }
        play.pass(30_000);
        assert!(!other_version(&play));
        play.servers_by_id.get_mut(&3).unwrap().upgraded = true;
        play.until(other_version);
    }
}

/// A client that was served and then heard nothing on its session from servers that still send RETRY. It has
/// asked whether the session still exists.
fn doubting() -> Play {
    let mut play = Play::new();
    play.connect();
    let nonce = play.nonce();
    play.pass(30_000);
    let asked = |(to, packet): &(u16, ToServer)| match packet {
        ToServer::Connect(connect) => {
            assert_eq!((connect.nonce, connect.fresh), (nonce, false), "its own, and nobody new");
            Some(*to)
        }
        _ => None,
    };
    let asked: Vec<u16> = play.sent.iter().filter_map(asked).collect();
    assert!(asked.contains(&3) && asked.contains(&1), "{asked:?}");
    assert!(asked.len() <= 3 * 6, "a few times in half a minute: {asked:?}");
    play
}

#[test]
fn a_session_that_ended_while_its_client_was_away_is_known_to_be_over() {
    for code in [Code::SessionOver, Code::UnknownDevice, Code::NotYours] {
        let mut play = doubting();
        let (nonce, view) = (play.nonce(), View::new(1, NodeId(3)));
        let reject = |code| ToClient::RejectConn(RejectConn::new(nonce, code, 0));
        let busy = play.answer(3, view, &reject(Code::Busy));
        play.input(Input::Datagram { from: address(3), bytes: busy });
        assert!(
            !play.events.iter().any(|event| matches!(event, Event::Ended(_))),
            "not for a passing reason"
        );
        let other = ToClient::RejectConn(RejectConn::new(nonce + 1, code, 0));
        for packet in [other, reject(code)] {
            assert!(!play.events.contains(&Event::Ended(code)), "that was about another CONNECT");
            play.pass(DOUBT_EVERY.as_millis() as u64 + 1_000);
            let bytes = play.answer(3, view, &packet);
            play.input(Input::Datagram { from: address(3), bytes });
        }
        assert!(play.events.contains(&Event::Ended(code)));
        assert_eq!(play.machine.next_deadline(), None);
    }
}

#[test]
fn a_refusal_that_comes_after_its_connect_was_let_in_ends_nothing() {
    for code in [Code::KeyNotAllowed, Code::WrongInvite, Code::LimitReached] {
        let mut play = doubting();
        let late = RejectConn::new(play.nonce(), code, 0);
        let bytes = play.answer(3, View::new(1, NodeId(3)), &ToClient::RejectConn(late));
        play.input(Input::Datagram { from: address(3), bytes });
        assert!(!play.events.contains(&Event::Ended(code)));
        assert!(play.machine.next_deadline().is_some(), "it goes on");
    }
}

#[test]
fn a_session_that_still_is_goes_on_after_a_doubt() {
    let mut play = doubting();
    let (nonce, coordinator) = (play.nonce(), coordinator(2, 1));
    let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    let accept = ToClient::AcceptConn(AcceptConn {
        nonce,
        session: SESSION,
        coordinator,
        secret,
        aead: Default::default(),
        options: OptionalFields::NONE,
    });
    let bytes = play.answer(1, View::new(2, NodeId(1)), &accept);
    play.sent.clear();
    play.input(Input::Datagram { from: address(1), bytes });
    assert!(play.sent.iter().any(|(to, packet)| *to == 1 && matches!(packet, ToServer::Resume(_))));
    play.resumed(2, 1);
    assert!(matches!(play.events.last(), Some(Event::PrimaryChanged { .. })), "{:?}", play.events);
}

#[test]
fn a_pending_session_that_lapsed_unnoticed_is_requested_again() {
    let mut play = Play::new();
    play.accept();
    let first = play.nonce();
    play.pass(5_000);
    let lapsed = RejectConn::new(first, Code::SessionOver, 0);
    let bytes = play.answer(3, View::new(1, NodeId(3)), &ToClient::RejectConn(lapsed));
    play.input(Input::Datagram { from: address(3), bytes });
    play.pass(300);
    assert_ne!(play.nonce(), first);
}

#[test]
fn a_primary_whose_name_is_forged_away_does_not_make_a_question_spin() {
    let mut play = Play::new();
    play.connect();
    let question = Query::List { what: recado_proto::packet::Listing::People, after: None };
    // The primary's address, under another server's id.
    let members = vec![(NodeId(9), address(3))];
    play.from(3, 1, 3, ToClient::Coordinator(Coordinator::new(View::new(1, NodeId(3)), members)));
    play.input(Input::Query(QueryId(1), question));
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
fn an_abandoned_query_is_not_sent_again_and_frees_its_place() {
    let mut play = Play::new();
    play.connect();
    let asked = |play: &Play| play.sent.iter().filter(|(_, p)| matches!(p, ToServer::Query(_))).count();
    for query in 0..2 * QUERIES_MAX as u64 {
        play.input(Input::Query(QueryId(query), Query::Status { server: address(2) }));
        play.input(Input::GiveUp(QueryId(query)));
    }
    let busy = |event: &Event| matches!(event, Event::Answer(_, Answer::Refused(Code::Busy)));
    assert!(!play.events.iter().any(busy));
    let before = asked(&play);
    play.pass(5_000);
    assert_eq!(asked(&play), before);
    play.input(Input::Query(QueryId(1_000), Query::Status { server: address(2) }));
    play.pass(5_000);
    assert!(asked(&play) > before + 1, "one that is not given up is asked again");
}

#[test]
fn a_rejection_with_retry_ms_zero_is_not_retried_at_once() {
    let mut play = Play::new();
    let mut initiations = 0;
    let end = play.now + Duration::from_secs(1);
    while play.now < end {
        let reject = RejectConn::new(play.nonce(), Code::NotPrimary, 0);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        assert!(play.servers_by_id[&1].reply_to.is_none(), "asked again at once");
        initiations += 1;
    }
    assert!(initiations <= 101, "{initiations} in a second");
}

#[test]
fn a_new_client_waits_longer_after_each_busy() {
    let mut play = Play::new();
    let mut initiations = 0;
    let end = play.now + Duration::from_secs(2);
    while play.now < end {
        let reject = RejectConn::new(play.nonce(), Code::Busy, 10);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        initiations += 1;
    }
    assert!(initiations <= 8, "{initiations} in two seconds");
}

#[test]
fn a_client_whose_place_went_to_another_resumes_after_retry_ms() {
    let mut play = Play::new();
    play.connect();
    let resumes = |play: &Play| play.sent.iter().filter(|(_, p)| matches!(p, ToServer::Resume(_))).count();
    let before = resumes(&play);
    let busy = Refused::new(Code::Busy, Answers::Session, 500);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(400);
    assert_eq!(resumes(&play), before);
    play.pass(300);
    assert!(resumes(&play) > before, "its stream is begun anew");
}

#[test]
fn a_notification_that_overtakes_the_resume_ok_is_not_lost() {
    let mut play = Play::new();
    play.connect();
    play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    let delivered = Delivered { stream: 0, prev: Op(10), item: Item::Notification(notification(12)) };
    play.from(3, 4, 3, ToClient::Delivered(delivered));
    play.resumed(4, 3);
    assert_eq!(play.delivered(), vec![12]);
}

#[test]
fn a_server_that_refuses_all_requests_gets_one_until_it_accepts_it() {
    let mut play = Play::new();
    play.connect();
    (0..20).for_each(|_| play.input(say("x")));
    for seq in 5..25 {
        let busy = Refused::new(Code::NoQuorum, Answers::Request(Seq(seq)), 50);
        play.from(3, 1, 3, ToClient::Error(busy));
    }
    play.sent.clear();
    play.pass(65);
    assert_eq!(play.sends(), vec![(3, 5)]);
    for seq in 5..24 {
        play.from(
            3,
            1,
            3,
            ToClient::SendAck(SendAck { seq: Seq(seq), op: Op(11), data: OptionalFields::NONE }),
        );
        let gone: Vec<u64> = play.sends().into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(gone, (5..=(2 * seq - 3).min(24)).collect::<Vec<_>>(), "two more for each answer");
    }
}

/// The primary answers as much as a budget of this rate allows and refuses the rest, until every request
/// asked before is answered. Returns how often it was asked, and how long that took.
fn play_budget(play: &mut Play, rate: recado::config::Rate) -> (usize, Duration) {
    let mut budget = recado::server::budget::Budget::new(rate);
    let (began, mut asked) = (play.now, 0);
    while !play.machine.outbox.is_empty() || !play.machine.queries.is_empty() {
        assert!(asked < 10_000 && play.now.since(began) < Duration::from_secs(60), "asked {asked} times");
        for (to, packet) in std::mem::take(&mut play.sent) {
            let (answers, answer) = match packet {
                ToServer::Send(Send { seq, .. }) => (
                    Answers::Request(seq),
                    ToClient::SendAck(SendAck { seq, op: Op(11), data: OptionalFields::NONE }),
                ),
                ToServer::Query(packet::Query { id, kind: QueryKind::List(_), .. }) => {
                    (Answers::Query(id), empty_page(id.0))
                }
                ToServer::Keepalive(_) if to == 3 => {
                    let _ = budget.take(play.now, 1);
                    continue;
                }
                _ => continue,
            };
            asked += 1;
            let answer = budget.take(play.now, 1).map_or_else(
                |wait| {
                    let retry_ms = (wait.as_millis() as u32).max(1);
                    ToClient::Error(Refused::new(Code::Busy, answers, retry_ms))
                },
                |()| answer,
            );
            play.from(3, 1, 3, answer);
        }
        play.pass(1);
    }
    (asked, play.now.since(began))
}

#[test]
fn what_waits_goes_on_at_the_rate_of_the_budget_and_is_seldom_refused() {
    let question = |query| Input::Query(QueryId(query), Query::List { what: Listing::People, after: None });
    let inputs: [fn(u64) -> Input; 2] = [|_| say("x"), question];
    for input in inputs {
        for per_s in [20, 200] {
            let mut play = Play::new();
            play.connect();
            (0..64).for_each(|number| play.input(input(number)));
            let (asked, took) = play_budget(&mut play, recado::config::Rate { per_s, burst: 4 });
            assert!(took <= Duration::from_secs(60 * 3 / 2) / per_s, "{took:?} at {per_s} a second");
            assert!(asked <= 4 * 64, "asked {asked} times for 64 answers at {per_s} a second");
        }
    }
}

#[test]
fn a_number_that_another_request_has_is_an_answer_too() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let refused = |code, seq| ToClient::Error(Refused::new(code, Answers::Request(Seq(seq)), 40));
    for _ in 0..4 {
        play.from(3, 1, 3, refused(Code::Busy, 5));
        while play.machine.backoff.waits(play.now) {
            play.pass(1);
        }
    }
    play.from(3, 1, 3, refused(Code::NumberTaken, 5));
    play.from(3, 1, 3, refused(Code::Busy, 6));
    play.sent.clear();
    play.pass(55);
    assert_eq!(play.sends(), vec![(3, 6)], "it waits no longer than it is told");
}

#[test]
fn a_primary_that_sent_retry_ms_is_not_searched_for_before_it_has_passed() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 800);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(790);
    assert!(!play.events.contains(&Event::Searching));
    play.pass(800);
    assert!(play.events.contains(&Event::Searching), "then it owes an answer");
}

#[test]
fn a_server_that_accepts_fewer_requests_at_once_gets_no_more() {
    let mut play = Play::new();
    play.connect();
    (0..20).for_each(|_| play.input(say("x")));
    for seq in 13..25 {
        let far = Refused::new(Code::TooFarAhead, Answers::Request(Seq(seq)), 50);
        play.from(3, 1, 3, ToClient::Error(far));
    }
    play.sent.clear();
    play.pass(2_000);
    assert!(play.sends().iter().all(|(_, seq)| *seq < 13), "{:?}", play.sends());
}

#[test]
fn a_server_that_starts_again_is_greeted_again_and_goes_on_with_the_session() {
    let mut play = Play::new();
    play.connect();
    play.restart(3);
    play.input(say("one"));
    assert_eq!((play.unopened, play.sends()), (1, vec![]), "sealed for a server_boot that is over");
    play.hellos.clear();
    play.pass(700);
    assert!(play.hellos.contains(&3));
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Keepalive(_))));
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Resume(_))));
    play.resumed(1, 3);
    assert!(play.sends().contains(&(3, 5)));
    let unopened = play.unopened;
    play.pass(3_000);
    assert_eq!(play.unopened, unopened, "nothing more is sealed for the old server_boot");
}

/// Returns true if server 3 got a packet of this kind since the last call.
fn probed(play: &mut Play, kind: fn(&ToServer) -> bool) -> bool {
    let found = play.sent.iter().any(|(to, packet)| *to == 3 && kind(packet));
    play.sent.clear();
    found
}

#[test]
fn a_server_that_starts_again_is_reached_though_a_forger_answers_each_hello_before_it_does() {
    for forged in 1..=3 {
        let mut play = Play::new();
        play.servers_by_id.get_mut(&3).unwrap().forged = forged;
        play.connect();
        for server_boot in 0..3 {
            play.restart(3);
            play.hellos.clear();
            while !probed(&mut play, |packet| matches!(packet, ToServer::Keepalive(_) | ToServer::Resume(_)))
            {
                play.pass(10);
                let hellos = play.hellos.iter().filter(|node| **node == 3).count();
                assert!(hellos <= 2, "{forged} lies, server_boot {server_boot}: {hellos} HELLOs in vain");
            }
            play.from(3, 1, 3, ToClient::PathChallenge(7));
            assert!(
                probed(&mut play, |packet| *packet == ToServer::PathResponse(7)),
                "{forged}, {server_boot}"
            );
            play.from(3, 2 + server_boot, 3, ToClient::Coordinator(coordinator(2 + server_boot, 3)));
            assert!(
                probed(&mut play, |packet| matches!(packet, ToServer::Resume(_))),
                "{forged}, {server_boot}"
            );
            play.resumed(2 + server_boot, 3);
            let unopened = play.unopened;
            play.input(say("on"));
            assert!(!play.sends().is_empty() && play.unopened == unopened, "{forged}, {server_boot}");
        }
    }
}

#[test]
fn forged_answers_of_a_server_take_nothing_from_an_established_session() {
    let mut play = Play::new();
    play.connect();
    play.servers_by_id.get_mut(&3).unwrap().forged = 4;
    // The server's datagrams are lost for a while.
    play.pass(5_000);
    assert!(play.hellos.contains(&3), "it is asked who it is");
    play.notify(10, 12);
    assert_eq!(play.delivered(), [12], "what it says still opens");
    play.resumed(1, 3);
    let unopened = play.unopened;
    play.sent.clear();
    play.input(say("on"));
    assert_eq!((play.sends(), play.unopened), (vec![(3, 5)], unopened), "and so does what it is told");
}

#[test]
fn recorded_packets_of_an_earlier_boot_do_not_bring_its_path_back() {
    let mut play = Play::new();
    play.connect();
    let old = play.servers_by_id[&3].handshake_config.clone();
    play.number += 1;
    let (secret, view) = (play.secret().unwrap(), View::new(1, NodeId(3)));
    let recorded: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            play.number += 1;
            play.on_session(3, view, &ToClient::Coordinator(coordinator(1, 3)), &secret)
        })
        .collect();
    play.restart(3);
    play.pass(700);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.resumed(1, 3);
    // An attacker answers each HELLO with the old boot id, and replays recorded datagrams of that boot.
    let mut out = Vec::new();
    play.machine.servers.hello(address(3), &mut play.machine.start.entropy, &mut out);
    let [Effect::Datagram { bytes: hello, .. }] = &out[..] else { panic!("{out:?}") };
    let from = ([127, 0, 0, 9], 4_000).into();
    let Ok(HandshakeEvent::Retry(lie)) = HandshakeServer::new(old, [7; 32]).receive(play.now, from, hello)
    else {
        panic!()
    };
    for bytes in [lie].into_iter().chain(recorded) {
        play.input(Input::Datagram { from: address(3), bytes });
    }
    let unopened = play.unopened;
    play.sent.clear();
    play.input(say("on"));
    assert_eq!((play.sends(), play.unopened), (vec![(3, 5)], unopened));
}

#[test]
fn a_late_packet_of_a_servers_earlier_boot_is_ignored() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.number += 1;
    let secret = play.secret().unwrap();
    let late = play.on_session(3, View::new(1, NodeId(3)), &ack, &secret);
    play.restart(3);
    play.pass(700);
    assert!(
        play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Keepalive(_))),
        "greeted"
    );
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.input(Input::Datagram { from: address(3), bytes: late });
    assert!(!play.events.iter().any(|event| matches!(event, Event::Answered { .. })));
}

#[test]
fn a_datagram_of_a_server_counts_once() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.number += 1;
    let secret = play.secret().unwrap();
    let over = Refused::new(Code::Busy, Answers::Session, 0);
    let bytes = play.on_session(3, View::new(1, NodeId(3)), &ToClient::Error(over), &secret);
    for _ in 0..2 {
        play.input(Input::Datagram { from: address(3), bytes: bytes.clone() });
    }
    let heard = play.machine.heard;
    play.pass(1_000);
    play.input(Input::Datagram { from: address(3), bytes });
    assert_eq!(play.machine.heard, heard, "somebody says it again: the primary need not be alive");
}

#[test]
fn only_the_answer_to_the_last_hello_is_a_greeting() {
    let mut play = Play::among(std::iter::empty());
    let mut server = HandshakeServer::new(handshake_config(1, 1), [7; 32]);
    let mut out = Vec::new();
    play.now = play.machine.next_deadline().unwrap();
    play.machine.handle(play.now, Input::Deadline, &mut out);
    let [Effect::Datagram { bytes: hello, .. }] = &out[..] else { panic!("{out:?}") };
    let from = ([127, 0, 0, 9], 4_000).into();
    let Ok(HandshakeEvent::Retry(bytes)) = server.receive(play.now, from, hello) else { panic!("no RETRY") };
    let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(&bytes) else { panic!("no RETRY") };

    let forged = handshake::Retry { echo: retry.echo ^ 1, ..retry };
    let mut input = |from, bytes| {
        let mut out = Vec::new();
        play.machine.handle(play.now, Input::Datagram { from, bytes }, &mut out);
        out.len()
    };
    assert_eq!(input(address(1), handshake::retry(&envelope, &forged)), 0);
    assert_eq!(input(address(2), bytes.clone()), 0, "from somebody who was not asked");
    assert_eq!(input(address(1), bytes.clone()), 1, "an INITIATION");
    assert_eq!(input(address(1), bytes), 0, "said again it is none");
}

#[test]
fn forged_answers_to_a_hello_before_and_after_the_true_one_cost_no_time() {
    for forged in [1, 2] {
        let mut play = Play::among(std::iter::empty());
        play.servers_by_id.insert(1, TestServer { forged, ..TestServer::new(handshake_config(1, 1)) });
        let began = play.now;
        assert_eq!(play.nonce, None, "its first HELLO was lost");
        while play.nonce.is_none() {
            play.pass(1);
        }
        // No longer than until a lost HELLO is sent again.
        let waited = play.now.since(began);
        assert!(waited <= 2 * ASK_AGAIN_MIN, "{waited:?} with {forged} forged before the true one");
    }
}

#[test]
fn answers_to_a_hello_are_forged_without_end_and_cost_a_few_initiations_each() {
    let mut play = Play::among(std::iter::empty());
    let mut server = HandshakeServer::new(handshake_config(1, 1), [7; 32]);
    let mut out = Vec::new();
    play.now = play.machine.next_deadline().unwrap();
    play.machine.handle(play.now, Input::Deadline, &mut out);
    let [Effect::Datagram { bytes: hello, .. }] = &out[..] else { panic!("{out:?}") };
    let Ok(HandshakeEvent::Retry(retry)) = server.receive(play.now, ([127, 0, 0, 9], 4_000).into(), hello)
    else {
        panic!()
    };
    out.clear();
    for lie in 0..=255 {
        let bytes = forged_retry(&retry, lie);
        play.machine.handle(play.now, Input::Datagram { from: address(1), bytes }, &mut out);
    }
    assert!(out.len() <= 4, "{} datagrams", out.len());
}

#[test]
fn a_server_with_another_cluster_key_is_not_sent_an_initiation() {
    let stranger = HandshakeConfig { keys: ClusterKeys::new(&[1; 32]), ..handshake_config(1, 1) };
    let mut play = Play::among([stranger].into_iter());
    play.pass(5_000);
    assert!(play.sent.is_empty(), "{:?}", play.sent);
    assert!((3..20).contains(&play.hellos.len()), "{} hellos in five seconds", play.hellos.len());
}

#[test]
fn a_client_answers_a_path_challenge_and_resumes_or_keeps_alive() {
    let mut play = Play::new();
    play.accept();
    play.sent.clear();
    let sent = |play: &mut Play| std::mem::take(&mut play.sent);
    play.from(3, 1, 3, ToClient::PathChallenge(77));
    assert!(
        matches!(&sent(&mut play)[..], [(3, ToServer::PathResponse(77)), (3, ToServer::Resume(_))]),
        "the primary that is to serve it"
    );
    play.from(2, 1, 3, ToClient::PathChallenge(78));
    assert_eq!(sent(&mut play), [(2, ToServer::PathResponse(78)), (2, ToServer::keepalive())]);
    play.resumed(1, 3);
    sent(&mut play);
    play.from(3, 1, 3, ToClient::PathChallenge(79));
    assert_eq!(sent(&mut play), [(3, ToServer::PathResponse(79)), (3, ToServer::keepalive())]);
    // A server that knows only an older view must be able to find the client, too.
    play.from(1, 0, 0, ToClient::PathChallenge(80));
    assert_eq!(sent(&mut play), [(1, ToServer::PathResponse(80)), (1, ToServer::keepalive())]);
}

#[test]
fn the_client_sends_every_server_keepalives_often_at_first_and_then_every_two_seconds() {
    let mut play = Play::new();
    play.connect();
    play.pass(300);
    for node in 1..=3 {
        let alive = |(to, packet): &&(u16, ToServer)| *to == node && *packet == ToServer::keepalive();
        assert!(
            play.sent.iter().filter(alive).count() >= 2,
            "{node} may not have known the session at first"
        );
    }
    for turn in 0..20 {
        if turn == 10 {
            play.sent.clear();
        }
        play.pass(500);
        play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    }
    for node in 1..=3 {
        let alive = |(to, packet): &&(u16, ToServer)| *to == node && *packet == ToServer::keepalive();
        let times = play.sent.iter().filter(alive).count();
        assert!((2..=5).contains(&times), "{times} times to {node} in 5 s");
    }
    assert!(!play.events.contains(&Event::Searching));
}

#[test]
fn a_client_sends_disconnect_with_its_cursor_until_the_session_is_over() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.input(Input::Taken(Op(12)));
    play.sent.clear();
    play.input(Input::Disconnect);
    assert_eq!(play.sent, [(3, ToServer::Disconnect(Disconnect { upto: Position::of(Op(12)) }))]);
    assert_eq!(play.events.last(), Some(&Event::Notification(notification(12))));
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    assert_eq!(play.events.last(), Some(&Event::Disconnected));
    assert_eq!(play.machine.next_deadline(), None);
}

#[test]
fn a_client_without_an_answer_ends_after_three_disconnects() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Disconnect);
    play.pass(5_000);
    let said = |(_, packet): &&(u16, ToServer)| matches!(packet, ToServer::Disconnect(_));
    assert_eq!(play.sent.iter().filter(said).count(), 3);
    assert_eq!(play.events, [Event::Disconnected]);
}

/// Between this and a quarter more: what goes again is not to go together with what others send again.
fn about(ms: u64) -> std::ops::Range<Duration> {
    Duration::from_millis(ms)..Duration::from_millis(ms) * 5 / 4
}

#[test]
fn a_client_waits_longer_after_each_disconnect_whatever_arrives_meanwhile() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Disconnect);
    let said = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::Disconnect(_)));
    for (times, wait) in [(2, 100), (3, 150)] {
        (0..5).for_each(|_| play.input(Input::Deadline));
        assert_eq!(said(&play), times - 1);
        let waited = play.until(|play| said(play) == times);
        assert!(about(wait).contains(&waited), "{waited:?} before it is said for the {times}. time");
    }
    let waited = play.until(|play| play.events == [Event::Disconnected]);
    assert!(about(225).contains(&waited), "{waited:?}");
}

#[test]
fn two_addresses_of_one_server_never_use_one_number_twice() {
    let (handshake_config, now, mut entropy) =
        (handshake_config(1, 1), Moment(1_000_000), Entropy::new([3; 32]));
    let cluster_key = noise::public(&handshake_config.keys.cluster_private());
    let identity = Identity { cluster: handshake_config.cluster, cluster_key, private: private() };
    let (near, far) = (address(1), address(4));
    let mut servers = Servers::new(&[near, far], identity);
    let mut server = HandshakeServer::new(handshake_config.clone(), [7; 32]);
    let secret = handshake_config.keys.session_secret(SESSION, device(), 1, Default::default());
    let (to_server, to_client) = (
        secret.of_session(Direction::ToServer, handshake_config.me, handshake_config.boot_id),
        secret.of_session(Direction::ToClient, handshake_config.me, handshake_config.boot_id),
    );
    // The packets sent to the server if it is on trial at this address; else none.
    let mut greet = |servers: &mut Servers, at| {
        let mut out = Vec::new();
        servers.check_boot(at, &mut entropy, &mut out);
        let hello = out.into_iter().find_map(|effect| match effect {
            Effect::Datagram { to, bytes } => Some((to, bytes)),
            Effect::Event(_) => None,
        });
        let Some((to, bytes)) = hello else { return Vec::new() };
        let Ok(HandshakeEvent::Retry(bytes)) = server.receive(now, at, &bytes) else { panic!("no RETRY") };
        let Some(Received::Greeting { greeting, on_trial }) = servers.receive(now, to, &bytes) else {
            panic!("no greeting")
        };
        let mut out = Vec::new();
        if on_trial {
            servers.probe(now, at, &greeting, View::ZERO, &[ToServer::keepalive()], &mut out);
        }
        out
    };
    [near, far].into_iter().for_each(|at| drop(greet(&mut servers, at)));
    servers.open_session(now, SESSION, secret);
    let mut numbers = std::collections::BTreeSet::new();
    let mut count = |out: Vec<Effect>| -> Vec<SocketAddr> {
        let mut to_whom = Vec::new();
        for effect in out {
            let Effect::Datagram { to, bytes } = effect else { panic!("{effect:?}") };
            let number =
                envelope::open::<ToServer>(&to_server, &bytes).expect("for this server").envelope.number;
            assert!(numbers.insert(number), "{number} twice");
            to_whom.push(to);
        }
        to_whom
    };
    let say = |servers: &mut Servers| {
        let mut out = Vec::new();
        for at in [near, far] {
            servers.send(now, at, View::ZERO, &[ToServer::keepalive()], None, &mut out);
        }
        out
    };
    let mut number = 0;
    let mut answer = |servers: &mut Servers, from, largest| {
        number += 1;
        let envelope = Envelope {
            class: Class::Client,
            cluster: handshake_config.cluster,
            session: SESSION,
            node: Some(handshake_config.me),
            incarnation: handshake_config.incarnation,
            number,
        };
        let header =
            Header { ack: Some(envelope::Ack { largest, first: 0, further: Vec::new() }), view: View::ZERO };
        let bytes = envelope::seal(&to_client, &envelope, &header, &[]);
        servers.receive(now, from, &bytes).is_some()
    };
    assert_eq!(count(say(&mut servers)), [near, far], "both may be it");
    assert!(!answer(&mut servers, near, 9), "of what was never said");
    assert!(answer(&mut servers, far, 2));
    assert_eq!(count(say(&mut servers)), [far]);
    // After a datagram from there, the server stays there.
    assert_eq!(count(greet(&mut servers, near)), []);
    assert_eq!(servers.address_of(handshake_config.me), Some(far));
    // Once silent there, it is tried here, and moves here when it answers.
    assert_eq!(count(greet(&mut servers, far)), []);
    assert_eq!(count(greet(&mut servers, far)), []);
    assert_eq!(count(greet(&mut servers, near)), [near]);
    assert_eq!(count(say(&mut servers)), [near, far]);
    assert!(!answer(&mut servers, near, 3), "that was said before, at the other address");
    assert!(answer(&mut servers, near, 4));
    assert_eq!(count(say(&mut servers)), [near]);
    assert_eq!(servers.address_of(handshake_config.me), Some(near));
    // Silent there until it says a word, it stays there all the same.
    assert_eq!(count(greet(&mut servers, near)), []);
    assert_eq!(count(greet(&mut servers, near)), []);
    assert!(answer(&mut servers, near, 4));
    assert_eq!(count(greet(&mut servers, far)), []);
    servers.learn_all(&[(handshake_config.me, address(9))]);
    assert_eq!(servers.addresses(), [near, far], "it was heard at home");
}

/// What is looked for with a deadline of its own comes then, and not with whatever comes next.
#[test]
fn a_session_that_is_to_be_resumed_wakes_for_the_keepalive_for_resume_and_for_the_search() {
    let exactly = |wait: Duration| wait..wait + Duration::from_micros(1);
    type Come = fn(&Play) -> bool;
    let cases: [(Come, std::ops::Range<Duration>); 3] = [
        (|play| play.sent_to(2, |packet| *packet == ToServer::keepalive()) > 0, exactly(KEEPALIVE_FIRST)),
        (|play| play.sent_to(3, |packet| matches!(packet, ToServer::Resume(_))) > 0, about(100)),
        (|play| play.events.contains(&Event::Searching), exactly(QUIET)),
    ];
    for (come, expected) in cases {
        let mut play = Play::new();
        play.connect();
        play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
        play.sent.clear();
        let waited = play.until(come);
        assert!(expected.contains(&waited), "{waited:?}, not {expected:?}");
    }
}

fn list(query: u64) -> Input {
    Input::Query(QueryId(query), Query::List { what: Listing::People, after: None })
}

fn status_of(node: u16) -> Query {
    Query::Status { server: address(node) }
}

#[test]
fn the_search_for_a_primary_begins_after_300_ms_of_debt_or_two_keepalives_of_silence() {
    for (asked, searched) in [(None, 4_500), (Some(1_000), 1_300), (Some(4_300), 4_500)] {
        let mut play = Play::new();
        play.connect();
        if let Some(asked) = asked {
            play.pass(asked);
            play.input(list(1));
        }
        let waited = play.until(|play| play.events.contains(&Event::Searching));
        assert_eq!(asked.unwrap_or(0) + waited.as_millis() as u64, searched, "asked after {asked:?}");
    }
}

#[test]
fn a_status_query_is_no_debt_of_the_primary_and_is_resent_on_time() {
    let mut play = Play::new();
    play.connect();
    play.pass(200);
    play.input(Input::Query(QueryId(1), status_of(2)));
    let asked = |play: &Play| play.sent_to(2, |packet| matches!(packet, ToServer::Query(_)));
    let (before, keepalives) = (asked(&play), play.sent.len());
    let waited = play.until(|play| asked(play) > before);
    assert!(about(100).contains(&waited), "{waited:?}: {:?}", &play.sent[keepalives..]);
    play.pass(QUIET.as_millis() as u64);
    assert!(!play.events.contains(&Event::Searching));
}

#[test]
fn a_question_about_a_server_takes_no_place_before_those_to_a_primary_that_refuses() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Query(QueryId(1), status_of(2)));
    play.input(list(2));
    play.input(list(3));
    let asked = |play: &Play| {
        let query = |(_, packet): &(u16, ToServer)| match packet {
            ToServer::Query(query) if query.kind != QueryKind::Status => Some(query.id.0),
            _ => None,
        };
        play.sent.iter().filter_map(query).collect::<Vec<u64>>()
    };
    assert_eq!(asked(&play), [2, 3]);
    let busy = Refused::new(Code::Busy, Answers::Query(QueryId(2)), 40);
    for wait in [40, 80] {
        play.sent.clear();
        play.from(3, 1, 3, ToClient::Error(busy.clone()));
        let waited = play.until(|play| !asked(play).is_empty());
        assert!(about(wait).contains(&waited), "{waited:?}");
        assert_eq!(asked(&play), [2], "the oldest of the primary's");
    }
}

#[test]
fn each_keepalive_of_a_receiving_client_to_the_primary_repeats_its_cursor() {
    for receives in [true, false] {
        let mut play = Play::new();
        play.machine.inbox = Inbox::new(receives, PlantedBug::default());
        play.connect();
        play.notify(10, 12);
        play.input(Input::Taken(Op(12)));
        play.pass(100);
        // That ack was lost.
        play.sent.clear();
        play.pass(2_000);
        let ack = |(to, packet): &(u16, ToServer)| match packet {
            ToServer::ClientAck(ack) => Some((*to, ack.upto.op().unwrap())),
            _ => None,
        };
        let acks: BTreeSet<(u16, Op)> = play.sent.iter().filter_map(ack).collect();
        let expected = if receives { vec![(3, Op(12))] } else { Vec::new() };
        assert_eq!(acks.into_iter().collect::<Vec<_>>(), expected);
        let keepalives = [1, 2, 3].map(|node| play.sent_to(node, |packet| *packet == ToServer::keepalive()));
        assert!(keepalives.iter().all(|times| *times > 0), "{keepalives:?}");
    }
}

#[test]
fn a_closed_port_of_the_primary_causes_queries_to_all_servers_and_delays_the_next_keepalive() {
    let mut play = Play::new();
    play.connect();
    play.pass(1_000);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    let kept_alive = |play: &Play| play.sent_to(2, |packet| *packet == ToServer::keepalive()) > 0;
    let began = play.now;
    // Whose process is gone, and after how many microseconds that is said.
    for (node, after, asked) in [(2, 0, false), (3, 0, true), (3, 19_999, false), (3, 20_000, true)] {
        play.sent.clear();
        play.now = began + Duration::from_micros(after);
        play.input(Input::PortRefused(address(node)));
        assert_eq!(kept_alive(&play), asked, "{node} after {after}");
    }
    play.sent.clear();
    assert_eq!(play.until(kept_alive), KEEPALIVE_EVERY);
}

#[test]
fn a_silent_session_is_queried_after_three_seconds_and_every_five() {
    let mut play = Play::new();
    play.connect();
    play.pass(4_000);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    let second = SESSION_QUERY_AFTER + DOUBT_EVERY;
    let micro = Duration::from_micros(1);
    let doubts = [SESSION_QUERY_AFTER - micro, SESSION_QUERY_AFTER, second - micro, second].map(|after| {
        let mut out = Vec::new();
        play.machine.doubt(play.now + after, &mut out);
        !out.is_empty()
    });
    assert_eq!(doubts, [false, true, false, true]);
}

#[test]
fn a_session_that_was_never_served_is_requested_again_after_retry_ms_and_later_each_time() {
    let mut play = Play::new();
    let over = Refused::new(Code::SessionOver, Answers::Session, 30);
    play.accept();
    play.from(3, 1, 3, ToClient::Error(over));
    let retry = Duration::from_millis(30);
    assert_eq!(play.machine.next_deadline(), Some(play.now + retry));
    let mut longest = [Duration::ZERO; 6];
    for _ in 0..200 {
        play.machine.unserved = 0;
        for longest in &mut longest {
            play.machine.session = Some((SESSION, 1));
            play.machine.on_over(play.now, Code::SessionOver, retry, &mut Vec::new());
            let wait = play.machine.next_deadline().unwrap().since(play.now);
            assert!(wait >= retry);
            *longest = wait.max(*longest);
        }
    }
    // Of two copies of a device one has to come first: drawn from twice as much each time.
    for (wait, more) in longest.into_iter().zip([0, 200, 400, 800, 1_600, 1_600].map(Duration::from_millis)) {
        assert!((retry + more * 9 / 10..=retry + more).contains(&wait), "{wait:?} of {more:?}: {longest:?}");
    }
}

#[test]
fn a_pause_is_counted_from_the_last_datagram_before_it() {
    let mut play = Play::new();
    play.connect();
    let silent = play.until(|play| play.events.contains(&Event::Searching));
    play.pass(100);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.resumed(1, 3);
    let pause = silent + Duration::from_millis(100);
    assert_eq!(play.events.last(), Some(&Event::PrimaryFound { primary: address(3), pause }));
    play.sent.clear();
    play.from(3, 1, 3, ToClient::Ping);
    assert_eq!(play.sent, [], "it is found");
    for (round, node, pause) in [(2, 2, 1_000), (3, 1, 700)] {
        play.pass(pause);
        play.from(node, round, node, ToClient::Coordinator(coordinator(round, node)));
        play.resumed(round, node);
        let (view, primary) = (View::new(round, NodeId(node)), address(node));
        let changed = Event::PrimaryChanged { view, primary, pause: Duration::from_millis(pause) };
        assert_eq!(play.events.last(), Some(&changed));
    }
}

/// A client whose link to the primary has room for one byte.
fn almost_full() -> Play {
    let mut play = Play::new();
    play.connect();
    play.pass(400);
    let room = |play: &Play| play.machine.servers.room(address(3));
    let before = room(&play);
    play.input(say(&"x".repeat(400)));
    let overhead = before - room(&play) - 400;
    while room(&play) > 1 {
        let left = room(&play) - 1;
        let length = if left <= 1_000 { left } else { 500 };
        play.input(say(&"x".repeat(length - overhead)));
    }
    assert_eq!(room(&play), 1);
    play.sent.clear();
    play
}

#[test]
fn a_link_takes_a_request_as_long_as_a_byte_of_its_window_is_free_and_then_none_before_an_ack() {
    let mut play = almost_full();
    play.input(say("fits"));
    play.input(say("waits"));
    assert_eq!(play.sends().len(), 1);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    assert_eq!(play.sends().len(), 2);
}

#[test]
fn a_request_that_is_refused_goes_again_on_time_with_a_byte_of_room() {
    let mut play = almost_full();
    // The word that asks to wait acknowledges nothing.
    play.servers_by_id.get_mut(&3).unwrap().heard.clear();
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 40);
    play.from(3, 1, 3, ToClient::Error(busy));
    let waited = play.until(|play| !play.sends().is_empty());
    assert!(about(40).contains(&waited), "{waited:?}");
}

#[test]
fn the_65th_query_in_flight_and_any_after_the_end_is_refused_as_busy() {
    let mut play = Play::new();
    let busy = |query| Event::Answer(QueryId(query), Answer::Refused(Code::Busy));
    (1..=64).for_each(|query| play.input(list(query)));
    assert_eq!(play.events, []);
    play.input(list(65));
    assert_eq!(play.events, [busy(65)]);
    play.input(Input::GiveUp(QueryId(3)));
    play.input(Input::Disconnect);
    play.input(list(66));
    assert_eq!(play.events, [busy(65), Event::Disconnected, busy(66)]);
}

#[test]
fn a_server_without_a_session_gets_its_status_query_in_an_initiation() {
    let mut play = Play::new();
    play.input(Input::Query(QueryId(1), status_of(2)));
    let asked = |play: &Play| {
        play.sent_to(2, |packet| {
            *packet == ToServer::Query(packet::Query::new(QueryId(1), QueryKind::Status))
        })
    };
    assert_eq!((&play.hellos[..], asked(&play)), (&[1, 2][..], 1), "as soon as it has greeted");
    let waited = play.until(|play| asked(play) == 2);
    assert!(about(100).contains(&waited), "{waited:?}");
    let status = Status {
        node: NodeId(2),
        role: RoleName::Backup,
        view: View::ZERO,
        applied: Op(1),
        durable: Op(1),
        lag: 0,
        pid: 7,
        incarnation: Incarnation(1),
        uptime_ms: 9,
        members: coordinator(1, 3).members,
        refused: Vec::new(),
    };
    (0..2).for_each(|_| play.from(2, 0, 0, answer_of(1, AnswerKind::Status(status.clone()))));
    assert_eq!(play.events, [Event::Answer(QueryId(1), Answer::Status(status))], "once");
    assert!(play.hellos.contains(&3), "others that it names are greeted too: {:?}", play.hellos);
}

#[test]
fn a_query_has_one_answer_and_an_unknown_query_has_none() {
    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    play.input(list(2));
    [1, 1, 7].into_iter().for_each(|query| play.from(3, 1, 3, empty_page(query)));
    let refused = Refused::new(Code::NotAllowed, Answers::Query(QueryId(2)), 0);
    (0..2).for_each(|_| play.from(3, 1, 3, ToClient::Error(refused.clone())));
    let answers =
        [Answer::List(ListPage { items: Vec::new(), more: false }), Answer::Refused(Code::NotAllowed)];
    let expected = [1, 2].map(QueryId).into_iter().zip(answers).map(|(query, of)| Event::Answer(query, of));
    assert_eq!(play.events, expected.collect::<Vec<_>>());
}

/// The fragments of so many bytes, of which a client never gets all.
fn pieces(bytes: usize) -> Vec<Fragment> {
    fragment::split(1, &vec![7; bytes])
}

#[test]
fn an_answer_is_acknowledged_soon_and_sixteen_pieces_at_once_also_by_one_who_does_not_receive() {
    for receives in [true, false] {
        let mut play = Play::new();
        play.machine.inbox = Inbox::new(receives, PlantedBug::default());
        play.connect();
        // Between two keepalives, which acknowledge too.
        play.pass(400);
        let acks = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_)));
        play.input(list(1));
        play.sent.clear();
        play.from(3, 1, 3, empty_page(1));
        assert_eq!(play.until(|play| acks(play) > 0), Duration::from_millis(10));
        play.sent.clear();
        for (number, piece) in (1..=16).zip(pieces(20_000)) {
            assert_eq!(acks(&play), 0, "before piece {number}");
            play.from(3, 1, 3, ToClient::Fragment(piece));
        }
        assert_eq!(acks(&play), 1);
        // A piece that comes again is acknowledged again: the ack was lost.
        play.sent.clear();
        play.from(3, 1, 3, ToClient::Fragment(pieces(20_000).swap_remove(0)));
        assert_eq!(play.until(|play| acks(play) > 0), Duration::from_millis(10));
    }
}

#[test]
fn only_what_the_primary_of_the_highest_view_sends_is_acknowledged_soon() {
    let mut play = Play::new();
    play.connect();
    play.pass(400);
    play.sent.clear();
    play.from(2, 1, 3, ToClient::Fragment(pieces(3_000).swap_remove(0)));
    play.pass(20);
    assert_eq!(play.sent_to(2, |packet| matches!(packet, ToServer::ClientAck(_))), 0);
    assert_eq!(play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_))), 0);
}

#[test]
fn a_question_is_not_asked_again_while_pieces_come_but_for_a_second_at_most() {
    let asked = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::Query(_)));
    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    for piece in pieces(60_000).into_iter().take(3) {
        play.from(3, 1, 3, ToClient::Fragment(piece));
        play.pass(20);
    }
    assert_eq!(asked(&play), 1);
    // The last piece came 20 ms ago.
    assert_eq!(play.until(|play| asked(play) == 2), Duration::from_millis(80));

    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    let began = play.now;
    let mut pieces = pieces(60_000).into_iter();
    while asked(&play) == 1 {
        play.from(3, 1, 3, ToClient::Fragment(pieces.next().expect("it is asked again before")));
        play.pass(20);
    }
    assert_eq!(play.now.since(began), ASK_AGAIN_MAX, "they may be of a notification");
    // One that was refused is asked again when told.
    let busy = Refused::new(Code::Busy, Answers::Query(QueryId(1)), 40);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.from(3, 1, 3, ToClient::Fragment(pieces.next().expect("another piece")));
    let waited = play.until(|play| asked(play) == 3);
    assert!(about(40).contains(&waited), "{waited:?}");
}

#[test]
fn a_server_silent_since_the_last_keepalive_gets_a_hello_with_the_next_one() {
    let mut play = Play::new();
    play.connect();
    play.pass(200);
    play.from(3, 1, 3, ToClient::Ping);
    play.from(1, 1, 3, ToClient::Ping);
    play.hellos.clear();
    play.sent.clear();
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(play.hellos, [2]);
    // None of them has said anything since.
    play.sent.clear();
    play.hellos.clear();
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(play.hellos, [1, 2, 3]);
}

#[test]
fn a_request_that_is_lost_goes_again_after_the_time_out_of_the_link() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    // As long as nobody knows how long a round trip is.
    assert_eq!(play.until(|play| play.sends().len() == 2), Duration::from_millis(200));
    let waited = play.until(|play| play.sends().len() == 3);
    assert!(waited > Duration::from_millis(200) && waited <= Duration::from_secs(1), "{waited:?}");
    // What is answered after 10 ms is lost after three times as long.
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.pass(10);
    play.from(3, 1, 3, ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE }));
    play.input(say("two"));
    assert_eq!(play.until(|play| play.sends().len() == 3), Duration::from_millis(30));
}

#[test]
fn many_datagrams_of_a_primary_are_acknowledged_at_once_also_by_a_client_that_does_not_receive() {
    let mut play = Play::new();
    play.machine.inbox = Inbox::new(false, PlantedBug::default());
    play.connect();
    let acks = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_)));
    for number in 1..=4 * ACK_EVERY {
        play.from(3, 1, 3, ToClient::Ping);
        let least = number / (ACK_EVERY + 1);
        assert!(acks(&play) >= least as usize && acks(&play) <= 4, "{} after {number}", acks(&play));
    }
}

#[test]
fn a_new_primary_gets_the_cursor_at_once() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.input(Input::Taken(Op(12)));
    play.pass(100);
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.sent.clear();
    play.resumed(2, 2);
    let upto = |(to, packet): &(u16, ToServer)| match packet {
        ToServer::ClientAck(ack) => Some((*to, ack.upto.op().unwrap())),
        _ => None,
    };
    assert_eq!(play.sent.iter().filter_map(upto).collect::<Vec<_>>(), [(2, Op(12))]);
}

#[test]
fn only_an_accept_of_the_last_connect_in_no_lower_view_than_seen_counts() {
    let mut play = Play::new();
    play.from(1, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    let nonce = play.nonce();
    let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    for (nonce, view, opens) in [(nonce + 1, (2, 2), false), (nonce, (1, 3), false), (nonce, (3, 3), true)] {
        let (session, coordinator) = (SESSION, coordinator(view.0, view.1));
        let accept = AcceptConn {
            nonce,
            session,
            coordinator,
            secret: secret.clone(),
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        play.from(1, 2, 2, ToClient::AcceptConn(accept));
        assert_eq!(play.machine.session.is_some(), opens, "nonce {nonce}, view {view:?}");
    }
    let resumes = [2, 3].map(|node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_))) > 0);
    assert_eq!(resumes, [false, true], "it goes on with the primary that it was told");
}

#[test]
fn the_acceptance_of_a_client_names_the_other_servers() {
    let mut play = Play::new();
    let (nonce, coordinator) = (play.nonce(), coordinator(1, 1));
    let secret = handshake_config(1, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    play.from(
        1,
        1,
        1,
        ToClient::AcceptConn(AcceptConn {
            nonce,
            session: SESSION,
            coordinator,
            secret,
            aead: Default::default(),
            options: OptionalFields::NONE,
        }),
    );
    assert!(play.hellos.contains(&2) && play.hellos.contains(&3), "{:?}", play.hellos);
}

#[test]
fn a_session_that_is_opened_after_another_begins_as_the_first_one_did() {
    // Before the keepalive of the first one would have been due, and when it is silent for long.
    for between in [300, 6_000] {
        let mut play = Play::new();
        play.accept();
        play.pass(3_000);
        let over = Refused::new(Code::SessionOver, Answers::Session, 0);
        play.from(3, 1, 3, ToClient::Error(over));
        play.pass(between);
        play.sent.clear();
        play.accept();
        let kept_alive = |play: &Play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0;
        assert!(kept_alive(&play), "at once, after {between} ms");
        play.sent.clear();
        assert_eq!(play.until(kept_alive), KEEPALIVE_FIRST, "after {between} ms");
    }
}

#[test]
fn a_client_rejected_for_a_transient_reason_connects_again_after_retry_ms() {
    let exactly = |ms| Duration::from_millis(ms)..Duration::from_micros(ms * 1_000 + 1);
    for (code, retry_ms, other, expected) in [
        (Code::NotPrimary, 30, 0, exactly(30)),
        (Code::NotPrimary, 900, 0, about(100)),
        (Code::Busy, 500, 0, exactly(500)),
        (Code::Busy, 10, 0, about(100)),
        (Code::NotPrimary, 30, 1, about(100)),
        (Code::WrongInvite, 30, 1, about(100)),
    ] {
        let mut play = Play::new();
        let reject = RejectConn::new(play.nonce() + other, code, retry_ms);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        let wait = play.machine.next_deadline().map(|at| at.since(play.now));
        assert!(wait.is_some_and(|wait| expected.contains(&wait)), "{code:?} {retry_ms} {other}: {wait:?}");
    }
}

#[test]
fn a_resume_ok_counts_once_and_only_from_the_primary_of_the_highest_view_and_for_that_view() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.resumed(1, 3);
    assert_eq!(play.sends(), [], "nothing was asked to go on");
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    for (node, view, counts) in
        [(1, (2, 2), false), (2, (1, 3), false), (2, (3, 2), false), (2, (2, 2), true)]
    {
        let coordinator = coordinator(view.0, view.1);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(node, 2, 2, ToClient::ResumeOk(resumed));
        assert_eq!(!play.sends().is_empty(), counts, "{node} of view {view:?}");
    }
}

#[test]
fn the_oldest_request_that_is_too_far_ahead_is_resent_after_retry_ms() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    let far = Refused::new(Code::TooFarAhead, Answers::Request(Seq(5)), 50);
    play.from(3, 1, 3, ToClient::Error(far));
    assert_eq!(play.until(|play| !play.sends().is_empty()), Duration::from_millis(50));
}

#[test]
fn the_loss_of_the_only_answered_request_is_reported() {
    for (given, lost) in [(0, None), (1, Some(1)), (2, Some(2))] {
        let mut play = Play::new();
        (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Seq(given));
        play.accept();
        let coordinator = coordinator(1, 3);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(0),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        let reported = play.events.iter().find_map(|event| match event {
            Event::ServersSetBack { answered, .. } => Some(answered.0),
            _ => None,
        });
        assert_eq!(reported, lost, "{:?}", play.events);
    }
}

#[test]
fn a_client_sends_keepalives_as_often_as_the_server_tells_it_within_bounds() {
    for (told, obeyed) in [(5_000, 5_000), (0, 1_000), (u32::MAX, 20_000)] {
        let mut play = Play::new();
        play.accept();
        play.resumed_with(1, 3, told);
        // The first keepalives of a session come sooner; and while the primary is heard, none is a search for
        // it.
        let mut sent = Vec::new();
        while sent.len() < 12 {
            let before = play.sent_to(1, |packet| *packet == ToServer::keepalive());
            play.pass(500);
            play.from(3, 1, 3, ToClient::Ping);
            if play.sent_to(1, |packet| *packet == ToServer::keepalive()) > before {
                sent.push(play.now);
            }
        }
        let waited = sent[11].since(sent[10]).as_millis() as u64;
        assert!(waited.abs_diff(obeyed) <= 500, "{told} ms: {waited}");
    }
}
