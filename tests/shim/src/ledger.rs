//! The ledger: a record of a process's changes to a directory, and of the syncs that confirmed them. The shim
//! writes it before each change, and the test reads it after the process has died.
//!
//! A record is written before its change happens, so a process killed between the two leaves a record without
//! a change, never a change without a record. Only the last record of a thread's last call can be such a one.

/// A record of the ledger. A file is identified by its inode, which a rename does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A file was opened for the first time. Its `size` bytes count as durable.
    Seen { file: u64, size: u64 },
    /// `len` bytes from `offset` on are overwritten. `old` is their previous content, followed by zeros or by
    /// nothing.
    Write { file: u64, offset: u64, len: u64, old: Vec<u8> },
    /// A sync has confirmed the records of the file in the first `upto` bytes of the ledger.
    Sync { file: u64, upto: u64, size: u64 },
    /// A name is given to a new file.
    Create { name: String },
    /// A name changes. The file that had the new name, if there was one, is linked as `saved`.
    Rename { from: String, to: String, saved: String },
    /// A name is removed. Its file is linked as `saved`.
    Unlink { name: String, saved: String },
    /// A sync has confirmed the records of names in the first `upto` bytes of the ledger.
    SyncNames { upto: u64 },
}

impl Record {
    /// The record's bytes: the length of the rest, the kind, three numbers, and the other parts, each after
    /// its length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, numbers, parts): (u8, [u64; 3], Vec<&[u8]>) = match self {
            Record::Seen { file, size } => (0, [*file, *size, 0], vec![]),
            Record::Write { file, offset, len, old } => (1, [*file, *offset, *len], vec![old]),
            Record::Sync { file, upto, size } => (2, [*file, *upto, *size], vec![]),
            Record::Create { name } => (3, [0; 3], vec![name.as_bytes()]),
            Record::Rename { from, to, saved } => {
                (4, [0; 3], vec![from.as_bytes(), to.as_bytes(), saved.as_bytes()])
            }
            Record::Unlink { name, saved } => (5, [0; 3], vec![name.as_bytes(), saved.as_bytes()]),
            Record::SyncNames { upto } => (6, [*upto, 0, 0], vec![]),
        };
        let mut rest = vec![kind];
        numbers.iter().for_each(|number| rest.extend(number.to_le_bytes()));
        for part in parts {
            rest.extend((part.len() as u32).to_le_bytes());
            rest.extend(part);
        }
        let mut bytes = (rest.len() as u32).to_le_bytes().to_vec();
        bytes.extend(rest);
        bytes
    }

    /// Returns the record at the beginning of `bytes`, and its length; `None` if it is torn.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (kind, mut rest) = rest.get(..length)?.split_first()?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let (a, b, c) = (number()?, number()?, number()?);
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(part.to_vec())
        };
        let text = |bytes| String::from_utf8(bytes).ok();
        let record = match kind {
            0 => Record::Seen { file: a, size: b },
            1 => Record::Write { file: a, offset: b, len: c, old: part()? },
            2 => Record::Sync { file: a, upto: b, size: c },
            3 => Record::Create { name: text(part()?)? },
            4 => Record::Rename { from: text(part()?)?, to: text(part()?)?, saved: text(part()?)? },
            5 => Record::Unlink { name: text(part()?)?, saved: text(part()?)? },
            6 => Record::SyncNames { upto: a },
            _ => return None,
        };
        Some((record, 4 + length))
    }
}

/// The current fault mix of the disk. The test writes it, and the shim reads it at every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskFaults {
    /// The duration of a sync.
    pub(crate) sync_ms: u64,
    /// A sync fails with EIO.
    pub(crate) sync_fails: bool,
    /// A write or a new file fails with ENOSPC.
    pub(crate) full: bool,
    /// A sync returns success and does nothing. No correct disk does that; it shows that the tests can fail.
    pub(crate) lies: bool,
    /// A read fails with EIO.
    pub(crate) unreadable: bool,
}

impl DiskFaults {
    /// Returns a line of five numbers.
    pub(crate) fn encode(&self) -> String {
        let flags = [self.sync_fails, self.full, self.lies, self.unreadable].map(u8::from);
        format!("{} {} {} {} {}\n", self.sync_ms, flags[0], flags[1], flags[2], flags[3])
    }

    /// Reads a line of [`DiskFaults::encode`]; any other text means a disk without faults.
    pub(crate) fn decode(text: &str) -> DiskFaults {
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        DiskFaults {
            sync_ms: next(),
            sync_fails: next() == 1,
            full: next() == 1,
            lies: next() == 1,
            unreadable: next() == 1,
        }
    }
}

/// A range of a file, identified by its inode, that the disk cannot read until it is overwritten. The test
/// writes a list of them. The shim reads the list at every read and shortens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableRange {
    pub(crate) file: u64,
    pub(crate) from: u64,
    pub(crate) upto: u64,
}

impl UnreadableRange {
    /// Returns true if it overlaps this range of the file.
    pub(crate) fn meets(&self, file: u64, from: u64, upto: u64) -> bool {
        self.file == file && self.from < upto && from < self.upto
    }

    /// Returns one line for each range.
    pub(crate) fn encode(all: &[UnreadableRange]) -> String {
        all.iter().map(|bad| format!("{} {} {}\n", bad.file, bad.from, bad.upto)).collect()
    }

    /// Reads the lines of [`UnreadableRange::encode`], and ignores other lines.
    pub(crate) fn decode(text: &str) -> Vec<UnreadableRange> {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
            Some(UnreadableRange { file: numbers.next()?, from: numbers.next()?, upto: numbers.next()? })
        };
        text.lines().filter_map(line).collect()
    }
}
