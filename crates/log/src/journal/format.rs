//! The version of the journal's file formats.
//!
//! Every file begins with the name of its kind and a version, and has a checksum that is at the same place
//! in every version. A file of another version therefore differs from a damaged one: its checksum is good.
//! A directory with such a file is not touched; the program that wrote it can read it.

use super::error::JournalError;

/// The version of every file that the journal writes: one digit, so that a dump of a file shows it.
pub(super) const VERSION: u8 = 5;
pub(super) const DIGIT: u8 = b'0' + VERSION;

/// The kinds of files, or of records in them.
pub(super) const META: &[u8; 7] = b"recmeta";
pub(super) const SNAPSHOT: &[u8; 7] = b"recsnap";
pub(super) const RECORD: &[u8; 5] = b"recad";

/// The result of reading a name and a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// The expected kind, in this version.
    Ours,
    /// The expected kind, in another version. It counts only if the checksum is good.
    Other(u8),
    /// Something else.
    None,
}

/// Reads a name and a version.
pub(super) fn read(name: &[u8], found: &[u8]) -> Stamp {
    match found.split_last() {
        Some((version, kind)) if kind == name => match version.wrapping_sub(b'0') {
            VERSION => Stamp::Ours,
            other => Stamp::Other(other),
        },
        _ => Stamp::None,
    }
}

/// The error for a file of another version.
pub(super) fn other_version(file: &str, found: u8) -> JournalError {
    JournalError::OtherVersion { file: file.to_owned(), found, reads: VERSION }
}
