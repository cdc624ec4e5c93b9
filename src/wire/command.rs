//! What is logged: the commands of the service. They travel inside ENTRIES as opaque payloads.
//!
//! WARNING: append only. Variants and fields are part of the log's format, pinned by golden bytes.

use serde::{Deserialize, Serialize};

use super::packet::{Content, FollowChange};
use crate::id::{DeviceId, Name, Op, Seq, SessionId, Topic};

/// A command with the primary's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// The primary's wall clock, in ms since 1970. Apply takes `max(previous, this)`.
    pub unix_ms: u64,
    /// What to do.
    pub command: Command,
}

/// One change of the service's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Lets a device in; its op is the session's id. Claims an unclaimed profile name, makes the
    /// device known (beyond 16 of a profile the oldest idle one is forgotten), and fences the device's
    /// older session.
    SessionOpen {
        /// Who comes in.
        device: DeviceId,
        /// As which profile.
        profile: Name,
        /// Whether it receives notifications; one that only sends never moves the cursor.
        receives: bool,
        /// The client's nonce, unique to this CONNECT: answers a repeated CONNECT as the first.
        nonce: u64,
        /// The client believes that the device was never let in before.
        fresh: bool,
    },
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
        /// Where to; the author's feed, any channel, any inbox.
        topic: Topic,
        /// What.
        content: Content,
    },
}
