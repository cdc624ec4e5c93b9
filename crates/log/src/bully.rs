//! The bully engine: an ordered log of a primary and its backups. It joins the `ReplicaManager`, the links
//! to its peers and the transfer of snapshots to them.
//!
//! Nothing is decided here: the replica decides, the links carry. This module turns the replica's effects
//! into packets for the links, into events for the node and into effects for the driver, each in its place.
//! It gives a ticket to each proposal and knows which of them are awaited.
//!
//! It is pure. A call may act on the replica or the links at once; what follows from that waits in a queue,
//! and [`OrderedLog::poll`] goes on with it up to the next event. So the node acts on an event before the
//! engine goes on: an installed snapshot replaces the log that everything after it is about.

#[cfg(test)]
mod tests;
mod transfers;

use std::collections::VecDeque;
use std::sync::Arc;

use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{BootId, Epoch, Incarnation, Moment, NodeId, Op, View};
use recado_proto::packet::{RefusedDatagram, SnapshotChunk, ToPeer};
use recado_proto::seal::ClusterKeys;

use crate::config::Config;
use crate::journal::{Recovered, SnapshotPiece};
use crate::links::{self, PeerLinks};
use crate::ordered::{self, Committed, OrderedLog, Status, Ticket};
use crate::replica::{self, Boot, ReplicaManager, Room};

use transfers::{Piece, Transfers};

pub use crate::links::PathState;

pub use crate::replica::{Cause, Contradiction, Report, RoleChange, Task};

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

/// Input from the driver of the engine.
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
    /// The journal has done all tasks up to this number, and what they wrote is durable.
    Journaled(u64),
    /// The answer to [`Effect::ReadSnapshot`].
    SnapshotRead {
        /// The peer that the piece is for.
        to: NodeId,
        /// The piece; `None` if the snapshot does not exist or cannot be read.
        piece: Option<SnapshotPiece>,
    },
    /// The answer to [`Effect::StoreSnapshot`].
    SnapshotStored {
        /// The number of the transfer.
        transfer: u64,
        /// The end of what its file has. It need not be durable yet.
        upto: u64,
    },
    /// A whole snapshot of a peer is being read back and decoded, and that goes on.
    SnapshotOpening(u64),
    /// A piece of this transfer was not stored, or its whole snapshot is not read back: the transfer is
    /// abandoned, and begun again when the snapshot is offered again.
    SnapshotAbandoned(u64),
}

/// An effect for the driver of the engine. Effects are performed in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a peer.
    Peer {
        /// The peer.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Give the journal a task; [`Input::Journaled`] with this number follows once it is durable.
    Journal {
        /// The number of the task, one higher than the last.
        number: u64,
        /// The task.
        task: Task,
    },
    /// Read up to `blocks` x [`recado_proto::packet::SnapshotGet::BLOCK`] bytes of a stored snapshot for a
    /// peer.
    ReadSnapshot {
        /// The peer.
        to: NodeId,
        /// The op of the snapshot; zero for the newest.
        op: Op,
        /// Offset of the first byte.
        offset: u64,
        /// Number of blocks.
        blocks: u16,
    },
    /// Append a piece of a peer's snapshot to the file of its transfer, then report
    /// [`Input::SnapshotStored`]. Transfers, and the pieces of each, come in their order. With its last piece
    /// a snapshot is whole: make it durable, read it back and decode it, report [`Input::SnapshotOpening`]
    /// now and then, and give the node the result. Report [`Input::SnapshotAbandoned`] if any of that is not
    /// done.
    StoreSnapshot {
        /// The number of the transfer.
        transfer: u64,
        /// The piece.
        piece: SnapshotPiece,
    },
    /// This transfer has ended, and its snapshot is not installed: remove its file, if there is one.
    DropSnapshot(u64),
    /// Tell the operator what the replica reports.
    Report(Report),
    /// A running peer has an incarnation that is not later than one seen of it before, or is another boot of
    /// the latest one, and is ignored. Its data directory is an old copy, or was initialised under a clock
    /// that is behind. For logs.
    StaleIncarnation {
        /// The peer.
        server: NodeId,
        /// The incarnation that it reports.
        incarnation: Incarnation,
        /// The latest incarnation seen of it.
        latest: Incarnation,
    },
    /// A running peer has a log of another epoch, which is another history, and is ignored. For logs.
    OtherEpoch {
        /// The peer.
        server: NodeId,
        /// The epoch of its log.
        epoch: Epoch,
    },
    /// A search for the longest datagram that the path to a peer carries has ended, or such datagrams do not
    /// arrive any more. For logs.
    Path {
        /// The peer.
        peer: NodeId,
        /// What is known of the path.
        path: PathState,
    },
    /// A datagram was refused: count it.
    Refused(RefusedDatagram),
}

/// An event of this engine.
pub type Event = ordered::Event<Effect>;

/// The recovered entries are not contiguous: the journal's fault. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has no entry {0}, though later ones are there")]
pub struct Hole(pub Op);

/// Something that is still to be done.
#[derive(Debug)]
enum Step {
    /// Give the replica this input.
    Handle(replica::Input),
    /// Perform this effect of the replica.
    Perform(replica::Effect),
    /// Send the packets that are queued for peers.
    SendQueued,
    /// Report this event.
    Emit(Event),
}

impl From<Effect> for Step {
    fn from(effect: Effect) -> Step {
        Step::Emit(Event::Effect(effect))
    }
}

impl From<links::Effect> for Step {
    fn from(effect: links::Effect) -> Step {
        match effect {
            links::Effect::Send { to, bytes } => Effect::Peer { to, bytes }.into(),
            links::Effect::BootAdopted { peer, boot } => {
                Step::Handle(replica::Input::BootAdopted { peer, boot })
            }
            links::Effect::StaleIncarnation { server, incarnation, latest } => {
                Effect::StaleIncarnation { server, incarnation, latest }.into()
            }
            links::Effect::OtherEpoch { server, epoch } => Effect::OtherEpoch { server, epoch }.into(),
            links::Effect::Path { peer, path } => Effect::Path { peer, path }.into(),
        }
    }
}

/// The log of one server, by the bully algorithm.
#[derive(Debug)]
pub struct Bully {
    replica: ReplicaManager,
    links: PeerLinks,
    transfers: Transfers,
    /// The number of proposals made here.
    proposals: u64,
    /// The proposals made here that are neither committed nor void, by ascending op.
    awaited: VecDeque<(Op, Ticket)>,
    /// Those that are committed and that the node has not taken yet, by ascending op.
    committed: VecDeque<(Op, Ticket)>,
    /// What is still to be done, in order; empty between two calls of the node.
    steps: VecDeque<Step>,
}

impl Bully {
    /// Starts a server's log, always as a backup (or a learner).
    ///
    /// # Errors
    /// The recovered entries have a [`Hole`].
    pub fn new(
        config: &Config,
        identity: BootIdentity,
        recovered: Recovered,
        now: Moment,
    ) -> Result<Bully, Hole> {
        let Recovered { meta, snapshot, entries, commit, lost } = recovered;
        let base = snapshot.map_or((View::ZERO, Op::ZERO), |stored| (stored.view, stored.op));
        for (expected, entry) in (base.1.0 + 1..).zip(&entries) {
            if entry.op != Op(expected) {
                return Err(Hole(Op(expected)));
            }
        }
        let BootIdentity { id: boot_id, keys, seed } = identity;
        let (incarnation, known) = (meta.incarnation, meta.known());
        let identity = links::Identity { boot_id, incarnation, keys };
        let links = PeerLinks::new(&config.cluster, &config.timing, identity, &known, now);
        let (voter, promised, unknown) = (meta.voter, meta.promised, lost);
        let boot = Boot { voter, promised, base, entries, commit, known, unknown };
        let mut effects = Vec::new();
        let replica = ReplicaManager::new(config, boot, seed, now, &mut effects);
        Ok(Bully {
            replica,
            links,
            transfers: Transfers::default(),
            proposals: 0,
            awaited: VecDeque::new(),
            committed: VecDeque::new(),
            steps: effects.into_iter().map(Step::Perform).collect(),
        })
    }
}

impl OrderedLog for Bully {
    type Input = Input;
    type Effect = Effect;

    fn advance(&mut self, now: Moment) {
        if now >= self.replica.next_deadline() {
            self.handle_next(replica::Input::Deadline);
        }
    }

    fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::Peer { datagram, behind } => self.open(now, &datagram, behind),
            Input::PortRefused(peer) => self.handle_next(replica::Input::PortRefused(peer)),
            Input::Journaled(number) => self.handle_next(replica::Input::Journaled(number)),
            Input::SnapshotStored { transfer, upto } => {
                self.handle_next(replica::Input::SnapshotStored { transfer, upto });
            }
            Input::SnapshotOpening(transfer) => self.handle_next(replica::Input::SnapshotOpening(transfer)),
            Input::SnapshotAbandoned(transfer) => {
                self.handle_next(replica::Input::SnapshotAbandoned(transfer));
            }
            Input::SnapshotRead { to, piece } => {
                self.steps.extend(self.transfers.on_read(now, to, piece.as_ref()).map(Step::from));
                let room = self.links.packets_max(to);
                for chunk in piece.iter().flat_map(|piece| transfers::chunks(piece, room)) {
                    self.links.send(to, ToPeer::SnapshotChunk(chunk), None);
                }
            }
        }
    }

    fn settle(&mut self, now: Moment) {
        for (peer, ops) in self.links.losses(now) {
            self.handle_next(replica::Input::Lost { peer, ops });
        }
    }

    fn propose(&mut self, payload: Arc<[u8]>) -> Option<Ticket> {
        let op = self.replica.propose(payload)?;
        self.proposals += 1;
        let ticket = Ticket(self.proposals);
        self.awaited.push_back((op, ticket));
        Some(ticket)
    }

    fn confirm_lead(&mut self, now: Moment) {
        let mut effects = Vec::new();
        self.replica.confirm_lead(now, &mut effects);
        self.steps.extend(effects.into_iter().map(Step::Perform));
    }

    fn install(&mut self, now: Moment, transfer: u64) -> bool {
        let mut effects = Vec::new();
        let installed = self.replica.install(now, transfer, &mut effects);
        self.put_first(effects.into_iter().map(Step::Perform));
        installed
    }

    fn refuse_snapshot(&mut self, transfer: u64) -> bool {
        let mut effects = Vec::new();
        let refused = self.replica.refuse_snapshot(transfer, &mut effects);
        // After what was given to its file before.
        self.steps.extend(effects.into_iter().map(Step::Perform));
        refused
    }

    fn take(&mut self, applied: Op) -> Option<Committed> {
        let op = applied.next();
        if op > self.replica.commit() {
            return None;
        }
        let entry = self.replica.entry(op)?;
        let payload = match entry.kind {
            EntryKind::Command => Arc::clone(&entry.payload),
            EntryKind::ViewStart | EntryKind::Members | EntryKind::Unknown(_) => Arc::default(),
        };
        // What a snapshot has covered meanwhile is not taken any more.
        while self.committed.pop_front_if(|(committed, _)| *committed < op).is_some() {}
        let ticket = self.committed.pop_front_if(|(committed, _)| *committed == op).map(|(_, ticket)| ticket);
        Some(Committed { op, payload, ticket })
    }

    fn trim(&mut self, op: Op, most: usize) -> bool {
        self.replica.forget_upto(op, most)
    }

    fn stop(&mut self) {
        self.handle_next(replica::Input::Stop);
    }

    fn flush(&mut self, now: Moment) {
        let mut effects = Vec::new();
        let links = &self.links;
        let room = |peer| Room { window: links.room(peer), packet: links.packets_max(peer) };
        self.replica.flush(now, room, &mut effects);
        self.steps.extend(effects.into_iter().map(Step::Perform));
        self.steps.push_back(Step::SendQueued);
    }

    fn poll(&mut self, now: Moment) -> Option<Event> {
        loop {
            match self.steps.pop_front()? {
                Step::Handle(input) => {
                    let mut effects = Vec::new();
                    self.replica.handle(now, input, &mut effects);
                    self.put_first(effects.into_iter().map(Step::Perform));
                }
                Step::Perform(effect) => self.perform(effect),
                Step::SendQueued => {
                    let mut effects = Vec::new();
                    self.links.flush(now, self.replica.promised(), &mut effects);
                    self.put_first(effects.into_iter().map(Step::from));
                }
                Step::Emit(event) => return Some(event),
            }
        }
    }

    fn next_deadline(&self) -> Moment {
        let own = self.replica.next_deadline();
        self.links.next_deadline().map_or(own, |link| link.min(own))
    }

    fn status(&self) -> Status {
        let replica = &self.replica;
        Status {
            role: replica.role(),
            view: replica.promised(),
            active: replica.active_view(),
            accepts: replica.accepts(),
            commit: replica.commit(),
            last: replica.last(),
            durable: replica.durable(),
            appended_bytes: replica.appended_bytes(),
            led: replica.led(),
            fetched: self.transfers.fetched(),
        }
    }

    fn catches_up(&self) -> bool {
        self.replica.catches_up()
    }

    fn entry(&self, op: Op) -> Option<&Entry> {
        self.replica.entry(op)
    }
}

impl Bully {
    fn handle_next(&mut self, input: replica::Input) {
        self.steps.push_back(Step::Handle(input));
    }

    /// Puts these steps before all others.
    fn put_first(&mut self, steps: impl DoubleEndedIterator<Item = Step>) {
        for step in steps.rev() {
            self.steps.push_front(step);
        }
    }

    /// Opens a datagram of a peer. Its packets are handled one by one, each with all that follows from it.
    fn open(&mut self, now: Moment, datagram: &[u8], behind: bool) {
        let mut effects = Vec::new();
        let opened = self.links.open(now, self.replica.promised(), datagram, behind, &mut effects);
        self.steps.extend(effects.into_iter().map(Step::from));
        match opened {
            Ok(None) => {}
            Ok(Some((from, incarnation, packets))) => {
                let packets = packets.into_iter();
                let inputs = packets.map(|packet| replica::Input::Packet { from, incarnation, packet });
                self.steps.extend(inputs.map(Step::Handle));
            }
            Err(reason) => self.steps.push_back(Effect::Refused(reason).into()),
        }
    }

    /// Performs an effect of the replica before everything else that is to be done.
    fn perform(&mut self, effect: replica::Effect) {
        let event = match effect {
            replica::Effect::Send { to, packet, tracked } => return self.links.send(to, packet, tracked),
            replica::Effect::Commit(upto) => {
                // Ops proposed here are consecutive while this server leads, and the awaited ones are void
                // before another server's entry can take the place of one.
                while let Some(awaited) = self.awaited.pop_front_if(|(op, _)| *op <= upto) {
                    self.committed.push_back(awaited);
                }
                Event::Committed(upto)
            }
            replica::Effect::SnapshotBegun { transfer, op, start } => {
                Event::SnapshotBegun { transfer, op, start }
            }
            replica::Effect::StoreSnapshot { transfer, piece } => {
                let SnapshotChunk { op, view, offset, total, crc, bytes } = piece;
                let piece = SnapshotPiece { op, view, total, crc, offset, bytes };
                Event::Effect(Effect::StoreSnapshot { transfer, piece })
            }
            replica::Effect::DropSnapshot(transfer) => Event::Effect(Effect::DropSnapshot(transfer)),
            replica::Effect::Active(view) => Event::Active(view),
            replica::Effect::PeerStarted => Event::PeerStarted,
            replica::Effect::Deposed => {
                let lost = self.awaited.front().map(|(_, from)| Event::Lost { from: *from });
                self.awaited.clear();
                return self.put_first(lost.into_iter().chain([Event::Deposed]).map(Step::Emit));
            }
            replica::Effect::Stopped => Event::Stopped,
            replica::Effect::ReadSnapshot { to, op, offset, blocks } => {
                match self.transfers.read(to, Piece { op, offset, blocks }) {
                    Some(effect) => Event::Effect(effect),
                    None => return,
                }
            }
            replica::Effect::Journal { number, task } => Event::Effect(Effect::Journal { number, task }),
            replica::Effect::Report(report) => {
                if matches!(report, Report::SnapshotDamaged { .. }) {
                    self.put_first([Effect::Refused(RefusedDatagram::Snapshot).into()].into_iter());
                }
                Event::Effect(Effect::Report(report))
            }
        };
        self.steps.push_front(Step::Emit(event));
    }
}
