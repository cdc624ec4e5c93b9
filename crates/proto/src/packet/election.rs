//! Elections: ELECTION and REPLY, and LEARN of a server without a vote.

use serde::{Deserialize, Serialize};

use crate::entry::Unknown;
use crate::id::{Incarnation, MEMBERS_MAX, NodeId, Op, View};

/// ELECTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// Asks whether the receiver suspects the primary of `view` too. Changes nothing durable.
    Probe {
        /// The view whose primary is suspected.
        view: View,
        /// The prober's last view and op, from which its fitness is judged.
        last: (View, Op),
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// Asks for a promise of `view`.
    Prepare {
        /// The candidate's view.
        view: View,
        /// A counter that rises while the candidate makes progress; a rise restarts the time-outs of others.
        progress: u64,
        /// The step that the candidate waits for.
        waits_for: WaitsFor,
        /// The op of the sender's list of members; zero in this version, and not read.
        members_op: Op,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
}

/// The step that a candidate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitsFor {
    /// Its own disk: its promise is not durable yet.
    Disk,
    /// The promises of others, and therefore their disks.
    Promises,
    /// Entries of a better log than its own, from this op on. This waits for no disk.
    Fetch(Op),
}

/// REPLY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The sender suspects the primary too.
    Agree {
        /// The view whose primary is suspected.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// Not yet: the sender hears from the primary of this view.
    Alive {
        /// The sender's view.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// The sender has a higher id, suspects the primary too, and is fit: it will be the candidate.
    Bully {
        /// The view whose primary is suspected.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// The sender promises to accept nothing below the view, and says what its log holds.
    Promise(Promise),
    /// The sender has promised a higher view.
    Refuse {
        /// The view it has promised.
        promised: View,
    },
    /// The sender has promised the view too, but the promise is not durable yet; a Promise follows when it
    /// is.
    Writing {
        /// The view promised.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
}

impl Reply {
    /// A promise's index of views is bounded by the length of a packet alone: it grows with the number of
    /// elections, and refusing it could keep a cluster from ever electing a primary.
    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Reply::Promise(promise) => promise.incarnations.len() <= MEMBERS_MAX,
            _ => true,
        }
    }
}

/// A promise, and the state of the promiser's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The view promised.
    pub view: View,
    /// The view of the last entry held.
    pub last_view: View,
    /// The op of the last entry held.
    pub last_op: Op,
    /// The highest op that the promiser knows to be committed.
    pub commit: Op,
    /// The first op of each view in the log still held, ascending. It shows where two logs diverge.
    pub index: Vec<(View, Op)>,
    /// The ops that damage on the disk may have taken. Unknown is never the same as absent.
    pub unknown: Option<Unknown>,
    /// The highest incarnation that the promiser knows of each other server. Promises of earlier incarnations
    /// do not count.
    pub incarnations: Vec<(NodeId, Incarnation)>,
    /// The op of the promiser's list of members; zero in this version, and not read.
    pub members_op: Op,
    /// The slowest recent turn of the promiser's journal, as in HEARTBEAT.
    pub disk_ms: u32,
}

/// LEARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learn {
    /// A fresh random number.
    pub nonce: u64,
}

/// LEARN_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnOk {
    /// The nonce of the LEARN.
    pub nonce: u64,
    /// The view that this server has promised.
    pub promised: View,
    /// The commit of this server if it is the active primary of `promised`, else none. From this answer on,
    /// the primary counts no ack that the asker sent before it lost its disk.
    pub active: Option<Op>,
}
