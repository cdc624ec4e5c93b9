//! The view of a monitor (`recadod monitor`): what it does about each server, in a file in its directory.
//!
//! The file stays when the monitor ends, however that happens. Whether the monitor and the servers that it
//! names still run is looked at when it is read, by their numbers and the times of their starts.

use std::io;
use std::path::{Path, PathBuf};

use recado_sys::durable;
use recado_sys::process::{ProcessId, boot_id};
use serde::{Deserialize, Serialize};

/// The file in the monitor's directory.
const FILE: &str = "monitor.json";

/// The number of the format, which another one has if a field has another meaning.
const FORMAT: u32 = 1;

/// Far above what nine servers take, in bytes.
const BYTES_MAX: u64 = 256 * 1024;

/// A process, named for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks of the kernel's clock since the machine's start.
    pub started: u64,
}

impl From<ProcessId> for Running {
    fn from(ProcessId { pid, started }: ProcessId) -> Running {
        Running { pid, started }
    }
}

impl From<Running> for ProcessId {
    fn from(Running { pid, started }: Running) -> ProcessId {
        ProcessId { pid, started }
    }
}

/// What a monitor does about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was started, and has not answered yet: it reads its data.
    Starts,
    /// It answers.
    Runs,
    /// It answers, and fetches what it lacks from the other servers.
    CatchesUp,
    /// It was killed because it hangs, and has not ended yet.
    Killed,
    /// It was asked to end.
    Stops,
    /// It does not run, and is started later.
    Waits,
    /// It was stopped together with the monitor.
    Stopped,
}

impl State {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starts => "starts",
            State::Runs => "runs",
            State::CatchesUp => "catches up",
            State::Killed => "killed",
            State::Stops => "stops",
            State::Waits => "waits",
            State::Stopped => "stopped",
        }
    }
}

/// The end of a server's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When the monitor saw it, in ms of its machine's clock.
    pub unix_ms: u64,
    /// `exit code 1`, `signal 9`, or `unknown` of a process that another monitor had started.
    pub how: String,
}

/// A server, as its monitor sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// The id of the server.
    pub id: u16,
    /// What the monitor does about it.
    pub state: State,
    /// Since when, in ms of the machine's clock.
    pub since_unix_ms: u64,
    /// Its process, unless it waits or has stopped.
    pub process: Option<Running>,
    /// How often this monitor has started it again.
    pub restarts: u64,
    /// How often this monitor has killed it because it hung.
    pub hangs: u64,
    /// Its last end that this monitor saw.
    pub exit: Option<Exit>,
    /// What it waits for, if that is more than time, and what a person can do.
    pub reason: Option<String>,
    /// When it is started or looked at again, in ms of the machine's clock.
    pub due_unix_ms: Option<u64>,
    /// True from the loss of its data until it votes again.
    pub learns: bool,
    /// Where the file system of its data was mounted when they were last there.
    pub mount: Option<PathBuf>,
}

/// What a monitor has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorView {
    format: u32,
    /// The monitor's process.
    pub process: Running,
    /// The start of the machine in which its processes were started.
    pub boot: Option<String>,
    /// When the monitor started, in ms of the machine's clock.
    pub since_unix_ms: u64,
    /// The servers, ascending by id.
    pub servers: Vec<ServerView>,
}

impl MonitorView {
    /// The view of this process, which is a monitor.
    ///
    /// # Errors
    /// The system does not say when this process started.
    pub fn own(since_unix_ms: u64, servers: Vec<ServerView>) -> io::Result<MonitorView> {
        let process = ProcessId::own()?.into();
        Ok(MonitorView { format: FORMAT, process, boot: boot_id(), since_unix_ms, servers })
    }

    /// Reads what the monitor of this directory has last written.
    ///
    /// # Errors
    /// There is none, the file cannot be read, or it is none of this version.
    pub fn read(dir: &Path) -> io::Result<MonitorView> {
        let bytes = durable::read(&dir.join(FILE), BYTES_MAX)?;
        let view: MonitorView = serde_json::from_slice(&bytes)?;
        if view.format != FORMAT {
            let told = format!("{FILE} is of format {}, this program reads {FORMAT}", view.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, told));
        }
        Ok(view)
    }

    /// Writes it into the monitor's directory, as a whole or not at all.
    ///
    /// # Errors
    /// The system's error.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable::replace(&dir.join(FILE), &bytes)
    }

    /// Returns true if the monitor runs now, on this machine.
    pub fn runs(&self) -> bool {
        self.is_alive(self.process)
    }

    /// Returns true if a process that this view names runs now, on this machine.
    pub fn is_alive(&self, process: Running) -> bool {
        self.boot == boot_id() && ProcessId::from(process).runs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(process: Option<Running>) -> ServerView {
        ServerView {
            id: 1,
            state: State::CatchesUp,
            since_unix_ms: 5,
            process,
            restarts: 2,
            hangs: 1,
            exit: Some(Exit { unix_ms: 4, how: "signal 9".into() }),
            reason: None,
            due_unix_ms: None,
            learns: true,
            mount: Some("/data".into()),
        }
    }

    #[test]
    fn a_view_is_read_as_it_was_written_and_names_processes_of_this_start_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MonitorView::read(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut view = MonitorView::own(7, vec![server(None)]).unwrap();
        view.write(dir.path()).unwrap();
        assert_eq!(MonitorView::read(dir.path()).unwrap(), view);
        assert!(view.runs());
        view.process.started += 1;
        assert!(!view.runs(), "another process has its number now");
        let mut view = MonitorView::own(7, Vec::new()).unwrap();
        view.boot = Some("another".into());
        assert!(!view.runs() && !view.is_alive(view.process));
    }

    #[test]
    fn what_is_no_view_of_this_version_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut view = MonitorView::own(7, Vec::new()).unwrap();
        view.format = FORMAT + 1;
        view.write(dir.path()).unwrap();
        assert!(MonitorView::read(dir.path()).unwrap_err().to_string().contains("format 2"));
        durable::replace(&dir.path().join(FILE), b"{}").unwrap();
        assert!(MonitorView::read(dir.path()).is_err());
    }
}
