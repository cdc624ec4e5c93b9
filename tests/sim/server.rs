//! One simulated server: the production parts [`Node`], [`Delivery`] and the journal, wired as the
//! threads wire them, but with every task's time and every death chosen by the world.
//!
//! Effects are performed one by one, and the process may die between any two of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use recado::config::Config;
use recado::delivery::{self, Delivery};
use recado::entry::Entry;
use recado::id::{Incarnation, Moment, NodeId, Op, Seq, SessionId, View};
use recado::journal::{JournalError, MetaState, inspect_disk};
use recado::server::door::{Door, Doorkeeper, Keyring, Visit};
use recado::server::node::{Cause, Clock, Effect, Input, Life, Node, RoleChange, Task};
use recado::wire::codec;
use recado::wire::envelope::{Class, Envelope, Opened};
use recado::wire::fragment::Reassembler;
use recado::wire::packet::{AdminChange, Answers, Code, Packet, Refused, Reply, RoleName};
use recado::wire::seal::Key;

use crate::coverage::Met;
use crate::disk::MemDisk;
use crate::network::{Micros, client_port, peer_port};
use crate::rng::Rng;
use crate::storage::Storage;
use crate::tap::{self, Tap};

/// What a right wall clock shows when the world begins, in ms since 1970.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// How a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The machine loses power: un-synced writes vanish in any subset. Else only the process dies.
    pub power: bool,
    /// How long until it starts again.
    pub down: Micros,
}

/// At which effect an armed death strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// After so many effects.
    Effects(u32),
    /// Between a write and its fsync.
    BeforeSync,
    /// Right after a promise has left.
    PromiseSent,
    /// Right after so many casts have left.
    EntriesSent(u32),
    /// So many effects after it has become primary.
    Primary(u32),
}

/// A server that opens a view and is not heard to the end: what it casts of that view is lost, and
/// then it dies; at once if it commits anything all the same, before it can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Muzzle {
    /// Only in its own view above this one.
    pub above: View,
    /// Until then nothing that it casts leaves, afterwards only what is of older views.
    pub back: Micros,
    /// How it dies before and after that.
    pub first: Death,
    pub second: Death,
    /// What it had committed when it opened that view.
    pub commit: Option<Op>,
    /// Its end is near.
    pub lit: bool,
}

impl Muzzle {
    /// Comes to nothing so long after the old primary is back.
    const PATIENCE: Micros = 400_000;
}

/// What the world has to do after a server took a step.
#[derive(Debug)]
pub enum Output {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Call [`Server::on_alarm`] after this time.
    Later(Micros, Alarm),
    /// For the trace and the transcripts.
    Line(String),
    /// The process is gone; start it again after this time.
    Died(Micros),
    /// A session is in this server's log.
    Session(tap::Session),
    /// It says that another server is in an earlier life than one it had.
    EarlierLife(NodeId),
    /// The run came into this corner.
    Met(Met),
    /// Something that must not happen.
    Broken(String),
}

/// What a server's other threads report.
#[derive(Clone, Debug)]
pub enum Alarm {
    /// The first fsync of the group of journal jobs that is under way ends.
    Synced,
    /// All of them have ended.
    Written,
    /// The snapshot's file is written now.
    SnapshotWritten,
    /// Meta is to be told what is durable.
    Mark,
    /// The journal found no room: the node is told to stop.
    Full,
    /// A piece of a snapshot is to be read now.
    SnapshotRead { to: NodeId, op: Op, offset: u64, chunks: u16 },
    /// The delivery has time for what it was told.
    Told,
    /// The node has time for what clients ask.
    Asked,
    /// The end of a server that was muzzled in this life.
    Muzzled(u32, Death),
}

/// What a step may use.
#[derive(Debug)]
pub struct Step<'a> {
    pub now: Micros,
    pub rng: &'a mut Rng,
    pub out: Vec<Output>,
}

/// How quick a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    pub sync: (Micros, Micros),
}

/// As the journal thread does it.
const MARK_EVERY: Micros = 500_000;

/// As the handlers say it.
const BUSY_RETRY_MS: u32 = 50;

/// What its threads' queues hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Places in the delivery's queue, and how long what stands in it waits; none: it is never full.
    pub told: Option<(usize, Micros)>,
    /// Places in the node's queue of what clients ask, and how long what stands in it waits; none: never full.
    pub asked: Option<(usize, Micros)>,
    /// Groups of writes that may wait before the journal counts as behind.
    pub journal: usize,
}

/// A copy of a server's directory.
struct DirectoryCopy {
    disk: MemDisk,
    /// The life that the server was in.
    life: Incarnation,
    /// See [`Server::knows`].
    knows: BTreeMap<NodeId, Incarnation>,
}

/// What becomes of a server whose directory is an older copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It has not started since.
    PutBack,
    /// It has, and nobody says what it is, ...
    Unnoticed,
    /// ... or somebody has said it.
    Noticed,
}

/// One server through all its lives.
pub struct Server {
    pub id: NodeId,
    pub config: Config,
    pub storage: Storage,
    pub process: Option<Process>,
    /// The process that died in this step: what it did before is held against it.
    pub dead: Option<Process>,
    pub speed: DiskSpeed,
    pub bounds: Bounds,
    /// Datagrams that wait for it while it is paused.
    pub backlog: usize,
    pub fuse: Option<(Trigger, Death)>,
    pub muzzle: Option<Muzzle>,
    /// Added to the wall clock, in ms.
    pub skew_ms: i64,
    pub lives: u32,
    /// What has ever been fsynced here, by op; replaced only by a higher view.
    pub held: BTreeSet<(Op, View)>,
    /// Everything up to here stands in a durable snapshot.
    pub held_upto: Op,
    /// The same of what it fsynced as a learner: it counts once it votes.
    learned: BTreeSet<(Op, View)>,
    learned_upto: Op,
    /// What was acknowledged to clients when it became a learner: it holds that before it votes.
    pub owes: Option<Op>,
    /// Which life it began last, and the latest of each other server that it durably knows of.
    incarnation: Incarnation,
    pub knows: BTreeMap<NodeId, Incarnation>,
    copy: Option<DirectoryCopy>,
    /// Its directory is the copy.
    pub stale: Option<Stale>,
    /// The last op of a range that was found rotten.
    rotten: Option<Op>,
    pub wake_at: Option<Micros>,
    /// Not run before that time; its inputs wait.
    pub paused_until: Micros,
    /// Opens what it sends, for deaths that strike at a certain word.
    tap: Tap,
}

/// One life of it.
pub struct Process {
    pub node: Node,
    /// The entries it holds, as it told its journal.
    pub log: BTreeMap<Op, Entry>,
    pub life: u32,
    /// The sessions whose datagrams it can open.
    pub known: BTreeSet<SessionId>,
    door: Door,
    keyring: Keyring,
    delivery: Delivery,
    began: Micros,
    queued: VecDeque<Job>,
    /// The group that is being written: appends to begin with, which are on the disk already.
    writing: Vec<Job>,
    written: usize,
    /// Those of them that are done.
    done: Vec<Job>,
    /// Fsyncs of the group whose time has passed before any was made.
    charged: u64,
    /// The disk was found full: nothing more is written or reported.
    full: bool,
    /// It was primary when it was told to stop for that.
    leaves_lead: bool,
    snapshot: Option<(Op, View, Vec<u8>)>,
    /// When the journal thread looks next whether meta is to be told, and whether that is on its way.
    mark_at: Micros,
    marking: bool,
    partial: BTreeMap<SessionId, Reassembler>,
    /// What the delivery has yet to be told, and whether something was left out for lack of room.
    told: VecDeque<delivery::Input>,
    missed: bool,
    /// What clients ask and the node has yet to hear.
    asked: VecDeque<Input>,
    /// Whether it fetched in the election under way, and took a hand-over.
    fetched: bool,
    transferred: bool,
    isolated: bool,
    stopped: bool,
}

enum Work {
    Node(Effect),
    Delivery(delivery::Effect),
    Write(Job),
}

/// What the journal thread does, in order.
#[derive(Clone)]
enum Job {
    Task(u64, Task),
    Snapshot(Op, View, Vec<u8>),
    /// Takes the snapshot into account that the snapshot thread has written.
    Finish(Op),
    /// Tells meta what is durable.
    Mark,
}

impl Job {
    /// Whether it is left out once the disk was found full.
    fn needs_room(&self) -> bool {
        matches!(self, Job::Task(..) | Job::Snapshot(..))
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
            bounds: Bounds { told: None, asked: None, journal: usize::MAX },
            backlog: 0,
            fuse: None,
            muzzle: None,
            skew_ms: 0,
            lives: 0,
            held: BTreeSet::new(),
            held_upto: Op::ZERO,
            learned: BTreeSet::new(),
            learned_upto: Op::ZERO,
            owes: None,
            incarnation: Incarnation(0),
            knows: BTreeMap::new(),
            copy: None,
            stale: None,
            rotten: None,
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

    /// The process starts on what its disk holds.
    pub fn start(&mut self, step: &mut Step) {
        let failed_reads = self.storage.failed_reads();
        let recovered = match self.storage.open(&self.config, self.lives) {
            Ok(recovered) => recovered,
            Err(JournalError::Full) => {
                self.storage.close(false, step.rng);
                step.out.push(Output::Line(format!("{} has no room to start", self.id)));
                step.out.push(Output::Met(Met::FullAtStart));
                return step.out.push(Output::Died(200_000));
            }
            // A write that failed, or the process died on the way: it is started again.
            Err(JournalError::Io { .. }) => {
                self.storage.close(true, step.rng);
                step.out.push(Output::Line(format!("{} fails to start", self.id)));
                return step.out.push(Output::Died(200_000));
            }
            Err(error) => {
                return step.out.push(Output::Broken(format!("{} does not start: {error}", self.id)));
            }
        };
        if self.storage.failed_reads() > failed_reads {
            step.out.push(Output::Met(Met::ReadFailed));
        }
        if recovered.lost.is_some() && !self.storage.damaged {
            step.out.push(Output::Broken(format!("{} takes a crash for damage", self.id)));
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
        self.lives += 1;
        self.wake_at = None;
        self.paused_until = 0;
        // What a start finds it may count as durable: the journal has to see to that.
        let found = recovered.entries.iter().map(|entry| (entry.op, entry.view));
        let held = if recovered.meta.voter { &mut self.held } else { &mut self.learned };
        held.extend(found);
        if let Some(lost) = recovered.lost {
            self.rotten = Some(lost.last);
            step.out.push(Output::Met(Met::Rotten));
        }
        let log = recovered.entries.iter().map(|entry| (entry.op, entry.clone())).collect();
        let incarnation = recovered.meta.incarnation;
        self.incarnation = incarnation;
        let life = tap::life(self.id, incarnation);
        let keeper = Doorkeeper {
            cluster: self.config.cluster.id,
            me: self.id,
            incarnation,
            life,
            keys: tap::cluster_keys(),
            limits: self.config.limits,
        };
        let delivery = Delivery::new(&self.config, incarnation, step.rng.bytes());
        let clock = Clock { now: Moment(0), unix_ms: self.unix_ms(step.now) };
        let life = Life { id: life, keys: tap::cluster_keys(), seed: step.rng.next() };
        let mut effects = Vec::new();
        let node = match Node::new(self.config.clone(), recovered, life, clock, &mut effects) {
            Ok(node) => node,
            Err(error) => {
                return step.out.push(Output::Broken(format!("{} does not start: {error}", self.id)));
            }
        };
        self.process = Some(Process {
            node,
            log,
            life: self.lives,
            known: BTreeSet::new(),
            door: Door::new(keeper.clone(), step.rng.bytes()),
            keyring: Keyring::new(&keeper),
            delivery,
            began: step.now,
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
            partial: BTreeMap::new(),
            told: VecDeque::new(),
            missed: false,
            asked: VecDeque::new(),
            fetched: false,
            transferred: false,
            isolated: false,
            stopped: false,
        });
        let work = self.taken_on(step, effects);
        self.perform(step, work);
    }

    /// Half a second without writes passes for the journal: what is written is durable, and meta says so.
    pub fn settle(&mut self, step: &mut Step) {
        if self.process.is_none() {
            return;
        }
        let settled = self.storage.sync().and_then(|()| self.storage.mark());
        self.unless_full(step, Met::MetaFull, settled);
    }

    /// Whether the journal did it, as the journal thread takes it: on a full disk the server ends in order, and
    /// nothing more is written or reported until then; any other error ends it now.
    fn unless_full(&mut self, step: &mut Step, place: Met, done: Result<(), JournalError>) -> bool {
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
                step.out.push(Output::Met(Met::WriteFailed));
                self.die(step, Death { power: true, down: 200_000 });
            }
        }
        false
    }

    /// The process is gone.
    pub fn die(&mut self, step: &mut Step, death: Death) {
        let Some(process) = self.process.take() else { return };
        self.dead = Some(process);
        self.fuse = None;
        self.muzzle = None;
        self.storage.close(death.power, step.rng);
        let how = if death.power { "loses power" } else { "dies" };
        step.out.push(Output::Line(format!("{} {how}", self.id)));
        step.out.push(Output::Died(death.down));
    }

    /// A datagram on the client port: what listener and handlers do with it.
    pub fn on_client_datagram(&mut self, step: &mut Step, from: SocketAddr, bytes: &[u8]) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        match Envelope::peek(bytes).map(|envelope| envelope.class) {
            Ok(Class::Handshake) => match process.door.visit(now, from, bytes) {
                Ok(Visit::Retry(bytes)) => {
                    step.out.push(Output::Datagram { from: client_port(self.id), to: from, bytes });
                }
                Ok(Visit::Knock { caller, key, packet }) => {
                    self.ask(step, Input::Knock { caller, key, packet });
                }
                Err(_) => {}
            },
            Ok(Class::Client) => {
                let Ok((opened, key)) = process.keyring.open(bytes) else { return };
                self.on_session(step, from, bytes.len(), opened, key);
            }
            _ => {}
        }
    }

    fn on_session(&mut self, step: &mut Step, from: SocketAddr, length: usize, opened: Opened, key: Key) {
        let Opened { envelope, header, packets } = opened;
        let (session, number, ack) = (envelope.session, envelope.number, header.ack);
        self.on_delivery(step, delivery::Input::Heard { session, from, number, ack, length, key });
        for packet in packets {
            let packet = match packet {
                Packet::Fragment(piece) => match self.put_together(step.now, session, piece) {
                    Some(whole) => whole,
                    None => continue,
                },
                whole => whole,
            };
            match packet {
                Packet::Padding(_) => {}
                Packet::ClientAck(ack) => self.on_delivery(step, delivery::Input::ClientAck(session, ack)),
                Packet::PathResponse(token) => {
                    step.out.push(Output::Met(Met::Moved));
                    self.on_delivery(step, delivery::Input::PathResponse { session, from, token });
                }
                packet => self.ask(step, Input::Client { session, packet }),
            }
        }
    }

    fn put_together(
        &mut self,
        now: Micros,
        session: SessionId,
        piece: recado::wire::packet::Fragment,
    ) -> Option<Packet> {
        let process = self.process.as_mut()?;
        let now = Moment(now - process.began);
        process.partial.entry(session).or_default().accept(now, piece).ok().flatten()
    }

    /// Passes what a client asks to the node, as the handlers do: a full queue drops it, and a numbered request
    /// is answered Busy.
    fn ask(&mut self, step: &mut Step, input: Input) {
        let Some((places, lasts)) = self.bounds.asked else { return self.on_input(step, input) };
        let Some(process) = &mut self.process else { return };
        if process.asked.len() < places {
            if process.asked.is_empty() {
                step.out.push(Output::Later(step.rng.range(lasts / 4, lasts), Alarm::Asked));
            }
            return process.asked.push_back(input);
        }
        step.out.push(Output::Met(Met::QueueFull));
        if let Input::Client { session, packet } = input
            && let Some(seq) = number(&packet)
        {
            let busy = Refused { code: Code::Busy, answers: Answers::Request(seq), retry_ms: BUSY_RETRY_MS };
            self.on_delivery(step, delivery::Input::Answer { session, packet: Packet::Error(busy) });
        }
    }

    /// The node hears what was asked so far.
    fn on_asked(&mut self, step: &mut Step) {
        let asked = self.process.as_mut().map(|process| std::mem::take(&mut process.asked));
        asked.into_iter().flatten().for_each(|input| self.on_input(step, input));
    }

    /// Something happened to the node.
    pub fn on_input(&mut self, step: &mut Step, input: Input) {
        let clock = self.clock(step.now);
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        process.node.handle(clock, input, &mut effects);
        process.node.flush(clock, &mut effects);
        let work = self.taken_on(step, effects);
        self.perform(step, work);
    }

    fn on_delivery(&mut self, step: &mut Step, input: delivery::Input) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        process.delivery.handle(now, input, &mut effects);
        self.perform(step, effects.into_iter().map(Work::Delivery).collect());
    }

    /// A deadline may have passed.
    pub fn on_wake(&mut self, step: &mut Step) {
        let now = self.clock(step.now).now;
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        if self.process.as_ref().is_some_and(|process| due(process.node.next_deadline())) {
            self.on_input(step, Input::Deadline);
        }
        if self.process.as_ref().is_some_and(|process| due(process.delivery.next_deadline())) {
            self.on_delivery(step, delivery::Input::Deadline);
        }
    }

    /// Another thread of the process reports.
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
            Alarm::Told => self.on_told(step),
            Alarm::Asked => self.on_asked(step),
            Alarm::Muzzled(life, death) => {
                if self.process.as_ref().is_some_and(|process| process.life == life) {
                    self.die(step, death);
                }
            }
            Alarm::SnapshotRead { to, op, offset, chunks } => {
                let piece = self.storage.read_snapshot(op, offset, chunks);
                self.on_input(step, Input::SnapshotRead { to, piece });
            }
        }
    }

    /// When [`Server::on_wake`] is wanted.
    pub fn next_deadline(&self) -> Option<Micros> {
        let process = self.process.as_ref()?;
        let deadlines = [process.node.next_deadline(), process.delivery.next_deadline()];
        deadlines.into_iter().flatten().min().map(|deadline| process.began.saturating_add(deadline.0))
    }

    /// The rest of the group is done, as the journal thread does it. What fsyncs that takes beside the one that
    /// has ended takes their time before anything is reported.
    fn on_synced(&mut self, step: &mut Step) {
        let Some(process) = &mut self.process else { return };
        let (before, charged) = (self.storage.syncs(), process.charged);
        let rest = process.writing.iter().skip(process.written).cloned().map(Work::Write).collect();
        self.perform(step, rest);
        if self.process.is_none() {
            return;
        }
        if let Some((Trigger::BeforeSync, death)) = self.fuse {
            return self.die(step, death);
        }
        match self.storage.sync() {
            Ok(()) => {}
            Err(full @ (JournalError::Full | JournalError::Poisoned)) => {
                // What is durable is not reported.
                self.unless_full(step, Met::MetaFull, Err(full));
                if let Some(process) = &mut self.process {
                    process.done.clear();
                }
            }
            Err(_) => {
                step.out.push(Output::Line(format!("{}: fsync fails", self.id)));
                step.out.push(Output::Met(Met::SyncFailed));
                return self.die(step, Death { power: true, down: 200_000 });
            }
        }
        match (self.storage.syncs() - before).saturating_sub(charged) {
            0 => self.on_written(step),
            more => {
                let lasts = self.fsyncs(step, more);
                step.out.push(Output::Later(lasts, Alarm::Written));
            }
        }
    }

    /// How long so many fsyncs take.
    fn fsyncs(&self, step: &mut Step, count: u64) -> Micros {
        let (low, high) = self.speed.sync;
        (0..count).map(|_| step.rng.range(low, high)).sum()
    }

    /// The group has ended: what it did is reported, and the next one begins.
    fn on_written(&mut self, step: &mut Step) {
        let Some(process) = &mut self.process else { return };
        let (mut done, mut snapshot) = (None, None);
        process.writing.clear();
        for job in std::mem::take(&mut process.done) {
            match job {
                Job::Task(ticket, task) => {
                    done = Some(ticket);
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
                Job::Snapshot(..) | Job::Mark => {}
            }
        }
        if let Some(op) = snapshot {
            self.on_input(step, Input::SnapshotDone(op));
        }
        if let Some(ticket) = done {
            self.on_input(step, Input::Journaled(ticket));
        }
        self.write_group(step);
        self.await_mark(step);
    }

    /// An idle journal thread looks again when meta is to be told.
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

    /// It has made this durable.
    pub fn holds(&mut self, written: impl IntoIterator<Item = (Op, View)>) {
        let held = if self.learns() { &mut self.learned } else { &mut self.held };
        held.extend(written);
    }

    /// It has made a snapshot at `op` durable.
    pub fn holds_upto(&mut self, op: Op) {
        let upto = if self.learns() { &mut self.learned_upto } else { &mut self.held_upto };
        *upto = op.max(*upto);
    }

    /// After a step: what a learner has copied counts once it votes. What it owed then, if it began to
    /// vote in this step.
    pub fn began_to_vote(&mut self) -> Option<Op> {
        if self.role().is_none_or(|role| role == RoleName::Learner) {
            return None;
        }
        self.count_what_was_learned();
        self.owes.take()
    }

    /// Its copy counts from the moment that its vote is durable, also if it dies in that very step.
    fn count_what_was_learned(&mut self) {
        self.held.append(&mut self.learned);
        self.held_upto = self.held_upto.max(self.learned_upto);
    }

    /// The op up to which it has repaired what was found rotten, once.
    pub fn repaired(&mut self) -> Option<Op> {
        let applied = self.process.as_ref()?.node.applied();
        self.rotten.take_if(|last| applied >= *last)
    }

    /// Keeps a copy of its directory as it is.
    pub fn keep_copy(&mut self) {
        self.copy = Some(DirectoryCopy {
            disk: self.storage.copy(),
            life: self.incarnation,
            knows: self.knows.clone(),
        });
    }

    /// The life that it would begin on the copy of its directory.
    pub fn life_of_copy(&self) -> Option<Incarnation> {
        self.copy.as_ref().filter(|_| self.stale.is_none()).map(|copy| Incarnation(copy.life.0 + 1))
    }

    /// Whether the others must notice that the copy runs. One that does not vote begins a life of its own, later
    /// than all before, and learns before it votes, as on an empty disk.
    pub fn must_be_noticed(&self) -> bool {
        let meta = self.copy.as_ref().and_then(|copy| inspect_disk(&copy.disk).ok()).map(|seen| seen.meta);
        matches!(meta, Some(MetaState::Good { voter: true, .. }))
    }

    /// The copy takes the place of its directory. It does not run.
    pub fn put_back(&mut self) {
        if let Some(copy) = &self.copy {
            self.storage.put_back(&copy.disk);
            self.knows = copy.knows.clone();
            (self.learned, self.learned_upto, self.rotten) = (BTreeSet::new(), Op::ZERO, None);
            (self.owes, self.stale) = (None, Some(Stale::PutBack));
        }
    }

    /// Before it starts. On a directory that was put back it does so once: then whoever looks after it has read
    /// what the others say of it, and it begins anew on an empty disk.
    pub fn replace_stale(&mut self) {
        match self.stale {
            Some(Stale::PutBack) => self.stale = Some(Stale::Unnoticed),
            Some(Stale::Unnoticed | Stale::Noticed) => self.wipe(),
            None => {}
        }
    }

    /// The disk and all that was on it is gone.
    pub fn wipe(&mut self) {
        self.storage.wipe();
        self.stale = None;
        self.knows.clear();
        (self.learned, self.learned_upto, self.rotten) = (BTreeSet::new(), Op::ZERO, None);
    }

    /// Whether the journal owes so much that peers are asked to say it again.
    pub fn journal_is_behind(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.queued.len() > self.bounds.journal)
    }

    /// Tells the delivery, as the replica thread does: in order, and without waiting. Applied notifications
    /// are left out while its queue is full, which is said before the next.
    fn tell(&mut self, step: &mut Step, input: delivery::Input, work: &mut VecDeque<Work>) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let Some((places, lasts)) = self.bounds.told else {
            let mut effects = Vec::new();
            process.delivery.handle(now, input, &mut effects);
            return work.extend(effects.into_iter().map(Work::Delivery));
        };
        let full = process.told.len() >= places || process.missed;
        if full && matches!(input, delivery::Input::Applied { .. }) {
            process.missed = true;
            return step.out.push(Output::Met(Met::Missed));
        }
        if process.told.is_empty() {
            step.out.push(Output::Later(step.rng.range(lasts / 4, lasts), Alarm::Told));
        }
        process.told.push_back(input);
    }

    /// The delivery takes what it was told so far.
    fn on_told(&mut self, step: &mut Step) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        for input in process.told.drain(..) {
            process.delivery.handle(now, input, &mut effects);
        }
        if std::mem::take(&mut process.missed) {
            process.delivery.handle(now, delivery::Input::Missed, &mut effects);
        }
        self.perform(step, effects.into_iter().map(Work::Delivery).collect());
    }

    /// What a role change says of the run.
    fn note_role(&mut self, step: &mut Step, change: &RoleChange) {
        let Some(process) = &mut self.process else { return };
        let mut met = |met| step.out.push(Output::Met(met));
        match (change.role, change.cause) {
            (RoleName::Candidate, Cause::Transfer) => process.transferred = true,
            (RoleName::Isolated, _) => {
                process.isolated = true;
                met(Met::Isolated);
            }
            (_, Cause::MajorityBack) => met(Met::MajorityBack),
            (_, Cause::PrimaryRestarted) => met(Met::PrimaryRestarted),
            (_, Cause::PortRefused) => met(Met::PortRefused),
            (RoleName::Backup, Cause::Voter) => met(Met::LearnerVotes),
            _ => {}
        }
        match change.role {
            RoleName::Primary => {
                if std::mem::take(&mut process.fetched) {
                    met(Met::StaleWinner);
                }
                if std::mem::take(&mut process.transferred) {
                    met(Met::HandedOver);
                }
            }
            RoleName::Backup => {
                process.fetched = false;
                if std::mem::take(&mut process.transferred) {
                    met(Met::HandOverFailed);
                }
            }
            RoleName::Learner | RoleName::Candidate | RoleName::Isolated => {}
        }
    }

    /// What a datagram of an election says of the run: this server received it.
    pub fn note_heard(&mut self, opened: &Opened, step: &mut Step) {
        let candidate = self.role() == Some(RoleName::Candidate);
        for packet in &opened.packets {
            let met = match packet {
                Packet::Fetch(_) => Met::Fetched,
                Packet::Reply(Reply::Refuse { .. }) if candidate => Met::PromiseRefused,
                Packet::Reply(Reply::Bully { .. }) if candidate => Met::Bullied,
                Packet::Entries(entries) if entries.fetch.is_some() && candidate => {
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

    /// Everything queued becomes one group, behind a mark if one is due. Its first appends are written now, all
    /// else when its first fsync ends: a promise, a vote or an installed snapshot is durable as soon as it is
    /// done.
    fn write_group(&mut self, step: &mut Step) {
        let owed = self.storage.needs_mark();
        let Some(process) = &mut self.process else { return };
        if process.full {
            // A hole in what is written would be a lie about all that follows.
            process.queued.retain(|job| !job.needs_room());
        }
        if !process.writing.is_empty() {
            return;
        }
        let due = step.now >= process.mark_at;
        if due {
            // With nothing to tell, the thread has looked again and again meanwhile.
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
        process.charged = u64::from(process.writing.iter().any(|job| !matches!(job, Job::Finish(_))));
        let appends =
            process.writing.iter().take_while(|job| matches!(job, Job::Task(_, Task::Append { .. })));
        let appends: VecDeque<Work> = appends.cloned().map(Work::Write).collect();
        process.written = appends.len();
        let charged = process.charged;
        let lasts = self.fsyncs(step, charged);
        step.out.push(Output::Later(lasts, Alarm::Synced));
        self.perform(step, appends);
    }

    /// What the node wants done. It has taken on its log what it wants journaled, performed or not.
    fn taken_on(&mut self, step: &mut Step, effects: Vec<Effect>) -> VecDeque<Work> {
        let role = self.role();
        if let Some(process) = &mut self.process {
            for effect in &effects {
                let Effect::Journal { task, .. } = effect else { continue };
                if process.remember(task) {
                    step.out.push(Output::Met(Met::Superseded));
                }
                if let Task::Install { .. } = task {
                    step.out.push(Output::Met(match role {
                        Some(RoleName::Candidate) => Met::InstalledInElection,
                        Some(RoleName::Learner) => Met::LearnerInstalled,
                        _ => Met::Installed,
                    }));
                }
            }
        }
        effects.into_iter().map(Work::Node).collect()
    }

    fn perform(&mut self, step: &mut Step, mut work: VecDeque<Work>) {
        while let Some(next) = work.pop_front() {
            if self.strikes(&next)
                && let Some((_, death)) = self.fuse
            {
                return self.die(step, death);
            }
            if let Some(death) = self.commits_muzzled(step.now) {
                return self.die(step, death);
            }
            match next {
                Work::Node(effect) => self.perform_node(step, effect, &mut work),
                Work::Delivery(effect) => self.perform_delivery(step, effect, &mut work),
                Work::Write(job)
                    if job.needs_room() && self.process.as_ref().is_some_and(|process| process.full) => {}
                Work::Write(job) => {
                    let place = match job {
                        Job::Task(_, Task::Promise(_) | Task::Vote(_)) | Job::Mark => Met::MetaFull,
                        _ => Met::DiskFull,
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
                    step.out.push(Output::Met(Met::FullHandedOver));
                }
                // An orderly end. One that cannot be written is no worse than a crash.
                let _ = self.storage.sync().and_then(|()| self.storage.mark());
                return self.die(step, Death { power: false, down: 300_000 });
            }
        }
        self.write_group(step);
    }

    fn write(&mut self, step: &mut Step, job: Job) -> Result<(), JournalError> {
        match job {
            Job::Task(_, task) => self.storage.write(&task),
            Job::Snapshot(op, view, bytes) => {
                self.storage.begin_snapshot(op)?;
                if let Some(process) = &mut self.process {
                    process.snapshot = Some((op, view, bytes));
                }
                // It is encoded, and synced with its name.
                let lasts = step.rng.range(1_000, 30_000) + self.fsyncs(step, 2);
                step.out.push(Output::Later(lasts, Alarm::SnapshotWritten));
                Ok(())
            }
            Job::Finish(_) => self.storage.finish_snapshot(),
            Job::Mark => self.storage.mark(),
        }
    }

    fn perform_node(&mut self, step: &mut Step, effect: Effect, work: &mut VecDeque<Work>) {
        if self.muffles(step, &effect) {
            return;
        }
        let me = self.id;
        let Some(process) = &mut self.process else { return };
        match effect {
            Effect::Peer { to, bytes } => {
                step.out.push(Output::Datagram { from: peer_port(me), to: peer_port(to), bytes });
            }
            Effect::Journal { ticket, task } => {
                process.queued.push_back(Job::Task(ticket, task));
            }
            Effect::Snapshot(image) => match codec::encode_snapshot(&*image) {
                Ok(bytes) => process.queued.push_back(Job::Snapshot(image.op, image.view, bytes)),
                Err(error) => step.out.push(Output::Broken(format!("{me} cannot encode its state: {error}"))),
            },
            Effect::ReadSnapshot { to, op, offset, chunks } => {
                let read = Alarm::SnapshotRead { to, op, offset, chunks };
                step.out.push(Output::Later(step.rng.range(50, 3_000), read));
            }
            Effect::Delivery(input) => {
                step.out.extend(met_in(&input).map(Output::Met));
                self.tell(step, input, work);
            }
            Effect::Role(change) => {
                if change.role != RoleName::Learner {
                    self.count_what_was_learned();
                }
                self.note_role(step, &change);
                step.out.push(Output::Line(format!(
                    "{me} {:?} in view {} ({:?})",
                    change.role, change.view, change.cause
                )));
            }
            Effect::EarlierLife { server, incarnation, latest } => {
                let (earlier, latest) = (incarnation.0, latest.0);
                step.out.push(Output::EarlierLife(server));
                step.out.push(Output::Line(format!("{me} hears {server} in life {earlier}, after {latest}")));
            }
            Effect::ClockAway(ms) => {
                let line = format!("{me} finds its clock {} h away", ms / 3_600_000);
                step.out.push(Output::Line(line));
                step.out.push(Output::Met(Met::ClockAway));
            }
            Effect::Waiting(whom) => {
                step.out.push(Output::Line(format!("{me} waits for {whom:?}")));
                step.out.push(Output::Met(Met::Waited));
            }
            Effect::Overwritten { view, first, last } => {
                step.out
                    .push(Output::Line(format!("{me} gives up {first} to {last} for the primary of {view}")));
            }
            Effect::Contradicted(found) => {
                step.out.push(Output::Broken(format!("{me} has what a leader lacks: {found:?}")));
            }
            Effect::SessionKnown { session, device, nonce } => {
                process.known.insert(session);
                process.keyring.learn(session, device.key, nonce);
                step.out.push(Output::Session(tap::Session { id: session, device: device.key, nonce }));
            }
            Effect::SessionGone(session) => {
                process.known.remove(&session);
                process.keyring.forget(session);
            }
            Effect::Administered { change: AdminChange::Release { .. }, .. } => {
                step.out.push(Output::Met(Met::Released));
            }
            Effect::Refused(_) | Effect::Administered { .. } | Effect::BeyondEnd { .. } => {}
            Effect::Stopped => process.stopped = true,
        }
    }

    fn perform_delivery(&mut self, step: &mut Step, effect: delivery::Effect, work: &mut VecDeque<Work>) {
        let clock = self.clock(step.now);
        let input = match effect {
            delivery::Effect::Datagram { to, bytes } => {
                return step.out.push(Output::Datagram { from: client_port(self.id), to, bytes });
            }
            delivery::Effect::WantPage { session, after, limit } => Input::WantPage { session, after, limit },
            delivery::Effect::Path { session, address } => Input::Path { session, address },
            delivery::Effect::Cursor { session, upto } => Input::Cursor(session, upto),
            delivery::Effect::Refused(_) => return,
        };
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        process.node.handle(clock, input, &mut effects);
        process.node.flush(clock, &mut effects);
        let work_of_node = self.taken_on(step, effects);
        work.extend(work_of_node);
    }

    /// The view of its own that a muzzled server has prepared or opened, and what is to become of it.
    fn muzzled(&mut self, now: Micros) -> Option<(&Node, View, &mut Muzzle)> {
        let (process, muzzle) = (self.process.as_ref()?, self.muzzle.as_mut()?);
        let view = process.node.promised();
        let own = view.primary() == Some(self.id) && view > muzzle.above;
        let over = !muzzle.lit && now > muzzle.back + Muzzle::PATIENCE;
        (own && !over).then_some((&process.node, view, muzzle))
    }

    /// How a muzzled server dies that has committed something.
    fn commits_muzzled(&mut self, now: Micros) -> Option<Death> {
        let (node, _, muzzle) = self.muzzled(now)?;
        let before = *muzzle.commit.get_or_insert(node.commit());
        (node.commit() > before).then_some(muzzle.second)
    }

    /// Whether a muzzle keeps this effect from the others.
    fn muffles(&mut self, step: &mut Step, effect: &Effect) -> bool {
        let Effect::Peer { to, bytes } = effect else { return false };
        let now = step.now;
        let Some((_, view, muzzle)) = self.muzzled(now) else { return false };
        let early = now < muzzle.back;
        let Some(opened) = self.tap.open(bytes, *to) else { return false };
        if !opened.packets.iter().any(|packet| if early { is_cast(packet) } else { casts_of(packet, view) }) {
            return false;
        }
        let Some(muzzle) = &mut self.muzzle else { return false };
        if !muzzle.lit {
            muzzle.lit = true;
            let (last, death) = if early { (25_000, muzzle.first) } else { (60_000, muzzle.second) };
            let life = self.lives;
            step.out.push(Output::Later(last, Alarm::Muzzled(life, death)));
        }
        true
    }

    /// Whether the armed death strikes before `next` is performed; counts down.
    fn strikes(&mut self, next: &Work) -> bool {
        let Some((trigger, death)) = self.fuse else { return false };
        let role = self.role();
        let mut sends = |wanted: fn(&Packet) -> bool| match next {
            Work::Node(Effect::Peer { to, bytes }) => {
                self.tap.open(bytes, *to).is_some_and(|opened| opened.packets.iter().any(wanted))
            }
            _ => false,
        };
        let left = match trigger {
            Trigger::Effects(left) => left.checked_sub(1).map(Trigger::Effects),
            Trigger::BeforeSync => return false,
            Trigger::PromiseSent => {
                // The promise itself still leaves: the next effect is the one that never happens.
                if sends(|packet| matches!(packet, Packet::Reply(Reply::Promise(_)))) {
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
                self.fuse = Some((trigger, death));
                false
            }
        }
    }

    fn clock(&self, now: Micros) -> Clock {
        let began = self.process.as_ref().map_or(now, |process| process.began);
        Clock { now: Moment(now - began), unix_ms: self.unix_ms(now) }
    }

    /// Its wall clock.
    pub fn unix_ms(&self, now: Micros) -> u64 {
        (EPOCH_MS + now / 1000).saturating_add_signed(self.skew_ms)
    }
}

/// Whether a packet between servers carries entries.
fn is_cast(packet: &Packet) -> bool {
    matches!(packet, Packet::Entries(_) | Packet::Fragment(_))
}

/// Whether a packet between servers carries a whole entry of this view.
fn casts_of(packet: &Packet, view: View) -> bool {
    matches!(packet, Packet::Entries(cast) if cast.entries.iter().any(|entry| entry.view == view))
}

impl Process {
    /// Keeps the mirror of the log that the invariants compare. Whether something was replaced.
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

/// The number of a numbered request.
fn number(packet: &Packet) -> Option<Seq> {
    match packet {
        Packet::Follow(follow) => Some(follow.seq),
        Packet::Send(send) => Some(send.seq),
        Packet::Channel(channel) => Some(channel.seq),
        Packet::Keys(keys) => Some(keys.seq),
        _ => None,
    }
}

/// What the delivery is told, as far as it says something of the run.
fn met_in(input: &delivery::Input) -> Option<Met> {
    match input {
        delivery::Input::Withdrawn(_) => Some(Met::Withdrawn),
        delivery::Input::Answer { packet: Packet::Error(refused), .. } => match refused.code {
            Code::Busy => Some(Met::Busy),
            Code::NoQuorum => Some(Met::NoQuorum),
            _ => None,
        },
        _ => None,
    }
}
