//! Claims of unclaimed names, and the rate at which one profile makes channels.
//!
//! The servers' setting [`Admission`] says who may claim a name: anybody, a holder of an invitation, or an
//! allowed key. It is logged with each CONNECT, so that all servers decide alike; a claimed name stays
//! claimed when the setting changes. The rate at which one profile makes channels is bounded here, by the
//! log's clock. The rate at which one network claims names is bounded by the primary alone, because the log
//! holds no addresses.

use recado_proto::command::SessionOpen;
use recado_proto::id::{Admission, DeviceKey, Name, millis};
use recado_proto::packet::{Code, CodeHash};
use recado_proto::planted::Planted;

use super::Service;
use super::state::Invite;

impl Service {
    /// Returns true if no key owns this name: it was never claimed, or it was released.
    pub fn is_unclaimed(&self, name: &Name) -> bool {
        self.state.profiles.get(name).is_none_or(|profile| profile.keys.is_empty())
    }

    pub(super) fn invite(
        &mut self,
        code: CodeHash,
        uses: u32,
        lasts_ms: u64,
        name: Option<Name>,
    ) -> Result<(), Code> {
        let now_ms = self.state.clock_ms;
        let invites = &mut self.state.admitted.invites;
        // A repeated command with the same code leaves the first invitation as it is, with the uses it has
        // left.
        if invites.contains_key(&code) {
            return Ok(());
        }
        if invites.len() >= self.limits.invites {
            *invites = invites.iter().filter(|(_, invite)| now_ms <= invite.until_ms).map(copy).collect();
        }
        if uses == 0 || self.state.admitted.invites.len() >= self.limits.invites {
            return Err(Code::LimitReached);
        }
        self.room_for(super::capacity::INVITE)?;
        let until_ms = now_ms.saturating_add(lasts_ms);
        self.state.admitted.invites.insert(code, Invite { uses, until_ms, name });
        Ok(())
    }

    pub(super) fn allow(&mut self, key: DeviceKey) -> Result<(), Code> {
        if self.state.admitted.keys.contains(&key) {
            return Ok(());
        }
        if self.state.admitted.keys.len() >= self.limits.allowed {
            return Err(Code::LimitReached);
        }
        self.room_for(super::capacity::KEY)?;
        self.state.admitted.keys.insert(key);
        Ok(())
    }

    /// Checks that this CONNECT may claim an unclaimed name, and takes one use of its invitation.
    pub(super) fn may_claim(&mut self, command: &SessionOpen) -> Result<(), Code> {
        match command.admission {
            Admission::Open => Ok(()),
            Admission::Keys if self.state.admitted.keys.contains(&command.device.key) => Ok(()),
            Admission::Keys => Err(Code::KeyNotAllowed),
            Admission::Invite => self.use_invite(command.invite.ok_or(Code::InviteNeeded)?, &command.profile),
        }
    }

    fn use_invite(&mut self, code: CodeHash, name: &Name) -> Result<(), Code> {
        let now_ms = self.state.clock_ms;
        let invites = &mut self.state.admitted.invites;
        let fits = |invite: &Invite| {
            now_ms <= invite.until_ms && invite.name.as_ref().is_none_or(|only| only == name)
        };
        let invite = invites.get(&code).filter(|invite| fits(invite)).cloned().ok_or(Code::WrongInvite)?;
        if self.planted.is(Planted::InviteTwice) {
            return Ok(());
        }
        if invite.uses > 1 {
            invites.insert(code, Invite { uses: invite.uses - 1, ..invite });
        } else {
            invites.remove(&code);
        }
        Ok(())
    }

    /// Checks that a profile's rate of new channels allows one more.
    pub(super) fn may_name_a_channel(&self, by: &Name) -> Result<(), Code> {
        let every_ms = millis(self.limits.channel_every);
        let ahead_ms = every_ms.saturating_mul(self.limits.channels_at_once.into());
        let profile = self.state.profiles.get(by).ok_or(Code::UnknownProfile)?;
        let now_ms = self.state.clock_ms;
        let paid_ms = profile.channels_paid_ms.max(now_ms).saturating_add(every_ms);
        if paid_ms > now_ms.saturating_add(ahead_ms) { Err(Code::TooManyNames) } else { Ok(()) }
    }

    /// Charges a profile's rate for one new channel.
    pub(super) fn has_named_a_channel(&mut self, by: &Name) {
        let (now_ms, every_ms) = (self.state.clock_ms, millis(self.limits.channel_every));
        if let Some(profile) = self.state.profiles.get_mut(by) {
            profile.channels_paid_ms = profile.channels_paid_ms.max(now_ms).saturating_add(every_ms);
        }
    }
}

fn copy((code, invite): (&CodeHash, &Invite)) -> (CodeHash, Invite) {
    (*code, invite.clone())
}
