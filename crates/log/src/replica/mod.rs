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
//! Reading order:
//!
//! - `io` (inputs and effects), this file (the state), `role`;
//! - what begins a step: `timers`, `dispatch` (packets), `peers`; what a step writes: `log`, `journaling`;
//! - an election: `detector`, `disk_pace`, `in_view`, `election` with `probe`, `promise`, `choose` and
//!   `fetch`;
//! - a view: `primary`, `cast`, `backup`, `handover`;
//! - a server that is behind: `catchup`; one that lost its disk: `learner`.
//!
//! Invariants, each with its reason in DESIGN.md section 4:
//! - nothing below `promised` is accepted, and a promise is durable before another server learns of it;
//! - a backup acknowledges only ops that it has fsynced *and* matched with this view's primary;
//! - only an entry of the primary's own view is committed by counting;
//! - an entry is replaced only by another at the same op, never cut off in anticipation.

mod backup;
mod cast;
mod catchup;
mod choose;
mod detector;
mod disk_pace;
mod dispatch;
mod election;
mod fetch;
mod handover;
mod in_view;
mod io;
mod journaling;
mod learner;
mod log;
mod peers;
mod primary;
mod probe;
mod promise;
mod role;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::fnv::fnv1a;
use recado_proto::id::{Incarnation, Moment, NodeId, Op, View};
use recado_proto::packet::{Coordinator, RoleName, ToPeer};
use recado_proto::planted::{Planted, PlantedBug};

use crate::config::{Config, Preempt, Timing};

use backup::Backup;
use catchup::{Opening, Receiving, RefusedSnapshot};
use detector::FailureDetector;
use disk_pace::DiskPace;
use handover::Stopping;
use in_view::InView;
use journaling::Journaling;
use learner::Learner;
use log::Log;
use peers::Peers;
use probe::FIT_BEHIND_MAX;
use role::Role;

pub(crate) use io::{Boot, Effect, Input, Room};
pub use io::{Cause, Contradiction, Report, RoleChange, Task};

/// The replication and election state of one server.
#[derive(Debug)]
pub(crate) struct ReplicaManager {
    me: NodeId,
    /// All servers, this one included.
    members: Vec<NodeId>,
    quorum: usize,
    /// The [`digest`] of the members.
    digest: u64,
    timing: Timing,
    preempt: Preempt,
    planted: PlantedBug,

    role: Role,
    /// Nothing below this view is accepted.
    promised: View,
    in_view: InView,
    /// The highest active view known.
    active: View,
    /// When another server was last heard as the active primary, or this server was last one.
    led: Option<Moment>,

    log: Log,
    /// The last op known to be committed, which the caller was told.
    commit: Op,
    journaling: Journaling,
    /// The ops that damage may have destroyed.
    unknown: Option<Unknown>,
    /// The latest contradiction.
    contradiction: Option<Contradiction>,
    /// The number of the last transfer of a snapshot to this server.
    transfers: u64,
    receiving: Option<Receiving>,
    /// The snapshot that has arrived, and is read back and decoded.
    opening: Option<Opening>,
    /// The last snapshot that is not fetched again.
    refused: Option<RefusedSnapshot>,

    peers: Peers,
    /// Learners to answer once their boot is durable, with their nonces.
    learners: Vec<(NodeId, Incarnation, u64)>,
    detector: FailureDetector,
    pace: DiskPace,

    /// The highest last op and the highest round that other servers named.
    best_seen: Op,
    round_seen: u64,
    /// Views of this server that timed out or were overtaken since the last active view.
    failed_views: u32,
    /// The end of the best log that this server could not fetch when it tried to lead.
    unfetched_end: Option<Op>,
    /// Since when no primary is known to serve, and why the last one was suspected.
    suspected_since: Option<Moment>,
    suspicion: Cause,
    /// The number of the last FETCH query.
    queries: u64,

    stopping: Option<Stopping>,
    /// When this server was last called.
    handled: Moment,
    entropy: Entropy,
}

/// FNV-1a over the ids. It detects a different list of members, which is a mistake here and not an attack.
fn digest(members: &[NodeId]) -> u64 {
    fnv1a(members.iter().flat_map(|id| id.0.to_le_bytes()))
}

impl ReplicaManager {
    /// Starts a server as a backup, or as a learner if it has no vote.
    pub(crate) fn new(
        config: &Config,
        boot: Boot,
        seed: u64,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> ReplicaManager {
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
            role: Role::Backup(Backup::new(now)),
            promised: boot.promised.max(log.last_view()),
            in_view: InView::new(commit, now),
            active: View::ZERO,
            led: None,
            commit: base,
            journaling: Journaling::new(log.last()),
            unknown: boot.unknown,
            contradiction: None,
            transfers: 0,
            receiving: None,
            opening: None,
            refused: None,
            peers: Peers::new(config.cluster.me, &members, &boot.known),
            learners: Vec::new(),
            detector: FailureDetector::new(config.timing, now),
            pace: DiskPace::new(config.cluster.me, config.cluster.quorum(), config.timing.suspect_max, now),
            best_seen: Op::ZERO,
            round_seen: 0,
            failed_views: 0,
            unfetched_end: None,
            suspected_since: Some(now),
            suspicion: Cause::Started,
            queries: 0,
            stopping: None,
            handled: now,
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
    pub(crate) fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        self.forgive_own_lateness(now);
        match input {
            Input::Packet { from, incarnation, packet } => {
                self.on_packet(now, from, incarnation, packet, out)
            }
            Input::BootAdopted { peer, boot } => self.heard_of(now, peer, boot, out),
            Input::PortRefused(peer) => self.on_port_refused(now, peer),
            Input::Lost { peer, ops } => self.on_lost(peer, ops),
            Input::Journaled(number) => self.on_journaled(now, number, out),
            Input::SnapshotStored { transfer, upto } => self.on_snapshot_stored(now, transfer, upto, out),
            Input::SnapshotOpening(transfer) => self.on_snapshot_opening(now, transfer),
            Input::SnapshotAbandoned(transfer) => self.on_snapshot_abandoned(transfer, out),
            Input::Deadline => {}
            Input::Stop => self.on_stop(now, out),
        }
        self.on_time(now, out);
        self.handled = now;
    }

    /// Takes a command into the log, if this is the active primary and no hand-over is in progress;
    /// otherwise returns `None`. The next [`ReplicaManager::flush`] casts and journals it.
    pub(crate) fn propose(&mut self, payload: Arc<[u8]>) -> Option<Op> {
        if !self.accepts() {
            return None;
        }
        let entry =
            Entry { op: self.log.last().next(), view: self.promised, kind: EntryKind::Command, payload };
        let op = entry.op;
        self.append(entry);
        Some(op)
    }

    /// Journals and casts the entries taken in since the last flush. `room` returns what the link to a peer
    /// takes now.
    pub(crate) fn flush(&mut self, now: Moment, room: impl Fn(NodeId) -> Room, out: &mut Vec<Effect>) {
        self.journal_appended(now, out);
        self.cast(now, room, out);
        self.handled = now;
    }

    // ---- accessors

    /// The role of this server.
    pub(crate) fn role(&self) -> RoleName {
        match &self.role {
            Role::Learner(_) => RoleName::Learner,
            Role::Backup(_) => RoleName::Backup,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Primary(primary) => primary.state.permits().role,
        }
    }

    /// Returns true if this server has no vote yet, receives a snapshot, or is far behind its primary.
    pub(crate) fn catches_up(&self) -> bool {
        let behind = self.in_view.told_last.0 > self.in_view.matched.0 + FIT_BEHIND_MAX;
        let receives = self.receiving.is_some() || self.opening.is_some();
        matches!(self.role, Role::Learner(_)) || receives || behind
    }

    /// Returns true if commands are accepted now.
    pub(crate) fn accepts(&self) -> bool {
        self.stopping.is_none()
            && matches!(&self.role, Role::Primary(primary) if primary.state.permits().accepts)
    }

    /// The promised view: nothing below it is accepted.
    pub(crate) fn promised(&self) -> View {
        self.promised
    }

    /// The highest active view known.
    pub(crate) fn active_view(&self) -> View {
        self.active
    }

    /// The last op known to be committed.
    pub(crate) fn commit(&self) -> Op {
        self.commit
    }

    /// The last op held.
    pub(crate) fn last(&self) -> Op {
        self.log.last()
    }

    /// The end of the fsynced prefix.
    pub(crate) fn durable(&self) -> Op {
        self.journaling.durable
    }

    /// An entry still held.
    pub(crate) fn entry(&self, op: Op) -> Option<&Entry> {
        self.log.get(op)
    }

    /// Bytes of payload taken into the log since the start or the last snapshot installed from a peer, for
    /// the snapshot policy.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.log.appended()
    }

    /// Lets the log in memory begin at `op`, because a durable snapshot covers everything up to it. Drops at
    /// most `most` entries, and returns true if the log begins there now.
    pub(crate) fn forget_upto(&mut self, op: Op, most: usize) -> bool {
        self.log.forget_upto(op.min(self.commit), most)
    }

    // ---- for the modules of the replica

    /// Returns true if this is the primary of an active view (isolated or not).
    fn is_active_primary(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.is_active())
    }

    /// Commits everything up to `op` that is held.
    fn commit_upto(&mut self, op: Op, out: &mut Vec<Effect>) {
        let upto = op.min(self.log.last());
        if upto > self.commit {
            self.commit = upto;
            out.push(Effect::Commit(upto));
        }
    }

    /// A leader's log differs at `op` from the ops committed here. Reported once a view.
    fn contradict(&mut self, view: View, op: Op, out: &mut Vec<Effect>) {
        if self.contradiction.is_none_or(|known| known.view < view) {
            let count = self.contradiction.map_or(0, |known| known.count) + 1;
            let contradiction = Contradiction { view, op, commit: self.commit, count };
            self.contradiction = Some(contradiction);
            out.push(Effect::Report(Report::Contradicted(contradiction)));
        }
    }

    fn send(&self, to: NodeId, packet: ToPeer, out: &mut Vec<Effect>) {
        out.push(Effect::Send { to, packet, tracked: None });
    }

    fn send_to_peers(&self, packet: &ToPeer, out: &mut Vec<Effect>) {
        for to in self.members.iter().filter(|id| **id != self.me) {
            self.send(*to, packet.clone(), out);
        }
    }

    fn coordinator(&self) -> ToPeer {
        // Peers know the members from their own configuration.
        ToPeer::Coordinator(Coordinator::new(self.active, Vec::new()))
    }

    /// `wait` plus a random part of up to half of it.
    fn jittered(&mut self, wait: Duration) -> Duration {
        let half = (wait.as_micros() as u64 / 2).max(1);
        wait + Duration::from_micros(self.entropy.number() % half)
    }
}
