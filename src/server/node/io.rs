//! What goes into a node and what comes out: inputs and effects, and what it starts with.
//!
//! Plain data for those that drive a node. Nothing here knows how a node decides.

use std::net::SocketAddr;

use recado_proto::DecodeError;
use recado_proto::id::{DeviceId, DeviceKey, Incarnation, NodeId, Op, SessionId};
use recado_proto::packet::{AdminChange, QueryId, RefusedDatagram, ToServer};
use recado_proto::seal::{Aead, ClusterKeys};
use recado_service::Service;

use crate::delivery;

use super::{Dropping, Image, SnapshotError};

/// What a node starts with, beside its log.
#[derive(Debug)]
pub struct Boot {
    /// The incarnation of this start, for the status.
    pub incarnation: Incarnation,
    /// Keys derived from the cluster's secret.
    pub keys: ClusterKeys,
    /// The state at the op that the log begins after.
    pub service: Service,
}

/// Input of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<L> {
    /// An input of the log.
    Log(L),
    /// An authenticated packet of a client on its session.
    Client {
        /// The session.
        session: SessionId,
        /// The packet.
        packet: ToServer,
    },
    /// A packet of a client without a session, carried by its INITIATION.
    Initiation {
        /// Address and keys for the answer.
        reply_to: delivery::ReplyTo,
        /// The device key that the handshake authenticated.
        key: DeviceKey,
        /// The packet.
        packet: ToServer,
    },
    /// The snapshot of [`Effect::Snapshot`] is durable and verified.
    SnapshotDone(Op),
    /// Another server's snapshot has arrived whole, is durable under a temporary name, and was read back and
    /// decoded by [`open_in_pieces`](super::open_in_pieces).
    SnapshotOpened {
        /// The number of its transfer.
        transfer: u64,
        /// Its state, or the reason why it is not taken.
        opened: Result<Box<Service>, SnapshotError>,
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
    /// Facts about the process for the status, updated periodically.
    Process {
        /// The process id.
        pid: u32,
        /// Datagrams refused since the start, by reason.
        refused: Vec<(RefusedDatagram, u64)>,
        /// The servers whose packets are ignored now, because a later start of them is known: ascending.
        ignored: Vec<NodeId>,
    },
    /// A deadline may have passed.
    Deadline,
    /// Stop: hand over if this is the primary, then emit [`Effect::Stopped`].
    Stop,
}

/// Output of a node. The caller performs effects in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<L> {
    /// An effect of the log.
    Log(L),
    /// Write a snapshot, encoded by [`recado_proto::codec::encode_snapshot`], then report
    /// [`Input::SnapshotDone`].
    Snapshot(Box<Image>),
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
        /// Its AEAD.
        aead: Aead,
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
    /// The wall clock of this primary is ahead of the log's time by this many ms (negative: behind). For
    /// logs, at most once a minute.
    ClockAway(i64),
    /// This server has just become primary, and retains less than the primary before it did. For logs.
    Dropping(Dropping),
    /// This state is not used any more. Let another thread drop it: that takes as long as the state is large.
    Discard(Box<Service>),
    /// Another server's snapshot is not taken. This server goes on without it and does not fetch it again; it
    /// takes the next one that is offered. For logs, as an error.
    SnapshotRefused(SnapshotError),
    /// The server may end now.
    Stopped,
    /// A committed entry cannot be applied: the server ends at once. The node does nothing more, whatever it
    /// is given.
    Failed(UnreadableEntry),
}

/// A committed entry that this version of the program cannot read, so a later one has logged it. To step over
/// it would give this server another state than the others have. Nothing from it on is applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this version of recadod cannot read the entry at op {op} ({cause}): run the version that the other servers run"
)]
pub struct UnreadableEntry {
    /// Its op.
    pub op: Op,
    /// The reason.
    pub cause: DecodeError,
}
