//! Probing: a server that suspects the primary asks the others before it prepares a view. A probe changes
//! nothing durable, so a server that alone suspects the primary does not disturb them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{Reply, ToPeer, WaitsFor};

use super::election::{Candidate, Stage};
use super::{Cause, Effect, ReplicaManager, Role};

/// The most entries that a server may lack of the best log seen and still answer Bully: 8,192, about 8 MiB
/// of 1 KiB each. With more, a better placed server fetches less.
pub(super) const FIT_BEHIND_MAX: u64 = 8_192;

/// The answers to a probe.
#[derive(Debug)]
pub(super) struct Probing {
    since: Moment,
    /// Servers that suspect the primary too.
    agreed: BTreeSet<NodeId>,
    replied: BTreeSet<NodeId>,
    /// Higher servers that answered Bully, with the times of the first and the latest answer.
    bullies: BTreeMap<NodeId, (Moment, Moment)>,
}

impl Probing {
    /// Moves the time-outs by which the other servers are judged.
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.since = self.since + gap;
        for (since, heard) in self.bullies.values_mut() {
            (*since, *heard) = (*since + gap, *heard + gap);
        }
    }
}

impl Role {
    /// The probe of this server, if it probes.
    fn probing_mut(&mut self) -> Option<&mut Probing> {
        match self {
            Role::Candidate(Candidate { stage: Stage::Probing(probing), .. }) => Some(probing),
            _ => None,
        }
    }
}

impl ReplicaManager {
    /// Starts to probe because the primary is suspected, if this server is a backup.
    pub(super) fn suspect(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Backup(_)) {
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

    pub(super) fn probe(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        let probing = Probing {
            since: now,
            agreed: BTreeSet::new(),
            replied: BTreeSet::new(),
            bullies: BTreeMap::new(),
        };
        let candidate = Candidate::new(Stage::Probing(probing), now);
        self.become_role(now, Role::Candidate(candidate), cause, out);
    }

    /// Returns true if a majority suspects the primary, and no higher server is about to prepare.
    pub(super) fn may_prepare(&self, now: Moment, probing: &Probing) -> bool {
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
                    || self.peers.refuses(*higher)
                    // The suspected primary is not waited for.
                    || self.known_primary() == Some(*higher)
                    || now.since(probing.since) >= self.timing.bully
            }
        })
    }

    pub(super) fn on_probe(
        &mut self,
        now: Moment,
        from: NodeId,
        view: View,
        last: Op,
        out: &mut Vec<Effect>,
    ) {
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
            Role::Backup(_) => {
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
            && let Some(probing) = self.role.probing_mut()
        {
            probing.agreed.insert(from);
        }
        self.send(from, ToPeer::Reply(reply), out);
    }

    /// A server that suspects the primary too. An answer to a probe from another view says nothing of the
    /// primary that is suspected now.
    pub(super) fn on_agree(&mut self, from: NodeId, view: View) {
        if view == self.promised
            && let Some(probing) = self.role.probing_mut()
        {
            probing.agreed.insert(from);
            probing.replied.insert(from);
        }
    }

    /// A higher server that suspects the primary too: it counts for the majority, and prepares first.
    pub(super) fn on_bully(&mut self, now: Moment, from: NodeId, view: View) {
        self.on_agree(from, view);
        if view == self.promised
            && let Some(probing) = self.role.probing_mut()
        {
            probing.bullies.entry(from).or_insert((now, now)).1 = now;
        }
    }

    /// A server that does not suspect the primary, or does not any more.
    pub(super) fn on_alive(&mut self, from: NodeId) {
        if let Some(probing) = self.role.probing_mut() {
            probing.agreed.remove(&from);
            probing.replied.insert(from);
        }
    }

    /// Returns true if this server could not fetch a donor's log when it last tried to lead, and still
    /// lacks entries of it.
    fn lacks_what_it_could_not_fetch(&self) -> bool {
        self.unfetched_end.is_some_and(|target| self.log.last() < target)
    }

    /// Returns true if this server can lead soon: a majority is reachable, its disk does not lag, its log
    /// is not far behind the best log seen, and it lacks nothing that it could not fetch.
    fn is_fit(&self, now: Moment) -> bool {
        let reachable = self.peers.heard_within(now, self.timing.suspect_max) + 1;
        let lags = self.pace.lags(self.me, now);
        let near = self.log.last().0 + FIT_BEHIND_MAX >= self.best_seen.0;
        reachable >= self.quorum && !lags && near && !self.lacks_what_it_could_not_fetch()
    }
}
