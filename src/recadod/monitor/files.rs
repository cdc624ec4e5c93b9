//! The monitor's files, beside its [view](recado_doctor::monitor): the lock of its directory, and the
//! servers' logs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use recado_sys::durable;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Locks a directory for one monitor, until what this returns is dropped or the process ends. None if another
/// process has the lock.
///
/// # Errors
/// The system's error.
pub(super) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = durable::open(&dir.join("monitor.lock"), options.write(true).create(true).mode(0o600))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens the log of the server whose files are in `home`. The log of an earlier monitor is set aside first,
/// as `log.old`, if this is the server's first start by this one.
///
/// # Errors
/// The system's error.
pub(super) fn log(home: &Path, is_first: bool) -> io::Result<File> {
    let path = home.join("log");
    if is_first && path.exists() {
        fs::rename(&path, home.join("log.old"))?;
    }
    durable::open(&path, OpenOptions::new().append(true).create(true).mode(0o600))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_directory_has_one_monitor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = |expected: bool| {
            let file = super::lock(dir.path()).unwrap();
            assert_eq!(file.is_some(), expected);
            file
        };
        let first = lock(true);
        lock(false);
        drop(first);
        lock(true);
    }

    #[test]
    fn a_log_goes_on_after_a_restart_and_is_set_aside_by_the_next_monitor() {
        let home = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
        writeln!(log(home.path(), true).unwrap(), "one").unwrap();
        writeln!(log(home.path(), false).unwrap(), "two").unwrap();
        assert_eq!(read("log"), "one\ntwo\n");
        writeln!(log(home.path(), true).unwrap(), "three").unwrap();
        assert_eq!((read("log"), read("log.old")), ("three\n".into(), "one\ntwo\n".into()));
    }
}
