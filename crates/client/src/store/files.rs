//! The files of a client: how they are read, replaced and locked, and the errors with their cures.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use recado_sys::durable;
use recado_sys::sync;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{StoreError, StoreOp};
use crate::format::{self, Unreadable};

/// No file is longer. An outbox holds at most 256 unanswered requests of some 24 KiB after it was compacted,
/// grows by as much, and by the 256 of a last turn.
pub(super) const FILE_MAX: u64 = 64 << 20;

/// The cure if another kind of file is in a lock's place.
const LOCK_CURE: &str = "delete it: a lock file has no content";

/// Reads a file; none if there is no file. One that is too long is damaged.
pub(super) fn read(path: &Path, cure: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
    sync::step();
    match durable::read(path, FILE_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(StoreError::Damaged { path: path.to_owned(), cure })
        }
        Err(error) => Err(opening(StoreOp::Read, path, cure)(error)),
    }
}

/// Reads a text file; none if there is no file. A file that is not UTF-8, or too long, is damaged.
pub(crate) fn read_text(path: &Path, cure: &'static str) -> Result<Option<String>, StoreError> {
    let text = read(path, cure)?.map(String::from_utf8).transpose();
    text.map_err(|_| StoreError::Damaged { path: path.to_owned(), cure })
}

/// Replaces a file whole or not at all, durably. Only its owner may read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    sync::step();
    durable::replace(path, bytes).map_err(at(StoreOp::Write, path))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    durable::make_dir(path).map_err(|source| StoreError::NoDirectory { path: path.to_owned(), source })
}

/// Removes the rights of other users to a device's directory and files, which an earlier version or a copying
/// program may have left. A key that other users can read is refused instead
/// ([`read_key`](super::read_key)): they may have read it.
pub(super) fn make_private(dir: &Path) -> Result<(), StoreError> {
    let mended = durable::make_private(dir)
        .map_err(|durable::Exposed { path, mode, .. }| StoreError::Exposed { path, mode })?;
    if mended > 0 {
        tracing::warn!(dir = %dir.display(), mended, "other users had access to the files of a device; they no longer have it");
    }
    Ok(())
}

pub(super) fn open(path: &Path, cure: &'static str) -> Result<File, StoreError> {
    sync::step();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    durable::open(path, &mut options).map_err(opening(StoreOp::Create, path, cure))
}

/// Opens a lock's file and locks it, waiting until it is free. Closing the file unlocks it.
pub(crate) fn wait_for_lock(path: &Path) -> Result<File, StoreError> {
    let lock = open(path, LOCK_CURE)?;
    sync::flock(&lock).map_err(at(StoreOp::Lock, path))?;
    Ok(lock)
}

/// Takes a slot's lock, if it is free.
///
/// # Errors
/// [`StoreError::InUse`] if another process holds it.
pub(super) fn lock_slot(slot: &Path) -> Result<File, StoreError> {
    let path = slot.join("lock");
    let lock = open(&path, LOCK_CURE)?;
    sync::step();
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(StoreError::InUse(slot.to_owned())),
        Err(error) => Err(at(StoreOp::Lock, &path)(error.into())),
    }
}

/// The error of a file that could not be opened or read; with the cure, if it is not a regular file.
fn opening(op: StoreOp, path: &Path, cure: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match durable::is_not_regular(&source) {
        true => StoreError::NotRegular { path: path.to_owned(), cure },
        false => at(op, path)(source),
    }
}

pub(crate) fn at(op: StoreOp, path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { op, path: path.to_owned(), source }
}

/// The error for a file whose text cannot be read.
pub(crate) fn unreadable(path: &Path, cure: &'static str) -> impl Fn(Unreadable) -> StoreError {
    move |reason| match reason {
        Unreadable::Damaged => StoreError::Damaged { path: path.to_owned(), cure },
        Unreadable::OtherVersion(found) => {
            StoreError::OtherVersion { path: path.to_owned(), found, reads: format::VERSION }
        }
    }
}
