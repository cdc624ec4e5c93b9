//! Who may claim a name that nobody has, and how names become free again.
//!
//! **Claims.** Whom a new name is for is a setting of the servers ([`Admission`]), logged with each CONNECT,
//! so that all of them decide alike: anybody, whoever has an invitation, or allowed keys. Who has a name keeps
//! it whatever the setting becomes.
//!
//! **Expiry.** A name that was claimed and never used within `Limits::unused` is free again: the primary logs
//! it, and apply looks once more. An open channel is of no use as soon as it holds nothing and nobody
//! follows it. How fast one profile makes channels is bounded here, by the log's clock; how fast one network
//! claims names, by the primary alone, for no address is in the log.
//!
//! **Removal.** What an administrator removes, and what expires, leaves nothing but what it sent to others.

use super::state::{Invite, Usage};
use super::{Applied, Service};
use crate::config::Planted;
use crate::id::{Admission, DeviceKey, Name, Op, Topic};
use crate::wire::command::{Claim, Command, SessionOpen};
use crate::wire::packet::{AdminChange, Code, CodeHash};

impl Service {
    /// What an administrator asks.
    pub(super) fn administer(
        &mut self,
        op: Op,
        change: &AdminChange,
        out: &mut Vec<Applied>,
    ) -> Result<Op, Code> {
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
        }?;
        Ok(op)
    }

    /// Whether nobody has this name: it was never claimed, or was released.
    pub fn is_unclaimed(&self, name: &Name) -> bool {
        self.state.profiles.get(name).is_none_or(|profile| profile.keys.is_empty())
    }

    fn invite(&mut self, code: CodeHash, uses: u32, lasts_ms: u64, name: Option<Name>) -> Result<(), Code> {
        let now_ms = self.state.clock_ms;
        let invites = &mut self.state.admitted.invites;
        // Asked again after a failover it is the same invitation, used as it may be meanwhile.
        if invites.contains_key(&code) {
            return Ok(());
        }
        if invites.len() >= self.limits.invites {
            *invites = invites.iter().filter(|(_, invite)| now_ms <= invite.until_ms).map(copy).collect();
        }
        if uses == 0 || self.state.admitted.invites.len() >= self.limits.invites {
            return Err(Code::LimitReached);
        }
        self.room_for(super::room::INVITE)?;
        let until_ms = now_ms.saturating_add(lasts_ms);
        self.state.admitted.invites.insert(code, Invite { uses, until_ms, name });
        Ok(())
    }

    fn allow(&mut self, key: DeviceKey) -> Result<(), Code> {
        if self.state.admitted.keys.contains(&key) {
            return Ok(());
        }
        if self.state.admitted.keys.len() >= self.limits.allowed {
            return Err(Code::LimitReached);
        }
        self.room_for(super::room::KEY)?;
        self.state.admitted.keys.insert(key);
        Ok(())
    }

    /// Whether a name that nobody has may be claimed by this CONNECT; an invitation is used up by it.
    pub(super) fn may_claim(&mut self, asked: &SessionOpen) -> Result<(), Code> {
        match asked.admission {
            Admission::Open => Ok(()),
            Admission::Keys if self.state.admitted.keys.contains(&asked.device.key) => Ok(()),
            Admission::Keys => Err(Code::KeyNotAllowed),
            Admission::Invite => self.use_invite(asked.invite.ok_or(Code::InviteNeeded)?, &asked.profile),
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

    /// Whether a profile may make one more channel now.
    pub(super) fn may_name_a_channel(&self, by: &Name) -> Result<(), Code> {
        let every_ms = millis(self.limits.channel_every);
        let ahead_ms = every_ms.saturating_mul(self.limits.channels_at_once.into());
        let profile = self.state.profiles.get(by).ok_or(Code::UnknownProfile)?;
        let now_ms = self.state.clock_ms;
        let paid_ms = profile.channels_paid_ms.max(now_ms).saturating_add(every_ms);
        if paid_ms > now_ms.saturating_add(ahead_ms) { Err(Code::TooManyNames) } else { Ok(()) }
    }

    /// A profile has made a channel.
    pub(super) fn has_named_a_channel(&mut self, by: &Name) {
        let (now_ms, every_ms) = (self.state.clock_ms, millis(self.limits.channel_every));
        if let Some(profile) = self.state.profiles.get_mut(by) {
            profile.channels_paid_ms = profile.channels_paid_ms.max(now_ms).saturating_add(every_ms);
        }
    }

    /// A profile is of use: its name does not expire any more.
    pub(super) fn is_used(&mut self, name: &Name) {
        self.note_usage(name, Usage::Used);
    }

    /// A profile has one more session.
    pub(super) fn has_entered(&mut self, name: &Name) {
        let usage = match self.state.profiles.get(name).map(|profile| profile.usage) {
            Some(Usage::Claimed) => Usage::Entered,
            Some(Usage::Entered | Usage::Used) | None => Usage::Used,
        };
        self.note_usage(name, usage);
    }

    fn note_usage(&mut self, name: &Name, usage: Usage) {
        if self.state.profiles.get(name).is_none_or(|profile| profile.usage >= usage) {
            return;
        }
        let Some(profile) = self.state.profiles.get_mut(name) else { return };
        profile.usage = usage;
        if usage == Usage::Used {
            self.index.unused.remove(&(profile.born_ms, name.clone()));
        }
    }

    /// After a change of what a channel holds, who follows it, or whose it is.
    pub(super) fn note_channel(&mut self, topic: &Topic) {
        let Topic::Channel(name) = topic else { return };
        let created_ms = self.state.topics.owned.get(name).map_or(0, |owned| owned.created_ms);
        for since_ms in [0, created_ms] {
            self.index.idle.remove(&(since_ms, name.clone()));
        }
        if let Some(since_ms) = self.state.topics.idle_since(name) {
            self.index.idle.insert((since_ms, name.clone()));
        }
    }

    /// Claims that have expired at `unix_ms`, for the primary to log.
    pub(super) fn expired(&self, unix_ms: u64) -> impl Iterator<Item = Command> + '_ {
        let profiles =
            self.index.unused.iter().take_while(move |(since_ms, _)| self.is_long_ago(*since_ms, unix_ms));
        let profiles =
            profiles.filter(move |(_, name)| self.is_expired(name, unix_ms)).filter_map(|(_, name)| {
                let born = self.state.profiles.get(name)?.born;
                Some(Claim::Profile { name: name.clone(), born })
            });
        let channels =
            self.index.idle.iter().take_while(move |(since_ms, _)| self.is_over(*since_ms, unix_ms));
        let channels = channels.map(|(_, name)| Claim::Channel { name: name.clone() });
        profiles.chain(channels).map(Command::Expire)
    }

    /// Whether a name was claimed long ago, never used, and nobody is there as it.
    fn is_expired(&self, name: &Name, unix_ms: u64) -> bool {
        self.state.profiles.get(name).is_some_and(|profile| {
            profile.usage < Usage::Used
                && self.is_long_ago(profile.born_ms, unix_ms)
                && self
                    .state
                    .devices_of(name, profile)
                    .all(|(_, device)| device.session.is_none() && device.pending.is_none())
        })
    }

    fn is_long_ago(&self, since_ms: u64, unix_ms: u64) -> bool {
        self.age_ms(unix_ms)(since_ms) > millis(self.limits.unused)
    }

    /// Whether a channel that is of no use since then is to go: an open one at once.
    fn is_over(&self, since_ms: u64, unix_ms: u64) -> bool {
        since_ms == 0 || self.is_long_ago(since_ms, unix_ms)
    }

    pub(super) fn expire(&mut self, claim: &Claim, out: &mut Vec<Applied>) {
        let now_ms = self.state.clock_ms;
        match claim {
            Claim::Profile { name, born } => {
                let same = self.state.profiles.get(name).is_some_and(|profile| profile.born == *born);
                if same && self.is_expired(name, now_ms) {
                    // It is there.
                    let _ = self.remove_profile(name, out);
                }
            }
            Claim::Channel { name } => {
                let since_ms = self.state.topics.idle_since(name);
                if since_ms.is_some_and(|since_ms| self.is_over(since_ms, now_ms)) {
                    // It is there.
                    let _ = self.remove_channel(name, out);
                }
            }
        }
    }

    /// Removes a profile. What it sent to others and to channels stays there.
    fn remove_profile(&mut self, name: &Name, out: &mut Vec<Applied>) -> Result<(), Code> {
        self.release(name, out)?;
        let profile = self.state.profiles.remove(name).ok_or(Code::UnknownProfile)?;
        self.index.unused.remove(&(profile.born_ms, name.clone()));
        self.index.counted.follows -= profile.follows.len() as u64;
        for topic in profile.follows.keys() {
            if let Some(held) = self.state.topics.get_mut(topic) {
                held.followers.remove(name);
            }
            self.note_channel(topic);
        }
        let feed = Topic::Feed(name.clone());
        let sessions = self.addressed(&feed);
        self.remove_topic(&feed);
        self.remove_topic(&Topic::Inbox(name.clone()));
        let roles = self.state.topics.owned.iter().filter(|(_, owned)| owned.members.contains_key(name));
        for channel in roles.map(|(channel, _)| channel.clone()).collect::<Vec<_>>() {
            if let Some(owned) = self.state.topics.owned.get_mut(&channel) {
                owned.members.remove(name);
                self.index.counted.members -= 1;
            }
            self.note_channel(&Topic::Channel(channel));
        }
        out.push(Applied::Withdrawn { sessions });
        Ok(())
    }

    /// Removes a channel, also what is left of one that was deleted.
    fn remove_channel(&mut self, channel: &Name, out: &mut Vec<Applied>) -> Result<(), Code> {
        let topics = &self.state.topics;
        if !topics.channels.contains_key(channel) && !topics.owned.contains_key(channel) {
            return Err(Code::UnknownChannel);
        }
        self.drop_channel(channel, out);
        Ok(())
    }

    /// Takes a topic with all it holds from those who follow it, and from their authors.
    pub(super) fn remove_topic(&mut self, topic: &Topic) {
        let Some(newest) = self.state.topics.get(topic).map(|held| held.last_op) else { return };
        self.trim(topic, newest);
        let Some(held) = self.state.topics.remove(topic) else { return };
        self.index.counted.follows -= held.followers.len() as u64;
        for follower in held.followers.keys() {
            if let Some(profile) = self.state.profiles.get_mut(follower) {
                profile.follows.remove(topic);
            }
        }
    }
}

fn copy((code, invite): (&CodeHash, &Invite)) -> (CodeHash, Invite) {
    (*code, invite.clone())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
