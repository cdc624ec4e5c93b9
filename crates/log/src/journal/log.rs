//! The running journal: appends, promises, snapshots. Its start is in `open`.

use recado_proto::entry::{Entry, Unknown};
use recado_proto::id::{KnownBoot, NodeId, Op, View};
use recado_proto::planted::Planted;

use super::error::{IoOp, JournalError, Trying, is_full, is_rot};
use super::meta::MetaFile;
use super::open::owner_of;
use super::receive::Reception;
use super::record::{Body, Record};
use super::segment::Segment;
use super::snapshot::{self, Header, NewestReading, SnapshotJob, SnapshotPiece, SnapshotWritten};
use super::{Disk, DiskFile, Mark, Meta, Options, log_name, snapshot_name};

/// The number of snapshots kept, with the log after the oldest of them.
pub const SNAPSHOTS_KEPT: usize = 3;
pub(super) const RESERVE: &str = "reserve";
pub(super) const ASIDE: &str = "old.";

/// A segment that is not written any more.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) first: u64,
    /// The highest op that a record in it names. Only a snapshot below this op needs the segment.
    pub(super) op_max: Op,
}

/// The journal of one server: one owner, blocking.
///
/// After [`JournalError::Io`] the journal is poisoned and every call fails with [`JournalError::Poisoned`]:
/// the journal does not know what is durable, and only a restart reads it again. The same happens after
/// [`JournalError::NotWritable`], and after a [`JournalError::Full`] in the middle of an operation.
pub struct Journal<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    pub(super) meta: Meta,
    pub(super) meta_file: MetaFile<D::File>,
    /// The mark that is in meta.
    pub(super) mark: Mark,
    /// True if a known boot in [`Meta::members`] has changed since meta was written.
    pub(super) known_unsaved: bool,
    pub(super) closed: Vec<Closed>,
    pub(super) segment: Segment<D::File>,
    /// As [`Closed::op_max`], for the segment being written.
    pub(super) op_max: Op,
    /// The good snapshots, ascending by op.
    pub(super) snapshots: Vec<Header>,
    /// The numbers of the snapshots that are being removed.
    pub(super) removing: Vec<u64>,
    /// The snapshot that a peer sends.
    pub(super) reception: Reception<D>,
    /// The ops of the snapshots that the disk could not read when a peer asked.
    pub(super) unreadable: Vec<Op>,
    /// The end of the log, durable or not.
    pub(super) last: (Op, View),
    pub(super) commit: Op,
    pub(super) lost: Option<Unknown>,
    /// The last op of the prefix that is durable.
    pub(super) durable: Op,
    /// The last serial written.
    pub(super) written: u64,
    /// The last durable serial, and the end of the log at that serial.
    pub(super) synced: (u64, (Op, View)),
    pub(super) poisoned: bool,
}

impl<D: Disk> Journal<D> {
    /// The identity of the directory, and the promises of its server.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The end of the log, durable or not.
    pub fn last(&self) -> (Op, View) {
        self.last
    }

    /// The end of the durable prefix of the log.
    pub fn durable(&self) -> Op {
        self.durable
    }

    /// Appends entries; `commit` is the highest op the caller knows to be committed and matched by its log.
    /// An entry with an op already in the log supersedes from there. Not durable before [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError::Misplaced`], or [`JournalError::Full`] if no room can be allocated: nothing was
    /// written. Any other error poisons the journal, also a `Full` of the write itself, on a file system
    /// that copies on write.
    pub fn append(&mut self, entries: &[Entry], commit: Op) -> Result<(), JournalError> {
        self.append_batches(&[(entries, commit)])
    }

    /// Appends batches of entries, each as [`Journal::append`] does, with one write.
    ///
    /// # Errors
    /// As for [`Journal::append`]: nothing of any batch was written.
    pub fn append_batches(&mut self, batches: &[(&[Entry], Op)]) -> Result<(), JournalError> {
        self.check()?;
        self.check_places(batches.iter().flat_map(|(entries, _)| *entries))?;
        let committed = self.commit;
        let mut bytes = Vec::new();
        let (mut last, mut op_max, mut durable) = (self.last, self.op_max, self.durable);
        let mut serial = self.written;
        for (entries, commit) in batches {
            self.commit = self.commit.max(*commit);
            for entry in *entries {
                serial += 1;
                last = (entry.op, entry.view);
                op_max = op_max.max(entry.op);
                durable = durable.min(entry.op.prev());
                let body = Body::Entry { kind: entry.kind, payload: entry.payload.clone() };
                self.record(serial, last, body).encode(self.segment.first(), &mut bytes);
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write(&bytes) {
            // The log lacks these entries, so it must not name them committed.
            self.commit = committed;
            return Err(error);
        }
        (self.last, self.op_max, self.durable) = (last, op_max, durable);
        self.written = serial;
        self.lost = self.lost.and_then(|lost| lost.beyond(last.0, last.1));
        Ok(())
    }

    /// Makes everything appended durable, and the boots given to [`Journal::know`].
    ///
    /// # Errors
    /// Any error poisons the journal.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.sync_log()?;
        if self.known_unsaved { self.write_meta(self.meta.clone()) } else { Ok(()) }
    }

    /// Makes everything appended durable.
    pub(super) fn sync_log(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.synced.0 == self.written {
            return Ok(());
        }
        let synced = self.segment.sync();
        self.judge_write(synced, IoOp::Sync)?;
        self.durable = self.last.0;
        self.synced = (self.written, self.last);
        Ok(())
    }

    /// Returns true if records are durable beyond the mark. Damage to them looks like a torn tail if no
    /// later record names them durable. [`Journal::mark`] twice a second bounds that window. False after a
    /// failed write of meta, of which only one slot is good then.
    pub fn needs_mark(&self) -> bool {
        self.mark.serial < self.synced.0 && !self.meta_file.has_failed()
    }

    /// Writes the mark to meta, if records are durable beyond it. It needs no space, unless the file system
    /// copies on write. A poisoned journal may still write it, because the mark covers only what the
    /// journal's own completed syncs had made durable before the error.
    ///
    /// # Errors
    /// The error of the disk; the journal is poisoned.
    pub fn mark(&mut self) -> Result<(), JournalError> {
        if !self.needs_mark() {
            return Ok(());
        }
        let mark = self.next_mark();
        let written = self.meta_file.write_one(&self.meta, mark);
        self.judge_write(written, IoOp::Sync)?;
        self.mark = mark;
        Ok(())
    }

    /// The mark of what this server's own completed syncs have made durable. It never follows the commit: a
    /// primary may commit an op that only others have fsynced.
    fn next_mark(&self) -> Mark {
        let planted = self.options.planted;
        let (mut serial, (mut op, view)) = self.synced;
        if planted.is(Planted::MarkBeforeSync) {
            (serial, op) = (self.written, self.last.0);
        } else if planted.is(Planted::CommitForMark) {
            op = self.commit.min(self.last.0);
            serial = self.written.saturating_sub(self.last.0.0 - op.0);
        }
        let op = op.max(self.lost.map_or(Op::ZERO, |lost| lost.last));
        Mark { serial, op, view, segment: self.segment.first() }
    }

    /// Promises `view`. On return the promise is durable in both slots, and everything appended before,
    /// which the promise covers, is durable too. A view that is not higher than the promised one changes
    /// nothing.
    ///
    /// # Errors
    /// Any error poisons the journal; the promise may be durable or not.
    pub fn promise(&mut self, view: View) -> Result<(), JournalError> {
        self.sync_log()?;
        if view <= self.meta.promised {
            return Ok(());
        }
        self.write_meta(Meta { promised: view, ..self.meta.clone() })
    }

    /// Takes in the known boots of other servers, where they say more than what is stored
    /// ([`KnownBoot::learn`]). They are durable with the next promise or after [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError::Poisoned`].
    pub fn know(&mut self, known: &[(NodeId, KnownBoot)]) -> Result<(), JournalError> {
        self.check()?;
        for (node, boot) in known {
            if let Some(member) = self.meta.members.iter_mut().find(|member| member.id == *node) {
                self.known_unsaved |= member.known.learn(*boot);
            }
        }
        Ok(())
    }

    /// Makes this server a voter that has promised `view`. Everything appended before is durable first,
    /// because the server may vote for it.
    ///
    /// # Errors
    /// Any error poisons the journal; the vote may be durable or not.
    pub fn vote(&mut self, view: View) -> Result<(), JournalError> {
        self.sync_log()?;
        self.write_meta(Meta { voter: true, promised: self.meta.promised.max(view), ..self.meta.clone() })
    }

    /// Begins a snapshot of the state at `op`: makes the log durable, closes the segment and opens the next
    /// one. The job may run on another thread; its result goes to [`Journal::finish_snapshot`].
    ///
    /// # Errors
    /// [`JournalError::Full`] if the next segment finds no room: nothing has changed. Any other error
    /// poisons the journal.
    pub fn begin_snapshot(&mut self, op: Op) -> Result<SnapshotJob<D>, JournalError> {
        self.sync_log()?;
        self.next_segment(self.last, true)?;
        Ok(self.job(op))
    }

    pub(super) fn job(&self, op: Op) -> SnapshotJob<D> {
        SnapshotJob::new(self.disk.clone(), op, self.removing.clone(), self.options.planted)
    }

    /// Adds the snapshot to the stored ones, and removes the files that are not needed any more.
    ///
    /// # Errors
    /// Those of [`Journal::add_snapshot`] and of [`Journal::finish_removal`].
    pub fn finish_snapshot(&mut self, job: std::io::Result<SnapshotWritten>) -> Result<(), JournalError> {
        let removal = self.add_snapshot(job)?;
        removal.map_or(Ok(()), |removal| self.finish_removal(removal.run()))
    }

    /// Adds the snapshot to the stored ones. Returns the removal of the files that are not needed any more,
    /// which another thread may run; its result goes to [`Journal::finish_removal`].
    ///
    /// # Errors
    /// [`JournalError::Full`] if the job met a full disk: nothing has changed. Any other error poisons the
    /// journal, also a failed job: a disk that cannot keep a snapshot cannot be relied on.
    pub fn add_snapshot(
        &mut self,
        job: std::io::Result<SnapshotWritten>,
    ) -> Result<Option<Removal<D>>, JournalError> {
        self.check()?;
        let written = match job {
            Ok(written) => written,
            Err(error) if is_full(&error) => return self.full().map(|()| None),
            Err(error) => return self.guard(Err(error).during(IoOp::Write)),
        };
        let SnapshotWritten(new) = written;
        self.snapshots.retain(|header| header.op != new.op && header.number != new.number);
        self.unreadable.retain(|op| *op != new.op);
        let at = self.snapshots.partition_point(|header| header.op < new.op);
        self.snapshots.insert(at, new);
        Ok(self.prune())
    }

    /// Ends a removal.
    ///
    /// # Errors
    /// [`JournalError::Full`] if the removal met a full disk: some files stay. Any other error of it poisons
    /// the journal.
    pub fn finish_removal(&mut self, removed: Removed) -> Result<(), JournalError> {
        let Removed { numbers, result } = removed;
        // Another removal may be under way.
        self.removing.retain(|number| !numbers.contains(number));
        match result {
            Err(JournalError::Full) => self.full(),
            removed => self.guard(removed),
        }
    }

    /// Reads the newest snapshot from its start; `None` if there is none.
    ///
    /// # Errors
    /// The error of the disk. The journal stays usable.
    pub fn read_newest(&self) -> Result<Option<NewestReading<D>>, JournalError> {
        let newest = self.snapshots.last().copied();
        newest.map(|header| NewestReading::of(&self.disk, header)).transpose().during(IoOp::Read)
    }

    /// Reads up to `len` bytes of the snapshot at `op` (zero: the newest) from `offset` on; `None` if there
    /// is no such snapshot. A snapshot that the disk cannot read is not offered again, because an older one
    /// with the log after it serves as well.
    ///
    /// # Errors
    /// The error of the disk. The journal stays usable.
    pub fn read_snapshot(
        &mut self,
        op: Op,
        offset: u64,
        len: usize,
    ) -> Result<Option<SnapshotPiece>, JournalError> {
        let wanted = |header: &&Header| op == Op::ZERO || header.op == op;
        let readable = |header: &&Header| !self.unreadable.contains(&header.op);
        let Some(header) = self.snapshots.iter().rev().filter(readable).find(wanted).copied() else {
            return Ok(None);
        };
        let piece = snapshot::read_piece(&self.disk, header, offset, len);
        if piece.as_ref().is_err_and(is_rot) {
            self.unreadable.push(header.op);
        }
        piece.map(Some).during(IoOp::Read)
    }

    fn record(&self, serial: u64, last: (Op, View), body: Body) -> Record {
        Record { serial, durable: self.synced.0, commit: self.commit, op: last.0, view: last.1, body }
    }

    /// Checks that every entry fits: no hole, no op that a snapshot covers, no payload that is too long.
    fn check_places<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), JournalError> {
        let floor = self.snapshots.last().map_or(Op::ZERO, |newest| newest.op);
        let mut last = self.last.0;
        for entry in entries {
            let fits =
                entry.op > floor && entry.op <= last.next() && entry.payload.len() <= Entry::PAYLOAD_MAX;
            if !fits {
                return Err(JournalError::Misplaced { op: entry.op, last });
            }
            last = entry.op;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        match self.segment.reserve(bytes.len()) {
            Err(error) if is_full(&error) => return self.full(),
            other => {
                let other = other.during(IoOp::Write);
                self.guard(other)?;
            }
        }
        let written = self.segment.write(bytes);
        self.judge_write(written, IoOp::Write)
    }

    fn write_meta(&mut self, meta: Meta) -> Result<(), JournalError> {
        let mark = self.next_mark();
        let written = self.meta_file.write(&meta, mark);
        self.judge_write(written, IoOp::Sync)?;
        (self.meta, self.mark, self.known_unsaved) = (meta, mark, false);
        Ok(())
    }

    /// Opens the next segment, at which the log ends at `last`. Everything before is durable. The mark
    /// names the new segment before anything is appended to it, or any older one is removed.
    pub(super) fn next_segment(&mut self, last: (Op, View), marks: bool) -> Result<(), JournalError> {
        let serial = self.written + 1;
        let owner = Some(owner_of(&self.meta));
        let body = Body::Start { prev: self.written, lost: self.lost, owner };
        let start = self.record(serial, last, body);
        let next = match Segment::create(&self.disk, &start, self.options.step) {
            Err(error) if is_full(&error) => return self.full(),
            other => self.guard(other.during(IoOp::Write))?,
        };
        self.closed.push(Closed { first: self.segment.first(), op_max: self.op_max });
        self.segment = next;
        self.written = serial;
        self.synced = (serial, last);
        self.last = last;
        self.durable = last.0;
        self.op_max = last.0.max(self.lost.map_or(Op::ZERO, |lost| lost.last));
        if marks { self.mark() } else { Ok(()) }
    }

    /// Keeps the newest [`SNAPSHOTS_KEPT`] snapshots and the log after the oldest of them, and returns the
    /// removal of the rest. With fewer snapshots it keeps the whole log.
    fn prune(&mut self) -> Option<Removal<D>> {
        let old = self.snapshots.len().checked_sub(SNAPSHOTS_KEPT)?;
        let (mut names, mut numbers) = (Vec::new(), Vec::new());
        for header in self.snapshots.drain(..old) {
            self.unreadable.retain(|op| *op != header.op);
            self.removing.push(header.number);
            numbers.push(header.number);
            names.push(snapshot_name(header.number));
        }
        let oldest = self.snapshots[0].op;
        let oldest = if self.options.planted.is(Planted::PruneTooFar) { oldest.next() } else { oldest };
        let needless = self.closed.iter().take_while(|closed| closed.op_max <= oldest).count();
        names.extend(self.closed.drain(..needless).map(|closed| log_name(closed.first)));
        Some(Removal { disk: self.disk.clone(), names, numbers })
    }

    /// Judges a write or a sync in space that was allocated before: a slot of meta, or the room of a
    /// segment. A file system that copies on write may run out of space there too. Then the journal is
    /// poisoned, because a retry is not safe: the next write of meta would go to the only good slot.
    fn judge_write(&mut self, written: std::io::Result<()>, op: IoOp) -> Result<(), JournalError> {
        match written {
            Err(error) if is_full(&error) => {
                self.poisoned = true;
                self.full()
            }
            other => self.guard(other.during(op)),
        }
    }

    /// The disk is full: gives the reserve back, so that the file system and the rest of this server have
    /// room, and returns the error.
    pub(super) fn full(&mut self) -> Result<(), JournalError> {
        // If the reserve is gone already or cannot be removed, nothing more can be done here.
        let _ = self.disk.remove(RESERVE);
        Err(JournalError::Full)
    }

    pub(super) fn check(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned) } else { Ok(()) }
    }

    /// Poisons the journal if `result` is an error. A full disk does not come here where it changes nothing.
    pub(super) fn guard<T>(&mut self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        self.poisoned |= result.is_err();
        result
    }
}

/// The removal of files that nothing needs any more. A file system may take a millisecond for each MiB.
#[derive(Debug)]
pub struct Removal<D> {
    disk: D,
    names: Vec<String>,
    /// The numbers of the snapshots among them.
    numbers: Vec<u64>,
}

/// A removal that has run, for [`Journal::finish_removal`].
#[derive(Debug)]
pub struct Removed {
    numbers: Vec<u64>,
    result: Result<(), JournalError>,
}

impl<D: Disk> Removal<D> {
    /// Removes the files, and those that a start has set aside.
    pub fn run(mut self) -> Removed {
        let result = self.remove();
        Removed { numbers: self.numbers, result }
    }

    fn remove(&mut self) -> Result<(), JournalError> {
        let aside = self.disk.list().during(IoOp::List)?;
        self.names.extend(aside.into_iter().filter(|name| name.starts_with(ASIDE)));
        for name in &self.names {
            match self.disk.remove(name) {
                // Two removals may run at a time, and both take what was set aside.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => judge_removal(&self.disk, name, removed)?,
            }
        }
        self.disk.sync().during(IoOp::Directory)
    }
}

/// Judges the renaming or removal of a file. A file that the disk cannot open cannot be renamed or removed
/// either, because ext4 and xfs read the inode first. Such a file stays, and no start reads it.
pub(super) fn judge_removal<D: Disk>(
    disk: &D,
    name: &str,
    done: std::io::Result<()>,
) -> Result<(), JournalError> {
    match done {
        Err(error) if is_rot(&error) && disk.open(name).is_err_and(|error| is_rot(&error)) => {
            tracing::error!(name, %error, "the disk cannot remove a damaged file: check the disk");
            Ok(())
        }
        done => done.during(IoOp::Directory),
    }
}

/// Makes the reserve, or grows it to its length. On a full disk a reserve that did not exist is removed
/// again. The server runs without a reserve that the disk cannot open.
pub(super) fn reserve<D: Disk>(disk: &D, step: u64) -> std::io::Result<()> {
    let exists = disk.list()?.iter().any(|name| name == RESERVE);
    let opened = match exists {
        true => disk.open(RESERVE).and_then(|file| Ok((file.len()?, file))),
        false => disk.create(RESERVE).map(|file| (0, file)),
    };
    let (len, mut file) = match opened {
        Err(error) if exists && is_rot(&error) => {
            tracing::error!(%error, "the disk can no longer open the reserve: check the disk");
            return Ok(());
        }
        opened => opened?,
    };
    if len >= step {
        return Ok(());
    }
    if let Err(error) = file.allocate(step) {
        if !exists {
            disk.remove(RESERVE)?;
        }
        return Err(error);
    }
    file.sync()?;
    disk.sync()
}
