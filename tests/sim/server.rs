//! One simulated server: the production parts [`Node`], [`Shard`] and the journal, connected as the
//! threads connect them. The world chooses the duration of every task and the time of every death.
//!
//! Effects are performed one by one, and the process may die between any two of them.

pub mod threads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use recado::config::Config;
use recado::delivery;
use recado::server::engine::{self, BootIdentity, Effect, Input, Node};
use recado::server::handshake::HandshakeConfig;
use recado::server::shard::{self, Shard, Told, distribute, shard_for};
use recado_log::bully::{self, Cause, Report, RoleChange, Task};
use recado_log::journal::{JournalError, MetaState, SnapshotPiece, inspect_disk};
use recado_proto::codec;
use recado_proto::entry::Entry;
use recado_proto::envelope::Opened;
use recado_proto::id::{Clock, Incarnation, KnownBoot, Moment, NodeId, Op, SessionId, View};
use recado_proto::packet::{AdminChange, Answer, AnswerKind, Code, Reply, RoleName, ToClient, ToPeer};

use crate::coverage::Situation;
use crate::disk::MemDisk;
use crate::invariants::holds_what_it_owes;
use crate::network::{Micros, client_port, peer_port};
use crate::rng::Rng;
use crate::storage::Storage;
use crate::tap::{self, Tap};
use threads::{Costs, Threads, Turn};

/// The correct wall-clock time at the start of a run, in ms since 1970.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// The way in which a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// True if the machine loses power, so that any subset of the unsynced writes is lost. Otherwise only the
    /// process dies.
    pub power: bool,
    /// The time until it starts again.
    pub down: Micros,
}

/// The effect at which an armed death happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// After this number of effects.
    Effects(u32),
    /// Between a write and its fsync.
    BeforeSync,
    /// Just after a promise was sent.
    PromiseSent,
    /// Just after this number of casts were sent.
    EntriesSent(u32),
    /// This number of effects after it became primary.
    Primary(u32),
}

/// Suppressed packets: a server that opens a view has its casts of that view suppressed, and then dies. If it
/// commits anything all the same, it dies at once, before it can announce that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// It applies only in the server's own view above this one.
    pub above: View,
    /// Before this time all its casts are suppressed, after it only those of its own view.
    pub back: Micros,
    /// The deaths before and after that time.
    pub first: Death,
    pub second: Death,
    /// The commit when it opened that view.
    pub commit: Option<Op>,
    /// True once its death is scheduled.
    pub lit: bool,
}

impl Suppression {
    /// The time after the old primary's return at which the suppression ends without effect.
    const PATIENCE: Micros = 400_000;
}

/// The result of a server's step, which the world has to act upon.
#[derive(Debug)]
pub enum Output {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Call [`Server::on_alarm`] after this time.
    Later(Micros, Alarm),
    /// A line for the trace and the transcripts.
    Line(String),
    /// The process is dead. Start it again after this time.
    Died(Micros),
    /// A session was read from this server's log.
    Session(tap::Session),
    /// The server reports that another server runs with an earlier incarnation than before.
    StaleIncarnation(NodeId),
    /// The run met this situation.
    Met(Situation),
    /// A violation.
    Violation(String),
}

/// The reports of a server's other threads.
#[derive(Clone, Debug)]
pub enum Alarm {
    /// The first fsync of the current group of journal jobs ends.
    Synced,
    /// All jobs of the group have ended.
    Written,
    /// The snapshot's file is written.
    SnapshotWritten,
    /// The files that a snapshot has made needless are to be removed.
    Removal,
    /// The mark in meta is due.
    Mark,
    /// The journal found no room: the node is told to stop.
    Full,
    /// A piece of a snapshot is to be read.
    SnapshotRead { to: NodeId, op: Op, offset: u64, blocks: u16 },
    /// The file of a transfer has the bytes of a peer's snapshot up to here.
    SnapshotStored { transfer: u64, upto: u64 },
    /// A piece of a transfer was left out.
    SnapshotAbandoned(u64),
    /// The snapshot thread has read some of a peer's snapshot.
    SnapshotOpening(u64),
    /// The snapshot thread has opened a peer's snapshot.
    SnapshotOpened,
    /// The delivery processes its queue.
    DeliveryQueue,
    /// A turn of the delivery ends.
    DeliveryTurn,
    /// The node processes its queue of client requests.
    RequestQueue,
    /// The work of a thread's turn is done.
    Turn(Turn),
    /// The death of a server whose packets were suppressed in this boot.
    SuppressedDeath(u32, Death),
}

/// The resources of a step.
#[derive(Debug)]
pub struct Step<'a> {
    pub now: Micros,
    pub rng: &'a mut Rng,
    pub out: Vec<Output>,
}

/// The speed of a disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    pub sync: (Micros, Micros),
}

/// The interval of the journal thread.
const MARK_EVERY: Micros = 500_000;

/// The capacities of the queues between a server's threads.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The places in the delivery's queue, and the time that an item waits there; `None`: the queue is never
    /// full.
    pub delivery_queue: Option<(usize, Micros)>,
    /// The longest turn of the delivery; `None`: each input is a turn.
    pub delivery_turn: Option<Micros>,
    /// The places in the node's queue of client requests, and the time that an item waits there; `None`: the
    /// queue is never full.
    pub request_queue: Option<(usize, Micros)>,
    /// The number of groups of writes that may wait before the journal counts as behind.
    pub journal: usize,
}

/// A copy of a server's directory.
struct DirectoryCopy {
    disk: MemDisk,
    /// The incarnation of the server at the time of the copy.
    incarnation: Incarnation,
    /// See [`Server::knows`].
    knows: BTreeMap<NodeId, KnownBoot>,
}

/// The state of a server whose directory is an older copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It has not started on the copy.
    PutBack,
    /// It has started, and no other server has reported it, ...
    Unnoticed,
    /// ... or one has reported it.
    Noticed,
}

/// One server, over all its boots.
pub struct Server {
    pub id: NodeId,
    pub config: Config,
    pub storage: Storage,
    pub process: Option<Process>,
    /// The process that died in this step. Its actions before its death are still checked.
    pub dead: Option<Process>,
    pub speed: DiskSpeed,
    /// The time to read a peer's snapshot twice and to decode it.
    pub opens: (Micros, Micros),
    /// The end of the fsyncs that were begun last, at the speed that the disk had then.
    pub disk_until: Micros,
    pub bounds: Bounds,
    /// The time that its threads take for their work; `None`: none, and what comes is handled at once.
    pub costs: Option<Costs>,
    /// The time from one turn of the node to the next while it has more to apply.
    pub turn: Micros,
    /// The datagrams that wait while it is paused.
    pub backlog: usize,
    pub armed_death: Option<(Trigger, Death)>,
    pub suppression: Option<Suppression>,
    /// The error of its wall clock, in ms.
    pub skew_ms: i64,
    pub boots: u32,
    /// Everything that was ever fsynced here, by op; replaced only by a higher view.
    pub held: BTreeSet<(Op, View)>,
    /// The highest op in a durable snapshot.
    pub held_upto: Op,
    /// The same for what it fsynced as a learner, which counts once it votes.
    learned: BTreeSet<(Op, View)>,
    learned_upto: Op,
    /// The highest op acknowledged to clients when it became a learner. It must hold that op before it votes.
    pub must_hold_before_vote: Option<Op>,
    /// Its last incarnation, and the latest boot of each other server that it durably knows.
    incarnation: Incarnation,
    pub knows: BTreeMap<NodeId, KnownBoot>,
    copy: Option<DirectoryCopy>,
    /// Set if its directory is the copy.
    pub stale: Option<Stale>,
    /// True if its directory is an older copy, so that its boot id is not that of an earlier boot.
    on_copy: bool,
    /// The last op of a range that was found damaged.
    damaged_upto: Option<Op>,
    /// The number of HISTORY queries that its service has run.
    pub histories_run: usize,
    pub wake_at: Option<Micros>,
    /// Until this time it is paused, and its inputs wait.
    pub paused_until: Micros,
    /// Opens its own datagrams, for deaths at a certain packet.
    tap: Tap,
}

/// The number of shards of every server.
const SHARDS: usize = 2;

/// One boot of the server.
pub struct Process {
    pub node: Node,
    /// The entries that it holds, as it gave them to its journal.
    pub log: BTreeMap<Op, Entry>,
    pub boot: u32,
    /// The sessions whose keys its shards have been told, or are about to be.
    pub known: BTreeSet<SessionId>,
    shards: Vec<Shard>,
    /// Its threads, if their work takes time.
    threads: Option<Threads>,
    /// The addresses where clients have proved that they receive.
    addresses: BTreeMap<SessionId, SocketAddr>,
    began: Micros,
    /// The time of the node's last turn.
    turned: Micros,
    /// A turn of the delivery has begun and not ended.
    delivery_turns: bool,
    queued: VecDeque<Job>,
    /// The group that is being written. The appends at its beginning are on the disk already.
    writing: Vec<Job>,
    written: usize,
    /// The jobs of the group that are done.
    done: Vec<Job>,
    /// Fsyncs of the group whose time was added before they were made.
    charged: u64,
    /// True once the disk was found full: nothing more is written or reported.
    full: bool,
    /// True if it was primary when it was told to stop for that.
    leaves_lead: bool,
    snapshot: Option<(Op, View, Vec<u8>)>,
    /// The next time at which the journal thread checks the mark, and true if a mark is scheduled.
    mark_at: Micros,
    marking: bool,
    /// What waits to be told to each shard, and true if some was left out because its queue was full.
    delivery_queues: [(VecDeque<Told>, bool); SHARDS],
    /// The client requests that wait for the node.
    request_queue: VecDeque<Input>,
    /// True if it fetched in the current election, and true if it took a hand-over.
    fetched: bool,
    transferred: bool,
    isolated: bool,
    stopped: bool,
}

enum Work {
    Node(Effect),
    Delivery(shard::Effect),
    Write(Job),
}

/// The jobs of the journal thread, in order.
#[derive(Clone)]
enum Job {
    Task(u64, Task),
    Snapshot(Op, View, Vec<u8>),
    /// Appends a piece of a peer's snapshot to the file of this transfer.
    Receive(u64, SnapshotPiece),
    /// Removes the file of this transfer.
    DropReceived(u64),
    /// Adds the snapshot that the snapshot thread has written.
    Finish(Op),
    /// Writes the mark to meta.
    Mark,
}

impl Job {
    /// Returns true if the job is left out once the disk was found full.
    fn needs_room(&self) -> bool {
        matches!(self, Job::Task(..) | Job::Snapshot(..) | Job::Receive(..))
    }

    /// Returns true if a group that has the job is synced.
    fn needs_sync(&self) -> bool {
        !matches!(self, Job::Receive(..) | Job::DropReceived(_) | Job::Finish(_))
    }
}

impl Server {
    pub fn new(config: Config, storage: Storage, speed: DiskSpeed) -> Server {
        Server {
            id: config.cluster.me,
            config,
            storage,
            process: None,
            dead: None,
            speed,
            opens: (500, 30_000),
            disk_until: 0,
            bounds: Bounds {
                delivery_queue: None,
                delivery_turn: None,
                request_queue: None,
                journal: usize::MAX,
            },
            costs: None,
            turn: 0,
            backlog: 0,
            armed_death: None,
            suppression: None,
            skew_ms: 0,
            boots: 0,
            held: BTreeSet::new(),
            held_upto: Op::ZERO,
            learned: BTreeSet::new(),
            learned_upto: Op::ZERO,
            must_hold_before_vote: None,
            incarnation: Incarnation(0),
            knows: BTreeMap::new(),
            copy: None,
            stale: None,
            on_copy: false,
            damaged_upto: None,
            histories_run: 0,
            wake_at: None,
            paused_until: 0,
            tap: Tap::default(),
        }
    }

    pub fn alive(&self) -> bool {
        self.process.is_some()
    }

    pub fn role(&self) -> Option<RoleName> {
        self.process.as_ref().map(|process| process.node.role())
    }

    /// Starts the process on the content of its disk.
    pub fn start(&mut self, step: &mut Step) {
        let failed_reads = self.storage.failed_reads();
        let recovered = match self.storage.open(&self.config, self.boots) {
            Ok(recovered) => recovered,
            Err(JournalError::Full) => {
                self.storage.close(false, step.rng);
                step.out.push(Output::Line(format!("{} has no room to start", self.id)));
                step.out.push(Output::Met(Situation::FullAtStart));
                return step.out.push(Output::Died(200_000));
            }
            // A write failed, or the process died during the start. It is started again.
            Err(JournalError::Io { .. }) => {
                self.storage.close(true, step.rng);
                step.out.push(Output::Line(format!("{} fails to start", self.id)));
                return step.out.push(Output::Died(200_000));
            }
            Err(error) => {
                return step.out.push(Output::Violation(format!("{} does not start: {error}", self.id)));
            }
        };
        if self.storage.failed_reads() > failed_reads {
            step.out.push(Output::Met(Situation::ReadFailed));
        }
        if recovered.lost.is_some() && !self.storage.damaged {
            step.out.push(Output::Violation(format!("{} takes a crash for damage", self.id)));
        }
        if !recovered.meta.voter && !self.storage.damaged {
            step.out.push(Output::Violation(format!("{} forgets its vote on a good disk", self.id)));
        }
        step.out.push(Output::Line(format!(
            "{} starts, {} entries, snapshot {:?}, promised {}, voter {}{}",
            self.id,
            recovered.entries.len(),
            recovered.snapshot.as_ref().map(|snapshot| snapshot.op.0),
            recovered.meta.promised,
            recovered.meta.voter,
            recovered.lost.map_or(String::new(), |lost| format!(", lost {}..={}", lost.first, lost.last)),
        )));
        self.boots += 1;
        self.wake_at = None;
        self.paused_until = 0;
        // Entries found at a start count as durable: the journal must guarantee that.
        let found = recovered.entries.iter().map(|entry| (entry.op, entry.view));
        let held = if recovered.meta.voter { &mut self.held } else { &mut self.learned };
        held.extend(found);
        if let Some(lost) = recovered.lost {
            self.damaged_upto = Some(lost.last);
            step.out.push(Output::Met(Situation::Rotten));
        }
        let log = recovered.entries.iter().map(|entry| (entry.op, entry.clone())).collect();
        let incarnation = recovered.meta.incarnation;
        self.incarnation = incarnation;
        let boot = match self.on_copy {
            false => tap::boot_id(self.id, incarnation),
            true => tap::boot_id_of_copy(self.id, incarnation),
        };
        let ciphers = tap::ciphers(tap::has_aes(self.id), self.config.planted);
        let keys = tap::cluster_keys().with(ciphers);
        let handshake_config = HandshakeConfig {
            cluster: self.config.cluster.id,
            me: self.id,
            incarnation,
            boot_id: boot,
            keys: keys.clone(),
            limits: self.config.limits,
        };
        let mut shards = Vec::new();
        for _ in 0..SHARDS {
            shards.push(Shard::new(&self.config, &handshake_config, SHARDS, step.rng.bytes()));
        }
        let clock = Clock { now: Moment(0), unix_ms: self.unix_ms(step.now) };
        let boot = BootIdentity { id: boot, keys, seed: step.rng.next() };
        let mut effects = Vec::new();
        let started = self.storage.restore_state(&self.config).and_then(|service| {
            engine::start(self.config.clone(), recovered, service, boot, clock, &mut effects)
        });
        let node = match started {
            Ok(node) => node,
            Err(error) => {
                return step.out.push(Output::Violation(format!("{} does not start: {error}", self.id)));
            }
        };
        self.process = Some(Process {
            node,
            log,
            boot: self.boots,
            known: BTreeSet::new(),
            shards,
            threads: self.costs.map(Threads::new),
            addresses: BTreeMap::new(),
            began: step.now,
            turned: step.now,
            delivery_turns: false,
            queued: VecDeque::new(),
            writing: Vec::new(),
            written: 0,
            done: Vec::new(),
            charged: 0,
            full: false,
            leaves_lead: false,
            snapshot: None,
            mark_at: step.now + MARK_EVERY,
            marking: false,
            delivery_queues: Default::default(),
            request_queue: VecDeque::new(),
            fetched: false,
            transferred: false,
            isolated: false,
            stopped: false,
        });
        let work = self.taken_on(step, effects);
        self.perform(step, work);
    }

    /// Simulates half a second without writes for the journal: everything written becomes durable and marked.
    pub fn settle(&mut self, step: &mut Step) {
        if self.process.is_none() {
            return;
        }
        let settled = self.storage.sync().and_then(|()| self.storage.mark());
        self.unless_full(step, Situation::MetaFull, settled);
    }

    /// Returns true if [`Server::settle`] succeeded: a disk that is or was full takes no mark.
    pub fn is_settled(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.full)
    }

    /// Before damage: checks that a learner whose vote is durable, although its process died before it could
    /// act on it, holds what it owes.
    ///
    /// # Errors
    /// The violation.
    pub fn check_durable_vote(&mut self) -> Result<(), String> {
        let Ok(seen) = inspect_disk(&self.storage.copy()) else { return Ok(()) };
        match (self.must_hold_before_vote, seen.meta) {
            (Some(owed), MetaState::Good { voter: true, .. }) => {
                self.must_hold_before_vote = None;
                holds_what_it_owes(self.id, owed, seen.last)
            }
            _ => Ok(()),
        }
    }

    /// Returns true if the journal succeeded. Handles errors as the journal thread does: on a full disk the
    /// server ends in order, and nothing more is written or reported until then; any other error ends it at
    /// once.
    fn unless_full(&mut self, step: &mut Step, place: Situation, done: Result<(), JournalError>) -> bool {
        let Some(process) = &mut self.process else { return false };
        match done {
            Ok(()) => return true,
            Err(JournalError::Full | JournalError::Poisoned) if process.full => {}
            Err(JournalError::Full) => {
                process.full = true;
                step.out.push(Output::Line(format!("{}: the disk is full", self.id)));
                step.out.push(Output::Met(place));
                step.out.push(Output::Later(step.rng.range(20, 500), Alarm::Full));
            }
            Err(error) => {
                step.out.push(Output::Line(format!("{}: the journal fails, {error}", self.id)));
                step.out.push(Output::Met(Situation::WriteFailed));
                self.die(step, Death { power: true, down: 200_000 });
            }
        }
        false
    }

    /// Ends the process.
    pub fn die(&mut self, step: &mut Step, death: Death) {
        let Some(process) = self.process.take() else { return };
        self.dead = Some(process);
        self.armed_death = None;
        self.suppression = None;
        self.storage.close(death.power, step.rng);
        let how = if death.power { "loses power" } else { "dies" };
        step.out.push(Output::Line(format!("{} {how}", self.id)));
        step.out.push(Output::Died(death.down));
    }

    /// Handles a datagram on the client port, as the listener and the handlers do: a request for which the
    /// queue has no place is refused.
    pub fn on_client_datagram(&mut self, step: &mut Step, from: SocketAddr, bytes: &[u8]) {
        if self.costs.is_some() {
            return self.listen(step, from, bytes);
        }
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let Ok(shard) = shard_for(from, bytes, self.config.cluster.id, SHARDS) else { return };
        let waiting = process.request_queue.len();
        let places = self.bounds.request_queue.map(|(places, _)| places);
        let (mut asked, mut refused) = (Vec::new(), false);
        let mut ask = |_, input| {
            let full = places.is_some_and(|places| waiting + asked.len() >= places);
            refused |= full;
            if !full {
                asked.push(input);
            }
            !full
        };
        let mut effects = Vec::new();
        let _ = process.shards[shard].receive(now, from, bytes, &mut ask, &mut effects);
        if refused {
            step.out.push(Output::Met(Situation::QueueFull));
        }
        self.end_delivery_turn(step, now, &mut effects);
        self.perform(step, effects.into_iter().map(Work::Delivery).collect());
        asked.into_iter().for_each(|input| self.ask(step, input));
    }

    /// Passes a client request to the node, at once or by the queue.
    fn ask(&mut self, step: &mut Step, input: Input) {
        let Some((_, lasts)) = self.bounds.request_queue else { return self.on_input(step, input) };
        let Some(process) = &mut self.process else { return };
        if process.request_queue.is_empty() {
            step.out.push(Output::Later(step.rng.range(lasts / 4, lasts), Alarm::RequestQueue));
        }
        process.request_queue.push_back(input);
    }

    /// Passes the waiting requests to the node.
    fn on_asked(&mut self, step: &mut Step) {
        let asked = self.process.as_mut().map(|process| std::mem::take(&mut process.request_queue));
        asked.into_iter().flatten().for_each(|input| self.on_input(step, input));
    }

    /// Passes an input to the node.
    pub fn on_input(&mut self, step: &mut Step, input: Input) {
        let clock = self.clock(step.now);
        let Some(process) = &mut self.process else { return };
        if let Some(threads) = &mut process.threads {
            threads.queue(input);
            return self.begin_turns(step);
        }
        let mut effects = Vec::new();
        process.node.handle(clock, input, &mut effects);
        process.node.flush(clock, &mut effects);
        process.turned = step.now;
        let work = self.taken_on(step, effects);
        self.perform(step, work);
        let mut effects = Vec::new();
        if let Some(process) = &mut self.process {
            process.node.apply(clock, &mut effects);
        }
        let work = self.taken_on(step, effects);
        self.perform(step, work);
    }

    /// Ends the turn of the handlers at once, or later with the inputs that come until then.
    fn end_delivery_turn(&mut self, step: &mut Step, now: Moment, effects: &mut Vec<shard::Effect>) {
        let Some(process) = &mut self.process else { return };
        match self.bounds.delivery_turn {
            None => process.shards.iter_mut().for_each(|shard| shard.flush(now, effects)),
            Some(lasts) => {
                if !std::mem::replace(&mut process.delivery_turns, true) {
                    step.out.push(Output::Later(step.rng.range(0, lasts), Alarm::DeliveryTurn));
                }
            }
        }
    }

    /// Ends a turn of the handlers.
    fn on_delivery_turn(&mut self, step: &mut Step) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        process.delivery_turns = false;
        let mut effects = Vec::new();
        process.shards.iter_mut().for_each(|shard| shard.flush(now, &mut effects));
        self.perform(step, effects.into_iter().map(Work::Delivery).collect());
    }

    /// Handles deadlines that have passed.
    pub fn on_wake(&mut self, step: &mut Step) {
        if self.costs.is_some() {
            return self.begin_turns(step);
        }
        let now = self.clock(step.now).now;
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        if self.process.as_ref().is_some_and(|process| due(process.node.next_deadline())) {
            self.on_input(step, Input::Deadline);
        }
        let shards_due = |process: &Process| process.shards.iter().any(|shard| due(shard.next_deadline()));
        let turns = |process: &Process| !process.delivery_turns && shards_due(process);
        if self.process.as_ref().is_some_and(turns) {
            let mut effects = Vec::new();
            self.end_delivery_turn(step, now, &mut effects);
            self.perform(step, effects.into_iter().map(Work::Delivery).collect());
        }
    }

    /// Handles a report of another thread of the process.
    pub fn on_alarm(&mut self, step: &mut Step, alarm: Alarm) {
        match alarm {
            Alarm::Synced => self.on_synced(step),
            Alarm::Written => self.on_written(step),
            Alarm::SnapshotWritten => {
                let Some((op, view, bytes)) =
                    self.process.as_mut().and_then(|process| process.snapshot.take())
                else {
                    return;
                };
                self.storage.write_snapshot(view, &bytes);
                if let Some(process) = &mut self.process {
                    process.queued.push_back(Job::Finish(op));
                }
                self.write_group(step);
            }
            Alarm::Removal => {
                let removed = self.storage.remove_needless();
                self.unless_full(step, Situation::DiskFull, removed);
            }
            Alarm::Mark => {
                if let Some(process) = &mut self.process {
                    process.marking = false;
                }
                self.write_group(step);
                self.await_mark(step);
            }
            Alarm::Full => {
                let role = self.role();
                if let Some(process) = &mut self.process {
                    process.leaves_lead = role == Some(RoleName::Primary);
                }
                self.on_input(step, Input::Stop);
            }
            Alarm::DeliveryQueue => self.on_told(step),
            Alarm::RequestQueue => self.on_asked(step),
            Alarm::Turn(turn) => self.on_turn(step, turn),
            Alarm::SuppressedDeath(boot, death) => {
                if self.process.as_ref().is_some_and(|process| process.boot == boot) {
                    self.die(step, death);
                }
            }
            Alarm::DeliveryTurn => self.on_delivery_turn(step),
            Alarm::SnapshotStored { transfer, upto } => {
                self.on_input(step, Input::Log(bully::Input::SnapshotStored { transfer, upto }));
            }
            Alarm::SnapshotAbandoned(transfer) => {
                self.on_input(step, Input::Log(bully::Input::SnapshotAbandoned(transfer)));
            }
            Alarm::SnapshotOpening(transfer) => {
                self.on_input(step, Input::Log(bully::Input::SnapshotOpening(transfer)));
            }
            Alarm::SnapshotOpened => match self.storage.open_received(&self.config) {
                Ok(None) => {}
                Ok(Some((transfer, opened))) => {
                    self.on_input(step, Input::SnapshotOpened { transfer, opened });
                }
                Err(error) => drop(self.unless_full(step, Situation::DiskFull, Err(error))),
            },
            Alarm::SnapshotRead { to, op, offset, blocks } => {
                let piece = self.storage.read_snapshot(op, offset, blocks);
                self.on_input(step, Input::Log(bully::Input::SnapshotRead { to, piece }));
            }
        }
    }

    /// Returns the time at which [`Server::on_wake`] is due.
    pub fn next_deadline(&self) -> Option<Micros> {
        let process = self.process.as_ref()?;
        let at = |deadline: Moment| process.began.saturating_add(deadline.0);
        if let Some(threads) = &process.threads {
            // The end of a turn begins the next one.
            let of_node = process.node.next_deadline().filter(|_| !threads.replica_is_busy());
            let idle = (0..SHARDS).filter(|shard| !threads.handler_is_busy(*shard));
            let of_shards = idle.filter_map(|shard| process.shards[shard].next_deadline());
            return of_node.into_iter().chain(of_shards).map(at).min();
        }
        // While there is more to apply, a turn follows the last one as soon as that has taken its time.
        let of_node = process.node.next_deadline().map(at);
        let of_node = of_node.map(|due| if due <= process.turned { process.turned + self.turn } else { due });
        let shards = process.shards.iter().filter(|_| !process.delivery_turns);
        let of_shards = shards.filter_map(Shard::next_deadline).map(at);
        of_node.into_iter().chain(of_shards).min()
    }

    /// Does the rest of the group, as the journal thread does. The time of further fsyncs passes before
    /// anything is reported.
    fn on_synced(&mut self, step: &mut Step) {
        let Some(process) = &mut self.process else { return };
        let (before, charged) = (self.storage.syncs(), process.charged);
        let rest = process.writing.iter().skip(process.written).cloned().map(Work::Write).collect();
        self.perform(step, rest);
        if self.process.is_none() {
            return;
        }
        if let Some((Trigger::BeforeSync, death)) = self.armed_death {
            return self.die(step, death);
        }
        match self.storage.sync() {
            Ok(()) => {}
            Err(full @ (JournalError::Full | JournalError::Poisoned)) => {
                // The durable jobs of the group are not reported.
                self.unless_full(step, Situation::MetaFull, Err(full));
                if let Some(process) = &mut self.process {
                    process.done.clear();
                }
            }
            Err(_) => {
                step.out.push(Output::Line(format!("{}: fsync fails", self.id)));
                step.out.push(Output::Met(Situation::SyncFailed));
                return self.die(step, Death { power: true, down: 200_000 });
            }
        }
        match (self.storage.syncs() - before).saturating_sub(charged) {
            0 => self.on_written(step),
            more => {
                let lasts = self.fsyncs(step, more);
                self.disk_until = step.now + lasts;
                step.out.push(Output::Later(lasts, Alarm::Written));
            }
        }
    }

    /// Returns the time of `count` fsyncs.
    fn fsyncs(&self, step: &mut Step, count: u64) -> Micros {
        let (low, high) = self.speed.sync;
        (0..count).map(|_| step.rng.range(low, high)).sum()
    }

    /// Ends the group: reports its jobs, and begins the next group.
    fn on_written(&mut self, step: &mut Step) {
        let Some(process) = &mut self.process else { return };
        let (mut done, mut snapshot) = (None, None);
        process.writing.clear();
        for job in std::mem::take(&mut process.done) {
            match job {
                Job::Task(number, task) => {
                    done = Some(number);
                    match task {
                        Task::Append { entries, .. } => {
                            self.holds(entries.iter().map(|entry| (entry.op, entry.view)));
                        }
                        Task::Install { op, .. } => {
                            self.holds_upto(op);
                            step.out.push(Output::Line(format!("{} took a peer's snapshot", self.id)));
                        }
                        Task::Know(known) => self.knows.extend(known),
                        Task::Promise(_) | Task::Vote(_) => {}
                    }
                }
                Job::Finish(op) => {
                    self.holds_upto(op);
                    snapshot = Some(op);
                }
                Job::Snapshot(..) | Job::Receive(..) | Job::DropReceived(_) | Job::Mark => {}
            }
        }
        if let Some(op) = snapshot {
            self.on_input(step, Input::SnapshotDone(op));
        }
        if let Some(number) = done {
            self.on_input(step, Input::Log(bully::Input::Journaled(number)));
        }
        self.write_group(step);
        self.await_mark(step);
    }

    /// Schedules the mark of an idle journal thread, if one is due.
    fn await_mark(&mut self, step: &mut Step) {
        let owed = self.storage.needs_mark();
        let Some(process) = self.process.as_mut().filter(|process| process.writing.is_empty()) else {
            return;
        };
        if owed && !std::mem::replace(&mut process.marking, true) {
            step.out.push(Output::Later(process.mark_at.saturating_sub(step.now).max(1), Alarm::Mark));
        }
    }

    fn learns(&self) -> bool {
        self.role() == Some(RoleName::Learner)
    }

    /// Records entries that were made durable.
    pub fn holds(&mut self, written: impl IntoIterator<Item = (Op, View)>) {
        let held = if self.learns() { &mut self.learned } else { &mut self.held };
        held.extend(written);
    }

    /// Records a durable snapshot at `op`.
    pub fn holds_upto(&mut self, op: Op) {
        let upto = if self.learns() { &mut self.learned_upto } else { &mut self.held_upto };
        *upto = op.max(*upto);
    }

    /// Counts what a learner has copied, once it votes. Returns the op that it had to hold, if it began to
    /// vote in this step.
    pub fn began_to_vote(&mut self) -> Option<Op> {
        if self.role().is_none_or(|role| role == RoleName::Learner) {
            return None;
        }
        self.count_what_was_learned();
        self.must_hold_before_vote.take()
    }

    /// The copy counts from the moment at which the vote is durable, also if the server dies in the same
    /// step.
    fn count_what_was_learned(&mut self) {
        self.held.append(&mut self.learned);
        self.held_upto = self.held_upto.max(self.learned_upto);
    }

    /// Returns the last op of a damaged range once it is repaired.
    pub fn repaired(&mut self) -> Option<Op> {
        let applied = self.process.as_ref()?.node.applied();
        self.damaged_upto.take_if(|last| applied >= *last)
    }

    /// Keeps a copy of its directory.
    pub fn keep_copy(&mut self) {
        self.copy = Some(DirectoryCopy {
            disk: self.storage.copy(),
            incarnation: self.incarnation,
            knows: self.knows.clone(),
        });
    }

    /// Its incarnation, or the last one it had.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the incarnation that it would have on the copy of its directory.
    pub fn incarnation_of_copy(&self) -> Option<Incarnation> {
        self.copy.as_ref().filter(|_| self.stale.is_none()).map(|copy| Incarnation(copy.incarnation.0 + 1))
    }

    /// Returns true if the others must notice that the copy runs. A server that is no voter takes an
    /// incarnation above all earlier ones, and learns before it votes, as on an empty disk.
    pub fn must_be_noticed(&self) -> bool {
        let meta = self.copy.as_ref().and_then(|copy| inspect_disk(&copy.disk).ok()).map(|seen| seen.meta);
        matches!(meta, Some(MetaState::Good { voter: true, .. }))
    }

    /// Replaces its directory by this older copy. The server must not run.
    pub fn put_back(&mut self, copy: &MemDisk) {
        self.storage.restore(copy);
        self.on_copy = true;
    }

    /// Replaces its directory by the copy that was made of it. The server must not run.
    pub fn restore_copy(&mut self) {
        if let Some(copy) = &self.copy {
            self.storage.restore(&copy.disk);
            self.knows = copy.knows.clone();
            self.on_copy = true;
            (self.learned, self.learned_upto, self.damaged_upto) = (BTreeSet::new(), Op::ZERO, None);
            (self.must_hold_before_vote, self.stale) = (None, Some(Stale::PutBack));
        }
    }

    /// Prepares a start. On a restored directory a server starts once. For its next start the disk is wiped,
    /// as by an operator who has read the others' reports.
    pub fn replace_stale(&mut self) {
        match self.stale {
            Some(Stale::PutBack) => self.stale = Some(Stale::Unnoticed),
            Some(Stale::Unnoticed | Stale::Noticed) => self.wipe(),
            None => {}
        }
    }

    /// The disk is lost, with everything on it.
    pub fn wipe(&mut self) {
        self.storage.wipe();
        (self.stale, self.on_copy) = (None, false);
        self.knows.clear();
        (self.learned, self.learned_upto, self.damaged_upto) = (BTreeSet::new(), Op::ZERO, None);
    }

    /// Returns true if so many jobs wait that peers are asked to send again.
    pub fn journal_is_behind(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.queued.len() > self.bounds.journal)
    }

    /// Tells the shards, as the replica thread does: in order, and without waiting. Applied notifications are
    /// left out while the queue is full, and the shards learn of that before the next input.
    fn tell(&mut self, step: &mut Step, told: Told, work: &mut VecDeque<Work>) {
        if self.costs.is_some() {
            return self.queue_told(told);
        }
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let Some((places, lasts)) = self.bounds.delivery_queue else {
            let mut effects = Vec::new();
            distribute(told, SHARDS, |shard, told| process.shards[shard].tell(now, told, &mut effects));
            self.end_delivery_turn(step, now, &mut effects);
            return work.extend(effects.into_iter().map(Work::Delivery));
        };
        let idle = process.delivery_queues.iter().all(|(queue, _)| queue.is_empty());
        distribute(told, SHARDS, |shard, told| {
            let (queue, missed) = &mut process.delivery_queues[shard];
            let full = queue.len() >= places || *missed;
            if full && matches!(told, Told::Delivery(delivery::Input::Applied { .. })) {
                *missed = true;
                step.out.push(Output::Met(Situation::Missed));
            } else {
                queue.push_back(told);
            }
        });
        if idle && process.delivery_queues.iter().any(|(queue, _)| !queue.is_empty()) {
            step.out.push(Output::Later(step.rng.range(lasts / 4, lasts), Alarm::DeliveryQueue));
        }
    }

    /// Tells the shards what waits.
    fn on_told(&mut self, step: &mut Step) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        for ((queue, missed), shard) in process.delivery_queues.iter_mut().zip(&mut process.shards) {
            queue.drain(..).for_each(|told| shard.tell(now, told, &mut effects));
            if std::mem::take(missed) {
                shard.tell(now, Told::Delivery(delivery::Input::AppliedDropped), &mut effects);
            }
        }
        self.end_delivery_turn(step, now, &mut effects);
        self.perform(step, effects.into_iter().map(Work::Delivery).collect());
    }

    /// Records the situations that a role change shows.
    fn note_role(&mut self, step: &mut Step, change: &RoleChange) {
        let Some(process) = &mut self.process else { return };
        let mut met = |met| step.out.push(Output::Met(met));
        match (change.role, change.cause) {
            (RoleName::Candidate, Cause::Transfer) => process.transferred = true,
            (RoleName::Isolated, _) => {
                process.isolated = true;
                met(Situation::Isolated);
            }
            (_, Cause::MajorityBack) => met(Situation::MajorityBack),
            (_, Cause::PrimaryRestarted) => met(Situation::PrimaryRestarted),
            (_, Cause::PortRefused) => met(Situation::PortRefused),
            (RoleName::Backup, Cause::Voter) => met(Situation::LearnerVotes),
            _ => {}
        }
        match change.role {
            RoleName::Primary => {
                if std::mem::take(&mut process.fetched) {
                    met(Situation::StaleWinner);
                }
                if std::mem::take(&mut process.transferred) {
                    met(Situation::HandedOver);
                }
            }
            RoleName::Backup => {
                process.fetched = false;
                if std::mem::take(&mut process.transferred) {
                    met(Situation::HandOverFailed);
                }
            }
            RoleName::Learner | RoleName::Candidate | RoleName::Isolated | RoleName::Unknown(_) => {}
        }
    }

    /// Records the situations that a received datagram of an election shows.
    pub fn note_heard(&mut self, opened: &Opened<ToPeer>, step: &mut Step) {
        let candidate = self.role() == Some(RoleName::Candidate);
        for packet in &opened.packets {
            let met = match packet {
                ToPeer::Fetch(_) => Situation::Fetched,
                ToPeer::Reply(Reply::Refuse { .. }) if candidate => Situation::PromiseRefused,
                ToPeer::Reply(Reply::Bully { .. }) if candidate => Situation::Bullied,
                ToPeer::Entries(entries) if entries.fetch.is_some() && candidate => {
                    if let Some(process) = &mut self.process {
                        process.fetched = true;
                    }
                    continue;
                }
                _ => continue,
            };
            step.out.push(Output::Met(met));
        }
    }

    /// Makes one group of all queued jobs, or of the mark alone if one is due. The group's first appends are
    /// written at once, all else when its first fsync ends, because a promise, a vote or an installed
    /// snapshot is durable as soon as it is done.
    fn write_group(&mut self, step: &mut Step) {
        let owed = self.storage.needs_mark();
        let Some(process) = &mut self.process else { return };
        if process.full {
            // A write after a hole would make the log wrong.
            process.queued.retain(|job| !job.needs_room());
        }
        if !process.writing.is_empty() {
            return;
        }
        let due = step.now >= process.mark_at;
        if due {
            // With nothing to mark, the thread has checked several times in between.
            let looked = if owed { 0 } else { (step.now - process.mark_at) % MARK_EVERY };
            process.mark_at = step.now - looked + MARK_EVERY;
        }
        process.writing = match due && owed {
            true => vec![Job::Mark],
            false => process.queued.drain(..).collect(),
        };
        if process.writing.is_empty() {
            return;
        }
        process.charged = u64::from(process.writing.iter().any(Job::needs_sync));
        let appends =
            process.writing.iter().take_while(|job| matches!(job, Job::Task(_, Task::Append { .. })));
        let appends: VecDeque<Work> = appends.cloned().map(Work::Write).collect();
        process.written = appends.len();
        let charged = process.charged;
        let lasts = self.fsyncs(step, charged);
        self.disk_until = step.now + lasts;
        step.out.push(Output::Later(lasts, Alarm::Synced));
        self.perform(step, appends);
    }

    /// Turns the node's effects into work. The mirror of the log takes the journal tasks at once, performed
    /// or not.
    fn taken_on(&mut self, step: &mut Step, effects: Vec<Effect>) -> VecDeque<Work> {
        let role = self.role();
        if let Some(process) = &mut self.process {
            for effect in &effects {
                let Effect::Log(bully::Effect::Journal { task, .. }) = effect else { continue };
                if process.remember(task) {
                    step.out.push(Output::Met(Situation::Superseded));
                }
                if let Task::Install { .. } = task {
                    step.out.push(Output::Met(match role {
                        Some(RoleName::Candidate) => Situation::InstalledInElection,
                        Some(RoleName::Learner) => Situation::LearnerInstalled,
                        _ => Situation::Installed,
                    }));
                }
            }
        }
        effects.into_iter().map(Work::Node).collect()
    }

    fn perform(&mut self, step: &mut Step, mut work: VecDeque<Work>) {
        while let Some(next) = work.pop_front() {
            if self.armed_death_due(&next)
                && let Some((_, death)) = self.armed_death
            {
                return self.die(step, death);
            }
            if let Some(death) = self.death_for_suppressed_commit(step.now) {
                return self.die(step, death);
            }
            match next {
                Work::Node(effect) => self.perform_node(step, effect, &mut work),
                Work::Delivery(effect) => self.perform_delivery(step, effect, &mut work),
                Work::Write(job)
                    if job.needs_room() && self.process.as_ref().is_some_and(|process| process.full) => {}
                Work::Write(job) => {
                    let place = match job {
                        Job::Task(_, Task::Promise(_) | Task::Vote(_)) | Job::Mark => Situation::MetaFull,
                        _ => Situation::DiskFull,
                    };
                    let written = self.write(step, job.clone());
                    if self.unless_full(step, place, written)
                        && let Some(process) = &mut self.process
                    {
                        process.done.push(job);
                    }
                    if self.process.is_none() {
                        return;
                    }
                }
            }
            if self.process.as_ref().is_some_and(|process| process.stopped) {
                let leads = self.role() == Some(RoleName::Primary);
                if self.process.as_ref().is_some_and(|process| process.leaves_lead && !leads) {
                    step.out.push(Output::Met(Situation::FullHandedOver));
                }
                // An orderly end. If the mark cannot be written, that is no worse than a crash.
                let _ = self.storage.sync().and_then(|()| self.storage.mark());
                return self.die(step, Death { power: false, down: 300_000 });
            }
        }
        self.write_group(step);
    }

    fn write(&mut self, step: &mut Step, job: Job) -> Result<(), JournalError> {
        match job {
            Job::Task(_, task) => {
                self.storage.write(&task)?;
                if let Task::Install { .. } = task {
                    self.await_removal(step);
                }
                Ok(())
            }
            Job::Receive(transfer, piece) => {
                let alarm = match self.storage.receive(transfer, &piece)? {
                    Some(upto) => Alarm::SnapshotStored { transfer, upto },
                    None => Alarm::SnapshotAbandoned(transfer),
                };
                step.out.push(Output::Later(1, alarm));
                if self.storage.is_whole() == Some(transfer) {
                    let lasts = step.rng.range(self.opens.0, self.opens.1);
                    step.out.push(Output::Later(lasts / 2, Alarm::SnapshotOpening(transfer)));
                    step.out.push(Output::Later(lasts, Alarm::SnapshotOpened));
                }
                Ok(())
            }
            Job::DropReceived(transfer) => {
                self.storage.drop_received(transfer);
                Ok(())
            }
            Job::Snapshot(op, view, bytes) => {
                self.storage.begin_snapshot(op)?;
                if let Some(process) = &mut self.process {
                    process.snapshot = Some((op, view, bytes));
                }
                // The time to encode the snapshot, and to sync the file and its name.
                let lasts = step.rng.range(1_000, 30_000) + self.fsyncs(step, 2);
                step.out.push(Output::Later(lasts, Alarm::SnapshotWritten));
                Ok(())
            }
            Job::Finish(_) => {
                self.storage.add_snapshot()?;
                self.await_removal(step);
                Ok(())
            }
            Job::Mark => self.storage.mark(),
        }
    }

    /// Schedules the removal of what a snapshot has made needless.
    fn await_removal(&self, step: &mut Step) {
        let lasts = step.rng.range(0, 30_000) + self.fsyncs(step, 1);
        step.out.push(Output::Later(lasts, Alarm::Removal));
    }

    fn perform_node(&mut self, step: &mut Step, effect: Effect, work: &mut VecDeque<Work>) {
        if self.suppresses(step, &effect) {
            return;
        }
        let me = self.id;
        let Some(process) = &mut self.process else { return };
        match effect {
            Effect::Log(effect) => self.perform_of_log(step, effect),
            Effect::Snapshot(image) => {
                process.queued.push_back(Job::Snapshot(image.op, image.view, codec::encode(&*image)));
            }
            Effect::Delivery(input) => {
                let history = matches!(
                    input,
                    delivery::Input::Answer {
                        packet: ToClient::Answer(Answer { kind: AnswerKind::History(_), .. }),
                        ..
                    }
                );
                self.histories_run += usize::from(history);
                step.out.extend(met_in(&input).map(Output::Met));
                self.tell(step, Told::Delivery(input), work);
            }
            Effect::ClockAway(ms) => {
                let line = format!("{me} finds its clock {} h away", ms / 3_600_000);
                step.out.push(Output::Line(line));
                step.out.push(Output::Met(Situation::ClockAway));
            }
            Effect::SessionKnown { session, device, nonce, aead } => {
                process.known.insert(session);
                self.tell(step, Told::Known { session, device: device.key, nonce, aead }, work);
                step.out.push(Output::Session(tap::Session { id: session, device: device.key, nonce, aead }));
            }
            Effect::SessionGone(session) => {
                process.known.remove(&session);
                self.tell(step, Told::Gone(session), work);
            }
            Effect::Administered { change: AdminChange::Release { .. }, .. } => {
                step.out.push(Output::Met(Situation::Released));
            }
            Effect::Administered { .. } | Effect::BeyondEnd { .. } | Effect::Dropping(_) => {}
            Effect::Discard(_) => {}
            Effect::Stopped => process.stopped = true,
            Effect::SnapshotRefused(error) => step.out.push(Output::Violation(format!("{me}: {error}"))),
            Effect::Failed(entry) => step.out.push(Output::Violation(format!("{me}: {entry}"))),
        }
    }

    fn perform_of_log(&mut self, step: &mut Step, effect: bully::Effect) {
        let me = self.id;
        match effect {
            bully::Effect::Peer { to, bytes } => {
                step.out.push(Output::Datagram { from: peer_port(me), to: peer_port(to), bytes });
            }
            bully::Effect::Journal { number, task } => {
                if let Some(process) = &mut self.process {
                    process.queued.push_back(Job::Task(number, task));
                }
            }
            bully::Effect::ReadSnapshot { to, op, offset, blocks } => {
                let read = Alarm::SnapshotRead { to, op, offset, blocks };
                step.out.push(Output::Later(step.rng.range(50, 3_000), read));
            }
            bully::Effect::StoreSnapshot { transfer, piece } => {
                if let Some(process) = &mut self.process {
                    process.queued.push_back(Job::Receive(transfer, piece));
                }
            }
            bully::Effect::DropSnapshot(transfer) => {
                if let Some(process) = &mut self.process {
                    process.queued.push_back(Job::DropReceived(transfer));
                }
            }
            bully::Effect::Report(Report::Role(change)) => {
                if change.role != RoleName::Learner {
                    self.count_what_was_learned();
                }
                self.note_role(step, &change);
                step.out.push(Output::Line(format!(
                    "{me} {:?} in view {} ({:?})",
                    change.role, change.view, change.cause
                )));
            }
            bully::Effect::StaleIncarnation { server, incarnation, latest } => {
                let (earlier, latest) = (incarnation.0, latest.0);
                step.out.push(Output::StaleIncarnation(server));
                step.out.push(Output::Line(format!("{me} hears {server} in boot {earlier}, after {latest}")));
            }
            bully::Effect::Path { .. } => {}
            bully::Effect::OtherEpoch { server, epoch } => {
                step.out.push(Output::Line(format!("{me} hears {server} in epoch {}", epoch.0)));
            }
            bully::Effect::Report(Report::Waiting(whom)) => {
                step.out.push(Output::Line(format!("{me} waits for {whom:?}")));
                step.out.push(Output::Met(Situation::Waited));
            }
            bully::Effect::Report(Report::Overwritten { view, first, last }) => {
                step.out
                    .push(Output::Line(format!("{me} gives up {first} to {last} for the primary of {view}")));
            }
            bully::Effect::Report(Report::SnapshotDamaged { donor, op }) => {
                step.out.push(Output::Line(format!("{me} finds the snapshot at {op} of {donor} damaged")));
            }
            bully::Effect::Report(Report::EntryRefused { view, op, kind }) => {
                step.out.push(Output::Violation(format!("{me} is told {kind:?} by {op} of {view}")));
            }
            bully::Effect::Report(Report::Contradicted(found)) => {
                step.out.push(Output::Violation(format!("{me} has what a leader lacks: {found:?}")));
            }
            bully::Effect::Refused(_) => {}
        }
    }

    fn perform_delivery(&mut self, step: &mut Step, effect: shard::Effect, work: &mut VecDeque<Work>) {
        let clock = self.clock(step.now);
        let input = match effect {
            shard::Effect::Datagram { to, bytes } => {
                return step.out.push(Output::Datagram { from: client_port(self.id), to, bytes });
            }
            shard::Effect::WantPage { session, after, limit } => Input::WantPage { session, after, limit },
            shard::Effect::Path { session, address } => {
                let Some(process) = &mut self.process else { return };
                if process.addresses.insert(session, address).is_some_and(|before| before != address) {
                    step.out.push(Output::Met(Situation::Moved));
                }
                Input::Path { session, address }
            }
            shard::Effect::Cursor { session, upto } => Input::Cursor(session, upto),
            shard::Effect::AnswerDone { session, query } => Input::AnswerDone { session, query },
            shard::Effect::Refused(_) => return,
        };
        let Some(process) = &mut self.process else { return };
        if let Some(threads) = &mut process.threads {
            threads.queue(input);
            return;
        }
        let mut effects = Vec::new();
        process.node.handle(clock, input, &mut effects);
        process.node.flush(clock, &mut effects);
        process.node.apply(clock, &mut effects);
        let work_of_node = self.taken_on(step, effects);
        work.extend(work_of_node);
    }

    /// Returns the server's own view that it has prepared or opened under suppression, with the state of the
    /// suppression.
    fn suppressed_view(&mut self, now: Micros) -> Option<(&Node, View, &mut Suppression)> {
        let (process, muzzle) = (self.process.as_ref()?, self.suppression.as_mut()?);
        let view = process.node.promised();
        let own = view.primary() == Some(self.id) && view > muzzle.above;
        let over = !muzzle.lit && now > muzzle.back + Suppression::PATIENCE;
        (own && !over).then_some((&process.node, view, muzzle))
    }

    /// Returns the death of a server that has committed something under suppression.
    fn death_for_suppressed_commit(&mut self, now: Micros) -> Option<Death> {
        let (node, _, muzzle) = self.suppressed_view(now)?;
        let before = *muzzle.commit.get_or_insert(node.commit());
        (node.commit() > before).then_some(muzzle.second)
    }

    /// Returns true if this effect is suppressed.
    fn suppresses(&mut self, step: &mut Step, effect: &Effect) -> bool {
        let Effect::Log(bully::Effect::Peer { to, bytes }) = effect else { return false };
        let now = step.now;
        let Some((_, view, muzzle)) = self.suppressed_view(now) else { return false };
        let early = now < muzzle.back;
        let Some(opened) = self.tap.open(bytes, *to) else { return false };
        if !opened.packets.iter().any(|packet| if early { is_cast(packet) } else { casts_of(packet, view) }) {
            return false;
        }
        let Some(muzzle) = &mut self.suppression else { return false };
        if !muzzle.lit {
            muzzle.lit = true;
            let (last, death) = if early { (25_000, muzzle.first) } else { (60_000, muzzle.second) };
            let boot = self.boots;
            step.out.push(Output::Later(last, Alarm::SuppressedDeath(boot, death)));
        }
        true
    }

    /// Returns true if the armed death happens before `next` is performed. Counts down.
    fn armed_death_due(&mut self, next: &Work) -> bool {
        let Some((trigger, death)) = self.armed_death else { return false };
        let role = self.role();
        let mut sends = |wanted: fn(&ToPeer) -> bool| match next {
            Work::Node(Effect::Log(bully::Effect::Peer { to, bytes })) => {
                self.tap.open(bytes, *to).is_some_and(|opened| opened.packets.iter().any(wanted))
            }
            _ => false,
        };
        let left = match trigger {
            Trigger::Effects(left) => left.checked_sub(1).map(Trigger::Effects),
            Trigger::BeforeSync => return false,
            Trigger::PromiseSent => {
                // The promise itself is still sent. The next effect is the one that does not happen.
                if sends(|packet| matches!(packet, ToPeer::Reply(Reply::Promise(_)))) {
                    Some(Trigger::Effects(1))
                } else {
                    Some(trigger)
                }
            }
            Trigger::EntriesSent(0) => None,
            Trigger::EntriesSent(left) => {
                let casts = sends(is_cast);
                Some(Trigger::EntriesSent(if casts { left - 1 } else { left }))
            }
            Trigger::Primary(left) => match (role, left) {
                (Some(RoleName::Primary), 0) => None,
                (Some(RoleName::Primary), left) => Some(Trigger::Primary(left - 1)),
                _ => Some(trigger),
            },
        };
        match left {
            None => true,
            Some(trigger) => {
                self.armed_death = Some((trigger, death));
                false
            }
        }
    }

    fn clock(&self, now: Micros) -> Clock {
        let began = self.process.as_ref().map_or(now, |process| process.began);
        Clock { now: Moment(now - began), unix_ms: self.unix_ms(now) }
    }

    /// Returns its wall-clock time.
    pub fn unix_ms(&self, now: Micros) -> u64 {
        (EPOCH_MS + now / 1000).saturating_add_signed(self.skew_ms)
    }
}

/// Returns true if a packet between servers carries entries.
fn is_cast(packet: &ToPeer) -> bool {
    matches!(packet, ToPeer::Entries(_) | ToPeer::Fragment(_))
}

/// Returns true if a packet between servers carries a whole entry of this view.
fn casts_of(packet: &ToPeer, view: View) -> bool {
    matches!(packet, ToPeer::Entries(cast) if cast.entries.iter().any(|entry| entry.view == view))
}

impl Process {
    /// Updates the mirror of the log that the invariants compare. Returns true if entries were replaced.
    fn remember(&mut self, task: &Task) -> bool {
        let mut replaced = false;
        match task {
            Task::Append { entries, .. } => {
                for entry in entries {
                    if self.log.get(&entry.op).is_some_and(|held| held.view == entry.view) {
                        continue;
                    }
                    replaced |= !self.log.split_off(&entry.op).is_empty();
                    self.log.insert(entry.op, entry.clone());
                }
            }
            Task::Install { .. } => self.log.clear(),
            Task::Promise(_) | Task::Vote(_) | Task::Know(_) => {}
        }
        replaced
    }
}

/// Returns the situation that an input of the delivery shows, if any.
fn met_in(input: &delivery::Input) -> Option<Situation> {
    match input {
        delivery::Input::Withdrawn(_) => Some(Situation::Withdrawn),
        delivery::Input::Answer { packet: ToClient::Error(refused), .. } => match refused.code {
            Code::Busy => Some(Situation::Busy),
            Code::NoQuorum => Some(Situation::NoQuorum),
            _ => None,
        },
        _ => None,
    }
}
