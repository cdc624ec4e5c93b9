//! Recovery: computes the known log from the records of a directory, in file order. Pure. The rules are in
//! the module's documentation, "Torn write or bit rot".
//!
//! Only the log after the newest snapshot is held; earlier records leave a few numbers.

use recado_proto::entry::{Entry, Unknown};
use recado_proto::id::{Op, View};
use recado_proto::planted::{Planted, PlantedBug};

use super::Mark;
use super::record::{Body, Record};

/// The log as far as it is known.
#[derive(Debug)]
pub(super) struct Known {
    /// The last serial that counts.
    pub(super) serial: u64,
    /// The highest serial of any record, void ones included.
    pub(super) highest: u64,
    /// The last entry, or the op and view of the snapshot if there is no entry after it.
    pub(super) last: (Op, View),
    /// The highest op that was certainly committed.
    pub(super) commit: Op,
    /// The entries after the snapshot.
    pub(super) entries: Vec<Entry>,
    /// The ops that are unknown beyond it.
    pub(super) lost: Option<Unknown>,
    /// True if this recovery found damage, not only an earlier one.
    pub(super) damaged: bool,
}

/// Takes the records of all segments, in file order, on top of a snapshot at (op, view) (zero: none).
pub(super) struct Recovery {
    snapshot: (Op, View),
    segments: Vec<SegmentRange>,
    /// The index of the segment that the chain begins with.
    base: Option<usize>,
    chain: Option<Chain>,
    broken: bool,
    durable: u64,
    highest: u64,
    op_max: Op,
}

/// The knowledge of a segment before its records are read.
struct SegmentRange {
    first: u64,
    /// The last serial that counts: a later start record declares higher ones void.
    upto: u64,
}

impl Recovery {
    /// Starts a recovery for segments with these first serials, ascending, and these start records, where
    /// readable.
    pub(super) fn new(heads: &[(u64, Option<Record>)], snapshot: (Op, View)) -> Recovery {
        let mut upto = u64::MAX;
        let mut segments: Vec<SegmentRange> = Vec::with_capacity(heads.len());
        let mut base = None;
        for (index, (first, head)) in heads.iter().enumerate().rev() {
            segments.push(SegmentRange { first: *first, upto });
            if let Some(Record { serial, op, body: Body::Start { prev, .. }, .. }) = head
                && serial == first
                && *serial <= upto
            {
                upto = upto.min(*prev);
                if base.is_none() && *op <= snapshot.0 {
                    base = Some(index);
                }
            }
        }
        segments.reverse();
        Recovery {
            snapshot,
            segments,
            base,
            chain: None,
            broken: false,
            durable: 0,
            highest: 0,
            op_max: Op::ZERO,
        }
    }

    /// Takes the next record, of the `index`-th segment. Returns the highest op that the record names.
    pub(super) fn take(&mut self, index: usize, record: Record) -> Op {
        let op_max = match record.body {
            Body::Start { lost: Some(lost), .. } => record.op.max(lost.last),
            Body::Start { lost: None, .. } | Body::Entry { .. } => record.op,
        };
        self.op_max = self.op_max.max(op_max);
        self.highest = self.highest.max(record.serial);
        let Some(place) = self.segments.get(index) else { return op_max };
        let starts = matches!(record.body, Body::Start { .. });
        // The journal writes a start record only at the head of its segment.
        if record.serial > place.upto || (starts && record.serial != place.first) {
            return op_max;
        }
        self.durable = self.durable.max(record.durable);
        match &mut self.chain {
            None if self.base == Some(index) && starts => self.chain = Some(Chain::from_start(&record)),
            Some(chain) if !self.broken => self.broken = !chain.follow(record),
            _ => {}
        }
        op_max
    }

    /// Computes the log from the records taken and from a mark.
    pub(super) fn finish(mut self, mark: Mark, promised: View, planted: PlantedBug) -> Known {
        let snapshot = self.snapshot;
        let durable = self.durable.max(mark.serial);
        let op_max = self.op_max.max(mark.op);
        let highest = self.highest.max(mark.serial);
        let Some(mut chain) = self.chain.take() else {
            // Without a start record no record can be placed in the log.
            let damaged = op_max > snapshot.0 || durable > 0;
            let lost = lost_after(snapshot.0, op_max, promised).filter(|_| damaged);
            return Known {
                serial: 0,
                highest,
                last: snapshot,
                commit: snapshot.0,
                entries: Vec::new(),
                lost,
                damaged,
            };
        };
        let damaged = (chain.serial < durable || chain.hole) && !planted.is(Planted::CorruptionIsTornTail);
        if damaged {
            let known = snapshot.0.max(chain.commit.min(chain.last().0));
            chain.cut(known);
            chain.lost = lost_after(known, op_max, promised);
        }
        let (last, entries) = chain.entries_after(snapshot, planted);
        Known {
            serial: chain.serial,
            highest,
            last,
            commit: chain.commit.min(last.0).max(snapshot.0),
            entries,
            lost: chain.lost.and_then(|lost| lost.beyond(last.0, last.1)),
            damaged,
        }
    }
}

fn lost_after(known: Op, op_max: Op, promised: View) -> Option<Unknown> {
    (op_max > known).then(|| Unknown { first: known.next(), last: op_max, view_max: promised })
}

/// The chain of serials, followed from a start record, and the log that it gives.
struct Chain {
    base: (Op, View),
    /// Entries from `base.0 + 1` on, dense.
    log: Vec<Entry>,
    serial: u64,
    commit: Op,
    lost: Option<Unknown>,
    /// True if the serials continue but the ops do not: a snapshot that a later segment follows is gone.
    hole: bool,
}

impl Chain {
    fn from_start(record: &Record) -> Chain {
        let lost = match record.body {
            Body::Start { lost, .. } => lost,
            Body::Entry { .. } => None,
        };
        Chain {
            base: (record.op, record.view),
            log: Vec::new(),
            serial: record.serial,
            commit: record.commit,
            lost,
            hole: false,
        }
    }

    fn last(&self) -> (Op, View) {
        self.log.last().map_or(self.base, |entry| (entry.op, entry.view))
    }

    fn view_at(&self, op: Op) -> Option<View> {
        if op == self.base.0 {
            return Some(self.base.1);
        }
        let index = op.0.checked_sub(self.base.0.0 + 1)?;
        self.log.get(usize::try_from(index).ok()?).map(|entry| entry.view)
    }

    /// Drops everything above `op`.
    fn cut(&mut self, op: Op) {
        let keep = op.0.saturating_sub(self.base.0.0);
        self.log.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Takes the next record. Returns false if the record does not follow.
    fn follow(&mut self, record: Record) -> bool {
        let next = match record.body {
            Body::Start { prev, .. } => prev == self.serial,
            Body::Entry { .. } => record.serial == self.serial + 1,
        };
        if !next {
            return false;
        }
        match record.body {
            Body::Start { lost, .. } => {
                if self.view_at(record.op) != Some(record.view) {
                    self.hole = true;
                    return false;
                }
                self.cut(record.op);
                self.lost = lost;
            }
            Body::Entry { kind, payload } => {
                if record.op > self.last().0.next() {
                    self.hole = true;
                    return false;
                }
                if record.op <= self.base.0 {
                    // The entry at the base had not been committed and is superseded. The snapshot covers
                    // the base, so it covers this entry too: only its (op, view) matters.
                    self.log.clear();
                    self.base = (record.op, record.view);
                } else {
                    self.cut(record.op.prev());
                    self.log.push(Entry { op: record.op, view: record.view, kind, payload });
                }
            }
        }
        self.serial = record.serial;
        self.commit = self.commit.max(record.commit);
        true
    }

    /// The end of the log and its entries after the snapshot.
    ///
    /// The entries count only if the log has the snapshot's view at the snapshot's op. A crash after a
    /// snapshot was installed, and before the log was restarted on it, leaves a log with another view
    /// there.
    fn entries_after(&mut self, snapshot: (Op, View), planted: PlantedBug) -> ((Op, View), Vec<Entry>) {
        let matched = self.view_at(snapshot.0) == Some(snapshot.1)
            || (planted.is(Planted::LogNotMatched) && self.last().0 >= snapshot.0);
        if snapshot.0 > Op::ZERO && !matched {
            return (snapshot, Vec::new());
        }
        let last = self.last();
        let covered = usize::try_from(snapshot.0.0.saturating_sub(self.base.0.0)).unwrap_or(usize::MAX);
        let entries = self.log.split_off(covered.min(self.log.len()));
        (last, entries)
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::entry::EntryKind;

    use super::*;

    const VIEW: View = View(1 << 16 | 1);
    const HIGHER: View = View(2 << 16 | 2);
    const NO_SNAPSHOT: (Op, View) = (Op::ZERO, View::ZERO);

    /// A start record: the log ends at (op, view), and the serials between `prev` and its own are void.
    fn start(serial: u64, prev: u64, op: u64, view: View) -> Record {
        let body = Body::Start { prev, lost: None, owner: None };
        Record { serial, durable: prev, commit: Op::ZERO, op: Op(op), view, body }
    }

    /// An entry that names the first record durable.
    fn entry(serial: u64, op: u64, view: View) -> Record {
        let body = Body::Entry { kind: EntryKind::Command, payload: vec![7; 3].into() };
        Record { serial, durable: 1, commit: Op::ZERO, op: Op(op), view, body }
    }

    fn marked(serial: u64, op: u64) -> Mark {
        Mark { serial, op: Op(op), ..Mark::default() }
    }

    /// The log that these segments give, if the server has promised [`VIEW`].
    fn recover(segments: &[&[Record]], snapshot: (Op, View), mark: Mark) -> Known {
        let heads: Vec<_> =
            segments.iter().map(|records| (records[0].serial, Some(records[0].clone()))).collect();
        let mut recovery = Recovery::new(&heads, snapshot);
        for (index, records) in segments.iter().enumerate() {
            for record in *records {
                recovery.take(index, record.clone());
            }
        }
        recovery.finish(mark, VIEW, PlantedBug::default())
    }

    fn ops(known: &Known) -> Vec<u64> {
        known.entries.iter().map(|entry| entry.op.0).collect()
    }

    fn unknown(first: u64, last: u64) -> Option<Unknown> {
        Some(Unknown { first: Op(first), last: Op(last), view_max: VIEW })
    }

    #[test]
    fn a_directory_that_was_never_started_is_not_damaged() {
        let known = recover(&[], NO_SNAPSHOT, Mark::default());
        assert_eq!((known.damaged, known.lost, known.serial, known.highest), (false, None, 0, 0));
    }

    #[test]
    fn a_log_that_is_gone_is_damage_although_it_held_no_op() {
        let known = recover(&[], NO_SNAPSHOT, marked(1, 0));
        assert_eq!((known.damaged, known.lost, known.serial, known.highest), (true, None, 0, 1));
        let snapshot = (Op(7), VIEW);
        let known = recover(&[], snapshot, marked(9, 7));
        assert_eq!((known.damaged, known.lost, known.last), (true, None, snapshot));
    }

    #[test]
    fn entries_without_a_start_record_are_unknown() {
        let alone = Record { durable: 0, ..entry(2, 5, VIEW) };
        let known = recover(&[&[alone]], NO_SNAPSHOT, Mark::default());
        assert_eq!((known.damaged, known.lost), (true, unknown(1, 5)));
        assert!(known.entries.is_empty());
    }

    #[test]
    fn a_missing_record_is_damage_only_if_a_later_one_names_it_durable() {
        let last = |durable| Record { durable, ..entry(4, 3, VIEW) };
        let without_the_third = |durable| [start(1, 0, 0, View::ZERO), entry(2, 1, VIEW), last(durable)];
        let known = recover(&[&without_the_third(3)], NO_SNAPSHOT, Mark::default());
        assert_eq!((known.damaged, known.lost), (true, unknown(1, 3)));
        assert!(known.entries.is_empty(), "none of them was certainly committed");
        let known = recover(&[&without_the_third(2)], NO_SNAPSHOT, Mark::default());
        assert_eq!((known.damaged, known.lost, known.highest), (false, None, 4));
        assert_eq!(ops(&known), [1]);
    }

    #[test]
    fn no_record_behind_a_missing_one_counts_whatever_its_serial() {
        let records = [start(1, 0, 0, View::ZERO), entry(2, 1, VIEW), entry(4, 3, VIEW), entry(3, 2, VIEW)];
        let known = recover(&[&records], NO_SNAPSHOT, marked(2, 1));
        assert_eq!((known.damaged, known.serial, known.last), (false, 2, (Op(1), VIEW)));
        assert_eq!(ops(&known), [1]);
    }

    #[test]
    fn what_a_lost_snapshot_covered_is_unknown_although_no_serial_is_missing() {
        let before = [start(1, 0, 0, View::ZERO), entry(2, 1, VIEW)];
        let after = [start(3, 2, 9, VIEW)];
        let known = recover(&[&before, &after], NO_SNAPSHOT, marked(2, 1));
        assert_eq!((known.damaged, known.lost), (true, unknown(1, 9)));
        assert!(known.entries.is_empty());
    }

    #[test]
    fn an_op_that_is_missing_is_unknown_although_no_serial_is_missing() {
        let records = [start(1, 0, 0, View::ZERO), entry(2, 1, VIEW), entry(3, 3, VIEW)];
        let known = recover(&[&records], NO_SNAPSHOT, marked(2, 1));
        assert_eq!((known.damaged, known.lost), (true, unknown(1, 3)));
        assert!(known.entries.is_empty());
    }

    #[test]
    fn an_entry_at_the_op_that_the_log_begins_with_supersedes_all_after_it() {
        let records = [start(1, 0, 10, VIEW), entry(2, 11, VIEW), entry(3, 12, VIEW), entry(4, 10, HIGHER)];
        let known = recover(&[&records], (Op(10), HIGHER), Mark::default());
        assert_eq!((known.damaged, known.last), (false, (Op(10), HIGHER)));
        assert!(known.entries.is_empty());
    }

    #[test]
    fn a_log_counts_only_with_the_view_of_the_snapshot_and_always_without_a_snapshot() {
        let from = |op| [start(1, 0, op, VIEW), entry(2, op + 1, VIEW)];
        for (snapshot, last) in [
            ((Op(10), VIEW), (Op(11), VIEW)),
            ((Op(10), HIGHER), (Op(10), HIGHER)),
            (NO_SNAPSHOT, (Op(1), VIEW)),
        ] {
            let known = recover(&[&from(snapshot.0.0)], snapshot, Mark::default());
            assert_eq!((known.last, known.entries.len() as u64), (last, last.0.0 - snapshot.0.0));
        }
    }
}
