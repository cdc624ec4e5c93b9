//! Applying one entry of the log: the clock, numbered requests, follows and sends.

use std::sync::Arc;

use recado_proto::command::{Command, Request, Stamped};
use recado_proto::id::{Name, Op, Seq, SessionId, Topic};
use recado_proto::packet::{Code, Content, FollowChange, Notice, OptionalFields};
use recado_proto::planted::{Planted, PlantedBug};

use super::capacity::{CHANNEL, MAKER, follow_bound, size_bound};
use super::state::{EARLIEST_DATE_MS, Outcome, Profile, Sent};
use super::stored::{Parts, Stored};
use super::{Applied, Service};

impl Service {
    /// Applies the entry at `op`; `stamped` is none for a ViewStart. The caller passes every op, in order.
    pub fn apply(&mut self, op: Op, stamped: Option<&Stamped>, out: &mut Vec<Applied>) {
        debug_assert_eq!(op, self.state.applied.next(), "ops come without a hole");
        self.state.applied = op;
        let Some(stamped) = stamped else { return };
        let mut stamp_ms = stamped.unix_ms;
        if self.planted.is(Planted::ApplyNotDeterministic) {
            stamp_ms = stamp_ms.saturating_add(self.reads.get());
        }
        if self.state.dated_ms == 0 && stamp_ms >= EARLIEST_DATE_MS {
            self.state.dated_ms = stamp_ms;
        }
        self.state.clock_ms = self.state.clock_ms.max(stamp_ms);
        if may_change_audiences(&stamped.command, self.planted) {
            self.audiences.get_mut().clear();
        }
        match &stamped.command {
            Command::SessionOpen(command) => {
                let (device, nonce) = (command.device, command.nonce);
                let applied = match self.open_session(op, command, out) {
                    // A repeated CONNECT gets the AEAD that the first one got.
                    Ok(session) => {
                        let open = self.state.sessions.get(&session);
                        let aead = open.map_or(command.aead, |open| open.aead);
                        Applied::SessionOpened { session, device, nonce, aead }
                    }
                    Err(code) => Applied::SessionRefused { device, nonce, code },
                };
                out.push(applied);
            }
            Command::SessionConfirm { session } => self.confirm_session(*session, out),
            Command::SessionLapse { session } => {
                if self.is_pending(*session) {
                    self.close_session(*session, Code::SessionOver, out);
                }
            }
            Command::SessionClose { session } => {
                self.close_session(*session, Code::SessionOver, out);
            }
            Command::Request { session, seq, answered_below, request, digest, may_make, options: _ } => {
                let numbered = NumberedRequest { seq: *seq, digest: *digest, may_make: *may_make, request };
                self.apply_request(op, *session, *answered_below, &numbered, out);
            }
            Command::SessionsClose(sessions) => {
                for session in sessions {
                    self.close_session(*session, Code::SessionOver, out);
                }
            }
            Command::Administer(admin) => self.administer(op, admin, out),
            Command::Expire(claim) => self.expire(claim, out),
            Command::Cursors(cursors) => self.move_cursors(cursors),
            Command::Trim { topic, upto } => self.trim(topic, *upto),
        }
    }

    /// Applies the request only if its number is the next one of a live session. Otherwise it changes
    /// nothing: the number was applied before, or a newer session has fenced this one, and then an old
    /// datagram must not take the number of a new request.
    fn apply_request(
        &mut self,
        op: Op,
        session: SessionId,
        answered_below: Seq,
        numbered: &NumberedRequest<'_>,
        out: &mut Vec<Applied>,
    ) {
        let NumberedRequest { seq, digest, may_make, request } = *numbered;
        let Some((open, device)) = self.state.live(session) else { return };
        let id = open.device;
        let repeats = self.planted.is(Planted::DuplicatesOnlyCommitted);
        if seq != device.last_seq.next() && !repeats {
            return;
        }
        let author = device.profile.clone();
        // The sessions that the request ends are reported after its answer, since its own may be among them.
        let mut ended = Vec::new();
        let result = match request {
            _ if !may_make && self.makes_channel(request) => Err(Code::TooManyNames),
            Request::Follow { topic, change: FollowChange::Add } => self.follow(op, &author, topic),
            Request::Follow { topic, change: FollowChange::Remove } => self.unfollow(op, &author, topic, out),
            Request::Send { topic, content } => self.send(op, &author, topic, content, out),
            Request::Keys { change } => self.change_keys(op, &author, *change, &mut ended),
            Request::Channel { channel, change } => self.change_channel(op, &author, channel, change, out),
            Request::Unsupported => Err(Code::Unsupported),
            Request::Retract { op: retracted, topic } => {
                self.retract(op, &author, *retracted, topic.as_ref(), out)
            }
            Request::Display { name } => {
                let profile = self.state.profiles.get_mut(&author).ok_or(Code::UnknownProfile);
                profile.map(|profile| profile.display.clone_from(name)).map(|()| op)
            }
            Request::Put { key, value, condition } => self.put(op, &author, key, value, *condition),
            Request::Delete { key, at } => self.delete(op, &author, key, *at),
        };
        if result.is_ok() {
            self.is_used(&author);
        }
        let kept_max = self.limits.outstanding;
        let forgotten = self.planted.is(Planted::ForgetsOneResultTooMany);
        let answered_below = if forgotten { answered_below.next() } else { answered_below };
        // The number is another one only with a planted bug.
        if let Some(device) = self.seen(id).filter(|device| seq == device.last_seq.next()) {
            while device.lowest_held() < answered_below && device.results.pop_front().is_some() {}
            device.last_seq = seq;
            device.results.push_back(Outcome { digest, result });
            while device.results.len() as u64 > kept_max {
                device.results.pop_front();
            }
        }
        let tells = self.tells(&author, request, result);
        out.push(Applied::Answered { session, seq, result, tells });
        out.append(&mut ended);
    }

    fn follow(&mut self, op: Op, name: &Name, topic: &Topic) -> Result<Op, Code> {
        can_follow(name, topic)?;
        self.may_read(name, topic)?;
        let limit = self.limits.follows;
        let profile = self.state.profiles.get(name).ok_or(Code::UnknownProfile)?;
        if profile.follows.contains_key(topic) {
            return Err(Code::AlreadyFollowing);
        }
        if profile.follows.len() >= limit {
            return Err(Code::LimitReached);
        }
        self.room_for(follow_bound(topic))?;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        let since = if self.planted.is(Planted::FollowFromBirth) { profile.claimed_op } else { op };
        profile.follows.insert(topic.clone(), since);
        self.index.counted.follows += follow_bound(topic);
        self.state.topics.get_or_new(topic).followers.insert(name.clone(), op);
        self.note_channel(topic);
        if let Topic::Feed(owner) = topic {
            self.is_used(owner);
        }
        Ok(op)
    }

    /// What is queued of the topic is not sent any more: so only those who follow a topic have its texts
    /// queued, and are told when one is taken away.
    fn unfollow(&mut self, op: Op, name: &Name, topic: &Topic, out: &mut Vec<Applied>) -> Result<Op, Code> {
        can_follow(name, topic)?;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        profile.follows.remove(topic).ok_or(Code::NotFollowing)?;
        self.index.counted.follows -= follow_bound(topic);
        let keeps = self.planted.is(Planted::UnfollowKeepsFollower);
        if let Some(topic) = self.state.topics.get_mut(topic).filter(|_| !keeps) {
            topic.followers.remove(name);
        }
        self.note_channel(topic);
        out.push(self.withdrawn(name));
        Ok(op)
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
        self.may_send(author, topic)?;
        let opens = match topic {
            Topic::Channel(channel) if !self.state.topics.channels.contains_key(channel) => Some(channel),
            Topic::Channel(_) | Topic::Feed(_) | Topic::Inbox(_) => None,
        };
        if let Some(channel) = opens {
            self.room_for(CHANNEL + MAKER)?;
            self.has_named_a_channel(author);
            self.has_made(author, channel);
        }
        let (unix_ms, options) = (self.state.clock_ms, &OptionalFields::NONE);
        let stored = Stored::of(Parts { op, topic, author, unix_ms, content, options });
        // Room is made before the notification is stored, so that it is not itself dropped.
        self.make_room(opens.map_or(0, |_| CHANNEL) + size_bound(topic, &stored));
        self.store(op, author, topic, stored, out);
        Ok(op)
    }

    /// Makes room for a notification that reports a change in its topic, and stores it.
    pub(super) fn report(
        &mut self,
        op: Op,
        author: &Name,
        topic: &Topic,
        notice: Notice,
        out: &mut Vec<Applied>,
    ) {
        let (unix_ms, content) = (self.state.clock_ms, &Content::of(""));
        let stored = Stored::of(Parts { op, topic, author, unix_ms, content, options: &notice.options() });
        self.make_room(size_bound(topic, &stored));
        self.store(op, author, topic, stored, out);
    }

    /// Stores a notification for which there is room.
    fn store(&mut self, op: Op, author: &Name, topic: &Topic, stored: Stored, out: &mut Vec<Applied>) {
        let topic_state = self.state.topics.get_or_new(topic);
        let before = (topic_state.retained.len() as u64, topic_state.bytes);
        topic_state.push(stored.clone());
        self.index.add_notification(topic, topic_state, before);
        self.note_channel(topic);
        if let Topic::Inbox(to) = topic {
            self.is_used(to);
        }
        if let Topic::Inbox(to) = topic
            && to != author
            && let Some(Profile { sent, .. }) = self.state.profiles.get_mut(author)
        {
            sent.push_back(Sent { op, to: to.clone() });
        }
        out.push(Applied::Notified { topic: topic.clone(), notification: stored });
    }

    /// The live receiving sessions that a notification of `topic` is addressed to, ascending. They are held
    /// until a command comes that may change them.
    pub fn addressed(&self, topic: &Topic) -> Arc<[SessionId]> {
        let mut audiences = self.audiences.borrow_mut();
        if let Some(sessions) = audiences.get(topic) {
            return Arc::clone(sessions);
        }
        let sessions: Arc<[SessionId]> = self.audience(topic).into();
        audiences.insert(topic.clone(), Arc::clone(&sessions));
        sessions
    }

    /// As [`Service::addressed`], without holding them: for commands that change them. Walks the followers or
    /// the profiles with receiving sessions, whichever are fewer, so that absent followers cost nothing.
    pub(super) fn audience(&self, topic: &Topic) -> Vec<SessionId> {
        let receiving = &self.index.receiving;
        let mut sessions: Vec<SessionId> = match (topic, self.state.topics.get(topic)) {
            (Topic::Inbox(owner), _) => receiving.get(owner).into_iter().flatten().copied().collect(),
            (_, None) => Vec::new(),
            (_, Some(topic_state)) if topic_state.followers.len() < receiving.len() => topic_state
                .followers
                .keys()
                .filter_map(|name| receiving.get(name))
                .flatten()
                .copied()
                .collect(),
            (_, Some(topic_state)) => receiving
                .iter()
                .filter(|(name, _)| topic_state.followers.contains_key(*name))
                .flat_map(|(_, sessions)| sessions)
                .copied()
                .collect(),
        };
        sessions.sort_unstable();
        sessions
    }
}

/// Returns true unless the command leaves all sessions, follows and rights as they are.
fn may_change_audiences(command: &Command, planted: PlantedBug) -> bool {
    if let Command::Request { request: Request::Follow { .. }, .. } = command {
        return !planted.is(Planted::FollowSeenLate);
    }
    !matches!(
        command,
        Command::Request {
            request: Request::Send { .. }
                | Request::Retract { .. }
                | Request::Display { .. }
                | Request::Put { .. }
                | Request::Delete { .. },
            ..
        } | Command::Cursors(_)
            | Command::Trim { .. }
    )
}

/// A numbered request and what was logged with it.
struct NumberedRequest<'a> {
    seq: Seq,
    digest: u64,
    may_make: bool,
    request: &'a Request,
}

/// Checks that `topic` is one that `name` can follow and unfollow at all.
fn can_follow(name: &Name, topic: &Topic) -> Result<(), Code> {
    match topic {
        Topic::Feed(owner) | Topic::Inbox(owner) if owner == name => Err(Code::Yourself),
        Topic::Inbox(_) => Err(Code::NotAllowed),
        Topic::Feed(_) | Topic::Channel(_) => Ok(()),
    }
}
