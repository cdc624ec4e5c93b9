//! Cast: the primary sends the entries of its log to the backups, and counts which ops are durable on which
//! of them.
//!
//! Each backup has one pointer, `next`: the next op to send to it. The pointer advances as far as the link
//! has room. Lost entries are sent again; a rejected cast moves the pointer back.

use std::collections::BTreeMap;

use recado_proto::codec;
use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Entries, EntriesAck, QueryId, ToPeer};
use recado_proto::planted::Planted;

use super::log::Piece;
use super::{Effect, Log, ReplicaManager, Role, Room};

/// Most entries in flight to one backup beyond its matched op, or the op that the cast began with, whatever
/// the link's room.
const AHEAD_MAX: u64 = 4_096;

/// The bytes that the count of entries takes beside the one of an empty list.
const COUNT_GROWS: usize = 2;

/// The primary's knowledge of a backup.
#[derive(Debug)]
pub(super) struct Progress {
    next: Op,
    /// The op after which the cast began, or to which it was last moved back.
    from: Op,
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
    /// When a rejected cast last moved `next` back.
    rewound: Moment,
    /// When a snapshot was last offered.
    offered: Moment,
}

impl Progress {
    /// A backup that was not heard yet, and is sent the entries from `next` on.
    pub(super) fn new(next: Op) -> Progress {
        Progress {
            next,
            from: next.prev(),
            lost: BTreeMap::new(),
            matched: Op::ZERO,
            durable: Op::ZERO,
            echoed: None,
            present_since: None,
            leaving: false,
            rewound: Moment(0),
            offered: Moment(0),
        }
    }

    /// The backup has started again: the ops that it acknowledged before may be gone.
    pub(super) fn forget_acks(&mut self) {
        (self.matched, self.durable) = (Op::ZERO, Op::ZERO);
    }

    /// Sends to this backup, `to`, what was lost and then what follows, as far as there is room.
    fn cast(&mut self, source: &Source<'_>, to: NodeId, mut room: Room, out: &mut Vec<Effect>) {
        for (first, last) in std::mem::take(&mut self.lost) {
            self.cast_range(source, to, (first.max(self.matched.next()), last), &mut room, out);
        }
        // Before anything is matched, what the commit does not reach counts from where the cast began: a new
        // primary may have a long log of which it knows little to be committed.
        let known = self.matched.max(source.commit).max(self.from);
        let limit = Op(known.0 + AHEAD_MAX).min(source.log.last());
        self.cast_range(source, to, (self.next, limit), &mut room, out);
    }

    /// Sends the ops from `first` to `last`, as far as there is room; the rest of them below `next` stays
    /// lost.
    fn cast_range(
        &mut self,
        source: &Source<'_>,
        to: NodeId,
        (first, last): (Op, Op),
        room: &mut Room,
        out: &mut Vec<Effect>,
    ) {
        let mut sent = first.prev();
        let piece_max = room.packet.saturating_sub(source.head());
        for piece in source.log.pieces(first.prev(), last, room.window, piece_max) {
            sent = piece.last();
            room.window = room.window.saturating_sub(piece.size);
            let tracked = Some((piece.prev_op.next(), sent));
            out.push(Effect::Send { to, packet: ToPeer::Entries(source.entries(piece)), tracked });
        }
        let left = last.min(self.next.prev());
        if sent < left {
            self.lost.insert(sent.next(), left);
        }
        self.next = self.next.max(sent.next());
    }
}

/// What a primary casts: the entries of its log.
struct Source<'a> {
    log: &'a Log,
    view: View,
    commit: Op,
}

impl Source<'_> {
    /// The packet with these entries. A commit beyond them would say nothing to the backup.
    fn entries(&self, piece: Piece) -> Entries {
        let (view, commit) = (self.view, self.commit.min(piece.last()));
        let Piece { prev_op, prev_view, entries, .. } = piece;
        Entries { view, fetch: None, prev_op, prev_view, commit, entries, members_op: Op::ZERO }
    }

    /// The most bytes of a packet beside its entries.
    fn head(&self) -> usize {
        head(self.view, None, self.log.last(), self.commit)
    }
}

/// The most bytes of ENTRIES beside its entries, for a log that ends at `last`: later numbers take no fewer.
pub(super) fn head(view: View, fetch: Option<QueryId>, last: Op, commit: Op) -> usize {
    let (prev_op, prev_view, entries) = (last, view, Vec::new());
    let empty = Entries { view, fetch, prev_op, prev_view, commit, entries, members_op: Op::ZERO };
    codec::encoded_len(&ToPeer::Entries(empty)) + COUNT_GROWS
}

impl ReplicaManager {
    /// Sends every backup the entries that it lacks, as far as there is room.
    pub(super) fn cast(&mut self, now: Moment, room: impl Fn(NodeId) -> Room, out: &mut Vec<Effect>) {
        let source = Source { log: &self.log, view: self.promised, commit: self.commit };
        let Role::Primary(primary) = &mut self.role else { return };
        for (&to, backup) in &mut primary.backups {
            if backup.next <= source.log.base() {
                // The entries that it lacks are only in a snapshot: offer the newest one, once a heartbeat.
                if now.since(backup.offered) >= self.timing.heartbeat {
                    backup.offered = now;
                    out.push(Effect::ReadSnapshot { to, op: Op::ZERO, offset: 0, blocks: 1 });
                }
            } else {
                backup.cast(&source, to, room(to), out);
            }
        }
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
            backup.from = ack.matched;
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
}
