//! Tests of a node whose journal, peers and clients the tests play.

mod admin;
mod admission;
mod charges;
mod forged;
mod log_clock;
mod peers;
mod queries;
mod snapshots;

use std::collections::BTreeMap;
use std::time::Duration;

use recado_log::journal::Meta;
use recado_proto::Link;
use recado_proto::envelope::{self, Class, Envelope, Opened, PeerHello};
use recado_proto::id::{ClusterId, DeviceId, DeviceKey, NodeId};
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

/// The session and the query of an answer that the delivery sends until it is acknowledged.
fn answered(input: &delivery::Input) -> Option<(SessionId, QueryId)> {
    let delivery::Input::Answer { session, packet } = input else { return None };
    match packet {
        Packet::HistoryOk(page) => Some((*session, page.query)),
        Packet::ListOk(page) => Some((*session, page.query)),
        Packet::Info(info) => Some((*session, info.query)),
        _ => None,
    }
}

/// A server whose journal reports at once, unless `owes` is set, and whose clients acknowledge each answer to
/// a query at once, unless `awaits_acks` is set.
struct Rig {
    node: Node,
    clock: Clock,
    others: BTreeMap<NodeId, Other>,
    refused: Vec<RefusedDatagram>,
    owes: bool,
    awaits_acks: bool,
    ticket: u64,
    sent: Vec<(NodeId, Opened)>,
    reads: usize,
    snapshots: usize,
    /// Peers that came with an earlier incarnation: the server, its incarnation, and the latest seen.
    earlier: Vec<(u16, u64, u64)>,
    promises: usize,
    delivered: Vec<delivery::Input>,
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
        let members = config.cluster.members.iter().map(|member| member.id);
        let meta = Meta { voter, incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, members) };
        let recovered = Recovered { meta, snapshot: None, entries: Vec::new(), commit: Op::ZERO, lost: None };
        let clock = Clock { now: Moment(1_000_000), unix_ms: 1 };
        let mut out = Vec::new();
        let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
        let node = Node::new(config, recovered, BootIdentity { id, keys, seed: 1 }, clock, &mut out).unwrap();
        let (others, refused, sent, delivered, known, administered, beyond) = Default::default();
        let mut rig = Rig {
            node,
            clock,
            others,
            refused,
            owes: false,
            awaits_acks: false,
            ticket: 0,
            sent,
            reads: 0,
            snapshots: 0,
            earlier: Vec::new(),
            promises: 0,
            delivered,
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
                Effect::Delivery(input) => {
                    if let Some((session, query)) = answered(&input).filter(|_| !self.awaits_acks) {
                        let done = Input::AnswerDone { session, query };
                        self.node.handle(self.clock, done, &mut out);
                    }
                    self.delivered.push(input);
                }
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
        self.delivered.iter().any(|input| match input {
            delivery::Input::Answer { session: of, packet: Packet::ResumeOk(_) } => *of == session,
            _ => false,
        })
    }

    /// Opens a pending session.
    fn initiation(&mut self, n: u8, nonce: u64, profile: &str) -> SessionId {
        self.delivered.clear();
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
        let accepted = self.delivered.iter().find_map(|input| match input {
            delivery::Input::AnswerTo { packets, .. } => match &packets[..] {
                [Packet::AcceptConn(accept)] => Some(accept.session),
                _ => None,
            },
            _ => None,
        });
        accepted.expect("it is let in")
    }
}

fn prepare(view: View, progress: u64) -> Packet {
    Packet::Election(Election::Prepare { view, progress, waits_for: WaitsFor::Disk, disk_ms: 0 })
}
