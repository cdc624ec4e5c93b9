//! The log in memory: the entries after the snapshot before the newest one, so that a peer that is slightly
//! behind catches up without a disk read.

use std::collections::VecDeque;

use recado_proto::codec;
use recado_proto::entry::Entry;
use recado_proto::id::{Op, View};

/// Consecutive entries above a base op. A snapshot covers everything up to the base.
#[derive(Debug)]
pub(super) struct Log {
    base: Op,
    base_view: View,
    entries: VecDeque<Entry>,
    /// The first op of each view that is still held, the base's own view first.
    index: VecDeque<(View, Op)>,
    appended: u64,
}

/// Consecutive entries that go in one packet.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) prev_op: Op,
    pub(super) prev_view: View,
    pub(super) entries: Vec<Entry>,
    /// The bytes of their encodings.
    pub(super) size: usize,
}

impl Piece {
    /// The last op in it.
    pub(super) fn last(&self) -> Op {
        Op(self.prev_op.0 + self.entries.len() as u64)
    }
}

impl Log {
    /// An empty log at a base: the op and view of a snapshot, or `Op::ZERO` in `View::ZERO`.
    pub(super) fn new(base: Op, base_view: View) -> Log {
        let index = VecDeque::from([(base_view, base)]);
        Log { base, base_view, entries: VecDeque::new(), index, appended: 0 }
    }

    /// The entries, for those that replace the log.
    pub(super) fn into_entries(self) -> VecDeque<Entry> {
        self.entries
    }

    /// The last op that only a snapshot covers.
    pub(super) fn base(&self) -> Op {
        self.base
    }

    /// The last op held.
    pub(super) fn last(&self) -> Op {
        Op(self.base.0 + self.entries.len() as u64)
    }

    /// The view of the last op held.
    pub(super) fn last_view(&self) -> View {
        self.entries.back().map_or(self.base_view, |entry| entry.view)
    }

    /// Bytes of payload taken since the log was made, dropped entries included.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// The entry at `op`, if it is held.
    pub(super) fn get(&self, op: Op) -> Option<&Entry> {
        let at = op.0.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The view at `op`, the base included.
    pub(super) fn view_at(&self, op: Op) -> Option<View> {
        if op == self.base { Some(self.base_view) } else { self.get(op).map(|entry| entry.view) }
    }

    /// The first op of each view still held, ascending.
    fn index(&self) -> Vec<(View, Op)> {
        self.index.iter().copied().collect()
    }

    /// As [`Log::index`], but at most `most` views, the newest.
    pub(super) fn newest_views(&self, most: usize) -> Vec<(View, Op)> {
        self.index.iter().skip(self.index.len().saturating_sub(most)).copied().collect()
    }

    /// Appends `entry`. The caller ensures that it follows the last one.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.op, self.last().next(), "the log has no holes");
        debug_assert!(entry.view >= self.last_view(), "views never fall along a log");
        if entry.view != self.last_view() {
            self.index.push_back((entry.view, entry.op));
        }
        self.appended += entry.payload.len() as u64;
        self.entries.push_back(entry);
    }

    /// Drops everything from `op` on. The caller does so only to put another entry there.
    pub(super) fn cut_from(&mut self, op: Op) {
        debug_assert!(op > self.base, "what a snapshot covers is committed");
        let keep = op.0.saturating_sub(self.base.0 + 1) as usize;
        self.entries.truncate(keep);
        // The index begins with the base, which is never cut.
        while self.index.back().is_some_and(|(_, first)| *first >= op) {
            self.index.pop_back();
        }
    }

    /// Drops everything up to `op`, which a durable snapshot covers, but at most `most` entries. Returns true
    /// if nothing of that is left.
    pub(super) fn forget_upto(&mut self, op: Op, most: usize) -> bool {
        for _ in 0..most {
            let Some(entry) = self.entries.pop_front_if(|entry| entry.op <= op) else { break };
            self.base = entry.op;
            self.base_view = entry.view;
        }
        while self.index.get(1).is_some_and(|(_, first)| *first <= self.base) {
            self.index.pop_front();
        }
        if let Some(front) = self.index.front_mut() {
            *front = (self.base_view, self.base);
        }
        self.entries.front().is_none_or(|entry| entry.op > op)
    }

    /// Splits consecutive entries so that the encodings of each piece's have at most `piece_max` bytes,
    /// unless one entry alone has more. Stops once the entries have `bytes_max` together.
    pub(super) fn pieces(&self, after: Op, upto: Op, bytes_max: usize, piece_max: usize) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut total, mut op) = (0, after.next());
        while op <= upto && total < bytes_max {
            let Some(entry) = self.get(op) else { break };
            let size = codec::encoded_len(entry);
            if pieces.last().is_none_or(|piece| piece.size + size > piece_max) {
                let Some(prev_view) = self.view_at(op.prev()) else { break };
                pieces.push(Piece { prev_op: op.prev(), prev_view, entries: Vec::new(), size: 0 });
            }
            if let Some(piece) = pieces.last_mut() {
                piece.entries.push(entry.clone());
                piece.size += size;
            }
            total += size;
            op = op.next();
        }
        pieces
    }

    /// The last op that this log and one described by `index` and `last` have in common for certain: both
    /// hold the same view there, and `(op, view)` names everything up to it.
    pub(super) fn common(&self, index: &[(View, Op)], last: Op) -> Option<Op> {
        let ends = |index: &[(View, Op)], last: Op| -> Vec<(View, Op, Op)> {
            let next = index.iter().skip(1).map(|(_, first)| first.prev()).chain([last]);
            index.iter().zip(next).map(|((view, first), end)| (*view, *first, end)).collect()
        };
        let theirs = ends(index, last);
        ends(&self.index(), self.last())
            .into_iter()
            .filter_map(|(view, first, end)| {
                let (_, their_first, their_end) = theirs.iter().find(|(other, ..)| *other == view)?;
                let common = end.min(*their_end);
                (common >= first && common >= *their_first).then_some(common)
            })
            .max()
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::entry::EntryKind;
    use recado_proto::id::NodeId;

    use super::*;

    fn view(round: u64) -> View {
        View::new(round, NodeId(1))
    }

    fn log(views: &[u64]) -> Log {
        let mut log = Log::new(Op::ZERO, View::ZERO);
        for round in views {
            let (op, view) = (log.last().next(), view(*round));
            log.push(Entry { op, view, kind: EntryKind::Command, payload: [0; 4].into() });
        }
        log
    }

    #[test]
    fn two_logs_have_in_common_what_ends_in_the_same_view() {
        let mine = log(&[1, 1, 2, 2, 2]);
        let other = log(&[1, 1, 2, 3]);
        assert_eq!(mine.common(&other.index(), other.last()), Some(Op(3)));
        let parted = log(&[1, 4]);
        assert_eq!(mine.common(&parted.index(), parted.last()), Some(Op(1)));
    }

    #[test]
    fn a_forgotten_prefix_still_matches_at_the_base() {
        let mut mine = log(&[1, 1, 2, 2, 2]);
        assert!(!mine.forget_upto(Op(4), 3));
        assert_eq!((mine.base(), mine.index()), (Op(3), vec![(view(2), Op(3))]));
        assert!(mine.forget_upto(Op(4), 3));
        assert_eq!((mine.base(), mine.view_at(Op(4))), (Op(4), Some(view(2))));
        assert_eq!(mine.index(), vec![(view(2), Op(4))]);
        let other = log(&[1, 1, 2, 2]);
        assert_eq!(mine.common(&other.index(), other.last()), Some(Op(4)));
        let behind = log(&[1, 1, 2]);
        assert_eq!(mine.common(&behind.index(), behind.last()), None);
    }

    #[test]
    fn a_prefix_forgotten_up_to_the_first_op_of_a_view_leaves_that_view_once() {
        let mut mine = log(&[1, 2, 2]);
        assert!(mine.forget_upto(Op(2), usize::MAX));
        assert_eq!(mine.index(), vec![(view(2), Op(2))]);
    }

    #[test]
    fn the_newest_views_are_the_last_of_the_index() {
        let mine = log(&[1, 2, 2, 3]);
        assert_eq!(mine.newest_views(2), vec![(view(2), Op(2)), (view(3), Op(4))]);
        assert_eq!(mine.newest_views(9), mine.index());
    }

    #[test]
    fn the_bytes_taken_are_those_of_the_payloads() {
        let mut mine = log(&[]);
        assert_eq!(mine.appended(), 0);
        mine = log(&[1, 1, 2]);
        assert!(mine.forget_upto(Op(2), usize::MAX));
        assert_eq!(mine.appended(), 12, "dropped entries count too");
    }

    #[test]
    fn a_cut_takes_the_views_that_began_behind_it() {
        let mut mine = log(&[1, 2, 2, 3]);
        mine.cut_from(Op(3));
        assert_eq!(mine.last_view(), view(2));
        assert_eq!(mine.index(), vec![(View::ZERO, Op(0)), (view(1), Op(1)), (view(2), Op(2))]);
    }
    #[test]
    fn a_cut_of_everything_leaves_only_the_base() {
        let mut mine = log(&[1, 1, 2]);
        mine.cut_from(Op(1));
        assert_eq!((mine.last(), mine.last_view()), (Op::ZERO, View::ZERO));
        assert_eq!(mine.index(), vec![(View::ZERO, Op::ZERO)]);
    }
}
