//! One server without its threads: the service over an ordered log, with what a server needs around them. The
//! replica thread and the simulator drive it alike.
//!
//! This file connects the parts; each has its own state and rules. Reading order: `io`, this file, `clients`
//! (where packets of clients go), `backlog`, `admission` (sessions and numbered requests), `charges`,
//! `queries` with `waiting`, `admin`, `housekeeping`, `restarts`, `snapshots`, `retelling`, `log_clock`.
//!
//! Pure: `handle(clock, input, &mut effects)` for each input of a turn, then `flush` and `apply`, and
//! `next_deadline()`.

mod admin;
mod admission;
mod backlog;
mod charges;
mod clients;
mod housekeeping;
mod io;
mod log_clock;
mod queries;
mod restarts;
mod retelling;
mod snapshots;
mod waiting;

use recado_log::ordered::{Committed, Event, OrderedLog, Ticket};
use recado_proto::codec;
use recado_proto::command::{Command, Stamped};
use recado_proto::id::{Clock, Incarnation, Moment, NodeId, Op, View};
use recado_proto::packet::{Coordinator, RefusedDatagram, RoleName};
use recado_proto::seal::ClusterKeys;
use recado_service::{Applied, Service};

use crate::config::{Config, Planted};
use crate::delivery;
use crate::server::cost;

use admin::Administration;
use admission::UnderWay;
use backlog::{Backlog, Due};
use charges::Charges;
use housekeeping::Housekeeping;
use log_clock::LogClock;
use queries::OutstandingAnswers;
use restarts::Restarts;
use retelling::{Retelling, SESSIONS_PER_TURN};
use snapshots::Snapshots;
use waiting::Waiting;

pub use clients::RETRY_MS;
pub use housekeeping::Dropping;
pub use io::{Boot, Effect, Input, UnreadableEntry};
pub use snapshots::{Image, SnapshotError, empty, open_in_pieces};

/// The entries of the log in memory that one turn drops: less than a millisecond.
const TRIMMED_PER_TURN: usize = 4_096;

/// One server.
#[derive(Debug)]
pub struct Node<L: OrderedLog> {
    config: Config,
    incarnation: Incarnation,
    pid: u32,
    started: Moment,
    log: L,
    service: Service,
    keys: ClusterKeys,
    /// True if this is the primary of an active view: results of applied commands are sent to their clients.
    is_primary: bool,
    under_way: UnderWay,
    outstanding: OutstandingAnswers,
    waiting: Waiting,
    administration: Administration,
    charges: Charges,
    housekeeping: Housekeeping,
    restarts: Restarts,
    snapshots: Snapshots,
    log_clock: LogClock,
    refused: Vec<(RefusedDatagram, u64)>,
    ignored: Vec<NodeId>,
    /// The events of the log that are not acted on yet.
    backlog: Backlog,
    /// The sessions of an installed state that are not told yet. What waits in the backlog waits for them.
    retelling: Option<Retelling>,
    /// The log in memory is to begin after this op, and is being shortened to that.
    trims: Option<Op>,
    /// True once a committed entry could not be read. Nothing is done any more.
    failed: bool,
    applied: Vec<Applied>,
    /// Effects collected during a call; empty between two calls.
    out: Vec<Effect<L::Effect>>,
}

impl<L: OrderedLog> Node<L> {
    /// Starts a server over its log.
    pub fn new(
        config: Config,
        boot: Boot,
        log: L,
        clock: Clock,
        out: &mut Vec<Effect<L::Effect>>,
    ) -> Node<L> {
        let Boot { incarnation, keys, service } = boot;
        let now = clock.now;
        let all = config.planted.is(Planted::AppliesAllAtOnce);
        let most = if all { u32::MAX } else { config.limits.applied_per_turn };
        let mut node = Node {
            administration: Administration::new(&keys),
            keys,
            incarnation,
            pid: 0,
            started: now,
            is_primary: false,
            under_way: UnderWay::default(),
            outstanding: OutstandingAnswers::default(),
            waiting: Waiting::default(),
            charges: Charges::new(&config.limits),
            housekeeping: Housekeeping::new(now),
            restarts: Restarts::default(),
            snapshots: Snapshots::new(clock, &config, service.applied()),
            log_clock: LogClock::new(now, service.clock_ms()),
            refused: Vec::new(),
            ignored: Vec::new(),
            backlog: Backlog::new(most),
            retelling: None,
            trims: None,
            failed: false,
            applied: Vec::new(),
            out: Vec::new(),
            log,
            service,
            config,
        };
        let known = node.service.sessions();
        let known =
            known.map(|(session, device, nonce, aead)| Effect::SessionKnown { session, device, nonce, aead });
        node.out.extend(known);
        node.take_events(clock);
        node.finish(out);
        node
    }

    /// Handles one input and appends the effects to `out`. After the last input of a turn call
    /// [`Node::flush`], and then [`Node::apply`].
    pub fn handle(&mut self, clock: Clock, input: Input<L::Input>, out: &mut Vec<Effect<L::Effect>>) {
        if self.failed {
            return;
        }
        self.log.advance(clock.now);
        self.take_events(clock);
        match input {
            Input::Log(input) => {
                self.log.handle(clock.now, input);
                self.take_events(clock);
            }
            Input::Client { session, packet } => self.on_client(clock, session, packet),
            Input::Initiation { reply_to, key, packet } => self.on_initiation(clock, reply_to, key, packet),
            Input::SnapshotDone(op) => {
                self.trims = Some(self.snapshots.on_done(op));
                self.trim();
            }
            Input::SnapshotOpened { transfer, opened } => {
                self.on_snapshot_opened(clock, transfer, opened);
                self.take_events(clock);
            }
            Input::WantPage { session, after, limit } => self.on_want_page(clock, session, after, limit),
            // Only a session in the log has keys, so only such a session can have proved an address. The
            // guard ignores one that has ended since.
            Input::Path { session, address } if self.service.has_session(session) => {
                self.charges.on_path(session, address.ip());
            }
            Input::Path { .. } => {}
            Input::Cursor(session, upto) => self.housekeeping.on_cursor(session, upto),
            Input::AnswerDone { session, query } => self.outstanding.remove(session, query),
            Input::Process { pid, refused, ignored } => {
                (self.pid, self.refused, self.ignored) = (pid, refused, ignored);
            }
            Input::Deadline => {}
            Input::Stop => {
                self.log.stop();
                self.take_events(clock);
            }
        }
        self.log.settle(clock.now);
        self.take_events(clock);
        self.finish(out);
    }

    /// Does what is due once a turn, and makes the log store and send what was proposed since the last call.
    pub fn flush(&mut self, clock: Clock, out: &mut Vec<Effect<L::Effect>>) {
        if self.failed {
            return;
        }
        self.keep_house(clock);
        if self.serves() && self.waiting.wants_lead(self.log.status().led) {
            self.log.confirm_lead(clock.now);
            self.take_events(clock);
        }
        self.log.flush(clock.now);
        self.take_events(clock);
        self.finish(out);
    }

    /// Acts on what the log has reported: applies as many committed entries as a turn may. Perform the
    /// effects of the turn's inputs and of its flush before: a heartbeat that is due does not wait for this.
    pub fn apply(&mut self, clock: Clock, out: &mut Vec<Effect<L::Effect>>) {
        self.trim();
        self.retell(SESSIONS_PER_TURN);
        self.backlog.begin_turn();
        while !self.failed
            && self.retelling.is_none()
            && let Some(due) = self.backlog.pop(self.service.applied())
        {
            match due {
                Due::Committed(_) => match self.log.take(self.service.applied()) {
                    Some(committed) => self.on_committed(clock, committed),
                    // What is due is committed, so the log has it.
                    None => break,
                },
                Due::Lost { from } => self.on_lost(from),
                Due::Active(view) => self.on_active(clock.now, view),
                Due::Deposed => self.on_deposed(),
                Due::Stopped => self.out.push(Effect::Stopped),
            }
        }
        if !self.failed {
            self.answer_waiting(clock);
        }
        self.finish(out);
    }

    /// The latest time at which an [`Input::Deadline`] is wanted: at once while there is more to apply.
    pub fn next_deadline(&self) -> Option<Moment> {
        let log = self.log.next_deadline();
        let log = self.waiting.next_deadline().map_or(log, |at| at.min(log));
        let idle = self.backlog.is_empty() && self.retelling.is_none() && self.trims.is_none();
        let at = if idle { log } else { Moment::default() };
        (!self.failed).then_some(at)
    }

    fn finish(&mut self, out: &mut Vec<Effect<L::Effect>>) {
        out.append(&mut self.out);
    }

    fn propose(&mut self, clock: Clock, command: Command) -> Option<Ticket> {
        if !self.accepts() {
            return None;
        }
        let mut unix_ms = self.log_clock.read(clock);
        if self.config.planted.is(Planted::LogTimeGoesBack) {
            unix_ms = clock.unix_ms;
        }
        let stamped = Stamped { unix_ms, command };
        self.log.propose(codec::encode(&stamped).into())
    }

    /// Takes the events of the log. Follows each call that makes some. What has its place among the entries
    /// waits for [`Node::apply`].
    fn take_events(&mut self, clock: Clock) {
        while let Some(event) = self.log.poll(clock.now) {
            match event {
                Event::Effect(effect) => self.out.push(Effect::Log(effect)),
                Event::SnapshotBegun { transfer, op, start } => self.on_snapshot_begun(transfer, op, &start),
                Event::Committed(upto) => self.backlog.push(Due::Committed(upto)),
                Event::Lost { from } => self.backlog.push(Due::Lost { from }),
                Event::Active(view) => self.backlog.push(Due::Active(view)),
                Event::Deposed => self.backlog.push(Due::Deposed),
                Event::PeerStarted => self.restarts.on_started(),
                Event::Stopped => self.backlog.push(Due::Stopped),
            }
        }
    }

    /// Applies a committed entry; an empty payload is applied as nothing. One that does not decode is a
    /// command of a later version, which has an effect on the servers that can read it.
    fn on_committed(&mut self, clock: Clock, committed: Committed) {
        let Committed { op, payload, ticket } = committed;
        if let Some(ticket) = ticket {
            self.housekeeping.on_committed(ticket);
        }
        let stamped = match Stamped::decode(&payload) {
            _ if payload.is_empty() => None,
            Ok(stamped) => Some(stamped),
            Err(cause) => {
                self.failed = true;
                return self.out.push(Effect::Failed(UnreadableEntry { op, cause }));
            }
        };
        self.service.apply(op, stamped.as_ref(), &mut self.applied);
        self.backlog.charge(stamped.as_ref().map_or(0, |stamped| cost::beyond_an_entry(&stamped.command)));
        self.log_clock.on_applied(clock.now, self.service.clock_ms(), self.is_primary);
        for applied in std::mem::take(&mut self.applied) {
            self.on_applied(clock, applied);
        }
    }

    /// Tells of up to `most` more sessions of an installed state.
    fn retell(&mut self, most: usize) {
        let Some(retelling) = self.retelling.take() else { return };
        let begin = self.out.len();
        match retelling.go_on(&self.service, most, &mut self.out) {
            Ok(before) => self.out.push(Effect::Discard(before)),
            Err(more) => self.retelling = Some(more),
        }
        for effect in &self.out[begin..] {
            if let Effect::SessionGone(session) = effect {
                self.charges.forget(*session);
            }
        }
    }

    /// Lets the log in memory begin later, by as many entries as a turn may drop.
    fn trim(&mut self) {
        self.trims = self.trims.filter(|op| !self.log.trim(*op, TRIMMED_PER_TURN));
    }

    fn on_active(&mut self, now: Moment, view: View) {
        self.is_primary = view.primary() == Some(self.config.cluster.me);
        if self.is_primary {
            self.log_clock.on_primary(now);
            self.housekeeping.on_primary();
        }
        self.out.push(Effect::Delivery(delivery::Input::Announce(self.coordinator())));
    }

    fn on_deposed(&mut self) {
        self.is_primary = false;
        self.discard_under_way();
        self.outstanding = OutstandingAnswers::default();
        self.housekeeping.discard();
        self.out.push(Effect::Delivery(delivery::Input::Silence));
    }

    /// Starts the admission again from what is applied. What was logged here and may be committed all the
    /// same is answered then, and applied once however often it is logged.
    fn on_lost(&mut self, from: Ticket) {
        self.discard_under_way();
        self.housekeeping.on_lost(from);
    }

    fn discard_under_way(&mut self) {
        if !self.config.planted.is(Planted::NumbersOutliveView) {
            self.under_way = UnderWay::default();
            self.administration.discard();
        }
    }

    /// Returns true if requests and queries are answered: on a primary that is not isolated, and has applied
    /// what was committed before its view.
    fn serves(&self) -> bool {
        self.is_primary && !self.backlog.is_turning() && self.role() == RoleName::Primary
    }

    /// Returns true if commands are logged now.
    fn accepts(&self) -> bool {
        !self.backlog.is_turning() && self.log.status().accepts
    }

    fn coordinator(&self) -> Coordinator {
        let members = self.config.cluster.members.iter().map(|member| (member.id, member.client)).collect();
        Coordinator::new(self.log.status().active, members)
    }

    /// Proposes batches and housekeeping if this is the primary, and begins a snapshot if one is due.
    fn keep_house(&mut self, clock: Clock) {
        for batch in self.housekeeping.take_batches(clock.now, self.accepts()) {
            self.propose(clock, batch);
        }
        if self.housekeeping.begin_round(clock.now, self.accepts()) {
            let log_ms = self.log_clock.read(clock);
            let round = Housekeeping::round(&self.service, &self.config.retention, log_ms);
            self.out.extend(self.housekeeping.drops(&self.service, &round).map(Effect::Dropping));
            for command in round {
                if let Some(ticket) = self.propose(clock, command) {
                    self.housekeeping.on_proposed(ticket);
                }
            }
            self.out.extend(self.log_clock.warn(clock).map(Effect::ClockAway));
        }
        if self.restarts.take(clock.now, self.serves()) {
            let told = self.coordinator().with_restarted();
            self.out.push(Effect::Delivery(delivery::Input::Announce(told)));
        }
        let begun = self.snapshots.begin(clock, &self.config, &self.log, &self.service);
        self.out.extend(begun.map(|image| Effect::Snapshot(Box::new(image))));
    }

    /// What this version cannot read is refused before all of it is fetched.
    fn on_snapshot_begun(&mut self, transfer: u64, op: Op, start: &[u8]) {
        if let Err(error @ SnapshotError::OtherFormat { .. }) = snapshots::check_format(op, start) {
            self.log.refuse_snapshot(transfer);
            self.out.push(Effect::SnapshotRefused(error));
        }
    }

    /// Another server's snapshot was decoded while this node went on. Its state takes the place of the
    /// present one; only the sessions are looked at one by one, some in each turn.
    fn on_snapshot_opened(
        &mut self,
        clock: Clock,
        transfer: u64,
        opened: Result<Box<Service>, SnapshotError>,
    ) {
        let service = match opened {
            Ok(service) => service,
            Err(error) => {
                if self.log.refuse_snapshot(transfer) {
                    self.out.push(Effect::SnapshotRefused(error));
                }
                return;
            }
        };
        if !self.log.install(clock.now, transfer) {
            return self.out.push(Effect::Discard(service));
        }
        // A snapshot takes longer to arrive than the sessions of the one before take to be told.
        self.retell(usize::MAX);
        let before = std::mem::replace(&mut self.service, *service);
        self.log_clock.on_applied(clock.now, self.service.clock_ms(), self.is_primary);
        self.snapshots.on_installed(self.service.applied(), self.log.status().appended_bytes);
        if self.config.planted.is(Planted::SessionsUnknownAfterInstall) {
            return self.out.push(Effect::Discard(Box::new(before)));
        }
        self.retelling = Some(Retelling::new(Box::new(before)));
        self.retell(SESSIONS_PER_TURN);
    }

    // ---- accessors

    /// The role of this server.
    pub fn role(&self) -> RoleName {
        self.log.status().role
    }

    /// Returns true if this server has no vote yet, fetches much that it lacks, or takes over a state that it
    /// has fetched.
    pub fn catches_up(&self) -> bool {
        self.log.catches_up() || self.retelling.is_some()
    }

    /// The promised view, below which nothing is accepted. Also the view that this server is in.
    pub fn promised(&self) -> View {
        self.log.status().view
    }

    /// The last op known to be committed.
    pub fn commit(&self) -> Op {
        self.log.status().commit
    }

    /// The state of the log.
    pub fn log(&self) -> recado_log::ordered::Status {
        self.log.status()
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
