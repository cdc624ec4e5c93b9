//! The stream of a session: its items, and the client's acknowledgement of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Notification, Position, ToClient};
use crate::codec;
use crate::id::Op;

/// DELIVERED: one item of a stream, to be handed out only if `prev <= cursor < item.op()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The op before it in the stream.
    pub prev: Op,
    /// The item.
    pub item: Item,
}

impl Delivered {
    /// Appends the encoding of DELIVERED with an item that is encoded already.
    pub fn encode_onto(prev: Op, item: &[u8], bytes: &mut Vec<u8>) {
        codec::encode_onto(&(ToClient::DELIVERED, prev), bytes);
        bytes.extend_from_slice(item);
    }

    /// The bytes of the encoding of DELIVERED before its item.
    pub fn prefix_len(prev: Op) -> usize {
        codec::encoded_len(&(ToClient::DELIVERED, prev))
    }
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
}

impl Item {
    /// The op that the cursor has after the item.
    pub fn op(&self) -> Op {
        match self {
            Item::Notification(notification) => notification.op,
            Item::Gap { upto } => *upto,
        }
    }

    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Item::Notification(notification) => notification.is_bounded(),
            Item::Gap { .. } => true,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_is_encoded_already_makes_the_same_packet() {
        for op in [0, 250, 251, 65_536, u64::MAX] {
            let (prev, item) = (Op(op), Item::Gap { upto: Op(op) });
            let mut bytes = Vec::new();
            Delivered::encode_onto(prev, &codec::encode(&item), &mut bytes);
            assert_eq!(bytes, codec::encode(&ToClient::Delivered(Delivered { prev, item: item.clone() })));
            assert_eq!(bytes.len(), Delivered::prefix_len(prev) + codec::encoded_len(&item));
        }
    }
}
