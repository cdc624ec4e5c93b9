//! What goes into a node and what comes out: inputs and effects, the identity of one run, and the reasons
//! not to start.
//!
//! Plain data for those that drive a node. Nothing here knows how a node decides.

use std::net::SocketAddr;

use recado_log::journal::SnapshotPiece;
use recado_log::replica::{Contradiction, RoleChange, Task};
use recado_proto::id::{BootId, DeviceId, DeviceKey, Incarnation, NodeId, Op, SessionId, View};
use recado_proto::packet::{AdminChange, Packet, QueryId, RefusedDatagram};
use recado_proto::seal::ClusterKeys;

use crate::delivery;

use super::Image;

/// Identity of one run of a server.
#[derive(Clone, Debug)]
pub struct BootIdentity {
    /// The boot id: random, and never used before.
    pub id: BootId,
    /// Keys derived from the cluster's secret.
    pub keys: ClusterKeys,
    /// Seed for the jitter of timers.
    pub seed: u64,
}

/// Input of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram from the peer port, not yet authenticated.
    Peer {
        /// Its bytes.
        datagram: Vec<u8>,
        /// True if the journal or the delivery is behind. A datagram that carries entries is then dropped;
        /// the peer retransmits.
        behind: bool,
    },
    /// A peer's port refused a datagram: its process is gone.
    PortRefused(NodeId),
    /// An authenticated packet of a client on its session.
    Client {
        /// The session.
        session: SessionId,
        /// The packet.
        packet: Packet,
    },
    /// A packet of a client without a session, carried by its INITIATION.
    Initiation {
        /// Address and keys for the answer.
        reply_to: delivery::ReplyTo,
        /// The device key that the handshake authenticated.
        key: DeviceKey,
        /// The packet.
        packet: Packet,
    },
    /// The journal has done all tasks up to this ticket, and what they wrote is durable.
    Journaled(u64),
    /// The snapshot of [`Effect::Snapshot`] is durable and verified.
    SnapshotDone(Op),
    /// The answer to [`Effect::ReadSnapshot`].
    SnapshotRead {
        /// The peer that the piece is for.
        to: NodeId,
        /// The piece; `None` if the snapshot does not exist or cannot be read.
        piece: Option<SnapshotPiece>,
    },
    /// The delivery wants a page for a session that is behind.
    WantPage {
        /// The session.
        session: SessionId,
        /// The page begins after this op.
        after: Op,
        /// Maximum number of notifications.
        limit: u32,
    },
    /// The delivery reports that a session's client has proved to receive at this address. Requests on the
    /// session are charged to the address's network.
    Path {
        /// The session.
        session: SessionId,
        /// The proved address.
        address: SocketAddr,
    },
    /// The delivery reports that a session has delivered everything up to this op.
    Cursor(SessionId, Op),
    /// The delivery reports that it does not hold the answer to a query any more: its client has all of it,
    /// or it was given up.
    AnswerDone {
        /// The session.
        session: SessionId,
        /// The query.
        query: QueryId,
    },
    /// Facts about the process for STATUS, updated periodically.
    Process {
        /// The process id.
        pid: u32,
        /// Datagrams refused since the start, by reason.
        refused: Vec<(RefusedDatagram, u64)>,
    },
    /// A deadline may have passed.
    Deadline,
    /// Stop: hand over if this is the primary, then emit [`Effect::Stopped`].
    Stop,
}

/// Output of a node. The caller performs effects in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a peer.
    Peer {
        /// The peer.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Give the journal a task; [`Input::Journaled`] with this ticket follows once it is durable.
    Journal {
        /// The ticket, one higher than the last.
        ticket: u64,
        /// The task.
        task: Task,
    },
    /// Write a snapshot, encoded by [`recado_proto::codec::encode_snapshot`], then report
    /// [`Input::SnapshotDone`].
    Snapshot(Box<Image>),
    /// Read up to `chunks` x [`recado_proto::packet::SnapshotChunk::BYTES_MAX`] bytes of a stored snapshot for
    /// a peer.
    ReadSnapshot {
        /// The peer.
        to: NodeId,
        /// The op of the snapshot; zero for the newest.
        op: Op,
        /// Offset of the first byte.
        offset: u64,
        /// Number of chunks.
        chunks: u16,
    },
    /// Give the delivery this input.
    Delivery(crate::delivery::Input),
    /// A session is in the committed state, live or pending, on every server alike: its client may send at
    /// any time. Emitted for all sessions at the start and when a snapshot was installed, and possibly
    /// again for one that is already known.
    SessionKnown {
        /// The session.
        session: SessionId,
        /// Its device.
        device: DeviceId,
        /// The nonce of its CONNECT.
        nonce: u64,
    },
    /// A session has ended, on every server alike.
    SessionGone(SessionId),
    /// An administrator's change is committed. For the primary's logs.
    Administered {
        /// The change.
        change: AdminChange,
        /// Its op.
        op: Op,
    },
    /// A client resumed with a cursor beyond the end of the log, so its cursor is not of this log. For logs.
    BeyondEnd {
        /// The session.
        session: SessionId,
        /// The client's cursor.
        cursor: Op,
        /// The last op applied.
        applied: Op,
    },
    /// A role change, for logs and status.
    Role(RoleChange),
    /// An election waits for one of these servers, whose entries may be committed. The list is empty if every
    /// server has answered and none has the missing entries. For logs.
    Waiting(Vec<NodeId>),
    /// A leader's log lacks entries that this server knows to be committed. For logs, as an error.
    Contradicted(Contradiction),
    /// Entries on this server's disk are replaced by those of a leader, whose log lacks them. For logs.
    Overwritten {
        /// The leader's view.
        view: View,
        /// The first op replaced.
        first: Op,
        /// The last op replaced.
        last: Op,
    },
    /// A running peer has an incarnation that is not later than one seen of it before, or is another boot of the
    /// latest one, and is ignored. Its data directory is an old copy, or was initialised under a clock that is behind. For logs.
    StaleIncarnation {
        /// The peer.
        server: NodeId,
        /// The incarnation that it reports.
        incarnation: Incarnation,
        /// The latest incarnation seen of it.
        latest: Incarnation,
    },
    /// The wall clock of this primary is ahead of the log's time by this many ms (negative: behind). For
    /// logs, at most once a minute.
    ClockAway(i64),
    /// A datagram was refused: count it.
    Refused(RefusedDatagram),
    /// The server may end now.
    Stopped,
}

/// Reason why a server cannot start on what its journal holds. Our fault or the operator's; nothing was
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The snapshot's checksum holds, but its content is not readable by this version.
    #[error("the snapshot at op {0} is not readable by this version of recadod: {1}")]
    Snapshot(Op, recado_proto::DecodeError),
    /// The snapshot is of another cluster or other members, or of an epoch or a list of members that this program
    /// does not follow.
    #[error("the snapshot at op {0} is of another cluster; is this the right directory?")]
    Foreign(Op),
    /// The snapshot holds the state of another op or view than its file says: our fault.
    #[error("the snapshot at op {0} holds another state than that of its op and view")]
    OtherState(Op),
    /// The entries after the snapshot are not contiguous: the journal's fault.
    #[error("the log has no entry {0}, though later ones are there")]
    Hole(Op),
}
