//! The [`ReplicaManager`]: detects a dead primary, runs the bully election, casts the log to the backups
//! and decides which ops are committed (DESIGN.md section 4). Log payloads are opaque to it.
//!
//! Pure: `handle(now, input, &mut effects)` and `next_deadline()`; no socket, file, thread, clock or global
//! randomness. The caller's duties:
//!
//! 1. feed a `now` that never goes back;
//! 2. perform the effects in order, above all the journal tasks, since an acknowledgement follows from
//!    [`Input::Journaled`] and nothing else;
//! 3. call [`ReplicaManager::flush`] after a batch of inputs and proposals;
//! 4. call again with [`Input::Deadline`] at [`ReplicaManager::next_deadline`] at the latest.
//!
//! Reading order: this file (state, roles, journal bookkeeping), `detector`, `disk_pace`, `in_view`, `election`,
//! `backup`, `cast`, `catchup`, `handover`, `learner`; `log` holds the entries.
//!
//! Invariants, each with its reason in DESIGN.md section 4:
//! - nothing below `promised` is accepted, and a promise is durable before another server learns of it;
//! - a backup acknowledges only ops that it has fsynced *and* matched with this view's primary;
//! - only an entry of the primary's own view is committed by counting;
//! - an entry is replaced only by another at the same op, never cut off in anticipation.

mod backup;
mod cast;
mod catchup;
mod detector;
mod disk_pace;
mod election;
mod handover;
mod in_view;
mod learner;
mod log;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::fnv::fnv1a;
use recado_proto::id::{Incarnation, KnownBoot, Moment, NodeId, Op, View};
use recado_proto::packet::{
    Coordinator, Election, Heartbeat, Packet, Promise, Reply, RoleName, SnapshotChunk,
};
use recado_proto::planted::{Planted, PlantedBug};

use crate::config::{Config, Timing};

use cast::Primary;
use catchup::Receiving;
use detector::FailureDetector;
use disk_pace::DiskPace;
use election::Candidate;
use handover::Stopping;
use in_view::InView;
use learner::Learner;
use log::Log;

/// A task for the journal, which does its tasks in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Append these entries. An entry with an op already in the log supersedes from there.
    Append {
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The highest op known to be committed, for the recovery after damage.
        commit: Op,
    },
    /// Promise this view, in both meta slots.
    Promise(View),
    /// Make this server a voter that has promised this view.
    Vote(View),
    /// Store these latest known boots, durable with the next promise at the latest.
    Know(Vec<(NodeId, KnownBoot)>),
    /// Install a snapshot from a peer. It replaces the whole log.
    Install {
        /// Its op.
        op: Op,
        /// That op's view.
        view: View,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// A role change, for one line in the server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// The new role.
    pub role: RoleName,
    /// The view of the new role.
    pub view: View,
    /// The reason.
    pub cause: Cause,
    /// The time since the first suspicion (or the start).
    pub took: Duration,
}

/// A contradiction: a leader's log lacks an op that is committed here, or has another entry there. More
/// copies were damaged than the fault model allows, or a directory was replaced by an older one. This
/// server keeps its log. It does not follow the leader in that view and does not lead, until a person has
/// decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The leader's view.
    pub view: View,
    /// The first op at which the logs differ.
    pub op: Op,
    /// The last op committed here.
    pub commit: Op,
    /// The number of contradictions found since the start.
    pub count: u64,
}

/// The reason for a role change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The process started.
    Started,
    /// The primary was silent for too long.
    TimedOut,
    /// The primary's port refused a datagram.
    PortRefused,
    /// The primary's heartbeats said that it is isolated.
    PrimaryIsolated,
    /// The primary came back with a higher incarnation.
    PrimaryRestarted,
    /// A peer promised a higher view than this primary's.
    Outbid,
    /// The primary handed over.
    Transfer,
    /// A majority promised and the view is active.
    Elected,
    /// Another server is primary, or candidate, of a higher view.
    HigherView,
    /// The primary that was suspected is heard again.
    HeardAgain,
    /// No echo from a majority, or this server's disk stalls.
    NoMajority,
    /// The majority echoes again, and the disk does not stall.
    MajorityBack,
    /// This server's disk lags behind those of a majority, which can lead sooner.
    SlowDisk,
    /// A learner got its vote back.
    Voter,
}

/// The state that a server starts with, from its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The incarnation of this start.
    pub incarnation: Incarnation,
    /// True if the server votes.
    pub voter: bool,
    /// The promised view: the server accepts nothing below it.
    pub promised: View,
    /// The view and op of the newest snapshot, zero if there is none.
    pub base: (View, Op),
    /// The entries after the snapshot.
    pub entries: Vec<Entry>,
    /// The highest op known to be committed.
    pub commit: Op,
    /// The latest known boot of each other server that was heard of.
    pub known: Vec<(NodeId, KnownBoot)>,
    /// The ops that damage may have destroyed.
    pub unknown: Option<Unknown>,
}

/// An input of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A packet from a peer.
    Packet {
        /// The sender.
        from: NodeId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The packet.
        packet: Packet,
    },
    /// The link to a peer has adopted this boot of it.
    BootAdopted {
        /// The peer.
        peer: NodeId,
        /// Its boot, with the boot id.
        boot: KnownBoot,
    },
    /// A peer's port refused a datagram.
    PortRefused(NodeId),
    /// A packet with tracked ops is believed lost.
    Lost {
        /// The peer it was sent to.
        peer: NodeId,
        /// Its first and last op.
        ops: (Op, Op),
    },
    /// The journal has done every task up to this ticket.
    Journaled(u64),
    /// A deadline may have passed.
    Deadline,
    /// Stop; hand over first if this is the primary.
    Stop,
}

/// An effect that the caller performs; effects are performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a packet to a peer.
    Send {
        /// The receiver.
        to: NodeId,
        /// The packet.
        packet: Packet,
        /// The first and the last op in it. If the packet is lost, report that with [`Input::Lost`].
        tracked: Option<(Op, Op)>,
    },
    /// Give the journal a task; [`Input::Journaled`] with this ticket follows once it is durable.
    Journal {
        /// The number of the task. Each task has the next one.
        ticket: u64,
        /// The task.
        task: Task,
    },
    /// This entry is committed: apply it.
    Apply(Entry),
    /// A snapshot has arrived completely and its checksum is right. Validate it, then call
    /// [`ReplicaManager::install`] or drop it.
    SnapshotReceived {
        /// Its op.
        op: Op,
        /// That op's view.
        view: View,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Read a piece of a stored snapshot and send it to a peer as SNAPSHOT_CHUNKs.
    ReadSnapshot {
        /// The receiver.
        to: NodeId,
        /// The op of the snapshot; zero means the newest.
        op: Op,
        /// The offset of the first byte.
        offset: u64,
        /// The number of chunks.
        chunks: u16,
    },
    /// This view is active: announce it. If its primary is this server, serve.
    Active(View),
    /// This server has stopped being the primary of an active view: serve nobody. A primary that is only
    /// isolated is not deposed.
    Deposed,
    /// The role changed.
    Role(RoleChange),
    /// The election cannot end without one of these servers: their logs may have committed entries.
    Waiting(Vec<NodeId>),
    /// An op that is committed here is missing in a leader's log: see [`Contradiction`].
    Contradicted(Contradiction),
    /// Entries that were durable here are replaced by those of a leader, whose log lacks them. As far as
    /// this server knows they were never committed.
    Overwritten {
        /// The leader's view.
        view: View,
        /// The first op replaced.
        first: Op,
        /// The last op replaced.
        last: Op,
    },
    /// The server may end.
    Stopped,
}

/// The result of a journal task.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// The log is durable up to this op.
    Upto(Op),
    /// This promise is durable.
    Promise(View),
    /// The vote is durable.
    Vote,
    /// The known boots are durable.
    Known,
}

/// The time at which a server was last heard, and its latest known boot.
#[derive(Clone, Copy, Debug)]
struct PeerLiveness {
    peer: NodeId,
    at: Moment,
    latest: KnownBoot,
    /// The boot last given to the journal, and the durable incarnation.
    journaled: KnownBoot,
    durable: Incarnation,
}

#[derive(Debug)]
enum Role {
    Learner(Learner),
    Backup,
    Candidate(Candidate),
    Primary(Primary),
}

/// The replication and election state of one server.
#[derive(Debug)]
pub struct ReplicaManager {
    me: NodeId,
    members: Vec<NodeId>,
    quorum: usize,
    digest: u64,
    timing: Timing,
    preempt: crate::config::Preempt,
    planted: PlantedBug,
    incarnation: Incarnation,

    role: Role,
    promised: View,
    in_view: InView,
    log: Log,
    commit: Op,
    applied: Op,
    /// The end of the prefix of the current log that is fsynced.
    durable: Op,
    unknown: Option<Unknown>,
    contradiction: Option<Contradiction>,
    /// Learners to answer once their incarnation is durable, with their nonces.
    learners: Vec<(NodeId, Incarnation, u64)>,

    active: View,
    detector: FailureDetector,
    pace: DiskPace,
    receiving: Option<Receiving>,
    pinged: Moment,
    heard: Vec<PeerLiveness>,
    refused: Vec<NodeId>,
    best_seen: Op,
    round_seen: u64,
    /// Views of this server that timed out or were overtaken since the last active view.
    failed_views: u32,
    /// The end of the best log that this server could not fetch when it tried to lead.
    unfetched_end: Option<Op>,
    stopping: Option<Stopping>,

    tickets: u64,
    in_journal: VecDeque<(u64, Written)>,
    unjournaled: Vec<Entry>,

    suspected_since: Option<Moment>,
    suspicion: Cause,
    handled: Moment,
    queries: u64,
    entropy: Entropy,
}

/// The highest round accepted from a peer. A round must always exist above it for the next election.
const ROUND_ACCEPTED_MAX: u64 = View::ROUND_MAX / 2;

/// Most promises waiting for the disk at once. No election needs as many; a storm of views must not fill
/// the journal's queue faster than the disk empties it.
const PROMISES_MAX: usize = 64;

/// Returns true if the views that a peer names leave room for later elections.
fn leaves_rounds(packet: &Packet) -> bool {
    let view = match packet {
        Packet::Heartbeat(heartbeat) => heartbeat.view.max(heartbeat.promised),
        Packet::Election(Election::Probe { view, .. } | Election::Prepare { view, .. }) => *view,
        Packet::Reply(Reply::Refuse { promised }) => *promised,
        Packet::Coordinator(coordinator) => coordinator.view,
        Packet::Entries(entries) => entries.view,
        Packet::LearnOk(answer) => answer.promised,
        _ => View::ZERO,
    };
    view.round() <= ROUND_ACCEPTED_MAX
}

/// The sender's disk turn in ms, if the packet reports it.
fn disk_told(packet: &Packet) -> Option<u32> {
    match packet {
        Packet::Heartbeat(Heartbeat { disk_ms, .. })
        | Packet::Election(Election::Probe { disk_ms, .. } | Election::Prepare { disk_ms, .. })
        | Packet::Reply(
            Reply::Agree { disk_ms, .. }
            | Reply::Alive { disk_ms, .. }
            | Reply::Bully { disk_ms, .. }
            | Reply::Writing { disk_ms, .. }
            | Reply::Promise(Promise { disk_ms, .. }),
        ) => Some(*disk_ms),
        _ => None,
    }
}

/// FNV-1a over the ids. It detects a different list of members, which is a mistake here and not an attack.
fn digest(members: &[NodeId]) -> u64 {
    fnv1a(members.iter().flat_map(|id| id.0.to_le_bytes()))
}

impl ReplicaManager {
    /// Starts a server as a backup, or as a learner if it has no vote.
    pub fn new(config: &Config, boot: Boot, seed: u64, now: Moment, out: &mut Vec<Effect>) -> ReplicaManager {
        let members: Vec<NodeId> = config.cluster.members.iter().map(|member| member.id).collect();
        let (base_view, base) = boot.base;
        let mut log = Log::new(base, base_view);
        for entry in boot.entries {
            log.push(entry);
        }
        let commit = boot.commit.min(log.last()).max(base);
        let mut replica = ReplicaManager {
            me: config.cluster.me,
            quorum: config.cluster.quorum(),
            digest: digest(&members),
            timing: config.timing,
            preempt: config.preempt,
            planted: config.planted,
            incarnation: boot.incarnation,
            role: Role::Backup,
            promised: boot.promised.max(log.last_view()),
            in_view: InView::new(commit, now),
            commit,
            applied: base,
            durable: log.last(),
            unknown: boot.unknown,
            contradiction: None,
            learners: Vec::new(),
            active: View::ZERO,
            detector: FailureDetector::new(config.timing, now),
            pace: DiskPace::new(config.cluster.me, config.cluster.quorum(), config.timing.suspect_max, now),
            receiving: None,
            pinged: now,
            heard: members
                .iter()
                .map(|peer| {
                    let known = boot.known.iter().find(|(id, _)| id == peer);
                    let latest = known.map_or_else(KnownBoot::default, |(_, boot)| *boot);
                    let (journaled, durable) = (latest, latest.incarnation);
                    PeerLiveness { peer: *peer, at: Moment(0), latest, journaled, durable }
                })
                .collect(),
            refused: Vec::new(),
            best_seen: Op::ZERO,
            round_seen: 0,
            failed_views: 0,
            unfetched_end: None,
            stopping: None,
            tickets: 0,
            in_journal: VecDeque::new(),
            unjournaled: Vec::new(),
            suspected_since: Some(now),
            suspicion: Cause::Started,
            handled: now,
            queries: 0,
            entropy: Entropy::from_number(seed),
            members,
            log,
        };
        let votes = boot.voter || replica.planted.is(Planted::EmptyDiskVotes);
        if !votes {
            let nonce = replica.entropy.number();
            replica.role = Role::Learner(Learner::new(nonce, now));
        }
        replica.role_changed(now, Cause::Started, out);
        replica.commit_upto(commit, out);
        if replica.planted.is(Planted::RestartAsPrimary) && replica.promised.primary() == Some(replica.me) {
            replica.open(now, &Default::default(), out);
        }
        replica
    }

    /// Takes one input at `now`, and pushes the effects to perform.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        self.forgive_own_lateness(now);
        match input {
            Input::Packet { from, incarnation, packet } => {
                self.on_packet(now, from, incarnation, packet, out)
            }
            Input::BootAdopted { peer, boot } => self.heard_of(now, peer, boot, out),
            Input::PortRefused(peer) => self.on_port_refused(now, peer),
            Input::Lost { peer, ops } => self.on_lost(peer, ops),
            Input::Journaled(ticket) => self.on_journaled(now, ticket, out),
            Input::Deadline => {}
            Input::Stop => self.on_stop(now, out),
        }
        self.on_time(now, out);
        self.handled = now;
    }

    /// A leader's log differs at `op` from the ops committed here. Reported once a view.
    fn contradict(&mut self, view: View, op: Op, out: &mut Vec<Effect>) {
        if self.contradiction.is_none_or(|known| known.view < view) {
            let count = self.contradiction.map_or(0, |known| known.count) + 1;
            let contradiction = Contradiction { view, op, commit: self.commit, count };
            self.contradiction = Some(contradiction);
            out.push(Effect::Contradicted(contradiction));
        }
    }

    /// Returns true if this server must not follow the leader of `promised`.
    fn is_contradicted(&self) -> bool {
        self.contradiction.is_some_and(|known| known.view == self.promised)
    }

    fn on_packet(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        packet: Packet,
        out: &mut Vec<Effect>,
    ) {
        if from == self.me || !self.members.contains(&from) || !leaves_rounds(&packet) {
            return;
        }
        if !self.heard_from(now, from, incarnation, out) {
            return;
        }
        if let Some(turn_ms) = disk_told(&packet) {
            self.pace.on_report(now, from, turn_ms);
        }
        if self
            .in_view
            .primary
            .is_some_and(|primary| primary.view.primary() == Some(from) && incarnation > primary.incarnation)
        {
            self.in_view.primary = None;
            self.suspect(now, Cause::PrimaryRestarted, out);
        }
        match packet {
            Packet::Heartbeat(heartbeat) => self.on_heartbeat(now, from, incarnation, heartbeat, out),
            Packet::Election(election) => self.on_election(now, from, election, out),
            Packet::Reply(reply) => self.on_reply(now, from, reply, out),
            Packet::Coordinator(coordinator) => self.on_coordinator(now, coordinator.view, out),
            Packet::Entries(entries) => self.on_entries(now, from, incarnation, entries, out),
            Packet::EntriesAck(ack) => self.on_entries_ack(now, from, ack, out),
            Packet::Fetch(fetch) => self.on_fetch(from, fetch, out),
            Packet::SnapshotGet(get) => self.on_snapshot_get(from, get, out),
            Packet::SnapshotChunk(chunk) => self.on_snapshot_chunk(now, from, chunk, out),
            Packet::Transfer(transfer) => self.on_transfer(now, from, transfer, out),
            Packet::Learn(learn) => self.on_learn(now, from, incarnation, learn, out),
            Packet::LearnOk(answer) => self.on_learn_ok(from, answer),
            // Servers ignore the packets of clients.
            _ => {}
        }
    }

    /// Does everything that depends on time alone.
    fn on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        match self.role {
            Role::Learner(_) => self.learner_on_time(now, out),
            Role::Backup => self.backup_on_time(now, out),
            Role::Candidate(_) => self.candidate_on_time(now, out),
            Role::Primary(_) => self.primary_on_time(now, out),
        }
        self.receiving_on_time(now, out);
        self.stopping_on_time(now, out);
    }

    /// The latest time for an [`Input::Deadline`]. It is never further away than a heartbeat, so that this
    /// server notices its own lateness.
    pub fn next_deadline(&self) -> Moment {
        let mut next = self.handled + self.timing.heartbeat;
        let mut at = |moment: Moment| next = next.min(moment);
        match &self.role {
            Role::Learner(learner) => at(learner.next_ask()),
            Role::Backup => {
                // While another candidate is awaited, the detector does not count.
                let silent_at = self.detector.silent_at();
                at(self
                    .in_view
                    .waiting_for
                    .map_or(silent_at, |awaited| self.waits_until(self.handled, awaited)));
                if self.in_view.waiting_for.is_none() && self.handled < self.detector.late_at() {
                    at(self.detector.late_at());
                } else if self.in_view.waiting_for.is_none() && self.in_view.primary.is_some() {
                    at(self.pinged + backup::PING_EVERY);
                }
            }
            Role::Candidate(candidate) => at(candidate.next_deadline()),
            Role::Primary(primary) => at(primary.next_beat()),
        }
        next
    }

    /// Takes a command into the log, if this is the active primary and no hand-over is in progress;
    /// otherwise returns `None`. The next [`ReplicaManager::flush`] casts and journals it.
    pub fn propose(&mut self, payload: Arc<[u8]>) -> Option<Op> {
        if !self.accepts() {
            return None;
        }
        let entry =
            Entry { op: self.log.last().next(), view: self.promised, kind: EntryKind::Command, payload };
        let op = entry.op;
        self.append(entry);
        Some(op)
    }

    /// Journals and casts the entries taken in since the last flush. `room` returns the number of bytes
    /// that the link to a peer takes now.
    pub fn flush(&mut self, now: Moment, room: impl Fn(NodeId) -> usize, out: &mut Vec<Effect>) {
        self.journal_appended(now, out);
        self.cast(now, room, out);
        self.handled = now;
    }

    // ---- accessors

    /// The role of this server.
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Learner(_) => RoleName::Learner,
            Role::Backup => RoleName::Backup,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Primary(primary) if primary.is_isolated() => RoleName::Isolated,
            Role::Primary(primary) if primary.is_active() => RoleName::Primary,
            Role::Primary(_) => RoleName::Candidate,
        }
    }

    /// Returns true if this is the primary of an active view (isolated or not).
    pub fn is_active_primary(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.is_active())
    }

    /// Returns true if commands are accepted now.
    pub fn accepts(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.is_active() && !primary.is_isolated())
            && self.stopping.is_none()
            && !self.hands_over()
    }

    /// The promised view: nothing below it is accepted.
    pub fn promised(&self) -> View {
        self.promised
    }

    /// The highest active view known.
    pub fn active_view(&self) -> View {
        self.active
    }

    /// The last op known to be committed.
    pub fn commit(&self) -> Op {
        self.commit
    }

    /// The last op held.
    pub fn last(&self) -> Op {
        self.log.last()
    }

    /// The end of the fsynced prefix.
    pub fn durable(&self) -> Op {
        self.durable
    }

    /// The view of the entry at `op`, if it is still held.
    pub fn view_at(&self, op: Op) -> Option<View> {
        self.log.view_at(op)
    }

    /// An entry still held.
    pub fn entry(&self, op: Op) -> Option<&Entry> {
        self.log.get(op)
    }

    /// Bytes of payload taken into the log since the start or the last snapshot installed from a peer, for
    /// the snapshot policy.
    pub fn appended_bytes(&self) -> u64 {
        self.log.appended()
    }

    /// Lets the log in memory begin at `op`, because a durable snapshot covers everything up to it.
    pub fn forget_upto(&mut self, op: Op) {
        self.log.forget_upto(op.min(self.applied));
    }

    // ---- roles

    /// Changes the role. This is the only place where the state of the old role ends.
    fn become_role(&mut self, now: Moment, role: Role, cause: Cause, out: &mut Vec<Effect>) {
        let before = self.role();
        let served = self.is_active_primary();
        if self.tries_to_lead() && !matches!(role, Role::Primary(_)) {
            self.failed_views += 1;
        }
        self.role = role;
        if served && !self.is_active_primary() {
            out.push(Effect::Deposed);
        }
        if before != self.role() {
            self.role_changed(now, cause, out);
        }
    }

    fn become_backup(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        self.detector.restart(now);
        if matches!(self.role, Role::Learner(_) | Role::Backup) {
            return;
        }
        self.become_role(now, Role::Backup, cause, out);
    }

    fn role_changed(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        let took = self.suspected_since.map_or(Duration::ZERO, |since| now.since(since));
        out.push(Effect::Role(RoleChange { role: self.role(), view: self.promised, cause, took }));
    }

    /// Returns true if `view` may be accepted: not if it needs one more promise from a disk that has too
    /// many to write.
    fn may_promise(&self, view: View) -> bool {
        view <= self.promised || self.promises_in_journal() < PROMISES_MAX
    }

    /// Promises that the journal was given and has not made durable yet.
    fn promises_in_journal(&self) -> usize {
        self.in_journal.iter().filter(|(_, written)| matches!(written, Written::Promise(_))).count()
    }

    /// Accepts nothing below `view` from this call on. The matched prefix belonged to a lower view and
    /// restarts at the commit.
    fn raise_promised(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        debug_assert!(view > self.promised);
        self.promised = view;
        let matched = self.in_view.matched;
        self.in_view = InView::new(self.commit, now);
        if self.planted.is(Planted::MatchedSurvivesView) {
            self.in_view.matched = matched;
        }
        if self.receiving.as_ref().is_some_and(|receiving| receiving.view() < view) {
            self.receiving = None;
        }
        // The promise names the incarnations.
        self.journal_known(now, out);
        self.journal(now, Task::Promise(view), Written::Promise(view), out);
    }

    /// Gives the journal what was learnt of boots since the last call.
    fn journal_known(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mut known = Vec::new();
        for heard in self.heard.iter_mut().filter(|heard| heard.latest != heard.journaled) {
            heard.journaled = heard.latest;
            known.push((heard.peer, heard.latest));
        }
        if !known.is_empty() {
            self.journal(now, Task::Know(known), Written::Known, out);
        }
    }

    /// A packet named an active view.
    fn on_active(&mut self, view: View, out: &mut Vec<Effect>) {
        if view > self.active {
            self.active = view;
            self.failed_views = 0;
            self.unfetched_end = None;
            out.push(Effect::Active(view));
        }
        if view.primary() != Some(self.me) {
            self.suspected_since = None;
        }
    }

    // ---- the journal

    fn journal(&mut self, now: Moment, task: Task, written: Written, out: &mut Vec<Effect>) {
        // A promise covers every append taken in before it, so those are written first.
        if !matches!(task, Task::Append { .. }) {
            self.journal_appended(now, out);
        }
        self.tickets += 1;
        self.in_journal.push_back((self.tickets, written));
        self.pace.task_given(now);
        out.push(Effect::Journal { ticket: self.tickets, task });
    }

    fn journal_appended(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.unjournaled.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.unjournaled);
        let upto = self.log.last();
        self.journal(now, Task::Append { entries, commit: self.commit }, Written::Upto(upto), out);
    }

    /// Drops `first` and everything after it, because the primary has another entry there.
    fn replace_from(&mut self, first: Op, out: &mut Vec<Effect>) {
        self.report_overwritten(first, out);
        self.log.cut_from(first);
        if !self.planted.is(Planted::StaleCompletionCounts) {
            self.limit_durable(first.prev());
        }
    }

    fn append(&mut self, entry: Entry) {
        self.log.push(entry.clone());
        self.unjournaled.push(entry);
    }

    /// Reports that the entries from `first` on are replaced, if they are durable.
    fn report_overwritten(&self, first: Op, out: &mut Vec<Effect>) {
        if first <= self.durable {
            out.push(Effect::Overwritten { view: self.promised, first, last: self.durable });
        }
    }

    /// Entries on the disk beyond `upto` are not the entries of the log any more.
    fn limit_durable(&mut self, upto: Op) {
        self.durable = self.durable.min(upto);
        for (_, written) in &mut self.in_journal {
            if let Written::Upto(last) = written {
                *last = (*last).min(upto);
            }
        }
    }

    fn on_journaled(&mut self, now: Moment, ticket: u64, out: &mut Vec<Effect>) {
        let durable = self.durable;
        self.pace.turn_ended(now, self.tickets > ticket);
        while self.in_journal.front().is_some_and(|(first, _)| *first <= ticket) {
            let Some((_, written)) = self.in_journal.pop_front() else { break };
            match written {
                Written::Upto(last) => self.durable = self.durable.max(last),
                Written::Promise(view) => self.on_promise_durable(now, view, out),
                Written::Vote => self.on_vote_durable(now, out),
                Written::Known => {
                    // Boots given to the journal after this task become durable with their own task.
                    if !self.in_journal.iter().any(|(.., written)| matches!(written, Written::Known)) {
                        self.heard.iter_mut().for_each(|heard| heard.durable = heard.journaled.incarnation);
                        self.answer_learners(out);
                    }
                }
            }
        }
        if self.durable > durable {
            match &self.role {
                Role::Primary(_) => self.count(now, out),
                Role::Learner(_) | Role::Backup | Role::Candidate(_) => self.acknowledge(false, out),
            }
        }
    }

    // ---- commit

    /// Commits everything up to `op` that is held, and applies it.
    fn commit_upto(&mut self, op: Op, out: &mut Vec<Effect>) {
        self.commit = self.commit.max(op.min(self.log.last()));
        while self.applied < self.commit {
            let Some(entry) = self.log.get(self.applied.next()) else { break };
            out.push(Effect::Apply(entry.clone()));
            self.applied = self.applied.next();
        }
    }

    // ---- helpers

    /// "Blame yourself first": a late replica moves every time-out by which it judges another server by its
    /// own delay (DESIGN.md section 6). A primary's time-out for its own isolation does not move: while it
    /// was late, the others may have elected another.
    fn forgive_own_lateness(&mut self, now: Moment) {
        let gap = now.since(self.handled);
        if gap < self.timing.heartbeat * 3 {
            return;
        }
        self.detector.forgive(gap);
        self.pace.forgive(gap);
        if let Some(awaited) = &mut self.in_view.waiting_for {
            awaited.forgive(gap);
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.forgive(gap);
        }
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.forgive(gap);
        }
    }

    /// A packet came from `peer`. Returns false if it is of an older incarnation.
    fn heard_from(
        &mut self,
        now: Moment,
        peer: NodeId,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.heard_of(now, peer, incarnation.into(), out);
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.peer == peer) else { return false };
        if incarnation < heard.latest.incarnation {
            return false;
        }
        heard.at = now;
        self.refused.retain(|id| *id != peer);
        true
    }

    /// Another server, or the peer itself, named this boot of `peer`.
    fn heard_of(&mut self, now: Moment, peer: NodeId, boot: KnownBoot, out: &mut Vec<Effect>) {
        let mut others = self.heard.iter_mut().filter(|heard| heard.peer != self.me);
        if let Some(heard) = others.find(|heard| heard.peer == peer) {
            let before = heard.latest.incarnation;
            heard.latest.learn(boot);
            if heard.latest.incarnation > before {
                self.drop_older_incarnation(now, peer, out);
            }
        }
    }

    /// The highest durable incarnation of each other server that was heard of.
    fn incarnations(&self) -> Vec<(NodeId, Incarnation)> {
        let known = self.heard.iter().filter(|heard| heard.durable > Incarnation(0));
        known.map(|heard| (heard.peer, heard.durable)).collect()
    }

    /// Drops the acknowledgements or the promise of an older incarnation. That server may have lost its
    /// disk since, and repeats those that still hold.
    fn drop_older_incarnation(&mut self, now: Moment, peer: NodeId, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Primary(primary) => primary.forget_acks_of(peer),
            Role::Candidate(_) => self.forget_promise_of(now, peer, out),
            Role::Learner(_) | Role::Backup => {}
        }
    }

    fn on_port_refused(&mut self, now: Moment, peer: NodeId) {
        if !self.refused.contains(&peer) {
            self.refused.push(peer);
        }
        if self.in_view.primary.is_some_and(|primary| primary.view.primary() == Some(peer)) {
            self.detector.refused();
            self.pinged = now - backup::PING_EVERY;
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.mark_absent(peer);
        }
    }

    fn send(&self, to: NodeId, packet: Packet, out: &mut Vec<Effect>) {
        out.push(Effect::Send { to, packet, tracked: None });
    }

    fn send_to_peers(&self, packet: &Packet, out: &mut Vec<Effect>) {
        for to in self.members.iter().filter(|id| **id != self.me) {
            self.send(*to, packet.clone(), out);
        }
    }

    fn coordinator(&self) -> Packet {
        // Peers know the members from their own configuration.
        Packet::Coordinator(Coordinator { view: self.active, members: Vec::new() })
    }

    /// `wait` plus a random part of up to half of it.
    fn jittered(&mut self, wait: Duration) -> Duration {
        let half = (wait.as_micros() as u64 / 2).max(1);
        wait + Duration::from_micros(self.entropy.number() % half)
    }

    /// Splits consecutive entries so that each piece fits a datagram, unless one alone does not.
    fn pieces(&self, after: Op, upto: Op, bytes_max: usize) -> Vec<(Op, View, Vec<Entry>)> {
        let mut pieces: Vec<(Op, View, Vec<Entry>)> = Vec::new();
        let (mut room, mut total, mut op) = (0, 0, after.next());
        while op <= upto && total < bytes_max {
            let Some(entry) = self.log.get(op) else { break };
            let size = entry.payload.len() + 24;
            if size > room {
                let Some(prev_view) = self.log.view_at(op.prev()) else { break };
                pieces.push((op.prev(), prev_view, Vec::new()));
                room = SnapshotChunk::BYTES_MAX;
            }
            if let Some((_, _, entries)) = pieces.last_mut() {
                entries.push(entry.clone());
            }
            room = room.saturating_sub(size);
            total += size;
            op = op.next();
        }
        pieces
    }
}
