//! The state file of a device: its text, which no change of the machine's types or of packets changes.

use std::io;
use std::path::Path;

use recado_proto::hex::{self, Hex};
use recado_proto::id::{ChannelName, DeviceKey, Name, Op, Priority, Seq, Topic};
use recado_proto::packet::{Body, ChannelChange, CodeHash, Content, FollowChange, KeyChange, Role};
use serde::{Deserialize, Serialize};

use super::files::{at, read_text, replace, unreadable};
use super::{Remembered, position, read_position};
use crate::error::{StoreError, StoreOp};
use crate::format::{self, Unreadable};
use crate::machine::{Numbered, Request};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default)]
    given: Seq,
    #[serde(default)]
    unanswered: Vec<Unanswered>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unanswered {
    seq: Seq,
    /// In hexadecimal: TOML has no unsigned 64-bit integer.
    nonce: String,
    ask: StoredRequest,
}

/// A [`Request`] in the file's own format. That is stated by the types of this file down to names, numbers
/// and keys, so it does not change when the machine's types or those of packets do.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
}

/// The topic of a SEND that names one.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Target(#[serde(with = "StoredTopic")] Topic);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Topic")]
enum StoredTopic {
    Feed(Name),
    Channel(ChannelName),
    Inbox(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ChannelChange", deny_unknown_fields)]
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
#[serde(remote = "KeyChange", deny_unknown_fields)]
enum StoredKeyChange {
    Enrol { code: CodeHash },
    Revoke { key: DeviceKey },
}

/// A [`Content`]; bytes that are no text stand as numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredContent {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    priority: Priority,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra: Vec<(String, Vec<u8>)>,
}

impl From<&Content> for StoredContent {
    fn from(content: &Content) -> StoredContent {
        let Content { title, priority, tags, body, extra } = content.clone();
        let (body, bytes) = match body.is_text() {
            true => (Some(body.to_string()), Vec::new()),
            false => (None, body.as_bytes().to_vec()),
        };
        StoredContent { title, priority, tags, body, bytes, extra }
    }
}

impl From<StoredContent> for Content {
    fn from(stored: StoredContent) -> Content {
        let StoredContent { title, priority, tags, body, bytes, extra } = stored;
        let body = body.map_or_else(|| Body::binary(bytes), Body::text);
        Content { title, priority, tags, body, extra }
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
        }
    }
}

/// Reads a device's state file; the default if there is none.
pub(crate) fn read_state(path: &Path) -> Result<Remembered, StoreError> {
    let cure = "delete its directory to start the device anew, without the requests it left unanswered";
    let Some(text) = read_text(path, cure)? else { return Ok(Remembered::default()) };
    let unreadable = unreadable(path, cure);
    let damaged = || unreadable(Unreadable::Damaged);
    let rest = format::read_sealed(&text).map_err(&unreadable)?;
    // A table that a program wrote, and in which this one does not know its way, is a later program's.
    let file: StateFile = toml::from_str(rest).map_err(|_| match rest.parse::<toml::Table>() {
        Ok(_) => unreadable(Unreadable::OtherVersion(format::VERSION + 1)),
        Err(_) => damaged(),
    })?;
    let created_op = file.created.as_deref().map(read_position).transpose().map_err(&unreadable)?;
    let numbered = |stored: Unanswered| {
        let nonce = u64::from_be_bytes(hex::parse(&stored.nonce).ok_or_else(damaged)?);
        Ok(Numbered { seq: stored.seq, nonce, request: stored.ask.into() })
    };
    let unanswered: Vec<Numbered> =
        file.unanswered.into_iter().map(numbered).collect::<Result<_, StoreError>>()?;
    let highest = unanswered.last().map_or(Seq(0), |of| of.seq);
    Ok(Remembered { created_op, given: file.given.max(highest), unanswered })
}

/// Replaces a device's state file, whole or not at all.
pub(super) fn write_state<'a>(
    path: &Path,
    created_op: Option<Op>,
    given: Seq,
    unanswered: impl Iterator<Item = (Seq, u64, &'a Request)>,
) -> Result<(), StoreError> {
    let unanswered = unanswered
        .map(|(seq, nonce, request)| Unanswered {
            seq,
            nonce: Hex(&nonce.to_be_bytes()).to_string(),
            ask: request.into(),
        })
        .collect();
    let file = StateFile { created: created_op.map(position), given, unanswered };
    let text = toml::to_string(&file).map_err(|error| at(StoreOp::Write, path)(io::Error::other(error)))?;
    replace(path, format::sealed(&text).as_bytes())
}
