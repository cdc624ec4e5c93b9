//! The disks of running servers: slow, failing or full, or without the unsynced data after the process died
//! (by `tests/shim`). Files can also be damaged while their server is down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use recado_proto::id::NodeId;

use crate::cluster::Cluster;
use crate::ledger::{DiskFaults, Record, UnreadableRange};
use crate::rng::Rng;

/// The unit that a disk writes completely or not at all.
const SECTOR: u64 = 512;

/// The disk of one server.
#[derive(Debug)]
pub(crate) struct Disk {
    data: PathBuf,
    /// The directory of the shim's own files.
    side: PathBuf,
}

/// The kinds of damage to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The newest log: zeros from the middle of its used part.
    LogZeroed,
    /// The newest log: truncated at the middle of its used part.
    LogCut,
    /// The newest log: its first 4 KiB are random bytes.
    LogHead,
    /// The newest log: removed.
    LogGone,
    /// A random log: one sector is random bytes.
    Sector,
    /// The newest snapshot: zeros from its middle. (The newest log, if there is no snapshot.)
    Snapshot,
    /// One slot of meta: random bytes.
    MetaSlot,
    /// The newest log: unreadable (EIO) from the middle of its used part.
    LogUnreadable,
    /// The newest snapshot: unreadable from its middle. (The newest log, if there is no snapshot.)
    SnapshotUnreadable,
    /// One slot of meta: unreadable.
    MetaUnreadable,
    /// The file `meta`: removed.
    MetaGone,
    /// The whole disk: replaced by an empty one.
    Everything,
}

impl Damage {
    /// The kinds in which the data stays but cannot be read.
    pub(crate) const UNREADABLE: [Damage; 3] =
        [Damage::LogUnreadable, Damage::SnapshotUnreadable, Damage::MetaUnreadable];
    pub(crate) const ALL: [Damage; 9] = [
        Damage::LogZeroed,
        Damage::LogCut,
        Damage::LogHead,
        Damage::LogGone,
        Damage::Sector,
        Damage::Snapshot,
        Damage::MetaSlot,
        Damage::MetaGone,
        Damage::Everything,
    ];
}

/// The losses of a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PowerCutLoss {
    /// Sectors in an earlier state than the last written one.
    pub(crate) sectors: u64,
    /// Changes of names that were undone.
    pub(crate) names: u64,
}

impl Disk {
    /// Puts the shim in front of a server that does not run.
    pub(crate) fn under(cluster: &mut Cluster, node: NodeId) -> Disk {
        let data = cluster.data(node);
        let side = cluster.dir().join(format!("disk-{node}"));
        fs::create_dir(&side).unwrap();
        let environment = vec![
            ("LD_PRELOAD", shim()),
            ("RECADO_SHIM_DIR", data.clone()),
            ("RECADO_SHIM_SIDE", side.clone()),
        ];
        cluster.set_environment(node, environment);
        Disk { data, side }
    }

    /// Sets the behaviour of the disk.
    pub(crate) fn set(&self, mood: DiskFaults) {
        // The rename is atomic, because the shim may read the file at any time.
        let aside = self.side.join("mood.new");
        fs::write(&aside, mood.encode()).unwrap();
        fs::rename(aside, self.side.join("mood")).unwrap();
    }

    /// The process was killed: all its writes are in the page cache, synced or not, and survive.
    pub(crate) fn process_died(&self) {
        let path = self.side.join("ledger");
        let bytes = fs::read(&path).unwrap_or_default();
        let whole = records(&bytes).last().map_or(0, |(_, end, _)| end);
        if whole < bytes.len() as u64 {
            // A torn record, whose change did not happen. It is cut, so that the records of the next process
            // can be read.
            fs::write(path, &bytes[..whole as usize]).unwrap();
        }
    }

    /// The machine lost power: each sector, length and name that no sync had confirmed survives or is lost
    /// independently.
    pub(crate) fn power_cut(&self, rng: &mut Rng) -> PowerCutLoss {
        let bytes = fs::read(self.side.join("ledger")).unwrap_or_default();
        let pending = Pending::read(&bytes);
        let mut lost = PowerCutLoss::default();
        let inodes = self.inodes();
        for (inode, file) in &pending.files {
            if let Some(path) = inodes.get(inode) {
                lost.sectors += file.undo(path, rng);
            }
        }
        lost.names = pending.undo_names(&self.data, &self.side, rng);
        for entry in fs::read_dir(&self.side).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != "mood" && name != "bad") {
                fs::remove_file(path).unwrap();
            }
        }
        lost
    }

    /// Damages a file of a server that does not run. Returns a description.
    pub(crate) fn rot(&self, rot: Damage, rng: &mut Rng) -> String {
        // The damage hits durable data, so the ledger must not undo any of it.
        let _ = fs::remove_file(self.side.join("ledger"));
        let logs = self.named("log.");
        let newest = logs.last().cloned();
        let change = |path: &Path, change: &mut dyn FnMut(&mut Vec<u8>, usize)| {
            let mut bytes = fs::read(path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            change(&mut bytes, used);
            fs::write(path, &bytes).unwrap();
            format!("{} ({used} bytes used)", path.display())
        };
        let mut noise = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8);
        let told = match (rot, newest) {
            (Damage::LogZeroed, Some(log)) => change(&log, &mut |bytes, used| bytes[used / 2..].fill(0)),
            (Damage::LogCut, Some(log)) => change(&log, &mut |bytes, used| bytes.truncate(used / 2)),
            (Damage::LogHead, Some(log)) => change(&log, &mut |bytes, _| {
                let head = bytes.len().min(4096);
                noise(&mut bytes[..head]);
            }),
            (Damage::LogGone, Some(log)) => {
                fs::remove_file(&log).unwrap();
                log.display().to_string()
            }
            (Damage::Sector, Some(log)) => change(&log, &mut |bytes, used| {
                let sector = (used / 2 / SECTOR as usize) * SECTOR as usize;
                let end = bytes.len().min(sector + SECTOR as usize);
                noise(&mut bytes[sector..end]);
            }),
            (Damage::Snapshot, Some(log)) => {
                let snapshot = self.named("snap.").pop().unwrap_or(log);
                change(&snapshot, &mut |bytes, used| bytes[used / 2..].fill(0))
            }
            (Damage::MetaSlot, _) => {
                let second = rng.chance(0.5);
                let noise = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
                change(&self.data.join("meta"), &mut |bytes, _| {
                    let slot = if second { 4096 } else { 0 };
                    noise(&mut bytes[slot..slot + SECTOR as usize]);
                })
            }
            (Damage::LogUnreadable, Some(log)) => self.make_unreadable(&log),
            (Damage::SnapshotUnreadable, Some(log)) => {
                self.make_unreadable(&self.named("snap.").pop().unwrap_or(log))
            }
            (Damage::MetaUnreadable, _) => {
                let (path, slot) = (self.data.join("meta"), if rng.chance(0.5) { 4096 } else { 0 });
                self.bad(&path, slot, slot + SECTOR)
            }
            (Damage::MetaGone, _) => {
                fs::remove_file(self.data.join("meta")).unwrap();
                "meta".to_owned()
            }
            (Damage::Everything, _) => {
                let all = self.named("");
                all.iter().for_each(|path| fs::remove_file(path).unwrap());
                format!("{} files", all.len())
            }
            (_, None) => panic!("{} has no log", self.data.display()),
        };
        format!("{rot:?}: {told}")
    }

    /// Makes the file unreadable from the block in the middle of its used part.
    fn make_unreadable(&self, path: &Path) -> String {
        let bytes = fs::read(path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        self.bad(path, used / 2 / 4096 * 4096, bytes.len() as u64)
    }

    fn bad(&self, path: &Path, from: u64, upto: u64) -> String {
        let list = self.side.join("bad");
        let mut all = UnreadableRange::decode(&fs::read_to_string(&list).unwrap_or_default());
        all.push(UnreadableRange { file: fs::metadata(path).unwrap().ino(), from, upto });
        // The shim reads at most this many entries. Older ones belong to files that were replaced.
        let oldest = all.len().saturating_sub(8);
        fs::write(list, UnreadableRange::encode(&all[oldest..])).unwrap();
        format!("{} from {from} to {upto}", path.display())
    }

    /// Returns the files whose names begin with `prefix`, ascending.
    fn named(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.data).unwrap().map(|entry| entry.unwrap().path());
        let mut named: Vec<PathBuf> = entries
            .filter(|path| path.is_file())
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
            })
            .collect();
        named.sort();
        named
    }

    /// Returns a path for every inode: its own name, or the shim's link.
    fn inodes(&self) -> BTreeMap<u64, PathBuf> {
        let dirs = [&self.side, &self.data].map(|dir| fs::read_dir(dir).unwrap());
        let paths = dirs.into_iter().flatten().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_file()).map(|path| (fs::metadata(&path).unwrap().ino(), path)).collect()
    }
}

/// Returns the shim's path: cargo puts it beside this test.
fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let shim = test.parent().expect("it lies in a directory").join("librecado_shim.so");
    assert!(shim.exists(), "{} is missing; it is built with this test", shim.display());
    shim
}

/// Returns each record with its begin and its end.
fn records(ledger: &[u8]) -> impl Iterator<Item = (u64, u64, Record)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (record, length) = Record::decode(&ledger[at..])?;
        let begin = at as u64;
        at += length;
        Some((begin, at as u64, record))
    })
}

/// The changes that no sync has confirmed.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeMap<u64, PendingFile>,
    names: Vec<(u64, Record)>,
}

#[derive(Debug, Default)]
struct PendingFile {
    durable_size: u64,
    writes: Vec<PendingWrite>,
}

#[derive(Debug)]
struct PendingWrite {
    at: u64,
    offset: u64,
    len: u64,
    old: Vec<u8>,
}

impl Pending {
    fn read(ledger: &[u8]) -> Pending {
        let mut pending = Pending::default();
        for (at, _, record) in records(ledger) {
            match record {
                Record::Seen { file, size } => {
                    pending
                        .files
                        .entry(file)
                        .or_insert(PendingFile { durable_size: size, writes: Vec::new() });
                }
                Record::Write { file, offset, len, old } => {
                    let write = PendingWrite { at, offset, len, old };
                    pending.files.entry(file).or_default().writes.push(write);
                }
                Record::Sync { file, upto, size } => {
                    let file = pending.files.entry(file).or_default();
                    file.durable_size = size;
                    file.writes.retain(|write| write.at >= upto);
                }
                Record::SyncNames { upto } => pending.names.retain(|(at, _)| *at >= upto),
                name => pending.names.push((at, name)),
            }
        }
        pending
    }

    /// Undoes a random part of the changes of names. Returns the number of undone changes.
    fn undo_names(&self, data: &Path, side: &Path, rng: &mut Rng) -> u64 {
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let mut now: BTreeMap<String, u64> = BTreeMap::new();
        for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                now.insert(entry.file_name().into_string().unwrap(), inode(entry.path()));
            }
        }
        // Goes back to the names that were certainly durable, and records the inode of each change.
        let mut names = now.clone();
        let mut changes = Vec::new();
        for (_, record) in self.names.iter().rev() {
            match record {
                Record::Create { name } => {
                    if let Some(file) = names.remove(name) {
                        changes.push((None, Some((name.clone(), file))));
                    }
                }
                // The process may have died before the last change happened.
                Record::Rename { from, to, saved } if !names.contains_key(from) => {
                    if let Some(file) = names.remove(to) {
                        names.insert(from.clone(), file);
                        changes.push((Some(from.clone()), Some((to.clone(), file))));
                    }
                    if !saved.is_empty() {
                        names.insert(to.clone(), inode(side.join(saved)));
                    }
                }
                Record::Unlink { name, saved } if !names.contains_key(name) && !saved.is_empty() => {
                    names.insert(name.clone(), inode(side.join(saved)));
                    changes.push((Some(name.clone()), None));
                }
                _ => {}
            }
        }
        let mut lost = 0;
        for (old, new) in changes.into_iter().rev() {
            if rng.chance(0.5) {
                lost += 1;
                continue;
            }
            if let Some(old) = old {
                names.remove(&old);
            }
            if let Some((name, file)) = new {
                names.insert(name, file);
            }
        }
        if names != now {
            let kept: BTreeSet<u64> = now.values().chain(names.values()).copied().collect();
            let reached: BTreeMap<u64, PathBuf> = [data, side]
                .iter()
                .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
                .filter(|path| path.is_file())
                .map(|path| (inode(path.clone()), path))
                .filter(|(file, _)| kept.contains(file))
                .collect();
            for (file, path) in reached {
                fs::hard_link(path, side.join(format!("inode.{file}"))).unwrap();
            }
            now.keys().for_each(|name| fs::remove_file(data.join(name)).unwrap());
            for (name, file) in names {
                fs::hard_link(side.join(format!("inode.{file}")), data.join(name)).unwrap();
            }
        }
        lost
    }
}

impl PendingFile {
    /// Sets every sector to its state after a random number of the writes to it. Returns the number of
    /// sectors that lost a write.
    fn undo(&self, path: &Path, rng: &mut Rng) -> u64 {
        let mut bytes = fs::read(path).unwrap();
        let size = bytes.len() as u64;
        let mut sectors: BTreeMap<u64, Vec<&PendingWrite>> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.len > 0) {
            for sector in write.offset / SECTOR..=(write.offset + write.len - 1) / SECTOR {
                sectors.entry(sector).or_default().push(write);
            }
        }
        let (mut lost, mut kept_end) = (0, self.durable_size);
        for (sector, writes) in sectors {
            let keep = rng.below(writes.len() as u64 + 1) as usize;
            lost += u64::from(keep < writes.len());
            let (from, upto) = (sector * SECTOR, (sector + 1) * SECTOR);
            for write in writes[keep..].iter().rev() {
                let (begin, end) = (from.max(write.offset), upto.min(write.offset + write.len));
                if bytes.len() < end as usize {
                    bytes.resize(end as usize, 0);
                }
                for at in begin..end {
                    bytes[at as usize] = write.old.get((at - write.offset) as usize).copied().unwrap_or(0);
                }
            }
            if keep > 0 {
                kept_end = kept_end.max(upto.min(size));
            }
        }
        // A length that no sync confirmed may be lost too. The file then ends after the last kept write.
        if kept_end != bytes.len() as u64 && rng.chance(0.5) {
            bytes.resize(kept_end as usize, 0);
        }
        fs::write(path, bytes).unwrap();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory and its disk, without a server.
    fn disk() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk { data: dir.path().join("data"), side: dir.path().join("side") };
        fs::create_dir(&disk.data).unwrap();
        fs::create_dir(&disk.side).unwrap();
        (dir, disk)
    }

    fn ledger(disk: &Disk, records: &[Record]) -> Vec<u64> {
        let mut bytes = Vec::new();
        let mut begins = Vec::new();
        for record in records {
            begins.push(bytes.len() as u64);
            bytes.extend(record.encode());
        }
        fs::write(disk.side.join("ledger"), bytes).unwrap();
        begins
    }

    /// The contents of the directory after many power cuts from the same state.
    fn outcomes(prepare: impl Fn(&Disk)) -> BTreeSet<Vec<(String, Vec<u8>)>> {
        let cut = |seed| {
            let (_dir, disk) = disk();
            prepare(&disk);
            disk.power_cut(&mut Rng::seeded(seed));
            let files = disk.named("").into_iter();
            let read = |path: PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read(path).unwrap())
            };
            files.map(read).collect::<Vec<_>>()
        };
        (0..64).map(cut).collect()
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_survives_or_does_not() {
        let found = outcomes(|disk| {
            let path = disk.data.join("log");
            fs::write(&path, b"syncedBOTH").unwrap();
            let file = fs::metadata(path).unwrap().ino();
            let first = Record::Write { file, offset: 0, len: 10, old: Vec::new() };
            let upto = first.encode().len() as u64;
            let second = Record::Write { file, offset: 6, len: 4, old: b"both".to_vec() };
            ledger(disk, &[first, Record::Sync { file, upto, size: 10 }, second]);
        });
        let log = |bytes: &[u8]| vec![("log".to_owned(), bytes.to_vec())];
        assert_eq!(found, [log(b"syncedBOTH"), log(b"syncedboth")].into());
    }

    #[test]
    fn a_write_after_the_sync_began_is_not_confirmed_by_it() {
        let found = outcomes(|disk| {
            let path = disk.data.join("log");
            fs::write(&path, b"new").unwrap();
            let file = fs::metadata(path).unwrap().ino();
            let write = Record::Write { file, offset: 0, len: 3, old: b"old".to_vec() };
            ledger(disk, &[Record::Seen { file, size: 3 }, write, Record::Sync { file, upto: 0, size: 3 }]);
        });
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_name_that_was_not_synced_is_the_new_one_or_the_old_one() {
        let found = outcomes(|disk| {
            fs::write(disk.side.join("saved.0"), b"old").unwrap();
            fs::write(disk.data.join("meta"), b"new").unwrap();
            let [from, to, saved] = ["tmp.meta", "meta", "saved.0"].map(str::to_owned);
            ledger(disk, &[Record::Rename { from, to, saved }]);
        });
        let name = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
        let undone = vec![name("meta", b"old"), name("tmp.meta", b"new")];
        assert_eq!(found, [vec![name("meta", b"new")], undone].into());
    }

    #[test]
    fn a_removed_file_may_come_back_and_a_made_one_may_go() {
        let found = outcomes(|disk| {
            fs::write(disk.side.join("saved.0"), b"gone").unwrap();
            fs::write(disk.data.join("new"), b"made").unwrap();
            let [name, saved] = ["old", "saved.0"].map(str::to_owned);
            ledger(disk, &[Record::Unlink { name, saved }, Record::Create { name: "new".to_owned() }]);
        });
        assert_eq!(found.len(), 4, "{found:?}");
    }

    #[test]
    fn a_torn_record_is_none() {
        let record = Record::Write { file: 7, offset: 1, len: 2, old: vec![3, 4] };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Some((record, bytes.len())));
        assert!((0..bytes.len()).all(|length| Record::decode(&bytes[..length]).is_none()));
    }
}
