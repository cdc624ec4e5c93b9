//! Election: the bully algorithm, made safe. It decides *who* leads; the promises that it collects decide
//! *what* state the new primary leads with (DESIGN.md section 4).
//!
//! ```text
//! suspect -> probe -> prepare -> choose (and fetch) -> open -> active
//! ```
//!
//! Probing changes nothing durable, so a server that alone suspects the primary does not disturb the
//! others. A majority promises a view durably before the view opens, so two views can never both
//! acknowledge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Election, Entries, Fetch, Packet, Promise, QueryId, Reply, WaitsFor};
use recado_proto::planted::Planted;

use super::log::Log;
use super::{Cause, Effect, ReplicaManager, Role};

/// The most entries that a server may lack of the best log seen and still answer Bully: 8,192, about 8 MiB
/// of 1 KiB each. With more, a better placed server fetches less.
const FIT_BEHIND_MAX: u64 = 8_192;

/// Entries asked for by one FETCH.
const FETCH_OPS: u64 = 64;

/// Most views in the index of a promise; the newest are sent. A promise must fit a packet, however long the
/// log is. A candidate that finds no common view in the index fetches from the commit on.
const INDEX_MAX: usize = 1_024;

/// The state of a server in an election.
#[derive(Debug)]
pub(super) struct Candidate {
    stage: Stage,
    next_send: Moment,
}

impl Candidate {
    /// Moves the time-outs by which this candidate judges others.
    pub(super) fn forgive(&mut self, gap: Duration) {
        match &mut self.stage {
            Stage::Probing(probing) => {
                probing.since = probing.since + gap;
                for (since, heard) in probing.bullies.values_mut() {
                    (*since, *heard) = (*since + gap, *heard + gap);
                }
            }
            Stage::Preparing(preparing) => preparing.progressed = preparing.progressed + gap,
        }
    }

    pub(super) fn next_deadline(&self) -> Moment {
        self.next_send
    }
}

/// Another candidate: this server has promised its view, or a peer refused this server because of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    view: View,
    progress: u64,
    progressed: Moment,
    /// When its latest PREPARE came.
    heard: Moment,
    waits_for: WaitsFor,
}

impl Awaited {
    pub(super) fn forgive(&mut self, gap: Duration) {
        (self.progressed, self.heard) = (self.progressed + gap, self.heard + gap);
    }
}

#[derive(Debug)]
enum Stage {
    Probing(Probing),
    Preparing(Preparing),
}

#[derive(Debug)]
struct Probing {
    since: Moment,
    agreed: BTreeSet<NodeId>,
    replied: BTreeSet<NodeId>,
    /// Higher servers that answered Bully, with the times of the first and the latest answer.
    bullies: BTreeMap<NodeId, (Moment, Moment)>,
}

#[derive(Debug)]
struct Preparing {
    view: View,
    promises: BTreeMap<NodeId, Promise>,
    progress: u64,
    progressed: Moment,
    fetching: Option<Fetching>,
}

impl Preparing {
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
    fn preparing(&self) -> Option<&Preparing> {
        match self {
            Role::Candidate(Candidate { stage: Stage::Preparing(preparing), .. }) => Some(preparing),
            _ => None,
        }
    }

    fn preparing_mut(&mut self) -> Option<&mut Preparing> {
        match self {
            Role::Candidate(Candidate { stage: Stage::Preparing(preparing), .. }) => Some(preparing),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Fetching {
    donor: NodeId,
    query: QueryId,
    after: Op,
    /// The op after which the latest FETCH asked, and the last op that it asked for.
    asked_after: Op,
    upto: Op,
    target: Op,
    asked: Moment,
    /// Pieces of answers that arrived before their predecessors, by the op before their first.
    early: BTreeMap<Op, Entries>,
    /// The op of the snapshot that the donor sends instead of entries, and the most bytes of it that
    /// arrived.
    snapshot: (Op, u64),
}

/// The result of choosing a log among the promises of a majority.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Lead with the log of the named server.
    Best(NodeId),
    /// Wait for one of these servers: an entry that may be committed is readable in no promised log, and
    /// one of them may have it.
    Wait(Vec<NodeId>),
}

/// Chooses the best log: the highest `(last_view, last_op)`.
///
/// An op that damage destroyed in one copy is settled if the best log covers it by view, or if a majority
/// of the promises comes from undamaged copies: every committed op is in one of those.
fn choose(me: NodeId, members: &[NodeId], quorum: usize, promises: &BTreeMap<NodeId, Promise>) -> Choice {
    let rank = |id: &NodeId, promise: &Promise| (promise.last_view, promise.last_op, *id == me, *id);
    let Some((best_id, best)) = promises.iter().max_by_key(|(id, promise)| rank(id, promise)) else {
        return Choice::Wait(members.to_vec());
    };
    let clean = promises.values().filter(|promise| promise.unknown.is_none()).count();
    let settled = clean >= quorum
        || promises
            .values()
            .filter_map(|promise| promise.unknown)
            .all(|unknown| unknown.beyond(best.last_op, best.last_view).is_none());
    let commit = promises.values().map(|promise| promise.commit).max().unwrap_or_default();
    if settled && best.last_op >= commit {
        Choice::Best(*best_id)
    } else {
        Choice::Wait(members.iter().filter(|id| !promises.contains_key(id)).copied().collect())
    }
}

/// Returns `op` if the log that `index` describes has another entry there than this one.
fn first_conflict(log: &Log, index: &[(View, Op)], op: Op) -> Option<Op> {
    let mine = log.view_at(op)?;
    let (theirs, _) = index.iter().rev().find(|(_, first)| *first <= op)?;
    (*theirs != mine).then_some(op)
}

impl ReplicaManager {
    /// Starts to probe because the primary is suspected, if this server is a backup.
    pub(super) fn suspect(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Backup) {
            return;
        }
        // This log must neither become the cluster's log nor be lost: a person decides.
        if self.contradiction.is_some() {
            self.in_view.waiting_for = None;
            return self.detector.restart(now);
        }
        self.suspected_since.get_or_insert(now);
        if self.suspicion != Cause::Started || self.active > View::ZERO {
            self.suspicion = cause;
        }
        self.probe(now, cause, out);
    }

    fn probe(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        let probing = Probing {
            since: now,
            agreed: BTreeSet::new(),
            replied: BTreeSet::new(),
            bullies: BTreeMap::new(),
        };
        let candidate = Candidate { stage: Stage::Probing(probing), next_send: now };
        self.become_role(now, Role::Candidate(candidate), cause, out);
    }

    /// Prepares a view of this server without a probe: after a TRANSFER, after a probe that found a
    /// majority, or as a primary that was outbid.
    pub(super) fn prepare(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        self.suspected_since.get_or_insert(now);
        let round = self.round_seen.max(self.promised.round()) + 1;
        let view = View::new(round, self.me);
        let preparing =
            Preparing { view, promises: BTreeMap::new(), progress: 0, progressed: now, fetching: None };
        let candidate = Candidate { stage: Stage::Preparing(preparing), next_send: now };
        self.raise_promised(now, view, out);
        self.become_role(now, Role::Candidate(candidate), cause, out);
    }

    pub(super) fn candidate_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Candidate(candidate) = &self.role else { return };
        let due = now >= candidate.next_send;
        match &candidate.stage {
            Stage::Probing(probing) => {
                if self.may_prepare(now, probing) {
                    return self.prepare(now, self.suspicion, out);
                }
                if due {
                    let last = (self.log.last_view(), self.log.last());
                    let disk_ms = self.pace.own_turn_ms(now);
                    let probe = Election::Probe { view: self.promised, last, disk_ms };
                    self.send_to_peers(&Packet::Election(probe), out);
                }
            }
            Stage::Preparing(preparing) => {
                // The backups that wait for these PREPAREs cannot tell that this disk lags, because backups
                // do not hear each other's disk pace.
                if preparing.waits_for(self.me) == WaitsFor::Disk && self.pace.stalls(now) {
                    return self.become_backup(now, Cause::SlowDisk, out);
                }
                if now.since(preparing.progressed) > self.own_time_out(now, preparing) {
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

    fn prepare_packet(&self, now: Moment, preparing: &Preparing) -> Packet {
        Packet::Election(Election::Prepare {
            view: preparing.view,
            progress: preparing.progress,
            waits_for: preparing.waits_for(self.me),
            disk_ms: self.pace.own_turn_ms(now),
        })
    }

    /// Returns true if this server has prepared a view of its own that is not active yet.
    pub(super) fn tries_to_lead(&self) -> bool {
        match &self.role {
            Role::Candidate(candidate) => matches!(candidate.stage, Stage::Preparing(_)),
            Role::Primary(primary) => !primary.is_active(),
            Role::Backup | Role::Learner(_) => false,
        }
    }

    /// T_coord. It grows with each failed view of this server, so that candidates do not overtake each
    /// other for ever.
    fn coordinator_patience(&self) -> Duration {
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

    /// Returns true if a majority suspects the primary, and no higher server is about to prepare.
    fn may_prepare(&self, now: Moment, probing: &Probing) -> bool {
        if probing.agreed.len() + 1 < self.quorum {
            return false;
        }
        let usual = self.coordinator_patience();
        // A server whose disk lags, or that could not fetch the best log, prepares last. By then every
        // other server that can lead has prepared.
        let last = self.pace.lags(self.me, now) || self.lacks_what_it_could_not_fetch();
        if last && now.since(probing.since) < usual {
            return false;
        }
        let patience = self.patience_for(now, WaitsFor::Promises, usual);
        self.members.iter().filter(|id| **id > self.me).all(|higher| match probing.bullies.get(higher) {
            Some((since, heard)) => now.since(*since) >= patience || now.since(*heard) >= usual,
            None => {
                probing.replied.contains(higher)
                    || self.refused.contains(higher)
                    // The suspected primary is not waited for.
                    || self.in_view.primary.is_some_and(|primary| primary.view.primary() == Some(*higher))
                    || now.since(probing.since) >= self.timing.bully
            }
        })
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

    fn on_probe(&mut self, now: Moment, from: NodeId, view: View, last: Op, out: &mut Vec<Effect>) {
        self.best_seen = self.best_seen.max(last);
        self.round_seen = self.round_seen.max(view.round());
        let disk_ms = self.pace.own_turn_ms(now);
        let alive = Reply::Alive { view: self.promised, disk_ms };
        let reply = match &self.role {
            Role::Learner(_) => return,
            Role::Primary(primary) if !primary.is_isolated() => {
                self.beat(now, out);
                alive
            }
            Role::Primary(_) => alive,
            Role::Backup => {
                if self.active > view && self.active == self.promised {
                    self.send(from, self.coordinator(), out);
                }
                alive
            }
            Role::Candidate(Candidate { stage: Stage::Preparing(preparing), .. }) => {
                // A prepared view exists already, and a probing server must not overtake it.
                self.send(from, self.prepare_packet(now, preparing), out);
                alive
            }
            Role::Candidate(_) if self.me > from && self.is_fit(now) => Reply::Bully { view, disk_ms },
            Role::Candidate(_) => Reply::Agree { view, disk_ms },
        };
        // A server that probes from the same view suspects the same primary, so its probe counts as an
        // Agree. A higher server that wants to lead says so in its answer to this server's probe; until
        // then it counts as silent.
        if view == self.promised
            && let Role::Candidate(Candidate { stage: Stage::Probing(probing), .. }) = &mut self.role
        {
            probing.agreed.insert(from);
        }
        self.send(from, Packet::Reply(reply), out);
    }

    /// Returns true if this server could not fetch a donor's log when it last tried to lead, and still
    /// lacks entries of it.
    fn lacks_what_it_could_not_fetch(&self) -> bool {
        self.unfetched_end.is_some_and(|target| self.log.last() < target)
    }

    /// Returns true if this server can lead soon: a majority is reachable, its disk does not lag, its log
    /// is not far behind the best log seen, and it lacks nothing that it could not fetch.
    fn is_fit(&self, now: Moment) -> bool {
        let reachable = self
            .heard
            .iter()
            .filter(|heard| heard.peer == self.me || now.since(heard.at) < self.timing.suspect_max)
            .count();
        let lags = self.pace.lags(self.me, now);
        let near = self.log.last().0 + FIT_BEHIND_MAX >= self.best_seen.0;
        reachable >= self.quorum && !lags && near && !self.lacks_what_it_could_not_fetch()
    }

    fn on_prepare(&mut self, now: Moment, from: NodeId, candidate: Awaited, out: &mut Vec<Effect>) {
        let view = candidate.view;
        if view.primary() != Some(from) || !self.may_promise(view) {
            return;
        }
        self.round_seen = self.round_seen.max(view.round());
        if matches!(self.role, Role::Learner(_)) {
            return;
        }
        if view < self.promised {
            return self.send(from, Packet::Reply(Reply::Refuse { promised: self.promised }), out);
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
            self.send(from, Packet::Reply(writing), out);
        } else if self.in_view.primary.is_none() {
            self.in_view.promise_reply_to = Some(from);
            // A packet of the view itself may have raised the promise, which the journal has yet to write.
            if self.promises_in_journal() == 0 {
                self.send_promise(now, out);
            }
        }
    }

    pub(super) fn on_promise_durable(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        if view != self.promised {
            return;
        }
        self.send_promise(now, out);
        let mine = self.promise(now);
        if let Some(preparing) = self.role.preparing_mut()
            && preparing.view == view
        {
            preparing.promises.insert(self.me, mine);
            preparing.progressed = now;
            self.try_open(now, out);
        }
    }

    fn send_promise(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if let Some(candidate) = self.in_view.promise_reply_to.take() {
            self.send(candidate, Packet::Reply(Reply::Promise(self.promise(now))), out);
        }
    }

    /// The promise and the state of this log, read after the promise is durable.
    fn promise(&self, now: Moment) -> Promise {
        Promise {
            view: self.promised,
            last_view: self.log.last_view(),
            last_op: self.log.last(),
            commit: self.commit,
            index: self.log.newest_views(INDEX_MAX),
            unknown: self.unknown.and_then(|unknown| unknown.beyond(self.log.last(), self.log.last_view())),
            incarnations: self.incarnations(),
            disk_ms: self.pace.own_turn_ms(now),
        }
    }

    pub(super) fn on_reply(&mut self, now: Moment, from: NodeId, reply: Reply, out: &mut Vec<Effect>) {
        match reply {
            Reply::Refuse { promised } => return self.on_refuse(now, promised, out),
            Reply::Promise(promise) => return self.on_promise(now, from, promise, out),
            // The reply reports only the disk, and the disk pace has it already.
            Reply::Writing { .. } => return,
            Reply::Agree { .. } | Reply::Alive { .. } | Reply::Bully { .. } => {}
        }
        let Role::Candidate(Candidate { stage: Stage::Probing(probing), .. }) = &mut self.role else {
            return;
        };
        match reply {
            // An answer to a probe from another view says nothing of the primary that is suspected now.
            Reply::Agree { view, .. } | Reply::Bully { view, .. } if view != self.promised => return,
            Reply::Agree { .. } => {
                probing.agreed.insert(from);
            }
            // A higher server that suspects the primary too: it counts for the majority, and prepares
            // first.
            Reply::Bully { .. } => {
                probing.agreed.insert(from);
                probing.bullies.entry(from).or_insert((now, now)).1 = now;
            }
            Reply::Alive { .. } => {
                probing.agreed.remove(&from);
            }
            Reply::Promise(_) | Reply::Refuse { .. } | Reply::Writing { .. } => {}
        }
        probing.replied.insert(from);
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
                self.become_role(now, Role::Backup, cause, out);
                let patience = self.coordinator_patience();
                let heard = now + (self.jittered(patience) - patience);
                let (progress, progressed) = (u64::MAX, heard);
                let waits_for = WaitsFor::Disk;
                self.in_view.waiting_for =
                    Some(Awaited { view: promised, progress, progressed, heard, waits_for });
            }
            Role::Candidate(_) | Role::Backup | Role::Learner(_) => {}
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
        if promise.view != preparing.view || preparing.promises.contains_key(&from) {
            return;
        }
        preparing.promises.insert(from, promise);
        preparing.progress += 1;
        preparing.progressed = now;
        self.try_open(now, out);
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
            Choice::Wait(whom) => return out.push(Effect::Waiting(whom)),
        };
        let Some(best) = preparing.promises.get(&best_id) else { return };
        // An op that is committed here is in the best log too, with the same view. An op that only the best
        // log's owner knows to be committed may have another entry here, which is no contradiction.
        let committed = self.commit.min(best.last_op);
        let common = self.log.common(&best.index, best.last_op).unwrap_or_default();
        if let Some(op) = first_conflict(&self.log, &best.index, committed) {
            let (view, cause) = (self.promised, self.suspicion);
            self.become_role(now, Role::Backup, cause, out);
            return self.contradict(view, op, out);
        }
        let common = common.max(committed);
        if best_id == me || common >= best.last_op {
            let promises = std::mem::take(&mut preparing.promises);
            return self.open(now, &promises, out);
        }
        let target = best.last_op;
        self.queries += 1;
        preparing.fetching = Some(Fetching {
            donor: best_id,
            query: QueryId(self.queries),
            after: common,
            asked_after: common,
            upto: common,
            target,
            asked: now,
            early: BTreeMap::new(),
            snapshot: (Op::ZERO, 0),
        });
        self.fetch(out);
    }

    fn fetch(&mut self, out: &mut Vec<Effect>) {
        let Some(preparing) = self.role.preparing_mut() else { return };
        let Some(fetching) = &mut preparing.fetching else { return };
        fetching.asked_after = fetching.after;
        fetching.upto = fetching.target.min(Op(fetching.after.0 + FETCH_OPS));
        let (donor, upto) = (fetching.donor, fetching.upto);
        let fetch = Fetch { query: fetching.query, view: preparing.view, after: fetching.after, upto };
        self.send(donor, Packet::Fetch(fetch), out);
    }

    /// Sends a FETCH again that brought nothing for a heartbeat.
    fn fetch_again(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let heartbeat = self.timing.heartbeat;
        let Some(preparing) = self.role.preparing_mut() else { return };
        let Some(fetching) = &mut preparing.fetching else { return };
        if now.since(fetching.asked) >= heartbeat {
            fetching.asked = now;
            self.fetch(out);
        }
    }

    fn fetching(&mut self) -> Option<(&mut Fetching, View)> {
        let preparing = self.role.preparing_mut()?;
        let view = preparing.view;
        preparing.fetching.as_mut().map(|fetching| (fetching, view))
    }

    /// Takes a piece of an answer to FETCH. A piece that arrives before its predecessors is buffered.
    pub(super) fn on_fetched(&mut self, now: Moment, from: NodeId, entries: Entries, out: &mut Vec<Effect>) {
        let Some((fetching, _)) = self.fetching() else { return };
        if from != fetching.donor
            || entries.fetch != Some(fetching.query)
            || entries.entries.last().is_some_and(|entry| entry.op > fetching.target)
        {
            return;
        }
        // An answer has at most one piece for each op asked for, and an end.
        if entries.prev_op <= fetching.upto && fetching.early.len() <= FETCH_OPS as usize {
            fetching.early.insert(entries.prev_op, entries);
        }
        while let Some((fetching, view)) = self.fetching()
            && let Some(first) = fetching.early.first_entry()
            && *first.key() <= fetching.after
        {
            let entries = first.remove();
            let (before, target) = (fetching.after, fetching.target);
            if entries.entries.is_empty() {
                // An answer ends here. If all of it came and it is short, ask for the next entries. After a
                // complete answer they were asked for with its last entry.
                if entries.prev_op == before && before > fetching.asked_after {
                    self.fetch(out);
                }
                continue;
            }
            let agreed = self.merge(entries.prev_op, view, entries.entries, out);
            self.fetched_upto(now, agreed, before, target, out);
        }
    }

    fn fetched_upto(&mut self, now: Moment, agreed: Op, before: Op, target: Op, out: &mut Vec<Effect>) {
        let short = self.planted.is(Planted::FetchStopsShort);
        let Some(preparing) = self.role.preparing_mut() else { return };
        let Some(fetching) = &mut preparing.fetching else { return };
        if agreed <= before {
            return;
        }
        fetching.after = agreed;
        fetching.asked = now;
        preparing.progress += 1;
        preparing.progressed = now;
        if agreed >= target || short {
            let promises = std::mem::take(&mut preparing.promises);
            self.open(now, &promises, out);
        } else if agreed >= fetching.upto {
            self.fetch(out);
        }
    }

    /// Continues a fetch after a snapshot that replaced the entries up to `op`.
    pub(super) fn fetch_goes_on_after(&mut self, now: Moment, op: Op, out: &mut Vec<Effect>) {
        let fetching = self.role.preparing().and_then(|preparing| preparing.fetching.as_ref());
        let Some(fetching) = fetching else { return };
        let (before, target) = (fetching.after, fetching.target);
        self.fetched_upto(now, op, before, target, out);
    }

    /// The server that a candidate fetches from.
    pub(super) fn donor(&self) -> Option<NodeId> {
        self.role.preparing()?.fetching.as_ref().map(|fetching| fetching.donor)
    }

    /// The donor's snapshot at `op` has arrived up to `bytes`. Only bytes beyond the most so far count as
    /// progress: a donor whose disk cannot read further, or whose bytes fail the checksum, starts again
    /// without end.
    pub(super) fn donor_progressed(&mut self, now: Moment, op: Op, bytes: u64) {
        if let Some(preparing) = self.role.preparing_mut()
            && let Some(fetching) = &mut preparing.fetching
        {
            fetching.asked = now;
            if fetching.snapshot.0 != op || fetching.snapshot.1 < bytes {
                fetching.snapshot = (op, bytes);
                preparing.progress += 1;
                preparing.progressed = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::entry::Unknown;

    use super::*;

    const ME: NodeId = NodeId(1);
    const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn promise(round: u64, last: u64, unknown: Option<(u64, u64)>) -> Promise {
        let view = View::new(round, NodeId(1));
        Promise {
            view: View::new(9, ME),
            last_view: view,
            last_op: Op(last),
            commit: Op::ZERO,
            index: Vec::new(),
            unknown: unknown.map(|(first, last)| Unknown {
                first: Op(first),
                last: Op(last),
                view_max: View::new(5, ME),
            }),
            incarnations: Vec::new(),
            disk_ms: 0,
        }
    }

    fn chosen(promises: &[(u16, Promise)]) -> Choice {
        let promises = promises.iter().map(|(id, promise)| (NodeId(*id), promise.clone())).collect();
        choose(ME, &ALL, 2, &promises)
    }

    #[test]
    fn the_higher_view_beats_the_longer_log() {
        let choice = chosen(&[(1, promise(4, 100, None)), (2, promise(5, 3, None))]);
        assert_eq!(choice, Choice::Best(NodeId(2)));
    }

    #[test]
    fn between_equal_logs_ones_own_is_taken() {
        let choice = chosen(&[(1, promise(5, 3, None)), (2, promise(5, 3, None))]);
        assert_eq!(choice, Choice::Best(ME));
    }

    #[test]
    fn what_damage_took_is_waited_for_until_a_clean_majority_lacks_it() {
        let (damaged, clean) = (promise(4, 3, Some((4, 6))), promise(4, 5, None));
        assert_eq!(chosen(&[(1, damaged.clone()), (2, clean.clone())]), Choice::Wait(vec![NodeId(3)]));
        let choice = chosen(&[(1, damaged), (2, clean.clone()), (3, clean)]);
        assert_eq!(choice, Choice::Best(NodeId(3)));
    }

    #[test]
    fn a_log_that_covers_the_damage_settles_it() {
        let choice = chosen(&[(1, promise(4, 3, Some((4, 6)))), (2, promise(5, 6, None))]);
        assert_eq!(choice, Choice::Best(NodeId(2)));
    }
}
