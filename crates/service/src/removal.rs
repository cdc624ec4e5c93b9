//! Removal of profiles, channels and topics, by an administrator or by expiry. What a profile sent to others
//! stays, and the name of a private channel stays taken.

use recado_proto::id::{ChannelName, Name, Topic};
use recado_proto::packet::Code;

use super::capacity::follow_bound;
use super::{Applied, Service};

impl Service {
    /// Removes a profile. Its notifications in channels and in inboxes of others stay.
    pub(super) fn remove_profile(&mut self, name: &Name, out: &mut Vec<Applied>) -> Result<(), Code> {
        self.release(name, out)?;
        let profile = self.state.profiles.remove(name).ok_or(Code::UnknownProfile)?;
        self.index.unused.remove(&(profile.claimed_ms, name.clone()));
        self.index.counted.follows -= profile.follows.keys().map(follow_bound).sum::<u64>();
        for topic in profile.follows.keys() {
            if let Some(topic_state) = self.state.topics.get_mut(topic) {
                topic_state.followers.remove(name);
            }
            self.note_channel(topic);
        }
        let feed = Topic::Feed(name.clone());
        let inbox = Topic::Inbox(name.clone());
        let sessions = self.audience(&feed);
        self.remove_topic(&feed);
        self.remove_topic(&inbox);
        self.remove_values_of(&feed);
        let made = self.state.topics.makers.iter().filter(|(_, maker)| *maker == name);
        for channel in made.map(|(channel, _)| channel.clone()).collect::<Vec<_>>() {
            self.made_by_nobody(&channel);
        }
        let roles = self.state.topics.owned.iter().filter(|(_, owned)| owned.members.contains_key(name));
        for channel in roles.map(|(channel, _)| channel.clone()).collect::<Vec<_>>() {
            if let Some(owned) = self.state.topics.owned.get_mut(&channel) {
                owned.members.remove(name);
                self.index.counted.members -= 1;
            }
            self.note_channel(&Topic::Channel(channel));
        }
        out.push(Applied::Withdrawn { sessions });
        out.extend([feed, inbox].map(|topic| Applied::Emptied { topic }));
        Ok(())
    }

    /// Removes a channel. The name of a private one stays taken, as after a deletion: a notification meant
    /// for its members must not create an open channel of that name. For a channel that was deleted this
    /// frees the name.
    pub(super) fn remove_channel(
        &mut self,
        channel: &ChannelName,
        out: &mut Vec<Applied>,
    ) -> Result<(), Code> {
        let topics = &self.state.topics;
        let is_there = topics.channels.contains_key(channel);
        match topics.owned.get(channel) {
            None if !is_there => return Err(Code::UnknownChannel),
            Some(owned) if is_there && owned.private && !owned.deleted => {
                self.delete_channel(channel, out)?;
                self.end_follows(&Topic::Channel(channel.clone()));
            }
            Some(_) | None => self.drop_channel(channel, out),
        }
        Ok(())
    }

    /// Removes a topic: drops all that it holds, also from its authors' lists of sent notifications, and ends
    /// all follows of it.
    pub(super) fn remove_topic(&mut self, topic: &Topic) {
        let Some(newest) = self.state.topics.get(topic).map(|topic_state| topic_state.last_op) else {
            return;
        };
        self.trim(topic, newest);
        self.end_follows(topic);
        self.state.topics.remove(topic);
    }

    /// Ends all follows of a topic.
    fn end_follows(&mut self, topic: &Topic) {
        let Some(topic_state) = self.state.topics.get_mut(topic) else { return };
        let followers = std::mem::take(&mut topic_state.followers);
        self.index.counted.follows -= follow_bound(topic) * followers.len() as u64;
        for follower in followers.keys() {
            if let Some(profile) = self.state.profiles.get_mut(follower) {
                profile.follows.remove(topic);
            }
        }
    }
}
