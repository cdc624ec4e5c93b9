//! What is replicated: plain records in persistent maps.
//!
//! WARNING: part of the snapshot's format; fields are only appended, and only at the end.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, DeviceKey, Name, Op, Seq, SessionId, Topic};
use crate::wire::packet::{Code, CodeHash, Notification, QueryId, Role};

/// 2026-01-01 in ms since 1970, before the first release: an earlier stamp is of a machine whose clock was not
/// set, as one without a battery begins in 1970, or when its system was made.
pub const EARLIEST_DATE_MS: u64 = 1_767_225_600_000;

/// Everything that is replicated. Persistent maps: a clone costs nothing, so a snapshot is written
/// from one by another thread while the replica thread goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last op applied.
    pub(super) applied: Op,
    /// The log's clock, in ms since 1970: the highest stamp so far.
    pub(super) clock_ms: u64,
    /// At most `Limits::profiles`; a further one is refused.
    pub(super) profiles: OrdMap<Name, Profile>,
    /// At most `Limits::devices` a profile; a further one displaces the oldest idle one.
    pub(super) devices: OrdMap<DeviceId, Device>,
    /// At most one live and one pending a device.
    pub(super) sessions: OrdMap<SessionId, Session>,
    /// Bounded by profiles and `Limits::channels`; what they hold, by retention.
    pub(super) topics: Topics,
    /// The first stamp that is a date ([`EARLIEST_DATE_MS`]); zero until there is one. Whatever was stamped
    /// before it ages from here on.
    pub(super) dated_ms: u64,
    /// Who may claim a name while not anybody may.
    pub(super) admitted: Admitted,
    /// What administrators asked, the newest last; at most `Limits::administered`.
    pub(super) administered: Vector<Administered>,
}

/// What an administrator asked, so that it is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Administered {
    /// Which question.
    pub(super) query: QueryId,
    /// When, in ms since 1970.
    pub(super) at_ms: u64,
    /// The op, or the refusal.
    pub(super) result: Result<Op, Code>,
}

/// What administrators have given out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Admitted {
    /// Open invitations, at most `Limits::invites`.
    pub(super) invites: OrdMap<CodeHash, Invite>,
    /// Allowed keys, at most `Limits::allowed`.
    pub(super) keys: OrdSet<DeviceKey>,
}

/// Whoever knows the code may claim a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invite {
    /// How many more names.
    pub(super) uses: u32,
    /// Until when, in ms since 1970.
    pub(super) until_ms: u64,
    /// Only this name.
    pub(super) name: Option<Name>,
}

/// How far a profile has shown that its name is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Usage {
    /// It was claimed.
    Claimed,
    /// It had a session.
    Entered,
    /// It had another, asked for something that was done, or somebody follows it, sent to it or made it a
    /// member.
    Used,
}

/// Who sends and follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// When it was claimed; its inbox is followed from here on.
    pub(super) born: Op,
    /// The keys whose devices may come in as it, the one that claimed it first; at most
    /// `Limits::keys`. None: it was released, and the next to come claims it.
    pub(super) keys: Vec<DeviceKey>,
    /// What it follows and the op of the follow; at most `Limits::follows`. Not its inbox, which it
    /// always follows.
    pub(super) follows: OrdMap<Topic, Op>,
    /// What it sent to inboxes of others and is still held there, ascending by op.
    pub(super) sent: Vector<Sent>,
    /// How many channels it owns; at most `Limits::channels_owned`.
    pub(super) owns: u64,
    /// The enrolment of a further key that is open.
    pub(super) enrolment: Option<Enrolment>,
    /// When it was claimed, in ms since 1970.
    pub(super) born_ms: u64,
    /// While it is less than used, its name may expire.
    pub(super) usage: Usage,
    /// Until when, in ms since 1970, its new channels are paid for: each costs `Limits::channel_every`, and it
    /// may be `Limits::channels_at_once` of them ahead of the log's clock.
    pub(super) channels_paid_ms: u64,
}

/// Whoever knows the code may add its key, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Enrolment {
    /// Of the code.
    pub(super) code: CodeHash,
    /// Until when, in ms since 1970.
    pub(super) until_ms: u64,
    /// Wrong codes so far.
    pub(super) wrong: u32,
}

/// A notification sent to an inbox, as its author finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Which notification.
    pub(super) op: Op,
    /// Whose inbox.
    pub(super) to: Name,
}

/// One slot of one installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// As whom it comes in, always.
    pub(super) profile: Name,
    /// The op that let it in: another device has another one, also of the same key and slot.
    pub(super) born: Op,
    /// Everything addressed to it up to here it has seen.
    pub(super) cursor: Op,
    /// The last number applied.
    pub(super) last_seq: Seq,
    /// The results its client may still ask for, of consecutive numbers up to `last_seq`; at most
    /// `Limits::outstanding`, the lowest go first.
    pub(super) results: Vector<Outcome>,
    /// Its live session.
    pub(super) session: Option<SessionId>,
    /// Its session that waits to be confirmed: it fences nothing, reads nothing and counts as
    /// nothing until then.
    pub(super) pending: Option<SessionId>,
    /// The nonces of its last sessions that are over.
    pub(super) spent: Vector<u64>,
    /// Whether any of its confirmed sessions received.
    pub(super) receives: bool,
    /// When it was last let in, asked or read something, in ms since 1970.
    pub(super) last_seen_ms: u64,
}

/// What became of a numbered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Which request had the number: see `Request::digest`.
    pub(super) digest: u64,
    /// The op, or the refusal.
    pub(super) result: Result<Op, Code>,
}

/// A session: live if its device says so, else pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Whose.
    pub(super) device: DeviceId,
    /// Whether it receives.
    pub(super) receives: bool,
    /// Of the CONNECT that opened it.
    pub(super) nonce: u64,
    /// When it was opened, in ms since 1970.
    pub(super) opened_ms: u64,
}

/// All topics. A feed or an inbox comes into being when something is first sent to it or follows
/// it, an open channel when something is first sent to it, an owned one when it is created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Topics {
    /// By owner.
    pub(super) feeds: OrdMap<Name, TopicState>,
    /// By name.
    pub(super) channels: OrdMap<Name, TopicState>,
    /// By owner.
    pub(super) inboxes: OrdMap<Name, TopicState>,
    /// By name: the channels that were created. All others are open to anyone.
    pub(super) owned: OrdMap<Name, Owned>,
    /// By name: which profile made a channel, as long as both are there; of a deleted one, as long as its name is
    /// taken. By it the places are shared.
    pub(super) makers: OrdMap<Name, Name>,
}

/// The rights in a channel that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owned {
    /// Whether only members follow and read it.
    pub(super) private: bool,
    /// At most `Limits::members`, at least one of them an owner, unless that one was removed.
    pub(super) members: OrdMap<Name, Role>,
    /// When it was created, in ms since 1970; of a deleted one, when it was deleted.
    pub(super) created_ms: u64,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicState {
    /// Who follows it and since when; an inbox has only its owner, who does not stand here.
    pub(super) followers: OrdMap<Name, Op>,
    /// What it holds, ascending by op, and so by `unix_ms`.
    pub(super) held: Vector<Arc<Notification>>,
    /// The weight of what it holds.
    pub(super) bytes: u64,
    /// The newest notification that retention dropped; zero: none.
    pub(super) trimmed_upto: Op,
    /// The newest notification ever.
    pub(super) last_op: Op,
}

impl State {
    /// A session that was confirmed and is not over, and its device.
    pub(super) fn live(&self, session: SessionId) -> Option<(&Session, &Device)> {
        let open = self.sessions.get(&session)?;
        let device = self.devices.get(&open.device)?;
        (device.session == Some(session)).then_some((open, device))
    }

    /// The mistake of a snapshot without the results of requests.
    pub(crate) fn without_results(mut self) -> State {
        let devices = self.devices.into_iter();
        self.devices =
            devices.map(|(id, device)| (id, Device { results: Vector::new(), ..device })).collect();
        self
    }

    /// As if no snapshot held digests: a mistake that is planted.
    pub(super) fn drop_digests(&mut self) {
        let of_all = std::mem::take(&mut self.devices).into_iter().map(|(id, mut device)| {
            device.results = device.results.into_iter().map(|of| Outcome { digest: 0, ..of }).collect();
            (id, device)
        });
        self.devices = of_all.collect();
    }

    /// The devices of a profile, key by key. Ids start with the key, so they are found without
    /// a second table.
    pub(super) fn devices_of<'a>(
        &'a self,
        name: &'a Name,
        profile: &'a Profile,
    ) -> impl Iterator<Item = (&'a DeviceId, &'a Device)> + 'a {
        profile
            .keys
            .iter()
            .flat_map(|key| {
                let slot = |slot| DeviceId { key: *key, slot };
                self.devices.range(slot(u8::MIN)..=slot(u8::MAX))
            })
            .filter(move |(_, device)| device.profile == *name)
    }
}

impl Device {
    /// The lowest number whose result is held; with none, the next number.
    pub(super) fn lowest_held(&self) -> Seq {
        Seq((self.last_seq.0 + 1).saturating_sub(self.results.len() as u64))
    }

    /// What became of a number, as far as it is held.
    pub(super) fn outcome(&self, seq: Seq) -> Option<&Outcome> {
        let at = seq.0.checked_sub(self.lowest_held().0)?;
        self.results.get(usize::try_from(at).ok()?)
    }
}

impl Profile {
    /// What a profile's stream is made of: the topics and the op from which each counts.
    pub(super) fn followed<'a>(&'a self, name: &Name) -> impl Iterator<Item = (Topic, Op)> + 'a {
        let inbox = (Topic::Inbox(name.clone()), self.born);
        self.follows.iter().map(|(topic, since)| (topic.clone(), *since)).chain([inbox])
    }
}

impl Topics {
    fn map(&self, topic: &Topic) -> &OrdMap<Name, TopicState> {
        match topic {
            Topic::Feed(_) => &self.feeds,
            Topic::Channel(_) => &self.channels,
            Topic::Inbox(_) => &self.inboxes,
        }
    }

    fn map_mut(&mut self, topic: &Topic) -> &mut OrdMap<Name, TopicState> {
        match topic {
            Topic::Feed(_) => &mut self.feeds,
            Topic::Channel(_) => &mut self.channels,
            Topic::Inbox(_) => &mut self.inboxes,
        }
    }

    pub(super) fn get(&self, topic: &Topic) -> Option<&TopicState> {
        self.map(topic).get(topic.name())
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut TopicState> {
        self.map_mut(topic).get_mut(topic.name())
    }

    /// The topic, an empty one if it was not there.
    pub(super) fn get_or_new(&mut self, topic: &Topic) -> &mut TopicState {
        self.map_mut(topic).entry(topic.name().clone()).or_default()
    }

    /// Takes a topic out, whatever it holds.
    pub(super) fn remove(&mut self, topic: &Topic) -> Option<TopicState> {
        self.map_mut(topic).remove(topic.name())
    }

    /// What an author once sent to an inbox.
    pub(super) fn sent(&self, sent: &Sent) -> Option<&Arc<Notification>> {
        let held = &self.inboxes.get(&sent.to)?.held;
        held.get(first(held.len(), |at| held[at].op >= sent.op)).filter(|held| held.op == sent.op)
    }

    /// Whether a channel was deleted and its name stays taken, by nobody.
    pub(super) fn is_deleted(&self, channel: &Name) -> bool {
        self.owned.contains_key(channel) && !self.channels.contains_key(channel)
    }

    /// Since when a channel is of no use to anybody, if it is of none: an open one that holds nothing and that
    /// nobody follows, from the beginning of time; one that was created, since then, if besides nothing was
    /// ever sent to it and its owner is alone.
    pub(super) fn idle_since(&self, channel: &Name) -> Option<u64> {
        let held = self.channels.get(channel)?;
        if !held.held.is_empty() || !held.followers.is_empty() {
            return None;
        }
        match self.owned.get(channel) {
            None => Some(0),
            Some(owned) => (held.last_op == Op::ZERO && owned.members.len() <= 1).then_some(owned.created_ms),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Topic, &TopicState)> {
        let feeds = self.feeds.iter().map(|(name, topic)| (Topic::Feed(name.clone()), topic));
        let channels = self.channels.iter().map(|(name, topic)| (Topic::Channel(name.clone()), topic));
        let inboxes = self.inboxes.iter().map(|(name, topic)| (Topic::Inbox(name.clone()), topic));
        feeds.chain(channels).chain(inboxes)
    }
}

impl TopicState {
    /// Stores a notification at the end.
    pub(super) fn push(&mut self, notification: Arc<Notification>) {
        self.bytes += weight(&notification);
        self.last_op = notification.op;
        self.held.push_back(notification);
    }

    /// Drops the oldest notification if it is not above `upto`.
    pub(super) fn drop_oldest(&mut self, upto: Op) -> Option<Arc<Notification>> {
        if self.held.front()?.op > upto {
            return None;
        }
        let dropped = self.held.pop_front()?;
        self.bytes -= weight(&dropped);
        self.trimmed_upto = dropped.op;
        Some(dropped)
    }
}

/// What a notification counts beside its texts.
pub(super) const REST: u64 = 64;

/// What a notification counts against the limits of its topic in bytes: its texts and a little for the rest.
pub(super) fn weight(notification: &Notification) -> u64 {
    let content = &notification.content;
    let title = content.title.as_ref().map_or(0, String::len);
    let tags: usize = content.tags.iter().map(String::len).sum();
    (content.body.len() + title + tags) as u64 + REST
}

/// The first of `len` places where `reached` holds, `len` if none; once it holds it holds for all
/// that follow.
pub(super) fn first(len: usize, reached: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if reached(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
