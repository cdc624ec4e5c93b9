//! Snapshots: when one is written and what is in it, what a stored or received one must be, and which pieces
//! of a stored one are read for peers.
//!
//! Nothing here changes the replica or the service, and nothing knows the journal's files.

use std::collections::BTreeMap;

use recado_log::journal::{SnapshotPiece, StoredSnapshot};
use recado_log::replica::ReplicaManager;
use recado_proto::codec;
use recado_proto::command::Stamped;
use recado_proto::id::{ClusterId, Epoch, Incarnation, Moment, NodeId, Op, View};
use recado_proto::members::{Member, Members};
use recado_proto::packet::SnapshotChunk;
use recado_service::{Service, State};

use super::{Effect, StartError};
use crate::config::{self, Cluster, Config, Planted};

/// The content of a snapshot. The codec encodes it whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// The cluster.
    pub cluster: ClusterId,
    /// The op of the entry that named the members; zero: the configuration named them.
    pub members_op: Op,
    /// Its members, with the epoch of the log.
    pub members: Members,
    /// The last op applied.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The service's state at `op`.
    pub state: State,
}

impl Image {
    /// The image of what is applied now; none if the log has lost the view of the last op.
    fn of(config: &Config, replica: &ReplicaManager, service: &Service) -> Option<Image> {
        let mut op = service.applied();
        let mut state = service.state();
        if config.planted.is(Planted::SnapshotUncommitted) {
            (op, state) = uncommitted_state(config, replica, op, state);
        }
        if config.planted.is(Planted::ResultsNotInSnapshot) {
            state = state.without_results();
        }
        let view = replica.view_at(op)?;
        let members = members(config);
        Some(Image { cluster: config.cluster.id, members_op: Op::ZERO, members, op, view, state })
    }

    /// Returns true if the snapshot is of this cluster with these members, in the first epoch. The addresses may
    /// differ, because each server's configuration names its own.
    fn is_of(&self, config: &Config) -> bool {
        let ids = config.cluster.members.iter().map(|member| member.id);
        (self.cluster, self.members_op, self.members.epoch) == (config.cluster.id, Op::ZERO, Epoch::FIRST)
            && self.members.list.iter().map(|member| member.id).eq(ids)
    }
}

/// The members that the configuration names.
pub(super) fn members(config: &Config) -> Members {
    let Cluster { members, me, .. } = &config.cluster;
    let joined = Incarnation(0);
    let list = members.iter().map(|config::Member { id, client, peer }| Member {
        id: *id,
        client: *client,
        peer: *peer,
        joined,
    });
    let tie_holder = members.last().map_or(*me, |highest| highest.id);
    Members { list: list.collect(), tie_holder, epoch: Epoch::FIRST }
}

/// Planted bug: the state of a snapshot that includes uncommitted entries.
fn uncommitted_state(config: &Config, replica: &ReplicaManager, mut op: Op, state: State) -> (Op, State) {
    let mut ahead = Service::new(state, config.limits, config.planted);
    while let Some(entry) = replica.entry(op.next()) {
        op = entry.op;
        let stamped: Option<Stamped> = codec::decode(&entry.payload).ok();
        ahead.apply(op, stamped.as_ref(), &mut Vec::new());
    }
    (op, ahead.state())
}

/// The view and the op of the stored snapshot, and its service; those of an empty log without a snapshot.
///
/// # Errors
/// See [`open`].
pub(super) fn restore(
    config: &Config,
    stored: Option<&StoredSnapshot>,
) -> Result<((View, Op), Service), StartError> {
    let Some(StoredSnapshot { op, view, bytes }) = stored else {
        let service = Service::new(State::default(), config.limits, config.planted);
        return Ok(((View::ZERO, Op::ZERO), service));
    };
    Ok(((*view, *op), open(config, *op, *view, bytes)?))
}

/// The service of a snapshot that was stored, or that a peer sent, as that of this op and view.
///
/// # Errors
/// [`StartError::Snapshot`], [`StartError::Foreign`] or [`StartError::OtherState`].
pub(super) fn open(config: &Config, op: Op, view: View, bytes: &[u8]) -> Result<Service, StartError> {
    let image: Image = codec::decode_snapshot(bytes).map_err(|error| StartError::Snapshot(op, error))?;
    image.members.check().map_err(|error| StartError::Snapshot(op, error))?;
    if !image.is_of(config) {
        return Err(StartError::Foreign(op));
    }
    let service = Service::new(image.state, config.limits, config.planted);
    if (image.op, image.view, service.applied()) != (op, view, op) {
        return Err(StartError::OtherState(op));
    }
    Ok(service)
}

/// The chunks in which a piece of a stored snapshot is sent.
pub(super) fn chunks(piece: &SnapshotPiece) -> impl Iterator<Item = SnapshotChunk> {
    piece.bytes.chunks(SnapshotChunk::BYTES_MAX).enumerate().map(move |(n, bytes)| {
        let offset = piece.offset + (n * SnapshotChunk::BYTES_MAX) as u64;
        let SnapshotPiece { op, view, total, crc, .. } = *piece;
        SnapshotChunk { op, view, offset, total, crc, bytes: bytes.to_vec() }
    })
}

/// A piece of a stored snapshot that a peer requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) op: Op,
    pub(super) offset: u64,
    pub(super) chunks: u16,
}

/// What was written last, and what is being written and read.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// The op of the newest durable snapshot.
    newest: Op,
    /// When the last snapshot was begun.
    begun: Moment,
    /// Bytes that the log had taken when the last snapshot was begun.
    bytes: u64,
    /// True while one is being written.
    busy: bool,
    /// Peers that a stored snapshot is being read for, each with its newest request since.
    reading: BTreeMap<NodeId, Option<Reading>>,
}

impl Snapshots {
    /// The snapshots of a server that starts now with this newest one.
    pub(super) fn new(now: Moment, newest: Op) -> Snapshots {
        Snapshots { newest, begun: now, bytes: 0, busy: false, reading: BTreeMap::new() }
    }

    /// Begins a snapshot if one is due: after a time, or when the log since the last one is long, if there is
    /// anything new and no other is being written.
    pub(super) fn begin(
        &mut self,
        now: Moment,
        config: &Config,
        replica: &ReplicaManager,
        service: &Service,
    ) -> Option<Effect> {
        let due = now.since(self.begun) >= config.snapshot_every
            || replica.appended_bytes() - self.bytes >= config.snapshot_bytes;
        if !due || self.busy || service.applied() <= self.newest {
            return None;
        }
        self.begun = now;
        self.bytes = replica.appended_bytes();
        let image = Image::of(config, replica, service)?;
        self.busy = true;
        Some(Effect::Snapshot(Box::new(image)))
    }

    /// Records that the snapshot being written is durable. Returns the op of the one before it: the log
    /// after that is kept, so that a peer a little behind needs no snapshot.
    pub(super) fn on_done(&mut self, op: Op) -> Op {
        self.busy = false;
        let before = self.newest;
        self.newest = before.max(op);
        before
    }

    /// Records that a peer's snapshot has replaced the log, which has taken this many bytes.
    pub(super) fn on_installed(&mut self, op: Op, bytes: u64) {
        self.newest = op;
        self.bytes = bytes;
    }

    /// Reads one piece at a time for each peer and keeps only the newest request that arrives meanwhile, so
    /// that the journal's queue does not grow however often a peer asks.
    pub(super) fn read(&mut self, to: NodeId, wanted: Reading) -> Option<Effect> {
        match self.reading.get_mut(&to) {
            // The offer of a snapshot reads fewer chunks than a request, and does not displace one.
            Some(Some(next)) if wanted.chunks < next.chunks => None,
            Some(next) => {
                *next = Some(wanted);
                None
            }
            None => {
                self.reading.insert(to, None);
                let Reading { op, offset, chunks } = wanted;
                Some(Effect::ReadSnapshot { to, op, offset, chunks })
            }
        }
    }

    /// A piece has been read for this peer: reads the one that it has requested since.
    pub(super) fn on_read(&mut self, to: NodeId) -> Option<Effect> {
        let next = self.reading.remove(&to).flatten()?;
        self.read(to, next)
    }
}
