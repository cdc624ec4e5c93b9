//! What an administrator asks: each thing once, however often it is said.
//!
//! ADMIN has no session, and so no number. It goes to every server, in a KNOCK that a network may bring late or
//! twice: to a server that leads by then, which knows of it only what is replicated. So the log carries the
//! question's id, and the state holds what became of it. Done again it would take away what others have made
//! of a name since, or give out what was taken back.

use super::room::ADMINISTERED;
use super::state::Administered;
use super::{Applied, Service};
use crate::config::Planted;
use crate::id::{Op, millis};
use crate::wire::packet::{Admin, AdminChange, Code, QueryId};

impl Service {
    /// What became of what an administrator asked, as far as it is held.
    pub fn administered(&self, query: QueryId) -> Option<Result<Op, Code>> {
        let is_same = |of: &&Administered| of.query == query && !self.planted.is(Planted::AdministersTwice);
        self.state.administered.iter().find(is_same).map(|of| of.result)
    }

    /// ADMIN. Asked again it changes nothing and brings nothing about: whoever waited was answered the first time,
    /// and whoever asks later is by [`Service::administered`]. For want of a place it is Busy, and leaves no trace.
    pub(super) fn administer(&mut self, op: Op, asked: &Admin, out: &mut Vec<Applied>) {
        let Admin { query, ref change } = *asked;
        if self.administered(query).is_some() {
            return;
        }
        let result = self.may_remember_one_more().and_then(|()| self.change(change, out)).map(|()| op);
        if result != Err(Code::Busy) {
            self.make_room(ADMINISTERED);
            let at_ms = self.state.clock_ms;
            self.state.administered.push_back(Administered { query, at_ms, result });
        }
        out.push(Applied::Administered { query, change: change.clone(), result });
    }

    /// The oldest goes only for one more, and only once nobody can say it again.
    fn may_remember_one_more(&mut self) -> Result<(), Code> {
        let age_ms = self.age_ms(self.state.clock_ms);
        let kept_ms = millis(self.limits.administered_for);
        let held = &mut self.state.administered;
        while held.len() >= self.limits.administered {
            if held.front().is_some_and(|oldest| age_ms(oldest.at_ms) <= kept_ms) {
                return Err(Code::Busy);
            }
            held.pop_front();
        }
        Ok(())
    }

    fn change(&mut self, change: &AdminChange, out: &mut Vec<Applied>) -> Result<(), Code> {
        match change {
            AdminChange::Release { name } => self.release(name, out),
            AdminChange::RemoveProfile { name } => self.remove_profile(name, out),
            AdminChange::RemoveChannel { channel } => self.remove_channel(channel, out),
            AdminChange::Invite { code, uses, lasts_ms, name } => {
                self.invite(*code, *uses, *lasts_ms, name.clone())
            }
            AdminChange::Allow { key } => self.allow(*key),
            AdminChange::Disallow { key } => {
                self.state.admitted.keys.remove(key).map(|_| ()).ok_or(Code::KeyNotAllowed)
            }
        }
    }
}
