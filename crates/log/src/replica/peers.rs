//! The other servers: when each was last heard, and in which incarnation it runs.

use recado_proto::id::{Incarnation, Moment, NodeId};

use super::backup::PING_EVERY;
use super::journaling::Written;
use super::{Effect, ReplicaManager, Role, Task};

/// The time at which a server was last heard, and its highest known incarnation.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerLiveness {
    pub(super) peer: NodeId,
    pub(super) at: Moment,
    pub(super) incarnation: Incarnation,
    /// The incarnation last given to the journal, and the durable one.
    pub(super) journaled: Incarnation,
    pub(super) durable: Incarnation,
}

impl ReplicaManager {
    /// A packet came from `peer`. Returns false if it is of an older incarnation.
    pub(super) fn heard_from(
        &mut self,
        now: Moment,
        peer: NodeId,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.heard_of(now, peer, incarnation, out);
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.peer == peer) else { return false };
        if incarnation < heard.incarnation {
            return false;
        }
        heard.at = now;
        self.refused.retain(|id| *id != peer);
        true
    }

    /// Another server, or the peer itself, named this incarnation of `peer`.
    pub(super) fn heard_of(
        &mut self,
        now: Moment,
        peer: NodeId,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        let mut others = self.heard.iter_mut().filter(|heard| heard.peer != self.me);
        if let Some(heard) = others.find(|heard| heard.peer == peer)
            && incarnation > heard.incarnation
        {
            heard.incarnation = incarnation;
            self.drop_older_incarnation(now, peer, out);
        }
    }

    /// Gives the journal the incarnations heard of since the last call.
    pub(super) fn journal_known(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mut known = Vec::new();
        for heard in self.heard.iter_mut().filter(|heard| heard.incarnation > heard.journaled) {
            heard.journaled = heard.incarnation;
            known.push((heard.peer, heard.incarnation));
        }
        if !known.is_empty() {
            self.journal(now, Task::Know(known), Written::Known, out);
        }
    }

    /// The highest durable incarnation of each other server that was heard of.
    pub(super) fn incarnations(&self) -> Vec<(NodeId, Incarnation)> {
        let known = self.heard.iter().filter(|heard| heard.durable > Incarnation(0));
        known.map(|heard| (heard.peer, heard.durable)).collect()
    }

    /// Drops the acknowledgements or the promise of an older incarnation. That server may have lost its
    /// disk since, and repeats those that still hold.
    fn drop_older_incarnation(&mut self, now: Moment, peer: NodeId, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Primary(primary) => primary.forget_acks_of(peer),
            Role::Candidate(_) => self.forget_promise_of(now, peer, out),
            Role::Learner(_) | Role::Backup => {}
        }
    }

    pub(super) fn on_port_refused(&mut self, now: Moment, peer: NodeId) {
        if !self.refused.contains(&peer) {
            self.refused.push(peer);
        }
        if self.in_view.primary.is_some_and(|primary| primary.view.primary() == Some(peer)) {
            self.detector.refused();
            self.pinged = now - PING_EVERY;
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.mark_absent(peer);
        }
    }
}
