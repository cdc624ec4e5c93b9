//! The stream of a session: its items, and the client's acknowledgement of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Notification, Position};
use crate::id::Op;

/// DELIVERED: one item of a stream, to be handed out only if `prev <= cursor < item.op()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The stream. Zero is the session's stream of notifications, and a client of this version has no other:
    /// it ignores items of another.
    pub stream: u32,
    /// The op before it in this stream.
    pub prev: Op,
    /// The item.
    pub item: Item,
}

/// An item of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A notification.
    Notification(Arc<Notification>),
    /// Notifications that retention dropped before they were read.
    Gap {
        /// The end of the gap: the dropped notifications are in `prev < op <= upto`.
        upto: Op,
    },
    /// A key of the store has changed. No server of this version sends it; a client of this version steps
    /// over it.
    Changed {
        /// The op of the change.
        op: Op,
        /// The key; at most [`Item::KEY_MAX`] bytes.
        #[serde(with = "crate::bulk")]
        key: Vec<u8>,
    },
}

impl Item {
    /// The longest key of a change, in bytes.
    pub const KEY_MAX: usize = 256;

    /// The op that the cursor has after the item.
    pub fn op(&self) -> Op {
        match self {
            Item::Notification(notification) => notification.op,
            Item::Gap { upto } => *upto,
            Item::Changed { op, .. } => *op,
        }
    }

    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Item::Notification(notification) => notification.is_bounded(),
            Item::Gap { .. } => true,
            Item::Changed { key, .. } => key.len() <= Item::KEY_MAX,
        }
    }
}

/// CLIENT_ACK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAck {
    /// The cursor: everything of the stream up to this position was handed to the application.
    pub upto: Position,
    /// The ops held after the cursor that wait for an earlier one; at most [`ClientAck::HELD_MAX`].
    pub held: Vec<Op>,
    /// The number of notifications after `upto` that the client accepts.
    pub credit: u32,
}

impl ClientAck {
    /// The most ops in `held`.
    pub const HELD_MAX: usize = 64;

    pub(super) fn is_bounded(&self) -> bool {
        self.held.len() <= ClientAck::HELD_MAX
    }
}
