//! Tests of a few replicas on a perfect network, and of one replica driven by hand. The simulator tests
//! imperfect networks.

mod candidates;
mod casts;
mod cluster;
mod copies;
mod elections;
mod incarnations;
mod leaders;
mod promises;
mod slow_disks;
mod transfers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use recado_proto::codec;
use recado_proto::envelope::PACKETS_MAX;
use recado_proto::id::{BootId, ClusterId, KnownBoot};
use recado_proto::packet::{
    Election, Entries, EntriesAck, Fetch, Heartbeat, HeartbeatState, Learn, LearnOk, OptionalFields, Promise,
    QueryId, Reply, SnapshotChunk, SnapshotGet, WaitsFor,
};

use super::*;
use crate::config::{Cluster, Member, Preempt};

/// A link with more room than any cast here needs, on a path of which nothing is known.
const AMPLE: Room = Room { window: 64 * 1024, packet: PACKETS_MAX };

fn config(me: u16, servers: u16) -> Config {
    let member = |id: u16| Member {
        id: NodeId(id),
        client: ([127, 0, 0, 1], 10_000 + id).into(),
        peer: ([127, 0, 0, 1], 11_000 + id).into(),
    };
    Config {
        cluster: Cluster { id: ClusterId(1), me: NodeId(me), members: (1..=servers).map(member).collect() },
        timing: Timing::DEFAULT,
        preempt: Preempt::Graceful,
        planted: PlantedBug::default(),
    }
}

pub(super) fn boot() -> Boot {
    Boot {
        voter: true,
        promised: View::ZERO,
        base: (View::ZERO, Op::ZERO),
        entries: Vec::new(),
        commit: Op::ZERO,
        known: Vec::new(),
        unknown: None,
    }
}

fn entry(op: u64, round: u64, node: u16) -> Entry {
    let view = View::new(round, NodeId(node));
    Entry { op: Op(op), view, kind: EntryKind::Command, payload: op.to_le_bytes().as_slice().into() }
}

/// Replicas, a perfect network between those that run, and a journal that finishes at once.
struct World {
    now: Moment,
    replicas: BTreeMap<NodeId, ReplicaManager>,
    applied: BTreeMap<NodeId, Vec<Op>>,
    stopped: Vec<NodeId>,
}

impl World {
    fn new(servers: u16) -> World {
        let now = Moment(1_000_000);
        let mut world =
            World { now, replicas: BTreeMap::new(), applied: BTreeMap::new(), stopped: Vec::new() };
        for id in 1..=servers {
            let replica = ReplicaManager::new(&config(id, servers), boot(), id.into(), now, &mut Vec::new());
            world.replicas.insert(NodeId(id), replica);
        }
        world
    }

    fn feed(&mut self, to: NodeId, input: Input) {
        let mut waiting = VecDeque::from([(to, input)]);
        while let Some((at, input)) = waiting.pop_front() {
            let Some(replica) = self.replicas.get_mut(&at) else { continue };
            let mut effects = Vec::new();
            replica.handle(self.now, input, &mut effects);
            replica.flush(self.now, |_| AMPLE, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { to, packet, .. } if self.replicas.contains_key(&to) => {
                        let incarnation = Incarnation(1);
                        waiting.push_back((to, Input::Packet { from: at, incarnation, packet }));
                    }
                    Effect::Journal { number, .. } => waiting.push_back((at, Input::Journaled(number))),
                    Effect::StoreSnapshot { transfer, piece } => {
                        let upto = piece.offset + piece.bytes.len() as u64;
                        waiting.push_back((at, Input::SnapshotStored { transfer, upto }));
                    }
                    // The disk can read only the first block of its snapshot.
                    Effect::ReadSnapshot { to, offset: 0, .. } => {
                        let (op, view) = (Op(100), View::new(1, NodeId(2)));
                        let bytes = vec![7; SnapshotGet::BLOCK];
                        let chunk = SnapshotChunk { op, view, offset: 0, total: 5_000, crc: 1, bytes };
                        let (incarnation, packet) = (Incarnation(1), ToPeer::SnapshotChunk(chunk));
                        waiting.push_back((to, Input::Packet { from: at, incarnation, packet }));
                    }
                    Effect::Commit(upto) => {
                        let applied = self.applied.entry(at).or_default();
                        let first = applied.last().map_or(1, |last| last.0 + 1);
                        applied.extend((first..=upto.0).map(Op));
                    }
                    Effect::Stopped if !self.stopped.contains(&at) => self.stopped.push(at),
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            for id in self.replicas.keys().copied().collect::<Vec<_>>() {
                if self.replicas.get(&id).is_some_and(|replica| replica.next_deadline() <= self.now) {
                    self.feed(id, Input::Deadline);
                }
            }
            self.stopped.iter().for_each(|id| {
                self.replicas.remove(id);
            });
        }
    }

    fn primary(&self) -> Option<NodeId> {
        let mut primaries = self.replicas.iter().filter(|(_, replica)| replica.accepts());
        let found = primaries.next().map(|(id, _)| *id);
        assert!(primaries.next().is_none(), "two primaries accept at once");
        found
    }

    fn propose(&mut self, text: &str) -> Op {
        let primary = self.primary().expect("a primary to propose to");
        let replica = self.replicas.get_mut(&primary).expect("it runs");
        let op = replica.propose(text.as_bytes().into()).expect("it accepts");
        self.feed(primary, Input::Deadline);
        op
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const T_COORD: Duration = Timing::DEFAULT.coordinator;

// ---- one replica, driven by hand

pub(super) struct One {
    pub(super) replica: ReplicaManager,
    pub(super) now: Moment,
    /// The number of the last transfer of a snapshot, and the bytes that the journal was given of it.
    pub(super) file: (u64, Vec<u8>),
    /// True if the journal takes each piece of a snapshot at once.
    pub(super) stores: bool,
}

impl One {
    pub(super) fn new(boot: Boot) -> One {
        One::among(3, boot)
    }

    pub(super) fn among(servers: u16, boot: Boot) -> One {
        let now = Moment(1_000_000);
        let replica = ReplicaManager::new(&config(1, servers), boot, 1, now, &mut Vec::new());
        One::of(replica, now)
    }

    pub(super) fn of(replica: ReplicaManager, now: Moment) -> One {
        One { replica, now, file: (0, Vec::new()), stores: true }
    }

    pub(super) fn packet(&mut self, from: u16, packet: ToPeer) -> Vec<Effect> {
        self.packet_of_incarnation(1, from, packet)
    }

    fn packet_of_incarnation(&mut self, incarnation: u64, from: u16, packet: ToPeer) -> Vec<Effect> {
        self.input(Input::Packet { from: NodeId(from), incarnation: Incarnation(incarnation), packet })
    }

    /// Makes the replica a candidate. Its own promise is not durable yet.
    pub(super) fn prepare(&mut self) -> View {
        self.replica.prepare(self.now, Cause::Transfer, &mut Vec::new());
        self.replica.promised()
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = self.now + Duration::from_millis(1);
        self.replica.handle(self.now, input, &mut effects);
        self.replica.flush(self.now, |_| AMPLE, &mut effects);
        self.store(&mut effects);
        effects
    }

    /// The journal gets the pieces of snapshots among the effects, and takes them.
    fn store(&mut self, effects: &mut Vec<Effect>) {
        let mut taken = Vec::new();
        for effect in effects.iter() {
            let Effect::StoreSnapshot { transfer, piece } = effect else { continue };
            if piece.offset == 0 && *transfer != self.file.0 {
                self.file = (*transfer, Vec::new());
            }
            self.file.1.extend_from_slice(&piece.bytes);
            let upto = piece.offset + piece.bytes.len() as u64;
            taken.push(Input::SnapshotStored { transfer: *transfer, upto });
        }
        for stored in taken.into_iter().filter(|_| self.stores) {
            self.replica.handle(self.now, stored, effects);
        }
    }

    /// The snapshot of the last transfer that arrived is decoded.
    fn install(&mut self, effects: &mut Vec<Effect>) -> bool {
        let opening = self.replica.opening.expect("a snapshot has arrived");
        self.replica.install(self.now, opening.transfer, effects)
    }

    /// A snapshot of this op and view has arrived, and is decoded.
    fn install_arrived(&mut self, op: u64, view: View, effects: &mut Vec<Effect>) -> bool {
        self.replica.opening = Some(Opening { transfer: 1, op: Op(op), view, progressed: self.now });
        self.install(effects)
    }

    /// A snapshot has arrived whole, and these are its bytes.
    fn holds_whole(&self, op: u64, view: View, whole: &[u8]) -> bool {
        let opening = self.replica.opening.map(|opening| (opening.transfer, opening.op, opening.view));
        opening == Some((self.file.0, Op(op), view)) && self.file.1 == whole
    }

    /// The journal finishes all its tasks.
    pub(super) fn sync(&mut self) -> Vec<Effect> {
        self.input(Input::Journaled(self.replica.journaling.tasks))
    }

    /// Passes `time` and meets every deadline. `feed` is called every 40 ms.
    fn pass<T>(&mut self, time: Duration, mut feed: impl FnMut(&mut One) -> T) -> Vec<Effect> {
        let (end, mut effects) = (self.now + time, Vec::new());
        while self.now < end {
            feed(self);
            let next = self.now + MS * 40;
            while self.now < next.min(end) {
                self.now = self.now + MS * 9;
                effects.extend(self.input(Input::Deadline));
            }
        }
        effects
    }

    fn idle(&mut self, time: Duration) -> Vec<Effect> {
        self.pass(time, |_| {})
    }

    /// Server 1 leads, with everything durable.
    fn leading() -> One {
        let mut one = One::new(boot());
        let view = one.prepare();
        one.sync();
        one.packet(2, promise(view));
        one.sync();
        one.packet(2, acknowledgement(view));
        assert!(one.replica.accepts());
        one
    }

    /// A backup hears this primary, has everything, and reports its disk.
    fn echo(&mut self, from: u16, disk_ms: u32) -> Vec<Effect> {
        let (view, mut effects) = (self.replica.promised(), Vec::new());
        let Role::Primary(primary) = &self.replica.role else { return effects };
        let beat = primary.beat();
        if let ToPeer::Heartbeat(echo) = heartbeat(view, HeartbeatState::Backup, 0, self.replica.digest) {
            effects.extend(self.packet(from, ToPeer::Heartbeat(Heartbeat { disk_ms, beat, ..echo.clone() })));
        }
        effects.extend(self.packet(from, acknowledgement(view)));
        effects
    }
}

fn cast(view: View, prev: u64, prev_view: View, commit: u64, entries: Vec<Entry>) -> ToPeer {
    let (prev_op, commit) = (Op(prev), Op(commit));
    ToPeer::Entries(Entries { view, fetch: None, prev_op, prev_view, commit, entries, members_op: Op::ZERO })
}

fn prepare(view: View) -> ToPeer {
    ToPeer::Election(Election::Prepare {
        view,
        progress: 0,
        waits_for: WaitsFor::Disk,
        disk_ms: 0,
        members_op: Op::ZERO,
    })
}

fn promises(effects: &[Effect]) -> usize {
    let promised =
        |effect: &&Effect| matches!(effect, Effect::Send { packet: ToPeer::Reply(Reply::Promise(_)), .. });
    effects.iter().filter(promised).count()
}

fn acked(effects: &[Effect]) -> Option<(Op, Op, bool)> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::EntriesAck(ack), .. } => {
            Some((ack.durable, ack.matched, ack.rejected))
        }
        _ => None,
    })
}

/// The primary of `view` is active and heard.
fn hear(one: &mut One, view: View) {
    hear_unsynced(one, view);
    one.sync();
}

/// As [`hear`], but what follows from it is not durable yet.
fn hear_unsynced(one: &mut One, view: View) {
    let (primary, members) = (view.primary().unwrap(), one.replica.digest);
    one.packet(primary.0, heartbeat(view, HeartbeatState::Active, 0, members));
}

fn coordinator(view: View) -> ToPeer {
    ToPeer::Coordinator(Coordinator::new(view, Vec::new()))
}

fn probe(view: View, last: u64) -> ToPeer {
    ToPeer::Election(Election::Probe { view, last: (View::ZERO, Op(last)), disk_ms: 0 })
}

fn agree(view: View) -> ToPeer {
    ToPeer::Reply(Reply::Agree { view, disk_ms: 0 })
}

fn refuse(promised: View) -> ToPeer {
    ToPeer::Reply(Reply::Refuse { promised })
}

fn acknowledgement(view: View) -> ToPeer {
    let (durable, matched, applied) = (Op(1), Op(1), Op(1));
    ToPeer::EntriesAck(EntriesAck { view, durable, matched, commit: applied, rejected: false })
}

fn sent(effects: &[Effect], wanted: impl Fn(&ToPeer) -> bool) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Send { packet, .. } if wanted(packet)))
}

fn role_changes(effects: &[Effect]) -> Vec<RoleChange> {
    let changes = effects.iter().filter_map(|effect| match effect {
        Effect::Report(Report::Role(change)) => Some(change.clone()),
        _ => None,
    });
    changes.collect()
}

/// The role changes: the new role and the reason.
fn changes(effects: &[Effect]) -> Vec<(RoleName, Cause)> {
    role_changes(effects).iter().map(|change| (change.role, change.cause)).collect()
}

/// Returns true if a snapshot has arrived completely with these effects.
fn received(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::StoreSnapshot { piece, .. } => piece.offset + piece.bytes.len() as u64 == piece.total,
        _ => false,
    })
}

/// The packets sent to `peer`.
fn said(effects: &[Effect], peer: u16) -> Vec<ToPeer> {
    let packets = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, packet, .. } if *to == NodeId(peer) => Some(packet.clone()),
        _ => None,
    });
    packets.collect()
}

pub(super) fn heartbeat(view: View, state: HeartbeatState, commit: u64, members: u64) -> ToPeer {
    ToPeer::Heartbeat(Heartbeat {
        view,
        state,
        commit: Op(commit),
        last: Op(16),
        beat: 1,
        leaving: false,
        members,
        disk_ms: 0,
        members_op: Op::ZERO,
        options: OptionalFields::NONE,
    })
}

/// A server without its disk, server 3 as its active primary, and the function that makes the answers to
/// its LEARN.
fn learner() -> (One, impl Fn(Option<u64>) -> ToPeer) {
    let mut one = One::new(Boot { voter: false, ..boot() });
    let asked = one.input(Input::Deadline);
    let nonce = asked.iter().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Learn(learn), .. } => Some(learn.nonce),
        _ => None,
    });
    let nonce = nonce.expect("a learner asks what was promised");
    let answer = move |active: Option<u64>| {
        ToPeer::LearnOk(LearnOk { nonce, promised: View::new(4, NodeId(3)), active: active.map(Op) })
    };
    (one, answer)
}

pub(super) fn promise(view: View) -> ToPeer {
    promise_with_incarnations(view, &[])
}

fn promise_with_incarnations(view: View, lives: &[(u16, u64)]) -> ToPeer {
    let lives = lives.iter().map(|(peer, life)| (NodeId(*peer), Incarnation(*life))).collect();
    ToPeer::Reply(Reply::Promise(Promise {
        view,
        last_view: View::ZERO,
        last_op: Op::ZERO,
        commit: Op::ZERO,
        index: vec![(View::ZERO, Op::ZERO)],
        unknown: None,
        incarnations: lives,
        disk_ms: 0,
        members_op: Op::ZERO,
    }))
}

/// The view of the entries that a candidate lacks.
fn held() -> View {
    View::new(3, NodeId(3))
}

fn entries(first: u64, last: u64) -> Vec<Entry> {
    (first..=last).map(|op| entry(op, 3, 3)).collect()
}

/// The promise of a server that holds `held` from `first` on.
fn promise_of_log(view: View, first: u64, last: u64) -> ToPeer {
    let ToPeer::Reply(Reply::Promise(empty)) = promise(view) else { unreachable!() };
    let index = vec![(View::ZERO, Op::ZERO), (held(), Op(first))];
    ToPeer::Reply(Reply::Promise(Promise { last_view: held(), last_op: Op(last), index, ..empty }))
}

fn fetches(effects: &[Effect]) -> Vec<Fetch> {
    let fetches = effects.iter().filter_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Fetch(fetch), .. } => Some(*fetch),
        _ => None,
    });
    fetches.collect()
}

/// A piece of the answer to a FETCH. One without entries ends the answer.
fn fetched(view: View, query: QueryId, prev: u64, entries: Vec<Entry>) -> ToPeer {
    let (fetch, prev_op, prev_view, commit) = (Some(query), Op(prev), held(), Op::ZERO);
    ToPeer::Entries(Entries { view, fetch, prev_op, prev_view, commit, entries, members_op: Op::ZERO })
}

/// Server 1 has an empty log and prepares the view that is returned, above that of the entries that it lacks.
/// Its own promise is durable.
fn preparing(servers: u16) -> (One, View) {
    let mut one = One::among(servers, Boot { promised: held(), ..boot() });
    let view = one.prepare();
    one.sync();
    (one, view)
}

/// The LEARN of a server that has lost its disk.
const LEARN: ToPeer = ToPeer::Learn(Learn { nonce: 1 });

fn answered(effects: &[Effect]) -> Option<NodeId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { to, packet: ToPeer::LearnOk(_), .. } => Some(*to),
        _ => None,
    })
}

fn contradiction(effects: &[Effect]) -> Option<Contradiction> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Report::Contradicted(found)) => Some(*found),
        _ => None,
    })
}
