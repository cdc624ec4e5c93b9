//! Promises: what a server does for the candidate of another view. It promises the view, durably before the
//! candidate learns of it, and waits for the candidate while PREPAREs arrive.

use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Promise, Reply, ToPeer, WaitsFor};
use recado_proto::planted::Planted;

use super::in_view::InView;
use super::journaling::Written;
use super::{Cause, Effect, ReplicaManager, Role, Task};

/// Most views in the index of a promise; the newest are sent. A promise must fit a packet, however long the
/// log is. A candidate that finds no common view in the index fetches from the commit on.
const INDEX_MAX: usize = 1_024;

/// Most promises waiting for the disk at once. No election needs as many; a storm of views must not fill
/// the journal's queue faster than the disk empties it.
pub(super) const PROMISES_MAX: usize = 64;

/// Another candidate: this server has promised its view, or a peer refused this server because of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    pub(super) view: View,
    pub(super) progress: u64,
    pub(super) progressed: Moment,
    /// When its latest PREPARE came.
    pub(super) heard: Moment,
    pub(super) waits_for: WaitsFor,
}

impl Awaited {
    pub(super) fn forgive(&mut self, gap: Duration) {
        (self.progressed, self.heard) = (self.progressed + gap, self.heard + gap);
    }
}

impl ReplicaManager {
    /// Returns true if `view` may be accepted: not if it needs one more promise from a disk that has too
    /// many to write.
    pub(super) fn may_promise(&self, view: View) -> bool {
        view <= self.promised || self.journaling.promises() < PROMISES_MAX
    }

    /// Accepts nothing below `view` from this call on. The matched prefix belonged to a lower view and
    /// restarts at the commit.
    pub(super) fn raise_promised(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        debug_assert!(view > self.promised);
        self.promised = view;
        let matched = self.in_view.matched;
        self.in_view = InView::new(self.commit, now);
        if self.planted.is(Planted::MatchedSurvivesView) {
            self.in_view.matched = matched;
        }
        if self.receiving.as_ref().is_some_and(|receiving| receiving.view() < view) {
            self.end_transfer(out);
        }
        // The promise names the incarnations.
        self.journal_known(now, out);
        self.journal(now, Task::Promise(view), Written::Promise(view), out);
    }

    /// The time until which this server waits for another candidate if it hears nothing more. While
    /// PREPAREs arrive, it waits as long as a disk may take.
    pub(super) fn waits_until(&self, now: Moment, awaited: Awaited) -> Moment {
        let usual = self.coordinator_patience();
        if self.planted.is(Planted::OvertakesHeard) {
            return awaited.progressed + usual;
        }
        let patience = self.patience_for(now, awaited.waits_for, usual);
        (awaited.heard + usual).min(awaited.progressed + patience)
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Moment,
        from: NodeId,
        candidate: Awaited,
        out: &mut Vec<Effect>,
    ) {
        let view = candidate.view;
        if view.primary() != Some(from) || !self.may_promise(view) {
            return;
        }
        self.round_seen = self.round_seen.max(view.round());
        if matches!(self.role, Role::Learner(_)) {
            return;
        }
        if view < self.promised {
            return self.send(from, ToPeer::Reply(Reply::Refuse { promised: self.promised }), out);
        }
        if view > self.promised {
            self.raise_promised(now, view, out);
            self.suspected_since.get_or_insert(now);
            self.become_backup(now, Cause::HigherView, out);
            self.in_view.promise_reply_to = Some(from);
            self.in_view.waiting_for = Some(candidate);
            if self.planted.is(Planted::PromiseNotDurable) {
                self.send_promise(now, out);
            }
            return;
        }
        // A repeated PREPARE extends the wait. One with progress extends it further.
        if let Some(awaited) = &mut self.in_view.waiting_for
            && awaited.view == view
        {
            (awaited.heard, awaited.waits_for) = (now, candidate.waits_for);
            if candidate.progress > awaited.progress {
                (awaited.progress, awaited.progressed) = (candidate.progress, now);
            }
            // If this server probes because the candidate was silent, it returns to waiting.
            let awaited = *awaited;
            if matches!(self.role, Role::Candidate(_)) && now < self.waits_until(now, awaited) {
                self.become_backup(now, Cause::HeardAgain, out);
            }
        }
        if self.in_view.promise_reply_to.is_some() {
            let writing = Reply::Writing { view, disk_ms: self.pace.own_turn_ms(now) };
            self.send(from, ToPeer::Reply(writing), out);
        } else if self.in_view.primary.is_none() {
            self.in_view.promise_reply_to = Some(from);
            // A packet of the view itself may have raised the promise, which the journal has yet to write.
            if self.journaling.promises() == 0 {
                self.send_promise(now, out);
            }
        }
    }

    pub(super) fn on_promise_durable(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        if view != self.promised {
            return;
        }
        self.send_promise(now, out);
        self.count_own_promise(now, out);
    }

    fn send_promise(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if let Some(candidate) = self.in_view.promise_reply_to.take() {
            self.send(candidate, ToPeer::Reply(Reply::Promise(self.promise(now))), out);
        }
    }

    /// The promise and the state of this log, read after the promise is durable.
    pub(super) fn promise(&self, now: Moment) -> Promise {
        Promise {
            view: self.promised,
            last_view: self.log.last_view(),
            last_op: self.log.last(),
            commit: self.commit,
            index: self.log.newest_views(INDEX_MAX),
            unknown: self.unknown.and_then(|unknown| unknown.beyond(self.log.last(), self.log.last_view())),
            incarnations: self.peers.incarnations(),
            disk_ms: self.pace.own_turn_ms(now),
            members_op: Op::ZERO,
        }
    }
}
