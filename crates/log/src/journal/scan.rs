//! Scan of a log file: reads its records block by block. No file is held whole, however long it is, and
//! parts that the disk cannot read or open count as damage.

use recado_proto::entry::Entry;
use recado_proto::id::Op;

use super::error::{IoOp, JournalError, Trying, error_of, is_rot};
use super::record::{ALIGN, HEADER, Record, Unread, other_version};
use super::{Disk, DiskFile, format, log_name};

/// The longest record in bytes.
const RECORD_MAX: u64 = (HEADER + Entry::PAYLOAD_MAX).next_multiple_of(ALIGN) as u64;
/// Bytes read at a time: several of the longest records.
const BLOCK: u64 = 256 * 1024;
const _: () = assert!(BLOCK >= 4 * RECORD_MAX);
/// If a block cannot be read, its pages are read one by one.
const PAGE: u64 = 4096;

/// The valid records of one log file, in file order, also beyond bad bytes.
pub(super) struct Records<F> {
    /// `None` if the disk cannot open the file.
    file: Option<F>,
    /// The first serial, from the file's name.
    first: u64,
    /// Payloads of entries up to this op are left empty, because a snapshot covers them.
    skip: Op,
    len: u64,
    /// The offset at which the next record may begin.
    at: u64,
    /// The bytes held of the file, and their offset in it.
    block: Vec<u8>,
    begin: u64,
    /// Unreadable pages before this offset are counted already.
    paged: u64,
    /// The end of the last valid record.
    pub(super) used: u64,
    /// Bytes that are neither zero nor part of a valid record, or that cannot be read.
    pub(super) bad: u64,
}

impl<F: DiskFile> Records<F> {
    /// Opens the log file that begins with serial `first`. A file that the disk cannot open has no records.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, first: u64, skip: Op) -> Result<Self, JournalError> {
        let opened = disk.open(&log_name(first)).and_then(|file| Ok((file.len()?, file)));
        let (len, file) = match opened {
            Err(error) if is_rot(&error) => (0, None),
            opened => opened.during(IoOp::Read).map(|(len, file)| (len, Some(file)))?,
        };
        Ok(Records { file, first, skip, len, at: 0, block: Vec::new(), begin: 0, paged: 0, used: 0, bad: 0 })
    }

    /// Returns true if the disk can open the file.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// The length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The record at the start of the file, which is the segment's start record.
    pub(super) fn head(&mut self) -> Result<Option<Record>, JournalError> {
        self.fill()?;
        Ok(Record::decode(self.first, &self.block, self.skip).ok().map(|(record, _)| record))
    }

    /// Refuses a file whose first record is of another version, or one that this program does not follow.
    pub(super) fn check_version(&mut self) -> Result<(), JournalError> {
        self.fill()?;
        if let Some(found) = other_version(self.first, &self.block) {
            return Err(format::other_version(&log_name(self.first), found));
        }
        match Record::decode(self.first, &self.block, self.skip) {
            Err(Unread::Unsupported) => Err(JournalError::Unsupported),
            Ok(_) | Err(Unread::Damaged) => Ok(()),
        }
    }

    /// The next valid record.
    ///
    /// # Errors
    /// [`JournalError::Unsupported`] if a record that this program does not follow comes next. Behind bad
    /// bytes it counts as bad bytes too: it may be in a payload, which a client has chosen.
    pub(super) fn next(&mut self) -> Result<Option<Record>, JournalError> {
        while self.at + HEADER as u64 <= self.len {
            self.fill()?;
            let bytes = &self.block[(self.at - self.begin) as usize..];
            match Record::decode(self.first, bytes, self.skip) {
                Ok((record, len)) => {
                    self.at += len as u64;
                    self.used = self.at;
                    return Ok(Some(record));
                }
                Err(Unread::Unsupported) if self.at == self.used => return Err(JournalError::Unsupported),
                Err(_) => {}
            }
            match bytes.iter().position(|byte| *byte != 0) {
                Some(zeros) => {
                    self.bad += bytes.iter().take(ALIGN).filter(|byte| **byte != 0).count() as u64;
                    self.at = before(self.at + zeros as u64, self.at);
                }
                None => {
                    let end = self.begin + self.block.len() as u64;
                    let data = match &self.file {
                        // If the disk cannot report its holes, they are read.
                        Some(file) if end < self.len => {
                            file.data_from(end).or_else(|error| match is_rot(&error) {
                                true => Ok(Some(end)),
                                false => Err(error_of(IoOp::Read, error)),
                            })?
                        }
                        _ => None,
                    };
                    self.at = data.map_or(self.len, |data| before(data.max(end), self.at));
                }
            }
        }
        Ok(None)
    }

    /// Ensures that the block holds the longest possible record from `at` on, or the rest of the file.
    fn fill(&mut self) -> Result<(), JournalError> {
        let end = self.begin + self.block.len() as u64;
        if (self.at + RECORD_MAX).min(self.len) <= end {
            return Ok(());
        }
        let Some(file) = &self.file else { return Ok(()) };
        self.begin = self.at - self.at % PAGE;
        self.block.resize((self.len - self.begin).min(BLOCK) as usize, 0);
        match file.read_at(self.begin, &mut self.block) {
            Err(error) if is_rot(&error) => self.read_pages(),
            read => read.during(IoOp::Read),
        }
    }

    /// Reads the readable pages of the block. An unreadable page becomes zeros, which are no record.
    fn read_pages(&mut self) -> Result<(), JournalError> {
        let Some(file) = &self.file else { return Ok(()) };
        for (at, page) in (self.begin..).step_by(PAGE as usize).zip(self.block.chunks_mut(PAGE as usize)) {
            match file.read_at(at, page) {
                Ok(()) => {}
                Err(error) if is_rot(&error) => {
                    page.fill(0);
                    if at >= self.paged {
                        self.bad += page.len() as u64;
                        let name = log_name(self.first);
                        tracing::error!(name, at, %error, "the disk cannot read the log here: check the disk");
                    }
                }
                Err(error) => return Err(error_of(IoOp::Read, error)),
            }
            self.paged = self.paged.max(at + page.len() as u64);
        }
        Ok(())
    }
}

/// The offset after `now` at which to look for the next record, if everything up to `data` is zero: a header
/// is never all zero.
fn before(data: u64, now: u64) -> u64 {
    let earliest = data.saturating_sub(HEADER as u64).next_multiple_of(ALIGN as u64);
    earliest.max(now + ALIGN as u64)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use recado_proto::entry::EntryKind;
    use recado_proto::id::View;

    use super::super::record::Body;
    use super::*;

    /// A disk that holds one log file, and the file itself. It counts the reads.
    #[derive(Clone)]
    struct OneLog {
        bytes: Arc<[u8]>,
        reads: Arc<AtomicUsize>,
    }

    fn refused<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    impl Disk for OneLog {
        type File = OneLog;

        fn list(&self) -> io::Result<Vec<String>> {
            Ok(vec![log_name(1)])
        }

        fn open(&self, _: &str) -> io::Result<OneLog> {
            Ok(self.clone())
        }

        fn create(&self, _: &str) -> io::Result<OneLog> {
            refused()
        }

        fn rename(&self, _: &str, _: &str) -> io::Result<()> {
            refused()
        }

        fn remove(&self, _: &str) -> io::Result<()> {
            refused()
        }

        fn sync(&self) -> io::Result<()> {
            refused()
        }
    }

    impl DiskFile for OneLog {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }

        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            refused()
        }

        fn allocate(&mut self, _: u64) -> io::Result<()> {
            refused()
        }

        fn sync(&mut self) -> io::Result<()> {
            refused()
        }
    }

    /// Appends an entry with a payload of 40 bytes.
    fn append(serial: u64, bytes: &mut Vec<u8>) {
        let body = Body::Entry { kind: EntryKind::Command, payload: vec![7; 40].into() };
        let (op, view) = (Op(serial), View(1 << 16 | 1));
        Record { serial, durable: 1, commit: Op::ZERO, op, view, body }.encode(1, bytes);
    }

    /// What a scan of a file finds.
    #[derive(Debug, PartialEq, Eq)]
    struct Scanned {
        serials: Vec<u64>,
        used: u64,
        bad: u64,
        reads: usize,
    }

    fn scan(bytes: Vec<u8>) -> Scanned {
        let disk = OneLog { bytes: bytes.into(), reads: Arc::default() };
        let mut records = Records::open(&disk, 1, Op::ZERO).unwrap();
        let mut serials = Vec::new();
        while let Some(record) = records.next().unwrap() {
            serials.push(record.serial);
        }
        Scanned { serials, used: records.used, bad: records.bad, reads: disk.reads.load(Ordering::Relaxed) }
    }

    #[test]
    fn a_log_that_fits_into_a_block_is_read_once() {
        let mut bytes = Vec::new();
        (1..=100).for_each(|serial| append(serial, &mut bytes));
        let used = bytes.len() as u64;
        let serials: Vec<u64> = (1..=100).collect();
        assert_eq!(scan(bytes.clone()), Scanned { serials: serials.clone(), used, bad: 0, reads: 1 });
        bytes.resize(BLOCK as usize, 0);
        assert_eq!(scan(bytes), Scanned { serials, used, bad: 0, reads: 1 }, "with room at its end");
    }

    #[test]
    fn a_record_is_found_behind_any_number_of_zeros_and_every_other_byte_counts_as_bad() {
        let block = BLOCK as usize;
        for zeros in [8, 16, 40, 48, 56, 64, 72, 120, 4096, block - 8, block, block + 8, 3 * block] {
            for dirty in [false, true] {
                let mut bytes = Vec::new();
                append(1, &mut bytes);
                let (first, last) = (bytes.len(), bytes.len() + zeros - 1);
                bytes.resize(last + 1, 0);
                if dirty {
                    (bytes[first], bytes[last]) = (1, 1);
                }
                append(2, &mut bytes);
                let len = bytes.len() as u64;
                let Scanned { serials, used, bad, .. } = scan(bytes);
                let expected = (vec![1, 2], len, if dirty { 2 } else { 0 });
                assert_eq!((serials, used, bad), expected, "{zeros} zeros, dirty {dirty}");
            }
        }
    }
}
