//! One entry of the log: the clock, numbered requests, follows and sends.

use std::sync::Arc;

use super::state::{Profile, Sent};
use super::{Applied, Service};
use crate::config::Planted;
use crate::id::{Name, Op, Seq, SessionId, Topic};
use crate::wire::command::{Command, Request, Stamped};
use crate::wire::packet::{Code, Content, FollowChange, Notification};

impl Service {
    /// Applies the entry at `op`; none for a ViewStart. Ops come without a hole.
    pub fn apply(&mut self, op: Op, stamped: Option<&Stamped>, out: &mut Vec<Applied>) {
        debug_assert_eq!(op, self.state.applied.next(), "ops come without a hole");
        self.state.applied = op;
        let Some(stamped) = stamped else { return };
        let mut stamp_ms = stamped.unix_ms;
        if self.planted.is(Planted::ApplyNotDeterministic) {
            stamp_ms = stamp_ms.saturating_add(self.asked.get());
        }
        self.state.clock_ms = self.state.clock_ms.max(stamp_ms);
        match &stamped.command {
            Command::SessionOpen { device, profile, receives, nonce, fresh } => {
                out.extend(
                    match self.open_session(op, *device, profile, *receives, *nonce, *fresh) {
                        Ok((session, fenced)) => {
                            let fenced = fenced.map(|session| Applied::SessionClosed { session });
                            let opened = Applied::SessionOpened { session, device: *device, nonce: *nonce };
                            [fenced, Some(opened)]
                        }
                        Err(code) => {
                            [None, Some(Applied::SessionRefused { device: *device, nonce: *nonce, code })]
                        }
                    }
                    .into_iter()
                    .flatten(),
                );
            }
            Command::SessionClose { session } => {
                if self.close_session(*session) {
                    out.push(Applied::SessionClosed { session: *session });
                }
            }
            Command::Request { session, seq, answered_below, request } => {
                self.apply_request(op, *session, *seq, *answered_below, request, out);
            }
            Command::Cursors(cursors) => self.move_cursors(cursors),
            Command::Trim { topic, upto } => self.trim(topic, *upto),
        }
    }

    /// Takes only the next number of a live session. Anything else leaves no trace: it was applied
    /// before, or a newer session has fenced this one, and then an old datagram must not take the
    /// number of a new text.
    fn apply_request(
        &mut self,
        op: Op,
        session: SessionId,
        seq: Seq,
        answered_below: Seq,
        request: &Request,
        out: &mut Vec<Applied>,
    ) {
        let Some(open) = self.state.sessions.get(&session) else { return };
        let id = open.device;
        let Some(device) = self.state.devices.get(&id) else { return };
        let repeats = self.planted.is(Planted::DuplicatesOnlyCommitted);
        if seq != device.last_seq.next() && !repeats {
            return;
        }
        let author = device.profile.clone();
        let result = match request {
            Request::Follow { topic, change: FollowChange::Add } => self.follow(op, &author, topic),
            Request::Follow { topic, change: FollowChange::Remove } => self.unfollow(op, &author, topic),
            Request::Send { topic, content } => self.send(op, &author, topic, content, out),
        };
        let kept_max = self.limits.outstanding;
        if let Some(device) = self.state.devices.get_mut(&id) {
            device.last_seq = device.last_seq.max(seq);
            while device.results.get_min().is_some_and(|(oldest, _)| *oldest < answered_below) {
                device.results = device.results.without_min().1;
            }
            device.results.insert(seq, result);
            while device.results.len() as u64 > kept_max {
                device.results = device.results.without_min().1;
            }
        }
        self.seen(id);
        out.push(Applied::Answered { session, seq, result });
    }

    fn follow(&mut self, op: Op, name: &Name, topic: &Topic) -> Result<Op, Code> {
        self.may_follow(name, topic)?;
        let limit = self.limits.follows;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        if profile.follows.contains_key(topic) {
            return Err(Code::AlreadyFollowing);
        }
        if profile.follows.len() >= limit {
            return Err(Code::LimitReached);
        }
        profile.follows.insert(topic.clone(), op);
        self.state.topics.get_or_new(topic).followers.insert(name.clone(), op);
        Ok(op)
    }

    fn unfollow(&mut self, op: Op, name: &Name, topic: &Topic) -> Result<Op, Code> {
        self.may_follow(name, topic)?;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        profile.follows.remove(topic).ok_or(Code::NotFollowing)?;
        if let Some(topic) = self.state.topics.get_mut(topic) {
            topic.followers.remove(name);
        }
        Ok(op)
    }

    /// Whether the topic exists and is one that `name` can follow and unfollow.
    fn may_follow(&self, name: &Name, topic: &Topic) -> Result<(), Code> {
        match topic {
            Topic::Feed(owner) | Topic::Inbox(owner) if owner == name => Err(Code::Yourself),
            Topic::Feed(owner) if !self.state.profiles.contains_key(owner) => Err(Code::UnknownProfile),
            Topic::Channel(channel) if !self.state.topics.channels.contains_key(channel) => {
                Err(Code::UnknownChannel)
            }
            Topic::Feed(_) | Topic::Channel(_) => Ok(()),
            Topic::Inbox(_) => Err(Code::NotAllowed),
        }
    }

    fn send(
        &mut self,
        op: Op,
        author: &Name,
        topic: &Topic,
        content: &Content,
        out: &mut Vec<Applied>,
    ) -> Result<Op, Code> {
        if !content.within_limits() {
            return Err(Code::TooLarge);
        }
        match topic {
            Topic::Feed(name) | Topic::Inbox(name) if !self.state.profiles.contains_key(name) => {
                return Err(Code::UnknownProfile);
            }
            Topic::Feed(owner) if owner != author => return Err(Code::NotAllowed),
            Topic::Channel(name)
                if !self.state.topics.channels.contains_key(name)
                    && self.state.topics.channels.len() >= self.limits.channels =>
            {
                return Err(Code::LimitReached);
            }
            Topic::Feed(_) | Topic::Channel(_) | Topic::Inbox(_) => {}
        }
        let notification = Arc::new(Notification {
            op,
            topic: topic.clone(),
            author: author.clone(),
            unix_ms: self.state.clock_ms,
            content: content.clone(),
        });
        let held = self.state.topics.get_or_new(topic);
        self.index.remove_topic(topic, held);
        held.push(notification.clone());
        self.index.add_topic(topic, held);
        if let Topic::Inbox(to) = topic
            && to != author
            && let Some(Profile { sent, .. }) = self.state.profiles.get_mut(author)
        {
            sent.push_back(Sent { op, to: to.clone() });
        }
        out.push(Applied::Notified { notification, sessions: self.addressed(topic) });
        Ok(op)
    }

    /// The live receiving sessions a notification of `topic` is for, ascending. Walks the smaller
    /// of the two sides, so that followers who are away cost nothing.
    fn addressed(&self, topic: &Topic) -> Vec<SessionId> {
        let receiving = &self.index.receiving;
        let mut sessions: Vec<SessionId> = match (topic, self.state.topics.get(topic)) {
            (Topic::Inbox(owner), _) => receiving.get(owner).into_iter().flatten().copied().collect(),
            (_, None) => Vec::new(),
            (_, Some(held)) if held.followers.len() < receiving.len() => {
                held.followers.keys().filter_map(|name| receiving.get(name)).flatten().copied().collect()
            }
            (_, Some(held)) => receiving
                .iter()
                .filter(|(name, _)| held.followers.contains_key(*name))
                .flat_map(|(_, sessions)| sessions)
                .copied()
                .collect(),
        };
        sessions.sort_unstable();
        sessions
    }
}
