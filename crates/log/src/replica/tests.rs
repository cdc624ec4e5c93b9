//! Tests of a few replicas on a perfect network, and of one replica driven by hand. The simulator tests
//! imperfect networks.

mod candidates;
mod casts;
mod copies;
mod elections;
mod leaders;
mod slow_disks;
mod transfers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use recado_proto::id::{BootId, ClusterId, KnownBoot};
use recado_proto::packet::{
    Election, Entries, EntriesAck, Fetch, Heartbeat, HeartbeatState, Learn, LearnOk, OptionalFields, Promise,
    QueryId, Reply, SnapshotChunk, WaitsFor,
};

use super::*;
use crate::config::{Cluster, Member, Preempt};

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
            replica.flush(self.now, |_| 64 * 1024, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { to, packet, .. } if self.replicas.contains_key(&to) => {
                        let incarnation = Incarnation(1);
                        waiting.push_back((to, Input::Packet { from: at, incarnation, packet }));
                    }
                    Effect::Journal { number, .. } => waiting.push_back((at, Input::Journaled(number))),
                    // The disk can read only the first block of its snapshot.
                    Effect::ReadSnapshot { to, offset: 0, .. } => {
                        let (op, view) = (Op(100), View::new(1, NodeId(2)));
                        let bytes = vec![7; SnapshotChunk::BYTES_MAX];
                        let chunk = SnapshotChunk { op, view, offset: 0, total: 5_000, crc: 1, bytes };
                        let (incarnation, packet) = (Incarnation(1), ToPeer::SnapshotChunk(chunk));
                        waiting.push_back((to, Input::Packet { from: at, incarnation, packet }));
                    }
                    Effect::Apply(entry) => self.applied.entry(at).or_default().push(entry.op),
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

#[test]
fn the_highest_id_leads_a_new_cluster_and_everyone_applies_what_it_takes() {
    let mut world = World::new(3);
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(3)));
    let op = world.propose("first");
    world.run(SECOND);
    assert!(world.applied.values().all(|applied| applied.contains(&op)));
    assert_eq!(world.applied.len(), 3);
}

#[test]
fn a_cluster_of_one_leads_itself() {
    let mut world = World::new(1);
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(1)));
    let op = world.propose("alone");
    assert!(world.applied[&NodeId(1)].contains(&op));
}

#[test]
fn the_next_highest_takes_over_from_a_dead_primary_with_everything_it_had() {
    let mut world = World::new(3);
    world.run(SECOND);
    let op = world.propose("kept");
    world.replicas.remove(&NodeId(3));
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(2)));
    assert!(world.applied[&NodeId(2)].contains(&op));
}

#[test]
fn a_candidate_gives_up_a_donor_that_cannot_read_its_snapshot_and_another_leads() {
    let (now, config) = (Moment(1_000_000), |id| config(id, 3));
    let view = View::new(1, NodeId(2));
    let entries: Vec<Entry> = (101..=105).map(|op| entry(op, 1, 2)).collect();
    let far = Boot { base: (view, Op(100)), entries, promised: view, commit: Op(105), ..boot() };
    let mut world = World { now, replicas: BTreeMap::new(), applied: BTreeMap::new(), stopped: Vec::new() };
    for (id, boot) in [(1, far.clone()), (2, far), (3, boot())] {
        let replica = ReplicaManager::new(&config(id), boot, id.into(), now, &mut Vec::new());
        world.replicas.insert(NodeId(id), replica);
    }
    world.run(SECOND * 10);
    assert_eq!(world.primary(), Some(NodeId(2)));
}

#[test]
fn without_a_majority_nobody_leads() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.replicas.remove(&NodeId(3));
    world.replicas.remove(&NodeId(2));
    world.run(SECOND * 3);
    assert_eq!(world.primary(), None);
}

#[test]
fn a_primary_without_its_majority_is_isolated_and_takes_nothing() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.replicas.remove(&NodeId(1));
    world.replicas.remove(&NodeId(2));
    world.run(SECOND * 3);
    let primary = world.replicas.get_mut(&NodeId(3)).expect("it runs");
    assert_eq!(primary.role(), RoleName::Isolated);
    assert_eq!(primary.propose([].into()), None);
}

#[test]
fn a_stopping_primary_hands_over_before_it_stops() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.propose("one");
    world.feed(NodeId(3), Input::Stop);
    world.run(SECOND / 4);
    assert_eq!(world.primary(), Some(NodeId(2)));
    assert_eq!(world.stopped, vec![NodeId(3)]);
}

#[test]
fn a_returning_higher_id_is_handed_the_lead_after_ten_quiet_seconds() {
    let mut world = World::new(3);
    world.run(SECOND);
    let gone = world.replicas.remove(&NodeId(3)).expect("it runs");
    world.run(SECOND);
    world.propose("meanwhile");
    let entries = (1..=gone.last().0).filter_map(|op| gone.entry(Op(op)).cloned()).collect();
    let again = Boot { promised: gone.promised(), entries, ..boot() };
    let back = ReplicaManager::new(&config(3, 3), again, 7, world.now, &mut Vec::new());
    world.replicas.insert(NodeId(3), back);
    world.run(SECOND * 8);
    assert_eq!(world.primary(), Some(NodeId(2)), "it is watched first");
    world.run(SECOND * 5);
    assert_eq!(world.primary(), Some(NodeId(3)));
}

// ---- one replica, driven by hand

pub(super) struct One {
    pub(super) replica: ReplicaManager,
    pub(super) now: Moment,
}

impl One {
    pub(super) fn new(boot: Boot) -> One {
        One::among(3, boot)
    }

    pub(super) fn among(servers: u16, boot: Boot) -> One {
        let now = Moment(1_000_000);
        One { replica: ReplicaManager::new(&config(1, servers), boot, 1, now, &mut Vec::new()), now }
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
        self.replica.flush(self.now, |_| 64 * 1024, &mut effects);
        effects
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
    ToPeer::EntriesAck(EntriesAck { view, durable, matched, applied, rejected: false })
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

/// The packets sent to `peer`.
fn said(effects: &[Effect], peer: u16) -> Vec<ToPeer> {
    let packets = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, packet, .. } if *to == NodeId(peer) => Some(packet.clone()),
        _ => None,
    });
    packets.collect()
}

#[test]
fn a_promise_is_sent_only_when_it_is_durable() {
    let mut one = One::new(boot());
    assert_eq!(promises(&one.packet(2, prepare(View::new(1, NodeId(2))))), 0);
    assert_eq!(promises(&one.sync()), 1);
}

#[test]
fn a_promise_raised_by_a_packet_of_its_view_is_sent_only_when_it_is_durable() {
    let view = View::new(1, NodeId(2));
    let mut one = One::new(boot());
    one.packet(2, ToPeer::Coordinator(Coordinator::new(view, Vec::new())));
    assert_eq!(one.replica.promised(), view);
    assert_eq!(promises(&one.packet(2, prepare(view))), 0, "a PREPARE that was late");
    assert_eq!(promises(&one.sync()), 1);
}

#[test]
fn what_is_below_the_promise_is_refused() {
    let mut one = One::new(boot());
    one.packet(3, prepare(View::new(5, NodeId(3))));
    one.sync();
    let old = View::new(4, NodeId(2));
    let effects = one.packet(2, cast(old, 0, View::ZERO, 0, vec![entry(1, 4, 2)]));
    assert_eq!(one.replica.last(), Op(0));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send { packet: ToPeer::Reply(Reply::Refuse { .. }), .. }))
    );
    assert_eq!(promises(&one.packet(2, prepare(old))), 0);
}

#[test]
fn an_entry_is_acknowledged_only_when_fsynced_and_matched() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let effects = one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3), entry(2, 1, 3)]));
    assert_eq!(acked(&effects).map(|(durable, ..)| durable).unwrap_or_default(), Op(0));
    assert_eq!(acked(&one.sync()), Some((Op(2), Op(2), false)));
}

#[test]
fn what_an_older_primary_left_is_not_acknowledged_to_the_new_one_before_it_matched() {
    let old =
        Boot { entries: vec![entry(1, 1, 2), entry(2, 1, 2)], promised: View::new(1, NodeId(2)), ..boot() };
    let mut one = One::new(old);
    let view = View::new(2, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 2)]));
    assert_eq!(acked(&one.sync()).map(|(durable, ..)| durable).unwrap_or(Op(1)), Op(1));
    let effects = one.packet(3, cast(view, 1, View::new(1, NodeId(2)), 0, vec![entry(2, 2, 3)]));
    assert!(
        acked(&effects).is_none_or(|(durable, ..)| durable <= Op(1)),
        "the new entry 2 is not durable yet"
    );
    assert_eq!(acked(&one.sync()), Some((Op(2), Op(2), false)));
}

#[test]
fn a_cast_that_does_not_join_on_is_rejected_with_the_match_point() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let effects = one.packet(3, cast(view, 4, view, 0, vec![entry(5, 1, 3)]));
    assert_eq!(acked(&effects), Some((Op(0), Op(0), true)));
}

#[test]
fn a_cast_sent_again_cuts_nothing() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let three = vec![entry(1, 1, 3), entry(2, 1, 3), entry(3, 1, 3)];
    one.packet(3, cast(view, 0, View::ZERO, 0, three));
    one.sync();
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    assert_eq!((one.replica.last(), one.replica.durable()), (Op(3), Op(3)));
}

#[test]
fn a_different_view_at_an_op_replaces_the_suffix_and_what_was_durable_of_it() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let entries = vec![entry(1, 1, 2), entry(2, 1, 2), entry(3, 1, 2)];
    let mut one = One::new(Boot { entries, promised: old, ..boot() });
    one.packet(3, cast(view, 1, old, 0, vec![entry(2, 2, 3)]));
    assert_eq!((one.replica.last(), one.replica.durable()), (Op(2), Op(1)));
    one.sync();
    assert_eq!(one.replica.durable(), Op(2));
}

/// The entries on the disk beyond an installed snapshot belong to another log: an entry after the snapshot
/// is acknowledged only when that entry itself is on the disk.
#[test]
fn what_was_durable_beyond_an_installed_snapshot_counts_for_nothing_that_follows_it() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    for unsynced in [false, true] {
        let held = if unsynced { 2 } else { 6 };
        let entries = (1..=held).map(|op| entry(op, 1, 2)).collect();
        let mut one = One::new(Boot { entries, promised: old, commit: Op(2), ..boot() });
        if unsynced {
            // The journal still writes them when the snapshot comes.
            one.packet(2, cast(old, 2, old, 2, (3..=6).map(|op| entry(op, 1, 2)).collect()));
        }
        let appended = one.replica.journaling.tasks;
        one.packet(3, heartbeat(view, HeartbeatState::Active, 4, digest(&[NodeId(1), NodeId(2), NodeId(3)])));
        let mut effects = Vec::new();
        assert!(one.replica.install(one.now, Op(4), view, Vec::new(), &mut effects));
        let install = one.replica.journaling.tasks;
        effects.extend(one.packet(3, cast(view, 4, view, 4, vec![entry(5, 2, 3)])));
        effects.extend(one.input(Input::Journaled(appended)));
        assert_eq!((one.replica.last(), one.replica.durable()), (Op(5), Op(2)));
        effects.extend(one.input(Input::Journaled(install)));
        assert_eq!(one.replica.durable(), Op(4));
        let told = effects.iter().filter_map(|effect| acked(std::slice::from_ref(effect)));
        assert_eq!(told.map(|(durable, ..)| durable).max(), Some(Op(4)), "entry 5 is not on the disk yet");
        assert_eq!(acked(&one.sync()), Some((Op(5), Op(5), false)));
    }
}

/// Casts that arrived early belong to the primary that sent them: the next one may have other entries
/// there.
#[test]
fn a_cast_that_came_too_early_in_one_view_is_gone_in_the_next() {
    let (old, view) = (View::new(1, NodeId(3)), View::new(2, NodeId(2)));
    let mut one = One::new(boot());
    one.packet(3, cast(old, 0, View::ZERO, 0, vec![entry(1, 1, 3), entry(2, 1, 3)]));
    // The casts of ops 3 and 4 are lost here, but the next primary has them.
    let effects = one.packet(3, cast(old, 4, old, 0, vec![entry(5, 1, 3)]));
    assert_eq!(acked(&effects).map(|(.., rejected)| rejected), Some(false), "it is kept");
    one.sync();
    one.packet(2, cast(view, 2, old, 0, vec![entry(3, 1, 3), entry(4, 1, 3)]));
    assert_eq!(one.replica.last(), Op(4), "entry 5 is none of this view's");
    assert_eq!(acked(&one.sync()), Some((Op(4), Op(4), false)));
    one.packet(2, cast(view, 4, old, 0, vec![entry(5, 2, 2)]));
    assert_eq!(one.replica.log.view_at(Op(5)), Some(view));
    assert_eq!(acked(&one.sync()), Some((Op(5), Op(5), false)));
}

#[test]
fn the_commit_never_passes_what_is_matched() {
    let old = View::new(1, NodeId(2));
    let mut one = One::new(Boot { entries: vec![entry(1, 1, 2), entry(2, 1, 2)], promised: old, ..boot() });
    let view = View::new(2, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 2, Vec::new()));
    assert_eq!(one.replica.commit(), Op(0));
}

#[test]
fn a_server_on_an_empty_directory_neither_promises_nor_acknowledges() {
    let mut one = One::new(Boot { voter: false, ..boot() });
    assert_eq!(promises(&one.packet(2, prepare(View::new(1, NodeId(2))))), 0);
    assert_eq!(promises(&one.sync()), 0);
    let view = View::new(1, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    assert_eq!(acked(&one.sync()).map(|(durable, ..)| durable), Some(Op(0)));
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

#[test]
fn a_heartbeat_from_other_members_is_not_believed() {
    let mut one = One::new(boot());
    one.packet(3, heartbeat(View::new(9, NodeId(3)), HeartbeatState::Active, 0, 7));
    assert_eq!(one.replica.promised(), View::ZERO);
}

#[test]
fn a_heartbeat_of_a_primary_whose_members_an_entry_named_is_not_believed() {
    let view = View::new(9, NodeId(3));
    for (members_op, promised) in [(Op(5), View::ZERO), (Op::ZERO, view)] {
        let mut one = One::new(boot());
        let beat = heartbeat(view, HeartbeatState::Active, 0, one.replica.digest);
        let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
        one.packet(3, ToPeer::Heartbeat(Heartbeat { members_op, ..beat }));
        assert_eq!(one.replica.promised(), promised, "members of {members_op}");
    }
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

#[test]
fn a_learner_aims_only_at_the_commit_of_an_active_primary() {
    let (mut one, answer) = learner();
    let view = View::new(4, NodeId(3));
    // A primary whose view is opening may have restarted, and not know of the 16 ops that it committed.
    for peer in [2, 3] {
        one.packet(peer, answer(None));
    }
    let members = digest(&[NodeId(1), NodeId(2), NodeId(3)]);
    one.packet(3, heartbeat(view, HeartbeatState::Opening, 0, members));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner);

    one.packet(3, answer(Some(16)));
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner, "it has yet to get there");
    one.packet(3, cast(view, 0, View::ZERO, 16, (1..=16).map(|op| entry(op, 4, 3)).collect()));
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup);
}

#[test]
fn a_heartbeat_from_before_the_primary_knew_of_a_lost_disk_gives_no_vote() {
    let (mut one, answer) = learner();
    let view = View::new(4, NodeId(3));
    // Server 3 sent this before it heard of the new incarnation, and then committed op 17 with an
    // acknowledgement of the old one.
    let members = digest(&[NodeId(1), NodeId(2), NodeId(3)]);
    one.packet(2, answer(None));
    one.packet(3, answer(Some(17)));
    one.packet(3, heartbeat(view, HeartbeatState::Active, 16, members));
    one.packet(3, cast(view, 0, View::ZERO, 16, (1..=16).map(|op| entry(op, 4, 3)).collect()));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner, "op 17 was committed with its lost disk");
    one.packet(3, cast(view, 16, view, 17, vec![entry(17, 4, 3)]));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup);
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

/// The question of a server that has lost its disk.
const LEARN: ToPeer = ToPeer::Learn(Learn { nonce: 1 });

#[test]
fn a_promise_of_an_earlier_incarnation_opens_no_view() {
    let mut one = One::new(boot());
    let view = one.prepare();
    one.packet(2, promise(view));
    one.packet_of_incarnation(2, 2, LEARN);
    one.sync();
    assert!(matches!(one.replica.role, Role::Candidate(_)));
    one.packet_of_incarnation(2, 2, promise(view));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

/// A candidate that is cut off from a server that lost its disk hears of its new incarnation from the
/// others.
#[test]
fn a_promise_counts_only_while_no_promise_names_a_later_incarnation() {
    let mut one = One::among(5, boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    one.packet(3, promise_with_incarnations(view, &[(2, 2)]));
    assert!(matches!(one.replica.role, Role::Candidate(_)), "of three promises one is forgotten");
    one.packet(2, promise(view));
    assert!(matches!(one.replica.role, Role::Candidate(_)), "that life is over");
    one.packet_of_incarnation(2, 2, promise(view));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

#[test]
fn a_promise_carries_the_known_incarnations() {
    let mut one = One::among(5, boot());
    one.packet_of_incarnation(4, 2, LEARN);
    one.packet(3, prepare(View::new(1, NodeId(3))));
    let carried = one.sync().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Reply(Reply::Promise(promise)), .. } => Some(promise.incarnations),
        _ => None,
    });
    assert_eq!(carried, Some(vec![(NodeId(2), Incarnation(4)), (NodeId(3), Incarnation(1))]));
}

#[test]
fn an_ack_of_an_earlier_incarnation_commits_nothing() {
    let mut one = One::new(boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    let ack = |durable| {
        let (durable, matched, applied) = (Op(durable), Op(1), Op(0));
        ToPeer::EntriesAck(EntriesAck { view, durable, matched, applied, rejected: false })
    };
    one.packet(2, ack(1));
    one.packet_of_incarnation(2, 2, LEARN);
    one.sync();
    assert_eq!((one.replica.durable(), one.replica.commit()), (Op(1), Op(0)));
    one.packet_of_incarnation(2, 2, ack(1));
    assert_eq!(one.replica.commit(), Op(1));
}

fn answered(effects: &[Effect]) -> Option<NodeId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { to, packet: ToPeer::LearnOk(_), .. } => Some(*to),
        _ => None,
    })
}

/// The answer lets the learner vote again. The server that gave it must name that incarnation in every
/// later promise, or a promise of the learner's earlier incarnation might count.
fn answers_a_learner(planted: PlantedBug) -> bool {
    let now = Moment(1_000_000);
    let config = Config { planted, ..config(1, 3) };
    let mut one = One { replica: ReplicaManager::new(&config, boot(), 1, now, &mut Vec::new()), now };
    let early = answered(&one.packet_of_incarnation(9, 2, ToPeer::Learn(Learn { nonce: 7 })));
    let known = one.replica.peers.incarnations();
    early.is_none() && known.is_empty() && answered(&one.sync()) == Some(NodeId(2))
}

#[test]
fn a_learner_is_answered_only_when_its_incarnation_is_durable() {
    assert!(answers_a_learner(PlantedBug::default()));
    assert!(!answers_a_learner(PlantedBug(Some(Planted::KnownNotDurable))), "the planted bug is found");
}

/// A copy of the learner's directory may count up to the same incarnation. This server must refuse it also
/// after a restart, so it has to know which boot it let vote.
#[test]
fn a_learner_is_answered_only_when_its_boot_id_is_durable_too() {
    let known = vec![(NodeId(2), Incarnation(5).into())];
    let mut one = One::new(Boot { known, ..boot() });
    let boot = KnownBoot { incarnation: Incarnation(5), boot_id: Some(BootId([7; 16])) };
    one.input(Input::BootAdopted { peer: NodeId(2), boot });
    assert_eq!(answered(&one.packet_of_incarnation(5, 2, LEARN)), None, "its incarnation alone is durable");
    assert_eq!(answered(&one.sync()), Some(NodeId(2)));
}

#[test]
fn known_incarnations_are_sent_after_a_restart_and_packets_of_earlier_ones_are_ignored() {
    let mut one = One::new(Boot { known: vec![(NodeId(2), Incarnation(9).into())], ..boot() });
    one.packet(3, prepare(View::new(2, NodeId(3))));
    let promised = one.sync().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Reply(Reply::Promise(promise)), .. } => Some(promise.incarnations),
        _ => None,
    });
    assert_eq!(promised, Some(vec![(NodeId(2), Incarnation(9)), (NodeId(3), Incarnation(1))]));
    assert_eq!(promises(&one.packet_of_incarnation(8, 2, prepare(View::new(3, NodeId(2))))), 0);
    assert_eq!(one.replica.promised(), View::new(2, NodeId(3)), "of an incarnation that is over");
}

fn contradiction(effects: &[Effect]) -> Option<Contradiction> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Report::Contradicted(found)) => Some(*found),
        _ => None,
    })
}

#[test]
fn a_primary_that_lacks_committed_entries_is_reported_and_not_followed() {
    let entries: Vec<Entry> = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let old = View::new(1, NodeId(2));
    let known = Boot { entries, commit: Op(5), promised: old, ..boot() };
    let view = View::new(4, NodeId(3));

    // The leader's log is shorter than the ops committed here.
    let mut one = One::new(known.clone());
    let beat = heartbeat(view, HeartbeatState::Active, 2, digest(&[NodeId(1), NodeId(2), NodeId(3)]));
    let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
    let effects = one.packet(3, ToPeer::Heartbeat(Heartbeat { last: Op(3), ..beat.clone() }));
    let found = Contradiction { view, op: Op(4), commit: Op(5), count: 1 };
    assert_eq!((contradiction(&effects), acked(&effects)), (Some(found), None));

    // The leader has another entry at a committed op.
    let mut one = One::new(known.clone());
    let effects = one.packet(3, cast(view, 3, old, 3, vec![entry(4, 4, 3), entry(5, 4, 3), entry(6, 4, 3)]));
    assert_eq!(contradiction(&effects), Some(found));
    assert_eq!(
        (acked(&one.sync()), one.replica.log.view_at(Op(5))),
        (None, Some(old)),
        "it keeps what it has"
    );

    // The leader supersedes only an op that was never committed, and that is reported.
    let mut one = One::new(known.clone());
    let effects = one.packet(3, cast(view, 5, old, 5, vec![entry(6, 4, 3)]));
    assert_eq!(contradiction(&effects), None);
    assert!(effects.contains(&Effect::Report(Report::Overwritten { view, first: Op(6), last: Op(6) })));
    assert_eq!(acked(&one.sync()), Some((Op(6), Op(6), false)));

    // In its next view the leader is not believed before its entries were compared.
    let mut one = One::new(known);
    one.packet(3, ToPeer::Heartbeat(Heartbeat { last: Op(3), ..beat.clone() }));
    let next = View::new(5, NodeId(3));
    let effects = one.packet(3, ToPeer::Heartbeat(Heartbeat { view: next, last: Op(7), ..beat.clone() }));
    assert_eq!((acked(&effects), acked(&one.sync())), (None, None));
    one.packet(3, cast(next, 5, old, 5, vec![entry(6, 5, 3)]));
    assert_eq!(acked(&one.sync()), Some((Op(6), Op(6), false)));
}
