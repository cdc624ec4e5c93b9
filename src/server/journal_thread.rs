//! Journal thread: owns the journal, writes the log and waits for its syncs.
//!
//! It writes everything queued, makes it durable with one sync, and reports it with one message; the next
//! batch gathers meanwhile (group commit without a timer). The [snapshot thread](super::snapshot_thread)
//! writes snapshots; this thread only begins and finishes them. It appends what a peer sends of a snapshot to
//! a file, and the snapshot thread decodes that when it is whole.
//!
//! Any error of the journal in the data it keeps ends the server: a retried fsync may report success for
//! data that is lost, and a server that cannot keep its promises must not make any. A full disk damages
//! nothing, so there the server ends in order, wherever the disk was found full: nothing more is written or
//! reported, the node is told to stop, a primary hands over to a server that has room (reads go on
//! meanwhile), and the error says what to do. Not even promises are made then: a report covers all that was
//! asked before it, and some of that was not written. A stored snapshot that cannot be read for a peer ends
//! nothing: the peer gets no piece of it, and the log says so.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, TryRecvError};
use recado_sys::sync::signal::{Sender, Signal};

use recado_log::bully::{self, Task};
use recado_log::journal::{
    Disk, Journal, JournalError, Receipt, ReceivedSnapshot, Removal, SnapshotPiece, SnapshotWritten,
};
use recado_proto::entry::Entry;
use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{SnapshotChunk, SnapshotGet};
use recado_service::Service;
use recado_sys::clock::MachineClock;
use recado_sys::sync::{Mistake, channel, planted};

use super::counters::Counters;
use super::engine::Input;
use super::log_throttle::LogThrottle;
use super::node::Image;
use super::snapshot_thread::{Finished, OpenedSnapshot, SnapshotWork};

/// Interval, idle or under load, at which meta records what is durable: damage to records synced since then
/// may pass for a torn tail. Work in progress when a mark is due is finished first.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// Places in the channel to the snapshot thread. At a time there are at most a snapshot, the removals after
/// the last one and after an install, one peer's snapshot to open, and what the last install and the
/// transfers before it have made needless: two states, entries, and two files.
pub(super) const SNAPSHOT_WORK: usize = 16;
/// Maximum amount of queued work taken for one sync, so that durability is reported regularly under any load.
const BATCH_MOST: usize = 1024;

/// Work for the journal thread, done in order.
#[derive(Debug)]
pub(super) enum Work {
    /// Make this durable, then report [`bully::Input::Journaled`].
    Task { number: u64, task: Task },
    /// Write a snapshot, then report [`Input::SnapshotDone`].
    Snapshot(Box<Image>),
    /// Read a piece of a snapshot for a peer, then report [`bully::Input::SnapshotRead`].
    Read { to: NodeId, op: Op, offset: u64, blocks: u16 },
    /// Append a piece to the file of a transfer, then report [`bully::Input::SnapshotStored`]. With the last
    /// piece the snapshot is opened, which is reported with [`Input::SnapshotOpened`]. If either is not
    /// possible, report [`bully::Input::SnapshotAbandoned`].
    Receive { transfer: u64, piece: SnapshotPiece },
    /// Remove the file of a transfer.
    DropReceived(u64),
    /// Have a state dropped that is not used any more.
    Discard(Box<Service>),
}

/// Entries of tasks that follow each other, with what was committed when each was given.
#[derive(Default)]
struct Appends {
    entries: Vec<(Vec<Entry>, Op)>,
    /// The last task.
    number: u64,
}

pub(super) struct JournalThread<D: Disk> {
    pub(super) journal: Journal<D>,
    /// Set by the senders of `work` and `finished`.
    pub(super) signal: Signal,
    pub(super) work: Receiver<Work>,
    /// To the replica thread. A send waits for room, which the replica thread soon makes.
    pub(super) news: Sender<Input>,
    /// To the snapshot thread: a send never waits. [`SNAPSHOT_WORK`] is more than it is given at a time.
    pub(super) snapshot_work: channel::Sender<SnapshotWork<D>>,
    pub(super) finished: Receiver<Finished<D>>,
    /// The error to end with once the node has stopped; set when the disk is full.
    pub(super) full: Option<JournalError>,
    /// Told how long the syncs take.
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
    /// Moment at which meta last recorded what is durable.
    pub(super) marked: Moment,
    /// Rate limiter for errors about snapshots that cannot be read.
    pub(super) unread: LogThrottle,
}

impl<D: Disk<File: 'static> + 'static> JournalThread<D> {
    /// Runs until the replica thread has ended and all its work is done.
    ///
    /// # Errors
    /// The journal's error: the server must end.
    pub(super) fn run(mut self) -> Result<(), JournalError> {
        while self.turn()? {}
        let synced = self.journal.sync();
        if self.unless_full(synced)? {
            self.mark()?;
        }
        self.full.take().map_or(Ok(()), Err)
    }

    /// Does what there is to do, or waits for it. Returns false if the replica thread has ended.
    fn turn(&mut self) -> Result<bool, JournalError> {
        let left = self.until_mark();
        if left.is_zero() {
            self.mark()?;
            return Ok(true);
        }
        if let Ok(finished) = self.finished.try_recv() {
            self.finish(finished)?;
        }
        match self.work.try_recv() {
            Ok(first) => self.batch(first)?,
            // It waits only after it has found the channel empty and open: the signal tells of the end once.
            Err(TryRecvError::Empty) => {
                self.signal.wait(left, || !self.finished.is_empty());
            }
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
        Ok(true)
    }

    /// Time until the next mark is due; work that comes meanwhile does not postpone it.
    fn until_mark(&self) -> Duration {
        MARK_EVERY.saturating_sub(self.clock.now().since(self.marked))
    }

    /// Does the queued work, then syncs once and reports the last task. Entries of tasks that follow each
    /// other are one write.
    fn batch(&mut self, first: Work) -> Result<(), JournalError> {
        let mut done = None;
        let mut appends = Appends::default();
        let queued = self.work.len().min(BATCH_MOST);
        for work in std::iter::once(first).chain(self.work.clone().try_iter().take(queued)) {
            let work = match work {
                Work::Task { number, task: Task::Append { entries, commit } } if self.full.is_none() => {
                    appends.entries.push((entries, commit));
                    appends.number = number;
                    continue;
                }
                other => other,
            };
            done = self.append(&mut appends)?.or(done);
            match work {
                Work::Task { number, .. } if self.full.is_some() && planted(Mistake::ToldOfAHole) => {
                    done = Some(number);
                }
                // Nothing is written after the disk was full: a hole in the log would make all later reports
                // false.
                Work::Task { .. } | Work::Snapshot(_) | Work::Receive { .. } if self.full.is_some() => {}
                Work::Task { number, task } => {
                    let performed = self.perform(task);
                    if self.unless_full(performed)? {
                        done = Some(number);
                    }
                }
                Work::Snapshot(image) => {
                    let begun = self.begin(image);
                    self.unless_full(begun)?;
                }
                Work::Read { to, op, offset, blocks } => self.read(to, op, offset, blocks),
                Work::Receive { transfer, piece } => self.receive(transfer, &piece)?,
                Work::DropReceived(transfer) => {
                    if let Some(file) = self.journal.drop_received(transfer) {
                        self.discard(file);
                    }
                }
                Work::Discard(service) => self.discard(service),
            }
        }
        done = self.append(&mut appends)?.or(done);
        if let Some(done) = done {
            if planted(Mistake::ToldBeforeSync) {
                self.report(Input::Log(bully::Input::Journaled(done)));
            }
            self.counters.sync_begins(self.clock.now());
            let synced = self.journal.sync();
            self.counters.sync_ends(self.clock.now());
            if self.unless_full(synced)? {
                self.report(Input::Log(bully::Input::Journaled(done)));
            }
        }
        Ok(())
    }

    /// Appends what is gathered. Returns the number of the last task of it, if there is any and it was done.
    fn append(&mut self, appends: &mut Appends) -> Result<Option<u64>, JournalError> {
        if appends.entries.is_empty() {
            return Ok(None);
        }
        let batches: Vec<_> =
            appends.entries.iter().map(|(entries, commit)| (entries.as_slice(), *commit)).collect();
        let appended = self.journal.append_batches(&batches);
        appends.entries.clear();
        Ok(self.unless_full(appended)?.then_some(appends.number))
    }

    fn mark(&mut self) -> Result<(), JournalError> {
        self.marked = self.clock.now();
        let marked = self.journal.mark();
        self.unless_full(marked).map(drop)
    }

    /// Returns true if the operation was done, and false if the disk is full, which begins an orderly end
    /// of the server.
    ///
    /// # Errors
    /// Any other error, which ends the server at once.
    fn unless_full(&mut self, done: Result<(), JournalError>) -> Result<bool, JournalError> {
        match done {
            Ok(()) => Ok(true),
            // The journal was poisoned by a full disk in the middle of an operation, and the node has been
            // told to stop.
            Err(JournalError::Full | JournalError::Poisoned) if self.full.is_some() => Ok(false),
            Err(full @ JournalError::Full) => {
                tracing::error!("{full}; stopping");
                self.full = Some(full);
                self.report(Input::Stop);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn perform(&mut self, task: Task) -> Result<(), JournalError> {
        match task {
            Task::Append { entries, commit } => self.journal.append(&entries, commit),
            Task::Promise(view) => self.journal.promise(view),
            Task::Vote(view) => self.journal.vote(view),
            Task::Know(known) => self.journal.know(&known),
            Task::Install { transfer, op, replaced } => {
                self.discard(replaced);
                let removal = self.journal.install(transfer, op)?;
                self.remove(removal);
                Ok(())
            }
        }
    }

    fn begin(&mut self, image: Box<Image>) -> Result<(), JournalError> {
        let job = self.journal.begin_snapshot(image.op)?;
        self.give(SnapshotWork::Write { job, image });
        Ok(())
    }

    /// Gives the snapshot thread work. Returns false if it has no place for it.
    fn give(&self, work: SnapshotWork<D>) -> bool {
        let given = self.snapshot_work.try_send(work).is_ok();
        if !given {
            // This does not happen with a node that keeps to one snapshot at a time. The node waits for a
            // snapshot that is left out, and begins no other; the next start removes what is needless.
            tracing::error!(
                "BUG: more work for the snapshot thread than foreseen; it is left out, and if it is a snapshot \
                 none is written before a restart"
            );
        }
        given
    }

    /// Has files removed that are not needed any more.
    fn remove(&self, needless: Option<Removal<D>>) {
        if let Some(removal) = needless {
            self.give(SnapshotWork::Remove(removal));
        }
    }

    /// Has something dropped that takes long.
    fn discard(&self, needless: impl Send + 'static) {
        self.give(SnapshotWork::Discard(Box::new(needless)));
    }

    /// Appends a piece of a peer's snapshot. It is not durable when it is reported, and need not be.
    fn receive(&mut self, transfer: u64, piece: &SnapshotPiece) -> Result<(), JournalError> {
        match self.journal.receive(transfer, piece) {
            Ok(Receipt::Upto(upto)) => {
                self.report(Input::Log(bully::Input::SnapshotStored { transfer, upto }));
            }
            Ok(Receipt::Whole(received)) => {
                if !self.give(SnapshotWork::Open(received)) {
                    self.abandon(
                        transfer,
                        "it is whole, and the thread that would read it back has no place",
                    );
                }
            }
            Ok(Receipt::LeftOut) => self.abandon(transfer, "a piece is not the one that follows in its file"),
            Err(error) => drop(self.unless_full(Err(error))?),
        }
        Ok(())
    }

    /// Ends a transfer that cannot be gone on with. The replica begins it anew.
    fn abandon(&self, transfer: u64, reason: &str) {
        tracing::error!(
            transfer,
            reason,
            "BUG: the transfer of a peer's snapshot is abandoned, and begun again"
        );
        self.report(Input::Log(bully::Input::SnapshotAbandoned(transfer)));
    }

    /// Reports a peer's snapshot that was read back. The file stays if the snapshot may be installed.
    fn finish_opened(&mut self, read: io::Result<OpenedSnapshot<D>>) -> Result<(), JournalError> {
        let (read, opened) = match read {
            Ok(OpenedSnapshot { received, opened }) => (Ok(received), Some(opened)),
            Err(error) => (Err(error), None),
        };
        let transfer = read.as_ref().map_or(0, ReceivedSnapshot::transfer);
        if let Some(Err(_)) = opened {
            self.journal.drop_received(transfer);
        }
        match self.journal.add_received(read) {
            Ok(dropped) => dropped.into_iter().for_each(|dropped| self.discard(dropped)),
            Err(error) => return self.unless_full(Err(error)).map(drop),
        }
        if let Some(opened) = opened {
            self.report(Input::SnapshotOpened { transfer, opened });
        }
        Ok(())
    }

    fn finish(&mut self, finished: Finished<D>) -> Result<(), JournalError> {
        let result = match finished {
            Finished::Tried(result) => result,
            Finished::Removed(removed) => {
                let ended = self.journal.finish_removal(removed);
                return self.unless_full(ended).map(drop);
            }
            Finished::Opening(transfer) => {
                self.report(Input::Log(bully::Input::SnapshotOpening(transfer)));
                return Ok(());
            }
            Finished::Opened(read) => return self.finish_opened(read),
            // The node keeps waiting for this snapshot, so it asks for no further ones; the log goes on.
            Finished::TooLarge(op) => {
                tracing::error!(
                    %op, most = SnapshotChunk::TOTAL_MAX,
                    "BUG: the state is larger than a snapshot may be: there are NO MORE SNAPSHOTS, and the log \
                     grows until the disk is full; lower retention.all_mib on every server and restart this one"
                );
                return Ok(());
            }
        };
        let op = result.as_ref().ok().map(SnapshotWritten::op);
        match self.journal.add_snapshot(result) {
            Ok(removal) => self.remove(removal),
            Err(error) => drop(self.unless_full(Err(error))?),
        }
        if let Some(op) = op {
            tracing::info!(%op, "snapshot");
            self.report(Input::SnapshotDone(op));
        }
        Ok(())
    }

    /// Reads a piece of a snapshot for a peer. If it cannot be read, the peer gets no answer, asks again,
    /// and is offered an older snapshot.
    fn read(&mut self, to: NodeId, op: Op, offset: u64, blocks: u16) {
        let len = usize::from(blocks) * SnapshotGet::BLOCK;
        let piece = self.journal.read_snapshot(op, offset, len).unwrap_or_else(|error| {
            if let Some(suppressed) = self.unread.allow(self.clock.now()) {
                let cause = error.source().map(ToString::to_string);
                tracing::error!(%error, cause, %op, %to, suppressed, "a snapshot cannot be read: check the disk");
            }
            None
        });
        self.report(Input::Log(bully::Input::SnapshotRead { to, piece }));
    }

    fn report(&self, news: Input) {
        // The send fails if the replica thread has ended; then nobody waits for the news.
        let _ = self.news.send(news);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use recado_log::journal::{Directory, Expected, Meta, Options};
    use recado_proto::entry::{Entry, EntryKind};
    use recado_proto::id::{ClusterId, View};
    use recado_sys::sync::channel::bounded;
    use recado_sys::sync::model::{TimeOuts, explore};
    use recado_sys::sync::thread::park_timeout;

    use super::*;

    /// The newly initialised journal of a cluster of one.
    fn new_journal(dir: &Path) -> Journal<Directory> {
        let disk = Directory::lock(dir).unwrap();
        let (cluster, node, members) = (ClusterId(7), NodeId(1), vec![NodeId(1)]);
        let expected = Expected { cluster, node, members: members.clone() };
        Journal::init(&disk, &Meta::new(cluster, node, members)).unwrap();
        Journal::open(disk, &expected, Options::default()).unwrap().0
    }

    /// Sends batches at these times, in ms, however long the thread would wait, and checks that everything
    /// synced is marked in meta half a second later.
    fn marks_in_time(batches: &[u64]) {
        let dir = tempfile::tempdir().unwrap();
        let journal = new_journal(dir.path());
        let signal = Signal::default();
        let (work, work_out) = signal.bounded(4);
        let (news, _told) = Signal::default().bounded(4_096);
        let (snapshot_work, _works) = bounded(SNAPSHOT_WORK);
        let (_finished, finished) = signal.bounded(1);
        let clock = MachineClock::start();
        let (began, unread) = (clock.now(), LogThrottle::default());
        let (full, marked) = (None, began);
        let mut thread = JournalThread {
            journal,
            signal,
            work: work_out,
            news,
            snapshot_work,
            finished,
            full,
            counters: Arc::default(),
            clock,
            marked,
            unread,
        };
        let slack = Duration::from_millis(20);
        let mut unmarked = None;
        for (at, op) in batches.iter().copied().chain([3_000]).zip(1..) {
            let at = began + Duration::from_millis(at);
            loop {
                let idle = at.since(clock.now());
                if idle.is_zero() {
                    break;
                }
                if thread.until_mark() > idle {
                    park_timeout(idle);
                } else {
                    thread.turn().unwrap();
                }
                let waits = unmarked.map_or(Duration::ZERO, |since| clock.now().since(since));
                if thread.journal.needs_mark() {
                    assert!(waits <= MARK_EVERY + slack, "{batches:?}: unmarked for {waits:?}");
                } else {
                    unmarked = None;
                }
            }
            let payload = [].into();
            let entry = Entry { op: Op(op), view: View(1), kind: EntryKind::Command, payload };
            let task = Task::Append { entries: vec![entry], commit: Op::ZERO };
            work.send(Work::Task { number: op, task }).unwrap();
            while thread.journal.durable() < Op(op) {
                if !thread.journal.needs_mark() {
                    unmarked = None;
                }
                thread.turn().unwrap();
            }
            unmarked.get_or_insert(clock.now());
        }
    }

    #[test]
    fn what_is_synced_is_marked_half_a_second_later_whatever_comes_meanwhile() {
        explore(TimeOuts::Any, 3, || {
            marks_in_time(&[0, 1, 450, 899]);
            marks_in_time(&[500, 501, 950, 1_399]);
            marks_in_time(&(0..2_500).step_by(40).collect::<Vec<_>>());
            marks_in_time(&[100, 1_700]);
        });
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_is_none_for_the_peer_and_the_server_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = new_journal(dir.path());
        let job = journal.begin_snapshot(Op(9)).unwrap();
        journal.finish_snapshot(job.write(View(1 << 16 | 1), b"state at 9")).unwrap();

        let (thread, work_in, news_out, _works) = with_places(journal, SNAPSHOT_WORK);
        // The file exists, but is cut short.
        let file = dir.path().join(format!("snap.{:020}", 9));
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(44).unwrap();
        work_in.send(Work::Read { to: NodeId(2), op: Op(9), offset: 0, blocks: 1 }).unwrap();
        let view = View(2 << 16 | 1);
        work_in.send(Work::Task { number: 5, task: Task::Promise(view) }).unwrap();
        drop(work_in);
        thread.run().unwrap();
        let news: Vec<Input> = news_out.iter().collect();
        assert!(
            matches!(
                &news[..],
                [
                    Input::Log(bully::Input::SnapshotRead { to: NodeId(2), piece: None }),
                    Input::Log(bully::Input::Journaled(5))
                ]
            ),
            "{news:?}"
        );
    }

    /// A journal thread whose snapshot thread has this many places, with what it is to do and what it
    /// reports.
    fn with_places(
        journal: Journal<Directory>,
        places: usize,
    ) -> (JournalThread<Directory>, Sender<Work>, Receiver<Input>, Receiver<SnapshotWork<Directory>>) {
        let signal = Signal::default();
        let (work_in, work) = signal.bounded(8);
        let (news, news_out) = Signal::default().bounded(8);
        let (snapshot_work, works) = bounded(places);
        let (_finished, finished) = signal.bounded(1);
        let thread = JournalThread {
            journal,
            signal,
            work,
            news,
            snapshot_work,
            finished,
            full: None,
            counters: Arc::default(),
            clock: MachineClock::start(),
            marked: Moment(0),
            unread: LogThrottle::default(),
        };
        (thread, work_in, news_out, works)
    }

    /// The pieces of a snapshot of a peer, in `number` parts.
    fn parts(number: usize) -> Vec<SnapshotPiece> {
        let whole = [7; 30];
        let (op, view, total, crc) = (Op(9), View(1 << 16 | 1), 30, crc32c::crc32c(&whole));
        let parts = whole.chunks(30 / number).enumerate();
        let piece = |(n, bytes): (usize, &[u8])| SnapshotPiece {
            op,
            view,
            total,
            crc,
            offset: (n * (30 / number)) as u64,
            bytes: bytes.to_vec(),
        };
        parts.map(piece).collect()
    }

    #[test]
    fn a_transfer_of_which_a_piece_does_not_follow_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let (thread, work, news, _works) = with_places(new_journal(dir.path()), SNAPSHOT_WORK);
        let pieces = parts(3);
        for at in [0, 2] {
            work.send(Work::Receive { transfer: 4, piece: pieces[at].clone() }).unwrap();
        }
        drop(work);
        thread.run().unwrap();
        let told: Vec<Input> = news.iter().collect();
        let stored = Input::Log(bully::Input::SnapshotStored { transfer: 4, upto: 10 });
        assert_eq!(told, [stored, Input::Log(bully::Input::SnapshotAbandoned(4))]);
    }

    #[test]
    fn a_whole_snapshot_that_nobody_can_read_back_is_abandoned_and_its_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (thread, work, news, works) = with_places(new_journal(dir.path()), 1);
        work.send(Work::Discard(Box::new(state_of_nothing()))).unwrap();
        for piece in parts(2) {
            work.send(Work::Receive { transfer: 4, piece }).unwrap();
        }
        drop(work);
        thread.run().unwrap();
        assert_eq!(news.iter().last(), Some(Input::Log(bully::Input::SnapshotAbandoned(4))));
        assert_eq!(works.iter().count(), 1, "what took the place");
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("tmp.")), "{names:?}");
    }

    fn state_of_nothing() -> Service {
        let config = crate::config::Limits::default();
        Service::new(recado_service::State::default(), config, Default::default())
    }

    #[test]
    fn a_state_too_large_for_a_snapshot_is_no_failure_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, node, members) = (ClusterId(7), NodeId(1), vec![NodeId(1)]);
        let meta = Meta::new(cluster, node, members.clone());
        Journal::init(&Directory::lock(dir.path()).unwrap(), &meta).unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let expected = Expected { cluster, node, members };
        let (journal, _) = Journal::open(disk, &expected, Options::default()).unwrap();
        let signal = Signal::default();
        let (news, reported) = Signal::default().bounded(4);
        let (snapshot_work, _works) = bounded(SNAPSHOT_WORK);
        let (work, work_inputs) = signal.bounded(4);
        let (finished, finished_inputs) = signal.bounded(1);
        let thread = JournalThread {
            journal,
            signal,
            work: work_inputs,
            news,
            snapshot_work,
            finished: finished_inputs,
            full: None,
            counters: Arc::default(),
            clock: MachineClock::start(),
            marked: Moment(0),
            unread: LogThrottle::default(),
        };

        finished.send(Finished::TooLarge(Op(1))).unwrap();
        let entry = Entry { op: Op(1), view: View(1), kind: EntryKind::ViewStart, payload: [].into() };
        let task = Task::Append { entries: vec![entry], commit: Op::ZERO };
        work.send(Work::Task { number: 5, task }).unwrap();
        drop(work);
        assert!(thread.run().is_ok(), "the server goes on");
        let reported: Vec<Input> = reported.try_iter().collect();
        let journaled = Input::Log(bully::Input::Journaled(5));
        assert_eq!(reported, [journaled], "what is logged is durable, and no snapshot is told");
    }
}
