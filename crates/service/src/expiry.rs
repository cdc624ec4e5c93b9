//! Expiry of unused names.
//!
//! The name of a profile that was claimed, was never used, and had no session within `Limits::unused` becomes
//! free: the primary logs a command, and apply checks the conditions again. A created channel that was never
//! used expires after the same time, an open channel as soon as it holds nothing, also in the store, and
//! nobody follows it. The name of a channel that was deleted, or that was private and expired, becomes free
//! after `Limits::deleted`.

use recado_proto::command::{Claim, Command};
use recado_proto::id::{Name, Topic, millis};

use super::state::Usage;
use super::{Applied, Service};

impl Service {
    /// Records that a profile is used; its name does not expire after that.
    pub(super) fn is_used(&mut self, name: &Name) {
        self.note_usage(name, Usage::Used);
    }

    /// Records one more session of a profile.
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
            self.index.unused.remove(&(profile.claimed_ms, name.clone()));
        }
    }

    /// Updates the index after a change of a channel's notifications, followers or rights.
    pub(super) fn note_channel(&mut self, topic: &Topic) {
        let Topic::Channel(name) = topic else { return };
        let created_ms = self.state.topics.owned.get(name).map_or(0, |owned| owned.created_ms);
        for since_ms in [0, created_ms] {
            self.index.idle.remove(&(since_ms, name.clone()));
        }
        if let Some(since_ms) = self.state.idle_since(name) {
            self.index.idle.insert((since_ms, name.clone()));
        }
    }

    /// The expiries that are due at `unix_ms`, for the primary to log.
    pub(super) fn expired(&self, unix_ms: u64) -> impl Iterator<Item = Command> + '_ {
        let profiles =
            self.index.unused.iter().take_while(move |(since_ms, _)| self.is_long_ago(*since_ms, unix_ms));
        let profiles =
            profiles.filter(move |(_, name)| self.is_expired(name, unix_ms)).filter_map(|(_, name)| {
                let born = self.state.profiles.get(name)?.claimed_op;
                Some(Claim::Profile { name: name.clone(), created_op: born })
            });
        let channels =
            self.index.idle.iter().take_while(move |(since_ms, _)| self.is_over(*since_ms, unix_ms));
        let channels = channels.map(|(_, name)| Claim::Channel { name: name.clone() });
        let deleted =
            self.index.deleted.iter().take_while(move |(since_ms, _)| self.is_forgotten(*since_ms, unix_ms));
        let deleted = deleted.map(|(_, name)| Claim::Deleted { name: name.clone() });
        profiles.chain(channels).chain(deleted).map(Command::Expire)
    }

    /// Returns true if a name was claimed long ago, was never used, and has had no session lately. The last
    /// session counts because a client that only listens uses its name in no other way, and is absent for a
    /// moment when it restarts.
    fn is_expired(&self, name: &Name, unix_ms: u64) -> bool {
        self.state.profiles.get(name).is_some_and(|profile| {
            profile.usage < Usage::Used
                && self.is_long_ago(profile.claimed_ms, unix_ms)
                && self.state.devices_of(name, profile).all(|(_, device)| {
                    device.session.is_none()
                        && device.pending.is_none()
                        && self.is_long_ago(device.last_seen_ms, unix_ms)
                })
        })
    }

    fn is_long_ago(&self, since_ms: u64, unix_ms: u64) -> bool {
        self.age_ms(unix_ms)(since_ms) > millis(self.limits.unused)
    }

    /// Returns true if the name of a channel that was deleted at `since_ms` becomes free.
    fn is_forgotten(&self, since_ms: u64, unix_ms: u64) -> bool {
        self.age_ms(unix_ms)(since_ms) > millis(self.limits.deleted)
    }

    /// Returns true if a channel unused since `since_ms` expires: an open one (0) at once.
    fn is_over(&self, since_ms: u64, unix_ms: u64) -> bool {
        since_ms == 0 || self.is_long_ago(since_ms, unix_ms)
    }

    pub(super) fn expire(&mut self, claim: &Claim, out: &mut Vec<Applied>) {
        let now_ms = self.state.clock_ms;
        match claim {
            Claim::Profile { name, created_op: born } => {
                let same = self.state.profiles.get(name).is_some_and(|profile| profile.claimed_op == *born);
                if same && self.is_expired(name, now_ms) {
                    // The profile exists.
                    let _ = self.remove_profile(name, out);
                }
            }
            Claim::Channel { name } => {
                let since_ms = self.state.idle_since(name);
                if since_ms.is_some_and(|since_ms| self.is_over(since_ms, now_ms)) {
                    // The channel exists.
                    let _ = self.remove_channel(name, out);
                }
            }
            Claim::Deleted { name } => {
                let topics = &self.state.topics;
                let since_ms = topics.owned.get(name).filter(|_| topics.is_deleted(name));
                let since_ms = since_ms.map(|owned| owned.created_ms);
                if since_ms.is_some_and(|since_ms| self.is_forgotten(since_ms, now_ms)) {
                    // The record of the deleted channel exists.
                    let _ = self.remove_channel(name, out);
                }
            }
        }
    }
}
