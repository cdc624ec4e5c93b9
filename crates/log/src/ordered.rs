//! The ordered log as a server's node sees it: what is proposed comes back committed, in one order on all
//! servers.
//!
//! The types here are all that an engine and a node have in common. An engine gives ops and tickets; a node
//! never learns how the servers agree.

use std::sync::Arc;

use recado_proto::id::{Op, View};
use recado_proto::packet::RoleName;

pub use crate::journal::StoredSnapshot;

/// The name of a proposal on the server that made it. Tickets rise from one proposal to the next, and none is
/// given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A report of the log to its node, in the order in which the node has to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<E> {
    /// The next op is committed: apply it.
    Committed {
        /// The op, one higher than the last one committed or installed.
        op: Op,
        /// The payload, as it was proposed on some server; empty for an entry of the engine's own.
        payload: Arc<[u8]>,
        /// The ticket, if it was proposed here and has not been reported lost. Tickets come back in the order
        /// in which they were given.
        ticket: Option<Ticket>,
    },
    /// This ticket and all after it are void: none of them comes back. What was proposed under them may be
    /// committed all the same, without a ticket, so admission starts again from what is applied.
    Lost {
        /// The first void ticket.
        from: Ticket,
    },
    /// Another server's snapshot has arrived completely. Validate it, then have it installed or drop it,
    /// before the next event is taken.
    SnapshotReceived(StoredSnapshot),
    /// This view is active: announce it to clients. Its primary serves them.
    Active(View),
    /// This server has stopped being the primary of an active view: serve nobody. A primary that is only
    /// isolated is not deposed.
    Deposed,
    /// The log has stopped: the server may end.
    Stopped,
    /// Something for the engine's driver, to be performed in its place among the events.
    Effect(E),
}

/// The state of a log, as its node needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The role of this server.
    pub role: RoleName,
    /// The view that this server is in, below which it accepts nothing.
    pub view: View,
    /// The highest active view known, which clients are told.
    pub active: View,
    /// True if a proposal is taken now.
    pub accepts: bool,
    /// The last op known to be committed.
    pub commit: Op,
    /// The last op held, or proposed here.
    pub last: Op,
    /// The end of what is durable here.
    pub durable: Op,
    /// Bytes of payload taken into the log since the start or the last snapshot installed, for the snapshot
    /// policy.
    pub appended_bytes: u64,
}
