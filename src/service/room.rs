//! How much the whole state may weigh, and what gives way when it is full.
//!
//! A snapshot of the state must fit what a peer takes ([`SnapshotChunk::TOTAL_MAX`]), or no server could
//! start again. So everything weighs at least what its encoding can be at most, and apply keeps the sum
//! within `Limits::state_bytes`. It never walks the state for it: lengths are at hand, and the rest is
//! counted where it changes.
//!
//! Two things fill the state, and they give way differently.
//!
//! **Notifications** are dropped: the oldest of the topic that holds the most, until the new one fits, and
//! its readers get a gap as from any retention. A refusal instead would let one profile stop everybody:
//! fill the state once, and nobody sends any more. This way whoever fills it loses its own first, and a
//! topic is not touched while it holds less than an even share of the room, however many another fills.
//!
//! **Records** (profiles, keys, devices, follows, channels, members) cannot be dropped without breaking what
//! people set up. They have a part of the room, `Limits::record_bytes`; a further one is refused
//! (LimitReached), and those there are go on: what a request of theirs may leave behind is paid for
//! when the device is admitted. What the records leave is always the notifications', but for what administrators
//! asked: a few bytes each, and a bounded number of them, that a state full of records must not refuse.

use super::Service;
use super::state::{TopicState, weight};
use crate::config::Limits;
use crate::id::Name;
use crate::wire::packet::{Code, Content, Notification, SnapshotChunk};

// The most that each part takes in a snapshot: integers of variable length have up to nine bytes, a name
// stands behind its length, and so does every list. A test encodes the largest of each.
const U64: u64 = 9;
const LENGTH: u64 = U64;
const NAME: u64 = 1 + Name::LEN_MAX as u64;
const TOPIC: u64 = 1 + NAME;
pub(super) const KEY: u64 = 32;
const DEVICE_ID: u64 = KEY + 1;
const TOPIC_STATE: u64 = NAME + 2 * LENGTH + 3 * U64;
const ENROLMENT: u64 = 1 + 32 + U64 + 5;
const SESSION: u64 = U64 + DEVICE_ID + 1 + 2 * U64;
/// With the digest, and without the number: they are consecutive.
const RESULT: u64 = U64 + 1 + U64;
const SPENT: u64 = LENGTH + super::sessions::SPENT_MAX as u64 * U64;
/// With its feed and its inbox.
pub(super) const PROFILE: u64 = NAME + 4 * U64 + 3 * LENGTH + ENROLMENT + 1 + 2 * TOPIC_STATE;
/// At the profile and at the topic.
pub(super) const FOLLOW: u64 = TOPIC + U64 + NAME + U64;
pub(super) const CHANNEL: u64 = TOPIC_STATE;
/// The rights in a channel, also of one that was deleted.
pub(super) const OWNED: u64 = NAME + 1 + LENGTH + U64;
/// Who made a channel.
pub(super) const MAKER: u64 = 2 * NAME;
/// An open invitation.
pub(super) const INVITE: u64 = 32 + 5 + U64 + 1 + NAME;
/// What an administrator asked.
pub(super) const ADMINISTERED: u64 = 2 * U64 + 1 + U64;
pub(super) const MEMBER: u64 = NAME + 1;
/// Without the results.
const DEVICE: u64 = DEVICE_ID + NAME + 3 * U64 + LENGTH + 2 * (1 + U64) + SPENT + 1 + U64 + 2 * SESSION;
/// A notification's, beside its texts: its header, and where its author finds it again.
const HEADER: u64 = U64 + TOPIC + NAME + U64 + (1 + 3) + 1 + (1 + Content::TAGS_MAX as u64) + 3 + U64 + NAME;
/// Beyond what retention counts it for.
const BEYOND: u64 = HEADER - super::state::REST;
/// What a snapshot holds beside all these.
const IMAGE: u64 = 1024;

const _: () = assert!(
    Limits::STATE_BYTES + IMAGE <= SnapshotChunk::TOTAL_MAX
        && Limits::RECORD_BYTES + 64 * Content::BODY_MAX as u64 <= Limits::STATE_BYTES,
    "a snapshot of a full state is taken, and records leave room for notifications"
);

/// What no length of the state tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Keys of all profiles.
    pub(super) keys: u64,
    /// Follows of all profiles.
    pub(super) follows: u64,
    /// Members of all channels.
    pub(super) members: u64,
    /// The weight of all notifications held.
    pub(super) held: u64,
}

impl Service {
    /// The weight of the whole state: at least the bytes of its encoding.
    pub(super) fn weight(&self) -> u64 {
        let administered = ADMINISTERED * self.state.administered.len() as u64;
        self.records() + self.index.counted.held + administered
    }

    /// The weight of all that is no notification.
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
            + FOLLOW * counted.follows
            + MEMBER * counted.members
    }

    /// A device, with all the results and the sessions it may ever have at a time.
    pub(super) fn device_weight(&self) -> u64 {
        DEVICE + RESULT * self.limits.outstanding
    }

    /// Makes room for records of this weight.
    ///
    /// # Errors
    /// LimitReached: there are too many.
    pub(super) fn room_for(&mut self, records: u64) -> Result<(), Code> {
        if self.records() + records > self.limits.record_bytes {
            return Err(Code::LimitReached);
        }
        self.make_room(records);
        Ok(())
    }

    /// Makes room for `bytes` more: drops the oldest of the largest topic, then of whichever is the
    /// largest by then. Each costs the logarithm of the number of topics, and was sent once.
    pub(super) fn make_room(&mut self, bytes: u64) {
        while self.weight() + bytes > self.limits.state_bytes {
            let Some((_, largest)) = self.index.bytes.last().cloned() else { return };
            let held = self.state.topics.get(&largest);
            let Some(oldest) = held.and_then(|held| held.held.front()).map(|oldest| oldest.op) else {
                return;
            };
            self.trim(&largest, oldest);
        }
    }
}

/// The weight of one notification.
pub(super) fn heavy(notification: &Notification) -> u64 {
    weight(notification) + BEYOND
}

/// The same of all that a topic holds.
pub(super) fn all_held(topic: &TopicState) -> u64 {
    topic.bytes + BEYOND * topic.held.len() as u64
}
