//! Store: the files of a device, which outlive the process that uses it.
//!
//! ```text
//! <state>/<cluster id>/<profile>/     one installation of one profile in one cluster
//!     lock                            held while the key is made
//!     key                             0600: a line with 32 random bytes in hexadecimal, the x25519 secret
//!     slot-0/ ... slot-15/            one device each
//!         lock                        flock, held while a process uses the device
//!         outbox                      the position that admitted it, its highest number and unanswered
//!                                     requests: a log of their changes ([`outbox`])
//!         cursor                      its cursor: a line with a position
//! ```
//!
//! A line has a version and a CRC-32C ([`format`](super::format)). A position is `GROUP EPOCH GENERATION OP`,
//! with 5, 20, 10 and 20 digits; all but the op are zero. A position with another group, epoch or generation
//! is refused as of another version. So is an `outbox` with an unknown change: if this program ignored it, it
//! would send another request than the stored one.
//!
//! A cluster created anew has a new id, so its devices start anew beside the old ones. A request is durably
//! in the `outbox` before its first datagram is sent. The cursor is overwritten in place, in one write within
//! one sector, and never synced: it must survive the process, and a power cut only repeats what was read.
//! Both files have a checksum: bit rot in a nonce would turn an applied request into another one, and bit rot
//! in a body would change the text. A client without files has the lock alone in its slot.
//!
//! The device key is the public half of `key`: the handshake proves to the servers that this device holds the
//! private half.

mod change;
mod examined;
mod files;
mod key;
mod outbox;
mod reset;
#[cfg(test)]
mod tests;
mod token;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recado_sys::sync::{self, Mutex};

use recado_proto::id::{ClusterId, DeviceId, DeviceKey, Moment, Name, Op};
use recado_proto::noise;
use recado_proto::seal::Key;
use recado_sys::clock::MachineClock;

use self::files::{lock_slot, make_private, open};
use self::key::device_key;
use super::error::{StoreError, StoreOp};
use super::format::{self, Unreadable};

pub use self::examined::Installation;
pub(super) use self::files::{at, make_dir, read_text, replace, unreadable, wait_for_lock};
pub(super) use self::key::{put_key, read_key};
pub(super) use self::outbox::{NotKept, Outbox, read_outbox};
pub use self::reset::DeviceReset;
pub(super) use self::token::Token;

/// Devices of one installation, and so the number of processes that can run as one profile at a time.
pub(super) const SLOTS: u8 = 16;

/// The interval between attempts to take a slot while all are in use. A short command takes less.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The file of the installation's key, beside its slots.
const KEY: &str = "key";

/// The file of a device's outbox, in its slot.
pub(super) const OUTBOX: &str = "outbox";

/// The file of a device's cursor, in its slot.
const CURSOR: &str = "cursor";

const CURSOR_CURE: &str = "delete it: the servers remember how far this device has read, at most a second behind, and \
     what it read in that second comes once more";

/// A device, locked for this process until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    dir: PathBuf,
    device: DeviceId,
    /// The private half of the installation's key.
    private: Key,
    cursor: Mutex<CursorFile>,
    /// The system unlocks it when the file is closed, also after a crash.
    _lock: File,
}

#[derive(Debug)]
struct CursorFile {
    /// None if the client keeps no files.
    file: Option<File>,
    op: Option<Op>,
}

impl Slot {
    /// Takes the first free slot of the installation under `state`, creating it if necessary. See
    /// [`once_free`].
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub(super) fn take(
        state: &Path,
        cluster: ClusterId,
        profile: &Name,
    ) -> Result<(Slot, Outbox), StoreError> {
        Slot::take_first(state, cluster, profile, 0..SLOTS, with_files)
    }

    /// Takes a free slot for a client that only sends: one with unanswered requests, which it settles, if
    /// there is any, and else the first. A client that receives takes the first in any case, for its cursor.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub(super) fn take_to_send(
        state: &Path,
        cluster: ClusterId,
        profile: &Name,
    ) -> Result<(Slot, Outbox), StoreError> {
        let installation = installation(state, cluster, profile);
        let (left, others): (Vec<u8>, Vec<u8>) =
            (0..SLOTS).partition(|slot| has_unanswered(&slot_dir(&installation, *slot)));
        Slot::take_first(state, cluster, profile, left.into_iter().chain(others), with_files)
    }

    /// Takes the last free slot that no client with files has used, for a client without: files that did not
    /// know its numbers would pass for those of a copy. Of its files the slot gets the lock alone.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub(super) fn take_without_files(
        state: &Path,
        cluster: ClusterId,
        profile: &Name,
    ) -> Result<(Slot, Outbox), StoreError> {
        Slot::take_first(state, cluster, profile, (0..SLOTS).rev(), |dir| {
            let free = !dir.join(OUTBOX).exists();
            Ok(free.then(|| (Outbox::in_memory(), CursorFile { file: None, op: None })))
        })
    }

    fn take_first(
        state: &Path,
        cluster: ClusterId,
        profile: &Name,
        slots: impl Iterator<Item = u8>,
        open: impl Fn(&Path) -> Result<Option<(Outbox, CursorFile)>, StoreError>,
    ) -> Result<(Slot, Outbox), StoreError> {
        let installation = installation(state, cluster, profile);
        make_dir(&installation)?;
        let private = device_key(&installation)?;
        // The directories above these two are the application's.
        for dir in installation.ancestors().take(2) {
            make_private(dir)?;
        }
        let key = DeviceKey(noise::public(&private));
        for slot in slots {
            let dir = slot_dir(&installation, slot);
            make_dir(&dir)?;
            let read = || {
                make_private(&dir)?;
                open(&dir)
            };
            let (lock, opened) = match sync::locked(|| lock_slot(&dir), read) {
                Err(StoreError::InUse(_)) => continue,
                taken => taken?,
            };
            let Some((outbox, cursor)) = opened else { continue };
            let cursor = Mutex::new(cursor);
            let device = DeviceId { key, slot };
            return Ok((Slot { dir, device, private, cursor, _lock: lock }, outbox));
        }
        Err(StoreError::NoSlot(installation))
    }

    /// The device's id.
    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// The private half of the installation's key.
    pub(super) fn private(&self) -> &Key {
        &self.private
    }

    /// The directory of the slot's files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns true if another slot, which no process uses, has unanswered requests: a client that only sends
    /// takes it.
    pub(super) fn has_unsettled_neighbour(&self) -> bool {
        let all = self.dir.parent().into_iter().flat_map(slots);
        all.filter(|slot| has_unanswered(slot)).any(|slot| lock_slot(&slot).is_ok())
    }

    /// The path of the installation's key.
    pub(super) fn key(&self) -> PathBuf {
        self.dir.with_file_name(KEY)
    }

    /// The device's cursor, as far as this machine knows.
    pub(super) fn cursor(&self) -> Option<Op> {
        self.cursor.lock().op
    }

    /// Moves the cursor forward, never back. On return it is in the page cache: it survives the process, not
    /// a power failure.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the cursor has not moved.
    pub(super) fn save_cursor(&self, op: Op) -> Result<(), StoreError> {
        let mut cursor = self.cursor.lock();
        match cursor.op {
            Some(old) if old >= op => Ok(()),
            _ => cursor.write(op, &self.dir),
        }
    }

    /// Sets the cursor to the one that the servers remember, also backwards: the old one does not belong to
    /// their log.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the cursor has not moved.
    pub(super) fn set_cursor(&self, op: Op) -> Result<(), StoreError> {
        self.cursor.lock().write(op, &self.dir)
    }
}

/// Opens the files of a slot.
fn with_files(dir: &Path) -> Result<Option<(Outbox, CursorFile)>, StoreError> {
    Ok(Some((Outbox::open(dir.join(OUTBOX))?, CursorFile::open(&dir.join(CURSOR))?)))
}

/// Returns true if a slot's outbox has unanswered requests. What cannot be read is reported when it is used.
fn has_unanswered(slot: &Path) -> bool {
    read_outbox(&slot.join(OUTBOX)).is_ok_and(|kept| !kept.unanswered.is_empty())
}

/// The installation's private key, which must be there.
///
/// # Errors
/// [`StoreError::NoKey`], or the key cannot be read.
pub(super) fn existing_key(
    installation: &Path,
    cluster: ClusterId,
    profile: &Name,
) -> Result<Key, StoreError> {
    let no_key = || StoreError::NoKey { cluster, profile: profile.clone() };
    Ok(Key::new(read_key(installation)?.ok_or_else(no_key)?))
}

/// Calls `take` until a slot is free, at most until `until`.
///
/// # Errors
/// [`StoreError::NoSlot`] when the time is over; any other [`StoreError`] at once.
pub(super) fn once_free<T>(
    clock: MachineClock,
    until: Moment,
    mut take: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    loop {
        match take() {
            Err(StoreError::NoSlot(_)) if clock.now() < until => {
                // `flock` cannot wait for the first of several locks to become free.
                sync::thread::park_timeout(TRY_AGAIN);
            }
            taken => return taken,
        }
    }
}

impl CursorFile {
    fn open(path: &Path) -> Result<CursorFile, StoreError> {
        let file = open(path, CURSOR_CURE)?;
        Ok(CursorFile { file: Some(file), op: read_cursor(path)? })
    }

    fn write(&mut self, op: Op, dir: &Path) -> Result<(), StoreError> {
        if let Some(file) = &self.file {
            let written = file.write_all_at(format::line(&position(op)).as_bytes(), 0);
            written.map_err(at(StoreOp::Write, &dir.join(CURSOR)))?;
        }
        self.op = Some(op);
        Ok(())
    }
}

/// The cursor in a file; none if it is empty or there is none.
fn read_cursor(path: &Path) -> Result<Option<Op>, StoreError> {
    match read_text(path, CURSOR_CURE)?.as_deref() {
        None | Some("") => Ok(None),
        Some(line) => {
            format::read_line(line).and_then(read_position).map(Some).map_err(unreadable(path, CURSOR_CURE))
        }
    }
}

/// An op as the files write it: its position in the first epoch of the first group. All positions have one
/// length, so that one overwrites another completely.
fn position(op: Op) -> String {
    format!("{:05} {:020} {:010} {:020}", 0, 0, 0, op.0)
}

/// Reads an op that [`position`] wrote. A later program may write a position of another group, epoch or
/// generation, whose op means nothing here.
fn read_position(text: &str) -> Result<Op, Unreadable> {
    let mut words = text.split(' ');
    let mut number = |digits: usize| {
        let word = words.next().filter(|word| word.len() == digits)?;
        word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse::<u64>().ok()).flatten()
    };
    let numbers = [number(5), number(20), number(10), number(20)];
    match (numbers, words.next()) {
        ([Some(0), Some(0), Some(0), Some(op)], None) => Ok(Op(op)),
        ([Some(_), Some(_), Some(_), Some(_)], None) => Err(Unreadable::OtherVersion(format::VERSION + 1)),
        _ => Err(Unreadable::Damaged),
    }
}

/// The path of an installation's key.
pub(super) fn key_path(installation: &Path) -> PathBuf {
    installation.join(KEY)
}

/// The directory of an installation's files.
pub(super) fn installation(state: &Path, cluster: ClusterId, profile: &Name) -> PathBuf {
    state.join(cluster.to_string()).join(profile.as_str())
}

/// The directories of its devices.
fn slots(installation: &Path) -> impl Iterator<Item = PathBuf> {
    (0..SLOTS).map(|slot| slot_dir(installation, slot))
}

fn slot_dir(installation: &Path, slot: u8) -> PathBuf {
    installation.join(format!("slot-{slot}"))
}
