//! The status of one server.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, MEMBERS_MAX, NodeId, Op, View};
use crate::open_enum::open_enum;

/// The status of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server.
    pub node: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its view.
    pub view: View,
    /// Its last applied op.
    pub applied: Op,
    /// Its last fsynced op.
    pub durable: Op,
    /// The number of ops it holds and has not applied: not known to be committed, or about to be applied.
    pub lag: u64,
    /// Its process id.
    pub pid: u32,
    /// The number of its starts.
    pub incarnation: Incarnation,
    /// The time since its start, in ms.
    pub uptime_ms: u64,
    /// The addresses of all servers for clients.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// The number of datagrams refused since the start, by reason; at most [`Status::REASONS_MAX`].
    pub refused: Vec<(RefusedDatagram, u64)>,
}

impl Status {
    /// The most reasons in `refused`: those of this version, and room for those of a later one.
    pub const REASONS_MAX: usize = 64;

    pub(super) fn is_bounded(&self) -> bool {
        self.members.len() <= MEMBERS_MAX && self.refused.len() <= Status::REASONS_MAX
    }
}

open_enum! {
    /// The reason why a datagram was refused; each is counted.
    pub enum RefusedDatagram {
        /// Shorter than its headers or its contents, or not of the length that its kind has.
        Truncated,
        /// Longer than a datagram of this protocol.
        Oversized,
        /// Another magic number.
        Magic,
        /// Another version of the protocol.
        Version,
        /// The cluster or its epoch is another one, or the server is unknown.
        Cluster,
        /// The authentication fails, or there is no key to open it with.
        Seal,
        /// Authentic, but not a valid packet.
        Malformed,
        /// The session is not known here.
        Session,
        /// Its packet number was received before, or is older than the replay window.
        Repeated,
        /// A queue was full.
        QueueFull,
        /// A handshake beyond the budget of its network, or of all networks.
        Budget,
        /// A handshake whose cookie is not valid or has expired.
        Cookie,
        /// The one that completes a snapshot of another server, the bytes of which are not those of its
        /// checksum.
        Snapshot,
    }
}

open_enum! {
    /// The role of a server, as shown to people.
    pub enum RoleName {
        /// Holds a copy and votes.
        Backup,
        /// It is in an election.
        Candidate,
        /// Takes writes.
        Primary,
        /// Primary without a majority: acknowledges nothing.
        Isolated,
        /// Holds a copy, has no vote yet.
        Learner,
    }
}

impl RoleName {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            RoleName::Backup => "backup",
            RoleName::Candidate => "candidate",
            RoleName::Primary => "primary",
            RoleName::Isolated => "isolated",
            RoleName::Learner => "learner",
            RoleName::Unknown(_) => "unknown",
        }
    }
}
