//! Fetching: a candidate whose log lacks entries of the best promised log asks that log's server for them
//! before it opens its view. `catchup` has the answers, and the snapshot that the donor sends if it does not
//! hold the entries any more.
//!
//! *Progress* keeps a candidate going, and others waiting for it: what arrives of the donor, and the work of
//! this server on that. Its journal stores a snapshot, and other threads read it back and decode it. The
//! steps of this take longer than any time-out of an election if the state is large or the disk is slow, so
//! they count as progress while they last, up to [`STEP_MAX`] each. Meanwhile nothing comes of the donor but
//! answers to PREPARE: one that does not answer is given up. [`FETCH_MAX`] bounds all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{Entries, Fetch, QueryId, ToPeer};
use recado_proto::planted::Planted;

use super::backup::refuse_unfollowed;
use super::catchup::Opening;
use super::{Effect, ReplicaManager, Role};

/// Entries asked for by one FETCH.
const FETCH_OPS: u64 = 64;

/// The longest time that one step of storing, reading back or decoding a snapshot counts as progress. A disk
/// that answers once in ten seconds is of no use.
const STEP_MAX: Duration = Duration::from_secs(10);

/// The longest time that a candidate fetches in one view. Nobody serves meanwhile, and the donor, which lacks
/// nothing, can lead at once.
const FETCH_MAX: Duration = Duration::from_secs(60);

/// A fetch in progress.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) donor: NodeId,
    query: QueryId,
    /// The end of what this log has in common with the donor's.
    pub(super) after: Op,
    /// The op after which the latest FETCH asked, and the last op that it asked for.
    asked_after: Op,
    upto: Op,
    /// The end of the donor's log.
    pub(super) target: Op,
    asked: Moment,
    /// When this fetch began, and when the donor was last heard.
    since: Moment,
    donor_heard: Moment,
    /// Pieces of answers that arrived before their predecessors, by the op before their first.
    early: BTreeMap<Op, Entries>,
    /// The op of the snapshot that the donor sends instead of entries, and the most bytes of it that
    /// arrived.
    snapshot: (Op, u64),
}

impl Fetching {
    /// A fetch of the entries of `donor` after `after` up to `target`. Nothing is asked for yet.
    pub(super) fn new(now: Moment, donor: NodeId, query: QueryId, after: Op, target: Op) -> Fetching {
        Fetching {
            donor,
            query,
            after,
            asked_after: after,
            upto: after,
            target,
            asked: now,
            since: now,
            donor_heard: now,
            early: BTreeMap::new(),
            snapshot: (Op::ZERO, 0),
        }
    }

    /// Moves the time-out by which the donor is judged.
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.donor_heard = self.donor_heard + gap;
    }
}

impl Role {
    /// The fetch of this server, if it fetches.
    fn fetching_mut(&mut self) -> Option<&mut Fetching> {
        self.preparing_mut()?.fetching.as_mut()
    }
}

impl ReplicaManager {
    /// Asks the donor for the next entries.
    pub(super) fn fetch(&mut self, out: &mut Vec<Effect>) {
        let Some(fetching) = self.role.fetching_mut() else { return };
        fetching.asked_after = fetching.after;
        fetching.upto = fetching.target.min(Op(fetching.after.0 + FETCH_OPS));
        let (donor, upto) = (fetching.donor, fetching.upto);
        let fetch = Fetch { query: fetching.query, view: self.promised, after: fetching.after, upto };
        self.send(donor, ToPeer::Fetch(fetch), out);
    }

    /// Sends a FETCH again that brought nothing for a heartbeat.
    pub(super) fn fetch_again(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(fetching) = self.role.fetching_mut() else { return };
        if now.since(fetching.asked) >= self.timing.heartbeat {
            fetching.asked = now;
            self.fetch(out);
        }
    }

    /// Takes a piece of an answer to FETCH. A piece that arrives before its predecessors is buffered.
    pub(super) fn on_fetched(&mut self, now: Moment, from: NodeId, entries: Entries, out: &mut Vec<Effect>) {
        let Some(fetching) = self.role.fetching_mut() else { return };
        if from != fetching.donor
            || entries.fetch != Some(fetching.query)
            || entries.entries.last().is_some_and(|entry| entry.op > fetching.target)
            || refuse_unfollowed(&entries, out)
        {
            return;
        }
        // An answer has at most one piece for each op asked for, and an end.
        if entries.prev_op <= fetching.upto && fetching.early.len() <= FETCH_OPS as usize {
            fetching.early.insert(entries.prev_op, entries);
        }
        while let Some(fetching) = self.role.fetching_mut()
            && let Some(first) = fetching.early.first_entry()
            && *first.key() <= fetching.after
        {
            let entries = first.remove();
            if entries.entries.is_empty() {
                // An answer ends here. If all of it came and it is short, ask for the next entries. After a
                // complete answer they were asked for with its last entry.
                if entries.prev_op == fetching.after && fetching.after > fetching.asked_after {
                    self.fetch(out);
                }
                continue;
            }
            let agreed = self.merge(entries.prev_op, self.promised, entries.entries, out);
            self.fetched_upto(now, agreed, out);
        }
    }

    /// This log agrees with the donor's up to `agreed`: goes on with the fetch, or opens the view if nothing
    /// is lacking any more.
    pub(super) fn fetched_upto(&mut self, now: Moment, agreed: Op, out: &mut Vec<Effect>) {
        let Some(preparing) = self.role.preparing_mut() else { return };
        let Some(fetching) = &mut preparing.fetching else { return };
        if agreed <= fetching.after {
            return;
        }
        fetching.after = agreed;
        fetching.asked = now;
        let (complete, answered) = (agreed >= fetching.target, agreed >= fetching.upto);
        preparing.note_progress(now);
        if complete || self.planted.is(Planted::FetchStopsShort) {
            let promises = std::mem::take(&mut preparing.promises);
            self.open(now, &promises, out);
        } else if answered {
            self.fetch(out);
        }
    }

    /// The server that a candidate fetches from.
    pub(super) fn donor(&self) -> Option<NodeId> {
        self.role.preparing()?.fetching.as_ref().map(|fetching| fetching.donor)
    }

    /// The donor's snapshot at `op` has arrived up to `bytes`. Only bytes beyond the most so far count as
    /// progress: a donor whose disk cannot read further starts again without end.
    pub(super) fn donor_progressed(&mut self, now: Moment, op: Op, bytes: u64) {
        if let Some(preparing) = self.role.preparing_mut()
            && let Some(fetching) = &mut preparing.fetching
        {
            fetching.asked = now;
            if fetching.snapshot.0 != op || fetching.snapshot.1 < bytes {
                fetching.snapshot = (op, bytes);
                preparing.note_progress(now);
            }
        }
    }

    /// A packet came from this server.
    pub(super) fn donor_heard(&mut self, now: Moment, from: NodeId) {
        if let Some(fetching) = self.role.fetching_mut().filter(|fetching| fetching.donor == from) {
            fetching.donor_heard = now;
        }
    }

    /// Notes progress while this server works on the snapshot that it fetches. That brings what others could
    /// not bring sooner, so they need not wait for its end to know that this candidate is not stuck.
    pub(super) fn note_own_work(&mut self, now: Moment) {
        let after = self.role.preparing().and_then(|preparing| Some(preparing.fetching.as_ref()?.after));
        if after.is_some_and(|after| self.works_on_snapshot(now, after))
            && let Some(preparing) = self.role.preparing_mut()
            && let Some(fetching) = &mut preparing.fetching
        {
            fetching.asked = now;
            preparing.note_progress(now);
        }
    }

    /// Returns true if a snapshot beyond `after` is being stored, read back or decoded here.
    fn works_on_snapshot(&self, now: Moment, after: Op) -> bool {
        let opens = |opening: Opening| opening.op > after && now.since(opening.progressed) < STEP_MAX;
        self.opening.is_some_and(opens)
            || self.receiving.as_ref().is_some_and(|receiving| receiving.is_stored(now, STEP_MAX))
    }

    /// Returns true if this fetch will not end: its donor has been silent for `patience` although more is
    /// wanted of it, or all of it takes too long.
    pub(super) fn is_hopeless(&self, now: Moment, fetching: &Fetching, patience: Duration) -> bool {
        let suffices = self.opening.is_some_and(|opening| opening.op >= fetching.target);
        let lost = !suffices && now.since(fetching.donor_heard) > patience;
        lost || now.since(fetching.since) > FETCH_MAX
    }
}
