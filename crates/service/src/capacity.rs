//! The size of the whole state: its upper limit, and what is dropped or refused when it is reached.
//!
//! A snapshot of the state must fit into what a peer accepts ([`SnapshotChunk::TOTAL_MAX`]), or no server
//! could start again. So the weight of everything is an upper bound of its encoded size, and apply keeps the
//! sum within `Limits::state_bytes`. Computing the sum does not walk the state: it uses the lengths of the
//! maps, and counts that are updated with each change.
//!
//! The three kinds of contents are treated differently when the state is full.
//!
//! **Notifications** are dropped: the oldest one of the largest topic, until the new one fits; the topic's
//! readers get a gap, as with retention. If new ones were refused instead, one profile could stop all others
//! by filling the state once. As it is, a profile that fills the state loses its own notifications first: a
//! topic loses nothing while it holds less than an even share of the room among the topics, however much
//! another topic holds.
//!
//! **Records** (profiles, keys, devices, follows, channels, members) cannot be dropped without breaking what
//! people set up. They have a part of the room, `Limits::record_bytes`, and a further record is refused
//! (LimitReached). Existing devices are not affected: the results that their requests leave are weighed in
//! full when the device is admitted. The rest of the room is for notifications and for the results of ADMINs,
//! which are bounded in number and a few bytes each, so that a state full of records does not refuse an
//! administrator.
//!
//! **Values** of the store have a part of their own, `Limits::store_bytes`, and a further one is refused, as
//! a record is. A store that is full takes no room from records, and leaves room for notifications.

use recado_proto::id::{ChannelName, Name, StoreKey, Topic};
use recado_proto::packet::{Body, Code, Content, DisplayName, OptionalFields, SnapshotChunk};

use super::state::TopicState;
use super::{Service, Stored};
use crate::limits::Limits;

// The most bytes that each part takes in a snapshot: an integer of variable length has up to nine bytes, a
// name and a list are preceded by their length. A follow and a notification, of which there may be many,
// weigh the name that their topic has: a channel's may be four times as long as a profile's. A test encodes
// the largest of each.
const U64: u64 = 9;
const LENGTH: u64 = U64;
const NAME: u64 = 1 + Name::LEN_MAX as u64;
const CHANNEL_NAME: u64 = 1 + ChannelName::LEN_MAX as u64;
pub(super) const KEY: u64 = 32;
const DEVICE_ID: u64 = KEY + 1;
/// A topic without its name.
const TOPIC_STATE: u64 = 2 * LENGTH + 3 * U64;
const ENROLMENT: u64 = 1 + 32 + U64 + 5;
const SESSION: u64 = U64 + DEVICE_ID + 1 + 2 * U64;
/// One result: the digest and the outcome. Its number is not stored, because the numbers are consecutive.
const RESULT: u64 = U64 + 1 + U64;
const NONCES: u64 = LENGTH + super::sessions::RECENT_NONCES_MAX as u64 * U64;
/// A profile with its feed and its inbox.
pub(super) const PROFILE: u64 =
    NAME + 4 * U64 + 3 * LENGTH + ENROLMENT + 1 + DISPLAY + 2 * (NAME + TOPIC_STATE);
/// A display name, if there is one.
const DISPLAY: u64 = 2 + DisplayName::LEN_MAX as u64;
/// A follow without its topic: its record at the profile and its record at the topic.
const FOLLOW: u64 = U64 + NAME + U64;
pub(super) const CHANNEL: u64 = CHANNEL_NAME + TOPIC_STATE;
/// The rights in a channel, also of one that was deleted.
pub(super) const OWNED: u64 = CHANNEL_NAME + 2 + LENGTH + U64;
/// The record of a channel's maker.
pub(super) const MAKER: u64 = CHANNEL_NAME + NAME;
/// An open invitation.
pub(super) const INVITE: u64 = 32 + 5 + U64 + 1 + NAME;
/// An ADMIN and its result.
pub(super) const ADMINISTERED: u64 = 2 * U64 + 1 + U64;
pub(super) const MEMBER: u64 = NAME + 1;
/// A device without its results.
const DEVICE: u64 = DEVICE_ID + NAME + 3 * U64 + LENGTH + 2 * (1 + U64) + NONCES + 1 + U64 + 2 * SESSION;
/// A value without its key and its bytes: the lengths of both and whether it is text, timestamp and author.
const VALUE: u64 = 3 + 1 + 3 + U64 + NAME;
/// A notification without its topic and its texts, and the reference to it in its author's list of sent ones.
pub(super) const HEADER: u64 =
    U64 + NAME + U64 + (1 + 3) + 1 + (1 + Content::TAGS_MAX as u64) + (1 + 3) + 3 + OPTIONS + U64 + NAME;
/// The list of a notification's optional fields, and the tag and length of each.
const OPTIONS: u64 = 1 + OptionalFields::FIELDS_MAX as u64 * (3 + 3);
/// The bytes of a snapshot beside all these.
const IMAGE: u64 = 1024;

const _: () = assert!(
    Limits::STATE_BYTES + IMAGE <= SnapshotChunk::TOTAL_MAX
        && Limits::RECORD_BYTES + Limits::STORE_BYTES + 64 * Content::BODY_MAX as u64 <= Limits::STATE_BYTES,
    "a snapshot of a full state is taken, and records and values leave room for notifications"
);

/// Counts of the state that are not the length of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Keys of all profiles.
    pub(super) keys: u64,
    /// The weight of all follows, by [`follow_bound`].
    pub(super) follows: u64,
    /// Members of all channels.
    pub(super) members: u64,
    /// The weight of all notifications held, by [`size_bound`].
    pub(super) retained: u64,
    /// The weight of all values of the store, by [`value_bound`].
    pub(super) values: u64,
}

impl Service {
    /// The weight of the whole state, an upper bound of its encoded size in bytes.
    pub(super) fn weight(&self) -> u64 {
        let administered = ADMINISTERED * self.state.administered.len() as u64;
        self.records() + self.index.counted.retained + self.index.counted.values + administered
    }

    /// The weight of all records: everything except notifications, values and the results of ADMINs.
    pub(super) fn records(&self) -> u64 {
        let (state, counted) = (&self.state, &self.index.counted);
        let of = |each: u64, count: usize| each * count as u64;
        of(PROFILE, state.profiles.len())
            + of(self.device_weight(), state.devices.len())
            + of(CHANNEL, state.topics.channels.len())
            + of(OWNED, state.topics.owned.len())
            + of(MAKER, state.topics.makers.len())
            + of(INVITE, state.admitted.invites.len())
            + of(KEY, state.admitted.keys.len())
            + KEY * counted.keys
            + counted.follows
            + MEMBER * counted.members
    }

    /// The weight of a device with the most results and sessions it can have at a time.
    pub(super) fn device_weight(&self) -> u64 {
        DEVICE + RESULT * self.limits.outstanding
    }

    /// Makes room for records of this weight.
    ///
    /// # Errors
    /// LimitReached: the records would exceed `Limits::record_bytes`. Nothing changed.
    pub(super) fn room_for(&mut self, records: u64) -> Result<(), Code> {
        self.may_hold(records)?;
        self.make_room(records);
        Ok(())
    }

    /// Checks that there may be records of this weight more.
    ///
    /// # Errors
    /// LimitReached.
    pub(super) fn may_hold(&self, records: u64) -> Result<(), Code> {
        let most = self.limits.record_bytes;
        if self.records() + records > most { Err(Code::LimitReached) } else { Ok(()) }
    }

    /// Makes room for `bytes` more: drops the oldest notification of the topic that is the largest at each
    /// step. A step costs the logarithm of the number of topics, and each notification is dropped once.
    pub(super) fn make_room(&mut self, bytes: u64) {
        while self.weight() + bytes > self.limits.state_bytes {
            let Some((_, largest)) = self.index.bytes.last().cloned() else { return };
            let topic_state = self.state.topics.get(&largest);
            let Some(oldest) =
                topic_state.and_then(|topic_state| topic_state.retained.front()).map(Stored::op)
            else {
                return;
            };
            self.trim(&largest, oldest);
        }
    }
}

/// The weight of the reference to a topic: its kind and its name.
fn topic_bound(topic: &Topic) -> u64 {
    1 + 1 + topic.name().len() as u64
}

/// The weight of a value in the state.
pub(super) fn value_bound(key: &StoreKey, value: &Body) -> u64 {
    (key.as_str().len() + value.len()) as u64 + VALUE
}

/// The weight of a follow of a topic.
pub(super) fn follow_bound(topic: &Topic) -> u64 {
    topic_bound(topic) + FOLLOW
}

/// The part of a notification's weight in the state that [`Stored::weight`] does not count.
pub(super) fn overhead(topic: &Topic) -> u64 {
    topic_bound(topic) + HEADER - super::state::REST
}

/// The weight of one notification in the state.
pub(super) fn size_bound(topic: &Topic, notification: &Stored) -> u64 {
    notification.weight() + overhead(topic)
}

/// The weight of all notifications of a topic.
pub(super) fn all_retained(topic: &Topic, topic_state: &TopicState) -> u64 {
    topic_state.bytes + overhead(topic) * topic_state.retained.len() as u64
}
