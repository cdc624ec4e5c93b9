//! Rights in topics, and the owners and members of channels.
//!
//! Only its owner sends to a feed, and only its owner reads an inbox. A channel is open to anyone unless it
//! was created by CHANNEL. A created channel belongs to its owners: the role of a member says whether it may
//! send, and only members read a private one. Its owners delete a created channel, and its maker an open one.

use imbl::OrdMap;

use recado_proto::command::Request;
use recado_proto::id::{ChannelName, Name, Op, Topic};
use recado_proto::packet::{Access, ChannelChange, Code, Notice, Role};
use recado_proto::planted::Planted;

use super::capacity::{CHANNEL, MAKER, MEMBER, OWNED, follow_bound};
use super::state::Owned;
use super::{Applied, Service, Stored};

impl Service {
    /// Checks that `name` may read a topic.
    ///
    /// # Errors
    /// UnknownProfile, UnknownChannel, ChannelDeleted, or NotAllowed.
    pub(super) fn may_read(&self, name: &Name, topic: &Topic) -> Result<(), Code> {
        let topics = &self.state.topics;
        match topic {
            Topic::Feed(owner) if !self.state.profiles.contains_key(owner) => Err(Code::UnknownProfile),
            Topic::Channel(channel) if topics.is_deleted(channel) => Err(Code::ChannelDeleted),
            Topic::Channel(channel) if !topics.channels.contains_key(channel) => Err(Code::UnknownChannel),
            Topic::Channel(channel) if !self.sees(name, channel) => Err(Code::NotAllowed),
            Topic::Inbox(owner) if owner != name => Err(Code::NotAllowed),
            Topic::Feed(_) | Topic::Channel(_) | Topic::Inbox(_) => Ok(()),
        }
    }

    /// Checks that `name` may send to a topic. A channel need not exist yet.
    pub(super) fn may_send(&self, name: &Name, topic: &Topic) -> Result<(), Code> {
        let topics = &self.state.topics;
        match topic {
            Topic::Feed(owner) | Topic::Inbox(owner) if !self.state.profiles.contains_key(owner) => {
                Err(Code::UnknownProfile)
            }
            Topic::Feed(owner) if owner != name => Err(Code::NotAllowed),
            // A notification meant for the members of a deleted channel must not create an open one.
            Topic::Channel(channel) if topics.is_deleted(channel) => Err(Code::ChannelDeleted),
            Topic::Channel(channel) if !topics.channels.contains_key(channel) => {
                self.room_for_a_channel(name)?;
                self.may_name_a_channel(name)
            }
            Topic::Channel(channel) => match topics.owned.get(channel) {
                Some(owned) if owned.members.get(name) < Some(&Role::Writer) => Err(Code::NotAllowed),
                Some(_) | None => Ok(()),
            },
            Topic::Feed(_) | Topic::Inbox(_) => Ok(()),
        }
    }

    /// Returns true if `name` may know that the channel exists, and read it.
    pub(super) fn sees(&self, name: &Name, channel: &ChannelName) -> bool {
        let owned = self.state.topics.owned.get(channel);
        owned.is_none_or(|owned| !owned.private || owned.members.contains_key(name))
    }

    /// The public access to a channel.
    pub(super) fn access(&self, channel: &ChannelName) -> Access {
        match self.state.topics.owned.get(channel) {
            None => Access::Open,
            Some(Owned { private: false, .. }) => Access::Owned,
            Some(Owned { private: true, .. }) => Access::Private,
        }
    }

    /// Returns true if the request with this result made the channel that it sent to: the channel is open,
    /// and this is its first notification. False once that one was dropped.
    pub fn made_channel(&self, request: &Request, result: Result<Op, Code>) -> bool {
        let (Request::Send { topic: topic @ Topic::Channel(channel), .. }, Ok(op)) = (request, result) else {
            return false;
        };
        let first = self.state.topics.get(topic).filter(|of| of.trimmed_upto == Op::ZERO);
        let first = first.and_then(|of| of.retained.front()).map(Stored::op);
        first == Some(op) && !self.state.topics.owned.contains_key(channel)
    }

    /// Returns true if the request would create a channel, given that its author has the right to.
    pub fn makes_channel(&self, request: &Request) -> bool {
        let topics = &self.state.topics;
        let channel = match request {
            Request::Send { topic: Topic::Channel(channel), .. }
            | Request::Channel { channel, change: ChannelChange::Create { .. } } => channel,
            _ => return false,
        };
        !topics.channels.contains_key(channel)
    }

    /// Checks that the table has a free place for a channel and that the profile's share is not used up.
    fn room_for_a_channel(&self, by: &Name) -> Result<(), Code> {
        let taken = self.state.topics.channels.len();
        let own = self.index.made.get(by).copied().unwrap_or(0);
        let full = taken >= self.limits.channels || own >= self.limits.channels_made;
        if full { Err(Code::LimitReached) } else { Ok(()) }
    }

    /// Records the profile that made a channel.
    pub(super) fn has_made(&mut self, by: &Name, channel: &ChannelName) {
        self.state.topics.makers.insert(channel.clone(), by.clone());
        *self.index.made.entry(by.clone()).or_default() += 1;
    }

    /// Removes the record of a channel's maker, because the channel's place is free or its maker is removed.
    pub(super) fn made_by_nobody(&mut self, channel: &ChannelName) {
        let Some(maker) = self.state.topics.makers.remove(channel) else { return };
        if let Some(made) = self.index.made.get_mut(&maker) {
            *made -= 1;
            if *made == 0 {
                self.index.made.remove(&maker);
            }
        }
    }

    /// Applies a CHANNEL of `asker`.
    pub(super) fn change_channel(
        &mut self,
        op: Op,
        asker: &Name,
        channel: &ChannelName,
        change: &ChannelChange,
        out: &mut Vec<Applied>,
    ) -> Result<Op, Code> {
        if let ChannelChange::Create { private } = change {
            return self.create_channel(asker, channel, *private).map(|()| op);
        }
        if self.state.topics.is_deleted(channel) {
            return Err(Code::ChannelDeleted);
        }
        if !self.state.topics.channels.contains_key(channel) {
            return Err(Code::UnknownChannel);
        }
        if let ChannelChange::Delete = change {
            self.may_delete(asker, channel)?;
            self.delete_channel(channel, out)?;
            let topic = Topic::Channel(channel.clone());
            self.report(op, asker, &topic, Notice::ChannelDeleted, out);
            return Ok(op);
        }
        let leaves = matches!(change, ChannelChange::Remove { member } if member == asker);
        let owned = self.state.topics.owned.get(channel).ok_or(Code::NotAllowed)?;
        if owned.members.get(asker) != Some(&Role::Owner) && !leaves {
            return Err(Code::NotAllowed);
        }
        match change {
            ChannelChange::Create { .. } | ChannelChange::Delete => {}
            ChannelChange::Add { member, role } => self.add_member(channel, member, *role)?,
            ChannelChange::Remove { member } => self.remove_member(channel, member, out)?,
        }
        Ok(op)
    }

    fn create_channel(&mut self, owner: &Name, channel: &ChannelName, private: bool) -> Result<(), Code> {
        if self.state.topics.is_deleted(channel) {
            return Err(Code::ChannelDeleted);
        }
        if self.state.topics.channels.contains_key(channel) {
            return Err(Code::NameTaken);
        }
        self.room_for_a_channel(owner)?;
        self.room_for(CHANNEL + OWNED + MEMBER + MAKER)?;
        self.may_name_a_channel(owner)?;
        self.owns_one_more(owner)?;
        self.has_named_a_channel(owner);
        self.has_made(owner, channel);
        self.index.counted.members += 1;
        let topic = Topic::Channel(channel.clone());
        self.state.topics.get_or_new(&topic);
        let members = OrdMap::unit(owner.clone(), Role::Owner);
        // Zero marks an open channel in the index.
        let created_ms = self.state.clock_ms.max(1);
        let owned = Owned { private, members, created_ms, deleted: false };
        self.state.topics.owned.insert(channel.clone(), owned);
        self.note_channel(&topic);
        Ok(())
    }

    fn add_member(&mut self, channel: &ChannelName, member: &Name, role: Role) -> Result<(), Code> {
        if !self.state.profiles.contains_key(member) {
            return Err(Code::UnknownProfile);
        }
        let most = self.limits.members;
        let owned = self.state.topics.owned.get(channel).ok_or(Code::NotAllowed)?;
        let before = owned.members.get(member).copied();
        if before.is_none() && owned.members.len() >= most {
            return Err(Code::LimitReached);
        }
        if before.is_none() {
            self.room_for(MEMBER)?;
        }
        match (before == Some(Role::Owner), role == Role::Owner) {
            (true, false) => self.owns_one_less(channel, member)?,
            (false, true) => self.owns_one_more(member)?,
            (true, true) | (false, false) => {}
        }
        if let Some(owned) = self.state.topics.owned.get_mut(channel) {
            owned.members.insert(member.clone(), role);
            self.index.counted.members += u64::from(before.is_none());
        }
        self.is_used(member);
        self.note_channel(&Topic::Channel(channel.clone()));
        Ok(())
    }

    /// Removes a member. From a private channel this also ends its follow.
    fn remove_member(
        &mut self,
        channel: &ChannelName,
        member: &Name,
        out: &mut Vec<Applied>,
    ) -> Result<(), Code> {
        let owned = self.state.topics.owned.get(channel).ok_or(Code::NotAllowed)?;
        let role = *owned.members.get(member).ok_or(Code::NotMember)?;
        if role == Role::Owner {
            self.owns_one_less(channel, member)?;
        }
        if let Some(owned) = self.state.topics.owned.get_mut(channel) {
            owned.members.remove(member);
            self.index.counted.members -= 1;
        }
        let topic = Topic::Channel(channel.clone());
        if !self.sees(member, channel)
            && let Some(profile) = self.state.profiles.get_mut(member)
            && profile.follows.remove(&topic).is_some()
        {
            self.index.counted.follows -= follow_bound(&topic);
            if let Some(topic_state) = self.state.topics.get_mut(&topic) {
                topic_state.followers.remove(member);
            }
            out.push(self.withdrawn(member));
        }
        self.note_channel(&topic);
        Ok(())
    }

    /// A profile has one follow less.
    pub(super) fn withdrawn(&self, name: &Name) -> Applied {
        let sessions = self.index.receiving.get(name).into_iter().flatten().copied().collect();
        Applied::Withdrawn { sessions }
    }

    /// Checks that a profile may delete a channel: one of its owners, or the maker of an open one.
    fn may_delete(&self, asker: &Name, channel: &ChannelName) -> Result<(), Code> {
        let topics = &self.state.topics;
        let may = match topics.owned.get(channel) {
            Some(owned) => owned.members.get(asker) == Some(&Role::Owner),
            None => topics.makers.get(channel) == Some(asker),
        };
        if may { Ok(()) } else { Err(Code::NotAllowed) }
    }

    /// Deletes a channel that exists: drops all that it holds, and all rights in it. Its readers get no gap.
    /// The name stays taken: a notification on its way to the members must not create an open channel. Until
    /// the name is free the follows stay.
    ///
    /// # Errors
    /// LimitReached: there is no room for the record of an open channel's deletion.
    pub(super) fn delete_channel(
        &mut self,
        channel: &ChannelName,
        out: &mut Vec<Applied>,
    ) -> Result<(), Code> {
        if !self.state.topics.owned.contains_key(channel) {
            self.may_hold(OWNED)?;
        }
        let topic = Topic::Channel(channel.clone());
        let sessions = self.audience(&topic);
        self.end_rights(channel);
        self.empty(&topic);
        self.remove_values_of(&topic);
        self.make_room(OWNED);
        let created_ms = self.state.clock_ms;
        let nobody = Owned { private: true, members: OrdMap::new(), created_ms, deleted: true };
        self.state.topics.owned.insert(channel.clone(), nobody);
        self.index.deleted.insert((created_ms, channel.clone()));
        self.note_channel(&topic);
        out.extend([Applied::Withdrawn { sessions }, Applied::Emptied { topic }]);
        Ok(())
    }

    /// Drops all that a topic holds, without a gap for its readers.
    fn empty(&mut self, topic: &Topic) {
        let Some(newest) = self.state.topics.get(topic).map(|topic_state| topic_state.last_op) else {
            return;
        };
        if !self.planted.is(Planted::DeletedChannelKeepsTexts) {
            self.trim(topic, newest);
        }
        if let Some(topic_state) = self.state.topics.get_mut(topic) {
            topic_state.trimmed_upto = Op::ZERO;
        }
    }

    /// Removes the record of the rights in a channel, and of its deletion.
    fn end_rights(&mut self, channel: &ChannelName) {
        self.index.idle.remove(&(0, channel.clone()));
        let Some(owned) = self.state.topics.owned.remove(channel) else { return };
        self.index.idle.remove(&(owned.created_ms, channel.clone()));
        self.index.deleted.remove(&(owned.created_ms, channel.clone()));
        self.index.counted.members -= owned.members.len() as u64;
        for (member, _) in owned.members.iter().filter(|(_, role)| **role == Role::Owner) {
            self.disown(member);
        }
    }

    /// Removes a channel with its notifications, its follows and its members' roles.
    pub(super) fn drop_channel(&mut self, channel: &ChannelName, out: &mut Vec<Applied>) {
        let topic = Topic::Channel(channel.clone());
        let sessions = self.audience(&topic);
        self.remove_topic(&topic);
        self.remove_values_of(&topic);
        self.made_by_nobody(channel);
        self.end_rights(channel);
        out.extend([Applied::Withdrawn { sessions }, Applied::Emptied { topic }]);
    }

    fn owns_one_more(&mut self, name: &Name) -> Result<(), Code> {
        let most = self.limits.channels_owned as u64;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        if profile.owns >= most {
            return Err(Code::LimitReached);
        }
        profile.owns += 1;
        Ok(())
    }

    /// Takes ownership from one owner.
    ///
    /// # Errors
    /// LastOne: there is no other owner.
    fn owns_one_less(&mut self, channel: &ChannelName, name: &Name) -> Result<(), Code> {
        let owned = self.state.topics.owned.get(channel).ok_or(Code::NotAllowed)?;
        let owners = owned.members.values().filter(|role| **role == Role::Owner);
        if owners.take(2).count() < 2 {
            return Err(Code::LastOne);
        }
        self.disown(name);
        Ok(())
    }

    fn disown(&mut self, name: &Name) {
        if let Some(profile) = self.state.profiles.get_mut(name) {
            profile.owns = profile.owns.saturating_sub(1);
        }
    }
}
