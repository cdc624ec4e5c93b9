//! One server without its threads: the [`ReplicaManager`](recado_log::replica) and the [`Service`], the
//! admission of numbered requests, queries, and snapshots. The replica thread and the simulator drive it
//! alike.
//!
//! Pure: `handle(clock, input, &mut effects)` and `next_deadline()`.

mod admin;
mod admission;
mod clients;
mod io;
mod log_clock;
mod queries;

use std::collections::BTreeMap;
use std::time::Duration;

use super::budget::Budgets;
use crate::config::{Config, Planted};
use crate::delivery;
use crate::fair::Network;
use recado_log::journal::Recovered;
use recado_log::links::{self, PeerLinks};
use recado_log::replica::{self, Boot, ReplicaManager};
use recado_proto::codec;
use recado_proto::command::{Command, Stamped};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{Clock, ClusterId, Incarnation, Moment, Name, NodeId, Op, SessionId, View, millis};
use recado_proto::packet::{Coordinator, Packet, RefusedDatagram, RoleName, SnapshotChunk};
use recado_proto::seal::ClusterKeys;
use recado_service::{Applied, Service, State};

use admin::Administration;
use admission::UnderWay;
use log_clock::LogClock;

pub use io::{BootIdentity, Effect, Input, StartError};
pub use recado_log::journal::SnapshotPiece;
pub use recado_log::replica::{Cause, Contradiction, RoleChange, Task};

/// The content of a snapshot. The codec encodes it whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members.
    pub members: Vec<NodeId>,
    /// The last op applied.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The service's state at `op`.
    pub state: State,
}

/// A piece of a stored snapshot that a peer requested.
#[derive(Clone, Copy, Debug)]
struct Reading {
    op: Op,
    offset: u64,
    chunks: u16,
}

/// Interval between batches of cursors in the log; one batch covers all devices (DESIGN.md section 3).
const CURSORS_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of cursors in one batch; the rest waits for the next.
const CURSORS_MAX: usize = 1_000;

/// Interval at which the primary looks for notifications to trim and idle sessions to close.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of networks with a bucket, in each of the tables for requests, names claimed, and channels
/// made. When a table is full, a further network waits until a bucket is full again and is removed.
const NETWORKS_MAX: usize = 65_536;

/// Maximum number of commands logged by one round of housekeeping.
const HOUSEKEEPING_MAX: usize = 64;

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
    links: PeerLinks,
    /// True if this is the primary of an active view: results of applied commands are sent to their clients.
    is_primary: bool,
    under_way: UnderWay,
    administration: Administration,
    /// The network where each session's client has proved to receive.
    networks: BTreeMap<SessionId, Network>,
    /// Budgets for requests: of sessions, their profiles and their networks. All sessions without a proved
    /// network share the budget of one (`None`), so a client that forges its address gets no more than
    /// that.
    session_budgets: Budgets<SessionId>,
    profile_budgets: Budgets<Name>,
    network_budgets: Budgets<Option<Network>>,
    /// Budgets for names claimed and channels made, by network.
    names: Budgets<Network>,
    channels: Budgets<Option<Network>>,
    /// Cursors that moved since the last batch.
    cursors: BTreeMap<SessionId, Op>,
    /// Log time in ms at which each session was last logged as alive. This keeps a session that reads
    /// nothing from counting as idle.
    alive: BTreeMap<SessionId, u64>,
    log_clock: LogClock,
    cursors_at: Moment,
    housekeeping_at: Moment,
    /// The last op of the housekeeping in progress; the next round waits until it is applied.
    housekept: Op,
    /// The op of the newest durable snapshot.
    snapshot: Op,
    /// When the last snapshot was begun.
    snapshot_at: Moment,
    /// Bytes that the log had taken when the last snapshot was begun.
    snapshot_bytes_at: u64,
    snapshot_busy: bool,
    /// Peers that a stored snapshot is being read for, each with its newest request since.
    reading: BTreeMap<NodeId, Option<Reading>>,
    refused: Vec<(RefusedDatagram, u64)>,
    applied: Vec<Applied>,
    /// Effects collected during a call; empty between two calls.
    out: Vec<Effect>,
}

impl Node {
    /// Starts a server, always as a backup (or a learner).
    pub fn new(
        config: Config,
        recovered: Recovered,
        boot_id: BootIdentity,
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
        let replica = ReplicaManager::new(&config.log(), boot, boot_id.seed, now, &mut effects);
        let service = Service::new(state, config.limits, config.planted);
        let log_clock = LogClock::new(now, service.clock_ms());
        let (incarnation, keys) = (recovered.meta.incarnation, boot_id.keys);
        let identity = links::Identity { boot_id: boot_id.id, incarnation, keys: keys.clone() };
        let known = &recovered.meta.known;
        let mut node = Node {
            service,
            links: PeerLinks::new(&config.cluster, &config.timing, identity, known, now),
            administration: Administration::new(&keys),
            keys,
            incarnation,
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
        node.emit_sessions(&[]);
        node.perform(clock, effects);
        node.finish(out);
        Ok(node)
    }

    /// Handles one input and appends the effects to `out`. Call [`Node::flush`] after the last input of a
    /// batch.
    pub fn handle(&mut self, clock: Clock, input: Input, out: &mut Vec<Effect>) {
        // After the process was suspended, the passed deadline is handled before the input, so that this
        // server does not act on an outdated role.
        if clock.now >= self.replica.next_deadline() {
            self.replicate(clock, replica::Input::Deadline);
        }
        match input {
            Input::Peer { datagram, behind } => {
                let mut effects = Vec::new();
                let opened = self.links.open(clock.now, &datagram, behind, &mut effects);
                self.perform_links(effects);
                match opened {
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
            Input::Initiation { reply_to, key, packet } => self.on_initiation(clock, reply_to, key, packet),
            Input::Journaled(ticket) => self.replicate(clock, replica::Input::Journaled(ticket)),
            Input::SnapshotDone(op) => self.on_snapshot_done(op),
            Input::SnapshotRead { to, piece } => self.on_snapshot_read(to, piece),
            Input::WantPage { session, after, limit } => self.on_want_page(clock, session, after, limit),
            // Only a session in the log has keys, so only such a session can have proved an address. The
            // guard ignores one that has ended since.
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
        for (peer, ops) in self.links.losses(clock.now) {
            self.replicate(clock, replica::Input::Lost { peer, ops });
        }
        self.keep_house(clock);
        self.finish(out);
    }

    /// Journals and casts the entries that the inputs since the last call produced, and sends the packets
    /// queued for peers.
    pub fn flush(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        let links = &self.links;
        self.replica.flush(clock.now, |peer| links.room(peer), &mut effects);
        self.perform(clock, effects);
        let mut effects = Vec::new();
        self.links.flush(clock.now, self.replica.promised(), &mut effects);
        self.perform_links(effects);
        self.finish(out);
    }

    /// The latest time at which an [`Input::Deadline`] is wanted.
    pub fn next_deadline(&self) -> Option<Moment> {
        let own = self.replica.next_deadline();
        Some(self.links.next_deadline().map_or(own, |link| link.min(own)))
    }

    fn finish(&mut self, out: &mut Vec<Effect>) {
        out.append(&mut self.out);
    }

    fn propose(&mut self, clock: Clock, command: Command) -> Option<Op> {
        let mut unix_ms = self.log_clock.read(clock);
        if self.config.planted.is(Planted::LogTimeGoesBack) {
            unix_ms = clock.unix_ms;
        }
        let stamped = Stamped { unix_ms, command };
        self.replica.propose(codec::encode(&stamped).into())
    }

    fn replicate(&mut self, clock: Clock, input: replica::Input) {
        let mut effects = Vec::new();
        self.replica.handle(clock.now, input, &mut effects);
        self.perform(clock, effects);
    }

    fn perform_links(&mut self, effects: Vec<links::Effect>) {
        self.out.extend(effects.into_iter().map(Effect::from));
    }

    fn perform(&mut self, clock: Clock, effects: Vec<replica::Effect>) {
        for effect in effects {
            match effect {
                replica::Effect::Send { to, packet, tracked: None } => self.links.send(to, packet),
                replica::Effect::Send { to, packet, tracked: Some(ops) } => {
                    let view = self.replica.promised();
                    let mut effects = Vec::new();
                    self.links.send_tracked(clock.now, view, to, packet, ops, &mut effects);
                    self.perform_links(effects);
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

    /// Applies a committed entry. A payload that does not decode is applied as nothing: every server runs
    /// the same codec over the same bytes, so all of them do the same.
    fn apply(&mut self, clock: Clock, entry: &Entry) {
        let stamped: Option<Stamped> = match entry.kind {
            EntryKind::ViewStart => None,
            EntryKind::Command => codec::decode(&entry.payload).ok(),
        };
        self.service.apply(entry.op, stamped.as_ref(), &mut self.applied);
        self.log_clock.on_applied(clock.now, self.service.clock_ms(), self.is_primary);
        for applied in std::mem::take(&mut self.applied) {
            self.on_applied(clock, applied);
        }
    }

    /// Emits SessionKnown for all sessions of a state that was not applied entry by entry, and SessionGone
    /// for those in `before` that it does not contain.
    fn emit_sessions(&mut self, before: &[SessionId]) {
        let known = self.service.sessions();
        let known = known.map(|(session, device, nonce)| Effect::SessionKnown { session, device, nonce });
        let gone = before.iter().copied().filter(|session| !self.service.has_session(*session));
        self.out.extend(known.chain(gone.map(Effect::SessionGone)));
    }

    fn on_active(&mut self, now: Moment, view: View) {
        self.is_primary = view.primary() == Some(self.config.cluster.me);
        if self.is_primary {
            self.log_clock.on_primary(now);
        }
        self.out.push(Effect::Delivery(delivery::Input::Announce(self.coordinator())));
    }

    fn on_deposed(&mut self) {
        self.is_primary = false;
        if !self.config.planted.is(Planted::NumbersOutliveView) {
            self.under_way = UnderWay::default();
            self.administration.discard();
        }
        self.cursors.clear();
        self.alive.clear();
        self.housekept = Op::ZERO;
        self.out.push(Effect::Delivery(delivery::Input::Silence));
    }

    /// Returns true if requests and queries are answered: on a primary that is not isolated.
    fn serves(&self) -> bool {
        self.is_primary && self.replica.role() == RoleName::Primary
    }

    fn coordinator(&self) -> Coordinator {
        let members = self.config.cluster.members.iter().map(|member| (member.id, member.client)).collect();
        Coordinator { view: self.replica.active_view(), members }
    }

    /// Logs once in a long while that a session is alive although it may have nothing to read, so that it
    /// does not count as idle. An entry in the next batch of cursors does that.
    fn note_alive(&mut self, clock: Clock, session: SessionId) {
        if !self.serves() || self.service.session(session).is_none() {
            return;
        }
        // The log's clock, because idle sessions are closed by it.
        let log_ms = self.log_clock.read(clock);
        let every_ms = millis(self.config.limits.session_idle) / 4;
        let noted = self.alive.get(&session);
        if noted.is_none_or(|noted| log_ms.saturating_sub(*noted) >= every_ms) {
            self.alive.insert(session, log_ms);
            self.cursors.entry(session).or_default();
        }
    }

    /// Proposes cursors and housekeeping if this is the primary, and begins a snapshot if one is due.
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

    /// Planted bug: the state of a snapshot that includes uncommitted entries.
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
        // The log after the previous snapshot is kept, so that a peer a little behind needs no snapshot.
        self.replica.forget_upto(self.snapshot);
        self.snapshot = self.snapshot.max(op);
    }

    /// Reads one piece at a time for each peer and keeps only the newest request that arrives meanwhile, so
    /// that the journal's queue does not grow however often a peer asks.
    fn read_snapshot(&mut self, to: NodeId, wanted: Reading) {
        match self.reading.get_mut(&to) {
            // The offer of a snapshot reads fewer chunks than a request, and does not displace one.
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
            self.links.send(to, Packet::SnapshotChunk(chunk));
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
            self.log_clock.on_applied(clock.now, self.service.clock_ms(), self.is_primary);
            self.snapshot = op;
            self.snapshot_bytes_at = self.replica.appended_bytes();
            self.networks.retain(|session, _| self.service.has_session(*session));
            if !self.config.planted.is(Planted::SessionsUnknownAfterInstall) {
                self.emit_sessions(&before);
            }
        }
        self.perform(clock, effects);
    }

    // ---- accessors

    /// The role of this server.
    pub fn role(&self) -> RoleName {
        self.replica.role()
    }

    /// The promised view, below which nothing is accepted. Also the view that this server is in.
    pub fn promised(&self) -> View {
        self.replica.promised()
    }

    /// The highest active view that this server knows.
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

    /// Returns true if this server has caught up since it started.
    pub fn is_ready(&self) -> bool {
        self.replica.is_ready()
    }

    /// The state machine, read-only.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

impl Image {
    /// Returns true if the snapshot is of this cluster with these members.
    fn is_of(&self, config: &Config) -> bool {
        let members = config.cluster.members.iter().map(|member| &member.id);
        self.cluster == config.cluster.id && self.members.iter().eq(members)
    }
}

#[cfg(test)]
mod tests;
