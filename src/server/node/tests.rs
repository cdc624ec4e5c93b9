//! Tests of a node among forged datagrams: every packet is well formed, every value extreme. Nothing panics,
//! nothing spins, and the cost of one datagram is bounded.

use std::time::Duration;

use recado_log::journal::Meta;
use recado_proto::Link;
use recado_proto::codec::encode;
use recado_proto::entry::Unknown;
use recado_proto::envelope::{self, Class, Envelope, Opened, PeerHello};
use recado_proto::id::{DeviceId, DeviceKey, Priority, Seq, Topic};
use recado_proto::noise::{self, OPENING_LEN};
use recado_proto::packet::*;
use recado_proto::seal::Key;

use super::*;
use crate::config::{Cluster, Limits, Member, Preempt, Retention, Timing};
use crate::delivery::ReplyTo;
use crate::server::handshake::tests::handshake_config;

const ME: NodeId = NodeId(2);

const RESUME: Packet = Packet::Resume(Resume { cursor: None, credit: 256 });

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
        admission: Default::default(),
        snapshot_every: Duration::from_secs(60),
        snapshot_bytes: 64 << 20,
        planted: Default::default(),
    }
}

/// A peer of the server, simulated by the test.
struct Other {
    link: Link,
    /// The key that the server seals with for the peer.
    receive: Key,
}

impl Other {
    fn new(from: NodeId) -> Other {
        let (keys, boot_id) = (handshake_config(ME.0, 1).keys, handshake_config(from.0, 1).boot_id);
        let me = (ME, handshake_config(ME.0, 1).boot_id);
        let envelope = Envelope { class: Class::Peer, number: 0, ..envelope_of(from) };
        Other {
            link: Link::new(envelope, keys.peer((from, boot_id), ME, Some(me.1))),
            receive: keys.peer(me, from, Some(boot_id)),
        }
    }
}

fn envelope_of(from: NodeId) -> Envelope {
    Envelope {
        class: Class::PeerHello,
        cluster: ClusterId(7),
        session: SessionId::default(),
        node: Some(from),
        incarnation: Incarnation(1),
        number: 1,
    }
}

/// The sender of an INITIATION.
fn reply_to() -> ReplyTo {
    let reply = noise::Reply { opening: [0; OPENING_LEN], key: Key::new([0; 32]) };
    ReplyTo { to: ([127, 0, 0, 9], 4_000).into(), reply }
}

/// A server whose journal reports at once, unless `owes` is set.
struct Rig {
    node: Node,
    clock: Clock,
    others: BTreeMap<NodeId, Other>,
    refused: Vec<RefusedDatagram>,
    owes: bool,
    ticket: u64,
    sent: Vec<(NodeId, Opened)>,
    reads: usize,
    snapshots: usize,
    /// Peers that came with an earlier incarnation: the server, its incarnation, and the latest seen.
    earlier: Vec<(u16, u64, u64)>,
    promises: usize,
    told: Vec<delivery::Input>,
    /// Sessions whose clients may send.
    known: std::collections::BTreeSet<SessionId>,
    administered: Vec<(AdminChange, Op)>,
    /// Reported differences of the wall clock from the log's time.
    away: Vec<i64>,
    beyond: Vec<(SessionId, Op, Op)>,
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
            known: Vec::new(),
        };
        let recovered = Recovered { meta, snapshot: None, entries: Vec::new(), commit: Op::ZERO, lost: None };
        let clock = Clock { now: Moment(1_000_000), unix_ms: 1 };
        let mut out = Vec::new();
        let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
        let node = Node::new(config, recovered, BootIdentity { id, keys, seed: 1 }, clock, &mut out).unwrap();
        let (others, refused, sent, told, known, administered, beyond) = Default::default();
        let mut rig = Rig {
            node,
            clock,
            others,
            refused,
            owes: false,
            ticket: 0,
            sent,
            reads: 0,
            snapshots: 0,
            earlier: Vec::new(),
            promises: 0,
            told,
            known,
            administered,
            away: Vec::new(),
            beyond,
        };
        rig.note(out);
        [1, 3].into_iter().for_each(|from| rig.meet(NodeId(from)));
        rig
    }

    /// A peer that knows the server's boot id sends a hello.
    fn meet(&mut self, from: NodeId) {
        let hello = PeerHello {
            mine: handshake_config(from.0, 1).boot_id,
            yours: Some(handshake_config(ME.0, 1).boot_id),
        };
        let key = handshake_config(from.0, 1).keys.peer((from, hello.mine), ME, None);
        self.input(Input::Peer { datagram: hello.seal(&key, &envelope_of(from)), behind: false });
    }

    fn note(&mut self, effects: Vec<Effect>) {
        let mut waiting = std::collections::VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            let mut out = Vec::new();
            match effect {
                Effect::Peer { to, bytes } => {
                    if Envelope::peek(&bytes).unwrap().class == Class::Peer {
                        let other = self.others.entry(to).or_insert_with(|| Other::new(to));
                        let opened = envelope::open(&other.receive, &bytes).unwrap();
                        other.link.receive(self.clock.now, opened.envelope.number, opened.header.ack);
                        self.sent.push((to, opened));
                    }
                }
                Effect::Refused(reason) => self.refused.push(reason),
                Effect::Journal { ticket, task } => {
                    self.promises += usize::from(matches!(task, Task::Promise(_)));
                    self.ticket = ticket;
                    if !self.owes {
                        self.node.handle(self.clock, Input::Journaled(ticket), &mut out);
                    }
                }
                Effect::Snapshot(image) => {
                    self.snapshots += 1;
                    self.node.handle(self.clock, Input::SnapshotDone(image.op), &mut out);
                }
                Effect::ReadSnapshot { to, .. } => {
                    self.reads += 1;
                    if !self.owes {
                        self.node.handle(self.clock, Input::SnapshotRead { to, piece: None }, &mut out);
                    }
                }
                Effect::Delivery(input) => self.told.push(input),
                Effect::SessionKnown { session, .. } => {
                    self.known.insert(session);
                }
                Effect::SessionGone(session) => assert!(self.known.remove(&session), "it was known"),
                Effect::Administered { change, op } => self.administered.push((change, op)),
                Effect::StaleIncarnation { server, incarnation, latest } => {
                    self.earlier.push((server.0, incarnation.0, latest.0));
                }
                Effect::ClockAway(ms) => self.away.push(ms),
                Effect::BeyondEnd { session, cursor, applied } => {
                    self.beyond.push((session, cursor, applied));
                }
                Effect::Role(_)
                | Effect::Waiting(_)
                | Effect::Contradicted(_)
                | Effect::Overwritten { .. }
                | Effect::Stopped => {}
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

    /// A peer sends these packets, without the invalid ones, which a server's encoder refuses.
    fn peer(&mut self, from: u16, packets: Vec<Packet>) {
        let packets: Vec<Packet> = packets.into_iter().filter(|packet| packet.check().is_ok()).collect();
        let from = NodeId(from);
        let other = self.others.entry(from).or_insert_with(|| Other::new(from));
        let mut datagrams = Vec::new();
        other.link.transmit(self.clock.now, View::ZERO, &packets, None, &mut datagrams);
        for datagram in datagrams {
            self.input(Input::Peer { datagram, behind: false });
        }
    }

    /// A client sends a packet on its session, or with session zero in a handshake, with the key that the
    /// packet names.
    fn client(&mut self, session: u64, packet: Packet) {
        let key = match &packet {
            Packet::Connect(connect) => connect.device.key,
            _ => DeviceKey([0; 32]),
        };
        match session {
            0 => self.input(Input::Initiation { reply_to: reply_to(), key, packet }),
            _ => self.input(Input::Client { session: SessionId(Op(session)), packet }),
        }
    }

    /// Advances time. The test fails if the server is due again and again at the same moment.
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

    /// Makes the server primary: peer 1 agrees to all its requests.
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
                Packet::Election(Election::Probe { view, .. }) => {
                    Packet::Reply(Reply::Agree { view, disk_ms: 0 })
                }
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
                        incarnations: Vec::new(),
                        disk_ms: 0,
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

    /// Advances time while peer 1 answers.
    fn live(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            self.pass(Duration::from_millis(5));
            self.answer_as_a_backup();
        }
    }

    /// Opens a session that is confirmed and served.
    fn connect(&mut self, n: u8, profile: &str) -> SessionId {
        let session = self.initiation(n, n.into(), profile);
        self.client(session.0.0, RESUME);
        self.live(100);
        assert!(self.resumed(session), "it is served");
        session
    }

    fn resumed(&self, session: SessionId) -> bool {
        self.told.iter().any(|input| match input {
            delivery::Input::Answer { session: of, packet: Packet::ResumeOk(_) } => *of == session,
            _ => false,
        })
    }

    /// Opens a pending session.
    fn initiation(&mut self, n: u8, nonce: u64, profile: &str) -> SessionId {
        self.told.clear();
        self.client(
            0,
            Packet::Connect(Connect {
                device: DeviceId { key: DeviceKey([n; 32]), slot: 0 },
                profile: profile.parse().unwrap(),
                receives: true,
                nonce,
                fresh: true,
                code: None,
                invite: None,
            }),
        );
        self.live(100);
        let accepted = self.told.iter().find_map(|input| match input {
            delivery::Input::AnswerTo { packets, .. } => match &packets[..] {
                [Packet::AcceptConn(accept)] => Some(accept.session),
                _ => None,
            },
            _ => None,
        });
        accepted.expect("it is let in")
    }
}

/// Pseudo-random numbers, most of them at the edges of their range.
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

    /// `near`, a view of another server near it, or any view.
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
        let disk_ms = self.edge() as u32;
        match self.below(6) {
            0 => Reply::Agree { view, disk_ms },
            1 => Reply::Alive { view, disk_ms },
            2 => Reply::Bully { view, disk_ms },
            3 => Reply::Refuse { promised: view },
            4 => Reply::Writing { view, disk_ms },
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
                incarnations: (0..self.below(3))
                    .map(|n| (NodeId(1 + n as u16), Incarnation(self.below(3))))
                    .collect(),
                disk_ms,
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
                disk_ms: self.edge() as u32,
            }),
            2 => Packet::Election(Election::Probe {
                view,
                last: (self.view(near), self.op()),
                disk_ms: self.edge() as u32,
            }),
            3 => prepare(view, self.edge()),
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
            _ => Packet::LearnOk(LearnOk {
                nonce: self.edge(),
                promised: view,
                active: self.flip().then(|| self.op()),
            }),
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
        let name = || -> recado_proto::id::Name { names[0].parse().unwrap() };
        let topics = [
            None,
            Some(Topic::Feed(name())),
            Some(Topic::Channel(name())),
            Some(Topic::Inbox(names[self.below(3) as usize].parse().unwrap())),
        ];
        let topic = topics[self.below(4) as usize].clone();
        let query = QueryId(self.edge());
        match self.below(12) {
            0 => Packet::Connect(Connect {
                device: DeviceId { key: DeviceKey([self.below(3) as u8; 32]), slot: self.next() as u8 },
                profile: names[self.below(3) as usize].parse().unwrap(),
                receives: self.flip(),
                nonce: self.edge(),
                fresh: self.flip(),
                code: self.flip().then(|| CodeHash([self.below(2) as u8; 32])),
                invite: self.flip().then(|| CodeHash([self.below(2) as u8; 32])),
            }),
            1 => Packet::Disconnect(Disconnect { upto: self.op() }),
            2 | 3 => Packet::Send(Send {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                topic,
                content,
                nonce: 0,
            }),
            4 => Packet::Follow(Follow {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                topic: topic.unwrap_or(Topic::Feed(name())),
                change: if self.flip() { FollowChange::Add } else { FollowChange::Remove },
                nonce: 0,
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
                    Listing::Members("ops".parse().unwrap()),
                ];
                let after = [None, Some("\u{0}".to_owned()), Some("zz".to_owned()), Some("É".repeat(60))];
                let (what, after) =
                    (all[self.below(6) as usize].clone(), after[self.below(4) as usize].clone());
                Packet::List(List { query, what, after })
            }
            7 => Packet::RequestUserInfo(RequestUserInfo { query, profile: self.flip().then(name) }),
            8 => {
                Packet::Resume(Resume { cursor: self.flip().then(|| self.op()), credit: self.edge() as u32 })
            }
            9 => Packet::Channel(Channel {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                channel: names[self.below(3) as usize].parse().unwrap(),
                change: match self.below(4) {
                    0 => ChannelChange::Create { private: self.flip() },
                    1 => ChannelChange::Add { member: name(), role: Role::Owner },
                    2 => ChannelChange::Remove { member: name() },
                    _ => ChannelChange::Delete,
                },
                nonce: 0,
            }),
            10 => Packet::Keys(Keys {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                change: if self.flip() {
                    KeyChange::Enrol { code: CodeHash([self.below(2) as u8; 32]) }
                } else {
                    KeyChange::Revoke { key: DeviceKey([self.below(3) as u8; 32]) }
                },
                nonce: 0,
            }),
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

/// Prints the seed if the test panics.
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

fn prepare(view: View, progress: u64) -> Packet {
    Packet::Election(Election::Prepare { view, progress, waits_for: WaitsFor::Disk, disk_ms: 0 })
}

#[test]
fn a_round_that_leaves_no_higher_one_is_not_believed() {
    let mut rig = Rig::new(true);
    for packet in [
        prepare(View::new(View::ROUND_MAX, NodeId(3)), 0),
        Packet::Coordinator(Coordinator { view: View::new(View::ROUND_MAX, NodeId(3)), members: Vec::new() }),
        Packet::Election(Election::Probe {
            view: View::new(View::ROUND_MAX, NodeId(3)),
            last: (View::ZERO, Op::ZERO),
            disk_ms: 0,
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
        rig.peer(3, vec![prepare(view, 0)]);
    }
    assert!(rig.promises <= 64, "{} promises wait for the disk", rig.promises);
    rig.owes = false;
    rig.input(Input::Journaled(rig.ticket));
    let view = View::new(20_000, NodeId(3));
    rig.peer(3, vec![prepare(view, 0)]);
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
fn a_server_that_comes_back_in_an_earlier_life_is_named_and_not_heard() {
    let mut rig = Rig::new(true);
    let hello = |rig: &mut Rig, incarnation| {
        let reborn = handshake_config(1, 10 + incarnation);
        let hello = PeerHello { mine: reborn.boot_id, yours: Some(handshake_config(ME.0, 1).boot_id) };
        let key = reborn.keys.peer((NodeId(1), hello.mine), ME, None);
        let envelope = Envelope { incarnation: Incarnation(incarnation), ..envelope_of(NodeId(1)) };
        rig.input(Input::Peer { datagram: hello.seal(&key, &envelope), behind: false });
    };
    hello(&mut rig, 5);
    hello(&mut rig, 5);
    assert_eq!(rig.earlier, [], "its hello again is no other boot_id");
    hello(&mut rig, 4);
    assert_eq!(rig.earlier, [(1, 4, 5)]);
    hello(&mut rig, 6);
    assert_eq!(rig.earlier, [(1, 4, 5)]);
}

#[test]
fn a_snapshot_is_taken_when_the_log_since_the_last_one_is_long_and_no_sooner() {
    let mut rig = Rig::new(true);
    rig.node.config.snapshot_bytes = 10_000;
    let view = View::new(1, NodeId(3));
    for op in 1..=101 {
        let entry = Entry { op: Op(op), view, kind: EntryKind::Command, payload: vec![1; 1_000].into() };
        let prev_view = if op == 1 { View::ZERO } else { view };
        let (prev_op, commit) = (Op(op - 1), Op(op - 1));
        let cast = Entries { view, fetch: None, prev_op, prev_view, commit, entries: vec![entry] };
        rig.peer(3, vec![Packet::Entries(cast)]);
        rig.flush();
    }
    assert_eq!((rig.node.applied(), rig.snapshots), (Op(100), 10));
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
fn a_session_is_opened_only_for_the_key_that_was_proved_and_its_secret_told_to_its_sender() {
    let mut rig = Rig::new(true);
    rig.lead();
    let device = DeviceId { key: DeviceKey([1; 32]), slot: 0 };
    let profile = "alice".parse().unwrap();
    let packet = Packet::Connect(Connect {
        device,
        profile,
        receives: true,
        nonce: 5,
        fresh: true,
        code: None,
        invite: None,
    });
    let before = rig.node.replica.last();
    let stranger = DeviceKey([2; 32]);
    rig.input(Input::Initiation { reply_to: reply_to(), key: stranger, packet: packet.clone() });
    assert_eq!(rig.node.replica.last(), before);
    rig.told.clear();
    rig.input(Input::Initiation { reply_to: reply_to(), key: device.key, packet });
    rig.live(100);
    let [delivery::Input::AnswerTo { reply_to: to, packets }] = &rig.told[..] else {
        panic!("{:?}", rig.told)
    };
    let [Packet::AcceptConn(accept)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(
        (to, &accept.secret),
        (&reply_to(), &handshake_config(1, 1).keys.session_secret(accept.session, device.key, 5))
    );
}

#[test]
fn who_stands_behind_the_end_of_the_log_is_told_and_not_served_from_there() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    let end = rig.node.service.applied();
    let resume = |cursor| Packet::Resume(Resume { cursor: Some(cursor), credit: 256 });
    rig.told.clear();
    rig.client(session.0.0, resume(end.next()));
    let refused = Refused { code: Code::BeyondEnd, answers: Answers::Session, retry_ms: 0 };
    assert!(
        matches!(&rig.told[..], [delivery::Input::Answer { packet: Packet::Error(told), .. }] if *told == refused),
        "{:?}",
        rig.told
    );
    assert_eq!(rig.beyond, [(session, end.next(), end)]);
    rig.told.clear();
    rig.client(session.0.0, resume(end));
    assert!(rig.resumed(session), "{:?}", rig.told);
}

#[test]
fn what_only_a_session_may_ask_is_nothing_from_an_initiation() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    let before = rig.node.replica.last();
    rig.told.clear();
    for packet in [RESUME, Packet::Keepalive, Packet::Disconnect(Disconnect { upto: Op::ZERO })] {
        rig.client(0, packet);
    }
    assert!(rig.told.is_empty(), "{:?}", rig.told);
    assert_eq!(rig.node.replica.last(), before);
    rig.client(0, Packet::Status(QueryId(1)));
    assert!(matches!(&rig.told[..], [delivery::Input::AnswerTo { .. }]), "{:?}", rig.told);
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [session]);
}

#[test]
fn what_is_not_a_members_is_refused_by_reason() {
    let mut rig = Rig::new(true);
    rig.peer(4, vec![Packet::Keepalive]);
    rig.input(Input::Peer { datagram: b"junk".to_vec(), behind: false });
    assert_eq!(rig.refused, [RefusedDatagram::Cluster, RefusedDatagram::Truncated]);
}

#[test]
fn a_connect_said_again_by_somebody_else_ends_nothing_and_is_not_served() {
    let mut rig = Rig::new(true);
    rig.lead();
    let live = rig.connect(1, "alice");
    let other = rig.initiation(1, 77, "alice");
    assert_ne!(live, other);
    let query = QueryId(1);
    for packet in [
        Packet::RequestUserInfo(RequestUserInfo { query, profile: None }),
        Packet::Disconnect(Disconnect { upto: Op::ZERO }),
        Packet::Follow(Follow {
            seq: Seq(1),
            answered_below: Seq(1),
            topic: Topic::Feed("bob".parse().unwrap()),
            change: FollowChange::Add,
            nonce: 0,
        }),
    ] {
        rig.told.clear();
        rig.client(other.0.0, packet);
        rig.live(100);
        assert!(rig.told.is_empty(), "{:?}", rig.told);
    }
    rig.client(live.0.0, Packet::RequestUserInfo(RequestUserInfo { query, profile: None }));
    let [delivery::Input::Answer { packet: Packet::Info(info), .. }] = &rig.told[..] else {
        panic!("{:?}", rig.told)
    };
    assert_eq!(info.sessions, 1, "the live one");
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [live, other]);
}

#[test]
fn the_first_resume_confirms_a_session_once_and_fences_the_older() {
    let mut rig = Rig::new(true);
    rig.lead();
    let old = rig.connect(1, "alice");
    let new = rig.initiation(1, 77, "alice");
    let before = rig.node.replica.last();
    for _ in 0..100 {
        rig.client(new.0.0, RESUME);
    }
    assert_eq!(rig.node.replica.last().0 - before.0, 1, "logged once, and silence until the commit");
    assert!(!rig.resumed(new));
    rig.live(100);
    assert!(rig.resumed(new));
    let over = |input: &delivery::Input| matches!(input, delivery::Input::SessionEnded { session, .. } if *session == old);
    assert!(rig.told.iter().any(over), "{:?}", rig.told);
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [new]);
}

#[test]
fn a_release_asked_again_is_done_once_and_answered_each_time() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    let ask = |rig: &mut Rig, query, name: &str| {
        rig.told.clear();
        let change = AdminChange::Release { name: name.parse().unwrap() };
        let admin = Admin { query: QueryId(query), change };
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet: Packet::Admin(admin) });
    };
    let answers = |rig: &Rig| -> Vec<Packet> {
        let to_admin = |input: &delivery::Input| match input {
            delivery::Input::AnswerTo { packets, .. } => packets.clone(),
            _ => Vec::new(),
        };
        rig.told.iter().flat_map(to_admin).filter(|packet| !matches!(packet, Packet::AcceptConn(_))).collect()
    };
    ask(&mut rig, 1, "alice");
    ask(&mut rig, 1, "alice");
    assert_eq!(answers(&rig), [], "not before the commit");
    rig.live(100);
    let [Packet::AdminOk(AdminOk { query: QueryId(1), op })] = answers(&rig)[..] else {
        panic!("{:?}", rig.told)
    };
    let change = AdminChange::Release { name: "alice".parse().unwrap() };
    assert_eq!(rig.administered, [(change, op)]);
    assert!(rig.node.service.session(session).is_none());
    let claimed = rig.connect(2, "alice");
    ask(&mut rig, 1, "alice");
    assert_eq!(answers(&rig), [Packet::AdminOk(AdminOk { query: QueryId(1), op })]);
    rig.live(100);
    assert!(rig.node.service.session(claimed).is_some(), "who has it now keeps it");
    ask(&mut rig, 2, "nobody");
    rig.live(100);
    let code = Code::UnknownProfile;
    let refused = Refused { code, answers: Answers::Query(QueryId(2)), retry_ms: 0 };
    assert_eq!(answers(&rig), [Packet::Error(refused)]);
}

#[test]
fn what_an_administrator_asked_before_a_change_of_primary_is_answered_and_not_logged_again() {
    let mut rig = Rig::new(true);
    rig.lead();
    rig.connect(1, "alice");
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    let change = AdminChange::RemoveProfile { name: "alice".parse().unwrap() };
    let admin = |query| Packet::Admin(Admin { query: QueryId(query), change: change.clone() });
    let ask = |rig: &mut Rig, query| {
        rig.told.clear();
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet: admin(query) });
    };
    let is_done = |rig: &Rig, query, op| {
        let ok = Packet::AdminOk(AdminOk { query: QueryId(query), op });
        rig.told.iter().any(
            |input| matches!(input, delivery::Input::AnswerTo { packets, .. } if packets[..] == [ok.clone()]),
        )
    };
    ask(&mut rig, 1);
    rig.live(100);
    let (_, op) = rig.administered[0].clone();
    assert!(is_done(&rig, 1, op));
    let claimed = rig.connect(2, "alice");
    // State beside the log is discarded with the role.
    rig.node.on_deposed();
    rig.node.is_primary = true;
    let logged = rig.node.replica.last();
    ask(&mut rig, 1);
    assert!(is_done(&rig, 1, op) && rig.node.replica.last() == logged);
    assert!(rig.node.service.session(claimed).is_some());

    // The change was logged by a primary that then failed; its successor is asked for it before it is
    // committed.
    rig.node.propose(rig.clock, Command::Administer(Admin { query: QueryId(2), change: change.clone() }));
    ask(&mut rig, 2);
    assert_eq!(rig.node.replica.last().0 - logged.0, 2);
    rig.live(100);
    assert!(is_done(&rig, 2, logged.next()) && rig.administered.len() == 2, "{:?}", rig.administered);
}

#[test]
fn administrators_who_ask_for_more_than_can_wait_are_told_busy_and_when() {
    let mut rig = Rig::new(true);
    rig.lead();
    rig.told.clear();
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    for query in 0..65 {
        let change = AdminChange::Allow { key: DeviceKey([query as u8; 32]) };
        let packet = Packet::Admin(Admin { query: QueryId(query), change });
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet });
    }
    let [delivery::Input::AnswerTo { packets, .. }] = &rig.told[..] else { panic!("{:?}", rig.told) };
    let [Packet::Error(refused)] = packets[..] else { panic!("{packets:?}") };
    assert_eq!((refused.code, refused.answers), (Code::Busy, Answers::Query(QueryId(64))));
    assert!(refused.retry_ms > 0, "it passes");
}

#[test]
fn a_release_is_nothing_from_whoever_has_another_key() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    rig.told.clear();
    let change = AdminChange::Release { name: "alice".parse().unwrap() };
    let packet = Packet::Admin(Admin { query: QueryId(1), change });
    rig.input(Input::Initiation { reply_to: reply_to(), key: DeviceKey([1; 32]), packet: packet.clone() });
    rig.client(session.0.0, packet);
    rig.live(100);
    assert!(rig.administered.is_empty() && rig.node.service.session(session).is_some());
}

#[test]
fn whoever_asks_too_much_is_told_busy_and_when_and_takes_no_number() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    let other = rig.connect(2, "bob");
    rig.told.clear();
    let rate = config().limits.session_requests;
    let ask = Packet::RequestUserInfo(RequestUserInfo { query: QueryId(1), profile: None });
    for _ in 0..rate.burst + 100 {
        rig.client(session.0.0, ask.clone());
    }
    let busy = |input: &delivery::Input| match input {
        delivery::Input::Answer { packet: Packet::Error(refused), .. } => refused.code == Code::Busy,
        _ => false,
    };
    assert_eq!(rig.told.iter().filter(|input| busy(input)).count(), 100);
    let before = rig.node.replica.last();
    let topic = Topic::Feed("bob".parse().unwrap());
    let follow = Follow { seq: Seq(1), answered_below: Seq(1), topic, change: FollowChange::Add, nonce: 0 };
    rig.told.clear();
    rig.client(session.0.0, Packet::Follow(follow.clone()));
    let [delivery::Input::Answer { packet: Packet::Error(refused), .. }] = rig.told[..] else {
        panic!("{:?}", rig.told)
    };
    assert_eq!((refused.code, refused.answers), (Code::Busy, Answers::Request(Seq(1))));
    assert!((1..=10).contains(&refused.retry_ms), "{refused:?}");
    assert_eq!(rig.node.replica.last(), before);
    rig.told.clear();
    rig.client(other.0.0, ask);
    assert!(!rig.told.iter().any(busy), "nobody else is held up");
    rig.live(20);
    rig.client(session.0.0, Packet::Follow(follow));
    assert!(rig.node.replica.last() > before, "and after the wait it is taken");
}

#[test]
fn a_costly_question_takes_more_of_the_budget_than_a_ping() {
    let mut rig = Rig::new(true);
    rig.lead();
    let session = rig.connect(1, "alice");
    let rate = config().limits.session_requests;
    let list = Packet::List(List { query: QueryId(1), what: Listing::People, after: None });
    let cost = crate::server::cost::list(&Listing::People, 0);
    assert!(cost > 10, "a page of 200 names");
    rig.told.clear();
    for _ in 0..rate.burst / cost + 50 {
        rig.client(session.0.0, list.clone());
    }
    let answered = rig
        .told
        .iter()
        .filter(|input| matches!(input, delivery::Input::Answer { packet: Packet::ListOk(_), .. }));
    assert_eq!(answered.count() as u32, rate.burst / cost);
}

#[test]
fn a_list_of_channels_is_paid_for_by_what_it_passed_over_and_a_short_one_is_not() {
    let mut rig = Rig::new(true);
    rig.lead();
    let owners: Vec<SessionId> = (0..10).map(|n| rig.connect(n, &format!("owner{n}"))).collect();
    let asker = rig.connect(50, "asker");
    for session in owners.iter().chain([&asker]) {
        rig.input(Input::Path { session: *session, address: ([127, 0, 0, 1], 4_000).into() });
    }
    for seq in 1..=50 {
        for (n, session) in owners.iter().enumerate() {
            let channel = format!("hidden-{n}-{seq}").parse().unwrap();
            let change = ChannelChange::Create { private: true };
            let (seq, answered_below) = (Seq(seq), Seq(seq));
            let make = recado_proto::packet::Channel { seq, answered_below, channel, change, nonce: 1 };
            rig.client(session.0.0, Packet::Channel(make));
        }
        rig.live(20);
    }
    let answered = |rig: &mut Rig, after: Option<&str>| {
        rig.live(5_000);
        rig.told.clear();
        let after = after.map(str::to_owned);
        let list = Packet::List(List { query: QueryId(1), what: Listing::Channels, after });
        (0..10_000).for_each(|_| rig.client(asker.0.0, list.clone()));
        let listed = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: Packet::ListOk(_), .. })
        };
        rig.told.iter().filter(listed).count() as u32
    };
    let rate = config().limits.session_requests;
    let page = crate::server::cost::list(&Listing::Channels, 0);
    let passed_over = crate::server::cost::passed_over(500);
    assert!(passed_over > page / 2, "{passed_over}");
    // The last request is charged for its page before it runs, and for what it passes over afterwards, as
    // debt.
    assert_eq!(answered(&mut rig, None), (rate.burst - page) / (page + passed_over) + 1);
    assert_eq!(answered(&mut rig, Some("zz")), rate.burst / page);
}

#[test]
fn however_many_profiles_a_network_has_it_takes_no_more_of_the_writer_than_its_share() {
    let mut rig = Rig::new(true);
    rig.lead();
    let crowd: Vec<SessionId> = (0..12).map(|n| rig.connect(n, &format!("crowd{n}"))).collect();
    let (other, unseen) = (rig.connect(50, "other"), rig.connect(51, "unseen"));
    let at = |network: u8| ([10, 0, network, 1], 4_000).into();
    for session in &crowd {
        rig.input(Input::Path { session: *session, address: at(1) });
    }
    rig.input(Input::Path { session: other, address: at(2) });
    let rate = config().limits.network_requests;
    let list = Packet::List(List { query: QueryId(1), what: Listing::People, after: None });
    let cost = crate::server::cost::list(&Listing::People, 0);
    let answered = |rig: &mut Rig| {
        let listed = |input: &delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: Packet::ListOk(_), .. })
        };
        std::mem::take(&mut rig.told).iter().filter(|input| listed(input)).count() as u32
    };
    rig.told.clear();
    let each = 60_000 / cost;
    for session in &crowd {
        (0..each).for_each(|_| rig.client(session.0.0, list.clone()));
    }
    assert_eq!(answered(&mut rig), rate.burst / cost, "12 profiles, each within its own budget");
    // A page is charged, and comes when there is budget again.
    let pages = |rig: &mut Rig| {
        let page = |input: &delivery::Input| matches!(input, delivery::Input::Page { .. });
        std::mem::take(&mut rig.told).iter().filter(|input| page(input)).count()
    };
    let want = |session| Input::WantPage { session, after: Op::ZERO, limit: 256 };
    (0..cost).for_each(|_| rig.input(want(crowd[0])));
    let later = |input: &delivery::Input| matches!(input, delivery::Input::PageLater { wait, .. } if !wait.is_zero() && *wait < Duration::from_secs(1));
    assert!(rig.told.iter().any(later), "the others are told when");
    assert!(pages(&mut rig) < 2, "what the lists have left is less than two pages");
    rig.input(want(other));
    assert_eq!(pages(&mut rig), 1, "another network has its own");
    for session in [other, unseen] {
        rig.client(session.0.0, list.clone());
        assert_eq!(answered(&mut rig), 1);
    }
    rig.live(100);
    rig.told.clear();
    rig.input(want(crowd[0]));
    assert_eq!(pages(&mut rig), 1);
}

#[test]
fn one_network_makes_so_many_channels_whatever_its_profiles_and_leaves_the_others_theirs() {
    let mut rig = Rig::new(true);
    rig.lead();
    let rate = config().limits.network_channels;
    let at_once = u64::from(rate.burst / Limits::NAME_COST);
    let profiles: Vec<SessionId> = (0..4).map(|n| rig.connect(n, &format!("maker{n}"))).collect();
    let other = rig.connect(50, "other");
    for session in &profiles {
        rig.input(Input::Path { session: *session, address: ([10, 0, 1, 1], 4_000).into() });
    }
    rig.input(Input::Path { session: other, address: ([10, 0, 2, 1], 4_000).into() });
    let make = |rig: &mut Rig, session: SessionId, n: u64| {
        let topic = Some(Topic::Channel(format!("channel-{}-{n}", session.0.0).parse().unwrap()));
        let content =
            Content { title: None, priority: Priority::default(), tags: Vec::new(), body: "text".into() };
        let send = Send { seq: Seq(n), answered_below: Seq(n), topic, content, nonce: n };
        rig.client(session.0.0, Packet::Send(send));
    };
    for n in 1..=40 {
        profiles.iter().for_each(|session| make(&mut rig, *session, n));
        rig.live(20);
    }
    rig.live(200);
    let made = |rig: &Rig| {
        let acked = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: Packet::SendAck(_), .. })
        };
        rig.told.iter().filter(acked).count() as u64
    };
    assert_eq!(made(&rig), at_once, "of 160 that were asked for");
    let refused = |input: &&delivery::Input| {
        matches!(input, delivery::Input::Answer { packet: Packet::Error(refused), .. }
            if refused.code == Code::TooManyNames)
    };
    assert_eq!(rig.told.iter().filter(refused).count() as u64, 160 - at_once);
    make(&mut rig, other, 1);
    rig.live(200);
    assert_eq!(made(&rig), at_once + 1);
}

/// Opens pending sessions, of sixteen devices per profile, whose clients have proved to be in this network.
fn pending_in(rig: &mut Rig, network: u8, profiles: u8) -> Vec<SessionId> {
    rig.told.clear();
    for profile in 0..profiles {
        for slot in 0..16 {
            let mut key = [profile; 32];
            key[0] = network;
            let connect = Connect {
                device: DeviceId { key: DeviceKey(key), slot },
                profile: format!("profile-{network}-{profile}").parse().unwrap(),
                receives: true,
                nonce: 1,
                fresh: true,
                code: None,
                invite: None,
            };
            rig.client(0, Packet::Connect(connect));
        }
        rig.live(20);
    }
    rig.live(100);
    let mut sessions = Vec::new();
    for input in &rig.told {
        if let delivery::Input::AnswerTo { packets, .. } = input
            && let [Packet::AcceptConn(accept)] = &packets[..]
        {
            sessions.push(accept.session);
        }
    }
    assert_eq!(sessions.len(), 16 * usize::from(profiles));
    for session in &sessions {
        rig.input(Input::Path { session: *session, address: ([10, 0, network, 1], 4_000).into() });
    }
    sessions
}

#[test]
fn a_flood_of_confirmations_from_one_network_leaves_room_for_others_and_is_itself_answered_in_the_end() {
    let mut rig = Rig::new(true);
    rig.lead();
    let (many, few) = (pending_in(&mut rig, 1, 70), pending_in(&mut rig, 2, 1));
    let mut unseen = vec![rig.initiation(250, 1, "unseen")];
    let own = pending_in(&mut rig, 3, 2);
    for session in &own {
        // The client is on the server's machine, so its profile is the holder.
        rig.input(Input::Path { session: *session, address: ([127, 0, 0, 1], 4_000).into() });
    }
    unseen.extend(own);
    rig.told.clear();
    let busy = |rig: &Rig| {
        let busy = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: Packet::Error(refused), .. }
                if refused.code == Code::Busy)
        };
        rig.told.iter().filter(busy).count()
    };
    for session in &many {
        rig.client(session.0.0, RESUME);
    }
    assert_eq!((rig.node.under_way.confirming(), busy(&rig)), (1_024, many.len() - 1_024));
    for session in few.iter().chain(&unseen) {
        rig.client(session.0.0, RESUME);
    }
    assert_eq!((rig.node.under_way.confirming(), busy(&rig)), (1_024, many.len() - 1_024));
    rig.live(200);
    let answered = |rig: &Rig, of: &[SessionId]| of.iter().filter(|session| rig.resumed(**session)).count();
    assert_eq!(answered(&rig, &few), few.len());
    assert_eq!(answered(&rig, &unseen), unseen.len());
    assert_eq!(answered(&rig, &many), 1_024 - few.len() - unseen.len());
    assert_eq!(rig.node.under_way.confirming(), 0);
    // Clients whose place was given away ask again, as do those that were answered Busy.
    for session in &many {
        rig.client(session.0.0, RESUME);
    }
    rig.live(200);
    assert_eq!(answered(&rig, &many), many.len());
}

#[test]
fn requests_held_for_one_network_leave_room_for_those_of_others() {
    let mut rig = Rig::new(true);
    rig.lead();
    let (many, few) = (pending_in(&mut rig, 1, 5), pending_in(&mut rig, 2, 1)[0]);
    for session in many.iter().chain([&few]) {
        rig.client(session.0.0, RESUME);
    }
    rig.live(200);
    let send = |seq: u64| {
        let body = "x".to_owned();
        let content = Content { title: None, priority: Default::default(), tags: Vec::new(), body };
        Packet::Send(Send { seq: Seq(seq), answered_below: Seq(1), topic: None, content, nonce: seq })
    };
    for session in &many {
        (2..2 + 64).for_each(|seq| rig.client(session.0.0, send(seq)));
    }
    assert_eq!(rig.node.under_way.held(), 4_096, "of 5,120");
    (2..=30).rev().for_each(|seq| rig.client(few.0.0, send(seq)));
    assert_eq!(rig.node.under_way.held(), 4_096);
    rig.told.clear();
    rig.client(few.0.0, send(1));
    assert_eq!(rig.node.under_way.held(), 4_096 - 29, "the first brings all the others with it");
    rig.live(200);
    let acked = rig.told.iter().filter(|input| {
        matches!(input, delivery::Input::Answer { session, packet: Packet::SendAck(_) } if *session == few)
    });
    assert_eq!(acked.count(), 30);
}

/// The answer to a client in this network that claims a name.
fn claim(rig: &mut Rig, network: u8, key: u8, profile: &str) -> Option<Packet> {
    rig.told.clear();
    let mut reply_to = reply_to();
    reply_to.to = ([10, 0, network, 1], 4_000).into();
    let connect = Connect {
        device: DeviceId { key: DeviceKey([key; 32]), slot: 0 },
        profile: profile.parse().unwrap(),
        receives: true,
        nonce: u64::from(key),
        fresh: true,
        code: None,
        invite: None,
    };
    rig.input(Input::Initiation { reply_to, key: connect.device.key, packet: Packet::Connect(connect) });
    rig.live(100);
    rig.told.iter().find_map(|input| match input {
        delivery::Input::AnswerTo { packets, .. } => packets.first().cloned(),
        _ => None,
    })
}

#[test]
fn one_network_claims_so_many_names_an_hour_and_leaves_the_others_theirs() {
    let mut rig = Rig::new(true);
    rig.lead();
    let is_in = |told: Option<Packet>| matches!(told, Some(Packet::AcceptConn(_)));
    let rate = config().limits.network_names;
    let at_once = (rate.burst / Limits::NAME_COST) as u8;
    for n in 0..at_once {
        assert!(is_in(claim(&mut rig, 1, n, &format!("name{n}"))), "{n}");
    }
    match claim(&mut rig, 1, at_once, "one-more") {
        Some(Packet::RejectConn(reject)) => {
            assert_eq!(reject.code, Code::TooManyNames);
            assert!(reject.retry_ms > 60_000, "{reject:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.node.service.is_unclaimed(&"one-more".parse().unwrap()), "nothing was logged");
    assert!(is_in(claim(&mut rig, 1, 0, "name0")), "who has a name comes in");
    assert!(is_in(claim(&mut rig, 2, 100, "one-more")), "and so does another network");
    for n in 101..200 {
        rig.initiation(n, u64::from(n), &format!("local{n}"));
    }
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
            let send = Send {
                seq: Seq(seq),
                answered_below: Seq(0),
                topic: None,
                content: content.clone(),
                nonce: 0,
            };
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
    rig.peer(1, vec![prepare(view, 0)]);
    rig.flush();
    assert!(rig.sent.iter().any(|(to, _)| *to == NodeId(1)), "the promise is said");
}

#[test]
fn a_cluster_born_without_a_clock_drops_nothing_and_closes_nobody_when_the_clock_is_set() {
    let mut rig = Rig::new(true);
    rig.lead();
    assert!(rig.clock.unix_ms < 100_000, "1970");
    let session = rig.connect(1, "alice");
    let topic = Some(Topic::Inbox("alice".parse().unwrap()));
    let content =
        Content { title: None, priority: Priority::default(), tags: Vec::new(), body: "text".into() };
    let send = Send { seq: Seq(1), answered_below: Seq(1), topic, content, nonce: 0 };
    rig.client(session.0.0, Packet::Send(send));
    rig.live(200);
    rig.clock.unix_ms = 1_800_000_000_000;
    let pending = rig.initiation(2, 7, "bobby");
    rig.live(5_000);
    let service = rig.node.service();
    assert!(service.clock_ms() >= 1_800_000_000_000, "{}", service.clock_ms());
    let page = service.page(session, Op::ZERO, 10, 1 << 20);
    assert_eq!((page.gap, page.notifications.len()), (None, 1), "nothing dropped");
    assert!(service.session(session).is_some(), "not idle");
    assert!(service.has_session(pending), "who was about to come in has the time for it");
}

#[test]
fn a_wall_clock_that_jumps_a_year_drops_nothing_closes_nobody_and_is_told() {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    let mut rig = Rig::new(true);
    rig.lead();
    rig.clock.unix_ms = 1_800_000_000_000;
    let session = rig.connect(1, "alice");
    let topic = Some(Topic::Inbox("alice".parse().unwrap()));
    let send = |seq: u64| {
        let content =
            Content { title: None, priority: Priority::default(), tags: Vec::new(), body: "text".into() };
        Packet::Send(Send {
            seq: Seq(seq),
            answered_below: Seq(seq),
            topic: topic.clone(),
            content,
            nonce: 0,
        })
    };
    rig.client(session.0.0, send(1));
    rig.live(200);
    let before_ms = rig.node.service().clock_ms();
    rig.clock.unix_ms += YEAR_MS;
    rig.live(3_000);
    rig.client(session.0.0, send(2));
    rig.live(200);
    let service = rig.node.service();
    assert!(service.session(session).is_some(), "not idle");
    let page = service.page(session, Op::ZERO, 10, 1 << 20);
    assert_eq!((page.gap, page.notifications.len()), (None, 2), "nothing dropped");
    let passed_ms = service.clock_ms() - before_ms;
    assert!((3_000..10_000).contains(&passed_ms), "{passed_ms} ms in 3.4 s: twice as fast at most");
    assert!(
        matches!(rig.away[..], [ms] if ms > YEAR_MS as i64 - 10_000),
        "one warning a minute: {:?}",
        rig.away
    );

    rig.clock.unix_ms -= YEAR_MS;
    let (before_ms, pending) = (rig.node.service().clock_ms(), rig.initiation(2, 7, "bobby"));
    // The wall clock of this test hardly moves, so the log's time runs at half speed.
    for _ in 0..130 {
        rig.live(1_000);
    }
    assert!(!rig.node.service().has_session(pending), "what is pending lapses, the clock being right again");
    assert!(rig.node.service().clock_ms() > before_ms + 60_000);
}
