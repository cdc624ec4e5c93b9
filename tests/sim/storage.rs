//! The journal of one simulated server, and the faults of its disk.

use std::collections::VecDeque;

use recado::config::{Config, PlantedBug};
use recado::server::engine::{self, StartError};
use recado::server::node::SnapshotError;
use recado_log::bully::Task;
use recado_log::journal::{
    Disk, Expected, Journal, JournalError, Meta, Options, Receipt, ReceivedSnapshot, Recovered, Removal,
    SNAPSHOT_PIECE, SnapshotJob, SnapshotPiece, SnapshotWritten,
};
use recado_proto::id::{Incarnation, NodeId, Op, View};
use recado_proto::packet::SnapshotGet;
use recado_service::Service;

use crate::disk::{Damage, Extent, MemDisk};
use crate::rng::Rng;

/// The growth of a log segment, so small that a run reaches the ends of segments.
const STEP: u64 = 32 * 1024;

/// The room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// No limit.
    Ample,
    /// This number of bytes beyond those stored.
    Bytes(u64),
    /// None, not even to overwrite stored bytes, as on a full file system that copies on write.
    Nothing,
}

/// A transfer whose snapshot was read back, and its state or the reason why it has none.
pub type OpenedTransfer = (u64, Result<Box<Service>, SnapshotError>);

/// A disk, and the journal on it while the process runs.
pub struct Storage {
    disk: MemDisk,
    journal: Option<Journal<MemDisk>>,
    snapshot: Option<SnapshotJob<MemDisk>>,
    /// The result of the snapshot's write.
    tried: Option<std::io::Result<SnapshotWritten>>,
    /// A whole snapshot of a peer, which the snapshot thread is to open.
    received: Option<ReceivedSnapshot<MemDisk>>,
    /// The removals of what snapshots have made needless, in order.
    removals: VecDeque<Removal<MemDisk>>,
    planted: PlantedBug,
    /// True if the stored data was ever changed by anything but crashes.
    pub damaged: bool,
    /// The growth of a log segment, in bytes.
    pub step: u64,
}

impl Storage {
    /// The disk of a server that `init` made a voter.
    pub fn initialised(config: &Config) -> Storage {
        let disk = MemDisk::new();
        let meta = Meta::new(config.cluster.id, config.cluster.me, members(config));
        Journal::init(&disk, &meta).expect("an empty disk takes a first meta");
        Storage {
            disk,
            journal: None,
            snapshot: None,
            tried: None,
            received: None,
            removals: VecDeque::new(),
            planted: config.planted,
            damaged: false,
            step: STEP,
        }
    }

    /// Opens the directory for a new process.
    ///
    /// # Errors
    /// The error of the journal.
    pub fn open(&mut self, config: &Config, boot: u32) -> Result<Recovered, JournalError> {
        // The floor is above every earlier incarnation, as the clock's is for a real server: a server that
        // finds its meta damaged increments the incarnation by two.
        let incarnation_floor = Incarnation(2 * u64::from(boot));
        let expected =
            Expected { cluster: config.cluster.id, node: config.cluster.me, members: members(config) };
        let options = Options { step: self.step, incarnation_floor, planted: self.planted };
        let (journal, recovered) = Journal::open(self.disk.clone(), &expected, options)?;
        self.journal = Some(journal);
        Ok(recovered)
    }

    /// The state of the newest snapshot of the journal that was opened.
    ///
    /// # Errors
    /// A server would not start on it.
    pub fn restore_state(&self, config: &Config) -> Result<Service, StartError> {
        let journal = self.journal.as_ref().ok_or(StartError::Unread(JournalError::Poisoned))?;
        engine::restore(config, journal)
    }

    /// Does a task, except the fsync of appends.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn write(&mut self, task: &Task) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        match task {
            Task::Append { entries, commit } => journal.append(entries, *commit),
            Task::Promise(view) => journal.promise(*view),
            Task::Vote(view) => journal.vote(*view),
            Task::Know(known) => journal.know(known),
            Task::Install { transfer, op, .. } => {
                self.removals.extend(journal.install(*transfer, *op)?);
                Ok(())
            }
        }
    }

    /// Appends a piece of a peer's snapshot. Returns the end of what its file has; `None` if the piece was
    /// left out.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn receive(&mut self, transfer: u64, piece: &SnapshotPiece) -> Result<Option<u64>, JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        match journal.receive(transfer, piece)? {
            Receipt::LeftOut => Ok(None),
            Receipt::Upto(upto) => Ok(Some(upto)),
            Receipt::Whole(received) => {
                let len = received.len();
                self.received = Some(received);
                Ok(Some(len))
            }
        }
    }

    /// The transfer of the snapshot that waits to be opened.
    pub fn is_whole(&self) -> Option<u64> {
        self.received.as_ref().map(ReceivedSnapshot::transfer)
    }

    /// Opens a peer's snapshot, as the snapshot thread does, and gives it back to the journal.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn open_received(&mut self, config: &Config) -> Result<Option<OpenedTransfer>, JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        let Some(received) = self.received.take() else { return Ok(None) };
        let transfer = received.transfer();
        match engine::open_received(config, &received, || Ok(())) {
            Ok(opened) => {
                if opened.is_err() {
                    journal.drop_received(transfer);
                }
                journal.add_received(Ok(received))?;
                Ok(Some((transfer, opened)))
            }
            Err(error) => journal.add_received(Err(error)).map(|_| None),
        }
    }

    /// Removes the file of a transfer that has ended.
    pub fn drop_received(&mut self, transfer: u64) {
        self.journal.as_mut().and_then(|journal| journal.drop_received(transfer));
    }

    /// Makes the appended entries durable.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.as_mut().ok_or(JournalError::Poisoned)?.sync()
    }

    /// Writes the mark to meta, as the journal thread does twice a second and at an orderly end.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn mark(&mut self) -> Result<(), JournalError> {
        self.journal.as_mut().map_or(Ok(()), Journal::mark)
    }

    /// Begins a snapshot at `op`.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn begin_snapshot(&mut self, op: Op) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        self.snapshot = Some(journal.begin_snapshot(op)?);
        Ok(())
    }

    /// Writes the snapshot that was begun, as the snapshot thread does.
    pub fn write_snapshot(&mut self, view: View, bytes: &[u8]) {
        self.tried = self.snapshot.take().map(|job| write_in_pieces(job, view, bytes, SNAPSHOT_PIECE));
    }

    /// Adds the written snapshot to the journal.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn add_snapshot(&mut self) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        let Some(tried) = self.tried.take() else { return Ok(()) };
        self.removals.extend(journal.add_snapshot(tried)?);
        Ok(())
    }

    /// Removes what a snapshot has made needless, as the snapshot thread does.
    ///
    /// # Errors
    /// The error of the journal; the process ends.
    pub fn remove_needless(&mut self) -> Result<(), JournalError> {
        let Some(removal) = self.removals.pop_front() else { return Ok(()) };
        let removed = removal.run();
        self.journal.as_mut().map_or(Ok(()), |journal| journal.finish_removal(removed))
    }

    /// The total of the fsyncs of files and of the directory.
    pub fn syncs(&self) -> u64 {
        self.disk.syncs()
    }

    /// Returns true if records are durable beyond the mark in meta.
    pub fn needs_mark(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::needs_mark)
    }

    /// Reads a piece of a stored snapshot.
    pub fn read_snapshot(&mut self, op: Op, offset: u64, blocks: u16) -> Option<SnapshotPiece> {
        let len = usize::from(blocks) * SnapshotGet::BLOCK;
        let piece = self.journal.as_mut()?.read_snapshot(op, offset, len).ok()??;
        Some(SnapshotPiece {
            op: piece.op,
            view: piece.view,
            total: piece.total,
            crc: piece.crc,
            offset: piece.offset,
            bytes: piece.bytes,
        })
    }

    /// Ends the process; with `power`, any part of the unsynced data is lost.
    pub fn close(&mut self, power: bool, rng: &mut Rng) {
        // A process that dies removes nothing.
        self.disk.die_after(Some(0));
        self.journal = None;
        (self.snapshot, self.tried, self.received) = (None, None, None);
        self.removals.clear();
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.disk.die_after(None);
        if power {
            self.disk.crash(rng);
        }
    }

    /// Replaces the disk by an empty one.
    pub fn wipe(&mut self) {
        self.damaged = true;
        self.disk.wipe();
    }

    /// Damages stored data at a random position, most often in the newest log file, and returns the position.
    pub fn damage(&mut self, rng: &mut Rng, extent: Extent, rot: Damage) -> Option<String> {
        self.damaged = true;
        let newest = self.newest_log();
        let kind = match rng.below(20) {
            0 | 1 => "meta",
            2 | 3 => "snap.",
            4..=9 => "log.",
            _ => newest.as_str(),
        };
        let hit = self.disk.damage(rng, |name| name.starts_with(kind), extent, rot);
        hit.map(|(name, at)| format!("{name} at {at}"))
    }

    /// Damages the newest log file: at its beginning, or from the middle of its used part.
    pub fn damage_newest(&mut self, rng: &mut Rng, middle: bool, extent: Extent, rot: Damage) {
        self.damaged = true;
        self.disk.damage_file(rng, &self.newest_log(), middle, extent, rot);
    }

    fn newest_log(&self) -> String {
        let names = self.disk.list().unwrap_or_default();
        names.into_iter().rfind(|name| name.starts_with("log.")).unwrap_or_default()
    }

    /// Returns a copy of the whole disk.
    pub fn copy(&self) -> MemDisk {
        self.disk.copy()
    }

    pub fn restore(&mut self, copy: &MemDisk) {
        self.disk.restore(copy);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.disk.die_after(None);
    }

    /// Makes the next `count` writes fail (EIO). Each failure ends the process.
    pub fn fail_writes(&mut self, count: u32) {
        self.disk.fail_writes(count);
    }

    /// Makes the process die after `operations` more operations of the disk, in the middle of its work.
    pub fn die_after(&mut self, operations: Option<u64>) {
        self.disk.die_after(operations);
    }

    /// Sets the room on the disk.
    pub fn make_room(&mut self, room: Room) {
        let spare = match room {
            Room::Ample | Room::Nothing => None,
            Room::Bytes(spare) => Some(self.disk.bytes() + spare),
        };
        self.disk.set_capacity(spare);
        self.disk.set_no_space(room == Room::Nothing);
    }

    /// Makes a range of a snapshot or of a log unreadable while the server runs, and returns the position.
    pub fn make_unreadable(&mut self, rng: &mut Rng, extent: Extent) -> Option<String> {
        self.damaged = true;
        let kind = if rng.permille(500) { "snap." } else { "log." };
        let hit = self.disk.damage(rng, |name| name.starts_with(kind), extent, Damage::Unreadable);
        hit.map(|(name, at)| format!("{name} at {at}"))
    }

    pub fn failed_reads(&self) -> u64 {
        self.disk.failed_reads()
    }

    /// Makes the next `count` syncs fail. Each failure ends the process.
    pub fn fail_syncs(&mut self, count: u32) {
        self.disk.fail_syncs(count);
    }
}

/// Writes a snapshot in pieces of this many bytes, each of which is synced, and reads it back, as the
/// snapshot thread does.
///
/// # Errors
/// The error of the disk, or of what was read.
pub(crate) fn write_in_pieces(
    job: SnapshotJob<MemDisk>,
    view: View,
    bytes: &[u8],
    piece: usize,
) -> std::io::Result<SnapshotWritten> {
    let mut file = job.create()?;
    for piece in bytes.chunks(piece) {
        file.write(piece)?;
        file.sync()?;
    }
    let mut reading = file.finish(view)?;
    loop {
        if let Some(written) = reading.read_piece()? {
            return Ok(written);
        }
    }
}

/// Receives a peer's snapshot in pieces of this many bytes, reads it back as the snapshot thread does, and
/// installs it.
///
/// # Errors
/// The error of the journal.
pub(crate) fn install_in_pieces(
    journal: &mut Journal<MemDisk>,
    (op, view): (Op, View),
    bytes: &[u8],
    length: usize,
) -> Result<(), JournalError> {
    let (total, crc) = (bytes.len() as u64, crc32c::crc32c(bytes));
    for (n, bytes) in bytes.chunks(length).enumerate() {
        let (offset, bytes) = ((n * length) as u64, bytes.to_vec());
        let piece = SnapshotPiece { op, view, total, crc, offset, bytes };
        let Receipt::Whole(received) = journal.receive(op.0, &piece)? else { continue };
        let mut read = Ok(());
        {
            let (mut reading, mut piece) = (received.read(), vec![0]);
            while read.is_ok() && !piece.is_empty() {
                read = reading.read_piece(&mut piece);
            }
        }
        journal.add_received(read.map(|()| received))?;
    }
    let removal = journal.install(op.0, op)?;
    removal.map_or(Ok(()), |removal| journal.finish_removal(removal.run()))
}

fn members(config: &Config) -> Vec<NodeId> {
    config.cluster.members.iter().map(|member| member.id).collect()
}
