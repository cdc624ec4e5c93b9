//! What goes into a replica and what comes out: inputs and effects, the tasks of its journal, the state that
//! it starts with, and what it reports.
//!
//! Plain data for those that drive a replica. Nothing here knows how a replica decides.

use std::collections::VecDeque;
use std::time::Duration;

use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::id::{Incarnation, KnownBoot, NodeId, Op, View};
use recado_proto::packet::{RoleName, SnapshotChunk, ToPeer};

/// The state that a server starts with, from its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// True if the server votes.
    pub(crate) voter: bool,
    /// The promised view: the server accepts nothing below it.
    pub(crate) promised: View,
    /// The view and op of the newest snapshot, zero if there is none.
    pub(crate) base: (View, Op),
    /// The entries after the snapshot.
    pub(crate) entries: Vec<Entry>,
    /// The highest op known to be committed.
    pub(crate) commit: Op,
    /// The latest known boot of each other server that was heard of.
    pub(crate) known: Vec<(NodeId, KnownBoot)>,
    /// The ops that damage may have destroyed.
    pub(crate) unknown: Option<Unknown>,
}

/// An input of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A packet from a peer.
    Packet {
        /// The sender.
        from: NodeId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The packet.
        packet: ToPeer,
    },
    /// The link to a peer has adopted this boot of it.
    BootAdopted {
        /// The peer.
        peer: NodeId,
        /// Its boot, with the boot id.
        boot: KnownBoot,
    },
    /// A peer's port refused a datagram.
    PortRefused(NodeId),
    /// A packet with tracked ops is believed lost.
    Lost {
        /// The peer it was sent to.
        peer: NodeId,
        /// Its first and last op.
        ops: (Op, Op),
    },
    /// The journal has done every task up to this number.
    Journaled(u64),
    /// The file of this transfer has the bytes up to here.
    SnapshotStored {
        /// The number of the transfer.
        transfer: u64,
        /// The end of what was stored.
        upto: u64,
    },
    /// The snapshot of this transfer is still being read back and decoded, and that goes on.
    SnapshotOpening(u64),
    /// The bytes of this transfer were not stored, or not read back, and will not be.
    SnapshotAbandoned(u64),
    /// A deadline may have passed.
    Deadline,
    /// Stop; hand over first if this is the primary.
    Stop,
}

/// What the link to a peer takes now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The bytes that its window has left.
    pub(crate) window: usize,
    /// The bytes of a packet that fits into one datagram.
    pub(crate) packet: usize,
}

/// An effect that the caller performs; effects are performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send a packet to a peer.
    Send {
        /// The receiver.
        to: NodeId,
        /// The packet.
        packet: ToPeer,
        /// The first and the last op in it. If the packet is lost, report that with [`Input::Lost`].
        tracked: Option<(Op, Op)>,
    },
    /// Give the journal a task; [`Input::Journaled`] with this number follows once it is durable.
    Journal {
        /// The number of the task. Each task has the next one.
        number: u64,
        /// The task.
        task: Task,
    },
    /// Everything up to this op is committed: apply it.
    Commit(Op),
    /// The transfer of a snapshot has begun. If its start shows that it cannot be installed, call
    /// [`ReplicaManager::refuse_snapshot`](super::ReplicaManager::refuse_snapshot).
    SnapshotBegun {
        /// The number of the transfer, one higher than the last.
        transfer: u64,
        /// Its op.
        op: Op,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// Append these bytes of a peer's snapshot to the file of its transfer; [`Input::SnapshotStored`]
    /// follows. Transfers, and the bytes of each, come in their order. With the last bytes the snapshot is
    /// whole: read it back and decode it, with [`Input::SnapshotOpening`] now and then. Then call
    /// [`ReplicaManager::install`](super::ReplicaManager::install), or refuse it. What cannot be stored or
    /// read back ends with [`Input::SnapshotAbandoned`].
    StoreSnapshot {
        /// The number of the transfer.
        transfer: u64,
        /// The bytes, which may be those of many chunks.
        piece: SnapshotChunk,
    },
    /// This transfer has ended, and its snapshot is not installed: remove its file, if there is one.
    DropSnapshot(u64),
    /// Read a piece of a stored snapshot and send it to a peer as SNAPSHOT_CHUNKs.
    ReadSnapshot {
        /// The receiver.
        to: NodeId,
        /// The op of the snapshot; zero means the newest.
        op: Op,
        /// The offset of the first byte.
        offset: u64,
        /// The number of blocks.
        blocks: u16,
    },
    /// This view is active: announce it. If its primary is this server, serve.
    Active(View),
    /// This server has stopped being the primary of an active view: serve nobody. A primary that is only
    /// isolated is not deposed.
    Deposed,
    /// Another server has started again.
    PeerStarted,
    /// Tell the operator.
    Report(Report),
    /// The server may end.
    Stopped,
}

/// A task for the journal, which does its tasks in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Append these entries. An entry with an op already in the log supersedes from there.
    Append {
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The highest op known to be committed, for the recovery after damage.
        commit: Op,
    },
    /// Promise this view, in both meta slots.
    Promise(View),
    /// Make this server a voter that has promised this view.
    Vote(View),
    /// Store these latest known boots, durable with the next promise at the latest.
    Know(Vec<(NodeId, KnownBoot)>),
    /// Install the snapshot that a peer sent in this transfer. It replaces the whole log.
    Install {
        /// The number of the transfer.
        transfer: u64,
        /// Its op.
        op: Op,
        /// The entries in memory that it replaces. To drop many takes long.
        replaced: VecDeque<Entry>,
    },
}

/// What an operator should know. Nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The role changed.
    Role(RoleChange),
    /// The election cannot end without one of these servers: their logs may have committed entries. The list
    /// is empty if every server has answered and none has the missing entries.
    Waiting(Vec<NodeId>),
    /// An op that is committed here is missing in a leader's log: see [`Contradiction`].
    Contradicted(Contradiction),
    /// A leader's log has an entry of a kind that this server does not follow. The server takes nothing of
    /// the packet. Reported each time.
    EntryRefused {
        /// The leader's view.
        view: View,
        /// The op of the entry.
        op: Op,
        /// Its kind.
        kind: EntryKind,
    },
    /// A snapshot of this server has arrived whole, and its bytes are not those of its checksum. It is
    /// fetched again. Reported each time.
    SnapshotDamaged {
        /// The server that sent it.
        donor: NodeId,
        /// Its op.
        op: Op,
    },
    /// Entries that were durable here are replaced by those of a leader, whose log lacks them. As far as
    /// this server knows they were never committed.
    Overwritten {
        /// The leader's view.
        view: View,
        /// The first op replaced.
        first: Op,
        /// The last op replaced.
        last: Op,
    },
}

/// A role change, for one line in the server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// The new role.
    pub role: RoleName,
    /// The view of the new role.
    pub view: View,
    /// The reason.
    pub cause: Cause,
    /// The time since the first suspicion (or the start).
    pub took: Duration,
}

/// The reason for a role change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The process started.
    Started,
    /// The primary was silent for too long.
    TimedOut,
    /// The primary's port refused a datagram.
    PortRefused,
    /// The primary's heartbeats said that it is isolated.
    PrimaryIsolated,
    /// The primary came back with a higher incarnation.
    PrimaryRestarted,
    /// A peer promised a higher view than this primary's.
    Outbid,
    /// The primary handed over.
    Transfer,
    /// A majority promised and the view is active.
    Elected,
    /// Another server is primary, or candidate, of a higher view.
    HigherView,
    /// The primary that was suspected is heard again.
    HeardAgain,
    /// No echo from a majority, or this server's disk stalls.
    NoMajority,
    /// The majority echoes again, and the disk does not stall.
    MajorityBack,
    /// This server's disk lags behind those of a majority, which can lead sooner.
    SlowDisk,
    /// A learner got its vote back.
    Voter,
}

/// A contradiction: a leader's log lacks an op that is committed here, or has another entry there. More
/// copies were damaged than the fault model allows, or a directory was replaced by an older one. This
/// server keeps its log. It does not follow the leader in that view and does not lead, until a person has
/// decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The leader's view.
    pub view: View,
    /// The first op at which the logs differ.
    pub op: Op,
    /// The last op committed here.
    pub commit: Op,
    /// The number of contradictions found since the start.
    pub count: u64,
}
