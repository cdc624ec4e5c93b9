//! Other processes of this machine: which one a number names, whether it has ended, and signals to it.
//!
//! The system gives the number of a process that has ended to another one. So a process is named by its
//! number and its start together, and it is held by a pidfd, which never names another process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Names a process for as long as this machine runs ([`boot_id`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks of the kernel's clock since the machine's start.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> io::Result<ProcessId> {
        Ok(ProcessId { pid, started: stat(pid)?.started })
    }

    /// This process.
    ///
    /// # Errors
    /// The system does not say when it started.
    pub fn own() -> io::Result<ProcessId> {
        ProcessId::of(std::process::id())
    }

    /// Returns true if the process has not ended. One that has, and that its parent has not waited for yet,
    /// runs no more.
    pub fn runs(self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.started == self.started && !stat.has_ended)
    }
}

/// A process that is held: its number is looked at once, and never used again.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    handle: OwnedFd,
}

impl Process {
    /// Takes hold of a child of this process that has not been waited for, so that its number is its own. It
    /// may have ended.
    ///
    /// # Errors
    /// As for [`Process::open`].
    pub fn open_child(id: ProcessId) -> io::Result<Process> {
        let pid = i32::try_from(id.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process { id, handle: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Takes hold of a process. Returns `None` if it has ended, also if its number is another one's now.
    ///
    /// # Errors
    /// The kernel has no pidfd (Linux before 5.3), or the process may open no more files.
    pub fn open(id: ProcessId) -> io::Result<Option<Process>> {
        let Some(pid) = i32::try_from(id.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            opened => opened?,
        };
        // The start is compared after the pidfd was opened: what is read then is of the process that it
        // names, or that one has ended.
        Ok(id.runs().then_some(Process { id, handle }))
    }

    /// Which process it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Returns true if the process has ended. It may still have to be waited for.
    ///
    /// # Errors
    /// The system's error.
    pub fn has_ended(&self) -> io::Result<bool> {
        Ok(wait_any(&[self.as_fd()], Duration::ZERO)?.contains(&true))
    }

    /// Sends the process a signal. One that has ended takes none, which is no error.
    ///
    /// # Errors
    /// The signal is not this user's to send.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }
}

/// Readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Names this start of the machine. None if the system does not say.
pub fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

/// Waits until one of the files is readable, was closed at its other end or has an error; at most
/// `patience`. Tells of each whether it is. A signal ends the wait.
///
/// # Errors
/// The system's error.
pub fn wait_any(files: &[BorrowedFd<'_>], patience: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect();
    // A wait that is too long for the system is as good as an endless one.
    let patience = Timespec::try_from(patience).ok();
    match poll(&mut polled, patience.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|one| !one.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; files.len()]),
        Err(errno) => Err(errno.into()),
    }
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    has_ended: bool,
    started: u64,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The fields follow the program's name in brackets, which may hold anything, brackets too.
fn parse(stat: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X" | "x");
    // The state is field 3, the start field 22.
    Some(Stat { has_ended, started: fields.nth(18)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that runs until it is killed, or its standard input is closed.
    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["cat", "a b", "x) S 1 (y", ")"] {
            let stat = parse(&format!("12 ({name}) {rest}"));
            assert_eq!(stat, Some(Stat { has_ended: false, started: 4711 }), "{name}");
        }
        assert!(parse(&format!("12 (cat) {}", rest.replacen('S', "Z", 1))).unwrap().has_ended);
        for short in ["", "12 (cat)", "12 (cat) S 1 2 3"] {
            assert_eq!(parse(short), None);
        }
    }

    #[test]
    fn a_process_is_held_until_its_end_and_another_start_is_another_process() {
        let mut child = child();
        let id = ProcessId::of(child.id()).unwrap();
        let process = Process::open(id).unwrap().unwrap();
        assert!(id.runs() && !process.has_ended().unwrap() && process.id() == id);
        let other = ProcessId { started: id.started + 1, ..id };
        assert!(!other.runs() && Process::open(other).unwrap().is_none());
        process.signal(Signal::KILL).unwrap();
        assert_eq!(wait_any(&[process.as_fd()], Duration::from_secs(30)).unwrap(), [true]);
        assert!(process.has_ended().unwrap());
        // It is a zombie until it is waited for.
        assert!(!id.runs() && Process::open(id).unwrap().is_none());
        assert!(Process::open_child(id).unwrap().has_ended().unwrap());
        child.wait().unwrap();
        assert!(process.has_ended().unwrap() && !id.runs());
        process.signal(Signal::KILL).unwrap();
        assert!(Process::open(id).unwrap().is_none());
    }

    #[test]
    fn this_process_runs_and_no_process_has_an_impossible_number() {
        assert!(ProcessId::own().unwrap().runs());
        assert!(Process::open(ProcessId { pid: 0, started: 0 }).unwrap().is_none());
        assert!(Process::open(ProcessId { pid: u32::MAX, started: 0 }).unwrap().is_none());
        assert!(boot_id().is_some_and(|boot| !boot.is_empty()));
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let mut child = child();
        let process = Process::open(ProcessId::of(child.id()).unwrap()).unwrap().unwrap();
        assert_eq!(wait_any(&[process.as_fd()], Duration::from_millis(1)).unwrap(), [false]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
