//! What one server does, without its threads: [`ReplicaManager`](crate::replica) and
//! [`Service`] together, the admission of numbered requests, queries, and
//! snapshots. The replica thread and the simulator drive it alike.
//!
//! Pure: `handle(clock, input, &mut effects)` and `next_deadline()`.

mod log_clock;
mod peers;
mod requests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Config, Planted};
use crate::delivery;
use crate::entry::{Entry, EntryKind};
use crate::fair::Network;
use crate::id::{
    BootId, ClusterId, DeviceId, DeviceKey, Incarnation, Moment, Name, NodeId, Op, SessionId, View, millis,
};
use crate::journal::Recovered;
use crate::replica::{self, Boot, ReplicaManager};
use crate::service::{Applied, Service, State};
use crate::wire::codec;
use crate::wire::command::{Command, Stamped};
use crate::wire::noise;
use crate::wire::packet::{AdminChange, Coordinator, Packet, RefusedDatagram, RoleName, SnapshotChunk};
use crate::wire::seal::ClusterKeys;

use super::budget::Budgets;
use log_clock::LogClock;
use peers::Peers;
use requests::UnderWay;

/// The two clocks, read once per input by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic; never goes back.
    pub now: Moment,
    /// Wall clock, in ms since 1970; may jump. Only the log's clock reads it, and follows it slowly.
    pub unix_ms: u64,
}

/// What happens to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram on the peer port, not to be trusted.
    Peer {
        /// Its bytes.
        datagram: Vec<u8>,
        /// The journal is behind: what would give it more to do is dropped. Peers send it again.
        behind: bool,
    },
    /// A peer's port refused what was sent: its process is gone.
    PortRefused(NodeId),
    /// A packet of a client on its session, opened well.
    Client {
        /// On which session.
        session: SessionId,
        /// What.
        packet: Packet,
    },
    /// A packet of a client without one, carried by the first message of a handshake.
    Knock {
        /// How to answer.
        caller: delivery::Caller,
        /// The key it has proved to hold.
        key: DeviceKey,
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
        /// What was read.
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
    /// From the delivery: a session's client has shown that it receives here. What it asks is charged to that
    /// network.
    Path {
        /// Which session.
        session: SessionId,
        /// Where.
        address: SocketAddr,
    },
    /// From the delivery: a session has delivered up to here.
    Cursor(SessionId, Op),
    /// What the process knows of itself, for STATUS: now and then.
    Process {
        /// Its id.
        pid: u32,
        /// What its listeners refused so far.
        refused: Vec<(RefusedDatagram, u64)>,
    },
    /// A deadline may have passed.
    Deadline,
    /// Stop: hand over if this is the primary, then [`Effect::Stopped`].
    Stop,
}

pub use crate::journal::SnapshotPiece;
pub use crate::replica::{Cause, Contradiction, RoleChange, Task};

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
    /// Write a snapshot, encoded by [`codec::encode_snapshot`]; then [`Input::SnapshotDone`].
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
    /// A session is in the committed state, on every server alike, live or pending: its client may
    /// speak at any time. Said again for one that is known; for all of them when the server starts
    /// and when a snapshot was installed.
    SessionKnown {
        /// Which one.
        session: SessionId,
        /// Whose.
        device: DeviceId,
        /// Of which CONNECT.
        nonce: u64,
    },
    /// A session is over, on every server alike.
    SessionGone(SessionId),
    /// What an administrator asked is committed: for the primary's log.
    Administered {
        /// What.
        change: AdminChange,
        /// Where it stands in the log.
        op: Op,
    },
    /// A client said that it stands behind the end of the log: its cursor is none of this log's. For logs.
    BeyondEnd {
        /// Which session.
        session: SessionId,
        /// Where it said that it stands.
        cursor: Op,
        /// Where the log ends.
        applied: Op,
    },
    /// A role change, for logs and status.
    Role(RoleChange),
    /// An election waits for one of these servers: what they hold may be committed. For logs.
    Waiting(Vec<NodeId>),
    /// What this server knows to be committed is missing in a leader's log. For logs, and loudly.
    Contradicted(Contradiction),
    /// Entries on this server's disk give way to those of a leader, whose log lacks them. For logs.
    Overwritten {
        /// The leader's view.
        view: View,
        /// The first of them.
        first: Op,
        /// The last of them.
        last: Op,
    },
    /// A server that runs now says that it is in an earlier life than one it had: it is not listened to.
    /// Its data directory is an old one, or was made anew under a clock that is behind. For logs.
    EarlierLife {
        /// Which server.
        server: NodeId,
        /// The life it says.
        incarnation: Incarnation,
        /// The latest it had.
        latest: Incarnation,
    },
    /// The wall clock of this primary is so many ms ahead of the log's time, below zero behind it: for
    /// logs. At most once a minute.
    ClockAway(i64),
    /// A datagram was not taken: count it.
    Refused(RefusedDatagram),
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
    /// The service's state at `op`.
    pub state: State,
}

/// Why a server cannot start on what its journal holds. Ours or the operator's fault; nothing was
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The snapshot's checksum holds, but its content is not readable by this version.
    #[error("the snapshot at op {0} is not readable by this version of recadod: {1}")]
    Snapshot(Op, crate::wire::DecodeError),
    /// The snapshot is of another cluster or other members.
    #[error("the snapshot at op {0} is of another cluster; is this the right directory?")]
    Foreign(Op),
    /// An entry behind a snapshot does not join on: the journal is at fault.
    #[error("the log has no entry {0}, though later ones are there")]
    Hole(Op),
}

/// A piece of a stored snapshot that a peer asked for.
#[derive(Clone, Copy, Debug)]
struct Reading {
    op: Op,
    offset: u64,
    chunks: u16,
}

/// How often cursors are logged: one batch for all devices (DESIGN.md section 3).
const CURSORS_EVERY: Duration = Duration::from_secs(1);

/// Cursors in one batch; the rest waits for the next.
const CURSORS_MAX: usize = 1_000;

/// How often the primary looks for what retention drops and who is idle.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Networks that have asked for something, claimed names or made channels lately and are counted; one more waits until one of them has
/// its whole budget again.
const NETWORKS_MAX: usize = 65_536;

/// Commands logged by one round of housekeeping.
const HOUSEKEEPING_MAX: usize = 64;

/// Notifications of one page for the delivery, in bytes.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// What makes one life of a server different from all others.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its id: random, and never used before.
    pub id: BootId,
    /// What comes from the cluster's secret.
    pub keys: ClusterKeys,
    /// Seed for jitter.
    pub seed: u64,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    config: Config,
    incarnation: Incarnation,
    pid: u32,
    started: Moment,
    replica: ReplicaManager,
    service: Service,
    keys: ClusterKeys,
    /// The key of an administrator, who has the cluster's secret.
    admin: DeviceKey,
    peers: Peers,
    /// Whether this is the primary of an active view: what is applied is told to those it concerns.
    is_primary: bool,
    under_way: UnderWay,
    /// The networks where sessions' clients have shown that they receive.
    networks: BTreeMap<SessionId, Network>,
    /// What sessions, the profiles behind them and their networks may still ask for. Sessions of no network that
    /// is known have the budget of one: whoever lies about his address has no more than that.
    session_budgets: Budgets<SessionId>,
    profile_budgets: Budgets<Name>,
    network_budgets: Budgets<Option<Network>>,
    /// How many names networks may still claim, and how many channels they may still make.
    names: Budgets<Network>,
    channels: Budgets<Option<Network>>,
    /// What sessions have read since the last batch.
    cursors: BTreeMap<SessionId, Op>,
    /// When it was last logged of each session that it lives, though it may read nothing: by the log's clock.
    alive: BTreeMap<SessionId, u64>,
    log_clock: LogClock,
    cursors_at: Moment,
    housekeeping_at: Moment,
    /// The last op of the housekeeping under way.
    housekept: Op,
    /// The newest durable snapshot, and when the last one was begun.
    snapshot: Op,
    snapshot_at: Moment,
    /// How much the log had taken then.
    snapshot_bytes_at: u64,
    snapshot_busy: bool,
    /// Whom a stored snapshot is being read for, and what they asked since.
    reading: BTreeMap<NodeId, Option<Reading>>,
    refused: Vec<(RefusedDatagram, u64)>,
    applied: Vec<Applied>,
    /// Effects on their way out; always empty between two calls.
    out: Vec<Effect>,
}

impl Node {
    /// A server starts: always as a backup (or a learner).
    ///
    /// # Errors
    /// [`StartError`] if the snapshot cannot be used.
    pub fn new(
        config: Config,
        recovered: Recovered,
        life: Life,
        clock: Clock,
        out: &mut Vec<Effect>,
    ) -> Result<Node, StartError> {
        let (mut base, mut state) = ((View::ZERO, Op::ZERO), State::default());
        if let Some(stored) = &recovered.snapshot {
            let image: Image = codec::decode_snapshot(&stored.bytes)
                .map_err(|error| StartError::Snapshot(stored.op, error))?;
            if !image.is_of(&config) {
                return Err(StartError::Foreign(stored.op));
            }
            (base, state) = ((image.view, image.op), image.state);
        }
        for (expected, entry) in (base.1.0 + 1..).zip(&recovered.entries) {
            if entry.op != Op(expected) {
                return Err(StartError::Hole(Op(expected)));
            }
        }
        let boot = Boot {
            incarnation: recovered.meta.incarnation,
            voter: recovered.meta.voter,
            promised: recovered.meta.promised,
            base,
            entries: recovered.entries,
            commit: recovered.commit,
            known: recovered.meta.known.clone(),
            unknown: recovered.lost,
        };
        let now = clock.now;
        let mut effects = Vec::new();
        let replica = ReplicaManager::new(&config, boot, life.seed, now, &mut effects);
        let service = Service::new(state, config.limits, config.planted);
        let log_clock = LogClock::new(now, service.clock_ms());
        let mut node = Node {
            service,
            peers: Peers::new(&config, life.keys.clone(), &recovered.meta, life.id, now),
            admin: DeviceKey(noise::public(&life.keys.admin_private())),
            keys: life.keys,
            incarnation: recovered.meta.incarnation,
            pid: 0,
            started: now,
            replica,
            is_primary: false,
            under_way: UnderWay::default(),
            session_budgets: Budgets::new(config.limits.session_requests, config.limits.sessions),
            profile_budgets: Budgets::new(config.limits.profile_requests, config.limits.profiles),
            networks: BTreeMap::new(),
            network_budgets: Budgets::new(config.limits.network_requests, NETWORKS_MAX),
            names: Budgets::new(config.limits.network_names, NETWORKS_MAX),
            channels: Budgets::new(config.limits.network_channels, NETWORKS_MAX),
            cursors: BTreeMap::new(),
            alive: BTreeMap::new(),
            log_clock,
            cursors_at: now + CURSORS_EVERY,
            housekeeping_at: now + HOUSEKEEPING_EVERY,
            housekept: Op::ZERO,
            snapshot: base.1,
            snapshot_at: now,
            snapshot_bytes_at: 0,
            snapshot_busy: false,
            reading: BTreeMap::new(),
            refused: Vec::new(),
            applied: Vec::new(),
            out: Vec::new(),
            config,
        };
        node.know_sessions(&[]);
        node.perform(clock, effects);
        node.finish(out);
        Ok(node)
    }

    /// Takes one input, pushing what is to be done. Call [`Node::flush`] after the last of a batch.
    pub fn handle(&mut self, clock: Clock, input: Input, out: &mut Vec<Effect>) {
        // A process that slept must know it before it believes anything, above all itself.
        if clock.now >= self.replica.next_deadline() {
            self.replicate(clock, replica::Input::Deadline);
        }
        match input {
            Input::Peer { datagram, behind } => {
                match self.peers.open(clock.now, &datagram, behind, &mut self.out) {
                    Ok(None) => {}
                    Ok(Some((from, incarnation, packets))) => {
                        for packet in packets {
                            self.replicate(clock, replica::Input::Packet { from, incarnation, packet });
                        }
                    }
                    Err(reason) => self.out.push(Effect::Refused(reason)),
                }
            }
            Input::PortRefused(peer) => self.replicate(clock, replica::Input::PortRefused(peer)),
            Input::Client { session, packet } => self.on_client(clock, session, packet),
            Input::Knock { caller, key, packet } => self.on_knock(clock, caller, key, packet),
            Input::Journaled(ticket) => self.replicate(clock, replica::Input::Journaled(ticket)),
            Input::SnapshotDone(op) => self.on_snapshot_done(op),
            Input::SnapshotRead { to, piece } => self.on_snapshot_read(to, piece),
            Input::WantPage { session, after, limit } => self.on_want_page(clock, session, after, limit),
            // In the log, or there would be no keys for what showed it.
            Input::Path { session, address } if self.service.has_session(session) => {
                self.networks.insert(session, Network::of(address.ip()));
            }
            Input::Path { .. } => {}
            Input::Cursor(session, upto) => {
                let cursor = self.cursors.entry(session).or_default();
                *cursor = upto.max(*cursor);
            }
            Input::Process { pid, refused } => (self.pid, self.refused) = (pid, refused),
            Input::Deadline => {}
            Input::Stop => self.replicate(clock, replica::Input::Stop),
        }
        for (peer, ops) in self.peers.losses(clock.now) {
            self.replicate(clock, replica::Input::Lost { peer, ops });
        }
        self.keep_house(clock);
        self.finish(out);
    }

    /// Journals and casts what the inputs since the last call brought in.
    pub fn flush(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        let peers = &self.peers;
        self.replica.flush(clock.now, |peer| peers.room(peer), &mut effects);
        self.perform(clock, effects);
        self.peers.flush(clock.now, self.replica.promised(), &mut self.out);
        self.finish(out);
    }

    /// When an [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        let own = self.replica.next_deadline();
        Some(self.peers.next_deadline().map_or(own, |link| link.min(own)))
    }

    fn finish(&mut self, out: &mut Vec<Effect>) {
        out.append(&mut self.out);
    }

    fn replicate(&mut self, clock: Clock, input: replica::Input) {
        let mut effects = Vec::new();
        self.replica.handle(clock.now, input, &mut effects);
        self.perform(clock, effects);
    }

    fn perform(&mut self, clock: Clock, effects: Vec<replica::Effect>) {
        for effect in effects {
            match effect {
                replica::Effect::Send { to, packet, tracked: None } => self.peers.send(to, packet),
                replica::Effect::Send { to, packet, tracked: Some(ops) } => {
                    let view = self.replica.promised();
                    self.peers.send_tracked(clock.now, view, to, packet, ops, &mut self.out);
                }
                replica::Effect::Journal { ticket, task } => self.out.push(Effect::Journal { ticket, task }),
                replica::Effect::Apply(entry) => self.apply(clock, &entry),
                replica::Effect::SnapshotReceived { op, view, bytes } => {
                    self.on_snapshot_received(clock, op, view, bytes);
                }
                replica::Effect::ReadSnapshot { to, op, offset, chunks } => {
                    self.read_snapshot(to, Reading { op, offset, chunks });
                }
                replica::Effect::Active(view) => self.on_active(clock.now, view),
                replica::Effect::Deposed => self.on_deposed(),
                replica::Effect::Role(change) => self.out.push(Effect::Role(change)),
                replica::Effect::Waiting(whom) => self.out.push(Effect::Waiting(whom)),
                replica::Effect::Contradicted(found) => self.out.push(Effect::Contradicted(found)),
                replica::Effect::Overwritten { view, first, last } => {
                    self.out.push(Effect::Overwritten { view, first, last });
                }
                replica::Effect::Stopped => self.out.push(Effect::Stopped),
            }
        }
    }

    /// Applies a committed entry. One whose payload does not decode cannot be: every server runs
    /// the same codec over the same bytes, so it counts as nothing, everywhere alike.
    fn apply(&mut self, clock: Clock, entry: &Entry) {
        let stamped: Option<Stamped> = match entry.kind {
            EntryKind::ViewStart => None,
            EntryKind::Command => codec::decode(&entry.payload).ok(),
        };
        self.service.apply(entry.op, stamped.as_ref(), &mut self.applied);
        self.log_clock.heard(clock.now, self.service.clock_ms(), self.is_primary);
        for applied in std::mem::take(&mut self.applied) {
            self.on_applied(clock, applied);
        }
    }

    /// Tells of all sessions of a state that was not applied entry by entry, and which of those known
    /// before are none of it.
    fn know_sessions(&mut self, before: &[SessionId]) {
        let known = self.service.sessions();
        let known = known.map(|(session, device, nonce)| Effect::SessionKnown { session, device, nonce });
        let gone = before.iter().copied().filter(|session| !self.service.has_session(*session));
        self.out.extend(known.chain(gone.map(Effect::SessionGone)));
    }

    fn on_active(&mut self, now: Moment, view: View) {
        self.is_primary = view.primary() == Some(self.config.cluster.me);
        if self.is_primary {
            self.log_clock.lead(now);
        }
        self.out.push(Effect::Delivery(delivery::Input::Announce(self.coordinator())));
    }

    fn on_deposed(&mut self) {
        self.is_primary = false;
        if !self.config.planted.is(Planted::NumbersOutliveView) {
            self.under_way = UnderWay::default();
        }
        self.cursors.clear();
        self.alive.clear();
        self.housekept = Op::ZERO;
        self.out.push(Effect::Delivery(delivery::Input::Silence));
    }

    /// Whether requests and questions are answered: by a primary that is not isolated.
    fn serves(&self) -> bool {
        self.is_primary && self.replica.role() == RoleName::Primary
    }

    fn coordinator(&self) -> Coordinator {
        let members = self.config.cluster.members.iter().map(|member| (member.id, member.client)).collect();
        Coordinator { view: self.replica.active_view(), members }
    }

    /// A page, or when the session has the budget for it.
    fn on_want_page(&mut self, clock: Clock, session: SessionId, after: Op, limit: u32) {
        if !self.is_primary {
            return;
        }
        let answer = match self.pay_for_page(clock, session, limit) {
            Ok(()) => {
                let page = self.service.page(session, after, limit as usize, PAGE_BYTES_MAX);
                delivery::Input::Page { session, after, page }
            }
            Err(wait) => delivery::Input::PageLater { session, after, wait },
        };
        self.out.push(Effect::Delivery(answer));
    }

    /// A session lives, though it may have nothing to read: said to the log once in a long while,
    /// so that it does not count as idle.
    fn note_alive(&mut self, clock: Clock, session: SessionId) {
        if !self.serves() || self.service.session(session).is_none() {
            return;
        }
        // By the clock that idle sessions are closed by.
        let log_ms = self.log_clock.read(clock);
        let every_ms = millis(self.config.limits.session_idle) / 4;
        let noted = self.alive.get(&session);
        if noted.is_none_or(|noted| log_ms.saturating_sub(*noted) >= every_ms) {
            self.alive.insert(session, log_ms);
            self.cursors.entry(session).or_default();
        }
    }

    /// What the primary logs of its own accord, and snapshots.
    fn keep_house(&mut self, clock: Clock) {
        let now = clock.now;
        if now >= self.cursors_at {
            self.cursors_at = now + CURSORS_EVERY;
            self.log_cursors(clock);
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_EVERY;
            if self.replica.accepts() && self.service.applied() >= self.housekept {
                let log_ms = self.log_clock.read(clock);
                for command in self.service.housekeeping(log_ms, &self.config.retention, HOUSEKEEPING_MAX) {
                    self.housekept = self.propose(clock, command).unwrap_or(self.housekept);
                }
                self.out.extend(self.log_clock.warn(clock).map(Effect::ClockAway));
            }
        }
        let due = now.since(self.snapshot_at) >= self.config.snapshot_every
            || self.replica.appended_bytes() - self.snapshot_bytes_at >= self.config.snapshot_bytes;
        if due && !self.snapshot_busy && self.service.applied() > self.snapshot {
            self.snapshot_at = now;
            self.snapshot_bytes_at = self.replica.appended_bytes();
            self.take_snapshot();
        }
    }

    fn log_cursors(&mut self, clock: Clock) {
        if !self.replica.accepts() || self.cursors.is_empty() {
            return;
        }
        let batch: Vec<(SessionId, Op)> =
            self.cursors.iter().take(CURSORS_MAX).map(|(session, op)| (*session, *op)).collect();
        for (session, _) in &batch {
            self.cursors.remove(session);
        }
        self.propose(clock, Command::Cursors(batch));
    }

    fn take_snapshot(&mut self) {
        let mut op = self.service.applied();
        let mut state = self.service.state();
        if self.config.planted.is(Planted::SnapshotUncommitted) {
            (op, state) = self.uncommitted_state(op, state);
        }
        if self.config.planted.is(Planted::ResultsNotInSnapshot) {
            state = state.without_results();
        }
        let Some(view) = self.replica.view_at(op) else { return };
        self.snapshot_busy = true;
        let members = self.config.cluster.members.iter().map(|member| member.id).collect();
        let image = Image { cluster: self.config.cluster.id, members, op, view, state };
        self.out.push(Effect::Snapshot(Box::new(image)));
    }

    /// The mistake of a snapshot that holds what was never committed.
    fn uncommitted_state(&self, mut op: Op, state: State) -> (Op, State) {
        let mut ahead = Service::new(state, self.config.limits, self.config.planted);
        while let Some(entry) = self.replica.entry(op.next()) {
            op = entry.op;
            let stamped: Option<Stamped> = codec::decode(&entry.payload).ok();
            ahead.apply(op, stamped.as_ref(), &mut Vec::new());
        }
        (op, ahead.state())
    }

    fn on_snapshot_done(&mut self, op: Op) {
        self.snapshot_busy = false;
        // The log behind the snapshot before this one stays: a peer a little behind needs no snapshot.
        self.replica.forget_upto(self.snapshot);
        self.snapshot = self.snapshot.max(op);
    }

    /// One at a time for each peer, and the newest it asked meanwhile: however often it asks, the
    /// journal's queue does not grow.
    fn read_snapshot(&mut self, to: NodeId, wanted: Reading) {
        match self.reading.get_mut(&to) {
            // The offer of a snapshot does not displace what was asked of one.
            Some(Some(next)) if wanted.chunks < next.chunks => {}
            Some(next) => *next = Some(wanted),
            None => {
                self.reading.insert(to, None);
                let Reading { op, offset, chunks } = wanted;
                self.out.push(Effect::ReadSnapshot { to, op, offset, chunks });
            }
        }
    }

    fn on_snapshot_read(&mut self, to: NodeId, piece: Option<SnapshotPiece>) {
        if let Some(Some(next)) = self.reading.remove(&to) {
            self.read_snapshot(to, next);
        }
        let Some(piece) = piece else { return };
        for (n, bytes) in piece.bytes.chunks(SnapshotChunk::BYTES_MAX).enumerate() {
            let offset = piece.offset + (n * SnapshotChunk::BYTES_MAX) as u64;
            let SnapshotPiece { op, view, total, crc, .. } = piece;
            let chunk = SnapshotChunk { op, view, offset, total, crc, bytes: bytes.to_vec() };
            self.peers.send(to, Packet::SnapshotChunk(chunk));
        }
    }

    fn on_snapshot_received(&mut self, clock: Clock, op: Op, view: View, bytes: Vec<u8>) {
        let Ok(image) = codec::decode_snapshot::<Image>(&bytes) else { return };
        if !image.is_of(&self.config) || image.op != op || image.view != view {
            return;
        }
        let service = Service::new(image.state, self.config.limits, self.config.planted);
        if service.applied() != op {
            return;
        }
        let mut effects = Vec::new();
        if self.replica.install(clock.now, op, view, bytes, &mut effects) {
            let before: Vec<SessionId> = self.service.sessions().map(|(session, ..)| session).collect();
            self.service = service;
            self.log_clock.heard(clock.now, self.service.clock_ms(), self.is_primary);
            self.snapshot = op;
            self.snapshot_bytes_at = self.replica.appended_bytes();
            self.networks.retain(|session, _| self.service.has_session(*session));
            if !self.config.planted.is(Planted::SessionsUnknownAfterInstall) {
                self.know_sessions(&before);
            }
        }
        self.perform(clock, effects);
    }

    // ---- what the outside may look at

    /// What it is.
    pub fn role(&self) -> RoleName {
        self.replica.role()
    }

    /// Nothing below is accepted; also the view it is in.
    pub fn promised(&self) -> View {
        self.replica.promised()
    }

    /// The highest active view it knows.
    pub fn active_view(&self) -> View {
        self.replica.active_view()
    }

    /// The last op known to be committed.
    pub fn commit(&self) -> Op {
        self.replica.commit()
    }

    /// The last op applied.
    pub fn applied(&self) -> Op {
        self.service.applied()
    }

    /// Whether it has caught up since it started.
    pub fn is_ready(&self) -> bool {
        self.replica.is_ready()
    }

    /// The state machine, to look at.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

impl Image {
    /// Whether it is of this cluster with these members.
    fn is_of(&self, config: &Config) -> bool {
        let members = config.cluster.members.iter().map(|member| &member.id);
        self.cluster == config.cluster.id && self.members.iter().eq(members)
    }
}

#[cfg(test)]
mod tests;
