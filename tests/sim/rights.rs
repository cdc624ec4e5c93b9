//! A model of follows and rights: the topics that each profile followed, might read and might send to at each
//! op. It knows only the rules, and the actions in op order.

use std::collections::BTreeMap;

use recado_proto::id::{ChannelName, Name, Op, Topic};
use recado_proto::packet::{ChannelChange, Notice, Role};

use crate::history::{LogAction, LoggedAction};

/// A range of ops; its end is open while it lasts.
pub type Span = (Op, Option<Op>);

/// The actions so far, and the rights that follow from them.
#[derive(Debug, Default)]
pub struct Rights {
    follows: BTreeMap<(Name, Topic), Vec<Span>>,
    /// The channels that were created, including those deleted since.
    owned: BTreeMap<ChannelName, Owned>,
    /// The spans in which only members might read a channel, and the spans of each membership in a created
    /// channel.
    private: BTreeMap<ChannelName, Vec<Span>>,
    members: BTreeMap<(ChannelName, Name), Vec<Span>>,
    /// The ops sent to each topic, as far as they are known.
    sent: BTreeMap<Topic, Vec<Op>>,
    /// The ops at which a topic was removed with its content.
    ends: BTreeMap<Topic, Vec<Op>>,
    /// The profile that made each open channel, while both exist.
    makers: BTreeMap<ChannelName, Name>,
    /// The author and the topic of each text; no author once its profile is removed.
    authors: BTreeMap<Op, (Option<Name>, Topic)>,
    /// What each notification without a text reports.
    notices: BTreeMap<Op, Notice>,
}

#[derive(Debug)]
struct Owned {
    deleted: bool,
    private: bool,
    members: BTreeMap<Name, Role>,
}

impl Rights {
    /// Takes the next action.
    ///
    /// # Errors
    /// The reason why it must not have been allowed.
    pub fn take(&mut self, LogAction { op, by, deed, .. }: &LogAction) -> Result<(), String> {
        let op = *op;
        match (deed, by) {
            (LoggedAction::ChannelGone(channel), _) => {
                let owned = self.owned.get(channel);
                let was_private = owned.is_some_and(|owned| owned.private && !owned.deleted);
                self.end_channel(op, channel);
                self.end_follows(op, &Topic::Channel(channel.clone()));
                self.owned.remove(channel);
                self.makers.remove(channel);
                if was_private {
                    self.owned.insert(channel.clone(), Owned::nobodys());
                }
            }
            (_, None) => return Err(format!("op {op}: nobody did {deed:?}")),
            (LoggedAction::Sent { topic, .. }, Some(by)) => {
                if !self.may_send(by, topic) {
                    return Err(format!("op {op}: {by} was let send to {topic}"));
                }
                if let Topic::Channel(channel) = topic
                    && !self.owned.contains_key(channel)
                {
                    self.makers.entry(channel.clone()).or_insert_with(|| by.clone());
                }
                self.sent.entry(topic.clone()).or_default().push(op);
                self.authors.insert(op, (Some(by.clone()), topic.clone()));
            }
            (LoggedAction::Retracted { topic, of }, Some(by)) => {
                let owned = match topic {
                    Topic::Channel(channel) => self.owned.get(channel),
                    Topic::Feed(_) | Topic::Inbox(_) => None,
                };
                let owns = owned.is_some_and(|owned| owned.members.get(by) == Some(&Role::Owner));
                let held = self.authors.get(of).filter(|(_, at)| at == topic);
                let may = held.is_some_and(|(author, _)| owns || author.as_ref() == Some(by));
                let again = self.notices.insert(*of, Notice::Retracted).is_some();
                if again || !may {
                    return Err(format!("op {op}: {by} was let retract {of} in {topic}, of {held:?}"));
                }
                self.notices.insert(op, Notice::Retracts(*of));
                self.sent.entry(topic.clone()).or_default().push(op);
            }
            (LoggedAction::Followed(topic), Some(by)) => {
                if let Topic::Channel(channel) = topic
                    && self.owned.get(channel).is_some_and(|owned| !owned.reads(by))
                {
                    return Err(format!("op {op}: {by} was let follow {topic}"));
                }
                self.follows.entry((by.clone(), topic.clone())).or_default().push((op, None));
            }
            (LoggedAction::Unfollowed(topic), Some(by)) => {
                end(self.follows.get_mut(&(by.clone(), topic.clone())), op)
            }
            (LoggedAction::Changed(channel, change), Some(by)) => {
                return self.change(op, by, channel, change);
            }
            (LoggedAction::ProfileGone, Some(by)) => {
                for topic in [Topic::Feed(by.clone()), Topic::Inbox(by.clone())] {
                    self.ends.entry(topic.clone()).or_default().push(op);
                    self.end_follows(op, &topic);
                }
                self.makers.retain(|_, maker| maker != by);
                for (author, _) in self.authors.values_mut() {
                    author.take_if(|author| author == by);
                }
                let own = self.follows.iter_mut().filter(|((profile, _), _)| profile == by);
                own.for_each(|(_, spans)| end(Some(spans), op));
                for (channel, owned) in &mut self.owned {
                    owned.members.remove(by);
                    end(self.members.get_mut(&(channel.clone(), by.clone())), op);
                }
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        op: Op,
        by: &Name,
        channel: &ChannelName,
        change: &ChannelChange,
    ) -> Result<(), String> {
        let key = |member: &Name| (channel.clone(), member.clone());
        if let ChannelChange::Create { private } = *change {
            if self.owned.contains_key(channel) {
                return Err(format!("op {op}: {by} was let create {channel}, which there is or was"));
            }
            let members = BTreeMap::from([(by.clone(), Role::Owner)]);
            self.owned.insert(channel.clone(), Owned { deleted: false, private, members });
            self.members.entry(key(by)).or_default().push((op, None));
            if private {
                self.private.entry(channel.clone()).or_default().push((op, None));
            }
            return Ok(());
        }
        if let ChannelChange::Delete = change {
            return self.delete(op, by, channel);
        }
        let leaves = matches!(change, ChannelChange::Remove { member } if member == by);
        let owned = self.owned.get_mut(channel).filter(|owned| !owned.deleted);
        let owned = owned.filter(|owned| leaves || owned.members.get(by) == Some(&Role::Owner));
        let Some(owned) = owned else {
            return Err(format!("op {op}: {by}, no owner of {channel}, was let {change:?}"));
        };
        match change {
            ChannelChange::Create { .. } | ChannelChange::Delete => {}
            ChannelChange::Add { member, role } => {
                if owned.members.insert(member.clone(), *role).is_none() {
                    self.members.entry(key(member)).or_default().push((op, None));
                }
            }
            ChannelChange::Remove { member } => {
                owned.members.remove(member);
                end(self.members.get_mut(&key(member)), op);
                if owned.private {
                    let follow = (member.clone(), Topic::Channel(channel.clone()));
                    end(self.follows.get_mut(&follow), op);
                }
            }
        }
        Ok(())
    }

    /// The follows of a deleted channel last until its name is free: its followers are told.
    fn delete(&mut self, op: Op, by: &Name, channel: &ChannelName) -> Result<(), String> {
        let may = match self.owned.get(channel) {
            Some(owned) => !owned.deleted && owned.members.get(by) == Some(&Role::Owner),
            None => self.makers.get(channel) == Some(by),
        };
        if !may {
            return Err(format!("op {op}: {by} was let delete {channel}"));
        }
        self.end_channel(op, channel);
        self.owned.insert(channel.clone(), Owned::nobodys());
        self.notices.insert(op, Notice::ChannelDeleted);
        Ok(())
    }

    fn end_channel(&mut self, op: Op, channel: &ChannelName) {
        self.ends.entry(Topic::Channel(channel.clone())).or_default().push(op);
        end(self.private.get_mut(channel), op);
        let members = self.members.iter_mut().filter(|((of, _), _)| of == channel);
        members.for_each(|(_, spans)| end(Some(spans), op));
    }

    fn end_follows(&mut self, op: Op, topic: &Topic) {
        let follows = self.follows.iter_mut().filter(|((_, of), _)| of == topic);
        follows.for_each(|(_, spans)| end(Some(spans), op));
    }

    /// What the notification of this op reports in place of a text.
    pub fn notice(&self, op: Op) -> Option<Notice> {
        self.notices.get(&op).copied()
    }

    fn may_send(&self, by: &Name, topic: &Topic) -> bool {
        match topic {
            Topic::Feed(owner) => owner == by,
            Topic::Inbox(_) => true,
            Topic::Channel(channel) => match self.owned.get(channel) {
                None => true,
                Some(owned) => !owned.deleted && owned.members.get(by) >= Some(&Role::Writer),
            },
        }
    }

    /// Returns the spans in which a profile followed a topic.
    pub fn follows(&self, profile: &Name, topic: &Topic) -> &[Span] {
        self.follows.get(&(profile.clone(), topic.clone())).map_or(&[], Vec::as_slice)
    }

    /// Returns true if a topic was removed with its content after `op`.
    pub fn is_removed_after(&self, topic: &Topic, op: Op) -> bool {
        self.ends.get(topic).and_then(|ends| ends.last()).is_some_and(|end| *end > op)
    }

    /// Returns true if a profile might read a topic in the state at `op`.
    pub fn may_read(&self, profile: &Name, topic: &Topic, op: Op) -> bool {
        let at =
            |spans: Option<&Vec<Span>>| spans.is_some_and(|spans| spans.iter().any(|span| holds(span, op)));
        match topic {
            Topic::Feed(_) => true,
            Topic::Inbox(owner) => owner == profile,
            Topic::Channel(channel) => {
                !at(self.private.get(channel)) || at(self.members.get(&(channel.clone(), profile.clone())))
            }
        }
    }

    /// Returns the newest op sent to a topic in the state at `op`, whether dropped since or not.
    pub fn newest(&self, topic: &Topic, op: Op) -> Option<Op> {
        let last = |ops: Option<&Vec<Op>>| ops.into_iter().flatten().rfind(|of| **of <= op).copied();
        last(self.sent.get(topic)).filter(|newest| last(self.ends.get(topic)) < Some(*newest))
    }
}

impl Owned {
    /// The remainder of a removed channel whose name stays taken.
    fn nobodys() -> Owned {
        Owned { deleted: true, private: true, members: BTreeMap::new() }
    }

    fn reads(&self, name: &Name) -> bool {
        !self.deleted && (!self.private || self.members.contains_key(name))
    }
}

fn holds((from, until): &Span, op: Op) -> bool {
    *from <= op && until.is_none_or(|until| op < until)
}

/// Ends the last span, if it is open.
fn end(spans: Option<&mut Vec<Span>>, op: Op) {
    if let Some((_, until)) = spans.and_then(|spans| spans.last_mut()) {
        until.get_or_insert(op);
    }
}
