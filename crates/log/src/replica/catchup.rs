//! Catching up: entries from a donor's log if it contains the match point, else the donor's newest snapshot
//! in chunks, then the log.
//!
//! The receiver pulls: SNAPSHOT_GET names a window of bytes, which come in chunks as long as the path
//! carries. The receiver asks for the next window when the last byte of the current one has arrived, or when
//! nothing arrived for a while. So the rate follows the receiver, a lost chunk costs one window, and a broken
//! transfer resumes at the byte where it stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::envelope::PACKETS_MAX;
use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Entries, Fetch, SnapshotChunk, SnapshotGet, ToPeer};

use super::cast::head;
use super::journaling::Written;
use super::log::Piece;
use super::{Effect, ReplicaManager, Role, Task};

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
    from: NodeId,
    /// The view in which the transfer began.
    view: View,
    op: Op,
    op_view: View,
    total: u64,
    crc: u32,
    /// The contiguous bytes from the start.
    bytes: Vec<u8>,
    /// Chunks of the window that arrived before their predecessors, by offset.
    early: BTreeMap<u64, Vec<u8>>,
    window_end: u64,
    asked: Moment,
    /// When its last bytes arrived. A donor that has replaced the snapshot by a newer one does not answer.
    progressed: Moment,
}

/// A snapshot that is not fetched again, from whichever server: this one cannot read it. One that arrived
/// whole counts as refused until the caller has it installed.
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

    /// Takes a chunk of the window; false if it brings nothing new.
    fn take(&mut self, offset: u64, bytes: Vec<u8>) -> bool {
        let at = self.bytes.len() as u64;
        let fits = offset >= at && offset + bytes.len() as u64 <= self.total;
        if bytes.is_empty() || !fits || self.early.contains_key(&offset) {
            return false;
        }
        if offset > at && (offset >= self.window_end || self.early.len() >= EARLY_MAX) {
            return false;
        }
        self.early.insert(offset, bytes);
        // A donor whose path carries less than before cuts shorter chunks, which may end within an early one.
        while let Some(next) = self.early.first_entry().filter(|next| *next.key() <= self.bytes.len() as u64)
        {
            let (offset, bytes) = next.remove_entry();
            let known = self.bytes.len() - offset as usize;
            self.bytes.extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
        true
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

    /// The server from which snapshots are accepted at the moment.
    fn snapshot_donor(&self) -> Option<NodeId> {
        self.donor().or_else(|| self.known_primary())
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
            // A snapshot has only committed ops, and this log has them all.
            self.receiving = None;
            self.in_view.matched = self.in_view.matched.max(chunk.op);
            self.commit_upto(chunk.op, out);
            self.fetched_upto(now, chunk.op, out);
            return self.acknowledge(true, out);
        }
        if self.refused == Some(RefusedSnapshot { op: chunk.op, crc: chunk.crc }) {
            return;
        }
        let known = self.receiving.as_ref().is_some_and(|receiving| {
            receiving.from == from && receiving.op == chunk.op && receiving.crc == chunk.crc
        });
        if !known {
            // A different snapshot is begun only if the transfer in progress is stale.
            let stale = |receiving: &Receiving| {
                receiving.from != from || now.since(receiving.progressed) > self.timing.coordinator * 2
            };
            if chunk.offset != 0 || self.receiving.as_ref().is_some_and(|receiving| !stale(receiving)) {
                return;
            }
            self.receiving = Some(Receiving {
                from,
                view: self.promised,
                op: chunk.op,
                op_view: chunk.view,
                total: chunk.total,
                crc: chunk.crc,
                bytes: Vec::new(),
                early: BTreeMap::new(),
                window_end: 0,
                asked: now,
                progressed: now,
            });
            // What one chunk holds is judged as a whole.
            if (chunk.bytes.len() as u64) < chunk.total {
                out.push(Effect::SnapshotBegun { op: chunk.op, start: chunk.bytes.clone() });
            }
        }
        let Some(receiving) = &mut self.receiving else { return };
        if !receiving.take(chunk.offset, chunk.bytes) {
            return;
        }
        (receiving.asked, receiving.progressed) = (now, now);
        let (at, total, window_end) = (receiving.bytes.len() as u64, receiving.total, receiving.window_end);
        self.donor_progressed(now, chunk.op, at);
        if at < total {
            if at >= window_end {
                self.ask_on(now, out);
            }
            return;
        }
        let Some(done) = self.receiving.take() else { return };
        // Bytes that were read or changed wrongly may be right the next time.
        if crc32c::crc32c(&done.bytes) == done.crc {
            self.refused = Some(RefusedSnapshot { op: done.op, crc: done.crc });
            out.push(Effect::SnapshotReceived { op: done.op, view: done.op_view, bytes: done.bytes });
        }
    }

    /// Ends the transfer of the snapshot at `op`, whose start the caller cannot read. It is not fetched
    /// again.
    pub(crate) fn refuse_snapshot(&mut self, op: Op) {
        if let Some(refused) = self.receiving.take_if(|receiving| receiving.op == op) {
            self.refused = Some(RefusedSnapshot { op, crc: refused.crc });
        }
    }

    /// Asks for the chunks from the first missing one on. Those that came before it stay, so that where
    /// datagrams are lost each request brings the transfer on.
    fn ask_on(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(receiving) = &mut self.receiving else { return };
        receiving.asked = now;
        let offset = receiving.bytes.len() as u64;
        receiving.window_end = offset + u64::from(WINDOW) * SnapshotGet::BLOCK as u64;
        let get = SnapshotGet { op: receiving.op, offset, blocks: WINDOW };
        let from = receiving.from;
        self.send(from, ToPeer::SnapshotGet(get), out);
    }

    pub(super) fn receiving_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let patience = self.timing.heartbeat * 2;
        let donor = self.snapshot_donor();
        let Some(receiving) = &self.receiving else { return };
        // A snapshot up to the commit is of no use any more, and its chunks are not taken.
        if donor != Some(receiving.from) || receiving.op <= self.commit {
            self.receiving = None;
        } else if now.since(receiving.asked) >= patience {
            self.ask_on(now, out);
        }
    }

    /// Replaces the whole log with a received snapshot. The caller has validated the snapshot and loads its
    /// state. Returns false if it is of no use any more; nothing has changed then.
    pub(crate) fn install(
        &mut self,
        now: Moment,
        op: Op,
        view: View,
        bytes: Vec<u8>,
        out: &mut Vec<Effect>,
    ) -> bool {
        // The caller can read it.
        self.refused = None;
        if op <= self.commit || matches!(self.role, Role::Primary(_)) || view > self.promised {
            return false;
        }
        // No committed entry beyond `op` is lost: either the log ends before `op`, or its entry at `op`
        // differs from the committed one, and then no entry after it was ever acknowledged to a client.
        self.report_overwritten(op.next(), out);
        self.journal_appended(now, out);
        self.journaling.limit_durable(self.commit);
        self.log = super::Log::new(op, view);
        (self.commit, self.in_view.matched) = (op, op);
        self.journal(now, Task::Install { op, view, bytes }, Written::Upto(op), out);
        self.fetched_upto(now, op, out);
        true
    }
}
