//! Replica thread: owns the [`Node`] and is the only thread that changes it, so the node needs no lock. The
//! thread takes two kinds of locks: that of the requests' [`places`](super::request_channel) and those of the
//! signals, each held for a count or a flag.
//!
//! One turn: wait for an input, a datagram at the [peer port](super::peer_port) or the node's deadline; take
//! what has come, first from the journal and the server's handle, then a limited number from peers, from the
//! delivery and from clients; feed it to the node with one reading of the clocks, then the deadline with a
//! second reading; perform the effects in order; apply a limited number of committed entries, and perform the
//! effects of that; wake the threads that were given something. Apart from the wait for inputs, it never
//! blocks on a disk, a channel or a socket.
//!
//! *Deadlines.* The deadline is checked last, after the inputs that had come, and the node extends the time
//! that it gives others by the delay of this thread itself.
//!
//! *Backpressure.* While the journal or the delivery is behind, messages for them are queued here in order.
//! Meanwhile no client's request is taken (their places fill, and the handlers answer Busy), no page is
//! taken for a delivery that is behind, and peers' datagrams that carry entries are dropped (peers
//! retransmit). So the queues are bounded by the work that was in progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, Sender};
use recado_sys::sync::signal::SocketSignal;
use recado_sys::sync::{Mistake, PeerSocket, planted};

use recado_log::bully::{self, PathState, Report, RoleChange};
use recado_proto::envelope::Envelope;
use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{AdminChange, RefusedDatagram, RoleName};
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::delivery_sender::DeliverySender;
use super::engine::{Effect, Input, Node};
use super::journal_thread::Work;
use super::log_throttle::LogThrottle;
use super::node::{Dropping, UnreadableEntry};
use super::outage::{News, Outage, Refusal};
use super::overflow_queue::OverflowQueue;
use super::peer_port::PeerPort;
use super::places::{PER_TURN, TURN_MAX};
use super::request_channel::RequestReceiver;
use super::shard::Told;

/// Interval at which the status gets fresh counters; also the maximum wait without a deadline.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// For so long after its last hello a server that is ignored is told in the status. Its hellos come several
/// times a second.
const IGNORED_FOR: Duration = Duration::from_secs(10);
/// Minimum interval between two reports of a peer's refused port. A closed port answers every datagram; the
/// limit keeps the node's reaction to a refusal, refused itself, from spinning.
const REFUSAL_EVERY: Duration = Duration::from_millis(2);
/// Interval at which queued messages are retried.
const HELD_RETRY: Duration = Duration::from_millis(2);

/// Inputs of the replica thread, by sender.
pub(super) struct Inputs {
    /// Set by the senders of all these channels.
    pub(super) signal: SocketSignal,
    /// From the journal thread and the server's handle. The senders wait for room, because none of it may be
    /// lost.
    pub(super) internal: Receiver<Input>,
    /// From the handlers: the pages that streams want, the cursors and the addresses of sessions.
    pub(super) from_delivery: Receiver<Input>,
    /// From the handlers: the requests of clients.
    pub(super) requests: RequestReceiver,
}

pub(super) struct ReplicaThread {
    pub(super) node: Node,
    pub(super) inputs: Inputs,
    pub(super) port: PeerPort,
    pub(super) peers: BTreeMap<NodeId, PeerSocket>,
    pub(super) journal: OverflowQueue<Work>,
    pub(super) delivery: DeliverySender,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
    /// Reports to the server's handle that this thread ends because the node has stopped, or has failed.
    pub(super) stopped: Sender<Ended>,
}

/// The end of a node: it has stopped as it was told to, or it cannot follow the log any more.
pub(super) type Ended = Result<(), UnreadableEntry>;

/// State kept from turn to turn, beside the node.
#[derive(Default)]
pub(super) struct Turns {
    effects: Vec<Effect>,
    /// Datagrams to peers, in their order, those that follow each other to one peer together. They are sent
    /// when the other effects are performed.
    datagrams: Vec<(NodeId, Vec<Vec<u8>>)>,
    /// Peers whose port refused a datagram; reported to the node in the next turn.
    refused: Vec<NodeId>,
    /// Moment at which a refusal of each peer was last reported.
    refusals: BTreeMap<NodeId, Moment>,
    counters_due: Moment,
    trouble: LogThrottle,
    behind: LogThrottle,
    earlier: LogThrottle,
    /// The last hello of each server that is ignored because a later start of it is known.
    ignored: BTreeMap<NodeId, Moment>,
    /// For the warning about a server with a log of another epoch.
    epochs: LogThrottle,
    beyond: LogThrottle,
    entries: LogThrottle,
    damaged: LogThrottle,
    /// For the warning about a peer with another secret.
    secrets: LogThrottle,
    outage: Outage,
}

impl ReplicaThread {
    /// Runs until the node has stopped or failed, or the journal thread has ended.
    pub(super) fn run(mut self, first: Vec<Effect>) {
        let mut turns = Turns { effects: first, ..Turns::default() };
        let mut ended = self.perform(&mut turns);
        while ended.is_none() && !self.journal.is_gone() {
            self.journal.flush();
            self.delivery.flush();
            self.wait(&turns);
            self.feed(&mut turns);
            ended = self.perform(&mut turns);
            if ended.is_none() {
                // The disk works while entries are applied.
                self.journal.flush();
                self.node.apply(self.clock.read(), &mut turns.effects);
                ended = self.perform(&mut turns);
            }
            self.counters.turn(self.node.catches_up());
        }
        if let Some(ended) = ended {
            // The send fails if the handle was dropped; then nobody waits for it.
            let _ = self.stopped.try_send(ended);
        }
        self.end();
    }

    /// Gives the queued messages a short time to be sent.
    pub(super) fn end(self) {
        let own = self.inputs.internal;
        if !planted(Mistake::EndsDeaf) {
            // The journal thread may be blocked on sending to this channel, and takes no work until it has
            // sent. Dropping the receiver unblocks it.
            drop(own);
        }
        self.journal.finish();
        self.delivery.finish();
    }

    fn is_clear(&self) -> bool {
        self.journal.is_clear() && self.delivery.is_clear()
    }

    /// Blocks until there is something to do.
    fn wait(&mut self, turns: &Turns) {
        if !turns.refused.is_empty() {
            return;
        }
        let now = self.clock.now();
        let counters = turns.counters_due.since(now);
        let mut until = self.node.next_deadline().map_or(counters, |due| due.since(now).min(counters));
        if !self.is_clear() {
            until = until.min(HELD_RETRY);
        }
        let (clear, delivery_clear) = (self.is_clear(), self.delivery.is_clear());
        let Inputs { signal, internal, from_delivery, requests } = &self.inputs;
        // A time-out means that the deadline has come.
        self.port.wait(signal, now, until, || {
            !internal.is_empty()
                || (delivery_clear && !from_delivery.is_empty())
                || (clear && requests.len() > 0)
        });
    }

    /// Feeds the node its queued inputs, then the deadline if it is due.
    pub(super) fn feed(&mut self, turns: &mut Turns) {
        let clock = self.clock.read();
        let clear = self.is_clear();
        let Turns { effects, outage, secrets, .. } = turns;

        for node in turns.refused.drain(..) {
            outage.on_refused(clock.now, node, Refusal::NoProgram);
            self.node.handle(clock, Input::Log(bully::Input::PortRefused(node)), effects);
        }
        for input in self.inputs.internal.try_iter().take(self.inputs.internal.len()) {
            self.node.handle(clock, input, effects);
        }
        self.port.receive(clock.now, |datagram| {
            let outer = Envelope::peek(&datagram).ok();
            let before = effects.len();
            let input = bully::Input::Peer { datagram, behind: !clear };
            self.node.handle(clock, Input::Log(input), effects);
            // The name is in the clear, and anybody may write any.
            if let Some((class, from)) = outer.and_then(|outer| Some((outer.class, outer.node?)))
                && self.peers.contains_key(&from)
                && outage.on_datagram(clock.now, from, class, refusal(&effects[before..]))
                && let Some(suppressed) = secrets.allow(clock.now)
            {
                tracing::warn!(
                    server = %from, suppressed,
                    "hellos that name a server do not open: it has another cluster.secret than this one, or this one \
                     another than the rest. Compare `recadod fingerprint` on each, copy cluster.secret from a server of the \
                     majority, and restart the one that had another"
                );
            }
        });
        let begun = self.clock.now();
        let machine = self.clock;
        let goes_on = |taken: usize, of: usize, most: Duration| {
            taken < of.min(PER_TURN) && (taken == 0 || machine.now().since(begun) < most)
        };
        if self.delivery.is_clear() {
            let (mut pages, waiting) = (0, self.inputs.from_delivery.len());
            while goes_on(pages, waiting, TURN_MAX / 2)
                && let Ok(input) = self.inputs.from_delivery.try_recv()
            {
                self.node.handle(clock, input, effects);
                pages += 1;
            }
        }
        if clear {
            let (mut requests, waiting) = (0, self.inputs.requests.len());
            while goes_on(requests, waiting, TURN_MAX)
                && let Some(request) = self.inputs.requests.take()
            {
                self.node.handle(clock, request, effects);
                requests += 1;
            }
        } else if let Some(suppressed) = turns.behind.allow(clock.now) {
            tracing::warn!(suppressed, "the disk or the delivery is behind: clients' requests wait");
        }
        if turns.counters_due <= clock.now {
            turns.counters_due = clock.now + COUNTERS_EVERY;
            let refused = self.counters.refused_so_far();
            turns.ignored.retain(|_, last| clock.now.since(*last) < IGNORED_FOR);
            let ignored = turns.ignored.keys().copied().collect();
            let process = Input::Process { pid: std::process::id(), refused, ignored };
            self.node.handle(clock, process, effects);
            let status = self.node.log();
            if let Some(news) = outage.look(clock.now, &status, self.peers.keys().copied()) {
                log_outage(status.role, &news);
            }
        }
        // The clocks are read again because feeding the inputs took time, which must not count as delay of
        // the answers to what is sent below.
        let clock = self.clock.read();
        if self.node.next_deadline().is_some_and(|due| due <= clock.now) {
            self.node.handle(clock, Input::Deadline, effects);
        }
        self.node.flush(clock, effects);
    }

    /// Performs the effects in order. Returns how the node has ended, if it has.
    fn perform(&mut self, turns: &mut Turns) -> Option<Ended> {
        let now = self.clock.now();
        let mut ended = None;
        let mut effects = std::mem::take(&mut turns.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Log(effect) => self.perform_of_log(turns, now, effect),
                Effect::Snapshot(image) => self.journal.push(Work::Snapshot(image)),
                Effect::Discard(service) => self.journal.push(Work::Discard(service)),
                Effect::Delivery(input) => self.delivery.push(Told::Delivery(input)),
                Effect::Administered { change, op } => log_admin(&change, op),
                Effect::BeyondEnd { session, cursor, applied } => {
                    if let Some(suppressed) = turns.beyond.allow(now) {
                        tracing::warn!(
                            %session, %cursor, %applied, suppressed,
                            "a device has read further than the log goes, and continues at the cursor that the log \
                             has: was the data restored from an older copy?"
                        );
                    }
                }
                Effect::ClockAway(ms) if ms > 0 => tracing::warn!(
                    seconds = ms / 1000,
                    "this machine's clock is ahead of the log's time, by which notifications, sessions and codes \
                     expire. If the clock is right, wait: the log's time follows by a day an hour at most; if it is \
                     wrong, set it"
                ),
                Effect::ClockAway(ms) => tracing::warn!(
                    seconds = ms.unsigned_abs() / 1000,
                    "this machine's clock is behind the log's time, by which notifications, sessions and codes \
                     expire. If the clock is right, wait: the log's time never goes back, and runs at half speed \
                     until the clock has caught up; if it is wrong, set it"
                ),
                Effect::Dropping(Dropping { notifications, topics, more }) => tracing::warn!(
                    notifications,
                    topics,
                    more,
                    "NOTIFICATIONS ARE DROPPED BY [retention]: this server leads now, and its recado.toml retains less \
                     than the primary before it did, or all servers were off for long. What is dropped is gone on every \
                     server; give all of them the same [retention] (`recado doctor` compares it)"
                ),
                Effect::SessionKnown { session, device, nonce, aead } => {
                    self.delivery.push(Told::Known { session, device: device.key, nonce, aead });
                }
                Effect::SessionGone(session) => self.delivery.push(Told::Gone(session)),
                // Once for each refused transfer. The same snapshot is refused again only after a restart, or
                // if another one was refused meanwhile.
                Effect::SnapshotRefused(error) => tracing::error!(
                    %error,
                    "A SNAPSHOT OF ANOTHER SERVER IS REFUSED: this server lacks what is in it, and waits for another \
                     one; do all servers run the same version of recadod?"
                ),
                Effect::Stopped => ended = Some(Ok(())),
                Effect::Failed(entry) => ended = Some(Err(entry)),
            }
        }
        turns.effects = effects;
        self.send(turns, now);
        ended
    }

    /// Performs an effect of the log.
    fn perform_of_log(&mut self, turns: &mut Turns, now: Moment, effect: bully::Effect) {
        match effect {
            bully::Effect::Peer { to, bytes } => match turns.datagrams.last_mut() {
                Some((last, datagrams)) if *last == to => datagrams.push(bytes),
                _ => turns.datagrams.push((to, vec![bytes])),
            },
            bully::Effect::Journal { number, task } => self.journal.push(Work::Task { number, task }),
            bully::Effect::ReadSnapshot { to, op, offset, blocks } => {
                self.journal.push(Work::Read { to, op, offset, blocks });
            }
            bully::Effect::StoreSnapshot { transfer, piece } => {
                self.journal.push(Work::Receive { transfer, piece });
            }
            bully::Effect::DropSnapshot(transfer) => self.journal.push(Work::DropReceived(transfer)),
            bully::Effect::Refused(reason) => self.counters.refuse(reason),
            bully::Effect::Report(report) => log_report(turns, now, report),
            bully::Effect::StaleIncarnation { server, incarnation, latest } => {
                turns.ignored.insert(server, now);
                turns.outage.on_refused(now, server, Refusal::OldData);
                if let Some(suppressed) = turns.earlier.allow(now) {
                    tracing::warn!(
                        %server,
                        incarnation = incarnation.0,
                        latest = latest.0,
                        suppressed,
                        "packets of a server are ignored, because its incarnation is not later than one that ran \
                         before: an old data directory was restored there, or it was created with a clock that is \
                         behind. Do not restart it on this data, because each start counts it up. If a majority of the \
                         servers is not ignored and has its data: stop that server, set its clock, move its data \
                         directory elsewhere and keep it, and start it on an empty one: it then learns everything from \
                         the others. Otherwise empty nothing, and ask `recado doctor`"
                    );
                }
            }
            bully::Effect::Path { peer, path } => {
                // A search is followed by a rest, so that these are few.
                let PathState { carries, probes } = path;
                tracing::info!(%peer, carries, sent = probes.sent, lost = probes.lost, "path");
            }
            bully::Effect::OtherEpoch { server, epoch } => {
                turns.outage.on_refused(now, server, Refusal::OtherEpoch);
                if let Some(suppressed) = turns.epochs.allow(now) {
                    tracing::warn!(
                        %server,
                        epoch = epoch.0,
                        suppressed,
                        "packets of a server are ignored, because its log is of another epoch: the cluster was \
                         restored from a copy there or here, and the two hold different histories; start every \
                         server on the same one"
                    );
                }
            }
        }
    }

    /// Sends what the turn has for its peers, in its order: heartbeats come before bulk.
    fn send(&self, turns: &mut Turns, now: Moment) {
        for (to, datagrams) in turns.datagrams.drain(..) {
            let Some(socket) = self.peers.get(&to) else { continue };
            let report = socket.send(datagrams);
            if report.refused && turns.refusals.get(&to).is_none_or(|last| now.since(*last) >= REFUSAL_EVERY)
            {
                turns.refusals.insert(to, now);
                turns.refused.push(to);
            }
            if let Some(error) = report.last_error {
                self.counters.unsent(report.failed);
                if let Some(suppressed) = turns.trouble.allow(now) {
                    tracing::warn!(%error, %to, suppressed, "datagrams to a peer were not sent");
                }
            }
        }
    }
}

/// Why the datagram that had these effects was refused, if it was.
fn refusal(effects: &[Effect]) -> Option<RefusedDatagram> {
    effects.iter().find_map(|effect| match effect {
        Effect::Log(bully::Effect::Refused(reason)) => Some(*reason),
        _ => None,
    })
}

/// Logs that nothing can be acknowledged, or that this is over.
fn log_outage(role: RoleName, news: &News) {
    match news {
        News::Lasts { seconds, heard, not_heard, refused } => tracing::warn!(
            ?role,
            seconds,
            heard,
            not_heard,
            refused,
            "NOTHING CAN BE ACKNOWLEDGED: no primary with a majority is known here. Start the servers that are not heard, \
             and let UDP through between the peer ports; if all are heard, `recado doctor` says why"
        ),
        News::Over(seconds) => tracing::info!(?role, seconds, "there is a primary with a majority again"),
    }
}

/// Logs an administrator's change, but never a code.
fn log_admin(change: &AdminChange, op: Op) {
    match change {
        AdminChange::Release { name } => tracing::info!(%name, %op, "an administrator released the name"),
        AdminChange::RemoveProfile { name } => {
            tracing::info!(%name, %op, "an administrator removed the profile");
        }
        AdminChange::RemoveChannel { channel } => {
            tracing::info!(%channel, %op, "an administrator removed the channel");
        }
        AdminChange::Invite { uses, lasts_ms, name, .. } => {
            let name = name.as_ref().map(ToString::to_string);
            tracing::info!(uses, lasts_s = lasts_ms / 1000, name, %op, "an administrator created an invitation");
        }
        AdminChange::Allow { key } => {
            tracing::info!(key = %key.in_full(), %op, "an administrator allowed a key")
        }
        AdminChange::Disallow { key } => {
            tracing::info!(key = %key.in_full(), %op, "an administrator disallowed a key");
        }
    }
}

/// Logs a report of the replica.
fn log_report(turns: &mut Turns, now: Moment, report: Report) {
    match report {
        Report::Role(change) => log_role(&change),
        Report::Waiting(servers) if servers.is_empty() => tracing::warn!(
            "every server has answered, and none has the entries lost to damage, which may be committed: restore \
             the newest undamaged data directory of one server, or create a new cluster with `recadod init`"
        ),
        Report::Waiting(servers) => {
            let servers: Vec<u16> = servers.iter().map(|server| server.0).collect();
            tracing::warn!(
                ?servers,
                "the election waits for one of these servers: their entries may be committed"
            );
        }
        Report::Contradicted(found) => tracing::error!(
            view = %found.view, op = %found.op, commit = %found.commit, count = found.count,
            "THE LOG OF THIS VIEW'S PRIMARY LACKS ENTRIES THAT ARE COMMITTED HERE: servers that had lost them \
             elected it. This server keeps its copy, no longer follows that view and leads none. Stop this \
             server and keep its data directory: it may be the only one with what was acknowledged; with an \
             empty one in its place the server follows again"
        ),
        Report::EntryRefused { view, op, kind } => {
            if let Some(suppressed) = turns.entries.allow(now) {
                tracing::error!(
                    %view, %op, ?kind, suppressed,
                    "THE OTHER SERVERS' LOG HAS AN ENTRY THAT THIS VERSION OF RECADOD CANNOT FOLLOW, a change of the \
                     members or one of a later version: this server takes nothing more from that primary; run the \
                     recadod that the others run"
                );
            }
        }
        Report::SnapshotDamaged { donor, op } => {
            if let Some(suppressed) = turns.damaged.allow(now) {
                tracing::error!(
                    %donor, %op, suppressed,
                    "A SNAPSHOT OF ANOTHER SERVER IS DAMAGED: its bytes are not those of its checksum, so that server's                      disk reads another `snap.` file of this op than was written. It is fetched again. Check that                      disk, `recadod inspect` there shows the file; a restart there sets it aside"
                );
            }
        }
        Report::Overwritten { view, first, last } => tracing::warn!(
            %view, %first, %last,
            "the entries of the view's primary replace these on this server's disk, which the primary's log \
             lacks: as far as this server knows they were never committed"
        ),
    }
}

/// Logs one line for each role change, as a warning if nothing is acknowledged from then on.
fn log_role(change: &RoleChange) {
    let RoleChange { role, view, cause, took } = change;
    let took_ms = took.as_micros() as f64 / 1000.0;
    if *role == RoleName::Isolated {
        tracing::warn!(?role, %view, ?cause, took_ms, "role");
    } else {
        tracing::info!(?role, %view, ?cause, took_ms, "role");
    }
}
