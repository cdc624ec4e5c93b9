//! One op of the replicated log. Its payload is opaque to everyone but the service.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Op, View};

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// The first entry of a view: what commits every older one (DESIGN.md section 4).
    ViewStart,
    /// A command of the service, encoded.
    Command,
}

/// One op of the replicated log. `(op, view)` names its content and that of everything before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub op: Op,
    /// The view of the primary that made it; never falls from one op to the next.
    pub view: View,
    /// What it is for.
    pub kind: EntryKind,
    /// Opaque here; at most [`Entry::PAYLOAD_MAX`] bytes.
    #[serde(with = "crate::bulk")]
    pub payload: Arc<[u8]>,
}

impl Entry {
    /// The longest payload: a notification of 16 KiB with its title, tags and names, or one batch
    /// of cursors.
    pub const PAYLOAD_MAX: usize = 32 * 1024;
}

/// Ops that damage on the disk may have taken: unknown, never the same as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The first op that may be lost.
    pub first: Op,
    /// The last one.
    pub last: Op,
    /// No lost entry is of a higher view.
    pub view_max: View,
}

impl Unknown {
    /// What is still unknown to a log that ends at `(op, view)`.
    ///
    /// A log that ends in a higher view was matched with a primary that had chosen after the loss; one
    /// that ends in the same view holds what was lost as far as it goes, because `(op, view)` names
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
