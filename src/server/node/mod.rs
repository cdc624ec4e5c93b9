//! One server without its threads: the replica, the links to its peers and the service, with what a server
//! needs around them. The replica thread and the simulator drive it alike.
//!
//! This file connects the parts; each has its own state and rules. Reading order: `io`, this file, `clients`
//! (where packets of clients go), `admission` (sessions and numbered requests), `charges`, `queries`,
//! `admin`, `housekeeping`, `snapshots`, `log_clock`.
//!
//! Pure: `handle(clock, input, &mut effects)` and `next_deadline()`.

mod admin;
mod admission;
mod charges;
mod clients;
mod housekeeping;
mod io;
mod log_clock;
mod queries;
mod snapshots;

use recado_log::journal::Recovered;
use recado_log::links::{self, PeerLinks};
use recado_log::replica::{self, Boot, ReplicaManager};
use recado_proto::codec;
use recado_proto::command::{Command, Stamped};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{Clock, Incarnation, Moment, NodeId, Op, SessionId, View};
use recado_proto::packet::{Coordinator, Packet, RefusedDatagram, RoleName};
use recado_proto::seal::ClusterKeys;
use recado_service::{Applied, Service};

use crate::config::{Config, Planted};
use crate::delivery;

use admin::Administration;
use admission::UnderWay;
use charges::Charges;
use housekeeping::Housekeeping;
use log_clock::LogClock;
use queries::OutstandingAnswers;
use snapshots::{Reading, Snapshots};

pub use clients::RETRY_MS;
pub use io::{BootIdentity, Effect, Input, StartError};
pub use recado_log::journal::SnapshotPiece;
pub use recado_log::replica::{Cause, Contradiction, RoleChange, Task};
pub use snapshots::Image;

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
    outstanding: OutstandingAnswers,
    administration: Administration,
    charges: Charges,
    housekeeping: Housekeeping,
    snapshots: Snapshots,
    log_clock: LogClock,
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
        let (base, service) = snapshots::restore(&config, recovered.snapshot.as_ref())?;
        for (expected, entry) in (base.1.0 + 1..).zip(&recovered.entries) {
            if entry.op != Op(expected) {
                return Err(StartError::Hole(Op(expected)));
            }
        }
        let known = recovered.meta.known();
        let boot = Boot {
            incarnation: recovered.meta.incarnation,
            voter: recovered.meta.voter,
            promised: recovered.meta.promised,
            base,
            entries: recovered.entries,
            commit: recovered.commit,
            known: known.clone(),
            unknown: recovered.lost,
        };
        let now = clock.now;
        let mut effects = Vec::new();
        let replica = ReplicaManager::new(&config.log(), boot, boot_id.seed, now, &mut effects);
        let log_clock = LogClock::new(now, service.clock_ms());
        let (incarnation, keys) = (recovered.meta.incarnation, boot_id.keys);
        let identity = links::Identity { boot_id: boot_id.id, incarnation, keys: keys.clone() };
        let mut node = Node {
            service,
            links: PeerLinks::new(&config.cluster, &config.timing, identity, &known, now),
            administration: Administration::new(&keys),
            keys,
            incarnation,
            pid: 0,
            started: now,
            replica,
            is_primary: false,
            under_way: UnderWay::default(),
            outstanding: OutstandingAnswers::default(),
            charges: Charges::new(&config.limits),
            housekeeping: Housekeeping::new(now),
            snapshots: Snapshots::new(now, base.1),
            log_clock,
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
                self.perform_links(clock, effects);
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
            Input::SnapshotDone(op) => self.replica.forget_upto(self.snapshots.on_done(op)),
            Input::SnapshotRead { to, piece } => self.on_snapshot_read(to, piece),
            Input::WantPage { session, after, limit } => self.on_want_page(clock, session, after, limit),
            // Only a session in the log has keys, so only such a session can have proved an address. The
            // guard ignores one that has ended since.
            Input::Path { session, address } if self.service.has_session(session) => {
                self.charges.on_path(session, address.ip());
            }
            Input::Path { .. } => {}
            Input::Cursor(session, upto) => self.housekeeping.on_cursor(session, upto),
            Input::AnswerDone { session, query } => self.outstanding.remove(session, query),
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
        self.perform_links(clock, effects);
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

    fn perform_links(&mut self, clock: Clock, effects: Vec<links::Effect>) {
        for effect in effects {
            match effect {
                links::Effect::Send { to, bytes } => self.out.push(Effect::Peer { to, bytes }),
                links::Effect::BootAdopted { peer, boot } => {
                    self.replicate(clock, replica::Input::BootAdopted { peer, boot });
                }
                links::Effect::StaleIncarnation { server, incarnation, latest } => {
                    self.out.push(Effect::StaleIncarnation { server, incarnation, latest });
                }
            }
        }
    }

    fn perform(&mut self, clock: Clock, effects: Vec<replica::Effect>) {
        for effect in effects {
            match effect {
                replica::Effect::Send { to, packet, tracked: None } => self.links.send(to, packet),
                replica::Effect::Send { to, packet, tracked: Some(ops) } => {
                    let view = self.replica.promised();
                    let mut effects = Vec::new();
                    self.links.send_tracked(clock.now, view, to, packet, ops, &mut effects);
                    self.perform_links(clock, effects);
                }
                replica::Effect::Journal { ticket, task } => self.out.push(Effect::Journal { ticket, task }),
                replica::Effect::Apply(entry) => self.apply(clock, &entry),
                replica::Effect::SnapshotReceived { op, view, bytes } => {
                    self.on_snapshot_received(clock, op, view, bytes);
                }
                replica::Effect::ReadSnapshot { to, op, offset, chunks } => {
                    self.out.extend(self.snapshots.read(to, Reading { op, offset, chunks }));
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
            EntryKind::ViewStart | EntryKind::Members => None,
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
        self.outstanding = OutstandingAnswers::default();
        self.housekeeping.discard();
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

    /// Proposes cursors and housekeeping if this is the primary, and begins a snapshot if one is due.
    fn keep_house(&mut self, clock: Clock) {
        if let Some(batch) = self.housekeeping.take_batch(clock.now, self.replica.accepts()) {
            self.propose(clock, batch);
        }
        if self.housekeeping.begin_round(clock.now, self.replica.accepts(), self.service.applied()) {
            let log_ms = self.log_clock.read(clock);
            for command in Housekeeping::round(&self.service, &self.config.retention, log_ms) {
                if let Some(op) = self.propose(clock, command) {
                    self.housekeeping.on_proposed(op);
                }
            }
            self.out.extend(self.log_clock.warn(clock).map(Effect::ClockAway));
        }
        self.out.extend(self.snapshots.begin(clock.now, &self.config, &self.replica, &self.service));
    }

    fn on_snapshot_read(&mut self, to: NodeId, piece: Option<SnapshotPiece>) {
        self.out.extend(self.snapshots.on_read(to));
        let Some(piece) = piece else { return };
        for chunk in snapshots::chunks(&piece) {
            self.links.send(to, Packet::SnapshotChunk(chunk));
        }
    }

    fn on_snapshot_received(&mut self, clock: Clock, op: Op, view: View, bytes: Vec<u8>) {
        let Ok(service) = snapshots::open(&self.config, op, view, &bytes) else { return };
        let mut effects = Vec::new();
        if self.replica.install(clock.now, op, view, bytes, &mut effects) {
            let before: Vec<SessionId> = self.service.sessions().map(|(session, ..)| session).collect();
            self.service = service;
            self.log_clock.on_applied(clock.now, self.service.clock_ms(), self.is_primary);
            self.snapshots.on_installed(op, self.replica.appended_bytes());
            self.charges.retain_networks(|session| self.service.has_session(session));
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

    /// The last op known to be committed.
    pub fn commit(&self) -> Op {
        self.replica.commit()
    }

    /// The last op applied.
    pub fn applied(&self) -> Op {
        self.service.applied()
    }

    /// The state machine, read-only.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

#[cfg(test)]
mod tests;
