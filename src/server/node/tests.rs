//! A server among forged datagrams: every packet well formed, every value extreme. Nothing panics,
//! nothing spins, and what one datagram costs is bounded.

use std::time::Duration;

use super::*;
use crate::config::{Cluster, Limits, Member, Preempt, Retention, Timing};
use crate::id::{DeviceId, DeviceKey, Seq, Topic};
use crate::journal::Meta;
use crate::wire::envelope::{Ack, Class, Envelope};
use crate::wire::packet::*;
use crate::wire::{Header, codec::encode};

const ME: NodeId = NodeId(2);

fn config() -> Config {
    let member = |id: u16| Member {
        id: NodeId(id),
        client: ([127, 0, 0, 1], 10_000 + id).into(),
        peer: ([127, 0, 0, 1], 11_000 + id).into(),
    };
    Config {
        cluster: Cluster { id: ClusterId(7), me: ME, members: (1..=3).map(member).collect() },
        timing: Timing::DEFAULT,
        preempt: Preempt::Graceful,
        limits: Limits::default(),
        retention: Retention::default(),
        snapshot_every: Duration::from_secs(60),
        snapshot_bytes: 64 << 20,
        planted: Default::default(),
    }
}

/// A server whose journal is prompt, if it is not told to owe.
struct Rig {
    node: Node,
    clock: Clock,
    number: u64,
    heard: u64,
    owes: bool,
    ticket: u64,
    sent: Vec<(NodeId, Opened)>,
    reads: usize,
    promises: usize,
    told: Vec<delivery::Input>,
}

impl Rig {
    fn new(voter: bool) -> Rig {
        let config = config();
        let members = config.cluster.members.iter().map(|member| member.id).collect();
        let meta = Meta {
            cluster: ClusterId(7),
            node: ME,
            members,
            voter,
            incarnation: Incarnation(1),
            promised: View::ZERO,
        };
        let recovered = Recovered { meta, snapshot: None, entries: Vec::new(), lost: None };
        let clock = Clock { now: Moment(1_000_000), unix_ms: 1 };
        let mut out = Vec::new();
        let node = Node::new(config, recovered, 1, clock, &mut out).unwrap();
        let (sent, told) = Default::default();
        let mut rig = Rig {
            node,
            clock,
            number: 0,
            heard: 0,
            owes: false,
            ticket: 0,
            sent,
            reads: 0,
            promises: 0,
            told,
        };
        rig.note(out);
        rig
    }

    fn note(&mut self, effects: Vec<Effect>) {
        let mut waiting = std::collections::VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            let mut out = Vec::new();
            match effect {
                Effect::Peer { to, bytes } => {
                    let opened = crate::wire::envelope::open(&bytes).unwrap();
                    if to == NodeId(1) {
                        self.heard = self.heard.max(opened.envelope.number);
                    }
                    self.sent.push((to, opened));
                }
                Effect::Journal { ticket, task } => {
                    self.promises += usize::from(matches!(task, Task::Promise(_)));
                    self.ticket = ticket;
                    if !self.owes {
                        self.node.handle(self.clock, Input::Journaled(ticket), &mut out);
                    }
                }
                Effect::Snapshot(image) => {
                    self.node.handle(self.clock, Input::SnapshotDone(image.op), &mut out);
                }
                Effect::ReadSnapshot { to, .. } => {
                    self.reads += 1;
                    if !self.owes {
                        self.node.handle(self.clock, Input::SnapshotRead { to, piece: None }, &mut out);
                    }
                }
                Effect::Delivery(input) => self.told.push(input),
                Effect::Role(_) | Effect::Waiting(_) | Effect::Refused(_) | Effect::Stopped => {}
            }
            waiting.extend(out);
        }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.node.handle(self.clock, input, &mut out);
        self.note(out);
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        self.node.flush(self.clock, &mut out);
        self.note(out);
    }

    /// One datagram of a peer with these packets, as they would be opened.
    fn peer(&mut self, from: u16, packets: Vec<Packet>) {
        self.number += 1;
        let envelope = Envelope {
            class: Class::Peer,
            cluster: ClusterId(7),
            session: SessionId::default(),
            node: Some(NodeId(from)),
            incarnation: Incarnation(1),
            number: self.number,
        };
        let ack = (self.heard > 0).then_some(Ack { largest: self.heard, bits: u64::MAX });
        let header = Header { ack, view: View::ZERO };
        let packets = packets.into_iter().filter(|packet| packet.check().is_ok()).collect();
        self.input(Input::Peer(Opened { envelope, header, packets }));
    }

    fn client(&mut self, session: u64, packet: Packet) {
        let from = ([127, 0, 0, 9], 4_000).into();
        self.input(Input::Client { session: SessionId(Op(session)), from, packet });
    }

    /// Time passes; a server that is due again and again at the same moment spins.
    fn pass(&mut self, time: Duration) {
        let end = self.clock.now + time;
        let mut turns = 0_u64;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 10 + time.as_millis() as u64, "{turns} turns in {time:?}: it spins");
            self.clock.now = at.max(self.clock.now);
            self.clock.unix_ms += 1;
            self.input(Input::Deadline);
            self.flush();
        }
        self.clock.now = end;
    }

    /// Makes it the primary: peer 1 agrees to all it asks.
    fn lead(&mut self) {
        for _ in 0..4_000 {
            if self.node.role() == RoleName::Primary {
                return;
            }
            self.pass(Duration::from_millis(5));
            self.answer_as_a_backup();
        }
        panic!("it does not lead");
    }

    /// Peer 1 agrees, promises, echoes and acknowledges.
    fn answer_as_a_backup(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        for packet in
            sent.into_iter().filter(|(to, _)| *to == NodeId(1)).flat_map(|(_, opened)| opened.packets)
        {
            let view = self.node.promised();
            let answer = match packet {
                Packet::Election(Election::Probe { view, .. }) => Packet::Reply(Reply::Agree { view }),
                Packet::Election(Election::Prepare { view, .. }) => {
                    let (last_view, last_op, commit) = (View::ZERO, Op::ZERO, Op::ZERO);
                    let index = vec![(View::ZERO, Op::ZERO)];
                    Packet::Reply(Reply::Promise(Promise {
                        view,
                        last_view,
                        last_op,
                        commit,
                        index,
                        unknown: None,
                        lives: Vec::new(),
                    }))
                }
                Packet::Heartbeat(beat) => {
                    Packet::Heartbeat(Heartbeat { state: HeartbeatState::Backup, promised: view, ..beat })
                }
                Packet::Entries(entries) => {
                    let matched = entries.entries.last().map_or(entries.prev_op, |entry| entry.op);
                    let (durable, applied) = (matched, Op::ZERO);
                    Packet::EntriesAck(EntriesAck { view, durable, matched, applied, rejected: false })
                }
                _ => continue,
            };
            self.peer(1, vec![answer]);
        }
        self.flush();
    }

    /// Lets time pass while peer 1 lives.
    fn live(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            self.pass(Duration::from_millis(5));
            self.answer_as_a_backup();
        }
    }

    fn connect(&mut self, n: u8, profile: &str) -> SessionId {
        self.told.clear();
        self.client(
            0,
            Packet::Connect(Connect {
                device: DeviceId { key: DeviceKey([n; 32]), slot: 0 },
                profile: profile.parse().unwrap(),
                receives: true,
                nonce: n.into(),
                cursor: None,
                fresh: true,
            }),
        );
        self.live(100);
        let accepted = self.told.iter().find_map(|input| match input {
            delivery::Input::AnswerTo { packet: Packet::AcceptConn(accept), .. } => Some(accept.session),
            _ => None,
        });
        accepted.expect("it is let in")
    }
}

/// Numbers by chance, most of them at the edges.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn edge(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - self.below(3),
            3 => 1 << self.below(64),
            4 => self.next(),
            _ => self.below(12),
        }
    }

    fn op(&mut self) -> Op {
        Op(self.edge())
    }

    /// Of `near`, of another server near it, or of anybody anywhen.
    fn view(&mut self, near: View) -> View {
        match self.below(10) {
            0 => View(self.edge()),
            1 => View::ZERO,
            2 => View::new(near.round() + 1, NodeId(1 + self.below(3) as u16)),
            3 => View::new(near.round(), NodeId(1 + self.below(3) as u16)),
            4 => View::new(View::ROUND_MAX - self.below(2), NodeId(1 + self.below(4) as u16)),
            _ => near,
        }
    }

    fn entries(&mut self, near: View) -> Entries {
        let (prev_op, prev_view) = (self.op(), self.view(near));
        let view = self.view(near);
        let mut at = prev_view;
        let entries = (0..self.below(4)).map(|n| {
            at = at.max(self.view(near));
            let kind = if self.flip() { EntryKind::ViewStart } else { EntryKind::Command };
            let payload = vec![n as u8; self.below(40) as usize].into();
            Entry { op: Op(prev_op.0.wrapping_add(1 + n)), view: at, kind, payload }
        });
        let entries = entries.collect();
        let fetch = self.flip().then(|| QueryId(self.edge()));
        Entries { view, fetch, prev_op, prev_view, commit: self.op(), entries }
    }

    fn reply(&mut self, near: View) -> Reply {
        let view = self.view(near);
        match self.below(5) {
            0 => Reply::Agree { view },
            1 => Reply::Alive { view },
            2 => Reply::Bully { view },
            3 => Reply::Refuse { promised: view },
            _ => Reply::Promise(Promise {
                view,
                last_view: self.view(near),
                last_op: self.op(),
                commit: self.op(),
                index: (0..self.below(4)).map(|_| (self.view(near), self.op())).collect(),
                unknown: self.flip().then(|| Unknown {
                    first: self.op(),
                    last: self.op(),
                    view_max: self.view(near),
                }),
                lives: (0..self.below(3))
                    .map(|n| (NodeId(1 + n as u16), Incarnation(self.below(3))))
                    .collect(),
            }),
        }
    }

    fn peer_packet(&mut self, near: View, members: u64) -> Packet {
        let view = self.view(near);
        match self.below(13) {
            0 | 1 => Packet::Heartbeat(Heartbeat {
                view,
                state: [
                    HeartbeatState::Backup,
                    HeartbeatState::Opening,
                    HeartbeatState::Active,
                    HeartbeatState::Isolated,
                ][self.below(4) as usize],
                commit: self.op(),
                last: self.op(),
                beat: self.edge(),
                promised: self.view(near),
                leaving: self.flip(),
                incarnation: Incarnation(self.edge()),
                members,
            }),
            2 => Packet::Election(Election::Probe { view, last: (self.view(near), self.op()) }),
            3 => Packet::Election(Election::Prepare { view, progress: self.edge() }),
            4 => Packet::Reply(self.reply(near)),
            5 => Packet::Coordinator(Coordinator { view, members: Vec::new() }),
            6 => Packet::Entries(self.entries(near)),
            7 => Packet::EntriesAck(EntriesAck {
                view,
                durable: self.op(),
                matched: self.op(),
                applied: self.op(),
                rejected: self.flip(),
            }),
            8 => {
                Packet::Fetch(Fetch { query: QueryId(self.edge()), view, after: self.op(), upto: self.op() })
            }
            9 => Packet::SnapshotGet(SnapshotGet {
                op: self.op(),
                offset: self.edge(),
                chunks: self.next() as u16,
            }),
            10 => {
                let total = [1, 9, 1 << 30, u64::MAX][self.below(4) as usize];
                let bytes = vec![7; 1 + self.below(20) as usize];
                let (op, crc) = (self.op(), if self.flip() { 1 } else { crc32c::crc32c(&bytes) });
                Packet::SnapshotChunk(SnapshotChunk { op, view, offset: self.edge(), total, crc, bytes })
            }
            11 => Packet::Transfer(Transfer { view, last: self.op() }),
            _ if self.flip() => Packet::Learn(Learn { nonce: self.edge() }),
            _ => Packet::LearnOk(LearnOk { nonce: self.edge(), promised: view }),
        }
    }

    fn client_packet(&mut self) -> Packet {
        let content = Content {
            title: None,
            priority: Default::default(),
            tags: Vec::new(),
            body: "x".repeat(self.below(50) as usize),
        };
        let names = ["alice", "bob", "nobody"];
        let name = || -> crate::id::Name { names[0].parse().unwrap() };
        let topics = [
            None,
            Some(Topic::Feed(name())),
            Some(Topic::Channel(name())),
            Some(Topic::Inbox(names[self.below(3) as usize].parse().unwrap())),
        ];
        let topic = topics[self.below(4) as usize].clone();
        let query = QueryId(self.edge());
        match self.below(10) {
            0 => Packet::Connect(Connect {
                device: DeviceId { key: DeviceKey([self.below(3) as u8; 32]), slot: self.next() as u8 },
                profile: names[self.below(3) as usize].parse().unwrap(),
                receives: self.flip(),
                nonce: self.edge(),
                cursor: self.flip().then(|| self.op()),
                fresh: self.flip(),
            }),
            1 => Packet::Disconnect(Disconnect { upto: self.op() }),
            2 | 3 => {
                Packet::Send(Send { seq: Seq(self.edge()), answered_below: Seq(self.edge()), topic, content })
            }
            4 => Packet::Follow(Follow {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                topic: topic.unwrap_or(Topic::Feed(name())),
                change: if self.flip() { FollowChange::Add } else { FollowChange::Remove },
            }),
            5 => Packet::History(History {
                query,
                topic,
                range: match self.below(3) {
                    0 => HistoryRange::Before(self.op()),
                    1 => HistoryRange::After(self.op()),
                    _ => HistoryRange::SinceMs(self.edge()),
                },
                limit: self.edge() as u32,
            }),
            6 => {
                let all = [
                    Listing::Following,
                    Listing::Followers,
                    Listing::Devices,
                    Listing::Channels,
                    Listing::People,
                ];
                let after = [None, Some("\u{0}".to_owned()), Some("zz".to_owned()), Some("É".repeat(60))];
                let (what, after) = (all[self.below(5) as usize], after[self.below(4) as usize].clone());
                Packet::List(List { query, what, after })
            }
            7 => Packet::RequestUserInfo(RequestUserInfo { query, profile: self.flip().then(name) }),
            8 => Packet::Resume(Resume { cursor: self.op(), credit: self.edge() as u32 }),
            _ if self.flip() => Packet::Status(query),
            _ => Packet::Keepalive,
        }
    }
}

fn digest_of(rig: &mut Rig) -> u64 {
    rig.pass(Duration::from_secs(1));
    let beat = |(_, opened): &(NodeId, Opened)| {
        opened.packets.iter().find_map(|packet| match packet {
            Packet::Heartbeat(beat) => Some(beat.members),
            _ => None,
        })
    };
    rig.sent.iter().find_map(beat).unwrap_or_default()
}

/// Tells which seed it was if something panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn whatever_peers_and_clients_forge_a_server_neither_panics_nor_spins() {
    let members = {
        let mut rig = Rig::new(true);
        rig.lead();
        digest_of(&mut rig)
    };
    for seed in 0..240 {
        let told = Seed(seed);
        let mut chance = Chance(seed);
        let mut rig = Rig::new(seed % 8 != 7);
        if seed % 2 == 0 {
            rig.lead();
        }
        for n in 0..400 {
            let near = rig.node.promised();
            match chance.below(8) {
                0 => rig.pass(Duration::from_millis(chance.below(300))),
                1 => rig.input(Input::WantPage {
                    session: SessionId(chance.op()),
                    after: chance.op(),
                    limit: chance.edge() as u32,
                }),
                2 => rig.input(Input::Cursor(SessionId(chance.op()), chance.op())),
                3 | 4 => {
                    let session = chance.below(8);
                    let packet = chance.client_packet();
                    rig.client(session, packet);
                }
                5 if n % 3 == 0 => rig.answer_as_a_backup(),
                _ => {
                    let from = chance.below(5) as u16;
                    let packet = chance.peer_packet(near, members);
                    rig.peer(from, vec![packet]);
                }
            }
            if chance.flip() {
                rig.flush();
            }
            rig.sent.drain(..rig.sent.len().saturating_sub(64));
            rig.told.clear();
        }
        rig.pass(Duration::from_secs(3));
        drop(told);
    }
}

#[test]
fn a_round_that_leaves_no_higher_one_is_not_believed() {
    let mut rig = Rig::new(true);
    for packet in [
        Packet::Election(Election::Prepare { view: View::new(View::ROUND_MAX, NodeId(3)), progress: 0 }),
        Packet::Coordinator(Coordinator { view: View::new(View::ROUND_MAX, NodeId(3)), members: Vec::new() }),
        Packet::Election(Election::Probe {
            view: View::new(View::ROUND_MAX, NodeId(3)),
            last: (View::ZERO, Op::ZERO),
        }),
    ] {
        rig.peer(3, vec![packet]);
    }
    assert_eq!(rig.node.promised(), View::ZERO);
    rig.lead();
}

#[test]
fn a_storm_of_views_does_not_outrun_the_disk() {
    let mut rig = Rig::new(true);
    rig.owes = true;
    for round in 1..=10_000 {
        let view = View::new(round, NodeId(3));
        rig.peer(3, vec![Packet::Election(Election::Prepare { view, progress: 0 })]);
    }
    assert!(rig.promises <= 64, "{} promises wait for the disk", rig.promises);
    rig.owes = false;
    rig.input(Input::Journaled(rig.ticket));
    let view = View::new(20_000, NodeId(3));
    rig.peer(3, vec![Packet::Election(Election::Prepare { view, progress: 0 })]);
    assert_eq!(rig.node.promised(), view);
}

#[test]
fn a_snapshot_is_read_once_at_a_time_for_each_peer() {
    let mut rig = Rig::new(true);
    rig.owes = true;
    for offset in 0..10_000 {
        rig.peer(3, vec![Packet::SnapshotGet(SnapshotGet { op: Op(1), offset, chunks: 64 })]);
    }
    assert_eq!(rig.reads, 1);
    rig.input(Input::SnapshotRead { to: NodeId(3), piece: None });
    assert_eq!(rig.reads, 2, "the newest question is still answered");
    rig.input(Input::SnapshotRead { to: NodeId(3), piece: None });
    assert_eq!(rig.reads, 2);
}

#[test]
fn a_flood_of_questions_is_not_answered_with_thousands_of_times_its_size() {
    let mut rig = Rig::new(true);
    let view = View::new(1, NodeId(3));
    let entries = |first: u64| {
        let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: vec![1; 1_000].into() };
        (first..first + 32).map(entry).collect()
    };
    for first in [1, 33, 65, 97, 129, 161, 193, 225] {
        let prev_view = if first == 1 { View::ZERO } else { view };
        let (prev_op, commit) = (Op(first - 1), Op::ZERO);
        let cast = Entries { view, fetch: None, prev_op, prev_view, commit, entries: entries(first) };
        rig.peer(3, vec![Packet::Entries(cast)]);
    }
    rig.flush();
    rig.sent.clear();
    let fetch = Fetch { query: QueryId(1), view, after: Op::ZERO, upto: Op(u64::MAX) };
    for _ in 0..20 {
        rig.peer(3, vec![Packet::Fetch(fetch); 100]);
    }
    rig.flush();
    let bytes: usize =
        rig.sent.iter().flat_map(|(_, opened)| &opened.packets).map(|packet| encode(packet).len()).sum();
    assert!(bytes < 4 << 20, "{bytes} bytes of answers at once");
}

#[test]
fn disconnect_said_again_is_logged_once() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    rig.owes = true;
    let before = rig.node.replica.last();
    for _ in 0..1_000 {
        rig.client(session.0.0, Packet::Disconnect(Disconnect { upto: Op(u64::MAX) }));
    }
    assert_eq!(rig.node.replica.last().0 - before.0, 2, "a cursor and the end");
}

#[test]
fn requests_held_for_numbers_that_never_come_are_bounded_over_all_sessions() {
    let mut rig = Rig::new(true);
    rig.lead();
    let sessions: Vec<SessionId> = (0..80_u8).map(|n| rig.connect(n, &format!("profile-{n}"))).collect();
    let content =
        Content { title: None, priority: Default::default(), tags: Vec::new(), body: "x".to_owned() };
    for session in &sessions {
        for seq in 3..80 {
            let send = Send { seq: Seq(seq), answered_below: Seq(0), topic: None, content: content.clone() };
            rig.client(session.0.0, Packet::Send(send));
        }
    }
    assert_eq!(rig.node.under_way.held(), 4_096);
    for session in &sessions {
        rig.client(session.0.0, Packet::Disconnect(Disconnect { upto: Op::ZERO }));
    }
    rig.live(200);
    assert_eq!(rig.node.under_way.held(), 0, "what is over holds nothing");
}

#[test]
fn a_promise_fits_a_packet_however_many_views_the_log_has() {
    let mut rig = Rig::new(true);
    let view = View::new(20_000, NodeId(3));
    let mut prev = View::ZERO;
    for op in 1..=16_000 {
        let (prev_op, prev_view) = (Op(op - 1), prev);
        prev = View::new(op, NodeId(3));
        let entry = Entry { op: Op(op), view: prev, kind: EntryKind::ViewStart, payload: [].into() };
        let cast = Entries { view, fetch: None, prev_op, prev_view, commit: Op::ZERO, entries: vec![entry] };
        rig.peer(3, vec![Packet::Entries(cast)]);
    }
    rig.flush();
    assert_eq!(rig.node.replica.last(), Op(16_000));
    rig.sent.clear();
    let view = View::new(20_001, NodeId(1));
    rig.number = 0;
    rig.peer(1, vec![Packet::Election(Election::Prepare { view, progress: 0 })]);
    rig.flush();
    assert!(rig.sent.iter().any(|(to, _)| *to == NodeId(1)), "the promise is said");
}
