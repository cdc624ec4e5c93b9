//! Numbered requests, which change the replicated state once each, and their answer.

use serde::{Deserialize, Serialize};

use super::{CodeHash, Content, OptionalFields};
use crate::id::{ChannelName, DeviceKey, Name, Op, Seq, Topic};

/// The change that a FOLLOW makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowChange {
    /// Start to follow.
    Add,
    /// Stop following.
    Remove,
}

/// FOLLOW.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The topic.
    pub topic: Topic,
    /// Follow or stop following.
    pub change: FollowChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
    /// The optional fields.
    pub options: OptionalFields,
}

/// SEND.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The topic; none: the sender's own feed.
    pub topic: Option<Topic>,
    /// The content.
    pub content: Content,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
    /// The optional fields.
    pub options: OptionalFields,
}

/// CHANNEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The channel.
    pub channel: ChannelName,
    /// The change.
    pub change: ChannelChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
    /// The optional fields.
    pub options: OptionalFields,
}

/// A change of an owned channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelChange {
    /// Creates the channel, owned by the asker. No channel of this name may exist.
    Create {
        /// True if only members may follow and read it, false if anyone may. In both cases only writers and
        /// owners send.
        private: bool,
    },
    /// Makes a profile a member, or gives a member another role. Only an owner may ask for it.
    Add {
        /// The profile.
        member: Name,
        /// Its role.
        role: Role,
    },
    /// Removes a member. An owner or the member itself may ask for it.
    Remove {
        /// The profile.
        member: Name,
    },
    /// Deletes the channel with all it holds and all follows of it. Only an owner may ask for it.
    Delete,
}

/// The role of a member of an owned channel; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows and reads.
    Reader,
    /// Sends.
    Writer,
    /// Adds and removes members, and deletes the channel.
    Owner,
}

/// KEYS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The change.
    pub change: KeyChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
    /// The optional fields.
    pub options: OptionalFields,
}

/// A change of the keys of the asker's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChange {
    /// Opens an enrolment: a device that soon connects with this code adds its key, once. Replaces an
    /// enrolment that is open.
    Enrol {
        /// The hash of the code.
        code: CodeHash,
    },
    /// Removes a key from the profile and forgets the key's devices.
    Revoke {
        /// The key.
        key: DeviceKey,
    },
}

/// SEND_ACK: answers every numbered request that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAck {
    /// The number of the request.
    pub seq: Seq,
    /// The op of its log entry.
    pub op: Op,
    /// What the request results in beyond its op: [`OptionalFields::MADE_CHANNEL`], or nothing.
    pub data: OptionalFields,
}
