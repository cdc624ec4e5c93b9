//! Who followed what, and who might read and send where, at each op: a model of its own, which knows only
//! the rules and what was done in the order of ops.

use std::collections::BTreeMap;

use recado::id::{Name, Op, Topic};
use recado::wire::packet::{ChannelChange, Role};

use crate::history::{Deed, Done};

/// From an op to another, if that has come.
pub type Span = (Op, Option<Op>);

/// What was done so far, and what follows from it.
#[derive(Debug, Default)]
pub struct Rights {
    follows: BTreeMap<(Name, Topic), Vec<Span>>,
    /// The channels that were created, also those that were deleted since.
    owned: BTreeMap<Name, Owned>,
    /// When only members might read a channel, and when each was a member of one that was created.
    private: BTreeMap<Name, Vec<Span>>,
    members: BTreeMap<(Name, Name), Vec<Span>>,
    /// What topics were sent, as far as it is known.
    sent: BTreeMap<Topic, Vec<Op>>,
    /// Where a topic ended with all that it held.
    ends: BTreeMap<Topic, Vec<Op>>,
}

#[derive(Debug)]
struct Owned {
    deleted: bool,
    private: bool,
    members: BTreeMap<Name, Role>,
}

impl Rights {
    /// The next thing that was done.
    ///
    /// # Errors
    /// Why it should not have been let happen.
    pub fn take(&mut self, Done { op, by, deed }: &Done) -> Result<(), String> {
        let op = *op;
        match deed {
            Deed::Sent { topic, .. } => {
                if !self.may_send(by, topic) {
                    return Err(format!("op {op}: {by} was let send to {topic}"));
                }
                self.sent.entry(topic.clone()).or_default().push(op);
            }
            Deed::Followed(topic) => {
                if let Topic::Channel(channel) = topic
                    && self.owned.get(channel).is_some_and(|owned| !owned.reads(by))
                {
                    return Err(format!("op {op}: {by} was let follow {topic}"));
                }
                self.follows.entry((by.clone(), topic.clone())).or_default().push((op, None));
            }
            Deed::Unfollowed(topic) => end(self.follows.get_mut(&(by.clone(), topic.clone())), op),
            Deed::Changed(channel, change) => return self.change(op, by, channel, change),
            Deed::ChannelGone => {
                let was_private = self.owned.get(by).is_some_and(|owned| owned.private && !owned.deleted);
                self.end_channel(op, by);
                self.owned.remove(by);
                if was_private {
                    self.owned.insert(by.clone(), Owned::nobodys());
                }
            }
            Deed::ProfileGone => {
                self.end_topic(op, &Topic::Feed(by.clone()));
                self.end_topic(op, &Topic::Inbox(by.clone()));
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

    fn change(&mut self, op: Op, by: &Name, channel: &Name, change: &ChannelChange) -> Result<(), String> {
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
        let leaves = matches!(change, ChannelChange::Remove { member } if member == by);
        let owned = self.owned.get_mut(channel).filter(|owned| !owned.deleted);
        let owned = owned.filter(|owned| leaves || owned.members.get(by) == Some(&Role::Owner));
        let Some(owned) = owned else {
            return Err(format!("op {op}: {by}, no owner of {channel}, was let {change:?}"));
        };
        match change {
            ChannelChange::Create { .. } => {}
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
            ChannelChange::Delete => {
                self.end_channel(op, channel);
                self.owned.insert(channel.clone(), Owned::nobodys());
            }
        }
        Ok(())
    }

    fn end_channel(&mut self, op: Op, channel: &Name) {
        self.end_topic(op, &Topic::Channel(channel.clone()));
        end(self.private.get_mut(channel), op);
        let members = self.members.iter_mut().filter(|((of, _), _)| of == channel);
        members.for_each(|(_, spans)| end(Some(spans), op));
    }

    fn end_topic(&mut self, op: Op, topic: &Topic) {
        let follows = self.follows.iter_mut().filter(|((_, of), _)| of == topic);
        follows.for_each(|(_, spans)| end(Some(spans), op));
        self.ends.entry(topic.clone()).or_default().push(op);
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

    /// When a profile followed a topic.
    pub fn follows(&self, profile: &Name, topic: &Topic) -> &[Span] {
        self.follows.get(&(profile.clone(), topic.clone())).map_or(&[], Vec::as_slice)
    }

    /// Whether a profile might read a topic in the state at `op`.
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

    /// The newest that was sent to a topic in the state at `op`, dropped since or not.
    pub fn newest(&self, topic: &Topic, op: Op) -> Option<Op> {
        let last = |ops: Option<&Vec<Op>>| ops.into_iter().flatten().rfind(|of| **of <= op).copied();
        last(self.sent.get(topic)).filter(|newest| last(self.ends.get(topic)) < Some(*newest))
    }
}

impl Owned {
    /// What is left of a channel whose name stays taken.
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

/// Ends what lasts.
fn end(spans: Option<&mut Vec<Span>>, op: Op) {
    if let Some((_, until)) = spans.and_then(|spans| spans.last_mut()) {
        until.get_or_insert(op);
    }
}
