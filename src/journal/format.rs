//! Which version of this format a file is in.
//!
//! Every file begins with a name of its kind and a version, and has a checksum that stands in the same
//! place in every version. So a file of another version is told from a damaged one: its checksum is good.
//! Nothing of such a directory is touched; whoever wrote it reads it.

use super::error::JournalError;

/// The version of everything the journal writes: one digit, so that a dump of a file shows it.
pub(super) const VERSION: u8 = 3;
pub(super) const DIGIT: u8 = b'0' + VERSION;

/// The kinds of files, or of records in them.
pub(super) const META: &[u8; 7] = b"recmeta";
pub(super) const SNAPSHOT: &[u8; 7] = b"recsnap";
pub(super) const RECORD: &[u8; 5] = b"recad";

/// What stands where name and version should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// This kind in this version.
    Ours,
    /// This kind in another version, if the checksum is good.
    Other(u8),
    /// Something else.
    None,
}

/// Reads name and version.
pub(super) fn read(name: &[u8], found: &[u8]) -> Stamp {
    match found.split_last() {
        Some((version, kind)) if kind == name => match version.wrapping_sub(b'0') {
            VERSION => Stamp::Ours,
            other => Stamp::Other(other),
        },
        _ => Stamp::None,
    }
}

/// The refusal of a file of another version.
pub(super) fn other(file: &str, found: u8) -> JournalError {
    JournalError::OtherVersion { file: file.to_owned(), found, reads: VERSION }
}
