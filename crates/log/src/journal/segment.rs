//! The segment: the log file that is being written.

use std::io;

use super::error::is_full;
use super::record::Record;
use super::{Disk, DiskFile, log_name};

/// A segment grows to this first, then doubles until it is a step long.
const SMALLEST: u64 = 64 * 1024;

/// The newest segment. It is grown in steps before it is written, so that a write needs no new blocks and a
/// full disk shows before any byte of a record is written.
pub(super) struct Segment<F> {
    file: F,
    first: u64,
    used: u64,
    allocated: u64,
    step: u64,
}

impl<F: DiskFile> Segment<F> {
    /// Makes the segment that begins with `start`. The file and its name are durable on return.
    ///
    /// # Errors
    /// The error of the disk. If the disk is full, the file is removed: it would prevent the next use of
    /// its serial, and each further attempt would leave another file.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, start: &Record, step: u64) -> io::Result<Segment<F>> {
        match Self::try_create(disk, start, step) {
            Err(error) if is_full(&error) => {
                // If the disk had no room for the name, there is no file to remove.
                match disk.remove(&log_name(start.serial)) {
                    Err(gone) if gone.kind() != io::ErrorKind::NotFound => Err(gone),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    fn try_create<D: Disk<File = F>>(disk: &D, start: &Record, step: u64) -> io::Result<Segment<F>> {
        let file = disk.create(&log_name(start.serial))?;
        let mut segment = Segment { file, first: start.serial, used: 0, allocated: 0, step };
        let mut bytes = Vec::new();
        start.encode(segment.first, &mut bytes);
        segment.reserve(bytes.len())?;
        segment.write(&bytes)?;
        segment.sync()?;
        disk.sync()?;
        Ok(segment)
    }

    /// Its first serial.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Allocates room for `more` bytes. Nothing is written if this fails.
    pub(super) fn reserve(&mut self, more: usize) -> io::Result<()> {
        let end = self.used + more as u64;
        if end > self.allocated {
            // A start that writes little uses little space: only a snapshot removes its segment.
            let len = match end < self.step {
                true => end.next_power_of_two().max(SMALLEST).min(self.step),
                false => end.next_multiple_of(self.step),
            };
            self.file.allocate(len)?;
            self.allocated = len;
        }
        Ok(())
    }

    /// Writes whole records after the last one. The caller has reserved the room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.used, bytes)?;
        self.used += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
