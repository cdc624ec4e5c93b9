//! Election: the bully algorithm, made safe. It decides *who* leads; the promises that it collects decide
//! *what* state the new primary leads with (DESIGN.md section 4).
//!
//! ```text
//! suspect -> probe -> prepare -> choose (and fetch) -> open -> active
//! ```
//!
//! A majority promises a view durably before the view opens, so two views can never both acknowledge.
//!
//! This file has the candidate and its view. `probe` has what comes before the view, `promise` the answers of
//! the others, `choose` and `fetch` the log that the view begins with.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Election, Promise, QueryId, Reply, ToPeer, WaitsFor};
use recado_proto::planted::Planted;

use super::backup::Backup;
use super::choose::{Choice, choose, first_conflict};
use super::fetch::Fetching;
use super::probe::Probing;
use super::promise::Awaited;
use super::{Cause, Effect, ReplicaManager, Report, Role};

/// The state of a server in an election.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) stage: Stage,
    next_send: Moment,
}

impl Candidate {
    pub(super) fn new(stage: Stage, now: Moment) -> Candidate {
        Candidate { stage, next_send: now }
    }

    /// Moves the time-outs by which this candidate judges others.
    pub(super) fn forgive(&mut self, gap: Duration) {
        match &mut self.stage {
            Stage::Probing(probing) => probing.forgive(gap),
            Stage::Preparing(preparing) => {
                preparing.progressed = preparing.progressed + gap;
                preparing.fetching.iter_mut().for_each(|fetching| fetching.forgive(gap));
            }
        }
    }

    /// When PROBE or PREPARE is sent again.
    pub(super) fn next_send(&self) -> Moment {
        self.next_send
    }
}

/// What a candidate does: it probes first, then it prepares a view.
#[derive(Debug)]
pub(super) enum Stage {
    Probing(Probing),
    Preparing(Preparing),
}

/// The preparation of `promised`, a view of this server that a majority is to promise. A higher promise ends
/// it.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) promises: BTreeMap<NodeId, Promise>,
    /// How often there was progress: promises and fetched pieces that have arrived, and times at which this
    /// server worked on what it has fetched. It tells those that wait for this candidate that it is not
    /// stuck.
    progress: u64,
    progressed: Moment,
    pub(super) fetching: Option<Fetching>,
}

impl Preparing {
    pub(super) fn note_progress(&mut self, now: Moment) {
        self.progress += 1;
        self.progressed = now;
    }

    fn waits_for(&self, me: NodeId) -> WaitsFor {
        match &self.fetching {
            Some(fetching) => WaitsFor::Fetch(fetching.after.next()),
            None if self.promises.contains_key(&me) => WaitsFor::Promises,
            None => WaitsFor::Disk,
        }
    }
}

impl Role {
    /// The view that this server prepares, if it does.
    pub(super) fn preparing(&self) -> Option<&Preparing> {
        match self {
            Role::Candidate(Candidate { stage: Stage::Preparing(preparing), .. }) => Some(preparing),
            _ => None,
        }
    }

    pub(super) fn preparing_mut(&mut self) -> Option<&mut Preparing> {
        match self {
            Role::Candidate(Candidate { stage: Stage::Preparing(preparing), .. }) => Some(preparing),
            _ => None,
        }
    }
}

impl ReplicaManager {
    /// Prepares a view of this server without a probe: after a TRANSFER, after a probe that found a
    /// majority, or as a primary that was outbid.
    pub(super) fn prepare(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        self.suspected_since.get_or_insert(now);
        let round = self.round_seen.max(self.promised.round()) + 1;
        self.raise_promised(now, View::new(round, self.me), out);
        let preparing = Preparing { promises: BTreeMap::new(), progress: 0, progressed: now, fetching: None };
        let candidate = Candidate::new(Stage::Preparing(preparing), now);
        self.become_role(now, Role::Candidate(candidate), cause, out);
    }

    pub(super) fn candidate_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Candidate(candidate) = &self.role else { return };
        let due = now >= candidate.next_send;
        if due {
            self.note_own_work(now);
        }
        let Role::Candidate(candidate) = &self.role else { return };
        match &candidate.stage {
            Stage::Probing(probing) => {
                if self.may_prepare(now, probing) {
                    return self.prepare(now, self.suspicion, out);
                }
                if due {
                    let last = (self.log.last_view(), self.log.last());
                    let disk_ms = self.pace.own_turn_ms(now);
                    let probe = Election::Probe { view: self.promised, last, disk_ms };
                    self.send_to_peers(&ToPeer::Election(probe), out);
                }
            }
            Stage::Preparing(preparing) => {
                // The backups that wait for these PREPAREs cannot tell that this disk lags, because backups
                // do not hear each other's disk pace.
                if preparing.waits_for(self.me) == WaitsFor::Disk && self.pace.stalls(now) {
                    return self.become_backup(now, Cause::SlowDisk, out);
                }
                let (time_out, fetching) = (self.own_time_out(now, preparing), &preparing.fetching);
                let stuck = now.since(preparing.progressed) > time_out;
                let hopeless = |fetching: &Fetching| self.is_hopeless(now, fetching, time_out);
                if stuck || fetching.as_ref().is_some_and(hopeless) {
                    let target = preparing.fetching.as_ref().map(|fetching| fetching.target);
                    self.unfetched_end = target.or(self.unfetched_end);
                    return self.probe(now, self.suspicion, out);
                }
                if due {
                    self.send_to_peers(&self.prepare_packet(now, preparing), out);
                    self.fetch_again(now, out);
                }
            }
        }
        if due {
            let wait = self.jittered(self.timing.heartbeat * 3 / 4);
            if let Role::Candidate(candidate) = &mut self.role {
                candidate.next_send = now + wait;
            }
        }
    }

    pub(super) fn prepare_packet(&self, now: Moment, preparing: &Preparing) -> ToPeer {
        ToPeer::Election(Election::Prepare {
            view: self.promised,
            progress: preparing.progress,
            waits_for: preparing.waits_for(self.me),
            disk_ms: self.pace.own_turn_ms(now),
            members_op: Op::ZERO,
        })
    }

    /// Returns true if this server has prepared a view of its own that is not active yet.
    pub(super) fn tries_to_lead(&self) -> bool {
        match &self.role {
            Role::Candidate(candidate) => matches!(candidate.stage, Stage::Preparing(_)),
            Role::Primary(primary) => !primary.is_active(),
            Role::Backup(_) | Role::Learner(_) => false,
        }
    }

    /// T_coord. It grows with each failed view of this server, so that candidates do not overtake each
    /// other for ever.
    pub(super) fn coordinator_patience(&self) -> Duration {
        self.timing.coordinator * (1 + self.failed_views.min(7))
    }

    /// The time to wait for the progress of others: `usual`, and longer where a disk is at work.
    pub(super) fn patience_for(&self, now: Moment, what: WaitsFor, usual: Duration) -> Duration {
        match what {
            WaitsFor::Fetch(_) => usual,
            _ if self.planted.is(Planted::PatienceIgnoresDisk) => usual,
            WaitsFor::Disk | WaitsFor::Promises => usual.max(self.pace.patience(now)),
        }
    }

    /// The time this candidate continues without progress: no less than the others wait for it.
    fn own_time_out(&self, now: Moment, preparing: &Preparing) -> Duration {
        let (what, usual) = (preparing.waits_for(self.me), self.coordinator_patience() * 2);
        let patience = self.patience_for(now, what, usual);
        match what {
            _ if self.planted.is(Planted::PatienceIgnoresDisk) => patience,
            WaitsFor::Disk => patience.max(self.pace.own_patience(now)),
            WaitsFor::Promises | WaitsFor::Fetch(_) => patience,
        }
    }

    pub(super) fn on_election(
        &mut self,
        now: Moment,
        from: NodeId,
        election: Election,
        out: &mut Vec<Effect>,
    ) {
        match election {
            Election::Probe { view, last: (_, last), .. } => self.on_probe(now, from, view, last, out),
            Election::Prepare { view, progress, waits_for, .. } => {
                let (progressed, heard) = (now, now);
                self.on_prepare(now, from, Awaited { view, progress, progressed, heard, waits_for }, out);
            }
        }
    }

    pub(super) fn on_reply(&mut self, now: Moment, from: NodeId, reply: Reply, out: &mut Vec<Effect>) {
        match reply {
            Reply::Refuse { promised } => self.on_refuse(now, promised, out),
            Reply::Promise(promise) => self.on_promise(now, from, promise, out),
            Reply::Agree { view, .. } => self.on_agree(from, view),
            Reply::Bully { view, .. } => self.on_bully(now, from, view),
            Reply::Alive { .. } => self.on_alive(from),
            // The reply reports only the disk, and the disk pace has it already.
            Reply::Writing { .. } => {}
        }
    }

    fn on_refuse(&mut self, now: Moment, promised: View, out: &mut Vec<Effect>) {
        self.round_seen = self.round_seen.max(promised.round());
        if promised <= self.promised {
            return;
        }
        match &self.role {
            Role::Primary(_) => self.prepare(now, Cause::Outbid, out),
            Role::Candidate(Candidate { stage: Stage::Preparing(_), .. }) => {
                // Another candidate has a higher view: it gets T_coord to be heard.
                let cause = self.suspicion;
                self.become_role(now, Role::Backup(Backup::new(now)), cause, out);
                let patience = self.coordinator_patience();
                let heard = now + (self.jittered(patience) - patience);
                let (progress, progressed) = (u64::MAX, heard);
                let waits_for = WaitsFor::Disk;
                self.in_view.waiting_for =
                    Some(Awaited { view: promised, progress, progressed, heard, waits_for });
            }
            Role::Candidate(_) | Role::Backup(_) | Role::Learner(_) => {}
        }
    }

    fn on_promise(&mut self, now: Moment, from: NodeId, promise: Promise, out: &mut Vec<Effect>) {
        // The promiser may have heard a later incarnation of a server that this candidate cannot hear. A
        // server that lost its disk votes again only with the answers of a majority without itself, and one
        // of those servers is in every majority that would count its old promise.
        for (peer, incarnation) in &promise.incarnations {
            self.heard_of(now, *peer, (*incarnation).into(), out);
        }
        self.best_seen = self.best_seen.max(promise.last_op);
        let Some(preparing) = self.role.preparing_mut() else { return };
        if promise.view != self.promised || preparing.promises.contains_key(&from) {
            return;
        }
        preparing.promises.insert(from, promise);
        preparing.note_progress(now);
        self.try_open(now, out);
    }

    /// The promise of `promised` is durable on this server. If this server prepares that view, its promise
    /// counts as one of the majority.
    pub(super) fn count_own_promise(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mine = self.promise(now);
        if let Some(preparing) = self.role.preparing_mut() {
            preparing.promises.insert(self.me, mine);
            preparing.progressed = now;
            self.try_open(now, out);
        }
    }

    /// A server has started again. This candidate asks for its promise again; a server that lost its disk
    /// gives none until it votes.
    pub(super) fn forget_promise_of(&mut self, now: Moment, peer: NodeId, out: &mut Vec<Effect>) {
        let quorum = self.quorum;
        let Some(preparing) = self.role.preparing_mut() else { return };
        if preparing.promises.remove(&peer).is_none() {
            return;
        }
        let donor = preparing.fetching.as_ref().map(|fetching| fetching.donor);
        if preparing.promises.len() < quorum || donor == Some(peer) {
            preparing.fetching = None;
        }
        self.try_open(now, out);
    }

    /// Opens the view if a majority has promised and nothing is lacking; otherwise starts to fetch.
    fn try_open(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (me, quorum) = (self.me, self.quorum);
        let keep_own = self.planted.is(Planted::KeepOwnLog);
        let Some(preparing) = self.role.preparing_mut() else { return };
        // This server's own promise must be durable too.
        if preparing.promises.len() < quorum
            || !preparing.promises.contains_key(&me)
            || preparing.fetching.is_some()
        {
            return;
        }
        let best_id = match choose(me, &self.members, quorum, &preparing.promises) {
            _ if keep_own => me,
            Choice::Best(best) => best,
            Choice::Wait(whom) => return out.push(Effect::Report(Report::Waiting(whom))),
        };
        let Some(best) = preparing.promises.get(&best_id) else { return };
        // An op that is committed here is in the best log too, with the same view. An op that only the best
        // log's owner knows to be committed may have another entry here, which is no contradiction.
        let committed = self.commit.min(best.last_op);
        let common = self.log.common(&best.index, best.last_op).unwrap_or_default();
        if let Some(op) = first_conflict(&self.log, &best.index, committed) {
            let (view, cause) = (self.promised, self.suspicion);
            self.become_role(now, Role::Backup(Backup::new(now)), cause, out);
            return self.contradict(view, op, out);
        }
        let common = common.max(committed);
        if best_id == me || common >= best.last_op {
            let promises = std::mem::take(&mut preparing.promises);
            return self.open(now, &promises, out);
        }
        self.queries += 1;
        let query = QueryId(self.queries);
        preparing.fetching = Some(Fetching::new(now, best_id, query, common, best.last_op));
        self.fetch(out);
    }
}
