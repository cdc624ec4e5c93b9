//! Administrators' changes: each is made once, however often its ADMIN arrives.
//!
//! ADMIN has no session and therefore no request number. The client sends it to every server in an initiation
//! (INITIATION), which a network may delay or repeat until another server is primary; that one knows only the
//! replicated state. So the log carries the ADMIN's id, and the state holds its result. Applied a second
//! time, it could remove what others have since made under a name, or give out again a permission that was
//! withdrawn.

use recado_proto::id::{Op, millis};
use recado_proto::packet::{Admin, AdminChange, Code, QueryId};
use recado_proto::planted::Planted;

use super::capacity::ADMINISTERED;
use super::state::Administered;
use super::{Applied, Service};

impl Service {
    /// The result of an administrator's ADMIN, if it is held.
    pub fn administered(&self, query: QueryId) -> Option<Result<Op, Code>> {
        let is_same = |of: &&Administered| of.query == query && !self.planted.is(Planted::AdministersTwice);
        self.state.administered.iter().find(is_same).map(|of| of.result)
    }

    /// Applies an ADMIN. A repeated one changes nothing and reports nothing: the first one was answered when
    /// it was applied, a later one is answered from [`Service::administered`]. If there is no place for its
    /// result it is refused as Busy and leaves no trace.
    pub(super) fn administer(&mut self, op: Op, admin: &Admin, out: &mut Vec<Applied>) {
        let Admin { query, ref change } = *admin;
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

    /// Frees a place for one more result. The oldest is dropped only once its ADMIN can no longer be
    /// repeated.
    fn may_remember_one_more(&mut self) -> Result<(), Code> {
        let age_ms = self.age_ms(self.state.clock_ms);
        let kept_ms = millis(self.limits.administered_for);
        let remembered = &mut self.state.administered;
        while remembered.len() >= self.limits.administered {
            if remembered.front().is_some_and(|oldest| age_ms(oldest.at_ms) <= kept_ms) {
                return Err(Code::Busy);
            }
            remembered.pop_front();
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
