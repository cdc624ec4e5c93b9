//! The journal of one simulated server, and what becomes of its disk.

use recado::config::{Config, PlantedBug};
use recado::id::{Incarnation, NodeId, Op, View};
use recado::journal::{
    Disk, Expected, Journal, JournalError, Meta, Options, Recovered, SnapshotJob, SnapshotWritten,
};
use recado::server::node::{SnapshotPiece, Task};
use recado::wire::packet::SnapshotChunk;

use crate::disk::{Extent, MemDisk, Rot};
use crate::rng::Rng;

/// Log segments grow in steps so small that a run meets their ends.
const STEP: u64 = 32 * 1024;

/// What a disk has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Whatever comes.
    Ample,
    /// So many bytes more.
    Bytes(u64),
    /// Nothing, not even to write over what is there: a file system that copies on write is full.
    Nothing,
}

/// A disk, and the journal on it while the process lives.
pub struct Storage {
    disk: MemDisk,
    journal: Option<Journal<MemDisk>>,
    snapshot: Option<SnapshotJob<MemDisk>>,
    /// What became of it.
    tried: Option<std::io::Result<SnapshotWritten>>,
    planted: PlantedBug,
    /// Whether anything but crashes ever happened to what was stored.
    pub damaged: bool,
    /// Log segments grow in steps of so many bytes.
    pub step: u64,
}

impl Storage {
    /// The disk of a server that `init` made a voter.
    pub fn initialised(config: &Config) -> Storage {
        let disk = MemDisk::new();
        let meta = Meta {
            cluster: config.cluster.id,
            node: config.cluster.me,
            members: members(config),
            voter: true,
            incarnation: Incarnation(0),
            promised: View::ZERO,
            known: Vec::new(),
        };
        Journal::init(&disk, &meta).expect("an empty disk takes a first meta");
        Storage {
            disk,
            journal: None,
            snapshot: None,
            tried: None,
            planted: config.planted,
            damaged: false,
            step: STEP,
        }
    }

    /// The process opens its directory.
    ///
    /// # Errors
    /// The journal's.
    pub fn open(&mut self, config: &Config, life: u32) -> Result<Recovered, JournalError> {
        // Above every life so far, as the clock is for a real server: one that finds its meta damaged counts
        // its life up by two.
        let incarnation_floor = Incarnation(2 * u64::from(life));
        let expected =
            Expected { cluster: config.cluster.id, node: config.cluster.me, members: members(config) };
        let options = Options { step: self.step, incarnation_floor, planted: self.planted };
        let (journal, recovered) = Journal::open(self.disk.clone(), &expected, options)?;
        self.journal = Some(journal);
        Ok(recovered)
    }

    /// Does a task, but for the fsync of appends.
    ///
    /// # Errors
    /// The journal's: the process ends.
    pub fn write(&mut self, task: &Task) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        match task {
            Task::Append { entries, commit } => journal.append(entries, *commit),
            Task::Promise(view) => journal.promise(*view),
            Task::Vote(view) => journal.vote(*view),
            Task::Know(known) => journal.know(known),
            Task::Install { op, view, bytes } => journal.install(*op, *view, bytes),
        }
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// The journal's: the process ends.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.as_mut().ok_or(JournalError::Poisoned)?.sync()
    }

    /// Says in meta what is durable, as the journal thread does twice a second and at an orderly end.
    ///
    /// # Errors
    /// The journal's: the process ends.
    pub fn mark(&mut self) -> Result<(), JournalError> {
        self.journal.as_mut().map_or(Ok(()), Journal::mark)
    }

    /// Begins a snapshot at `op`.
    ///
    /// # Errors
    /// The journal's: the process ends.
    pub fn begin_snapshot(&mut self, op: Op) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        self.snapshot = Some(journal.begin_snapshot(op)?);
        Ok(())
    }

    /// Writes the snapshot begun, as the snapshot thread does.
    pub fn write_snapshot(&mut self, view: View, bytes: &[u8]) {
        self.tried = self.snapshot.take().map(|job| job.write(view, bytes));
    }

    /// Takes it into account.
    ///
    /// # Errors
    /// The journal's: the process ends.
    pub fn finish_snapshot(&mut self) -> Result<(), JournalError> {
        let journal = self.journal.as_mut().ok_or(JournalError::Poisoned)?;
        self.tried.take().map_or(Ok(()), |tried| journal.finish_snapshot(tried))
    }

    /// Fsyncs of files and of the directory since the beginning.
    pub fn syncs(&self) -> u64 {
        self.disk.syncs()
    }

    /// Whether meta is owed what is durable.
    pub fn needs_mark(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::needs_mark)
    }

    /// A piece of a stored snapshot.
    pub fn read_snapshot(&mut self, op: Op, offset: u64, chunks: u16) -> Option<SnapshotPiece> {
        let len = usize::from(chunks) * SnapshotChunk::BYTES_MAX;
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

    /// The process is gone; with `power`, so is any part of what was not synced.
    pub fn close(&mut self, power: bool, rng: &mut Rng) {
        self.journal = None;
        (self.snapshot, self.tried) = (None, None);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.disk.die_after(None);
        if power {
            self.disk.crash(rng);
        }
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&mut self) {
        self.damaged = true;
        self.disk.wipe();
    }

    /// What is stored is damaged, somewhere; says where. Most often the newest log file.
    pub fn damage(&mut self, rng: &mut Rng, extent: Extent, rot: Rot) -> Option<String> {
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

    /// The newest log file is damaged: at its beginning, or from the middle of what is used.
    pub fn damage_newest(&mut self, rng: &mut Rng, middle: bool, extent: Extent, rot: Rot) {
        self.damaged = true;
        self.disk.damage_file(rng, &self.newest_log(), middle, extent, rot);
    }

    fn newest_log(&self) -> String {
        let names = self.disk.list().unwrap_or_default();
        names.into_iter().rfind(|name| name.starts_with("log.")).unwrap_or_default()
    }

    /// A copy of the whole disk, or one put back in its place.
    pub fn copy(&self) -> MemDisk {
        self.disk.copy()
    }

    pub fn put_back(&mut self, copy: &MemDisk) {
        self.disk.put_back(copy);
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.disk.die_after(None);
    }

    /// So many of the next writes fail (EIO): each ends the process.
    pub fn fail_writes(&mut self, count: u32) {
        self.disk.fail_writes(count);
    }

    /// The process dies after so many more operations of the disk, in the middle of whatever it does.
    pub fn die_after(&mut self, operations: u64) {
        self.disk.die_after(Some(operations));
    }

    /// What the disk has room for from now on.
    pub fn make_room(&mut self, room: Room) {
        let spare = match room {
            Room::Ample | Room::Nothing => None,
            Room::Bytes(spare) => Some(self.disk.bytes() + spare),
        };
        self.disk.set_capacity(spare);
        self.disk.stuff(room == Room::Nothing);
    }

    /// A range of a snapshot or of a log cannot be read from now on, while the server runs; says where.
    pub fn spoil(&mut self, rng: &mut Rng, extent: Extent) -> Option<String> {
        self.damaged = true;
        let kind = if rng.permille(500) { "snap." } else { "log." };
        let hit = self.disk.damage(rng, |name| name.starts_with(kind), extent, Rot::Unreadable);
        hit.map(|(name, at)| format!("{name} at {at}"))
    }

    /// Reads that failed since the beginning.
    pub fn failed_reads(&self) -> u64 {
        self.disk.failed_reads()
    }

    /// So many of the next syncs fail: each ends the process.
    pub fn fail_syncs(&mut self, count: u32) {
        self.disk.fail_syncs(count);
    }
}

fn members(config: &Config) -> Vec<NodeId> {
    config.cluster.members.iter().map(|member| member.id).collect()
}
