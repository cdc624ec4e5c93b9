//! What the records of a directory say: pure, from scanned segments to the known log. The rules
//! stand in the module's doc, "Torn or rotten".

use super::record::{ALIGN, Body, HEADER, Record};
use crate::config::{Planted, PlantedBug};
use crate::entry::{Entry, Unknown};
use crate::id::{Op, View};

/// The valid records of one log file.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Its first serial, from its name.
    pub(super) first: u64,
    /// Every valid record, in file order, also beyond bad bytes.
    pub(super) records: Vec<Record>,
    /// Where the last valid record ends.
    pub(super) used: u64,
    /// Bytes that are neither zero nor of a valid record.
    pub(super) bad: u64,
}

impl Scanned {
    /// Scans a log file. Payloads of entries up to `skip` are left empty.
    pub(super) fn new(first: u64, bytes: &[u8], skip: Op) -> Scanned {
        let mut scanned = Scanned { first, records: Vec::new(), used: 0, bad: 0 };
        let mut at = 0;
        while at + HEADER <= bytes.len() {
            match Record::decode(first, &bytes[at..], skip) {
                Some((record, len)) => {
                    at += len;
                    scanned.used = at as u64;
                    scanned.records.push(record);
                }
                None => {
                    let word = &bytes[at..at + ALIGN];
                    scanned.bad += word.iter().filter(|byte| **byte != 0).count() as u64;
                    at += ALIGN;
                }
            }
        }
        scanned
    }

    /// The highest op any of its records speaks of.
    pub(super) fn op_max(&self) -> Op {
        let ops = self.records.iter().map(|record| match &record.body {
            Body::Start { lost: Some(lost), .. } => record.op.max(lost.last),
            Body::Start { lost: None, .. } | Body::Entry { .. } | Body::Mark => record.op,
        });
        ops.max().unwrap_or(Op::ZERO)
    }
}

/// The log as far as it is known.
#[derive(Debug)]
pub(super) struct Known {
    /// The last serial that counts.
    pub(super) serial: u64,
    /// Its last entry, or the snapshot's op if there is none after it.
    pub(super) last: (Op, View),
    /// What was certainly committed.
    pub(super) commit: Op,
    /// The entries after the snapshot.
    pub(super) entries: Vec<Entry>,
    /// What is unknown beyond.
    pub(super) lost: Option<Unknown>,
    /// Whether damage was found by this very reading.
    pub(super) damaged: bool,
}

/// Reads the segments, ascending by first serial, on top of a snapshot at (op, view) (zero: none).
/// `None`: the log does not reach back to the snapshot, and there is none: nothing can be known.
pub(super) fn recover(
    segments: Vec<Scanned>,
    snapshot: (Op, View),
    promised: View,
    planted: PlantedBug,
) -> Option<Known> {
    let op_max = segments.iter().map(Scanned::op_max).max().unwrap_or(Op::ZERO);
    let from_birth = segments.first().is_none_or(|segment| segment.first == 1);
    let mut live = live(segments);
    let durable = live.iter().map(|record| record.durable).max().unwrap_or(0);

    let base =
        live.iter().rposition(|record| matches!(record.body, Body::Start { .. }) && record.op <= snapshot.0);
    let Some(base) = base else {
        if snapshot.0 == Op::ZERO && !from_birth {
            return None;
        }
        // The start record itself is gone. With nothing before the log's first record to hold on
        // to, none of the records can be placed.
        let damaged = op_max > snapshot.0 || durable > 0;
        let lost = lost_after(snapshot.0, op_max, promised).filter(|_| damaged);
        return Some(Known {
            serial: 0,
            last: snapshot,
            commit: snapshot.0,
            entries: Vec::new(),
            lost,
            damaged,
        });
    };

    let mut chain = Chain::from_start(&live[base]);
    for record in live.drain(base + 1..) {
        if !chain.follow(record) {
            break;
        }
    }
    let damaged = (chain.serial < durable || chain.hole) && !planted.is(Planted::CorruptionIsTornTail);
    if damaged {
        let known = snapshot.0.max(chain.commit.min(chain.last().0));
        chain.cut(known);
        chain.lost = lost_after(known, op_max, promised);
    }
    let (last, entries) = chain.entries_after(snapshot);
    Some(Known {
        serial: chain.serial,
        last,
        commit: chain.commit.min(last.0).max(snapshot.0),
        entries,
        lost: chain.lost.and_then(|lost| lost.beyond(last.0, last.1)),
        damaged,
    })
}

/// The records that no later start record has declared void, in file order.
fn live(segments: Vec<Scanned>) -> Vec<Record> {
    let mut upto = u64::MAX;
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments.into_iter().rev() {
        let mut records = segment.records;
        records.retain(|record| record.serial <= upto);
        for record in &records {
            if let Body::Start { prev, .. } = record.body {
                upto = upto.min(prev);
            }
        }
        parts.push(records);
    }
    parts.into_iter().rev().flatten().collect()
}

fn lost_after(known: Op, op_max: Op, promised: View) -> Option<Unknown> {
    (op_max > known).then(|| Unknown { first: known.next(), last: op_max, view_max: promised })
}

/// The chain of serials, followed from a start record, and the log it spells.
struct Chain {
    base: (Op, View),
    /// From `base.0 + 1` on, dense.
    log: Vec<Entry>,
    serial: u64,
    commit: Op,
    lost: Option<Unknown>,
    /// The serials go on, but the ops do not: a snapshot that a later segment stands on is gone.
    hole: bool,
}

impl Chain {
    fn from_start(record: &Record) -> Chain {
        let lost = match record.body {
            Body::Start { lost, .. } => lost,
            Body::Entry { .. } | Body::Mark => None,
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

    /// Forgets everything above `op`.
    fn cut(&mut self, op: Op) {
        let keep = op.0.saturating_sub(self.base.0.0);
        self.log.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Takes the next record; false if it is not the next one.
    fn follow(&mut self, record: Record) -> bool {
        let next = match record.body {
            Body::Start { prev, .. } => prev == self.serial,
            Body::Entry { .. } | Body::Mark => record.serial == self.serial + 1,
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
                    // What stood at the base had not been committed. The snapshot covers the base, so
                    // it covers this entry: only its place matters.
                    self.log.clear();
                    self.base = (record.op, record.view);
                } else {
                    self.cut(record.op.prev());
                    self.log.push(Entry { op: record.op, view: record.view, kind, payload });
                }
            }
            Body::Mark => {}
        }
        self.serial = record.serial;
        self.commit = self.commit.max(record.commit);
        true
    }

    /// The end of the log and its entries after the snapshot.
    ///
    /// They count only if the log agrees with the snapshot about the view at its op: a crash after a
    /// snapshot was installed, and before the log was restarted on it, leaves a log that does not.
    fn entries_after(&mut self, snapshot: (Op, View)) -> ((Op, View), Vec<Entry>) {
        if snapshot.0 > Op::ZERO && self.view_at(snapshot.0) != Some(snapshot.1) {
            return (snapshot, Vec::new());
        }
        let last = self.last();
        let covered = usize::try_from(snapshot.0.0.saturating_sub(self.base.0.0)).unwrap_or(usize::MAX);
        let entries = self.log.split_off(covered.min(self.log.len()));
        (last, entries)
    }
}
