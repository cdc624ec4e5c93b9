//! A disk between `recadod` and its data directory, inserted by `LD_PRELOAD`. It can be slow, fail, be full
//! or be unreadable, and it keeps a ledger. From the ledger a test undoes the changes that no sync had
//! confirmed when the process died.
//!
//! The daemon accesses its files through std, which calls the C library by the names below; this library is
//! found before the C library. It does the real work by direct system calls (rustix's `linux_raw`), so it
//! never calls itself. Two calls bypass it, because the daemon also makes them through rustix: `flock`, which
//! changes nothing, and `fallocate`, which only appends zeros. The ledger has the length of a file at its
//! last sync, so a length that no sync confirmed can be undone all the same.
//!
//! A sync reaches no real disk: the ledger stands for the disk, and the machine that runs the test does not
//! lose power.
//!
//! | variable | |
//! |---|---|
//! | `RECADO_SHIM_DIR` | the directory that is watched; files directly in it, nothing else |
//! | `RECADO_SHIM_SIDE` | an existing directory on the same file system, for `ledger`, `mood` and `bad` |
//!
//! `RECADO_SHIM_SIDE` also gets links to files that lost their name. Without these variables every call
//! passes through unchanged.
//!
//! # Safety
//! The functions have the signatures of the C library's, and their callers keep its contracts: paths end in a
//! zero byte, buffers have the stated length. `open` is variadic in the C library and has a fixed third
//! argument here: on x86-64 and AArch64 Linux both are passed in the same registers, and the argument is used
//! only if the flags show that it was given.

#[allow(dead_code, reason = "shared with the tests, which read what is written here")]
mod ledger;

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ledger::{DiskFaults, Record, UnreadableRange};
use rustix::fs::{Mode, OFlags, Timespec};
use rustix::io::{Errno, Result};

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// The watched directory.
struct Shim {
    inode: u64,
    side: PathBuf,
    ledger: OwnedFd,
    /// The inodes of the files that were opened there. The lock is held during a change, so that the ledger
    /// has the order of the changes.
    files: Mutex<BTreeSet<u64>>,
}

fn shim() -> Option<&'static Shim> {
    SHIM.get_or_init(|| {
        let dir = std::env::var_os("RECADO_SHIM_DIR")?;
        let side = PathBuf::from(std::env::var_os("RECADO_SHIM_SIDE")?);
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        let ledger = rustix::fs::open(side.join("ledger"), flags, Mode::RUSR | Mode::WUSR).ok()?;
        let inode = rustix::fs::stat(&dir).ok()?.st_ino;
        Some(Shim { inode, side, ledger, files: Mutex::default() })
    })
    .as_ref()
}

impl Shim {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the length of the ledger, which is the position of the next record.
    fn length(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.ledger)?.st_size as u64)
    }

    fn note(&self, record: &Record) -> Result<()> {
        let mut bytes = record.encode();
        while !bytes.is_empty() {
            let written = rustix::io::write(&self.ledger, &bytes)?;
            bytes.drain(..written);
        }
        Ok(())
    }

    fn disk_faults(&self) -> DiskFaults {
        // Without the file the disk has no faults.
        self.told("mood").map(|text| DiskFaults::decode(&text)).unwrap_or_default()
    }

    fn bad(&self) -> Vec<UnreadableRange> {
        self.told("bad").map(|text| UnreadableRange::decode(&text)).unwrap_or_default()
    }

    /// Reads a small file that the test writes.
    fn told(&self, name: &str) -> Result<String> {
        let file = rustix::fs::open(self.side.join(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = [0; 1024];
        let length = rustix::io::read(&file, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// The disk remaps sectors that are overwritten, so they can be read again.
    fn mend(&self, file: u64, from: u64, upto: u64) -> Result<()> {
        let bad = self.bad();
        let left: Vec<UnreadableRange> =
            bad.iter().copied().filter(|bad| !bad.meets(file, from, upto)).collect();
        if left.len() == bad.len() {
            return Ok(());
        }
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let list = rustix::fs::open(self.side.join("bad"), flags, Mode::RUSR | Mode::WUSR)?;
        rustix::io::write(&list, UnreadableRange::encode(&left).as_bytes()).map(drop)
    }

    /// Returns the name of the path in the watched directory, if it is directly in it.
    fn name(&self, path: &CStr) -> Option<String> {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inside = rustix::fs::stat(parent).is_ok_and(|parent| parent.st_ino == self.inode);
        inside.then(|| path.file_name()?.to_str().map(str::to_owned)).flatten()
    }

    /// Links the file of this name, if there is one, so that it outlives the loss of its name.
    fn save(&self, path: &CStr) -> Result<String> {
        let saved = format!("saved.{}", self.length()?);
        // A link of a process that was killed before it recorded the change.
        let _ = rustix::fs::unlink(self.side.join(&saved));
        match rustix::fs::link(path, self.side.join(&saved)) {
            Ok(()) => Ok(saved),
            Err(Errno::NOENT) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    fn open(&self, name: String, path: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let mut files = self.lock();
        // The overwritten bytes must be read first.
        let flags = match flags & OFlags::RWMODE {
            OFlags::WRONLY => flags.difference(OFlags::WRONLY) | OFlags::RDWR,
            _ => flags,
        };
        match rustix::fs::stat(path) {
            Ok(there) => {
                let (file, size) = (there.st_ino, there.st_size as u64);
                if files.insert(file) {
                    self.note(&Record::Seen { file, size })?;
                }
                if flags.contains(OFlags::TRUNC) {
                    let there = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                    self.overwrite(there.as_fd(), file, 0, size)?;
                }
            }
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {
                if self.disk_faults().full {
                    return Err(Errno::NOSPC);
                }
                self.note(&Record::Create { name })?;
            }
            Err(error) => return Err(error),
        }
        let opened = rustix::fs::open(path, flags, mode)?;
        let file = rustix::fs::fstat(&opened)?.st_ino;
        if files.insert(file) {
            // The inode number may have belonged to another file.
            self.mend(file, 0, u64::MAX)?;
            self.note(&Record::Seen { file, size: 0 })?;
        }
        Ok(opened)
    }

    /// Records the bytes that will be overwritten.
    fn overwrite(&self, there: BorrowedFd<'_>, file: u64, offset: u64, len: u64) -> Result<()> {
        let mut old = vec![0; len as usize];
        let mut read = 0;
        while read < old.len() {
            match rustix::io::pread(there, &mut old[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        // Zeros at the end are not stored: missing bytes mean the same, and the ledger stays smaller.
        old.truncate(old[..read].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        self.note(&Record::Write { file, offset, len, old })
    }

    fn write(&self, to: BorrowedFd<'_>, bytes: &[u8], offset: Option<u64>) -> Result<usize> {
        let files = self.lock();
        let file = rustix::fs::fstat(to)?.st_ino;
        if files.contains(&file) {
            if self.disk_faults().full {
                return Err(Errno::NOSPC);
            }
            let at = match offset {
                Some(offset) => offset,
                None => rustix::fs::tell(to)?,
            };
            self.overwrite(to, file, at, bytes.len() as u64)?;
            self.mend(file, at, at + bytes.len() as u64)?;
        } else {
            // This may be a log line. A pipe that nobody reads must not block the disk.
            drop(files);
        }
        match offset {
            Some(offset) => rustix::io::pwrite(to, bytes, offset),
            None => rustix::io::write(to, bytes),
        }
    }

    fn read(&self, from: BorrowedFd<'_>, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let file = rustix::fs::fstat(from)?.st_ino;
        if self.lock().contains(&file) {
            let upto = offset + bytes.len() as u64;
            if self.disk_faults().unreadable || self.bad().iter().any(|bad| bad.meets(file, offset, upto)) {
                return Err(Errno::IO);
            }
        }
        rustix::io::pread(from, bytes, offset)
    }

    fn resize(&self, there: BorrowedFd<'_>, len: u64) -> Result<()> {
        let files = self.lock();
        let now = rustix::fs::fstat(there)?;
        if files.contains(&now.st_ino) && len < now.st_size as u64 {
            self.overwrite(there, now.st_ino, len, now.st_size as u64 - len)?;
        }
        rustix::fs::ftruncate(there, len)
    }

    fn sync(&self, there: BorrowedFd<'_>) -> Result<()> {
        let (file, size, upto) = {
            let files = self.lock();
            let now = rustix::fs::fstat(there)?;
            if now.st_ino != self.inode && !files.contains(&now.st_ino) {
                return rustix::fs::fsync(there);
            }
            (now.st_ino, now.st_size as u64, self.length()?)
        };
        let mood = self.disk_faults();
        let (tv_sec, tv_nsec) = (mood.sync_ms / 1000, mood.sync_ms % 1000 * 1_000_000);
        // A signal may end the wait early, as that of a real sync.
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: tv_sec as i64, tv_nsec: tv_nsec as i64 });
        if mood.sync_fails {
            return Err(Errno::IO);
        }
        if mood.lies {
            return Ok(());
        }
        let _files = self.lock();
        match file == self.inode {
            true => self.note(&Record::SyncNames { upto }),
            false => self.note(&Record::Sync { file, upto, size }),
        }
    }

    fn rename(&self, from: (String, &CStr), to: (String, &CStr)) -> Result<()> {
        let _files = self.lock();
        let saved = self.save(to.1)?;
        self.note(&Record::Rename { from: from.0, to: to.0, saved })?;
        rustix::fs::rename(from.1, to.1)
    }

    fn unlink(&self, name: String, path: &CStr) -> Result<()> {
        let _files = self.lock();
        let saved = self.save(path)?;
        self.note(&Record::Unlink { name, saved })?;
        rustix::fs::unlink(path)
    }
}

unsafe extern "C" {
    /// Returns the address of this thread's `errno` (glibc and musl).
    fn __errno_location() -> *mut c_int;
}

/// Returns a result as the C library does: -1 and `errno` for an error.
fn answer<T: From<i8>>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        // SAFETY: the C library's pointer to this thread's own `errno` is always valid.
        unsafe { *__errno_location() = error.raw_os_error() };
        T::from(-1)
    })
}

/// # Safety
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's path ends in a zero byte.
    let path = unsafe { CStr::from_ptr(path) };
    let flags = OFlags::from_bits_retain(flags as u32);
    let given = flags.intersects(OFlags::CREATE | OFlags::TMPFILE);
    let mode = if given { Mode::from_raw_mode(mode) } else { Mode::empty() };
    let inside = shim().and_then(|shim| Some((shim, shim.name(path)?)));
    let opened = match inside {
        Some((shim, name)) => shim.open(name, path, flags, mode),
        None => rustix::fs::open(path, flags, mode),
    };
    answer(opened.map(IntoRawFd::into_raw_fd))
}

/// # Safety
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller keeps the same contract.
    unsafe { open64(path, flags, mode) }
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: usize, offset: i64) -> isize {
    // SAFETY: the caller's descriptor is open during the call, and the buffer has this length.
    let (fd, bytes) = unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts(bytes.cast(), len)) };
    let written = match shim() {
        Some(shim) => shim.write(fd, bytes, Some(offset as u64)),
        None => rustix::io::pwrite(fd, bytes, offset as u64),
    };
    answer(written.map(|written| written as isize))
}

/// # Safety
/// As `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, len: usize, offset: i64) -> isize {
    // SAFETY: the caller's descriptor is open during the call, and the buffer is its own and has this length.
    let (fd, bytes) =
        unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts_mut(bytes.cast(), len)) };
    let read = match shim() {
        Some(shim) => shim.read(fd, bytes, offset as u64),
        None => rustix::io::pread(fd, bytes, offset as u64),
    };
    answer(read.map(|read| read as isize))
}

/// # Safety
/// As `write(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's descriptor is open during the call, and the buffer has this length.
    let (fd, bytes) = unsafe { (BorrowedFd::borrow_raw(fd), std::slice::from_raw_parts(bytes.cast(), len)) };
    let written = match shim() {
        Some(shim) => shim.write(fd, bytes, None),
        None => rustix::io::write(fd, bytes),
    };
    answer(written.map(|written| written as isize))
}

/// # Safety
/// As `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    // SAFETY: the caller's descriptor is open during the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let resized = match shim() {
        Some(shim) => shim.resize(fd, len as u64),
        None => rustix::fs::ftruncate(fd, len as u64),
    };
    answer(resized.map(|()| 0))
}

/// # Safety
/// As `fsync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: the caller's descriptor is open during the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let synced = match shim() {
        Some(shim) => shim.sync(fd),
        None => rustix::fs::fsync(fd),
    };
    answer(synced.map(|()| 0))
}

/// # Safety
/// As `fdatasync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: the caller keeps the same contract.
    unsafe { fsync(fd) }
}

/// # Safety
/// As `rename(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's paths end in a zero byte.
    let (from, to) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    let inside = shim().and_then(|shim| Some((shim, shim.name(from)?, shim.name(to)?)));
    let renamed = match inside {
        Some((shim, old, new)) => shim.rename((old, from), (new, to)),
        None => rustix::fs::rename(from, to),
    };
    answer(renamed.map(|()| 0))
}

/// # Safety
/// As `unlink(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's path ends in a zero byte.
    let path = unsafe { CStr::from_ptr(path) };
    let inside = shim().and_then(|shim| Some((shim, shim.name(path)?)));
    let unlinked = match inside {
        Some((shim, name)) => shim.unlink(name, path),
        None => rustix::fs::unlink(path),
    };
    answer(unlinked.map(|()| 0))
}
