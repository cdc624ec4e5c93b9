//! Catching up: entries from a donor's log if it contains the match point, else the donor's newest snapshot
//! in chunks, then the log.
//!
//! The receiver pulls: SNAPSHOT_GET names a window of bytes, which come in chunks as long as the path
//! carries. The receiver asks for the next window when the journal has taken the current one, or when nothing
//! arrived for a while. So the rate follows the receiver and its disk, two windows at most are in memory, a
//! lost chunk costs one window, and a broken transfer resumes at the byte where it stopped.
//!
//! A snapshot that has arrived is read back and decoded by others, while the log goes on. It is installed if
//! it is still of use then. No other transfer begins meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::envelope::PACKETS_MAX;
use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Entries, Fetch, SnapshotChunk, SnapshotGet, ToPeer};
use recado_proto::planted::Planted;

use super::cast::head;
use super::journaling::Written;
use super::log::Piece;
use super::{Effect, ReplicaManager, Report, Role, Task};

/// Blocks asked for at a time: 64 KiB, which socket buffers hold.
const WINDOW: u16 = 64;

/// The most chunks kept that arrived before their predecessors: a window of the shortest ones.
const EARLY_MAX: usize = WINDOW as usize;

/// The highest op that a received snapshot may have. The log after it needs room for more ops.
const OP_MAX: Op = Op(u64::MAX / 2);

/// Bytes of entries in the answer to one FETCH: no more than a receiver reassembles from fragments at a
/// time.
const FETCH_BYTES_MAX: usize = 64 * 1024;

/// A snapshot that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    /// The number of the transfer.
    transfer: u64,
    from: NodeId,
    /// The view in which the transfer began.
    view: View,
    op: Op,
    op_view: View,
    total: u64,
    crc: u32,
    /// The end of the contiguous bytes from the start, and their CRC-32C.
    at: u64,
    sum: u32,
    /// The last of these bytes, which the journal was not given yet: a window and a chunk at most.
    piece: Vec<u8>,
    /// The end of what the journal has taken.
    stored: u64,
    /// Chunks of the window that arrived before their predecessors, by offset.
    early: BTreeMap<u64, Vec<u8>>,
    window_end: u64,
    asked: Moment,
    /// When its last bytes arrived, or were stored. A donor that has replaced the snapshot by a newer one
    /// does not answer.
    progressed: Moment,
}

/// A snapshot that has arrived whole, and is read back and decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) transfer: u64,
    pub(super) op: Op,
    pub(super) view: View,
    /// When the last step of that was reported, or it began.
    pub(super) progressed: Moment,
}

/// A snapshot that is not fetched again, from whichever server: this one cannot read it. One that arrived
/// whole counts as refused until the caller has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusedSnapshot {
    op: Op,
    crc: u32,
}

impl Receiving {
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.progressed = self.progressed + gap;
    }

    pub(super) fn view(&self) -> View {
        self.view
    }

    /// The bytes of the snapshot in memory, beside those that the journal was given.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.piece.len() + self.early.values().map(Vec::len).sum::<usize>()
    }

    /// Takes a chunk of the window; false if it brings nothing new.
    fn take(&mut self, offset: u64, bytes: Vec<u8>) -> bool {
        let end = offset.checked_add(bytes.len() as u64);
        let fits = offset >= self.at && end.is_some_and(|end| end <= self.total);
        if bytes.is_empty() || !fits || self.early.contains_key(&offset) {
            return false;
        }
        // The first chunk is offered. All others are asked for, or the journal would be given what it has no
        // time for.
        let asked = offset == 0 || offset < self.window_end;
        if !asked || offset > self.at && self.early.len() >= EARLY_MAX {
            return false;
        }
        self.early.insert(offset, bytes);
        // A donor whose path carries less than before cuts shorter chunks, which may end within an early one.
        while let Some(next) = self.early.first_entry().filter(|next| *next.key() <= self.at) {
            let (offset, bytes) = next.remove_entry();
            let new = bytes.get((self.at - offset) as usize..).unwrap_or_default();
            self.piece.extend_from_slice(new);
            (self.at, self.sum) = (self.at + new.len() as u64, crc32c::crc32c_append(self.sum, new));
        }
        true
    }

    /// Returns true if the journal is to store what has arrived, and has reported something or was given
    /// the first of it less than `within` ago.
    pub(super) fn is_stored(&self, now: Moment, within: Duration) -> bool {
        self.waits_for_journal() && now.since(self.progressed) < within
    }

    /// Returns true if the journal has not taken all that it was given.
    fn waits_for_journal(&self) -> bool {
        self.stored + (self.piece.len() as u64) < self.at
    }

    /// Gives the journal what it was not given yet.
    fn give(&mut self, again: bool) -> Option<Effect> {
        let bytes = if again { self.piece.clone() } else { std::mem::take(&mut self.piece) };
        let Receiving { transfer, op, op_view: view, total, crc, .. } = *self;
        let offset = self.at - bytes.len() as u64;
        let piece = SnapshotChunk { op, view, offset, total, crc, bytes };
        (!piece.bytes.is_empty()).then_some(Effect::StoreSnapshot { transfer, piece })
    }
}

impl ReplicaManager {
    /// A candidate fetches entries that it lacks.
    pub(super) fn on_fetch(&mut self, from: NodeId, fetch: Fetch, out: &mut Vec<Effect>) {
        if fetch.view != self.promised || fetch.view.primary() != Some(from) {
            return;
        }
        if fetch.after < self.log.base() {
            out.push(Effect::ReadSnapshot { to: from, op: Op::ZERO, offset: 0, blocks: 1 });
            return;
        }
        let (view, commit, last) = (self.promised, self.commit, self.log.last());
        // Pieces that fit any path; on a longer one they share datagrams.
        let piece_max = PACKETS_MAX.saturating_sub(head(view, Some(fetch.query), last, commit));
        let mut pieces = self.log.pieces(fetch.after, fetch.upto.min(last), FETCH_BYTES_MAX, piece_max);
        // An empty piece ends the answer, so that the receiver asks for the next entries at once.
        let end = pieces.last().map_or(fetch.after, Piece::last);
        if let Some(view) = self.log.view_at(end) {
            pieces.push(Piece { prev_op: end, prev_view: view, entries: Vec::new(), size: 0 });
        }
        for Piece { prev_op, prev_view, entries, .. } in pieces {
            let answer = Entries {
                view,
                fetch: Some(fetch.query),
                prev_op,
                prev_view,
                commit,
                entries,
                members_op: Op::ZERO,
            };
            self.send(from, ToPeer::Entries(answer), out);
        }
    }

    pub(super) fn on_snapshot_get(&mut self, from: NodeId, get: SnapshotGet, out: &mut Vec<Effect>) {
        let blocks = get.blocks.clamp(1, WINDOW);
        out.push(Effect::ReadSnapshot { to: from, op: get.op, offset: get.offset, blocks });
    }

    /// The server from which snapshots are accepted at the moment. A snapshot replaces the whole log, so a
    /// server takes none of a primary that it does not follow.
    fn snapshot_donor(&self) -> Option<NodeId> {
        self.donor().or_else(|| self.followed_primary())
    }

    pub(super) fn on_snapshot_chunk(
        &mut self,
        now: Moment,
        from: NodeId,
        chunk: SnapshotChunk,
        out: &mut Vec<Effect>,
    ) {
        if self.snapshot_donor() != Some(from)
            || chunk.op <= self.commit
            || chunk.total > SnapshotChunk::TOTAL_MAX
        {
            return;
        }
        // No op could follow such a snapshot, or it could not be installed.
        if chunk.op > OP_MAX || chunk.view > self.promised {
            return;
        }
        if self.log.view_at(chunk.op) == Some(chunk.view) {
            self.end_transfer(out);
            self.in_view.matched = self.in_view.matched.max(chunk.op);
            self.commit_upto(chunk.op, out);
            self.fetched_upto(now, chunk.op, out);
            return self.acknowledge(true, out);
        }
        if self.opening.is_some() || self.refused == Some(RefusedSnapshot { op: chunk.op, crc: chunk.crc }) {
            return;
        }
        let known = self.receiving.as_ref().is_some_and(|receiving| {
            receiving.from == from && receiving.op == chunk.op && receiving.crc == chunk.crc
        });
        if !known {
            // A different snapshot is begun only if the transfer in progress is stale.
            let stale = |receiving: &Receiving| {
                let idle = now.since(receiving.progressed) > self.timing.coordinator * 2;
                receiving.from != from || idle && !receiving.waits_for_journal()
            };
            if chunk.offset != 0 || self.receiving.as_ref().is_some_and(|receiving| !stale(receiving)) {
                return;
            }
            self.end_transfer(out);
            self.transfers += 1;
            self.receiving = Some(Receiving {
                transfer: self.transfers,
                from,
                view: self.promised,
                op: chunk.op,
                op_view: chunk.view,
                total: chunk.total,
                crc: chunk.crc,
                at: 0,
                sum: 0,
                piece: Vec::new(),
                stored: 0,
                early: BTreeMap::new(),
                window_end: 0,
                asked: now,
                progressed: now,
            });
            // What one chunk holds is judged as a whole.
            if (chunk.bytes.len() as u64) < chunk.total {
                let (transfer, op, start) = (self.transfers, chunk.op, chunk.bytes.clone());
                out.push(Effect::SnapshotBegun { transfer, op, start });
            }
        }
        let Some(receiving) = &mut self.receiving else { return };
        if !receiving.take(chunk.offset, chunk.bytes) {
            return;
        }
        (receiving.asked, receiving.progressed) = (now, now);
        let (at, total) = (receiving.at, receiving.total);
        if at < total && at >= receiving.window_end {
            out.extend(receiving.give(false));
        }
        self.donor_progressed(now, chunk.op, at);
        if at == total {
            self.on_snapshot_whole(now, out);
        }
    }

    /// All bytes of a snapshot have arrived.
    fn on_snapshot_whole(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(mut whole) = self.receiving.take() else { return };
        // Links are authenticated, so the donor has read other bytes than it had written. They may be right
        // the next time.
        if whole.sum != whole.crc {
            let (donor, op) = (whole.from, whole.op);
            out.push(Effect::DropSnapshot(whole.transfer));
            return out.push(Effect::Report(Report::SnapshotDamaged { donor, op }));
        }
        let Receiving { transfer, op, op_view: view, crc, .. } = whole;
        self.refused = Some(RefusedSnapshot { op, crc });
        self.opening = Some(Opening { transfer, op, view, progressed: now });
        out.extend(whole.give(false));
    }

    /// The journal has taken the bytes of this transfer up to here. If that is all that has arrived, more is
    /// asked for.
    pub(super) fn on_snapshot_stored(
        &mut self,
        now: Moment,
        transfer: u64,
        upto: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.transfer == transfer)
        else {
            return;
        };
        receiving.stored = upto.max(receiving.stored);
        receiving.progressed = now;
        if receiving.stored == receiving.at {
            self.ask_on(now, out);
        }
    }

    pub(super) fn on_snapshot_opening(&mut self, now: Moment, transfer: u64) {
        if let Some(opening) = self.opening.as_mut().filter(|opening| opening.transfer == transfer) {
            opening.progressed = now;
        }
    }

    /// Ends this transfer, which the caller does not go on with. Nothing is wrong with the snapshot: it is
    /// taken again when it is offered again.
    pub(super) fn on_snapshot_abandoned(&mut self, transfer: u64, out: &mut Vec<Effect>) {
        if self.receiving.as_ref().is_some_and(|receiving| receiving.transfer == transfer) {
            self.end_transfer(out);
        }
        if self.opening.take_if(|opening| opening.transfer == transfer).is_some() {
            self.refused = None;
            out.push(Effect::DropSnapshot(transfer));
        }
    }

    /// Ends the transfer that is under way.
    pub(super) fn end_transfer(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.receiving.take().map(|ended| Effect::DropSnapshot(ended.transfer)));
    }

    /// Ends this transfer, whose snapshot the caller cannot read: it is not fetched again. Returns false if
    /// the transfer has ended before.
    pub(crate) fn refuse_snapshot(&mut self, transfer: u64, out: &mut Vec<Effect>) -> bool {
        if let Some(receiving) = self.receiving.as_ref().filter(|receiving| receiving.transfer == transfer) {
            self.refused = Some(RefusedSnapshot { op: receiving.op, crc: receiving.crc });
            self.end_transfer(out);
            return true;
        }
        let opened = self.opening.take_if(|opening| opening.transfer == transfer);
        out.extend(opened.map(|opening| Effect::DropSnapshot(opening.transfer)));
        opened.is_some()
    }

    /// Asks for the chunks from the first missing one on. Those that came before it stay, so that where
    /// datagrams are lost each request brings the transfer on.
    fn ask_on(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(receiving) = &mut self.receiving else { return };
        receiving.asked = now;
        let offset = receiving.at;
        receiving.window_end = offset + u64::from(WINDOW) * SnapshotGet::BLOCK as u64;
        let get = SnapshotGet { op: receiving.op, offset, blocks: WINDOW };
        let from = receiving.from;
        self.send(from, ToPeer::SnapshotGet(get), out);
    }

    pub(super) fn receiving_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let patience = self.timing.heartbeat * 2;
        let donor = self.snapshot_donor();
        let Some(receiving) = &mut self.receiving else { return };
        // A snapshot up to the commit is of no use any more, and its chunks are not taken.
        if donor != Some(receiving.from) || receiving.op <= self.commit {
            return self.end_transfer(out);
        }
        if now.since(receiving.asked) < patience {
            return;
        }
        // More is asked for when the journal has taken what there is.
        match receiving.give(self.planted.is(Planted::PieceTwice)) {
            Some(piece) => {
                receiving.asked = now;
                out.push(piece);
            }
            None if receiving.waits_for_journal() => {}
            None => self.ask_on(now, out),
        }
    }

    /// Replaces the whole log with the snapshot of this transfer, which the caller has decoded and whose
    /// state it loads. Returns false if the snapshot is of no use any more; nothing has changed then.
    pub(crate) fn install(&mut self, now: Moment, transfer: u64, out: &mut Vec<Effect>) -> bool {
        let Some(opened) = self.opening.take_if(|opening| opening.transfer == transfer) else { return false };
        let Opening { op, view, .. } = opened;
        // The caller can read it.
        self.refused = None;
        if !self.is_of_use(opened) {
            out.push(Effect::DropSnapshot(transfer));
            return false;
        }
        // No committed entry beyond `op` is lost: either the log ends before `op`, or its entry at `op`
        // differs from the committed one, and then no entry after it was ever acknowledged to a client.
        self.report_overwritten(op.next(), out);
        self.journal_appended(now, out);
        self.journaling.limit_durable(self.commit);
        let replaced = std::mem::replace(&mut self.log, super::Log::new(op, view)).into_entries();
        (self.commit, self.in_view.matched) = (op, op);
        self.journal(now, Task::Install { transfer, op, replaced }, Written::Upto(op), out);
        self.fetched_upto(now, op, out);
        true
    }

    /// Returns true if the log is to be replaced by a snapshot. It was of use when it came, but the log has
    /// gone on since.
    fn is_of_use(&self, Opening { op, view, .. }: Opening) -> bool {
        if self.planted.is(Planted::InstallUnchecked) {
            return true;
        }
        // A candidate has promised its own log. It replaces nothing of it before it knows the best one.
        let chooses = self.role.preparing().is_some_and(|preparing| preparing.fetching.is_none());
        let leads = matches!(self.role, Role::Primary(_)) || chooses;
        // The primary may have been contradicted since.
        let follows = self.contradiction.is_none() || self.snapshot_donor().is_some();
        // A snapshot has only committed ops. A log that has the last of them has all, and may have more.
        op > self.commit && self.log.view_at(op) != Some(view) && !leads && view <= self.promised && follows
    }
}
