//! The role of a server, and what begins and ends with it.

use std::time::Duration;

use recado_proto::id::{Moment, View};

use super::backup::Backup;
use super::election::Candidate;
use super::learner::Learner;
use super::primary::Primary;
use super::{Cause, Effect, ReplicaManager, Report, RoleChange};

/// The role, with the state that only this role needs.
#[derive(Debug)]
pub(super) enum Role {
    Learner(Learner),
    Backup(Backup),
    Candidate(Candidate),
    Primary(Primary),
}

impl ReplicaManager {
    /// Changes the role. This is the only place where the state of the old role ends.
    pub(super) fn become_role(&mut self, now: Moment, role: Role, cause: Cause, out: &mut Vec<Effect>) {
        let before = self.role();
        let served = self.is_active_primary();
        self.led = self.led();
        if self.tries_to_lead() && !matches!(role, Role::Primary(_)) {
            self.failed_views += 1;
        }
        self.role = role;
        if served && !self.is_active_primary() {
            out.push(Effect::Deposed);
        }
        if before != self.role() {
            self.role_changed(now, cause, out);
        }
    }

    pub(super) fn become_backup(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        self.detector.restart(now);
        if matches!(self.role, Role::Learner(_) | Role::Backup(_)) {
            return;
        }
        self.become_role(now, Role::Backup(Backup::new(now)), cause, out);
    }

    pub(super) fn role_changed(&mut self, now: Moment, cause: Cause, out: &mut Vec<Effect>) {
        let took = self.suspected_since.map_or(Duration::ZERO, |since| now.since(since));
        let change = RoleChange { role: self.role(), view: self.promised, cause, took };
        out.push(Effect::Report(Report::Role(change)));
    }

    /// A packet named an active view.
    pub(super) fn on_active(&mut self, view: View, out: &mut Vec<Effect>) {
        if view > self.active {
            self.active = view;
            self.failed_views = 0;
            self.unfetched_end = None;
            out.push(Effect::Active(view));
        }
        if view.primary() != Some(self.me) {
            self.suspected_since = None;
        }
    }
}
