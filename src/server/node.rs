//! What one server does, without its threads: [`ReplicaManager`](crate::replica) and
//! [`Service`](crate::service::Service) together, the admission of numbered requests, queries, and
//! snapshots. The replica thread and the simulator drive it alike.
//!
//! Pure: `handle(clock, input, &mut effects)` and `next_deadline()`.

use std::net::SocketAddr;

use crate::config::Config;
use crate::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, View};
use crate::journal::Recovered;
use crate::service::State;
use crate::wire::envelope::Opened;
use crate::wire::packet::{Packet, RefusedDatagram};

/// The two clocks, read once per input by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic; never goes back.
    pub now: Moment,
    /// Wall clock, in ms since 1970; may jump.
    pub unix_ms: u64,
}

/// What happens to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram from a peer, opened well, of this cluster, from a member.
    Peer(Opened),
    /// A peer's port refused what was sent: its process is gone.
    PortRefused(NodeId),
    /// A packet of a client, opened well. Zero as the session: none.
    Client {
        /// On which session.
        session: SessionId,
        /// From where.
        from: SocketAddr,
        /// What.
        packet: Packet,
    },
    /// The journal has done all tasks up to this ticket; what they wrote is durable.
    Journaled(u64),
    /// The snapshot of [`Effect::Snapshot`] is durable and verified.
    SnapshotDone(Op),
    /// The answer to [`Effect::ReadSnapshot`]; `None`: there is no such snapshot any more.
    SnapshotRead {
        /// For whom.
        to: NodeId,
        /// The snapshot's op and view, its length and CRC-32C, and consecutive bytes from `offset`.
        piece: Option<SnapshotPiece>,
    },
    /// From the delivery: a session that is behind wants a page.
    WantPage {
        /// Which session.
        session: SessionId,
        /// Beyond which op.
        after: Op,
        /// At most so many.
        limit: u32,
    },
    /// From the delivery: a session has delivered up to here.
    Cursor(SessionId, Op),
    /// What the listeners refused so far, for STATUS.
    Refused(Vec<(RefusedDatagram, u64)>),
    /// A deadline may have passed.
    Deadline,
    /// Stop: hand over if this is the primary, then [`Effect::Stopped`].
    Stop,
}

/// Some bytes of a stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// Its op.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// Its length in bytes.
    pub total: u64,
    /// CRC-32C of all of it.
    pub crc: u32,
    /// Where `bytes` stand.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

pub use crate::replica::{Cause, RoleChange, Task};

/// What a server wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a peer.
    Peer {
        /// Which.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Give the journal a task; [`Input::Journaled`] with this ticket follows once it is durable.
    Journal {
        /// Counted up by one each.
        ticket: u64,
        /// What to do.
        task: Task,
    },
    /// Write a snapshot: `(op, view)` and a header and state to encode with
    /// [`crate::wire::codec::encode`]; then [`Input::SnapshotDone`].
    Snapshot(Box<Image>),
    /// Read up to `chunks` x [`crate::wire::packet::SnapshotChunk::BYTES_MAX`] bytes of a stored snapshot for a peer.
    ReadSnapshot {
        /// For whom.
        to: NodeId,
        /// Which; zero: the newest.
        op: Op,
        /// From where.
        offset: u64,
        /// How many chunks.
        chunks: u16,
    },
    /// Tell the delivery.
    Delivery(crate::delivery::Input),
    /// A role change, for logs and status.
    Role(RoleChange),
    /// An election waits for one of these servers: what they hold may be committed. For logs.
    Waiting(Vec<NodeId>),
    /// The server may end now.
    Stopped,
}

/// Everything a snapshot holds. Encoded whole by the codec.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Its members.
    pub members: Vec<NodeId>,
    /// The last op in it.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The first op of each view up to there, the newest last.
    pub index: Vec<(View, Op)>,
    /// The service's state at `op`.
    pub state: State,
}

/// One server.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// A server starts: always as a backup (or a learner).
    pub fn new(
        _config: Config,
        _recovered: Recovered,
        _seed: u64,
        _clock: Clock,
        _out: &mut Vec<Effect>,
    ) -> Node {
        todo!()
    }

    /// Takes one input, pushing what is to be done.
    pub fn handle(&mut self, _clock: Clock, _input: Input, _out: &mut Vec<Effect>) {
        let _: Option<(ClusterId, Incarnation)> = None;
        todo!()
    }

    /// When an [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        todo!()
    }
}
