//! Entries of the replicated log. The payload of a command is opaque to everything but the service.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Op, View};
use crate::open_enum::open_enum;

open_enum! {
    /// The purpose of an entry.
    pub enum EntryKind {
        /// The first entry of a view. Its commit commits all older entries (DESIGN.md section 4).
        ViewStart,
        /// A command of the service, encoded.
        Command,
        /// A list of members, encoded: a [`Members`](crate::members::Members). No server of this version
        /// proposes one, and none takes one into its log: it would go on counting by the old list.
        Members,
    }
}

impl EntryKind {
    /// Returns true if a server of this version can have such an entry in its log. It takes no other from a
    /// peer, and does not start on a log that has one: it does not know what follows from that entry.
    pub const fn is_followed(self) -> bool {
        match self {
            EntryKind::ViewStart | EntryKind::Command => true,
            EntryKind::Members | EntryKind::Unknown(_) => false,
        }
    }
}

/// One op of the replicated log. `(op, view)` names its content and that of everything before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The position in the log.
    pub op: Op,
    /// The view of the primary that made it; never falls from one op to the next.
    pub view: View,
    /// The purpose.
    pub kind: EntryKind,
    /// Opaque here; at most [`Entry::PAYLOAD_MAX`] bytes.
    #[serde(with = "crate::bulk")]
    pub payload: Arc<[u8]>,
}

impl Entry {
    /// The longest payload in bytes: a notification of 16 KiB with its title, tags and names, or one batch
    /// of cursors.
    pub const PAYLOAD_MAX: usize = 32 * 1024;
}

/// A range of ops that damage on the disk may have destroyed. They are unknown, which is never the same as
/// absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The first op that may be lost.
    pub first: Op,
    /// The last op that may be lost.
    pub last: Op,
    /// The highest view that a lost entry can have.
    pub view_max: View,
}

impl Unknown {
    /// The part that is still unknown to a log that ends at `(op, view)`.
    ///
    /// A log that ends in a higher view was matched with a primary that was elected after the loss. A log
    /// that ends in the same view holds the lost entries up to its end, because `(op, view)` names
    /// everything before it.
    pub fn beyond(self, op: Op, view: View) -> Option<Unknown> {
        match view.cmp(&self.view_max) {
            Ordering::Less => Some(self),
            Ordering::Equal if op < self.last => Some(Unknown { first: self.first.max(op.next()), ..self }),
            Ordering::Equal | Ordering::Greater => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_damage_took_is_unknown_until_the_log_has_gone_beyond_it() {
        let view = View(5 << 16 | 1);
        let unknown = Unknown { first: Op(6), last: Op(20), view_max: view };
        assert_eq!(unknown.beyond(Op(99), View(view.0 - 1)), Some(unknown), "of another log");
        assert_eq!(unknown.beyond(Op(4), view), Some(unknown));
        assert_eq!(unknown.beyond(Op(8), view), Some(Unknown { first: Op(9), ..unknown }));
        assert_eq!(unknown.beyond(Op(20), view), None);
        assert_eq!(unknown.beyond(Op(1), View(view.0 + 1)), None);
    }
}
