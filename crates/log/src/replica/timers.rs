//! Time: when the replica must be called, what it does then, and what its own lateness does not count for.

use recado_proto::id::Moment;

use super::{Effect, ReplicaManager, Role};

impl ReplicaManager {
    /// The latest time for an [`Input::Deadline`](super::Input::Deadline). It is never further away than a
    /// heartbeat, so that this server notices its own lateness.
    pub fn next_deadline(&self) -> Moment {
        let mut next = self.handled + self.timing.heartbeat;
        let mut at = |moment: Moment| next = next.min(moment);
        match &self.role {
            Role::Learner(learner) => at(learner.next_ask()),
            Role::Backup(backup) => {
                // While another candidate is awaited, the detector does not count.
                let silent_at = self.detector.silent_at();
                at(self
                    .in_view
                    .waiting_for
                    .map_or(silent_at, |awaited| self.waits_until(self.handled, awaited)));
                if self.in_view.waiting_for.is_none() && self.handled < self.detector.late_at() {
                    at(self.detector.late_at());
                } else if self.in_view.waiting_for.is_none() && self.in_view.primary.is_some() {
                    at(backup.next_ping());
                }
            }
            Role::Candidate(candidate) => at(candidate.next_send()),
            Role::Primary(primary) => at(primary.next_beat()),
        }
        next
    }

    /// Does everything that depends on time alone.
    pub(super) fn on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        match self.role {
            Role::Learner(_) => self.learner_on_time(now, out),
            Role::Backup(_) => self.backup_on_time(now, out),
            Role::Candidate(_) => self.candidate_on_time(now, out),
            Role::Primary(_) => self.primary_on_time(now, out),
        }
        self.receiving_on_time(now, out);
        self.stopping_on_time(now, out);
    }

    /// "Blame yourself first": a late replica moves every time-out by which it judges another server by its
    /// own delay (DESIGN.md section 6). A primary's time-out for its own isolation does not move: while it
    /// was late, the others may have elected another.
    pub(super) fn forgive_own_lateness(&mut self, now: Moment) {
        let gap = now.since(self.handled);
        if gap < self.timing.heartbeat * 3 {
            return;
        }
        self.detector.forgive(gap);
        self.pace.forgive(gap);
        if let Some(awaited) = &mut self.in_view.waiting_for {
            awaited.forgive(gap);
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.forgive(gap);
        }
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.forgive(gap);
        }
    }
}
