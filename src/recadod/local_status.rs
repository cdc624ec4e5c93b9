//! The local status: a socket in the data directory, at which a server tells a program of its user in one
//! line that its replica thread takes turns. `recadod monitor` asks there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use recado::server::Pulse;
use recado_sys::local::Answering;
use recado_sys::process::ProcessId;
use recado_sys::sync::channel;
use recado_sys::threads::spawn_named;

/// How long the thread rests after the system took no question, for instance because too many files are open.
const REST: Duration = Duration::from_secs(1);

/// Where the socket of the server on this data directory is.
pub(super) fn socket(data: &Path) -> PathBuf {
    data.join("status.sock")
}

/// What a server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalStatus {
    /// Which process answers.
    pub(super) process: ProcessId,
    /// The turns that its replica thread has taken. A thread that hangs takes none, and one that does not has
    /// one a second at least.
    pub(super) turns: u64,
    /// It has no vote yet, or lacks much and fetches it.
    pub(super) catches_up: bool,
    /// A recent slow fsync.
    pub(super) fsync: Duration,
}

impl fmt::Display for LocalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LocalStatus { process, turns, catches_up, fsync } = self;
        write!(
            f,
            "recadod pid={} started={} turns={turns} catches_up={} fsync_us={}",
            process.pid,
            process.started,
            u8::from(*catches_up),
            fsync.as_micros()
        )
    }
}

/// Words that are not known are stepped over: a later version may tell more.
impl FromStr for LocalStatus {
    type Err = ();

    fn from_str(line: &str) -> Result<LocalStatus, ()> {
        let words = line.strip_prefix("recadod ").ok_or(())?;
        let number = |name: &str| -> Result<u64, ()> {
            let mut words = words.split(' ').filter_map(|word| word.split_once('='));
            let (_, digits) = words.find(|(key, _)| *key == name).ok_or(())?;
            digits.parse().map_err(drop)
        };
        let pid = u32::try_from(number("pid")?).map_err(drop)?;
        Ok(LocalStatus {
            process: ProcessId { pid, started: number("started")? },
            turns: number("turns")?,
            catches_up: number("catches_up")? != 0,
            fsync: Duration::from_micros(number("fsync_us")?),
        })
    }
}

/// Answers from now on at the socket in the data directory, which this process has locked. The thread runs
/// until the process ends, so it is never joined.
///
/// # Errors
/// The system's error.
pub(super) fn answer(data: &Path, pulse: Pulse) -> io::Result<()> {
    let socket = Answering::bind(&socket(data))?;
    let process = ProcessId::own()?;
    let (_never, rest) = channel::bounded::<()>(0);
    spawn_named("local-status", move || {
        let _never = _never;
        loop {
            let line = || {
                let (turns, catches_up, fsync) = (pulse.turns(), pulse.catches_up(), pulse.slow_fsync());
                LocalStatus { process, turns, catches_up, fsync }.to_string()
            };
            if let Err(error) = socket.answer(line) {
                tracing::debug!(%error, "a local question was not answered");
                let _ = rest.recv_timeout(REST);
            }
        }
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_told_also_with_more_words_and_never_with_fewer() {
        let told = LocalStatus {
            process: ProcessId { pid: 12, started: 345 },
            turns: u64::MAX,
            catches_up: true,
            fsync: Duration::from_micros(678),
        };
        let line = told.to_string();
        assert_eq!(line.parse(), Ok(told));
        assert_eq!(format!("{line} more=1 words").parse(), Ok(told));
        for word in line.split(' ') {
            assert_eq!(line.replacen(word, "", 1).parse::<LocalStatus>(), Err(()), "without {word}");
        }
        for wrong in ["", "recadod", "recadod pid=-1", &line.replace("pid=12", "pid=99999999999")] {
            assert_eq!(wrong.parse::<LocalStatus>(), Err(()), "{wrong}");
        }
    }
}
