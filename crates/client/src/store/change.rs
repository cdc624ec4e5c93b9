//! A change of what a device keeps, and its form in the outbox's file, which no change of the machine's types
//! or of packets changes.

use std::collections::BTreeMap;

use recado_proto::codec;
use recado_proto::id::{ChannelName, DeviceKey, Name, Op, Priority, Seq, StoreKey, Topic};
use recado_proto::packet::{
    Body, ChannelChange, CodeHash, Condition, Content, DisplayName, FollowChange, KeyChange, Position, Role,
};
use serde::{Deserialize, Serialize};

use crate::machine::{Numbered, Request};

/// What outlives the process that uses a device, apart from its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The op that admitted the device; none if it was never admitted.
    pub(crate) created_op: Option<Op>,
    /// The highest number known here. If the servers know a higher one, a copy of this device gave it.
    pub(crate) given: Seq,
    /// The requests without an answer.
    pub(crate) unanswered: BTreeMap<Seq, Unanswered>,
}

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// See [`Numbered::nonce`].
    pub(crate) nonce: u64,
    pub(crate) request: Request,
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The servers have told by which op the device was admitted, and its highest number.
    Known { created_op: Option<Op>, given: Seq },
    /// A request has got its number.
    Asked(Numbered),
    /// Requests have other numbers: pairs (before, after), ascending.
    Renumbered(Vec<(Seq, Seq)>),
    /// A request has its answer, or will never have one.
    Answered(Seq),
}

impl Kept {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Known { created_op, given } => (self.created_op, self.given) = (created_op, given),
            Change::Asked(Numbered { seq, nonce, request }) => {
                self.unanswered.insert(seq, Unanswered { nonce, request });
            }
            Change::Renumbered(moved) => {
                let moving = moved.iter().map(|(from, to)| (*to, self.unanswered.remove(from)));
                let moving: Vec<_> = moving.collect();
                self.unanswered.extend(moving.into_iter().filter_map(|(to, of)| Some((to, of?))));
            }
            Change::Answered(seq) => drop(self.unanswered.remove(&seq)),
        }
    }

    /// Ends a turn. Within a turn numbers can be given and given up again, which counts for nothing.
    pub(super) fn end_turn(&mut self) {
        let last = self.unanswered.last_key_value();
        self.given = last.map_or(self.given, |(seq, _)| self.given.max(*seq));
    }

    /// The changes that lead here from nothing.
    pub(super) fn as_changes(&self) -> impl Iterator<Item = Change> + '_ {
        let known = Change::Known { created_op: self.created_op, given: self.given };
        std::iter::once(known).chain(self.numbered().map(Change::Asked))
    }

    /// The requests without an answer, ascending.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = Numbered> + '_ {
        self.unanswered.iter().map(|(seq, Unanswered { nonce, request })| Numbered {
            seq: *seq,
            nonce: *nonce,
            request: request.clone(),
        })
    }
}

/// A [`Change`] in the file's own format. That is stated by the types of this file down to names, numbers and
/// keys, so it does not change when the machine's types or those of packets do. Kinds may be appended, fields
/// never.
#[derive(Serialize, Deserialize)]
enum StoredChange {
    Known { created: Option<Position>, given: Seq },
    Asked { seq: Seq, nonce: u64, request: StoredRequest },
    Renumbered(Vec<(Seq, Seq)>),
    Answered(Seq),
}

/// Encodes a change.
pub(super) fn encode(change: &Change) -> Vec<u8> {
    codec::encode(&match change {
        Change::Known { created_op, given } => {
            StoredChange::Known { created: created_op.map(Position::of), given: *given }
        }
        Change::Asked(Numbered { seq, nonce, request }) => {
            StoredChange::Asked { seq: *seq, nonce: *nonce, request: request.into() }
        }
        Change::Renumbered(moved) => StoredChange::Renumbered(moved.clone()),
        Change::Answered(seq) => StoredChange::Answered(*seq),
    })
}

/// Decodes a change that [`encode`] encoded; none if it is not of this version, or names an op of another
/// log.
pub(super) fn decode(bytes: &[u8]) -> Option<Change> {
    Some(match codec::decode(bytes).ok()? {
        StoredChange::Known { created, given } => {
            let created_op = match created {
                Some(position) => Some(position.op()?),
                None => None,
            };
            Change::Known { created_op, given }
        }
        StoredChange::Asked { seq, nonce, request } => {
            Change::Asked(Numbered { seq, nonce, request: request.into() })
        }
        StoredChange::Renumbered(moved) => Change::Renumbered(moved),
        StoredChange::Answered(seq) => Change::Answered(seq),
    })
}

/// A [`Request`].
#[derive(Serialize, Deserialize)]
enum StoredRequest {
    Follow {
        #[serde(with = "StoredTopic")]
        topic: Topic,
    },
    Unfollow {
        #[serde(with = "StoredTopic")]
        topic: Topic,
    },
    Send {
        topic: Option<Target>,
        content: StoredContent,
    },
    Channel {
        channel: ChannelName,
        #[serde(with = "StoredChannelChange")]
        change: ChannelChange,
    },
    Keys {
        #[serde(with = "StoredKeyChange")]
        change: KeyChange,
    },
    Retract {
        op: Op,
    },
    Display {
        name: Option<DisplayName>,
    },
    Put {
        key: StoreKey,
        value: StoredBody,
        #[serde(with = "StoredCondition")]
        condition: Condition,
    },
    Delete {
        key: StoreKey,
        at: Option<Op>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Condition")]
enum StoredCondition {
    Always,
    Absent,
    Present,
    At(Op),
}

/// The topic of a SEND that names one.
#[derive(Serialize, Deserialize)]
struct Target(#[serde(with = "StoredTopic")] Topic);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Topic")]
enum StoredTopic {
    Feed(Name),
    Channel(ChannelName),
    Inbox(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ChannelChange")]
enum StoredChannelChange {
    Create {
        private: bool,
    },
    Add {
        member: Name,
        #[serde(with = "StoredRole")]
        role: Role,
    },
    Remove {
        member: Name,
    },
    Delete,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Role")]
enum StoredRole {
    Reader,
    Writer,
    Owner,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "KeyChange")]
enum StoredKeyChange {
    Enrol { code: CodeHash },
    Revoke { key: DeviceKey },
}

/// A [`Content`].
#[derive(Serialize, Deserialize)]
struct StoredContent {
    title: Option<String>,
    priority: Priority,
    tags: Vec<String>,
    body: StoredBody,
    extra: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
enum StoredBody {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Content> for StoredContent {
    fn from(content: &Content) -> StoredContent {
        let Content { title, priority, tags, body, extra } = content.clone();
        StoredContent { title, priority, tags, body: StoredBody::from(&body), extra }
    }
}

impl From<&Body> for StoredBody {
    fn from(body: &Body) -> StoredBody {
        match body.is_text() {
            true => StoredBody::Text(body.to_string()),
            false => StoredBody::Bytes(body.as_bytes().to_vec()),
        }
    }
}

impl From<StoredBody> for Body {
    fn from(stored: StoredBody) -> Body {
        match stored {
            StoredBody::Text(text) => Body::text(text),
            StoredBody::Bytes(bytes) => Body::binary(bytes),
        }
    }
}

impl From<StoredContent> for Content {
    fn from(stored: StoredContent) -> Content {
        let StoredContent { title, priority, tags, body, extra } = stored;
        Content { title, priority, tags, body: body.into(), extra }
    }
}

impl From<&Request> for StoredRequest {
    fn from(request: &Request) -> StoredRequest {
        match request {
            Request::Follow { topic, change: FollowChange::Add } => {
                StoredRequest::Follow { topic: topic.clone() }
            }
            Request::Follow { topic, change: FollowChange::Remove } => {
                StoredRequest::Unfollow { topic: topic.clone() }
            }
            Request::Send { topic, content } => {
                let topic = topic.clone().map(Target);
                StoredRequest::Send { topic, content: StoredContent::from(content) }
            }
            Request::Keys { change } => StoredRequest::Keys { change: *change },
            Request::Channel { channel, change } => {
                StoredRequest::Channel { channel: channel.clone(), change: change.clone() }
            }
            Request::Retract { op } => StoredRequest::Retract { op: *op },
            Request::Display { name } => StoredRequest::Display { name: name.clone() },
            Request::Put { key, value, condition } => {
                StoredRequest::Put { key: key.clone(), value: value.into(), condition: *condition }
            }
            Request::Delete { key, at } => StoredRequest::Delete { key: key.clone(), at: *at },
        }
    }
}

impl From<StoredRequest> for Request {
    fn from(stored: StoredRequest) -> Request {
        match stored {
            StoredRequest::Follow { topic } => Request::Follow { topic, change: FollowChange::Add },
            StoredRequest::Unfollow { topic } => Request::Follow { topic, change: FollowChange::Remove },
            StoredRequest::Send { topic, content } => {
                Request::Send { topic: topic.map(|Target(topic)| topic), content: content.into() }
            }
            StoredRequest::Channel { channel, change } => Request::Channel { channel, change },
            StoredRequest::Keys { change } => Request::Keys { change },
            StoredRequest::Retract { op } => Request::Retract { op },
            StoredRequest::Display { name } => Request::Display { name },
            StoredRequest::Put { key, value, condition } => {
                Request::Put { key, value: value.into(), condition }
            }
            StoredRequest::Delete { key, at } => Request::Delete { key, at },
        }
    }
}
