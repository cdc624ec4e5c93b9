//! The replicated state: plain records in persistent maps.
//!
//! WARNING: part of the snapshot's format, pinned by golden bytes. Variants may be appended, fields never:
//! any change of a struct's fields needs another format of the snapshot (`Image::FORMAT` of the server).

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use recado_proto::id::{ChannelName, DeviceId, DeviceKey, Name, Op, Seq, SessionId, StoreKey, Topic};
use recado_proto::packet::{Body, Code, CodeHash, Content, DisplayName, OptionalFields, QueryId, Role};
use recado_proto::seal::Aead;

use super::stored::Stored;

/// 2026-01-01 in ms since 1970, before the first release. An earlier stamp comes from a machine whose clock
/// was not set: one without a battery starts in 1970 or at the date when its system image was made.
pub const EARLIEST_DATE_MS: u64 = 1_767_225_600_000;

/// The whole replicated state. Its maps are persistent and share structure, so a clone is cheap: another
/// thread writes a snapshot from a clone while the replica thread goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last op applied.
    pub(super) applied: Op,
    /// The log's clock, in ms since 1970: the highest stamp so far.
    pub(super) clock_ms: u64,
    /// The profiles; at most `Limits::profiles`, a further one is refused.
    pub(super) profiles: OrdMap<Name, Profile>,
    /// The devices; at most `Limits::devices` of one profile, a further one displaces the oldest idle one.
    pub(super) devices: OrdMap<DeviceId, Device>,
    /// The sessions; at most one live and one pending of one device.
    pub(super) sessions: OrdMap<SessionId, Session>,
    /// The topics. Their number is bounded by the profiles and `Limits::channels`, their contents by
    /// retention.
    pub(super) topics: Topics,
    /// The first stamp that is a date ([`EARLIEST_DATE_MS`]); zero until there is one. The age of anything
    /// stamped earlier is counted from here.
    pub(super) dated_ms: u64,
    /// The invitations and allowed keys that permit claims while not everybody may claim a name.
    pub(super) admitted: Admitted,
    /// The results of ADMINs, the newest last; at most `Limits::administered`.
    pub(super) administered: Vector<Administered>,
    /// The values of the store; at most `Limits::store_bytes`, a further one is refused.
    pub(super) values: OrdMap<StoreKey, Value>,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Value {
    /// The value.
    pub(super) value: Arc<Body>,
    /// The op that wrote it.
    pub(super) timestamp: Op,
    /// The profile that wrote it, for which it counts.
    pub(super) author: Name,
}

/// An ADMIN and its result, held so that a repeated ADMIN changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Administered {
    /// The id of the ADMIN.
    pub(super) query: QueryId,
    /// The log's time when it was applied, in ms since 1970.
    pub(super) at_ms: u64,
    /// The op, or the reason of the refusal.
    pub(super) result: Result<Op, Code>,
}

/// The permissions to claim names that administrators have given out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Admitted {
    /// Open invitations, at most `Limits::invites`.
    pub(super) invites: OrdMap<CodeHash, Invite>,
    /// Allowed keys, at most `Limits::allowed`.
    pub(super) keys: OrdSet<DeviceKey>,
}

/// An invitation: a client that knows its code may claim a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invite {
    /// The number of names that may still be claimed with it.
    pub(super) uses: u32,
    /// Its expiry by the log's clock, in ms since 1970.
    pub(super) until_ms: u64,
    /// The only name it is valid for; none: it is valid for any name.
    pub(super) name: Option<Name>,
}

/// The evidence that a profile's name is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Usage {
    /// It was claimed.
    Claimed,
    /// It had one session.
    Entered,
    /// It had a second session, or had a numbered request accepted, or another profile followed it, sent to
    /// it or made it a member.
    Used,
}

/// A profile: the party that sends and follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// The op that claimed it. Its inbox is followed from this op on.
    pub(super) claimed_op: Op,
    /// The keys whose devices may connect as this profile, the claiming key first; at most `Limits::keys`.
    /// Empty if the name was released: the next device that connects claims it.
    pub(super) keys: Vec<DeviceKey>,
    /// The topics it follows, with the op of each follow; at most `Limits::follows`. Its own inbox is not
    /// listed, it is always followed.
    pub(super) follows: OrdMap<Topic, Op>,
    /// The notifications that it sent to inboxes of others and that are still held there, ascending by op.
    pub(super) sent: Vector<Sent>,
    /// The number of channels it owns; at most `Limits::channels_owned`.
    pub(super) owns: u64,
    /// The open enrolment of a further key.
    pub(super) enrolment: Option<Enrolment>,
    /// The log's time when it was claimed, in ms since 1970.
    pub(super) claimed_ms: u64,
    /// The evidence that the name is used. Below [`Usage::Used`] the name may expire.
    pub(super) usage: Usage,
    /// The time until which its new channels are charged, in ms since 1970 (a token bucket): each channel
    /// adds `Limits::channel_every`, and the time may be at most `Limits::channels_at_once` times that ahead
    /// of the log's clock.
    pub(super) channels_paid_ms: u64,
    /// What it calls itself beside its name.
    pub(super) display: Option<DisplayName>,
}

/// An open enrolment: a client that knows its code may add its key, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Enrolment {
    /// The hash of the code.
    pub(super) code: CodeHash,
    /// Its expiry by the log's clock, in ms since 1970.
    pub(super) until_ms: u64,
    /// The number of wrong codes tried so far.
    pub(super) wrong: u32,
}

/// A notification sent to an inbox, as its author's history refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// The op of the notification.
    pub(super) op: Op,
    /// The owner of the inbox.
    pub(super) to: Name,
}

/// A device: one slot of one installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// The profile it connects as; it never changes.
    pub(super) profile: Name,
    /// The op that admitted it. A device that is forgotten and admitted again, with the same key and slot,
    /// gets another op.
    pub(super) created_op: Op,
    /// The cursor: the device has seen everything addressed to it up to this op.
    pub(super) cursor: Op,
    /// The last request number applied.
    pub(super) last_seq: Seq,
    /// The results that its client may still ask for, of consecutive numbers up to `last_seq`; at most
    /// `Limits::outstanding`, the lowest are dropped first.
    pub(super) results: Vector<Outcome>,
    /// Its live session.
    pub(super) session: Option<SessionId>,
    /// Its pending session, which waits to be confirmed. Until then it fences nothing and reads nothing.
    pub(super) pending: Option<SessionId>,
    /// The CONNECT nonces of the last sessions that ended, at most `RECENT_NONCES_MAX`.
    pub(super) recent_nonces: Vector<u64>,
    /// True if any of its confirmed sessions received.
    pub(super) receives: bool,
    /// The log's time when it was last admitted or had a session confirmed, a request applied or its cursor
    /// reported, in ms since 1970.
    pub(super) last_seen_ms: u64,
}

/// The outcome of a numbered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// The digest of the request that had the number (`Request::digest`).
    pub(super) digest: u64,
    /// The op, or the reason of the refusal.
    pub(super) result: Result<Op, Code>,
}

/// A session. It is live if its device's `session` names it, else pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The device of the session.
    pub(super) device: DeviceId,
    /// True if it receives notifications.
    pub(super) receives: bool,
    /// The nonce of the CONNECT that opened it.
    pub(super) nonce: u64,
    /// The AEAD of its datagrams.
    pub(super) aead: Aead,
    /// The log's time when it was opened, in ms since 1970.
    pub(super) opened_ms: u64,
}

/// All topics. A feed or an inbox is created by the first send to it or follow of it, an open channel by the
/// first send to it, an owned channel by CHANNEL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Topics {
    /// The feeds, by owner.
    pub(super) feeds: OrdMap<Name, TopicState>,
    /// The channels, by name.
    pub(super) channels: OrdMap<ChannelName, TopicState>,
    /// The inboxes, by owner.
    pub(super) inboxes: OrdMap<Name, TopicState>,
    /// The rights in the channels that were created by CHANNEL and in deleted ones, by name. All other
    /// channels are open to anyone.
    pub(super) owned: OrdMap<ChannelName, Owned>,
    /// The profile that made each channel, by the channel's name, while both exist; for a deleted channel,
    /// while its name is taken. Each maker's share of the places is counted by it.
    pub(super) makers: OrdMap<ChannelName, Name>,
}

/// The rights in a channel that was created, or that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owned {
    /// True if only members may follow and read it.
    pub(super) private: bool,
    /// The members; at most `Limits::members`. At least one is an owner, unless the owner's profile was
    /// removed or the channel is deleted.
    pub(super) members: OrdMap<Name, Role>,
    /// The log's time when it was created, in ms since 1970; of a deleted channel, the time of the deletion.
    pub(super) created_ms: u64,
    /// True if the channel was deleted: it holds at most the notice of that, nobody may read it or send to
    /// it, and its name is taken. Its followers stay until the name is free, so that those who are away find
    /// the notice in their streams.
    pub(super) deleted: bool,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicState {
    /// The followers, each with the op of its follow. An inbox is followed by its owner alone, who is not
    /// listed.
    pub(super) followers: OrdMap<Name, Op>,
    /// The notifications it holds, ascending by op and therefore by `unix_ms`.
    pub(super) retained: Vector<Stored>,
    /// The weight of the notifications it holds ([`weight`]).
    pub(super) bytes: u64,
    /// The op of the newest notification that was dropped; zero if none was.
    pub(super) trimmed_upto: Op,
    /// The op of the newest notification ever stored in it.
    pub(super) last_op: Op,
}

impl State {
    /// A live session (confirmed and not ended) and its device.
    pub(super) fn live(&self, session: SessionId) -> Option<(&Session, &Device)> {
        let open = self.sessions.get(&session)?;
        let device = self.devices.get(&open.device)?;
        (device.session == Some(session)).then_some((open, device))
    }

    /// A planted bug: a copy whose snapshot lacks the results of requests.
    pub fn without_results(mut self) -> State {
        let devices = self.devices.into_iter();
        self.devices =
            devices.map(|(id, device)| (id, Device { results: Vector::new(), ..device })).collect();
        self
    }

    /// A planted bug: clears the digests, as if a snapshot did not hold them.
    pub(super) fn drop_digests(&mut self) {
        let of_all = std::mem::take(&mut self.devices).into_iter().map(|(id, mut device)| {
            device.results = device.results.into_iter().map(|of| Outcome { digest: 0, ..of }).collect();
            (id, device)
        });
        self.devices = of_all.collect();
    }

    /// As [`Topics::idle_since`], and a channel with a value in the store is in use.
    pub(super) fn idle_since(&self, channel: &ChannelName) -> Option<u64> {
        let since_ms = self.topics.idle_since(channel)?;
        let holds = self.keys_of(&Topic::Channel(channel.clone())).next().is_some();
        (!holds).then_some(since_ms)
    }

    /// The devices of a profile, key by key. Device ids start with the key, so ranges of the map find them
    /// without a second table.
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
    /// The lowest number whose result is held; the next number if none is held.
    pub(super) fn lowest_held(&self) -> Seq {
        Seq((self.last_seq.0 + 1).saturating_sub(self.results.len() as u64))
    }

    /// The outcome of a request number, if it is held.
    pub(super) fn outcome(&self, seq: Seq) -> Option<&Outcome> {
        let at = seq.0.checked_sub(self.lowest_held().0)?;
        self.results.get(usize::try_from(at).ok()?)
    }
}

impl Profile {
    /// The topics of a profile's stream, each with the op after which its notifications count.
    pub(super) fn followed<'a>(&'a self, name: &Name) -> impl Iterator<Item = (Topic, Op)> + 'a {
        let inbox = (Topic::Inbox(name.clone()), self.claimed_op);
        self.follows.iter().map(|(topic, since)| (topic.clone(), *since)).chain([inbox])
    }
}

impl Topics {
    pub(super) fn get(&self, topic: &Topic) -> Option<&TopicState> {
        match topic {
            Topic::Feed(owner) => self.feeds.get(owner),
            Topic::Channel(channel) => self.channels.get(channel),
            Topic::Inbox(owner) => self.inboxes.get(owner),
        }
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut TopicState> {
        match topic {
            Topic::Feed(owner) => self.feeds.get_mut(owner),
            Topic::Channel(channel) => self.channels.get_mut(channel),
            Topic::Inbox(owner) => self.inboxes.get_mut(owner),
        }
    }

    /// The topic; created empty if it does not exist.
    pub(super) fn get_or_new(&mut self, topic: &Topic) -> &mut TopicState {
        match topic {
            Topic::Feed(owner) => self.feeds.entry(owner.clone()).or_default(),
            Topic::Channel(channel) => self.channels.entry(channel.clone()).or_default(),
            Topic::Inbox(owner) => self.inboxes.entry(owner.clone()).or_default(),
        }
    }

    /// Removes a topic and returns it, whatever it holds.
    pub(super) fn remove(&mut self, topic: &Topic) -> Option<TopicState> {
        match topic {
            Topic::Feed(owner) => self.feeds.remove(owner),
            Topic::Channel(channel) => self.channels.remove(channel),
            Topic::Inbox(owner) => self.inboxes.remove(owner),
        }
    }

    /// The notification that a [`Sent`] refers to.
    pub(super) fn sent(&self, sent: &Sent) -> Option<&Stored> {
        let inbox = self.inboxes.get(&sent.to)?;
        inbox.retained.get(inbox.place(sent.op)?)
    }

    /// Returns true if the channel was deleted and its name is still taken.
    pub(super) fn is_deleted(&self, channel: &ChannelName) -> bool {
        self.owned.get(channel).is_some_and(|owned| owned.deleted)
    }

    /// The time since which a channel is unused, in ms since 1970; none if it is in use. It is unused if it
    /// holds nothing, nobody follows it, and, for a created channel, nothing was ever sent to it and it has
    /// at most one member. The time is that of its creation; for an open channel it is 0.
    fn idle_since(&self, channel: &ChannelName) -> Option<u64> {
        let topic_state = self.channels.get(channel)?;
        if !topic_state.retained.is_empty() || !topic_state.followers.is_empty() {
            return None;
        }
        match self.owned.get(channel) {
            None => Some(0),
            Some(Owned { deleted: true, .. }) => None,
            Some(owned) => {
                (topic_state.last_op == Op::ZERO && owned.members.len() <= 1).then_some(owned.created_ms)
            }
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
    pub(super) fn push(&mut self, notification: Stored) {
        self.bytes += notification.weight();
        self.last_op = notification.op();
        self.retained.push_back(notification);
    }

    /// The place of the notification of this op, if the topic holds it.
    pub(super) fn place(&self, op: Op) -> Option<usize> {
        // Most topics that are searched do not reach this far.
        if op > self.last_op || op < self.retained.front()?.op() {
            return None;
        }
        let at = first(self.retained.len(), |at| self.retained[at].op() >= op);
        (self.retained.get(at)?.op() == op).then_some(at)
    }

    /// Puts another notification with the same op in a place.
    pub(super) fn replace(&mut self, at: usize, notification: Stored) {
        self.bytes += notification.weight();
        self.bytes -= self.retained.set(at, notification).weight();
    }

    /// Drops the oldest notification if its op is at most `upto`, and returns it.
    pub(super) fn drop_oldest(&mut self, upto: Op) -> Option<Stored> {
        if self.retained.front()?.op() > upto {
            return None;
        }
        let dropped = self.retained.pop_front()?;
        self.bytes -= dropped.weight();
        self.trimmed_upto = dropped.op();
        Some(dropped)
    }
}

/// The weight of a notification without its texts.
pub(super) const REST: u64 = 64;

/// The bytes of an entry of `extra` beside its key and value: the lengths of both.
const EXTRA_REST: usize = 1 + 3;

/// The weight of a notification against the limits of its topic, in bytes: its texts and [`REST`].
pub(super) fn weight(content: &Content, options: &OptionalFields) -> u64 {
    let title = content.title.as_ref().map_or(0, String::len);
    let tags: usize = content.tags.iter().map(String::len).sum();
    let extra = content.extra_len() + EXTRA_REST * content.extra.len();
    (content.body.len() + title + tags + extra + options.size()) as u64 + REST
}

/// The first index below `len` for which `reached` holds, or `len` if there is none. `reached` must be
/// monotonic: once it holds, it holds for all later indices.
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
