//! The primary: opens its view, casts entries, counts which ops are durable on which servers, and notices
//! when it is isolated.
//!
//! Each backup has one pointer, `next`: the next op to send to it. The pointer advances as far as the link
//! has room. Lost entries are sent again; a rejected cast moves the pointer back.

use std::collections::{BTreeMap, VecDeque};

use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{Entries, EntriesAck, Heartbeat, HeartbeatState, Packet, Promise};
use recado_proto::planted::Planted;

use super::{Cause, Effect, ReplicaManager, Role};

/// Most entries in flight to one backup beyond its matched op, whatever the link's room.
const AHEAD_MAX: u64 = 4_096;

/// Heartbeats remembered, to find the time at which an echoed heartbeat was sent.
const BEATS_KEPT: usize = 64;

/// The state of a primary whose view is opening or active.
#[derive(Debug)]
pub(super) struct Primary {
    /// The op of the ViewStart entry: the view is active when it is committed.
    start: Op,
    active: bool,
    isolated: bool,
    opened: Moment,
    pub(super) backups: BTreeMap<NodeId, Progress>,
    next_beat: Moment,
    beat: u64,
    beats: VecDeque<(u64, Moment)>,
    pub(super) handover: Option<super::handover::HandOver>,
}

/// The primary's knowledge of a backup.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    next: Op,
    /// Ranges of sent ops that are believed lost, first op to last op. The link's limit in flight bounds
    /// them.
    lost: BTreeMap<Op, Op>,
    matched: Op,
    pub(super) durable: Op,
    /// When the newest heartbeat that it echoed was sent.
    pub(super) echoed: Option<Moment>,
    /// The time since which it has echoed without a break.
    pub(super) present_since: Option<Moment>,
    pub(super) leaving: bool,
    rewound: Moment,
    offered: Moment,
}

impl Primary {
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn is_isolated(&self) -> bool {
        self.isolated
    }

    pub(super) fn next_beat(&self) -> Moment {
        self.next_beat
    }

    /// The number of the latest heartbeat.
    #[cfg(test)]
    pub(super) fn beat(&self) -> u64 {
        self.beat
    }

    /// A backup has started again: the ops that it acknowledged before may be gone.
    pub(super) fn forget_acks_of(&mut self, peer: NodeId) {
        if let Some(backup) = self.backups.get_mut(&peer) {
            (backup.matched, backup.durable) = (Op::ZERO, Op::ZERO);
        }
    }

    /// A backup's port refuses datagrams, so the backup is not running.
    pub(super) fn mark_absent(&mut self, peer: NodeId) {
        if let Some(backup) = self.backups.get_mut(&peer) {
            backup.present_since = None;
        }
    }
}

impl ReplicaManager {
    /// Opens the promised view. The commit of its first entry commits all older entries.
    pub(super) fn open(&mut self, now: Moment, promises: &BTreeMap<NodeId, Promise>, out: &mut Vec<Effect>) {
        let view = self.promised;
        let backups = self
            .members
            .iter()
            .filter(|id| **id != self.me)
            .map(|id| {
                // The cast begins after the last op that a promise showed to be common; without one, at the
                // end of the log, and the backup answers how far back the cast must go.
                let common = promises
                    .get(id)
                    .and_then(|promise| self.log.common(&promise.index, promise.last_op))
                    .unwrap_or(self.log.last());
                let progress = Progress {
                    next: common.next(),
                    lost: BTreeMap::new(),
                    matched: Op::ZERO,
                    durable: Op::ZERO,
                    echoed: None,
                    present_since: None,
                    leaving: false,
                    rewound: Moment(0),
                    offered: Moment(0),
                };
                (*id, progress)
            })
            .collect();
        let start = self.log.last().next();
        let primary = Primary {
            start,
            active: false,
            isolated: false,
            opened: now,
            backups,
            next_beat: now,
            beat: 0,
            beats: VecDeque::new(),
            handover: None,
        };
        self.in_view.matched = self.commit;
        let cause = self.suspicion;
        self.become_role(now, Role::Primary(primary), cause, out);
        self.append(Entry { op: start, view, kind: EntryKind::ViewStart, payload: [].into() });
    }

    pub(super) fn primary_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.judge_isolation(now, out);
        let Role::Primary(primary) = &self.role else { return };
        if now >= primary.next_beat {
            self.beat(now, out);
        }
        self.handover_on_time(now, out);
    }

    /// Sends HEARTBEAT to all peers.
    pub(super) fn beat(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let every = self.timing.heartbeat;
        let Role::Primary(primary) = &mut self.role else { return };
        primary.beat += 1;
        primary.next_beat = now + every;
        primary.beats.push_back((primary.beat, now));
        if primary.beats.len() > BEATS_KEPT {
            primary.beats.pop_front();
        }
        let beat = primary.beat;
        let state = match (primary.isolated, primary.active) {
            (true, _) => HeartbeatState::Isolated,
            (false, true) => HeartbeatState::Active,
            (false, false) => HeartbeatState::Opening,
        };
        let heartbeat = self.heartbeat(now, state, beat);
        self.send_to_peers(&Packet::Heartbeat(heartbeat), out);
    }

    /// A backup echoed a heartbeat. Whether this primary is still isolated is judged after every input.
    pub(super) fn on_echo(&mut self, now: Moment, from: NodeId, echo: Heartbeat, out: &mut Vec<Effect>) {
        let patience = self.timing.suspect_max;
        let promised = self.promised;
        let Role::Primary(primary) = &mut self.role else {
            return self.answer_outdated(from, echo, out);
        };
        if echo.promised != promised {
            return self.answer_outdated(from, echo, out);
        }
        let Some(backup) = primary.backups.get_mut(&from) else { return };
        backup.leaving = echo.leaving;
        if let Some((_, sent)) = primary.beats.iter().find(|(beat, _)| *beat == echo.beat) {
            let broken = backup.echoed.is_none_or(|echoed| sent.since(echoed) > patience);
            if broken || backup.present_since.is_none() {
                backup.present_since = Some(now);
            }
            backup.echoed = backup.echoed.max(Some(*sent));
        }
    }

    /// Tells a backup that pings this server for a lower view which view is active, or refuses that view.
    fn answer_outdated(&mut self, from: NodeId, echo: Heartbeat, out: &mut Vec<Effect>) {
        if echo.promised < self.promised && self.active == self.promised {
            self.send(from, self.coordinator(), out);
        } else if echo.promised < self.promised {
            self.send(
                from,
                Packet::Reply(recado_proto::packet::Reply::Refuse { promised: self.promised }),
                out,
            );
        }
    }

    /// Decides if this primary is isolated: no echo from a majority for 2 T_s, or a write waits longer than
    /// T_s while a quorum of other disks is clearly faster. An isolated primary says so in its heartbeats
    /// and serves nobody. Where all disks are slow, another primary would be no better.
    fn judge_isolation(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let alone = self.timing.suspect_max * 2;
        let disk = self.pace.stalls(now);
        let quorum = self.quorum;
        let Role::Primary(primary) = &mut self.role else { return };
        let heard = primary
            .backups
            .values()
            .filter(|backup| now.since(backup.echoed.unwrap_or(primary.opened)) <= alone)
            .count();
        let isolated = heard + 1 < quorum || disk;
        if isolated == primary.isolated {
            return;
        }
        primary.isolated = isolated;
        let (active, cause) =
            (primary.active, if isolated { Cause::NoMajority } else { Cause::MajorityBack });
        if isolated {
            self.suspected_since = Some(now);
        }
        if active {
            self.role_changed(now, cause, out);
        }
        if !isolated {
            self.suspected_since = None;
        }
        self.beat(now, out);
    }

    /// Sends every backup the entries that it lacks, as far as there is room.
    pub(super) fn cast(&mut self, now: Moment, room: impl Fn(NodeId) -> usize, out: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let targets: Vec<(NodeId, Progress)> =
            primary.backups.iter().map(|(id, backup)| (*id, backup.clone())).collect();
        for (to, mut backup) in targets {
            if backup.next <= self.log.base() {
                // The entries that it lacks are only in a snapshot: offer the newest one, once a heartbeat.
                if now.since(backup.offered) >= self.timing.heartbeat {
                    backup.offered = now;
                    out.push(Effect::ReadSnapshot { to, op: Op::ZERO, offset: 0, chunks: 1 });
                }
            } else {
                let mut room = room(to);
                for (first, last) in std::mem::take(&mut backup.lost) {
                    self.cast_range(to, first.max(backup.matched.next()), last, &mut room, &mut backup, out);
                }
                let limit = Op(backup.matched.0.max(self.commit.0) + AHEAD_MAX).min(self.log.last());
                self.cast_range(to, backup.next, limit, &mut room, &mut backup, out);
            }
            if let Role::Primary(primary) = &mut self.role {
                primary.backups.insert(to, backup);
            }
        }
    }

    /// Sends the ops from `first` to `last`, as far as there is room; the rest of them below `next` stays
    /// lost.
    fn cast_range(
        &self,
        to: NodeId,
        first: Op,
        last: Op,
        room: &mut usize,
        backup: &mut Progress,
        out: &mut Vec<Effect>,
    ) {
        let mut sent = first.prev();
        for (prev_op, prev_view, entries) in self.log.pieces(first.prev(), last, *room) {
            sent = Op(prev_op.0 + entries.len() as u64);
            let size: usize = entries.iter().map(|entry| entry.payload.len() + 24).sum();
            *room = room.saturating_sub(size);
            // The commit is capped at the last op sent, so a retransmission of the same ops has the same
            // bytes, and the fragments of both complete each other.
            let (view, commit) = (self.promised, self.commit.min(sent));
            let cast = Entries { view, fetch: None, prev_op, prev_view, commit, entries };
            let tracked = Some((prev_op.next(), sent));
            out.push(Effect::Send { to, packet: Packet::Entries(cast), tracked });
        }
        let left = last.min(backup.next.prev());
        if sent < left {
            backup.lost.insert(sent.next(), left);
        }
        backup.next = backup.next.max(sent.next());
    }

    pub(super) fn on_entries_ack(
        &mut self,
        now: Moment,
        from: NodeId,
        ack: EntriesAck,
        out: &mut Vec<Effect>,
    ) {
        let (promised, last) = (self.promised, self.log.last());
        let unmatched = self.planted.is(Planted::AckUnmatched);
        let Role::Primary(primary) = &mut self.role else { return };
        if ack.view != promised || ack.matched > last {
            return;
        }
        let Some(backup) = primary.backups.get_mut(&from) else { return };
        backup.matched = backup.matched.max(ack.matched);
        backup.durable = backup.durable.max(ack.durable.min(if unmatched { last } else { ack.matched }));
        backup.next = backup.next.max(backup.matched.next());
        // Several packets after one hole are rejected together: go back once.
        if ack.rejected && now.since(backup.rewound) >= self.timing.heartbeat / 8 {
            backup.rewound = now;
            backup.next = ack.matched.next();
            backup.lost.clear();
        }
        self.count(now, out);
    }

    /// Ops sent to `peer` are believed lost. They are sent again, unless the peer has matched them since.
    pub(super) fn on_lost(&mut self, peer: NodeId, (first, last): (Op, Op)) {
        if let Role::Primary(primary) = &mut self.role
            && let Some(backup) = primary.backups.get_mut(&peer)
            && last > backup.matched
            && last < backup.next
        {
            let known = backup.lost.entry(first).or_insert(last);
            *known = last.max(*known);
        }
    }

    /// Commits the highest op that a quorum has on disk, if the op is of this view. Entries of older views
    /// are committed only by an entry of this view after them (Raft, figure 8).
    pub(super) fn count(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Primary(primary) = &self.role else { return };
        let start = primary.start;
        let mut durable: Vec<Op> = primary.backups.values().map(|backup| backup.durable).collect();
        let unwritten = self.planted.is(Planted::OwnWriteCounts);
        durable.push(if unwritten { self.log.last() } else { self.journaling.durable });
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let Some(op) = durable.get(self.quorum - 1).copied() else { return };
        if op > self.commit && (op >= start || self.planted.is(Planted::CommitOlderView)) {
            self.commit_upto(op, out);
            self.in_view.matched = self.commit;
        }
        self.try_activate(now, out);
    }

    fn try_activate(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (view, commit) = (self.promised, self.commit);
        let early = self.planted.is(Planted::ServesBeforeViewStart);
        let Role::Primary(primary) = &mut self.role else { return };
        if primary.active || (commit < primary.start && !early) {
            return;
        }
        primary.active = true;
        self.on_active(view, out);
        self.send_to_peers(&self.coordinator(), out);
        self.role_changed(now, Cause::Elected, out);
        self.suspected_since = None;
        self.suspicion = Cause::TimedOut;
        self.beat(now, out);
    }
}
