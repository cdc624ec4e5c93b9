//! Learner: a server that started on an empty directory. It copies the log, but it neither votes nor
//! counts, because it may have promised or acknowledged something that it cannot remember.
//!
//! It votes again only after a majority of the servers, itself not counted, answered its fresh nonce with
//! their promised views. It takes the highest of them, and waits until it holds the commit that the
//! active primary of that view or a later one answered with (DESIGN.md section 4, "Empty directory"). The
//! commit of a heartbeat is not enough: a heartbeat sent before the primary heard of the new incarnation
//! may have an older commit than an op that the primary committed with an acknowledgement of the lost disk.

use std::collections::BTreeMap;

use recado_proto::id::{Incarnation, Moment, NodeId, Op, View};
use recado_proto::packet::{Learn, LearnOk, ToPeer};
use recado_proto::planted::Planted;

use super::backup::Backup;
use super::journaling::Written;
use super::{Cause, Effect, ReplicaManager, Role, Task};

/// The state of a server without a vote.
#[derive(Debug)]
pub(super) struct Learner {
    nonce: u64,
    answers: BTreeMap<NodeId, LearnOk>,
    next_ask: Moment,
    voting: bool,
}

impl Learner {
    pub(super) fn new(nonce: u64, now: Moment) -> Learner {
        Learner { nonce, answers: BTreeMap::new(), next_ask: now, voting: false }
    }

    pub(super) fn next_ask(&self) -> Moment {
        self.next_ask
    }

    /// The commit to reach. It is known once a majority and the active primary of `promised` have answered,
    /// and `promised` is no lower than any answer.
    fn commit_to_reach(&self, quorum: usize, promised: View) -> Option<Op> {
        let floor = self.answers.values().map(|answer| answer.promised).max()?;
        let primary = self.answers.get(&promised.primary()?)?;
        let enough = self.answers.len() >= quorum && promised >= floor;
        primary.active.filter(|_| enough && primary.promised == promised)
    }
}

impl ReplicaManager {
    /// Another server asks which view was promised. Only a voter may answer. The answer lets the learner vote
    /// again in this incarnation, so a promise of an earlier incarnation must never count. This server
    /// therefore names the incarnation in its own promises, and must remember it across a restart. It must
    /// remember the boot id too: the learner's directory may be put back from a copy that counts up to the
    /// same incarnation.
    pub(super) fn on_learn(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        learn: Learn,
        out: &mut Vec<Effect>,
    ) {
        if matches!(self.role, Role::Learner(_)) {
            return;
        }
        self.learners.retain(|(learner, ..)| *learner != from);
        self.learners.push((from, incarnation, learn.nonce));
        self.journal_known(now, out);
        self.answer_learners(out);
    }

    /// Answers the learners whose latest boot is durable here.
    pub(super) fn answer_learners(&mut self, out: &mut Vec<Effect>) {
        let active = self.is_active_primary().then_some(self.commit);
        let early = self.planted.is(Planted::KnownNotDurable);
        for (learner, incarnation, nonce) in std::mem::take(&mut self.learners) {
            if self.peers.knows_durably(learner, incarnation) || early {
                let answer = LearnOk { nonce, promised: self.promised, active };
                self.send(learner, ToPeer::LearnOk(answer), out);
            } else {
                self.learners.push((learner, incarnation, nonce));
            }
        }
    }

    pub(super) fn on_learn_ok(&mut self, from: NodeId, answer: LearnOk) {
        if let Role::Learner(learner) = &mut self.role
            && learner.nonce == answer.nonce
        {
            learner.answers.insert(from, answer);
        }
    }

    pub(super) fn learner_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (commit, promised, quorum) = (self.commit, self.promised, self.quorum);
        let every = self.timing.heartbeat * 2;
        let early = self.planted.is(Planted::LearnerVotesEarly);
        let Role::Learner(learner) = &mut self.role else { return };
        let goal = learner.commit_to_reach(quorum, promised);
        if goal.is_some_and(|goal| commit >= goal || early) && !learner.voting {
            learner.voting = true;
            return self.journal(now, Task::Vote(promised), Written::Vote, out);
        }
        if now >= learner.next_ask {
            learner.next_ask = now + every;
            if goal.is_none() {
                let learn = Learn { nonce: learner.nonce };
                self.send_to_peers(&ToPeer::Learn(learn), out);
            }
        }
    }

    pub(super) fn on_vote_durable(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if matches!(self.role, Role::Learner(_)) {
            self.detector.restart(now);
            self.become_role(now, Role::Backup(Backup::new(now)), Cause::Voter, out);
        }
    }
}
