//! The commands of the service: the contents of log entries. They travel inside ENTRIES as opaque payloads.
//!
//! WARNING: part of the log's format, pinned by golden bytes. Variants may be appended, fields never: any
//! change of a struct's fields needs another version of the protocol and of the journal. What may come later
//! travels in the optional fields.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use super::packet::{
    Admin, Body, ChannelChange, CodeHash, Condition, Content, DisplayName, FollowChange, KeyChange,
    OptionalFields,
};
use super::seal::Aead;
use crate::fnv::fnv1a;
use crate::id::{Admission, ChannelName, DeviceId, Name, Op, Seq, SessionId, StoreKey, Topic};

/// A command with the log's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// The primary's time in ms since 1970: its wall clock, unless that has jumped. Apply takes
    /// `max(previous, this)`.
    pub unix_ms: u64,
    /// The command.
    pub command: Command,
}

impl Stamped {
    /// Decodes the payload of an entry.
    ///
    /// # Errors
    /// [`DecodeError`]: another version made it, or its optional fields change what it means; nothing
    /// changed. A server that went on without them would hold another state than the others.
    pub fn decode(payload: &[u8]) -> Result<Stamped, DecodeError> {
        let stamped: Stamped = codec::decode(payload)?;
        let options = match &stamped.command {
            Command::Request { options, .. } | Command::SessionOpen(SessionOpen { options, .. }) => options,
            _ => &OptionalFields::NONE,
        };
        if *options == OptionalFields::NONE { Ok(stamped) } else { Err(DecodeError::Bounds) }
    }
}

/// One change of the service's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session, whose id is the op of this command. Admits the device and claims the profile's name
    /// if it is unclaimed. The session is pending and fences nothing until it is confirmed, because an
    /// attacker may replay a recorded CONNECT.
    SessionOpen(SessionOpen),
    /// Ends a session: because of a DISCONNECT of one that receives, or because it is idle for too long by
    /// the primary's clock.
    SessionClose {
        /// The session; an unknown one is ignored.
        session: SessionId,
    },
    /// A numbered request of a device.
    Request {
        /// The session it was sent on; a fenced or closed one is refused and takes no number.
        session: SessionId,
        /// Its number.
        seq: Seq,
        /// The client has the answers to all numbers below this one; their results are dropped.
        answered_below: Seq,
        /// The request.
        request: Request,
        /// The digest of the request as its client sent it ([`Request::digest`]).
        digest: u64,
        /// True if the request may create a channel. The primary decides it by the rate of the client's
        /// network and logs it, so that every server decides alike.
        may_make: bool,
        /// The optional fields that change what it means; servers of this version log none.
        options: OptionalFields,
    },
    /// The cursors of devices; one batch a second.
    Cursors(Vec<(SessionId, Op)>),
    /// Drops the notifications of `topic` up to `upto` (retention, decided by the primary).
    Trim {
        /// The topic.
        topic: Topic,
        /// The last op dropped.
        upto: Op,
    },
    /// Makes a pending session live, because its client has sent on it, and fences the device's older
    /// session.
    SessionConfirm {
        /// The session; ignored if it is not pending.
        session: SessionId,
    },
    /// Ends a pending session that was not confirmed in time (decided by the primary).
    SessionLapse {
        /// The session; ignored if it is not pending, for example because it was confirmed just before.
        session: SessionId,
    },
    /// Makes an administrator's change; once for each query id, even if several primaries log it.
    Administer(Admin),
    /// Frees the name of an unused profile or channel, or of a deleted channel (decided by the primary).
    Expire(Claim),
    /// Ends sessions that only sent and whose clients have left; one batch a second. Unknown ones are
    /// ignored.
    SessionsClose(Vec<SessionId>),
}

/// A name that may have expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// The name of an unused profile.
    Profile {
        /// The name.
        name: Name,
        /// The op that claimed it. If the name was claimed again since, the command is ignored.
        created_op: Op,
    },
    /// The name of an unused channel; ignored if the channel is used when this is applied.
    Channel {
        /// The name.
        name: ChannelName,
    },
    /// The name of a deleted channel; ignored if the channel is not a deleted one when this is applied.
    Deleted {
        /// The name.
        name: ChannelName,
    },
}

/// The contents of a CONNECT, and the primary's setting for claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpen {
    /// The device. If the profile has the most devices it may have, the oldest idle one is forgotten.
    pub device: DeviceId,
    /// The profile to connect as.
    pub profile: Name,
    /// True if the session receives notifications. One that only sends never moves the cursor.
    pub receives: bool,
    /// The nonce of the CONNECT, unique to it: a repeated CONNECT gets the session that the first one opened.
    pub nonce: u64,
    /// True if the client believes that the device was never admitted before.
    pub fresh: bool,
    /// The code of an enrolment, which adds the device's key to the profile if it is not one of its keys yet.
    pub code: Option<CodeHash>,
    /// The code of an invitation, for a name that is unclaimed.
    pub invite: Option<CodeHash>,
    /// The primary's setting that says who may claim such a name, logged so that every server decides alike.
    pub admission: Admission,
    /// The AEAD that the primary chose, which seals the session's datagrams at every server.
    pub aead: Aead,
    /// The optional fields that change what it means; servers of this version log none.
    pub options: OptionalFields,
}

/// A numbered request of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Starts or stops following a topic.
    Follow {
        /// The topic.
        topic: Topic,
        /// Follow or stop following.
        change: FollowChange,
    },
    /// Notifies the followers of a topic.
    Send {
        /// The topic: the author's feed, a channel, or any inbox.
        topic: Topic,
        /// The content.
        content: Content,
    },
    /// Creates an owned channel, changes its members, or deletes it.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// The change.
        change: ChannelChange,
    },
    /// Opens an enrolment of a further key, or revokes a key.
    Keys {
        /// The change.
        change: KeyChange,
    },
    /// Asks for something that the primary which logged it does not do. It takes its number and is refused.
    Unsupported,
    /// Takes the text of a notification away, from the state and from all who ask for it later, and reports
    /// that to its topic.
    Retract {
        /// The notification.
        op: Op,
        /// The topic that holds it, in which the primary found it; none: it found none. Apply then need not
        /// search all topics.
        topic: Option<Topic>,
    },
    /// Gives the profile a display name, or takes it away.
    Display {
        /// The display name.
        name: Option<DisplayName>,
    },
    /// Gives a key of the store a value.
    Put {
        /// The key.
        key: StoreKey,
        /// The value.
        value: Body,
        /// What has to be so before.
        condition: Condition,
    },
    /// Takes the value of a key away.
    Delete {
        /// The key.
        key: StoreKey,
        /// The timestamp that its value has to have; none: any.
        at: Option<Op>,
    },
}

impl Request {
    /// A hash that tells this request from another one of the same device under the same number. It covers
    /// the request's nonce, content and optional fields: two different requests have the same digest with a
    /// probability of 2^-64. Only the device itself could be deceived by a collision, so the hash need not
    /// resist attacks.
    pub fn digest(&self, nonce: u64, options: &OptionalFields) -> u64 {
        fnv1a(nonce.to_le_bytes().into_iter().chain(codec::encode(self)).chain(codec::encode(options)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::OptionalField;

    #[test]
    fn the_same_text_under_two_nonces_is_two_requests() {
        let send = |body: &str| Request::Send {
            topic: Topic::Feed("alice".parse().unwrap()),
            content: Content::of(body),
        };
        let digest = |body: &str, nonce| send(body).digest(nonce, &OptionalFields::NONE);
        assert_eq!(digest("up", 1), digest("up", 1));
        assert_ne!(digest("up", 1), digest("up", 2));
        assert_ne!(digest("up", 1), digest("down", 1));
        let expiring = OptionalFields(vec![OptionalField { tag: OptionalFields::EXPIRES, bytes: vec![1] }]);
        assert_ne!(digest("up", 1), send("up").digest(1, &expiring));
    }
}
