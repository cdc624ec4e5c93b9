//! Interleaving tests of a server's threads, in orders that `shuttle` draws: here of the journal and snapshot
//! threads and the thread that gives them work, in `whole` of all threads.

mod whole;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

use recado_log::bully::{self, Task};
use recado_log::journal::{DiskFile, Meta, SNAPSHOT_PIECE, SnapshotPiece};
use recado_proto::codec;
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{ClusterId, Epoch, Op, SessionId, View};
use recado_proto::members::{self, Members};
use recado_proto::packet::{Home, OptionalFields, Resume, ToServer};
use recado_service::{Service, State};
use recado_sys::sync::Mistake;
use recado_sys::sync::channel::bounded;
use recado_sys::sync::model::{TimeOuts, below, explore, now_us, seeds_to_find, step};
use recado_sys::sync::thread::park_timeout;

use super::*;
use crate::config::Cluster;
use crate::fair::Network;
use crate::server::engine::Effect;
use crate::server::handshake::tests::handshake_config;
use crate::server::node::Image;
use crate::server::places::PER_TURN;
use crate::server::replica_thread::Turns;
use crate::server::snapshot_thread::SnapshotWork;

/// A disk in memory, on which every operation that takes time lets other threads go on.
#[derive(Clone, Debug, Default)]
struct SlowDisk(Arc<std::sync::Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
struct Inner {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The bytes that programs see, and those that were synced.
    files: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that it has room for, all files together; `None` for no bound.
    room: Option<usize>,
    /// Number of file syncs until all fail; `None` if they do not fail.
    failing: Option<usize>,
    /// Maximum duration of a file sync in ms; zero takes no time, but other threads may go on.
    sync_ms: u64,
    /// The virtual time at which a sync failed.
    failed: Option<u64>,
}

impl Inner {
    fn used(&self) -> usize {
        self.names.values().map(|at| self.files[*at].0.len()).sum()
    }
}

impl SlowDisk {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The worst that a power cut at this moment would leave, on a disk of its own.
    fn after_a_power_cut(&self) -> SlowDisk {
        let mut inner = self.with(|inner| inner.clone());
        inner.names = inner.durable_names.clone();
        inner.files.iter_mut().for_each(|(seen, durable)| seen.clone_from(durable));
        (inner.room, inner.failing, inner.sync_ms) = (None, None, 0);
        SlowDisk(Arc::new(std::sync::Mutex::new(inner)))
    }
}

#[derive(Debug)]
struct SlowFile {
    disk: SlowDisk,
    at: usize,
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SlowDisk {
    type File = SlowFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|inner| inner.names.keys().cloned().collect()))
    }

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        let at = self.with(|inner| inner.names.get(name).copied()).ok_or_else(missing)?;
        Ok(SlowFile { disk: self.clone(), at })
    }

    fn create(&self, name: &str) -> io::Result<SlowFile> {
        let at = self.with(|inner| {
            inner.files.push((Vec::new(), Vec::new()));
            inner.names.insert(name.to_owned(), inner.files.len() - 1);
            inner.files.len() - 1
        });
        Ok(SlowFile { disk: self.clone(), at })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|inner| {
            let at = inner.names.remove(from).ok_or_else(missing)?;
            inner.names.insert(to.to_owned(), at);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|inner| inner.names.remove(name)).map(drop).ok_or_else(missing)
    }

    fn sync(&self) -> io::Result<()> {
        step();
        self.with(|inner| inner.durable_names = inner.names.clone());
        step();
        Ok(())
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.with(|inner| inner.files[self.at].0.len()) as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.with(|inner| {
            let from = offset as usize;
            let bytes = inner.files[self.at].0.get(from..from + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.with(|inner| {
            let (from, seen) = (offset as usize, &mut inner.files[self.at].0);
            seen.resize(seen.len().max(from + bytes.len()), 0);
            seen[from..from + bytes.len()].copy_from_slice(bytes);
        });
        step();
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.disk.with(|inner| {
            let used = inner.used();
            let grows = (len as usize).saturating_sub(inner.files[self.at].0.len());
            if inner.room.is_some_and(|room| used + grows > room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let seen = &mut inner.files[self.at].0;
            seen.resize(seen.len().max(len as usize), 0);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.disk.with(|inner| inner.sync_ms) {
            0 => step(),
            most => park_timeout(Duration::from_millis(below(most))),
        }
        let synced = self.disk.with(|inner| {
            match &mut inner.failing {
                Some(0) => {
                    inner.failed = now_us();
                    return Err(io::ErrorKind::Other.into());
                }
                Some(left) => *left -= 1,
                None => {}
            }
            let (seen, durable) = &mut inner.files[self.at];
            durable.clone_from(seen);
            Ok(())
        });
        step();
        synced
    }
}

fn meta(Expected { cluster, node, members }: Expected) -> Meta {
    Meta::new(cluster, node, members)
}

fn expected() -> Expected {
    Expected { cluster: ClusterId(7), node: NodeId(1), members: vec![NodeId(1)] }
}

/// Initialises and opens the journal of a server of one.
fn journal(disk: &SlowDisk) -> (Journal<SlowDisk>, Recovered) {
    Journal::init(disk, &meta(expected())).unwrap();
    Journal::open(disk.clone(), &expected(), Options { step: STEP, ..Options::default() }).unwrap()
}

/// Size in bytes of the steps in which logs grow.
const STEP: u64 = 64 << 10;
const VIEW: View = View(1 << 16 | 1);
/// Number of ops given to the journal thread, one per task; a promise follows.
const OPS: u64 = 6;

fn append(op: u64, bytes: usize) -> Work {
    let entry =
        Entry { op: Op(op), view: VIEW, kind: EntryKind::Command, payload: vec![op as u8; bytes].into() };
    Work::Task { number: op, task: Task::Append { entries: vec![entry], commit: Op(op - 1) } }
}

fn image(op: u64) -> Work {
    let members = Members { list: Vec::new(), tie_holder: NodeId(1), epoch: Epoch::FIRST };
    let (format, cluster, members_op, state) = (Image::FORMAT, ClusterId(7), Op::ZERO, State::default());
    Work::Snapshot(Box::new(Image { format, cluster, members_op, members, op: Op(op), view: VIEW, state }))
}

/// The end of the log, and the promise, after a power cut at this moment.
fn durable(disk: &SlowDisk) -> (u64, View) {
    let disk = disk.after_a_power_cut();
    let (_, recovered) =
        Journal::open(disk, &expected(), Options { step: STEP, ..Options::default() }).unwrap();
    let snapshot = recovered.snapshot.map_or(0, |snapshot| snapshot.op.0);
    (recovered.entries.last().map_or(snapshot, |entry| entry.op.0), recovered.meta.promised)
}

/// Outcome of a scenario of the journal thread.
struct Ran {
    reported: Vec<u64>,
    snapshots: Vec<u64>,
    /// The snapshot of a peer that was opened.
    opened: Option<Box<Service>>,
    stopped: bool,
    ended: Result<(), JournalError>,
    disk: SlowDisk,
}

/// Runs the journal and snapshot threads, and a replica thread that gives them `works` as the real one
/// does: it queues what does not fit, and takes their reports. Each report is checked against the disk,
/// which has `spare` bytes beside those in use once the threads run.
fn run_journal(spare: Option<usize>, works: Vec<Work>) -> Ran {
    let disk = SlowDisk::default();
    let (journal, _) = journal(&disk);
    disk.with(|inner| inner.room = spare.map(|spare| spare + inner.used()));
    let (signal, replica) = (Signal::default(), Signal::default());
    let (work, work_out) = signal.bounded(1);
    let (news, news_out) = replica.bounded(1);
    let (snapshot_work, works_of_snapshots) = bounded(SNAPSHOT_WORK);
    let (finished, finished_out) = signal.bounded(1);
    let (ended, ended_out) = bounded(1);
    let clock = MachineClock::start();
    let snapshots = SnapshotThread { works: works_of_snapshots, finished, config: config(), clock };
    let snapshots = spawn_named("snapshot", move || snapshots.run()).unwrap();
    let thread = JournalThread {
        journal,
        signal,
        work: work_out,
        news,
        snapshot_work,
        finished: finished_out,
        full: None,
        counters: Arc::default(),
        clock,
        unread: LogThrottle::default(),
        marked: Moment(0),
    };
    let thread = spawn_named("journal", move || ended.send(thread.run()).unwrap()).unwrap();

    let (reported, snapshots_done, opened) = Default::default();
    let mut ran = Ran { reported, snapshots: snapshots_done, opened, stopped: false, ended: Ok(()), disk };
    let mut held = OverflowQueue::new(work);
    for work in works {
        // What is installed was opened before.
        let installs = matches!(work, Work::Task { task: Task::Install { .. }, .. });
        while installs && ran.opened.is_none() && !held.is_gone() && !ran.stopped {
            replica.wait(Duration::from_millis(2), || !news_out.is_empty());
            news_out.try_iter().for_each(|news| ran.hear(news));
            held.flush();
        }
        if !held.is_gone() && !ran.stopped {
            held.push(work);
        }
        news_out.try_iter().for_each(|news| ran.hear(news));
        held.flush();
    }
    while !held.is_clear() && !held.is_gone() {
        replica.wait(Duration::from_millis(2), || !news_out.is_empty());
        news_out.try_iter().for_each(|news| ran.hear(news));
        held.flush();
    }
    held.finish();
    news_out.iter().for_each(|news| ran.hear(news));
    ran.ended = ended_out.recv().unwrap();
    snapshots.join();
    thread.join();
    ran
}

impl Ran {
    fn hear(&mut self, news: Input) {
        match news {
            Input::Log(bully::Input::Journaled(number)) => {
                let (op, promised) = durable(&self.disk);
                assert!(op >= number.min(OPS), "{number} is reported, and {op} is durable");
                assert!(
                    number <= OPS || promised > VIEW,
                    "the promise is reported, and {promised} is durable"
                );
                assert!(
                    self.reported.last().is_none_or(|last| *last < number),
                    "{number} after {:?}",
                    self.reported
                );
                self.reported.push(number);
            }
            Input::SnapshotDone(op) => self.snapshots.push(op.0),
            Input::Log(
                bully::Input::SnapshotRead { .. }
                | bully::Input::SnapshotStored { .. }
                | bully::Input::SnapshotOpening(_),
            ) => {}
            Input::SnapshotOpened { transfer: TRANSFER, opened } => {
                assert!(self.opened.is_none(), "it is opened once");
                self.opened = Some(opened.unwrap());
            }
            Input::Stop => self.stopped = true,
            other => panic!("{other:?}"),
        }
    }
}

/// Appends, with a snapshot and a peer's reads of it between them, then a promise.
fn group_commit() {
    let mut works: Vec<Work> = (1..=OPS).map(|op| append(op, 100)).collect();
    works.insert(2, image(2));
    let read = || Work::Read { to: NodeId(2), op: Op(2), offset: 0, blocks: 1 };
    works.splice(4..4, [read(), read()]);
    works.push(Work::Task { number: OPS + 1, task: Task::Promise(View(2 << 16 | 1)) });
    let ran = run_journal(None, works);
    ran.ended.unwrap();
    assert_eq!(ran.reported.last(), Some(&(OPS + 1)), "all is reported in the end");
    assert!(!ran.stopped && ran.snapshots.iter().all(|op| *op == 2), "{:?}", ran.snapshots);
    assert_eq!(durable(&ran.disk), (OPS, View(2 << 16 | 1)));
}

#[test]
fn no_result_is_reported_before_its_sync_and_every_result_is_reported_in_the_end() {
    explore(TimeOuts::Any, 150, group_commit);
    found(Mistake::ToldBeforeSync, group_commit);
}

#[test]
fn the_journal_and_the_replica_thread_never_wait_for_each_other() {
    // A missing wake-up that only a time-out would make up for is a deadlock here.
    explore(TimeOuts::Never, 150, group_commit);
    found(Mistake::WaitsForTheJournal, group_commit);
}

/// Checks that a planted bug is found, and prints by which seed.
fn found(mistake: Mistake, scenario: fn()) {
    let seed = seeds_to_find(mistake, TimeOuts::Any, 300, scenario);
    eprintln!("{mistake:?} is found by seed {seed:?}");
    assert!(seed.is_some(), "{mistake:?}");
}

/// The journal thread ends while a snapshot of several pieces is written to a disk that syncs slowly.
fn ends_amid_a_snapshot() {
    let disk = SlowDisk::default();
    let (mut journal, _) = journal(&disk);
    disk.with(|inner| inner.sync_ms = SYNC_MS);
    let addr = ([127, 0, 0, 1], 1).into();
    let member = members::Member { id: NodeId(1), client: addr, peer: addr, joined: Incarnation(0), role: 0 };
    let list = vec![member; 16 * SNAPSHOT_PIECE / codec::encoded_len(&member)];
    let Work::Snapshot(mut image) = image(1) else { unreachable!() };
    image.members.list = list;
    let job = journal.begin_snapshot(Op(1)).unwrap();
    let ((work, works), (finished, finished_out)) = (bounded(SNAPSHOT_WORK), Signal::default().bounded(1));
    let clock = MachineClock::start();
    let snapshots = SnapshotThread { works, finished, config: config(), clock };
    let thread = spawn_named("snapshot", move || snapshots.run()).unwrap();
    work.send(SnapshotWork::Write { job, image }).unwrap();
    park_timeout(Duration::from_millis(below(8 * SYNC_MS)));
    drop((journal, work, finished_out));
    let ended = clock.now();
    thread.join();
    let late = clock.now().since(ended);
    assert!(late <= Duration::from_millis(SYNC_MS + 10), "it goes on for {late:?}");
    let names = disk.list().unwrap();
    assert!(!names.iter().any(|name| name.starts_with("tmp.")), "{names:?}");
}

/// The longest sync of a file amid a snapshot, in ms.
const SYNC_MS: u64 = 100;

#[test]
fn a_server_that_ends_does_not_wait_for_the_rests_of_a_snapshot() {
    explore(TimeOuts::Last, 40, ends_amid_a_snapshot);
    let mistake = Mistake::RestsAtTheEnd;
    let seed = seeds_to_find(mistake, TimeOuts::Last, 40, ends_amid_a_snapshot);
    assert!(seed.is_some(), "{mistake:?}");
}

/// Appends more than the disk has room for.
fn full_disk() {
    let ran = run_journal(Some(16 << 10), (1..=OPS).map(|op| append(op, 20 << 10)).collect());
    assert!(ran.stopped, "the node is told to stop: {:?}", ran.reported);
    assert!(matches!(ran.ended, Err(JournalError::Full)), "{:?}", ran.ended);
    assert!(ran.reported.last().is_none_or(|last| *last < OPS), "{:?}", ran.reported);
}

#[test]
fn a_full_disk_reports_no_result_behind_a_write_that_was_left_out() {
    explore(TimeOuts::Any, 150, full_disk);
    found(Mistake::ToldOfAHole, full_disk);
}

/// The number of the only transfer of a snapshot.
const TRANSFER: u64 = 3;

fn config() -> Config {
    let addr = ([127, 0, 0, 1], 1).into();
    let member = Member { id: NodeId(1), client: addr, peer: addr };
    Config::default_for(Cluster { id: ClusterId(7), me: NodeId(1), members: vec![member] })
}

/// The snapshot at this op of a server with that configuration, in pieces of 20 bytes, and its installation.
fn received(op: u64, number: u64) -> Vec<Work> {
    let (client, peer) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let member = members::Member { id: NodeId(1), client, peer, joined: Incarnation(0), role: 0 };
    let mut service = Service::new(State::default(), config().limits, config().planted);
    (1..=op).for_each(|op| service.apply(Op(op), None, &mut Vec::new()));
    let Work::Snapshot(mut image) = image(op) else { unreachable!() };
    image.members.list = vec![member];
    image.state = service.state();
    let bytes = codec::encode(&*image);
    let (op, view, total, crc) = (Op(op), VIEW, bytes.len() as u64, crc32c::crc32c(&bytes));
    let pieces = bytes.chunks(20).enumerate().map(|(n, bytes)| {
        let (offset, bytes) = (20 * n as u64, bytes.to_vec());
        let piece = SnapshotPiece { op, view, total, crc, offset, bytes };
        Work::Receive { transfer: TRANSFER, piece }
    });
    let install = Task::Install { transfer: TRANSFER, op, replaced: Default::default() };
    pieces.chain([Work::Task { number, task: install }]).collect()
}

/// Receives a peer's snapshot while one is written, installs it, and appends.
fn installed() {
    let mut works = vec![append(1, 100), image(1)];
    works.extend(received(5, 5));
    works.push(append(6, 100));
    let ran = run_journal(None, works);
    ran.ended.unwrap();
    assert!(ran.opened.is_some_and(|service| service.applied() == Op(5)));
    assert_eq!(ran.reported.last(), Some(&6), "all is reported in the end");
    assert_eq!(durable(&ran.disk), (6, View::ZERO));
    let names = ran.disk.list().unwrap();
    assert!(!names.iter().any(|name| name.starts_with("tmp.")), "{names:?}");
}

#[test]
fn a_peers_snapshot_is_durable_before_its_installation_is_reported_whatever_is_written_meanwhile() {
    explore(TimeOuts::Any, 150, installed);
    explore(TimeOuts::Never, 50, installed);
}

/// Installs a peer's snapshot for which there is room, while there is none for the segment after it; then
/// appends.
fn half_installed() {
    let mut works = vec![append(1, 100)];
    works.extend(received(9, 2));
    works.push(append(10, 100));
    let ran = run_journal(Some(16 << 10), works);
    assert!(ran.stopped, "the node is told to stop: {:?}", ran.reported);
    assert!(matches!(ran.ended, Err(JournalError::Full)), "{:?}", ran.ended);
    assert!(ran.reported.last().is_none_or(|last| *last < 2), "{:?}", ran.reported);
}

#[test]
fn a_disk_found_full_in_the_middle_of_an_install_ends_the_server_in_order_all_the_same() {
    explore(TimeOuts::Any, 150, half_installed);
}

/// The replica thread of a server of one, without its ports.
fn replica_of_one(
    recovered: Recovered,
    channels: &Channels,
    shared: &Shared,
) -> (ReplicaThread, Vec<Effect>) {
    let handshake_config = handshake_config(1, 1);
    let boot_id = BootIdentity { id: handshake_config.boot_id, keys: handshake_config.keys, seed: 1 };
    let mut effects = Vec::new();
    let service = Service::new(State::default(), config().limits, config().planted);
    let clock = shared.clock.read();
    let node = engine::start(config(), recovered, service, boot_id, clock, &mut effects).unwrap();
    let thread = ReplicaThread {
        node,
        inputs: channels.inputs(),
        port: PeerPort::new(
            BoundSocket::bind(([127, 0, 0, 1], 0).into(), LISTEN_PATIENCE).unwrap(),
            config().cluster,
            Arc::clone(&shared.counters),
        ),
        peers: BTreeMap::new(),
        journal: OverflowQueue::new(channels.work.0.clone()),
        delivery: DeliverySender::new(channels.handlers.iter().map(|handler| handler.told.0.clone())),
        counters: Arc::clone(&shared.counters),
        clock: shared.clock,
        stopped: bounded(1).0,
    };
    (thread, effects)
}

/// The replica thread ends while it has queued work, and the journal thread has something to report to it.
fn ends_with_work_held_back() {
    let recovered = journal(&SlowDisk::default()).1;
    let channels = Channels::new(&Capacities { work: 1, internal: 1, ..Capacities::default() }).unwrap();
    let shared = Shared::new();
    let (mut replica, _) = replica_of_one(recovered, &channels, &shared);
    let (news, work) = (channels.internal.0.clone(), channels.work.1.clone());
    let signal = channels.journal.clone();
    drop(channels);
    let tells_twice = spawn_named("journal", move || {
        let mut taken = 0;
        loop {
            match work.try_recv() {
                Ok(_) => taken += 1,
                Err(TryRecvError::Empty) => {
                    signal.wait(Duration::from_secs(3_600), || false);
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
            }
            // The send fails once the replica thread has ended.
            (0..2).for_each(|_| drop(news.send(Input::Log(bully::Input::Journaled(taken)))));
        }
        assert_eq!(taken, 3, "what was held back is lost");
    });
    // The journal thread may wait by then, or not.
    (0..below(16)).for_each(|_| step());
    (1..=3).for_each(|op| replica.journal.push(append(op, 1)));
    replica.end();
    tells_twice.unwrap().join();
}

#[test]
fn what_the_replica_thread_holds_back_at_its_end_is_not_lost() {
    explore(TimeOuts::Never, 50, ends_with_work_held_back);
    explore(TimeOuts::Last, 50, ends_with_work_held_back);
    found(Mistake::EndsDeaf, ends_with_work_held_back);
    let mistake = Mistake::QueuesSilently;
    let seed = seeds_to_find(mistake, TimeOuts::Never, 50, ends_with_work_held_back);
    assert!(seed.is_some(), "{mistake:?}");
}

#[test]
fn while_the_journal_is_behind_no_request_is_taken_and_all_are_afterwards() {
    let recovered = journal(&SlowDisk::default()).1;
    let (channels, shared) =
        (Channels::new(&Capacities { work: 1, ..Capacities::default() }).unwrap(), Shared::new());
    let (mut replica, _) = replica_of_one(recovered, &channels, &shared);
    let mut turns = Turns::default();
    let request = || Input::Client {
        session: SessionId(Op(9)),
        packet: ToServer::Resume(Resume {
            cursor: None,
            credit: 1,
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        }),
    };
    replica.journal.push(append(1, 1));
    replica.journal.push(append(2, 1));
    assert!(channels.requests.0.try_queue(Network::of([10, 0, 0, 1].into()), request()));
    replica.feed(&mut turns);
    assert_eq!(channels.requests.1.len(), 1, "it waits");
    assert!(channels.work.1.try_recv().is_ok());
    replica.journal.flush();
    replica.feed(&mut turns);
    assert_eq!(channels.requests.1.len(), 0, "it is taken");
}

#[test]
fn however_many_pages_are_wanted_a_turn_ends_soon_and_none_goes_to_a_delivery_that_is_behind() {
    let recovered = journal(&SlowDisk::default()).1;
    let (channels, shared) = (
        Channels::new(&Capacities { told: 1, handlers: 1, ..Capacities::default() }).unwrap(),
        Shared::new(),
    );
    let (mut replica, _) = replica_of_one(recovered, &channels, &shared);
    let mut turns = Turns::default();
    for session in 1..=1_000 {
        let want = Input::WantPage { session: SessionId(Op(session)), after: Op(0), limit: 256 };
        channels.from_delivery.0.send(want).unwrap();
    }
    let (mut before, mut turns_taken) = (1_000, 0);
    while before > 0 {
        replica.feed(&mut turns);
        let left = channels.from_delivery.1.len();
        assert!(left < before && before - left <= PER_TURN, "{before} to {left} in one turn");
        (before, turns_taken) = (left, turns_taken + 1);
    }
    assert!(turns_taken >= 1_000 / PER_TURN);
    channels.from_delivery.0.send(Input::Cursor(SessionId(Op(1)), Op(1))).unwrap();
    replica.delivery.push(Told::Delivery(crate::delivery::Input::Deadline));
    replica.delivery.push(Told::Delivery(crate::delivery::Input::Deadline));
    replica.feed(&mut turns);
    assert_eq!(channels.from_delivery.1.len(), 1, "it waits");
    assert!(channels.handlers[0].told.1.try_recv().is_ok());
    replica.delivery.flush();
    replica.feed(&mut turns);
    assert_eq!(channels.from_delivery.1.len(), 0, "it is taken");
}
