//! A disk in memory that forgets what was not synced, when the power goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recado::journal::{Disk, DiskFile};

use crate::rng::Rng;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// A directory on it. Clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<Inner>>);

/// An open file.
#[derive(Debug)]
pub struct MemFile {
    disk: MemDisk,
    id: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// What every name stands for, as programs see it.
    names: BTreeMap<String, u64>,
    /// The same after the last sync of the directory.
    durable_names: BTreeMap<String, u64>,
    /// What the directory was after each change since then.
    changes: Vec<BTreeMap<String, u64>>,
    files: BTreeMap<u64, File>,
    made: u64,
    /// Writes and syncs left until everything fails.
    fails_in: Option<u32>,
}

#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl MemDisk {
    /// The power goes: of what was not synced, any part of it may be there afterwards, by sectors;
    /// of the directory's changes, the first so many.
    pub fn lose_power(&self, rng: &mut Rng) {
        let mut inner = self.inner();
        let kept = rng.below(inner.changes.len() as u64 + 1) as usize;
        let names = match kept.checked_sub(1) {
            Some(last) => inner.changes[last].clone(),
            None => inner.durable_names.clone(),
        };
        inner.names = names;
        let keep = [0, 500, 1000][rng.below(3) as usize];
        for file in inner.files.values_mut() {
            file.lose_power(rng, keep);
        }
        inner.settle_directory();
    }

    /// Everything on it is gone.
    pub fn wipe(&self) {
        *self.inner() = Inner::default();
    }

    /// After so many more writes and syncs everything fails; `None`: never.
    pub fn fail_in(&self, operations: Option<u32>) {
        self.inner().fails_in = operations;
    }

    /// Flips a bit of what is stored in the log, at times in a snapshot or in meta. Says where.
    pub fn flip(&self, rng: &mut Rng) -> Option<String> {
        let mut inner = self.inner();
        let prefix = match rng.below(20) {
            0 => "meta",
            1 | 2 => "snap.",
            _ => "log.",
        };
        let of_kind = |(name, id): (&String, &u64)| name.starts_with(prefix).then(|| (name.clone(), *id));
        let (name, id) = inner.names.iter().filter_map(of_kind).next_back()?;
        let file = inner.files.get_mut(&id)?;
        let end = file.bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
        let start = if rng.chance(700) { end.saturating_sub(3_000) } else { 0 };
        let at = rng.range(start, end - 1) as usize;
        let bit = 1 << rng.below(8);
        file.bytes[at] ^= bit;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= bit;
        }
        Some(format!("{name} at {at} of {end}"))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner) -> io::Result<()>) -> io::Result<()> {
        let mut inner = self.inner();
        inner.may_fail()?;
        change(&mut inner)?;
        let names = inner.names.clone();
        inner.changes.push(names);
        Ok(())
    }
}

impl Inner {
    fn may_fail(&mut self) -> io::Result<()> {
        match &mut self.fails_in {
            Some(0) => Err(io::Error::other("the disk has failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn settle_directory(&mut self) {
        self.changes.clear();
        self.durable_names = self.names.clone();
        let kept: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| kept.contains(id));
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl File {
    fn lose_power(&mut self, rng: &mut Rng, keep: u64) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let mut done = 0;
            while done < bytes.len() {
                let at = offset + done as u64;
                let piece = ((SECTOR - at % SECTOR) as usize).min(bytes.len() - done);
                if rng.chance(keep) {
                    put(&mut self.durable, at as usize, &bytes[done..done + piece]);
                }
                done += piece;
            }
        }
        self.bytes.clone_from(&self.durable);
    }
}

fn put(into: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if into.len() < at + bytes.len() {
        into.resize(at + bytes.len(), 0);
    }
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Disk for MemDisk {
    type File = MemFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let id = self.inner().id(name)?;
        Ok(MemFile { disk: self.clone(), id })
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut made = 0;
        self.change(|inner| {
            inner.made += 1;
            made = inner.made;
            inner.files.insert(made, File::default());
            inner.names.insert(name.to_owned(), made);
            Ok(())
        })?;
        Ok(MemFile { disk: self.clone(), id: made })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|inner| {
            let id = inner.id(from)?;
            inner.names.remove(from);
            inner.names.insert(to.to_owned(), id);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|inner| {
            inner.id(name)?;
            inner.names.remove(name);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.may_fail()?;
        inner.settle_directory();
        Ok(())
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner().file(self.id)?.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let bytes = &inner.file(self.id)?.bytes;
        let start = offset as usize;
        let from = bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.may_fail()?;
        let file = inner.file(self.id)?;
        put(&mut file.bytes, offset as usize, bytes);
        file.unsynced.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.may_fail()?;
        let file = inner.file(self.id)?;
        if (file.bytes.len() as u64) < len {
            file.bytes.resize(len as usize, 0);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.may_fail()?;
        let file = inner.file(self.id)?;
        for (offset, bytes) in std::mem::take(&mut file.unsynced) {
            put(&mut file.durable, offset as usize, &bytes);
        }
        file.durable.resize(file.bytes.len(), 0);
        Ok(())
    }
}
