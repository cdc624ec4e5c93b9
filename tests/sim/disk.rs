//! A disk in memory that keeps exactly what a real disk guarantees: what was synced. At a crash, any subset
//! of the unsynced 512-byte sectors, file lengths and directory changes may be lost. Synced data may rot, and
//! the process may die at any operation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use recado_log::journal::{Disk, DiskFile};

use crate::rng::Rng;

const SECTOR: usize = 512;

/// The disk of one simulated server, which outlives the server. Clones are handles to the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemDisk(Arc<Mutex<Inner>>);

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub(crate) struct MemFile {
    disk: MemDisk,
    inode: u64,
}

/// The extent of one damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Bit,
    Sector,
    Block,
    ToEnd,
    Whole,
}

impl Extent {
    pub(crate) const ALL: [Extent; 5] =
        [Extent::Bit, Extent::Sector, Extent::Block, Extent::ToEnd, Extent::Whole];

    fn range(self, at: usize, len: usize) -> Range<usize> {
        let aligned = |to: usize| at / to * to..((at / to + 1) * to).min(len);
        match self {
            Extent::Bit => at..at + 1,
            Extent::Sector => aligned(SECTOR),
            Extent::Block => aligned(4096),
            Extent::ToEnd => at..len,
            Extent::Whole => 0..len,
        }
    }
}

/// The kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Garbled,
    Zeroed,
    /// Reads of the range fail (EIO) until it is written again.
    Unreadable,
    /// The file ends before the range; if that is the whole file, the file is removed.
    Gone,
    /// The file cannot be opened, renamed or removed (EUCLEAN): the behaviour of ext4 and xfs when an inode's
    /// checksum is wrong.
    Inode,
}

impl Damage {
    pub(crate) const ALL: [Damage; 5] =
        [Damage::Garbled, Damage::Zeroed, Damage::Unreadable, Damage::Gone, Damage::Inode];
}

#[derive(Clone, Debug, Default)]
struct Inner {
    inodes: BTreeMap<u64, Inode>,
    /// The directory as programs see it, and the directory that a crash leaves at worst.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes to the directory that no sync has covered.
    pending: Vec<Change>,
    next_inode: u64,
    fail_syncs: u32,
    /// True if the failing syncs report that there is no room.
    syncs_lack_room: bool,
    fail_writes: u32,
    /// The prefix of the names of files whose writes are silently garbled.
    corrupts_writes_to: Option<&'static str>,
    /// The name of a file that cannot be opened for now, for a reason that is no damage.
    refused: Option<String>,
    /// The number of failed reads.
    failed_reads: u64,
    /// The number of operations that change something, and the last of them that succeeds.
    operations: u64,
    dies_after: Option<u64>,
    capacity: Option<u64>,
    /// True if not even stored bytes can be overwritten, as on a full file system that copies on write.
    no_space_at_all: bool,
    written: u64,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync. A failed sync clears them, as in Linux: the next sync succeeds
    /// without them.
    dirty: BTreeSet<usize>,
    /// Ranges that the disk cannot read.
    bad: Vec<Range<usize>>,
    /// True if the disk cannot open the file.
    unopenable: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Rename(String, String, u64),
    Unlink(String),
}

impl MemDisk {
    /// An empty disk.
    pub(crate) fn new() -> MemDisk {
        MemDisk::default()
    }

    /// The machine loses power: each unsynced sector, length and directory change survives or is lost
    /// independently. Handles opened before must not be used any more.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        self.lose_power(0.5, rng);
    }

    /// As [`MemDisk::crash`], with this probability for each change to survive.
    pub(crate) fn lose_power(&self, survives: f64, rng: &mut Rng) {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        for change in std::mem::take(&mut inner.pending) {
            if rng.chance(survives) {
                change.apply(&mut inner.durable_names);
            }
        }
        inner.names = inner.durable_names.clone();
        let linked: BTreeSet<u64> = inner.names.values().copied().collect();
        inner.inodes.retain(|inode, _| linked.contains(inode));
        for inode in inner.inodes.values_mut() {
            inode.crash(survives, rng);
        }
        inner.fail_syncs = 0;
        inner.fail_writes = 0;
        inner.dies_after = None;
    }

    /// Damages durable data at a random position in the used part of the files that `which` selects, and
    /// returns the position. `None` if nothing is stored.
    pub(crate) fn damage(
        &self,
        rng: &mut Rng,
        which: impl Fn(&str) -> bool,
        extent: Extent,
        rot: Damage,
    ) -> Option<(String, usize)> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let mut regions = Vec::new();
        for (name, inode) in inner.names.iter().filter(|(name, _)| which(name)) {
            let stored = &inner.inodes.get(inode)?.durable;
            let used = stored.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                regions.push((name.clone(), *inode, used));
            }
        }
        let total: u64 = regions.iter().map(|(_, _, used)| *used as u64).sum();
        let mut at = rng.below(total) as usize;
        for (name, inode, used) in regions {
            if at < used {
                inner.damage(rng, &name, inode, at, extent, rot);
                return Some((name, at));
            }
            at -= used;
        }
        None
    }

    /// Damages this file: at its beginning, or from the middle of its used part.
    pub(crate) fn damage_file(&self, rng: &mut Rng, name: &str, middle: bool, extent: Extent, rot: Damage) {
        let mut inner = self.0.lock();
        let Some(inode) = inner.names.get(name).copied() else { return };
        let stored = inner.inodes.get(&inode).map(|inode| inode.durable.as_slice()).unwrap_or_default();
        let used = stored.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        inner.damage(rng, name, inode, if middle { used / 2 } else { 0 }, extent, rot);
    }

    /// Returns a copy of the disk, as a copy of the directory would have it.
    pub(crate) fn copy(&self) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Replaces the content by that of a copy.
    pub(crate) fn restore(&self, copy: &MemDisk) {
        *self.0.lock() = copy.0.lock().clone();
    }

    /// Replaces the disk by an empty one.
    pub(crate) fn wipe(&self) {
        let mut inner = self.0.lock();
        let Inner { capacity, no_space_at_all: stuffed, next_inode, .. } = *inner;
        *inner = Inner { capacity, no_space_at_all: stuffed, next_inode, ..Inner::default() };
    }

    /// Makes the next `count` syncs of files fail. The data that they should have made durable is lost.
    pub(crate) fn fail_syncs(&self, count: u32) {
        let mut inner = self.0.lock();
        (inner.fail_syncs, inner.syncs_lack_room) = (count, false);
    }

    /// Makes the next sync of a file find no room, as on a file system that allocates blocks late.
    pub(crate) fn fail_sync_for_room(&self) {
        let mut inner = self.0.lock();
        (inner.fail_syncs, inner.syncs_lack_room) = (1, true);
    }

    /// Makes the next `count` writes fail (EIO).
    pub(crate) fn fail_writes(&self, count: u32) {
        self.0.lock().fail_writes = count;
    }

    /// Makes the disk silently flip a bit in every write to files with this prefix; `None` ends that.
    pub(crate) fn corrupt_writes(&self, names: Option<&'static str>) {
        self.0.lock().corrupts_writes_to = names;
    }

    /// Makes the process die after `operations` more operations that change something: each later one fails
    /// and changes nothing.
    pub(crate) fn die_after(&self, operations: Option<u64>) {
        let mut inner = self.0.lock();
        inner.dies_after = operations.map(|more| inner.operations + more);
    }

    /// Returns true if the process has died in that way.
    pub(crate) fn has_died(&self) -> bool {
        let inner = self.0.lock();
        inner.dies_after.is_some_and(|last| inner.operations > last)
    }

    /// Makes the disk unable to read this file.
    pub(crate) fn fail_reads_of(&self, name: &str) {
        let mut inner = self.0.lock();
        let inode = inner.names.get(name).copied();
        if let Some(inode) = inode.and_then(|inode| inner.inodes.get_mut(&inode)) {
            inode.bad.push(0..usize::MAX);
        }
    }

    /// Makes the disk unable to open this file.
    pub(crate) fn make_unopenable(&self, name: &str) {
        let mut inner = self.0.lock();
        let inode = inner.names.get(name).copied();
        if let Some(inode) = inode.and_then(|inode| inner.inodes.get_mut(&inode)) {
            inode.unopenable = true;
        }
    }

    /// Makes this file openable again, with the content that it had, as fsck may.
    pub(crate) fn repair(&self, name: &str) {
        let mut inner = self.0.lock();
        let inode = inner.names.get(name).copied();
        if let Some(inode) = inode.and_then(|inode| inner.inodes.get_mut(&inode)) {
            inode.unopenable = false;
        }
    }

    /// Makes opening this file fail as if too many files were open; `None` ends that.
    pub(crate) fn refuse(&self, name: Option<&str>) {
        self.0.lock().refused = name.map(str::to_owned);
    }

    /// Limits the bytes in all files; `None` removes the limit.
    pub(crate) fn set_capacity(&self, capacity: Option<u64>) {
        self.0.lock().capacity = capacity;
    }

    /// Takes away all space, also for overwriting stored bytes, or gives it back.
    pub(crate) fn set_no_space(&self, stuffed: bool) {
        self.0.lock().no_space_at_all = stuffed;
    }

    pub(crate) fn failed_reads(&self) -> u64 {
        self.0.lock().failed_reads
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().bytes()
    }

    /// The total of the bytes written.
    pub(crate) fn written(&self) -> u64 {
        self.0.lock().written
    }

    /// The total of the syncs of files and of the directory.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.current.len() as u64)
            .sum()
    }

    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn damage(&mut self, rng: &mut Rng, name: &str, inode: u64, at: usize, extent: Extent, rot: Damage) {
        if (extent, rot) == (Extent::Whole, Damage::Gone) {
            self.names.remove(name);
            self.durable_names.remove(name);
        } else if (name, rot) == ("meta", Damage::Inode) {
            // A meta file that cannot be opened cannot be replaced either: only fsck repairs that.
            self.damage(rng, name, inode, at, Extent::Whole, Damage::Unreadable);
        } else if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.damage(rng, at, extent, rot);
        }
    }

    /// Begins an operation that changes something.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.dies_after.is_some_and(|last| self.operations > last) {
            true => Err(io::Error::other("the process has died")),
            false => Ok(()),
        }
    }

    /// Checks that a file may grow by `more` bytes.
    fn grow(&self, more: usize) -> io::Result<()> {
        match self.capacity {
            _ if self.no_space_at_all => Err(io::ErrorKind::StorageFull.into()),
            Some(capacity) if more > 0 && self.bytes() + more as u64 > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the file of this name, if the disk can open it.
    fn find(&self, name: &str) -> io::Result<u64> {
        let inode = self.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        match self.inodes.get(&inode) {
            Some(Inode { unopenable: true, .. }) => Err(rustix::io::Errno::UCLEAN.into()),
            _ => Ok(inode),
        }
    }

    /// Checks that a file of this name, if there is one, may be replaced.
    fn replaces(&self, name: &str) -> io::Result<()> {
        match self.find(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}

impl Inode {
    fn damage(&mut self, rng: &mut Rng, at: usize, extent: Extent, rot: Damage) {
        let range = extent.range(at, self.durable.len());
        match rot {
            Damage::Unreadable => return self.bad.push(range),
            Damage::Inode => self.unopenable = true,
            Damage::Gone if extent == Extent::ToEnd => self.durable.truncate(range.start),
            Damage::Garbled if extent == Extent::Bit => self.durable[at] ^= 1u8 << rng.below(8),
            Damage::Garbled => self.durable[range].iter_mut().for_each(|byte| *byte = rng.next() as u8),
            Damage::Zeroed | Damage::Gone => self.durable[range].fill(0),
        }
        // Data that no sync has covered is lost too, because the process is not running.
        self.current = self.durable.clone();
        self.dirty.clear();
    }

    fn crash(&mut self, survives: f64, rng: &mut Rng) {
        let mut stored = std::mem::take(&mut self.durable);
        if self.current.len() > stored.len() && rng.chance(survives) {
            stored.resize(self.current.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.current.len()).min(stored.len());
            if from < to && rng.chance(survives) {
                stored[from..to].copy_from_slice(&self.current[from..to]);
            }
        }
        self.current = stored.clone();
        self.durable = stored;
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Change::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Change::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let found = {
            let mut inner = self.0.lock();
            if inner.refused.as_deref() == Some(name) {
                return Err(rustix::io::Errno::MFILE.into());
            }
            let found = inner.find(name);
            let lost = found.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
            inner.failed_reads += u64::from(lost);
            found
        };
        Ok(MemFile { disk: self.clone(), inode: found? })
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut inner = self.0.lock();
        inner.operate()?;
        inner.grow(0)?;
        inner.replaces(name)?;
        let inode = inner.next_inode;
        inner.next_inode += 1;
        inner.inodes.insert(inode, Inode::default());
        inner.change(Change::Link(name.to_owned(), inode));
        Ok(MemFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operate()?;
        let inode = inner.find(from)?;
        inner.replaces(to)?;
        inner.change(Change::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operate()?;
        inner.find(name)?;
        inner.change(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operate()?;
        inner.syncs += 1;
        inner.pending.clear();
        inner.durable_names = inner.names.clone();
        let linked: BTreeSet<u64> = inner.names.values().copied().collect();
        inner.inodes.retain(|inode, _| linked.contains(inode));
        Ok(())
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inode(self.inode)?.current.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let from = offset as usize;
        let inode = inner.inode(self.inode)?;
        let wanted = from..from + buffer.len();
        if inode.bad.iter().any(|bad| bad.start < wanted.end && wanted.start < bad.end) {
            inner.failed_reads += 1;
            return Err(rustix::io::Errno::IO.into());
        }
        let bytes = &inode.current;
        let bytes = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        inner.operate()?;
        if inner.fail_writes > 0 {
            inner.fail_writes -= 1;
            return Err(rustix::io::Errno::IO.into());
        }
        let len = inner.inode(self.inode)?.current.len();
        inner.grow(to.saturating_sub(len))?;
        inner.written += bytes.len() as u64;
        let garbled = |name: &String| inner.corrupts_writes_to.is_some_and(|prefix| name.starts_with(prefix));
        let garbles = inner.names.iter().any(|(name, inode)| *inode == self.inode && garbled(name));
        let inode = inner.inode(self.inode)?;
        inode.current.resize(len.max(to), 0);
        inode.current[from..to].copy_from_slice(bytes);
        if garbles && from < to {
            inode.current[to - 1] ^= 1;
        }
        // The disk remaps a sector that it could not read when the sector is written.
        inode.bad.retain(|bad| bad.end <= from || bad.start >= to);
        inode.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operate()?;
        let now = inner.inode(self.inode)?.current.len();
        let len = (len as usize).max(now);
        inner.grow(len - now)?;
        inner.inode(self.inode)?.current.resize(len, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operate()?;
        inner.syncs += 1;
        let fails = inner.fail_syncs > 0;
        inner.fail_syncs = inner.fail_syncs.saturating_sub(1);
        let lacks_room = inner.syncs_lack_room;
        let inode = inner.inode(self.inode)?;
        let dirty = std::mem::take(&mut inode.dirty);
        if fails && lacks_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fails {
            return Err(io::Error::other("the disk failed to sync"));
        }
        let len = inode.current.len();
        inode.durable.resize(len, 0);
        for sector in dirty {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(len));
            inode.durable[from..to].copy_from_slice(&inode.current[from..to]);
        }
        Ok(())
    }
}
