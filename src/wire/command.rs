//! What is logged: the commands of the service. They travel inside ENTRIES as opaque payloads.
//!
//! WARNING: append only. Variants and fields are part of the log's format, pinned by golden bytes.

use serde::{Deserialize, Serialize};

use super::codec;
use super::packet::{Admin, ChannelChange, CodeHash, Content, FollowChange, KeyChange};
use crate::fnv::fnv1a;
use crate::id::{Admission, DeviceId, Name, Op, Seq, SessionId, Topic};

/// A command with the log's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// In ms since 1970: what the primary reckons, which is its wall clock unless that has jumped. Apply
    /// takes `max(previous, this)`.
    pub unix_ms: u64,
    /// What to do.
    pub command: Command,
}

/// One change of the service's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Asks to let a device in; its op is the session's id. Claims an unclaimed profile name and makes
    /// the device known. The session is pending: it fences nothing until it is confirmed, because
    /// whoever heard a CONNECT can say it again.
    SessionOpen(SessionOpen),
    /// Ends a session: DISCONNECT, or idle for too long by the primary's clock.
    SessionClose {
        /// Which one; unknown ones are ignored.
        session: SessionId,
    },
    /// A numbered request of a device.
    Request {
        /// By which session; a fenced or closed one is refused and takes no number.
        session: SessionId,
        /// Its number.
        seq: Seq,
        /// Every number below it has been answered as far as the client knows: forget those results.
        answered_below: Seq,
        /// What it asks.
        request: Request,
        /// Of the request as its client sent it: [`Request::digest`].
        digest: u64,
        /// Whether it may make a channel that is not there: the primary's count of the client's network, logged
        /// so that every server decides alike.
        may_make: bool,
    },
    /// How far devices have read: one batch a second.
    Cursors(Vec<(SessionId, Op)>),
    /// Notifications of `topic` up to `upto` are dropped (retention, decided by the primary).
    Trim {
        /// In which topic.
        topic: Topic,
        /// The last op dropped.
        upto: Op,
    },
    /// The client of a pending session has spoken on it: it is live from here on and fences the
    /// device's older one.
    SessionConfirm {
        /// Which one; ignored if it is not pending.
        session: SessionId,
    },
    /// A pending session that nobody confirmed ends (decided by the primary).
    SessionLapse {
        /// Which one; ignored if it is not pending: confirmed just before, it lives.
        session: SessionId,
    },
    /// An administrator changes something: once for each query, whoever logs it again.
    Administer(Admin),
    /// A name that was claimed and never used is free again (decided by the primary).
    Expire(Claim),
}

/// A claim of a name that may have expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// Of a profile's.
    Profile {
        /// Which.
        name: Name,
        /// Where it was claimed: a later claim of the same name is another.
        born: Op,
    },
    /// Of a channel's; ignored if it is of use by then.
    Channel {
        /// Which.
        name: Name,
    },
    /// Of the name of a channel that was deleted; ignored if it is none by then.
    Deleted {
        /// Which.
        name: Name,
    },
}

/// What a CONNECT asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpen {
    /// Who comes in. Beyond 16 of a profile the oldest idle one is forgotten.
    pub device: DeviceId,
    /// As which profile.
    pub profile: Name,
    /// Whether it receives notifications; one that only sends never moves the cursor.
    pub receives: bool,
    /// The client's nonce, unique to this CONNECT: answers a repeated CONNECT as the first.
    pub nonce: u64,
    /// The client believes that the device was never let in before.
    pub fresh: bool,
    /// What adds the device's key to the profile's, if it is none of them yet.
    pub code: Option<CodeHash>,
    /// Of an invitation, for a name that nobody has yet.
    pub invite: Option<CodeHash>,
    /// Who may claim such a name: the primary's setting, logged so that every server decides alike.
    pub admission: Admission,
}

/// What a device asks by a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start or stop following.
    Follow {
        /// What.
        topic: Topic,
        /// Which of the two.
        change: FollowChange,
    },
    /// Notify the followers of a topic.
    Send {
        /// Where to; the author's feed, a channel, any inbox.
        topic: Topic,
        /// What.
        content: Content,
    },
    /// Make an owned channel, change its members, or delete it.
    Channel {
        /// Which one.
        channel: Name,
        /// What to do.
        change: ChannelChange,
    },
    /// Open an enrolment of a further key, or revoke one.
    Keys {
        /// What to do.
        change: KeyChange,
    },
}

impl Request {
    /// The hash that tells this request from another of the same device under the same number. Of the content
    /// and of the nonce that came with it: two requests that are not the same have the same digest once in
    /// 2^64. A device deceives only itself with it, so it need not withstand malice.
    pub fn digest(&self, nonce: u64) -> u64 {
        fnv1a(nonce.to_le_bytes().into_iter().chain(codec::encode(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_asked_twice_is_two_requests() {
        let send = |body: &str| Request::Send {
            topic: Topic::Feed("alice".parse().unwrap()),
            content: Content { title: None, priority: Default::default(), tags: vec![], body: body.into() },
        };
        assert_eq!(send("up").digest(1), send("up").digest(1));
        assert_ne!(send("up").digest(1), send("up").digest(2));
        assert_ne!(send("up").digest(1), send("down").digest(1));
    }
}
