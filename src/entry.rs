//! One op of the replicated log. Its payload is opaque to everyone but the service.

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
    pub payload: Arc<[u8]>,
}

impl Entry {
    /// The longest payload: a notification of 16 KiB with its title, tags and names, or one batch
    /// of cursors.
    pub const PAYLOAD_MAX: usize = 32 * 1024;
}
