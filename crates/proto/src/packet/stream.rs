//! The stream of a session: its items, and the client's acknowledgement of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Notification, Position};
use crate::id::Op;

/// NOTIFICATION: deliver only if `prev <= cursor < notification.op`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The op before it in this session's stream.
    pub prev: Op,
    /// The notification.
    pub notification: Arc<Notification>,
}

/// GAP: deliver only if `prev <= cursor < upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The op before it in this session's stream.
    pub prev: Op,
    /// The end of the gap: the dropped notifications are in `prev < op <= upto`.
    pub upto: Op,
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
